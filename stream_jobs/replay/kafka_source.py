"""Topics of a cluster as a replay reads them: plain consumers outside of every group, streamed, nothing committed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from stream_jobs.log_record import LogRecord
from stream_jobs.reading import PASSING_CODES, POLL_S, ReadFailed, open_reader, watermarks
from stream_jobs.replay.source import Extent, RecordSource

CHUNK = 500
"""Messages taken from the client at once."""

FETCHED = {
    # Per consumer; several are open at once, and each holds messages that nobody has asked for yet.
    "queued.max.messages.kbytes": "16384",
    "fetch.message.max.bytes": "1048576",
    # A fetch waits for this much longer than a search needs.
    "fetch.wait.max.ms": "50",
}

LAST = 16
"""Offsets at the end of a partition among which a record is looked for."""

ABSENT = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)


@dataclass(frozen=True, slots=True)
class KafkaSpec:
    """How to open the topics of a cluster. `kafka`: librdkafka properties; `timeout_s`: without progress."""

    kafka: Mapping[str, str] = field(repr=False)
    timeout_s: float = 20.0

    def open(self) -> RecordSource:
        """Open a source; nothing is asked yet."""
        return KafkaSource(self.kafka, self.timeout_s)


class KafkaSource:
    """A `RecordSource` over a cluster; for one thread, reads may be interleaved.

    A partition's end is fixed when it is first asked for; its beginning is asked for each time, as retention moves it.
    Consumers that are done are kept for the next read of the same topic: on another one librdkafka would wait a second
    for what it is told about the topic.
    """

    def __init__(self, kafka: Mapping[str, str], timeout_s: float = 20.0):
        self._kafka, self._timeout_s = {**FETCHED, **kafka}, timeout_s
        self._free: dict[str, list[Consumer]] = defaultdict(list)
        self._ends: dict[tuple[str, int], int] = {}

    def extents(self, topic: str) -> Sequence[Extent]:
        """Every partition of `topic`, by number; empty for a topic that does not exist. Raises ReadFailed."""
        consumer = self._take(topic)
        try:
            return self._ask(consumer, topic)
        finally:
            self._free[topic].append(consumer)

    def read(self, topic: str, partition: int, first: int, end: int) -> Iterator[LogRecord]:
        """Records with offsets in [first, end), in order, streamed. Raises ReadFailed."""
        if first >= end:
            return
        consumer = self._take(topic)
        try:
            consumer.assign([TopicPartition(topic, partition, first)])
            yield from self._stream(consumer, topic, partition, first, end)
        finally:
            consumer.unassign()
            self._free[topic].append(consumer)

    def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        """First offset whose record's timestamp is at or after `time_ms`; the end if there is none."""
        extent = next((one for one in self.extents(topic) if one.partition == partition), None)
        if extent is None:
            return 0
        consumer = self._take(topic)
        try:
            place = TopicPartition(topic, partition, max(0, time_ms))
            found = consumer.offsets_for_times([place], timeout=self._timeout_s)[0]
        except KafkaException as error:
            raise ReadFailed(f"{topic}[{partition}]: {error}") from error
        finally:
            self._free[topic].append(consumer)
        if found.error is None and found.offset >= 0:
            return min(extent.end, max(extent.first, found.offset))
        # There is none, or it cannot be said: librdkafka's mock cluster answers every time with the end.
        last = list(self.read(topic, partition, max(extent.first, extent.end - LAST), extent.end))
        return extent.end if last and last[-1].timestamp_ms < time_ms else self._search(extent, time_ms)

    def close(self) -> None:
        """Close every consumer."""
        for free in self._free.values():
            while free:
                free.pop().close()

    def _take(self, topic: str) -> Consumer:
        free = self._free[topic]
        return free.pop() if free else open_reader(self._kafka)

    def _ask(self, consumer: Consumer, topic: str) -> tuple[Extent, ...]:
        try:
            metadata = consumer.list_topics(topic, timeout=self._timeout_s).topics[topic]
        except KafkaException as error:
            raise ReadFailed(f"{topic}: {error}") from error
        if metadata.error is not None:
            if metadata.error.code() in ABSENT:
                return ()
            raise ReadFailed(f"{topic}: {metadata.error.str()}")
        found = []
        for number in sorted(metadata.partitions):
            low, high = watermarks(consumer, topic, number, self._timeout_s)
            found.append(Extent(topic, number, low, self._ends.setdefault((topic, number), high)))
        return tuple(found)

    def _stream(self, consumer: Consumer, topic: str, partition: int, first: int, end: int) -> Iterator[LogRecord]:
        idle, after = 0.0, first
        while after < end:
            # Not more than there can be: librdkafka would wait out the time for messages that never come.
            batch = consumer.consume(min(CHUNK, end - after), POLL_S)
            progress = False
            for message in batch:
                error = message.error()
                if error is not None:
                    _check(error, topic, partition)
                    continue
                offset = message.offset() or 0
                if offset >= end:
                    return
                progress, after = True, offset + 1
                yield log_record(message)
            position = consumer.position([TopicPartition(topic, partition)])[0].offset
            if position >= end:  # what is left are offsets without a record
                return
            idle = 0.0 if progress else idle + POLL_S
            if idle >= self._timeout_s:
                raise ReadFailed(f"{topic}[{partition}] stands at {position}, its end is {end}")

    def _search(self, extent: Extent, time_ms: int) -> int:
        low, high = extent.first, extent.end
        while low < high:
            middle = (low + high) // 2
            record = next(self.read(extent.topic, extent.partition, middle, high), None)
            if record is None or record.timestamp_ms >= time_ms:
                high = middle
            else:
                low = record.offset + 1
        return low


def log_record(message: Message) -> LogRecord:
    """A message of the client library as a record of the log."""
    kind, stamp = message.timestamp()
    headers: Any = message.headers() or ()
    return LogRecord(
        topic=message.topic() or "",
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        timestamp_ms=stamp,
        timestamp_type=kind - 1,  # the client library counts from 1; 0 is a message without a timestamp
        key=_bytes(message.key()),
        value=_bytes(message.value()),
        headers=tuple((name, _bytes(value)) for name, value in headers),
    )


def _bytes(value: bytes | str | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _check(error: KafkaError, topic: str, partition: int) -> None:
    passes = error.retriable() or error.code() in (*PASSING_CODES, KafkaError._PARTITION_EOF)
    if not passes:
        raise ReadFailed(f"{topic}[{partition}]: {error.str()}")
