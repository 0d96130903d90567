"""Decoding of reports that repeat their session's earlier ones: the same records as `decode_signed_record`, sooner.

Learned only from reports that were accepted, one or two layouts per session; who forgets the session forgets them.
Whatever does not fit is answered with None and takes the usual way, so that this decides nothing.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, fields
from hashlib import sha256
from typing import Any
from weakref import WeakValueDictionary

from schemas.codec import MAX_VALUE_BYTES, NOT_DUE, SINGLE_OBJECT_MARKER, DecodedRecord, record_preimage
from schemas.layout import Numbers, ReportLayout, head_size, layout_of
from schemas.parts import NO_EVIDENCE, finish, read_evidence
from schemas.records import SessionEvidence, WindowReport

MAX_LAYOUTS = 2
"""Layouts kept per session: the usual one, and one of windows with a gap."""

MAX_RECENT = 4
"""Layouts learned last, tried for every session: hosts of a kind change theirs together."""

MAX_PATTERNS = 8
"""Evidence, by the kinds of its items, that other evidence is compressed against: fleets share certificates."""

SIGNATURE_BYTES = 64

_PREFIX = record_preimage(b"")
_NOTHING_DUE = b"\x00" + NO_EVIDENCE.write(NOT_DUE)
_SESSION_ID_BYTES = 32

_Tail = tuple[SessionEvidence | None, bytes | None, bytes | None, str | None]
"""Evidence, its binding's bytes, its own, and why it is absent."""

# As in `schemas.layout`: a frozen record is made sooner through its slots.
(
    _SET_BODY,
    _SET_SIGNATURE,
    _SET_EVIDENCE,
    _SET_PREIMAGE,
    _SET_DIGEST,
    _SET_BINDING_BYTES,
    _SET_EVIDENCE_BYTES,
    _SET_REASON,
    _SET_LAYOUT,
) = (getattr(DecodedRecord, one.name).__set__ for one in fields(DecodedRecord))

_ABSENT: _Tail = (None, None, None, NOT_DUE)


class KeptEvidence(SessionEvidence):
    """Evidence at rest: its bytes, compressed. What is asked of it is read from them anew; `opened` reads all at once.

    Sessions keep their evidence for a change of policy or collateral, which is seldom, and it would be most of what is
    known of them.
    """

    __slots__ = ("_packed", "_pattern")

    @classmethod
    def of(cls, evidence_bytes: bytes, pattern: bytes) -> KeptEvidence:
        """Keep evidence by its bytes as `read_evidence` takes them; `pattern`: any bytes that may be like them."""
        packer = zlib.compressobj(zdict=pattern)
        made = object.__new__(cls)
        object.__setattr__(made, "_packed", packer.compress(evidence_bytes) + packer.flush())
        object.__setattr__(made, "_pattern", pattern)
        return made

    def opened(self) -> SessionEvidence:
        """The evidence that it was made of."""
        evidence, *_ = read_evidence(zlib.decompressobj(zdict=self._pattern).decompress(self._packed), 0)
        if evidence is None:
            raise ValueError("made of bytes that are no evidence")
        return evidence

    def __getattr__(self, name: str) -> Any:
        if name not in ("binding", "items"):
            raise AttributeError(name)
        return getattr(self.opened(), name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SessionEvidence):
            return NotImplemented
        return self.opened() == opened(other)

    def __hash__(self) -> int:
        return hash(self.opened())

    def __repr__(self) -> str:
        return repr(self.opened())


def opened(evidence: SessionEvidence) -> SessionEvidence:
    """Return `evidence` as it is read: parts of evidence at rest are read anew whenever they are asked for."""
    return evidence.opened() if isinstance(evidence, KeptEvidence) else evidence


@dataclass(slots=True)
class _Known:
    """One session: the bytes its values begin with (framing, branch, names), and what follows them.

    `tail_digest`: SHA-256 of what follows the signature where `evidence` is carried.
    """

    head: bytes
    body_at: int
    fields: tuple[str, str, bytes]
    layouts: tuple[ReportLayout, ...] = ()
    tail_digest: bytes | None = None
    evidence: KeptEvidence | None = None
    binding_bytes: bytes | None = None

    def use(self, layout: ReportLayout) -> None:
        """Put `layout` first."""
        if self.layouts and self.layouts[0] is layout:
            return
        self.layouts = (layout, *(one for one in self.layouts if one is not layout))[:MAX_LAYOUTS]

    def take_evidence(self, value: bytes, decoded: DecodedRecord, patterns: dict[tuple[str, ...], bytes]) -> None:
        """Remember the evidence that `value` carries."""
        taken = decoded.evidence_bytes
        if decoded.evidence is None or taken is None or decoded.evidence_absent_reason is not None:
            return  # evidence, and a reason why there is none: legal, and nobody writes it
        kinds = tuple(item.kind for item in decoded.evidence.items)
        if kinds not in patterns and len(patterns) >= MAX_PATTERNS:
            patterns.clear()
        after = self.body_at + len(decoded.preimage) - len(_PREFIX) + SIGNATURE_BYTES
        self.tail_digest = sha256(value[after:]).digest()
        self.evidence = KeptEvidence.of(taken, patterns.setdefault(kinds, taken))
        self.binding_bytes = decoded.binding_bytes


