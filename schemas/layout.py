"""Where the fields of a report lie in its bytes, so that the next one like it need not be walked.

Reports of one session repeat almost all of their bytes from window to window: names, grid, privacy statement. A layout
is learned from one report and reads another if all those bytes are the same and the rest, between them, is canonical.
Then the walk of `schemas.scan` and the decoder would take the same way through it and read the same. A layout never
refuses: what it does not fit is left to them.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, cast

from schemas.pins import part
from schemas.records import WindowReport

Path = tuple[str | int, ...]
"""Names of fields and positions in arrays, from the report down."""

VARIABLE = frozenset(
    {
        ("seq",),
        ("prev_digest",),
        ("window_start_ms",),
        ("window_end_ms",),
        ("samples_taken",),
        ("stalls_coarse",),
        ("classes", "readings_taken"),
        ("classes", "transitions"),
        ("classes", "pane_sums"),
        ("classes", "histogram"),
        ("classes", "energy_residual_mj"),
        ("sensor_flags", "gpus"),
    }
)
"""Fields that change from window to window. Any other may change too: the report then needs another layout."""

ANY_LENGTH = frozenset({("seq",), ("classes", "energy_residual_mj")})
"""Numbers whose length changes with them. The others keep theirs from window to window, as a rule."""

HEAD = (("host_id",), ("domain",), ("session_id",))
"""First fields of a report: one session's own, while what follows is the same for all hosts of a kind."""

MAX_NUMBERS = 1 << 14
"""Numbers remembered by their bytes: one timestamp serves all hosts of a window."""

_MAX_BYTES = {"int": 4, "long": 9}
"""Longest varints read here: they are within their type's range whatever their bits."""

_BODY = part("SignedRecord", "body")["fields"][0]["type"]


def _types(node: Any) -> Iterator[tuple[str, Any]]:
    """Named types below a parsed schema node."""
    if isinstance(node, list):
        for branch in node:
            yield from _types(branch)
    elif isinstance(node, dict):
        if "name" in node:
            yield node["name"], node
        for one in (node.get("items"), *(field["type"] for field in node.get("fields", ()))):
            yield from _types(one)


_TYPES = dict(_types(_BODY))


@dataclass(frozen=True, slots=True)
class Leaf:
    """A number, text, bytes or fixed in a report's bytes: where its content begins and ends."""

    path: Path
    kind: str
    start: int
    end: int

    @property
    def pattern(self) -> tuple[str, ...]:
        """The path without positions in arrays."""
        return tuple(step for step in self.path if isinstance(step, str))


