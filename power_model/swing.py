"""A domain's power tick by tick, as far as summed noisy statistics tell: who swings in step, how far, how fast.

1. Rows (the GPUs of one class on one host) that swing in step are found in their pane series, or named by a label.
2. A group's slow part runs straight through its pane means. What single readings do beyond it is in their histogram:
   inside a group readings are taken as comonotone, so that the group's power has the quantiles of a reading times its
   GPUs. The k-th highest tick of the slow part, jittered inside panes by what they leave open, gets the k-th highest
   quantile.
   That leaves noise of the panes in the order of the ticks only, not in the size of the swing, and no shape is assumed.
3. Where the pane means of the result would follow the panes further than the panes went, readings are not in step
   that far: the swing is scaled down to what the panes show. Where they leave it open, the middle is taken.
4. Everything else adds its pane sums, shrunk by the known noise, and the movement of single GPUs, independent of each
   other. Where their readings look like those of one job (`power_model.alike`), that is in doubt.

Jitter is a fixed sequence: the same statistics give the same figures everywhere. Floats are added in a fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from power_model import exact
from power_model.alike import doubt_of_alike
from power_model.groups import MIN_HOSTS, synchronised_groups, unlike_noise
from power_model.interpolation import pane_means, row_means, to_ticks
from power_model.pooled import ClassRows, pooled_quantiles, tail_doubt, tail_noise
from power_model.remembered import clear, readings_alike, still_in_step, with_past

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

PATHS = 4
"""Paths per group; more do not change the error on real traces."""
JITTER = 0.7
"""Share of the spread that the panes do not explain which reorders ticks: the rest is taken to follow the panes."""
LEAST_IN_STEP = 0.2
"""A group's swing is never scaled down further: its pane means hang on noise, too."""
SURE = 2.0
"""Standard deviations of noise by which a group's panes may have moved further than they seem to."""
STEP_POINTS = 256
"""Points at which the spread of a histogram is taken."""
ATOMS = 33
"""Equally likely values that stand for the normal law of what moves independently."""


@dataclass(frozen=True, slots=True)
class Swing:
    """Power of the domain in one window, scaled to its enrolment.

    `paths_w` [PATHS, ticks]: equally likely courses of what is slow or in step; `independent_w`: standard deviation of
    the rest. `slow_w`: of the panes, noise subtracted; `fast_w`: of everything inside panes. `in_step_w`: of what is
    inside panes and in step. `in_doubt_w`: how far the standard deviation of what is in step may be larger or smaller
    for all that the panes say. `noise_w`: of the known noise in one pane, `alone_noise_w`: of what is in it of those
    that are in step with nobody. `groups`: capacity in GPUs of each group, largest swing first.
    """

    paths_w: Floats
    independent_w: float
    slow_w: float
    fast_w: float
    in_step_w: float
    in_doubt_w: float
    noise_w: float
    alone_noise_w: float
    groups: tuple[int, ...]

    def values_w(self) -> Floats:
        """Equally likely values of the power at a tick, W, ascending."""
        return np.sort(self._values_w())

    def quantiles_w(self, probabilities: Sequence[float]) -> list[float]:
        """Return `quantile_of` those values for every probability, W: sooner, if there are few."""
        values = self._values_w()
        places = [_place(probability, values.size) for probability in probabilities]
        values.partition(sorted(set(places)))
        return [float(values[place]) for place in places]

    def _values_w(self) -> Floats:
        return np.asarray((self.paths_w.ravel()[:, None] + self.independent_w * _atoms()).ravel())


@lru_cache(maxsize=1)
def _atoms() -> Floats:
    return np.array([NormalDist().inv_cdf((i + 0.5) / ATOMS) for i in range(ATOMS)], dtype=np.float64)


def _place(probability: float, count: int) -> int:
    return max(0, math.ceil(probability * count - 1e-9) - 1)


