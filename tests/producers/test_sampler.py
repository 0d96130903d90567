"""The sampler's schedule: absolute, tied to UTC, counted; and its ring of windows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.config import Schedule
from producers.sample import sampler as sampler_module
from producers.sample.clock import SystemClock, utc_offset_ns
from producers.sample.reader import GPU_LOST, XID, GpuReading
from producers.sample.ring import Ring, energy_span
from producers.sample.sampler import WINDOWS_HELD, Jitter, Sampler
from schemas.errors import ConfigError
from tests.producers.fake_nvml import START_NS, StepClock

SCHEDULE = Schedule(window_ms=10_000)
START_MS = START_NS // 1_000_000
TICK_NS = 100_000_000


@dataclass
class Reader:
    """Two GPUs of one model and one of another; a reading is the number of its poll."""

    clock: StepClock
    kind: str = "simulated"
    sampler_mode: str = "instant"
    models: tuple[str, ...] = ("H100", "H100", "A100")
    spacing_ns: int = 0
    call_ns: int = 20_000
    polls: list[int] = field(default_factory=list)
    flags: int = 0
    limits: Sequence[int | None] = (700_000, 699_999, 400_000)
    before: Callable[[], None] = lambda: None
    between: Callable[[int], None] = lambda gpu: None
    broken: int | None = None
    closed: bool = False

    def read_all(self, tick: int) -> Iterator[GpuReading]:
        self.before()
        self.polls.append(tick)
        for gpu in range(len(self.models)):
            self.between(gpu)
            began = self.clock.monotonic_ns()
            self.clock.now_ns += self.call_ns * (3 if gpu == self.broken else 1)
            number = len(self.polls)
            power_w = None if gpu == self.broken else 1000.0 * gpu + number % 1000
            yield GpuReading(power_w, 1000 * number, began, self.clock.now_ns, self.flags)

    def enforced_limits_mw(self) -> Sequence[int | None]:
        return self.limits

    def close(self) -> None:
        self.closed = True


def start(**same: object) -> tuple[Sampler, Reader, StepClock]:
    clock = StepClock()
    reader = Reader(clock, **same)  # type: ignore[arg-type]
    return Sampler(reader, SCHEDULE, clock), reader, clock


def run(sampler: Sampler, clock: StepClock, windows: float) -> None:
    end_ns = START_NS + round(windows * 10_000_000_000)
    while clock.utc_ns() < end_ns:
        sampler.step()


def window(sampler: Sampler, number: int, model: str = "H100") -> np.ndarray:
    start_ms = START_MS + number * 10_000
    return sampler.source(model).window(start_ms, start_ms + 10_000)


def test_every_tick_is_read_once_and_by_class() -> None:
    sampler, reader, clock = start()
    run(sampler, clock, 3)
    first = reader.polls.index(START_MS // 100 + 100) + 1
    assert reader.polls == list(range(reader.polls[0], reader.polls[0] + len(reader.polls)))
    assert window(sampler, 1).tolist() == [[gpu * 1000 + first + n for n in range(100)] for gpu in range(2)]
    assert window(sampler, 1, "A100").shape == (1, 100)
    assert sampler.source("A100").kind == "simulated"
    with pytest.raises(ConfigError):
        sampler.source("L4")


def test_nothing_drifts_however_late_the_wakings_are() -> None:
    sampler, reader, clock = start()
    late = iter(range(10**9))
    clock.late_ns = lambda: next(late) % 37 * 1_000_000
    run(sampler, clock, 20)
    assert reader.polls == list(range(reader.polls[0], reader.polls[0] + len(reader.polls)))
    jitter = sampler.jitter()
    assert (jitter.max_ms, jitter.polls) == (36.0, len(reader.polls))
    assert jitter.p50_ms == pytest.approx(18, abs=1)
    offsets = sampler.source("H100").times_ms(START_MS + 180_000, START_MS + 190_000) - np.arange(100) * 100
    assert (offsets - (START_MS + 180_000)).max() == pytest.approx(36.02, abs=0.1)


@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 300)), min_size=1, max_size=80),
    st.sampled_from([0, 105, 250]),
)
@settings(deadline=None)
def test_no_tick_gets_two_readings_and_no_reading_two_ticks(steps: list[tuple[int, int]], spacing_ms: int) -> None:
    """Whatever wakes late and whatever takes long; every poll gave a number of its own."""
    sampler, reader, clock = start(spacing_ns=spacing_ms * 1_000_000)
    todo = iter(steps)
    lengths = {"call": 0}

    def late() -> int:
        wake, lengths["call"] = next(todo, (0, 0))
        return wake * 1_000_000

    def lengthen() -> None:
        reader.call_ns = lengths["call"] * 1_000_000 // 3

    clock.late_ns, reader.before = late, lengthen
    run(sampler, clock, 2)
    for row in np.concatenate([window(sampler, 0), window(sampler, 1)], axis=1):
        read = row[~np.isnan(row)]
        assert (np.diff(read) > 0).all()
    assert sampler.stats().polls == len(reader.polls)
    if spacing_ms:
        return
    assert sampler.stats().missed_ticks <= sum(wake // 100 + call // 100 + 1 for wake, call in steps)


def test_a_long_sleep_is_counted_and_flagged() -> None:
    sampler, _, clock = start()
    run(sampler, clock, 1.2)
    clock.now_ns += 730_000_000
    run(sampler, clock, 2)
    assert (sampler.stats().missed_ticks, sampler.stats().stalls) == (6, 1)
    assert np.isnan(window(sampler, 1)).sum() == 12
    assert dict(sampler.source("H100").conditions(START_MS + 10_000, START_MS + 20_000).flags) == {"stall": 2}
    assert sampler.jitter().max_ms == pytest.approx(630, abs=1)


def test_a_reading_of_a_slow_call_is_of_no_tick() -> None:
    """Half a tick is a call's limit: beyond it nobody knows when the reading was taken."""
    for call_ms, dropped in ((50, 0), (51, 1)):
        sampler, reader, clock = start(models=("H100",))
        run(sampler, clock, 1.5)
        reader.call_ns = call_ms * 1_000_000
        sampler.step()
        reader.call_ns = 20_000
        run(sampler, clock, 3)
        flags = sampler.source("H100").conditions(START_MS + 10_000, START_MS + 20_000).flags
        assert (int(np.isnan(window(sampler, 1)).sum()), dict(flags)) == (dropped, {"stall": 1} if dropped else {})


