"""Plain reads from topics, beside the consumer group: to the end, or one partition's tail. Nothing is committed."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from schemas.errors import EnclaveScaleError

logger = logging.getLogger(__name__)

POLL_S = 0.5
"""Longest wait of one poll, s: an end is reached by counting, so this bounds only how soon a dead broker shows."""

MAX_CHUNK = 2_000
"""Messages held at once when a tail is read backwards: outputs have some 10 KB, dead letters up to 512 KiB."""

PASSING_CODES = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    # librdkafka looks for the coordinator of a group that is never used; the right to it is not needed.
    KafkaError.GROUP_AUTHORIZATION_FAILED,
)


class ReadFailed(EnclaveScaleError):
    """A topic could not be read to where it ended when the read began."""

    code = "READ_FAILED"
    remedy = "Check that the brokers are reachable and that this client may read the topic."


def open_reader(kafka: Mapping[str, str]) -> Consumer:
    """A consumer outside of every group: it assigns by hand and never commits."""
    reading = {
        "enable.auto.commit": "false",
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        # librdkafka wants a group id even for manual assignment; a random one is never written to.
        "group.id": f"enclavescale-reader-{uuid.uuid4()}",
    }
    producer_only = ("acks", "enable.idempotence", "linger.ms", "compression.type", "delivery.timeout.ms")
    shared = {name: value for name, value in kafka.items() if name not in producer_only}
    return Consumer({**shared, **reading}, logger=logger)


def read_range(consumer: Consumer, topic: str, partition: int, first: int, end: int, timeout_s: float) -> list[Message]:
    """Messages of [first, end) of one partition, in order. Offsets that do not exist are skipped.

    Raises ReadFailed if `end` is not reached within `timeout_s` of the last progress.
    """
    if first >= end:
        return []
    consumer.assign([TopicPartition(topic, partition, first)])
    try:
        found: list[Message] = []
        idle, after = 0.0, first
        while True:
            # Not more than there can be: librdkafka would wait out the time for messages that never come.
            batch = consumer.consume(min(1000, end - after), POLL_S)
            good = [message for message in batch if message.error() is None]
            for message in batch:
                error = message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF and not _passes(error):
                    raise ReadFailed(f"{topic}[{partition}]: {error.str()}") from KafkaException(error)
            found += [message for message in good if (message.offset() or 0) < end]
            if found:
                after = (found[-1].offset() or 0) + 1
            position = consumer.position([TopicPartition(topic, partition)])[0].offset
            if position >= end or (good and (good[-1].offset() or 0) >= end - 1):
                return found
            idle = 0.0 if good else idle + POLL_S
            if idle >= timeout_s:
                raise ReadFailed(f"{topic}[{partition}] stands at {position}, its end is {end}")
    finally:
        consumer.unassign()


def _passing(error: BaseException) -> bool:
    """Errors that pass by themselves: a leader being elected, a topic made a moment ago."""
    return isinstance(error, KafkaException) and _passes(error.args[0])


def _passes(error: KafkaError) -> bool:
    return bool(error.retriable() or error.code() in PASSING_CODES)


def watermarks(consumer: Consumer, topic: str, partition: int, timeout_s: float) -> tuple[int, int]:
    """First offset and end of a partition; waits up to `timeout_s` for a leader. Raises ReadFailed."""
    place = TopicPartition(topic, partition)
    tries = Retrying(
        retry=retry_if_exception(_passing),
        stop=stop_after_delay(timeout_s),
        wait=wait_random_exponential(multiplier=0.1, max=2),
        reraise=True,
    )
    try:
        low, high = tries(consumer.get_watermark_offsets, place, timeout=timeout_s)
    except KafkaException as error:
        raise ReadFailed(f"{topic}[{partition}]: {error}") from error
    return low, high


def backwards(
    consumer: Consumer, topic: str, partition: int, timeout_s: float, chunk: int = 500
) -> Iterator[list[Message]]:
    """Chunks of a partition from its end to its beginning, each in log order, each up to twice as long as the one
    before (at most `MAX_CHUNK`)."""
    low, end = watermarks(consumer, topic, partition, timeout_s)
    while end > low:
        first = max(low, end - chunk)
        yield read_range(consumer, topic, partition, first, end, timeout_s)
        end, chunk = first, min(2 * chunk, MAX_CHUNK)


class NewMessages:
    """What came to a topic since it was last asked for. For one thread."""

    def __init__(self, consumer: Consumer, topic: str, timeout_s: float, at_once: int):
        """`at_once`: messages of one partition that are held at most."""
        self._consumer, self._topic, self._timeout_s, self._at_once = consumer, topic, timeout_s, at_once
        self._next: dict[int, int] = {}

    def read(self) -> Iterator[tuple[int, Message]]:
        """Partition and message, to where each partition ends now. Raises ReadFailed.

        What was held when a reader stopped, or failed, is read again.
        """
        try:
            metadata = self._consumer.list_topics(self._topic, timeout=self._timeout_s).topics[self._topic]
        except KafkaException as error:
            raise ReadFailed(f"{self._topic}: {error}") from error
        if metadata.error is not None:
            raise ReadFailed(f"{self._topic}: {metadata.error.str()}")
        for partition in sorted(metadata.partitions):
            low, end = watermarks(self._consumer, self._topic, partition, self._timeout_s)
            first = max(low, self._next.get(partition, 0))
            while first < end:
                upto = min(end, first + self._at_once)
                for message in read_range(self._consumer, self._topic, partition, first, upto, self._timeout_s):
                    yield partition, message
                self._next[partition] = first = upto
