"""The rules of DESIGN §7 once more, slowly: keeps every record and derives everything anew at each position.

One domain, one policy, genuine evidence or none. Shares only the codec with the core.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from schemas.codec import DecodedRecord, decode_signed_record
from schemas.errors import SchemaError
from schemas.records import ControlRecord, Policy, WindowReport
from stream_jobs.log_record import LogRecord


@dataclass(frozen=True)
class Expected:
    """One output: who is in it, integer sums, and what was refused since the position before."""

    position: int
    window_start_ms: int
    revision: int
    digests: tuple[bytes, ...]
    transitions: tuple[int, ...]
    pane_sums: tuple[int, ...]
    flagged: dict[str, int]
    refused: dict[str, int]


@dataclass
class Reference:
    """`accepted` and `carriers` hold (position, decoded record); `refused` (position, code)."""

    policy: Policy
    accepted: list[tuple[int, DecodedRecord, str]] = field(default_factory=list)
    carriers: list[tuple[int, DecodedRecord]] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)
    outputs: list[Expected] = field(default_factory=list)
    begun: dict[bytes, int] = field(default_factory=dict)

    def body(self, record: DecodedRecord) -> WindowReport:
        assert isinstance(record.body, WindowReport)
        return record.body

    def watermark(self) -> int:
        """The highest median of the hosts' newest ends that any prefix of the log had, minus grace."""
        newest: dict[str, int] = {}
        best = -1
        needed = len(self.policy.hosts) // 2 + 1
        for _, record, _ in self.accepted:
            body = self.body(record)
            newest[body.host_id] = max(newest.get(body.host_id, -1), body.window_end_ms)
            ends = sorted(newest.values(), reverse=True)
            if len(ends) >= needed:
                best = max(best, ends[needed - 1] - self.policy.domains[0].grace_ms)
        return best

    def newest_evidence(self, session_id: bytes) -> int | None:
        mine = (self.body(r) for _, r in self.carriers if self.body(r).session_id == session_id)
        return max((body.window_start_ms for body in mine), default=None)

    def judge(self, record: DecodedRecord, append_ms: int, position: int) -> str | None:
        """Code of the refusal, None if the report counts."""
        body, limits, rule = self.body(record), self.policy.limits, self.policy.domains[0]
        floor = self.watermark() - limits.lateness_ms
        fresh = 2 * limits.evidence_interval_windows * rule.window_ms
        if body.window_end_ms <= floor:
            return "LATE"
        if body.window_end_ms > append_ms + limits.clock_skew_tolerance_ms:
            return "CLOCK_SKEW"
        if body.host_id not in {host.host_id for host in self.policy.hosts}:
            return "HOST_NOT_ENROLLED"
        same = [r for _, r, _ in self.accepted if self.key(r) == self.key(record)]
        if same and same[0].digest == record.digest:
            return "DUPLICATE"
        known = self.newest_evidence(body.session_id)
        unknown = known is None or known + fresh <= floor
        if record.evidence is None and unknown:
            return "SESSION_UNKNOWN"
        if record.evidence is not None:
            if unknown:  # proven anew after its evidence ran out: it begins a new chain
                self.begun[body.session_id] = position
            self.carriers.append((position, record))
            known = self.newest_evidence(body.session_id)
        if known is None or body.window_start_ms - known > fresh:
            return "EVIDENCE_STALE"
        mine = self.order(body.session_id)
        for theirs in (self.body(other) for _, other in self.carriers):
            newest = self.newest_evidence(theirs.session_id) or 0
            newer = theirs.host_id == body.host_id and self.order(theirs.session_id) > mine
            if newer and body.window_start_ms - newest <= fresh and newest + fresh > floor:
                return "SUPERSEDED_SESSION"
        return "EQUIVOCATION" if same else None

    def key(self, record: DecodedRecord) -> tuple[str, int]:
        return self.body(record).host_id, self.body(record).window_start_ms

    def order(self, session_id: bytes) -> tuple[int, bytes]:
        carrier = next(r for _, r in self.carriers if self.body(r).session_id == session_id)
        return carrier.evidence.binding.created_at_ms, session_id  # type: ignore[union-attr]

    def flag(self, record: DecodedRecord) -> str:
        """What the session's newest accepted window says about this link of the chain."""
        body = self.body(record)
        fresh = 2 * self.policy.limits.evidence_interval_windows * self.policy.domains[0].window_ms
        begun = self.begun[body.session_id]
        before = [r for at, r, _ in self.accepted if self.body(r).session_id == body.session_id and at >= begun]
        head = max(before, key=lambda r: self.body(r).window_start_ms, default=None)
        if head is None or body.window_start_ms - self.body(head).window_start_ms > fresh:
            return "" if body.seq == 0 else "CHAIN_UNLINKED"
        linked = body.seq == self.body(head).seq + 1 and body.prev_digest == head.digest
        return "" if linked else "CHAIN_GAP"

    def process(self, record: LogRecord) -> None:
        try:
            decoded = decode_signed_record(record.value or b"")
        except SchemaError as error:
            self.refused.append((record.offset, error.code))
            return
        if isinstance(decoded.body, ControlRecord):
            return
        before = self.watermark()
        if (code := self.judge(decoded, record.timestamp_ms, record.offset)) is not None:
            self.refused.append((record.offset, code))
            return
        self.accepted.append((record.offset, decoded, self.flag(decoded)))
        if self.watermark() > before:
            self.publish(record.offset)

    def publish(self, position: int) -> None:
        """Every closed window whose set of reports has changed; all refusals since go with the first."""
        for start in sorted({self.body(r).window_start_ms for _, r, _ in self.accepted}):
            inside = [(r, flag) for _, r, flag in self.accepted if self.body(r).window_start_ms == start]
            digests = tuple(r.digest for r, _ in inside)
            earlier = [one for one in self.outputs if one.window_start_ms == start]
            closed = self.body(inside[0][0]).window_end_ms <= self.watermark()
            if not closed or (earlier and earlier[-1].digests == digests):
                continue
            since = max((one.position for one in self.outputs), default=-1)
            refused = Counter(code for at, code in self.refused if since < at <= position)
            classes = [self.body(r).classes[0] for r, _ in inside]
            sums = [np.sum([np.frombuffer(getattr(c, f), "<i4") for c in classes], axis=0, dtype=np.int64)
                    for f in ("transitions", "pane_sums")]  # fmt: skip
            flagged = dict(Counter(flag for _, flag in inside if flag))
            totals = tuple(tuple(map(int, one)) for one in sums)
            self.outputs.append(Expected(position, start, len(earlier), digests, *totals, flagged, dict(refused)))
