"""Transition counts, the projection and the chain against slow definitions."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from power_model.transitions import (
    PPM,
    count_transitions,
    occupancy,
    project_counts,
    to_ppm,
    transition_matrix,
)

CELLS = 5
STATES = hnp.arrays(np.int64, st.tuples(st.integers(1, 5), st.integers(1, 12)), elements=st.integers(0, CELLS - 1))
NOISY = hnp.arrays(np.int64, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.integers(-200, 200))


@given(STATES)
def test_counts_agree_with_brute_force(states: np.ndarray) -> None:
    expected = np.zeros((CELLS, CELLS), dtype=np.int64)
    for gpu in states:
        for a, b in itertools.pairwise(gpu):
            expected[a, b] += 1
    found = count_transitions(states, CELLS)
    assert np.array_equal(found, expected)
    assert found.dtype == np.int64
    assert found.sum() == states.shape[0] * (states.shape[1] - 1)


@pytest.mark.parametrize("states", [np.zeros(3, int), np.array([[0, 5]]), np.array([[-1, 0]])])
def test_states_outside_are_refused(states: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"shape|states|grid"):
        count_transitions(states, CELLS)


def _project_exactly(noisy: list[int], total: int) -> list[Fraction]:
    """The KKT point by trying every size of the support, in fractions."""
    for size in range(len(noisy), 0, -1):
        largest = sorted(noisy, reverse=True)[:size]
        theta = Fraction(sum(largest) - total, size)
        x = [max(Fraction(y) - theta, Fraction(0)) for y in noisy]
        if sum(x) == total and sum(v > 0 for v in x) <= size:
            return x
    raise AssertionError("no KKT point")


@given(NOISY, st.integers(0, 500))
def test_projection_is_feasible_and_exact(noisy: np.ndarray, total: int) -> None:
    found = project_counts(noisy, total)
    assert found.shape == noisy.shape
    assert found.min() >= 0
    assert math.fsum(found.ravel()) == pytest.approx(total, abs=1e-9)
    exact = [float(x) for x in _project_exactly(noisy.ravel().tolist(), total)]
    assert found.ravel().tolist() == pytest.approx(exact, rel=1e-15, abs=0)


@given(NOISY, st.integers(1, 500), st.integers(0, 2**32 - 1))
def test_no_feasible_point_is_nearer(noisy: np.ndarray, total: int, seed: int) -> None:
    found = project_counts(noisy, total)
    best = float(((found - noisy) ** 2).sum())
    rng = np.random.default_rng(seed)
    for weights in rng.dirichlet(np.ones(noisy.size), size=20):
        other = (0.5 * found.ravel() + 0.5 * total * weights).reshape(noisy.shape)
        assert ((other - noisy) ** 2).sum() >= best - 1e-9 * (1 + best)


def test_projection_keeps_counts_without_noise_and_knows_its_limits() -> None:
    counts = np.array([[5, 0], [2, 9]])
    assert project_counts(counts, 16).tolist() == counts.tolist()
    assert project_counts(counts, 0).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    with pytest.raises(ValueError, match="negative"):
        project_counts(counts, -1)
    with pytest.raises(ValueError, match="too large"):
        project_counts(np.array([[2**60, 0]]), 5)


def test_projecting_the_sum_beats_projecting_each_host() -> None:
    rng = np.random.default_rng(7)
    truth = np.zeros((6, 6), dtype=np.int64)
    truth[2, 2] = truth[3, 3] = 300
    hosts = [truth + np.rint(rng.laplace(0, 13, truth.shape)).astype(np.int64) for _ in range(64)]
    together = project_counts(sum(hosts), 64 * 600)  # type: ignore[arg-type]
    apart = sum(project_counts(host, 600) for host in hosts)
    assert np.abs(together - 64 * truth).sum() < 0.5 * np.abs(apart - 64 * truth).sum()


@given(hnp.arrays(np.int64, (CELLS, CELLS), elements=st.integers(0, 50)))
def test_transition_matrix_is_stochastic_and_leaves_the_reserved_cell_out(counts: np.ndarray) -> None:
    found = transition_matrix(counts)
    assert found.shape == (CELLS - 1, CELLS - 1)
    for i, row in enumerate(found):
        assert math.fsum(row) == pytest.approx(1.0, abs=1e-15)
        mass = counts[i, :-1].sum()
        expected = counts[i, :-1] / mass if mass else np.eye(CELLS - 1)[i]
        assert row.tolist() == pytest.approx(expected.tolist())
    inner = counts[:-1, :-1].sum()
    expected_share = counts[:-1, :-1].sum(axis=1) / inner if inner else np.zeros(CELLS - 1)
    assert occupancy(counts).tolist() == pytest.approx(expected_share.tolist())


def test_negative_counts_must_be_projected_first() -> None:
    with pytest.raises(ValueError, match="project"):
        transition_matrix(np.array([[1, 0, 0], [-1, 3, 0], [0, 0, 0]]))


@given(hnp.arrays(np.float64, (3, 7), elements=st.floats(0, 1)).filter(lambda a: (a.sum(axis=1) > 1e-3).all()))
def test_ppm_rows_sum_exactly_and_stay_near(rows: np.ndarray) -> None:
    found = to_ppm(rows)
    assert (found.sum(axis=1) == PPM).all()
    assert found.min() >= 0
    assert np.abs(found - rows / rows.sum(axis=1, keepdims=True) * PPM).max() <= 1.0 + 1e-6


def test_ppm_ties_go_to_the_lower_index_and_vectors_stay_vectors() -> None:
    assert to_ppm(np.array([1.0, 1.0, 1.0])).tolist() == [333_334, 333_333, 333_333]
    with pytest.raises(ValueError, match="distribution"):
        to_ppm(np.zeros(3))
