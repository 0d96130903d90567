"""Rows of a pool are held back together; here one by one, as it is defined."""

from __future__ import annotations

import numpy as np
import pytest

from power_model.pooled import ClassRows, _aligned, _held_back

EDGES_W = np.linspace(0, 700, 65)


def class_rows(histograms: np.ndarray, readings: np.ndarray) -> ClassRows:
    rows = len(readings)
    return ClassRows(
        panes_w=np.zeros((rows, 1)),
        noise_w=np.ones(rows),
        gpus=np.full(rows, 8),
        readings=readings,
        histograms=histograms,
        counted=np.ones(rows, np.bool_),
        histogram_noise=np.full(rows, 6.0),
        edges_w=EDGES_W,
        step_w2=0.0,
        total_w=np.zeros(1),
        total_noise_w2=0.0,
        scale=1.0,
        labels=(None,) * rows,
    )


def held_back_row_by_row(histograms: np.ndarray, readings: np.ndarray, moves: np.ndarray, points: int) -> np.ndarray:
    """The definition: half of a row's share of the clip range, either way from the quantiles without it."""
    first, cells = int(moves.min()), histograms.shape[1]
    width = EDGES_W[1] - EDGES_W[0]
    placed = np.zeros((len(moves), cells + int(moves.max()) - first))
    for row, move in enumerate(moves.tolist()):
        placed[row, move - first : move - first + cells] = histograms[row]
    edges = EDGES_W[0] + width * np.arange(first, first + placed.shape[1] + 1)
    at = (np.arange(points) + 0.5) / points

    def quantiles(counts: np.ndarray, total: int) -> np.ndarray:
        share = np.clip(np.maximum.accumulate(np.cumsum(counts)) / total, 0.0, 1.0)
        return np.asarray(np.interp(at, np.append(0.0, share), edges))

    total, pool = int(readings.sum()), placed.sum(axis=0)
    usual = quantiles(pool, total)
    room_w = (EDGES_W[-1] - EDGES_W[0]) / 2 * readings / total
    moved = np.array([quantiles(pool - one, total - own) - usual for one, own in zip(placed, readings, strict=True)])
    upper, lower = (moved + room_w[:, None]).min(axis=0), (moved - room_w[:, None]).max(axis=0)
    return np.asarray(np.minimum(0.0, upper) + np.maximum(0.0, lower))


@pytest.mark.parametrize("uneven", [False, True])
def test_rows_held_back_together_are_held_back_as_one_by_one(uneven: bool) -> None:
    rng = np.random.default_rng(9)
    power_w = np.where(rng.random((40, 4800)) < 0.4, rng.normal(150, 20, (40, 4800)), rng.normal(450, 30, (40, 4800)))
    power_w[0] = EDGES_W[-1] - 1.0  # one that lies
    taken = rng.integers(2400, 4800, 40) if uneven else np.full(40, 4800)
    histograms = np.array([np.histogram(one[:n], EDGES_W)[0] for one, n in zip(power_w, taken, strict=True)])
    readings = histograms.sum(axis=1)
    histograms = histograms + np.rint(rng.laplace(0, 6, histograms.shape)).astype(np.int64)
    moves = rng.integers(-2, 3, 40)
    first = int(moves.min())
    width = EDGES_W[1] - EDGES_W[0]
    edges = EDGES_W[0] + width * np.arange(first, first + histograms.shape[1] + int(moves.max()) - first + 1)
    rows = np.arange(40)
    pooled = _aligned(histograms, rows, moves)
    found = _held_back(class_rows(histograms, readings), histograms, rows, moves, pooled, edges, 600)
    wanted = held_back_row_by_row(histograms, readings, moves, 600)
    assert float(np.abs(wanted).max()) > 50.0
    # Within a cell the envelope of broken lines is not quite their extreme.
    assert float(np.sqrt(np.mean((found - wanted) ** 2))) < (0.05 if uneven else 0.01) * float(
        np.sqrt(np.mean(wanted**2))
    )
