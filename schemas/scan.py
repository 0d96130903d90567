"""Walk Avro bytes before anything is built from them: complete, canonical, and small once decoded.

Canonical: shortest varints in the range of their type, booleans 0 or 1, arrays in one block with a positive count.
It closes every gap between what a lenient reader accepts and what is signed. Bounded: two bytes can be a record in
an array and cost 200 bytes decoded, so cells are counted before they exist.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from schemas.errors import SchemaError

MAX_CELLS = 1 << 16
"""Fields and array items in one value; about 130 bytes each once decoded, hence below 9 MiB. The largest honest
report of 8 GPU classes has about 700."""

_Walk = Callable[[bytes, int, list[int]], int]
_RANGE = {"int": 31, "long": 63}


def _malformed(what: str) -> SchemaError:
    return SchemaError(what)


def _not_canonical(what: str) -> SchemaError:
    return SchemaError(what, code="NOT_CANONICAL")


def _long(data: bytes, pos: int) -> tuple[int, int]:
    """Zigzag varint of at most 64 bits at `pos`: its value and where it ends."""
    raw = shift = 0
    while True:
        if pos >= len(data):
            raise _malformed("a number is cut short")
        byte = data[pos]
        pos += 1
        raw |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise _malformed("a number has more than 64 bits")
    if raw >> 64:
        raise _malformed("a number has more than 64 bits")
    if byte == 0 and shift:
        raise _not_canonical("a number is not in its shortest encoding")
    return (raw >> 1) ^ -(raw & 1), pos


def _short(data: bytes, pos: int) -> tuple[int, int]:
    """As `_long`, faster where one byte is all."""
    if pos < len(data) and (byte := data[pos]) < 0x80:
        return (byte >> 1) ^ -(byte & 1), pos + 1
    return _long(data, pos)


def _number(bits: int) -> _Walk:
    def walk(data: bytes, pos: int, room: list[int]) -> int:
        if pos < len(data) and data[pos] < 0x80:
            return pos + 1
        value, pos = _long(data, pos)
        if value >> bits not in (0, -1):
            raise _malformed(f"{value} does not fit {bits + 1} bits")
        return pos

    return walk


def _bytes(data: bytes, pos: int, room: list[int]) -> int:
    size, pos = _short(data, pos)
    if size < 0 or size > len(data) - pos:
        raise _malformed(f"length {size} with {len(data) - pos} bytes left")
    return pos + size


def _boolean(data: bytes, pos: int, room: list[int]) -> int:
    if pos >= len(data):
        raise _malformed("a boolean is cut short")
    if data[pos] > 1:
        raise _not_canonical("a boolean is neither 0 nor 1")
    return pos + 1


def _fixed(size: int) -> _Walk:
    def walk(data: bytes, pos: int, room: list[int]) -> int:
        if size > len(data) - pos:
            raise _malformed(f"{size} bytes expected, {len(data) - pos} left")
        return pos + size

    return walk


def _null(data: bytes, pos: int, room: list[int]) -> int:
    return pos


def _union(branches: list[_Walk]) -> _Walk:
    by_byte = {2 * index: branch for index, branch in enumerate(branches)}

    def walk(data: bytes, pos: int, room: list[int]) -> int:
        branch = by_byte.get(data[pos]) if pos < len(data) else None
        if branch is None:  # cut short, too many, or padded: all malformed
            raise _malformed(f"no such branch of {len(branches)} in a union")
        return pos + 1 if branch is _null else branch(data, pos + 1, room)

    return walk


def _record(steps: list[_Walk]) -> _Walk:
    def walk(data: bytes, pos: int, room: list[int]) -> int:
        for step in steps:
            pos = step(data, pos, room)
        return pos

    return walk


def _array(item: _Walk, cells: int) -> _Walk:
    def walk(data: bytes, pos: int, room: list[int]) -> int:
        count, pos = _short(data, pos)
        if count == 0:
            return pos
        if count < 0:
            raise _not_canonical("an array block has a negative count")
        if count > len(data) - pos:  # no item of ours is empty
            raise _malformed(f"{count} items with {len(data) - pos} bytes left")
        room[0] -= count * cells
        if room[0] < 0:
            raise SchemaError("more fields and array items than any honest record has", code="TOO_LARGE")
        for _ in range(count):
            pos = item(data, pos, room)
        if pos >= len(data):
            raise _malformed("an array is cut short")
        if data[pos] != 0:
            raise _not_canonical("an array has more than one block")
        return pos + 1

    return walk


def _compile(node: Any, names: dict[str, tuple[_Walk, int]]) -> tuple[_Walk, int]:
    """The walk of one parsed schema node and the cells it costs without its arrays' items."""
    if isinstance(node, list):
        branches = [_compile(branch, names) for branch in node]
        return _union([walk for walk, _ in branches]), max(cells for _, cells in branches)
    kind = node["type"] if isinstance(node, dict) else node
    if kind in _RANGE:
        return _number(_RANGE[kind]), 1
    simple: dict[str, _Walk] = {"string": _bytes, "bytes": _bytes, "boolean": _boolean, "null": _null}
    if kind in simple:
        return simple[kind], 1
    if kind == "array":
        return _array(*_compile(node["items"], names)), 1
    if kind == "fixed":
        names[node["name"]] = made = (_fixed(node["size"]), 1)
        return made
    if kind == "record":
        steps = [_compile(field["type"], names) for field in node["fields"]]
        names[node["name"]] = made = (_record([walk for walk, _ in steps]), 1 + sum(cells for _, cells in steps))
        return made
    return names[kind]


class Scan:
    """Compiled check of one parsed schema."""

    def __init__(self, parsed: Any, max_cells: int = MAX_CELLS) -> None:
        self._walk, _ = _compile(parsed, {})
        self._max_cells = max_cells

    def end(self, data: bytes, start: int, what: str) -> int:
        """Return where the value that begins at `start` ends.

        Raises SchemaError naming `what`, with code MALFORMED, NOT_CANONICAL or TOO_LARGE. Text is not decoded here.
        """
        try:
            return self._walk(data, start, [self._max_cells])
        except SchemaError as error:
            raise SchemaError(f"{what}: {error}", code=error.code, field=what) from None
