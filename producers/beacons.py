"""Follow the beacons topic: who asks for newer evidence is heard, by form and time; signatures are not verified here.

A host holds no policy on aggregators' evidence, so a beacon is not authenticated (docs/adr/0018): it must be a value of
the topic's schema with a nonce of 32 bytes and a time that is not in the future. What it may cost is bounded by who is
asked (`producers.renewal`). Partitions are assigned by hand, from their last record on: no group, nothing committed.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from producers.backoff import full_jitter
from producers.renewal import wall_clock_ms
from schemas.codec import SINGLE_OBJECT, Framing, decode_signed_beacon
from schemas.errors import ConfigError, EnclaveScaleError
from schemas.records import Beacon

log = logging.getLogger(__name__)

NONCE_BYTES = 32
MAX_VALUE_BYTES = 1024
"""A beacon has some 150 bytes."""

FUTURE_MS = 30_000
"""How far ahead of this machine's clock a beacon may be."""

PREFIX = "kafka."
POLL_S = 0.5
ASK_S = 10.0
"""Longest wait for a broker's answer about the topic."""
CLOSE_S = 2.0

_BROKERS = ("bootstrap.servers", "metadata.broker.list", "test.mock.num.brokers")
_PRODUCER_ONLY = frozenset({
    "acks", "request.required.acks", "enable.idempotence", "enable.gapless.guarantee", "compression.type",
    "compression.codec", "compression.level", "delivery.timeout.ms", "message.timeout.ms", "request.timeout.ms",
    "linger.ms", "queue.buffering.max.ms", "queue.buffering.max.kbytes", "queue.buffering.max.messages", "batch.size",
    "batch.num.messages", "max.in.flight", "max.in.flight.requests.per.connection", "message.send.max.retries",
    "retries", "partitioner", "sticky.partitioning.linger.ms", "transactional.id", "transaction.timeout.ms",
    "delivery.report.only.error", "queue.buffering.backpressure.threshold", "message.max.bytes",
})  # fmt: skip
_GROUP_ONLY = (
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_COORDINATOR,
)
"""Errors of a group's coordinator, for which librdkafka looks although nobody uses the group."""


class BeaconInvalid(EnclaveScaleError):
    """A value of the beacons topic that asks for nothing."""

    code = "BEACON_INVALID"
    remedy = "See who may write to the beacons topic; only aggregators should. Compare the clocks of both machines."


@dataclass(frozen=True, slots=True, kw_only=True)
class BeaconState:
    """Beacons heard, values refused, the time of the newest beacon (UTC ms), what keeps the topic from being read."""

    heard: int
    refused: int
    last_issued_ms: int | None
    last_error: str | None


def read_beacon(value: bytes | None, now_ms: int, framing: Framing = SINGLE_OBJECT) -> Beacon:
    """The beacon in a value of the topic, its signature not verified. Raises BeaconInvalid, SchemaError."""
    if value is None or len(value) > MAX_VALUE_BYTES:
        raise BeaconInvalid("no value, or a long one")
    beacon = decode_signed_beacon(value, framing)[0].beacon
    if len(beacon.nonce) != NONCE_BYTES:
        raise BeaconInvalid(f"a nonce has {NONCE_BYTES} bytes", field="nonce")
    if not 0 < beacon.issued_at_ms <= now_ms + FUTURE_MS:
        raise BeaconInvalid("issued in the future, or before time began", field="issued_at_ms")
    return beacon


def consumer_properties(options: Mapping[str, str]) -> dict[str, str]:
    """The operator's properties (with or without `kafka.`) as a consumer outside of every group takes them.

    Raises ConfigError without a broker.
    """
    given = {name.removeprefix(PREFIX): str(value) for name, value in options.items()}
    if not any(given.get(name) for name in _BROKERS):
        raise ConfigError("no broker given", field=PREFIX + _BROKERS[0])
    ours = {
        "enable.auto.commit": "false",
        "enable.auto.offset.store": "false",
        "auto.offset.reset": "latest",
        "group.id": f"enclavescale-beacons-{uuid.uuid4()}",  # librdkafka wants one; it is never written to
        "queued.max.messages.kbytes": "1024",
        "metadata.recovery.strategy": "none",  # as producers.publish
        "log_level": "2",  # an outage has its line here; librdkafka writes ten a second
    }
    return {name: value for name, value in given.items() if name not in _PRODUCER_ONLY} | ours


def make_kafka_consumer(properties: dict[str, str]) -> Any:
    """A consumer whose own log lines go to this module's logger."""
    return Consumer(properties, logger=log)


