"""One poll of one GPU by its plan: power, the driver's time for it, energy counter; in as few calls as can be."""

from __future__ import annotations

from typing import NamedTuple

from producers.sample.nvml import Handle, Nvml
from producers.sample.nvml_calls import SCOPE_GPU, TOTAL_ENERGY, FieldValue
from producers.sample.nvml_faults import NvmlFault, fault_of
from producers.sample.plan import SensorPlan


class Poll(NamedTuple):
    """`power_mw` None: the ring buffer has nothing new. `stamp_us`: the driver's time of the reading, 0 if it has
    none. `energy_mj` None: not supported, or failed this once."""

    power_mw: int | None
    stamp_us: int
    energy_mj: int | None


class PowerQuery:
    """Polls any GPU that has this plan. One thread."""

    def __init__(self, nvml: Nvml, plan: SensorPlan) -> None:
        self._nvml = nvml
        self._plan = plan
        power = [(plan.field_id, plan.scope)] if plan.method == "field" else []
        energy = [(TOTAL_ENERGY, SCOPE_GPU)] if plan.energy == "field" else []
        self._fields = nvml.field_call(power + energy) if power or energy else None
        self._samples = nvml.samples_call() if plan.method == "samples" else None

    def poll(self, handle: Handle, after_us: int = 0) -> Poll:
        """Read a GPU once; of the ring buffer the newest entry after `after_us`. Raises `NvmlFault` if power cannot be
        read, never for the energy counter alone."""
        if self._samples is not None:
            new = self._samples(handle, after_us)
            energy = self._energy(handle, self._values(handle))
            return Poll(new[-1].power_mw, new[-1].timestamp_us, energy) if new else Poll(None, after_us, energy)
        if self._plan.method == "legacy":
            power = self._nvml.legacy_power_mw(handle)
            return Poll(power, 0, self._energy(handle, self._values(handle)))
        values = self._values(handle)
        reading = values[0]
        if reading.value is None:
            raise fault_of(reading.status or _UNKNOWN_TYPE, "power field")
        return Poll(reading.value, reading.timestamp_us, self._energy(handle, values))

    def _values(self, handle: Handle) -> list[FieldValue]:
        return self._fields(handle) if self._fields is not None else []

    def _energy(self, handle: Handle, values: list[FieldValue]) -> int | None:
        if self._plan.energy == "field":
            return values[-1].value
        if self._plan.energy == "call":
            try:
                return self._nvml.energy_mj(handle)
            except NvmlFault as fault:
                if fault.kind in ("driver", "lost"):
                    raise
        return None


_UNKNOWN_TYPE = 3
"""A value of a type that no power field has: as good as NVML_ERROR_NOT_SUPPORTED."""
