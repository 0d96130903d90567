"""One window of readings as exact integers: counts, clipped sums, histogram, energy residual, spikes. Not private yet.

How far replacing one reading moves each of them is proved in `producers.privacy`; whether a reading is there at all
must never depend on its value, so every choice made here (which GPUs, which ticks) rests on presence alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from power_model.grid import Grid
from power_model.transitions import count_transitions
from producers.sample.source import EnergySpan, Readings
from schemas.contract import HISTOGRAM_BINS, HISTOGRAM_CELLS

STALL_TICKS = 5
"""Ticks in a row without any reading that make a stall: half a second at 10 Hz, five updates of the sensor."""


MIN_PRESENT_PERCENT = 90
"""Share of a span's ticks at which a GPU must have been read for its energy residual to count."""

SPIKES_PER_RANGE = 8
"""A spike rises above both neighbours by the clip range divided by this: known glitches are of 145 to 190 W."""


@dataclass(frozen=True, slots=True)
class Distilled:
    """Exact statistics of one GPU class in one window; never leave the host without noise.

    `transitions` int64[k+2, k+2] counts, `pane_sums` int64[panes] in 100 mW times sample, `histogram` int64[65]
    readings by bin (`schemas.contract.histogram_edges_w`), last the ticks without one; `readings_taken` (public: it
    depends on which ticks were read, not on values), `energy_residual_mj` mJ or None with the public reason beside it
    ("no_counter", "incomplete"), `glitches` isolated upward spikes of one sample.
    """

    transitions: npt.NDArray[np.int64]
    pane_sums: npt.NDArray[np.int64]
    histogram: npt.NDArray[np.int64]
    readings_taken: int
    energy_residual_mj: int | None = None
    energy_absent_reason: str | None = "no_counter"
    glitches: int = 0


def distil(
    readings: Readings | npt.NDArray[np.floating[Any]],
    grid: Grid,
    clip_low_w: int,
    clip_high_w: int,
    ticks_per_pane: int,
    *,
    tick_ms: int = 100,
    energy: EnergySpan | None = None,
) -> Distilled:
    """Distil float[gpus, ticks] in W, NaN = missing, into integers; `energy`: the counters of the same window.

    A missing reading counts in the reserved cell and adds 0 to its pane; infinities are readings (clipped), so that
    being missing never depends on a value. Raises `ValueError` unless the ticks are a whole number of panes and the
    energy's span lies inside the window.
    """
    gpus, ticks = readings.shape
    if ticks % ticks_per_pane:
        raise ValueError("a window is a whole number of panes")
    missing = np.isnan(readings)
    wide = np.where(missing, 0.0, readings.astype(np.float64))
    deciwatts = np.rint(np.clip(wide, clip_low_w, clip_high_w) * 10.0).astype(np.int64)
    deciwatts[missing] = 0
    taken = int(readings.size - np.count_nonzero(missing))
    residual, reason = _energy_residual(deciwatts, missing, clip_low_w, clip_high_w, tick_ms, energy)
    return Distilled(
        transitions=count_transitions(grid.assign(readings), grid.cells),
        pane_sums=deciwatts.reshape(gpus, -1, ticks_per_pane).sum(axis=(0, 2)),
        histogram=_histogram(deciwatts, missing, 10 * clip_low_w, 10 * clip_high_w),
        readings_taken=taken,
        energy_residual_mj=residual,
        energy_absent_reason=reason,
        glitches=_spikes(deciwatts, missing, 10 * (clip_high_w - clip_low_w)),
    )


def _histogram(
    deciwatts: npt.NDArray[np.int64], missing: npt.NDArray[np.bool_], low: int, high: int
) -> npt.NDArray[np.int64]:
    """Readings per bin of equal width over low..high, in 0.1 W like the clipped readings; the last cell: missing."""
    cells = (deciwatts - low) * HISTOGRAM_BINS // (high - low)
    np.minimum(cells, HISTOGRAM_BINS - 1, out=cells)
    cells[missing] = HISTOGRAM_BINS
    return np.bincount(cells.ravel(), minlength=HISTOGRAM_CELLS).astype(np.int64, copy=False)


def _energy_residual(
    deciwatts: npt.NDArray[np.int64],
    missing: npt.NDArray[np.bool_],
    clip_low_w: int,
    clip_high_w: int,
    tick_ms: int,
    span: EnergySpan | None,
) -> tuple[int | None, str | None]:
    """Sum over GPUs of mean power times duration minus the counter's energy, mJ; or None and the reason.

    The mean is over the clipped readings that are present, the counter's difference is clipped to what the clip
    range allows for the duration: a counter that lies by a day costs no more noise than one that lies by a watt.
    """
    if span is None:
        return None, "no_counter"
    if not 0 <= span.first_tick < span.last_tick < deciwatts.shape[1]:
        raise ValueError("the energy's span lies strictly inside the window")
    ticks = span.last_tick - span.first_tick
    inside = slice(span.first_tick, span.last_tick)
    present = ticks - np.count_nonzero(missing[:, inside], axis=1)
    use = span.valid & (100 * present >= MIN_PRESENT_PERCENT * ticks)
    if not use.any():
        return None, "incomplete" if span.valid.any() else "no_counter"
    duration_ms = ticks * tick_ms
    integrated = deciwatts[use, inside].sum(axis=1) * duration_ms // (10 * present[use])
    counted = np.clip(span.delta_mj[use], clip_low_w * duration_ms, clip_high_w * duration_ms)
    return int((integrated - counted).sum()), None


def _spikes(deciwatts: npt.NDArray[np.int64], missing: npt.NDArray[np.bool_], clip_range: int) -> int:
    """Count readings that rise above both neighbours by an eighth of the clip range or more; all three present."""
    inner = deciwatts[:, 1:-1]
    rise = inner - np.maximum(deciwatts[:, :-2], deciwatts[:, 2:])
    known = ~(missing[:, :-2] | missing[:, 1:-1] | missing[:, 2:])
    return int(np.count_nonzero((SPIKES_PER_RANGE * rise >= clip_range) & known))


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
