"""Merkle tree hashing of RFC 9162, section 2.1.1, in logarithmic memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


class MerkleTree:
    """Root over entries as they come. Holds one hash per level, so that a flood of entries costs no memory."""

    def __init__(self, entries: Iterable[bytes] = ()):
        self.count = 0
        self._peaks: list[tuple[int, bytes]] = []
        for entry in entries:
            self.append(entry)

    def append(self, entry: bytes) -> None:
        """Add one entry (any bytes)."""
        height, node = 0, hashlib.sha256(b"\x00" + entry).digest()
        while self._peaks and self._peaks[-1][0] == height:
            node = hashlib.sha256(b"\x01" + self._peaks.pop()[1] + node).digest()
            height += 1
        self._peaks.append((height, node))
        self.count += 1

    def root(self) -> bytes:
        """Root, 32 bytes; SHA-256 of nothing for an empty tree.

        Joining the peaks from the right gives the RFC's split at the largest power of two.
        """
        if not self._peaks:
            return hashlib.sha256(b"").digest()
        node = self._peaks[-1][1]
        for _, left in reversed(self._peaks[:-1]):
            node = hashlib.sha256(b"\x01" + left + node).digest()
        return node

    def extend(self, other: MerkleTree) -> None:
        """Add the root of `other` as one entry, if it has any: its entries are proven through it."""
        if other.count:
            self.append(other.root())
