"""`bench byzantine`: how far attested hosts that lie together move the mean and the margin of a fleet.

Errors are what an attack moves: the worst difference, over the attack's windows and all trials, between the output
under attack and the output of the same fleet (same readings, same noise) with every host honest. `true_*` are
differences from the fleet's true power, the estimator's own error included. `influence_bound_mw` is the sum of the
colluders' bounds in the honest fleet's windows, the largest of them; `exceeded` counts figures above the bound of their
own window. All in MW of a fleet scaled to 100 MW.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from enclavescale.bench.byzantine_strategies import STRATEGIES, variants
from enclavescale.bench.byzantine_traces import bundled_traces
from enclavescale.bench.byzantine_trial import Branch, ByzantineSpec, Trial, figures_of
from enclavescale.bench.honest_fleet import HonestCount, fleets_for, honest_fleet
from enclavescale.bench.presence import Seen, presence_figures, presence_trial
from enclavescale.bench.trace_files import BenchTrace, read_traces
from enclavescale.bench.trace_fleet import Pools, model_rules, pools_of
from schemas.records import FleetPower, ModelRule

FRACTIONS = (0.0, 0.05, 0.15, 0.3, 0.4)
ALL = "all"
LAYERS_OFF: dict[str, dict[str, int]] = {
    "history and cohort": {"history_windows": 0},
    "drift cap": {"drift_cap_ppm": 1_000_000},
}
"""Rules under which a layer does nothing: without history nobody has a reference; a cap of all power caps nothing."""


@dataclass(slots=True)
class Figures:
    """Differences of one strategy at one fraction, MW, one pair (mean, margin) per window of all trials."""

    moved: list[tuple[float, float]] = field(default_factory=list)
    true: list[tuple[float, float]] = field(default_factory=list)
    bounds: list[tuple[float, float]] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    flagged: Counter[str] = field(default_factory=Counter)
    step: float | None = None

    def worst(self) -> float:
        """Largest movement of the mean, MW: by it the attacker chooses between variants."""
        return max((abs(mean) for mean, _ in self.moved), default=0.0)

    def add(self, other: Figures) -> None:
        """Take over the windows of another trial."""
        self.moved += other.moved
        self.true += other.true
        self.bounds += other.bounds
        self.refused += other.refused
        self.flagged += other.flagged
        self.step = other.step if self.step is None else max(self.step, other.step or 0.0)

    def document(self) -> dict[str, Any]:
        """Figures for the JSON document."""
        mean_bound = max((mean for mean, _ in self.bounds), default=0.0)
        margin_bound = max((margin for _, margin in self.bounds), default=0.0)
        return {
            "mean_error_mw": _worst(self.moved, 0),
            "margin_error_mw": _worst(self.moved, 1),
            "influence_bound_mw": round(mean_bound, 4),
            "margin_influence_bound_mw": round(margin_bound, 4),
            "exceeded": sum(
                abs(moved[which]) > bound[which]
                for moved, bound in zip(self.moved, self.bounds, strict=True)
                for which in (0, 1)
            ),
            "mean_error_rms_mw": _rms(self.moved, 0),
            "margin_error_rms_mw": _rms(self.moved, 1),
            "true_mean_error_mw": _worst(self.true, 0),
            "true_margin_error_mw": _worst(self.true, 1),
            "refused": dict(sorted(self.refused.items())),
            "layers": dict(sorted(self.flagged.items())),
            **({} if self.step is None else {"step_share_of_capacity": self.step}),
        }


@dataclass(slots=True)
class TrialFigures:
    """What one trial found: figures by fraction and strategy; what each layer costs an honest fleet."""

    attacks: dict[float, dict[str, Figures]]
    costs: dict[str, Figures]
    capacity_share: dict[float, float]
    honest_flags: Counter[str]
    honest_true: Figures


@dataclass(frozen=True, slots=True)
class Plan:
    """What the trials share."""

    spec: ByzantineSpec
    pools: Pools
    rules: dict[str, ModelRule]
    fractions: tuple[float, ...]
    strategies: tuple[str, ...]


def run_trial(plan: Plan, index: int) -> TrialFigures:
    """Draw fleet `index` and try every strategy at every fraction."""
    trial = Trial(plan.spec, plan.pools, plan.rules, index)
    attacks: dict[float, dict[str, Figures]] = {}
    for fraction in plan.fractions:
        liars = trial.liars(fraction)
        attacks[fraction] = {name: _attack(trial, name, liars) for name in plan.strategies}
    costs = {name: _compare(trial, trial.honest, trial.under(changes)) for name, changes in LAYERS_OFF.items()}
    costs["physics"] = _compare(trial, trial.checked(), trial.honest)
    capacity_w = [one.trace.tdp_w * one.rows.size for one in trial.fleet.hosts]
    return TrialFigures(
        attacks=attacks,
        costs=costs,
        capacity_share={
            fraction: sum(capacity_w[one] for one in trial.liars(fraction)) / sum(capacity_w)
            for fraction in plan.fractions
        },
        honest_flags=_flags(trial.honest.outputs),
        honest_true=_compare(trial, trial.honest, trial.honest),
    )


def _attack(trial: Trial, name: str, liars: Sequence[int]) -> Figures:
    """Figures of a strategy's worst variant."""
    tried = []
    for step in variants(name):
        branch = trial.attack(name, step, liars) if liars else trial.honest
        figures = _compare(trial, branch, trial.honest)
        figures.step = step if len(variants(name)) > 1 else None
        figures.bounds = [_bound(hosts, liars, trial.mw_per_w) for hosts in trial.honest.bounds_w]
        tried.append(figures)
    return max(tried, key=Figures.worst)


