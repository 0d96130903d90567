"""How one GPU's power is read: what the probe decided, fixed for the session."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from producers.sample.nvml_calls import POWER_AVERAGE, POWER_INSTANT, SCOPE_GPU

SamplerMode = Literal["instant", "average", "legacy"]
Method = Literal["field", "samples", "legacy"]
FreshnessClock = Literal["sensor", "samples", "schedule"]
EnergyMethod = Literal["field", "call", "none"]

MODES: tuple[SamplerMode, ...] = ("instant", "average", "legacy")


def accepted_modes(accepted: Collection[str]) -> tuple[SamplerMode, ...]:
    """Return the modes that are among those accepted, best first."""
    return tuple(mode for mode in MODES if mode in accepted)


ASSUMED_PERIOD_MS = 100.0
ASSUMED_UPPER_NS = 108_000_000
"""Bound for a sensor that did not move while it was probed: the slowest known, an A100's with 98 to 104 ms, and 4 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorPlan:
    """How to read one GPU.

    `method`: a power field, the driver's ring buffer, or nvmlDeviceGetPowerUsage; `field_id` and `scope` of the field.
    `clock` tells readings apart (see `freshness`); `upper_ns` bounds the time between two updates where it is
    `schedule`. `period_ms`: the sensor's update period; `assumed`: it could not be seen, so period and bound are the
    defaults. `energy`: where the energy counter is read.
    """

    mode: SamplerMode = "instant"
    method: Method = "field"
    field_id: int = POWER_INSTANT
    scope: int = SCOPE_GPU
    clock: FreshnessClock = "schedule"
    period_ms: float = ASSUMED_PERIOD_MS
    assumed: bool = True
    upper_ns: int = ASSUMED_UPPER_NS
    energy: EnergyMethod = "field"


def assumed_plan(mode: SamplerMode) -> SensorPlan:
    """Return the plan for a GPU of this mode that could not be probed, because it is not there."""
    if mode == "legacy":
        return SensorPlan(mode=mode, method="legacy", energy="call")
    return SensorPlan(mode=mode, field_id=POWER_INSTANT if mode == "instant" else POWER_AVERAGE)
