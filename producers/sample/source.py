"""What a source of readings gives the agent: one window of one GPU class at a time."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

Readings = npt.NDArray[np.float32]
"""float32[gpus, ticks], W; NaN, and NaN alone, is a tick without a fresh reading."""


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
