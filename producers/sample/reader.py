"""What stands behind the sampler: a reader that polls every GPU of a host once, and the record it returns per GPU."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

STALL = 1
STALE = 2
GPU_LOST = 4
DRIVER_RELOAD = 8
MIG = 16
XID = 32
PERMISSION = 64
CLOCK_STEP = 128

FLAG_NAMES = {
    STALL: "stall",
    STALE: "stale",
    GPU_LOST: "gpu_lost",
    DRIVER_RELOAD: "driver_reload",
    MIG: "mig",
    XID: "xid",
    PERMISSION: "permission",
    CLOCK_STEP: "clock_step",
}
"""Bits of `GpuReading.flags` and their names in reports (`SensorFlag.flag`). Plain integers: ten times a second for
every GPU, an enum's operators would be most of the work."""


class GpuReading(NamedTuple):
    """One poll of one GPU.

    `power_w`: W; None = no fresh reading, and never because of what was read. A reader gives one sensor reading to
    one poll at most. `energy_mj`: energy counter, mJ; None = not read. `began_ns`, `ended_ns`: when the call began and
    ended, monotonic time of the sampler's clock; `flags`: bits of `FLAG_NAMES`.
    """

    power_w: float | None
    energy_mj: int | None
    began_ns: int
    ended_ns: int
    flags: int = 0


class PowerReader(Protocol):
    """Polls the GPUs of a host; called by one thread. Never raises for a fault of a GPU: it flags."""

    @property
    def kind(self) -> str:
        """Source as bound in the session: nvml or simulated."""

    @property
    def sampler_mode(self) -> str:
        """Kind of reading: instant, average or legacy; the same for all GPUs of a host."""

    @property
    def models(self) -> tuple[str, ...]:
        """Model of every GPU, in the order of `read_all`; fixed, also where a GPU is missing."""

    @property
    def spacing_ns(self) -> int:
        """Least time between the end of a GPU's poll and its next one's beginning; 0: every tick is a fresh reading."""

    def read_all(self, tick: int) -> Iterable[GpuReading]:
        """Poll every GPU once, in the tick of that number (UTC ms divided by the tick's ms).

        A reader whose calls take time hands each reading out as soon as it has it: a round may begin in a window and
        end in the next one, and by then the first is reported.
        """

    def enforced_limits_mw(self) -> Sequence[int | None]:
        """Return the power limit that is enforced on every GPU as last read, mW; None where none was ever read."""

    def close(self) -> None:
        """Let go of the device; called once, by the thread that read last or after it ended."""
