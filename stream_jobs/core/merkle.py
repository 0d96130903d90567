"""Merkle trees of RFC 9162: roots in logarithmic memory (2.1.1), and proofs that an entry is in one (2.1.3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256


def merkle_root(entries: Sequence[bytes]) -> bytes:
    """Root over entries that are all at hand, 32 bytes: level by level, as `MerkleTree` has it."""
    level = [sha256(b"\x00" + entry).digest() for entry in entries]
    if not level:
        return sha256(b"").digest()
    while len(level) > 1:
        level = _above(level)
    return level[0]


def _above(level: list[bytes]) -> list[bytes]:
    """The level above. A right end without a partner goes up as it is: the RFC's split at the largest power of two."""
    above = [sha256(b"\x01" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
    return above + level[-1:] if len(level) % 2 else above


def inclusion_path(entries: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Siblings, 32 bytes each, from entry `index` up to the root (2.1.3.1); IndexError for an index that is none."""
    if not 0 <= index < len(entries):
        raise IndexError(f"entry {index} of {len(entries)}")
    level, path = [sha256(b"\x00" + entry).digest() for entry in entries], []
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        level, index = _above(level), index // 2
    return tuple(path)


def path_root(entry: bytes, index: int, count: int, path: Sequence[bytes]) -> bytes | None:
    """The root that `path` leads to from `entry`, number `index` of `count` (2.1.3.2); None if it is no such path."""
    if not 0 <= index < count:
        return None
    node, last = sha256(b"\x00" + entry).digest(), count - 1
    for sibling in path:
        if last == 0:
            return None
        if index % 2 or index == last:
            node = sha256(b"\x01" + sibling + node).digest()
            while not index % 2 and index:  # levels on which the node was the right end without a partner
                index, last = index // 2, last // 2
        else:
            node = sha256(b"\x01" + node + sibling).digest()
        index, last = index // 2, last // 2
    return node if last == 0 else None


def is_included(entry: bytes, index: int, count: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `path` leads from `entry`, number `index` of `count`, to `root`; False for any other input.

    `count` must come from whoever vouches for the root: trees of several sizes may share a path.
    """
    return path_root(entry, index, count, path) == root


class MerkleTree:
    """Root over entries as they come. Holds one hash per level, so that a flood of entries costs no memory."""

    def __init__(self, entries: Iterable[bytes] = ()):
        self.count = 0
        self._peaks: list[tuple[int, bytes]] = []
        for entry in entries:
            self.append(entry)

    def append(self, entry: bytes) -> None:
        """Add one entry (any bytes)."""
        height, node = 0, sha256(b"\x00" + entry).digest()
        while self._peaks and self._peaks[-1][0] == height:
            node = sha256(b"\x01" + self._peaks.pop()[1] + node).digest()
            height += 1
        self._peaks.append((height, node))
        self.count += 1

    def root(self) -> bytes:
        """Root, 32 bytes; SHA-256 of nothing for an empty tree.

        Joining the peaks from the right gives the RFC's split at the largest power of two.
        """
        if not self._peaks:
            return sha256(b"").digest()
        node = self._peaks[-1][1]
        for _, left in reversed(self._peaks[:-1]):
            node = sha256(b"\x01" + left + node).digest()
        return node

    def extend(self, other: MerkleTree) -> None:
        """Add the root of `other` as one entry, if it has any: its entries are proven through it."""
        if other.count:
            self.append(other.root())
