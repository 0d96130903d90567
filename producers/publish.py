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

from producers.spool import Spool, SpoolEntry
from schemas.errors import ConfigError
from schemas.records import DomainRule
from schemas.topics import MAX_MESSAGE_BYTES, TopicNames

log = logging.getLogger(__name__)

EVENT_TYPE = "org.enclavescale.window-report.v1"
RETRY_S = 1.0
"""Pause after a failed delivery before everything unacknowledged is sent again, in order."""
READ_BATCH = 500
"""Entries read from the spool at once: about 50 MB if every one of them carries evidence."""
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
    max_in_flight: int = 10_000


def make_kafka_producer(properties: dict[str, str]) -> Any:
    """Return a producer whose own log lines go to this module's logger rather than to stderr."""
    return Producer(properties, logger=log)


class Publisher:
    """Sends what the spool holds and trims what the broker acknowledged. Used from one thread.

    After a failed delivery it waits until nothing is in flight and starts again with the oldest entry: order is kept
    (evidence before what it proves), duplicates are the worker's to count. What was delivered past a failed report of
    its host is therefore sent again, too: the worker may have refused it for want of evidence. Entries that no broker
    will take (too large) are dropped and counted.
    """

    def __init__(
        self,
        config: PublishConfig,
        spool: Spool,
        make_producer: Callable[[dict[str, str]], Any] = make_kafka_producer,
    ) -> None:
        self._config = config
        self._spool = spool
        self._properties = producer_properties(config.kafka, spool.max_age_ms)
        self._make = make_producer
        self._producer = make_producer(dict(self._properties))
        self._in_flight: dict[int, str] = {}
        self._failed_at: dict[str, int] = {}
        self._acked: dict[int, str] = {}
        self._refused: list[int] = []
        self._cursor = 0
        self._failed = self._fatal = False
        self._not_before = 0.0
        self.acknowledged = 0
        log.info("publishing to %s with %s", config.topic, shown_properties(self._properties))

    def pump(self, timeout_s: float = 0.0) -> None:
        """Serve delivery reports for up to `timeout_s`, trim the spool, send what may be sent.

        Raises `SpoolError` if the spool fails, `ConfigError` for an entry whose domain has no partition.
        """
        self._producer.poll(timeout_s)
        self._trim()
        if self._failed:
            if self._in_flight or time.monotonic() < self._not_before:
                return
            self._restart()
        room = self._config.max_in_flight - len(self._in_flight)
        for entry in self._spool.pending(self._cursor, min(max(room, 0), READ_BATCH)):
            if not self._send(entry):
                break

    def flush(self, timeout_s: float) -> bool:
        """Pump until the spool is empty or time is up; return whether it is empty."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.pump(0.02)
            self._trim()
            if not self._spool.depth()[0]:
                return True
            if time.monotonic() >= deadline:
                return False

    def _send(self, entry: SpoolEntry) -> bool:
        partition = self._config.partitions.get(entry.domain)
        if partition is None:
            raise ConfigError(f"the policy names no partition for domain {entry.domain}", field="partitions")
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
            return entry.id in self._refused
        self._in_flight[entry.id] = entry.host_id
        self._cursor = entry.id
        return True

    def _on_delivery(self, entry_id: int, host_id: str, error: KafkaError | None, _message: object) -> None:
        self._in_flight.pop(entry_id, None)
        if error is None:
            self._acked[entry_id] = host_id
        else:
            self._on_error(entry_id, host_id, error)

    def _on_error(self, entry_id: int, host_id: str, error: KafkaError) -> None:
        if error.code() in _NEVER:
            log.error("report %d refused for good and dropped: %s", entry_id, error.name())
            self._refused.append(entry_id)
            return
        log.warning("report %d not delivered, will be sent again: %s", entry_id, error.name())
        self._failed = True
        self._failed_at[host_id] = min(entry_id, self._failed_at.get(host_id, entry_id))
        self._fatal = self._fatal or bool(error.fatal())
        self._not_before = time.monotonic() + RETRY_S

    def _trim(self) -> None:
        if self._acked:
            first = dict(self._failed_at)
            for entry_id, host_id in self._in_flight.items():
                first[host_id] = min(entry_id, first.get(host_id, entry_id))
            done = [
                entry_id for entry_id, host_id in self._acked.items() if entry_id < first.get(host_id, entry_id + 1)
            ]
            self._spool.acknowledge(done)
            self.acknowledged += len(done)
            for entry_id in done:
                del self._acked[entry_id]
        if self._refused:
            self._spool.discard(self._refused)
            self._cursor = max(self._cursor, *self._refused)
            self._refused.clear()

    def _restart(self) -> None:
        if self._fatal:
            # librdkafka: after a fatal error an idempotent producer instance cannot go on.
            self._producer = self._make(dict(self._properties))
        self._failed = self._fatal = False
        self._failed_at.clear()
        self._acked.clear()  # delivered past a failure: they are still in the spool and go again
        self._cursor = 0
