"""One reading of the sensor fills one tick at most, and which ticks stay empty is decided by time alone."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from producers.config import Schedule
from producers.sample import probe
from producers.sample.freshness import ScheduleFreshness, TimestampFreshness
from producers.sample.nvml_sampler import open_sampler
from producers.sample.plan import FreshnessClock
from tests.producers.fake_gpu import FakeGpu, Signal, busy
from tests.producers.fake_nvml import START_NS, FakeNvml, StepClock, gpus_of

SCHEDULE = Schedule(window_ms=10_000)
WINDOWS = 2
EXAMPLES = {"test": 1, "soak": 100, "accept": 300}[os.environ.get("ENCLAVESCALE_TIER", "test")]
A100 = (101.0, 104.0, 102.0, 103.0, 104.0, 101.0)
"""The measured spread of an A100's update times, ms."""


class NumberedGpu(FakeGpu):
    """Every update of its sensor reads another power, so that a reading tells which update it was."""

    def reading_mw(self, index: int, window_ms: float | None = None) -> int:
        return index % 400_000 + (400_000 if window_ms == 777.0 else 0)


def numbered(count: int = 2, **same: object) -> list[FakeGpu]:
    return [
        NumberedGpu(**{name: getattr(gpu, name) for name in ("uuid", "bus", "phase_ms")} | same)
        for gpu in gpus_of(count)
    ]


def sample(
    gpus: Sequence[FakeGpu], seed: int, late_us: int, call_us: int, *, signal: Signal | None = None
) -> np.ndarray:
    """Readings of two windows, float32[gpus, ticks], with random lateness of wakings and random lengths of calls."""
    clock = StepClock()
    fake = FakeNvml(gpus, clock)
    with fake.installed(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "LOOK_S", 1.2)
        patch.setattr(probe, "PROBE_S", 1.2)
        sampler = open_sampler({gpus[0].name: len(gpus)}, SCHEDULE, clock=clock)
        dice = random.Random(seed)
        clock.late_ns = lambda: dice.randrange(late_us * 1000 + 1)
        for gpu in gpus:
            gpu.signal = signal or gpu.signal
            gpu.on_call = lambda: clock.__setattr__("now_ns", clock.now_ns + dice.randrange(call_us * 1000 + 1))
        end_ns = START_NS + (WINDOWS + 1) * 10_000_000_000
        while clock.utc_ns() < end_ns:
            sampler.step()
        start_ms = START_NS // 1_000_000 + SCHEDULE.window_ms
        source = sampler.source(gpus[0].name)
        found = [source.window(at, at + SCHEDULE.window_ms) for at in (start_ms, start_ms + SCHEDULE.window_ms)]
        sampler.close()
    return np.concatenate(found, axis=1)


SENSORS: dict[str, tuple[FreshnessClock, dict[str, object]]] = {
    "driver's time of the update": ("sensor", {"field_time": "sensor"}),
    "ring buffer": ("samples", {"ring": "sensor"}),
    "no time": ("schedule", {}),
    "another sensor's ring buffer": ("schedule", {"ring": "other"}),
}
UPDATES = {"100 ms": (100.0,), "A100": A100, "V100": (20.0,)}


@pytest.mark.every_tier
@pytest.mark.parametrize("sensor", SENSORS)
@pytest.mark.parametrize("updates", UPDATES)
@given(st.integers(0, 2**32), st.sampled_from([0, 300, 5_000, 60_000]), st.sampled_from([0, 200, 4_000, 30_000]))
@example(1, 0, 0)
@settings(max_examples=EXAMPLES, deadline=None)
def test_one_reading_fills_one_tick_at_most(sensor: str, updates: str, seed: int, late_us: int, call_us: int) -> None:
    gpus = numbered(update_ms=UPDATES[updates], **SENSORS[sensor][1])
    for row in sample(gpus, seed, late_us, call_us):
        read = row[~np.isnan(row)]
        assert len(np.unique(read)) == len(read)
        assert (np.diff(read) > 0).all()
        if late_us <= 300 and call_us <= 200:
            assert len(read) >= 0.9 * len(row)


