"""The work on one partition: feeds the pure core, publishes what it decides, skips what was published before."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from schemas.codec import Framing
from schemas.errors import EnclaveScaleError
from schemas.topics import TopicNames
from stream_jobs.beacons import BeaconIssuer
from stream_jobs.collateral_store import CollateralStore
from stream_jobs.core.effects import ControlWanted, Emission, Rejection
from stream_jobs.core.partition import CoreConfig, PartitionCore
from stream_jobs.core.policies import CollateralView, PolicyView
from stream_jobs.core.sessions import SessionVerifier, verify_evidence
from stream_jobs.core.standing import CollateralOffer
from stream_jobs.hold import SchemaGate
from stream_jobs.log_record import START_METADATA, LogRecord
from stream_jobs.metrics import JobMetrics
from stream_jobs.output import OutputPublisher
from stream_jobs.policy_store import PolicyStore
from stream_jobs.reading import ReadFailed
from stream_jobs.tail import Published, TailReader
from stream_jobs.tracing import NO_TRACER, Tracer

logger = logging.getLogger(__name__)

REFRESH_MS = 5_000
"""How often the topics of policies and collateral are asked for news while caught up, ms."""

REPEAT_MS = 10_000
"""A control record that was written but not yet met in the log is written again after this, ms."""

METADATA_PREFIX = "enclavescale/1 "
"""Begins our commit metadata; what follows is the highest close offset published."""


class OutputLost(EnclaveScaleError):
    """Outputs that were published before the last commit are no longer on the output topic."""

    code = "OUTPUT_LOST"
    remedy = (
        "The output topic lost records (retention shorter than the reports topic's, or it was made anew). Restore it, "
        "or reset this group's offsets to the start of the reports topic to compute everything again."
    )


class LogRemade(EnclaveScaleError):
    """Outputs are published for records that the reports topic does not have."""

    code = "LOG_REMADE"
    remedy = (
        "The reports topic was made anew (or lost records) and the output topic was not: its outputs would be taken "
        "for those of the new log. Make the other topics anew as well, or work under another topic prefix."
    )


class _Unreadable(Exception):
    """A topic with what control records name could not be read just now. None of our errors: those the core turns into
    rejections."""


@dataclass(slots=True)
class JobContext:
    """What all jobs of a worker share."""

    topics: TopicNames
    framing: Framing
    policies: PolicyStore
    verify: SessionVerifier
    publisher: OutputPublisher
    tail: TailReader
    collateral: CollateralStore | None = None
    beacons: BeaconIssuer | None = None
    metrics: JobMetrics = field(default_factory=JobMetrics)
    tracer: Tracer = NO_TRACER
    gate: SchemaGate | None = None

    def make_job(
        self, topic: str, partition: int, start: int, metadata: str, log_start: int, high_watermark: int
    ) -> DomainJob:
        """Job factory for the log adapter."""
        return DomainJob(self, topic, partition, start, metadata=metadata, high_watermark=high_watermark)


class DomainJob:
    """One partition during one assignment (see `log_record.PartitionJob`)."""

    def __init__(
        self, context: JobContext, topic: str, partition: int, start: int, *, metadata: str, high_watermark: int
    ):
        self._context, self._partition = context, partition
        source = (topic, partition)
        context.policies.refresh()
        self._published: Published = context.tail.outputs(context.topics.output, source, start)
        self._published.last_rejection = context.tail.last_rejection(context.topics.rejections, source, high_watermark)
        self._check_tail(metadata, partition)
        if self._published.last_close >= high_watermark:  # by a worker that was ahead of us, or of another log
            end = context.tail.end_of(topic, partition, self._published.last_close + 1)
            if self._published.last_close >= end:
                raise LogRemade(
                    f"outputs up to offset {self._published.last_close} are published, the log ends at {end}"
                )
        config = CoreConfig(
            topic, partition, self._lookup, context.verify, context.framing, collateral=self._collateral_named
        )
        self._core = PartitionCore(config, self._published.digests)
        self._done = start - 1
        self._touched: set[str] = set()
        self._idle_since: dict[str, int] = {}
        self._written: dict[ControlWanted, int] = {}
        self._shown: set[str] = set()
        self._admit_s = 0.0
        self._refreshed_ms = 0
        self._unfit: bytes | None = None
        logger.info(
            "partition %d from offset %d: %d outputs up to offset %d are published already",
            partition,
            start,
            len(self._published.digests),
            self._published.last_close,
        )

    def _check_tail(self, metadata: str, partition: int) -> None:
        if metadata in ("", START_METADATA):
            return
        published = metadata.removeprefix(METADATA_PREFIX)
        if published.lstrip("-").isdigit() and int(published) > self._published.last_close:
            if self._context.tail.expired(self._context.topics.output, partition):
                # Nothing was due for longer than the retention: what the commit says still holds.
                self._published.last_close = int(published)
                return
            raise OutputLost(
                f"outputs up to close offset {published} were published, the topic has {self._published.last_close}"
            )

    def _lookup(self, digest: bytes) -> PolicyView | None:
        try:
            return self._context.policies.lookup(digest)
        except ReadFailed as error:  # as a refusal it would decide by the weather: stop, and decide after a restart
            raise _Unreadable from error

    def _collateral_named(self, digest: bytes) -> CollateralView | None:
        if self._context.collateral is None:
            return None
        try:
            return self._context.collateral.lookup(digest)
        except ReadFailed as error:
            raise _Unreadable from error

    @property
    def _warm(self) -> int:
        """Offset up to which everything was published before."""
        return self._published.last_close

    @property
    def resume_offset(self) -> int | None:
        """Where a restart reaches the same state; None while the log is only read again."""
        return None if self._done < self._warm else self._core.resume_offset

    @property
    def commit_metadata(self) -> str:
        """Highest close offset published: a restart that does not find it says so."""
        return f"{METADATA_PREFIX}{self._published.last_close}"

    def look_ahead(self, records: Sequence[LogRecord]) -> None:
        """Pass the next records to the core, which may do some of its work for all of them at once."""
        self._note_admitted()
        gate = self._context.gate
        # What an id means may become known between this look and its record's turn: only what is settled is looked at.
        settled = records if gate is None else [one for one in records if gate.settled(one.value)]
        with self._context.metrics.stages.timed("decode"):
            self._core.look_ahead(settled)

    def process(self, record: LogRecord) -> None:
        """Decide about a record and publish the decisions. Raises PublishFailed, ReadFailed, Hold."""
        if self._context.gate is not None and (hold := self._context.gate.unsettled(record.value)) is not None:
            raise hold
        before, clock = self._core.resume_offset, self._context.metrics.stages.clock
        began = clock()
        try:
            effects = self._core.process(record)
        except _Unreadable as error:
            raise ReadFailed(f"nothing could be looked up for offset {record.offset}: {error.__cause__}") from error
        spent_s = clock() - began
        if effects and any(isinstance(effect, Emission) for effect in effects):
            self._context.metrics.stages.observe("close", spent_s)
        else:
            self._admit_s += spent_s
        refused = False
        for effect in effects:
            if isinstance(effect, Rejection):
                self._reject(record, effect)
                refused = True
            else:
                self._emit(effect, record)
        if self._core.resume_offset != before:
            self._context.publisher.settle()  # an idle close without an output moves it, too
        self._done = record.offset
        # A refused record says nothing about its key: anybody chooses that.
        if record.key is not None and not refused:
            self._touched.add(record.key.decode("utf-8", "replace"))

    def _reject(self, record: LogRecord, rejection: Rejection) -> None:
        # Rejections are acknowledged before any output above them, so the two tails tell what is there.
        if record.offset <= max(self._warm, self._published.last_rejection):
            return
        self._context.publisher.reject(record, rejection)
        self._context.metrics.refused.labels(rejection.code).inc()

    def _emit(self, made: Emission, cause: LogRecord) -> None:
        output, domains = made.output, self._context.metrics.domains
        domains.output(output)
        self._shown.add(output.domain)
        close = output.source.close_offset
        key = (output.domain, output.window_start_ms, output.revision)
        if close < self._warm or (close == self._warm and key in self._published.digests):
            return
        with self._context.tracer.output(output, cause) as headers:
            self._context.publisher.emit(made, headers)
        if close > self._warm:
            self._published.digests = {}
            self._published.last_close = close
        self._published.digests[key] = made.digest
        self._context.metrics.outputs.labels(output.domain).inc()
        domains.published(output)

    def gap(self, first_missing: int, next_offset: int) -> None:
        """Pass a gap of the log to the core, which shows it in the next outputs."""
        logger.warning("partition %d lacks offsets %d..%d", self._partition, first_missing, next_offset - 1)
        self._core.gap(first_missing, next_offset)

    def tick(self, now_ms: int, caught_up: bool, high_watermark: int) -> None:
        """While caught up, write the control records the domains need."""
        self._note_admitted()
        for domain, state in self._core.domains.items():
            if state.watermark_ms >= 0:
                self._context.metrics.domains.watermark(
                    domain, watermark_ms=state.watermark_ms, reach_ms=state.context_ms()
                )
                self._shown.add(domain)
        for domain in self._touched:
            self._idle_since[domain] = now_ms
        self._touched.clear()
        for domain in self._core.domains:
            self._idle_since.setdefault(domain, now_ms)
        if not caught_up or self._done < self._warm:
            return
        self._context.publisher.settle()  # rejections do not wait for the next output
        self._refresh(now_ms)
        newest = self._context.policies.newest
        if newest is None:
            return
        collateral = self._offer(newest, now_ms)
        beacons = self._beacons(newest, now_ms)
        for wanted in self._core.wanted(newest, now_ms, self._idle_since, collateral, beacons):
            if now_ms - self._written.get(wanted, -REPEAT_MS) >= REPEAT_MS:
                self._context.publisher.control(wanted, self._partition)
                self._context.metrics.controls.labels(wanted.kind).inc()
                self._written = {one: at for one, at in self._written.items() if now_ms - at < REPEAT_MS}
                self._written[wanted] = now_ms

    def _offer(self, newest: PolicyView, now_ms: int) -> CollateralOffer | None:
        """The newest set of collateral, unless this worker's own evidence is refused under it: every control record
        that named it would be refused then, and nothing could be switched any more.
        """
        offer = None if self._context.collateral is None else self._context.collateral.newest(now_ms)
        if offer is None:
            return None
        session = self._context.publisher.session
        try:
            verify_evidence(
                self._context.verify,
                session.evidence,
                session.binding_bytes,
                session_id=session.session_id,
                view=newest,
                role="aggregator",
                now_ms=now_ms,
                collateral=offer.view,
            )
        except EnclaveScaleError as error:
            self._context.metrics.offers_refused.set(1)
            if self._unfit != offer.view.digest:
                self._unfit = offer.view.digest
                logger.error(
                    "collateral set %s is not brought into force: this worker's evidence is refused under it: %s %s",
                    offer.view.digest.hex(),
                    error.code,
                    error,
                )
            return None
        self._context.metrics.offers_refused.set(0)
        return offer

    def _beacons(self, newest: PolicyView, now_ms: int) -> Mapping[bytes, int]:
        """This worker's own beacons, after issuing one if the domains here have heard of none for long enough."""
        issuer = self._context.beacons
        if issuer is None or not self._core.domains or now_ms > newest.policy.not_after_ms:
            return {}
        known = [at_ms for state in self._core.domains.values() for at_ms in state.beacons.values()]
        issuer.turn(newest, max(known, default=-1), now_ms)
        # They were written already, for all domains: only one that is missed is written again.
        return {nonce: at_ms for nonce, at_ms in issuer.issued.items() if now_ms - at_ms >= REPEAT_MS}

    def _refresh(self, now_ms: int) -> None:
        """Ask now and then for newer policies and collateral; what is known still holds until it ends."""
        if now_ms - self._refreshed_ms < REFRESH_MS:
            return
        self._refreshed_ms = now_ms
        try:
            self._context.policies.refresh()
            if self._context.collateral is not None:
                self._context.collateral.refresh()
        except ReadFailed as error:  # a broker being elected
            logger.warning("not refreshed: %s", error)

    def _note_admitted(self) -> None:
        """A batch's time as one observation: one for each record would cost a hundredth of the rate."""
        if self._admit_s:
            self._context.metrics.stages.observe("admit", self._admit_s)
            self._admit_s = 0.0

    def close(self) -> None:
        """Take the domains' figures away; nothing else is held beyond the shared context."""
        for domain in self._shown:
            self._context.metrics.domains.remove(domain)
