"""Companions: members of a job are found, liars among them are outvoted, steady hosts stand for themselves."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_jobs.core.companions import COMPANIONS, MIN_COMPANIONS, companions_of

WINDOWS = 15
NOISE_W = 2.0


def fleet(rng: np.random.Generator, jobs: list[int], steady: int, windows: int = WINDOWS + 1) -> np.ndarray:
    """Claims float64[hosts, windows]: jobs in step between 100 and 600 W, then steady hosts; noise on all."""
    rows = [np.tile(rng.uniform(100, 600, windows), (size, 1)) for size in jobs]
    rows.append(np.tile(rng.uniform(100, 600, (steady, 1)), (1, windows)))
    claims = np.concatenate(rows)
    return claims + rng.normal(0, NOISE_W, claims.shape)


def order_of(claims: np.ndarray) -> np.ndarray:
    return np.arange(len(claims))


@pytest.mark.parametrize("size", [4, 8, 12, 24])
def test_members_of_a_job_have_each_other_and_nobody_else(size: int) -> None:
    claims = fleet(np.random.default_rng(size), [size, 10], 9)[:, :WINDOWS]
    found = companions_of(claims, order_of(claims))
    for row in range(size):
        others = {int(one) for one in found.rows[row] if one >= 0}
        assert others <= set(range(size)) - {row}
        assert len(others) >= min(size - 1, COMPANIONS) * 2 // 3
    assert (found.rows[size + 10 :] == -1).all(), "steady hosts need none"


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32), st.integers(5, 16), st.data())
def test_fewer_than_half_of_a_job_cannot_move_what_is_expected(seed: int, size: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    claims = fleet(rng, [size, 6], 5)
    past, now = claims[:, :WINDOWS], claims[:, WINDOWS].copy()
    found = companions_of(past, order_of(past))
    # Of a host's companions some are missing, so that a third of the job is what certainly stays below half of them.
    liars = data.draw(st.lists(st.integers(0, size - 1), max_size=(size - 1) // 3, unique=True))
    truth = now.copy()
    now[liars] = data.draw(st.sampled_from([0.0, 700.0, 1e6]))
    expected = found.expected_w(now)
    assert np.abs(expected[:size] - truth[:size]).max() < 12 * NOISE_W


@pytest.mark.parametrize("size", [4, 6, 8, 14])
@pytest.mark.parametrize("lie", [0.0, 1e6])
@pytest.mark.parametrize("truth", [20.0, 350.0, 900.0])
def test_half_of_a_job_moves_what_is_expected_no_further_than_to_the_own_level(
    size: int, lie: float, truth: float
) -> None:
    """Two against two: neither the truth nor a lie wins, unless it is nearer to what the hosts have always drawn."""
    claims = fleet(np.random.default_rng(size), [size, 6], 5)
    past, now = claims[:, :WINDOWS], claims[:, WINDOWS].copy()
    found = companions_of(past, order_of(past))
    now[:size] = truth
    now[: size // 2] = lie
    expected, level = found.expected_w(now)[:size], found.level_w[:size]
    assert (expected >= np.minimum(level, truth) - 6 * NOISE_W).all()
    assert (expected <= np.maximum(level, truth) + 6 * NOISE_W).all()


def test_a_job_that_leaves_its_past_range_is_followed() -> None:
    claims = fleet(np.random.default_rng(9), [8], 6)
    found = companions_of(claims[:, :WINDOWS], order_of(claims))
    now = claims[:, WINDOWS].copy()
    now[:8] = 900.0
    now[[1, 5, 6]] = [np.nan, 100.0, 1e6]
    np.testing.assert_allclose(found.expected_w(now)[:8], 900.0, atol=6 * NOISE_W)
    assert found.followed(now)[:8].all()
    assert not found.followed(now)[8:].any()


def test_too_few_companions_are_not_followed() -> None:
    claims = fleet(np.random.default_rng(3), [4], 6)
    found = companions_of(claims[:, :WINDOWS], order_of(claims))
    assert ((found.rows >= 0).sum(axis=1)[:4] == MIN_COMPANIONS).all()
    now = claims[:, WINDOWS].copy()
    assert found.followed(now)[:4].all()
    now[2] = np.nan
    assert found.followed(now).tolist() == [False, False, True] + [False] * 7
    assert (found.expected_w(now)[[0, 1, 3]] == found.level_w[[0, 1, 3]]).all()


def test_an_absent_host_is_expected_where_its_job_is() -> None:
    claims = fleet(np.random.default_rng(3), [8], 4)
    found = companions_of(claims[:, :WINDOWS], order_of(claims))
    now = claims[:, WINDOWS].copy()
    now[[0, 1, 9]] = np.nan
    expected = found.expected_w(now)
    np.testing.assert_allclose(expected, claims[:, WINDOWS], atol=8 * NOISE_W)


def test_past_residuals_are_in_the_range_and_narrower_than_the_own_range() -> None:
    claims = fleet(np.random.default_rng(4), [8], 6)[:, :WINDOWS]
    found = companions_of(claims, order_of(claims))
    for window in range(WINDOWS):
        residual = claims[:, window] - found.expected_w(claims[:, window])
        assert (residual >= found.low_w - 1e-9).all()
        assert (residual <= found.high_w + 1e-9).all()
    own = claims.max(axis=1) - claims.min(axis=1)
    assert (found.high_w - found.low_w <= own + 1e-9).all()
    assert (found.high_w - found.low_w)[:8].max() < 0.1 * own[:8].min()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_the_order_of_the_rows_does_not_matter(seed: int, same: bool) -> None:
    """Rows are numbered as the log has it; `order` says which host is which. Exact ties included."""
    rng = np.random.default_rng(seed)
    claims = fleet(rng, [9, 70, 20], 11)
    if same:
        claims = np.round(claims, -2)
    past, now = claims[:, :WINDOWS], claims[:, WINDOWS]
    shuffled = rng.permutation(len(claims))
    one = companions_of(past, order_of(past))
    other = companions_of(past[shuffled], np.argsort(shuffled))
    for figure in ("level_w", "low_w", "high_w"):
        np.testing.assert_array_equal(getattr(one, figure)[shuffled], getattr(other, figure))
    np.testing.assert_array_equal(one.expected_w(now)[shuffled], other.expected_w(now[shuffled]))


def test_hosts_with_gaps_or_without_claims_have_no_companions_and_are_none() -> None:
    claims = fleet(np.random.default_rng(5), [8], 4)[:, :WINDOWS]
    claims[0, 3] = np.nan
    claims[9] = np.nan
    found = companions_of(claims, order_of(claims))
    assert (found.rows[[0, 9]] == -1).all()
    assert not np.isin([0, 9], found.rows).any()
    assert np.isnan(found.level_w[9])
    assert np.isnan(found.expected_w(claims[:, 5])[9])
    assert found.expected_w(claims[:, 5])[0] == found.level_w[0]


def test_small_classes_and_no_history_are_no_special_case() -> None:
    for hosts in range(MIN_COMPANIONS + 1):
        claims = fleet(np.random.default_rng(6), [hosts], 0)[:, :WINDOWS]
        found = companions_of(claims, order_of(claims))
        assert (found.rows == -1).all()
        np.testing.assert_array_equal(found.expected_w(claims[:, 0]), found.level_w)
    empty = companions_of(np.zeros((5, 0)), np.arange(5))
    assert np.isnan(empty.expected_w(np.ones(5))).all()


def test_a_class_of_many_hosts_is_quick_and_jobs_in_it_are_found() -> None:
    rng = np.random.default_rng(7)
    claims = fleet(rng, [16] * 300, 5_200)
    started = time.process_time()
    found = companions_of(claims[:, :WINDOWS], order_of(claims))
    expected = found.expected_w(claims[:, WINDOWS])
    assert time.process_time() - started < 3.0
    away = np.abs(expected - claims[:, WINDOWS])[: 16 * 300]
    own = np.abs(found.level_w - claims[:, WINDOWS])[: 16 * 300]
    print(f"median residual {np.median(away):.1f} W, from the own level {np.median(own):.1f} W")
    assert np.median(away) < 0.1 * np.median(own)
