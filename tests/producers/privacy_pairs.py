"""Worst-case neighbours: what may differ between two hosts that nobody may tell apart."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from producers.privacy import RELEASES, event_ms
from producers.sample.source import EnergySpan
from tests.producers.forge import SCHEDULE
from tests.producers.privacy_attack import Neighbours, Window

NAN = math.nan
HIGH = 400
"""Clip bound of `forge.gpu_class`, W; the lower one is 0 and the edges are 100, 200, 300 W."""
MIDDLE_MJ = HIGH * SCHEDULE.window_ms // 2
UPDATE_MJ = HIGH * event_ms(SCHEDULE.tick_ms)
AT = 34
"""Tick that differs."""


def window(changes: dict[int, float], energy_mj: int = MIDDLE_MJ, level_w: float = 150.0) -> Window:
    """One GPU at `level_w` except for `changes`, tick to W; the counters were read next to both ends."""
    row: npt.NDArray[np.float32] = np.full((1, SCHEDULE.ticks), level_w, dtype=np.float32)
    for tick, power_w in changes.items():
        row[0, tick] = power_w
    span = EnergySpan(
        delta_mj=np.array([energy_mj]), valid=np.array([True]), first_tick=1, last_tick=SCHEDULE.ticks - 1
    )
    return Window(row, span)


def _pair(name: str, around: dict[int, float], low: float, high: float, only: tuple[str, ...] = RELEASES) -> Neighbours:
    """The reading goes from low to high, and the counter sees it the other way round: they are two sensors."""
    before = window(around | {AT: low}, MIDDLE_MJ + UPDATE_MJ // 2)
    after = window(around | {AT: high}, MIDDLE_MJ - UPDATE_MJ // 2)
    return Neighbours(name, (before,), (after,), only=only)


def _average(name: str, power_w: tuple[float, float], only: tuple[str, ...]) -> Neighbours:
    """A sensor that averages over a second: one event of 100 ms is in eleven readings, more or less of it.

    They go from 399 W to one value or to two in turns: the worst that group privacy covers, more than a boxcar can.
    """
    ticks = range(AT, AT + 11)
    before = window(dict.fromkeys(ticks, 399.0))
    after = window({tick: power_w[(tick - AT) % 2] for tick in ticks}, MIDDLE_MJ + UPDATE_MJ)
    return Neighbours(name, (before,), (after,), readings=len(ticks), only=only)


def _edge(first_seen: int, name: str) -> Neighbours:
    """The last reading of a window differs."""
    last = SCHEDULE.ticks - 1
    before, after = window({last: -math.inf}), window({last: math.inf})
    following = window({0: 250.0})
    return Neighbours(name, (before, following), (after, following), first_seen=first_seen)


def _over_the_edge() -> Neighbours:
    """An update of the sensor that lasts over the edge, its reading in the second: either counter saw half of it."""
    half = UPDATE_MJ // 4
    before = window({}, MIDDLE_MJ + half), window({1: -math.inf}, MIDDLE_MJ + half)
    after = window({}, MIDDLE_MJ - half), window({1: math.inf}, MIDDLE_MJ - half)
    return Neighbours("energy over the edge of two windows", before, after, only=("energy_residual",))


GAPS = dict.fromkeys((0, 5, AT - 3, AT - 2, AT + 3, AT + 5, 60, 61, 98), NAN)
"""Nine ticks missing in the span of 98, three of them in the pane that differs: as many as the residual bears."""

COUNTS_AND_SUMS = ("transitions", "pane_sums", "histogram")
EVENT = _pair("a reading from end to end", {AT - 1: 150.0, AT + 1: 250.0}, -math.inf, math.inf)
SPIKES = _pair("two spikes or none", {AT - 1: 300.0, AT + 1: 300.0}, 0.0, 290.0, ("glitches",))
HELD = _pair("before a stale tick", {AT + 1: NAN}, -math.inf, math.inf, COUNTS_AND_SUMS)
SAME_CELL = _pair("a,a,a to a,b,a", {}, 150.0, math.inf, ("transitions",))
NEIGHBOURS = (
    EVENT,
    SPIKES,
    HELD,
    SAME_CELL,
    _pair("between stale ticks", {AT - 1: NAN, AT + 1: NAN}, -math.inf, math.inf, ("transitions",)),
    _pair("in a window with gaps", GAPS | {AT + 1: 250.0}, -math.inf, math.inf),
    _edge(0, "last of a window, both windows seen"),
    _over_the_edge(),
)
"""Every one an event of one reading: what is stated for one reading bounds the loss."""

AVERAGES = (
    _average("average: eleven readings in zigzag", (20.0, 380.0), ("transitions", "glitches")),
    _average("average: eleven readings from end to end", (0.0, 0.0), ("pane_sums", "histogram", "energy_residual")),
)
"""One event of 100 ms where the sensor averages over a second."""

NEXT_WINDOW = _edge(1, "last of a window, the next one seen")
"""The report of a window depends on its own readings alone: a loss of nothing at all."""
