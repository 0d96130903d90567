"""Transition counts of one window, and the chain that a fleet's summed noisy counts stand for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

PPM = 1_000_000


def count_transitions(states: npt.NDArray[np.integer[Any]], cells: int) -> Counts:
    """Count transitions between consecutive ticks, per GPU, within one window.

    `states` is int[gpus, ticks] with values in [0, cells); the result is int64[cells, cells] (from, to) and sums to
    exactly gpus * (ticks - 1): a missing tick goes to and from the reserved cell, never held or interpolated,
    because a reading that is held would count twice. Raises `ValueError` for another shape or a value outside.
    """
    if states.ndim != 2:
        raise ValueError("states must be [gpus, ticks]")
    if states.size and not (int(states.min()) >= 0 and int(states.max()) < cells):
        raise ValueError("state outside the grid")
    wide = states.astype(np.int64)
    pairs = (wide[:, :-1] * cells + wide[:, 1:]).ravel()
    return np.bincount(pairs, minlength=cells * cells).reshape(cells, cells).astype(np.int64)


def project_counts(noisy: Counts, total: int) -> Floats:
    """Return the nearest (Euclidean) point of {x >= 0, sum x = total} to the summed noisy counts, same shape.

    Project once, after summing over hosts: noise averages out, the bias of projecting host by host does not
    (MARGIN: 10 MW against 0.4 MW). The threshold is found in exact integers (Held, Wolfe, Crowder 1974; Duchi et
    al. 2008), so the only rounding is one division per cell. Raises `ValueError` for a negative total or counts
    beyond 2^62 / cells.
    """
    if total < 0:
        raise ValueError("total must not be negative")
    flat = noisy.ravel().astype(np.int64)
    largest = max((abs(int(flat.max())), abs(int(flat.min())), total)) if flat.size else total
    if 2 * flat.size * flat.size * largest >= 2**62:
        raise ValueError("counts too large to project exactly")
    if not flat.size or total == 0:
        return np.zeros(noisy.shape, dtype=np.float64)
    ordered = -np.sort(-flat)
    rank = np.arange(1, flat.size + 1, dtype=np.int64)
    excess = np.cumsum(ordered) - total  # exact: what the `rank` largest have above the total
    support = int(np.flatnonzero(ordered * rank > excess)[-1]) + 1
    numerator = np.maximum(flat * support - int(excess[support - 1]), 0)
    return (numerator.astype(np.float64) / float(support)).reshape(noisy.shape)


def occupancy(counts: npt.NDArray[Any]) -> Floats:
    """Return the share of departures from every real state, float64[k+1], zeros if there are none.

    `counts` is [k+2, k+2], non-negative; departures to or from the reserved cell are left out.
    """
    inner = counts[:-1, :-1]
    mass = [math.fsum(map(float, row)) for row in inner]
    total = math.fsum(mass)
    return np.array([m / total if total > 0.0 else 0.0 for m in mass], dtype=np.float64)


def transition_matrix(counts: npt.NDArray[Any]) -> Floats:
    """Return the row-stochastic matrix of the k+1 real states, float64[k+1, k+1].

    `counts` is [k+2, k+2], non-negative (projected). The reserved row and column are left out: a gap says nothing
    about power. A state that was never left keeps its place (identity row), which claims least.
    """
    inner = counts[:-1, :-1].astype(np.float64)
    if inner.size and float(inner.min()) < 0.0:
        raise ValueError("project the counts first: a probability cannot be negative")
    matrix = np.eye(inner.shape[0], dtype=np.float64)
    for index, row in enumerate(inner):
        mass = math.fsum(map(float, row))
        if mass > 0.0:
            matrix[index] = row / mass
    return matrix


def to_ppm(probabilities: Floats) -> Counts:
    """Return every row (last axis) in parts per million, int64, each summing to exactly 1,000,000.

    Largest remainder; equal remainders go to the lower index. Raises `ValueError` for a row without mass.
    """
    rows = np.atleast_2d(probabilities)
    out = np.array([_row_to_ppm([float(x) for x in row]) for row in rows], dtype=np.int64)
    return out.reshape(probabilities.shape)


def _row_to_ppm(row: list[float]) -> list[int]:
    mass = math.fsum(row)
    if not mass > 0.0 or min(row) < 0.0:
        raise ValueError("not a distribution")
    exact = [x / mass * PPM for x in row]
    floors = [math.floor(x) for x in exact]
    by_remainder = sorted(range(len(row)), key=lambda i: (floors[i] - exact[i], i))
    missing = PPM - sum(floors)
    for i in by_remainder[: max(missing, 0)]:
        floors[i] += 1
    for i in [j for j in reversed(by_remainder) if floors[j] > 0][: max(-missing, 0)]:
        floors[i] -= 1  # rounding of x / mass may lift a floor; at most a handful of units
    return floors
