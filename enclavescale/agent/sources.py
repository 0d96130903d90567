"""Where a host's readings come from: opens what its configuration names, and keeps it open across reloads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from enclavescale.agent.file import BUNDLED, DCGM, NVML, SIMULATED, DcgmSpec, HostSpec, TraceSpec
from producers.config import Schedule
from producers.sample.clock import SystemClock
from producers.sample.dcgm import DcgmConfig, DcgmScraper
from producers.sample.nvml import Nvml, NvmlFault
from producers.sample.nvml_sampler import NvmlSampler, open_sampler
from producers.sample.plan import accepted_modes
from producers.sample.sampler import Sampler
from producers.sample.simulated import SimulatedJob, SimulatedReader
from producers.sample.smi_directory import read_directory
from producers.sample.source import ReadingSource
from producers.sample.trace import TraceSource, load_bundled, read_nvidia_smi
from schemas.errors import ConfigError
from schemas.records import ConfidentialCompute, HostEnrolment, Policy

DCGM_TIMEOUT_S = 2.0

_NO_ANSWER = ConfidentialCompute(
    gpu_cc_mode_absent_reason="no_answer",
    gpu_dev_tools_absent_reason="no_answer",
    gpu_ready_absent_reason="no_answer",
)


@dataclass(frozen=True, slots=True)
class HostSources:
    """The sources of a host's classes, in the enrolment's order, and what stands behind them.

    `energy`: there are energy counters. `live`: readings are made now, by a thread; `close` ends it. `attester`: NVML
    where GPUs are attested and something else is read.
    """

    sources: tuple[ReadingSource, ...]
    energy: bool = False
    sampler: Sampler | None = None
    scraper: DcgmScraper | None = None
    attester: Nvml | None = None

    @property
    def live(self) -> bool:
        """Whether a thread has to deliver."""
        return self.sampler is not None or self.scraper is not None

    @property
    def spacing_s(self) -> float:
        """Least time between two polls where that is not the tick of the policy, s."""
        return 0.0 if self.scraper is None else self.scraper.config.spacing_ms / 1000

    @property
    def nvml(self) -> Nvml | None:
        """NVML, where it is read or asked for evidence."""
        return self.sampler.nvml if isinstance(self.sampler, NvmlSampler) else self.attester

    def close(self) -> None:
        """End its thread, if it has one."""
        for one in (self.sampler, self.scraper, self.attester):
            if one is not None:
                one.close()


class BoundedState:
    """Asks for the confidential-compute state, and waits `wait_s` at most: a driver that hangs must not stop windows.

    Called from one thread. A question that hangs is asked again only when it has come back.
    """

    def __init__(self, ask: Callable[[], ConfidentialCompute], wait_s: float = 1.0) -> None:
        self._ask, self._wait_s = ask, wait_s
        self._asking: threading.Thread | None = None
        self._answers: deque[ConfidentialCompute] = deque(maxlen=1)

    def __call__(self) -> ConfidentialCompute:
        """The state now; null with the reason `no_answer` where the driver is silent."""
        if self._asking is None or not self._asking.is_alive():
            self._answers.clear()
            self._asking = threading.Thread(target=self._run, name="cc-state", daemon=True)
            self._asking.start()
        self._asking.join(self._wait_s)
        return self._answers[-1] if self._answers else _NO_ANSWER

    def _run(self) -> None:
        self._answers.append(self._ask())


_Key = tuple[HostSpec, HostEnrolment, Schedule, tuple[str, ...]]


class SourcePool:
    """Sources that are open, by all that decides them: a reload that changes none of it goes on with the same ones.

    A sampler that is opened anew has no past, and its first window would be full of gaps. Used by one thread at a time.
    """

    def __init__(self, make_nvml: Callable[[], Nvml] = Nvml) -> None:
        self._make_nvml = make_nvml
        self._open: dict[_Key, HostSources] = {}

    def get(self, spec: HostSpec, policy: Policy, enrolment: HostEnrolment, schedule: Schedule) -> HostSources:
        """The sources of a host, started. Raises ConfigError, TraceError, NvmlFault."""
        key = (spec, enrolment, schedule, policy.accepted_sampler_modes)
        found = self._open.get(key)
        if found is None:
            found = self._make(spec, enrolment, schedule, policy.accepted_sampler_modes)
            if spec.gpu_evidence and found.nvml is None:
                found = replace(found, attester=self._attester(found))
            self._open[key] = found
        return found

    def retain(self, used: Iterable[HostSources]) -> None:
        """Close all but these."""
        kept = {id(one) for one in used}
        for key, one in list(self._open.items()):
            if id(one) not in kept:
                del self._open[key]
                one.close()

    def close(self) -> None:
        """Close all."""
        self.retain(())

    def _attester(self, found: HostSources) -> Nvml:
        try:
            return self._make_nvml().open()
        except NvmlFault:
            found.close()
            raise

    def _make(
        self, spec: HostSpec, enrolment: HostEnrolment, schedule: Schedule, accepted: Sequence[str]
    ) -> HostSources:
        if spec.source == NVML:
            return self._nvml(enrolment, schedule, accepted)
        if spec.source == DCGM:
            return _dcgm(spec, enrolment, schedule)
        if spec.source == SIMULATED:
            return _simulated(enrolment, schedule)
        if len(spec.traces) != len(enrolment.classes):
            raise ConfigError(f"{spec.host_id}: give one trace per enrolled GPU model", field="traces")
        pairs = zip(spec.traces, enrolment.classes, strict=True)
        return HostSources(tuple(trace_source(trace, one.gpus, schedule.sample_hz) for trace, one in pairs))

    def _nvml(self, enrolment: HostEnrolment, schedule: Schedule, accepted: Sequence[str]) -> HostSources:
        modes = accepted_modes(accepted)
        sampler = open_sampler(_models(enrolment), schedule, modes=modes, nvml=self._make_nvml())
        sampler.start()
        energy = any(plan.energy != "none" for plan in sampler.plans.values())
        return HostSources(_of_sampler(sampler, enrolment), energy=energy, sampler=sampler)


def trace_source(spec: TraceSpec, gpus: int, sample_hz: int = 10) -> TraceSource:
    """The source that replays a trace on `gpus` GPUs. Raises TraceError or ConfigError."""
    if spec.trace.startswith(BUNDLED):
        trace = load_bundled(spec.trace.removeprefix(BUNDLED))
    elif (path := Path(spec.trace)).is_dir():
        trace = read_directory(path, sample_hz=sample_hz).trace
    else:
        trace, _, _ = read_nvidia_smi(path, sample_hz=sample_hz)
    spread = None if spec.spread_ticks < 0 else spec.spread_ticks
    return TraceSource(trace, gpus=gpus, seed=spec.seed, spread_ticks=spread)


def dcgm_config(spec: DcgmSpec, timeout_s: float = DCGM_TIMEOUT_S) -> DcgmConfig:
    """What a scraper is told of an exporter. Raises ConfigError."""
    return DcgmConfig(
        url=spec.url,
        collect_interval_ms=spec.collect_interval_ms,
        timeout_s=timeout_s,
        sampler_mode=spec.sampler_mode,
    )


def _models(enrolment: HostEnrolment) -> dict[str, int]:
    return {one.model: one.gpus for one in enrolment.classes}


def _of_sampler(sampler: Sampler, enrolment: HostEnrolment) -> tuple[ReadingSource, ...]:
    return tuple(sampler.source(one.model) for one in enrolment.classes)


def _dcgm(spec: HostSpec, enrolment: HostEnrolment, schedule: Schedule) -> HostSources:
    if spec.dcgm is None:
        raise ConfigError(f"{spec.host_id}: a table dcgm is needed", field="dcgm")
    config = dcgm_config(spec.dcgm)
    scraper = DcgmScraper(config, _models(enrolment), schedule)
    scraper.start()
    return HostSources(tuple(scraper.source(one.model) for one in enrolment.classes), scraper=scraper)


def _simulated(enrolment: HostEnrolment, schedule: Schedule) -> HostSources:
    """A job on GPUs that are not there, polled by the sampler as real ones are."""
    jobs = [
        (
            one.model,
            SimulatedJob(
                gpus=one.gpus,
                limit_w=one.capacity_w // one.gpus,
                seed=f"{enrolment.host_id}/{one.model}",
                tick_ms=schedule.tick_ms,
            ),
        )
        for one in enrolment.classes
    ]
    sampler = Sampler(SimulatedReader(jobs, SystemClock()), schedule)
    sampler.start()
    return HostSources(_of_sampler(sampler, enrolment), energy=True, sampler=sampler)
