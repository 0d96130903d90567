"""What all SPDM messages share: codes, versions, the header, a cursor that cannot read past their end (DSP0274)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from verifier.errors import SpdmMalformed

VERSION_10, VERSION_11, VERSION_12, VERSION_13, VERSION_14 = 0x10, 0x11, 0x12, 0x13, 0x14
VERSIONS = (VERSION_10, VERSION_11, VERSION_12, VERSION_13, VERSION_14)
"""The SPDMVersion byte of messages: major in the upper four bits, minor in the lower."""

DIGESTS, CERTIFICATE, CHALLENGE_AUTH, VERSION = 0x01, 0x02, 0x03, 0x04
MEASUREMENTS, CAPABILITIES, ALGORITHMS, ERROR = 0x60, 0x61, 0x63, 0x7F
GET_DIGESTS, GET_CERTIFICATE, CHALLENGE, GET_VERSION = 0x81, 0x82, 0x83, 0x84
GET_MEASUREMENTS, GET_CAPABILITIES, NEGOTIATE_ALGORITHMS, RESPOND_IF_READY = 0xE0, 0xE1, 0xE3, 0xFF

HEADER_BYTES = 4
NONCE_BYTES = 32
CONTEXT_BYTES = 8
MAX_SLOT = 7
ALIGNMENT = 4
"""PCI DOE carries messages in units of four bytes and keeps the zeros that fill the last one."""


class Fields:
    """Takes fields off the front of a message; short input raises `SpdmMalformed` before anything is allocated.

    Numbers are little-endian, as everywhere in SPDM.
    """

    __slots__ = ("_data", "_offset", "name")

    def __init__(self, data: bytes, name: str, offset: int = 0) -> None:
        self._data = data
        self._offset = offset
        self.name = name

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
        start = self._offset
        stop = start + size
        if stop > len(self._data):
            where = f"{self.name}.{field}"
            raise SpdmMalformed(f"{where}: needs {size} bytes, {self.remaining} are left", field=where)
        self._offset = stop
        return self._data[start:stop]

    def number(self, size: int, field: str) -> int:
        """The next `size` bytes as a little-endian integer."""
        start = self._offset
        stop = start + size
        if stop > len(self._data):
            self.take(size, field)  # which raises
        self._offset = stop
        return int.from_bytes(self._data[start:stop], "little")

    def finish(self) -> None:
        """Raise `SpdmMalformed` unless everything was read."""
        if self.remaining:
            raise SpdmMalformed(f"{self.name}: {self.remaining} bytes too many", field=self.name)


@dataclass(frozen=True, slots=True)
class Header:
    """The first four bytes of every message: version, code, and two parameters whose sense the code gives."""

    version: int
    code: int
    param1: int = 0
    param2: int = 0

    def encode(self) -> bytes:
        """Four bytes."""
        return bytes((self.version, self.code, self.param1, self.param2))

    @property
    def is_request(self) -> bool:
        """Requests have the highest bit of their code set."""
        return bool(self.code & 0x80)


def parse_header(data: bytes) -> Header:
    """The header at the front of `data`. `SpdmMalformed`."""
    if len(data) < HEADER_BYTES:
        raise SpdmMalformed(f"a message of {len(data)} bytes has no header", field="message")
    return _header(data[:HEADER_BYTES])


@lru_cache(maxsize=256)
def _header(front: bytes) -> Header:
    """Remembered: each message's is looked at by several, and there are few."""
    return Header(*front)


def begin(data: bytes, code: int, name: str) -> tuple[Header, Fields]:
    """Header of a message that must have `code`, and a cursor behind it. `SpdmMalformed`."""
    header = parse_header(data)
    if header.code != code:
        raise SpdmMalformed(f"{name}: code {header.code:#04x} instead of {code:#04x}", field=f"{name}.code")
    return header, Fields(data, name, HEADER_BYTES)


def unsigned(value: int, size: int) -> bytes:
    """`value` in `size` bytes, little-endian. `ValueError` if it does not fit."""
    if not 0 <= value < 1 << 8 * size:
        raise ValueError(f"{value} does not fit into {size} bytes")
    return value.to_bytes(size, "little")
