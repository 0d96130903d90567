"""Looks at every GPU's sensors before any is trusted: what is supported, how often it updates, what its clock is.

The GPUs of a host are read in one mode, the first of those allowed that all of them support: a session binds one. The
probe polls fast for a few seconds, once, when the process starts: all GPUs in turn, which tells those whose reading
moves, and then one of each model alone, as the time of an update is known to no better than the time between two polls
of a GPU. What it finds holds for a model; a GPU that does not answer gets the plan of its sisters, or an assumed one.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from producers.sample.clock import Clock
from producers.sample.nvml import GpuInfo, Handle, Nvml
from producers.sample.nvml_calls import (
    POWER_AVERAGE,
    POWER_INSTANT,
    SCOPE_GPU,
    SCOPE_MODULE,
    TOTAL_ENERGY,
    SamplesCall,
)
from producers.sample.nvml_faults import NvmlFault, fault_of
from producers.sample.nvml_query import PowerQuery
from producers.sample.period import Observation, Timing, Watch, combined, infer
from producers.sample.plan import MODES, EnergyMethod, SamplerMode, SensorPlan, assumed_plan

log = logging.getLogger(__name__)

LOOK_S = 1.5
"""Seconds in which all GPUs are polled in turn, where a model has more than one: 15 updates of a sensor at 100 ms."""
PROBE_S = 2.5
"""Seconds in which one GPU of each model is polled: 25 updates."""
POLL_S = 0.0005
"""Time between two rounds of polls: the bound of the period is wider than it by two rounds, and so many ticks are lost
to that."""
POLLS_PER_SAMPLES = 50
"""Polls between two looks at the ring buffer, which holds more than a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """What one GPU answers to. `scopes`: of the power field of each mode that has one."""

    scopes: Mapping[SamplerMode, int]
    legacy: bool
    energy: EnergyMethod
    samples: bool

    def modes(self) -> tuple[SamplerMode, ...]:
        """Return the modes that can be read, best first."""
        return tuple(mode for mode in MODES if mode in self.scopes or (mode == "legacy" and self.legacy))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plans:
    """How the GPUs of a host are read: all in one `mode`; `by_model` is for those that appear later."""

    mode: SamplerMode
    by_uuid: Mapping[str, SensorPlan]
    by_model: Mapping[str, SensorPlan]

    def of(self, model: str, uuid: str | None) -> SensorPlan:
        """Return the plan of a GPU, of its model where it was not there, or the assumed one."""
        return self.by_uuid.get(uuid or "") or self.by_model.get(model) or assumed_plan(self.mode)


def support_of(nvml: Nvml, handle: Handle) -> Support:
    """Ask one GPU for everything once. Raises `NvmlFault` if it does not answer at all."""
    wanted = [
        (POWER_INSTANT, SCOPE_GPU),
        (POWER_INSTANT, SCOPE_MODULE),
        (POWER_AVERAGE, SCOPE_GPU),
        (POWER_AVERAGE, SCOPE_MODULE),
        (TOTAL_ENERGY, SCOPE_GPU),
    ]
    try:
        values = nvml.field_call(wanted)(handle)
        works = [value.value is not None for value in values]
        broken = [
            fault for one in values if one.status and (fault := fault_of(one.status, "field")).kind != "unsupported"
        ]
        if broken and not any(works):
            raise broken[0]  # a GPU that fails, not one without sensors: it must not decide the mode of all
    except NvmlFault as fault:
        if fault.kind != "unsupported":
            raise
        works = [False] * len(wanted)
    scopes: dict[SamplerMode, int] = {}
    # The GPU's own power where there is a choice: the module's includes a CPU, and neighbours on the board.
    if works[0] or works[1]:
        scopes["instant"] = SCOPE_GPU if works[0] else SCOPE_MODULE
    if works[2] or works[3]:
        scopes["average"] = SCOPE_GPU if works[2] else SCOPE_MODULE
    energy: EnergyMethod = "field" if works[4] else "call" if _answers(nvml.energy_mj, handle) else "none"
    samples = nvml.samples_call()
    return Support(
        scopes=scopes,
        legacy=_answers(nvml.legacy_power_mw, handle),
        energy=energy,
        samples=_answers(lambda one: samples(one, 0), handle),
    )


def supports(nvml: Nvml, gpus: Sequence[GpuInfo]) -> Iterator[tuple[GpuInfo, Support | NvmlFault]]:
    """Ask GPU after GPU; the fault of one that does not answer. Raises `NvmlFault` if the driver is gone."""
    for gpu in gpus:
        try:
            yield gpu, support_of(nvml, nvml.handle(gpu.uuid))
        except NvmlFault as fault:
            if fault.kind == "driver":
                raise
            yield gpu, fault


def _answers(call: Callable[[Handle], object], handle: Handle) -> bool:
    try:
        call(handle)
    except NvmlFault as fault:
        if fault.kind in ("driver", "lost"):
            raise
        return False
    return True


def choose_mode(found: Mapping[str, Support], allowed: Sequence[SamplerMode]) -> SamplerMode:
    """Return the first allowed mode that every GPU supports. Raises `NvmlFault` (SENSOR_MODE_UNSUPPORTED)."""
    for mode in allowed:
        if all(mode in support.modes() for support in found.values()):
            return mode
    has = ", ".join(sorted({" or ".join(support.modes()) or "nothing" for support in found.values()}))
    text = f"sampler mode {' or '.join(allowed)} is not supported by all GPUs; they support {has}"
    raise NvmlFault("unsupported", "SENSOR_MODE_UNSUPPORTED", text)


