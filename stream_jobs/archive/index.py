"""The index: what an archive holds, by topic, partition and segment, every byte of it covered by one digest.

JSON in one spelling only (sorted keys, one space of indentation), so that a changed byte is found wherever it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from schemas.topics import TopicNames
from stream_jobs.archive.errors import ArchiveInvalid
from stream_jobs.archive.segment import MAX_FILE_BYTES, SEGMENT_RECORDS

T = TypeVar("T")

FORMAT = "enclavescale-archive/1"
INDEX = "index.json"
UNFINISHED = "unfinished.json"
"""What is to be exported, written first: an index without segments."""

MAX_INDEX_BYTES = 64 * 1024 * 1024
"""Largest index read, bytes: 1.4 TB of segments."""

MAX_PARTITIONS = 10_000

ROLES = tuple(one.name for one in fields(TopicNames))

_INT64 = 1 << 63
_TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for. Windows from `from_ms` (None: everything) to `to_ms`, with `context_ms` before them;
    records appended at or after `until_ms` are left out (None: none are). UTC milliseconds."""

    from_ms: int | None
    to_ms: int | None
    context_ms: int | None
    until_ms: int | None


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """One file. `content_sha256` is over the records' Avro bytes, before compression; timestamps are the extremes."""

    file: str
    first_offset: int
    last_offset: int
    records: int
    bytes: int
    min_timestamp_ms: int
    max_timestamp_ms: int
    sha256: str
    content_sha256: str


@dataclass(frozen=True, slots=True)
class PartitionEntry:
    """One partition: offsets in [`first`, `end`) are in the archive, as far as the log had them."""

    partition: int
    first: int
    end: int
    segments: tuple[SegmentEntry, ...]


@dataclass(frozen=True, slots=True)
class TopicEntry:
    """One topic by its role; no partitions where the cluster had no such topic."""

    role: str
    topic: str
    partitions: tuple[PartitionEntry, ...]


@dataclass(frozen=True, slots=True)
class Index:
    """Everything."""

    request: Request
    topics: tuple[TopicEntry, ...]


def segment_file(role: str, partition: int, begin: int) -> str:
    """Path of a segment inside the archive; `begin`: the offset after the previous segment's last."""
    return f"{role}/{partition}/{begin:020d}.avro"


