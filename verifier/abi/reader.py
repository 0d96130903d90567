"""A cursor over bytes that cannot read past their end."""

from __future__ import annotations

from verifier.errors import QuoteMalformed


class Reader:
    """Takes fields off the front of `data`; short input raises `QuoteMalformed` before anything is allocated."""

    __slots__ = ("_data", "_offset")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    @property
    def offset(self) -> int:
        """Bytes read so far."""
        return self._offset

    @property
    def remaining(self) -> int:
        """Bytes not yet read."""
        return len(self._data) - self._offset

    def take(self, size: int, field: str) -> bytes:
        """The next `size` bytes; `field` names them in the error."""
        if size > self.remaining:
            raise QuoteMalformed(f"{field}: needs {size} bytes, {self.remaining} are left", field=field)
        start = self._offset
        self._offset += size
        return self._data[start : self._offset]

    def u16(self, field: str) -> int:
        """The next two bytes as a little-endian integer."""
        return int.from_bytes(self.take(2, field), "little")

    def u32(self, field: str) -> int:
        """The next four bytes as a little-endian integer."""
        return int.from_bytes(self.take(4, field), "little")

    def rest(self) -> bytes:
        """All bytes not yet read."""
        return self.take(self.remaining, "rest")

    def finish(self, field: str) -> None:
        """Raise `QuoteMalformed` unless everything was read."""
        if self.remaining:
            raise QuoteMalformed(f"{field}: {self.remaining} bytes too many", field=field)