@pytest.mark.every_tier
@pytest.mark.parametrize("updates", UPDATES)
@given(st.integers(0, 2**32), st.sampled_from([0, 300, 5_000, 60_000]), st.sampled_from([500, 2_000, 8_000, 30_000]))
@example(2, 300, 2_000)
@settings(max_examples=EXAMPLES, deadline=None)
def test_one_reading_fills_one_tick_at_most_of_eight_gpus_with_slow_calls(
    updates: str, seed: int, late_us: int, call_us: int
) -> None:
    """Rounds of up to a quarter of a second, and of a sensor that no timestamp helps with."""
    for row in sample(numbered(8, update_ms=UPDATES[updates]), seed, late_us, call_us):
        read = row[~np.isnan(row)]
        assert (np.diff(read) > 0).all()
        if late_us <= 300 and call_us <= 2_000:
            assert len(read) >= 0.9 * len(row)


@pytest.mark.every_tier
@pytest.mark.parametrize("sensor", SENSORS)
@given(seed=st.integers(0, 2**32), late_us=st.sampled_from([300, 60_000]), level=st.sampled_from([0.0, 75.0, 1e6]))
@settings(max_examples=EXAMPLES, deadline=None)
def test_which_ticks_stay_empty_does_not_depend_on_the_power(
    sensor: str, seed: int, late_us: int, level: float
) -> None:
    """Once a GPU is probed: a power that stands still is missing where one that moves is."""
    moving, still = (
        sample(gpus_of(2, update_ms=A100, **SENSORS[sensor][1]), seed, late_us, 2_000, signal=signal)
        for signal in (busy, lambda _: level)
    )
    assert np.array_equal(np.isnan(moving), np.isnan(still))


@pytest.mark.parametrize("sensor", SENSORS)
def test_the_clock_is_the_best_that_the_sensor_has(sensor: str) -> None:
    wanted, same = SENSORS[sensor]
    fake = FakeNvml(numbered(**same))
    with fake.installed():
        sampler = open_sampler({fake.gpus[0].name: 2}, SCHEDULE, clock=fake.clock)
        assert {plan.clock for plan in sampler.plans.values()} == {wanted}
        sampler.close()


def test_ticks_longer_than_the_bound_lose_nothing_without_a_clock() -> None:
    """8 Hz: a sensor of 100 ms without timestamps has a fresh reading at every tick."""
    fake = FakeNvml(numbered())
    schedule = Schedule(window_ms=10_000, sample_hz=8)
    with fake.installed():
        sampler = open_sampler({fake.gpus[0].name: 2}, schedule, clock=fake.clock)
        while fake.clock.utc_ns() < START_NS + 20_000_000_000:
            sampler.step()
        start_ms = START_NS // 1_000_000 + 10_000
        assert not np.isnan(sampler.source(fake.gpus[0].name).window(start_ms, start_ms + 10_000)).any()
        sampler.close()


@given(st.lists(st.integers(0, 20), max_size=30))
def test_a_timestamp_counts_once(stamps: list[int]) -> None:
    fresh = TimestampFreshness()
    taken = [stamp for stamp in stamps if fresh.accept(stamp)]
    rises = [i for i in range(1, len(stamps)) if stamps[i] > stamps[i - 1]]
    assert taken == stamps[:1] + [stamps[i] for i in rises]


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 50)), max_size=30), st.integers(1, 150))
def test_polls_that_count_are_a_bound_apart(steps: list[tuple[int, int]], upper: int) -> None:
    fresh, now, taken = ScheduleFreshness(upper), 0, []
    for wait, length in steps:
        began = now + wait
        now = began + length
        if fresh.accept(began, now):
            taken.append((began, now))
    assert all(after[0] - before[1] >= upper for before, after in itertools.pairwise(taken))
    assert bool(taken) == bool(steps)
