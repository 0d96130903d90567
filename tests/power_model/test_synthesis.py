"""Synthetic traces: pane means as released, occupancy as the chain has it, paths as Bayes' rule says, seeded."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from power_model.fine_chain import FineChain, fine_chain
from power_model.grid import Grid
from power_model.pane_bridge import PaneBridge
from power_model.stationary import stationary
from power_model.synthesis import (
    COMONOTONE,
    INDEPENDENT,
    ReleasedModel,
    ReleasedWindow,
    significant_counts,
    smooth_curve,
    synchrony_of,
    synthesise,
)
from power_model.transitions import count_transitions, occupancy, transition_matrix
from schemas.errors import ConfigError

EDGES, LOW, HIGH = (100, 200, 300), 0, 400
STICKY = np.array(
    [[0.90, 0.08, 0.02, 0.00], [0.10, 0.80, 0.08, 0.02], [0.02, 0.08, 0.84, 0.06], [0.00, 0.04, 0.06, 0.90]]
)
CENTRES = np.array([60.0, 150.0, 250.0, 340.0])


def walk(chain: np.ndarray, ticks: int, seed: int) -> np.ndarray:
    """States of a chain, int64[ticks]."""
    rng = np.random.default_rng(seed)
    heights, state, found = np.cumsum(chain, axis=1), 0, []
    for draw in rng.random(ticks):
        state = int(np.searchsorted(heights[state], draw))
        found.append(state)
    return np.array(found)


def toy_trace(ticks: int, seed: int, gpus: int = 1) -> np.ndarray:
    """Power of independent GPUs that follow `STICKY`, with a little noise inside the states, W."""
    rng = np.random.default_rng(seed)
    return np.stack([CENTRES[walk(STICKY, ticks, seed + g)] for g in range(gpus)]) + rng.normal(0, 3, (gpus, ticks))


def release(power_w: np.ndarray, windows: int = 4, noise_w: float = 0.0, seed: int = 0) -> ReleasedModel:
    """What is released of a trace: exact counts, pane means with Gaussian noise of `noise_w`."""
    rng = np.random.default_rng(seed)
    grid, parts = Grid(EDGES), np.split(power_w, windows, axis=1)
    counts = [count_transitions(grid.assign(part), grid.cells) for part in parts]
    panes = [part.reshape(part.shape[0], -1, 10).mean(axis=(0, 2)) for part in parts]
    return ReleasedModel(
        edges_w=EDGES,
        low_w=LOW,
        high_w=HIGH,
        sample_hz=10,
        ticks_per_pane=10,
        gpus=power_w.shape[0],
        transitions=sum(counts),
        transitions_total=sum(int(one.sum()) for one in counts),
        transitions_noise=0.0,
        windows=tuple(
            ReleasedWindow(i, pane + rng.normal(0, noise_w, pane.size) if noise_w else pane, noise_w**2)
            for i, pane in enumerate(panes)
        ),
    )


ONE = release(toy_trace(2_400, 7))
MANY = release(toy_trace(1_200, 70, gpus=4))


def panes_of(model: ReleasedModel) -> np.ndarray:
    return np.concatenate([window.pane_w for window in model.windows])


def means_of(power_w: np.ndarray) -> np.ndarray:
    return power_w.reshape(power_w.shape[0], -1, 10).mean(axis=(0, 2))


def test_pane_means_are_the_released_ones() -> None:
    for model, gpus, synchrony in (
        (ONE, 1, COMONOTONE),
        (ONE, 3, COMONOTONE),
        (MANY, 4, INDEPENDENT),
        (MANY, 4, "auto"),
    ):
        drawn = synthesise(model, gpus=gpus, seed=1, synchrony=synchrony)
        assert means_of(drawn.power_w) == pytest.approx(panes_of(model), abs=0.5), synchrony
        assert drawn.slow_w == pytest.approx(means_of(drawn.power_w))


def test_occupancy_is_the_stationary_distribution_of_the_released_chain() -> None:
    """Panes drawn again and again: the trace visits every state as often as the released chain, within four sigmas."""
    drawn = synthesise(ONE, seconds=1_200, seed=3)
    counts = count_transitions(Grid(EDGES).assign(drawn.power_w), Grid(EDGES).cells)
    matrix = transition_matrix(ONE.transitions)
    expected = stationary(matrix, occupancy(ONE.transitions))
    # About 600 independent stays of 20 ticks; the released windows themselves are as uncertain.
    assert occupancy(counts) == pytest.approx(expected, abs=4 * 0.5 / np.sqrt(240))
    assert transition_matrix(counts) == pytest.approx(matrix, abs=0.06)
    assert np.all(np.abs(expected - 0.25) > 1e-3), "not the uniform distribution by accident"


def test_one_seed_is_one_trace() -> None:
    first, again, other = (synthesise(MANY, gpus=2, seed=seed).power_w for seed in (5, 5, 6))
    assert first.tobytes() == again.tobytes()
    assert not np.array_equal(first, other)


def test_beyond_the_release_whole_windows_are_drawn_again() -> None:
    drawn = synthesise(ONE, seconds=600, seed=2)
    assert drawn.power_w.shape == (1, 6_000)
    assert drawn.bootstrapped_s == pytest.approx(600 - ONE.seconds)
    assert drawn.slow_w[: panes_of(ONE).size] == pytest.approx(panes_of(ONE), abs=0.5)
    blocks = drawn.slow_w[panes_of(ONE).size :].reshape(-1, 60)
    sources = {int(np.argmin([np.abs(block - one.pane_w).max() for one in ONE.windows])) for block in blocks}
    assert all(min(np.abs(block - one.pane_w).max() for one in ONE.windows) < 0.5 for block in blocks)
    assert len(sources) > 1


def test_gpus_in_step_share_a_path_and_the_others_do_not() -> None:
    together = synthesise(MANY, gpus=3, seed=1, synchrony=COMONOTONE)
    apart = synthesise(MANY, gpus=4, seed=1, synchrony=INDEPENDENT)
    assert (together.in_step, apart.in_step) == (3, 0)
    assert np.corrcoef(together.power_w)[0, 1] > 0.95
    assert np.abs(np.corrcoef(apart.power_w)[np.triu_indices(4, 1)]).max() < 0.5
    assert synthesise(MANY, gpus=4, seed=1).in_step == 0, "four independent GPUs are found to be that"
    assert synthesise(release(np.repeat(toy_trace(1_200, 7), 4, axis=0)), gpus=4, seed=1).in_step == 4


def test_noise_is_not_followed() -> None:
    """Noise of 60 W in every pane: the mean over drawn traces is nearer to the truth than what was released."""
    truth = toy_trace(2_400, 7)
    noisy = release(truth, noise_w=60.0, seed=1)
    drawn = [synthesise(noisy, seed=seed).slow_w for seed in range(8)]
    exact = means_of(truth)
    assert np.std(np.mean(drawn, axis=0) - exact) < 0.85 * np.std(panes_of(noisy) - exact)
    assert np.abs(drawn[0] - panes_of(noisy)).max() < 5 * 60


def test_counts_that_do_not_stand_out_of_their_noise_are_dropped() -> None:
    rng = np.random.default_rng(1)
    noise = rng.laplace(0, 20, ONE.transitions.shape)
    noisy = replace(ONE, transitions=100 * ONE.transitions + np.rint(noise).astype(np.int64))
    noisy = replace(noisy, transitions_total=100 * ONE.transitions_total, transitions_noise=800.0)
    kept = significant_counts(noisy)
    assert kept[0, 3] == kept[3, 0] == 0.0
    assert not kept[-1].any()
    assert kept[:-1, :-1].sum() == pytest.approx(noisy.transitions_total, rel=0.01)
    with pytest.raises(ConfigError, match="too large"):
        significant_counts(replace(ONE, transitions=np.full_like(ONE.transitions, 2**58)))
    with pytest.raises(ConfigError, match="stands out"):
        synthesise(replace(ONE, transitions_noise=1e12))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=10, max_size=10), st.integers(0, 2**32 - 1))
def test_the_fine_chain_is_the_released_one(pairs: list[int], seed: int) -> None:
    """Any symmetric counts: rows are distributions, cells have their counts, the occupancy is stationary."""
    counts = np.zeros((5, 5))
    counts[np.triu_indices(4)] = pairs
    counts = counts + counts.T
    counts[0, 0] += 1
    panes = np.random.default_rng(seed).uniform(LOW, HIGH, 30)
    chain = fine_chain(counts, np.array([LOW, *EDGES, HIGH], dtype=np.float64), panes, 0.0, 10)
    assert chain.matrix.sum(axis=1) == pytest.approx(1.0)
    assert chain.matrix.min() >= 0.0
    joint = chain.occupancy[:, None] * chain.matrix
    coarse = np.zeros((4, 4))
    np.add.at(coarse, (chain.states[:, None], chain.states[None, :]), joint)
    assert coarse == pytest.approx(counts[:-1, :-1] / counts[:-1, :-1].sum(), abs=1e-3)
    assert joint.sum(axis=0) == pytest.approx(chain.occupancy, abs=5e-3)


def toy_bridge() -> PaneBridge:
    matrix = np.array([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.2, 0.2, 0.6]])
    values = np.array([50.0, 150.0, 250.0])
    chain = FineChain(values, np.full(3, 100.0), np.arange(3), matrix, stationary(matrix), np.zeros(3))
    return PaneBridge(chain, 3)


def test_paths_have_their_exact_probabilities_given_the_panes() -> None:
    """Two panes of three ticks, 729 paths: frequencies of 5,000 draws against Bayes' rule (chi-square, 0.1 %)."""
    bridge = toy_bridge()
    chain, panes, std = bridge._chain, np.array([110.0, 190.0]), np.array([40.0, 40.0])
    exact = {}
    for path in itertools.product(range(3), repeat=6):
        before = sum(chain.occupancy[i] * chain.matrix[i, path[0]] for i in range(3))
        steps = np.prod([chain.matrix[a, b] for a, b in itertools.pairwise(path)])
        means = chain.values_w[list(path)].reshape(2, 3).mean(axis=1)
        weight = np.prod((1 + ((means - panes) / std) ** 2 / 64) ** -32.0)
        exact[path] = before * steps * weight
    total = sum(exact.values())
    rng, draws = np.random.default_rng(4), 5_000
    seen = dict.fromkeys(exact, 0)
    for _ in range(draws):
        seen[tuple(int(x) for x in bridge.sample(panes, std, rng))] += 1
    likely = [path for path in exact if exact[path] / total * draws >= 8]
    observed = np.array([*(seen[path] for path in likely), draws - sum(seen[path] for path in likely)])
    expected = np.array([exact[path] / total * draws for path in likely])
    expected = np.append(expected, draws - expected.sum())
    assert stats.chisquare(observed, expected).pvalue > 1e-3
    assert len(likely) > 50


