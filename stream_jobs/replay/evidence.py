"""Every copy of evidence that a replay meets: those the core does not judge, and what no signature covers."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from schemas.codec import NOT_DUE, DecodedRecord, encode_binding, session_id_of
from schemas.errors import EnclaveScaleError
from schemas.mapping import to_avro
from schemas.parts import ITEMS, NO_EVIDENCE
from schemas.records import EvidenceItem, SessionEvidence, WindowReport
from stream_jobs.core.policies import CollateralView, PolicyView
from stream_jobs.core.sessions import SessionVerifier, verify_evidence
from stream_jobs.core.windows import DomainState
from stream_jobs.log_record import LogRecord
from stream_jobs.replay.desk import Desk
from stream_jobs.replay.met import SessionBook
from stream_jobs.replay.sets import CollateralSets
from stream_jobs.replay.verdicts import Severity

PLAIN_END = b"\x00" + NO_EVIDENCE.write(NOT_DUE)
"""How a record without evidence ends: neither evidence, nor any text but the usual one."""

REPORT_EVENT = "org.enclavescale.window-report.v1"

USUAL_TEXT = "cpu"
"""What our programs write where an item of evidence has no subject."""

NO_REASON = NO_EVIDENCE.write(None)
"""What follows evidence: no reason for its absence."""

MAX_LENGTHS = 8
"""Lengths of evidence for which records are known by their ends."""

MAX_SESSIONS = 100_000
"""Sessions whose evidence is remembered, the least recently met forgotten first."""


@dataclass(frozen=True, slots=True)
class Basis:
    """What evidence is judged under."""

    view: PolicyView
    collateral: CollateralView | None

    @property
    def name(self) -> bytes:
        """Tells one basis from another."""
        return self.view.digest + (b"" if self.collateral is None else self.collateral.digest)

    @classmethod
    def of(cls, state: DomainState, view: PolicyView | None = None) -> Basis:
        """What is in force in a domain, or was for a window under `view`."""
        return cls(view or state.active, state.collateral_view)


class EvidenceWatch:
    """Verifies every copy of evidence once, compares copies of one session, and looks at texts nobody signs.

    With `as_of_ms` each session's evidence is judged at that time in addition. With `facts`, `book` has what
    verification yields of each session, which costs another one.
    """

    def __init__(
        self,
        verify: SessionVerifier,
        sets: CollateralSets,
        desk: Desk,
        as_of_ms: int | None = None,
        *,
        facts: bool = False,
    ):
        self._verify, self._sets, self._desk, self._as_of_ms = verify, sets, desk, as_of_ms
        self._copies: OrderedDict[bytes, bytes] = OrderedDict()
        self._judged: OrderedDict[tuple[bytes, bytes], None] = OrderedDict()
        self._ends: dict[int, OrderedDict[tuple[bytes, bytes], bytes]] = {}
        self.book = SessionBook() if facts else None

    def worker(self, record: LogRecord, evidence: SessionEvidence, basis: Basis) -> None:
        """Evidence of an output or a control record, verified already."""
        binding_bytes = encode_binding(evidence.binding)
        data = binding_bytes + ITEMS.write(to_avro(evidence.items))
        session_id = session_id_of(binding_bytes)
        known = self._known(record, session_id, basis, data)
        if self.book is not None:
            if not known:
                created_ms = evidence.binding.created_at_ms
                self.book.note(evidence, basis.view, role="aggregator", now_ms=created_ms, collateral=basis.collateral)
            self.book.seen(record, session_id)
        if known:
            return
        self._texts(record, evidence.items)
        self._now(record, evidence, binding_bytes, basis, "aggregator")

    def control(self, record: LogRecord, decoded: DecodedRecord, basis: Basis) -> None:
        """An accepted control record: its evidence, verified already."""
        if decoded.evidence is not None:
            self.worker(record, decoded.evidence, basis)
        if decoded.evidence_absent_reason is not None:
            self._desk.finding("UNSIGNED_TEXT", record, "evidence, and a reason for none", severity=Severity.NOTICE)

    def repeats(self, record: LogRecord, basis: Basis) -> bool:
        """Whether an accepted report ends in evidence that was looked at before under this basis.

        It spares decoding what the core has decoded. Evidence begins with its session's binding, so that no other
        session's can end in the same bytes.
        """
        value, name = record.value or b"", basis.name
        for length, known in self._ends.items():
            end = hashlib.sha256(value[-length:]).digest()
            session_id = known.get((end, name))
            if session_id is not None:
                known.move_to_end((end, name))
                self._desk.result.evidence += 1
                if self.book is not None:
                    self.book.seen(record, session_id)
                return True
        return False

    def report(self, record: LogRecord, decoded: DecodedRecord, basis: Basis) -> None:
        """An accepted report: its evidence, if it carries any, and the reason why it carries none."""
        body, evidence, binding_bytes = decoded.body, decoded.evidence, decoded.binding_bytes
        if evidence is None or binding_bytes is None or not isinstance(body, WindowReport):
            if decoded.evidence_absent_reason != NOT_DUE:
                reason = f"evidence_absent_reason is {decoded.evidence_absent_reason!r:.80}"
                self._desk.finding("UNSIGNED_TEXT", record, reason, severity=Severity.NOTICE)
            return
        if decoded.evidence_absent_reason is not None:
            self._desk.finding("UNSIGNED_TEXT", record, "evidence, and a reason for none", severity=Severity.NOTICE)
            return
        known = self._known(record, body.session_id, basis, decoded.evidence_bytes or b"")
        if self.book is not None:
            if not known:
                now_ms = min(body.window_end_ms, record.timestamp_ms)
                self.book.note(evidence, basis.view, role="host", now_ms=now_ms, collateral=basis.collateral)
            self.book.seen(record, body.session_id)
        if known:
            self._remember(record, decoded, basis)
            return
        self._texts(record, evidence.items)
        self._ignored(record, decoded, body, basis)
        self._now(record, evidence, binding_bytes, basis, "host")

    def headers(self, record: LogRecord, decoded: DecodedRecord) -> None:
        """Headers of an accepted record, if it has any, say what is in it."""
        body = decoded.body
        if not isinstance(body, WindowReport):
            self._desk.finding("ENVELOPE_DIFFERS", record, "headers, where a worker writes none")
            return
        expected = {
            "ce_specversion": b"1.0",
            "ce_id": decoded.digest.hex().encode(),
            "ce_source": f"/hosts/{quote(body.host_id, safe='')}".encode(),
            "ce_type": REPORT_EVENT.encode(),
            "content-type": b"application/avro",
        }
        wrong = sorted(name for name, value in record.headers if expected.get(name, value) != value)
        if wrong:
            self._desk.finding(
                "ENVELOPE_DIFFERS", record, f"headers differ: {', '.join(wrong)}", severity=Severity.NOTICE
            )

    def _remember(self, record: LogRecord, decoded: DecodedRecord, basis: Basis) -> None:
        """Know a record by its end from now on: a copy of evidence that was looked at, and nothing behind it."""
        length = len(decoded.evidence_bytes or b"") + len(NO_REASON)
        if length not in self._ends and len(self._ends) >= MAX_LENGTHS:
            return
        known = self._ends.setdefault(length, OrderedDict())
        known[hashlib.sha256((record.value or b"")[-length:]).digest(), basis.name] = decoded.body.session_id
        if len(known) > MAX_SESSIONS:
            known.popitem(last=False)

    def _known(self, record: LogRecord, session_id: bytes, basis: Basis, data: bytes) -> bool:
        """Whether this very copy was looked at under this basis; a finding where a session's copies differ."""
        self._desk.result.evidence += 1
        digest = hashlib.sha256(data).digest()
        first = self._copies.setdefault(session_id, digest)
        self._copies.move_to_end(session_id)
        if len(self._copies) > MAX_SESSIONS:
            self._copies.popitem(last=False)
        if first != digest:
            text = f"session {session_id.hex()} had other evidence before"
            self._desk.finding("EVIDENCE_VARIES", record, text, severity=Severity.NOTICE)
            return False
        if (digest, basis.name) in self._judged:
            self._judged.move_to_end((digest, basis.name))
            return True
        self._judged[digest, basis.name] = None
        if len(self._judged) > MAX_SESSIONS:
            self._judged.popitem(last=False)
        return False

    def _texts(self, record: LogRecord, items: Sequence[EvidenceItem]) -> None:
        for item in items:
            if item.subject_absent_reason != (USUAL_TEXT if item.subject is None else None):
                reason = f"subject_absent_reason of {item.kind} is {item.subject_absent_reason!r:.80}"
                self._desk.finding("UNSIGNED_TEXT", record, reason, severity=Severity.NOTICE)

    def _ignored(self, record: LogRecord, decoded: DecodedRecord, body: WindowReport, basis: Basis) -> None:
        """The core lets a session stand on its earlier evidence where a later copy fails; here it is said."""
        evidence, binding_bytes = decoded.evidence, decoded.binding_bytes
        if evidence is None or binding_bytes is None:
            return
        try:
            verify_evidence(
                self._verify,
                evidence,
                binding_bytes,
                session_id=body.session_id,
                view=basis.view,
                role="host",
                now_ms=min(body.window_end_ms, record.timestamp_ms),
                collateral=basis.collateral,
            )
        except EnclaveScaleError as error:
            self._desk.finding(
                "EVIDENCE_IGNORED",
                record,
                f"{error.code}: {error}",
                severity=Severity.NOTICE,
                domain=body.domain,
                window_start_ms=body.window_start_ms,
            )

    def _now(self, record: LogRecord, evidence: SessionEvidence, binding_bytes: bytes, basis: Basis, role: str) -> None:
        if self._as_of_ms is None:
            return
        try:
            verify_evidence(
                self._verify,
                evidence,
                binding_bytes,
                session_id=session_id_of(binding_bytes),
                view=basis.view,
                role=role,
                now_ms=self._as_of_ms,
                collateral=self._sets.current(self._as_of_ms) or basis.collateral,
            )
        except EnclaveScaleError as error:
            host = evidence.binding.host_id
            text = f"{role} {host!r}: {error.code} as of now: {error}"
            self._desk.finding("EVIDENCE_ENDED", record, text, severity=Severity.NOTICE)
