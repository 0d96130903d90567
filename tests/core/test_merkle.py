"""The tree in logarithmic memory has the root of the recursive definition."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest

from stream_jobs.core.merkle import MerkleTree, merkle_root


def naive(leaves: Sequence[bytes]) -> bytes:
    """RFC 9162, section 2.1.1, word by word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + naive(leaves[:k]) + naive(leaves[k:])).digest()


@pytest.mark.parametrize("count", range(71))
def test_root_is_the_recursive_one(count: int) -> None:
    leaves = [hashlib.sha256(bytes([i])).digest() for i in range(count)]
    tree = MerkleTree()
    for leaf in leaves:
        tree.append(leaf)
    assert tree.root() == MerkleTree(leaves).root() == merkle_root(leaves) == naive(leaves)
    assert tree.count == count


def test_a_tree_taken_over_is_one_leaf() -> None:
    tree, other = MerkleTree([b"a"]), MerkleTree([b"b", b"c"])
    tree.extend(other)
    tree.extend(MerkleTree())
    assert tree.root() == naive([b"a", naive([b"b", b"c"])])
