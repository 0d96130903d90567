"""Whose evidence a replay met, for its report."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from schemas.codec import encode_binding, report_data_of, session_id_of
from schemas.errors import EnclaveScaleError
from schemas.records import SessionEvidence
from stream_jobs.core.policies import CollateralView, PolicyView
from stream_jobs.log_record import LogRecord
from verifier.claims import CpuEvidence
from verifier.composite import Memory
from verifier.formats.dcap import VerifiedQuote
from verifier.session import VerifiedSession, verify_session

MAX_SESSIONS = 5_000
"""Sessions of which facts are kept; the others are counted."""

NOT_EVALUATED = "not evaluated"
"""TCB status where no collateral was in force."""


@dataclass(slots=True, kw_only=True)
class SessionFacts:
    """A session whose evidence was met. Times are UTC milliseconds, digests hexadecimal.

    `tcb_status` is the vendor's word, `NOT_EVALUATED`, or for SNP the reported TCB's versions; `code` says why the
    evidence did not verify, and is None where it did: then what verification yields stays None. Offsets are those of
    the records on `topic` that carried the evidence, `copies` how many there were.
    """

    session_id: str
    role: str
    host_id: str
    domain: str | None
    source: str
    created_at_ms: int
    beacon_issued_at_ms: int | None
    policy_counter: int
    code: str | None
    tee: str | None = None
    root_label: str | None = None
    simulated: bool | None = None
    first_mile: str | None = None
    tcb_status: str | None = None
    tcb_date: str | None = None
    advisories: tuple[str, ...] = ()
    devices: int = 0
    valid_from_ms: int | None = None
    expires_ms: int | None = None
    warnings: tuple[str, ...] = ()
    topic: str = ""
    partition: int = 0
    first_offset: int = 0
    last_offset: int = 0
    copies: int = 0


class SessionBook:
    """Sessions that a replay met, by session id; the first `MAX_SESSIONS`. `left_out`: copies of evidence of others."""

    def __init__(self) -> None:
        self.sessions: dict[bytes, SessionFacts] = {}
        self.left_out = 0
        self._memory = Memory()

    def seen(self, record: LogRecord, session_id: bytes) -> None:
        """A copy of a session's evidence stands at `record`; called after `note`, if that is."""
        known = self.sessions.get(session_id)
        if known is None:
            self.left_out += 1
            return
        known.copies += 1
        if known.copies == 1:
            known.topic, known.partition, known.first_offset = record.topic, record.partition, record.offset
        if record.topic == known.topic:
            known.last_offset = max(known.last_offset, record.offset)

    def note(
        self,
        evidence: SessionEvidence,
        view: PolicyView,
        *,
        role: str,
        now_ms: int,
        collateral: CollateralView | None = None,
    ) -> None:
        """Take evidence that was not met before, or not under this policy; judged as of `now_ms`."""
        binding = evidence.binding
        binding_bytes = encode_binding(binding)
        session_id = session_id_of(binding_bytes)
        known = self.sessions.get(session_id)
        if known is None and len(self.sessions) >= MAX_SESSIONS:
            return
        facts = SessionFacts(
            session_id=session_id.hex(),
            role=role,
            host_id=binding.host_id,
            domain=binding.domain,
            source=binding.source,
            created_at_ms=binding.created_at_ms,
            beacon_issued_at_ms=None if binding.beacon is None else binding.beacon.issued_at_ms,
            policy_counter=view.policy.counter,
            code=None,
        )
        try:
            verified = verify_session(
                evidence=evidence,
                binding_bytes=binding_bytes,
                report_data=report_data_of(binding_bytes),
                session_id=session_id,
                policy=view.policy,
                role=role,
                now_ms=now_ms,
                collateral=None if collateral is None else collateral.held,
                memory=self._memory,
            )
        except EnclaveScaleError as error:
            if known is not None:
                return  # it verified before, or failed before: the finding says the rest
            facts.code = error.code
        else:
            _take(facts, verified)
        if known is not None:
            facts.topic, facts.partition = known.topic, known.partition
            facts.first_offset, facts.last_offset = known.first_offset, known.last_offset
            facts.copies = known.copies
        self.sessions[session_id] = facts


def _take(facts: SessionFacts, verified: VerifiedSession) -> None:
    cpu = verified.claims.quote
    facts.tee, facts.root_label, facts.simulated = cpu.tee, verified.root_label, verified.simulated
    facts.first_mile, facts.warnings = verified.first_mile, verified.warnings
    facts.valid_from_ms, facts.expires_ms = verified.valid_from_ms, verified.expires_ms
    facts.devices = len(verified.claims.devices)
    facts.tcb_status, facts.tcb_date, facts.advisories = _tcb(cpu)


def _tcb(cpu: CpuEvidence) -> tuple[str, str | None, tuple[str, ...]]:
    if not isinstance(cpu, VerifiedQuote):
        return f"reported {cpu.reported_tcb}", None, ()
    if cpu.tcb is None:
        return NOT_EVALUATED, None, ()
    date_ms = cpu.tcb.tcb_date_ms
    date = None if date_ms is None else datetime.fromtimestamp(date_ms / 1000, UTC).date().isoformat()
    return str(cpu.tcb.status), date, cpu.tcb.advisory_ids
