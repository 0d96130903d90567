"""Export: from a source of records to an archive, so that an interruption at any point costs one segment."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from schemas.codec import SINGLE_OBJECT, Framing
from schemas.topics import TopicNames
from stream_jobs.archive.errors import ArchiveDamaged, ArchiveError, ArchiveExists, ArchiveInputLost, ArchiveInvalid
from stream_jobs.archive.files import TEMPORARY, Directory
from stream_jobs.archive.index import (
    INDEX,
    MAX_INDEX_BYTES,
    UNFINISHED,
    Index,
    PartitionEntry,
    Request,
    SegmentEntry,
    TopicEntry,
    index_digest,
    parse_index,
    render_index,
    segment_file,
)
from stream_jobs.archive.segment import MAX_FILE_BYTES, Limits, SegmentBuilder, pack, read_segment, records_of
from stream_jobs.archive.selection import select
from stream_jobs.log_record import LogRecord
from stream_jobs.replay.source import RecordSource

Progress = Callable[[str, int, int], None]
"""(topic, offsets done, offsets in all), over all topics; called for each segment."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export has made. `kept`: segments of an interrupted one that stayed; `digest`: the index's."""

    index: Index
    digest: str
    records: int
    segments: int
    kept: int
    bytes: int


def export_archive(
    source: RecordSource,
    names: TopicNames,
    directory: Directory,
    asked: Request | None,
    *,
    framing: Framing = SINGLE_OBJECT,
    limits: Limits | None = None,
    progress: Progress = lambda *_: None,
) -> Exported:
    """Export what `asked` says into `directory`, or go on with what was begun there.

    `asked` None: only go on. The index comes last, so that there is an archive or none. Equal records give equal
    files, however often it was interrupted. Raises ArchiveError, or ReadFailed where the source cannot be read.
    """
    with directory.locked():
        return _export(source, names, directory, asked, framing, limits or Limits(), progress)


def _export(
    source: RecordSource,
    names: TopicNames,
    directory: Directory,
    asked: Request | None,
    framing: Framing,
    limits: Limits,
    progress: Progress,
) -> Exported:
    finished = directory.read(INDEX, MAX_INDEX_BYTES, ArchiveInvalid)
    if finished is not None:
        index = parse_index(finished)
        _same(index, names, asked, directory.path)
        directory.remove(UNFINISHED)
        return _exported(index, kept=sum(len(one.segments) for topic in index.topics for one in topic.partitions))
    plan = _plan(source, names, directory, asked, framing)
    run = _Run(source, directory, limits, progress, plan)
    index = Index(plan.request, tuple(run.topic(one) for one in plan.topics))
    directory.write(INDEX, render_index(index))
    directory.remove(UNFINISHED)
    return _exported(index, run.kept)


def _exported(index: Index, kept: int) -> Exported:
    segments = [segment for topic in index.topics for one in topic.partitions for segment in one.segments]
    records, size = sum(one.records for one in segments), sum(one.bytes for one in segments)
    return Exported(index, index_digest(render_index(index)), records, len(segments), kept, size)


def _same(index: Index, names: TopicNames, asked: Request | None, path: Path) -> None:
    """Raise ArchiveExists unless the directory is of the export asked for."""
    was = index.request
    if asked is None:
        return
    # A context that was not asked for is whatever was derived when it was begun.
    wanted = asked if asked.context_ms is not None else replace(asked, context_ms=was.context_ms)
    topics = tuple(one.topic for one in index.topics)
    if wanted != was or topics != tuple(getattr(names, one.role) for one in index.topics):
        raise ArchiveExists(f"{path} holds an export of another range or of other topics")


def _plan(
    source: RecordSource, names: TopicNames, directory: Directory, asked: Request | None, framing: Framing
) -> Index:
    begun = directory.read(UNFINISHED, MAX_INDEX_BYTES, ArchiveInvalid)
    if begun is not None:
        plan = parse_index(begun, UNFINISHED)
        _same(plan, names, asked, directory.path)
        for topic in plan.topics:
            ends = {one.partition: one.end for one in source.extents(topic.topic)}
            if any(ends.get(one.partition, -1) < one.end for one in topic.partitions):
                raise ArchiveInputLost(f"{topic.topic} ends before the offset at which it was to end")
        return plan
    if asked is None:
        raise ArchiveInvalid(f"{directory.path} holds no export to go on with")
    if [name for name in directory.names() if name != UNFINISHED + TEMPORARY]:
        raise ArchiveExists(f"{directory.path} is not empty")
    plan = select(source, names, asked, framing)
    directory.write(UNFINISHED, render_index(plan))
    return plan


