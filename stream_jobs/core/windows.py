"""State of one domain: windows, sessions, watermark, and how far back a restart must read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec

from schemas.records import DomainRule, SessionBinding, SessionEvidence
from stream_jobs.core.columns import ClassSum
from stream_jobs.core.entries import Entries
from stream_jobs.core.history import Histories, History
from stream_jobs.core.log_digest import LogDigest
from stream_jobs.core.merkle import MerkleTree
from stream_jobs.core.policies import CollateralView, PolicyView
from stream_jobs.core.roster import Roster, roster_of
from verifier.policy.subjects import Subject

__all__ = [
    "ChainHead",
    "ClassSum",
    "CollateralStart",
    "ControlMark",
    "DomainState",
    "PolicyStart",
    "SessionState",
    "Tally",
    "Verified",
    "Window",
]

FRESH_INTERVALS = 2
"""Evidence counts for this many evidence intervals: the loss of one carrying record costs no data."""

MAX_BEACONS = 64
"""Beacons that evidence may name in one domain: with one an hour, those of more than two days."""

MAX_UNDECODABLE_RANGES = 4096
"""Offset ranges kept between two outputs; beyond it the last range grows over what lies between."""


class Verified(Protocol):
    """What the core reads of a verified session (`verifier.session.VerifiedSession`)."""

    @property
    def binding(self) -> SessionBinding:
        """The session's binding."""

    @property
    def root_label(self) -> str:
        """Label of the root of trust."""

    @property
    def simulated(self) -> bool:
        """True on a simulated root."""

    @property
    def first_mile(self) -> str:
        """Verified grade."""

    @property
    def valid_from_ms(self) -> int:
        """Begin of validity, UTC milliseconds."""

    @property
    def expires_ms(self) -> int:
        """End of validity, UTC milliseconds."""

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """All by which a policy may revoke it."""


@dataclass(slots=True)
class ChainHead:
    """Accepted record of a session with the newest window."""

    seq: int
    digest: bytes
    window_start_ms: int


@dataclass(slots=True)
class SessionState:
    """A session proven in this domain. `order` sorts the sessions of one host by age."""

    host_id: str
    key: ec.EllipticCurvePublicKey
    order: tuple[int, int, bytes]
    evidence: SessionEvidence
    binding_bytes: bytes
    evidence_window_ms: int
    verified: dict[bytes, Verified]
    chain: ChainHead | None = None


@dataclass(slots=True)
class Window:
    """One window. `revision` is -1 until its first output.

    `history`: what the hosts claimed before, given to it at its first close and kept for its revisions. `known`: the
    roster of its domain and policy, where it is at hand.
    """

    start_ms: int
    end_ms: int
    view: PolicyView
    rule: DomainRule
    entries: Entries = field(default_factory=Entries)
    sums: dict[tuple[str, str], ClassSum] = field(default_factory=dict)
    revision: int = -1
    dirty: bool = False
    last_digest: bytes | None = None
    history: History | None = None
    known: Roster | None = None

    @property
    def roster(self) -> Roster:
        """Who is enrolled."""
        if self.known is None:
            self.known = roster_of(self.view, self.rule.domain)
        return self.known

    def rest(self) -> None:
        """Let go of what an output is made with; called when it is made."""
        for total in self.sums.values():
            total.rest()


@dataclass(slots=True)
class PolicyStart:
    """A policy in force from `effective_ms` on. `revokes`: what it revokes is denied under older ones, too."""

    effective_ms: int
    view: PolicyView
    revokes: bool = False


@dataclass(frozen=True, slots=True)
class CollateralStart:
    """A set of collateral in force for the records behind the one that named it, which was issued at `since_ms`."""

    since_ms: int
    view: CollateralView


@dataclass(slots=True)
class ControlMark:
    """A control record from which a restart can learn policy, closed windows and, if `complete`, all else in force.

    `closed_ms`: the end of what it closed itself, None if nothing moved.
    """

    offset: int
    effective_ms: int
    closed_ms: int | None
    complete: bool


