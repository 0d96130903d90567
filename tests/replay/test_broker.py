"""A live run on a real broker, with a worker that is killed and its successor, replayed by the command."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.broker import KafkaBroker
from tests.pipeline.kafka_side import Side, WorkerProcess, outputs_of, wait_until
from tests.pipeline.world import WINDOW_MS, World

WINDOWS = 24


def replayed(side: Side, *arguments: str, begin_ms: int = 0) -> tuple[int, dict[str, Any]]:
    """Exit code and summary of `enclavescale replay`."""
    command = [sys.executable, "-m", "enclavescale", "replay", "--json", "--policy-signer", side.world.signer]
    command += ["--from", str(begin_ms or 10**12), "--to", str(2 * 10**12), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.broker
def test_a_live_run_is_identical(kafka: KafkaBroker, tmp_path: Path) -> None:
    world = World(tmp_path, {"hall-a": 0, "hall-b": 1}, 3, 21)
    side = Side(kafka.bootstrap, world, 2)
    worker = WorkerProcess(side, f"{side.prefix}-w", tmp_path / "worker.log")
    wait_until(lambda: sum(side.ends(side.topics.reports)) >= 2, "the first control records")
    start_ms = int(time.time() * 1000) // WINDOW_MS * WINDOW_MS - (WINDOWS + 2) * WINDOW_MS
    for window in range(WINDOWS):
        side.append(world.window(start_ms + window * WINDOW_MS))
        if window == WINDOWS // 2:
            wait_until(lambda: sum(side.ends(side.topics.output)) > WINDOWS // 2, "outputs")
            worker.kill()
            worker = WorkerProcess(side, f"{side.prefix}-w", tmp_path / "again.log", index=1)
    wait_until(lambda: sum(side.ends(side.topics.output)) >= 2 * (WINDOWS - 6), "outputs")
    # A tick settles the dead letters of what came last.
    time.sleep(2.5)
    assert worker.stop() == 0
    there = ["--bootstrap", side.bootstrap, "--topic-prefix", side.prefix]
    outputs = outputs_of(side.read(side.topics.output))

    code, said = replayed(side, *there, "--jobs", "2", "--out", str(tmp_path / "out"))
    assert said["result"]["verdicts"] == {"identical": len(outputs)}
    assert not [one for one in said["findings"] if one["severity"] == "alarm"]
    assert code == 0
    assert said["proven"]
    document = json.loads((tmp_path / "out" / "report.json").read_text())
    assert len(document["windows"]) == len(outputs)
    assert {(one["domain"], one["window_start_ms"], one["revision"]) for one in document["windows"]} == set(outputs)
    assert {one["verdict"] for one in document["windows"]} == {"identical"}

    middle_ms = start_ms + WINDOWS // 2 * WINDOW_MS
    code, said = replayed(side, *there, "--domain", "hall-b", begin_ms=middle_ms)
    wanted = [key for key in outputs if key[0] == "hall-b" and key[1] >= middle_ms]
    assert (code, said["result"]["verdicts"]) == (0, {"identical": len(wanted)})
    # No group was made, and nothing committed.
    assert not [group for group in groups(side) if "reader" in group]

    side.producer.produce(side.topics.output, value=b"noise", key=f"hall-a/{start_ms}".encode(), partition=0)
    side.producer.flush(20)
    code, said = replayed(side, *there, "--domain", "hall-a")
    assert code == 1
    assert said["result"]["verdicts"] == {"extra": 1, "identical": sum(key[0] == "hall-a" for key in outputs)}
    assert [one["code"] for one in said["findings"] if one["severity"] == "alarm"] == ["OUTPUT_INVALID"]


def groups(side: Side) -> list[str]:
    """Consumer groups that the broker knows."""
    from confluent_kafka.admin import AdminClient

    found = AdminClient(side.kafka).list_consumer_groups().result(20)
    return [one.group_id for one in found.valid]
