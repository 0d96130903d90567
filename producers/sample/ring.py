"""The last few windows of readings of every GPU, by tick, in memory that never grows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from producers.sample.source import EnergySpan, Readings


@dataclass(frozen=True, slots=True)
class Span:
    """Some ticks of some GPUs, each array [gpus, ticks]: `power_w` W (NaN = missing), `energy_mj` mJ where
    `has_energy`, `offset_us` = time of the reading less the time of its tick, µs; `flags` bits of `FLAG_NAMES`."""

    power_w: Readings
    energy_mj: npt.NDArray[np.int64]
    has_energy: npt.NDArray[np.bool_]
    offset_us: npt.NDArray[np.int32]
    flags: npt.NDArray[np.uint16]


class Ring:
    """`capacity` ticks of `gpus` GPUs. Not locked: the sampler locks."""

    def __init__(self, gpus: int, capacity: int) -> None:
        self._power_w = np.full((gpus, capacity), np.nan, np.float32)
        self._energy_mj = np.zeros((gpus, capacity), np.int64)
        self._has_energy = np.zeros((gpus, capacity), np.bool_)
        self._offset_us = np.zeros((gpus, capacity), np.int32)
        self._flags = np.zeros((gpus, capacity), np.uint16)
        self._capacity = capacity
        self._newest: int | None = None
        self._filled = [-1] * gpus

    def put(self, gpu: int, tick: int, power_w: float | None, energy_mj: int | None, offset_us: int) -> bool:
        """Store a reading; False, and nothing stored, if the GPU already has one of this tick or a later one."""
        if tick <= self._filled[gpu]:
            return False
        self._filled[gpu] = tick
        slot = self._slot(tick)
        self._power_w[gpu, slot] = math.nan if power_w is None else power_w
        self._offset_us[gpu, slot] = offset_us
        if energy_mj is not None:
            self._energy_mj[gpu, slot] = energy_mj
            self._has_energy[gpu, slot] = True
        return True

    def flag(self, gpu: int, tick: int, flags: int) -> None:
        """Add flags to a GPU's tick; a tick that is no longer held is left alone."""
        if self._newest is None or tick > self._newest - self._capacity:
            self._flags[gpu, self._slot(tick)] |= np.uint16(flags)

    def _slot(self, tick: int) -> int:
        """Slot of a tick; slots of newer ticks than before are emptied on the way."""
        if self._newest is None:
            self._newest = tick
        elif tick > self._newest:
            for new in range(max(self._newest + 1, tick - self._capacity + 1), tick + 1):
                slot = new % self._capacity
                self._power_w[:, slot] = np.nan
                self._has_energy[:, slot] = False
                self._flags[:, slot] = 0
            self._newest = tick
        return tick % self._capacity

    def span(self, rows: npt.NDArray[np.intp], first_tick: int, last_tick: int) -> Span:
        """Copy ticks `first_tick` <= t < `last_tick` of some GPUs; what is not held is missing, without flags."""
        ticks = np.arange(first_tick, last_tick, dtype=np.int64)
        newest = -1 if self._newest is None else self._newest
        held = (ticks <= newest) & (ticks > newest - self._capacity)
        at = np.ix_(rows, ticks % self._capacity)
        return Span(
            power_w=np.where(held, self._power_w[at], np.float32(np.nan)),
            energy_mj=self._energy_mj[at],
            has_energy=self._has_energy[at] & held,
            offset_us=self._offset_us[at],
            flags=np.where(held, self._flags[at], np.uint16(0)),
        )


def energy_span(span: Span, ticks_per_pane: int, reset: npt.NDArray[np.bool_]) -> EnergySpan | None:
    """Return what the counters say of a window, None if no GPU's counter was read near both of its ends.

    A tick's reading is taken within half a tick of it, so tick 0's may lie before the window: the span begins at tick
    1 or later. Its ends are the ticks in the first and the last pane at which most counters were read, which no value
    decides. `reset` bool[gpus]: the counter may have begun again, so a difference means nothing.
    """
    ticks = span.power_w.shape[1]
    read = span.has_energy.sum(axis=0)
    first = 1 + int(np.argmax(read[1 : max(ticks_per_pane, 2)]))
    tail = read[::-1][: max(min(ticks_per_pane, ticks - 1 - first), 1)]
    last = ticks - 1 - int(np.argmax(tail))
    if not read[first] or not read[last] or last <= first:
        return None
    delta = span.energy_mj[:, last] - span.energy_mj[:, first]
    valid = span.has_energy[:, first] & span.has_energy[:, last] & ~reset & ~_goes_back(span)
    return EnergySpan(
        delta_mj=np.where(valid, delta, 0).astype(np.int64), valid=valid, first_tick=first, last_tick=last
    )


def _goes_back(span: Span) -> npt.NDArray[np.bool_]:
    """Which counters read lower than before within the window: begun again, or wrong."""
    lowest = np.iinfo(np.int64).min
    seen = np.maximum.accumulate(np.where(span.has_energy, span.energy_mj, lowest), axis=1)
    back: npt.NDArray[np.bool_] = np.any(span.has_energy & (span.energy_mj < seen), axis=1)
    return back
