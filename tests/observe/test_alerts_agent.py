"""Every alert on agents: brought about with the real parts, and nothing else fires then."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from producers.errors import SpoolError
from producers.sample.source import Conditions
from tests.observe.agent_bench import AgentBench
from tests.observe.promtool import Recording, assert_firing
from tests.observe.worker_bench import WorkerBench
from tests.producers.forge import report


@pytest.fixture
def recording() -> Recording:
    return Recording()


@pytest.fixture
def quiet_worker() -> str:
    """A worker that says nothing wrong, beside the agent."""
    return "enclavescale_policy_number 1\n"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[AgentBench]:
    made = AgentBench(tmp_path / "agent")
    yield made
    made.close()


def test_a_healthy_agent_is_silent(tmp_path: Path, recording: Recording, bench: AgentBench, quiet_worker: str) -> None:
    bench.run(recording, 44, worker=quiet_worker)
    assert bench.broker.values
    assert_firing(recording, set(), tmp_path)


def test_agent_down(tmp_path: Path, recording: Recording, bench: AgentBench, quiet_worker: str) -> None:
    bench.run(recording, 2, worker=quiet_worker)
    recording.scrape(agent=None, worker=quiet_worker, times=23)
    assert_firing(recording, {"AgentDown"}, tmp_path)


def test_windows_stop(tmp_path: Path, recording: Recording, bench: AgentBench, quiet_worker: str) -> None:
    bench.run(recording, 4, worker=quiet_worker)
    bench.stopped = True
    bench.run(recording, 46, worker=quiet_worker)
    assert_firing(recording, {"AgentWindowsStopped"}, tmp_path)


def test_brokers_away(tmp_path: Path, recording: Recording, bench: AgentBench, quiet_worker: str) -> None:
    bench.run(recording, 4, worker=quiet_worker)
    bench.broker.down = True
    bench.run(recording, 44, worker=quiet_worker)
    assert_firing(recording, {"ReportsNotAcknowledged"}, tmp_path)


def test_a_spool_fills_and_overflows(tmp_path: Path, recording: Recording, quiet_worker: str) -> None:
    bench = AgentBench(tmp_path / "small", spool_max_bytes=1 << 20)
    bench.broker.down = True
    numbers = itertools.count()
    while bench.agent.spool.depth()[1] <= 1 << 19:
        bench.agent.spool.append([report(next(numbers), "host-2", size=50_000)], bench.now_ms)
    bench.run(recording, 6, worker=quiet_worker)
    assert_firing(recording, {"SpoolFilling"}, tmp_path)
    while not bench.agent.spool.stats(bench.now_ms).dropped:
        bench.agent.spool.append([report(next(numbers), "host-2", size=50_000)], bench.now_ms)
    bench.window()
    recording.scrape(agent=bench.text(), worker=quiet_worker)
    assert_firing(recording, {"SpoolFilling", "SpoolLost"}, tmp_path)
    bench.close()


def test_a_disk_that_fails(
    tmp_path: Path, recording: Recording, bench: AgentBench, quiet_worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run(recording, 4, worker=quiet_worker)

    def full(*_: object) -> None:
        raise SpoolError("no space left on device")

    monkeypatch.setattr(bench.agent.spool, "append", full)
    bench.run(recording, 2, worker=quiet_worker)
    assert_firing(recording, {"SpoolLost"}, tmp_path)


def test_evidence_that_is_not_renewed(
    tmp_path: Path, recording: Recording, bench: AgentBench, quiet_worker: str
) -> None:
    bench.renewal = dataclasses.replace(bench.renewal, age_ms=3_700_000, failures=4, last_error="TSM_BUSY")
    bench.run(recording, 6, worker=quiet_worker)
    assert_firing(recording, {"AgentEvidenceOld"}, tmp_path)


def test_an_old_policy(tmp_path: Path, recording: Recording, bench: AgentBench) -> None:
    worker = WorkerBench(tmp_path / "worker", counter=7)
    for _ in range(3):
        worker.window()
    worker.lose()
    text = "\n".join(line for line in worker.text().splitlines() if line.startswith("enclavescale_policy_number"))
    bench.run(recording, 62, worker=text + "\n")
    assert_firing(recording, {"AgentPolicyBehind"}, tmp_path)


def test_a_reload_that_is_refused(tmp_path: Path, recording: Recording, bench: AgentBench, quiet_worker: str) -> None:
    bench.run(recording, 2, worker=quiet_worker)
    bench.watch.reload_refused(bench.agent, ValueError("no"))
    bench.run(recording, 2, worker=quiet_worker)
    assert_firing(recording, {"AgentReloadRefused"}, tmp_path)


def test_a_gpu_is_lost(tmp_path: Path, recording: Recording, bench: AgentBench, quiet_worker: str) -> None:
    bench.source.seen = Conditions(flags=(("gpu_lost", 1),))
    bench.run(recording, 6, worker=quiet_worker)
    assert_firing(recording, {"GpuLost"}, tmp_path)


def test_a_simulated_tee(tmp_path: Path, recording: Recording, quiet_worker: str) -> None:
    bench = AgentBench(tmp_path / "demo", tee="simulated")
    bench.run(recording, 2, worker=quiet_worker)
    assert_firing(recording, {"SimulatedTee"}, tmp_path)
    bench.close()
