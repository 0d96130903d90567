"""Publish: spooled bytes go to the partition the policy names, in order, until the broker has acknowledged them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import quote

from confluent_kafka import KafkaError, KafkaException, Producer

from producers.backoff import Recovery
from producers.errors import SpoolError
from producers.spool import Spool, SpoolEntry
from schemas.errors import ConfigError
from schemas.records import DomainRule
from schemas.topics import MAX_MESSAGE_BYTES, TopicNames

log = logging.getLogger(__name__)

EVENT_TYPE = "org.enclavescale.window-report.v1"
REBOOTSTRAP_S = 300.0
"""So long without an acknowledgement, a failed delivery is tried with a new client: the brokers that the old one knows
may be gone, and those that are configured say who there is now."""
CLOSE_S = 2.0
"""Longest wait for librdkafka to let go of what is in flight."""
SPOOL_RETRY_S = 1.0
"""Pause after a failure of the spool before it is asked again."""
READ_BATCH = 100
"""Entries read from the spool at once: about 10 MB if every one of them carries evidence."""
RECOVERY_BATCH = 8
"""The same while a backlog leaves slowly: most of what is read at once could not be sent."""
PREFIX = "kafka."

_FIXED = {"enable.idempotence": ("true",), "acks": ("all", "-1"), "request.required.acks": ("all", "-1")}
_DEFAULTS = {
    "enable.idempotence": "true",
    "acks": "all",
    "compression.type": "zstd",
    "linger.ms": "20",  # one window's reports of a process leave together; small against any window
    "delivery.timeout.ms": "120000",
    # A batch above the topic's max.message.bytes is refused whole, and librdkafka does not split it.
    "batch.size": str(MAX_MESSAGE_BYTES // 2),
    # What waits is on disk; the agent's memory is its workload's neighbour.
    "queue.buffering.max.kbytes": "32768",
    # The other way (rebootstrap) begins a new thread at every refused connection and never backs off (librdkafka 2.16):
    # 91 connections in 45 s of an outage instead of 7. Where all brokers have moved, `REBOOTSTRAP_S` helps.
    "metadata.recovery.strategy": "none",
}
_BROKERS = ("bootstrap.servers", "metadata.broker.list", "test.mock.num.brokers")
_TIMEOUTS = ("delivery.timeout.ms", "message.timeout.ms")
_SHOWN = ("bootstrap.servers", "security.protocol", "sasl.mechanism", "sasl.mechanisms", "client.id", *_DEFAULTS)
_NEVER = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD)


def partitions_of(domains: tuple[DomainRule, ...]) -> dict[str, int]:
    """Return the partition of every domain as the policy's rules name it."""
    return {rule.domain: rule.partition for rule in domains}


def producer_properties(options: Mapping[str, str], spool_age_ms: int) -> dict[str, str]:
    """Return librdkafka's properties: ours, then the operator's (with or without the prefix `kafka.`).

    Idempotence and acks=all are not negotiable; there is no default broker; the delivery timeout must be below the
    spool's age, or reports would be dropped while librdkafka still tries them. Raises `ConfigError`, which never
    shows a value.
    """
    given = {name.removeprefix(PREFIX): str(value) for name, value in options.items()}
    for name, allowed in _FIXED.items():
        if given.get(name, allowed[0]).lower() not in allowed:
            raise ConfigError(f"{PREFIX}{name} must stay {allowed[0]}", field=PREFIX + name)
    if not any(given.get(name) for name in _BROKERS):
        raise ConfigError("no broker given", field=PREFIX + _BROKERS[0])
    properties = {**_DEFAULTS, **given}
    if _TIMEOUTS[1] in given:
        del properties[_TIMEOUTS[0]]  # librdkafka's two names for one property
    timeout = properties.get(_TIMEOUTS[0], given.get(_TIMEOUTS[1], ""))
    if not timeout.isdecimal() or not 0 < int(timeout) < spool_age_ms:
        raise ConfigError(
            "the delivery timeout must be positive and below the spool's age", field=PREFIX + _TIMEOUTS[0]
        )
    return properties


def shown_properties(properties: Mapping[str, str]) -> dict[str, str]:
    """Return properties fit for a log: values only of names known to hold no secret."""
    return {name: value if name in _SHOWN else "[hidden]" for name, value in sorted(properties.items())}


