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
   other.

Jitter is a fixed sequence: the same statistics give the same figures everywhere. Floats are added in a fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from power_model import exact
from power_model.groups import synchronised_groups
from power_model.interpolation import pane_means, row_means, to_ticks
from power_model.marginal import project_histogram, quantile_function

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

PATHS = 4
"""Paths per group; more do not change the error on real traces."""
JITTER = 0.7
"""Share of the spread that the panes do not explain which reorders ticks: the rest is taken to follow the panes."""
LEAST_IN_STEP = 0.2
"""A group's swing is never scaled down further: its pane means hang on noise, too."""
TAIL_NOISE = 4.0
"""Largest standard deviation of the noise in a group's upper percent of readings, as a multiple of that percent."""
TAIL_RUN = 8
"""Cells that a tail is taken to stretch over, when its noise is judged."""
TAIL = 0.99
"""Probability of the quantile whose uncertainty stands for all upper ones'."""
UNLIKE = 0.007
"""Standard deviation by which hosts of one job differ in a pane, as a share of their clip bound: where no noise hides
it, it must not split a group."""
HELD_ROWS = 2_000
"""Rows with less than this part of a group's readings cannot reach the quantiles that are published."""
SAME_READINGS = 1.05
"""Rows are held back together if none took so many times the readings of another."""
STEP_POINTS = 256
"""Points at which the spread of a histogram is taken."""
ATOMS = 33
"""Equally likely values that stand for the normal law of what moves independently."""


@dataclass(frozen=True, slots=True)
class ClassRows:
    """Statistics of one GPU class, one row per host that counts in full.

    `panes_w` [rows, panes]: mean power of a row's GPUs; `noise_w` [rows] > 0: standard deviation of the known noise in
    one of them; `gpus`, `readings` [rows]. `histograms` integers [rows, cells] over `edges_w` [cells+1] with noise of
    standard deviation `histogram_noise` [rows] per cell, of the rows that are `counted` [rows]; None where nobody
    releases any. `step_w2`: half the mean
    squared step of one GPU from tick to tick. `total_w` [panes]: power of the whole class, with what does not count in
    full; `total_noise_w2`: variance of its noise. `scale`: from the rows to the enrolled capacity. `labels`: names of
    jobs, None for most. Rows come sorted by host.
    """

    panes_w: Floats
    noise_w: Floats
    gpus: Counts
    readings: Counts
    histograms: npt.NDArray[np.signedinteger[Any]] | None
    counted: npt.NDArray[np.bool_]
    histogram_noise: Floats
    edges_w: Floats
    step_w2: float
    total_w: Floats
    total_noise_w2: float
    scale: float
    labels: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Swing:
    """Power of the domain in one window, scaled to its enrolment.

    `paths_w` [PATHS, ticks]: equally likely courses of what is slow or in step; `independent_w`: standard deviation of
    the rest. `slow_w`: of the panes, noise subtracted; `fast_w`: of everything inside panes. `in_step_w`: of what is
    inside panes and in step. `in_doubt_w`: how far the standard deviation of what is in step may be larger or smaller
    for all that the panes say. `noise_w`: of the known noise in one pane. `groups`: capacity in GPUs of each group,
    largest swing first.
    """

    paths_w: Floats
    independent_w: float
    slow_w: float
    fast_w: float
    in_step_w: float
    in_doubt_w: float
    noise_w: float
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
        groups=_sizes(classes, groups),
    )


def _groups(classes: Sequence[ClassRows]) -> list[list[Counts]]:
    """Groups per class; hosts of several classes may swing in one group, which then has a part in each."""
    panes = np.concatenate([one.panes_w for one in classes])
    alike = [UNLIKE * one.edges_w[-1] * one.gpus for one in classes]
    noise = np.concatenate([np.sqrt(one.noise_w**2 + own**2) for one, own in zip(classes, alike, strict=True)])
    labels = [label for one in classes for label in one.labels]
    found = synchronised_groups(panes, noise, labels)
    result, begin = [], 0
    for one in classes:
        end = begin + len(one.gpus)
        parts = (rows[(rows >= begin) & (rows < end)] - begin for rows in found)
        result.append([rows for rows in parts if rows.size])
        begin = end
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
    tail = _tail_noise(one, rows)
    slow_w2 = max(0.0, variance(series) - noise_w2)
    level = _mean(series)
    quantiles = _quantiles(one, rows, ticks)
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
    least, most = _shares(pane_means(course, ticks_per_pane), series - level, slow_w2)
    if rows.size > 1:
        course = _spread(course)
    doubt = math.sqrt(_mean(quantiles * quantiles)) * (most - least) / 2
    return level + course * ((least + most) / 2), math.hypot(doubt, most * _tail_doubt(quantiles, tail))


