"""Quantiles and the noise distribution against scipy and plain sums."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from power_model.noise import (
    discrete_laplace_bound,
    discrete_laplace_pmf,
    discrete_laplace_tail,
    discrete_laplace_variance,
)
from power_model.quantiles import chi_square_quantile, discrete_quantile, normal_quantile, variance_interval

SCALES = st.floats(0.2, 40)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=20).filter(any), st.integers(1, 1000))
def test_discrete_quantile_is_the_smallest_value_with_enough_mass(weights: list[int], permille: int) -> None:
    values = [float(i) for i in range(len(weights))]
    expected = next(i for i in values if sum(weights[: int(i) + 1]) * 1000 >= permille * sum(weights))
    assert discrete_quantile(values, [float(w) for w in weights], permille / 1000) == expected


def test_ten_equal_weights_are_not_off_by_a_rounding() -> None:
    assert [discrete_quantile(range(10), [0.1] * 10, p / 10) for p in range(1, 11)] == list(range(10))


@pytest.mark.parametrize(
    ("values", "weights", "p"),
    [([], [], 0.5), ([1], [1, 2], 0.5), ([1], [1], 0), ([1], [0], 0.5), ([2, 1], [1, 1], 0.5), ([1, 2], [2, -1], 0.5)],
)
def test_bad_distributions(values: list[float], weights: list[float], p: float) -> None:
    with pytest.raises(ValueError, match=r"need|must|mass"):
        discrete_quantile(values, weights, p)


@given(st.floats(1e-6, 1 - 1e-6))
def test_normal_quantile(p: float) -> None:
    assert normal_quantile(p) == pytest.approx(stats.norm.ppf(p), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("dof", "tolerance"), [(10, 0.03), (59, 0.002), (60, 0.001), (600, 0.0002)])
@pytest.mark.parametrize("p", [0.005, 0.025, 0.5, 0.975, 0.995])
def test_chi_square_is_as_near_as_its_docstring_says(p: float, dof: int, tolerance: float) -> None:
    assert chi_square_quantile(p, dof) == pytest.approx(stats.chi2.ppf(p, dof), rel=tolerance)


def test_variance_interval_encloses_and_widens() -> None:
    low, high = variance_interval(4.0, 59, 0.95)
    assert low < 4.0 < high
    assert low == pytest.approx(59 * 4 / stats.chi2.ppf(0.975, 59), rel=2e-3)
    assert variance_interval(4.0, 59, 0.99)[1] > high
    assert variance_interval(4.0, 0.05, 0.99)[1] == math.inf
    for bad in ((4.0, 5, 1.0), (-1.0, 5, 0.9), (4.0, 0, 0.9)):
        with pytest.raises(ValueError, match=r"need|dof"):
            variance_interval(*bad)


@given(SCALES)
def test_variance_is_that_of_the_pmf(scale: float) -> None:
    reach = range(1, int(60 * scale) + 60)
    total = 2 * math.fsum(discrete_laplace_pmf(k, scale) for k in reach) + discrete_laplace_pmf(0, scale)
    assert total == pytest.approx(1.0, rel=1e-12)
    expected = 2 * math.fsum(k * k * discrete_laplace_pmf(k, scale) for k in reach)
    assert discrete_laplace_variance(scale) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("scale", [0.5, 13.333334, 1e4, 1e6])
def test_variance_of_large_scales_tends_to_the_continuous_one(scale: float) -> None:
    p = math.exp(-1 / scale)
    assert discrete_laplace_variance(scale) == pytest.approx(2 * p / (1 - p) ** 2, rel=1e-6)
    assert discrete_laplace_variance(scale) < 2 * scale**2


@given(SCALES, st.floats(1e-30, 0.9))
def test_bound_is_the_smallest(scale: float, probability: float) -> None:
    bound = discrete_laplace_bound(probability, scale)
    assert discrete_laplace_tail(bound, scale) <= probability
    assert bound == 0 or discrete_laplace_tail(bound - 1, scale) > probability


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_a_scale_must_be_positive(scale: float) -> None:
    with pytest.raises(ValueError, match="scale"):
        discrete_laplace_variance(scale)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_a_bound_needs_a_probability(probability: float) -> None:
    with pytest.raises(ValueError, match="probability"):
        discrete_laplace_bound(probability, 1.0)
