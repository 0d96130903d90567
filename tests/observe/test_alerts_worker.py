"""Every alert on workers, domains, records and trust: brought about with the real parts, and no other fires then."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from enclavescale.fleet import sign_policy
from schemas.codec import decode_signed_output
from schemas.records.output import Interval
from stream_jobs.collateral_store import CollateralMetrics, set_ends_ms
from stream_jobs.hold import Hold
from stream_jobs.job import DomainJob
from stream_jobs.policy_store import PolicyMetrics
from tests.core.sets import judging, toy_set
from tests.core.test_collateral_tdx import topic_of
from tests.forge.dcap.world import DAY, TDX4
from tests.log.bench import TP, Bench, run, until
from tests.observe.promtool import Recording, assert_firing
from tests.observe.worker_bench import WorkerBench
from tests.pipeline.test_collateral import Store
from tests.pipeline.test_job import Tail
from tests.pipeline.world import WINDOW_MS, Item
from tests.policy.stores import Topic
from tests.policy.test_store import SIGNER, numbered, value


@pytest.fixture
def recording() -> Recording:
    return Recording()


def restart_all(bench: WorkerBench) -> None:
    for host_id in list(bench.world.agents):
        bench.world.now_ms = max(bench.world.now_ms, bench.now_ms)
        bench.world.agents[host_id] = bench.world._agent(host_id)


def test_a_healthy_run_of_ten_minutes_is_silent(tmp_path: Path, recording: Recording) -> None:
    bench = WorkerBench(tmp_path)
    bench.run(recording, 40)
    assert bench.registry.get_sample_value("enclavescale_outputs_total", {"domain": "hall-a"}) > 50
    assert_firing(recording, set(), tmp_path)


def test_worker_down(tmp_path: Path, recording: Recording) -> None:
    WorkerBench(tmp_path).run(recording, 8)
    recording.scrape(worker=None, times=4)
    assert_firing(recording, set(), tmp_path)
    recording.scrape(worker=None, times=2)
    assert_firing(recording, {"WorkerDown"}, tmp_path)


def test_no_worker_is_known(tmp_path: Path, recording: Recording) -> None:
    recording.scrape(other="", times=22)
    assert_firing(recording, {"WorkerMissing"}, tmp_path)


def test_worker_restarting(tmp_path: Path, recording: Recording) -> None:
    """Processes have their own start times; a failing worker's supervisor makes one after the other."""
    program = (
        "from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest\n"
        "registry = CollectorRegistry(); ProcessCollector(registry=registry); print(generate_latest(registry).decode())"
    )
    for _ in range(4):
        text = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        recording.scrape(worker=text, times=2)
    assert_firing(recording, {"WorkerRestarting"}, tmp_path)


async def lost(bench: Bench) -> None:
    bench.client.limits[TP] = (50, 100)
    await bench.adapter.assigned([TP], 1)
    await until(lambda: bool(bench.failures))


async def broken(bench: Bench) -> None:
    job = await bench.assign()
    job.error = ValueError("a bug")
    await bench.offer(10)
    await until(lambda: bool(bench.failures))


def disagreeing(tmp_path: Path, tail: Tail, metadata: str) -> Callable[[Bench], Coroutine[Any, Any, None]]:
    """The real job finds on the output topic what the log does not have, or the other way round."""
    worker = WorkerBench(tmp_path)
    anything: Any = tail
    worker.context.tail = anything

    def factory(topic: str, partition: int, start: int, _metadata: str, _log_start: int, end: int) -> Any:
        return DomainJob(worker.context, topic, partition, start, metadata=metadata, high_watermark=end)

    async def test(bench: Bench) -> None:
        bench.adapter._factory = factory
        await bench.adapter.assigned([TP], 1)
        await until(lambda: bool(bench.failures))

    return test


@pytest.mark.parametrize(
    ("alert", "code", "cause"),
    [
        ("InputLost", "INPUT_LOST", lambda _: lost),
        ("WorkerFailed", "JOB_FAILED", lambda _: broken),
        ("TopicRemade", "LOG_REMADE", lambda path: disagreeing(path, Tail(last_close=500, end=100), "")),
        ("TopicRemade", "OUTPUT_LOST", lambda path: disagreeing(path, Tail(), "enclavescale/1 7")),
    ],
)
def test_what_stops_a_worker_is_said(
    tmp_path: Path, recording: Recording, alert: str, code: str, cause: Callable[[Path], Any]
) -> None:
    bench = run(cause(tmp_path))
    assert bench.failures == [code]
    recording.scrape(worker=generate_latest(bench.registry).decode(), times=2)
    recording.scrape(worker=None, times=2)
    assert_firing(recording, {alert}, tmp_path)


def test_nobody_works_on_any_partition(tmp_path: Path, recording: Recording) -> None:
    bench = WorkerBench(tmp_path)
    bench.run(recording, 4)
    bench.lose()
    assert "enclavescale_domain_margin_watts{" not in bench.text(), "a margin that nobody keeps is not shown"
    recording.scrape(worker=bench.text(), times=10)
    assert_firing(recording, {"NoPartitionWorkedOn"}, tmp_path)


