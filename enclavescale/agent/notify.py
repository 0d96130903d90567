"""What the service manager is told (sd_notify(3)): ready, alive, reloading, stopping, and one line of status.

A datagram on the socket that $NOTIFY_SOCKET names, a path or an abstract name (`@…`). Without the variable nothing is
sent, and no failure to send ever stops the agent: a service manager that hears nothing draws its own conclusions.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

SEND_TIMEOUT_S = 1.0
"""Longest wait for a full socket, s; the loop that calls must go on."""

MAX_STATUS = 200
"""Characters of a status line."""


def _monotonic_us() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


@dataclass(slots=True)
class Notifier:
    """Tells the service manager. `address` None: nobody listens. `watchdog_s`: it wants a sign of life this often.

    `now` is a monotonic clock in seconds.
    """

    address: str | None = None
    watchdog_s: float | None = None
    now: Callable[[], float] = time.monotonic
    _last: float | None = field(default=None, init=False)
    _said: str = field(default="", init=False)

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, now: Callable[[], float] = time.monotonic
    ) -> Notifier:
        """The notifier that $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID describe.

        Other kinds of sockets than AF_UNIX are left alone, with a warning.
        """
        given = os.environ if environment is None else environment
        address = given.get("NOTIFY_SOCKET") or None
        if address is not None and address[0] not in "/@":
            log.warning("NOTIFY_SOCKET is no path and no abstract name: nothing is sent")
            address = None
        return cls(address, _watchdog_s(given) if address else None, now)

    def ready(self, status: str = "") -> None:
        """The agent works: after the start, and after a reload, whichever way it ended."""
        self._send("READY=1", *self._status(status))

    def status(self, status: str) -> None:
        """One line for `systemctl status`; sent only when it is another one."""
        if status != self._said:
            self._send(*self._status(status))

    def alive(self) -> None:
        """A sign of life from the agent's loop; may be called at any rate, sends at half of what is demanded."""
        if self.watchdog_s is None:
            return
        now = self.now()
        if self._last is None or now - self._last >= self.watchdog_s / 2:
            self._last = now
            self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it. Carries the time, by which Type=notify-reload knows it from another."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={_monotonic_us()}")

    def stopping(self, status: str = "") -> None:
        """The end begins: what is spooled is being flushed."""
        self._send("STOPPING=1", *self._status(status))

    def _status(self, status: str) -> tuple[str, ...]:
        self._said = status
        line = " ".join(status.split())[:MAX_STATUS]  # a line feed would begin another assignment
        return (f"STATUS={line}",) if line else ()

    def _send(self, *assignments: str) -> None:
        if self.address is None or not assignments:
            return
        # Abstract names begin with a zero byte; @ stands for it in the environment.
        target = "\0" + self.address[1:] if self.address[0] == "@" else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(SEND_TIMEOUT_S)
                sender.sendto("\n".join(assignments).encode(), target)
        except OSError as error:
            log.debug("the service manager was not told: %s", error.strerror)


def _watchdog_s(given: Mapping[str, str]) -> float | None:
    """Seconds between two signs of life, if this very process is watched."""
    with contextlib.suppress(ValueError):
        period = int(given.get("WATCHDOG_USEC") or 0)
        watched = int(given.get("WATCHDOG_PID") or os.getpid())
        if period > 0 and watched == os.getpid():
            return period / 1e6
    return None