def quantile_of(values: Floats, probability: float) -> float:
    """Return the smallest of the ascending `values` that at least `probability` of them do not exceed."""
    return float(values[_place(probability, values.size)])


def variance(values: Floats) -> float:
    """Return the sample variance (n - 1) of float64[n]; 0 for fewer than two values."""
    if values.size < 2:
        return 0.0
    away = values - exact.total(values) / values.size
    return exact.dot(away, away) / (values.size - 1)


def swing_of(classes: Sequence[ClassRows], ticks_per_pane: int) -> Swing:
    """Estimate the course of a domain's power from its classes, which share their panes."""
    panes = classes[0].total_w.size
    groups = _groups(classes)
    paths = np.zeros((PATHS, panes * ticks_per_pane), dtype=np.float64)
    step_variance = 0.0
    in_step: list[float] = []
    in_doubt: list[float] = []
    number = 0
    rest, rest_noise = np.zeros(panes, dtype=np.float64), 0.0
    for one, mine in zip(classes, groups, strict=True):
        left, left_noise = one.total_w.copy(), one.total_noise_w2
        alone = np.ones(len(one.gpus), dtype=np.bool_)
        for rows in mine:
            series = exact.columns(one.panes_w[rows])
            noise = exact.total(one.noise_w[rows] ** 2)
            left, left_noise = left - series, left_noise - noise
            alone[rows] = False
            course, doubt = _course(one, rows, series, noise, ticks_per_pane, number)
            in_doubt.append(one.scale * doubt)
            number += 1
            paths += one.scale * course
            in_step.append(one.scale * _inside_std(course, ticks_per_pane))
        rest += one.scale * left
        rest_noise += one.scale**2 * max(0.0, left_noise)
        in_doubt.append(one.scale * doubt_of_alike(one, np.flatnonzero(alone)))
        step_variance += one.scale * _step_variance_w2(one, np.flatnonzero(alone)) * int(one.gpus[alone].sum())
    slow_rest, lost = _shrunk(rest, rest_noise)
    paths += to_ticks(slow_rest, ticks_per_pane)
    total = _weighted([one.total_w for one in classes], [one.scale for one in classes])
    noise = math.fsum(one.scale**2 * one.total_noise_w2 for one in classes)
    coherent = math.sqrt(math.fsum(value * value for value in in_step))
    return Swing(
        paths_w=paths,
        independent_w=math.sqrt(lost + step_variance),
        slow_w=math.sqrt(max(0.0, variance(total) - noise)),
        fast_w=math.sqrt(coherent**2 + step_variance),
        in_step_w=coherent,
        in_doubt_w=math.sqrt(math.fsum(value * value for value in in_doubt)),
        noise_w=math.sqrt(noise),
        alone_noise_w=math.sqrt(rest_noise),
        groups=_sizes(classes, groups),
    )


def _groups(classes: Sequence[ClassRows]) -> list[list[Counts]]:
    """Groups per class; hosts of several classes may swing in one group, which then has a part in each."""
    panes = classes[0].panes_w if len(classes) == 1 else np.concatenate([one.panes_w for one in classes])
    noise = np.concatenate([unlike_noise(one.noise_w, one.gpus, float(one.edges_w[-1])) for one in classes])
    labels = [label for one in classes for label in one.labels]
    found = _remembered(classes, panes, noise, labels, synchronised_groups(panes, noise, labels))
    result, begin = [], 0
    for one in classes:
        end = begin + len(one.gpus)
        parts = (rows[(rows >= begin) & (rows < end)] - begin for rows in found)
        result.append([rows for rows in parts if rows.size])
        begin = end
    return result


