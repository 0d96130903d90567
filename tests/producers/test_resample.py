"""Onto the tick grid: nearest within half a tick, once, or missing; strays and breaks in the log."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.errors import TraceError
from producers.sample.nvidia_smi import Reading
from producers.sample.resample import MAX_GAP_MS, Resampler, Tick, to_array

T0 = 1_000_000


def run(times: list[int], gpu: int = 0) -> tuple[list[Tick], Resampler]:
    resampler = Resampler(100)
    return list(resampler.ticks(Reading(T0 + t, gpu, float(i)) for i, t in enumerate(times))), resampler


def powers(ticks: list[Tick]) -> list[float | None]:
    return [tick.get(0) for tick in ticks]


def test_nearest_reading_wins_the_tick_and_an_equal_one_comes_too_late() -> None:
    ticks, resampler = run([-40, -10, 10, 49, 50, 149])
    assert powers(ticks) == [1.0, 5.0]
    assert resampler.stats.surplus == 4


def test_a_gap_stays_a_gap() -> None:
    assert powers(run([0, 100, 400, 500])[0]) == [0.0, 1.0, None, None, 2.0, 3.0]


def test_a_slow_poller_leaves_a_missing_tick_rather_than_a_held_value() -> None:
    ticks, _ = run([round(104.5 * k) for k in range(200)])
    missing = sum(not tick for tick in ticks)
    assert len(ticks) == pytest.approx(209, abs=1)
    assert missing == len(ticks) - 200


@given(st.lists(st.integers(0, 300), min_size=1, max_size=60))
def test_agrees_with_the_definition(steps: list[int]) -> None:
    times = np.cumsum(steps).tolist()
    ticks, _ = run(times)
    first = (2 * (T0 + times[0]) + 100) // 200
    for offset, tick in enumerate(ticks):
        middle = (first + offset) * 100
        near = [(abs(T0 + t - middle), i) for i, t in enumerate(times) if -50 <= T0 + t - middle < 50]
        assert tick == ({0: float(min(near)[1])} if near else {})
    used = [power for tick in ticks for power in tick.values()]
    assert len(set(used)) == len(used)  # each reading once


def test_two_gpus_a_little_out_of_order() -> None:
    readings = [Reading(T0, 0, 1.0), Reading(T0 + 100, 1, 2.0), Reading(T0 + 10, 1, 3.0), Reading(T0 + 100, 0, 4.0)]
    assert list(Resampler(100).ticks(readings)) == [{0: 1.0, 1: 3.0}, {1: 2.0, 0: 4.0}]


def test_a_lone_time_far_off_is_dropped() -> None:
    for far in (10 * MAX_GAP_MS, -10 * MAX_GAP_MS):
        ticks, resampler = run([0, 100, far, 200, 300])
        assert powers(ticks) == [0.0, 1.0, 3.0, 4.0]
        assert (resampler.stats.stray, resampler.stats.breaks) == (1, 0)


def test_a_restart_of_the_log_is_one_missing_tick() -> None:
    for far in (10 * MAX_GAP_MS, -10 * MAX_GAP_MS, -3_600_000):
        ticks, resampler = run([0, 100, far, far + 100, far + 200])
        assert powers(ticks) == [0.0, 1.0, None, 2.0, 3.0, 4.0]
        assert (resampler.stats.stray, resampler.stats.breaks) == (0, 1)


@given(st.lists(st.integers(-(10**7), 10**7), max_size=40))
def test_any_times_are_survived_and_nothing_is_used_twice(times: list[int]) -> None:
    ticks, resampler = run(times)
    used = [power for tick in ticks for power in tick.values()]
    assert len(set(used)) == len(used)
    assert len(used) + resampler.stats.surplus + resampler.stats.stray == len(times)


def test_array_fills_gpus_that_appear_late_and_closes_gaps_in_the_index() -> None:
    found = to_array([{0: 1.0}, {0: 2.0, 5: 9.0}, {}])
    assert found.dtype == np.float32
    assert np.array_equal(found, np.array([[1, 2, math.nan], [math.nan, 9, math.nan]], np.float32), equal_nan=True)
    with pytest.raises(TraceError, match="no reading"):
        to_array([])


def test_a_log_beyond_all_bounds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producers.sample.resample.MAX_TICKS", 2)
    with pytest.raises(TraceError, match="ticks"):
        to_array([{0: 1.0}] * 3)
