"""Random logs of one partition: honest hosts, failing ones, hostile ones, and workers that write what they want."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from attester.session import Session
from attester.simulated import simulated_platform_id
from schemas.records import Limits, RevokedSubject, SessionEvidence, WindowReport
from stream_jobs.core.policies import PolicyView
from stream_jobs.core.standing import CollateralOffer
from tests.core import fleet, sets
from tests.core.fleet import AGGREGATORS, T0, WINDOW_MS, Sealed, report_of, seal, session_of, spoilt
from tests.core.replay import Run, new_core

W = WINDOW_MS
HORIZONS_MS = (3_000,)
"""One forecast shows what it rests on; three take three times as long."""


@dataclass
class HostPlan:
    """How one host behaves. Probabilities are per window."""

    host_id: str
    domain: str
    carrier_lost: float
    late: float
    lost: float
    duplicate: float
    restart: float
    zombie: float
    equivocate: float
    spoil: float
    odd_seq: float
    silent: list[tuple[int, int]]
    clock: int = 0


@dataclass
class Host:
    """A host at work: its sessions and chains."""

    plan: HostPlan
    order: int = 0
    image: str = fleet.IMAGE
    chains: dict[int, tuple[int, bytes | None, int]] = field(default_factory=dict)


@dataclass(order=True)
class Event:
    """Something that reaches the log at a time."""

    at_ms: int
    number: int
    key: bytes = field(compare=False)
    value: bytes | None = field(compare=False)


def _rates(rng: random.Random, calm: bool) -> dict[str, float]:
    names = ("carrier_lost", "late", "lost", "duplicate", "restart", "zombie", "equivocate", "spoil", "odd_seq")
    scale = 0.3 if calm else 1.0
    return {
        name: scale * rng.choice((0.0, 0.03, 0.1, 0.3)) * (0.4 if name in {"restart", "lost"} else 1) for name in names
    }


class Facts:
    """What is in force beside policies, on a generator of its own: logs of a seed stay as they are without it."""

    def __init__(self, seed: int):
        rng = self.rng = random.Random(f"facts of {seed}")
        starts = sorted(rng.sample(range(40), rng.choice((0, 1, 2, 3, 4))))
        self.sets = [(start, rng.choice(sets.POOL)) for start in starts]
        self.renewed = rng.choice((0, 0, 5, 12))
        self.max_age = rng.choice((None, None, 6, 15))
        self.lagging = rng.choice((0, 0, 3))
        self.interval = rng.choice((0, 2, 4, 9))
        self.max_beacon_age = rng.choice((None, None, 8, 20))
        self.named: dict[tuple[str, int], int | None] = {}

    def limited(self, limits: Limits) -> Limits:
        """Limits of a policy's renewal, which may bound the age of collateral."""
        collateral, beacon = (None if age is None else age * W for age in (self.max_age, self.max_beacon_age))
        return replace(limits, max_collateral_age_ms=collateral, max_beacon_age_ms=beacon)

    def beacon(self, host_id: str, order: int, window: int) -> int | None:
        """The beacon that a host's session names: the newest as it began, an older one, one never issued, or none."""
        if (host_id, order) not in self.named:
            issued = window // self.interval * self.interval if self.interval else None
            stray = self.rng.choice((issued, issued, issued, None, max(0, window - 12), 777 if order < 9 else None))
            self.named[host_id, order] = stray
        return self.named[host_id, order]

    def beacons(self, window: int) -> dict[bytes, int]:
        """What a worker has issued so far and still remembers."""
        if not self.interval:
            return {}
        newest = window // self.interval * self.interval
        issued = [fleet.beacon_of(one) for one in (newest - self.interval, newest) if one >= 0]
        return {one.nonce: one.issued_at_ms for one in issued}

    def revoked(self, hosts: list[Host]) -> tuple[RevokedSubject, ...]:
        """What a policy's renewal revokes: nothing most of the time."""
        rng = self.rng
        if rng.random() < 0.4:
            return ()
        one = rng.choice(hosts).plan
        session = session_of(one.host_id, one.domain, 1, fleet.OTHER_IMAGE)
        candidates = (
            ("host", one.host_id),
            ("host", AGGREGATORS[1]),
            ("platform", simulated_platform_id(one.host_id).hex().upper()),
            ("session", session.session_id.hex()),
            ("measurement", fleet.OTHER_IMAGE),
            ("gpu", bytes(32).hex()),
        )
        chosen = rng.sample(candidates, rng.choice((1, 1, 2)))
        return tuple(RevokedSubject(kind=kind, id=name, reason="test") for kind, name in chosen)

    def newest(self, window: int, now_ms: int) -> CollateralOffer | None:
        """The newest set as some worker sees it, perhaps some windows late."""
        seen = window - self.rng.randint(0, self.lagging)
        known = [view for start, view in self.sets if start <= seen]
        if not known:
            return None
        return sets.offer(known[-1], now_ms // (self.renewed * W) * self.renewed * W if self.renewed else 0)


class Scenario:
    """One log with the run that grew beside it: a live worker reads, and writes what `wanted` says."""

    def __init__(self, seed: int, plain: bool = False):
        rng = self.rng = random.Random(seed)
        self.facts = None if plain else Facts(seed)
        self.seed, self.windows = seed, rng.choice((20, 30, 45))
        self.domains = [f"d{i}" for i in range(rng.choice((1, 1, 1, 2, 2, 3)))]
        self.lateness = rng.choice((0, 1, 1, 2, 3)) * W + rng.choice((0, 0, 700))
        self.interval = rng.choice((1, 1, 1, 2, 3))
        self.grace = rng.choice((0, 1, 1, 2)) * W
        self.max_idle = rng.choice((3, 5, 8)) * W
        self.floods = rng.random() < 0.3
        self.junk = rng.choice((0.0, 0.0, 0.05, 0.3))
        self.gaps = rng.choice((0.0, 0.0, 0.02))
        self.workers = rng.choice((1, 1, 2))
        calm = rng.random() < 0.4
        self.hosts = [
            Host(HostPlan(f"{domain}h{i}", domain, silent=self._silences(), **_rates(rng, calm)))
            for domain in self.domains
            for i in range(rng.choice((1, 2, 3, 3, 4, 5) if len(self.domains) == 1 else (1, 2, 3)))
        ]
        self._silence_majorities()
        self.policies = self._policies()
        self.run = Run(new_core(self.policies))
        self._queue: list[Event] = []
        self._number = 0
        self._offset = 0
        self._now = T0
        self._touched: dict[str, int] = {}
        self._written: dict[object, int] = {}
        self._known: list[Event] = []

    # -- what there is ----------------------------------------------------------------------------------------

    def _silences(self) -> list[tuple[int, int]]:
        if self.rng.random() < 0.3:
            start = self.rng.randrange(self.windows)
            return [(start, start + self.rng.choice((2, 6, 12, 25)))]
        return []

    def _silence_majorities(self) -> None:
        for domain in self.domains:
            if self.rng.random() < 0.35:
                members = [host for host in self.hosts if host.plan.domain == domain]
                start = self.rng.randrange(self.windows)
                span = (start, start + self.rng.choice((4, 10, 20)))
                for host in self.rng.sample(members, self.rng.randint(len(members) // 2, len(members))):
                    host.plan.silent.append(span)

    def _policies(self) -> list[PolicyView]:
        rng = self.rng
        limits = replace(
            fleet.LIMITS,
            lateness_ms=self.lateness,
            evidence_interval_windows=self.interval,
            max_idle_ms=self.max_idle,
            clock_skew_tolerance_ms=500,
            max_control_age_ms=rng.choice((W, 20 * W)),
        )
        rules = [
            fleet.domain_rule(
                domain, grace_ms=self.grace, k_min_hosts=rng.choice((1, 2)), forecast_horizons_ms=HORIZONS_MS
            )
            for domain in self.domains
        ]
        rules.append(fleet.domain_rule("elsewhere", partition=1))
        enrolled = [
            fleet.enrolment(host.plan.host_id, host.plan.domain, f"t{i % 2}") for i, host in enumerate(self.hosts)
        ]
        enrolled.append(fleet.enrolment("x0", "elsewhere"))
        result = [fleet.policy_of(enrolled, rules, limits=limits)]
        for counter in range(2, 2 + rng.choice((0, 0, 1, 1, 2))):
            members = list(enrolled)
            if rng.random() < 0.5 and len(members) > 2:
                members.pop(rng.randrange(len(members) - 1))
            if rng.random() < 0.3:
                limits = replace(limits, lateness_ms=rng.choice((0, 1, 3, 6)) * W)
            if rng.random() < 0.3:
                limits = replace(limits, evidence_interval_windows=rng.choice((1, 2, 4)))
            images = (fleet.IMAGE, fleet.OTHER_IMAGE) if rng.random() < 0.85 else (fleet.OTHER_IMAGE,)
            if self.facts is not None:
                limits = self.facts.limited(limits)
            later = T0 + rng.choice((0, 0, self.windows // 2, self.windows - 8)) * W + rng.choice((0, 700))
            result.append(
                fleet.policy_of(
                    members,
                    rules,
                    limits=limits,
                    counter=counter,
                    images=images,
                    effective_from_ms=later,
                    revoked=() if self.facts is None else self.facts.revoked(self.hosts),
                )
            )
        return result

    # -- hosts ------------------------------------------------------------------------------------------------

    def _put(self, at_ms: int, key: bytes | str, value: bytes | None) -> None:
        self._number += 1
        event = Event(at_ms, self._number, key.encode() if isinstance(key, str) else key, value)
        heapq.heappush(self._queue, event)
        if value is not None and len(self._known) < 400:
            self._known.append(event)

    def _delay(self, late: float) -> int:
        if self.rng.random() < late:
            around = self.lateness + self.grace
            return max(
                0, around + self.rng.choice((-2 * W, -W, -1, 0, 1, W, 2 * W, 4 * W)) + self.rng.randint(-900, 900)
            )
        return self.rng.randint(0, W // 3)

    def _window(self, host: Host, number: int) -> None:
        plan, rng = host.plan, self.rng
        if any(first <= number < last for first, last in plan.silent):
            return
        if rng.random() < plan.restart * 0.5:
            host.order += 1
            host.image = rng.choice((fleet.IMAGE, fleet.OTHER_IMAGE, fleet.OTHER_IMAGE))
        orders = [host.order]
        if host.order and rng.random() < plan.zombie:
            orders.insert(rng.randrange(2), rng.randrange(host.order))
        for order in orders:
            self._report(host, order, number)

    def _session(self, host: Host, order: int, number: int) -> Session:
        plan = host.plan
        beacon = None if self.facts is None else self.facts.beacon(plan.host_id, order, number)
        return session_of(plan.host_id, plan.domain, order, self._image(host, order), beacon)

    def _report(self, host: Host, order: int, number: int) -> None:
        plan, rng = host.plan, self.rng
        session = self._session(host, order, number)
        seq, previous, due = host.chains.get(order, (0, None, 0))
        start = T0 + number * W
        if rng.random() < plan.odd_seq:
            seq += rng.choice((1, 5, 1000))
        body = report_of(session, start, seq, draw=rng.randrange(64), prev_digest=previous)
        sealed = seal(session, body)
        carries = seq >= due
        evidence: SessionEvidence | None = session.evidence if carries else None
        host.chains[order] = (seq + 1, sealed.digest, seq + self.interval if carries else due)
        at_ms = start + W + self._delay(plan.late)
        if rng.random() < plan.lost or (carries and rng.random() < plan.carrier_lost):
            if rng.random() < 0.5:
                return
            at_ms += rng.choice((W, 4 * W))
        if evidence is not None and rng.random() < plan.spoil:
            evidence = rng.choice((None, spoilt(evidence)))
        self._put(at_ms, plan.domain, sealed.value(evidence))
        self._extras(plan, sealed, body, session.evidence, at_ms, order, host)

    def _image(self, host: Host, order: int) -> str:
        return (fleet.IMAGE, fleet.OTHER_IMAGE)[(host.plan.host_id.encode()[-1] + order * order) % 2]

    def _extras(
        self,
        plan: HostPlan,
        sealed: Sealed,
        body: WindowReport,
        evidence: SessionEvidence,
        at_ms: int,
        order: int,
        host: Host,
    ) -> None:
        rng = self.rng
        if rng.random() < plan.duplicate:
            again = sealed.value(rng.choice((None, evidence, spoilt(evidence))))
            self._put(at_ms + rng.choice((1, W, 3 * W, self.lateness)), plan.domain, again)
        if rng.random() < plan.equivocate:
            session = self._session(host, order, (body.window_start_ms - T0) // W)
            other = report_of(session, body.window_start_ms, body.seq, draw=rng.randrange(64), dropped_reports=1)
            changes = rng.choice(({}, {"seq": body.seq + 500}, {"host_id": rng.choice(self.hosts).plan.host_id}))
            value = seal(session, replace(other, **changes)).value(rng.choice((None, evidence)))
            self._put(at_ms + rng.choice((-5, 5, W, self.lateness)), plan.domain, value)

    # -- strangers --------------------------------------------------------------------------------------------

    def _noise(self, at_ms: int) -> None:
        rng = self.rng
        domain = rng.choice([*self.domains, "elsewhere", "nowhere"])
        kind = rng.randrange(5)
        if kind == 0 or not self._known:
            self._put(at_ms, domain, rng.choice((None, b"", b"\xc3\x01junk", rng.randbytes(40))))
        elif kind == 1:
            data = bytearray(rng.choice(self._known).value or b"?")
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            self._put(at_ms, domain, bytes(data))
        elif kind == 2:
            self._put(at_ms, domain, rng.choice(self._known).value)  # an old record, perhaps under another key
        elif kind == 3:
            old = rng.choice(self._known)
            self._put(at_ms, old.key, old.value)
        else:
            session = session_of("x0", "elsewhere")
            number = (at_ms - T0) // W
            self._put(at_ms, domain, seal(session, report_of(session, T0 + number * W)).value(session.evidence))

    def _flood(self, at_ms: int) -> None:
        """Sessions nobody attested, in the names of real hosts."""
        for _ in range(self.rng.choice((1, 3, 6))):
            host = self.rng.choice(self.hosts).plan
            session = session_of(host.host_id, host.domain, 900 + self.rng.randrange(6), "rogue")
            start = T0 + max(0, (at_ms - T0) // W - self.rng.randrange(3)) * W
            body = report_of(session, start, 0, draw=self.rng.randrange(64))
            self._put(at_ms + self.rng.randint(0, W), host.domain, seal(session, body).value(session.evidence))

    # -- the log ----------------------------------------------------------------------------------------------

    def build(self) -> Run:
        """Grow the log to its end; returns the undisturbed run over it."""
        first = self.rng.random() < 0.85
        if first:
            self._tick(T0)
        for number in range(self.windows):
            start = T0 + number * W
            for host in self.hosts:
                self._window(host, number)
            if self.floods and self.rng.random() < 0.7:
                self._flood(start)
            while self.rng.random() < self.junk:
                self._noise(start + self.rng.randint(0, W))
            self._drain(start + W)
            self._tick(start + W)
        self._drain(T0 + 10**12)
        return self.run

    def _drain(self, until_ms: int) -> None:
        while self._queue and self._queue[0].at_ms <= until_ms:
            event = heapq.heappop(self._queue)
            self._now = max(self._now, event.at_ms)
            if self.rng.random() < self.gaps and self.run.log:
                self._offset += self.rng.randint(1, 3)
            self.run.feed(fleet.log_record(self._offset, self._now, event.key, event.value))
            self._offset += 1
            self._touched[event.key.decode("utf-8", "replace")] = self._now

    def _tick(self, now_ms: int) -> None:
        """What one or two live workers at the end of the log would write."""
        self._now = max(self._now, now_ms)
        effective = self.windows * W // max(1, len(self.policies))
        newest = self.policies[min(len(self.policies) - 1, (self._now - T0) // effective)]
        if self.rng.random() < 0.2:
            return
        collateral = None if self.facts is None else self.facts.newest((self._now - T0) // W, self._now)
        beacons = {} if self.facts is None else self.facts.beacons((self._now - T0) // W)
        for wanted in self.run.core.wanted(newest, self._now, dict(self._touched), collateral, beacons):
            if self._now - self._written.get(wanted, -(10**9)) < 3 * W:
                continue
            self._written[wanted] = self._now
            for worker in range(self.rng.randint(1, self.workers)):
                session = session_of(AGGREGATORS[worker], None)
                body = fleet.control_of(session, wanted, self._now)
                delay = self.rng.choice((0, 1, W // 2, W, 3 * W))
                self._put(self._now + delay, wanted.domain, seal(session, body).value(session.evidence))


def crash_points(rng: random.Random, run: Run, count: int) -> Sequence[tuple[int, int, int | None]]:
    """(commit, crash, kept) positions: at any record, with a preference for those with outputs."""
    positions = {record.offset: index for index, record in enumerate(run.log)}
    closing = sorted({positions[at] for at, _ in run.emissions})
    result = []
    for _ in range(count):
        at = rng.choice(closing) if closing and rng.random() < 0.5 else rng.randrange(len(run.log))
        commit = at if rng.random() < 0.5 else rng.randrange(at + 1)
        result.append((commit, at, rng.randint(1, 2) if rng.random() < 0.5 else None))
    return result
