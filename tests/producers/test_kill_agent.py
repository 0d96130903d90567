"""The agent killed at every step of a window: one report per window, no second noise for what may have left.

A real agent, a real broker, SIGKILL. The same replay is started again after every death, from its very first window.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from producers.spool import Spool
from schemas.codec import DecodedRecord, decode_signed_record
from tests.broker import KafkaBroker
from tests.conftest import MakeTopic
from tests.producers.crash_child import ANY_TIME, DRAWS, HOSTS, STEPS, noise_digest
from tests.producers.forge import SCHEDULE, START_MS
from tests.results import write_result

SEED = int(os.environ.get("ENCLAVESCALE_SEED", "20261121"))
TIER = os.environ.get("ENCLAVESCALE_TIER", "test")
RUNS = 200 if TIER == "accept" else 20
RUNS_PER_SPOOL = 20
WINDOWS = 4
"""Windows of a run that is not cut short."""
KILLED = -9


class Agents:
    """Agents of one spool and one topic, one after the other."""

    def __init__(self, child: subprocess.Popen[str], directory: Path, broker: KafkaBroker, topic: str) -> None:
        self.child, self.directory, self.broker, self.topic = child, directory, broker, topic

    def live(self, step: str = "", count: int = 0, windows: int = WINDOWS, *, forgets: bool = False) -> int:
        """Start one, wait for its end, return its exit status; `forgets`: what its spool sealed before."""
        kafka = {"bootstrap.servers": self.broker.bootstrap, "log_level": "0"}
        job = {"directory": str(self.directory), "kafka": kafka, "topic": self.topic}
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        life = {"step": step, "count": count, "windows": windows, "forgets": forgets}
        self.child.stdin.write(json.dumps({**job, **life}) + "\n")
        self.child.stdin.flush()
        return int(self.child.stdout.readline())

    def draws(self) -> list[tuple[str, int, str]]:
        """Every draw of noise ever made: host, window, digest."""
        text = (self.directory / DRAWS).read_text()
        return [tuple(json.loads(line)) for line in text.splitlines()]

    def sealed_ms(self) -> dict[str, int]:
        """Where each host stands, by the spool."""
        with Spool(self.directory / "spool") as spool:
            return {name: spool.sealed_ms(name) for name in HOSTS}

    def topic_records(self) -> list[DecodedRecord]:
        """Everything on the topic, in its order."""
        return [decode_signed_record(value) for value in read_topic(self.broker.bootstrap, self.topic)]


def read_topic(bootstrap: str, topic: str) -> list[bytes]:
    """Every value of partition 0."""
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False})
    try:
        place = TopicPartition(topic, 0, 0)
        reader.assign([place])
        end = reader.get_watermark_offsets(place, timeout=20)[1]
        values: list[bytes] = []
        deadline = time.monotonic() + 30
        while len(values) < end and time.monotonic() < deadline:
            for message in reader.consume(1000, 0.5):
                value = message.value()
                assert message.error() is None
                assert value is not None
                values.append(value)
        assert len(values) == end
        return values
    finally:
        reader.close()


@dataclass
class Facts:
    """What a whole test saw."""

    killed: Counter[str] = field(default_factory=Counter)
    windows: int = 0
    reports: int = 0
    duplicates: int = 0
    drawn_again: int = 0
    sessions: int = 0


def noise_of(record: DecodedRecord) -> str:
    """The draw that a record on the topic carries."""
    body: Any = record.body
    (one,) = body.classes
    return noise_digest(one.transitions, one.pane_sums)


def judge(agents: Agents, windows: int, facts: Facts) -> None:
    """Hold what is on the topic against what was drawn."""
    drawn: dict[tuple[str, int], list[str]] = defaultdict(list)
    for host_id, start_ms, digest in agents.draws():
        drawn[host_id, start_ms].append(digest)
    records = agents.topic_records()
    bodies: list[Any] = [record.body for record in records]
    first: dict[tuple[str, int], DecodedRecord] = {}
    for record, body in zip(records, bodies, strict=True):
        known = first.setdefault((body.host_id, body.window_start_ms), record)
        assert known.digest == record.digest, "two reports of one window"
        facts.duplicates += known is not record
    starts = [START_MS + number * SCHEDULE.window_ms for number in range(windows)]
    body: Any
    for host_id in HOSTS:
        mine = [(start_ms, record) for (name, start_ms), record in first.items() if name == host_id]
        assert [start_ms for start_ms, _ in mine] == starts, "every window once and in order"
        before = None
        for start_ms, record in mine:
            body = record.body
            assert body.prev_digest == before, "the chain is unbroken, also from one session to the next"
            assert record.evidence is not None or body.seq > 0
            assert body.dropped_reports == 0
            before = record.digest
            draws = drawn[host_id, start_ms]
            # What left is the last draw: nothing was drawn after anything had left, and nothing left of the others.
            assert noise_of(record) == draws[-1]
            assert len(set(draws)) == len(draws)
            facts.drawn_again += len(draws) > 1
            facts.sessions += body.seq == 0
    facts.windows += windows
    facts.reports += len(first)


@pytest.fixture
def child(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The process that agents are forked from."""
    with (
        (tmp_path / "agents.log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "tests.producers.crash_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        yield process
        assert process.stdin is not None
        process.stdin.close()


def kill_some(agents: Agents, steps: list[str], rng: random.Random, facts: Facts) -> None:
    """One life after the other, each cut short at its step; the last one ends by itself."""
    for step in steps:
        # All acknowledgements may come at once: one trim is all that is sure.
        most = 600 if step == ANY_TIME else 1 if step in {"before trim", "after trim"} else WINDOWS
        count = rng.randint(1, most)
        status = agents.live(step, count)
        assert status == KILLED or (step == ANY_TIME and status == 0), (step, count, status)
        facts.killed[step] += status == KILLED
    assert agents.live(windows=1) == 0
    sealed = agents.sealed_ms()
    assert len(set(sealed.values())) == 1
    judge(agents, (sealed[HOSTS[0]] - START_MS) // SCHEDULE.window_ms, facts)


@pytest.mark.broker
@pytest.mark.every_tier
@pytest.mark.timeout(1200)
def test_killed_at_every_step_every_window_is_there_once(
    kafka: KafkaBroker, make_topics: MakeTopic, tmp_path: Path, child: subprocess.Popen[str]
) -> None:
    rng = random.Random(SEED)
    places = (*STEPS, ANY_TIME)
    steps = [places[number % len(places)] for number in range(RUNS)]
    facts = Facts()
    for number in range(0, RUNS, RUNS_PER_SPOOL):
        directory = tmp_path / f"host-{number}"
        directory.mkdir()
        agents = Agents(child, directory, kafka, make_topics(f"kill-{number}"))
        kill_some(agents, steps[number : number + RUNS_PER_SPOOL], rng, facts)
    assert set(facts.killed) >= set(STEPS)
    assert facts.drawn_again > 0, "no kill fell between the noise and the disk"
    assert facts.duplicates > 0, "no kill fell between the broker and the trim"
    result = {**vars(facts), "runs": RUNS, "killed": dict(sorted(facts.killed.items()))}
    write_result("kill-agent", result, seeds={"kills": SEED})


@pytest.mark.broker
def test_an_agent_that_seals_a_window_again_is_caught(
    kafka: KafkaBroker, make_topics: MakeTopic, tmp_path: Path, child: subprocess.Popen[str]
) -> None:
    agents = Agents(child, tmp_path, kafka, make_topics("forgets"))
    assert agents.live("after append", 2) == KILLED
    assert agents.live(windows=3) == 0
    judge(agents, 5, Facts())
    assert agents.live(windows=3, forgets=True) == 0
    with pytest.raises(AssertionError, match="two reports of one window"):
        judge(agents, 5, Facts())
