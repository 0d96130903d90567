"""The demo's flow control: no host runs ahead of the slowest one, nor of the worker, however slow the machine.

Event time is replayed faster than real time by several processes. Left alone, a process that gets less of the
machine would fall behind the others in the log, and its reports would be late through no fault of a host. So the
demo releases windows: it tells every process the event time up to which it may produce, on stdin.

Why nothing is late then: a host produces the window that ends at E only when every host's report for E - AHEAD windows
is in the log. A window closes when more than half of the hosts are GRACE windows past it, and AHEAD <= GRACE.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import IO

from producers.pacer import Pacer

GRACE_WINDOWS = 2
"""Grace of the demo's policy, windows."""

AHEAD_WINDOWS = 2
"""How far a host may be ahead of the slowest host in the log, windows; never more than the grace."""

PENDING_BYTES = 3 << 20
"""Reports per partition that the worker may still have before it: the mock broker keeps 5 MiB."""

REPORT_BYTES = 2 << 10
"""Size of one report, evidence spread over the windows it serves."""

EVIDENCE_BYTES = 6 << 10
"""Size of one evidence: hosts that started together repeat it in the same window."""

MAX_BEHIND = 48
"""Windows that the worker may be behind at most: hides its fetches' wait of 1.5 s also at high speed."""

LOOK_S = 0.02
"""How often a waiting process looks whether its next window is released, s."""


class Gate:
    """A process's side: event time (UTC ms) up to which windows may be produced."""

    def __init__(self) -> None:
        self.through_ms = -1

    def listen(self, lines: IO[str], stop: threading.Event) -> None:
        """Take releases, one number a line, until the stream ends; then the run is over."""
        for line in lines:
            if line.strip().isdecimal():
                self.through_ms = max(self.through_ms, int(line))
        stop.set()


class GatedPacer:
    """A pacer whose windows wait for the gate, too."""

    def __init__(self, inner: Pacer, gate: Gate):
        self._inner, self._gate = inner, gate

    def first_start_ms(self) -> int:
        """Return the start of the first window."""
        return self._inner.first_start_ms()

    def next_start_ms(self, end_ms: int) -> int:
        """Return the start of the window to produce after the one that ended at `end_ms`."""
        return self._inner.next_start_ms(end_ms)

    def seconds_until(self, end_ms: int) -> float:
        """Return the time left by the pacer; while the gate is closed, a little more."""
        left = self._inner.seconds_until(end_ms)
        return LOOK_S if left <= 0 and end_ms > self._gate.through_ms else left


class Release:
    """The demo's side: how far event time is released, from what is in the log and on the output topic."""

    def __init__(self, start_ms: int, window_ms: int, hosts: Iterable[str], domains: Iterable[str]):
        self._start_ms, self._window_ms = start_ms, window_ms
        self._reported = dict.fromkeys(hosts, start_ms)
        self._closed = dict.fromkeys(domains, start_ms)
        largest = -(-len(self._reported) // max(1, len(self._closed)))
        pending = (PENDING_BYTES // max(1, largest) - EVIDENCE_BYTES) // REPORT_BYTES
        # At least one, or the worker could close nothing.
        self._behind = GRACE_WINDOWS + min(max(pending - GRACE_WINDOWS, 1), MAX_BEHIND)

    def reported(self, host_id: str, end_ms: int) -> None:
        """Note that a host's report for the window ending at `end_ms` is in the log."""
        if host_id in self._reported:
            self._reported[host_id] = max(self._reported[host_id], end_ms)

    def closed(self, domain: str, end_ms: int) -> None:
        """Note that a window's output is published."""
        if domain in self._closed:
            self._closed[domain] = max(self._closed[domain], end_ms)

    def through_ms(self) -> int:
        """Event time up to which windows may be produced now."""
        slowest = min(self._reported.values()) + AHEAD_WINDOWS * self._window_ms
        return min(slowest, min(self._closed.values()) + self._behind * self._window_ms)