def test_a_pane_that_says_nothing_and_one_out_of_reach() -> None:
    bridge = toy_bridge()
    cells = bridge.sample(np.array([0.0, 5_000.0]), np.array([np.inf, 1.0]), np.random.default_rng(1))
    assert cells[3:].tolist() == [2, 2, 2], "the nearest there is"
    mean_w, variance_w2 = bridge.pane_moments_w()
    assert mean_w == pytest.approx(float((bridge._chain.occupancy * bridge.values_w).sum()), rel=1e-5)
    assert 0 < variance_w2 < 100.0**2


@given(st.lists(st.floats(-500, 500), min_size=1, max_size=40), st.integers(1, 20))
def test_the_smooth_curve_has_the_pane_means(panes: list[float], ticks: int) -> None:
    curve = smooth_curve(np.array(panes), ticks)
    assert curve.reshape(-1, ticks).mean(axis=1) == pytest.approx(np.array(panes), abs=1e-6)


def test_synchrony_from_the_variance_of_panes() -> None:
    """A class of 100 GPUs of which 40 run in step: 0.4; independent ones: 0; one GPU is in step with itself."""
    rng = np.random.default_rng(3)
    own = rng.normal(0, 20, (100, 4_000))
    own[:40] = own[0]
    assert synchrony_of(own.mean(axis=0), 0.0, 400.0, 100) == pytest.approx(0.4, abs=0.05)
    noisy = own.mean(axis=0) + rng.normal(0, 5, 4_000)
    assert synchrony_of(noisy, 25.0, 400.0, 100) == pytest.approx(0.4, abs=0.05)
    assert synchrony_of(rng.normal(0, 2, 4_000), 0.0, 400.0, 100) == pytest.approx(0.0, abs=0.05)
    assert synchrony_of(np.array([1.0]), 0.0, 0.0, 1) == 1.0


def test_what_is_refused() -> None:
    for changes in ({"seconds": 0.0}, {"gpus": 0}, {"seed": -1}, {"seconds": 1e9}, {"synchrony": "some"}):
        with pytest.raises(ConfigError):
            synthesise(ONE, **changes)  # type: ignore[arg-type]
    wrong = ({"transitions": np.zeros((3, 3), dtype=np.int64)}, {"high_w": 300}, {"windows": ()}, {"gpus": 0})
    for change in wrong:
        with pytest.raises(ConfigError):
            replace(ONE, **change)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="too long"):
        PaneBridge(toy_bridge()._chain, 20_000)
    many = np.eye(102)
    with pytest.raises(ConfigError, match="states are visited"):
        fine_chain(many, np.arange(102.0), np.ones(3), 0.0, 10)
