"""The distribution of single readings from a noisy histogram: where it has mass, and its quantile function.

Noise of the same size lies in every cell, in those that were never visited too. Projecting all cells onto what sums to
the number of readings leaves mass far out in the tails, which are what a quantile near 1 asks for. So the support is
found first, with tests on runs of cells, and only cells inside it take part in the projection.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from power_model.transitions import project_counts

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

RUNS = (1, 2, 4, 8)
"""Lengths of runs of cells whose sum is tested against the noise."""
SIGNIFICANT = 4.0
"""A run has mass if its sum exceeds so many standard deviations of its noise."""
FINE = 16
"""Points per cell at which the cubic distribution function is inverted."""


def support(noisy: Counts, noise_std: float) -> slice:
    """Return the cells from the first to the last run with significant mass; all of them if there is none.

    `noisy` int64[n]; `noise_std`: standard deviation of the noise in one cell, 0 for exact counts.
    """
    seen = np.zeros(noisy.size, dtype=np.bool_)
    sums = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(noisy)])
    for length in RUNS:
        if length > noisy.size:
            break
        runs = sums[length:] - sums[:-length]
        taken = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(seen)])
        # Cells beside the mass must have some of their own: a run across its end would always have.
        free = taken[length:] == taken[:-length]
        found = free & (runs > SIGNIFICANT * noise_std * math.sqrt(length))
        for offset in range(length):
            seen[offset : offset + found.size] |= found
    cells = np.flatnonzero(seen & (noisy > 0))
    return slice(int(cells[0]), int(cells[-1]) + 1) if cells.size else slice(0, noisy.size)


def project_histogram(noisy: Counts, noise_std: float, total: int) -> Floats:
    """Return the nearest histogram (Euclidean) that is non-negative, sums to `total` and is 0 outside the support.

    float64[n]. Raises `ValueError` as `project_counts` does.
    """
    cells = support(noisy, noise_std)
    result = np.zeros(noisy.size, dtype=np.float64)
    result[cells] = project_counts(noisy[cells], total)
    return result


def quantile_function(counts: Floats, edges_w: Floats, points: int) -> Floats:
    """Return the quantiles at (i + 1/2) / points, W, float64[points], of a histogram with some mass.

    `counts` float64[n] >= 0 over cells between `edges_w` [n+1]. Inside a cell the distribution function is the
    monotone cubic of Fritsch and Carlson (1980): uniform cells put too much near the ends of a narrow peak.
    """
    filled = np.flatnonzero(counts > 0.0)
    first, last = int(filled[0]), int(filled[-1]) + 1
    mass, edges = counts[first:last], edges_w[first : last + 1]
    heights = [0.0]
    for one in mass.tolist():
        heights.append(heights[-1] + one)
    cdf = np.array(heights, dtype=np.float64) / heights[-1]
    x, y = _refined(edges, cdf)
    at = (np.arange(points, dtype=np.float64) + 0.5) / points
    right = np.clip(np.searchsorted(y, at, side="right"), 1, y.size - 1)
    low, high = y[right - 1], y[right]
    rise = np.where(high > low, high - low, 1.0)
    return np.asarray(x[right - 1] + (x[right] - x[right - 1]) * np.clip((at - low) / rise, 0.0, 1.0))


def _refined(edges: Floats, cdf: Floats) -> tuple[Floats, Floats]:
    """The monotone cubic through (edges, cdf) at `FINE` points per cell."""
    width = edges[1:] - edges[:-1]
    slope = (cdf[1:] - cdf[:-1]) / width
    tangent = np.empty(cdf.size, dtype=np.float64)
    tangent[0], tangent[-1] = slope[0], slope[-1]
    # Harmonic mean of the neighbours weighted by widths (Fritsch and Butland 1984): monotone by construction.
    left, right = slope[:-1], slope[1:]
    first, second = 2.0 * width[1:] + width[:-1], width[1:] + 2.0 * width[:-1]
    both = (left > 0.0) & (right > 0.0)
    safe_left, safe_right = np.where(both, left, 1.0), np.where(both, right, 1.0)
    tangent[1:-1] = np.where(both, (first + second) / (first / safe_left + second / safe_right), 0.0)
    t = np.arange(FINE, dtype=np.float64) / FINE
    t2, t3 = t * t, t * t * t
    h00, h10, h01, h11 = 2 * t3 - 3 * t2 + 1, t3 - 2 * t2 + t, 3 * t2 - 2 * t3, t3 - t2
    lower, upper = cdf[:-1, None], cdf[1:, None]
    step = width[:, None]
    y = h00 * lower + h10 * step * tangent[:-1, None] + h01 * upper + h11 * step * tangent[1:, None]
    x = edges[:-1, None] + step * t
    return np.append(x.ravel(), edges[-1]), np.maximum.accumulate(np.append(y.ravel(), 1.0))
