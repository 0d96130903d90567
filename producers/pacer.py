"""Pacers: which window comes next and when it is over. Real time, or a replay at any speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from schemas.errors import ConfigError


class Pacer(Protocol):
    """The only clock of the agent's windows; times of windows in UTC ms."""

    def first_start_ms(self) -> int:
        """Return the start of the first window."""

    def next_start_ms(self, end_ms: int) -> int:
        """Return the start of the window to produce after the one that ended at `end_ms`."""

    def seconds_until(self, end_ms: int) -> float:
        """Return the real seconds until a window that ends at `end_ms` may be produced; <= 0 if it may now."""


class RealTimePacer:
    """Windows as they happen: the first one starts at the next boundary; windows slept through are skipped."""

    def __init__(self, window_ms: int, now: Callable[[], float] = time.time) -> None:
        self._window_ms = window_ms
        self._now = now

    def first_start_ms(self) -> int:
        """Return the next window boundary."""
        return -(-int(self._now() * 1000) // self._window_ms) * self._window_ms

    def next_start_ms(self, end_ms: int) -> int:
        """Return `end_ms`, or after a long pause (suspended machine) the window that is running now."""
        running = int(self._now() * 1000) // self._window_ms * self._window_ms
        return max(end_ms, running)

    def seconds_until(self, end_ms: int) -> float:
        """Return the time until `end_ms` by the wall clock."""
        return end_ms / 1000 - self._now()


class ReplayPacer:
    """Event time from `start_ms` at `speed` times real time: window w may be produced when it is over by that clock.

    `origin_s` is the real time (Unix seconds) that corresponds to `start_ms`; processes that share it run in step.
    An infinite speed never waits. Raises `ConfigError` for an unaligned start or a speed that is not positive.
    """

    def __init__(
        self,
        window_ms: int,
        *,
        start_ms: int,
        speed: float,
        origin_s: float | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        if start_ms % window_ms:
            raise ConfigError("a replay starts at a window boundary", field="start_ms")
        if not speed > 0:
            raise ConfigError("speed must be positive", field="speed")
        self._start_ms = start_ms
        self._speed = speed
        self._now = now
        self._origin_s = now() if origin_s is None else origin_s

    def first_start_ms(self) -> int:
        """Return the start given."""
        return self._start_ms

    def next_start_ms(self, end_ms: int) -> int:
        """Return `end_ms`: a replay leaves no window out, however slow the machine."""
        return end_ms

    def seconds_until(self, end_ms: int) -> float:
        """Return the real time left at this speed."""
        return self._origin_s + (end_ms - self._start_ms) / 1000 / self._speed - self._now()
