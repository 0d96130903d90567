"""Inclusion proofs (RFC 9162, 2.1.3) against a tree that is built as the RFC defines it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_jobs.core.merkle import inclusion_path, is_included, merkle_root, path_root


def head(leaves: Sequence[bytes]) -> bytes:
    """MTH of 2.1.1, word by word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = split(len(leaves))
    return hashlib.sha256(b"\x01" + head(leaves[:k]) + head(leaves[k:])).digest()


def split(count: int) -> int:
    """The largest power of two below `count`."""
    return next(1 << bits for bits in range(count.bit_length(), -1, -1) if 1 << bits < count)


def path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of 2.1.3.1, word by word."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), head(leaves[k:])]
    return [*path(m - k, leaves[k:]), head(leaves[:k])]


def leaves_of(count: int) -> list[bytes]:
    return [hashlib.sha256(b"leaf %d" % number).digest() for number in range(count)]


@pytest.mark.parametrize("count", range(1, 42))
def test_every_path_is_the_recursive_one_and_leads_to_the_root(count: int) -> None:
    leaves = leaves_of(count)
    for index, leaf in enumerate(leaves):
        found = inclusion_path(leaves, index)
        assert list(found) == path(index, leaves)
        assert is_included(leaf, index, count, found, head(leaves))
        assert path_root(leaf, index, count, found) == merkle_root(leaves)


def test_the_examples_of_the_rfc() -> None:
    """2.1.5: seven entries; the paths of d0, d3, d4 and d6 in the figure's names."""
    d = leaves_of(7)
    a, b, c, e, f, j = (hashlib.sha256(b"\x00" + d[i]).digest() for i in (0, 1, 2, 4, 5, 6))
    g = head(d[0:2])
    h, i, k, m = head(d[2:4]), head(d[4:6]), head(d[0:4]), head(d[4:7])
    assert inclusion_path(d, 0) == (b, h, m)
    assert inclusion_path(d, 3) == (c, g, m)
    assert inclusion_path(d, 4) == (f, j, k)
    assert inclusion_path(d, 6) == (i, k)
    assert is_included(d[6], 6, 7, (i, k), head(d))
    assert not is_included(d[6], 6, 7, (a, k), head(d))
    assert not is_included(d[6], 6, 7, (e, k), head(d))


trees = st.integers(1, 70).flatmap(lambda count: st.tuples(st.just(count), st.integers(0, count - 1)))


@settings(max_examples=200, deadline=None)
@given(trees, st.data())
def test_nothing_else_verifies(tree: tuple[int, int], data: st.DataObject) -> None:
    """Another entry, place, sibling or root, a path too short or too long: refused."""
    count, index = tree
    leaves = leaves_of(count)
    root, found = head(leaves), inclusion_path(leaves, index)
    other = data.draw(st.binary(min_size=32, max_size=32).filter(lambda one: one != leaves[index]))
    assert not is_included(other, index, count, found, root)
    wrong = data.draw(st.integers(-2, count + 2).filter(lambda one: one != index))
    assert not is_included(leaves[index], wrong, count, found, root)
    flipped = bytearray(root)
    flipped[data.draw(st.integers(0, 31))] ^= 1 << data.draw(st.integers(0, 7))
    assert not is_included(leaves[index], index, count, found, bytes(flipped))
    assert not is_included(leaves[index], index, count, (*found, other), root)
    if found:
        at = data.draw(st.integers(0, len(found) - 1))
        assert not is_included(leaves[index], index, count, (*found[:at], other, *found[at + 1 :]), root)
        assert not is_included(leaves[index], index, count, found[:at] + found[at + 1 :], root)
        node = hashlib.sha256(b"\x01" + b"".join(sorted((leaves[index], found[0])))).digest()
        assert not is_included(node, index // 2, (count + 1) // 2, found[1:], root), "an inner node is no entry"


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.data())
def test_a_path_of_another_size_has_another_shape_or_the_same_steps(count: int, size: int, data: st.DataObject) -> None:
    """Sizes with the same steps from a place share its paths: why the size comes from what is signed."""
    index = data.draw(st.integers(0, min(count, size) - 1))
    leaves = leaves_of(count)
    holds = is_included(leaves[index], index, size, inclusion_path(leaves, index), head(leaves))
    assert holds == (steps(index, count) == steps(index, size))


def steps(index: int, count: int) -> list[bool]:
    """On which side each sibling of a path stands."""
    if count == 1:
        return []
    k = split(count)
    return [*steps(index, k), False] if index < k else [*steps(index - k, count - k), True]


@pytest.mark.parametrize(("index", "count"), [(-1, 3), (3, 3), (0, 0), (7, 3)])
def test_no_path_without_an_entry(index: int, count: int) -> None:
    with pytest.raises(IndexError):
        inclusion_path(leaves_of(count), index)
    assert path_root(bytes(32), index, count, ()) is None
