"""Segments: Avro object container files whose bytes depend on their records alone.

Codec `zstandard` at a fixed level. The sync marker, random elsewhere, is the beginning of a digest over the contents,
so that equal records give equal files, and nobody can put a block's end into a record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stream_jobs.archive.errors import ArchiveDamaged, ArchiveNotWritten
from stream_jobs.archive.records import (
    SCHEMA,
    NotARecord,
    decode_bytes,
    decode_long,
    decode_records,
    encode_bytes,
    encode_long,
    encode_record,
)
from stream_jobs.log_record import LogRecord

MAGIC = b"Obj\x01"
LEVEL = 3
"""zstd's; pinned, because the bytes of a file depend on it."""

BLOCK_BYTES = 256 * 1024
"""A block ends with the record that fills it, bytes before compression."""

SEGMENT_BYTES = 8 * 1024 * 1024
"""A segment ends with the record that fills it, bytes before compression."""

SEGMENT_RECORDS = 10_000
"""Most records of a segment."""

MAX_RECORD_BYTES = 16 * 1024 * 1024
"""Largest record, bytes: twice `max.message.bytes` of the policy topic."""

MAX_CONTENT_BYTES = SEGMENT_BYTES + MAX_RECORD_BYTES
"""Most bytes of a segment before compression: what a reader must hold."""

MAX_FILE_BYTES = MAX_CONTENT_BYTES + 1024 * 1024
"""Largest file of a segment: records that do not compress, and what is around them."""

_SYNC_TAG = b"enclavescale/archive/1\0"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True)
class Limits:
    """When blocks and segments end."""

    block_bytes: int = BLOCK_BYTES
    segment_bytes: int = SEGMENT_BYTES
    segment_records: int = SEGMENT_RECORDS


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment's contents: per block the number of records it states and their Avro bytes; SHA-256 of all of them."""

    blocks: tuple[tuple[int, bytes], ...]
    content_sha256: bytes


def _codec() -> Any:
    # A third of a second to import: only where an archive is read or written.
    import pyarrow as pa  # noqa: PLC0415

    return pa.Codec("zstd", compression_level=LEVEL)


def _header(topic: str, partition: int) -> bytes:
    entries = {
        "avro.schema": SCHEMA.encode(),
        "avro.codec": b"zstandard",
        "enclavescale.topic": topic.encode(),
        "enclavescale.partition": str(partition).encode(),
    }
    pairs = [encode_bytes(key.encode()) + encode_bytes(value) for key, value in entries.items()]
    return MAGIC + encode_long(len(pairs)) + b"".join(pairs) + b"\x00"


def _sync(content_sha256: bytes) -> bytes:
    return hashlib.sha256(_SYNC_TAG + content_sha256).digest()[:16]


class SegmentBuilder:
    """Collects records of one partition until a segment is full."""

    def __init__(self, topic: str, partition: int, limits: Limits):
        self._topic, self._partition, self._limits = topic, partition, limits
        self._blocks: list[tuple[int, bytes]] = []
        self._open: list[bytes] = []
        self._open_bytes = 0
        self._content = hashlib.sha256()
        self.content_bytes = 0
        self.records = 0

    def add(self, record: LogRecord) -> None:
        """Take the next record. Raises ArchiveNotWritten if it is larger than any may be."""
        try:
            data = encode_record(record)
        except (ValueError, UnicodeError) as error:
            place = f"{self._topic}[{self._partition}] offset {record.offset}"
            raise ArchiveNotWritten(f"{place} cannot be written: {error}") from error
        if len(data) > MAX_RECORD_BYTES:
            place = f"{self._topic}[{self._partition}] offset {record.offset}"
            raise ArchiveNotWritten(f"{place} has {len(data)} bytes, more than {MAX_RECORD_BYTES}")
        self._content.update(data)
        self._open.append(data)
        self._open_bytes += len(data)
        self.content_bytes += len(data)
        self.records += 1
        if self._open_bytes >= self._limits.block_bytes:
            self._close_block()

    @property
    def full(self) -> bool:
        """Whether the segment ends here."""
        return self.content_bytes >= self._limits.segment_bytes or self.records >= self._limits.segment_records

    def _close_block(self) -> None:
        if self._open:
            packed = _codec().compress(b"".join(self._open), asbytes=True)
            self._blocks.append((len(self._open), packed))
            self._open, self._open_bytes = [], 0

    def finish(self) -> tuple[bytes, bytes]:
        """The file's bytes and the SHA-256 of its contents, 32 bytes."""
        self._close_block()
        content = self._content.digest()
        sync = _sync(content)
        parts = [_header(self._topic, self._partition), sync]
        for count, packed in self._blocks:
            parts += [encode_long(count), encode_bytes(packed), sync]
        return b"".join(parts), content