class RepeatDecoder:
    """Reads the values of sessions it has learned. Values of one framing only, that of its partition."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, _Known] = {}
        self._layouts: WeakValueDictionary[object, ReportLayout] = WeakValueDictionary()
        self._recent: deque[ReportLayout] = deque(maxlen=MAX_RECENT)
        self._numbers = Numbers()
        self._patterns: dict[tuple[str, ...], bytes] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def decode(self, value: bytes) -> DecodedRecord | None:
        """What `decode_signed_record` returns for `value`, or None where that has to be asked.

        Raises the same SchemaError for what follows the body.
        """
        known = self._session_of(value)
        if known is None:
            return None
        at, layout = len(known.head), known.layouts[0]
        read = layout.read(value, at, self._numbers, known.fields)
        if read is None:
            for layout in (*known.layouts[1:], *self._recent):
                if (read := layout.read(value, at, self._numbers, known.fields)) is not None:
                    known.use(layout)
                    break
            else:
                return None
        report, end = read
        after = end + SIGNATURE_BYTES
        if len(value) < after:
            return None
        tail = value[after:]
        evidence, binding_bytes, evidence_bytes, reason = _ABSENT
        if tail != _NOTHING_DUE:
            evidence, binding_bytes, evidence_bytes, reason = _tail(value, after, tail, known)
        preimage = _PREFIX + value[known.body_at : end]
        made = object.__new__(DecodedRecord)
        _SET_BODY(made, report)
        _SET_SIGNATURE(made, value[end:after])
        _SET_EVIDENCE(made, evidence)
        _SET_PREIMAGE(made, preimage)
        _SET_DIGEST(made, sha256(preimage).digest())
        _SET_BINDING_BYTES(made, binding_bytes)
        _SET_EVIDENCE_BYTES(made, evidence_bytes)
        _SET_REASON(made, reason)
        _SET_LAYOUT(made, layout)
        return made

    def _session_of(self, value: bytes) -> _Known | None:
        """The learned session that `value` begins like."""
        if len(value) > MAX_VALUE_BYTES:
            return None
        try:
            at = 11 if value.startswith(SINGLE_OBJECT_MARKER) else 6  # behind the framing and the branch byte
            for _ in ("host_id", "domain"):
                if (size := value[at]) > 0x7F:
                    at += 1
                    size += (value[at] << 7) - 0x80
                at += 1 + (size >> 1)
        except IndexError:
            return None
        # Whatever was skipped: a session counts only if all that lies before its id is what it was.
        known = self._sessions.get(value[at : at + _SESSION_ID_BYTES])
        return known if known is not None and value.startswith(known.head) else None

    def learn(self, value: bytes, decoded: DecodedRecord, *, evidence_counts: bool) -> ReportLayout | None:
        """Learn from an accepted report, which `value` decodes to; returns its layout, if it has one.

        `evidence_counts`: its evidence is what its session now stands on; other evidence is not remembered.
        """
        report = decoded.body
        if not isinstance(report, WindowReport):
            return None
        known, layout = self._sessions.get(report.session_id), decoded.layout
        if layout is None or known is None:
            body = decoded.preimage[len(_PREFIX) :]
            if layout is None:
                if (layout := layout_of(body, report)) is None:
                    return None
                layout = self._layouts.setdefault(layout.key, layout)
                if layout not in self._recent:
                    self._recent.appendleft(layout)
            known = self._take(value, body, report, layout)  # anew, too, if it was forgotten since it was decoded
        if evidence_counts and decoded.evidence is not known.evidence:
            known.take_evidence(value, decoded, self._patterns)
        return layout

    def evidence_of(self, session_id: bytes) -> SessionEvidence | None:
        """The evidence that is remembered of a session, the object that its reports are decoded with; None without."""
        known = self._sessions.get(session_id)
        return None if known is None else known.evidence

    def _take(self, value: bytes, body: bytes, report: WindowReport, layout: ReportLayout) -> _Known:
        body_at = 10 if value[:2] == SINGLE_OBJECT_MARKER else 5
        head = value[: body_at + head_size(body)]
        known = self._sessions.get(report.session_id)
        if known is None or known.head != head:
            known = _Known(head, body_at, (report.host_id, report.domain, report.session_id))
            self._sessions[report.session_id] = known
        known.use(layout)
        return known

    def retain(self, domain: str, session_ids: Collection[bytes]) -> list[bytes]:
        """Forget every session of `domain` but those named; returns the forgotten ones."""
        gone = [
            session_id
            for session_id, known in self._sessions.items()
            if session_id not in session_ids and known.fields[1] == domain
        ]
        for session_id in gone:
            del self._sessions[session_id]
        return gone


def _tail(value: bytes, start: int, tail: bytes, known: _Known) -> _Tail:
    """What `tail`, the bytes of `value` from `start` on, holds behind the signature. Raises SchemaError."""
    if known.tail_digest is not None and sha256(tail).digest() == known.tail_digest:
        return known.evidence, known.binding_bytes, tail[:-1], None
    evidence, binding_bytes, evidence_bytes, end = read_evidence(value, start)
    reason, reason_bytes = NO_EVIDENCE.read(value, end)
    finish(value, end + len(reason_bytes))
    return evidence, binding_bytes, evidence_bytes, reason