def test_a_gap_in_the_log(tmp_path: Path, recording: Recording) -> None:
    async def test(bench: Bench) -> None:
        job = await bench.assign()
        await bench.adapter.maintain()
        recording.scrape(worker=generate_latest(bench.registry).decode(), times=2)
        bench.client.first = 15
        await bench.offer(15, 15)
        await until(lambda: job.next == 16)
        recording.scrape(worker=generate_latest(bench.registry).decode(), times=2)

    run(test)
    assert_firing(recording, {"LogGap"}, tmp_path)


def test_a_partition_that_waits_for_a_schema(tmp_path: Path, recording: Recording) -> None:
    """The registry does not say what an id is; then it does."""
    there = [False]

    async def test(bench: Bench) -> None:
        def scrape(times: int) -> None:
            recording.scrape(worker=generate_latest(bench.registry).decode(), times=times)

        job = await bench.assign()
        job.error = cast("Exception", Hold("an id", code="SCHEMA_ID_WAITS", remedy="", again=lambda: there[0]))
        await bench.offer(10)
        await until(lambda: bench.state() == "held")
        await bench.adapter.maintain()
        scrape(6)
        assert_firing(recording, {"PartitionHeld"}, tmp_path)
        there[0], job.error = True, None
        await bench.adapter.maintain()
        await bench.offer(10)
        await until(lambda: job.seen == [10])
        bench.client.limits[TP] = (0, 11)
        await bench.adapter.maintain()
        scrape(1)

    run(test)
    assert_firing(recording, set(), tmp_path)


def test_a_worker_that_hangs_lags_and_closes_nothing(tmp_path: Path, recording: Recording) -> None:
    bench = WorkerBench(tmp_path)
    bench.run(recording, 4)
    bench.stuck = True
    bench.run(recording, 14)
    assert_firing(recording, {"ProcessingLag", "WatermarkStalled"}, tmp_path)
    bench.stuck = False
    bench.read()
    bench.run(recording, 1)
    assert_firing(recording, set(), tmp_path)


def test_commits_that_fall_behind(tmp_path: Path, recording: Recording) -> None:
    bench = WorkerBench(tmp_path)
    bench.uncommitted = True
    bench.window()
    bench.now_ms += 1_000_000
    restart_all(bench)
    bench.run(recording, 24)
    assert_firing(recording, {"CommitLag"}, tmp_path)
    bench.uncommitted = False
    bench.tick()
    bench.run(recording, 1)
    assert_firing(recording, set(), tmp_path)


def test_an_upgrade_that_is_not_finished(tmp_path: Path, recording: Recording) -> None:
    new, old = WorkerBench(tmp_path / "a"), WorkerBench(tmp_path / "b", runs_core="1")
    old.lose()
    new.run(recording, 42, worker2=old.text())
    assert_firing(recording, {"TwoCoreVersions"}, tmp_path)


def test_a_policy_for_another_core(tmp_path: Path, recording: Recording) -> None:
    WorkerBench(tmp_path, core_version="9").run(recording, 7)
    assert_firing(recording, {"PolicyNamesAnotherCore"}, tmp_path)


def test_margins(tmp_path: Path, recording: Recording) -> None:
    WorkerBench(tmp_path / "a", limit_w=600).run(recording, 8)
    assert_firing(recording, {"MarginNegative", "MarginLow"}, tmp_path)
    low, bench = Recording(), WorkerBench(tmp_path / "b")
    bench.run(low, 2)
    output = decode_signed_output(bench.outputs[-1])[0].output
    # What noise makes of a margin near its bound is not the same twice: the published one, with a narrow margin.
    narrow = dataclasses.replace(output.margin, margin=Interval(value_w=900, low_w=499, high_w=1_300))
    bench.metrics.domains.output(dataclasses.replace(output, margin=narrow))
    low.scrape(worker=bench.text(), times=6)
    assert_firing(low, {"MarginLow"}, tmp_path)


def test_coverage_below_the_quorum(tmp_path: Path, recording: Recording) -> None:
    bench = WorkerBench(tmp_path)
    bench.run(recording, 8, lambda start: bench.world.clean(start)[:2])
    assert_firing(recording, {"MarginWithheld"}, tmp_path)


def test_most_hosts_are_silent(tmp_path: Path, recording: Recording) -> None:
    bench = WorkerBench(tmp_path)
    bench.run(recording, 4)
    bench.run(recording, 14, lambda start: bench.world.clean(start)[:1])
    assert_firing(recording, {"WatermarkStalled"}, tmp_path)


