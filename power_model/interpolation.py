"""From pane means to ticks: a line through the panes that keeps every pane's mean."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ROUNDS = 8
"""Corrections of the line; the means are met to a thousandth of the panes' swing after them."""


def pane_means(ticks: Floats, ticks_per_pane: int) -> Floats:
    """Return the mean of every pane, float64[..., panes], of float64[..., panes * ticks_per_pane].

    Ticks are added one after another, so that the result does not depend on how wide the processor adds.
    """
    columns = ticks.reshape(*ticks.shape[:-1], -1, ticks_per_pane)
    total = columns[..., 0].copy()
    for tick in range(1, ticks_per_pane):
        total += columns[..., tick]
    return total / ticks_per_pane


def row_means(rows: Floats) -> Floats:
    """Return the mean of every row, float64[n], of float64[n, columns], added column after column."""
    return pane_means(rows, rows.shape[1])[:, 0]


def to_ticks(panes: Floats, ticks_per_pane: int) -> Floats:
    """Return float64[panes * ticks_per_pane]: straight between the panes' middles, level before the first and after
    the last, corrected until its pane means are `panes` [panes] (unit kept). A sensor that averages over a second
    moves like this between two panes of a second; what swings faster is not in it.

    The line's pane means are weighted means of its corners, so that these can be corrected before it is drawn.
    """
    place = (np.arange(ticks_per_pane, dtype=np.float64) + 0.5) / ticks_per_pane - 0.5
    towards = np.maximum(-place, 0.0), np.maximum(place, 0.0)
    to_before, to_after = (math.fsum(share.tolist()) / ticks_per_pane for share in towards)
    corners = panes
    for _ in range(ROUNDS):
        before, after = _neighbours(corners)
        corners = corners + (panes - corners) - (before * to_before + after * to_after)
    before, after = _neighbours(corners)
    line = before[:, None] * towards[0] + after[:, None] * towards[1]
    return np.asarray((corners[:, None] + line).ravel())


def _neighbours(corners: Floats) -> tuple[Floats, Floats]:
    """How much higher the corners before and after each one are, 0 at the ends."""
    steps = np.zeros(corners.size + 1, dtype=np.float64)
    np.subtract(corners[1:], corners[:-1], out=steps[1:-1])
    return -steps[:-1], steps[1:]
