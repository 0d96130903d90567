"""A cluster in memory for exports: logs with holes and retention, and records of every shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from schemas.topics import TopicNames
from stream_jobs.archive import Directory, Exported, Request, export_archive
from stream_jobs.archive.segment import Limits
from stream_jobs.log_record import LogRecord
from stream_jobs.replay.source import Extent

NAMES = TopicNames.with_prefix("t")
EVERYTHING = Request(None, None, None, None)
SMALL = Limits(block_bytes=200, segment_bytes=600, segment_records=7)


@dataclass
class MemorySource:
    """Implements `RecordSource`. `logs`: per topic and partition the records that are there and the end."""

    logs: dict[str, list[list[LogRecord]]] = field(default_factory=dict)
    ends: dict[tuple[str, int], int] = field(default_factory=dict)
    firsts: dict[tuple[str, int], int] = field(default_factory=dict)

    def extents(self, topic: str) -> Sequence[Extent]:
        return [self._extent(topic, partition) for partition in range(len(self.logs.get(topic, [])))]

    def _extent(self, topic: str, partition: int) -> Extent:
        log = self.logs[topic][partition]
        end = self.ends.get((topic, partition), log[-1].offset + 1 if log else 0)
        return Extent(topic, partition, self.firsts.get((topic, partition), log[0].offset if log else end), end)

    def read(self, topic: str, partition: int, first: int, end: int) -> Iterator[LogRecord]:
        at_least = max(first, self._extent(topic, partition).first)
        yield from (record for record in self.logs[topic][partition] if at_least <= record.offset < end)

    def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        found = (one.offset for one in self.logs[topic][partition] if one.timestamp_ms >= time_ms)
        return next(found, self._extent(topic, partition).end)

    def close(self) -> None:
        pass


def record(
    offset: int,
    value: bytes | None = b"value",
    *,
    topic: str = NAMES.reports,
    partition: int = 0,
    key: bytes | None = b"key",
    time_ms: int | None = None,
    headers: tuple[tuple[str, bytes | None], ...] = (),
) -> LogRecord:
    at = 1_790_000_000_000 + 1000 * offset if time_ms is None else time_ms
    return LogRecord(topic, partition, offset, at, 1, key, value, headers)


def small_cluster() -> MemorySource:
    """Every role, several segments, holes, an empty partition, nulls, headers, a topic that is not there."""
    headers = (("ce_id", b"\x00\xff"), ("empty", b""), ("null", None), ("ce_id", b"twice"))
    source = MemorySource({getattr(NAMES, role): [[]] for role in ("output", "manifests", "rejections", "policy")})
    reports = [record(n, bytes([n]) * (n % 97), headers=headers if n % 5 == 0 else ()) for n in range(3, 40) if n % 11]
    source.logs[NAMES.reports] = [reports, [], [record(0, None, partition=2, key=None)]]
    source.ends[(NAMES.reports, 0)] = 42  # what stood at the end is no record
    source.logs[NAMES.output] = [[record(n, b"output %d" % n, topic=NAMES.output) for n in range(9)], [], []]
    source.logs[NAMES.policy] = [[record(7, b"policy", topic=NAMES.policy, time_ms=-1)]]
    source.logs[NAMES.collateral] = [[record(0, b"item" * 500, topic=NAMES.collateral)]]
    return source


def export(source: MemorySource, path: Path, asked: Request | None = EVERYTHING, limits: Limits = SMALL) -> Exported:
    return export_archive(source, NAMES, Directory(path), asked, limits=limits)


def contents(path: Path) -> dict[str, bytes]:
    """Every file of a directory by its name."""
    return {name: (path / name).read_bytes() for name in Directory(path).names()}
