"""Histograms of many hosts: what one may do to them, what is done without some, and jobs that panes do not show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from power_model.alike import doubt_of_alike
from power_model.pooled import ClassRows, pooled_quantiles, tail_doubt, tail_noise
from power_model.swing import swing_of
from stream_jobs.core.rows import reconciled_mean
from tests.power_model.test_swing import (
    EDGES_W,
    GPUS,
    HISTOGRAM_STD,
    TICKS,
    TICKS_PER_PANE,
    estimated_w,
    fleet,
    p99_over_mean_w,
    rows_of,
    square,
)

HOSTS = 12
ALL = np.arange(HOSTS)
RANGE_W = float(EDGES_W[-1] - EDGES_W[0])


def job(rng: np.random.Generator, low: float = 200, high: float = 300) -> ClassRows:
    return rows_of(fleet(rng, square(30, low, high), others=0), rng)


def at_p99(rows: ClassRows) -> float:
    found = pooled_quantiles(rows, np.arange(len(rows.gpus)), TICKS)
    assert found is not None
    return float(found[round(0.99 * TICKS)])


@pytest.mark.parametrize("cell", [0, -1])
@pytest.mark.parametrize("hosts", [4, 12])
def test_one_host_moves_the_quantiles_by_its_share_at_most(cell: int, hosts: int) -> None:
    """Half of its readings are said to be at one end: of twelve hosts' highest percent they would be all."""
    rows = job(np.random.default_rng(1))
    rows = replace(rows, **{
        name: getattr(rows, name)[:hosts]
        for name in ("panes_w", "noise_w", "gpus", "readings", "histograms", "counted", "histogram_noise")
    })  # fmt: skip
    assert rows.histograms is not None
    lies = rows.histograms.copy()
    lies[0] = 0
    lies[0, cell] += GPUS * TICKS // 2
    lies[0, 24] += GPUS * TICKS // 2
    moved = at_p99(replace(rows, histograms=lies)) - at_p99(rows)
    assert abs(moved) <= 1.1 * RANGE_W * GPUS  # what this host's own GPUs could do
    pooled = replace(rows, histograms=lies, counted=ALL[:hosts] > 0)
    assert at_p99(pooled) == pytest.approx(at_p99(rows), rel=0.1)


def test_an_honest_job_is_not_held_back() -> None:
    rng = np.random.default_rng(2)
    power = fleet(rng, square(30, 100, 600), others=0)
    truth = p99_over_mean_w(power.sum(axis=(0, 1)))
    rows = replace(rows_of(power, rng), labels=("job",) * HOSTS)
    assert estimated_w(swing_of([rows], TICKS_PER_PANE)) == pytest.approx(truth, rel=0.1)


def test_hosts_without_a_histogram_leave_the_others_theirs() -> None:
    rows = job(np.random.default_rng(3))
    some = replace(rows, counted=ALL >= 3)
    assert at_p99(some) == pytest.approx(at_p99(rows), rel=0.03)
    assert pooled_quantiles(replace(rows, counted=ALL >= 7), ALL, TICKS) is None, "most of them tell nothing"
    assert reconciled_mean(replace(rows, counted=ALL < 0)) == (0.0, 0.0)


@pytest.mark.parametrize("noise", [HISTOGRAM_STD, 8 * HISTOGRAM_STD])
def test_the_mean_of_histograms_is_unbiased_where_noise_hides_the_tail(noise: float) -> None:
    """A rare high load: cut off as noise, it would be missing from the mean."""
    rng = np.random.default_rng(4)
    power = np.where(rng.random((HOSTS, GPUS, TICKS)) < 0.04, 650.0, 100.0) + rng.normal(0, 3, (HOSTS, GPUS, TICKS))
    exact = rows_of(power, None)
    true = exact.histograms
    assert true is not None
    # Panes that say little, so that the histograms decide.
    exact = replace(exact, noise_w=np.full(HOSTS, 1e6))
    moved = []
    for _ in range(60):
        drawn = np.rint(rng.laplace(0, noise / np.sqrt(2), true.shape)).astype(np.int64)
        rows = replace(exact, histograms=true + drawn, histogram_noise=np.full(HOSTS, noise))
        moved.append(reconciled_mean(rows)[0])
    error_w = np.std(moved) / np.sqrt(len(moved))
    width_w = float(EDGES_W[1] - EDGES_W[0])
    assert abs(np.mean(moved)) < 3 * error_w + 0.3 * width_w * HOSTS * GPUS


def test_a_tail_that_noise_hides_is_in_doubt() -> None:
    rows = job(np.random.default_rng(5), 100, 600)
    quantiles = pooled_quantiles(rows, ALL, TICKS)
    assert quantiles is not None
    noise = [tail_noise(replace(rows, histogram_noise=np.full(HOSTS, std)), ALL) for std in (0.0, 9.0, 90.0)]
    assert noise[0] == 0.0
    assert noise[2] == pytest.approx(10 * noise[1])
    doubts = [tail_doubt(quantiles, one) for one in (*noise, 0.4)]
    assert doubts == sorted(doubts)
    assert doubts[-1] > 5 * doubts[0]


def test_a_job_that_the_panes_do_not_show_is_in_doubt() -> None:
    """Its period is a pane's length: the panes stand still, but the readings of its hosts are alike."""
    rng = np.random.default_rng(6)
    power = fleet(rng, square(TICKS_PER_PANE, 200, 500), others=12)
    rows = rows_of(power, rng)
    swing = swing_of([rows], TICKS_PER_PANE)
    assert swing.groups == ()
    truth, found = p99_over_mean_w(power.sum(axis=(0, 1))), estimated_w(swing)
    assert found < truth / 2
    assert found + 2.4 * swing.in_doubt_w > truth
    assert swing.in_doubt_w == pytest.approx(150 * 12 * GPUS, rel=0.3), "twelve hosts, half of 300 W either way"


def test_hosts_that_differ_are_not_taken_for_a_job() -> None:
    rng = np.random.default_rng(7)
    levels = rng.uniform(100, 300, (16, 1, 1))
    depth = rng.uniform(50, 300, (16, 1, 1))
    power = levels + depth * (rng.random((16, GPUS, TICKS)) < rng.uniform(0.2, 0.8, (16, 1, 1)))
    assert doubt_of_alike(rows_of(power, rng), np.arange(16)) == 0.0
    idle = 60 + rng.normal(0, 4, (16, GPUS, TICKS))
    assert doubt_of_alike(rows_of(idle, rng), np.arange(16)) == 0.0
