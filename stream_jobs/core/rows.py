"""From the reports of one class to the rows that the estimate of its swing works on."""

from __future__ import annotations

import math

import numpy as np

from power_model.marginal import project_histogram, quantile_function
from power_model.noise import discrete_laplace_variance
from power_model.swing import ClassRows, Floats
from schemas.contract import HISTOGRAM_BINS, PANE_SUM_QUANTUM_MW, histogram_edges_w
from schemas.records import ModelRule
from stream_jobs.core.aside import Correction
from stream_jobs.core.windows import ClassSum

BIN_ERROR = 0.12
"""Standard deviation of a histogram's mean for where in their bins readings are, in widths of a bin; measured on real
traces. It is the same for every host, so that it does not average out."""
MEAN_POINTS = 512
"""Points at which the mean of a histogram's quantile function is taken."""


def _std_of(scales_micro: list[int]) -> Floats:
    """Standard deviation of discrete Laplace noise by host, unit of the release; 0 where there is none."""
    known = {scale: math.sqrt(discrete_laplace_variance(scale / 1e6)) if scale else 0.0 for scale in set(scales_micro)}
    return np.array([known[scale] for scale in scales_micro], dtype=np.float64)


def histogram_matrix(total: ClassSum) -> np.ndarray | None:
    """Every host's noisy counts per bin, int64[hosts, bins], without the missing ticks' cell; None if any has none."""
    cells = [one for one in total.histograms if one is not None]
    if len(cells) != len(total.histograms) or not cells:
        return None
    flat = np.frombuffer(b"".join(cells), "<i4").astype(np.int64)
    return flat.reshape(len(cells), -1)[:, :HISTOGRAM_BINS]


def class_rows(
    total: ClassSum,
    correction: Correction,
    model: ModelRule,
    *,
    ticks_per_pane: int,
    pane_w: float,
    scale: float,
    step_w2: float,
) -> ClassRows:
    """Rows of the hosts that count in full, sorted by host.

    `pane_w`: W per unit of the class's corrected pane sums; `scale`, `step_w2`: see `ClassRows`.
    """
    readings = np.array(total.host_readings, dtype=np.int64)
    full = np.flatnonzero((correction.weights == 1.0) & (readings > 0))
    order = full[np.array(sorted(range(full.size), key=lambda i: total.host_ids[full[i]]), dtype=np.int64)]
    gpus = np.array(total.host_gpus, dtype=np.int64)[order]
    panes = len(total.pane_sums)
    taken = readings[order] / (gpus * (ticks_per_pane * panes))
    unit_w = PANE_SUM_QUANTUM_MW / 1000 / (ticks_per_pane * taken)
    histograms = histogram_matrix(total)
    return ClassRows(
        panes_w=total.pane_matrix()[order] * unit_w[:, None],
        noise_w=_std_of(total.pane_scales_micro)[order] * unit_w,
        gpus=gpus,
        readings=readings[order],
        histograms=None if histograms is None else histograms[order],
        histogram_noise=_std_of(total.histogram_scales_micro)[order],
        edges_w=np.array(histogram_edges_w(model.clip_low_w, model.clip_high_w), dtype=np.float64),
        step_w2=step_w2,
        total_w=correction.pane_sums * pane_w,
        total_noise_w2=correction.pane_variance * pane_w * pane_w,
        scale=scale,
        labels=tuple(total.labels[row] for row in order.tolist()),
    )


def reconciled_mean(rows: ClassRows) -> tuple[float, float]:
    """How far the histograms move the rows' mean power, W, and by how much its variance falls, W^2.

    Panes and histograms count the same readings with noise of their own; their means are joined by least squares.
    """
    if rows.histograms is None or not len(rows.gpus):
        return 0.0, 0.0
    readings, gpus = int(rows.readings.sum()), int(rows.gpus.sum())
    noise = math.sqrt(math.fsum((rows.histogram_noise**2).tolist()))
    counts = project_histogram(rows.histograms.sum(axis=0), noise, readings)
    quantiles = quantile_function(counts, rows.edges_w, MEAN_POINTS)
    level = math.fsum(quantiles.tolist()) / MEAN_POINTS
    # Rows took different shares of their readings; the histogram weighs them by these, the panes by their GPUs.
    weights = (rows.readings / rows.gpus).tolist()
    by_reading = math.fsum(
        math.fsum(row.tolist()) / row.size * weight for row, weight in zip(rows.panes_w, weights, strict=True)
    )
    delta = (level - by_reading / readings) * gpus
    seen = np.flatnonzero(counts > 0.0)
    middles = (rows.edges_w[:-1] + rows.edges_w[1:])[seen[0] : seen[-1] + 1] / 2 - level
    width = float(rows.edges_w[1] - rows.edges_w[0])
    drawn_w2 = math.fsum((middles * middles).tolist()) * (noise / readings) ** 2
    histogram_w2 = (drawn_w2 + (BIN_ERROR * width) ** 2) * gpus**2
    pane_w2 = math.fsum((rows.noise_w**2).tolist()) / rows.panes_w.shape[1]
    share = pane_w2 / (pane_w2 + histogram_w2)
    return delta * share, pane_w2 * share