class _Trace:
    """Leaves of bytes that the walk has found canonical, in their order."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.leaves: list[Leaf] = []

    def _number(self, pos: int) -> tuple[int, int]:
        raw = shift = 0
        while True:
            byte = self.data[pos]
            raw |= (byte & 0x7F) << shift
            pos, shift = pos + 1, shift + 7
            if byte < 0x80:
                return (raw >> 1) ^ -(raw & 1), pos

    def _leaf(self, path: Path, kind: str, start: int, end: int) -> int:
        self.leaves.append(Leaf(path, kind, start, end))
        return end

    def walk(self, node: Any, pos: int, path: Path) -> int:
        """Note the leaves of one value of schema `node` at `pos`; returns where it ends."""
        if isinstance(node, list):
            return self.walk(node[self.data[pos] >> 1], pos + 1, path)
        kind = node["type"] if isinstance(node, dict) else node
        if kind == "record":
            for one in node["fields"]:
                pos = self.walk(one["type"], pos, (*path, one["name"]))
            return pos
        if kind == "array":
            count, pos = self._number(pos)
            for at in range(count):
                pos = self.walk(node["items"], pos, (*path, at))
            return pos + 1 if count else pos
        if kind in _MAX_BYTES:
            return self._leaf(path, kind, pos, self._number(pos)[1])
        if kind in ("string", "bytes"):
            size, pos = self._number(pos)
            return self._leaf(path, kind, pos, pos + size)
        if kind == "fixed":
            return self._leaf(path, kind, pos, pos + node["size"])
        if kind in ("null", "boolean"):
            return pos + 1 if kind == "boolean" else pos
        return self.walk(_TYPES[kind], pos, path)


def leaves_of(body: bytes) -> list[Leaf]:
    """Leaves of a canonical WindowReport as the body of a signed record, branch byte included."""
    trace = _Trace(body)
    trace.walk(_BODY, 0, ())
    return trace.leaves


class Numbers:
    """Canonical varints by their bytes, as many as `MAX_NUMBERS`."""

    def __init__(self) -> None:
        self.known: dict[bytes, int] = {}

    def read(self, data: bytes) -> int | None:
        """The number that all of `data` encodes, or None if that is no canonical varint of 1 to 9 bytes."""
        size = len(data)
        if not 1 <= size <= _MAX_BYTES["long"] or data[-1] > 0x7F or (size > 1 and data[-1] == 0):
            return None
        raw = 0
        for at, byte in enumerate(data):
            if byte < 0x80 and at < size - 1:
                return None
            raw |= (byte & 0x7F) << 7 * at
        if len(self.known) >= MAX_NUMBERS:
            self.known.clear()
        self.known[data] = number = (raw >> 1) ^ -(raw & 1)
        return number


class _Block:
    """Bytes of constant length: pieces that never change, and others between them.

    `free`: a number of any length lies before it. `numbers`: indexes of the pieces that are varints.
    """

    __slots__ = ("constants", "expected", "free", "key", "numbers", "size", "unpack")

    def __init__(self, pieces: Sequence[tuple[bytes, Leaf | None]], free: bool) -> None:
        layout = struct.Struct("".join(f"{len(data)}s" for data, _ in pieces))
        self.unpack = layout.unpack_from
        self.size = layout.size
        fixed = [at for at, (_, leaf) in enumerate(pieces) if leaf is None]
        self.constants: Callable[[Any], Any] = itemgetter(*fixed) if fixed else len
        self.expected = self.constants([data for data, _ in pieces])
        self.numbers = [at for at, (_, leaf) in enumerate(pieces) if leaf is not None and leaf.kind in _MAX_BYTES]
        self.free = free
        self.key = (layout.format, self.expected, tuple(self.numbers), free)


_SET_FIELDS = object.__setattr__


class _Maker:
    """Makes records like a template, with other values in some places.

    A record's fields are its dictionary, copied from the template's: a frozen record's own initialiser costs ten times
    as much. Records with slots have none and are written field by field.
    """

    __slots__ = ("_children", "_constants", "_values", "_what", "_writers")

    def __init__(self, template: Any, path: Path, places: dict[Path, int]) -> None:
        self._what = type(template)
        self._writers = {name: getattr(self._what, name).__set__ for name in getattr(self._what, "__slots__", ())}
        self._constants: dict[str, Any] = {}
        self._values: list[tuple[str, int]] = []
        self._children: list[tuple[str, list[_Maker]]] = []
        for one in dataclasses.fields(template):
            here = (*path, one.name)
            value = getattr(template, one.name)
            if here in places:
                self._values.append((one.name, places[here]))
            elif any(place[: len(here)] == here for place in places):
                makers = [_Maker(item, (*here, at), places) for at, item in enumerate(value)]
                self._children.append((one.name, makers))
            else:
                self._constants[one.name] = value

    def make(self, values: Sequence[Any]) -> Any:
        """A record with `values` in its places."""
        made = object.__new__(self._what)
        fields = self._constants.copy()
        for name, at in self._values:
            fields[name] = values[at]
        for name, makers in self._children:
            fields[name] = tuple([maker.make(values) for maker in makers])
        if self._writers:
            for name, write in self._writers.items():
                write(made, fields[name])
        else:
            _SET_FIELDS(made, "__dict__", fields)
        return made


class ReportLayout:
    """Layout of reports from behind their head. `key`: layouts with equal keys are the same."""

    __slots__ = ("__weakref__", "_blocks", "_maker", "key")

    def __init__(self, blocks: list[_Block], maker: _Maker) -> None:
        self._blocks = blocks
        self._maker = maker
        self.key = tuple(block.key for block in blocks)

    def read(self, value: bytes, pos: int, numbers: Numbers, head: tuple[Any, ...]) -> tuple[WindowReport, int] | None:
        """The report whose head ends at `pos`, and where it ends; None if it does not fit. `head`: fields of `HEAD`."""
        values: list[Any] = [*head]
        known = numbers.known
        for block in self._blocks:
            if block.free:
                end = pos + 1
                for byte in value[pos : pos + 9]:
                    if byte < 0x80:
                        break
                    end += 1
                data = value[pos:end]
                number = known.get(data)
                if number is None and (number := numbers.read(data)) is None:
                    return None
                values.append(number)
                pos = end
            if len(value) - pos < block.size:
                return None
            found = block.unpack(value, pos)
            if block.constants(found) != block.expected:
                return None
            base = len(values)
            values += found
            for at in block.numbers:
                data = found[at]
                number = known.get(data)
                if number is None and (number := numbers.read(data)) is None:
                    return None
                values[base + at] = number
            pos += block.size
        return cast(WindowReport, self._maker.make(values)), pos


def head_size(body: bytes) -> int:
    """Bytes of `body`, a canonical report's, up to the end of its session id."""
    return next(leaf.end for leaf in leaves_of(body) if leaf.path == HEAD[-1])


def layout_of(body: bytes, report: WindowReport) -> ReportLayout | None:
    """Learn the layout of `report`, decoded from the canonical bytes `body` (branch byte included).

    None if one of its numbers is so long that its range would have to be checked.
    """
    leaves = leaves_of(body)
    changing = [leaf for leaf in leaves if leaf.pattern in VARIABLE]
    if any(leaf.end - leaf.start > _MAX_BYTES.get(leaf.kind, len(body)) for leaf in changing):
        return None
    places: dict[Path, int] = {path: at for at, path in enumerate(HEAD)}
    at = len(HEAD)
    blocks: list[_Block] = []
    pieces: list[tuple[bytes, Leaf | None]] = []
    free = False
    pos = next(leaf.end for leaf in leaves if leaf.path == HEAD[-1])
    for leaf in changing:
        if leaf.start > pos:
            pieces.append((body[pos : leaf.start], None))
            at += 1
        if leaf.pattern in ANY_LENGTH:
            if pieces or free:
                blocks.append(_Block(pieces, free))
            pieces, free = [], True
        else:
            pieces.append((body[leaf.start : leaf.end], leaf))
        places[leaf.path] = at
        at += 1
        pos = leaf.end
    pieces.append((body[pos:], None))
    blocks.append(_Block(pieces, free))
    return ReportLayout(blocks, _Maker(report, (), places))