def _remembered(
    classes: Sequence[ClassRows], panes: Floats, noise: Floats, labels: Sequence[str | None], found: list[Counts]
) -> list[Counts]:
    """The groups that are `found` now with the rows that were in step with them before, and groups of such rows."""
    windows = max((one.past.shape[1] for one in classes if one.past is not None), default=0)
    if not windows:
        return found
    none = [np.full((len(one.gpus), windows), -1, dtype=np.int8) for one in classes]
    past = np.concatenate([other if one.past is None else one.past for one, other in zip(classes, none, strict=True)])
    free = np.array([label is None for label in labels], dtype=np.bool_)
    result = []
    for now, before in with_past(found, past, free):
        kept, begin = [], 0
        for one in classes:
            end = begin + len(one.gpus)
            mine, others = (rows[(rows >= begin) & (rows < end)] - begin for rows in (before, now))
            kept.append((readings_alike(one, others, mine) if clear(one, others, mine) else mine[:0]) + begin)
            begin = end
        again = still_in_step(panes, noise, now, np.concatenate(kept))
        if now.size or again.size >= MIN_HOSTS:
            result.append(np.sort(np.concatenate([now, again])))
    return result


def _sizes(classes: Sequence[ClassRows], groups: Sequence[Sequence[Counts]]) -> tuple[int, ...]:
    sizes = [int(one.gpus[rows].sum()) for one, mine in zip(classes, groups, strict=True) for rows in mine]
    return tuple(sorted(sizes, reverse=True))


def _weighted(series: Sequence[Floats], scales: Sequence[float]) -> Floats:
    result = np.zeros(series[0].size, dtype=np.float64)
    for one, scale in zip(series, scales, strict=True):
        result += scale * one
    return result


def _row_variances(rows: Floats) -> Floats:
    """Sample variance (n - 1) of every row [rows]; 0 for a single column."""
    away = rows - row_means(rows)[:, np.newaxis]
    return np.asarray(row_means(away * away) * (rows.shape[1] / max(1, rows.shape[1] - 1)))


def _mean(values: Floats) -> float:
    return exact.total(values) / values.size


def _shrunk(series: Floats, noise_w2: float) -> tuple[Floats, float]:
    """Wiener's estimate of a noisy series about its mean, and the variance that it leaves out."""
    seen = variance(series)
    true = max(0.0, seen - noise_w2)
    share = true / seen if seen > 0.0 else 0.0
    mean = _mean(series)
    return mean + (series - mean) * share, true * (1.0 - share)


def _course(
    one: ClassRows, rows: Counts, series: Floats, noise_w2: float, ticks_per_pane: int, number: int
) -> tuple[Floats, float]:
    """Paths [PATHS, ticks] of a group's power, W, and how much of their standard deviation is in doubt, W."""
    ticks = series.size * ticks_per_pane
    tail = tail_noise(one, rows)
    slow_w2 = max(0.0, variance(series) - noise_w2)
    level = _mean(series)
    quantiles = pooled_quantiles(one, rows, ticks)
    jitter = jitter_of(number, ticks, ticks_per_pane)
    if quantiles is None:
        shrunk, lost = _shrunk(series, noise_w2)
        gpus = int(one.gpus[rows].sum())
        inside = math.sqrt(one.step_w2) * gpus
        course = to_ticks(shrunk, ticks_per_pane) + jitter * math.sqrt(inside**2 + lost)
        return np.clip(course, one.edges_w[0] * gpus, one.edges_w[-1] * gpus), inside / 2
    quantiles = quantiles - _mean(quantiles)
    unexplained = math.sqrt(max(0.0, _mean(quantiles * quantiles) - slow_w2))
    order = np.argsort(to_ticks(series, ticks_per_pane) + jitter * (JITTER * unexplained), axis=1, kind="stable")
    course = np.empty((PATHS, ticks), dtype=np.float64)
    for path in range(PATHS):
        course[path, order[path]] = quantiles
    hidden_w2 = SURE * noise_w2 * math.sqrt(2.0 / max(1, series.size - 1))
    least, most = _shares(pane_means(course, ticks_per_pane), series - level, slow_w2, slow_w2 + hidden_w2)
    if rows.size > 1:
        course = _spread(course)
    doubt = math.sqrt(_mean(quantiles * quantiles)) * (most - least) / 2
    return level + course * ((least + most) / 2), math.hypot(doubt, most * tail_doubt(quantiles, tail))


