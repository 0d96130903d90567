"""A child process that does not outlive its parent: `python -m enclavescale.tethered PARENT_PID MODULE ARGUMENTS…`.

The demo starts everything through it. On Linux the kernel is asked to kill this process when its parent ends
(PR_SET_PDEATHSIG), however that happened, SIGKILL included. Elsewhere a thread looks twice a second whether the
parent is still the same. The request is made here and not between fork and exec (`preexec_fn`), where a process with
threads must not run Python.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
import threading
import time

PR_SET_PDEATHSIG = 1
LOOK_S = 0.5


def tie(parent: int) -> None:
    """End this process when the process `parent` ends; at once if that has happened already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_look, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _look(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os._exit(1)


def main(arguments: list[str]) -> None:
    """Tie this process to its parent and run a module as `python -m` would."""
    tie(int(arguments[0]))
    sys.argv = arguments[1:]
    runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
