"""Clocks that lie: just under half of a domain's hosts neither close a window early, nor stall one, nor cost an honest
host its report, nor fill the memory.

Time is simulated. Honest clocks are right, and honest reports need less than grace to arrive. The liars are enrolled
and attested; only their clocks are theirs to choose.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.core import fleet
from tests.core.fleet import LIMITS, T0, WINDOW_MS, report_of, seal, session_of
from tests.core.replay import remembered
from tests.core.story import Story, small_policy
from tests.results import write_result

W = WINDOW_MS
TIER = os.environ.get("ENCLAVESCALE_TIER", "test")
EXAMPLES = {"test": 40, "soak": 1_000, "accept": 5_000}[TIER]
SEED = 40_260
BEGIN = 10_000
"""Number of the first window of a simulation; liars may claim windows many hours before it."""
STEPS = 4
"""Looks at the clock per window."""
ROUNDS = 14
"""Windows a simulation lasts."""

Clock = Callable[[int], int]
"""Step of the simulation -> how far the host's clock is ahead of the truth, ms."""


@pytest.fixture(autouse=True, scope="module")
def _fast() -> Iterator[None]:
    with remembered():
        yield


@cache
def value(number: int, window: int, variant: int) -> bytes:
    """Report of host `number`; a second variant of the same window is an equivocation. Every one carries evidence."""
    signer = session_of(f"h{number}", "d")
    body = report_of(signer, T0 + window * W, max(0, window), draw=window + number, dropped_reports=variant)
    return seal(signer, body).value(signer.evidence)


def steady(offset_ms: int) -> Clock:
    return lambda _: offset_ms


def drift(per_step_ms: int) -> Clock:
    return lambda step: per_step_ms * step


def sawtooth(high_ms: int, period: int) -> Clock:
    """Up to `high_ms` within `period` steps, then as far behind, and again."""
    return lambda step: 2 * high_ms * (step % period) // period - high_ms


def jumping(name: int, reach_ms: int) -> Clock:
    return lambda step: random.Random(f"{name} {step}").randint(-reach_ms, reach_ms)


def frozen(offset_ms: int) -> Clock:
    return lambda step: offset_ms - step * W // STEPS