def _spread(course: Floats) -> Floats:
    """Mean over shifts of up to half a tick either way: sensors of several hosts update at moments of their own."""
    before, after = np.roll(course, 1, axis=1), np.roll(course, -1, axis=1)
    before[:, 0], after[:, -1] = course[:, 0], course[:, -1]
    return np.asarray(0.75 * course + 0.125 * before + 0.125 * after)


def _shares(moved: Floats, series: Floats, slow_w2: float, most_w2: float) -> tuple[float, float]:
    """How far, at least and at most, the panes bear out a course whose pane means are `moved` [paths, panes].

    At most: as far as it follows the panes' `series` [panes] no further than that may have gone, its variance being
    `most_w2`. At least: as far as its pane means do not even scatter more than `slow_w2`. What is in step inside panes
    may cancel there, by a schedule that fits them, and so may GPUs that take turns: the panes cannot tell these apart.
    """
    seen = exact.dot(series, series)
    follows = exact.total(moved * series) / len(moved)
    most = math.sqrt(most_w2 * (series.size - 1) * seen) / follows if follows > 0.0 and slow_w2 > 0.0 else 1.0
    scatter = exact.dot(moved, moved) / (len(moved) * max(1, series.size - 1))
    least = math.sqrt(slow_w2 / scatter) if scatter > 0.0 else 1.0
    most = min(1.0, max(LEAST_IN_STEP, most))
    return min(most, max(LEAST_IN_STEP, least)), most


def _step_variance_w2(one: ClassRows, rows: Counts) -> float:
    """Variance of one GPU's movement inside panes, W^2, for rows that are in step with nobody.

    The chain sees a whole state's width where readings chatter around an edge. More than what the histogram has beyond
    the panes' own movement it cannot be.
    """
    quantiles = pooled_quantiles(one, rows, STEP_POINTS) if rows.size else None
    if quantiles is None:
        return one.step_w2
    gpus = one.gpus[rows].tolist()
    quantiles = (quantiles - _mean(quantiles)) / sum(gpus)
    slow = (_row_variances(one.panes_w[rows]) - one.noise_w[rows] ** 2) / one.gpus[rows]
    inside_w2: float = _mean(quantiles * quantiles) - exact.total(slow) / sum(gpus)
    return min(one.step_w2, max(0.0, inside_w2))


def _inside_std(course: Floats, ticks_per_pane: int) -> float:
    """Standard deviation of the ticks around their pane means, unit kept."""
    means = np.repeat(pane_means(course, ticks_per_pane), ticks_per_pane, axis=1)
    return math.sqrt(_mean((course - means) ** 2))


@lru_cache(maxsize=64)
def jitter_of(number: int, ticks: int, ticks_per_pane: int) -> Floats:
    """Return normal values [PATHS, ticks] of variance 1, the same for the same group, independent between groups.

    They sum to 0 in every pane, as what panes do not see does. The integers behind them are those of the SplitMix64
    generator (Steele, Lea and Flood 2014), started at `number`.
    """
    index = np.arange(1, PATHS * ticks + 1, dtype=np.uint64)
    z = np.uint64((number + 1) * 0xD1342543DE82EF95 % 2**64) + index * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    law = NormalDist()
    values = [law.inv_cdf((word + 0.5) / 2**32) for word in (z >> np.uint64(32)).tolist()]
    result = np.array(values, dtype=np.float64).reshape(PATHS, ticks)
    if ticks_per_pane > 1:
        result -= np.repeat(pane_means(result, ticks_per_pane), ticks_per_pane, axis=1)
        result *= math.sqrt(ticks_per_pane / (ticks_per_pane - 1))
    result.setflags(write=False)
    return result
