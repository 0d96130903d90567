"""A live run on a real broker, with all that goes wrong in one, replayed by the command: topics, ranges, archive."""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from enclavescale.fleet import sign_policy
from stream_jobs.replay.document import NAME
from tests.broker import KafkaBroker
from tests.pipeline.kafka_side import Side, WorkerProcess, header, outputs_of, wait_until
from tests.pipeline.world import WINDOW_MS, Item, World
from tests.results import write_result

DOMAINS = {"hall-a": 0, "hall-b": 1}


@dataclasses.dataclass
class Live:
    """A run that has ended."""

    side: Side
    start_ms: int
    outputs: dict[tuple[str, int, int], bytes]
    refused: Counter[str]
    restarts: int


def strangers(world: World, rng: random.Random, items: Sequence[Item]) -> list[Item]:
    """What does not come from the fleet: noise, records under other names, records of other times."""
    found = [Item(rng.randrange(2), b"hall-a", rng.randbytes(50)), Item(0, b"hall-a", b"")]
    one = rng.choice(items)
    found.append(Item(one.partition, b"elsewhere", one.value))
    found.append(Item(1 - one.partition, one.key, one.value))
    touched = bytearray(rng.choice(items).value)
    touched[len(touched) // 2] ^= 1
    found.append(Item(one.partition, one.key, bytes(touched)))
    agent = rng.choice(list(world.agents.values()))
    ahead = agent.produce(int(time.time() * 1000) // WINDOW_MS * WINDOW_MS + 6 * WINDOW_MS).sealed.value
    found.append(Item(DOMAINS[agent.profile.domain], agent.profile.domain.encode(), ahead))
    return found


def run_live(kafka: KafkaBroker, directory: Path, windows: int, hosts: int, seed: int, kills: int) -> Live:
    """`windows` windows of `hosts` hosts per domain; the worker is killed, the policy changes in the middle."""
    rng = random.Random(seed)
    world = World(directory, DOMAINS, hosts, seed)
    side = Side(kafka.bootstrap, world, 2)
    worker = WorkerProcess(side, f"{side.prefix}-w", directory / "worker.log")
    wait_until(lambda: sum(side.ends(side.topics.reports)) >= 2, "the first control records")
    start_ms = int(time.time() * 1000) // WINDOW_MS * WINDOW_MS - (windows + 2) * WINDOW_MS
    killed = {windows // 2 + 2 + number * windows // 8 for number in range(kills)}
    for window in range(windows):
        items = world.window(start_ms + window * WINDOW_MS)
        side.append(items)
        if window % 5 == 2:
            side.append(strangers(world, rng, items))
        if window == windows // 2:
            before = sum(side.ends(side.topics.reports))
            policy = dataclasses.replace(world.policy, counter=2, effective_from_ms=0)
            value = sign_policy(policy, world.key)
            side.producer.produce(side.topics.policy, value=value, key=b"policy/2", partition=0)
            assert side.producer.flush(20) == 0
            wait_until(lambda mark=before: sum(side.ends(side.topics.reports)) >= mark + 2, "the switch")
        if window in killed:
            wait_until(lambda mark=window: sum(side.ends(side.topics.output)) >= mark, "outputs")
            worker.kill()
            worker = WorkerProcess(side, f"{side.prefix}-w", directory / "again.log", index=rng.randrange(8))
    newest = {(domain, start_ms + (windows - 3) * WINDOW_MS) for domain in DOMAINS}
    wait_until(lambda: newest <= {key[:2] for key in outputs_of(side.read(side.topics.output))}, "outputs", 300)
    time.sleep(2.5)  # two ticks: what was refused last is acknowledged by then
    assert worker.stop() == 0
    refused = Counter(header(message, "enclavescale.error.code") for message in side.read(side.topics.rejections))
    return Live(side, start_ms, outputs_of(side.read(side.topics.output)), refused, kills)


def replayed(live: Live, *arguments: str, signer: str | None = None) -> tuple[int, dict[str, Any]]:
    """Exit code and summary of `enclavescale replay`."""
    command = [sys.executable, "-m", "enclavescale", "replay", "--json", "--jobs", "1"]
    command += ["--policy-signer", signer or live.side.world.signer, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def groups(live: Live) -> list[str]:
    """Consumer groups that the broker knows."""
    found = AdminClient(live.side.kafka).list_consumer_groups().result(20)
    return [one.group_id for one in found.valid]


def check_everything(live: Live, directory: Path) -> None:
    """The whole from the topics, by two processes, is identical."""
    there = ["--bootstrap", live.side.bootstrap, "--topic-prefix", live.side.prefix]
    whole = ["--from", str(live.start_ms - WINDOW_MS)]
    code, said = replayed(live, *there, *whole, "--jobs", "2", "--out", str(directory / "out"))
    assert said["result"]["verdicts"] == {"identical": len(live.outputs)}
    assert [one for one in said["findings"] if one["severity"] == "alarm"] == []
    assert (code, said["proven"]) == (0, True)
    document = json.loads((directory / "out" / NAME).read_text())
    judged = [(one["domain"], one["window_start_ms"], one["revision"]) for one in document["windows"]]
    assert sorted(judged) == sorted(live.outputs)
    assert not [group for group in groups(live) if "reader" in group], "a group was made"


def check_archive(live: Live, directory: Path) -> None:
    """An archive of all topics says what the topics do."""
    there = ["--bootstrap", live.side.bootstrap, "--topic-prefix", live.side.prefix]
    command = [sys.executable, "-m", "enclavescale", "export", str(directory / "archive"), "--everything", *there]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    code, archived = replayed(live, "--archive", str(directory / "archive"), "--from", str(live.start_ms - WINDOW_MS))
    assert (code, archived["result"]["verdicts"]) == (0, {"identical": len(live.outputs)})


@pytest.mark.broker
def test_a_live_run_is_identical(kafka: KafkaBroker, tmp_path: Path) -> None:
    live = run_live(kafka, tmp_path, 12, 3, 21, kills=1)
    check_everything(live, tmp_path)
    there = ["--bootstrap", live.side.bootstrap, "--topic-prefix", live.side.prefix]
    middle_ms = live.start_ms + 6 * WINDOW_MS
    live.side.producer.produce(live.side.topics.output, value=b"noise", key=f"hall-b/{middle_ms}".encode(), partition=1)
    assert live.side.producer.flush(20) == 0
    code, said = replayed(live, *there, "--domain", "hall-b", "--from", str(middle_ms))
    wanted = [key for key in live.outputs if key[0] == "hall-b" and key[1] >= middle_ms]
    assert code == 1
    assert said["result"]["verdicts"] == {"extra": 1, "identical": len(wanted)}
    assert [one["code"] for one in said["findings"] if one["severity"] == "alarm"] == ["OUTPUT_INVALID"]


@pytest.mark.broker
@pytest.mark.accept
@pytest.mark.timeout(3600)
def test_two_hundred_windows_of_a_fleet(kafka: KafkaBroker, tmp_path: Path) -> None:
    windows, hosts = 220, 32
    live = run_live(kafka, tmp_path, windows, hosts, 22, kills=3)
    check_everything(live, tmp_path)
    check_archive(live, tmp_path)
    assert any(revision for _, _, revision in live.outputs), "no late revision"
    assert len(live.refused) >= 7, live.refused
    there = ["--bootstrap", live.side.bootstrap, "--topic-prefix", live.side.prefix]
    rng, seconds = random.Random(23), 0.0
    for _ in range(12):
        first = rng.randrange(windows - 1)
        span = [live.start_ms + first * WINDOW_MS, live.start_ms + rng.randint(first + 1, windows) * WINDOW_MS]
        code, said = replayed(live, *there, "--from", str(span[0]), "--to", str(span[1]))
        wanted = sum(span[0] <= start_ms < span[1] for _, start_ms, _ in live.outputs)
        assert said["result"]["verdicts"] == ({"identical": wanted} if wanted else {})
        assert code == (0 if wanted else 1)
        seconds += said["seconds"]
    facts = {
        "windows_per_domain": windows,
        "domains": len(DOMAINS),
        "hosts": hosts * len(DOMAINS),
        "outputs": len(live.outputs),
        "refused": dict(sorted(live.refused.items())),
        "worker_kills": live.restarts,
        "ranges": 12,
        "seconds_for_ranges": round(seconds, 1),
        "differences": 0,
    }
    write_result("replay-live", facts, seeds={"world": 22, "ranges": 23})
