"""Estimates against the truth of replayed traces: real distilling, real noise, real sums."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest

from enclavescale.fleet import MODELS
from power_model.grid import Grid
from producers.config import ClassProfile, Schedule
from producers.distil import distil
from producers.privacy import Budget, privacy_parameters
from producers.privatise import Privatiser
from producers.sample.trace import TraceSource, load_bundled
from schemas.records import FleetPower, Interval, ModelRule
from stream_jobs.core.aggregate import add_report
from stream_jobs.core.effects import Emission
from stream_jobs.core.emit import emission
from stream_jobs.core.policies import PolicyView
from stream_jobs.core.windows import Tally, Window
from tests.core import fleet
from tests.core.fleet import T0

WINDOW_MS, PANE_MS, GPUS, HOSTS = 10_000, 1_000, 8, 16
MODEL = MODELS[0]
RULE: ModelRule = MODEL.rule()
SCHEDULE = Schedule(window_ms=WINDOW_MS, pane_ms=PANE_MS, sample_hz=10)


@dataclass(frozen=True)
class Proven:
    """What the core reads of a verified session."""

    root_label: str = "simulated"
    simulated: bool = True
    first_mile: str = "NONE"
    valid_from_ms: int = 0
    expires_ms: int = 2**62
    binding: object = None
    subjects: tuple[tuple[str, str], ...] = ()


@cache
def source(number: int, together: bool = True) -> TraceSource:
    """Two hosts in three run one job in step, the others each their own; two traces."""
    trace = load_bundled(MODEL.traces[number % len(MODEL.traces)])
    shared = together and number % 3 < 2
    return TraceSource(
        trace, gpus=GPUS, seed=f"job{number % 2}" if shared else f"h{number}", spread_ticks=2 if shared else None
    )


def profile(number: int) -> ClassProfile:
    return ClassProfile(
        model=MODEL.model,
        capacity_w=GPUS * MODEL.tdp_w,
        edges_w=RULE.edges_w,
        clip_low_w=RULE.clip_low_w,
        clip_high_w=RULE.clip_high_w,
        source=source(number),
    )


PRIVACY = privacy_parameters(Budget(), [profile(0)], SCHEDULE)
PRIVATISER = Privatiser(PRIVACY)
GRID = Grid(RULE.edges_w)


@cache
def view() -> PolicyView:
    rule = fleet.domain_rule(
        "d", window_ms=WINDOW_MS, pane_ms=PANE_MS, limit_w=HOSTS * GPUS * MODEL.tdp_w, quorum_ppm=0
    )
    hosts = []
    for number in range(HOSTS):
        one = fleet.enrolment(f"h{number}", "d", f"t{number % 4}")
        only = replace(one.classes[0], model=MODEL.model, gpus=GPUS, capacity_w=GPUS * MODEL.tdp_w)
        hosts.append(replace(one, classes=(only,)))
    return fleet.policy_of(hosts, [rule], models=(RULE,))


def report(number: int, start_ms: int, missing: float, rng: random.Random) -> tuple[object, object, object, float]:
    """A host's report of one window as the core takes it, and the true mean power of its GPUs, W."""
    readings = source(number).window(start_ms, start_ms + WINDOW_MS).astype(np.float64)
    truth = float(readings.mean()) * GPUS
    if missing:
        lost = np.random.default_rng(rng.randrange(2**32)).random(readings.shape[1]) < missing
        readings[:, lost] = np.nan
    exact = distil(readings, GRID, RULE.clip_low_w, RULE.clip_high_w, PANE_MS // 100)
    noisy = PRIVATISER.privatise(exact)
    stated = fleet.gpu_class(
        model=MODEL.model,
        gpus=GPUS,
        capacity_w=GPUS * MODEL.tdp_w,
        readings_taken=exact.readings_taken,
        edges_w=RULE.edges_w,
        clip_high_w=RULE.clip_high_w,
    )
    body = fleet.report_of(
        fleet.session_of("h0", "d"), start_ms, host_id=f"h{number}", classes=(stated,), privacy=PRIVACY,
        window_end_ms=start_ms + WINDOW_MS,
    )  # fmt: skip
    stated = replace(
        stated,
        pane_sums=noisy.pane_sums.astype("<i4").tobytes(),
        pane_sums_shape=noisy.pane_sums.shape,
        transitions=noisy.transitions.astype("<i4").tobytes(),
        transitions_shape=noisy.transitions.shape,
    )
    return body, stated, number, truth


def output_of(reports: Sequence[tuple], start_ms: int, **rule: int) -> FleetPower:
    window = Window(start_ms, start_ms + WINDOW_MS, view(), replace(view().domains["d"], **rule))
    for index, (body, stated, number, _) in enumerate(reports):
        host = view().hosts[f"h{number}"]
        add_report(window, body, [stated], host, Proven(), digest=bytes([index]) * 32, offset=index, flags=())  # type: ignore[arg-type]
    made: Emission = emission(
        window, Tally(), topic="t", partition=0, close_offset=99, close_reason="watermark", prev_output=None
    )
    return made.output


def start_of(number: int) -> int:
    """Windows that meet the traces at ever other places."""
    return T0 // 10_000 * 10_000 + number * 10_000 + (number * 37 % 100) * 100


def covered(interval: Interval | None, truth: float) -> bool:
    assert interval is not None
    assert interval.low_w <= interval.value_w <= interval.high_w
    return interval.low_w <= truth <= interval.high_w


def binomial_low(count: int, share: float) -> int:
    """Largest k that a Binomial(count, share) stays below once in 10,000 runs (normal law); noise has no seed."""
    return math.floor(count * share - 3.72 * math.sqrt(count * share * (1 - share)))


def coverage(windows: int, missing_ticks: float, absent: int, seed: int) -> tuple[int, float]:
    """Windows whose mean interval holds the truth, and the mean width of the interval over the truth."""
    rng = random.Random(seed)
    hits, width = 0, 0.0
    for number in range(windows):
        start = start_of(number)
        reports = [report(host, start, missing_ticks, rng) for host in range(HOSTS)]
        truth = sum(one[3] for one in reports)
        present = rng.sample(reports, HOSTS - absent)
        mean = output_of(present, start).mean
        hits += covered(mean, truth)
        width += (mean.high_w - mean.low_w) / truth / windows if mean else 0
    return hits, width


def test_the_mean_s_interval_covers_the_truth() -> None:
    windows = 300
    hits, width = coverage(windows, 0.0, 0, seed=1)
    print(f"mean: {hits} of {windows} windows covered at 95 %, width {100 * width:.1f} % of the power")
    assert hits >= binomial_low(windows, 0.95)
    assert hits < windows, "an interval that is always right is too wide"
    assert width < 0.25


def test_with_missing_ticks_the_interval_still_covers() -> None:
    """Ticks are lost for all GPUs of a host at once, at random; what they had is taken as the host's mean."""
    windows = 150
    hits, width = coverage(windows, 0.03, 0, seed=2)
    print(f"3 % of ticks missing: {hits} of {windows} covered at 95 %, width {100 * width:.1f} %")
    assert hits >= binomial_low(windows, 0.93)


@pytest.mark.parametrize("absent", [2, 6])
def test_with_missing_hosts_the_extrapolation_covers(absent: int) -> None:
    windows = 150
    hits, width = coverage(windows, 0.0, absent, seed=3)
    print(f"{absent} of {HOSTS} hosts missing: {hits} of {windows} covered at 95 %, width {100 * width:.1f} %")
    assert hits >= binomial_low(windows, 0.90)


def test_quantiles_and_margin_are_in_order() -> None:
    rng = random.Random(4)
    for number in range(20):
        reports = [report(host, start_of(number), 0.0, rng) for host in range(HOSTS)]
        output = output_of(reports[: 1 + number % HOSTS], start_of(number))
        values = [one.estimate for one in output.quantiles]
        assert [one.quantile_ppm for one in output.quantiles] == [500_000, 900_000, 950_000, 990_000, 999_000]
        for field in ("low_w", "value_w", "high_w"):
            ordered = [getattr(one, field) for one in values]
            assert ordered == sorted(ordered), field
        for one in [*values, output.mean, output.margin.margin]:
            assert one is not None
            assert one.low_w <= one.value_w <= one.high_w
        assert output.margin.margin is not None
        at_quantile = next(one.estimate for one in output.quantiles if one.quantile_ppm == 990_000)
        assert output.margin.margin.value_w == output.margin.limit_w - at_quantile.value_w


def test_the_margin_has_the_policy_s_confidence() -> None:
    """Mean and variance both: half of the interval came with a confidence of its own."""
    rng = random.Random(8)
    reports = [report(host, start_of(3), 0.0, rng) for host in range(HOSTS)]
    widths = []
    for confidence_ppm in (800_000, 950_000, 999_000):
        margin = output_of(reports, start_of(3), confidence_ppm=confidence_ppm).margin.margin
        assert margin is not None
        widths.append(margin.high_w - margin.low_w)
    # Ends of a normal law: 1.28, 1.96 and 3.29 standard deviations.
    assert widths[0] < widths[1] * 0.8
    assert widths[2] > widths[1] * 1.6


def test_one_or_two_panes_bound_little_but_never_raise() -> None:
    """The spread of a single difference has no upper bound: the interval says so with a finite number."""
    from tests.core.story import Story, small_policy

    policy = small_policy(2)
    story = Story(policy)
    story.control("POLICY_SWITCH", policy)
    for window in range(4):
        for number in range(2):
            story.report(f"h{number}", window)
    for output in story.outputs:
        for one in output.quantiles:
            assert one.estimate.low_w <= one.estimate.value_w <= one.estimate.high_w
        assert output.margin.margin is not None


def test_figures_do_not_depend_on_the_order_of_arrival() -> None:
    rng = random.Random(6)
    reports = [report(host, start_of(7), 0.01, rng) for host in range(HOSTS)]
    one = output_of(reports, start_of(7))
    for _ in range(5):
        rng.shuffle(reports)
        other = output_of(reports, start_of(7))
        for field in (
            "classes",
            "mean",
            "quantiles",
            "ramps",
            "margin",
            "coverage",
            "power_by",
            "dilution",
            "influence",
        ):
            assert getattr(one, field) == getattr(other, field), field
