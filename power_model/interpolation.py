"""From pane means to ticks: a line through the panes that keeps every pane's mean."""

from __future__ import annotations

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


def to_ticks(panes: Floats, ticks_per_pane: int) -> Floats:
    """Return float64[panes * ticks_per_pane]: straight between the panes' middles, level before the first and after
    the last, corrected until its pane means are `panes` [panes] (unit kept). A sensor that averages over a second
    moves like this between two panes of a second; what swings faster is not in it.
    """
    line = _line(panes, ticks_per_pane)
    for _ in range(ROUNDS):
        line += _line(panes - pane_means(line, ticks_per_pane), ticks_per_pane)
    return line


def _line(panes: Floats, ticks_per_pane: int) -> Floats:
    count = panes.size
    place = (np.arange(count * ticks_per_pane, dtype=np.float64) + 0.5) / ticks_per_pane - 0.5
    left = np.clip(np.floor(place).astype(np.int64), 0, count - 1)
    right = np.minimum(left + 1, count - 1)
    share = np.clip(place - left, 0.0, 1.0)
    return panes[left] * (1.0 - share) + panes[right] * share
