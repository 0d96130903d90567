"""An archive as a source of records: nothing is handed out that the index does not vouch for."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

from schemas.topics import TopicNames
from stream_jobs.archive.errors import ArchiveDamaged, ArchiveInvalid, ArchiveUnfinished
from stream_jobs.archive.files import Directory
from stream_jobs.archive.index import (
    INDEX,
    MAX_INDEX_BYTES,
    UNFINISHED,
    Index,
    PartitionEntry,
    SegmentEntry,
    index_digest,
    parse_index,
)
from stream_jobs.archive.segment import Segment, read_segment, records_of
from stream_jobs.log_record import LogRecord
from stream_jobs.reading import ReadFailed
from stream_jobs.replay.source import Extent

HELD_SEGMENTS = 3
"""Segments kept unpacked: readers go through a few partitions at once, each forwards."""


class ArchiveSource:
    """Implements `stream_jobs.replay.source.RecordSource` on a directory. For one thread.

    A segment's SHA-256 is compared with the index each time it is loaded, before anything in it is looked at; number,
    order, offsets and times of its records while they are handed out.
    """

    def __init__(self, path: Path, index: Index, digest: str):
        self.index, self.digest = index, digest
        self._directory = Directory(path)
        self._partitions = {(topic.topic, one.partition): one for topic in index.topics for one in topic.partitions}
        self._topics = {topic.topic: topic for topic in index.topics}
        self._held: OrderedDict[str, Segment] = OrderedDict()

    @property
    def names(self) -> TopicNames:
        """The topics' names by role, as they were on the cluster."""
        return TopicNames(**{topic.role: topic.topic for topic in self.index.topics})

    def extents(self, topic: str) -> Sequence[Extent]:
        """Every partition of `topic`, by number; empty for one that the cluster did not have. Raises ReadFailed."""
        entry = self._topics.get(topic)
        if entry is None:
            raise ReadFailed(
                f"{topic} is not in the archive", remedy="The archive has the topics its index.json names."
            )
        return [Extent(topic, one.partition, one.first, one.end) for one in entry.partitions]

    def read(self, topic: str, partition: int, first: int, end: int) -> Iterator[LogRecord]:
        """Records with offsets in [first, end), in order, streamed. Raises ArchiveDamaged."""
        for entry in self._partition(topic, partition).segments:
            if entry.last_offset < first:
                continue
            if entry.first_offset >= end:
                return
            if first <= entry.first_offset and entry.last_offset < end:
                yield from self._records(entry, topic, partition)
                continue
            for record in self._records(entry, topic, partition):
                if first <= record.offset < end:
                    yield record

    def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        """First offset whose record's timestamp is at or after `time_ms`, the partition's end if there is none."""
        place = self._partition(topic, partition)
        for entry in place.segments:
            if entry.max_timestamp_ms >= time_ms:
                for record in self._records(entry, topic, partition):
                    if record.timestamp_ms >= time_ms:
                        return record.offset
        return place.end

    def close(self) -> None:
        """Release what is held."""
        self._held.clear()

    def _partition(self, topic: str, partition: int) -> PartitionEntry:
        found = self._partitions.get((topic, partition))
        if found is None:
            raise ReadFailed(
                f"{topic}[{partition}] is not in the archive", remedy="The archive has what its index.json names."
            )
        return found

    def _segment(self, entry: SegmentEntry, topic: str, partition: int) -> Segment:
        held = self._held.get(entry.file)
        if held is not None:
            self._held.move_to_end(entry.file)
            return held
        data = self._directory.read(entry.file, entry.bytes, ArchiveDamaged)
        if data is None:
            raise ArchiveDamaged(f"{entry.file} is missing")
        if len(data) != entry.bytes:
            raise ArchiveDamaged(f"{entry.file}, byte {len(data)}: it ends here, and should at {entry.bytes}")
        found = hashlib.sha256(data).hexdigest()
        if found != entry.sha256:
            raise ArchiveDamaged(f"{entry.file} has SHA-256 {found}, the index says {entry.sha256}")
        segment = read_segment(data, entry.file, topic, partition)
        if segment.content_sha256.hex() != entry.content_sha256:
            raise ArchiveDamaged(f"{entry.file}: the digest of its contents is not the index's")
        self._held[entry.file] = segment
        while len(self._held) > HELD_SEGMENTS:
            self._held.popitem(last=False)
        return segment

    def _records(self, entry: SegmentEntry, topic: str, partition: int) -> Iterator[LogRecord]:
        count, last = 0, entry.first_offset - 1
        least, most = entry.max_timestamp_ms, entry.min_timestamp_ms
        for record in records_of(self._segment(entry, topic, partition), entry.file, topic, partition):
            offset, timestamp_ms = record.offset, record.timestamp_ms
            if not entry.min_timestamp_ms <= timestamp_ms <= entry.max_timestamp_ms:
                raise ArchiveDamaged(f"{entry.file}, offset {offset}: its time is outside what the index says")
            if (count == 0 and offset != entry.first_offset) or offset > entry.last_offset:
                raise ArchiveDamaged(f"{entry.file}, offset {offset}: it is not one that the index says")
            least = min(least, timestamp_ms)
            most = max(most, timestamp_ms)
            count, last = count + 1, offset
            yield record
        if (count, last, least, most) != (
            entry.records,
            entry.last_offset,
            entry.min_timestamp_ms,
            entry.max_timestamp_ms,
        ):
            raise ArchiveDamaged(f"{entry.file}: {count} records up to offset {last}, the index says otherwise")


def open_archive(path: Path, expected_digest: str | None = None) -> ArchiveSource:
    """Open an archive; its index is checked now, each segment when it is first read.

    `expected_digest`: the index's digest in hexadecimal, where it is known from elsewhere. Raises ArchiveInvalid or
    ArchiveUnfinished.
    """
    directory = Directory(path)
    data = directory.read(INDEX, MAX_INDEX_BYTES, ArchiveInvalid)
    if data is None:
        if directory.read(UNFINISHED, MAX_INDEX_BYTES, ArchiveInvalid) is not None:
            raise ArchiveUnfinished(f"{path}: the export was interrupted")
        raise ArchiveInvalid(f"{path} has no {INDEX}")
    index = parse_index(data)
    digest = index_digest(data)
    if expected_digest is not None and digest != expected_digest.lower():
        raise ArchiveInvalid(f"{INDEX} has digest {digest}, expected was {expected_digest}")
    return ArchiveSource(path, index, digest)


def check_archive(source: ArchiveSource) -> tuple[int, list[str]]:
    """Read everything. Returns how many records there are, and the files that belong to no archive. Raises
    ArchiveDamaged at the first fault."""
    records = 0
    for topic in source.index.topics:
        for one in topic.partitions:
            records += sum(1 for _ in source.read(topic.topic, one.partition, one.first, one.end))
    known = {INDEX} | {
        segment.file for topic in source.index.topics for one in topic.partitions for segment in one.segments
    }
    return records, [name for name in Directory(source._directory.path).names() if name not in known]
