"""Influence bounds against what an optimiser finds, and against a formula of their own.

A subject (host, tenant, failure domain) may report whatever physics admits, in the window and in all windows before it,
or not report; every other host stays as it is. The optimiser looks for the two outputs that differ most. What is
published must not be exceeded, and must not be much more than what was found (`TIGHT`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest

from enclavescale.bench.byzantine_trial import physics, strongest_push
from enclavescale.bench.margin_core import CoreFleet, HostReport, exact_report, host_id
from enclavescale.bench.margin_trial import Noise
from enclavescale.bench.trace_files import BenchTrace
from enclavescale.bench.trace_fleet import TraceFleet, TraceHost
from power_model.grid import Grid
from producers.config import Schedule
from producers.distil import Distilled, distil
from producers.privacy import Budget, privacy_parameters
from schemas.records import FleetPower, ModelRule
from stream_jobs.core.refusals import Refused
from tests.results import write_result

TIER = os.environ.get("ENCLAVESCALE_TIER", "test")
TRIES = {"test": 6, "soak": 120, "accept": 600}[TIER]
ROUNDS = {"test": 1, "soak": 2, "accept": 4}[TIER]
SCHEDULE = Schedule(window_ms=10_000, pane_ms=1_000, sample_hz=10)
HISTORY, PANES = 6, 10
CLASSES = ((8, 4, 400), (4, 8, 300))
"""Hosts, GPUs per host and nominal limit (W) of each class."""
SILENT = (3, 9)
"""Hosts that never report: the domain is covered in part."""
WATTS = 10
"""A report's unit is 0.1 W."""


def trace(tdp_w: int) -> BenchTrace:
    """Eight GPUs that step between two levels, not quite in phase."""
    ticks = np.arange(2_000)
    rng = np.random.default_rng(tdp_w)
    power = tdp_w * (0.5 + 0.15 * np.sign(np.sin(ticks / 17 + np.arange(8)[:, np.newaxis] / 4)))
    readings = (power + rng.normal(0, 5, power.shape)).astype(np.float32)
    return BenchTrace(
        name=f"{tdp_w}",
        gpu="G",
        tdp_w=tdp_w,
        workload="inference",
        mode="instant",
        power_w=readings,
        filled_ppm=0,
    )


