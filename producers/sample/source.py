"""What a source of readings gives the agent: one window of one GPU class at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Readings = npt.NDArray[np.float32]
"""float32[gpus, ticks], W; NaN, and NaN alone, is a tick without a fresh reading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergySpan:
    """What the GPUs' energy counters say of one window, from readings strictly inside it.

    `delta_mj` int64[gpus]: counter at `last_tick` minus counter at `first_tick`, mJ; the span covers the ticks
    `first_tick` <= t < `last_tick` of the window. `valid` bool[gpus]: False where a counter was not read at both
    ends, went backwards (driver reload) or is not supported.
    """

    delta_mj: npt.NDArray[np.int64]
    valid: npt.NDArray[np.bool_]
    first_tick: int
    last_tick: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What else is known of a window of one class.

    `flags`: conditions of the sampler, none of which may depend on a power value, with the number of GPUs concerned.
    `energy` depends on the readings and is never released without noise. `enforced_limit_w`: sum of the power limits
    that the driver enforces, W; None where the source does not say.
    """

    flags: tuple[tuple[str, int], ...] = ()
    energy: EnergySpan | None = None
    enforced_limit_w: int | None = None


NO_CONDITIONS = Conditions()
"""Nothing known: a trace."""


class ReadingSource(Protocol):
    """Readings of the GPUs of one class on one host.

    Whether a tick is missing must never depend on the value read: the pattern of gaps is published.
    """

    @property
    def gpus(self) -> int:
        """Number of GPUs."""

    @property
    def kind(self) -> str:
        """Source as bound in the session: nvml, dcgm, trace or simulated."""

    @property
    def sampler_mode(self) -> str:
        """Kind of reading: instant, average or legacy."""

    def window(self, start_ms: int, end_ms: int) -> Readings:
        """Return the readings of [start_ms, end_ms), UTC ms, both multiples of the tick."""

    def conditions(self, start_ms: int, end_ms: int) -> Conditions:
        """Return what else is known of that window; asked after `window`, once."""
