"""The demo's processes: started tethered, watched, and ended together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

TERMINATE_S = 3.0
"""Time from SIGTERM to SIGKILL, s. A worker commits and leaves its group in well under one."""

LOG_LINES = 12
"""Lines of a failed process's log that are shown."""


class Children:
    """Child processes that end with this one, however it ends. Their logs are kept in `directory`."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._files: list[IO[bytes]] = []

    def start(self, name: str, arguments: list[str], *, output: int | None = None) -> subprocess.Popen[bytes]:
        """Start `python -m arguments…` in a session of its own: a Ctrl-C in the terminal is for the demo alone."""
        log = (self._directory / f"{name}.log").open("wb")
        self._files.append(log)
        process = subprocess.Popen(  # noqa: S603  our own modules
            [sys.executable, "-m", "enclavescale.tethered", str(os.getpid()), *arguments],
            stdin=subprocess.PIPE,
            stdout=log if output is None else output,
            stderr=log,
            start_new_session=True,
        )
        self._running[name] = process
        return process

    def tell(self, name: str, line: str) -> None:
        """Write a line to a child's stdin; one that has ended does not hear it."""
        stdin = self._running[name].stdin
        if stdin is not None:
            with contextlib.suppress(OSError, ValueError):
                stdin.write(line.encode() + b"\n")
                stdin.flush()

    def done(self, name: str) -> bool:
        """True if the child has ended well."""
        return self._running[name].poll() == 0

    def failed(self) -> str | None:
        """Name, exit code and last log lines of a child that ended with an error."""
        for name, process in self._running.items():
            if process.poll() not in (None, 0):
                return f"{name} ended with {process.returncode}:\n{self.last_words(name)}"
        return None

    def last_words(self, name: str) -> str:
        """The end of a child's log."""
        path = self._directory / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-LOG_LINES:]) if path.exists() else ""

    def stop(self, last: str = "broker") -> None:
        """End everything within `TERMINATE_S`, politely, then by force; the child named `last` after the others."""
        with contextlib.suppress(ValueError):  # not the main thread: signals are another's business
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient second Ctrl-C must not leave anything behind
        self._end([process for name, process in self._running.items() if name != last])
        self._end([process for name, process in self._running.items() if name == last])
        for log in self._files:
            log.close()

    def _end(self, processes: list[subprocess.Popen[bytes]]) -> None:
        for process in processes:
            process.terminate()
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
        deadline = time.monotonic() + TERMINATE_S
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
