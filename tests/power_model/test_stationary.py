"""GTH against numpy's eigenvectors (allowed here, not in the package), and chains without a unique answer."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from power_model.stationary import RESTART, is_irreducible, stationary
from power_model.transitions import occupancy, transition_matrix

POSITIVE = st.integers(2, 8).flatmap(lambda n: hnp.arrays(np.float64, (n, n), elements=st.floats(0.01, 1)))


@given(POSITIVE)
def test_agrees_with_the_eigenvector(weights: np.ndarray) -> None:
    matrix = weights / weights.sum(axis=1, keepdims=True)
    values, vectors = np.linalg.eig(matrix.T)
    leading = np.real(vectors[:, np.argmin(np.abs(values - 1))])
    assert stationary(matrix).tolist() == pytest.approx((leading / leading.sum()).tolist(), rel=1e-9)


def test_small_probabilities_keep_their_relative_precision() -> None:
    e = 1e-13
    pi = stationary(np.array([[1 - e, e], [0.5, 0.5]]))
    assert pi[1] / pi[0] == pytest.approx(2 * e, rel=1e-15)


def test_periodic_chain() -> None:
    assert stationary(np.array([[0.0, 1.0], [1.0, 0.0]])).tolist() == [0.5, 0.5]
    assert stationary(np.array([[1.0]])).tolist() == [1.0]


@given(POSITIVE)
def test_bits_do_not_depend_on_the_memory_layout(weights: np.ndarray) -> None:
    matrix = weights / weights.sum(axis=1, keepdims=True)
    assert stationary(matrix).tobytes() == stationary(np.asfortranarray(matrix)).tobytes()


def test_two_closed_classes_are_weighted_by_the_restart() -> None:
    matrix = np.array([[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.5, 0.0, 0.5, 0.0]])
    assert not is_irreducible(matrix)
    assert stationary(matrix).tolist() == pytest.approx([5 / 16, 5 / 16, 3 / 8, 0], abs=1e-8)
    assert stationary(matrix, np.array([1.0, 1.0, 0, 0])).tolist() == pytest.approx([0.5, 0.5, 0, 0], abs=1e-8)


def test_states_never_seen_get_nothing_when_the_restart_follows_the_counts() -> None:
    counts = np.zeros((5, 5), dtype=np.int64)
    counts[1, 1], counts[1, 2], counts[2, 1] = 6, 3, 3
    matrix = transition_matrix(counts)
    pi = stationary(matrix, occupancy(counts))
    assert pi.tolist() == pytest.approx([0, 3 / 4, 1 / 4, 0], abs=1e-8)
    assert pi[0] == pi[3] == 0.0


@given(POSITIVE, st.data())
def test_any_chain_gives_a_fixed_point(weights: np.ndarray, data: st.DataObject) -> None:
    n = weights.shape[0]
    keep = data.draw(hnp.arrays(np.bool_, (n, n)))
    sparse = np.where(keep, weights, 0.0)
    for i in range(n):
        if not sparse[i].any():
            sparse[i, i] = 1.0
    matrix = sparse / sparse.sum(axis=1, keepdims=True)
    pi = stationary(matrix)
    assert math.fsum(pi) == pytest.approx(1.0, abs=1e-14)
    assert pi.min() >= 0
    assert np.abs(pi @ matrix - pi).max() <= 4 * RESTART


@pytest.mark.parametrize("shape", [(0, 0), (2, 3)])
def test_not_square(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="square"):
        stationary(np.ones(shape))


def test_restart_weights_must_fit() -> None:
    with pytest.raises(ValueError, match="restart"):
        stationary(np.eye(2), np.array([1.0]))
    assert stationary(np.eye(2), np.zeros(2)).tolist() == pytest.approx([0.5, 0.5])