def _bound(hosts: Sequence[tuple[float, float]], liars: Sequence[int], mw_per_w: float) -> tuple[float, float]:
    """Bounds on mean and margin that some hosts have together, MW: the sums of theirs."""
    return (
        mw_per_w * math.fsum(hosts[one][0] for one in liars),
        mw_per_w * math.fsum(hosts[one][1] for one in liars),
    )


def _compare(trial: Trial, branch: Branch, other: Branch) -> Figures:
    figures = Figures(refused=branch.refused, flagged=_flags(branch.outputs))
    for number, (one, two) in enumerate(zip(branch.outputs, other.outputs, strict=True)):
        (mean_w, high_w), (was_w, was_high_w), (true_w, true_high_w) = (
            figures_of(one),
            figures_of(two),
            trial.true_w(number),
        )
        figures.moved.append(((mean_w - was_w) * trial.mw_per_w, (high_w - was_high_w) * trial.mw_per_w))
        figures.true.append(((mean_w - true_w) * trial.mw_per_w, (high_w - true_high_w) * trial.mw_per_w))
    return figures


def _flags(outputs: Sequence[FleetPower]) -> Counter[str]:
    """Host-windows by code of the outlier layers."""
    return Counter({code: count for code, count in _layer_counts(outputs).items() if count})


