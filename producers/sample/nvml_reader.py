"""Polls the GPUs of a host through NVML for the sampler, and lives through everything that can happen to them.

A fault costs the readings of the time it lasts, flagged, and nothing else: a lost GPU is looked up again by its UUID, a
reloaded driver is initialised again, a GPU whose calls hang is left alone for a while so that the others are read.
Waits double from a second to a minute. None of it depends on a power value.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from producers.sample.clock import Clock
from producers.sample.freshness import ScheduleFreshness, TimestampFreshness
from producers.sample.nvml import Handle, Nvml, NvmlFault, XidEvents, handle_key
from producers.sample.nvml_query import Poll, PowerQuery
from producers.sample.plan import SensorPlan
from producers.sample.probe import Plans
from producers.sample.reader import DRIVER_RELOAD, GPU_LOST, MIG, PERMISSION, STALE, STALL, XID, GpuReading

log = logging.getLogger(__name__)

FIRST_WAIT_NS = 1_000_000_000
LONGEST_WAIT_NS = 60_000_000_000
FAILURES_BEFORE_WAIT = 10
"""Failures in a row without a cause that has a name, before a GPU is left alone for a while: a second of them."""
SLOW_NS = 50_000_000
"""A call that takes longer, twice in a row, would cost the other GPUs their ticks."""
PATIENCE_NS = 5_000_000
"""Wait for a GPU whose next reading is due within so much: the calls before its own were quicker than the last time. A
longer wait would make the others late."""
SILENT_POLLS = 50
"""Polls without a new entry after which the ring buffer is read from its start: its clock may have been set back."""
XID_POLLS = 10
HOUSEKEEPING_POLLS = 100
"""Polls between two looks at a GPU's MIG mode and power limit: ten seconds at 10 Hz, a different GPU every poll."""
MAX_EVENTS = 16


class Backoff:
    """When to try again: after a second, then twice as long each time, a minute at most."""

    def __init__(self) -> None:
        self._wait_ns = FIRST_WAIT_NS
        self._until_ns: int | None = None

    def waiting(self, now_ns: int) -> bool:
        """Say whether it is too early to try again."""
        return self._until_ns is not None and now_ns < self._until_ns

    def failed(self, now_ns: int) -> None:
        """Wait from now on."""
        self._until_ns = now_ns + self._wait_ns
        self._wait_ns = min(2 * self._wait_ns, LONGEST_WAIT_NS)

    def reset(self) -> None:
        """It works again."""
        self._wait_ns = FIRST_WAIT_NS
        self._until_ns = None


class _Gpu:
    """One enrolled GPU: who it is, how it is read, how it is."""

    def __init__(self, model: str, uuid: str | None, plan: SensorPlan) -> None:
        self.model = model
        self.uuid = uuid
        self.backoff = Backoff()
        self.handle: Handle | None = None
        self.limit_mw: int | None = None
        self.fault = 0  # flags while there is nothing to read
        self.marks = 0  # flags for the next reading: XID, a driver that came back
        self.mig = 0
        self.failures = self.slow = self.silent = 0
        self.last_us = 0
        self.follow(plan)

    def follow(self, plan: SensorPlan) -> None:
        self.plan = plan
        self.query: PowerQuery | None = None
        self._stamps = TimestampFreshness()
        self._schedule = ScheduleFreshness(plan.upper_ns)

    @property
    def due_ns(self) -> int:
        """When the sensor surely has another reading; 0: a timestamp will tell."""
        return self._schedule.due_ns

    def fresh(self, poll: Poll, began_ns: int, ended_ns: int) -> bool:
        """Whether the sensor has a reading since the last one that counted; by time alone."""
        if self.plan.clock == "schedule":
            return self._schedule.accept(began_ns, ended_ns)
        if poll.power_mw is None:
            self.silent += 1
            if self.silent >= SILENT_POLLS:
                self.silent = self.last_us = 0
            return False
        self.silent = 0
        self.last_us = poll.stamp_us
        return self._stamps.accept(poll.stamp_us)


