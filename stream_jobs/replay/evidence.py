"""Every copy of evidence that a replay meets: those the core does not judge, and what no signature covers."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from urllib.parse import quote

from schemas.codec import NOT_DUE, DecodedRecord, encode_binding, session_id_of
from schemas.errors import EnclaveScaleError
from schemas.mapping import to_avro
from schemas.parts import ITEMS, NO_EVIDENCE
from schemas.records import EvidenceItem, SessionEvidence, WindowReport
from stream_jobs.core.policies import PolicyView
from stream_jobs.core.sessions import SessionVerifier, verify_evidence
from stream_jobs.log_record import LogRecord
from stream_jobs.replay.desk import Desk
from stream_jobs.replay.met import SessionBook
from stream_jobs.replay.verdicts import Severity

PLAIN_END = b"\x00" + NO_EVIDENCE.write(NOT_DUE)
"""How a record without evidence ends: neither evidence, nor any text but the usual one."""

REPORT_EVENT = "org.enclavescale.window-report.v1"

USUAL_TEXT = "cpu"
"""What our programs write where an item of evidence has no subject."""

MAX_SESSIONS = 100_000
"""Sessions whose evidence is remembered, the least recently met forgotten first."""


class EvidenceWatch:
    """Verifies every copy of evidence once, compares copies of one session, and looks at texts nobody signs.

    With `as_of_ms` each session's evidence is judged at that time in addition.
    """

    def __init__(self, verify: SessionVerifier, desk: Desk, as_of_ms: int | None = None):
        self._verify, self._desk, self._as_of_ms = verify, desk, as_of_ms
        self._copies: OrderedDict[tuple[bytes, bytes], bytes] = OrderedDict()
        self.book = SessionBook()

    def worker(self, record: LogRecord, evidence: SessionEvidence, view: PolicyView) -> None:
        """Evidence of an output or a control record, verified already."""
        binding_bytes = encode_binding(evidence.binding)
        data = binding_bytes + ITEMS.write(to_avro(evidence.items))
        session_id = session_id_of(binding_bytes)
        known = self._known(record, session_id, view, data)
        if not known:
            self.book.note(evidence, view, role="aggregator", now_ms=evidence.binding.created_at_ms)
        self.book.seen(record, session_id)
        if known:
            return
        self._texts(record, evidence.items)
        self._now(record, evidence, binding_bytes, view, "aggregator")

    def control(self, record: LogRecord, decoded: DecodedRecord, view: PolicyView) -> None:
        """An accepted control record: its evidence, verified already."""
        if decoded.evidence is not None:
            self.worker(record, decoded.evidence, view)
        if decoded.evidence_absent_reason is not None:
            self._desk.finding("UNSIGNED_TEXT", record, "evidence, and a reason for none", severity=Severity.NOTICE)

    def report(self, record: LogRecord, decoded: DecodedRecord, view: PolicyView) -> None:
        """An accepted report: its evidence, if it carries any, its headers, and the reason why it carries none."""
        body, evidence, binding_bytes = decoded.body, decoded.evidence, decoded.binding_bytes
        if evidence is None or binding_bytes is None:
            if decoded.evidence_absent_reason != NOT_DUE:
                reason = f"evidence_absent_reason is {decoded.evidence_absent_reason!r:.80}"
                self._desk.finding("UNSIGNED_TEXT", record, reason, severity=Severity.NOTICE)
            return
        if decoded.evidence_absent_reason is not None:
            self._desk.finding("UNSIGNED_TEXT", record, "evidence, and a reason for none", severity=Severity.NOTICE)
        known = self._known(record, body.session_id, view, decoded.evidence_bytes or b"")
        if not known and isinstance(body, WindowReport):
            self.book.note(evidence, view, role="host", now_ms=min(body.window_end_ms, record.timestamp_ms))
        self.book.seen(record, body.session_id)
        if known:
            return
        self._texts(record, evidence.items)
        if isinstance(body, WindowReport):
            self._ignored(record, decoded, body, view)
            self._now(record, evidence, binding_bytes, view, "host")

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

    def _known(self, record: LogRecord, session_id: bytes, view: PolicyView, data: bytes) -> bool:
        """Whether this very copy was seen under this policy; a finding where a session's copies differ."""
        self._desk.result.evidence += 1
        digest = hashlib.sha256(data).digest()
        first = self._copies.get((session_id, view.digest))
        if first is None:
            self._copies[session_id, view.digest] = digest
            if len(self._copies) > MAX_SESSIONS:
                self._copies.popitem(last=False)
            return False
        self._copies.move_to_end((session_id, view.digest))
        if first == digest:
            return True
        text = f"session {session_id.hex()} had other evidence before"
        self._desk.finding("EVIDENCE_VARIES", record, text, severity=Severity.NOTICE)
        return False

    def _texts(self, record: LogRecord, items: Sequence[EvidenceItem]) -> None:
        for item in items:
            if item.subject_absent_reason != (USUAL_TEXT if item.subject is None else None):
                reason = f"subject_absent_reason of {item.kind} is {item.subject_absent_reason!r:.80}"
                self._desk.finding("UNSIGNED_TEXT", record, reason, severity=Severity.NOTICE)

    def _ignored(self, record: LogRecord, decoded: DecodedRecord, body: WindowReport, view: PolicyView) -> None:
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
                view=view,
                role="host",
                now_ms=min(body.window_end_ms, record.timestamp_ms),
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

    def _now(
        self, record: LogRecord, evidence: SessionEvidence, binding_bytes: bytes, view: PolicyView, role: str
    ) -> None:
        if self._as_of_ms is None:
            return
        try:
            verify_evidence(
                self._verify,
                evidence,
                binding_bytes,
                session_id=session_id_of(binding_bytes),
                view=view,
                role=role,
                now_ms=self._as_of_ms,
            )
        except EnclaveScaleError as error:
            host = evidence.binding.host_id
            text = f"{role} {host!r}: {error.code} as of now: {error}"
            self._desk.finding("EVIDENCE_ENDED", record, text, severity=Severity.NOTICE)