def test_a_poll_that_hangs_is_seen_from_outside() -> None:
    """The thread is in the driver and stays there: the window that nobody fills is a stall."""
    sampler, _, clock = start()
    run(sampler, clock, 1.2)
    flags = sampler.source("H100").conditions(START_MS + 10_000, START_MS + 20_000).flags
    assert dict(flags) == {"stall": 2}


def test_slow_sensors_set_the_pace() -> None:
    sampler, _, clock = start(spacing_ns=105_000_000)
    run(sampler, clock, 3)
    missing = np.isnan(window(sampler, 1)) | np.isnan(window(sampler, 2))
    assert 8 <= missing.sum() <= 24
    assert sampler.stats().missed_ticks == 0
    times = sampler.source("H100").times_ms(START_MS + 10_000, START_MS + 20_000)
    assert np.nanmin(np.diff(times[0][~np.isnan(times[0])])) >= 105


@pytest.mark.parametrize("broken", [None, 2])
def test_a_round_of_calls_costs_the_pace_one_call(broken: int | None) -> None:
    """A spacing goes from each GPU's call to its next one, whatever the calls of the others between; and a call that
    brought no reading has nothing to be apart from."""
    sampler, _, clock = start(spacing_ns=105_000_000, call_ns=8_000_000, broken=broken)
    run(sampler, clock, 3)
    for model, gpus in (("H100", 2), ("A100", 0 if broken == 2 else 1)):
        times = sampler.source(model).times_ms(START_MS + 10_000, START_MS + 20_000)
        apart = [np.diff(row[~np.isnan(row)]) for row in times if not np.isnan(row).all()]
        assert len(apart) == gpus
        for each in apart:
            assert np.allclose(each, 113.0)