class _Run:
    """One run over a plan."""

    def __init__(self, source: RecordSource, directory: Directory, limits: Limits, progress: Progress, plan: Index):
        self._source, self._directory, self._limits, self._progress = source, directory, limits, progress
        self._all = sum(one.end - one.first for topic in plan.topics for one in topic.partitions)
        self._done = 0
        self.kept = 0

    def topic(self, plan: TopicEntry) -> TopicEntry:
        """Export one topic."""
        return TopicEntry(plan.role, plan.topic, tuple(self._partition(plan, one) for one in plan.partitions))

    def _partition(self, topic: TopicEntry, plan: PartitionEntry) -> PartitionEntry:
        base = self._done
        segments = []
        begin = plan.first
        for entry in self._finished(topic, plan):
            segments.append(entry)
            begin = entry.last_offset + 1
            self._tell(topic.topic, base + begin - plan.first)
        self.kept += len(segments)
        for entry in self._new(topic, plan, begin):
            segments.append(entry)
            self._tell(topic.topic, base + entry.last_offset + 1 - plan.first)
        self._tell(topic.topic, base + plan.end - plan.first)
        return PartitionEntry(plan.partition, plan.first, plan.end, tuple(segments))

    def _tell(self, topic: str, done: int) -> None:
        self._done = done
        self._progress(topic, done, self._all)

    def _finished(self, topic: TopicEntry, plan: PartitionEntry) -> Iterator[SegmentEntry]:
        """Segments of an interrupted run, as long as they are what this one would write."""
        begin = plan.first
        while begin < plan.end:
            file = segment_file(topic.role, plan.partition, begin)
            data = self._directory.read(file, MAX_FILE_BYTES, ArchiveDamaged)
            if data is None:
                return
            try:
                records = list(
                    records_of(read_segment(data, file, topic.topic, plan.partition), file, *_of(topic, plan))
                )
            except ArchiveDamaged:
                return  # written anew
            if not records or not begin <= records[0].offset <= records[-1].offset < plan.end:
                return
            packed, content = pack(records, *_of(topic, plan), self._limits)
            if packed != data:
                return
            self._still_the_same(topic, plan, records[-1])
            yield _entry(file, data, content, records)
            begin = records[-1].offset + 1

    def _still_the_same(self, topic: TopicEntry, plan: PartitionEntry, record: LogRecord) -> None:
        """The record is still what the topic has at its offset, or has left it."""
        now = list(self._source.read(*_of(topic, plan), record.offset, record.offset + 1))
        if now not in ([record], []):
            raise ArchiveInputLost(f"{topic.topic}[{plan.partition}] offset {record.offset} is not what was exported")

    def _new(self, topic: TopicEntry, plan: PartitionEntry, begin: int) -> Iterator[SegmentEntry]:
        if begin >= plan.end:
            return
        builder = SegmentBuilder(*_of(topic, plan), self._limits)
        held: list[LogRecord] = []
        expected = begin
        for record in self._source.read(*_of(topic, plan), begin, plan.end):
            if record.offset != expected:
                self._hole(topic, plan, expected)
            expected = record.offset + 1
            builder.add(record)
            held.append(record)
            if builder.full:
                yield self._write(segment_file(topic.role, plan.partition, begin), builder, held)
                builder, held, begin = SegmentBuilder(*_of(topic, plan), self._limits), [], expected
        if expected != plan.end:
            self._hole(topic, plan, expected)
        if held:
            yield self._write(segment_file(topic.role, plan.partition, begin), builder, held)

    def _hole(self, topic: TopicEntry, plan: PartitionEntry, missing: int) -> None:
        """An offset is not in the log: fine where it never was, not where retention took it."""
        for now in self._source.extents(topic.topic):
            if now.partition == plan.partition and now.first > missing:
                raise ArchiveInputLost(f"{topic.topic}[{plan.partition}] begins at {now.first}, {missing} was to come")

    def _write(self, file: str, builder: SegmentBuilder, records: list[LogRecord]) -> SegmentEntry:
        data, content = builder.finish()
        self._directory.write(file, data)
        return _entry(file, data, content, records)


def _of(topic: TopicEntry, plan: PartitionEntry) -> tuple[str, int]:
    return topic.topic, plan.partition


def _entry(file: str, data: bytes, content: bytes, records: list[LogRecord]) -> SegmentEntry:
    times = [record.timestamp_ms for record in records]
    return SegmentEntry(
        file=file,
        first_offset=records[0].offset,
        last_offset=records[-1].offset,
        records=len(records),
        bytes=len(data),
        min_timestamp_ms=min(times),
        max_timestamp_ms=max(times),
        sha256=hashlib.sha256(data).hexdigest(),
        content_sha256=content.hex(),
    )


__all__ = ["ArchiveError", "Exported", "Progress", "export_archive"]
