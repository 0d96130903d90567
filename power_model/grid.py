"""State grid: which power state a reading is in, and the reserved cell of readings that are missing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError

MAX_EDGES = 254
"""Largest number of inner edges; 65,536 cells of noise already drown any fleet."""


@dataclass(frozen=True, slots=True)
class Grid:
    """k inner edges (W, strictly increasing) make states 0..k; cell k+1 is reserved for missing readings.

    State i holds readings in [edge i-1, edge i): a reading that equals an edge belongs to the state above it.
    Raises `ConfigError` for no edges, too many, edges that do not increase, or an edge that is not positive.
    """

    edges_w: tuple[int, ...]

    def __post_init__(self) -> None:
        edges = self.edges_w
        if not 1 <= len(edges) <= MAX_EDGES:
            raise ConfigError(f"{len(edges)} grid edges; 1 to {MAX_EDGES} are supported", field="edges_w")
        if edges[0] <= 0 or any(a >= b for a, b in itertools.pairwise(edges)):
            raise ConfigError("grid edges must be positive and strictly increasing", field="edges_w")

    @property
    def states(self) -> int:
        """Number of real power states, k+1."""
        return len(self.edges_w) + 1

    @property
    def missing(self) -> int:
        """Index of the reserved cell, k+1."""
        return len(self.edges_w) + 1

    @property
    def cells(self) -> int:
        """Number of cells with the reserved one, k+2: side of the transition count matrix."""
        return len(self.edges_w) + 2

    def assign(self, power_w: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int64]:
        """Return the cell of every reading, same shape. W in; NaN, and NaN alone, means missing."""
        edges = np.asarray(self.edges_w, dtype=np.float64)
        wide = power_w.astype(np.float64)  # exact; float32 edges would move a reading that equals one
        states = np.searchsorted(edges, wide, side="right").astype(np.int64)
        return np.where(np.isnan(wide), np.int64(self.missing), states)


def midpoints_w(edges_w: Sequence[int], low_w: float, high_w: float) -> npt.NDArray[np.float64]:
    """Return the middle of every state, W, float64[k+1]; the end states reach to the clip bounds.

    Raises `ConfigError` unless the bounds enclose the edges.
    """
    if not low_w <= edges_w[0] or not high_w >= edges_w[-1]:
        raise ConfigError("clip bounds must enclose the grid's edges", field="clip")
    bounds = [float(low_w), *(float(edge) for edge in edges_w), float(high_w)]
    return np.array([(a + b) / 2.0 for a, b in itertools.pairwise(bounds)], dtype=np.float64)
