"""From one window of readings to exact integers: transition counts and clipped sums. Not private yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from power_model.grid import Grid
from power_model.transitions import count_transitions
from producers.sample.source import Readings

STALL_TICKS = 5
"""Ticks in a row without any reading that make a stall: half a second at 10 Hz, five updates of the sensor."""


@dataclass(frozen=True, slots=True)
class Distilled:
    """Exact statistics of one GPU class in one window; never leave the host without noise.

    `transitions` int64[k+2, k+2] counts, `pane_sums` int64[panes] in 100 mW times sample, `readings_taken` (public:
    it depends on which ticks were read, not on values).
    """

    transitions: npt.NDArray[np.int64]
    pane_sums: npt.NDArray[np.int64]
    readings_taken: int


def distil(
    readings: Readings | npt.NDArray[np.floating[Any]],
    grid: Grid,
    clip_low_w: int,
    clip_high_w: int,
    ticks_per_pane: int,
) -> Distilled:
    """Distil float[gpus, ticks] in W, NaN = missing, into integers.

    Replacing one reading by another value changes the transitions by at most 4 (L1; L2 squared 6) and the pane sums
    by at most 10 * (clip_high_w - clip_low_w). A missing reading counts in the reserved cell and adds 0 to its pane;
    infinities are readings (clipped), so that being missing never depends on a value. Raises `ValueError` unless
    the ticks are a whole number of panes.
    """
    gpus, ticks = readings.shape
    if ticks % ticks_per_pane:
        raise ValueError("a window is a whole number of panes")
    missing = np.isnan(readings)
    wide = np.where(missing, 0.0, readings.astype(np.float64))
    deciwatts = np.rint(np.clip(wide, clip_low_w, clip_high_w) * 10.0).astype(np.int64)
    deciwatts[missing] = 0
    return Distilled(
        transitions=count_transitions(grid.assign(readings), grid.cells),
        pane_sums=deciwatts.reshape(gpus, -1, ticks_per_pane).sum(axis=(0, 2)),
        readings_taken=int(readings.size - np.count_nonzero(missing)),
    )


@dataclass(frozen=True, slots=True)
class Gaps:
    """What is public about the sampling of a window: pattern of missing ticks, no value."""

    samples_taken: int
    stalls_coarse: int
    gpus_with_gaps: int
    gpus_silent: int


def gaps(windows: Sequence[Readings]) -> Gaps:
    """Describe the gaps of all classes of a host, each float32[gpus, ticks] over the same ticks.

    `samples_taken`: ticks at which at least one GPU was read. `stalls_coarse`: runs of `STALL_TICKS` or more
    without any, rounded up to a power of two.
    """
    present = np.concatenate([~np.isnan(window) for window in windows])
    taken: npt.NDArray[np.bool_] = np.logical_or.reduce(present, axis=0)
    stalls = sum(length >= STALL_TICKS for length in _runs(np.logical_not(taken)))
    return Gaps(
        samples_taken=int(np.count_nonzero(taken)),
        stalls_coarse=1 << (stalls - 1).bit_length() if stalls else 0,
        gpus_with_gaps=int(np.count_nonzero(~present.all(axis=1))),
        gpus_silent=int(np.count_nonzero(~present.any(axis=1))),
    )


def _runs(flags: npt.NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [int(b - a) for a, b in zip(edges[::2], edges[1::2], strict=True)]
