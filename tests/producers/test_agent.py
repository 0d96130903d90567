"""The agent: every window once, on disk before it is sent; restarts, replays at any speed, failures of the spool."""

import itertools
import logging
import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError

from producers.agent import AgentConfig, run
from producers.config import HostProfile
from producers.errors import SpoolError
from producers.host import AgentHost, HostAgent
from producers.pacer import RealTimePacer, ReplayPacer
from producers.publish import PublishConfig
from producers.spool import Spool
from schemas.codec import DecodedRecord, decode_signed_record
from schemas.errors import ConfigError
from tests.producers.forge import SCHEDULE, START_MS, FakeSource, gpu_class, host, session_for


class Broker:
    """Acknowledges everything at the next poll, or nothing while `down`."""

    def __init__(self, spool_path: Path | None = None) -> None:
        self.values: list[bytes] = []
        self.waiting: list[Any] = []
        self.down = False

    def produce(self, _topic: str, *, value: bytes, on_delivery: Any, **_rest: object) -> None:
        self.values.append(value)
        self.waiting.append(on_delivery)

    def poll(self, _timeout: float) -> None:
        while self.waiting and not self.down:
            self.waiting.pop(0)(None, None)

    def purge(self) -> None:
        while self.waiting:
            self.waiting.pop(0)(KafkaError(KafkaError._PURGE_QUEUE), None)

    @property
    def records(self) -> list[DecodedRecord]:
        return [decode_signed_record(value) for value in self.values]


def agent_host(profile: HostProfile | None = None) -> AgentHost:
    found = profile or host()
    return AgentHost(profile=found, session=session_for(found))


def config(tmp_path: Path, *hosts: AgentHost, windows: int | None = 5, **more: Any) -> AgentConfig:
    return AgentConfig(
        hosts=hosts or (agent_host(),),
        pacer=more.pop("pacer", ReplayPacer(SCHEDULE.window_ms, start_ms=START_MS, speed=math.inf)),
        publish=PublishConfig(partitions={"row-1": 0, "row-2": 1}, kafka={"bootstrap.servers": "x:1"}),
        spool_path=tmp_path / "spool",
        schedule=SCHEDULE,
        windows=windows,
        flush_s=0.1,
        **more,
    )


def go(settings: AgentConfig, broker: Broker, stop: threading.Event | None = None) -> Any:
    return run(settings, stop or threading.Event(), lambda _properties: broker)


def test_every_window_of_every_host_once_and_chained(tmp_path: Path) -> None:
    broker = Broker()
    hosts = (agent_host(), agent_host(host("host-2", "row-2")))
    summary = go(config(tmp_path, *hosts, evidence_interval=2), broker)
    assert (summary.windows, summary.reports, summary.acknowledged, summary.left_in_spool) == (5, 10, 10, 0)
    for name in ("host-1", "host-2"):
        mine = [record for record in broker.records if record.body.host_id == name]
        starts = [record.body.window_start_ms for record in mine]  # type: ignore[union-attr]
        assert starts == [START_MS + window * 10_000 for window in range(5)]
        for before, after in itertools.pairwise(mine):
            assert after.body.prev_digest == before.digest
        assert [record.evidence is not None for record in mine] == [True, False, True, False, True]


def test_the_same_window_never_leaves_with_two_noises(tmp_path: Path) -> None:
    """A broker that is down, a restart, a broker that is up: the bytes of before, then a new session."""
    down = Broker()
    down.down = True
    assert go(config(tmp_path, windows=3), down).left_in_spool == 3
    up = Broker()
    later = ReplayPacer(SCHEDULE.window_ms, start_ms=START_MS + 30_000, speed=math.inf)
    summary = go(config(tmp_path, windows=2, pacer=later), up)
    assert summary.left_in_spool == 0
    assert up.values[:3] == down.values[:3]
    assert len({record.body.window_start_ms for record in up.records}) == 5  # type: ignore[union-attr]
    fresh = up.records[3]
    assert (fresh.body.seq, fresh.body.prev_digest) == (0, up.records[2].digest)
    assert fresh.evidence is not None


