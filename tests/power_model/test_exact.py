"""Sums that do not hang on their order, against `math.fsum`."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_model import exact

MAGNITUDES = st.floats(-1e9, 1e9)


@given(st.lists(MAGNITUDES, min_size=1, max_size=40), st.integers(1, 40), st.randoms(use_true_random=False))
def test_a_sum_is_near_the_exact_one_in_any_order(values: list[float], times: int, shuffler: random.Random) -> None:
    values = values * times
    found = exact.total(np.array(values))
    assert found == pytest.approx(math.fsum(values), abs=2.0**-45 * len(values) * max(map(abs, values)))
    shuffler.shuffle(values)
    assert exact.total(np.array(values)) == found


@given(st.lists(st.integers(-(2**30), 2**30), min_size=exact.FEW + 1, max_size=400))
def test_whole_numbers_are_summed_exactly(values: list[int]) -> None:
    assert exact.total(np.array(values, np.float64)) == sum(values)


def test_columns_products_and_groups_agree_with_sums_one_by_one() -> None:
    rng = np.random.default_rng(7)
    rows = rng.normal(0, 1e5, (300, 11)) * 10.0 ** rng.integers(-3, 3, 11)
    for column, found in enumerate(exact.columns(rows).tolist()):
        assert found == pytest.approx(math.fsum(rows[:, column].tolist()), abs=1e-3)
    assert (exact.columns(rows[::-1]) == exact.columns(rows)).all()
    assert exact.columns(rows[:0]).tolist() == [0.0] * 11
    assert exact.dot(rows[0], rows[1]) == pytest.approx(math.fsum((rows[0] * rows[1]).tolist()))
    codes = rng.integers(0, 5, 300)
    for code, found in enumerate(exact.grouped(rows[:, 0], codes, 6).tolist()):
        assert found == pytest.approx(math.fsum(rows[codes == code, 0].tolist()))


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_has_no_sum(wrong: float) -> None:
    with pytest.raises((ValueError, OverflowError)):
        exact.columns(np.array([[1.0], [wrong]]))
    with pytest.raises((ValueError, OverflowError)):
        exact.total(np.append(np.ones(exact.FEW), wrong))


def test_the_smallest_and_the_largest_floats_have_sums() -> None:
    many = exact.FEW + 1
    assert exact.total(np.zeros(many)) == 0.0
    assert exact.total(np.full(many, 5e-324)) == pytest.approx(0.0, abs=1e-300)
    assert exact.total(np.full(many, 1e305)) == pytest.approx(many * 1e305)
