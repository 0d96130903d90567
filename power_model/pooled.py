"""The readings of GPUs that swing in step, pooled: their power's quantiles from noisy histograms of many hosts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from power_model import exact
from power_model.interpolation import row_means
from power_model.marginal import project_histogram, quantile_function

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

TAIL_NOISE = 4.0
"""Largest standard deviation of the noise in a group's upper percent of readings, as a multiple of that percent."""
TAIL_RUN = 8
"""Cells that a tail is taken to stretch over, when its noise is judged."""
TAIL = 0.99
"""Probability of the quantile whose uncertainty stands for all upper ones'."""
HELD_ROWS = 2_000
"""Rows with less than this part of a group's readings cannot reach the quantiles that are published."""
SAME_READINGS = 1.1
"""Rows are held back together if none took so many times the readings of another."""


@dataclass(frozen=True, slots=True)
class ClassRows:
    """Statistics of one GPU class, one row per host that counts in full.

    `panes_w` [rows, panes]: mean power of a row's GPUs; `noise_w` [rows] > 0: standard deviation of the known noise in
    one of them; `gpus`, `readings` [rows]. `histograms` integers [rows, cells] over `edges_w` [cells+1] with noise of
    standard deviation `histogram_noise` [rows] per cell, of the rows that are `counted` [rows]; None where nobody
    releases any. `step_w2`: half the mean
    squared step of one GPU from tick to tick. `total_w` [panes]: power of the whole class, with what does not count in
    full; `total_noise_w2`: variance of its noise. `scale`: from the rows to the enrolled capacity. `labels`: names of
    jobs, None for most. `past` [rows, windows]: number of the group that each row was found in, in the windows before,
    the newest first, below 0 for none; numbers of a window are the same in all classes. Rows come sorted by host.
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
    past: npt.NDArray[np.int8] | None = None


def pooled_quantiles(one: ClassRows, rows: Counts, points: int) -> Floats | None:
    """Quantiles of the rows' power were all their readings comonotone, W [points]; None if noise drowns the tail, or
    if the histograms count less than half of the GPUs: the others are taken to swing like these.
    """
    gpus, rows = int(one.gpus[rows].sum()), rows[one.counted[rows]]
    if one.histograms is None or 2 * int(one.gpus[rows].sum()) < gpus:
        return None
    if tail_noise(one, rows) > TAIL_NOISE * (1.0 - TAIL):
        return None
    readings = int(one.readings[rows].sum())
    noise = math.sqrt(exact.total(one.histogram_noise[rows] ** 2))
    width = float(one.edges_w[1] - one.edges_w[0])
    moves = _moves(one, rows, width)
    summed, first = _aligned(one.histograms, rows, moves)
    edges = float(one.edges_w[0]) + width * np.arange(first, first + summed.size + 1, dtype=np.float64)
    quantiles = quantile_function(project_histogram(summed, noise, readings), edges, points)
    return (quantiles + _held_back(one, one.histograms, rows, moves, (summed, first), edges, points)) * gpus


def tail_noise(one: ClassRows, rows: Counts) -> float:
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
    pooled: tuple[Counts, int],
    edges_w: Floats,
    points: int,
) -> Floats:
    """What to add to the quantiles of the pooled readings so that no row moves them far, W per GPU [points].

    A row's readings are a share s of the pool, but those near an end are all of its highest percent. Were the row's
    power added to the others' in step, it could not move a quantile by more than s times the clip range; so that is
    what it may at most: half of it either way from where the quantile is without the row. `pooled`: as `_aligned` has
    it.
    """
    result = np.zeros(points, dtype=np.float64)
    readings = one.readings[rows]
    total = int(readings.sum())
    tried = np.flatnonzero(readings * HELD_ROWS >= total)
    if rows.size < 2 or not tried.size:
        return result
    at = (np.arange(points, dtype=np.float64) + 0.5) / points
    pool, first = pooled
    heights = np.cumsum(pool)
    usual = _rough_quantiles(heights / total, edges_w, at)
    half_w = float(one.edges_w[-1] - one.edges_w[0]) / 2
    lower, upper = np.full(points, -np.inf), np.full(points, np.inf)
    for alike in _alike(readings, tried):
        counts = readings[alike]
        lowest, highest = _shares_without(heights, total, histograms[rows[alike]], counts, moves[alike] - first)
        room_w = half_w * int(counts.min()) / total
        # The lowest of their quantile functions is that of the highest distribution function.
        np.minimum(upper, _rough_quantiles(highest, edges_w, at) - usual + room_w, out=upper)
        np.maximum(lower, _rough_quantiles(lowest, edges_w, at) - usual - room_w, out=lower)
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


def _shares_without(
    heights: Counts, total: int, histograms: npt.NDArray[np.signedinteger[Any]], readings: Counts, places: Counts
) -> tuple[Floats, Floats]:
    """The least and the largest share of readings up to the end of each cell that the pool has without any one row.

    `heights` [cells of the pool]: what it has of its `total` up to there; rows begin at its cells `places`.
    """
    cells = histograms.shape[1]
    lowest, highest = np.full(heights.size, np.inf), np.full(heights.size, -np.inf)
    for place in np.unique(places).tolist():
        here = places == place
        own = np.cumsum(histograms[here], axis=1, dtype=np.int64)
        others = np.maximum(1, total - readings[here])
        if others.size > 1 and bool((others == others[0]).all()):  # as nearly always: two rows say it of all
            own, others = np.stack([own.min(axis=0), own.max(axis=0)]), others[:2]
        left = np.repeat(heights[np.newaxis], others.size, axis=0)
        left[:, place : place + cells] -= own
        left[:, place + cells :] -= own[:, -1:]
        shares = left / others[:, np.newaxis]
        np.minimum(lowest, shares.min(axis=0), out=lowest)
        np.maximum(highest, shares.max(axis=0), out=highest)
    return lowest, highest


def _rough_quantiles(shares: Floats, edges_w: Floats, at: Floats) -> Floats:
    """Quantiles at `at`, W, of noisy shares up to the end of each cell: readings lie evenly in their cells."""
    rising = np.clip(np.maximum.accumulate(shares), 0.0, 1.0)
    return np.asarray(np.interp(at, np.concatenate([np.zeros(1), rising]), edges_w))


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


def tail_doubt(quantiles: Floats, noise: float) -> float:
    """What noise in the upper tail makes uncertain, as a standard deviation of the whole, unit kept.

    `noise`: standard deviation of the share of readings above a place. A quantile may as well be one that lies so much
    higher or lower.
    """
    last = quantiles.size - 1
    upper = float(quantiles[min(last, math.ceil((TAIL + noise) * last))])
    lower = float(quantiles[max(0, math.floor((TAIL - noise) * last))])
    return (upper - lower) / 2 * NormalDist().inv_cdf(0.975) / NormalDist().inv_cdf(TAIL)