@pytest.mark.parametrize("back_ms", [30_000, 10_000])
def test_a_replay_started_again_seals_no_window_twice(tmp_path: Path, back_ms: int) -> None:
    """Also what a clock set back over a restart would do."""
    broker = Broker()
    go(config(tmp_path, windows=3), broker)
    again = ReplayPacer(SCHEDULE.window_ms, start_ms=START_MS + 30_000 - back_ms, speed=math.inf)
    assert go(config(tmp_path, windows=2, pacer=again), broker).reports == 2
    starts = [record.body.window_start_ms for record in broker.records]  # type: ignore[union-attr]
    assert starts == [START_MS + window * 10_000 for window in range(5)]


def test_it_is_on_disk_before_it_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    appended: list[bytes] = []
    original = Spool.append

    def append(self: Spool, reports: Any, now_ms: int) -> Any:
        done = original(self, reports, now_ms)
        appended.extend(item.value for item in reports)
        return done

    class Checking(Broker):
        def produce(self, _topic: str, *, value: bytes, on_delivery: Any, **rest: object) -> None:
            assert value in appended
            super().produce(_topic, value=value, on_delivery=on_delivery, **rest)

    monkeypatch.setattr(Spool, "append", append)
    assert go(config(tmp_path), Checking()).acknowledged == 5


def test_a_window_the_spool_refuses_is_lost_counted_and_evidence_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("disk full")

    settings = config(tmp_path, evidence_interval=100)
    with Spool(settings.spool_path) as spool:
        agent = HostAgent(settings.hosts[0], settings.sealing, spool)
        sealed = [agent.produce(START_MS).sealed]
        with monkeypatch.context() as broken:
            broken.setattr(spool, "_insert", full)
            with pytest.raises(SpoolError):
                spool.append(sealed, 0)
        for start_ms in (START_MS + 10_000, START_MS + 20_000):
            sealed.append(agent.produce(start_ms).sealed)
            spool.append(sealed[-1:], 0)
        spool.acknowledge([entry.id for entry in spool.pending()])
        again = HostAgent(agent_host(), settings.sealing, spool)
        sealed.append(again.produce(START_MS + 30_000).sealed)
    first, second, third, fourth = (decode_signed_record(one.value) for one in sealed)
    assert [r.body.dropped_reports for r in (first, second, third, fourth)] == [0, 1, 1, 0]  # type: ignore[union-attr]
    assert [r.evidence is not None for r in (first, second, third)] == [True, True, False]
    assert second.body.prev_digest == first.digest  # the gap shows in the log


def test_what_a_crashed_agent_dropped_is_stated_by_the_next(tmp_path: Path) -> None:
    """Dropped after its last report was on disk: nobody else will ever say so."""
    settings = config(tmp_path)
    with Spool(settings.spool_path) as spool:
        agent = HostAgent(agent_host(), settings.sealing, spool)
        entries = [spool.append([agent.produce(START_MS + n * 10_000).sealed], 0)[0] for n in range(3)]
        spool.discard([entries[0].id, entries[1].id])
    for crashes in range(3):  # the first one crashes before its report is on disk, the next before it was delivered
        with Spool(settings.spool_path) as spool:
            agent = HostAgent(agent_host(), settings.sealing, spool)
            sealed = agent.produce(START_MS + (30_000 + 10_000 * crashes)).sealed
            assert decode_signed_record(sealed.value).body.dropped_reports == 2  # type: ignore[union-attr]
            if crashes:
                entry = spool.append([sealed], 0)[0]
            if crashes == 2:
                spool.acknowledge([entry.id])
    with Spool(settings.spool_path) as spool:
        agent = HostAgent(agent_host(), settings.sealing, spool)
        last = decode_signed_record(agent.produce(START_MS + 60_000).sealed.value)
    assert last.body.dropped_reports == 0  # type: ignore[union-attr]


def test_a_disk_that_fills_up_loses_windows_not_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Spool._insert
    calls = itertools.count()

    def insert(self: Spool, *args: Any) -> Any:
        if next(calls) in (1, 2):
            raise OSError("disk full")
        return original(self, *args)

    monkeypatch.setattr(Spool, "_insert", insert)
    broker = Broker()
    summary = go(config(tmp_path), broker)
    assert (summary.windows, summary.reports, summary.lost, summary.acknowledged) == (5, 3, 2, 3)
    assert [r.body.dropped_reports for r in broker.records] == [0, 2, 2]  # type: ignore[union-attr]


