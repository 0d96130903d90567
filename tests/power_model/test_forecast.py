"""Forecasts against processes whose law is known, against brute force, and at the edges of what a history can say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_model.forecast import Law, PaneSeries

Floats = npt.NDArray[np.float64]

WINDOW, CAPACITY_W = 60, 100_000.0
HORIZONS = (1, 10, 60)
SHARES = (0.5, 0.9, 0.99)


def series_of(panes: Floats, *, noise_w2: float = 0.0, fast_w: float = 0.0) -> PaneSeries:
    return PaneSeries(panes, np.full(panes.size, noise_w2), min(WINDOW, panes.size), fast_w, CAPACITY_W)


def drifting(rng: np.random.Generator, count: int) -> Floats:
    """Gauss-Markov power around 40 kW, 4 kW to either side, forgotten after about 15 panes."""
    keep = math.exp(-1 / 15)
    values = np.empty(count)
    values[0] = rng.normal()
    for index in range(1, count):
        values[index] = keep * values[index - 1] + math.sqrt(1 - keep * keep) * rng.normal()
    return 40_000.0 + 4_000.0 * values


def switching(rng: np.random.Generator, count: int) -> Floats:
    """A job of 20 kW that runs and rests for 5 to 40 panes each, on a base that hardly moves."""
    state, values = bool(rng.random() < 0.5), np.empty(0)
    while values.size < count:
        values = np.concatenate([values, np.full(int(rng.integers(5, 40)), 50_000.0 if state else 30_000.0)])
        state = not state
    return values[:count] + 300.0 * rng.normal(size=count)


def outcomes(
    process: Callable[[np.random.Generator, int], Floats], *, windows: int, noise_w: float, trials: int
) -> Iterator[tuple[int, list[float], float, float]]:
    """Per trial and horizon: forecasts of p50, p90 and p99, what came, and the newest true pane."""
    size = windows * WINDOW
    for trial in range(trials):
        rng = np.random.default_rng([31, windows, trial])
        truth = process(rng, size + max(HORIZONS))
        noisy = truth[:size] + noise_w * rng.normal(size=size)
        series = series_of(noisy, noise_w2=noise_w * noise_w)
        for horizon in HORIZONS:
            came = float(truth[size + horizon - 1])
            yield horizon, series.after(horizon).quantiles_w(SHARES), came, float(truth[size - 1])


def loss(came: float, forecast: float, share: float) -> float:
    """Pinball loss."""
    return max(share * (came - forecast), (share - 1.0) * (came - forecast))


@pytest.mark.parametrize("noise_w", [0.0, 800.0])
@pytest.mark.parametrize("process", [drifting, switching])
def test_quantiles_are_exceeded_as_often_as_they_say(
    process: Callable[[np.random.Generator, int], Floats], noise_w: float
) -> None:
    trials = 150
    exceeded = {(horizon, share): 0 for horizon in HORIZONS for share in SHARES}
    ours, naive = dict.fromkeys(HORIZONS, 0.0), dict.fromkeys(HORIZONS, 0.0)
    for horizon, forecast, came, newest in outcomes(process, windows=5, noise_w=noise_w, trials=trials):
        for share, power in zip(SHARES, forecast, strict=True):
            exceeded[horizon, share] += came > power
        ours[horizon] += loss(came, forecast[-1], 0.99)
        naive[horizon] += loss(came, newest, 0.99)
    for (horizon, share), count in exceeded.items():
        expected = trials * (1 - share)
        slack = 4 * math.sqrt(trials * share * (1 - share)) + 0.05 * trials
        assert expected - slack <= count <= expected + min(slack, 4.0 + 2.0 * expected), (horizon, share, count)
    for horizon in HORIZONS:
        assert ours[horizon] < 0.5 * naive[horizon], horizon


@pytest.mark.parametrize("noise_w", [0.0, 800.0])
def test_intervals_hold_the_true_quantile(noise_w: float) -> None:
    """Ten windows of a process whose law given the newest power is known."""
    trials, held = 80, {(horizon, share): 0 for horizon in HORIZONS for share in SHARES}
    for trial in range(trials):
        rng = np.random.default_rng([41, trial])
        truth = drifting(rng, 10 * WINDOW)
        series = series_of(truth + noise_w * rng.normal(size=truth.size), noise_w2=noise_w * noise_w)
        for horizon in HORIZONS:
            keep = math.exp(-horizon / 15)
            middle = 40_000.0 + keep * (float(truth[-1]) - 40_000.0)
            found = series.after(horizon).estimates_w(SHARES, 0.95)
            for share, (_, low, high) in zip(SHARES, found, strict=True):
                true = middle + 4_000.0 * math.sqrt(1 - keep * keep) * NormalDist().inv_cdf(share)
                held[horizon, share] += low <= true <= high
    assert min(held.values()) >= 0.78 * trials, held
    assert sum(held.values()) >= 0.93 * trials * len(held), held


def test_a_longer_horizon_is_wider_and_one_level_is_conditioned_on() -> None:
    """At the top of a swing the next second cannot rise far; at its foot it can."""
    rng = np.random.default_rng(5)
    panes = np.where(np.arange(600) // 25 % 2 == 0, 30_000.0, 50_000.0) + 200.0 * rng.normal(size=600)
    foot, top = series_of(panes[:570]), series_of(panes[:590])
    assert abs(panes[569] - 30_000.0) < 1_000.0 < abs(panes[589] - 30_000.0)
    assert top.after(1).quantiles_w([0.99])[0] < 52_000.0
    assert foot.after(1).quantiles_w([0.5])[0] < 31_000.0
    assert foot.after(1).quantiles_w([0.99])[0] > 48_000.0
    assert top.after(1).quantiles_w([0.5])[0] > 49_000.0
    widths = [np.diff(foot.after(horizon).quantiles_w([0.05, 0.95]))[0] for horizon in (1, 5, 10)]
    assert widths == sorted(widths)


def test_little_history_makes_a_wide_forecast_and_a_long_one_a_narrow() -> None:
    rng = np.random.default_rng(6)
    panes = 40_000.0 + 100.0 * rng.normal(size=1_800)
    widths = [series_of(panes[-count:]).after(60).quantiles_w([0.99])[0] - 40_000.0 for count in (2, 60, 300, 1_800)]
    assert widths[0] > 50_000.0, "two panes say nothing of the next minute"
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 1_000.0
    law = series_of(panes[-60:]).after(60)
    ((_, low, high),) = law.estimates_w([0.99], 0.95)
    assert low < 41_000.0, "the quiet minute may be all there is"
    assert high > 90_000.0, "a minute cannot bound the next"


def test_one_pane_alone() -> None:
    low, middle, high = series_of(np.array([40_000.0])).after(60).quantiles_w([0.01, 0.5, 0.99])
    assert low < 10_000.0
    assert middle == pytest.approx(40_000.0, abs=1.0)
    assert high > 90_000.0


@pytest.mark.parametrize("noise_w", [300.0, 1_000.0])
def test_noise_above_the_true_movement_neither_narrows_nor_swells_a_forecast(noise_w: float) -> None:
    """True power moves by 600 W around its mean: what is not known of its level now belongs to the forecast."""

    def gentle(rng: np.random.Generator, count: int) -> Floats:
        return 40_000.0 + 0.15 * (drifting(rng, count) - 40_000.0)

    trials, exceeded, above = 120, dict.fromkeys(HORIZONS, 0), []
    for horizon, forecast, came, _ in outcomes(gentle, windows=10, noise_w=noise_w, trials=trials):
        exceeded[horizon] += came > forecast[-1]
        if horizon == 10:
            above.append(forecast[-1] - 40_000.0)
    assert max(exceeded.values()) <= 5, "of 120; 1.2 are expected"
    assert float(np.mean(above)) < 600.0 * NormalDist().inv_cdf(0.99) + 500.0


def test_what_moves_inside_panes_is_added() -> None:
    panes = 40_000.0 + 50.0 * np.random.default_rng(1).normal(size=1_800)
    quiet, lively = (series_of(panes, fast_w=fast_w).after(1).quantiles_w([0.99])[0] for fast_w in (0.0, 2_000.0))
    assert lively - quiet == pytest.approx(2_000.0 * NormalDist().inv_cdf(0.99), rel=0.15)


def test_swings_are_counted_without_the_small_ones() -> None:
    rng = np.random.default_rng(2)
    wave = np.where(np.arange(400) // 50 % 2 == 0, 30_000.0, 50_000.0) + 500.0 * rng.normal(size=400)
    assert series_of(wave).swings == 7
    assert series_of(30_000.0 + 500.0 * rng.normal(size=400)).swings == 0, "below 4 % of the capacity"
    assert series_of(np.linspace(10_000.0, 60_000.0, 400)).swings == 1


def test_levels_follow_a_jump_at_once_and_average_noise_out() -> None:
    rng = np.random.default_rng(3)
    truth = np.where(np.arange(300) < 200, 30_000.0, 60_000.0)
    series = series_of(truth + 1_000.0 * rng.normal(size=300), noise_w2=1e6)
    errors = series.levels_w - truth
    assert abs(errors[200]) < 4_000.0
    assert np.sqrt(np.mean(np.square(errors[50:200]))) < 600.0


@st.composite
def histories(draw: st.DrawFn) -> tuple[Floats, float, float]:
    """Panes with holes, noise variance and fast spread."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    recent = draw(st.integers(1, 20))
    older = draw(st.integers(0, 80))
    panes = 50_000.0 + np.cumsum(rng.normal(size=recent + older)) * draw(st.sampled_from([0.0, 10.0, 3_000.0]))
    for _ in range(draw(st.integers(0, 3))):
        if older:
            start = draw(st.integers(0, older - 1))
            panes[start : min(start + draw(st.integers(1, 30)), older)] = math.nan
    return panes, draw(st.sampled_from([0.0, 1e4, 1e6])), draw(st.sampled_from([0.0, 500.0]))