def _layer_counts(outputs: Sequence[FleetPower]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for output in outputs:
        for one in output.layers:
            counts[one.code] += one.hosts
    return counts


def _worst(pairs: Sequence[tuple[float, float]], which: int) -> float:
    return round(max((abs(pair[which]) for pair in pairs), default=0.0), 4)


def _rms(pairs: Sequence[tuple[float, float]], which: int) -> float:
    return round(math.sqrt(math.fsum(pair[which] ** 2 for pair in pairs) / max(1, len(pairs))), 4)


# -- the whole run ---------------------------------------------------------------------------------------------

T = TypeVar("T")
_shared: list[Plan] = []


def _adopt(plan: Plan) -> None:
    _shared[:] = [plan]


def _attack_task(index: int) -> TrialFigures:
    return run_trial(_shared[0], index)


def _presence_task(index: int) -> dict[int, Seen]:
    plan = _shared[0]
    return presence_trial(plan.spec, plan.pools, plan.rules, index)


def _honest_task(index: int) -> HonestCount:
    plan = _shared[0]
    return honest_fleet(plan.spec, plan.pools, plan.rules, index)


class _Workers:
    """Runs tasks here or in processes of their own; results come in the tasks' order, whoever makes them."""

    def __init__(self, plan: Plan, workers: int) -> None:
        self._pool: ProcessPoolExecutor | None = None
        _adopt(plan)
        if workers > 1:
            self._pool = ProcessPoolExecutor(
                workers, mp_context=get_context("spawn"), initializer=_adopt, initargs=(plan,)
            )

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def each(self, task: Callable[[int], T], count: int) -> list[T]:
        """Results of `task` for 0 .. count - 1."""
        return list(map(task, range(count)) if self._pool is None else self._pool.map(task, range(count)))


def bench_byzantine(
    directory: Path | None,
    spec: ByzantineSpec,
    *,
    fractions: Sequence[float] = FRACTIONS,
    strategies: Sequence[str] = tuple(STRATEGIES),
    trials: int = 2,
    presence: bool = True,
    honest_host_windows: int = 0,
    workers: int = 0,
) -> dict[str, Any]:
    """Attack fleets drawn from the traces of `directory` (None: the bundled ones); return a JSON-ready document.

    With one fraction its figures stand under `strategies`; otherwise under `fractions`, by fraction, and `strategies`
    holds those of the largest. `workers` 0: one process per core. Raises `TraceError`.
    """
    traces: Sequence[BenchTrace] = read_traces(directory).traces if directory else bundled_traces()
    plan = Plan(spec, pools_of(traces), model_rules(traces), tuple(fractions), tuple(strategies))
    with _Workers(plan, workers or os.cpu_count() or 1) as here:
        total = _joined(here.each(_attack_task, trials))
        seen = here.each(_presence_task, trials if presence else 0)
        counted = HonestCount()
        for one in here.each(_honest_task, fleets_for(honest_host_windows)):
            counted.add(one)
    by_fraction = {
        f"{fraction:g}": {
            "hosts": round(fraction * spec.hosts),
            "largest_capacity_share": round(total.capacity_share[fraction], 4),
            "strategies": {name: figures.document() for name, figures in total.attacks[fraction].items()},
        }
        for fraction in plan.fractions
    }
    return {
        "strategies": by_fraction[f"{max(plan.fractions):g}"]["strategies"],
        "fractions": by_fraction,
        "layers": {name: _cost(figures) for name, figures in sorted(total.costs.items())},
        "honest": {
            "true_mean_error_mw": _worst(total.honest_true.true, 0),
            "true_margin_error_mw": _worst(total.honest_true.true, 1),
            "host_windows": trials * spec.windows * spec.hosts,
            "layers": dict(sorted(total.honest_flags.items())),
            "fleet": counted.document() if counted.host_windows else None,
        },
        "presence": presence_figures(seen, spec.hosts),
        "fleet": {
            "hosts": spec.hosts,
            "gpus_per_host": spec.gpus,
            "window_s": spec.window_s,
            "history_windows": spec.history,
            "windows": spec.windows,
            "trials": trials,
            "nameplate_mw": 100.0,
            "traces": len(traces),
            "bundled": directory is None,
        },
        "epsilon": spec.epsilon,
        "seed": spec.seed,
        "noise": "simulated",
    }


def _cost(figures: Figures) -> dict[str, Any]:
    return {
        "mean_mw": _worst(figures.moved, 0),
        "margin_mw": _worst(figures.moved, 1),
        "mean_rms_mw": _rms(figures.moved, 0),
        "margin_rms_mw": _rms(figures.moved, 1),
        "refused": dict(sorted(figures.refused.items())),
    }


def _joined(trials: Sequence[TrialFigures]) -> TrialFigures:
    total = trials[0]
    for one in trials[1:]:
        for fraction, by_name in one.attacks.items():
            for name, figures in by_name.items():
                total.attacks[fraction][name].add(figures)
            total.capacity_share[fraction] = max(total.capacity_share[fraction], one.capacity_share[fraction])
        for name, figures in one.costs.items():
            total.costs[name].add(figures)
        total.honest_flags += one.honest_flags
        total.honest_true.add(one.honest_true)
    return total