def test_reports_are_missing_from_chains(tmp_path: Path, recording: Recording) -> None:
    """A host's every third report never comes: what comes next names one that nobody has."""
    bench = WorkerBench(tmp_path, hosts=8)
    bench.run(recording, 2)
    bench.run(recording, 12, lambda start: bench.world.clean(start)[(start // WINDOW_MS) % 2 :])
    assert_firing(recording, {"ChainGaps"}, tmp_path)


def with_noise(bench: WorkerBench, records: int) -> Callable[[int], list[Item]]:
    return lambda start: bench.world.clean(start) + [Item(0, b"hall-a", b"noise")] * records


@pytest.mark.parametrize(("records", "alerts"), [(1, {"RefusalsRising"}), (40, {"RefusalsRising", "DeadLettersFlood"})])
def test_refusals(tmp_path: Path, recording: Recording, records: int, alerts: set[str]) -> None:
    bench = WorkerBench(tmp_path)
    bench.run(recording, 2)
    bench.run(recording, 24, with_noise(bench, records))
    assert_firing(recording, alerts, tmp_path)


def test_a_host_that_says_two_things(tmp_path: Path, recording: Recording) -> None:
    bench = WorkerBench(tmp_path)
    bench.run(recording, 4)

    def lie(start: int) -> list[Item]:
        liar = bench.world.agents["hall-a-h00"]
        return [*bench.world.clean(start), Item(0, b"hall-a", liar.produce(start).sealed.value)]

    bench.run(recording, 1, lie)
    bench.run(recording, 1)
    assert_firing(recording, {"EquivocationSeen"}, tmp_path)


def test_a_signer_that_says_two_things(tmp_path: Path, recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = CollectorRegistry()
    registry.register(PolicyMetrics(Topic(value(3), value(3, limit_w=1)).store(monkeypatch, SIGNER)))
    recording.epoch_s = numbered(3).not_after_ms / 1000 - 30 * 86_400
    recording.scrape(worker=generate_latest(registry).decode(), times=2)
    assert_firing(recording, {"PolicyEquivocation"}, tmp_path)


def test_all_hosts_restart_at_once(tmp_path: Path, recording: Recording) -> None:
    bench = WorkerBench(tmp_path)
    bench.run(recording, 4)
    restart_all(bench)
    bench.run(recording, 2)
    assert bench.metrics.refused._metrics[("SUPERSEDED_SESSION",)]._value.get() == 0
    assert_firing(recording, {"FleetRestarted"}, tmp_path)
    bench.run(recording, 21)
    assert_firing(recording, set(), tmp_path)


def test_evidence_takes_most_of_the_time(tmp_path: Path, recording: Recording) -> None:
    bench = WorkerBench(tmp_path)
    bench.run(recording, 4)
    slow_ms, clock = 0, bench.stages.clock
    cache = bench.checks._cache
    look_up = cache._look_up

    def slowly(*question: Any) -> Any:
        nonlocal slow_ms
        found = look_up(*question)
        slow_ms += 10_000 if found is None else 0
        return found

    cache._look_up = slowly  # type: ignore[method-assign]
    bench.stages.clock = lambda: clock() + slow_ms / 1000
    for _ in range(12):
        restart_all(bench)
        bench.run(recording, 1)
    assert_firing(recording, {"EvidenceBudgetExhausted", "FleetRestarted"}, tmp_path)


@pytest.mark.parametrize(("days", "alerts"), [(6, {"PolicyExpiring"}), (1, {"PolicyExpiring", "PolicySignerLost"})])
def test_a_policy_that_nobody_renews(tmp_path: Path, recording: Recording, days: float, alerts: set[str]) -> None:
    bench = WorkerBench(tmp_path, days=days)
    bench.run(recording, 2)
    assert_firing(recording, alerts, tmp_path)
    renewed = bench.policies.newest.policy
    later = dataclasses.replace(renewed, counter=2, not_after_ms=renewed.not_after_ms + 30 * DAY * 1000)
    bench.policies.take(sign_policy(later, bench.world.key))
    bench.run(recording, 2)
    assert_firing(recording, set(), tmp_path)


@pytest.mark.parametrize(
    ("left_days", "alerts"),
    [(9, set()), (1, {"CollateralExpiring"}), (-1, {"CollateralExpiring", "CollateralExpired"})],
)
def test_collateral_that_nobody_renews(
    tmp_path: Path, recording: Recording, left_days: float, alerts: set[str]
) -> None:
    index, (digest,) = topic_of(TDX4)
    view = index.lookup(digest)
    assert view is not None
    end_ms = set_ends_ms(view.held)
    assert end_ms is not None
    registry, store = CollectorRegistry(), cast(Any, index)
    registry.register(CollateralMetrics(store))
    recording.epoch_s = end_ms / 1000 - left_days * 86_400
    recording.scrape(worker=generate_latest(registry).decode(), times=2)
    assert_firing(recording, alerts, tmp_path)


def test_collateral_under_which_the_worker_itself_fails(tmp_path: Path, recording: Recording) -> None:
    bench = WorkerBench(tmp_path)
    offered: Any = Store(toy_set("refuses this worker", lambda host: host == "aggregator-0"))
    bench.context.collateral = offered
    bench.context.verify = judging(bench.context.verify)
    bench.run(recording, 8)
    assert_firing(recording, {"CollateralNotUsed"}, tmp_path)


def test_a_simulated_tee(tmp_path: Path, recording: Recording) -> None:
    WorkerBench(tmp_path, tee="simulated").run(recording, 2)
    assert_firing(recording, {"SimulatedTee"}, tmp_path)