class BeaconFollower:
    """Hands every newer beacon of `topic` to each of `demands` (`SessionKeeper.demand`), on a thread of its own.

    The newest is also kept for whoever asks (`newest`), or comes later (`tell`).

    `turn` is one round of the thread that `start` begins. `now_ms` is Unix time in ms. Raises ConfigError. Nobody waits
    for brokers: until they answer, nothing is heard, and `state` says why.
    """

    def __init__(
        self,
        kafka: Mapping[str, str],
        topic: str,
        demands: Sequence[Callable[[Beacon], None]] = (),
        *,
        framing: Framing = SINGLE_OBJECT,
        now_ms: Callable[[], int] = wall_clock_ms,
        make_consumer: Callable[[dict[str, str]], Any] = make_kafka_consumer,
    ) -> None:
        self._properties = consumer_properties(kafka)
        self._topic = topic
        self._demands: tuple[Callable[[Beacon], None], ...] = tuple(demands)
        self._framing = framing
        self._now_ms = now_ms
        self._make_consumer = make_consumer
        self._consumer: Any = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="beacons", daemon=True)
        self._state = BeaconState(heard=0, refused=0, last_issued_ms=None, last_error=None)
        self._failures = 0
        self._lock = threading.Lock()
        self._newest: Beacon | None = None
        self._heard, self._empty = threading.Event(), False

    def start(self) -> Self:
        """Begin the thread. Returns the follower."""
        self._thread.start()
        return self

    def state(self) -> BeaconState:
        """Where it stands."""
        return self._state

    def newest(self, wait_s: float, *, or_none: bool = True) -> Beacon | None:
        """The newest beacon of the topic; waits for one up to `wait_s`, with `or_none` no longer than until it is known
        that there is none."""
        deadline_s = time.monotonic() + wait_s
        while self._newest is None and not (or_none and self._empty):
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or self._closed.is_set():
                break
            self._heard.wait(min(left_s, POLL_S))
        return self._newest

    def tell(self, demand: Callable[[Beacon], None]) -> None:
        """Hand what was heard last, and what comes, to one more."""
        with self._lock:
            self._demands = (*self._demands, demand)
            newest = self._newest
        if newest is not None:
            demand(newest)

    def turn(self, poll_s: float = POLL_S) -> float:
        """Open the topic if it is not open, wait up to `poll_s` for one record. Returns the seconds to pause after."""
        try:
            if self._consumer is None:
                self._open()
            message = self._consumer.poll(poll_s)
            error = None if message is None else message.error()
            if error is not None and error.code() not in _GROUP_ONLY:
                raise KafkaException(error)
        except KafkaException as failure:
            return self._failed(failure)
        if message is not None and error is None:
            self._note(last_error=None)
            self._failures = 0
            self._take(message.value())
        return 0.0

    def close(self) -> None:
        """End the thread and the consumer; whatever hangs in a broker's silence is left to end by itself."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)
        else:
            self._drop()

    def _open(self) -> None:
        self._consumer = self._make_consumer(dict(self._properties))
        found = self._consumer.list_topics(self._topic, ASK_S).topics[self._topic]
        if found.error is not None:
            raise KafkaException(found.error)
        places, held = [], False
        for number in found.partitions:
            place = TopicPartition(self._topic, number)
            low, end = self._consumer.get_watermark_offsets(place, ASK_S)
            places.append(TopicPartition(self._topic, number, max(low, end - 1)))
            held = held or end > low
        self._consumer.assign(places)
        self._empty = not held
        self._failures = 0
        self._note(last_error=None)

    def _take(self, value: bytes | None) -> None:
        try:
            beacon = read_beacon(value, self._now_ms(), self._framing)
        except EnclaveScaleError as error:
            # Said once in a row: whoever fills the topic must not fill the log.
            level = logging.DEBUG if self._state.refused else logging.WARNING
            log.log(level, "a record of the beacons topic is refused: %s", error.code)
            self._note(refused=self._state.refused + 1)
            return
        newest = max(beacon.issued_at_ms, self._state.last_issued_ms or 0)
        self._note(heard=self._state.heard + 1, last_issued_ms=newest)
        with self._lock:
            if self._newest is None or self._newest.issued_at_ms < beacon.issued_at_ms:
                self._newest = beacon
            demands = self._demands
        self._heard.set()
        for demand in demands:
            demand(beacon)

    def _failed(self, error: KafkaException) -> float:
        """Start over with another consumer, some seconds later."""
        reason = error.args[0]
        self._drop()
        self._failures += 1
        wait_s = full_jitter(self._failures)
        level = logging.WARNING if self._state.last_error is None else logging.DEBUG
        log.log(level, "beacons are not heard, next attempt in %.1f s: %s", wait_s, reason.name())
        self._note(last_error=reason.name())
        return wait_s

    def _drop(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    def _note(self, **changes: Any) -> None:
        if any(getattr(self._state, name) != value for name, value in changes.items()):
            self._state = replace(self._state, **changes)

    def _run(self) -> None:
        while not self._closed.wait(self.turn()):
            pass
        self._drop()