@dataclass(slots=True)
class Tally:
    """What was counted since the previous output."""

    refused: Counter[str] = field(default_factory=Counter)
    refused_tree: MerkleTree = field(default_factory=MerkleTree)
    log: LogDigest = field(default_factory=LogDigest)
    gap_ranges: int = 0
    gap_records: int = 0
    undecodable: list[tuple[int, int]] = field(default_factory=list)

    def undecodable_at(self, offset: int) -> None:
        """Note a record that has no digest."""
        if self.undecodable and (
            self.undecodable[-1][1] == offset - 1 or len(self.undecodable) >= MAX_UNDECODABLE_RANGES
        ):
            self.undecodable[-1] = (self.undecodable[-1][0], offset)
        else:
            self.undecodable.append((offset, offset))

    def merge(self, other: Tally) -> None:
        """Take over what was counted for no domain."""
        self.refused += other.refused
        self.gap_ranges += other.gap_ranges
        self.gap_records += other.gap_records
        self.refused_tree.extend(other.refused_tree)
        self.log.extend(other.log)
        ranges = sorted([*self.undecodable, *other.undecodable])
        if len(ranges) > MAX_UNDECODABLE_RANGES:
            rest = ranges[MAX_UNDECODABLE_RANGES - 1 :]
            ranges[MAX_UNDECODABLE_RANGES - 1 :] = [(rest[0][0], max(last for _, last in rest))]
        self.undecodable = ranges


