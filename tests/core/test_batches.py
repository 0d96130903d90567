"""Where a log is cut into batches, and where a reader began, decides nothing: logs in which all changes at once.

Policy, collateral, beacons, revocations and sessions change within the records that are looked at together; evidence
is touched, mixed up and judged by verdicts that begin and end. The log is read one by one, in batches, without any
memory, and from where a restart begins.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from attester.session import Session
from attester.simulated import simulated_platform_id
from schemas.records import ControlSubject, EvidenceItem, RevokedSubject, SessionEvidence, WindowReport
from stream_jobs.core.effects import ControlWanted
from stream_jobs.core.partition import CoreConfig, PartitionCore
from stream_jobs.core.policies import PolicyView
from stream_jobs.core.standing import BEACON
from stream_jobs.core.terms import Terms, TermsOf
from stream_jobs.core.windows import DomainState
from stream_jobs.log_record import LogRecord
from tests.core import fleet, replay
from tests.core.fleet import (
    AGGREGATORS,
    IMAGE,
    LIMITS,
    OTHER_IMAGE,
    PARTITION,
    T0,
    TOPIC,
    beacon_of,
    report_of,
    seal,
    session_of,
    spoilt,
)
from tests.core.replay import Crash, Run, remembered, restart
from tests.core.sets import POOL, SETS, judging, offer
from tests.core.story import Story, W, host_name
from tests.core.test_fast_path import NoRoutine
from verifier.cache import SessionCache
from verifier.errors import TcbStatusRefused

TIER = os.environ.get("ENCLAVESCALE_TIER", "test")
EXAMPLES = {"test": 3, "soak": 1_000, "accept": 10_000}[TIER]
DOMAINS = ("a", "b")
HOSTS = 3

pytestmark = [pytest.mark.every_tier, pytest.mark.timeout(7200)]


@pytest.fixture(autouse=True, scope="module")
def _fast() -> Iterator[None]:
    with remembered():
        yield


# -- what is said of the fleet -----------------------------------------------------------------------------------


def policy(counter: int, lateness: int, **changes: Any) -> PolicyView:
    limits = replace(LIMITS, lateness_ms=lateness * W, evidence_interval_windows=1, max_control_age_ms=100 * W)
    names = [(host_name(domain, number, DOMAINS), domain) for domain in DOMAINS for number in range(HOSTS)]
    return fleet.policy_of(
        [fleet.enrolment(name, domain, f"t{number % 2}") for number, (name, domain) in enumerate(names)],
        [fleet.domain_rule(one, grace_ms=0, forecast_horizons_ms=(3_000,)) for one in DOMAINS],
        limits=replace(limits, **changes.pop("limits", {})),
        counter=counter,
        **changes,
    )


SUBJECTS = (
    ("host", "ah0"),
    ("session", session_of("ah1", "a", 2).session_id.hex()),
    ("platform", simulated_platform_id("bh0").hex().upper()),
    ("measurement", OTHER_IMAGE),
    ("host", AGGREGATORS[1]),
)


@cache
def policies_of(lateness: int, revoked: tuple[int, ...], beacons: bool) -> tuple[PolicyView, ...]:
    """The first; one that revokes, and may demand beacons and a collateral of some age; one that takes that back."""
    named = tuple(RevokedSubject(kind=SUBJECTS[at][0], id=SUBJECTS[at][1], reason="told") for at in revoked)
    limits = {"max_beacon_age_ms": 4 * W, "max_collateral_age_ms": 12 * W} if beacons else {}
    return (
        policy(1, lateness),
        policy(2, lateness, revoked=named, limits=limits),
        policy(3, lateness + 1, images=(IMAGE,)),
    )


def _span(*of: bytes) -> tuple[int, int]:
    """From when to when a session's evidence is worth anything under a set, ms: always, or some windows."""
    rng = random.Random(b"/".join(of))
    begin = rng.choice((0, 0, 0, 0, 0, 4)) * W + rng.choice((0, 1))
    return T0 + begin, T0 + rng.choice((10**6 * W, 10**6 * W, 10**6 * W, 9 * W, 14 * W - 1))


def timed(verify: Any) -> Any:
    """`judging`, and verdicts that begin and end at times of their own."""
    judge = judging(verify)

    def judged(*, collateral: Any = None, **given: Any) -> Any:
        found: Any = judge(collateral=collateral, **given)
        if found.binding.host_id in AGGREGATORS:
            return found
        begin, end = _span(given["session_id"], getattr(collateral, "name", "").encode())
        if not begin <= given["now_ms"] <= end:
            raise TcbStatusRefused("not at this time")
        return replace(found, valid_from_ms=max(begin, found.valid_from_ms), expires_ms=min(end, found.expires_ms))

    return judged