def rule(tdp_w: int) -> ModelRule:
    edges = tuple(tdp_w * i // 10 for i in range(1, 10))
    return ModelRule(model=f"G ({tdp_w} W)", edges_w=edges, clip_low_w=0, clip_high_w=tdp_w * 11 // 10)


@dataclass(frozen=True)
class Claim:
    """What the subject's hosts report: a square wave between two shares of the clip range, or nothing.

    `push`: further up (1) or down (-1), as far as physics admits, in the first `panes` panes.
    """

    low: float = 0.5
    high: float = 0.5
    duty: float = 0.5
    period: int = 20
    absent: bool = False
    push: int = 0
    panes: int = PANES

    def power_w(self, gpus: int, model: ModelRule) -> np.ndarray:
        on = np.arange(SCHEDULE.ticks) % self.period < self.period * self.duty
        share = np.where(on, self.high, self.low)
        span = model.clip_high_w - model.clip_low_w
        return np.broadcast_to(model.clip_low_w + share * span, (gpus, SCHEDULE.ticks))


TOP, BOTTOM, ABSENT = Claim(1, 1, push=1), Claim(0, 0, push=-1), Claim(absent=True)
WAVES = tuple(Claim(0, 1, duty, period) for duty in (0.1, 0.5) for period in (6, 20, 100))
SPIKES = tuple(
    replace(claim, push=1, panes=panes) for panes in (1, 2) for claim in (Claim(1, 1), Claim(0, 1, 0.1, 100))
)
DIPS = tuple(replace(Claim(0, 0), push=-1, panes=panes) for panes in (1, 5))
CORNERS = (TOP, BOTTOM, ABSENT, Claim(1, 1), Claim(0, 0), Claim(), *WAVES, *SPIKES, *DIPS)
PASTS = (None, TOP, BOTTOM, ABSENT, Claim(0, 1, 0.5, 100), Claim(0, 1, 0.1, 20))
"""What the subject did in the windows before; None: it was honest."""


class Domain:
    """A small domain with an honest past, and what it says of any subject's claims."""

    def __init__(self) -> None:
        hosts = []
        for count, gpus, tdp_w in CLASSES:
            one = trace(tdp_w)
            hosts += [TraceHost(one, None, np.arange(gpus), np.full(gpus, 37 * i)) for i in range(count)]
        self.fleet = TraceFleet(tuple(hosts), ("400", "300"), tuple(rule(tdp_w) for _, _, tdp_w in CLASSES))
        self.core = CoreFleet(self.fleet, SCHEDULE, history_windows=HISTORY)
        self.rules = [next(r for r in self.fleet.rules if r.model == p.model) for p in self.core.profiles]
        self.privacy = [privacy_parameters(Budget(), [one], SCHEDULE) for one in self.core.profiles]
        self.honest = [
            [
                None if i in SILENT else self.report(i, window, host.power_w(window * SCHEDULE.ticks, SCHEDULE.ticks))
                for i, host in enumerate(hosts)
            ]
            for window in range(HISTORY + 1)
        ]
        self.pushes: dict[tuple[int, Claim], int] = {}
        self.pasts: dict[tuple[tuple[int, ...], Claim | None], CoreFleet] = {}

    def exact(self, index: int, power_w: np.ndarray) -> Distilled:
        model = self.rules[index]
        return distil(power_w, Grid(model.edges_w), model.clip_low_w, model.clip_high_w, SCHEDULE.ticks_per_pane)

    def report(self, index: int, window: int, power_w: np.ndarray) -> HostReport:
        noise = Noise(np.random.default_rng([window, index]))
        return noise.report(self.exact(index, power_w), self.privacy[index])

    def claimed(self, index: int, window: int, claim: Claim) -> HostReport | None:
        """The host's report of a claim, as physics admits it."""
        if claim.absent:
            return None
        power_w = claim.power_w(self.fleet.hosts[index].rows.size, self.rules[index])
        if not claim.push:
            return self.report(index, window, power_w)
        plain = exact_report(self.exact(index, power_w), self.privacy[index])
        if (index, claim) not in self.pushes:
            self.pushes[index, claim] = strongest_push(self.core, index, plain, claim.push, claim.panes)
        pushed = np.arange(PANES) < claim.panes
        return replace(plain, pane_sums=plain.pane_sums + claim.push * self.pushes[index, claim] * pushed)

    def reports(self, subject: Sequence[int], window: int, claim: Claim | None) -> list[HostReport | None]:
        """All hosts' reports; None: the subject is honest."""
        reports = list(self.honest[window])
        if claim is not None:
            for index in subject:
                reports[index] = self.claimed(index, window, claim)
        return reports

    def after(self, subject: tuple[int, ...], past: Claim | None) -> CoreFleet:
        """The core after the history, in which the subject claimed `past`."""
        if (subject, past) not in self.pasts:
            core = self.core.fork()
            for window in range(HISTORY):
                core.output(self.reports(subject, window, past))
            self.pasts[subject, past] = core
        return self.pasts[subject, past].fork()

    def output(self, subject: tuple[int, ...], past: Claim | None, now: Claim | None) -> FleetPower:
        """The last window's output."""
        return self.after(subject, past).output(self.reports(subject, HISTORY, now))


@cache
def domain() -> Domain:
    return Domain()


def subjects(kind: str) -> list[tuple[int, ...]]:
    """Hosts of every subject of a kind that reports."""
    enrolled = domain().core.view.policy.hosts
    key: Callable[[int], object] = {
        "host": lambda i: i,
        "tenant": lambda i: enrolled[i].tenant,
        "failure_domain": lambda i: enrolled[i].failure_domain,
    }[kind]
    groups: dict[object, list[int]] = {}
    for index in range(len(enrolled)):
        if index not in SILENT:
            groups.setdefault(key(index), []).append(index)
    return [tuple(members) for members in groups.values()]


def own_range_w(subject: Sequence[int]) -> float:
    """Formula of its own: the clip ranges of the subject's GPUs, scaled from the hosts that report to all enrolled."""
    enrolled = domain().core.view.policy.hosts
    total = 0.0
    for index in subject:
        (stated,) = enrolled[index].classes
        model = domain().rules[index]
        same = [i for i, one in enumerate(enrolled) if one.classes[0].model == model.model]
        capacity = [(enrolled[i].classes[0].capacity_w, i) for i in same]
        counted = sum(watts for watts, i in capacity if i not in SILENT)
        factor = sum(watts for watts, _ in capacity) / counted
        total += stated.gpus * (model.clip_high_w - model.clip_low_w) * factor
    return total


@dataclass
class Found:
    """Extremes of mean and quantile over all that was tried, W."""

    mean: list[float]
    quantile: list[float]

    def add(self, output: FleetPower) -> tuple[float, float]:
        assert output.mean is not None
        assert output.margin.margin is not None
        self.mean.append(output.mean.value_w)
        self.quantile.append(output.margin.limit_w - output.margin.margin.value_w)
        return self.mean[-1], self.quantile[-1]

    def range_w(self, figure: str) -> float:
        values = getattr(self, figure)
        return float(max(values) - min(values))


def random_claim(rng: np.random.Generator) -> Claim:
    low, high = np.sort(rng.choice([0.0, 1.0, *rng.random(3)], 2))
    return Claim(
        low=float(low),
        high=float(high),
        duty=float(rng.random()),
        period=int(rng.choice([4, 6, 10, 20, 40, 100])),
        push=int(rng.integers(-1, 2)),
        panes=int(rng.integers(1, PANES + 1)),
    )


def neighbours(claim: Claim, rng: np.random.Generator) -> list[Claim]:
    """One coordinate changed at a time."""
    other = random_claim(rng)
    names = ("low", "high", "duty", "period", "push", "panes")
    return [replace(claim, **{name: getattr(other, name)}) for name in names]


def admitted(subject: Sequence[int], claim: Claim) -> bool:
    """Whether physics admits the claim from every host of the subject."""
    try:
        for index in subject:
            report = domain().claimed(index, HISTORY, claim)
            if report is not None:
                physics(domain().core, index, report)
    except Refused:
        return False
    return True


def search(subject: tuple[int, ...], seed: int) -> Found:
    """Corners, random claims after each past, then ascent by coordinates from the best of each extreme."""
    rng = np.random.default_rng(seed)
    found = Found([], [])
    scored: list[tuple[tuple[float, float], Claim | None, Claim]] = []

    def attempt(past: Claim | None, now: Claim) -> None:
        if admitted(subject, now):
            scored.append((found.add(domain().output(subject, past, now)), past, now))

    for now in CORNERS:
        for past in (None, BOTTOM, ABSENT) if TIER == "test" else PASTS:
            attempt(past, now)
    for number in range(TRIES):
        attempt(PASTS[number % len(PASTS)], random_claim(rng))
    for _ in range(ROUNDS):
        for figure in (0, 1):
            for sign in (1, -1):
                _, past, now = max(scored, key=lambda one: sign * one[0][figure])
                for other in neighbours(now, rng):
                    attempt(past, other)
    return found


TIGHT = {"mean": 1.5, "quantile": 1.5}
"""A bound is at most so many times the worst case that was found."""

KINDS = ("host", "tenant", "failure_domain")


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_hold_and_are_tight(kind: str) -> None:
    # The subject with the widest range is the one that its kind's bound is about.
    subject = max(subjects(kind), key=own_range_w)
    found = search(subject, seed=len(kind))
    published = next(one for one in domain().output((), None, None).influence if one.subject == kind)
    assert published.mean_w is not None
    assert published.margin_w is not None
    figures = {}
    for figure, bound in (("mean", published.mean_w), ("quantile", published.margin_w)):
        worst = found.range_w(figure)
        figures[figure] = {"bound_w": bound, "found_w": worst, "own_range_w": round(own_range_w(subject))}
        ratio = f"{bound / worst:.2f} of {len(found.mean)} tries"
        print(f"{kind} {figure}: bound {bound:,} W, found {worst:,.0f} W, {ratio}")
        assert worst <= bound, figure
        assert bound <= TIGHT[figure] * worst, figure
    assert published.mean_w >= math.floor(own_range_w(subject)), "the subject may be at either end of its range"
    assert published.mean_w <= 1.4 * own_range_w(subject), "the rest is what noise explains in a window of ten panes"
    write_result(f"influence-bound-{kind.replace('_', '-')}", figures, seeds={"search": len(kind)})


@pytest.mark.parametrize("kind", KINDS)
def test_no_subject_of_a_kind_exceeds_its_bound(kind: str) -> None:
    """Not only the widest one: corners alone, for every subject."""
    published = next(one for one in domain().output((), None, None).influence if one.subject == kind)
    assert published.mean_w is not None
    assert published.margin_w is not None
    for subject in subjects(kind):
        found = Found([], [])
        for past, now in ((None, TOP), (BOTTOM, BOTTOM), (BOTTOM, ABSENT), (ABSENT, WAVES[4]), (TOP, TOP)):
            found.add(domain().output(subject, past, now))
        assert found.range_w("mean") <= published.mean_w, subject
        assert found.range_w("quantile") <= published.margin_w, subject


def test_the_fleet_is_covered_in_part_and_has_two_classes() -> None:
    output = domain().output((), None, None)
    assert output.coverage.reporting_hosts == output.coverage.enrolled_hosts - len(SILENT)
    assert len(output.classes) == 2
    assert {host_id(index) for index in SILENT} <= {one.host_id for one in domain().core.view.policy.hosts}