def _content_size(packed: bytes) -> int | None:
    """How much a zstd frame says it holds (RFC 8878, 3.1.1.1), None if it does not say."""
    if packed[:4] != _ZSTD_MAGIC or len(packed) < 6:
        return None
    descriptor = packed[4]
    single = descriptor >> 5 & 1
    begin = 5 + (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3]
    width = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    raw = packed[begin : begin + width]
    if width == 0 or len(raw) < width:
        return None
    return int.from_bytes(raw, "little") + (256 if width == 2 else 0)


def _unpack(packed: bytes, room: int, place: str) -> bytes:
    size = _content_size(packed)
    if size is None or size > room:
        raise ArchiveDamaged(f"{place}: a block unpacks to {'an unknown number of' if size is None else size} bytes")
    try:
        data: bytes = _codec().decompress(packed, decompressed_size=size, asbytes=True)
    except (OSError, ValueError) as error:
        raise ArchiveDamaged(f"{place}: a block cannot be unpacked: {error}") from error
    return data


def read_segment(data: bytes, name: str, topic: str, partition: int) -> Segment:
    """The blocks of a segment's file, unpacked. Bounded whatever the bytes.

    `name` is the file's, for messages. Raises ArchiveDamaged.
    """
    header = _header(topic, partition)
    if data[: len(header)] != header:
        raise ArchiveDamaged(f"{name}, byte 0: not the header of a segment of {topic}[{partition}]")
    at = len(header) + 16
    sync = data[len(header) : at]
    blocks: list[tuple[int, bytes]] = []
    content, room = hashlib.sha256(), MAX_CONTENT_BYTES
    while at < len(data):
        begin = at
        place = f"{name}, byte {begin}"
        try:
            count, at = decode_long(data, at)
            packed, at = decode_bytes(data, at)
        except NotARecord as error:
            raise ArchiveDamaged(f"{name}, byte {error.at}: {error}") from None
        if data[at : at + 16] != sync:
            raise ArchiveDamaged(f"{name}, byte {at}: no sync marker")
        at += 16
        unpacked = _unpack(packed, room, place)
        room -= len(unpacked)
        if count <= 0 or not unpacked or len(blocks) == SEGMENT_RECORDS:
            raise ArchiveDamaged(f"{place}: an empty block, or more blocks than there can be records")
        content.update(unpacked)
        blocks.append((count, unpacked))
    if not blocks or sync != _sync(content.digest()):
        raise ArchiveDamaged(f"{name}, byte {len(header)}: the sync marker is not that of the contents")
    return Segment(tuple(blocks), content.digest())


def records_of(segment: Segment, name: str, topic: str, partition: int) -> Iterator[LogRecord]:
    """The records of a segment in order, streamed. Raises ArchiveDamaged, naming record and block."""
    last = -1
    for number, (count, block) in enumerate(segment.blocks):
        found, at = 0, 0
        try:
            for at, record in decode_records(block, topic, partition):
                found += 1
                if record.offset <= last:
                    raise NotARecord(f"offset {record.offset} follows {last}", at)
                last = record.offset
                yield record
        except NotARecord as error:
            place = f"{name}, block {number}, byte {error.at} of its contents"
            raise ArchiveDamaged(f"{place}: {error}") from None
        if found != count:
            raise ArchiveDamaged(f"{name}, block {number}: {found} records, {count} were said")


def pack(records: Sequence[LogRecord], topic: str, partition: int, limits: Limits) -> tuple[bytes, bytes]:
    """File and content digest of a segment of exactly these records."""
    builder = SegmentBuilder(topic, partition, limits)
    for record in records:
        builder.add(record)
    return builder.finish()