class DomainState:
    """Everything the core remembers of one domain.

    Bounded by enrolment and by the lateness limit from when a majority of the hosts has reported; before that, by what
    enrolled hosts have signed: nothing else says which windows of a domain that begins are too old. Times are event
    time, UTC milliseconds. The watermark never goes back.
    """

    def __init__(self, name: str, offset: int):
        self.name = name
        self.policies: list[PolicyStart] = []
        self.controls: list[ControlMark] = []
        self.sessions: dict[bytes, SessionState] = {}
        self.by_host: dict[str, tuple[bytes, ...]] = {}
        self.windows: dict[int, Window] = {}
        self.histories = Histories()
        self.first_seen: dict[int, int] = {}
        self.latest: dict[str, int] = {}
        self.watermark_ms = -1
        self.final_ms = -1
        self.highest_end_ms = -1
        self.rosters: dict[bytes, Roster] = {}
        self.control_watermark_ms = -1
        self.collateral: CollateralStart | None = None
        self.beacons: dict[bytes, int] = {}
        self.last_output: bytes | None = None
        self.tally = Tally()
        self.resume_offset = offset
        self._ends: Counter[int] = Counter()
        self._ends_view: bytes | None = None
        self._median_ms, self._beyond = -1, 0  # the end that the watermark follows, and how many hosts are beyond it
        self._freshness: tuple[PolicyView, int] | None = None  # the last one asked for

    # -- policy ------------------------------------------------------------------------------------------------

    @property
    def collateral_view(self) -> CollateralView | None:
        """The set of collateral in force."""
        return None if self.collateral is None else self.collateral.view

    @property
    def active(self) -> PolicyView:
        """The newest policy."""
        return self.policies[-1].view

    def view_for(self, window_start_ms: int) -> PolicyView | None:
        """Policy in force for a window, None before the first."""
        for start in reversed(self.policies):
            if start.effective_ms <= window_start_ms:
                return start.view
        return None

    def denied(self, view: PolicyView) -> frozenset[Subject]:
        """What is revoked in windows under `view`: by itself, and by newer policies with a REVOCATION in the log."""
        found = view.revoked
        for start in self.policies:
            if start.revokes and start.view.policy.counter > view.policy.counter:
                found |= start.view.revoked
        return found

    def basis(self, view: PolicyView) -> bytes:
        """Names what a verdict on evidence rests on beside evidence and time: policy and collateral in force."""
        return view.digest if self.collateral is None else view.digest + self.collateral.view.digest

    def roster(self, view: PolicyView) -> Roster:
        """The domain's roster under a policy, remembered as long as the policy is."""
        found = self.rosters.get(view.digest)
        if found is None:
            found = self.rosters[view.digest] = roster_of(view, self.name)
        return found

    def effective_from(self, digest: bytes) -> int:
        """First window start of the policy with this digest."""
        return next(start.effective_ms for start in self.policies if start.view.digest == digest)

    def note_beacons(self, beacons: Mapping[bytes, int]) -> None:
        """Learn of beacons: when each was issued (ms) by nonce. The newest are kept, of whatever was named so far."""
        if beacons.items() <= self.beacons.items():
            return
        known = dict(self.beacons)
        for nonce, at_ms in beacons.items():
            known[nonce] = max(at_ms, known.get(nonce, -1))
        newest = sorted(known.items(), key=lambda one: (one[1], one[0]))[-MAX_BEACONS:]
        self.beacons = dict(newest)

    # -- horizons ----------------------------------------------------------------------------------------------

    def freshness_ms(self, view: PolicyView) -> int:
        """How long evidence counts, in event time, ms."""
        known = self._freshness
        if known is None or known[0] is not view:
            windows = FRESH_INTERVALS * view.policy.limits.evidence_interval_windows
            known = self._freshness = view, windows * view.domains[self.name].window_ms
        return known[1]

    def context_ms(self) -> int:
        """How far below the watermark records can still matter to later outputs, ms.

        Twice the lateness (a record late for a window that was itself late) and three times the evidence's
        freshness (evidence of the predecessor in the chain of a record proven by earlier evidence), two windows for
        rounding, and all of that below the first window of the histories. `docs/adr/0011` and `docs/adr/0020` derive
        it; `tests/core` proves it by restarting at random positions.
        """
        longest = max(self.freshness_ms(start.view) for start in self.policies)
        lateness = max(start.view.policy.limits.lateness_ms for start in self.policies)
        window_ms = max(start.view.domains[self.name].window_ms for start in self.policies)
        return 2 * lateness + 3 * longest + 2 * window_ms + self._history_ms()

    def _history_ms(self) -> int:
        """How far before a window its history reaches, ms, by the policy that asks for most."""
        rules = [start.view.domains[self.name] for start in self.policies]
        return max(rule.history_windows * rule.window_ms for rule in rules)

    @property
    def closed_ms(self) -> int:
        """Windows that end here or before take no more reports. What was once closed for good stays closed, also
        where a later policy allows more lateness: their first outputs are forgotten."""
        late_ms = self.watermark_ms - self.policies[-1].view.policy.limits.lateness_ms
        return late_ms if late_ms > self.final_ms else self.final_ms

    def closed_for_good(self, end_ms: int) -> bool:
        """True if a window that ends at `end_ms` takes no more reports."""
        return end_ms <= self.closed_ms

    def seen(self, window_start_ms: int, offset: int) -> None:
        """Note that the record at `offset` matters to this window: a restart must read it."""
        self.first_seen.setdefault(window_start_ms, offset)

    # -- watermark ---------------------------------------------------------------------------------------------

    def advance(self, host_id: str, end_ms: int) -> bool:
        """Note a host's newest window end; True if the watermark moved.

        Watermark = median over the enrolled hosts of their newest window ends, minus grace: more than half of them
        must have passed a point before anything closes there.
        """
        self.highest_end_ms = max(self.highest_end_ms, end_ms)
        before = self.latest.get(host_id, -1)
        if end_ms <= before:
            return False
        self.latest[host_id] = end_ms
        newest = self.policies[-1]
        if newest.effective_ms < self.highest_end_ms:
            view = newest.view
        else:
            view = self.view_for(self.highest_end_ms - 1) or newest.view
        members = view.members[self.name]
        host = view.hosts.get(host_id)
        if host is None or host.domain != self.name:
            return False  # enrolled for this window, no longer for the newest
        needed = len(members) // 2 + 1
        if self._ends_view != view.digest:
            self._ends_view = view.digest
            self._ends = Counter(self.latest[host.host_id] for host in members if host.host_id in self.latest)
        else:
            self._ends[end_ms] += 1
            if before >= 0:
                self._ends[before] -= 1
                if self._ends[before] <= 0:
                    del self._ends[before]
            if end_ms > self._median_ms >= before:
                self._beyond += 1
            if self._beyond < needed:
                return False
        self._median_ms, self._beyond = -1, 0
        for end in sorted(self._ends, reverse=True):
            if self._beyond + self._ends[end] >= needed:
                self._median_ms = end
                return self.raise_watermark(end - view.domains[self.name].grace_ms)
            self._beyond += self._ends[end]
        return False

    def raise_watermark(self, value_ms: int) -> bool:
        """Move the watermark to `value_ms` if that is ahead; True if it moved."""
        if value_ms <= self.watermark_ms:
            return False
        self.watermark_ms = value_ms
        return True

    def due(self) -> list[Window]:
        """Windows that need an output at this position: closed ones not yet published, and revised ones.

        Those not yet published get their history.
        """
        due = [
            self.windows[start]
            for start in sorted(self.windows)
            if self.windows[start].end_ms <= self.watermark_ms
            and (self.windows[start].revision < 0 or self.windows[start].dirty)
        ]
        for window in due:
            if window.revision < 0:
                self.histories.close(window)
        return due

    def start_counting(self) -> None:
        """Begin counting anew, after an output or an idle close."""
        self.tally = Tally()

    # -- forgetting --------------------------------------------------------------------------------------------

    def forget(self, published_ms: int | None = None) -> None:
        """Drop what no later record can reach, and set the offset a restart must read from.

        Called only after an output or an idle close, when every counter starts anew. `published_ms`: the earliest
        end of the windows just published. A restart must publish them again, however far the watermark leapt over
        them: there its counters start anew and its chain of outputs goes on.
        """
        reach_ms = self.context_ms()
        while len(self.policies) > 1 and self.policies[1].effective_ms <= self.watermark_ms - reach_ms:
            self.policies.pop(0)
        self.final_ms = self.closed_ms
        for start in [start for start, window in self.windows.items() if self.closed_for_good(window.end_ms)]:
            del self.windows[start]
        widest = max(start.view.domains[self.name].window_ms for start in self.policies)
        self.histories.forget(self.closed_ms - widest - self._history_ms())
        views = [start.view for start in self.policies]
        known = {view.digest for view in views}
        for digest in [digest for digest in self.rosters if digest not in known]:
            del self.rosters[digest]
        # Out of reach (`core.sessions`) under every policy.
        oldest_ms = self.closed_ms - max(self.freshness_ms(view) for view in views)
        gone = [name for name, session in self.sessions.items() if session.evidence_window_ms <= oldest_ms]
        for session_id in gone:
            self.drop_session(session_id)
        newest = self.watermark_ms if published_ms is None else min(published_ms, self.watermark_ms)
        self._set_resume_offset(newest - reach_ms)

    def drop_session(self, session_id: bytes) -> None:
        """Forget a session."""
        session = self.sessions.pop(session_id)
        others = tuple(one for one in self.by_host.pop(session.host_id) if one != session_id)
        if others:
            self.by_host[session.host_id] = others

    def _set_resume_offset(self, horizon_ms: int) -> None:
        """Begin at the last control record before all that matters, under a policy in force below the horizon."""
        width = max(start.view.domains[self.name].window_ms for start in self.policies)
        for start in [start for start in self.first_seen if start + width <= horizon_ms]:
            del self.first_seen[start]
        closing = [mark.offset for mark in self.controls if mark.closed_ms is not None and mark.closed_ms > horizon_ms]
        needed = min([*self.first_seen.values(), *closing], default=None)
        usable = [
            mark
            for mark in self.controls
            if mark.complete and mark.effective_ms <= horizon_ms and (needed is None or mark.offset <= needed)
        ]
        self.resume_offset = (usable or self.controls)[-1 if usable else 0].offset
        self.controls = [mark for mark in self.controls if mark.offset >= self.resume_offset]