def test_a_round_that_straddles_the_end_of_a_window_is_in_it_as_far_as_it_came() -> None:
    """The agent asks for a window when it ends; what was read in its last tick is there."""
    sampler, reader, clock = start(models=("H100",) * 4)
    end_ms, asked = START_MS + 20_000, []

    def turn(gpu: int) -> None:
        if clock.utc_ns() >= end_ms * 1_000_000 and not asked:
            asked.append((gpu, sampler.source("H100").window(end_ms - 10_000, end_ms)[:, -1]))

    reader.between = turn
    run(sampler, clock, 1.975)
    clock.late_ns = lambda: 40_000_000  # the last tick's round begins 60 ms before the end
    reader.call_ns = 30_000_000
    run(sampler, clock, 2)
    ((gpu, last),) = asked
    assert gpu == 2
    assert np.isnan(last).tolist() == [False] + [True] * 3


@pytest.mark.parametrize("step_ms", [-20_000, -350, 350, 3_600_000])
def test_a_clock_that_is_set_moves_the_ticks_between_windows_and_never_fills_one_twice(step_ms: int) -> None:
    sampler, reader, clock = start()
    run(sampler, clock, 1.5)
    clock.offset_ns += step_ms * 1_000_000
    for _ in range(600):
        sampler.step()
    assert len(set(reader.polls)) == len(reader.polls)
    assert reader.polls == sorted(reader.polls)
    assert sampler.stats().clock_steps == 1
    assert np.diff(reader.polls[-100:]).tolist() == [1] * 99  # in step again


def test_a_step_is_flagged_in_the_window_before_and_in_the_one_after() -> None:
    sampler, _, clock = start()
    run(sampler, clock, 1.5)
    clock.offset_ns += 350_000_000
    run(sampler, clock, 3)
    for number in (1, 2):
        begin = START_MS + number * 10_000
        assert dict(sampler.source("H100").conditions(begin, begin + 10_000).flags) == {"clock_step": 2}
    run(sampler, clock, 4)
    assert sampler.source("H100").conditions(START_MS + 30_000, START_MS + 40_000).flags == ()


def test_a_slewed_clock_is_followed_without_a_flag() -> None:
    sampler, reader, clock = start()
    for number in range(1, 60):
        run(sampler, clock, number)
        clock.offset_ns += 5_000_000
    assert sampler.stats().clock_steps == 0
    assert reader.polls == list(range(reader.polls[0], reader.polls[0] + len(reader.polls)))
    assert abs(sampler.source("H100").times_ms(START_MS + 580_000, START_MS + 590_000)[0, 50] - START_MS - 585_000) < 6


def test_flags_energy_and_limits_of_a_window() -> None:
    sampler, reader, clock = start()
    run(sampler, clock, 1.5)
    reader.flags = XID
    sampler.step()
    reader.flags = 0
    run(sampler, clock, 2)
    found = sampler.source("H100").conditions(START_MS + 10_000, START_MS + 20_000)
    assert (found.flags, found.enforced_limit_w) == ((("xid", 2),), 1399)
    assert found.energy is not None
    assert (found.energy.first_tick, found.energy.last_tick) == (1, 99)
    assert found.energy.delta_mj.tolist() == [98_000, 98_000]
    assert found.energy.valid.all()
    reader.limits = (700_000, None, None)
    assert sampler.source("H100").conditions(START_MS + 10_000, START_MS + 20_000).enforced_limit_w is None


def test_a_gpu_that_was_lost_has_no_energy_in_that_window() -> None:
    sampler, reader, clock = start()
    run(sampler, clock, 1.5)
    reader.flags = GPU_LOST
    sampler.step()
    reader.flags = 0
    run(sampler, clock, 3)
    lost, after = (
        sampler.source("H100").conditions(START_MS + at, START_MS + at + 10_000).energy for at in (10_000, 20_000)
    )
    assert lost is not None
    assert after is not None
    assert (lost.valid.tolist(), after.valid.tolist()) == ([False, False], [True, True])


