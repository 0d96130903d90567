"""The topics of a cluster as an export reads them: as a replay does, and with an eye on what retention takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from stream_jobs.log_record import LogRecord
from stream_jobs.replay.kafka_source import KafkaSource
from stream_jobs.replay.source import Extent


class ClusterSource:
    """Implements `stream_jobs.replay.source.RecordSource`. For one thread.

    A partition's end is fixed when it is first asked for. Where it begins is asked again each time, because retention
    moves it while an export runs.
    """

    def __init__(self, kafka: Mapping[str, str], timeout_s: float = 20.0):
        self._kafka, self._timeout_s = kafka, timeout_s
        self._source = KafkaSource(kafka, timeout_s)
        self._asked: set[str] = set()

    def extents(self, topic: str) -> Sequence[Extent]:
        """Every partition of `topic`, by number; empty for a topic that does not exist. Raises ReadFailed."""
        fixed = self._source.extents(topic)
        if topic not in self._asked:
            self._asked.add(topic)
            return fixed
        with contextlib.closing(KafkaSource(self._kafka, self._timeout_s)) as source:
            now = {one.partition: one for one in source.extents(topic)}
        return [
            Extent(topic, one.partition, now[one.partition].first, min(one.end, now[one.partition].end))
            for one in fixed
            if one.partition in now
        ]

    def read(self, topic: str, partition: int, first: int, end: int) -> Iterator[LogRecord]:
        """Records with offsets in [first, end), in order, streamed. Raises ReadFailed."""
        return self._source.read(topic, partition, first, end)

    def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        """First offset whose record's timestamp is at or after `time_ms`; the end if there is none. Raises
        ReadFailed."""
        return self._source.offset_at(topic, partition, time_ms)

    def close(self) -> None:
        """Close the consumers."""
        self._source.close()
