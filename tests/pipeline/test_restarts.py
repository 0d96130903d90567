"""What a starting worker finds on its topics: silence, forgeries, losses."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from schemas.codec import decode_signed_output, encode_output, encode_signed_output
from tests.broker import KafkaBroker
from tests.log.fleet import committed_offsets
from tests.pipeline.kafka_side import Side, WorkerProcess, outputs_of, reference, wait_until
from tests.pipeline.world import WINDOW_MS, World


def start_of(windows: int) -> int:
    """Start of the first of `windows` windows that end in the past."""
    return int(time.time() * 1000) // WINDOW_MS * WINDOW_MS - (windows + 2) * WINDOW_MS


@pytest.mark.broker
def test_a_silent_domain_is_closed_by_a_control_record(kafka: KafkaBroker, tmp_path: Path) -> None:
    world = World(tmp_path, {"hall-a": 0}, 3, 1, max_idle_ms=3_000)
    side = Side(kafka.bootstrap, world, 1)
    worker = WorkerProcess(side, f"{side.prefix}-w", tmp_path / "worker.log")
    wait_until(lambda: sum(side.ends(side.topics.reports)) >= 1, "the first control record")
    start_ms = start_of(4)
    for window in range(4):
        side.append(world.clean(start_ms + window * WINDOW_MS))
    # Watermarks alone close all but the last `grace` windows; the rest needs the timer.
    wait_until(lambda: len(outputs_of(side.read(side.topics.output))) == 4, "the idle close", 30)
    assert worker.stop() == 0
    reasons = [
        decode_signed_output(message.value() or b"")[0].output.source.close_reason
        for message in side.read(side.topics.output)
    ]
    assert reasons == ["watermark"] * 3 + ["idle_close"]
    assert outputs_of(side.read(side.topics.output)) == reference(side)[0]


def forge(side: Side, value: bytes) -> list[bytes]:
    """Outputs that would keep an honest worker quiet if they were believed: far ahead in the log, badly signed."""
    signed, _ = decode_signed_output(value)
    source = dataclasses.replace(signed.output.source, close_offset=10**9)
    ahead = dataclasses.replace(signed.output, source=source, revision=7)
    output_bytes = encode_output(ahead)
    return [
        encode_signed_output(output_bytes, signed.signature, signed.worker),
        encode_signed_output(output_bytes, bytes(63) + b"\x01", signed.worker),
        b"noise",
        b"",
    ]


@pytest.mark.broker
def test_forged_outputs_silence_nobody(kafka: KafkaBroker, tmp_path: Path) -> None:
    world = World(tmp_path, {"hall-a": 0}, 3, 2)
    side = Side(kafka.bootstrap, world, 1)
    group = f"{side.prefix}-w"
    worker = WorkerProcess(side, group, tmp_path / "worker.log")
    wait_until(lambda: sum(side.ends(side.topics.reports)) >= 1, "the first control record")
    start_ms = start_of(30)
    for window in range(10):
        side.append(world.clean(start_ms + window * WINDOW_MS))
    wait_until(lambda: side.ends(side.topics.output)[0] >= 8, "outputs")
    worker.kill()
    producer = Producer(side.kafka)
    for value in forge(side, side.read(side.topics.output)[-1].value() or b""):
        producer.produce(side.topics.output, value=value, key=b"hall-a/0", partition=0)
    assert producer.flush(20) == 0
    worker = WorkerProcess(side, group, tmp_path / "worker.log")
    for window in range(10, 20):
        side.append(world.clean(start_ms + window * WINDOW_MS))
    expected, _ = reference(side)

    def genuine() -> dict[tuple[str, int, int], bytes]:
        return outputs_of(m for m in side.read(side.topics.output) if len(m.value() or b"") > 100 and not_forged(m))

    def not_forged(message: object) -> bool:
        return decode_signed_output(message.value())[0].output.source.close_offset < 10**9  # type: ignore[attr-defined]

    wait_until(lambda: set(genuine()) >= set(expected), "outputs behind the forged ones")
    assert worker.stop() == 0
    assert genuine() == expected


@pytest.mark.broker
def test_a_lost_output_topic_stops_the_worker(kafka: KafkaBroker, tmp_path: Path) -> None:
    world = World(tmp_path, {"hall-a": 0}, 3, 3)
    side = Side(kafka.bootstrap, world, 1)
    group = f"{side.prefix}-w"
    worker = WorkerProcess(side, group, tmp_path / "worker.log")
    wait_until(lambda: sum(side.ends(side.topics.reports)) >= 1, "the first control record")
    start_ms = start_of(120)
    for window in range(60):
        side.append(world.clean(start_ms + window * WINDOW_MS))
        if window % 20 == 19:  # time for the control records from which restarts begin
            wait_until(lambda mark=world.sent + window // 20 + 2: sum(side.ends(side.topics.reports)) >= mark, "ticks")
    wait_until(lambda: max(offset for offset, _ in committed_offsets(side.bootstrap, group).values()) > 0, "a commit")
    worker.kill()
    admin = AdminClient(side.kafka)
    admin.delete_topics([side.topics.output])[side.topics.output].result(30)
    wait_until(lambda: side.topics.output not in admin.list_topics(timeout=10).topics, "the topic's end")
    side.recreate(side.topics.output)
    worker = WorkerProcess(side, group, tmp_path / "again.log")
    assert worker.process.wait(40) == 1
    worker.stop()
    assert "OUTPUT_LOST" in (tmp_path / "again.log").read_text()
