"""From a few seconds of fast polling: how often a sensor updates, and which clock tells its readings apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from producers.sample.nvml_calls import PowerSample
from producers.sample.plan import ASSUMED_PERIOD_MS, ASSUMED_UPPER_NS, FreshnessClock

MIN_CHANGES = 8
"""Changes of the value needed to say anything; an idle GPU's sensor may stand still for minutes."""
GUARD_NS = 1_000_000
"""Added to the longest time between two updates that was seen: a timer's grain."""
MAX_SPREAD = 0.15
"""Updates further from the period than this share of it are no period."""


class Observation(NamedTuple):
    """One poll: monotonic ns at its begin and end, mW, the driver's timestamp in µs (0: none)."""

    began_ns: int
    ended_ns: int
    power_mw: float
    stamp_us: int


@dataclass(slots=True)
class Watch:
    """What was seen of one GPU: polls in order, and entries of the driver's ring buffer, oldest first."""

    polls: list[Observation] = field(default_factory=list)
    samples: list[PowerSample] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What was inferred; `assumed`: nothing could be, these are the defaults."""

    clock: FreshnessClock = "schedule"
    period_ms: float = ASSUMED_PERIOD_MS
    upper_ns: int = ASSUMED_UPPER_NS
    assumed: bool = True


def infer(watch: Watch) -> Timing:
    """Return the best clock that the evidence carries, and the update period.

    A timestamp is believed only where the value moved often enough to contradict it and did not: a clock that ticks
    while the reading stands still would let one reading fill two ticks.
    """
    changes = [i for i in range(1, len(watch.polls)) if watch.polls[i].power_mw != watch.polls[i - 1].power_mw]
    if len(changes) < MIN_CHANGES:
        return Timing()
    clock: FreshnessClock = "schedule"
    if _stamps_are_updates(watch.polls, changes):
        clock = "sensor"
    elif _samples_are_updates(watch, changes):
        clock = "samples"
    found = _period(watch.polls, changes)
    if found is None:
        return Timing(clock=clock, assumed=True)
    return Timing(clock=clock, period_ms=round(found[0] / 1e6, 1), upper_ns=found[1], assumed=False)


def _few_more(seen: int, changes: int) -> bool:
    """Whether there are hardly more updates than changes of the value: now and then two readings are equal."""
    return seen <= changes + changes // 4 + 2


def _stamps_are_updates(polls: Sequence[Observation], changes: Sequence[int]) -> bool:
    """The timestamp moves whenever the value does, and otherwise stands still: it is the update's, not the query's."""
    moved = sum(polls[i].stamp_us != polls[i - 1].stamp_us for i in range(1, len(polls)))
    return _few_more(moved, len(changes)) and all(polls[i].stamp_us != polls[i - 1].stamp_us for i in changes)


def _samples_are_updates(watch: Watch, changes: Sequence[int]) -> bool:
    """The ring buffer got one entry per change of the field, with the field's new value: they are one sensor.

    The first and the last change may lie outside of what the buffer was asked for.
    """
    inner = changes[1:-1]
    values = {round(sample.power_mw) for sample in watch.samples}
    shared = sum(round(watch.polls[i].power_mw) in values for i in inner)
    return _few_more(len(watch.samples), len(changes)) and shared >= 0.95 * len(inner)


def _period(polls: Sequence[Observation], changes: Sequence[int]) -> tuple[float, int] | None:
    """Update period and its upper bound, ns; None if the changes do not come at multiples of a period.

    A change between polls i - 1 and i happened after i - 1 began and before i ended. Two changes with equal readings
    in between are several periods apart; the bound comes from those that are one period apart, each at its longest.
    """
    low = np.array([polls[i - 1].began_ns for i in changes], np.float64)
    high = np.array([polls[i].ended_ns for i in changes], np.float64)
    sharp = high - low <= 4 * float(np.median(high - low))  # not where the process was held up between two polls
    low, high = low[sharp], high[sharp]
    if len(low) < MIN_CHANGES:
        return None
    apart: npt.NDArray[np.float64] = np.diff((low + high) / 2)
    base = float(np.percentile(apart, 10))
    base = float(np.median(apart[apart < 1.5 * base]))
    multiples = np.maximum(np.rint(apart / base), 1.0)
    single = multiples == 1.0
    near = np.abs(apart - multiples * base) <= MAX_SPREAD * base
    if np.count_nonzero(single) < MIN_CHANGES // 2 or np.count_nonzero(near) < 0.9 * len(near):
        return None
    period = float(np.median(apart[single]))
    longest = float(np.max((high[1:] - low[:-1])[single]))
    return period, int(max(longest, 1.02 * period)) + GUARD_NS
