"""One worker, killed again and again: the outputs are those of an undisturbed run, bit for bit."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from stream_jobs.job import METADATA_PREFIX
from stream_jobs.log_record import START_METADATA
from tests.broker import KafkaBroker
from tests.log.fleet import committed_offsets
from tests.pipeline.kafka_side import Side, WorkerProcess, header, outputs_of, reference, wait_until
from tests.pipeline.world import WINDOW_MS, World
from tests.results import write_result

SEED = int(os.environ.get("ENCLAVESCALE_SEED", "20261121"))


def run_disturbed(side: Side, tmp_path: Path, kills: int, rng: random.Random) -> dict[str, int]:
    """Feed the log in batches while a worker is killed `kills` times; returns what happened."""
    world, group = side.world, f"{side.prefix}-disturbed"
    log = tmp_path / "worker.log"
    worker = WorkerProcess(side, group, log)
    wait_until(lambda: sum(side.ends(side.topics.reports)) >= len(world.domains), "the first control records")
    width, batches = WINDOW_MS, 8
    windows = batches * (10 + kills // 4)
    start_ms = int(time.time() * 1000) // width * width - (windows + 2) * width
    done = 0
    for batch in range(batches):
        items = [item for i in range(windows // batches) for item in world.window(start_ms + (done + i) * width)]
        done += windows // batches
        side.append(items)
        for _ in range(kills // batches + (batch < kills % batches)):
            # Half of the kills by time, into joining and warming up; half by progress, into publishing.
            if rng.random() < 0.5:
                time.sleep(rng.uniform(0.0, 4.0))
            else:
                before = sum(side.ends(side.topics.output))
                deadline = time.monotonic() + 8
                wanted = before + rng.randint(1, 12)
                while sum(side.ends(side.topics.output)) < wanted and time.monotonic() < deadline:
                    pass
            assert worker.alive(), log.read_text()[-3000:]
            worker.kill()
            worker = WorkerProcess(side, group, log)
        # Caught up, the worker writes the control records from which restarts begin: they move the resume offset.
        appended = world.sent + len(world.domains) * (batch + 1)
        wait_until(lambda mark=appended: sum(side.ends(side.topics.reports)) > mark, "control records", 30)
    expected, _ = reference(side)
    wait_until(lambda: sum(side.ends(side.topics.output)) >= len(expected), "all outputs", 90)
    wait_until(lambda: set(outputs_of(side.read(side.topics.output))) >= set(expected), f"{len(expected)} outputs", 60)
    wait_until(lambda: len(side.read(side.topics.rejections)) > 0, "rejections", 30)
    time.sleep(2.5)  # two ticks: rejections after the last output are acknowledged by then
    assert worker.stop() == 0
    return {"kills": kills, "windows": windows, "records": world.sent, "restarts": world.restarts}


@pytest.mark.broker
@pytest.mark.parametrize(
    "kills",
    [20, pytest.param(200, marks=[pytest.mark.accept, pytest.mark.timeout(3000)])],
)
def test_a_killed_worker_publishes_what_an_undisturbed_one_does(kafka: KafkaBroker, tmp_path: Path, kills: int) -> None:
    rng = random.Random(SEED)
    world = World(tmp_path, {"hall-a": 0, "hall-b": 0, "hall-c": 1}, 5, SEED)
    side = Side(kafka.bootstrap, world, 2)
    facts = run_disturbed(side, tmp_path, kills, rng)

    disturbed = outputs_of(side.read(side.topics.output))
    expected, refused = reference(side)
    assert disturbed == expected
    assert facts["restarts"] > 0
    assert any(revision > 0 for _, _, revision in expected), "no late revision in the stream"

    # The same through a second worker that nobody disturbs, adapter included.
    names = side.output_names("undisturbed")
    worker = WorkerProcess(side, f"{side.prefix}-undisturbed", tmp_path / "undisturbed.log", names=names)
    wait_until(lambda: sum(side.ends(names.output)) >= len(expected), "the undisturbed run", 90)
    time.sleep(2.5)
    assert worker.stop() == 0
    assert outputs_of(side.read(names.output)) == expected

    # Rejections: once per source offset, each with the code the reference gives.
    for topic in (side.topics.rejections, names.rejections):
        seen = [
            ((message.partition() or 0, int(header(message, "__connect.errors.offset"))), message)
            for message in side.read(topic)
        ]
        assert len({place for place, _ in seen}) == len(seen)
        assert {place: header(message, "enclavescale.error.code") for place, message in seen} == refused

    # Faust commits nothing: every commit carries our metadata.
    commits = committed_offsets(side.bootstrap, f"{side.prefix}-disturbed")
    assert len(commits) == 2
    for offset, metadata in commits.values():
        assert metadata == START_METADATA or metadata.startswith(METADATA_PREFIX)
        assert offset == 0 or metadata != START_METADATA
    # The resume offset moves: what a restart reads again is bounded by event time, not by the log's length.
    assert max(offset for offset, _ in commits.values()) > 0
    write_result("kill", {**facts, "outputs": len(expected), "refused": len(refused)}, seeds={"world": SEED})
