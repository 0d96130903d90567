"""Simulated GPUs: the same everywhere, like a training job, and the same through the sampler as asked directly."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.config import Schedule
from producers.sample.sampler import Sampler
from producers.sample.simulated import BLOCK_TICKS, SPREAD, SimulatedJob, SimulatedReader, SimulatedSource
from schemas.errors import ConfigError
from tests.producers.forge import START_MS

SCHEDULE = Schedule(window_ms=10_000)
PINNED = [[637.08, 660.58, 663.83], [647.94, 663.42, 644.73]]
JOB = SimulatedJob(gpus=8, limit_w=700, seed="job-1")
HOUR = 36_000


@dataclass
class StepClock:
    """Both clocks, moved by waiting alone."""

    now_ns: int = START_MS * 1_000_000
    origin_ns: int = START_MS * 1_000_000 - 5_000_000_000
    waits: list[float] = field(default_factory=list)

    def monotonic_ns(self) -> int:
        return self.now_ns - self.origin_ns

    def utc_ns(self) -> int:
        return self.now_ns

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now_ns += round(seconds * 1e9)
        return False


def ticks(start: int, count: int) -> np.ndarray:
    return np.arange(start, start + count, dtype=np.int64)


@given(st.integers(0, 2**34), st.integers(1, 50), st.integers(0, 60))
def test_a_tick_is_the_same_however_it_is_asked(start: int, count: int, skip: int) -> None:
    whole = JOB.power_w(ticks(start, count + skip))
    assert np.array_equal(whole[:, skip:], JOB.power_w(ticks(start + skip, count)))


def test_the_first_watts_are_pinned() -> None:
    """Deterministic across machines: a change of these numbers is a change of every simulated fleet."""
    pinned = SimulatedJob(gpus=2, limit_w=700, seed="pinned").power_w(ticks(START_MS // 100, 3))
    assert [[round(float(x), 2) for x in row] for row in pinned] == PINNED


def test_it_swings_like_a_job_and_its_gpus_move_together() -> None:
    watts = JOB.power_w(ticks(START_MS // 100, 2 * HOUR))
    assert 0.10 * 700 < watts.min() < 0.2 * 700 < 0.9 * 700 < watts.max() <= (0.93 + SPREAD) * 700
    assert np.corrcoef(watts).min() > 0.98
    assert len(np.unique(watts[0])) > 10_000, "a sensor never repeats itself for long"
    idle = (watts[0] < 0.2 * 700).mean()
    assert 0.05 < idle < 0.12, "five minutes of every hour"


def test_hosts_of_one_seed_run_in_step_and_others_do_not() -> None:
    span = ticks(START_MS // 100, HOUR)
    mine = JOB.power_w(span)[0]
    assert np.array_equal(mine, SimulatedJob(gpus=1, limit_w=700, seed="job-1").power_w(span)[0])
    assert np.corrcoef(mine, SimulatedJob(gpus=1, limit_w=700, seed="job-2").power_w(span)[0])[0, 1] < 0.9


@pytest.mark.parametrize("wrong", [{"gpus": 0}, {"limit_w": 0}, {"tick_ms": 0}])
def test_a_job_needs_something_to_run_on(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        SimulatedJob(**{"gpus": 1, "limit_w": 1, "seed": "", "tick_ms": 1, **wrong})


def test_the_sources_counters_agree_with_its_readings() -> None:
    source = SimulatedSource(JOB)
    watts = source.window(START_MS, START_MS + 10_000)
    seen = source.conditions(START_MS, START_MS + 10_000)
    assert watts.shape == (8, 100)
    assert watts.dtype == np.float32
    assert seen.enforced_limit_w == 5600
    assert seen.energy is not None
    inside = watts[:, seen.energy.first_tick : seen.energy.last_tick].astype(float).sum(axis=1) * 100
    assert np.abs(seen.energy.delta_mj - inside).max() <= 0.5
    assert SimulatedSource(JOB, counters=False).conditions(START_MS, START_MS + 10_000).energy is None


@pytest.mark.parametrize(("start", "end"), [(50, 1000), (0, 150), (1000, 1000), (1000, 0)])
def test_a_window_begins_and_ends_on_a_tick(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="on a tick"):
        SimulatedSource(JOB).window(start, end)


def test_through_the_sampler_come_the_same_readings() -> None:
    clock = StepClock()
    jobs = [("A", JOB), ("B", SimulatedJob(gpus=2, limit_w=400, seed="other"))]
    sampler = Sampler(SimulatedReader(jobs, clock), SCHEDULE, clock)
    for _ in range(320):
        sampler.step()
    start = START_MS + 10_000
    for model, job in jobs:
        source = sampler.source(model)
        assert (source.kind, source.sampler_mode, source.gpus) == ("simulated", "instant", job.gpus)
        assert np.array_equal(source.window(start, start + 10_000), job.power_w(ticks(start // 100, 100)))
        seen = source.conditions(start, start + 10_000)
        assert seen.flags == ()
        assert seen.enforced_limit_w == job.gpus * job.limit_w
        assert seen.energy is not None
        assert seen.energy.valid.all()
        span = ticks(start // 100 + seen.energy.first_tick, seen.energy.last_tick - seen.energy.first_tick)
        assert np.abs(seen.energy.delta_mj - job.power_w(span).astype(float).sum(axis=1) * 100).max() <= len(span)


def test_counters_go_on_across_blocks_and_begin_again_when_the_clock_is_set_back() -> None:
    reader = SimulatedReader([("A", JOB)], StepClock())
    first = BLOCK_TICKS * 1000
    before = reader.read_all(first + 5)[0].energy_mj
    much_later = reader.read_all(first + 3 * BLOCK_TICKS)[0].energy_mj
    assert before is not None
    assert much_later is not None
    between = JOB.power_w(ticks(first + 5, 3 * BLOCK_TICKS - 5))[0].astype(float).sum() * 100
    assert abs(much_later - before - between) <= 3 * BLOCK_TICKS
    again = reader.read_all(first)[0].energy_mj
    assert again == 0
    reader.close()


def test_a_reader_needs_classes_with_one_tick() -> None:
    with pytest.raises(ConfigError):
        SimulatedReader([], StepClock())
    with pytest.raises(ConfigError):
        SimulatedReader([("A", JOB), ("B", SimulatedJob(gpus=1, limit_w=1, seed="", tick_ms=50))], StepClock())
