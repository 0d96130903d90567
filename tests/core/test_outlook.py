"""Forecasts and ramps of a domain: windows joined on one grid, and records with intervals or reasons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import Forecast
from stream_jobs.core.outlook import (
    FORECAST_QUANTILES_PPM,
    MAX_PANES,
    PaneHistory,
    forecasts,
    pane_series,
    power_ahead,
    ramps,
)

START_MS, PANE_MS, PANES = 1_767_225_600_000, 1_000, 60
CAPACITY_W = 1_000_000
HORIZONS_MS = (1_000, 10_000, 60_000)


def window_at(index: int, *, pane_ms: int = PANE_MS, panes: int = PANES, noise_w2: float = 4e6) -> PaneHistory:
    rng = np.random.default_rng([4, index])
    wave = np.where((np.arange(panes) + index * panes) // 17 % 2 == 0, 300_000.0, 450_000.0)
    power = tuple((wave + 2_000.0 * rng.normal(size=panes)).tolist())
    return PaneHistory(START_MS + index * panes * pane_ms, pane_ms, power, noise_w2)


def coming(history: list[PaneHistory], now: PaneHistory, *, coverage_w2: float = 0.0) -> tuple[Forecast, ...]:
    return forecasts(
        history, now, fast_w=5_000.0, capacity_w=CAPACITY_W, horizons_ms=HORIZONS_MS, coverage_w2=coverage_w2
    )


def test_every_horizon_has_every_quantile_with_its_interval() -> None:
    found = coming([window_at(index) for index in range(5)], window_at(5))
    assert [(one.horizon_ms, one.quantile_ppm) for one in found] == [
        (horizon, ppm) for horizon in HORIZONS_MS for ppm in FORECAST_QUANTILES_PPM
    ]
    for one in found:
        assert 0 <= one.estimate.low_w <= one.estimate.value_w <= one.estimate.high_w
    last = {one.horizon_ms: one.estimate.value_w for one in found if one.quantile_ppm == 990_000}
    assert 440_000 < last[60_000] < 480_000, "the wave's crest"


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(6)), st.sets(st.integers(0, 5)))
def test_the_order_of_the_history_does_not_matter_and_windows_may_be_missing(
    order: list[int], missing: set[int]
) -> None:
    kept = [window_at(index) for index in order if index not in missing]
    assert coming(kept, window_at(6)) == coming(sorted(kept, key=lambda one: one.start_ms), window_at(6))


def test_holes_stay_holes_and_strangers_are_left_out() -> None:
    now = window_at(6)
    series = pane_series([window_at(2), window_at(5)], now, fast_w=0.0, capacity_w=1.0)
    assert series is not None
    assert series.panes_w.size == 5 * PANES
    assert int(np.isnan(series.panes_w).sum()) == 2 * PANES
    assert np.array_equal(np.isnan(series.panes_w), np.isnan(series.noise_w2))
    assert series.panes_w[-PANES:].tolist() == list(now.panes_w)
    strangers = [
        replace(window_at(4), pane_ms=500),
        replace(window_at(4), start_ms=window_at(4).start_ms + 1),
        now,
        window_at(7),
        replace(window_at(5), start_ms=window_at(5).start_ms + PANE_MS),
        replace(now, start_ms=now.start_ms - MAX_PANES * PANE_MS),
    ]
    alone = pane_series(strangers, now, fast_w=0.0, capacity_w=1.0)
    assert alone is not None
    assert alone.panes_w.tolist() == list(now.panes_w)
    assert pane_series([], replace(now, panes_w=()), fast_w=0.0, capacity_w=1.0) is None
    assert coming([], replace(now, panes_w=())) == ()


def test_horizons_are_in_time_not_in_panes() -> None:
    """Panes of half a second: a second ahead is two of them."""
    rng = np.random.default_rng(8)
    rise = np.cumsum(np.where(rng.random(240) < 0.5, -1.0, 1.0)) * 1_000.0 + 400_000.0
    now = PaneHistory(START_MS, 500, tuple(rise.tolist()), 0.0)
    slow = PaneHistory(START_MS, 1_000, tuple(rise.tolist()), 0.0)
    wide, narrow = (
        forecasts([], one, fast_w=0.0, capacity_w=CAPACITY_W, horizons_ms=(4_000,))[-1].estimate.value_w
        for one in (now, slow)
    )
    assert wide == forecasts([], slow, fast_w=0.0, capacity_w=CAPACITY_W, horizons_ms=(8_000,))[-1].estimate.value_w
    assert wide > narrow


def test_little_history_is_said_by_the_interval() -> None:
    """The same minute again and again: the first time the interval reaches far, at the thirtieth it does not."""
    quiet = [replace(window_at(index), panes_w=(400_000.0,) * PANES) for index in range(31)]
    first, last = (
        next(one.estimate for one in coming(quiet[:count], quiet[count]) if one.horizon_ms == 60_000)
        for count in (0, 30)
    )
    assert first.high_w - first.low_w > last.high_w - last.low_w
    ends = [coming(quiet[:count], quiet[count])[-1].estimate for count in (0, 30)]
    assert ends[0].high_w > 0.9 * CAPACITY_W
    assert ends[1].value_w < 450_000


def test_hosts_that_did_not_report_widen_the_interval_alone() -> None:
    history = [window_at(index) for index in range(5)]
    whole, part = coming(history, window_at(5)), coming(history, window_at(5), coverage_w2=1e10)
    for one, other in zip(whole, part, strict=True):
        assert one.estimate.value_w == other.estimate.value_w
        assert other.estimate.high_w - other.estimate.value_w > max(195_000, one.estimate.high_w - one.estimate.value_w)


def test_a_margin_that_looks_ahead_takes_the_forecast() -> None:
    history, now = [window_at(index) for index in range(5)], window_at(5)
    ahead = {
        confidence: power_ahead(
            history,
            now,
            fast_w=5_000.0,
            capacity_w=CAPACITY_W,
            horizon_ms=10_000,
            quantile_ppm=990_000,
            confidence_ppm=confidence,
            coverage_w2=coverage_w2,
        )
        for confidence, coverage_w2 in ((800_000, 0.0), (950_000, 0.0), (999_000, 1e10))
    }
    (expected,) = (one for one in coming(history, now) if (one.horizon_ms, one.quantile_ppm) == (10_000, 990_000))
    wide, narrow, least = ahead[950_000], ahead[800_000], ahead[999_000]
    assert least is not None
    assert least.high_w - least.value_w > 3 * 1e5, "what did not report is in it"
    assert wide == expected.estimate
    assert wide is not None
    assert narrow is not None
    assert wide.low_w <= narrow.low_w <= narrow.high_w <= wide.high_w
    assert narrow != wide
    nothing = replace(now, panes_w=())
    assert (
        power_ahead(
            history, nothing, fast_w=0.0, capacity_w=1, horizon_ms=1, quantile_ppm=500_000, confidence_ppm=900_000
        )
        is None
    )


def test_ramps_are_per_second_at_any_pane_length() -> None:
    for pane_ms in (250, 500, 1_000):
        seconds = np.arange(30_000 // pane_ms) * pane_ms // 1_000
        panes = 400_000.0 + np.where(seconds >= 10, 50_000.0, 0.0) - np.where(seconds >= 20, 20_000.0, 0.0)
        up, down = ramps(PaneHistory(START_MS, pane_ms, tuple(panes.tolist()), 0.0), hosts=32)
        assert (up.direction, up.rate_w_per_s, down.direction, down.rate_w_per_s) == ("up", 50_000, "down", 20_000)
    up, _ = ramps(PaneHistory(START_MS, 2_000, tuple(panes[::2].tolist()), 0.0), hosts=32)
    assert up.rate_w_per_s == 25_000


def test_ramps_have_intervals_that_noise_and_missing_hosts_widen() -> None:
    now = window_at(3)
    up, down = ramps(now, hosts=32)
    for one in (up, down):
        assert one.low_w_per_s is not None
        assert one.rate_w_per_s is not None
        assert one.high_w_per_s is not None
        assert 0 < one.low_w_per_s < one.rate_w_per_s < one.high_w_per_s
        assert one.low_w_per_s < 150_000 < one.high_w_per_s
    few, _ = ramps(now, hosts=1)
    part, _ = ramps(now, hosts=32, missing_ppm=250_000)
    assert few.high_w_per_s is not None
    assert up.high_w_per_s is not None
    assert up.low_w_per_s is not None
    assert few.high_w_per_s > up.high_w_per_s
    assert part.rate_w_per_s == up.rate_w_per_s
    assert part.low_w_per_s == pytest.approx(0.75 * up.low_w_per_s, abs=1)
    assert part.high_w_per_s == pytest.approx(1.25 * up.high_w_per_s, abs=1)


@pytest.mark.parametrize("panes", [0, 1, 2])
def test_too_few_panes_give_a_reason(panes: int) -> None:
    for one in ramps(PaneHistory(START_MS, PANE_MS, (1.0,) * panes, 1.0), hosts=4):
        assert one.rate_w_per_s is one.low_w_per_s is one.high_w_per_s is None
        assert one.rate_w_per_s_absent_reason
        assert one.low_w_per_s_absent_reason
        assert one.high_w_per_s_absent_reason