def _tail_doubt(quantiles: Floats, noise: float) -> float:
    """What noise in the upper tail makes uncertain, as a standard deviation of the whole, unit kept.

    `noise`: standard deviation of the share of readings above a place. A quantile may as well be one that lies so much
    higher or lower.
    """
    last = quantiles.size - 1
    upper = float(quantiles[min(last, math.ceil((TAIL + noise) * last))])
    lower = float(quantiles[max(0, math.floor((TAIL - noise) * last))])
    return (upper - lower) / 2 * NormalDist().inv_cdf(0.975) / NormalDist().inv_cdf(TAIL)


def _spread(course: Floats) -> Floats:
    """Mean over shifts of up to half a tick either way: sensors of several hosts update at moments of their own."""
    before, after = np.roll(course, 1, axis=1), np.roll(course, -1, axis=1)
    before[:, 0], after[:, -1] = course[:, 0], course[:, -1]
    return np.asarray(0.75 * course + 0.125 * before + 0.125 * after)


def _shares(moved: Floats, series: Floats, slow_w2: float) -> tuple[float, float]:
    """How far, at least and at most, the panes bear out a course whose pane means are `moved` [paths, panes].

    At most: as far as it follows the panes' `series` [panes] no further than that went, its noise taken off. At
    least: as far as its pane means do not even scatter more. What is in step inside panes may cancel there, by a
    schedule that fits them, and so may GPUs that take turns: the panes cannot tell these apart.
    """
    seen = exact.dot(series, series)
    follows = exact.total(moved * series) / len(moved)
    most = math.sqrt(slow_w2 * (series.size - 1) * seen) / follows if follows > 0.0 and slow_w2 > 0.0 else 1.0
    scatter = exact.dot(moved, moved) / (len(moved) * max(1, series.size - 1))
    least = math.sqrt(slow_w2 / scatter) if scatter > 0.0 else 1.0
    most = min(1.0, max(LEAST_IN_STEP, most))
    return min(most, max(LEAST_IN_STEP, least)), most


def _step_variance_w2(one: ClassRows, rows: Counts) -> float:
    """Variance of one GPU's movement inside panes, W^2, for rows that are in step with nobody.

    The chain sees a whole state's width where readings chatter around an edge. More than what the histogram has beyond
    the panes' own movement it cannot be.
    """
    quantiles = _quantiles(one, rows, STEP_POINTS) if rows.size else None
    if quantiles is None:
        return one.step_w2
    gpus = one.gpus[rows].tolist()
    quantiles = (quantiles - _mean(quantiles)) / sum(gpus)
    slow = (_row_variances(one.panes_w[rows]) - one.noise_w[rows] ** 2) / one.gpus[rows]
    inside_w2: float = _mean(quantiles * quantiles) - exact.total(slow) / sum(gpus)
    return min(one.step_w2, max(0.0, inside_w2))


def _quantiles(one: ClassRows, rows: Counts, points: int) -> Floats | None:
    """Quantiles of the rows' power were all their readings comonotone, W [points]; None if noise drowns the tail, or
    if the histograms count less than half of the GPUs: the others are taken to swing like these.
    """
    gpus, rows = int(one.gpus[rows].sum()), rows[one.counted[rows]]
    if one.histograms is None or 2 * int(one.gpus[rows].sum()) < gpus:
        return None
    if _tail_noise(one, rows) > TAIL_NOISE * (1.0 - TAIL):
        return None
    readings = int(one.readings[rows].sum())
    noise = math.sqrt(exact.total(one.histogram_noise[rows] ** 2))
    width = float(one.edges_w[1] - one.edges_w[0])
    moves = _moves(one, rows, width)
    summed, first = _aligned(one.histograms, rows, moves)
    edges = float(one.edges_w[0]) + width * np.arange(first, first + summed.size + 1, dtype=np.float64)
    quantiles = quantile_function(project_histogram(summed, noise, readings), edges, points)
    return (quantiles + _held_back(one, one.histograms, rows, moves, edges, points)) * gpus


def _tail_noise(one: ClassRows, rows: Counts) -> float:
    """Standard deviation of the noise in the share of the rows' readings that a tail holds; 1 without readings."""
    rows = rows[one.counted[rows]]
    readings = int(one.readings[rows].sum())
    noise = math.sqrt(TAIL_RUN * exact.total(one.histogram_noise[rows] ** 2))
    return min(1.0, noise / readings) if readings > 0 else 1.0


