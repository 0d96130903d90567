"""Paths of a chain given what the panes say: exact sampling of states from a hidden Markov model of pane means.

A pane's mean is known up to a Gaussian error (noise of the release, rounding of the grid). Forward, the filter keeps
the distribution of the state at every pane's end, from a table of the probability to go from one state to another in
a pane while the values sum up to s; backward, it draws each pane's begin and sum, and then the ticks between from the
same table with fewer ticks (forward filtering, backward sampling: Carter and Kohn 1994).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from power_model.fine_chain import FineChain
from schemas.errors import ConfigError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MAX_LEVELS = 80
"""Finest resolution of a pane's sum, in steps between the lowest and the highest value per tick."""
MAX_TABLE_BYTES = 1 << 30
"""Memory for the tables at most: panes of about 50 ticks at 50 cells."""
NEAR_STDS = 6.0
"""Sums are looked at so far around what a pane says, in standard deviations; further in doubt, up to all of them."""


class PaneBridge:
    """A chain, and the table of its pane sums; `ticks_per_pane` >= 1.

    Raises `ConfigError` if the tables would not fit into `MAX_TABLE_BYTES`.
    """

    def __init__(self, chain: FineChain, ticks_per_pane: int) -> None:
        values = chain.values_w
        span = float(values.max() - values.min())
        self.unit_w = max(float(chain.width_w.min()), span / MAX_LEVELS)
        self._low_w = float(values.min())
        self._levels = np.rint((values - values.min()) / self.unit_w).astype(np.int64)
        self._chain, self._ticks = chain, ticks_per_pane
        self._means_w = self._low_w + self.unit_w / ticks_per_pane * np.arange(
            int(self._levels.max()) * ticks_per_pane + 1
        )
        if 4 * ticks_per_pane * self._means_w.size * values.size**2 > MAX_TABLE_BYTES:
            raise ConfigError(f"panes of {ticks_per_pane} ticks are too long to be filled", field="ticks_per_pane")
        self._tables = self._build()

    @property
    def values_w(self) -> Floats:
        """Value of each fine cell on the grid of sums, W, float64[n]."""
        return np.asarray(self._low_w + self.unit_w * self._levels)

    @property
    def ticks_per_pane(self) -> int:
        """Ticks per pane."""
        return self._ticks

    @property
    def rounding_w2(self) -> float:
        """Variance of a pane mean around the grid of sums, W^2: ticks that are anywhere in their fine cells."""
        return self.unit_w**2 / (4 * self._ticks)

    def _build(self) -> list[npt.NDArray[np.float32]]:
        """Tables [sum, from, to] after 1 .. ticks ticks: P(state, sum of the ticks' levels | state before)."""
        matrix, cells = self._chain.matrix.astype(np.float32), self._levels.size
        first = np.zeros((self._means_w.size, cells, cells), dtype=np.float32)
        for to, level in enumerate(self._levels):
            first[level, :, to] = matrix[:, to]
        tables = [first]
        for _ in range(1, self._ticks):
            before, after = tables[-1], np.zeros_like(first)
            for to, level in enumerate(self._levels):
                reached = np.zeros(before.shape[:2], dtype=np.float32)
                for middle in np.flatnonzero(matrix[:, to] > 1e-12):
                    reached += before[:, :, middle] * matrix[middle, to]
                after[level:, :, to] = reached[: reached.shape[0] - level]
            tables.append(after)
        return tables

    def pane_moments_w(self) -> tuple[float, float]:
        """Mean (W) and variance (W^2) of a pane mean of the free, stationary chain."""
        weights = np.einsum("sij,i->s", self._tables[-1], self._chain.occupancy).astype(np.float64)
        weights /= weights.sum()
        mean = float((weights * self._means_w).sum())
        return mean, float((weights * (self._means_w - mean) ** 2).sum())

    def sample(self, pane_w: Floats, std_w: Floats, rng: np.random.Generator) -> Integers:
        """Draw the cells of every tick, int64[panes * ticks], given pane means, W, with errors of `std_w`, W."""
        filtered = [self._chain.occupancy]
        kept = []
        for mean, std in zip(pane_w.tolist(), std_w.tolist(), strict=True):
            state, near, weights = self._step(filtered[-1], mean, std)
            filtered.append(state)
            kept.append((near, weights))
        cells = np.empty(pane_w.size * self._ticks, dtype=np.int64)
        end = _draw(filtered[-1], rng)
        for pane in range(pane_w.size - 1, -1, -1):
            near, weights = kept[pane]
            table = self._tables[-1][near, :, end]
            chosen = _draw((filtered[pane] * table * weights[:, None]).ravel(), rng)
            total, begin = near.start + chosen // table.shape[1], chosen % table.shape[1]
            self._fill(cells[pane * self._ticks : (pane + 1) * self._ticks], begin, end, total, rng)
            end = begin
        return cells

    def _step(self, before: Floats, mean_w: float, std_w: float) -> tuple[Floats, slice, Floats]:
        """Filter one pane: distribution of the state at its end, the sums that count and their weights."""
        reach, table = NEAR_STDS * std_w, self._tables[-1]
        while True:
            first = int(np.searchsorted(self._means_w, mean_w - reach))
            last = int(np.searchsorted(self._means_w, mean_w + reach, side="right"))
            near = slice(first, last)
            # Not a Gaussian to the end: what lies far off every sum still prefers the nearest one.
            weights = (1 + ((self._means_w[near] - mean_w) / std_w) ** 2 / 64) ** -32.0
            state = np.einsum("sij,i,s->j", table[near], before, weights, optimize=False)
            mass = float(state.sum())
            if mass > 1e-30 or last - first == self._means_w.size:  # never 0: every state can be reached
                return state / mass, near, weights
            reach *= 4

    def _fill(self, out: Integers, begin: int, end: int, total: int, rng: np.random.Generator) -> None:
        """Draw a pane's ticks backward: from `end`, with `total` to come from `begin`."""
        out[-1] = end
        for tick in range(self._ticks - 1, 0, -1):
            total -= int(self._levels[out[tick]])
            weights = self._tables[tick - 1][total, begin, :] * self._chain.matrix[:, out[tick]]
            out[tick - 1] = _draw(weights, rng)


def _draw(weights: npt.NDArray[np.floating[Any]], rng: np.random.Generator) -> int:
    """Index drawn with probability proportional to the weights."""
    heights = np.cumsum(weights, dtype=np.float64)
    return min(int(np.searchsorted(heights, rng.random() * heights[-1], side="right")), heights.size - 1)
