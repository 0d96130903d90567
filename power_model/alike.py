"""Hosts whose readings look alike although their panes do not show them in step: they may be of one job all the same.

A job that swings about as fast as panes follow one another, or faster, leaves next to nothing in them. But its hosts
draw power alike: their readings have one distribution, which hosts that have nothing to do with each other seldom have.
That is no proof, so it moves no figure; it widens the interval by what the hosts would swing in step.
"""

from __future__ import annotations

import math

import numpy as np

from power_model import exact
from power_model.interpolation import row_means
from power_model.pooled import ClassRows, Counts, Floats

MIN_HOSTS = 4
"""Fewer hosts whose readings look alike are not taken for a job."""
MAX_JOBS = 8
"""Jobs that are looked for."""
ALIKE = 0.02
"""Distributions are alike if they lie (Wasserstein-1) no further apart than this share of the spread inside panes, and
what noise makes of it."""
NOISE = 0.5
"""What noise makes of that distance, in cells times the standard deviation of the noise of all of them together: 0.53
is its mean, as of a random walk's distance from its start."""
NARROW = 0.03
"""Readings that spread less inside panes, as a share of the clip bound, are no job."""
SIGNIFICANT = 3.0
"""A spread counts if it exceeds so many standard deviations of its noise."""


def doubt_of_alike(one: ClassRows, rows: Counts) -> float:
    """Return how far the `rows` [n] that are in step with nobody may yet swing in step, W: a standard deviation."""
    rows = rows[one.counted[rows] & (one.readings[rows] > 0)]
    if one.histograms is None or rows.size < MIN_HOSTS:
        return 0.0
    readings = one.readings[rows].astype(np.float64)
    shares, noise = one.histograms[rows] / readings[:, np.newaxis], one.histogram_noise[rows] / readings
    inside_w2 = _inside_w2(one, rows, shares, noise)
    free = inside_w2 > (NARROW * float(one.edges_w[-1])) ** 2
    if np.count_nonzero(free) < MIN_HOSTS:
        return 0.0
    width_w, cells = float(one.edges_w[1] - one.edges_w[0]), shares.shape[1]
    below = _running(shares)
    noise_w = width_w * cells * math.sqrt(cells) * noise
    doubt_w2 = 0.0
    for _ in range(MAX_JOBS):
        candidates = np.flatnonzero(free)
        if candidates.size < MIN_HOSTS:
            break
        seed = int(candidates[np.argmax(inside_w2[candidates])])
        centre, of_centre_w = below[seed], float(noise_w[seed])
        for _ in range(2):  # the seed's noise is large beside that of what is found around it
            apart_w = width_w * _running(np.abs(below[candidates] - centre))[:, -1]
            room_w = ALIKE * math.sqrt(float(inside_w2[seed])) + NOISE * np.sqrt(
                noise_w[candidates] ** 2 + of_centre_w**2
            )
            found = candidates[apart_w <= room_w]
            if not found.size:
                break
            centre = exact.columns(below[found]) / found.size
            of_centre_w = math.sqrt(exact.total(noise_w[found] ** 2)) / found.size
        free[seed] = False
        free[found] = False
        if found.size >= MIN_HOSTS:
            gpus = one.gpus[rows[found]].astype(np.float64)
            in_step_w = exact.dot(np.sqrt(inside_w2[found]), gpus)
            doubt_w2 += in_step_w * in_step_w - exact.dot(inside_w2[found], gpus)
    return math.sqrt(doubt_w2)


def _inside_w2(one: ClassRows, rows: Counts, shares: Floats, noise: Floats) -> Floats:
    """Variance of single readings about the mean of their pane, W^2 [rows]; 0 where noise may be all of it."""
    gpus = one.gpus[rows][:, np.newaxis]
    panes = one.panes_w[rows] / gpus
    means = row_means(panes)[:, np.newaxis]
    away = ((one.edges_w[:-1] + one.edges_w[1:]) / 2)[np.newaxis, :] - means
    squares = away * away
    seen = _running(shares * squares)[:, -1]
    drawn = noise * np.sqrt(_running(squares * squares)[:, -1])
    panes = panes - means
    slow = np.maximum(0.0, row_means(panes * panes) - (one.noise_w[rows] / one.gpus[rows]) ** 2)
    return np.asarray(np.where(seen - slow > SIGNIFICANT * drawn, seen - slow, 0.0))


def _running(values: Floats) -> Floats:
    """Running sums along rows, cell after cell: numpy's own order depends on the machine."""
    result = values.copy()
    for column in range(1, values.shape[1]):
        result[:, column] += result[:, column - 1]
    return result