def _held_back(
    one: ClassRows,
    histograms: npt.NDArray[np.signedinteger[Any]],
    rows: Counts,
    moves: Counts,
    edges_w: Floats,
    points: int,
) -> Floats:
    """What to add to the quantiles of the pooled readings so that no row moves them far, W per GPU [points].

    A row's readings are a share s of the pool, but those near an end are all of its highest percent. Were the row's
    power added to the others' in step, it could not move a quantile by more than s times the clip range; so that is
    what it may at most: half of it either way from where the quantile is without the row.
    """
    result = np.zeros(points, dtype=np.float64)
    readings = one.readings[rows]
    total = int(readings.sum())
    tried = np.flatnonzero(readings * HELD_ROWS >= total)
    if rows.size < 2 or not tried.size:
        return result
    at = (np.arange(points, dtype=np.float64) + 0.5) / points
    pool, first = _aligned(histograms, rows, moves)
    heights = np.cumsum(pool)
    usual = _rough_quantiles(heights, total, edges_w, at)
    half_w = float(one.edges_w[-1] - one.edges_w[0]) / 2
    lower, upper = np.full(points, -np.inf), np.full(points, np.inf)
    for alike in _alike(readings, tried):
        least, most = _envelope(histograms, rows[alike], moves[alike] - first, pool.size)
        counts = readings[alike]
        few, many = int(counts.min()), int(counts.max())
        # The lowest of the quantile functions without one row each is that of the highest distribution function.
        lowest = _rough_quantiles(heights - least, total - many, edges_w, at) - usual
        highest = _rough_quantiles(heights - most, total - few, edges_w, at) - usual
        room_w = half_w * few / total
        np.minimum(upper, lowest + room_w, out=upper)
        np.maximum(lower, highest - room_w, out=lower)
    return np.asarray(np.minimum(0.0, upper) + np.maximum(0.0, lower))


def _alike(readings: Counts, tried: Counts) -> list[Counts]:
    """The rows `tried` in parts that took nearly the same number of readings."""
    order = tried[np.argsort(readings[tried], kind="stable")]
    parts, begin = [], 0
    for end in [*(np.flatnonzero(np.diff(readings[order])) + 1).tolist(), order.size]:
        if end == order.size or readings[order[end]] > SAME_READINGS * readings[order[begin]]:
            parts.append(order[begin:end])
            begin = end
    return parts


def _envelope(
    histograms: npt.NDArray[np.signedinteger[Any]], rows: Counts, places: Counts, size: int
) -> tuple[Counts, Counts]:
    """The least and the most that any row has counted up to the end of each of `size` cells; it begins at `places`."""
    least, most = np.full(size, np.iinfo(np.int64).max), np.full(size, np.iinfo(np.int64).min)
    cells = histograms.shape[1]
    for place in np.unique(places).tolist():
        heights = np.cumsum(histograms[rows[places == place]], axis=1, dtype=np.int64)
        low, high = heights.min(axis=0), heights.max(axis=0)
        for bound, pick, found in ((least, np.minimum, low), (most, np.maximum, high)):
            padded = np.concatenate([np.zeros(place, np.int64), found, np.full(size - cells - place, found[-1])])
            pick(bound, padded, out=bound)
    return least, most


def _rough_quantiles(heights: Counts, readings: int, edges_w: Floats, at: Floats) -> Floats:
    """Quantiles at `at`, W, of noisy counts summed up to the end of each cell: readings lie evenly in their cells."""
    share = np.maximum.accumulate(heights) / max(1, readings)
    return np.asarray(np.interp(at, np.concatenate([np.zeros(1), np.clip(share, 0.0, 1.0)]), edges_w))


def _moves(one: ClassRows, rows: Counts, width_w: float) -> Counts:
    """By how many whole bins the rows' histograms are moved to the group's mean, int64[rows].

    Hosts of one job differ in their level, and a host that is in step by chance in everything: that is no swing.
    """
    means = row_means(one.panes_w[rows]) / one.gpus[rows]
    weights = one.readings[rows]
    level = exact.dot(means, weights.astype(np.float64)) / int(weights.sum())
    return np.asarray(np.rint((level - means) / width_w).astype(np.int64))


def _aligned(histograms: npt.NDArray[np.signedinteger[Any]], rows: Counts, moves: Counts) -> tuple[Counts, int]:
    """Sum of the rows' histograms, each moved by its `moves` bins, and the number of its first bin."""
    cells = histograms.shape[1]
    first = int(moves.min())
    result = np.zeros(cells + int(moves.max()) - first, dtype=np.int64)
    for move in np.unique(moves).tolist():
        result[move - first : move - first + cells] += histograms[rows[moves == move]].sum(axis=0, dtype=np.int64)
    return result, first


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
