"""Strict DER, as much of it as certificates' extensions need (X.690 §10): definite minimal lengths, bounded depth.

Every departure from DER raises `DerError`, a `ValueError` that callers turn into the refusal of their format.
"""

from __future__ import annotations

from dataclasses import dataclass

from verifier.limits import MAX_DER_DEPTH, MAX_DER_ELEMENTS

BOOLEAN = 0x01
INTEGER = 0x02
OCTET_STRING = 0x04
OBJECT_ID = 0x06
ENUMERATED = 0x0A
SEQUENCE = 0x30
SET = 0x31


class DerError(ValueError):
    """Bytes that are not strict DER, or DER beyond our limits."""


@dataclass(frozen=True, slots=True)
class Der:
    """One DER value: its identifier octet and content octets."""

    tag: int
    content: bytes

    def encode(self) -> bytes:
        """Identifier, minimal length, content."""
        size = len(self.content)
        if size < 0x80:
            return bytes([self.tag, size]) + self.content
        octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
        return bytes([self.tag, 0x80 | len(octets)]) + octets + self.content

    def expect(self, tag: int, what: str) -> bytes:
        """The content if the identifier is `tag`."""
        if self.tag != tag:
            raise DerError(f"{what}: tag {self.tag:#04x} instead of {tag:#04x}")
        return self.content


def span(data: bytes, at: int, end: int, what: str) -> tuple[int, int, int]:
    """(identifier, start, stop) of the content of the DER value that begins at `at` and lies before `end`.

    Copies nothing; `end` is at most the length of `data`.
    """
    if end - at < 2:
        raise DerError(f"{what}: truncated")
    tag, size, start = data[at], data[at + 1], at + 2
    if tag & 0x1F == 0x1F:
        raise DerError(f"{what}: multi-byte tag")
    if size & 0x80:
        octets = size & 0x7F
        # Three length octets reach beyond every limit of ours; zero of them would be the indefinite form.
        if not 1 <= octets <= 3 or end - start < octets:
            raise DerError(f"{what}: length")
        size, start = int.from_bytes(data[start : start + octets], "big"), start + octets
        if size < 0x80 or data[at + 2] == 0:
            raise DerError(f"{what}: length is not minimal")
    if end - start < size:
        raise DerError(f"{what}: needs {size} bytes, {end - start} are left")
    return tag, start, start + size


def span_of(data: bytes, at: int, end: int, tag: int, what: str) -> tuple[int, int]:
    """(start, stop) as `span`, if the identifier is `tag`."""
    found, start, stop = span(data, at, end, what)
    if found != tag:
        raise DerError(f"{what}: tag {found:#04x} instead of {tag:#04x}")
    return start, stop


def read_one(data: bytes, what: str) -> tuple[Der, bytes]:
    """The first DER value of `data` and the bytes after it."""
    tag, start, stop = span(data, 0, len(data), what)
    return Der(tag, data[start:stop]), data[stop:]


def read_all(data: bytes, what: str) -> Der:
    """The only DER value of `data`."""
    value, rest = read_one(data, what)
    if rest:
        raise DerError(f"{what}: {len(rest)} trailing bytes")
    return value


def read_sequence(value: Der, what: str, depth: int = 0) -> tuple[Der, ...]:
    """The elements of a SEQUENCE; `depth` counts the sequences around it."""
    if depth >= MAX_DER_DEPTH:
        raise DerError(f"{what}: nested too deep")
    rest = value.expect(SEQUENCE, what)
    elements: list[Der] = []
    while rest:
        if len(elements) == MAX_DER_ELEMENTS:
            raise DerError(f"{what}: more than {MAX_DER_ELEMENTS} elements")
        element, rest = read_one(rest, what)
        elements.append(element)
    return tuple(elements)


def read_unsigned(value: Der, what: str, maximum: int, tag: int = INTEGER) -> int:
    """A non-negative INTEGER (or ENUMERATED) of at most `maximum`, minimally encoded."""
    return unsigned_of(value.expect(tag, what), what, maximum)


def unsigned_of(content: bytes, what: str, maximum: int) -> int:
    """The number of an INTEGER's (or ENUMERATED's) content octets, as `read_unsigned`."""
    if not content or content[0] & 0x80:
        raise DerError(f"{what}: empty or negative")
    if len(content) > 1 and content[0] == 0 and not content[1] & 0x80:
        raise DerError(f"{what}: not minimal")
    number = int.from_bytes(content, "big")
    if number > maximum:
        # Not the number itself: one of some thousand digits cannot even be written.
        raise DerError(f"{what}: exceeds {maximum}")
    return number


def read_boolean(value: Der, what: str) -> bool:
    """A BOOLEAN, which in DER is 00 or FF."""
    content = value.expect(BOOLEAN, what)
    if content not in (b"\x00", b"\xff"):
        raise DerError(f"{what}: not a DER boolean")
    return content == b"\xff"


def read_octets(value: Der, what: str, size: int) -> bytes:
    """An OCTET STRING of exactly `size` bytes."""
    content = value.expect(OCTET_STRING, what)
    if len(content) != size:
        raise DerError(f"{what}: {len(content)} bytes instead of {size}")
    return content


def sequence(*elements: Der) -> Der:
    """A SEQUENCE of `elements`."""
    return Der(SEQUENCE, b"".join(element.encode() for element in elements))


def unsigned(number: int, tag: int = INTEGER) -> Der:
    """A non-negative INTEGER (or ENUMERATED), minimally encoded."""
    return Der(tag, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def boolean(value: bool) -> Der:
    """A BOOLEAN."""
    return Der(BOOLEAN, b"\xff" if value else b"\x00")


def octets(content: bytes) -> Der:
    """An OCTET STRING."""
    return Der(OCTET_STRING, content)