# -- logs ----------------------------------------------------------------------------------------------------------

EVIDENCE = ("own", "own", "own", "none", "none", "spoilt", "another's", "more")


def session(host: int, domain: str, order: int) -> Session:
    """Sessions 0 and 1 name beacons that are issued, 2 none, 3 one that is not; 1 and 3 run other code."""
    name = host_name(domain, host, DOMAINS)
    return session_of(name, domain, order, (IMAGE, OTHER_IMAGE)[order % 2], (0, 5, None, 700)[order])


def carried(kind: str, host: int, domain: str, order: int) -> SessionEvidence | None:
    evidence = session(host, domain, order).evidence
    if kind == "own":
        return evidence
    if kind == "spoilt":
        return spoilt(evidence)
    if kind == "another's":
        return session(host, domain, (order + 1) % 4).evidence
    if kind == "more":  # what no rule asks for
        return replace(evidence, items=(*evidence.items, EvidenceItem(kind="note", data=b"", subject="x")))
    return None


@dataclass
class Teller:
    """Draws a log, record by record; a live worker reads along and writes what `wanted` says."""

    rng: random.Random
    policies: tuple[PolicyView, ...]
    story: Story = field(init=False)
    window: int = 0
    newest: int = 0
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    orders: dict[tuple[str, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.story = Story(*self.policies)
        self.tick()

    def put(self, domain: str, value: bytes) -> None:
        self.sent.append((domain, value))
        self.story.put(domain, value, T0 + (self.window + 1) * W)

    def tick(self) -> None:
        """One worker writes what is wanted; now and then none does."""
        known = {beacon_of(at).nonce: beacon_of(at).issued_at_ms for at in (0, 5) if at <= self.window}
        now_ms, renewed_ms = T0 + (self.window + 1) * W, T0 + self.window // 4 * 4 * W
        told = self.rng.choice((None, offer(POOL[self.rng.choice((0, 0, 0, 1, 2))], renewed_ms)))
        core, idle = self.story.run.core, dict.fromkeys(DOMAINS, now_ms)
        for wanted in core.wanted(self.policies[self.newest], now_ms, idle, told, known):
            signer = session_of(AGGREGATORS[self.rng.randrange(2)], None)
            self.put(wanted.domain, seal(signer, fleet.control_of(signer, wanted, now_ms)).value(signer.evidence))

    def report(self) -> None:
        rng = self.rng
        domain, host = rng.choice(DOMAINS), rng.randrange(HOSTS)
        if rng.random() < 0.1:
            self.orders[domain, host] = rng.randrange(4)
        order = self.orders.get((domain, host), 0) if rng.random() < 0.9 else rng.randrange(4)
        signer = session(host, domain, order)
        window = max(0, self.window - rng.choice((0, 0, 0, 0, 1, 1, 2, 4)))
        changes = {"dropped_reports": 1} if rng.random() < 0.05 else {}
        body = report_of(signer, T0 + window * W, window, draw=rng.randrange(8), **changes)
        value = bytearray(seal(signer, body).value(carried(rng.choice(EVIDENCE), host, domain, order)))
        if rng.random() < 0.04:
            value[rng.randrange(len(value))] ^= 1 << rng.randrange(8)
        self.put(rng.choice((domain,) * 30 + DOMAINS), bytes(value))

    def round(self) -> None:
        """Everybody's report of this window, so that it closes."""
        for domain in DOMAINS:
            for host in self.rng.sample(range(HOSTS), self.rng.choice((2, 3, 3))):
                order = self.orders.get((domain, host), 0)
                signer = session(host, domain, order)
                body = report_of(signer, T0 + self.window * W, self.window, draw=self.rng.randrange(8))
                carries = self.rng.choice(("own", "own", "none"))
                self.put(domain, seal(signer, body).value(carried(carries, host, domain, order)))

    def control(self) -> None:
        """A record that somebody wants in force now, in order or not."""
        rng, now_ms = self.rng, T0 + (self.window + 1) * W
        kind = rng.choice(("POLICY_SWITCH", "REVOCATION", "COLLATERAL_SWITCH", "BEACON", "IDLE_CLOSE"))
        view, chosen = self.policies[rng.choice((self.newest, rng.randrange(3)))], rng.choice(POOL)
        named: dict[str, Any] = {"policy_digest": view.digest, "content_digest": None}
        if kind in ("POLICY_SWITCH", "REVOCATION"):
            named["content_digest"] = view.digest
        elif kind == "COLLATERAL_SWITCH":
            named |= {"content_digest": chosen.digest, "collateral_digest": chosen.digest}
        elif kind == "BEACON":
            one = beacon_of(rng.choice((0, 5, 6)))
            at_ms = one.issued_at_ms + rng.choice((0, 0, 0, 1))
            named["subjects"] = (ControlSubject(kind=BEACON, id=one.nonce.hex(), at_ms=at_ms),)
        else:
            named["closed_through_ms"] = now_ms - rng.choice((1, 2, 4)) * W
        base = ControlWanted(kind, rng.choice(DOMAINS), view.digest, None, None, None, "told")
        signer = session_of(AGGREGATORS[rng.randrange(2)], None)
        body = fleet.control_of(signer, base, now_ms, **named)
        self.put(base.domain, seal(signer, body).value(signer.evidence))

    def again(self) -> None:
        """A record of before, under its own key."""
        if self.sent:
            self.put(*self.rng.choice(self.sent[-40:]))

    def tell(self, windows: int) -> Run:
        for window in range(windows):
            self.window = window
            self.newest = min(2, self.newest + (self.rng.random() < 0.12))
            self.round()
            for _ in range(self.rng.choice((0, 2, 6))):
                self.rng.choice((self.report, self.report, self.report, self.report, self.again, self.control))()
            if self.rng.random() < 0.8:
                self.tick()
        return self.story.run


# -- readers -------------------------------------------------------------------------------------------------------


class Batched(Run):
    """Reads a log in batches, of which some records may never come."""

    rng = random.Random(0)

    def feed_all(self, log: Sequence[LogRecord]) -> Run:
        at = 0
        while at < len(log):
            size = self.rng.choice((1, 3, 20, 64))
            self.core.look_ahead(log[at : at + size])
            for record in log[at : at + self.rng.choice((size, self.rng.randint(1, size)))]:
                self.feed(record)
                at += 1
        return self


class NoTerms(TermsOf):
    """What a report is held against is found for each anew."""

    def of(self, state: DomainState | None, body: WindowReport, record: LogRecord) -> Terms:
        self._known = {}
        return super().of(state, body, record)


def forgetful(policies: Sequence[PolicyView]) -> PartitionCore:
    """A core that remembers next to nothing of what it has read."""
    lookup = {view.digest: view for view in policies}
    core = PartitionCore(CoreConfig(TOPIC, PARTITION, lookup.get, timed(SessionCache(1).verify), collateral=SETS.get))
    core._routine, core._terms = NoRoutine(), NoTerms(PARTITION)
    return core


@dataclass
class Seen:
    """What the logs held."""

    logs: int = 0
    outputs: int = 0
    moved: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)


def check(number: int, seen: Seen) -> None:
    rng = random.Random(number)
    revoked = tuple(sorted(rng.sample(range(len(SUBJECTS)), rng.choice((1, 1, 2)))))
    policies = policies_of(rng.choice((1, 3)), revoked, rng.random() < 0.5)
    run = Teller(rng, policies).tell(24)
    Batched.rng = rng
    for core in (replay.new_core(policies), forgetful(policies)):
        other = Batched(core).feed_all(run.log)
        assert other.rejections == run.rejections
        assert other.emissions == run.emissions
        assert other.resume == run.resume
    with patch.object(replay, "Run", Batched):
        for _ in range(3):
            at = rng.randrange(len(run.log) // 2, len(run.log))
            commit = rng.choice((at, max(0, at - rng.randrange(12))))
            _, difference = restart(run, policies, Crash(commit, at, rng.choice((None, 1))))
            assert difference is None, difference
    seen.logs += 1
    seen.outputs += len(run.emissions)
    seen.moved += (run.resume[-1] or 0) > 0
    seen.codes.update(one.code for one in run.rejections)
    seen.reasons.update(made.output.source.close_reason for _, made in run.emissions)


def test_where_a_log_is_cut_decides_nothing() -> None:
    seen = Seen()

    @seed(20_261)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**32))
    def every(number: int) -> None:
        check(number, seen)

    with patch.object(replay, "judging", timed):
        every()
    assert seen.logs >= EXAMPLES
    assert seen.moved
    assert {"watermark", "revision"} <= set(seen.reasons)
    assert {"TCB_STATUS_REFUSED", "EQUIVOCATION", "LATE"} <= set(seen.codes)
    if TIER != "test":
        expected = "REVOKED SUPERSEDED_SESSION DUPLICATE SESSION_MISMATCH BEACON_STALE COLLATERAL_STALE EVIDENCE_STALE"
        assert set(expected.split()) <= set(seen.codes)
        assert seen.moved > seen.logs // 4
