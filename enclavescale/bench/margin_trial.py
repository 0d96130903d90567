"""One trial: a fleet drawn anew, a few windows in order, every estimator on the same readings.

`edge` is the product end to end: distil and privatise on every host, the core on the sum. `exact` is the core on the
same statistics without noise; `central` is the core where one host of every GPU class carries the noise for all:
what an honest aggregator would add once. `paper` is described in `enclavescale.bench.estimators`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import cast

import numpy as np
import numpy.typing as npt

from enclavescale.bench.estimators import (
    Estimate,
    PaperWindow,
    discrete_laplace,
    forecast_of,
    of_output,
    upper_quantile,
)
from enclavescale.bench.margin_core import HISTOGRAM, CoreFleet, HostReport, exact_report, releases
from enclavescale.bench.trace_files import BenchTrace
from enclavescale.bench.trace_fleet import Pools, TraceFleet, draw_fleet, model_rules, pools_of
from enclavescale.bench.trace_log import TICK_MS
from power_model.grid import Grid
from producers.config import Schedule
from producers.distil import Distilled, distil
from producers.privacy import MICRO, Budget, default_budget, privacy_parameters
from producers.privatise import Privatiser
from schemas.records import FleetPower, ModelRule, PrivacyParameters

EDGE, CENTRAL, EXACT, PAPER = "edge", "central", "exact", "paper"
CORE_ESTIMATORS = (EDGE, CENTRAL, EXACT)
TRANSITIONS, PANES = "transitions", "pane_sums"
OPENDP, SIMULATED = NOISES = ("opendp", "simulated")
FORECAST_S = (1, 10, 60)
NAMEPLATE_MW = 100.0
TICKS_PER_S = 1000 // TICK_MS

Counts = npt.NDArray[np.int64]


def scaled_budget(epsilon: float) -> Budget:
    """The default split of a source without an energy counter, every release scaled so that all have `epsilon`."""
    base = default_budget(energy=False)
    names = [one.name for one in fields(Budget) if one.name.endswith("_micro")]
    return replace(base, **{name: round(getattr(base, name) * epsilon * MICRO / base.total_micro) for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class MarginSpec:
    """What is measured. `run_up`, `per_fleet`: windows of a fleet before, and while, it is measured."""

    hosts: int
    gpus: int
    epsilon: float
    window_s: int
    windows: int
    seed: int
    run_up: int = 3
    per_fleet: int = 4
    pane_ms: int = 1000
    noise: str = OPENDP
    labels: bool = False

    @property
    def schedule(self) -> Schedule:
        """Windows and panes as the hosts keep them."""
        return Schedule(window_ms=1000 * self.window_s, pane_ms=self.pane_ms, sample_hz=TICKS_PER_S)

    @property
    def budget(self) -> Budget:
        """The default split of a source without an energy counter, scaled to `epsilon`."""
        return scaled_budget(self.epsilon)


@dataclass(frozen=True, slots=True)
class Forecasted:
    """A forecast, what came, and two naive forecasts of it: the last second, and that plus its usual rise. MW."""

    forecast_mw: float
    came_mw: float
    last_mw: float
    last_and_rise_mw: float


@dataclass(frozen=True, slots=True)
class WindowFigures:
    """One measured window, W, and `mw_per_w` that scales its fleet to 100 MW. `block`: trace of the first host."""

    block: str
    mw_per_w: float
    mean_w: float
    p99_w: float
    estimates: dict[str, Estimate]
    paper: dict[str, Estimate]
    forecasts: dict[int, Forecasted]


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything that trials share."""

    spec: MarginSpec
    pools: dict[str | None, Pools]
    rules: dict[str, ModelRule]


def bench_of(spec: MarginSpec, traces: Sequence[BenchTrace], modes: Sequence[str | None]) -> Bench:
    """Sort the traces for fleets of the given kinds of reading (None: any). Raises `TraceError`."""
    return Bench(spec, {mode: pools_of(traces, mode) for mode in modes}, model_rules(traces))


@dataclass(frozen=True, slots=True)
class Noise:
    """Adds a host's noise: OpenDP's, or (rng given) simulated draws of the same law."""

    rng: np.random.Generator | None

    def report(self, exact: Distilled, privacy: PrivacyParameters) -> HostReport:
        """Return the noisy statistics with their statement."""
        if self.rng is None:
            noisy = _privatiser(privacy).privatise(exact)
            counts, sums = noisy.transitions.astype(np.int64), noisy.pane_sums.astype(np.int64)
            cells = None if noisy.histogram is None else noisy.histogram.astype(np.int64)
        else:
            counts, sums = (
                self._add(exact.transitions, privacy, TRANSITIONS),
                self._add(exact.pane_sums, privacy, PANES),
            )
            cells = self._add(exact.histogram, privacy, HISTOGRAM) if releases(privacy, HISTOGRAM) else None
        return HostReport(counts, sums, exact.readings_taken, privacy, cells)

    def _add(self, exact: Counts, privacy: PrivacyParameters, release: str) -> Counts:
        scale = next(one.scale_micro for one in privacy.releases if one.release == release) / MICRO
        return exact + discrete_laplace(cast(np.random.Generator, self.rng), scale, exact.shape)


