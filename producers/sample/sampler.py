"""The sampler: polls a reader on an absolute schedule tied to UTC ticks and keeps the last few windows.

Ticks are multiples of 1/`sample_hz` in UTC. The schedule is kept on the monotonic clock: tick k is due at k ticks of
UTC less an offset that is read again once a window, so nothing drifts and a corrected clock moves the ticks between
windows. A correction by more than half a tick is flagged `clock_step`. A reading goes to the tick nearest to the
beginning of its call. A call that takes longer than half a tick leaves open which tick it belongs to: its reading is
dropped and flagged `stall`. No tick gets two readings, no reading two ticks, and a tick is never filled twice, also
where the clock is set back: the sampler then waits until UTC is past the last tick it filled.

What is counted here (ticks, missed ticks, stalls, stale polls, lateness) comes from clocks alone, never from a value.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from producers.config import Schedule
from producers.distil import STALL_TICKS
from producers.sample.clock import Clock, SystemClock, utc_offset_ns
from producers.sample.reader import (
    CLOCK_STEP,
    DRIVER_RELOAD,
    FLAG_NAMES,
    GPU_LOST,
    STALE,
    STALL,
    GpuReading,
    PowerReader,
)
from producers.sample.ring import Ring, Span, energy_span
from producers.sample.source import Conditions, Readings
from schemas.errors import ConfigError

__all__ = ["GpuReading", "Jitter", "PowerReader", "SampledSource", "Sampler", "SamplerStats"]

log = logging.getLogger(__name__)

WINDOWS_HELD = 3
"""Windows kept: the one that runs, the one that is asked for, and one in case the agent is late."""
LATENESS_HELD = 6000
"""Polls over which the jitter is told: ten minutes at 10 Hz."""
CLOSE_S = 5.0
"""Time for the last poll to end."""
MAX_WAIT_NS = 1_000_000_000
"""Longest wait without looking at the clock's offset again: it may have been set forward meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jitter:
    """Lateness of polls against the schedule, ms, over the last `polls` polls. Timing only: public."""

    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    polls: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerStats:
    """Counts since the start, none of which depends on a value.

    `polls` of all GPUs; `missed_ticks` slept through or lost to slow calls; `stalls` of `STALL_TICKS` missed ticks or
    more; `stale` polls of one GPU that had no reading newer than the last; `failures` of whole polls.
    """

    polls: int = 0
    missed_ticks: int = 0
    stalls: int = 0
    stale: int = 0
    clock_steps: int = 0
    failures: int = 0