def _render(content: Mapping[str, object]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode()


def render_index(index: Index) -> bytes:
    """The index's bytes. The digest is the SHA-256 of them without its own line, the second."""
    content = {"format": FORMAT, **asdict(index)}
    return _render({"digest": hashlib.sha256(_render(content)).hexdigest(), **content})


def index_digest(data: bytes) -> str:
    """The digest that an index's bytes ought to state, hexadecimal."""
    first, _, rest = data.partition(b"\n")
    return hashlib.sha256(first + b"\n" + rest.partition(b"\n")[2]).hexdigest()


def parse_index(data: bytes, name: str = INDEX) -> Index:
    """The index of its bytes, checked throughout. `name` is the file's. Raises ArchiveInvalid."""
    if len(data) > MAX_INDEX_BYTES:
        raise ArchiveInvalid(f"{name} has {len(data)} bytes, more than {MAX_INDEX_BYTES}")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ArchiveInvalid(f"{name} is not JSON: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ArchiveInvalid(f"{name} is not the index of an archive of this format, {FORMAT}")
    index = _index(_Place(name), {key: value for key, value in content.items() if key not in ("digest", "format")})
    # One spelling: with it, the digest covers every byte.
    expected = render_index(index)
    if data != expected:
        at = next((n for n, pair in enumerate(zip(data, expected, strict=False)) if pair[0] != pair[1]), len(expected))
        raise ArchiveInvalid(
            f"{name} is altered: its digest is {content.get('digest')!r}, first difference at byte {at}"
        )
    return index


class _Place:
    """Where in the index a value stands, for messages."""

    def __init__(self, file: str, *path: object):
        self._file, self._path = file, path

    def at(self, key: object) -> _Place:
        return _Place(self._file, *self._path, key)

    def fail(self, what: str) -> ArchiveInvalid:
        return ArchiveInvalid(f"{self._file}: {'.'.join(str(one) for one in self._path) or 'it'} is {what}")


def _keys(place: _Place, value: object, kind: type[Any]) -> dict[str, Any]:
    names = {one.name for one in fields(kind)}
    if not isinstance(value, dict) or set(value) != names:
        raise place.fail(f"not an object of {', '.join(sorted(names))}")
    return value


def _list(place: _Place, value: object, most: int) -> Sequence[object]:
    if not isinstance(value, list) or len(value) > most:
        raise place.fail(f"not a list of at most {most}")
    return value


def _number(place: _Place, value: object, least: int, most: int = _INT64 - 1) -> int:
    if type(value) is not int or not least <= value <= most:
        raise place.fail(f"not a whole number from {least} to {most}")
    return value


def _hex(place: _Place, value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise place.fail("not a SHA-256 in hexadecimal")
    return value


def _request(place: _Place, value: object) -> Request:
    found = _keys(place, value, Request)
    return Request(**{key: one if one is None else _number(place.at(key), one, 0) for key, one in found.items()})


def _segment(place: _Place, value: object, file: str, begin: int, end: int) -> SegmentEntry:
    found = _keys(place, value, SegmentEntry)
    # The name follows from the place: no other path can ever be opened.
    if found["file"] != file:
        raise place.fail(f"of another file than {file}")
    first = _number(place.at("first_offset"), found["first_offset"], begin, end - 1)
    last = _number(place.at("last_offset"), found["last_offset"], first, end - 1)
    least = _number(place.at("min_timestamp_ms"), found["min_timestamp_ms"], -_INT64)
    return SegmentEntry(
        file=file,
        first_offset=first,
        last_offset=last,
        records=_number(place.at("records"), found["records"], 1, min(SEGMENT_RECORDS, last - first + 1)),
        bytes=_number(place.at("bytes"), found["bytes"], 1, MAX_FILE_BYTES),
        min_timestamp_ms=least,
        max_timestamp_ms=_number(place.at("max_timestamp_ms"), found["max_timestamp_ms"], least),
        sha256=_hex(place.at("sha256"), found["sha256"]),
        content_sha256=_hex(place.at("content_sha256"), found["content_sha256"]),
    )


def _partition(place: _Place, value: object, role: str, number: int) -> PartitionEntry:
    found = _keys(place, value, PartitionEntry)
    _number(place.at("partition"), found["partition"], number, number)
    first = _number(place.at("first"), found["first"], 0)
    end = _number(place.at("end"), found["end"], first)
    segments: list[SegmentEntry] = []
    begin = first
    for one in _list(place.at("segments"), found["segments"], MAX_INDEX_BYTES):
        file = segment_file(role, number, begin)
        segments.append(_segment(place.at(file), one, file, begin, end))
        begin = segments[-1].last_offset + 1
    return PartitionEntry(number, first, end, tuple(segments))


def _topic(place: _Place, value: object, role: str) -> TopicEntry:
    found = _keys(place, value, TopicEntry)
    topic = found["topic"]
    if found["role"] != role or not isinstance(topic, str) or not _TOPIC_NAME.fullmatch(topic):
        raise place.fail("of another role, or has no topic's name")
    partitions = _list(place.at("partitions"), found["partitions"], MAX_PARTITIONS)
    found_ones = [_partition(place.at(number), one, role, number) for number, one in enumerate(partitions)]
    return TopicEntry(role, topic, tuple(found_ones))


def _index(place: _Place, value: object) -> Index:
    found = _keys(place, value, Index)
    topics = _list(place.at("topics"), found["topics"], len(ROLES))
    if len(topics) != len(ROLES):
        raise place.at("topics").fail(f"not the roles {', '.join(ROLES)}")
    entries = tuple(_topic(place.at(role), one, role) for role, one in zip(ROLES, topics, strict=True))
    if len({one.topic for one in entries}) != len(ROLES):
        raise place.at("topics").fail("ambiguous: two roles have one topic")
    return Index(_request(place.at("request"), found["request"]), entries)