def test_windows_that_are_not_held_are_missing_and_ticks_must_fit() -> None:
    sampler, _, clock = start()
    run(sampler, clock, WINDOWS_HELD + 2)
    assert np.isnan(window(sampler, 0)).all()
    assert np.isnan(window(sampler, WINDOWS_HELD + 2)[:, 1:]).all()
    assert not np.isnan(window(sampler, 3)).any()
    for bad in ((START_MS + 1, START_MS + 10_000), (START_MS, START_MS + 50), (START_MS, START_MS)):
        with pytest.raises(ValueError, match="tick"):
            sampler.source("H100").window(*bad)


def test_the_thread_samples_survives_a_broken_reader_and_stops(caplog: pytest.LogCaptureFixture) -> None:
    sampler, reader, _ = start()
    enough = threading.Event()

    def fail_once() -> None:
        if len(reader.polls) == 50:
            reader.polls.append(0)
            raise RuntimeError("612.5 W")
        if len(reader.polls) > 200:
            enough.set()

    reader.before = fail_once
    sampler.start()
    sampler.start()  # once is enough
    assert enough.wait(30)
    sampler.close()
    assert reader.closed
    assert sampler.stats().failures == 1
    assert "RuntimeError" in caplog.text
    assert "612" not in caplog.text


def test_a_thread_that_is_stuck_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sampler_module, "CLOSE_S", 0.01)
    sampler, reader, _ = start()
    inside, let_go = threading.Event(), threading.Event()

    def hang() -> None:
        inside.set()
        let_go.wait(30)

    reader.before = hang
    sampler.start()
    assert inside.wait(30)
    sampler.close()
    assert not reader.closed  # NVML must not be shut down under a call
    assert "stuck" in caplog.text
    let_go.set()


def test_jitter_of_nothing() -> None:
    assert start()[0].jitter() == Jitter()


def test_the_clocks_of_the_machine() -> None:
    stop = threading.Event()
    clock = SystemClock(stop)
    assert not clock.wait(0)
    stop.set()
    assert clock.wait(1000)  # at once
    assert abs(utc_offset_ns(clock) - (clock.utc_ns() - clock.monotonic_ns())) < 10**9


class Jumpy(StepClock):
    """Preempted once, between the reads of the two clocks."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses = [0, 0, 10**9, 0, 0, 0, 0]

    def utc_ns(self) -> int:
        self.now_ns += self.pauses.pop() if self.pauses else 0
        return super().utc_ns()


def test_a_preemption_is_no_step_of_the_clock() -> None:
    clock = Jumpy()
    assert utc_offset_ns(clock) == clock.offset_ns


@given(st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=60))
def test_the_ring_holds_what_was_put_last(puts: list[tuple[int, bool]]) -> None:
    ring, newest, held = Ring(1, 10), -1, dict[int, float]()
    for tick, empty in puts:
        value = None if empty else float(tick)
        stored = ring.put(0, tick, value, None, 0)
        assert stored == (tick > newest)
        if stored:
            newest = tick
            held[tick] = np.nan if value is None else value
    row = ring.span(np.array([0]), 0, 61).power_w[0]
    expected = [held.get(tick, np.nan) if tick > newest - 10 else np.nan for tick in range(61)]
    assert np.array_equal(row, np.array(expected, np.float32), equal_nan=True)


def test_a_counter_that_goes_back_is_not_valid_and_the_span_is_where_most_were_read() -> None:
    ring = Ring(2, 100)
    for tick in range(20):
        read = tick not in (1, 19)
        ring.put(0, tick, 100.0, 1000 * tick if read else None, 0)
        ring.put(1, tick, 100.0, 1000 * tick - (50_000 if tick > 10 else 0) if read else None, 0)
    found = energy_span(ring.span(np.array([0, 1]), 0, 20), 5, np.zeros(2, np.bool_))
    assert found is not None
    assert (found.first_tick, found.last_tick) == (2, 18)
    assert (found.valid.tolist(), found.delta_mj.tolist()) == ([True, False], [16_000, 0])
    assert energy_span(Ring(2, 100).span(np.array([0, 1]), 0, 20), 5, np.zeros(2, np.bool_)) is None
