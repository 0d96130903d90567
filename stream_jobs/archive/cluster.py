"""The topics of a cluster as a source of records: plain consumers, streamed, without a trace on the cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from stream_jobs.log_record import LogRecord
from stream_jobs.reading import PASSING_CODES, POLL_S, ReadFailed, open_reader, watermarks
from stream_jobs.replay.source import Extent

BATCH = 100
"""Messages taken from the client library at once: 50 MiB where all are as large as the reports topic allows."""

TUNING = {"queued.max.messages.kbytes": "16384", "fetch.wait.max.ms": "20"}
"""Fetched ahead at most 16 MiB (a single message may be larger); at the end of one partition the broker is not to hold
on to the request while the next one waits."""


class ClusterSource:
    """Implements `stream_jobs.replay.source.RecordSource`. For one thread; reads may be interleaved.

    A partition's end is fixed when it is first asked for; its beginning is asked for each time, as retention moves it.
    """

    def __init__(self, kafka: Mapping[str, str], timeout_s: float = 20.0):
        self._kafka = {**kafka, **TUNING}
        self._timeout_s = timeout_s
        self._ends: dict[tuple[str, int], int] = {}
        # By topic: a consumer that goes on to another topic waits for its metadata, up to a second.
        self._idle: dict[str, list[Consumer]] = {}
        self._asking = open_reader(self._kafka)

    def extents(self, topic: str) -> Sequence[Extent]:
        """Every partition of `topic`, by number; empty for a topic that does not exist. Raises ReadFailed."""
        try:
            metadata = self._asking.list_topics(topic, timeout=self._timeout_s).topics[topic]
        except KafkaException as error:
            raise ReadFailed(f"{topic}: {error.args[0].str() if error.args else error}") from error
        if metadata.error is not None:
            if metadata.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return []
            raise ReadFailed(f"{topic}: {metadata.error.str()}")
        found = []
        for partition in sorted(metadata.partitions):
            low, high = watermarks(self._asking, topic, partition, self._timeout_s)
            found.append(Extent(topic, partition, low, self._ends.setdefault((topic, partition), high)))
        return found

    def read(self, topic: str, partition: int, first: int, end: int) -> Iterator[LogRecord]:
        """Records with offsets in [first, end), in order, streamed. Raises ReadFailed where `end` is not reached."""
        if first >= end:
            return
        idle = self._idle.setdefault(topic, [])
        consumer = idle.pop() if idle else open_reader(self._kafka)
        try:
            consumer.assign([TopicPartition(topic, partition, first)])
            for message in self._until(consumer, TopicPartition(topic, partition, first), end):
                yield log_record(message)
        finally:
            consumer.unassign()
            idle.append(consumer)

    def _until(self, consumer: Consumer, place: TopicPartition, end: int) -> Iterator[Message]:
        idle_s, after = 0.0, place.offset
        while True:
            found = False
            # Not more than there can be: librdkafka would wait out the time for messages that never come.
            for message in consumer.consume(min(BATCH, end - after), POLL_S):
                error = message.error()
                if error is None:
                    found = True
                    after = (message.offset() or 0) + 1
                    if after <= end:
                        yield message
                    if after >= end:
                        return
                elif error.code() != KafkaError._PARTITION_EOF and not _passes(error):
                    raise ReadFailed(f"{place.topic}[{place.partition}]: {error.str()}")
            # Offsets at the end that are no records move the position only.
            position = consumer.position([place])[0].offset
            if position >= end:
                return
            idle_s = 0.0 if found else idle_s + POLL_S
            if idle_s >= self._timeout_s:
                raise ReadFailed(f"{place.topic}[{place.partition}] stands at {position}, its end is {end}")

    def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        """First offset whose record's timestamp is at or after `time_ms`; the partition's end if there is none.

        Raises ReadFailed.
        """
        extent = next((one for one in self.extents(topic) if one.partition == partition), None)
        if extent is None:
            raise ReadFailed(f"{topic} has no partition {partition}")
        try:
            (found,) = self._asking.offsets_for_times([TopicPartition(topic, partition, time_ms)], self._timeout_s)
        except KafkaException as error:
            raise ReadFailed(f"{topic}[{partition}]: {error.args[0].str() if error.args else error}") from error
        if found.error is not None:
            raise ReadFailed(f"{topic}[{partition}]: {found.error.str()}")
        return min(extent.end, found.offset) if found.offset >= 0 else extent.end

    def close(self) -> None:
        """Close the consumers."""
        for consumer in (self._asking, *(one for idle in self._idle.values() for one in idle)):
            consumer.close()
        self._idle.clear()


def _passes(error: KafkaError) -> bool:
    return bool(error.retriable() or error.code() in PASSING_CODES)


def log_record(message: Message) -> LogRecord:
    """A consumed message as it stands in the log."""
    kind, timestamp_ms = message.timestamp()
    headers: Any = message.headers() or ()
    key, value = message.key(), message.value()
    return LogRecord(
        topic=message.topic() or "",
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        timestamp_ms=timestamp_ms,
        timestamp_type=kind - 1,  # the client library counts from 1; 0 is a message without a timestamp
        key=key.encode() if isinstance(key, str) else key,
        value=value.encode() if isinstance(value, str) else value,
        headers=tuple((name, one.encode() if isinstance(one, str) else one) for name, one in headers),
    )
