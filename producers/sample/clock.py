"""The sampler's clocks, behind a protocol so that tests step through days without waiting."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Time and waiting. `monotonic_ns` never steps; `utc_ns` is what the ticks are named after and may."""

    def monotonic_ns(self) -> int:
        """Return the monotonic time, ns."""

    def utc_ns(self) -> int:
        """Return the wall clock, ns since the epoch."""

    def wait(self, seconds: float) -> bool:
        """Wait that long, or less if asked to stop; True if asked to stop."""


class SystemClock:
    """The machine's clocks. A wait ends at once when `stop` is set."""

    def __init__(self, stop: threading.Event | None = None) -> None:
        self._stop = stop or threading.Event()

    def monotonic_ns(self) -> int:
        """Return CLOCK_MONOTONIC, ns; it stands still while the machine is suspended."""
        return time.monotonic_ns()

    def utc_ns(self) -> int:
        """Return CLOCK_REALTIME, ns."""
        return time.time_ns()

    def wait(self, seconds: float) -> bool:
        """Wait on the stop event."""
        return self._stop.wait(max(seconds, 0.0))


def utc_offset_ns(clock: Clock) -> int:
    """Return UTC minus monotonic time, ns: the tightest of three brackets, so that a preemption between two reads
    does not look like a step of the clock."""
    best: tuple[int, int] | None = None
    for _ in range(3):
        before = clock.monotonic_ns()
        utc = clock.utc_ns()
        after = clock.monotonic_ns()
        if best is None or after - before < best[0]:
            best = (after - before, utc - (before + after) // 2)
    assert best is not None  # noqa: S101 -- three rounds
    return best[1]
