"""Decoding of reports that repeat their session's earlier ones: the same records as `decode_signed_record`, sooner.

Learned only from reports that were accepted, one or two layouts per session; who forgets the session forgets them.
Whatever does not fit is answered with None and takes the usual way, so that this decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from weakref import WeakValueDictionary

from schemas.codec import MAX_VALUE_BYTES, NOT_DUE, SINGLE_OBJECT_MARKER, DecodedRecord, record_preimage
from schemas.layout import Numbers, ReportLayout, head_size, layout_of
from schemas.parts import NO_EVIDENCE, finish, read_evidence
from schemas.records import SessionEvidence, WindowReport

MAX_LAYOUTS = 2
"""Layouts kept per session: the usual one, and one of windows with a gap."""

SIGNATURE_BYTES = 64

_PREFIX = record_preimage(b"")
_NOTHING_DUE = b"\x00" + NO_EVIDENCE.write(NOT_DUE)
_SESSION_ID_BYTES = 32

_Tail = tuple[SessionEvidence | None, bytes | None, bytes | None, str | None]
"""Evidence, its binding's bytes, its own, and why it is absent."""

_ABSENT: _Tail = (None, None, None, NOT_DUE)


@dataclass(slots=True)
class _Known:
    """One session: the bytes its values begin with (framing, branch, names), and what follows them.

    `tail_digest`: SHA-256 of what follows the signature where `evidence` is carried.
    """

    head: bytes
    body_at: int
    fields: tuple[str, str, bytes]
    layouts: list[ReportLayout] = field(default_factory=list)
    tail_digest: bytes | None = None
    evidence: SessionEvidence | None = None
    binding_bytes: bytes | None = None


class RepeatDecoder:
    """Reads the values of sessions it has learned. Values of one framing only, that of its partition."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, _Known] = {}
        self._layouts: WeakValueDictionary[object, ReportLayout] = WeakValueDictionary()
        self._numbers = Numbers()

    def __len__(self) -> int:
        return len(self._sessions)

    def decode(self, value: bytes) -> DecodedRecord | None:
        """What `decode_signed_record` returns for `value`, or None where that has to be asked.

        Raises the same SchemaError for what follows the body.
        """
        known = self._session_of(value)
        if known is None:
            return None
        for layout in known.layouts:
            read = layout.read(value, len(known.head), self._numbers, known.fields)
            if read is not None:
                break
        else:
            return None
        if layout is not known.layouts[0]:
            known.layouts.reverse()
        report, end = read
        after = end + SIGNATURE_BYTES
        if len(value) < after:
            return None
        tail = value[after:]
        evidence, binding_bytes, evidence_bytes, reason = _ABSENT
        if tail != _NOTHING_DUE:
            evidence, binding_bytes, evidence_bytes, reason = _tail(value, after, tail, known)
        preimage = _PREFIX + value[known.body_at : end]
        return DecodedRecord(
            body=report,
            signature=value[end:after],
            evidence=evidence,
            preimage=preimage,
            digest=sha256(preimage).digest(),
            binding_bytes=binding_bytes,
            evidence_bytes=evidence_bytes,
            evidence_absent_reason=reason,
            layout=layout,
        )

    def _session_of(self, value: bytes) -> _Known | None:
        """The learned session that `value` begins like."""
        if len(value) > MAX_VALUE_BYTES:
            return None
        at = 11 if value[:2] == SINGLE_OBJECT_MARKER else 6  # behind the framing and the branch byte
        try:
            for _ in ("host_id", "domain"):
                size = value[at]
                at += 1
                if size > 0x7F:
                    size += (value[at] << 7) - 0x80
                    at += 1
                at += size >> 1
        except IndexError:
            return None
        # Whatever was skipped: a session counts only if all that lies before its id is what it was.
        known = self._sessions.get(value[at : at + _SESSION_ID_BYTES])
        return known if known is not None and value.startswith(known.head) else None

    def learn(self, value: bytes, decoded: DecodedRecord, *, evidence_counts: bool) -> None:
        """Learn from an accepted report. `decoded` is what `value` decodes to.

        `evidence_counts`: its evidence is what its session now stands on; other evidence is not remembered.
        """
        report = decoded.body
        if not isinstance(report, WindowReport):
            return
        known = self._sessions.get(report.session_id)
        if decoded.layout is None:
            known = self._learn_layout(value, decoded.preimage[len(_PREFIX) :], report, known)
        if known is None or not evidence_counts or decoded.evidence is None or decoded.evidence is known.evidence:
            return
        if decoded.evidence_absent_reason is not None:
            return  # evidence, and a reason why there is none: legal, and nobody writes it
        body_size = len(decoded.preimage) - len(_PREFIX)
        known.tail_digest = sha256(value[known.body_at + body_size + SIGNATURE_BYTES :]).digest()
        known.evidence = decoded.evidence
        known.binding_bytes = decoded.binding_bytes

    def _learn_layout(self, value: bytes, body: bytes, report: WindowReport, known: _Known | None) -> _Known | None:
        layout = layout_of(body, report)
        if layout is None:
            return known
        layout = self._layouts.setdefault(layout.key, layout)
        body_at = 10 if value[:2] == SINGLE_OBJECT_MARKER else 5
        head = value[: body_at + head_size(body)]
        if known is None or known.head != head:
            known = _Known(head, body_at, (report.host_id, report.domain, report.session_id))
            self._sessions[report.session_id] = known
        known.layouts = [layout, *(one for one in known.layouts if one is not layout)][:MAX_LAYOUTS]
        return known

    def retain(self, lives: Callable[[str, bytes], bool]) -> None:
        """Forget every session for which `lives(domain, session_id)` is false."""
        for session_id in [one for one, known in self._sessions.items() if not lives(known.fields[1], one)]:
            del self._sessions[session_id]


def _tail(value: bytes, start: int, tail: bytes, known: _Known) -> _Tail:
    """What `tail`, the bytes of `value` from `start` on, holds behind the signature. Raises SchemaError."""
    if known.tail_digest is not None and sha256(tail).digest() == known.tail_digest:
        return known.evidence, known.binding_bytes, tail[:-1], None
    evidence, binding_bytes, evidence_bytes, end = read_evidence(value, start)
    reason, reason_bytes = NO_EVIDENCE.read(value, end)
    finish(value, end + len(reason_bytes))
    return evidence, binding_bytes, evidence_bytes, reason
