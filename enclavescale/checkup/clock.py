"""The clock: windows are aligned to UTC, and a report from the future is refused (CLOCK_SKEW)."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from enclavescale.checkup.finding import Finding, fail, ok, skip, warn

UNSYNCHRONISED_MS = 16_000
"""Maximum error at which the kernel gives up, ms (NTP_PHASE_LIMIT). Also what `timedatectl` goes by: STA_UNSYNC alone
may only mean that the kernel does not set the hardware clock."""

SETTLED_S = 120
"""Time after a boot in which clocks are still being stepped, s."""

DEFAULT_TOLERANCE_MS = 5_000
"""Skew assumed to be tolerated where no policy could be read, ms."""

SERVICES = (
    ("chrony", ("chrony/chronyd.pid", "chrony/chronyd.sock", "chronyd.pid")),
    ("systemd-timesyncd", ("systemd/timesync/synchronized", "systemd/timesync")),
    ("ntpd", ("ntpd.pid", "ntpd/ntpd.pid", "ntpsec/ntpd.pid")),
)
"""Services that keep the time, and what they leave below /run."""

_ADVICE = {
    "chrony": "See `chronyc sources` and `chronyc tracking`: it runs, and has no source it trusts.",
    "systemd-timesyncd": "See `timedatectl timesync-status`: it runs, and no server has answered.",
    "ntpd": "See `ntpq -p`: it runs, and has not chosen a peer.",
    "": "Install chrony (`systemctl enable --now chrony`) or systemd-timesyncd (`timedatectl set-ntp true`).",
}


class _Timex(ctypes.Structure):
    """`struct timex` of Linux (adjtimex(2)); ctypes pads it as C does."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        *((name, ctypes.c_long) for name in ("offset", "freq", "maxerror", "esterror")),
        ("status", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("constant", "precision", "tolerance", "sec", "usec", "tick")),
        *((name, ctypes.c_long) for name in ("ppsfreq", "jitter")),
        ("shift", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("stabil", "jitcnt", "calcnt", "errcnt", "stbcnt")),
        ("tai", ctypes.c_int),
        ("reserved", ctypes.c_int * 11),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockState:
    """The kernel's own opinion of its clock, ms."""

    estimated_error_ms: float
    maximum_error_ms: float


def kernel_clock() -> ClockState:
    """Ask the kernel; changes nothing. Raises OSError where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    state = _Timex(modes=0)
    if libc.adjtimex(ctypes.byref(state)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return ClockState(estimated_error_ms=state.esterror / 1000, maximum_error_ms=state.maxerror / 1000)


def clock_or_error() -> ClockState | OSError:
    """What the kernel says, or why it does not."""
    try:
        return kernel_clock()
    except OSError as error:
        return error


def keeper(run: Path = Path("/run")) -> str:
    """Name of the service that keeps the time here, empty if none is seen (in a container: the host's is not)."""
    return next((name for name, marks in SERVICES if any((run / mark).exists() for mark in marks)), "")


def uptime_s() -> float:
    """Seconds since the boot, suspended time included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def check_clock(state: ClockState | OSError, service: str, up_s: float, tolerance_ms: int) -> Iterator[Finding]:
    """`tolerance_ms`: the skew that the policy tolerates."""
    if isinstance(state, OSError):
        yield skip("clock.synchronised", f"the kernel does not say: {state.strerror}; look on the host itself")
    elif state.maximum_error_ms >= UNSYNCHRONISED_MS:
        by = f" ({service} is running)" if service else ""
        yield fail("clock.synchronised", f"the clock is not synchronised{by}", _ADVICE[service], code="CLOCK_SKEW")
    elif state.maximum_error_ms > tolerance_ms:
        found = f"off by up to {state.maximum_error_ms:.0f} ms; the policy tolerates {tolerance_ms} ms"
        yield warn("clock.synchronised", found, _ADVICE[service], code="CLOCK_SKEW")
    else:
        by = f" by {service}" if service else ""
        estimate = f"about {state.estimated_error_ms:.1f} ms off, {state.maximum_error_ms:.0f} ms at most"
        yield ok("clock.synchronised", f"synchronised{by}: {estimate}")
    if up_s < SETTLED_S:
        yield warn("clock.uptime", f"booted {up_s:.0f} s ago", "Clocks are still being set: look again in two minutes.")
    else:
        yield ok("clock.uptime", f"booted {_duration(up_s)} ago")


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3_600)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 60:.0f} minutes"