class NvmlReader:
    """A `PowerReader` over NVML.

    `slots`: model and UUID of every enrolled GPU, the UUID None for one that was not found: its place is taken by the
    first unknown GPU of that model that appears. `plans` hold as long as the process: NVML refuses a driver of another
    version than its library, so a driver that comes back is the one that was probed.
    """

    kind = "nvml"

    def __init__(
        self,
        nvml: Nvml,
        slots: Sequence[tuple[str, str | None]],
        plans: Plans,
        clock: Clock,
    ) -> None:
        self._nvml = nvml
        self._clock = clock
        self._plans = plans
        self._gpus = [_Gpu(model, uuid, plans.of(model, uuid)) for model, uuid in slots]
        self._queries: dict[SensorPlan, PowerQuery] = {}
        self._events: XidEvents | None = None
        self._events_stale = True
        self._down = False
        self._driver = Backoff()
        self._turn = 0

    @property
    def sampler_mode(self) -> str:
        """Kind of reading of all GPUs."""
        return self._plans.mode

    @property
    def models(self) -> tuple[str, ...]:
        """Model of every enrolled GPU."""
        return tuple(gpu.model for gpu in self._gpus)

    @property
    def spacing_ns(self) -> int:
        """Longest bound of the GPUs whose readings only time tells apart; 0 if all have timestamps."""
        return max((gpu.plan.upper_ns for gpu in self._gpus if gpu.plan.clock == "schedule"), default=0)

    def read_all(self, tick: int) -> Iterator[GpuReading]:
        """Poll every GPU once, each when its reading is asked for; the tick's number does not matter here."""
        self._turn += 1
        if self._down or all(gpu.handle is None and gpu.failures for gpu in self._gpus):
            self._reopen()
        if self._down:
            now = self._clock.monotonic_ns()
            yield from [GpuReading(None, None, now, now, DRIVER_RELOAD)] * len(self._gpus)
            return
        self._housekeeping()
        for gpu in self._gpus:
            yield self._read(gpu)

    def enforced_limits_mw(self) -> list[int | None]:
        """Return the limits as last read, mW."""
        return [gpu.limit_mw for gpu in self._gpus]

    def close(self) -> None:
        """Stop watching events; NVML stays open."""
        if self._events is not None:
            self._events.close()
            self._events = None

    # -- one GPU -----------------------------------------------------------------------------------------------------

    def _read(self, gpu: _Gpu) -> GpuReading:
        began = self._clock.monotonic_ns()
        if gpu.backoff.waiting(began):
            return GpuReading(None, None, began, began, gpu.fault | gpu.mig)
        held = gpu.handle is not None
        try:
            if gpu.handle is None and not self._find(gpu):
                return self._failed(gpu, NvmlFault("lost", "GPU_LOST", "no such GPU"), began)
            query = gpu.query or self._query_of(gpu)
            began = self._clock.monotonic_ns()
            if 0 < (early := gpu.due_ns - began) <= PATIENCE_NS:
                self._clock.wait(early / 1e9)
                began = self._clock.monotonic_ns()
            poll = query.poll(gpu.handle, gpu.last_us)
        except NvmlFault as fault:
            if held:  # only the handle may be of no use any more: look the GPU up again soon
                gpu.backoff.reset()
            return self._failed(gpu, fault, began)
        ended = self._clock.monotonic_ns()
        gpu.failures = gpu.fault = 0
        flags, gpu.marks = gpu.marks | gpu.mig, 0
        if not self._too_slow(gpu, began, ended):
            gpu.backoff.reset()
        if not gpu.fresh(poll, began, ended) or poll.power_mw is None:
            return GpuReading(None, poll.energy_mj, began, ended, flags | STALE)
        return GpuReading(poll.power_mw / 1000.0, poll.energy_mj, began, ended, flags)

    def _query_of(self, gpu: _Gpu) -> PowerQuery:
        """GPUs with one plan share one query and its arrays."""
        found = self._queries.get(gpu.plan)
        if found is None:
            found = self._queries[gpu.plan] = PowerQuery(self._nvml, gpu.plan)
        gpu.query = found
        return found

    def _too_slow(self, gpu: _Gpu, began: int, ended: int) -> bool:
        """Leave a GPU alone whose calls hang, whatever they answer."""
        gpu.slow = gpu.slow + 1 if ended - began > SLOW_NS else 0
        if gpu.slow >= 2:
            gpu.fault = STALL
            gpu.backoff.failed(ended)
        return gpu.slow > 0

    def _failed(self, gpu: _Gpu, fault: NvmlFault, began: int) -> GpuReading:
        ended = self._clock.monotonic_ns()
        gpu.failures += 1
        if fault.kind == "driver":
            self._lose_driver(fault)
            return GpuReading(None, None, began, ended, DRIVER_RELOAD)
        named = {"lost": GPU_LOST, "permission": PERMISSION}.get(fault.kind, 0)
        if fault.kind == "transient" and gpu.failures >= FAILURES_BEFORE_WAIT:
            named = GPU_LOST  # as good as
        if named or gpu.failures >= FAILURES_BEFORE_WAIT:
            if gpu.failures in (1, FAILURES_BEFORE_WAIT):
                log.warning("GPU %d (%s): %s", self._gpus.index(gpu), gpu.model, fault.code)
            gpu.handle = None
            gpu.fault = named
            gpu.backoff.failed(ended)
        elif self._too_slow(gpu, began, ended):
            gpu.handle = None
        return GpuReading(None, None, began, ended, named | gpu.mig)

    def _find(self, gpu: _Gpu) -> bool:
        """Look a GPU up by UUID, or find one for a place that is vacant."""
        if gpu.uuid is None:
            taken = {one.uuid for one in self._gpus}
            free = (one.uuid for one in self._nvml.gpus() if one.name == gpu.model and one.uuid not in taken)
            gpu.uuid = next(free, None)
            if gpu.uuid is None:
                return False
            gpu.follow(self._plans.of(gpu.model, gpu.uuid))
        gpu.handle = self._nvml.handle(gpu.uuid)
        self._events_stale = True
        self._look(gpu)
        if gpu.fault & GPU_LOST:
            log.info("GPU %d (%s) is back", self._gpus.index(gpu), gpu.model)
            gpu.marks |= GPU_LOST  # its energy counter may have begun again
        return True

    def _look(self, gpu: _Gpu) -> None:
        """Read what changes rarely; what cannot be read is left as it was."""
        try:
            gpu.limit_mw = self._nvml.enforced_limit_mw(gpu.handle)
        except NvmlFault as fault:
            self._heed(fault)
        try:
            gpu.mig = MIG if self._nvml.mig_enabled(gpu.handle) else 0
        except NvmlFault as fault:
            self._heed(fault)

    # -- the host ----------------------------------------------------------------------------------------------------

    def _heed(self, fault: NvmlFault) -> None:
        """A fault beside the readings: only a driver that is gone matters, the rest shows when power is read."""
        if fault.kind == "driver":
            self._lose_driver(fault)

    def _lose_driver(self, fault: NvmlFault) -> None:
        if not self._down:
            log.warning("NVML: %s; initialising again", fault.code)
        self._down = True

    def _reopen(self) -> None:
        """Initialise NVML again: the driver is gone, or no GPU answers by whatever name."""
        if self._driver.waiting(self._clock.monotonic_ns()):
            return
        try:
            self._nvml.reopen()
        except NvmlFault as fault:
            self._lose_driver(fault)
            self._driver.failed(self._clock.monotonic_ns())
            return
        log.info("NVML was initialised again")
        self._down = False
        self._driver.failed(self._clock.monotonic_ns())  # not again at once, should it be of no use
        self._events = None
        self._events_stale = True
        self._queries.clear()
        for gpu in self._gpus:
            gpu.handle = gpu.query = None
            gpu.backoff.reset()
            gpu.marks |= DRIVER_RELOAD

    def _housekeeping(self) -> None:
        """MIG and power limit of one GPU, and every second the events of all."""
        turn = self._turn % HOUSEKEEPING_POLLS
        if turn < len(self._gpus) and (gpu := self._gpus[turn]).handle is not None and not gpu.slow:
            self._look(gpu)
        if self._turn % XID_POLLS:
            return
        if any(gpu.handle is not None and not gpu.failures for gpu in self._gpus):
            self._driver.reset()
        try:
            self._watch_events()
            for _ in range(MAX_EVENTS):
                if self._events is None or (device := self._events.poll()) is None:
                    return
                self._mark_xid(device)
        except NvmlFault as fault:
            self._heed(fault)

    def _watch_events(self) -> None:
        """Watch the GPUs that are there; again when one came back, as a handle is registered once."""
        if not self._events_stale:
            return
        self.close()
        self._events_stale = False
        self._events = self._nvml.xid_events([gpu.handle for gpu in self._gpus if gpu.handle is not None])

    def _mark_xid(self, device: Handle) -> None:
        """Flag the GPU of an event; all of them where it cannot be told which it was."""
        key = handle_key(device)
        hit = [gpu for gpu in self._gpus if gpu.handle is not None and handle_key(gpu.handle) == key]
        for gpu in hit or self._gpus:
            gpu.marks |= XID
