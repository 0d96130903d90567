"""From a few seconds of fast polling: how often a sensor updates, and which clock tells its readings apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from producers.sample.nvml_calls import PowerSample
from producers.sample.plan import ASSUMED_PERIOD_MS, ASSUMED_UPPER_NS, FreshnessClock

MIN_CHANGES = 8
"""Changes of the value needed to say anything; an idle GPU's sensor may stand still for minutes."""
GUARD_NS = 1_000_000
"""Added to the longest time between two updates that was seen: a timer's grain."""
MAX_SKIP = 1.5
"""Updates further apart than this many periods: one was not reported."""
MAX_SPREAD = 0.15
"""Updates further from the period than this share of it are no period."""


class Observation(NamedTuple):
    """One poll: monotonic ns at its begin and end, mW, the driver's timestamp in µs (0: none)."""

    began_ns: int
    ended_ns: int
    power_mw: int
    stamp_us: int


@dataclass(slots=True)
class Watch:
    """What was seen of one GPU: polls in order, and entries of the driver's ring buffer, oldest first."""

    polls: list[Observation] = field(default_factory=list)
    samples: list[PowerSample] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What was inferred. `upper_ns`: two updates are never further apart; `least_ns`: two were, by that much at least,
    whenever between two polls they happened. `assumed`: no period could be seen, so period and bound are the defaults.
    `changes` of the reading."""

    clock: FreshnessClock = "schedule"
    period_ms: float = ASSUMED_PERIOD_MS
    upper_ns: int = ASSUMED_UPPER_NS
    least_ns: int = 0
    assumed: bool = True
    changes: int = 0

    @property
    def moved(self) -> bool:
        """Whether the reading changed often enough to say anything at all."""
        return self.changes >= MIN_CHANGES


def shared(timings: Sequence[Timing]) -> Timing:
    """Return what holds for all GPUs of a model: the worst of those whose reading moved, so that idle ones, and ones
    that appear later, are read as their sisters are. One model and one driver have one kind of sensor."""
    moved = [one for one in timings if one.moved]
    if not moved:
        return Timing()
    clocks = {one.clock for one in moved}
    worst = max(moved, key=lambda one: one.upper_ns)
    return replace(
        worst,
        clock=clocks.pop() if len(clocks) == 1 else "schedule",
        assumed=any(one.assumed for one in moved),
    )


def combined(close: Timing, looks: Sequence[Timing]) -> Timing:
    """Return what holds for all GPUs of a model after `close`, a look at one of them alone, and `looks`, all in turn.

    The fewer GPUs are polled in turn, the less an update's time is in doubt and the tighter is its bound: the close
    look decides it. The others can but raise it, to what was surely seen of a sister, and must agree on the clock.
    """
    if close.assumed:
        return shared([close, *looks])
    moved = [one for one in looks if one.moved]
    return replace(
        close,
        clock=close.clock if all(one.clock == close.clock for one in moved) else "schedule",
        upper_ns=max([close.upper_ns, *(one.least_ns + GUARD_NS for one in moved)]),
    )


def infer(watch: Watch) -> Timing:
    """Return the best clock that the evidence carries, and the update period.

    A timestamp is believed only where the value moved often enough to contradict it and did not: a clock that ticks
    while the reading stands still would let one reading fill two ticks.
    """
    changes = [i for i in range(1, len(watch.polls)) if watch.polls[i].power_mw != watch.polls[i - 1].power_mw]
    if len(changes) < MIN_CHANGES:
        return Timing(changes=len(changes))
    clock: FreshnessClock = "schedule"
    if _stamps_are_updates(watch.polls, changes):
        clock = "sensor"
    elif _samples_are_updates(watch, changes):
        clock = "samples"
    found = _period(watch.polls, changes)
    if found is None:
        return Timing(clock=clock, changes=len(changes))
    period_ns, least_ns, upper_ns = found
    period_ms = round(period_ns / 1e6, 1)
    return Timing(
        clock=clock,
        period_ms=period_ms,
        upper_ns=upper_ns,
        least_ns=least_ns,
        assumed=False,
        changes=len(changes),
    )


def _few_more(seen: int, changes: int) -> bool:
    """Whether there are hardly more updates than changes of the value: now and then two readings are equal."""
    return seen <= changes + changes // 4 + 2


def _stamps_are_updates(polls: Sequence[Observation], changes: Sequence[int]) -> bool:
    """The timestamp moves whenever the value does, and otherwise stands still: it is the update's, not the query's.

    It moves at every update, too, where the value stays the same: one that does not would skip a period.
    """
    stamps = [polls[0].stamp_us] + [b.stamp_us for a, b in pairwise(polls) if b.stamp_us != a.stamp_us]
    return (
        _few_more(len(stamps) - 1, len(changes))
        and all(polls[i].stamp_us != polls[i - 1].stamp_us for i in changes)
        and _regular(stamps[1:])
    )


def _regular(stamps: Sequence[int]) -> bool:
    """The timestamps rise, and none is left out."""
    apart = np.diff(np.array(stamps, np.int64))
    return len(apart) >= MIN_CHANGES // 2 and bool(apart.min() > 0 and apart.max() < MAX_SKIP * np.median(apart))


def _samples_are_updates(watch: Watch, changes: Sequence[int]) -> bool:
    """The ring buffer got one entry per change of the field, with the field's new value: they are one sensor.

    It has no timestamp twice. The first and the last change may lie outside of what the buffer was asked for.
    """
    inner = changes[1:-1]
    values = {sample.power_mw for sample in watch.samples}
    shared = sum(watch.polls[i].power_mw in values for i in inner)
    regular = _regular([sample.timestamp_us for sample in watch.samples])
    return regular and _few_more(len(watch.samples), len(changes)) and shared >= 0.95 * len(inner)


def _period(polls: Sequence[Observation], changes: Sequence[int]) -> tuple[float, int, int] | None:
    """Update period, the longest that surely was, upper bound, ns; None if changes do not come at multiples of one.

    A change between polls i - 1 and i happened after i - 1 began and before i ended. Two changes with equal readings
    in between are several periods apart; the bound comes from those that are one period apart, each at its longest.
    """
    low = np.array([polls[i - 1].began_ns for i in changes], np.float64)
    high = np.array([polls[i].ended_ns for i in changes], np.float64)
    sharp = high - low <= 2 * float(np.median(high - low))  # not where the process was held up between two polls
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
    least = float(np.max((low[1:] - high[:-1])[single]))
    return period, int(least), int(max(longest, 1.02 * period)) + GUARD_NS
