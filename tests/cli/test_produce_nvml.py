"""The whole agent on NVML, played at the C boundary in real time: pynvml, sampler, noise, seal, spool, broker, core."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from enclavescale.agent.producing import Production
from enclavescale.agent.sources import BoundedState
from enclavescale.embedded import MockCluster
from schemas.codec import decode_signed_record
from schemas.records import ConfidentialCompute, WindowReport
from schemas.topics import TopicNames
from tests.cli.site import HOST, MODEL, judge, make_site, published
from tests.producers.fake_gpu import GPU_IS_LOST, SUCCESS
from tests.producers.fake_nvml import FakeNvml, StepClock, gpus_of


class RunningClock(StepClock):
    """The machine's own time, which a call's cost does not move."""

    def __init__(self) -> None:
        super().__init__()
        self.offset_ns = time.time_ns() - time.monotonic_ns()

    @property
    def now_ns(self) -> int:
        return time.monotonic_ns()

    @now_ns.setter
    def now_ns(self, value: int) -> None:
        pass


def test_an_agent_on_nvml(tmp_path: Path) -> None:
    site = make_site(tmp_path, "nvml")
    names = TopicNames()
    bootstrap = MockCluster({names.reports: 2}).bootstrap
    fake = FakeNvml(gpus_of(8, name=MODEL, limit_mw=250_000), RunningClock())
    fake.cc, fake.cc_status, fake.ready_status = (2, 1, 0), SUCCESS, SUCCESS
    lost = fake.gpus[7]
    hosts = [{"host_id": HOST, "source": "nvml"}]
    with fake.installed(), Production(site.spec(hosts=hosts, windows=3), {"bootstrap.servers": bootstrap}) as agent:
        lost_from_s = time.monotonic() + 1.5
        lost.on_call = lambda: setattr(lost, "status", GPU_IS_LOST if time.monotonic() > lost_from_s else SUCCESS)
        summary = agent.run(threading.Event())
        metrics = agent.instruments.registry.get_sample_value
        assert (metrics("enclavescale_agent_sampler_polls_total") or 0) > 20
        assert agent.instruments.health.ready().good
    assert (summary.windows, summary.acknowledged, summary.lost) == (3, 3, 0)
    values = published(bootstrap, names.reports)
    reports = [decode_signed_record(value).body for value in values]
    for report in reports:
        assert isinstance(report, WindowReport)
        (gpus,) = report.classes
        assert (report.source, gpus.sampler_mode) == ("nvml", "instant")
        assert gpus.gpus == 8
        assert gpus.enforced_limit_w == 2_000
        assert report.confidential_compute.gpu_cc_mode == "on"
        assert report.confidential_compute.gpu_ready is True
        assert 7 * 5 <= gpus.readings_taken <= 8 * 10
    last = reports[-1]
    assert isinstance(last, WindowReport)
    assert {flag.flag: flag.gpus for flag in last.sensor_flags}["gpu_lost"] == 1
    assert judge(site, site.sign(), values) == []


def test_a_driver_that_hangs_costs_a_second_and_no_window() -> None:
    go, known = threading.Event(), ConfidentialCompute(gpu_cc_mode="on", gpu_dev_tools=False, gpu_ready=True)

    def ask() -> ConfidentialCompute:
        go.wait()
        return known

    state = BoundedState(ask, wait_s=0.01)
    assert [state().gpu_cc_mode_absent_reason for _ in range(3)] == ["no_answer"] * 3
    assert threading.active_count() < 50
    go.set()
    state._asking.join()  # type: ignore[union-attr]
    assert BoundedState(lambda: known)() == known
