"""The policy topic: what stands on it, and putting a signed policy there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException

from enclavescale.errors import ClusterUnreachable, TopicFailed
from enclavescale.policy.errors import PolicyRefused
from enclavescale.policy.held import HeldPolicy, hold_value
from enclavescale.reach import partitions_of_topic
from schemas.codec import MAX_POLICY_BYTES
from schemas.errors import ConfigError, EnclaveScaleError
from stream_jobs.output import make_kafka_producer, producer_properties
from stream_jobs.policy_store import READ_POLICIES
from stream_jobs.reading import open_reader, read_range, watermarks

READ_S = 20.0
"""Longest wait for progress while the topic is read, s."""

FLUSH_S = 45.0
"""Longest wait for the brokers' acknowledgement, s: above the producer's delivery time-out, which decides."""

_OVERHEAD = 4096
"""Bytes of a request around the value."""

MakeProducer = Callable[[dict[str, str]], Any]


@dataclass(frozen=True, slots=True)
class Standing:
    """A policy on the topic: where, since when (UTC ms by Kafka's time stamp)."""

    partition: int
    offset: int
    timestamp_ms: int
    held: HeldPolicy


@dataclass(frozen=True, slots=True)
class PolicyTopic:
    """What the topic holds. `standing`: believed policies without repetitions; `others`: (partition, offset, code) of
    the values that are none: undecodable, with a signature that does not hold, or by a signer who is not trusted.
    """

    standing: tuple[Standing, ...]
    others: tuple[tuple[int, int, str], ...]

    @property
    def newest(self) -> Standing | None:
        """The policy of the highest counter; of two with one counter the first, as workers take it."""
        return max(self.standing, key=lambda one: one.held.policy.counter, default=None)

    def with_digest(self, digest: bytes) -> Standing | None:
        """The first copy of a policy."""
        return next((one for one in self.standing if one.held.digest == digest), None)

    def with_counter(self, counter: int) -> Standing | None:
        """The first policy with a counter: the one that workers use."""
        return next((one for one in self.standing if one.held.policy.counter == counter), None)


def read_topic(kafka: Mapping[str, str], topic: str, signers: Sequence[bytes] = ()) -> PolicyTopic:
    """Everything on the policy topic, judged by `signers` (points of 65 bytes; none given: by the keys it names).

    Raises ClusterUnreachable, TopicFailed, ReadFailed.
    """
    with contextlib.closing(open_reader(kafka)) as consumer:
        standing: dict[bytes, Standing] = {}
        others = []
        for message in _messages(consumer, topic):
            partition, offset = message.partition(), message.offset()
            try:
                held = hold_value(message.value() or b"", f"{topic}[{partition}] offset {offset}", signers)
            except EnclaveScaleError as error:
                others.append((partition, offset, error.code))
                continue
            if held.believed and held.digest is not None:
                standing.setdefault(held.digest, Standing(partition, offset, message.timestamp()[1], held))
            else:
                others.append((partition, offset, held.signature))
    return PolicyTopic(tuple(standing.values()), tuple(others))


def _messages(consumer: Any, topic: str) -> Iterator[Any]:
    for partition in partitions_of_topic(consumer, topic):
        first, end = watermarks(consumer, topic, partition, READ_S)
        while first < end:
            upto = min(end, first + READ_POLICIES)
            yield from read_range(consumer, topic, partition, first, upto, READ_S)
            first = upto


def check_successor(topic: PolicyTopic, held: HeldPolicy) -> None:
    """Raise PolicyRefused unless a policy may follow what stands: POLICY_EQUIVOCATION, POLICY_ROLLBACK."""
    counter = held.policy.counter
    same = topic.with_counter(counter)
    if same is not None and same.held.digest != held.digest:
        raise PolicyRefused(
            f"another policy with counter {counter} stands at {same.held.origin}",
            code="POLICY_EQUIVOCATION",
            field="counter",
            remedy="Sign with a higher counter; if you did not sign the other one, rotate the signer (docs/policy.md).",
        )
    newest = topic.newest
    if newest is not None and newest.held.policy.counter > counter:
        raise PolicyRefused(
            f"counter {counter}; the newest on the topic has {newest.held.policy.counter}",
            code="POLICY_ROLLBACK",
            field="counter",
            remedy="Sign it with a higher counter: `policy sign --counter auto` with the cluster's options.",
        )


def publish(
    kafka: Mapping[str, str],
    topic: str,
    held: HeldPolicy,
    make_producer: MakeProducer = make_kafka_producer,
) -> tuple[int, int]:
    """Put a signed policy on the topic, acknowledged by all replicas in sync; returns partition and offset.

    Raises ConfigError, ClusterUnreachable, TopicFailed.
    """
    if held.value is None:
        raise ConfigError(
            f"{held.origin} is not signed", field="file", remedy="Sign it first: enclavescale policy sign."
        )
    size = {"message.max.bytes": str(MAX_POLICY_BYTES + _OVERHEAD)}
    producer = make_producer({**size, **producer_properties(kafka)})
    reports: list[tuple[Any, Any]] = []  # error, message
    try:
        producer.produce(
            topic,
            held.value,
            key=f"policy/{held.policy.counter}".encode(),
            on_delivery=lambda error, message: reports.append((error, message)),
        )
    except (KafkaException, BufferError) as error:
        raise TopicFailed(f"{topic}: {error}", field=topic) from error
    left = producer.flush(FLUSH_S)
    if left or not reports:
        raise ClusterUnreachable(f"{topic}: no broker acknowledged the policy within {FLUSH_S:.0f} s")
    refusal, message = reports[0]
    if refusal is not None:
        raise TopicFailed(f"{topic}: {refusal.str()}", field=topic)
    return message.partition(), message.offset()
