"""From readings at any time to the tick grid: the nearest reading within half a tick, used at most once, or missing.

Nothing is held or interpolated: a reading that filled two ticks would count twice in a privacy analysis that counts
it once, and a straight line between two readings is power that nobody measured.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from producers.errors import TraceError
from producers.sample.nvidia_smi import Reading
from producers.sample.source import Readings

MAX_GAP_MS = 600_000
"""A longer silence, or a step backwards by more than a tick, is a break in the log rather than a gap in it."""
MAX_TICKS = 26_000_000
"""Longest trace, in ticks: 30 days at 10 Hz, about 100 MB per GPU."""

Tick = dict[int, float]
"""Power in W per GPU index; a GPU that is absent was not read in this tick."""


@dataclass(slots=True)
class ResampleStats:
    """Counts of readings: `surplus` = another one was nearer to the tick; `stray` = a lone time far off; `breaks`."""

    surplus: int = 0
    stray: int = 0
    breaks: int = 0


@dataclass(slots=True)
class Resampler:
    """Put readings on ticks at multiples of `tick_ms` (UTC), in a stream: two ticks are held at most.

    Tick k owns [k - 1/2, k + 1/2) ticks of time and takes the reading nearest to its middle, of two the earlier.
    Readings may be late by one tick. A time further ahead than `MAX_GAP_MS`, or further back, is dropped as a
    stray unless the next reading agrees with it: then the log has a break, which becomes one missing tick.
    """

    tick_ms: int
    stats: ResampleStats = field(default_factory=ResampleStats)
    _open: dict[int, dict[int, tuple[int, float]]] = field(default_factory=dict)
    _suspect: Reading | None = None

    def ticks(self, readings: Iterable[Reading]) -> Iterator[Tick]:
        """Yield one value per tick, without holes in the sequence of ticks."""
        for reading in readings:
            if self._fits(reading):
                self._suspect = None
                yield from self._place(reading)
            elif self._suspect is None or not self._near(reading, self._suspect):
                self._suspect = reading
                self.stats.stray += 1
            else:
                first, self._suspect = self._suspect, None
                self.stats.stray -= 1
                self.stats.breaks += 1
                yield from self._flush()
                yield {}
                yield from self._place(first)
                if self._fits(reading):
                    yield from self._place(reading)
                else:
                    self.stats.stray += 1
        yield from self._flush()

    def _tick_of(self, reading: Reading) -> int:
        return (2 * reading.time_ms + self.tick_ms) // (2 * self.tick_ms)

    def _fits(self, reading: Reading) -> bool:
        if not self._open:
            return True
        ahead = self._tick_of(reading) - max(self._open)
        return -1 <= ahead <= MAX_GAP_MS // self.tick_ms

    def _near(self, a: Reading, b: Reading) -> bool:
        return abs(a.time_ms - b.time_ms) <= MAX_GAP_MS

    def _place(self, reading: Reading) -> Iterator[Tick]:
        index = self._tick_of(reading)
        if not self._open:
            self._open[index] = {}
        newest = max(self._open)
        for new in range(newest + 1, index + 1):
            self._open[new] = {}
            if len(self._open) > 2:
                yield self._close(new - 2)
        if index not in self._open:
            self.stats.stray += 1
            return
        distance = abs(reading.time_ms - index * self.tick_ms)
        tick = self._open[index]
        if reading.gpu in tick:
            self.stats.surplus += 1
        if reading.gpu not in tick or distance < tick[reading.gpu][0]:
            tick[reading.gpu] = (distance, reading.power_w)

    def _close(self, index: int) -> Tick:
        return {gpu: power for gpu, (_, power) in self._open.pop(index).items()}

    def _flush(self) -> Iterator[Tick]:
        for index in sorted(self._open):
            yield self._close(index)


def to_array(ticks: Iterable[Tick]) -> Readings:
    """Return float32[gpus, ticks] in W with NaN for missing; GPUs in the order of their index, gaps in it closed.

    Raises `TraceError` for a log without any reading or longer than `MAX_TICKS`.
    """
    rows: dict[int, array[float]] = {}
    for length, tick in enumerate(ticks):
        if length >= MAX_TICKS:
            raise TraceError(f"more than {MAX_TICKS} ticks")
        for gpu in tick.keys() - rows.keys():
            rows[gpu] = array("f", [math.nan]) * length
        for gpu, row in rows.items():
            row.append(tick.get(gpu, math.nan))
    if not rows:
        raise TraceError("no reading in the log")
    return np.array([rows[gpu] for gpu in sorted(rows)], dtype=np.float32)
