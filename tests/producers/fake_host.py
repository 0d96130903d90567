"""A host with fake GPUs: what its sampler reads becomes a report of the real pipeline, and is that a valid one?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import pytest

from producers.config import ClassProfile, HostProfile, Schedule
from producers.host import AgentHost, HostAgent, Sealing
from producers.privacy import default_budget
from producers.sample import probe
from producers.sample.nvml_sampler import NvmlSampler, open_sampler
from producers.sample.plan import SamplerMode
from producers.sample.reader import FLAG_NAMES
from producers.sample.sampler import SampledSource
from producers.spool import Spool
from schemas.codec import decode_signed_record
from schemas.contract import HISTOGRAM_CELLS
from schemas.records import GpuClass, WindowReport
from stream_jobs.core.checks import class_arrays, noise_bound
from tests.producers.fake_gpu import FakeGpu
from tests.producers.fake_nvml import START_NS, FakeNvml, StepClock
from tests.producers.forge import FakeSession, session_for

SCHEDULE = Schedule(window_ms=10_000)
BUDGET = default_budget(energy=True)
START_MS = START_NS // 1_000_000
FLAGS = {"gap", *FLAG_NAMES.values()}


@dataclass
class Host:
    """GPUs, library, clock and sampler; window 0 is the one that is probed in, window 1 the first whole one."""

    fake: FakeNvml
    sampler: NvmlSampler
    agent: HostAgent
    session: FakeSession
    schedule: Schedule
    reports: list[WindowReport] = field(default_factory=list)

    @property
    def clock(self) -> StepClock:
        return self.fake.clock

    @property
    def gpus(self) -> list[FakeGpu]:
        return self.fake.gpus

    def start_ms(self, window: int) -> int:
        return START_MS + window * self.schedule.window_ms

    def source(self) -> SampledSource:
        return self.sampler.source(self.sampler.reader.models[0])

    def run(self, window: float) -> None:
        """Sample until that many windows after the start."""
        end_ns = START_NS + round(window * self.schedule.window_ms * 1_000_000)
        while self.clock.utc_ns() < end_ns:
            self.sampler.step()

    def report(self, window: int) -> WindowReport:
        """Sample to the end of a window and report it; fails if the report is not valid."""
        self.run(window + 1)
        value = self.agent.produce(self.start_ms(window)).sealed.value
        record = decode_signed_record(value)
        assert isinstance(record.body, WindowReport)
        self.session.verify(record.signature, record.preimage)
        check_report(record.body, self.schedule)
        self.reports.append(record.body)
        return record.body

    def power_w(self, window: int) -> np.ndarray:
        return self.source().window(self.start_ms(window), self.start_ms(window + 1))


@contextlib.contextmanager
def open_host(
    gpus: Sequence[FakeGpu],
    tmp_path: Path,
    *,
    enrolled: int | None = None,
    modes: Sequence[SamplerMode] = ("instant",),
    schedule: Schedule = SCHEDULE,
) -> Iterator[Host]:
    """GPUs of one model behind a fake library, probed; `enrolled`: their number, if not all are there."""
    fake = FakeNvml(gpus)
    with fake.installed(), Spool(tmp_path / "spool.db") as spool, pytest.MonkeyPatch.context() as patch:
        for stage in ("LOOK_S", "PROBE_S"):
            patch.setattr(probe, stage, 1.2)  # twelve updates: enough for sensors that never hesitate
        sampler = open_sampler({gpus[0].name: enrolled or len(gpus)}, schedule, modes=modes, clock=fake.clock)
        item = ClassProfile(
            model=gpus[0].name,
            capacity_w=700 * (enrolled or len(gpus)),
            edges_w=(100, 200, 300, 400, 500, 600),
            clip_low_w=50,
            clip_high_w=800,
            source=sampler.source(gpus[0].name),
        )
        profile = HostProfile(host_id="host-1", domain="row-1", classes=(item,))
        session = session_for(profile, BUDGET, schedule)
        agent = HostAgent(AgentHost(profile=profile, session=session), Sealing(schedule=schedule, budget=BUDGET), spool)
        try:
            yield Host(fake, sampler, agent, session, schedule)
        finally:
            sampler.close()


def flags_of(report: WindowReport) -> dict[str, int]:
    return {one.flag: one.gpus for one in report.sensor_flags}


def check_report(report: WindowReport, schedule: Schedule) -> None:
    """What a worker would refuse, or a reader would stumble over."""
    item: GpuClass = report.classes[0]
    assert set(flags_of(report)) <= FLAGS
    assert all(0 < gpus <= item.gpus for gpus in flags_of(report).values())
    for part in (report, item, report.confidential_compute):
        for name in (one.name for one in fields(part)):
            if name.endswith("_absent_reason"):
                value = getattr(part, name.removesuffix("_absent_reason"))
                assert (value is None) == (getattr(part, name) is not None), name
    counts, sums = class_arrays(item)
    scales = {one.release: one.scale_micro / 1e6 for one in report.privacy.releases}
    assert abs(int(counts.sum()) - item.gpus * (schedule.ticks - 1)) <= noise_bound(scales["transitions"], counts.size)
    slack = noise_bound(scales["pane_sums"], 1)
    assert -slack <= sums.min()
    assert sums.max() <= item.gpus * schedule.ticks_per_pane * item.clip_high_w * 10 + slack
    bins = np.frombuffer(item.histogram or b"", "<i4")
    silent = item.gpus * schedule.ticks - item.readings_taken
    assert item.histogram_shape == bins.shape == (HISTOGRAM_CELLS,)
    assert abs(int(bins.sum()) - item.gpus * schedule.ticks) <= noise_bound(scales["histogram"], bins.size)
    assert abs(int(bins[-1]) - silent) <= noise_bound(scales["histogram"], 1)
    assert 0 <= item.readings_taken <= item.gpus * schedule.ticks
    assert 0 <= report.samples_taken <= report.samples_scheduled == schedule.ticks
