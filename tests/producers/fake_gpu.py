"""One GPU of the fake NVML: a power signal, the sensors that see it, an energy counter, and what can go wrong."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

Signal = Callable[[float], float]
"""True power in W at a time in s."""

SUCCESS, UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, NO_PERMISSION = 0, 1, 2, 3, 4
NOT_FOUND, INSUFFICIENT_SIZE, DRIVER_NOT_LOADED, TIMEOUT, FUNCTION_NOT_FOUND = 6, 7, 9, 10, 13
GPU_IS_LOST, RESET_REQUIRED, VERSION_MISMATCH, UNKNOWN = 15, 16, 18, 999
"""nvmlReturn_t of nvml.h."""
INSTANT, AVERAGE, ENERGY = 186, 185, 83
GPU_SCOPE, MODULE_SCOPE = 0, 1

H100 = "NVIDIA H100 80GB HBM3"


def busy(time_s: float) -> float:
    """A load that never repeats a value: two slow waves and a fast one, 250 to 650 W."""
    return 450.0 + 120.0 * math.sin(time_s * 1.7) + 60.0 * math.sin(time_s * 11.3) + 20.0 * math.sin(time_s * 37.1)


@dataclass
class FakeGpu:
    """A GPU. `update_ms`: times between updates of the sensor, in turn (one: a steady period); `window_ms`: what an
    instant reading averages over. `field_time`: the timestamp of a power field is the query's or the sensor's update.
    `ring`: whether the driver's ring buffer has the sensor's entries, those of another sensor, or none.
    `status`: answer to every call about this GPU; `field_status`: by (field, scope) or field. `call_ns`: how long
    a call takes."""

    uuid: str = "GPU-00000000-0000-0000-0000-000000000000"
    name: str = H100
    bus: int = 0x18
    serial: str | None = "1320000000001"
    signal: Signal = busy
    update_ms: Sequence[float] = (100.0,)
    phase_ms: float = 37.0
    window_ms: float = 25.0
    field_time: Literal["query", "sensor"] = "query"
    ring: Literal["sensor", "other", "empty", "unsupported"] = "empty"
    status: int = SUCCESS
    field_status: dict[int | tuple[int, int], int] = field(default_factory=dict)
    legacy_status: int = SUCCESS
    energy_call_status: int = SUCCESS
    event_status: int = SUCCESS
    call_ns: int = 30_000
    limit_mw: int = 700_000
    limit_status: int = SUCCESS
    mig: bool = False
    mig_status: int = SUCCESS
    not_available: bool = False
    energy_from_s: float = 0.0
    energy_back_mj: int = 0
    energy_mj_s: float | None = None
    report: bytes = b"report"
    chain: bytes = b"chain"
    report_size: int | None = None
    nonces: list[bytes] = field(default_factory=list)
    xids: list[int] = field(default_factory=list)
    on_call: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._cycle_ms = float(sum(self.update_ms))
        self._starts_ms = [0.0, *itertools.accumulate(self.update_ms)][:-1]
        self._cache: dict[tuple[float, int], int] = {}
        self._integral = (0, 0.0)  # tenths of a second, joules

    # -- the sensor --------------------------------------------------------------------------------------------------

    def update_index(self, time_ns: int) -> int:
        """Number of the last update at a time."""
        ms = time_ns / 1e6 - self.phase_ms
        cycle = int(ms // self._cycle_ms)
        within = bisect.bisect_right(self._starts_ms, ms - cycle * self._cycle_ms) - 1
        return cycle * len(self.update_ms) + within

    def update_ns(self, index: int) -> int:
        """Time of an update."""
        cycle, within = divmod(index, len(self.update_ms))
        return round((cycle * self._cycle_ms + self._starts_ms[within] + self.phase_ms) * 1e6)

    def reading_mw(self, index: int, window_ms: float | None = None) -> int:
        """The sensor's reading of an update: the mean over the window that ends there."""
        window = self.window_ms if window_ms is None else window_ms
        key = (window, index)
        found = self._cache.get(key)
        if found is None:
            end_s = self.update_ns(index) / 1e9
            if len(self._cache) > 1000:
                self._cache.clear()
            watts = [self.signal(end_s - window / 1000.0 * part / 4) for part in range(5)]
            found = self._cache[key] = round(200.0 * sum(watts))
        return found

    def power_mw(self, time_ns: int, field_id: int = INSTANT) -> int:
        """What a field reads at a time; `not_available`: NVML's -1 in place of a value."""
        if self.not_available:
            return 0xFFFFFFFF
        return self.reading_mw(self.update_index(time_ns), 1000.0 if field_id == AVERAGE else None)

    def ring_entries(self, after_us: int, time_ns: int) -> list[tuple[int, int]]:
        """Entries (µs, mW) of the ring buffer newer than `after_us`: the last 120 updates, or another sensor's."""
        if self.ring == "empty":
            return []
        last = self.update_index(time_ns)
        window = None if self.ring == "sensor" else 777.0
        stamps = ((self.update_ns(i) // 1000, i) for i in range(last - 119, last + 1))
        return [(stamp, self.reading_mw(i, window)) for stamp, i in stamps if stamp > after_us]

    # -- the counter -------------------------------------------------------------------------------------------------

    def energy_mj(self, time_ns: int) -> int:
        """The counter: the integral of the signal up to the last whole 100 ms, less what it jumped back by."""
        if self.not_available:
            return 2**64 - 1
        now_s = time_ns // 100_000_000 / 10.0
        if self.energy_mj_s is not None:  # a steady load, exactly
            return round((now_s - self.energy_from_s) * self.energy_mj_s) - self.energy_back_mj
        at, joules = self._integral if self._integral[0] >= int(self.energy_from_s * 10) else (0, 0.0)
        at = max(at, int(self.energy_from_s * 10))
        for step in range(at, int(now_s * 10)):
            joules += self.signal(step / 10.0 + 0.05) / 10.0
        self._integral = (max(at, int(now_s * 10)), joules)
        return round(1000.0 * joules) - self.energy_back_mj
