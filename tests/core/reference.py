"""The rules of DESIGN §7 once more, slowly: keeps every record and derives everything anew at each position.

One domain, one policy, genuine evidence or none. Shares only the records and their codec with the core. Who counts and
when what is published is here; `reference_facts` says what an output must state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from schemas.codec import DecodedRecord, decode_signed_record
from schemas.errors import SchemaError
from schemas.records import ControlRecord, Policy, WindowReport
from stream_jobs.log_record import LogRecord
from tests.core.reference_facts import Refusal, Taken, facts


@dataclass
class Reference:
    """`outputs`: what each output must state. `carriers` hold (position, body, order of the session)."""

    policy: Policy
    taken: list[Taken] = field(default_factory=list)
    carriers: list[tuple[int, WindowReport, tuple[int, bytes]]] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    counted_from: int = 0
    outputs: list[dict[str, Any]] = field(default_factory=list)
    begun: dict[bytes, int] = field(default_factory=dict)

    # -- who counts ----------------------------------------------------------------------------------------------

    def watermark(self) -> int:
        """The highest median of the hosts' newest ends that any prefix of the log had, minus grace."""
        newest, best = {host.host_id: -1 for host in self.policy.hosts}, max(self.closed, default=-1)
        for one in self.taken:
            newest[one.host.host_id] = max(newest[one.host.host_id], one.body.window_end_ms)
            median = sorted(newest.values(), reverse=True)[len(newest) // 2]
            best = max(best, median - self.policy.domains[0].grace_ms if median >= 0 else -1)
        return best

    def floor(self) -> int:
        return max(self.watermark() - self.policy.limits.lateness_ms, max(self.closed, default=-1))

    def fresh(self) -> int:
        return 2 * self.policy.limits.evidence_interval_windows * self.policy.domains[0].window_ms

    def newest_evidence(self, session_id: bytes) -> int | None:
        return max((b.window_start_ms for _, b, _ in self.carriers if b.session_id == session_id), default=None)

    def judge(self, record: DecodedRecord, body: WindowReport, append_ms: int, position: int) -> str | None:
        """Code of the refusal, None if the report counts."""
        floor, fresh = self.floor(), self.fresh()
        if body.window_end_ms <= floor:
            return "LATE"
        if body.window_end_ms > append_ms + self.policy.limits.clock_skew_tolerance_ms:
            return "CLOCK_SKEW"
        if body.host_id not in {host.host_id for host in self.policy.hosts}:
            return "HOST_NOT_ENROLLED"
        same = [
            t for t in self.taken if (t.host.host_id, t.body.window_start_ms) == (body.host_id, body.window_start_ms)
        ]
        if same and same[0].record.digest == record.digest:
            return "DUPLICATE"
        known = self.newest_evidence(body.session_id)
        unknown = known is None or known + fresh <= floor
        if record.evidence is None and unknown:
            return "SESSION_UNKNOWN"
        if record.evidence is not None:
            if unknown:  # proven anew after its evidence ran out: it begins a new chain
                self.begun[body.session_id] = position
            self.carriers.append((position, body, (record.evidence.binding.created_at_ms, body.session_id)))
            known = self.newest_evidence(body.session_id)
        if known is None or body.window_start_ms - known > fresh:
            return "EVIDENCE_STALE"
        mine = next(order for _, other, order in self.carriers if other.session_id == body.session_id)
        for _, other, order in self.carriers:
            newest = self.newest_evidence(other.session_id) or 0
            newer = other.host_id == body.host_id and order > mine
            if newer and body.window_start_ms - newest <= fresh and newest + fresh > floor:
                return "SUPERSEDED_SESSION"
        return "EQUIVOCATION" if same else None

    def flag(self, record: DecodedRecord, body: WindowReport) -> str:
        """What the session's newest accepted window says about this link of the chain."""
        before = [t for t in self.taken if t.body.session_id == body.session_id and t.at >= self.begun[body.session_id]]
        head = max(before, key=lambda t: t.body.window_start_ms, default=None)
        if head is None or body.window_start_ms - head.body.window_start_ms > self.fresh():
            return "" if body.seq == 0 else "CHAIN_UNLINKED"
        return "" if (body.seq, body.prev_digest) == (head.body.seq + 1, head.record.digest) else "CHAIN_GAP"

    def process(self, log_record: LogRecord) -> None:
        try:
            record = decode_signed_record(log_record.value or b"")
        except SchemaError as error:
            self.refused.append((log_record.offset, error.code, b""))
            return
        body, before = record.body, self.watermark()
        if isinstance(body, ControlRecord):
            self.closed += [] if body.closed_through_ms is None else [body.closed_through_ms]
        elif (code := self.judge(record, body, log_record.timestamp_ms, log_record.offset)) is not None:
            self.refused.append((log_record.offset, code, record.digest))
            return
        else:
            host = next(host for host in self.policy.hosts if host.host_id == body.host_id)
            late = any(one["window_start_ms"] == body.window_start_ms for one in self.outputs)
            self.taken.append(Taken(log_record.offset, record, body, late, self.flag(record, body), host))
        idle, moved = isinstance(body, ControlRecord), self.watermark() > before
        if idle or moved:
            made = self.publish(log_record.offset, "idle_close" if idle and moved else "watermark")
            self.counted_from = log_record.offset + 1 if made or (idle and moved) else self.counted_from

    # -- what is published ---------------------------------------------------------------------------------------

    def publish(self, position: int, reason: str) -> bool:
        """Every closed window whose set of reports has changed; all refusals since go with the first."""
        refused = [one for one in self.refused if one[0] >= self.counted_from]
        made = False
        for start in sorted({t.body.window_start_ms for t in self.taken}):
            inside = [t for t in self.taken if t.body.window_start_ms == start]
            earlier = [one for one in self.outputs if one["window_start_ms"] == start]
            if inside[0].body.window_end_ms > self.watermark() or (earlier and earlier[-1]["accepted"] == len(inside)):
                continue
            stated = facts(self.policy, inside, [] if made else refused)
            place = (min(t.at for t in inside), position, "revision" if earlier else reason)
            self.outputs.append({"window_start_ms": start, "revision": len(earlier), "source": place, **stated})
            made = True
        return made
