"""How the demo's progress is shown: a table that is drawn again on a terminal, plain lines anywhere else."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from rich.console import Console
from rich.live import Live

from enclavescale.live import Pace, Picture, notes, refused_line, screen

DRAW_S = 0.25
LINE_S = 5.0
PACE_S = 10.0
"""The pace is that of the last so many seconds."""


class Show(Protocol):
    """Shows the picture, as often as makes sense."""

    def __call__(self, picture: Callable[[], Picture], *, at_once: bool = False) -> None:
        """Show `picture()` if it is time, or at once."""


class PaceMeter:
    """Windows per second over the last seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def take(self, done: int, total: int) -> Pace:
        """Note how much is done; returns the pace."""
        now = self._clock()
        if done:
            self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[0][0] > PACE_S:
            self._seen.popleft()
        if len(self._seen) < 2 or now - self._seen[0][0] < 1.0:
            return Pace()
        then, before = self._seen[0]
        per_s = (done - before) / (now - then)
        return Pace(per_s, (total - done) / per_s) if per_s > 0 else Pace()


def plain_line(picture: Picture, pace: Pace) -> str:
    """One line of progress."""
    share = 100 * picture.done // max(1, picture.total)
    parts = [f"{picture.done}/{picture.total} windows ({share} %)", pace.text() or picture.phase]
    return "demo: " + ", ".join([*parts, "refused " + refused_line(picture.refused, 200)])


class _Lines:
    """Lines on stderr: one per phase and one every few seconds; no control characters."""

    def __init__(self) -> None:
        self._meter = PaceMeter()
        self._phase = ""
        self._next_s = 0.0

    def __call__(self, picture: Callable[[], Picture], *, at_once: bool = False) -> None:
        if not at_once and time.monotonic() < self._next_s:
            return
        now = picture()
        if not self._phase:
            for note in notes(1000, now.embedded):
                sys.stderr.write(note + "\n")
        pace = self._meter.take(now.done, now.total)
        running = now.done > 0
        line = plain_line(now, pace) if running else f"demo: {now.phase}"
        if running or now.phase != self._phase:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        self._phase = now.phase
        self._next_s = time.monotonic() + (LINE_S if running else DRAW_S)


class _Screen:
    """A table drawn again four times a second."""

    def __init__(self, live: Live, console: Console):
        self._live, self._console = live, console
        self._meter = PaceMeter()
        self._next_s = 0.0

    def __call__(self, picture: Callable[[], Picture], *, at_once: bool = False) -> None:
        if not at_once and time.monotonic() < self._next_s:
            return
        now = picture()
        pace = self._meter.take(now.done, now.total)
        self._live.update(screen(now, pace, self._console.width), refresh=True)
        self._next_s = time.monotonic() + DRAW_S


@contextlib.contextmanager
def open_show(console: Console) -> Iterator[Show]:
    """A screen if `console` is a terminal that can be drawn on, else plain lines."""
    if not console.file.isatty() or console.is_dumb_terminal:
        yield _Lines()
        return
    with Live(
        console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
    ) as live:
        yield _Screen(live, console)