def cloud_event_headers(entry: SpoolEntry) -> list[tuple[str, bytes]]:
    """Return CloudEvents 1.0 headers (Kafka protocol binding, binary mode); all of it is in the record anyway."""
    moment = datetime.fromtimestamp(entry.window_end_ms / 1000, UTC)
    texts = {
        "ce_specversion": "1.0",
        "ce_id": entry.digest.hex(),
        "ce_source": f"/hosts/{quote(entry.host_id, safe='')}",
        "ce_type": EVENT_TYPE,
        "ce_time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "content-type": "application/avro",
    }
    return [(name, text.encode()) for name, text in texts.items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishConfig:
    """Where reports go: partition per domain (from the policy), Kafka properties, topic, messages in flight."""

    partitions: Mapping[str, int]
    kafka: Mapping[str, str] = field(repr=False)
    topic: str = TopicNames().reports
    max_in_flight: int = 1_000


def make_kafka_producer(properties: dict[str, str]) -> Any:
    """Return a producer whose own log lines go to this module's logger rather than to stderr."""
    return Producer(properties, logger=log)


@dataclass(frozen=True, slots=True)
class PublisherStats:
    """Totals of one publisher, and where it stands, for metrics.

    `acknowledged` by the broker; `failed` deliveries, tried again; `resent`: sent more than once; `refused`: no broker
    will take them, dropped; `stranded`: held back because the policy names no partition for their domain;
    `failing`: nothing was acknowledged since a delivery failed; `recovering`: a backlog leaves at a measured pace
    (`backoff`).
    """

    acknowledged: int
    failed: int
    resent: int
    refused: int
    stranded: int
    in_flight: int
    failing: bool
    recovering: bool
    last_ack_age_s: float | None


class Publisher:
    """Sends what the spool holds and trims what the broker acknowledged. Used from one thread.

    After a failed delivery it waits until nothing is in flight and starts again with the oldest entry: order is kept
    (evidence before what it proves), duplicates are the worker's to count. What was delivered past a failed report of
    its host is therefore sent again, too: the worker may have refused it for want of evidence. How soon and how fast
    says `backoff`. Entries that no broker will take (too large) are dropped and counted; those of a domain that has
    no partition stay until a policy names one, or they are too old. When the spool fails, what is known to be
    delivered is kept in mind and trimmed later. `now` is a monotonic clock in seconds.
    """

    def __init__(
        self,
        config: PublishConfig,
        spool: Spool,
        make_producer: Callable[[dict[str, str]], Any] = make_kafka_producer,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._spool = spool
        self._now = now
        self._properties = producer_properties(config.kafka, spool.max_age_ms)
        self._make = make_producer
        self._producer, self._made = make_producer(dict(self._properties)), now()
        self._recovery = Recovery(config.max_in_flight, now, active=spool.depth()[0] > 0)
        self._in_flight: dict[int, str] = {}
        self._failed_at: dict[str, int] = {}
        self._acked: dict[int, str] = {}
        self._done: set[int] = set()
        self._doomed: set[int] = set()
        self._stranded: set[int] = set()
        self._cursor = self._sent_to = 0
        self._broken = self._fatal = False
        self._trim_from = self._fill_from = 0.0
        self._last_ack: float | None = None
        self._failures = self._resent = self._refused = 0
        self.acknowledged = 0
        log.info("publishing to %s with %s", config.topic, shown_properties(self._properties))

    def pump(self, timeout_s: float = 0.0) -> None:
        """Serve delivery reports for up to `timeout_s`, trim the spool, send what may be sent.

        A failing spool is asked again a second later; it counts and logs its failures itself.
        """
        self._producer.poll(timeout_s)
        if self._now() >= self._trim_from:
            self._trim_from = self._attempt(self._trim)
        if self._now() >= self._fill_from:
            self._fill_from = self._attempt(self._fill)

    def flush(self, timeout_s: float) -> bool:
        """Pump until the spool is empty or time is up; return whether it is empty."""
        deadline = self._now() + timeout_s
        while True:
            self.pump(0.02)
            if not self._spool.depth()[0]:
                return True
            if self._now() >= deadline:
                return False

    def close(self) -> None:
        """Send nothing any more; what is in flight is still in the spool, for the publisher that follows this one.

        librdkafka would go on with it, at the old brokers and partitions, and its threads would stay for ever.
        """
        self._broken = True  # nobody needs to hear of these failures
        self._producer.purge()
        until = self._now() + CLOSE_S
        while self._in_flight and self._now() < until:
            self._producer.poll(0.02)

    def stats(self) -> PublisherStats:
        """Return the totals so far."""
        return PublisherStats(
            acknowledged=self.acknowledged,
            failed=self._failures,
            resent=self._resent,
            refused=self._refused,
            stranded=len(self._stranded),
            in_flight=len(self._in_flight),
            failing=self._recovery.failing,
            recovering=self._recovery.active,
            last_ack_age_s=None if self._last_ack is None else self._now() - self._last_ack,
        )

    def _attempt(self, step: Callable[[], None]) -> float:
        """Run a step that needs the spool; return the time before which it should not be run again."""
        try:
            step()
        except SpoolError:
            return self._now() + SPOOL_RETRY_S
        return 0.0

    def _fill(self) -> None:
        if self._broken:
            if self._in_flight or self._recovery.waits():
                return
            self._restart()
        room = self._recovery.room(len(self._in_flight))
        if room <= 0:
            return
        entries = self._spool.pending(self._cursor, min(room, RECOVERY_BATCH if self._recovery.active else READ_BATCH))
        for entry in entries:
            if not self._pass(entry):
                break
            self._cursor = entry.id
        if not self._recovery.failing and self._behind() <= 0:
            self._recovery.caught_up()

    def _behind(self) -> int:
        """Reports that wait and have not been looked at. Less than none if the spool has dropped what is in flight."""
        seen = (self._in_flight, self._acked, self._done, self._doomed, self._stranded)
        return self._spool.depth()[0] - sum(map(len, seen))

    def _pass(self, entry: SpoolEntry) -> bool:
        """Send an entry, or go past it; False if it must wait."""
        if entry.id in self._done or entry.id in self._doomed:
            return True  # only the spool does not know yet
        partition = self._config.partitions.get(entry.domain)
        if partition is None:
            if not self._stranded:
                log.error("reports of domain %s wait: the policy names no partition for it", entry.domain)
            self._stranded.add(entry.id)
            return True
        return self._recovery.may_send(entry.appended_ms) and self._send(entry, partition)

    def _send(self, entry: SpoolEntry, partition: int) -> bool:
        try:
            self._producer.produce(
                self._config.topic,
                value=entry.value,
                key=entry.domain.encode(),
                partition=partition,
                headers=cloud_event_headers(entry),
                on_delivery=partial(self._on_delivery, entry.id, entry.host_id),
            )
        except BufferError:
            return False  # librdkafka's queue is full: the rest waits on disk
        except KafkaException as error:
            self._on_error(entry.id, entry.host_id, error.args[0])
            return entry.id in self._doomed
        self._in_flight[entry.id] = entry.host_id
        self._resent += entry.id <= self._sent_to
        self._sent_to = max(self._sent_to, entry.id)
        return True

    def _on_delivery(self, entry_id: int, host_id: str, error: KafkaError | None, _message: object) -> None:
        self._in_flight.pop(entry_id, None)
        if error is None:
            self._acked[entry_id] = host_id
            self._last_ack = self._now()
            if not self._broken:
                self._recovery.acknowledged()
        else:
            self._on_error(entry_id, host_id, error)

    def _on_error(self, entry_id: int, host_id: str, error: KafkaError) -> None:
        if error.code() in _NEVER:
            log.error("report %d refused for good and dropped: %s", entry_id, error.name())
            self._doomed.add(entry_id)
            self._refused += 1
            return
        # One line for an outage: a thousand reports in flight fail for the same cause.
        log.log(
            logging.DEBUG if self._broken else logging.WARNING, "not delivered, will be sent again: %s", error.name()
        )
        self._failures += 1
        self._failed_at[host_id] = min(entry_id, self._failed_at.get(host_id, entry_id))
        self._broken = True
        self._fatal = self._fatal or bool(error.fatal())
        self._recovery.failed()

    def _trim(self) -> None:
        if self._acked:
            first = dict(self._failed_at)
            for entry_id, host_id in self._in_flight.items():
                first[host_id] = min(entry_id, first.get(host_id, entry_id))
            done = {
                entry_id for entry_id, host_id in self._acked.items() if entry_id < first.get(host_id, entry_id + 1)
            }
            for entry_id in done:
                del self._acked[entry_id]
            self._done |= done
            self.acknowledged += len(done)
        if self._done:
            self._spool.acknowledge(sorted(self._done))
            self._done.clear()
        if self._doomed:
            self._spool.discard(sorted(self._doomed))
            self._doomed.clear()

    def _restart(self) -> None:
        silent_s = self._now() - max(self._made, self._last_ack or self._made)
        if self._fatal or silent_s > REBOOTSTRAP_S:
            # librdkafka: after a fatal error an idempotent producer instance cannot go on.
            self._producer, self._made = self._make(dict(self._properties)), self._now()
        self._broken = self._fatal = False
        self._failed_at.clear()
        self._acked.clear()  # delivered past a failure: they are still in the spool and go again
        self._stranded.clear()
        self._cursor = 0
        self._recovery.restart()