@settings(max_examples=60, deadline=None)
@given(histories(), st.sampled_from([0.5, 1.0, 2.5, 10.0, 300.0]))
def test_any_history_gives_ordered_bounded_quantiles_with_intervals(
    history: tuple[Floats, float, float], horizon: float
) -> None:
    panes, noise_w2, fast_w = history
    recent = int(np.argmax(np.append(np.isnan(panes[::-1]), True)))
    noise = np.where(np.isnan(panes), math.nan, noise_w2)
    law = PaneSeries(panes, noise, recent, fast_w, CAPACITY_W).after(horizon)
    found = law.estimates_w(SHARES, 0.95)
    values = [value for value, _, _ in found]
    assert values == sorted(values)
    assert all(0.0 <= low <= value <= high for value, low, high in found)
    reach = max(CAPACITY_W, float(np.nanmax(panes)) + float(np.nanmax(panes)) - float(np.nanmin(panes)))
    assert values[-1] <= reach + 3.0 * fast_w + 4.0 * math.sqrt(noise_w2)
    again = PaneSeries(panes.copy(), noise, recent, fast_w, CAPACITY_W).after(horizon).estimates_w(SHARES, 0.95)
    assert again == found
    doubled = PaneSeries(2 * panes, 4 * noise, recent, 2 * fast_w, 2 * CAPACITY_W).after(horizon)
    assert np.array(doubled.estimates_w(SHARES, 0.95)) == pytest.approx(2 * np.array(found), rel=1e-9)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 50)), min_size=1, max_size=12),
    st.sampled_from([0.0, 7.0, 300.0]),
    st.floats(0.01, 0.99),
)
def test_quantiles_of_a_law_are_those_of_the_blurred_sample(
    atoms: list[tuple[int, int]], spread: float, share: float
) -> None:
    atoms.sort()
    law = Law(
        np.array([float(value) for value, _ in atoms]),
        np.cumsum(np.array([weight for _, weight in atoms], dtype=np.int64)),
        spread,
        10.0,
        0.0,
    )
    nodes = [NormalDist().inv_cdf((i + 0.5) / 64) * spread for i in range(64)]
    expanded = sorted((value + node, weight) for value, weight in atoms for node in nodes)
    mass = np.cumsum([weight for _, weight in expanded])
    value, _ = expanded[int(np.argmax(mass >= share * mass[-1]))]
    assert law.quantiles_w([share])[0] == pytest.approx(max(value, 0.0), abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_is_inside_zero_and_one(share: float) -> None:
    with pytest.raises(ValueError, match="0 < p < 1"):
        series_of(np.array([1.0, 2.0, 3.0])).after(1).quantiles_w([share])


def test_bad_series_and_horizons() -> None:
    panes = np.array([1.0, 2.0, math.nan])
    with pytest.raises(ValueError, match="all its panes"):
        PaneSeries(panes, np.zeros(3), 2, 0.0, 10.0)
    with pytest.raises(ValueError, match="all its panes"):
        PaneSeries(panes[:2], np.zeros(2), 3, 0.0, 10.0)
    with pytest.raises(ValueError, match="per pane"):
        PaneSeries(panes, np.zeros(2), 1, 0.0, 10.0)
    with pytest.raises(ValueError, match="looks ahead"):
        series_of(np.array([1.0, 2.0])).after(0.0)