class Sampler:
    """Polls a `PowerReader` at the schedule's rate, in a thread of its own (`start`, `close`) or step by step (`step`).

    Readings are asked for by class with `source`. The reader must use the same clock.
    """

    def __init__(self, reader: PowerReader, schedule: Schedule, clock: Clock | None = None) -> None:
        self._stop = threading.Event()
        self._clock = clock or SystemClock(self._stop)
        self._reader = reader
        self._schedule = schedule
        self._tick_ns = schedule.tick_ms * 1_000_000
        self._ring = Ring(len(reader.models), WINDOWS_HELD * schedule.ticks)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._offset_ns = utc_offset_ns(self._clock)
        self._last_tick = self._tick_at(self._clock.monotonic_ns())
        self._next_ns = self._clock.monotonic_ns()
        self._sync_tick = self._last_tick_of_window(self._last_tick + 1)
        self._late_us: deque[int] = deque(maxlen=LATENESS_HELD)
        self._polls = self._missed = self._stalls = self._stale = self._steps = self._failures = 0

    # -- what is asked for -------------------------------------------------------------------------------------------

    def source(self, model: str) -> SampledSource:
        """Return the readings of all GPUs of a model; raises `ConfigError` if the reader has none."""
        rows = [row for row, name in enumerate(self._reader.models) if name == model]
        if not rows:
            raise ConfigError(f"no GPU of model {model!r} on this host", field="model")
        return SampledSource(self, np.array(rows, np.intp))

    @property
    def reader(self) -> PowerReader:
        """What is polled."""
        return self._reader

    @property
    def schedule(self) -> Schedule:
        """Rate and windows."""
        return self._schedule

    def span(self, rows: npt.NDArray[np.intp], start_ms: int, end_ms: int) -> Span:
        """Copy [start_ms, end_ms) of some GPUs; raises `ValueError` unless both lie on a tick."""
        tick_ms = self._schedule.tick_ms
        if start_ms % tick_ms or end_ms % tick_ms or end_ms <= start_ms:
            raise ValueError("a window begins and ends on a tick")
        with self._lock:
            return self._ring.span(rows, start_ms // tick_ms, end_ms // tick_ms)

    def behind(self, end_ms: int) -> bool:
        """Whether the poll that would have ended the window hangs: nothing newer has come for `STALL_TICKS`."""
        with self._lock:
            return self._last_tick < end_ms // self._schedule.tick_ms - 1 - STALL_TICKS

    def jitter(self) -> Jitter:
        """Return the lateness of the last polls."""
        with self._lock:
            late = np.array(self._late_us, np.float64) / 1000.0
        if not late.size:
            return Jitter()
        p50, p99 = np.percentile(late, (50, 99))
        return Jitter(p50_ms=float(p50), p99_ms=float(p99), max_ms=float(late.max()), polls=int(late.size))

    def stats(self) -> SamplerStats:
        """Return the counts since the start."""
        with self._lock:
            return SamplerStats(
                polls=self._polls,
                missed_ticks=self._missed,
                stalls=self._stalls,
                stale=self._stale,
                clock_steps=self._steps,
                failures=self._failures,
            )

    # -- the loop ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Sample in a thread until `close`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop the thread and close the reader; a call that hangs in the driver is left behind with its thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=CLOSE_S)
            if self._thread.is_alive():
                log.warning("the sampler's thread is stuck in the driver: left behind")
                return
            self._thread = None
        self._let_go()

    def _let_go(self) -> None:
        """Close what is read; not called while the thread may still be in it."""
        self._reader.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.step()
            except Exception as error:
                # A reader promises not to raise; whatever it was, readings go on. No text: it may quote a reading.
                if self._failures == 0:
                    log.error("a poll failed: %s", type(error).__name__)
                self._failures += 1
                self._clock.wait(self._tick_ns / 1e9)

    def step(self) -> bool:
        """Wait until the next poll is due and poll; False if it is not due yet (asked to stop, or a long wait)."""
        due = self._due_ns()
        if not self._wait_until(due):
            return False
        began = self._clock.monotonic_ns()
        tick = self._tick_at(began)
        self._poll(tick)
        ended = self._clock.monotonic_ns()
        with self._lock:
            self._count(due, began, ended)
        self._last_tick = max(tick, self._tick_before(ended))
        if self._last_tick >= self._sync_tick:
            self._sync(self._last_tick)
        return True

    def _due_ns(self) -> int:
        """The next tick, but not before the sensors surely have another reading.

        Sensors slower than the ticks set the pace themselves: to wait for a tick each time would lose more of them.
        """
        spacing = self._reader.spacing_ns
        tick_due = (self._last_tick + 1) * self._tick_ns - self._offset_ns
        if spacing > self._tick_ns:
            tick_due -= self._tick_ns // 2
        return max(tick_due, self._next_ns)

    def _poll(self, tick: int) -> None:
        """Read all GPUs and store each reading when it is there.

        The next round begins so late that a GPU whose turn comes as long after the round's beginning as this time is
        read a whole spacing after its last call ended: that is the longest call's length later, not the whole round's.
        """
        first: int | None = None
        longest = 0
        for gpu, reading in enumerate(self._reader.read_all(tick)):
            with self._lock:
                self._store(gpu, reading)
            first = reading.began_ns if first is None else first
            if reading.power_w is not None:
                longest = max(longest, reading.ended_ns - reading.began_ns)
        if first is not None:
            self._next_ns = first + longest + self._reader.spacing_ns

    def _wait_until(self, due_ns: int) -> bool:
        while (left := due_ns - self._clock.monotonic_ns()) > 0:
            if self._clock.wait(min(left, MAX_WAIT_NS) / 1e9):
                return False
            if left > MAX_WAIT_NS:
                self._sync(self._last_tick)
                return False
        return True

    def _tick_at(self, monotonic_ns: int) -> int:
        """Number of the tick nearest to a time."""
        return (2 * (monotonic_ns + self._offset_ns) + self._tick_ns) // (2 * self._tick_ns)

    def _tick_before(self, monotonic_ns: int) -> int:
        """Number of the last tick at or before a time."""
        return (monotonic_ns + self._offset_ns) // self._tick_ns

    def _last_tick_of_window(self, tick: int) -> int:
        return tick // self._schedule.ticks * self._schedule.ticks + self._schedule.ticks - 1

    def _sync(self, tick: int) -> None:
        """Read the offset to UTC again; the schedule follows, a step is flagged."""
        offset = utc_offset_ns(self._clock)
        step, self._offset_ns = offset - self._offset_ns, offset
        if abs(step) > self._tick_ns // 2:
            now = max(tick + 1, self._tick_at(self._clock.monotonic_ns()))
            with self._lock:
                self._steps += 1
                for gpu in range(len(self._reader.models)):
                    self._ring.flag(gpu, tick, CLOCK_STEP)
                    self._ring.flag(gpu, now, CLOCK_STEP)  # the window before may be reported already
            log.warning("the clock was set by %d ms", step // 1_000_000)
        self._sync_tick = self._last_tick_of_window(max(tick + 1, self._tick_at(self._clock.monotonic_ns())))

    def _store(self, gpu: int, reading: GpuReading) -> None:
        power_w, energy_mj, began, ended, flags = reading
        tick = self._tick_at(began)
        if ended - began > self._tick_ns // 2:
            flags |= STALL
        else:
            offset_us = (began + self._offset_ns - tick * self._tick_ns) // 1000
            self._ring.put(gpu, tick, power_w, energy_mj, offset_us)
        if flags:
            self._ring.flag(gpu, tick, flags)
            self._stale += flags & STALE != 0

    def _count(self, due: int, began: int, ended: int) -> None:
        """Count what was slept through before this poll and what is lost to it if it was slow."""
        self._polls += 1
        self._late_us.append((began - due) // 1000)
        missed = (began - due) // self._tick_ns + max(self._tick_before(ended) - self._tick_at(began), 0)
        self._missed += missed
        if missed >= STALL_TICKS:
            self._stalls += 1
            for gpu in range(len(self._reader.models)):
                self._ring.flag(gpu, self._tick_at(ended), STALL)


class SampledSource:
    """The readings of one GPU class of a sampler: a `ReadingSource`."""

    def __init__(self, sampler: Sampler, rows: npt.NDArray[np.intp]) -> None:
        self._sampler = sampler
        self._rows = rows

    @property
    def gpus(self) -> int:
        """Number of GPUs enrolled, missing ones included."""
        return len(self._rows)

    @property
    def kind(self) -> str:
        """What the reader says: nvml or simulated."""
        return self._sampler.reader.kind

    @property
    def sampler_mode(self) -> str:
        """Kind of reading: instant, average or legacy."""
        return self._sampler.reader.sampler_mode

    def window(self, start_ms: int, end_ms: int) -> Readings:
        """Return float32[gpus, ticks] in W of [start_ms, end_ms); raises `ValueError` unless both lie on a tick."""
        return self._sampler.span(self._rows, start_ms, end_ms).power_w

    def times_ms(self, start_ms: int, end_ms: int) -> npt.NDArray[np.float64]:
        """Return when each reading was taken, float64[gpus, ticks], UTC ms; NaN where there is none."""
        span = self._sampler.span(self._rows, start_ms, end_ms)
        ticks = np.arange(start_ms, end_ms, self._sampler.schedule.tick_ms, dtype=np.float64)
        return np.where(np.isnan(span.power_w), np.nan, ticks + span.offset_us / 1000.0)

    def conditions(self, start_ms: int, end_ms: int) -> Conditions:
        """Return flags, energy counters and enforced limits of a window that is still held."""
        span = self._sampler.span(self._rows, start_ms, end_ms)
        met = np.bitwise_or.reduce(span.flags, axis=1)
        if self._sampler.behind(end_ms):
            met |= STALL
        flags = tuple((name, int(np.count_nonzero(met & bit))) for bit, name in FLAG_NAMES.items() if (met & bit).any())
        reset = met & (DRIVER_RELOAD | GPU_LOST) != 0
        limits = self._sampler.reader.enforced_limits_mw()
        known = [limit for row in self._rows if (limit := limits[row]) is not None]
        return Conditions(
            flags=flags,
            energy=energy_span(span, self._sampler.schedule.ticks_per_pane, reset),
            enforced_limit_w=sum(known) // 1000 if len(known) == len(self._rows) else None,
        )