@cache
def _privatiser(privacy: PrivacyParameters) -> Privatiser:
    return Privatiser(privacy)


def _noiseless(privacy: PrivacyParameters) -> PrivacyParameters:
    """The statement of a report without noise: the smallest scale there is, whose variance is 0."""
    return replace(privacy, releases=tuple(replace(one, scale_micro=1) for one in privacy.releases))


class _Hosts:
    """The hosts of one fleet: readings to reports."""

    def __init__(self, bench: Bench, fleet: TraceFleet, core: CoreFleet, rng: np.random.Generator) -> None:
        spec = bench.spec
        self._fleet, self._profiles, self._schedule = fleet, core.profiles, spec.schedule
        self._noise = Noise(rng if spec.noise == SIMULATED else None)
        self._privacy = [privacy_parameters(spec.budget, [one], spec.schedule) for one in core.profiles]
        self._silent = [_noiseless(one) for one in self._privacy]
        models = [one.model for one in core.profiles]
        self._first = [models.index(model) == index for index, model in enumerate(models)]

    def reports(self, first: int, paper: PaperWindow | None) -> dict[str, list[HostReport]]:
        """Reports of the window that begins at tick `first`, by estimator; `paper` is shown the readings."""
        made: dict[str, list[HostReport]] = {name: [] for name in CORE_ESTIMATORS}
        for index, (host, profile) in enumerate(zip(self._fleet.hosts, self._profiles, strict=True)):
            power_w = host.power_w(first, self._schedule.ticks)
            exact = distil(
                power_w, Grid(profile.edges_w), profile.clip_low_w, profile.clip_high_w, self._schedule.ticks_per_pane
            )
            plain = exact_report(exact, self._silent[index])
            made[EXACT].append(plain)
            made[EDGE].append(self._noise.report(exact, self._privacy[index]))
            once = self._noise.report(exact, self._privacy[index]) if self._first[index] else plain
            made[CENTRAL].append(once)
            if paper is not None:
                rule = next(one for one in self._fleet.rules if one.model == profile.model)
                paper.add(power_w, rule, profile.capacity_w)
        return made


def run_trial(
    bench: Bench, mode: str | None, index: int, windows: int, run_up: int | None = None
) -> list[WindowFigures]:
    """Draw fleet `index` of a kind of reading and measure `windows` windows of it after `run_up` (None: the spec's)."""
    spec, run_up = bench.spec, bench.spec.run_up if run_up is None else run_up
    rng = np.random.default_rng([spec.seed, sum((mode or "").encode()), index])
    ticks, count = spec.schedule.ticks, run_up + windows
    beyond = max(FORECAST_S) * TICKS_PER_S + 1
    fleet = draw_fleet(
        bench.pools[mode], bench.rules, rng, hosts=spec.hosts, gpus=spec.gpus, ticks=count * ticks + beyond
    )
    total_w = fleet.total_w(0, count * ticks + beyond)
    cores = {name: CoreFleet(fleet, spec.schedule, labels=spec.labels) for name in CORE_ESTIMATORS}
    hosts = _Hosts(bench, fleet, cores[EDGE], rng)
    mw_per_w = NAMEPLATE_MW / fleet.capacity_w
    result = []
    for number in range(count):
        paper = PaperWindow(spec.epsilon, rng) if number >= run_up else None
        reports = hosts.reports(number * ticks, paper)
        outputs = {name: core.output(reports[name]) for name, core in cores.items()}
        if paper is None:
            continue
        window = total_w[number * ticks : (number + 1) * ticks]
        result.append(
            WindowFigures(
                block=fleet.hosts[0].trace.name,
                mw_per_w=mw_per_w,
                mean_w=float(window.mean()),
                p99_w=upper_quantile(window),
                estimates={name: of_output(output) for name, output in outputs.items()},
                paper=paper.estimates(),
                forecasts=_forecasts(outputs[EDGE], total_w, (number + 1) * ticks, mw_per_w),
            )
        )
    return result


def _forecasts(
    output: FleetPower, total_w: npt.NDArray[np.float64], end: int, mw_per_w: float
) -> dict[int, Forecasted]:
    """Forecasts from tick `end` on beside what came; the naive ones know the true power up to `end`."""
    panes = total_w[: end - end % TICKS_PER_S].reshape(-1, TICKS_PER_S).mean(axis=1)
    result = {}
    for horizon in FORECAST_S:
        given = forecast_of(output, 1000 * horizon)
        rises = panes[horizon:] - panes[:-horizon]
        result[horizon] = Forecasted(
            forecast_mw=math.nan if given is None else given.value_w * mw_per_w,
            came_mw=float(total_w[end + horizon * TICKS_PER_S]) * mw_per_w,
            last_mw=float(panes[-1]) * mw_per_w,
            last_and_rise_mw=(float(panes[-1]) + (upper_quantile(rises) if rises.size else 0.0)) * mw_per_w,
        )
    return result
