"""The pure core: one partition's log in order goes in, decisions come out.

No clock, no I/O, no randomness: the same log gives the same decisions, live, after a restart and in replay. For every
record, cheapest check first:

1. decode (total: any bytes give a record or a code)
2. the window is not closed for good; a policy is in force; key, record and policy name the same domain and this
   partition
3. the window is aligned and not in the future
4. the host is enrolled in the domain
5. the same record again is a duplicate
6. the signature holds, and the session behind it is proven, fresh and not superseded
7. the report says what its binding, its enrolment and physics allow
8. one report per host and window
9. admit; move the watermark; close and publish what is due
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.codec import SINGLE_OBJECT, DecodedRecord, Framing, decode_signed_record
from schemas.errors import EnclaveScaleError
from schemas.layout import ReportLayout
from schemas.records import ControlRecord, WindowReport
from stream_jobs.core.aggregate import add_report
from stream_jobs.core.checks import (
    ClassPlan,
    check_binding,
    check_confidential_compute,
    check_numbers,
    numbers_hold,
    plan_classes,
)
from stream_jobs.core.control import (
    apply_beacon,
    apply_control,
    begins_between,
    check_author,
    check_signed,
    policy_named,
)
from stream_jobs.core.effects import ControlWanted, Effect, Emission, Rejection
from stream_jobs.core.emit import emission
from stream_jobs.core.policies import CollateralLookup, CollateralView, PolicyLookup, PolicyView
from stream_jobs.core.refusals import Refused
from stream_jobs.core.routine import Routine
from stream_jobs.core.sessions import (
    CheckedSignature,
    SessionVerifier,
    check_ahead,
    check_not_revoked,
    link,
    prove_session,
)
from stream_jobs.core.standing import CollateralOffer, standing_of
from stream_jobs.core.terms import TermsOf, placed
from stream_jobs.core.wanted import wanted_controls
from stream_jobs.core.windows import DomainState, Tally, Window
from stream_jobs.log_record import LogRecord
from verifier.policy.subjects import subject

OutputKey = tuple[str, int, int]
"""Domain, window start (ms), revision."""


@dataclass(slots=True)
class _Ahead:
    """A record read before its turn: what it decodes to, or why it does not, and what was found of it.

    `signature`: as checked, None if it was not. `plans`: what its numbers hold against, None if that is not known.
    """

    record: LogRecord
    read: DecodedRecord | EnclaveScaleError
    signature: CheckedSignature | None = None
    plans: tuple[ClassPlan, ...] | None = None


def no_collateral(_digest: bytes) -> CollateralView | None:
    """The lookup of a reader that has no collateral topic: every set is unknown."""
    return None


@dataclass(frozen=True, slots=True)
class CoreConfig:
    """What the core is given. `policies`, `collateral`: look up trusted policies and complete sets by digest."""

    topic: str
    partition: int
    policies: PolicyLookup
    verify: SessionVerifier
    framing: Framing = SINGLE_OBJECT
    collateral: CollateralLookup = no_collateral


class PartitionCore:
    """Decides about one partition. `process` takes records in offset order.

    `published` holds the digests of outputs that are already on the output topic: while the log is read again after
    a restart they stand for what is computed, so that chains continue from what readers saw.
    """

    def __init__(self, config: CoreConfig, published: Mapping[OutputKey, bytes] | None = None):
        self.config = config
        self.published = dict(published or {})
        self.domains: dict[str, DomainState] = {}
        self.orphans = Tally()
        self._counting_from_start = True
        self._routine = Routine()
        self._terms = TermsOf(config.partition)
        self._ahead: dict[int, _Ahead] = {}

    @property
    def resume_offset(self) -> int | None:
        """Offset from which a restart reaches the same state; None while it is where this core began."""
        if self._counting_from_start:
            return None
        return min((state.resume_offset for state in self.domains.values()), default=None)

    def gap(self, first_missing: int, next_offset: int) -> None:
        """Note offsets the log does not have; every domain's next output shows them."""
        for tally in [state.tally for state in self.domains.values()] or [self.orphans]:
            tally.gap_ranges += 1
            tally.gap_records += next_offset - first_missing

    def look_ahead(self, records: Sequence[LogRecord]) -> None:
        """Do for the next records, some dozens, what rests on none before them; `process` decides the same, sooner.

        Decoding and signatures each need much of a processor's cache: in turns they cost a third more.
        """
        self._ahead = {record.offset: _Ahead(record, self._decode(record)) for record in records}
        asked: dict[tuple[bytes, int], tuple[_Ahead, DecodedRecord, WindowReport]] = {}
        alike: dict[tuple[ReportLayout, tuple[ClassPlan, ...]], list[tuple[_Ahead, WindowReport]]] = {}
        for one in self._ahead.values():
            read = one.read
            if not isinstance(read, DecodedRecord) or not isinstance(body := read.body, WindowReport):
                continue
            once = body.session_id, body.window_start_ms
            if once in asked:
                continue
            asked[once] = one, read, body
            known = self._routine.plans_of(layout := read.layout, body)
            if known is not None and layout is not None:
                alike.setdefault((layout, known), []).append((one, body))
        for (_, plans), reports in alike.items():
            hold = numbers_hold([body for _, body in reports], plans)
            for (one, _), holds in zip(reports, hold.tolist(), strict=True):
                if holds:
                    one.plans = plans
        closed_ms = {name: state.closed_ms for name, state in self.domains.items()}
        for one, read, body in asked.values():
            if body.domain in closed_ms and body.window_end_ms > closed_ms[body.domain]:
                one.signature = check_ahead(self.domains[body.domain], read, body)

    def _decode(self, record: LogRecord) -> DecodedRecord | EnclaveScaleError:
        """(1)"""
        try:
            if record.value is None:
                return Refused("TOMBSTONE", "record without a value")
            return self._routine.decode(record.value) or decode_signed_record(record.value, self.config.framing)
        except EnclaveScaleError as error:
            return error

    def process(self, record: LogRecord) -> list[Effect]:
        """Decide about one record. Never raises on account of what the record holds."""
        ahead = self._ahead.pop(record.offset, None)
        if ahead is not None and ahead.record is not record:
            ahead = None
        decoded = self._decode(record) if ahead is None else ahead.read
        if isinstance(decoded, EnclaveScaleError):
            return [self._reject(decoded, None, record)]
        try:
            if isinstance(decoded.body, ControlRecord):
                return self._control(decoded, decoded.body, record)
            return self._report(decoded, decoded.body, record, ahead)
        except EnclaveScaleError as error:
            return [self._reject(error, decoded, record)]

    def _reject(self, error: EnclaveScaleError, decoded: DecodedRecord | None, record: LogRecord) -> Rejection:
        domain = decoded.body.domain if decoded else (record.key or b"").decode("utf-8", "replace")
        known = self.domains.get(domain)
        tally = known.tally if known else self.orphans
        tally.refused[error.code] += 1
        tally.log.add(record, whole=True)
        if decoded:
            tally.refused_tree.append(decoded.digest)
        else:
            tally.undecodable_at(record.offset)
        return Rejection(
            offset=record.offset,
            code=error.code,
            message=str(error),
            domain=domain if known else None,
            digest=decoded.digest if decoded else None,
        )

    def _control(self, decoded: DecodedRecord, body: ControlRecord, record: LogRecord) -> list[Effect]:
        self._terms.clear()
        if body.kind == "BEACON":
            return self._beacon(decoded, body, record)
        view = policy_named(body, self.config.policies)
        placed(record, body.domain, view, self.config.partition)
        append_ms = record.timestamp_ms
        check_signed(decoded, body, view, append_ms)  # before content is looked for
        named = standing_of(body, self.config.collateral, append_ms + view.policy.limits.max_control_age_ms)
        check_author(self.config.verify, decoded, body, view, append_ms, named.collateral_view)
        state = self.domains.get(body.domain)
        if state is None or begins_between(state, body, view):
            state = DomainState(body.domain, record.offset)
        idle = apply_control(state, body, view, named, offset=record.offset, append_ms=append_ms)
        self.domains[body.domain] = state
        state.tally.log.add(record, whole=True)
        effects = self._publish_due(state, record.offset, "idle_close" if idle else "watermark")
        if idle and not effects:
            # Counted in the DLQ and the metrics; an idle domain has no output to carry them. Its chain of outputs
            # begins anew, so that a restart need not read back to the last one.
            self._take_orphans(state)
            state.start_counting()
            state.last_output = None
            state.forget()
            self._routine.forget(state)
        return effects

    def _beacon(self, decoded: DecodedRecord, body: ControlRecord, record: LogRecord) -> list[Effect]:
        state = self.domains.get(body.domain)
        if state is not None:
            placed(record, body.domain, state.active, self.config.partition)
        apply_beacon(self.config.verify, state, decoded, body, record.timestamp_ms)
        if state is not None:
            state.tally.log.add(record, whole=True)
        return []

    def _report(
        self, decoded: DecodedRecord, body: WindowReport, record: LogRecord, ahead: _Ahead | None
    ) -> list[Effect]:
        terms = self._terms.of(self.domains.get(body.domain), body, record)  # (2), (3)
        state, view = terms.state, terms.view
        host = view.hosts.get(body.host_id)  # (4)
        if host is None or host.domain != body.domain:
            raise Refused("HOST_NOT_ENROLLED", "the host is not enrolled in this domain", field="host_id")
        if terms.denied:
            check_not_revoked(frozenset({subject("host", body.host_id)}), terms.denied)
        window = state.windows.get(body.window_start_ms)  # (5)
        earlier = window.entries.find(body.host_id) if window else None
        if earlier is not None and earlier[0] == decoded.digest:
            raise Refused("DUPLICATE", f"already accepted at offset {earlier[1]}")
        session, verified = prove_session(  # (6)
            self.config.verify,
            terms,
            decoded,
            body,
            offset=record.offset,
            append_ms=record.timestamp_ms,
            checked=None if ahead is None else ahead.signature,
        )
        known = plans = self._routine.plans(decoded, body, view, verified)  # (7)
        if plans is None:
            check_binding(body, verified.binding, verified.first_mile)
            check_confidential_compute(body, verified.first_mile)
            plans = plan_classes(body, verified.binding, host, view, terms.rule)
        if ahead is None or ahead.plans != plans:
            check_numbers(body, plans)
        if earlier is not None:  # (8)
            raise Refused("EQUIVOCATION", f"another report was accepted at offset {earlier[1]}")
        if window is None:  # (9)
            window = Window(body.window_start_ms, body.window_end_ms, view, terms.rule, known=state.roster(view))
            state.windows[body.window_start_ms] = window
        flags = link(session, body, decoded.digest, terms.freshness_ms)
        add_report(window, body, body.classes, host, verified, digest=decoded.digest, offset=record.offset, flags=flags)
        if known is None or decoded.evidence is not None:
            value = record.value or b""
            self._routine.accepted(value, decoded, session, view=view, verified=verified, plans=plans)
        state.tally.log.add(record, whole=decoded.evidence is not None)
        state.seen(body.window_start_ms, record.offset)
        if state.advance(body.host_id, body.window_end_ms):
            return self._publish_due(state, record.offset, "watermark")
        return []

    def _publish_due(self, state: DomainState, offset: int, reason: str) -> list[Effect]:
        self._terms.clear()
        effects: list[Effect] = []
        due = state.due()
        for window in due:
            self._take_orphans(state)
            made = emission(
                window,
                state.tally,
                topic=self.config.topic,
                partition=self.config.partition,
                close_offset=offset,
                close_reason=reason,
                prev_output=state.last_output,
                collateral_digest=None if state.collateral is None else state.collateral.view.digest,
            )
            digest = self.published.pop((state.name, window.start_ms, window.revision), made.digest)
            window.last_digest = state.last_output = digest
            # What was counted goes into the first output at a position; the others begin at nought.
            state.start_counting()
            effects.append(made)
        if due:
            state.forget(min(window.end_ms for window in due))
            self._routine.forget(state)
        return effects

    def _take_orphans(self, state: DomainState) -> None:
        """Count with this domain what belongs to none."""
        state.tally.merge(self.orphans)
        self.orphans = Tally()
        self._counting_from_start = False

    # -- what the live worker should write ---------------------------------------------------------------------

    def wanted(
        self,
        current: PolicyView,
        now_ms: int,
        idle_since_ms: Mapping[str, int],
        collateral: CollateralOffer | None = None,
        beacons: Mapping[bytes, int] | None = None,
    ) -> list[ControlWanted]:
        """Control records that a live worker, at the end of the log, should write now (`stream_jobs.core.wanted`)."""
        return wanted_controls(
            self.domains,
            self.config.partition,
            current,
            now_ms=now_ms,
            idle_since_ms=idle_since_ms,
            collateral=collateral,
            beacons=beacons or {},
        )


__all__ = ["CoreConfig", "Emission", "OutputKey", "PartitionCore"]
