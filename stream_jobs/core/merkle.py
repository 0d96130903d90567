"""Merkle tree hashing of RFC 9162, section 2.1.1, in logarithmic memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256


def merkle_root(entries: Sequence[bytes]) -> bytes:
    """Root over entries that are all at hand, 32 bytes: level by level, as `MerkleTree` has it."""
    level = [sha256(b"\x00" + entry).digest() for entry in entries]
    if not level:
        return sha256(b"").digest()
    while len(level) > 1:
        # The right end of a level without a partner goes up as it is: the RFC's split at the largest power of two.
        rest = level[-1:] if len(level) % 2 else []
        level = [sha256(b"\x01" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
        level += rest
    return level[0]


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