def test_dropped_reports_are_those_of_this_session(tmp_path: Path) -> None:
    settings = config(tmp_path)
    with Spool(settings.spool_path) as spool:
        for start_ms in (START_MS, START_MS + 20_000):
            agent = HostAgent(agent_host(), settings.sealing, spool)
            sealed = agent.produce(start_ms).sealed
            assert decode_signed_record(sealed.value).body.dropped_reports == 0  # type: ignore[union-attr]
            spool.discard([entry.id for entry in spool.append([sealed], 0)])
            sealed = agent.produce(start_ms + 10_000).sealed
            spool.acknowledge([entry.id for entry in spool.append([sealed], 0)])
            again = decode_signed_record(sealed.value)
            assert (again.body.dropped_reports, again.evidence is not None) == (1, True)  # type: ignore[union-attr]


def test_missing_ticks_reach_the_report(tmp_path: Path) -> None:
    broker = Broker()
    source = FakeSource(missing=(3, 4, 5, 6, 7, 50))
    go(config(tmp_path, agent_host(host("host-1", "row-1", gpu_class(source))), windows=1), broker)
    body: Any = broker.records[0].body
    assert (body.samples_taken, body.stalls_coarse, body.classes[0].readings_taken) == (94, 1, 188)
    assert [(flag.flag, flag.gpus) for flag in body.sensor_flags] == [("gap", 2)]


def test_logs_hold_no_value_that_depends_on_a_reading(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = []
    for level in (50.0, 350.0):
        caplog.clear()
        source = FakeSource(level_w=level)
        with caplog.at_level(logging.DEBUG):
            go(config(tmp_path / str(level), agent_host(host("host-1", "row-1", gpu_class(source)))), Broker())
        texts.append(caplog.text)
    assert texts[0] == texts[1]
    assert "window" in texts[0]


def test_it_stops_when_asked_and_keeps_what_is_left(tmp_path: Path) -> None:
    stop = threading.Event()
    pacer = ReplayPacer(SCHEDULE.window_ms, start_ms=START_MS, speed=200.0)
    timer = threading.Timer(0.4, stop.set)
    timer.start()
    summary = go(config(tmp_path, windows=None, pacer=pacer), Broker(), stop)
    timer.join()
    assert 3 <= summary.windows <= 9
    assert summary.left_in_spool == 0


def test_configurations_are_checked_first(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="different ids"):
        go(config(tmp_path, agent_host(), agent_host()), Broker())
    with pytest.raises(ConfigError, match="row-7"):
        go(config(tmp_path, agent_host(host("host-1", "row-7"))), Broker())
    settings = config(tmp_path)
    with pytest.raises(ConfigError, match="another privacy"):
        go(replace(settings, budget=replace(settings.budget, pane_sums_micro=1_000_000)), Broker())


def test_a_source_at_another_rate_is_refused(tmp_path: Path) -> None:
    class Fast(FakeSource):
        def window(self, start_ms: int, end_ms: int) -> Any:
            return super().window(start_ms, end_ms)[:, ::2]

    with pytest.raises(ConfigError, match="rate"):
        go(config(tmp_path, agent_host(host("host-1", "row-1", gpu_class(Fast())))), Broker())


def test_real_time_waits_for_the_boundary_and_skips_what_was_slept_through() -> None:
    clock = [1000.2]
    pacer = RealTimePacer(10_000, now=lambda: clock[0])
    assert pacer.first_start_ms() == 1_010_000
    assert pacer.seconds_until(1_020_000) == pytest.approx(19.8)
    assert pacer.next_start_ms(1_020_000) == 1_020_000
    clock[0] = 1055.0
    assert pacer.next_start_ms(1_020_000) == 1_050_000


def test_replay_runs_in_step_with_others_of_the_same_origin() -> None:
    clock = [500.0]
    pacer = ReplayPacer(10_000, start_ms=START_MS, speed=20.0, origin_s=499.0, now=lambda: clock[0])
    assert pacer.first_start_ms() == START_MS
    assert pacer.seconds_until(START_MS + 10_000) == pytest.approx(-0.5)
    assert pacer.seconds_until(START_MS + 40_000) == pytest.approx(1.0)
    assert pacer.next_start_ms(START_MS + 10_000) == START_MS + 10_000
    assert ReplayPacer(10_000, start_ms=0, speed=math.inf, now=lambda: 5.0).seconds_until(10**9) == 0
    for bad in ({"start_ms": 5, "speed": 1.0}, {"start_ms": 0, "speed": 0.0}, {"start_ms": 0, "speed": math.nan}):
        with pytest.raises(ConfigError):
            ReplayPacer(10_000, **bad)  # type: ignore[arg-type]
