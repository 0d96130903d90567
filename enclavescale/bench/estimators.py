"""Estimators of a fleet's mean and p99: the core's output, and the chain of clamped rows that the paper describes.

The paper's estimator, with what is most favourable to it since it publishes no parameters: the whole budget goes to
the transition counts, and of several numbers of states and ways to average the one with the smallest error is shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from power_model.grid import Grid, midpoints_w
from power_model.quantiles import normal_quantile
from power_model.stationary import stationary
from power_model.transitions import count_transitions, occupancy, transition_matrix
from producers.privacy import TRANSITIONS_L1
from schemas.records import FleetPower, Interval, ModelRule

P99 = 0.99
P99_PPM = 990_000
PAPER_STATES = (5, 10, 20)
BY_CLASS, WHOLE_FLEET = CHAINS = ("one chain per GPU class", "one chain for the fleet")


@dataclass(frozen=True, slots=True)
class Estimate:
    """Mean and p99 of the fleet's power with their intervals, W; NaN where the estimator gives none.

    `set_aside`: hosts of which a part was set aside as an outlier: here every host is honest.
    """

    mean_w: float
    p99_w: float
    mean_low_w: float = math.nan
    mean_high_w: float = math.nan
    p99_low_w: float = math.nan
    p99_high_w: float = math.nan
    set_aside: int = 0


ABSENT = Estimate(math.nan, math.nan)


def of_output(output: FleetPower) -> Estimate:
    """Read the figures of an output; the p99 and its interval are those of the margin, turned around."""
    margin = output.margin
    mean, room = output.mean, margin.margin
    if mean is None or room is None or margin.quantile_ppm != P99_PPM:
        return ABSENT
    return Estimate(
        mean_w=mean.value_w,
        p99_w=margin.limit_w - room.value_w,
        mean_low_w=mean.low_w,
        mean_high_w=mean.high_w,
        p99_low_w=margin.limit_w - room.high_w,
        p99_high_w=margin.limit_w - room.low_w,
        set_aside=len(output.set_aside),
    )


def forecast_of(output: FleetPower, horizon_ms: int) -> Interval | None:
    """The output's p99 at `horizon_ms` after the window's end; None where it gives none."""
    found = (one for one in output.forecasts if one.horizon_ms == horizon_ms and one.quantile_ppm == P99_PPM)
    return next((one.estimate for one in found), None)


def upper_quantile(values: npt.NDArray[np.float64], share: float = P99) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    rank = max(math.ceil(share * values.size - 1e-9), 1)
    return float(np.partition(values, rank - 1)[rank - 1])


def discrete_laplace(rng: np.random.Generator, scale: float, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Noise of the law that OpenDP draws from, by a generator that a seed fixes: for simulation only."""
    success = -math.expm1(-1.0 / scale)
    return rng.geometric(success, shape) - rng.geometric(success, shape)


class PaperWindow:
    """The paper's figures of one window: hosts are added one by one."""

    def __init__(self, epsilon: float, rng: np.random.Generator) -> None:
        self._scale = TRANSITIONS_L1 / epsilon
        self._rng = rng
        self._chains: dict[tuple[int, str], npt.NDArray[np.float64]] = {}
        self._visits: dict[tuple[int, str], npt.NDArray[np.float64]] = {}
        self._capacity_w: dict[str, int] = {}
        self._gpus: dict[str, int] = {}
        self._rules: dict[str, ModelRule] = {}

    def add(self, power_w: npt.NDArray[np.float32], rule: ModelRule, capacity_w: int) -> None:
        """Add a host: float32[gpus, ticks] in W. Its noisy counts are clamped and its rows normalised."""
        self._rules[rule.model] = rule
        self._capacity_w[rule.model] = self._capacity_w.get(rule.model, 0) + capacity_w
        self._gpus[rule.model] = self._gpus.get(rule.model, 0) + len(power_w)
        for states in PAPER_STATES:
            grid = Grid(_edges_w(rule, states))
            counts = count_transitions(grid.assign(power_w), grid.cells)
            noisy = counts[:-1, :-1] + discrete_laplace(self._rng, self._scale, (states, states))
            closed = np.zeros_like(counts)
            closed[:-1, :-1] = np.maximum(noisy, 0)
            key = states, rule.model
            self._chains[key] = self._chains.get(key, 0.0) + capacity_w * transition_matrix(closed)
            self._visits[key] = self._visits.get(key, 0.0) + capacity_w * occupancy(closed)

    def estimates(self) -> dict[str, Estimate]:
        """Figures by variant, W; the p99 takes GPUs as independent and their sum as normal."""
        result = {}
        for states in PAPER_STATES:
            chains = {model: self._chains[states, model] for model in self._rules}
            visits = {model: self._visits[states, model] for model in self._rules}
            fleet = sum(self._capacity_w.values())
            together = stationary(_sum(list(chains.values())) / fleet, _sum(list(visits.values())))
            by_class = {
                model: stationary(chain / self._capacity_w[model], visits[model]) for model, chain in chains.items()
            }
            for how, chosen in ((BY_CLASS, by_class), (WHOLE_FLEET, dict.fromkeys(chains, together))):
                result[f"{states} states, {how}"] = self._figures(states, chosen)
        return result

    def _figures(self, states: int, shares: dict[str, npt.NDArray[np.float64]]) -> Estimate:
        mean_w, variance_w2 = 0.0, 0.0
        for model, share in shares.items():
            rule = self._rules[model]
            middles = midpoints_w(_edges_w(rule, states), rule.clip_low_w, rule.clip_high_w)
            level = float((share * middles).sum())
            mean_w += self._gpus[model] * level
            variance_w2 += self._gpus[model] * float((share * (middles - level) ** 2).sum())
        return Estimate(mean_w, mean_w + normal_quantile(P99) * math.sqrt(variance_w2))


def _edges_w(rule: ModelRule, states: int) -> tuple[int, ...]:
    return tuple(rule.clip_high_w * i // states for i in range(1, states))


def _sum(arrays: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    total = np.zeros_like(arrays[0])
    for one in arrays:
        total += one
    return total
