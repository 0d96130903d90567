"""A domain's power tick by tick: groups found, swings measured, noise left out, nothing hangs on order or machine."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_model.groups import synchronised_groups
from power_model.interpolation import pane_means, to_ticks
from power_model.marginal import project_histogram, quantile_function, support
from power_model.pooled import ClassRows
from power_model.swing import Swing, jitter_of, quantile_of, swing_of, variance

TICKS_PER_PANE, PANES, GPUS, CLIP_W = 10, 60, 8, 700
TICKS = TICKS_PER_PANE * PANES
EDGES_W = np.linspace(0, CLIP_W, 65)
HISTOGRAM_STD = 8.0
PANE_STD_W = 180.0


def square(period: int, low: float, high: float, phase: int = 0) -> np.ndarray:
    """A job that computes and waits in turns."""
    return np.where((np.arange(TICKS) + phase) // (period // 2) % 2, high, low).astype(np.float64)


def rows_of(gpus_w: np.ndarray, rng: np.random.Generator | None) -> ClassRows:
    """Statistics of hosts whose GPUs draw `gpus_w` [hosts, gpus, ticks]; with noise if a generator is given."""
    hosts = len(gpus_w)
    panes = pane_means(gpus_w.sum(axis=1), TICKS_PER_PANE)
    histograms = np.array([np.histogram(one, EDGES_W)[0] for one in gpus_w])
    if rng is not None:
        panes = panes + rng.laplace(0, PANE_STD_W / math.sqrt(2), panes.shape)
        histograms = histograms + np.rint(rng.laplace(0, HISTOGRAM_STD / math.sqrt(2), histograms.shape)).astype(int)
    noise = np.full(hosts, PANE_STD_W if rng is not None else 1e-6)
    return ClassRows(
        panes_w=panes,
        noise_w=noise,
        gpus=np.full(hosts, GPUS),
        readings=np.full(hosts, GPUS * TICKS),
        histograms=histograms,
        counted=np.ones(hosts, dtype=np.bool_),
        histogram_noise=np.full(hosts, HISTOGRAM_STD if rng is not None else 0.0),
        edges_w=EDGES_W,
        step_w2=float(np.mean(np.diff(gpus_w, axis=2) ** 2)) / 2,
        total_w=panes.sum(axis=0),
        total_noise_w2=math.fsum(noise**2),
        scale=1.0,
        labels=(None,) * hosts,
    )


def fleet(rng: np.random.Generator, in_step: np.ndarray, others: int) -> np.ndarray:
    """12 hosts in one job, and some that do their own."""
    job = np.broadcast_to(in_step, (12, GPUS, TICKS)) + rng.normal(0, 3, (12, GPUS, TICKS))
    rest = rng.uniform(100, 300, (others, GPUS, 1)) + rng.normal(0, 15, (others, GPUS, TICKS))
    return np.concatenate([job, rest])


def p99_over_mean_w(power_w: np.ndarray) -> float:
    return quantile_of(np.sort(power_w), 0.99) - float(power_w.mean())


def estimated_w(swing: Swing) -> float:
    values = swing.values_w()
    return quantile_of(values, 0.99) - float(values.mean())


@pytest.mark.parametrize("period", [10, 24, 200])
@pytest.mark.parametrize("noisy", [False, True])
def test_the_swing_of_a_job_in_step(period: int, noisy: bool) -> None:
    """Faster than panes, as fast, and slower: a named job's swing is met; independent GPUs would say a third of it."""
    rng = np.random.default_rng(period)
    power = fleet(rng, square(period, 200, 500), others=12)
    rows = rows_of(power, rng if noisy else None)
    named = replace(rows, labels=("job",) * 12 + (None,) * 12)
    truth = p99_over_mean_w(power.sum(axis=(0, 1)))
    swing = swing_of([named], TICKS_PER_PANE)
    if period == TICKS_PER_PANE and not noisy:
        return  # panes that stand still without any noise: nothing to compare a course with
    if period == TICKS_PER_PANE:  # the panes stand still: in step inside them, or taking turns
        assert estimated_w(swing) - 2.4 * swing.in_doubt_w < truth < estimated_w(swing) + 2.4 * swing.in_doubt_w
        assert estimated_w(swing) > truth / 2
    else:
        assert estimated_w(swing) == pytest.approx(truth, rel=0.3)
    if period == TICKS_PER_PANE:  # nothing in the panes, and no name: as if every GPU moved by itself
        assert estimated_w(swing_of([rows], TICKS_PER_PANE)) < truth / 2


