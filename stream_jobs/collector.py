"""How often Python looks for reference cycles in a process that holds the state of large domains.

The core's state has none: sessions, windows and histories are freed by their reference counts. A full search walks all
of it, 0.3 s with 10,000 hosts, and by default comes whenever what is retained has grown by a quarter.
"""

from __future__ import annotations

import gc

YOUNG = 20_000
"""Containers made and not freed before the newest generation is searched; the default is 700."""

OLDER, OLDEST = 20, 200
"""Searches of one generation before the next older is searched; the defaults are 10 and 10."""


def tune_collector() -> None:
    """Set aside what is there now, and search seldom. Once, when a worker's state has been read, or before."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, OLDER, OLDEST)
