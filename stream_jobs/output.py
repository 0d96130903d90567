"""Publishing: rejections, manifests and outputs, acknowledged in order before anything above them is committed."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import KafkaException, Producer

from attester.session import Session
from schemas.codec import (
    Framing,
    encode_body,
    encode_signed_manifest,
    encode_signed_output,
    encode_signed_record,
    manifest_preimage,
    output_preimage,
    record_digest,
    record_preimage,
)
from schemas.errors import ConfigError
from schemas.records import ControlRecord, WorkerIdentity
from schemas.topics import MAX_MESSAGE_BYTES, TopicNames
from stream_jobs.core.effects import ControlWanted, Emission, Rejection
from stream_jobs.log_record import LogRecord, PublishFailed
from stream_jobs.metrics import Stages
from stream_jobs.tracing import Headers

logger = logging.getLogger(__name__)

DEFAULTS = {
    "enable.idempotence": "true",
    "acks": "all",
    "compression.type": "zstd",
    "linger.ms": "5",
    # Below the log adapter's stall time-out (60 s), so that a dead broker shows as PUBLISH_FAILED and not as a stall.
    "delivery.timeout.ms": "30000",
    # A batch above a topic's max.message.bytes is refused whole, and librdkafka does not split it.
    "batch.size": str(MAX_MESSAGE_BYTES // 2),
}
FIXED = {"enable.idempotence": ("true",), "acks": ("all", "-1"), "request.required.acks": ("all", "-1")}
"""What no operator may change: the allowed values."""

FLUSH_S = 45.0
"""Wait for acknowledgements, s: above the delivery time-out, which decides."""

SETTLE_S = 1.0
"""Longest time rejections go unacknowledged while more are sent, s. A restart takes the highest one it finds as proof
of those below, so none may time out while later ones, sent long after it, still arrive."""

ANY_PARTITION = -1
"""Kafka's number for the partition in which a record's key belongs."""

MAX_KEY_BYTES = 4096
"""Bytes of a rejected record's key that are kept: with the value at its largest and our headers, the dead letter stays
below the rejections topic's limit, whatever somebody put on the reports topic."""

SERVICE = "enclavescale-worker"


def producer_properties(kafka: Mapping[str, str]) -> dict[str, str]:
    """librdkafka properties of the worker's producer: ours, then the operator's; consumer-only ones left out.

    Raises ConfigError for what would take the order or the acknowledgements away that a restart relies on.
    """
    for name, allowed in FIXED.items():
        if kafka.get(name, allowed[0]).lower() not in allowed:
            raise ConfigError(f"{name} must stay {allowed[0]}", field=name)
    return {**DEFAULTS, **{name: value for name, value in kafka.items() if not name.startswith("group.")}}


def make_kafka_producer(properties: dict[str, str]) -> Any:
    """A producer whose own log lines go to this module's logger rather than to stderr."""
    return Producer(properties, logger=logger)


@dataclass(frozen=True, slots=True)
class WorkerIdentityFacts:
    """Who this worker is: its attested session and enrolled host id."""

    session: Session
    host_id: str


