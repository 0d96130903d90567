"""Forecasts: the distribution of a domain's power some time after its newest pane, learnt from its own panes alone.

Three laws are mixed, and how much each counts follows from how much the history can say:

- **Analogs**: what followed when the power stood near today's level and moved as it does now (Lorenz 1969).
- **All changes** of the history over the same time, drawn towards its mean as far as it has swung to and fro.
- **Unseen**: any power up to the capacity. A history that has shown only a part of one slow movement, or that is
  short beside the horizon, says little about the next one; a history of many swings says nearly all.

Changes are read both ways in time: a job that stopped can start. The known noise is subtracted, and what moves faster
than a pane is added, because a forecast speaks of single readings.

The constants are shares, counts and standard deviations, none of them a power or a time, and the same for every GPU.
They were chosen on fleets like those of `tests/core/test_outlook_traces.py`, by exceedance and pinball loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from power_model.quantiles import normal_quantile

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

NEIGHBOURS = 0.3
"""Share of the panes whose level counts as near the newest one."""
MIN_NEIGHBOURS = 30
ANALOG_PRIOR = 4.0
"""The law of all changes weighs as much as so many independent analogs."""
VISITS_PER_SWING = 2.0
"""Independent analogs that one swing of the power can give at most."""
BOTH_WAYS = 2.0
"""A change read forwards and another read backwards are not two independent observations."""
UNSEEN = 0.4
"""Probability of a power that no history foretells, at a horizon that is long beside the history."""
SWINGS = 2.5
"""Swings that a history must show before it is trusted to have shown its range."""
TRUST_POWER = 3
"""How steeply trust grows beyond that."""
SWING_RANGE = 0.5
SWING_CAPACITY = 0.04
SWING_SIGMA = 6.0
"""A swing is a way back of at least these shares of the history's range and of the capacity, and so many standard
deviations of the noise."""
RAMP_VARIANCE = 1.0 / 12.0
"""Variance inside a pane of a steady rise, as a share of the squared rise from pane to pane."""
LEAST_INNER = 0.1
"""Share of the variance inside panes that is no rise, at least."""
JUMP_SIGMA = 3.0
"""Innovations beyond so many standard deviations are a jump: the level starts anew there."""
WEIGHT = float(1 << 40)
"""Weights are integers out of this, so that their sums are exact."""
BISECTIONS = 40
"""Halvings of the range of powers: a gigawatt is known to a milliwatt."""

_NODES = np.array([normal_quantile((i + 0.5) / 64) for i in range(64)])
_UNIFORM = (np.arange(64) + 0.5) / 64


@dataclass(frozen=True, slots=True)
class Law:
    """A distribution of power: `values_w` float64 ascending with the integer `cumulated` weights, blurred normally.

    `spread_w`: standard deviation of the blur. `observations`: how many independent ones it rests on.
    `level_error_w`: standard error of the newest level.
    """

    values_w: Floats
    cumulated: Counts
    spread_w: float
    observations: float
    level_error_w: float

    def quantiles_w(self, shares: Sequence[float]) -> list[float]:
        """Return for every share p the smallest power with probability p at or below it, W (at least 0).

        Raises `ValueError` unless 0 < p < 1.
        """
        if not all(0.0 < p < 1.0 for p in shares):
            raise ValueError("need 0 < p < 1")
        blur = self.spread_w * _NODES
        mass = np.concatenate([[0], self.cumulated])
        needed = np.array(shares) * float(mass[-1]) * _NODES.size
        low = np.full(needed.size, self.values_w[0] + blur[0])
        high = np.full(needed.size, self.values_w[-1] + blur[-1])
        for _ in range(BISECTIONS):
            middle = (low + high) / 2.0
            enough = mass[self.values_w.searchsorted(middle[:, None] - blur, side="right")].sum(axis=1) >= needed
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        return np.maximum(high, 0.0).tolist()  # type: ignore[no-any-return]

    def estimates_w(
        self, shares: Sequence[float], confidence: float, other_w2: float = 0.0
    ) -> list[tuple[float, float, float]]:
        """Return for every share its quantile, W, and the ends of the quantile's interval.

        Wilson's interval (1927) of the share for as many observations; beside it the error of the newest level and
        whatever else is uncertain (variance `other_w2`, W^2).
        """
        z = normal_quantile((1.0 + confidence) / 2.0)
        n, square = self.observations, z * z / self.observations
        error = z * math.sqrt(self.level_error_w * self.level_error_w + other_w2)
        wanted = list(shares)
        for p in shares:
            half = z * math.sqrt(p * (1.0 - p) / n + square / (4.0 * n))
            ends = ((p + square / 2.0 + sign * half) / (1.0 + square) for sign in (-1.0, 1.0))
            wanted.extend(min(max(end, 1e-9), 1.0 - 1e-9) for end in ends)
        found = self.quantiles_w(wanted)
        result = []
        for index, value in enumerate(found[: len(shares)]):
            low, high = found[len(shares) + 2 * index :][:2]
            below, above = (math.sqrt(far * far + error * error) for far in (value - low, high - value))
            result.append((value, max(value - below, 0.0), value + above))
        return result


@dataclass(frozen=True)
class PaneSeries:
    """The domain's power in consecutive panes, oldest first; NaN where a window is missing.

    `panes_w`, `noise_w2`: float64[panes], W and W^2, the noisy power and the variance of its known noise; the newest
    pane is there. `recent`: panes of the newest window. `fast_w`: standard deviation of the power inside its panes.
    Raises `ValueError` for another shape or a newest window that is not all there.
    """

    panes_w: Floats
    noise_w2: Floats
    recent: int
    fast_w: float
    capacity_w: float

    def __post_init__(self) -> None:
        if self.panes_w.ndim != 1 or self.noise_w2.shape != self.panes_w.shape:
            raise ValueError("one noise variance per pane")
        if not 1 <= self.recent <= self.panes_w.size or np.isnan(self.panes_w[-self.recent :]).any():
            raise ValueError("the newest window needs all its panes")

    @cached_property
    def present(self) -> npt.NDArray[np.bool_]:
        """Which panes are there, bool[panes]."""
        return np.isfinite(self.panes_w)

    @cached_property
    def _drift_w2(self) -> float:
        """Variance of the level's change from pane to pane, jumps left out."""
        steps = np.diff(self.panes_w)
        noise = float(np.max(self.noise_w2[self.present]))
        squares = np.sort(np.square(steps[np.isfinite(steps)]))
        # Median of a squared normal deviate: 0.455 of its variance. Jumps do not enter the median.
        median = float(squares[squares.size // 2]) if squares.size else 0.0
        return max(median / 0.455 - 2.0 * noise, 0.02 * noise)

    @cached_property
    def _forwards(self) -> tuple[Floats, float]:
        return _filtered(self.panes_w, self.noise_w2, self._drift_w2)

    @property
    def levels_w(self) -> Floats:
        """The power of every pane as known by its end, float64[panes], W: Kalman's filter of a drifting level.

        The noise variance is known, the drift's comes from the median step, and a jump starts anew.
        """
        return self._forwards[0]

    @cached_property
    def _levels_back_w(self) -> Floats:
        """The same with time turned round: what is known of a pane from those after it."""
        return _filtered(self.panes_w[::-1], self.noise_w2[::-1], self._drift_w2)[0][::-1]

    @cached_property
    def swings(self) -> int:
        """How often the power turned and came a good part of its range back."""
        levels = self.levels_w[self.present].tolist()
        noise_w = math.sqrt(float(self.noise_w2[-1]))
        span = SWING_RANGE * (max(levels) - min(levels))
        least = max(span, SWING_CAPACITY * self.capacity_w, SWING_SIGMA * noise_w)
        low = high = levels[0]
        way = count = 0
        for level in levels:
            low, high = min(low, level), max(high, level)
            if way >= 0 and high - level >= least:
                way, count, low = -1, count + 1, level
            elif way <= 0 and level - low >= least:
                way, count, high = 1, count + 1, level
        return count

    @cached_property
    def inner_variance_w2(self) -> float:
        """Variance inside panes without what a rise from pane to pane brings along: that is in the changes."""
        steps = np.square(np.diff(self.panes_w[-self.recent :])).tolist()
        rise = math.fsum(steps) / max(len(steps), 1) - 2.0 * float(self.noise_w2[-1])
        seen = self.fast_w * self.fast_w
        return max(seen - RAMP_VARIANCE * max(rise, 0.0), LEAST_INNER * seen)

    def after(self, horizon: float) -> Law:
        """Return the law of the power `horizon` panes (> 0) after the newest one's end.

        With fewer than twice as many panes as the horizon the changes of the longest time that half of them allow
        stand for it; what is unseen then weighs most.
        """
        if not horizon > 0.0:
            raise ValueError("a forecast looks ahead")
        count = int(np.count_nonzero(self.present))
        slow = min(1.0, SWINGS / max(self.swings, 1)) ** TRUST_POWER
        unseen = UNSEEN * horizon / (count + horizon) * slow
        first = max(1, min(math.ceil(horizon), self.panes_w.size // 2))
        # A horizon of whole panes ends on the border of two: changes to either stand for it.
        lags = (first, first + 1) if first == horizon else (first,)
        values, near, every = (np.concatenate(one) for one in zip(*self._changes(lags, slow), strict=True))
        if not values.size:  # nothing to learn from: it stays as it is, or anything happens
            values, near, every = self.levels_w[-1:], np.zeros(1), np.ones(1)
        independent = min(self._visits(first), VISITS_PER_SWING * self.swings)
        analog = independent / (independent + ANALOG_PRIOR)
        total = math.fsum(near.tolist())
        share = analog if total > 0.0 else 0.0
        mixed = every * ((1.0 - share) / math.fsum(every.tolist()))
        if share > 0.0:
            mixed = mixed + near * (share / total)
        weights = np.rint(mixed * ((1.0 - unseen) * WEIGHT)).astype(np.int64)
        return self._law(values, weights, unseen, (independent + ANALOG_PRIOR) / BOTH_WAYS)

    def _law(self, values: Floats, weights: Counts, unseen: float, observations: float) -> Law:
        noise = math.fsum(self.noise_w2[self.present].tolist()) / int(np.count_nonzero(self.present))
        extra = self.inner_variance_w2 - noise
        if extra < 0.0:
            values = _narrowed(values, weights, extra, self.inner_variance_w2 + self._forwards[1])
        prior = np.full(_UNIFORM.size, round(unseen * WEIGHT / _UNIFORM.size), dtype=np.int64)
        values = np.concatenate([values, self.capacity_w * _UNIFORM])
        order = np.argsort(values, kind="stable")
        return Law(
            values[order],
            np.cumsum(np.concatenate([weights, prior])[order]),
            math.sqrt(max(extra, 0.0)),
            observations,
            math.sqrt(self._forwards[1]),
        )

    @cached_property
    def _near_w(self) -> float:
        """Distance in level within which panes count as near the newest one."""
        levels = self.levels_w[self.present]
        distance = np.abs(levels - levels[-1])
        rank = min(max(MIN_NEIGHBOURS, int(NEIGHBOURS * levels.size)), levels.size) - 1
        return max(float(np.partition(distance, rank)[rank]), math.sqrt(float(self.noise_w2[-1])), 1e-6)

    def _visits(self, lag: int) -> int:
        """Independent stays near the newest level: a long stay counts once per horizon, both ways in time."""
        near = np.abs(self.levels_w - self.levels_w[-1]) < self._near_w
        edges = np.flatnonzero(np.diff(np.concatenate([[False], near, [False]]).astype(np.int8)))
        stays: list[int] = (edges[1::2] - edges[::2]).tolist()
        return 2 * sum(-(-length // lag) for length in stays)

    def _changes(self, lags: Sequence[int], slow: float) -> list[tuple[Floats, Floats, Floats]]:
        """Powers that earlier changes lead to from the newest level, each with its weight as analog and as change."""
        levels, back, panes = self.levels_w, self._levels_back_w, self.panes_w
        slopes = np.diff(levels)
        newest, slope = float(levels[-1]), float(slopes[-1]) if slopes.size else 0.0
        slope = 0.0 if math.isnan(slope) else slope
        result = [(np.empty(0), np.empty(0), np.empty(0))]
        for lag in lags:
            if lag + 2 > levels.size:
                break
            memory = self._memory(lag)
            memory += (1.0 - memory) * slow
            forwards = levels[1:-lag], panes[1 + lag :], slopes[:-lag]
            backwards = back[lag:-1], panes[: -lag - 1], -np.diff(back)[lag:]
            for start, end, rise in (forwards, backwards):
                known = np.isfinite(start) & np.isfinite(end)
                level = start[known]
                apart = np.square((level - newest) / self._near_w)
                apart = apart + np.square((np.nan_to_num(rise[known]) - slope) / self._near_w)
                near = np.maximum(1.0 - apart, 0.0)
                result.append((end[known] + memory * (newest - level), near, np.ones(level.size)))
        return result

    def _memory(self, lag: int) -> float:
        """Autocorrelation of the levels over `lag` panes, 0 to 1."""
        levels = self.levels_w
        known = levels[self.present]
        away = levels - math.fsum(known.tolist()) / known.size
        squares = np.square(away[self.present]).tolist()
        products = away[:-lag] * away[lag:]
        products = products[np.isfinite(products)]
        variance = math.fsum(squares) / len(squares)
        if not variance > 0.0 or not products.size:
            return 0.0
        return min(max(math.fsum(products.tolist()) / products.size / variance, 0.0), 1.0)


def _filtered(panes_w: Floats, noise_w2: Floats, drift_w2: float) -> tuple[Floats, float]:
    """Levels after every pane (NaN where there is none) and the variance of the last."""
    levels, level, variance = [], math.nan, 0.0
    for seen, known in zip(panes_w.tolist(), noise_w2.tolist(), strict=True):
        innovation, predicted = seen - level, variance + drift_w2
        total = predicted + known
        if math.isnan(innovation) or innovation * innovation > JUMP_SIGMA * JUMP_SIGMA * total:
            level, variance = seen, known
        elif total > 0.0:
            gain = predicted / total
            level, variance = level + gain * innovation, (1.0 - gain) * predicted
        levels.append(level)
    return np.array(levels), variance


def _narrowed(values: Floats, weights: Counts, extra_w2: float, least_w2: float) -> Floats:
    """Draw the values towards their median until their variance is lower by the noise that is in them."""
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(weights[order])
    middle = float(values[order][np.searchsorted(cumulated, int(cumulated[-1]) // 2)])
    away = values - middle
    seen = math.fsum((np.square(away) * weights).tolist()) / int(cumulated[-1])
    if not seen > 0.0:
        return values
    return middle + away * math.sqrt(max(seen + extra_w2, min(least_w2, seen)) / seen)