def test_jobs_are_found_in_noise() -> None:
    rng = np.random.default_rng(5)
    jobs = [square(60, 200, 450), square(74, 250, 400, phase=11)]
    power = np.concatenate([np.broadcast_to(job, (10, GPUS, TICKS)) for job in jobs])
    rest = np.broadcast_to(rng.uniform(100, 400, (12, 1, 1)), (12, GPUS, TICKS))
    rows = rows_of(np.concatenate([power, rest]), rng)
    found = synchronised_groups(rows.panes_w, rows.noise_w)
    assert [one.tolist() for one in found] == [list(range(10)), list(range(10, 20))]
    assert swing_of([rows], TICKS_PER_PANE).groups == (10 * GPUS, 10 * GPUS)


def test_noise_alone_is_no_group() -> None:
    rng = np.random.default_rng(6)
    found = sum(
        len(synchronised_groups(rng.laplace(0, PANE_STD_W / math.sqrt(2), (hosts, PANES)), np.full(hosts, PANE_STD_W)))
        for hosts in (4, 16, 32, 200)
        for _ in range(25)
    )
    assert found == 0


def test_a_host_that_swings_far_by_itself_does_not_speak_for_a_group() -> None:
    rng = np.random.default_rng(7)
    job = np.broadcast_to(square(60, 300, 320), (12, GPUS, TICKS)) + rng.normal(0, 2, (12, GPUS, TICKS))
    wild = np.broadcast_to(square(60, 80, 690), (1, GPUS, TICKS))
    power = np.concatenate([job, wild])
    rows = rows_of(power, None)
    truth = p99_over_mean_w(power.sum(axis=(0, 1)))
    assert estimated_w(swing_of([rows], TICKS_PER_PANE)) < 1.5 * truth


def test_hosts_of_a_job_at_different_levels_are_no_swing() -> None:
    rng = np.random.default_rng(8)
    levels = np.linspace(-100, 100, 12)[:, None, None]
    power = levels + np.broadcast_to(square(40, 300, 420), (12, GPUS, TICKS)) + rng.normal(0, 2, (12, GPUS, TICKS))
    rows = replace(rows_of(power, None), labels=("job",) * 12)
    truth = p99_over_mean_w(power.sum(axis=(0, 1)))
    assert estimated_w(swing_of([rows], TICKS_PER_PANE)) == pytest.approx(truth, rel=0.25)


def test_the_same_figures_in_any_order_and_split() -> None:
    rng = np.random.default_rng(9)
    rows = rows_of(fleet(rng, square(30, 200, 500), others=8), rng)
    swing = swing_of([rows], TICKS_PER_PANE)
    assert np.array_equal(swing_of([rows], TICKS_PER_PANE).paths_w, swing.paths_w)
    # Groups do not hang on the rows' order.
    order = rng.permutation(20)
    found = synchronised_groups(rows.panes_w[order], rows.noise_w[order])
    back = [sorted(order[one].tolist()) for one in found]
    assert back == [one.tolist() for one in synchronised_groups(rows.panes_w, rows.noise_w)]


def test_without_histograms_or_with_little_data_the_chain_stands_in() -> None:
    rng = np.random.default_rng(10)
    power = fleet(rng, square(10, 200, 500), others=4)
    rows = replace(rows_of(power, None), histograms=None, labels=("job",) * 12 + (None,) * 4)
    few = replace(rows_of(power, rng), histogram_noise=np.full(16, 1e6), labels=("job",) * 12 + (None,) * 4)
    truth = p99_over_mean_w(power.sum(axis=(0, 1)))
    for one in (rows, few):
        assert 0.5 * truth < estimated_w(swing_of([one], TICKS_PER_PANE)) < 2.5 * truth