class OutputPublisher:
    """One worker's producer. Everything before a `settle` is acknowledged when it returns."""

    def __init__(
        self,
        kafka: Mapping[str, str],
        topics: TopicNames,
        identity: WorkerIdentityFacts,
        *,
        framing: Framing,
        wall: Callable[[], float] = time.time,
        make_producer: Callable[[dict[str, str]], Any] = make_kafka_producer,
        clock: Callable[[], float] = time.monotonic,
        stages: Stages | None = None,
    ):
        self._stages = stages or Stages()
        self._producer = make_producer(producer_properties(kafka))
        self._topics, self._identity, self._framing, self._wall = topics, identity, framing, wall
        self._clock = clock
        self._unsettled_since: float | None = None
        self._errors: list[str] = []
        self._control_seq = 0
        self._control_head: bytes | None = None

    @property
    def session(self) -> Session:
        """The session that signs."""
        return self._identity.session

    def reject(self, record: LogRecord, rejection: Rejection) -> None:
        """Send a record to the rejections topic."""
        key, value, headers = dead_letter(record, rejection)
        self._produce(self._topics.rejections, record.partition, key, value, headers)
        now = self._clock()
        if self._unsettled_since is None:
            self._unsettled_since = now
        elif now - self._unsettled_since >= SETTLE_S:
            self.settle()

    def emit(self, made: Emission, headers: Headers = ()) -> None:
        """Publish one output, with `headers` beside its own: what was refused below it first, then its manifests, then
        itself."""
        session = self._identity.session
        output = made.output
        key = f"{output.domain}/{output.window_start_ms}".encode()
        self.settle()
        with self._stages.timed("sign"):
            manifests = [
                encode_signed_manifest(one, session.sign(manifest_preimage(one)), session.session_id, self._framing)
                for one in made.manifests
            ]
            worker = WorkerIdentity(
                host_id=self._identity.host_id, session_id=session.session_id, evidence=session.evidence
            )
            value = encode_signed_output(
                made.output_bytes, session.sign(output_preimage(made.output_bytes)), worker, self._framing
            )
        own = cloud_event(
            made.digest, output.domain, "org.enclavescale.fleet-power.v1", output.window_end_ms, output.revision
        )
        with self._stages.timed("publish"):
            for manifest in manifests:
                self._produce(self._topics.manifests, output.source.partition, key, manifest, [])
            self.settle()
            self._produce(self._topics.output, output.source.partition, key, value, [*own, *headers])
            self.settle()

    def control(self, wanted: ControlWanted, partition: int) -> None:
        """Write a control record into the domain's partition, signed, with evidence."""
        session = self._identity.session
        body = ControlRecord(
            kind=wanted.kind,
            domain=wanted.domain,
            host_id=self._identity.host_id,
            session_id=session.session_id,
            seq=self._control_seq,
            prev_digest=self._control_head,
            prev_digest_absent_reason=None if self._control_head else "first record of the session",
            issued_at_ms=int(self._wall() * 1000),
            policy_digest=wanted.policy_digest,
            content_digest=wanted.content_digest,
            content_digest_absent_reason=None if wanted.content_digest else "names no content",
            effective_from_ms=wanted.effective_from_ms,
            effective_from_ms_absent_reason=None if wanted.effective_from_ms is not None else "as the policy says",
            closed_through_ms=wanted.closed_through_ms,
            closed_through_ms_absent_reason=None if wanted.closed_through_ms is not None else "closes nothing",
            collateral_digest=wanted.collateral_digest,
            collateral_digest_absent_reason=None if wanted.collateral_digest else "no collateral is in force",
            subjects=wanted.subjects,
            reason=wanted.reason,
        )
        body_bytes = encode_body(body)
        preimage = record_preimage(body_bytes)
        value = encode_signed_record(body_bytes, session.sign(preimage), session.evidence, self._framing)
        self._produce(self._topics.reports, partition, wanted.domain.encode(), value, [])
        self.settle()
        self._control_seq += 1
        self._control_head = record_digest(preimage)
        logger.info("control record %s for %s: %s", wanted.kind, wanted.domain, wanted.reason)

    def announce(self, key: bytes, value: bytes) -> None:
        """Put a signed beacon on its topic, where its key belongs, acknowledged. Raises PublishFailed."""
        self._produce(self._topics.beacons, ANY_PARTITION, key, value, [])
        self.settle()

    def settle(self) -> None:
        """Wait until everything sent is acknowledged. Raises PublishFailed; then nothing above may be committed."""
        left = self._producer.flush(FLUSH_S)
        self._unsettled_since = None
        if left or self._errors:
            raise PublishFailed(f"{left} records not acknowledged; {'; '.join(self._errors[:3])}")

    def _produce(
        self, topic: str, partition: int, key: bytes | None, value: bytes, headers: list[tuple[str, str]]
    ) -> None:
        try:
            while True:
                try:
                    self._producer.produce(
                        topic, value=value, key=key, partition=partition, headers=headers, on_delivery=self._delivered
                    )
                    break
                except BufferError:
                    self.settle()  # librdkafka's queue is full: wait for the brokers
            self._producer.poll(0)
        except KafkaException as error:
            raise PublishFailed(f"{topic}[{partition}]: {error}") from error

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self._errors.append(f"{message.topic()}[{message.partition()}]: {error.str()}")


def dead_letter(record: LogRecord, rejection: Rejection) -> tuple[bytes | None, bytes, list[tuple[str, str]]]:
    """Key, value and headers of a refused record on the rejections topic: original bytes, the reason in Kafka Connect's
    headers."""
    value = record.value or b""
    headers = [
        ("__connect.errors.topic", record.topic),
        ("__connect.errors.partition", str(record.partition)),
        ("__connect.errors.offset", str(record.offset)),
        ("__connect.errors.connector.name", SERVICE),
        ("__connect.errors.task.id", str(record.partition)),
        ("__connect.errors.stage", "VALUE_CONVERTER" if rejection.digest is None else "TRANSFORMATION"),
        ("__connect.errors.exception.class.name", "org.enclavescale." + rejection.code),
        ("__connect.errors.exception.message", rejection.message[:1000]),
        ("enclavescale.error.code", rejection.code),
        ("enclavescale.original.size", str(len(value))),
        ("enclavescale.original.sha256", hashlib.sha256(value).hexdigest()),
    ]
    if rejection.digest is not None:
        headers.append(("enclavescale.record.digest", rejection.digest.hex()))
    key = record.key
    if key is not None and len(key) > MAX_KEY_BYTES:
        headers.append(("enclavescale.original.key.size", str(len(key))))
        key = key[:MAX_KEY_BYTES]
    return key, value[:MAX_MESSAGE_BYTES], headers


def cloud_event(digest: bytes, domain: str, kind: str, time_ms: int, revision: int) -> list[tuple[str, str]]:
    """CloudEvents 1.0, Kafka protocol binding, binary content mode."""
    moment = datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return [
        ("ce_specversion", "1.0"),
        ("ce_id", digest.hex()),
        ("ce_source", f"/domains/{domain}"),
        ("ce_type", kind),
        ("ce_time", moment),
        ("ce_revision", str(revision)),
        ("content-type", "application/avro"),
    ]
