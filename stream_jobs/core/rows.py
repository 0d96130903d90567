"""From the reports of one class to the rows that the estimate of its swing works on."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from power_model import exact
from power_model.interpolation import row_means
from power_model.pooled import ClassRows, Floats
from schemas.contract import HISTOGRAM_BINS, histogram_edges_w
from schemas.records import ModelRule
from stream_jobs.core.aside import MAX_NOISE_RATIO, Correction
from stream_jobs.core.columns import ClassSum, Ints
from stream_jobs.core.in_step import Labels, noise_std_of, power_of

BIN_ERROR = 0.12
"""Standard deviation of a histogram's mean for where in their bins readings are, in widths of a bin; measured on real
traces. It is the same for every host, so that it does not average out."""
ONE_BIN_ERROR = 1 / math.sqrt(12)
"""The same if all readings are in one bin, anywhere in it."""


def histogram_sum(total: ClassSum) -> Ints | None:
    """Noisy counts of all hosts per bin, int64[bins], without the missing ticks' cell; None if any has none."""
    cells = total.histograms
    if cells is None or not total.counted.all():
        return None
    return np.asarray(cells.sum(axis=0, dtype=np.int64)[:HISTOGRAM_BINS])


def _counted(total: ClassSum, noise: Floats) -> npt.NDArray[np.bool_]:
    """Hosts whose histogram counts, bool[hosts]; `noise` [hosts]: its standard deviation."""
    stated = np.sort(noise[total.counted])
    if not stated.size:
        return total.counted
    most = MAX_NOISE_RATIO * float(stated[(stated.size - 1) // 2])
    return np.asarray(total.counted & (noise <= most))


def class_rows(
    total: ClassSum,
    correction: Correction,
    model: ModelRule,
    *,
    ticks_per_pane: int,
    pane_w: float,
    scale: float,
    step_w2: float,
    past: Labels | None = None,
) -> ClassRows:
    """Rows of the hosts that count in full, in the roster's order.

    `pane_w`: W per unit of the class's corrected pane sums; `scale`, `step_w2`: see `ClassRows`. `past` int8[hosts,
    windows]: groups in the windows before, of all hosts.
    """
    full = np.flatnonzero((correction.weights == 1.0) & (total.readings_of > 0))
    every = full.size == total.hosts  # as nearly always: then nothing is copied
    panes_w, unit_w = power_of(total, full, ticks_per_pane)
    cells, histogram_noise = total.histograms, noise_std_of(total, 0)
    labels = total.labels
    return ClassRows(
        panes_w=panes_w,
        noise_w=noise_std_of(total, 2)[full] * unit_w,
        gpus=total.gpus_of[full],
        readings=total.readings_of[full],
        histograms=None if cells is None else cells[:, :HISTOGRAM_BINS] if every else cells[full, :HISTOGRAM_BINS],
        counted=_counted(total, histogram_noise)[full],
        histogram_noise=histogram_noise[full],
        edges_w=np.array(histogram_edges_w(model.clip_low_w, model.clip_high_w), dtype=np.float64),
        step_w2=step_w2,
        total_w=correction.pane_sums * pane_w,
        total_noise_w2=correction.pane_variance * pane_w * pane_w,
        scale=scale,
        labels=tuple(labels) if every else tuple(labels[row] for row in full.tolist()),
        past=None if past is None else past[full],
    )


def reconciled_mean(rows: ClassRows) -> tuple[float, float]:
    """How far the histograms move the rows' mean power, W, and by how much its variance falls, W^2.

    Panes and histograms count the same readings with noise of their own; their means are joined by least squares. A
    histogram's mean is linear in its noisy counts: to cut off what noise hides in the tails would bias it.
    """
    if rows.histograms is None or not rows.counted.any():
        return 0.0, 0.0
    one = slice(None) if rows.counted.all() else np.flatnonzero(rows.counted)
    readings, gpus = int(rows.readings[one].sum()), int(rows.gpus[one].sum())
    counts = rows.histograms[one].sum(axis=0, dtype=np.int64)
    # Rows took different shares of their readings; the histogram weighs them by these, the panes by their GPUs.
    level = exact.dot(row_means(rows.panes_w[one]), rows.readings[one] / rows.gpus[one]) / readings
    width = float(rows.edges_w[1] - rows.edges_w[0])
    away = (rows.edges_w[:-1] + rows.edges_w[1:]) / 2 - level
    delta = exact.dot(counts.astype(np.float64), away) / readings * gpus
    noise_w2 = exact.dot(rows.histogram_noise[one], rows.histogram_noise[one])
    drawn_w2 = exact.dot(away, away) * noise_w2 / readings**2
    # Squared shares of the bins, noise taken off: 1 if all readings are in one bin.
    alike = (int((counts * counts).sum()) - counts.size * noise_w2) / readings**2
    bin_error = max(BIN_ERROR, ONE_BIN_ERROR * math.sqrt(min(1.0, max(0.0, alike))))
    histogram_w2 = (drawn_w2 + (bin_error * width) ** 2) * gpus**2
    pane_w2 = exact.dot(rows.noise_w[one], rows.noise_w[one]) / rows.panes_w.shape[1]
    share = pane_w2 / (pane_w2 + histogram_w2)
    return delta * share, pane_w2 * share
