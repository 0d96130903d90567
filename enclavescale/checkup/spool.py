"""The spool's place: writable by this user, with room, on a file system that keeps what is fsynced, and fast at it."""

from __future__ import annotations

import contextlib
import os
import pwd
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from enclavescale.checkup.finding import Finding, fail, ok, warn

FSYNCS, FSYNC_BYTES = 5, 64 * 1024
"""Trials and their size: about what the spool syncs for one window."""

SLOW_FSYNC_MS = 500.0
"""From here on a window's end waits noticeably, ms."""

HEADROOM = 2
"""Room needed, as a multiple of the spool's bound: the write-ahead log may hold as much again for a while."""

_VOLATILE = ("tmpfs", "ramfs", "overlay")
_REMOTE = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs")
MOUNTS = Path("/proc/self/mountinfo")


def check_spool(
    spool: Path, max_bytes: int, mounts: Path = MOUNTS, clock: Callable[[], float] = time.perf_counter
) -> Iterator[Finding]:
    """`max_bytes`: the spool's bound. Writes a file of its own beside it and removes it."""
    directory = spool.parent
    # Of os.path: what this user may not look at raises nothing.
    existing = next(one for one in (directory, *directory.parents) if os.path.exists(one))
    if existing != directory:
        user = _user(os.geteuid())
        remedy = f"The agent makes it if it may; better: install -d -m 0700 -o <the agent's user> {directory}"
        yield warn("spool.directory", f"{directory} does not exist (checked as {user})", remedy)
    yield from _owner(spool if os.path.exists(spool) else existing)
    if os.path.isdir(spool):
        yield fail("spool.write", f"{spool} is a directory", "Set spool to the path of a file.", code="SPOOL_FAILED")
        return
    try:
        times = _fsync_times(existing, clock)
    except OSError as error:
        remedy = "Give the directory to the agent's user, on a file system that is mounted read-write and has space."
        yield fail("spool.write", f"cannot write in {existing}: {error.strerror}", remedy, code="SPOOL_FAILED")
        return
    worst = max(times)
    if worst > SLOW_FSYNC_MS:
        remedy = "Put the spool on a local disk that is not busy: each window waits for one fsync."
        yield warn("spool.write", f"fsync takes up to {worst:.0f} ms", remedy)
    else:
        yield ok("spool.write", f"{existing} takes writes; fsync in {worst:.1f} ms at most")
    yield _space(existing, spool, max_bytes)
    yield _file_system(existing, mounts)


def _owner(path: Path) -> Iterator[Finding]:
    """Root may write everywhere, so its trial says nothing about the agent's user."""
    state = path.stat()
    if os.geteuid() == 0 and state.st_uid != 0:
        remedy = f"For a true answer: sudo -u {_user(state.st_uid)} enclavescale doctor …"
        yield warn("spool.user", f"{path} belongs to {_user(state.st_uid)}, and this runs as root", remedy)
    if path.is_file() and state.st_mode & 0o077:
        remedy = f"chmod 0600 {path}: it holds what has not been published yet."
        yield warn("spool.user", f"{path} may be read by others", remedy)


def _fsync_times(directory: Path, clock: Callable[[], float]) -> list[float]:
    """Milliseconds of each write with its fsync."""
    times = []
    data = os.urandom(FSYNC_BYTES)
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".enclavescale-doctor-") as file:
        for _ in range(FSYNCS):
            began = clock()
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            times.append((clock() - began) * 1000)
    return times


def _space(directory: Path, spool: Path, max_bytes: int) -> Finding:
    state = os.statvfs(directory)
    free = state.f_bavail * state.f_frsize
    with contextlib.suppress(OSError):
        free += spool.stat().st_size  # what the spool holds already is part of its bound
    found = f"{_mib(free)} free, the spool may take {_mib(max_bytes)}"
    if free < max_bytes:
        remedy = "Make space, or lower spool_max_mib: a full disk loses windows."
        return fail("spool.space", found, remedy, code="SPOOL_FAILED")
    if free < HEADROOM * max_bytes:
        return warn("spool.space", found, "Twice the bound is needed at times, for the write-ahead log.")
    return ok("spool.space", found)


def _file_system(directory: Path, mounts: Path) -> Finding:
    kind = file_system_of(directory, mounts)
    if kind in _VOLATILE:
        remedy = "Use a disk or a volume: after a crash of the machine, what was not acknowledged is gone."
        return warn("spool.file_system", f"{kind} does not outlive a restart", remedy)
    if kind in _REMOTE:
        remedy = "Use a local disk: SQLite's locks and fsync cannot be relied on here."
        return warn("spool.file_system", f"{kind} is a network file system", remedy)
    return ok("spool.file_system", kind or "unknown")


def file_system_of(path: Path, mounts: Path = MOUNTS) -> str:
    """Type of the file system that `path` is on, empty if unknown."""
    real = path.resolve()
    best, kind = -1, ""
    with contextlib.suppress(OSError):
        for line in mounts.read_text(errors="replace").splitlines():
            before, dash, after = line.partition(" - ")
            fields = before.split(" ")
            if not dash or len(fields) < 5:
                continue
            # The kernel writes blanks, tabs, line feeds and backslashes of a name in octal.
            point = Path(fields[4].encode("latin-1", "replace").decode("unicode_escape"))
            if real.is_relative_to(point) and len(point.parts) >= best:  # of several on one point the last is on top
                best, kind = len(point.parts), after.split(" ")[0]
    return kind


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.0f} MiB" if size < 10 << 30 else f"{size / (1 << 30):,.0f} GiB"
