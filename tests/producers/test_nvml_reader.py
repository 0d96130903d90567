"""How the reader lives with GPUs that come, go and hang: when it tries again, and what the others notice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from producers.sample.nvml import Nvml
from producers.sample.nvml_reader import (
    FIRST_WAIT_NS,
    LONGEST_WAIT_NS,
    PATIENCE_NS,
    SILENT_POLLS,
    Backoff,
    NvmlReader,
)
from producers.sample.plan import FreshnessClock, SensorPlan
from producers.sample.probe import Plans
from producers.sample.reader import STALE
from tests.producers.fake_gpu import GPU_IS_LOST, H100, NOT_SUPPORTED, UNKNOWN
from tests.producers.fake_host import Host, flags_of, open_host
from tests.producers.fake_nvml import FakeNvml, gpus_of

NO_INSTANT = {186: NOT_SUPPORTED}


def missing(host: Host, window: int) -> list[int]:
    return [int(count) for count in np.isnan(host.power_w(window)).sum(axis=1)]


def test_waits_double_up_to_a_minute() -> None:
    backoff, now, waits = Backoff(), 0, []
    assert not backoff.waiting(now)
    for _ in range(9):
        backoff.failed(now)
        began = now
        while backoff.waiting(now):
            now += FIRST_WAIT_NS // 4
        waits.append((now - began) / 1e9)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert LONGEST_WAIT_NS == 60e9
    backoff.reset()
    assert not backoff.waiting(0)


@pytest.mark.parametrize(
    ("freshness", "early_ns", "waits", "counts"),
    [
        ("schedule", 0, False, True),
        ("schedule", 1, True, True),
        ("schedule", PATIENCE_NS, True, True),
        ("schedule", PATIENCE_NS + 1, False, False),
        ("sensor", 1, False, True),
    ],
)
def test_a_gpu_that_is_due_in_a_moment_is_waited_for(
    freshness: FreshnessClock, early_ns: int, waits: bool, counts: bool
) -> None:
    """The second of two; the first, which has timestamps, took less than the last time."""
    gpus = gpus_of(2, call_ns=2_000_000, update_ms=(1.0,), field_time="sensor")
    fake, plan = FakeNvml(gpus), SensorPlan(clock=freshness, upper_ns=100_000_000)
    with fake.installed(), Nvml() as nvml:
        plans = Plans(
            mode="instant", by_uuid={gpus[0].uuid: SensorPlan(clock="sensor"), gpus[1].uuid: plan}, by_model={}
        )
        reader = NvmlReader(nvml, [(H100, gpu.uuid) for gpu in gpus], plans, fake.clock)
        before = list(reader.read_all(0))[1]
        gpus[0].call_ns = 1_000_000
        fake.clock.now_ns = before.ended_ns + plan.upper_ns - 1_000_000 - early_ns
        first, second = reader.read_all(1)
        reader.close()
    assert second.began_ns - first.ended_ns == (early_ns if waits else 0)
    assert (second.power_w is not None, second.flags == 0) == (counts, counts)
    assert second.flags in (0, STALE)


def test_readings_are_handed_out_one_by_one() -> None:
    gpus = gpus_of(2, call_ns=2_000_000)
    fake = FakeNvml(gpus)
    with fake.installed(), Nvml() as nvml:
        plans = Plans(mode="instant", by_uuid={}, by_model={})
        reader = NvmlReader(nvml, [(H100, gpu.uuid) for gpu in gpus], plans, fake.clock)
        assert next(iter(reader.read_all(0))).ended_ns == fake.clock.now_ns
        reader.close()


def test_a_missing_gpu_is_lost_until_it_appears_and_is_read_as_its_sisters_are(tmp_path: Path) -> None:
    gpus = gpus_of(3, field_time="sensor")
    with open_host(gpus[:2], tmp_path, enrolled=3) as host:
        report = host.report(1)
        assert flags_of(report) == {"gpu_lost": 1}
        assert (missing(host, 1), report.classes[0].gpus) == ([0, 0, 100], 3)
        assert report.classes[0].enforced_limit_w is None
        host.fake.gpus.append(gpus[2])
        host.run(5)
        assert flags_of(host.report(10)) == {}
        assert missing(host, 10) == [0, 0, 0]
        assert host.reports[-1].classes[0].enforced_limit_w == 2100


def test_a_stranger_does_not_take_a_vacant_place(tmp_path: Path) -> None:
    gpus = gpus_of(3)
    gpus[2].name = "NVIDIA L4"
    with open_host(gpus[:2], tmp_path, enrolled=3) as host:
        host.fake.gpus.append(gpus[2])
        assert flags_of(host.report(8))["gpu_lost"] == 1
        assert host.source().gpus == 3


def test_lost_for_long_it_is_looked_for_once_a_minute(tmp_path: Path) -> None:
    with open_host(gpus_of(2, field_time="sensor"), tmp_path) as host:
        host.run(1)
        host.gpus[1].status = GPU_IS_LOST
        host.run(31)
        before = dict(host.fake.calls)
        host.run(61)
        again = host.fake.calls["nvmlDeviceGetHandleByUUID"] - before["nvmlDeviceGetHandleByUUID"]
        assert 4 <= again <= 6
        assert host.fake.calls["nvmlInitWithFlags"] == 1  # the other one is read all the while
        host.gpus[1].status = 0
        host.run(68)
        assert flags_of(host.report(68)) == {}
        assert [report.classes[0].readings_taken for report in host.reports] == [200]


def test_a_gpu_that_hangs_costs_the_others_little(tmp_path: Path) -> None:
    """Two calls of two seconds each, then one of them a minute at most."""
    with open_host(gpus_of(2, field_time="sensor"), tmp_path) as host:
        host.run(1)
        host.gpus[1].call_ns = 2_000_000_000
        host.run(7)
        assert sum(missing(host, n)[0] for n in (5, 6)) <= 21
        assert missing(host, 6)[1] == 100
        assert flags_of(host.report(7))["stall"] >= 1
        host.gpus[1].call_ns = 30_000
        host.run(14)
        assert flags_of(host.report(14)) == {}
        assert missing(host, 14) == [0, 0]


def test_where_no_gpu_answers_nvml_is_begun_anew_and_not_too_often(tmp_path: Path) -> None:
    with open_host(gpus_of(1, field_time="sensor"), tmp_path) as host:
        host.run(1)
        host.gpus[0].status = UNKNOWN
        host.run(61)
        assert 10 <= host.fake.calls["nvmlInitWithFlags"] <= 18
        host.gpus[0].status = 0
        host.run(68)
        assert flags_of(host.report(68)) == {}


def test_the_enforced_limit_is_followed(tmp_path: Path) -> None:
    with open_host(gpus_of(2), tmp_path) as host:
        assert host.report(1).classes[0].enforced_limit_w == 1400
        host.gpus[1].limit_mw = 500_500
        assert host.report(3).classes[0].enforced_limit_w == 1200


def test_an_event_of_an_unknown_gpu_is_everyones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_host(gpus_of(2, field_time="sensor"), tmp_path) as host:
        host.run(1)
        host.gpus[1].xids.append(79)
        monkeypatch.setattr("producers.sample.nvml_reader.handle_key", id)
        assert flags_of(host.report(1)) == {"xid": 2}


def test_a_ring_buffer_whose_clock_was_set_back_is_read_from_its_start(tmp_path: Path) -> None:
    """The driver's times go back by nine seconds: nothing is newer than what was seen last."""
    with open_host(gpus_of(1, ring="sensor"), tmp_path) as host:
        host.run(1)
        assert missing(host, 0)[0] < 100
        gpu = host.gpus[0]
        entries = gpu.ring_entries
        gpu.ring_entries = lambda after_us, now_ns: [  # type: ignore[method-assign]
            (stamp - 9_000_000, power) for stamp, power in entries(0, now_ns) if stamp - 9_000_000 > after_us
        ]
        host.run(3)
        assert SILENT_POLLS <= missing(host, 1)[0] <= SILENT_POLLS + 2
        assert missing(host, 2) == [0]


def test_average_power_is_read_where_it_is_allowed(tmp_path: Path) -> None:
    with open_host(gpus_of(1, field_status=NO_INSTANT), tmp_path, modes=("instant", "average")) as host:
        report = host.report(1)
        assert report.classes[0].sampler_mode == "average"
        assert report.privacy.group_size == 11
        assert host.sampler.source(H100).sampler_mode == "average"


def test_energy_and_power_agree(tmp_path: Path) -> None:
    with open_host(gpus_of(2, energy_from_s=0.0), tmp_path) as host:
        host.report(3)
        found = host.source().conditions(host.start_ms(3), host.start_ms(4)).energy
        assert found is not None
        inside = host.power_w(3)[:, found.first_tick : found.last_tick]
        joules = np.nanmean(inside, axis=1) * (found.last_tick - found.first_tick) / 10
        assert joules * 1000 == pytest.approx(found.delta_mj, rel=0.02)