@dataclass
class Domain:
    """A domain with its liars' clocks; `delay_ms`: how long the honest hosts' reports may take."""

    hosts: int
    clocks: list[Clock]
    grace_windows: int = 1
    late_windows: int = 2
    tolerance_ms: int = 500
    delay_ms: int = W // 2
    codes: dict[int, set[str]] = field(default_factory=dict)
    most_windows: int = 0

    def __post_init__(self) -> None:
        limits = replace(LIMITS, lateness_ms=self.late_windows * W, clock_skew_tolerance_ms=self.tolerance_ms)
        self.grace_ms = self.grace_windows * W
        rule = fleet.domain_rule("d", grace_ms=self.grace_ms, forecast_horizons_ms=())
        enrolled = [fleet.enrolment(f"h{number}", "d", f"t{number % 2}") for number in range(self.hosts)]
        self.view = fleet.policy_of(enrolled, [rule], limits=limits)
        self.story = Story(self.view)
        self.story.now_ms = T0 + BEGIN * W
        self.story.control("POLICY_SWITCH", self.view)
        self.said: dict[int, int] = {}

    @property
    def honest(self) -> range:
        return range(len(self.clocks), self.hosts)

    def run(self) -> Domain:
        """Hosts look at their clocks `STEPS` times a window; what they send arrives in order of its arrival time."""
        sent: list[tuple[int, int, int, int]] = []
        for step in range(ROUNDS * STEPS):
            now_ms = T0 + BEGIN * W + step * W // STEPS
            for number, clock in enumerate(self.clocks):
                if (window := (now_ms + clock(step) - T0) // W - 1) != self.said.get(number) and window > -100_000:
                    self.said[number] = window
                    sent.append((now_ms, number, window, step % 2))
            if step % STEPS == 0 and step:
                window = BEGIN + step // STEPS - 1
                sent += [(now_ms + self.delay(number, window), number, window, 0) for number in self.honest]
        for at_ms, number, window, variant in sorted(sent):
            self.put(at_ms, number, window, variant)
        return self

    def delay(self, number: int, window: int) -> int:
        return random.Random(f"{number} {window}").randint(0, self.delay_ms)

    def put(self, at_ms: int, number: int, window: int, variant: int) -> None:
        rejected = len(self.story.run.rejections)
        self.story.put("d", value(number, window, variant), at_ms)
        self.codes.setdefault(number, set()).update(one.code for one in self.story.run.rejections[rejected:])
        state = self.story.state
        assert state.watermark_ms <= at_ms - self.grace_ms, "a window closed before its honest end and grace"
        passed = (at_ms - self.delay_ms - 1 - T0) // W * W + T0  # the last records of that moment may be about to come
        if passed > T0 + BEGIN * W:
            assert state.watermark_ms >= passed - self.grace_ms, "a window stalls"
        self.most_windows = max(self.most_windows, len(state.windows))

    def check(self) -> Domain:
        """No honest report was refused or came too late for its window's first output; memory is bounded."""
        honest = set(self.honest)
        assert not set().union(*(self.codes.get(number, set()) for number in honest))
        liars = set().union(*(codes for number, codes in self.codes.items() if number not in honest))
        assert liars <= {"CLOCK_SKEW", "LATE", "EQUIVOCATION", "DUPLICATE", "SUPERSEDED_SESSION", "EVIDENCE_STALE"}
        first = [output for output in self.story.outputs if output.revision == 0]
        closed = {(output.window_start_ms - T0) // W: output for output in first}
        last = BEGIN + ROUNDS - self.grace_windows - 2
        for window in range(BEGIN, last):
            assert closed[window].coverage.reporting_hosts >= len(honest)
            assert closed[window].coverage.quorum_met
        state, limits = self.story.state, self.view.policy.limits
        open_ms = limits.lateness_ms + self.grace_ms + self.delay_ms + limits.clock_skew_tolerance_ms
        assert self.most_windows <= open_ms // W + 3 + self.before_the_start()
        assert len(state.windows) <= open_ms // W + 3
        assert len(state.first_seen) <= (open_ms + state.context_ms()) // W + 3
        assert len(state.sessions) <= self.hosts
        return self

    def before_the_start(self) -> int:
        """Windows opened by liars before a majority had reported: one per look at their clocks."""
        return len(self.clocks) * 3 * STEPS


def liars(hosts: int) -> int:
    """Just under half."""
    return (hosts - 1) // 2


CASES: dict[str, tuple[Callable[[int], Clock], set[str]]] = {
    "ahead, within the tolerance": (lambda _: steady(3 * W), set()),
    "ahead by one window": (lambda _: steady(W), set()),
    "ahead, beyond the tolerance": (lambda _: steady(5 * W), {"CLOCK_SKEW"}),
    "years ahead": (lambda _: steady(10**11), {"CLOCK_SKEW"}),
    "one window behind": (lambda _: steady(-W), set()),
    "hours behind": (lambda _: steady(-4_000 * W), {"LATE"}),
    "drifting ahead": (lambda _: drift(200), {"CLOCK_SKEW"}),
    "falling behind": (lambda _: drift(-300), {"LATE"}),
    "stopped": (lambda _: frozen(0), set()),
    "sawtooth": (lambda number: sawtooth(5 * W, 8 + number), {"CLOCK_SKEW", "DUPLICATE", "EQUIVOCATION", "LATE"}),
    "half ahead, half behind": (lambda number: steady((3 if number % 2 else -6) * W), {"LATE"}),
}


@pytest.mark.parametrize("hosts", [3, 4, 9, 10])
@pytest.mark.parametrize("name", CASES)
def test_just_under_half(name: str, hosts: int) -> None:
    make, codes = CASES[name]
    domain = Domain(hosts, [make(number) for number in range(liars(hosts))], tolerance_ms=3 * W).run().check()
    assert set().union(*domain.codes.values()) <= codes
    if hosts >= 9:
        assert set().union(*domain.codes.values()) == codes


@pytest.mark.parametrize("hosts", [2, 4, 10])
def test_exactly_half_ahead_close_nothing_early(hosts: int) -> None:
    """More than half must have passed a point; half do not suffice."""
    Domain(hosts, [steady(3 * W)] * (hosts // 2), tolerance_ms=3 * W).run().check()


@pytest.mark.parametrize("hosts", [4, 10])
def test_exactly_half_behind_stall_and_the_worker_closes(hosts: int) -> None:
    """The other half no longer makes a majority: that is a silent majority, which a control record closes."""
    with pytest.raises(AssertionError, match="a window stalls"):
        Domain(hosts, [steady(-40 * W)] * (hosts // 2)).run()
    view = small_policy(hosts, limits=LIMITS)
    story = Story(view)
    story.control("POLICY_SWITCH", view)
    for window in range(100, 112):
        for number in range(hosts):
            story.report(f"h{number}", window - (60 if number < hosts // 2 else 0))
    assert story.state.watermark_ms < T0 + 60 * W
    for wanted in story.wanted(view, {"d": story.now_ms}):
        story.write(wanted)
    behind_ms = W + LIMITS.max_idle_ms + LIMITS.clock_skew_tolerance_ms
    assert story.state.watermark_ms == T0 + (112 * W - behind_ms) // W * W


def test_more_than_half_ahead_do_close_early() -> None:
    """What the property would look like if it were broken."""
    with pytest.raises(AssertionError, match="closed before"):
        Domain(5, [steady(3 * W)] * 3, tolerance_ms=3 * W).run()


@pytest.mark.parametrize("tolerance", [0, 1, W - 1, W, 3 * W])
def test_the_tolerance_is_exact(tolerance: int) -> None:
    """A window may end as much as the tolerance after its append time, not a millisecond more."""
    domain = Domain(3, [], tolerance_ms=tolerance)
    window = BEGIN + 9
    end = T0 + (window + 1) * W
    for number, at_ms in enumerate((end - tolerance - 1, end - tolerance)):
        domain.story.put("d", value(number, window, 0), at_ms)
    assert [(one.code, one.offset) for one in domain.story.run.rejections] == [("CLOCK_SKEW", 1)]


def test_sybils_at_start_up_close_nothing() -> None:
    """Absent hosts count as infinitely far behind: until a majority has reported, nothing closes."""
    for hosts in (2, 3, 5, 8):
        domain = Domain(hosts, [])
        for round_ in range(30):
            for number in range(hosts // 2):
                domain.story.put("d", value(number, BEGIN + round_, 0), T0 + (BEGIN + round_ + 1) * W)
        assert domain.story.state.watermark_ms == -1
        assert domain.story.outputs == []


@pytest.mark.parametrize("tolerance", [500, W, 2 * W, 4 * W, 7 * W])
def test_one_clock_ahead_makes_no_worker_close(tolerance: int) -> None:
    """A live worker judges silence by the newest end it knows; one liar's must not make the others look silent."""
    limits = replace(LIMITS, lateness_ms=2 * W, max_idle_ms=3 * W, clock_skew_tolerance_ms=tolerance)
    view = small_policy(9, limits=limits)
    story = Story(view)
    story.control("POLICY_SWITCH", view)
    for number in range(9):
        story.report(f"h{number}", 99)
    for window in range(100, 112):
        now_ms = T0 + (window + 1) * W
        story.report("h0", window + tolerance // W, at_ms=now_ms)
        for wanted in story.wanted(view, {"d": now_ms}):
            assert wanted.kind != "IDLE_CLOSE"
            story.write(wanted)
        for number in range(1, 9):
            story.report(f"h{number}", window, at_ms=now_ms + 100 * number)
    assert story.run.rejections == []
    assert len(story.outputs) == 12


clocks = st.one_of(
    st.integers(-5_000 * W, 6 * W).map(steady),
    st.integers(-10, 6).map(lambda n: steady(n * W)),
    st.integers(-2 * W, W).map(drift),
    st.tuples(st.integers(1, 8 * W), st.integers(2, 20)).map(lambda pair: sawtooth(*pair)),
    st.tuples(st.integers(0, 99), st.integers(1, 12 * W)).map(lambda pair: jumping(*pair)),
    st.integers(-3 * W, 3 * W).map(frozen),
)


@st.composite
def domains(draw: st.DrawFn) -> Domain:
    hosts = draw(st.sampled_from((9, 7, 10, 5, 4, 3, 2, 1)))
    grace = draw(st.integers(1, 2))
    return Domain(
        hosts,
        [draw(clocks) for _ in range(liars(hosts) - draw(st.sampled_from((0, 0, 0, 1))))],
        grace_windows=grace,
        late_windows=draw(st.integers(0, 3)),
        tolerance_ms=draw(st.sampled_from((0, 500, W, 5 * W // 2, 4 * W))),
        delay_ms=draw(st.integers(0, grace * W - 1)),
    )


@pytest.mark.every_tier
@pytest.mark.timeout(7200)
def test_any_mixture_of_wrong_clocks() -> None:
    seen = {"domains": 0, "liars": 0, "records": 0}

    @seed(SEED)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(domain=domains())
    def every(domain: Domain) -> None:
        domain.run().check()
        seen["domains"] += 1
        seen["liars"] += len(domain.clocks)
        seen["records"] += domain.story.next_offset

    every()
    assert seen["liars"] > seen["domains"]
    write_result("core-clocks", {**seen, "closed_early": 0, "stalled": 0, "honest_refused": 0}, seeds={"first": SEED})