def probe(nvml: Nvml, gpus: Sequence[GpuInfo], clock: Clock, allowed: Sequence[SamplerMode] = ("instant",)) -> Plans:
    """Return how every GPU is read; takes `LOOK_S` + `PROBE_S` seconds at most, and a call.

    Raises `NvmlFault` if the driver is gone or no allowed mode is supported by all GPUs that answer.
    """
    support: dict[str, Support] = {}
    for gpu, found in supports(nvml, gpus):
        if isinstance(found, NvmlFault):
            log.warning("GPU %d does not answer the probe: %s", gpu.index, found.code)
        else:
            support[gpu.uuid] = found
    mode = choose_mode(support, allowed)
    plans = {uuid: _first_plan(one, mode) for uuid, one in support.items()}
    sisters_of = {gpu.name: [one.uuid for one in gpus if one.name == gpu.name and one.uuid in plans] for gpu in gpus}
    looks: Mapping[str, Timing] = {}
    if any(len(sisters) > 1 for sisters in sisters_of.values()):
        looks = _timings(nvml, plans, support, clock, LOOK_S)
    chosen = {_clearest(sisters, looks) for sisters in sisters_of.values() if sisters}
    close = _timings(nvml, {uuid: plans[uuid] for uuid in plans if uuid in chosen}, support, clock, PROBE_S)
    by_model: dict[str, SensorPlan] = {}
    for model, sisters in sisters_of.items():
        timing = combined(
            next((close[uuid] for uuid in sisters if uuid in close), Timing()),
            [looks[uuid] for uuid in sisters if uuid in looks],
        )
        if timing.clock == "samples" and not all(support[uuid].samples for uuid in sisters):
            timing = replace(timing, clock="schedule")
        for uuid in sisters:
            plans[uuid] = by_model[model] = _timed(plans[uuid], timing)
    answers = {gpu.uuid: plans.get(gpu.uuid) or by_model.get(gpu.name) or assumed_plan(mode) for gpu in gpus}
    return Plans(mode=mode, by_uuid=answers, by_model=by_model)


def _clearest(uuids: Sequence[str], looks: Mapping[str, Timing]) -> str:
    """Return the GPU to look at alone: the slowest of those that keep a period, or else the one that moved most."""

    def clear(uuid: str) -> tuple[bool, int, int]:
        seen = looks.get(uuid, Timing())
        return not seen.assumed, seen.upper_ns, seen.changes

    return max(uuids, key=clear)


def _timed(plan: SensorPlan, timing: Timing) -> SensorPlan:
    return replace(
        plan,
        method="samples" if timing.clock == "samples" else plan.method,
        clock=timing.clock,
        period_ms=timing.period_ms,
        assumed=timing.assumed,
        upper_ns=timing.upper_ns,
    )


def _first_plan(support: Support, mode: SamplerMode) -> SensorPlan:
    plan = replace(assumed_plan(mode), energy=support.energy)
    return plan if mode == "legacy" else replace(plan, scope=support.scopes[mode])


class _Watcher:
    """Polls one GPU as often as it is told, until it fails."""

    def __init__(self, nvml: Nvml, uuid: str, plan: SensorPlan, samples: SamplesCall | None, clock: Clock) -> None:
        self.watch = Watch()
        self._query = PowerQuery(nvml, replace(plan, energy="none"))
        self._handle = nvml.handle(uuid)
        self._samples = samples
        self._clock = clock
        self._last_us = 0
        self.look()  # what the buffer holds from before is not of this watch
        self.watch.samples.clear()

    def poll(self, look: bool) -> None:
        began = self._clock.monotonic_ns()
        seen = self._query.poll(self._handle)
        if seen.power_mw is not None:
            self.watch.polls.append(Observation(began, self._clock.monotonic_ns(), seen.power_mw, seen.stamp_us))
        if look:
            self.look()

    def look(self) -> None:
        """Take the ring buffer's new entries."""
        if self._samples is not None:
            new = self._samples(self._handle, self._last_us)
            self.watch.samples.extend(new)
            self._last_us = new[-1].timestamp_us if new else self._last_us


def _timings(
    nvml: Nvml, plans: Mapping[str, SensorPlan], support: Mapping[str, Support], clock: Clock, seconds: float
) -> dict[str, Timing]:
    """Poll GPUs fast for some seconds; one that fails is watched no longer, and judged by what was seen."""
    ring = nvml.samples_call()
    watchers: dict[str, _Watcher] = {}
    finished: dict[str, Watch] = {}
    for uuid, plan in plans.items():
        try:
            watchers[uuid] = _Watcher(nvml, uuid, plan, ring if support[uuid].samples else None, clock)
        except NvmlFault:
            finished[uuid] = Watch()
    end_ns = clock.monotonic_ns() + int(seconds * 1e9)
    turn = 0
    while watchers and clock.monotonic_ns() < end_ns:
        turn += 1
        for uuid in list(watchers):
            if clock.monotonic_ns() >= end_ns:
                break
            try:
                watchers[uuid].poll(look=turn % POLLS_PER_SAMPLES == 0)
            except NvmlFault:
                finished[uuid] = watchers.pop(uuid).watch
        if clock.wait(POLL_S):
            break
    for uuid, one in watchers.items():
        finished[uuid] = one.watch
        with contextlib.suppress(NvmlFault):
            one.look()  # what the buffer got since the last one
    return {uuid: infer(watch) for uuid, watch in finished.items()}
