"""Stationary distribution of a chain without cancellation (Grassmann, Taksar, Heyman 1985), reducible chains too."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESTART = 2.0**-30
"""Probability of a restart in a chain that is not irreducible: far below what a window can resolve (~1e-5)."""


def stationary(matrix: Floats, restart: Floats | None = None) -> Floats:
    """Return pi with pi P = pi, sum 1, float64[n], for a row-stochastic matrix [n, n].

    GTH elimination adds, multiplies and divides non-negative numbers only, so small probabilities keep their
    relative precision. A chain that is not irreducible has no unique pi: with probability 2^-30 per step it then
    restarts from `restart` (weights >= 0, default uniform). Closed classes are thereby weighted by how often a
    restart ends in them. Pass `transitions.occupancy(counts)` where there are counts: the identity rows of states
    that were never seen would otherwise attract mass. Raises `ValueError` if the matrix is not square or empty.
    """
    n = matrix.shape[0]
    if matrix.ndim != 2 or n == 0 or matrix.shape[1] != n:
        raise ValueError("not a square matrix")
    chain = [[float(x) for x in row] for row in matrix]
    if is_irreducible(matrix):
        return np.array(_gth(chain), dtype=np.float64)
    weights = _restart_weights(n, restart)
    mixed = [[(1.0 - RESTART) * x + RESTART * w for x, w in zip(row, weights, strict=True)] for row in chain]
    # The elimination ends in state 0, which every state must be able to reach: put the likeliest restart there.
    first = max(range(n), key=lambda i: (weights[i], -i))
    order = [first, *(i for i in range(n) if i != first)]
    solved = _gth([[mixed[i][j] for j in order] for i in order])
    pi = np.zeros(n, dtype=np.float64)
    pi[order] = solved
    return pi


def is_irreducible(matrix: Floats) -> bool:
    """Say whether every state reaches every other one (boolean transitive closure, n <= a few hundred)."""
    reach = (matrix > 0.0) | np.eye(matrix.shape[0], dtype=np.bool_)
    for middle in range(matrix.shape[0]):
        reach |= np.logical_and(reach[:, middle, None], reach[None, middle, :])
    return bool(reach.all())


def _restart_weights(n: int, restart: Floats | None) -> list[float]:
    weights = [1.0] * n if restart is None else [float(x) for x in restart]
    if len(weights) != n or min(weights) < 0.0:
        raise ValueError("restart weights must be non-negative, one per state")
    mass = math.fsum(weights)
    return [w / mass for w in weights] if mass > 0.0 else [1.0 / n] * n


def _gth(p: list[list[float]]) -> list[float]:
    """Eliminate states n-1..1, then substitute back; `p` is overwritten."""
    n = len(p)
    for last in range(n - 1, 0, -1):
        leave = math.fsum(p[last][:last])
        for i in range(last):
            p[i][last] /= leave
        for i in range(last):
            factor = p[i][last]
            if factor:
                row, tail = p[i], p[last]
                for j in range(last):
                    row[j] += factor * tail[j]
    pi = [1.0]
    for state in range(1, n):
        pi.append(math.fsum(pi[i] * p[i][state] for i in range(state)))
    mass = math.fsum(pi)
    return [x / mass for x in pi]
