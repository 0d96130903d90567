"""The brokers are away from the start, come, go and come back: every window arrives once, in order; none is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from producers import backoff
from producers.agent import Agent, AgentConfig, RunSummary
from producers.pacer import ReplayPacer
from producers.publish import PublishConfig, PublisherStats
from schemas.codec import decode_signed_record
from tests.broker import KafkaBroker
from tests.conftest import make_topic_on
from tests.producers.forge import SCHEDULE, START_MS, host
from tests.producers.test_agent import agent_host
from tests.producers.test_kill_agent import read_topic

HOSTS = ("host-1", "host-2")
WINDOW_S = 0.05
"""Real time that a window takes here."""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[KafkaBroker]:
    """A broker of this test's own: it goes down."""
    directory = tmp_path / "kafka"
    directory.mkdir()
    # A broker that was killed is let in again when its controller has given up the old one.
    quick = {"broker.session.timeout.ms": "1000", "broker.heartbeat.interval.ms": "200"}
    with KafkaBroker.start(directory, quick) as started:
        yield started


class Running:
    """An agent in a thread. A context manager, so that it ends with its test."""

    def __init__(self, config: AgentConfig) -> None:
        self.agent: Any = None
        self.summary: RunSummary | None = None
        self._config = config
        self._stop, self._ready = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Running:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        self.agent = Agent(self._config)  # the spool belongs to the thread that opened it
        self._ready.set()
        self.summary = self.agent.run(self._stop)

    def wait_for(self, done: Callable[[PublisherStats], bool], what: str, timeout_s: float = 30.0) -> PublisherStats:
        """Wait until the publisher's figures are so."""
        deadline = time.monotonic() + timeout_s
        while not done(self.agent.publisher.stats()):
            assert time.monotonic() < deadline, f"waited for {what}: {self.agent.publisher.stats()}"
            assert self._thread.is_alive()
            time.sleep(0.02)
        stats: PublisherStats = self.agent.publisher.stats()
        return stats

    def stop(self) -> RunSummary:
        """Ask it to stop, wait for its flush."""
        self._stop.set()
        self._thread.join(60)
        assert self.summary is not None
        return self.summary


def config(tmp_path: Path, bootstrap: str, topic: str) -> AgentConfig:
    # What takes minutes in the field takes a second here: deliveries that fail, ways back to a broker.
    kafka = {
        "bootstrap.servers": bootstrap,
        "log_level": "0",
        "message.timeout.ms": "700",
        "reconnect.backoff.max.ms": "100",
    }
    return AgentConfig(
        hosts=tuple(agent_host(host(name)) for name in HOSTS),
        pacer=ReplayPacer(SCHEDULE.window_ms, start_ms=START_MS, speed=SCHEDULE.window_ms / 1000 / WINDOW_S),
        publish=PublishConfig(partitions={"row-1": 0}, kafka=kafka, topic=topic),
        spool_path=tmp_path / "spool",
        schedule=SCHEDULE,
        evidence_interval=100,
    )


def failed_since(before: PublisherStats) -> Callable[[PublisherStats], bool]:
    """Deliveries failed since."""
    return lambda stats: stats.failed > before.failed


def caught_up_since(before: PublisherStats) -> Callable[[PublisherStats], bool]:
    """The backlog is gone, and then some arrived."""
    return lambda stats: stats.acknowledged > before.acknowledged + 20 and not stats.recovering


@pytest.mark.broker
@pytest.mark.parametrize("outages", [1, pytest.param(6, marks=[pytest.mark.soak, pytest.mark.timeout(300)])])
def test_brokers_that_are_away_cost_nothing(
    broker: KafkaBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outages: int
) -> None:
    drawn = backoff.full_jitter
    monkeypatch.setattr(backoff, "full_jitter", lambda attempt: drawn(attempt) / 10)
    topic = make_topic_on(broker.bootstrap, "outage", 1)
    broker.kill()  # away before the agent begins, and with more than one outage again and again in mid-run
    with Running(config(tmp_path, broker.bootstrap, topic)) as running:
        seen = running.wait_for(lambda stats: stats.failing, "the first failure")
        assert seen.acknowledged == 0
        for outage in range(outages):
            if outage:
                broker.kill()
                running.wait_for(failed_since(seen), "a failure in mid-run")
            broker.launch()
            seen = running.wait_for(caught_up_since(seen), "the backlog")
        summary = running.stop()
    assert (summary.lost, summary.left_in_spool) == (0, 0)
    assert summary.acknowledged == summary.reports == summary.windows * len(HOSTS)

    first: dict[tuple[str, int], bytes] = {}
    for value in read_topic(broker.bootstrap, topic):
        record = decode_signed_record(value)
        body: Any = record.body
        assert first.setdefault((body.host_id, body.window_start_ms), record.digest) == record.digest
        assert body.dropped_reports == 0
    for name in HOSTS:
        starts = [start_ms for host_id, start_ms in first if host_id == name]
        assert starts == [START_MS + number * SCHEDULE.window_ms for number in range(summary.windows)]