@given(
    st.lists(st.floats(0, 1e5), min_size=1, max_size=70),
    st.integers(1, 20),
)
@settings(max_examples=200, deadline=None)
def test_ticks_keep_the_panes(panes: list[float], ticks_per_pane: int) -> None:
    series = np.array(panes)
    ticks = to_ticks(series, ticks_per_pane)
    assert ticks.shape == (len(panes) * ticks_per_pane,)
    span = float(series.max() - series.min())
    assert np.abs(pane_means(ticks, ticks_per_pane) - series).max() <= 0.02 * span + 1e-9


def test_a_straight_line_stays_one() -> None:
    line = np.arange(100.0)
    inner = to_ticks(pane_means(line, 10), 10)[25:-25]
    assert np.abs(inner - line[25:-25]).max() < 0.2


def test_the_support_ends_where_the_mass_ends() -> None:
    rng = np.random.default_rng(11)
    exact = np.zeros(64, dtype=np.int64)
    exact[20:24] = (400, 2_000, 1_000, 500)
    assert support(exact, 0.0) == slice(20, 24)
    wrong = 0
    for _ in range(200):
        noisy = exact + np.rint(rng.laplace(0, 20, 64)).astype(np.int64)
        cells = support(noisy, 20 * math.sqrt(2))
        assert cells.start <= 20
        assert cells.stop >= 24
        wrong += cells.stop - cells.start > 12
    assert wrong < 20
    assert support(np.zeros(8, dtype=np.int64), 5.0) == slice(0, 8)


@given(st.lists(st.integers(-50, 500), min_size=2, max_size=64), st.integers(1, 5_000), st.floats(0, 30))
@settings(max_examples=200, deadline=None)
def test_a_projected_histogram_is_one(noisy: list[int], total: int, std: float) -> None:
    counts = project_histogram(np.array(noisy, dtype=np.int64), std, total)
    assert counts.min() >= 0
    assert math.fsum(counts) == pytest.approx(total)
    values = quantile_function(counts, np.arange(len(noisy) + 1, dtype=np.float64), 50)
    assert np.all(np.diff(values) >= 0)
    assert values[0] >= 0
    assert values[-1] <= len(noisy)


def test_quantiles_of_a_fine_histogram_are_those_of_the_readings() -> None:
    rng = np.random.default_rng(12)
    readings = np.clip(rng.gamma(4, 40, 20_000), 0, 699)
    counts = np.histogram(readings, EDGES_W)[0].astype(np.float64)
    found = quantile_function(counts, EDGES_W, 200)
    assert np.abs(found - np.quantile(readings, (np.arange(200) + 0.5) / 200)).max() < 12


def test_jitter_is_standard_normal_and_its_own_per_group() -> None:
    one, other = jitter_of(0, 3000, 10), jitter_of(1, 3000, 10)
    assert np.abs(pane_means(one, 10)).max() < 1e-12
    for values in (one.ravel(), other.ravel()):
        assert abs(values.mean()) < 0.04
        assert abs(values.std() - 1) < 0.03
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.04
    assert abs(np.corrcoef(one[0][1:], one[0][:-1])[0, 1] + 0.1) < 0.06  # -1/10: it sums to 0 in every pane


def test_sample_variance() -> None:
    assert variance(np.array([1.0])) == 0.0
    assert variance(np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(5 / 3)


def test_quantiles_are_those_of_the_values() -> None:
    rng = np.random.default_rng(8)
    swing = swing_of([rows_of(fleet(rng, square(24, 300, 350), 20), None)], 10)
    shares = [0.5, 0.9, 0.99, 0.999, 1e-9, 1.0]
    assert swing.quantiles_w(shares) == [quantile_of(swing.values_w(), share) for share in shares]
