"""Anyone can read the outputs: a stock consumer, fastavro and the shipped `.avsc`, without our code."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import schemas
from tests.broker import KafkaBroker
from tests.pipeline.kafka_side import Side, WorkerProcess, outputs_of, wait_until
from tests.pipeline.world import WINDOW_MS, World

READER = """
import io, json, sys
import fastavro
from confluent_kafka import Consumer, TopicPartition

bootstrap, topic, schema_path, count = sys.argv[1:5]
schema = fastavro.schema.load_schema(schema_path)
consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "stock", "auto.offset.reset": "earliest"})
consumer.subscribe([topic])
for _ in range(int(count)):
    message = None
    while message is None:
        message = consumer.poll(1.0)
    value = io.BytesIO(message.value()[10:])
    record = fastavro.schemaless_reader(value, schema)
    assert not value.read(), "bytes left over"
    output = record["output"]
    print(json.dumps([output["domain"], output["window_start_ms"], output["revision"], output["mean"]["value_w"],
                      output["margin"]["limit_w"], len(record["signature"])]))
consumer.close()
ours = {"schemas", "stream_jobs", "verifier", "producers", "power_model", "attester", "enclavescale"}
assert not ours & set(sys.modules)
"""


@pytest.mark.broker
def test_a_stock_consumer_reads_every_output(kafka: KafkaBroker, tmp_path: Path) -> None:
    world = World(tmp_path, {"hall-a": 0, "hall-b": 1}, 3, 3)
    side = Side(kafka.bootstrap, world, 2)
    worker = WorkerProcess(side, f"{side.prefix}-w", tmp_path / "worker.log")
    wait_until(lambda: sum(side.ends(side.topics.reports)) >= 2, "the first control records")
    start_ms = int(time.time() * 1000) // WINDOW_MS * WINDOW_MS - 20 * WINDOW_MS
    for window in range(8):
        side.append(world.clean(start_ms + window * WINDOW_MS))
    wait_until(lambda: sum(side.ends(side.topics.output)) >= 2 * 6, "outputs")
    assert worker.stop() == 0
    ours = outputs_of(side.read(side.topics.output))
    script = tmp_path / "stock.py"
    script.write_text(READER)
    schema = Path(schemas.__file__).parent / "avsc" / "SignedFleetPower.v1.avsc"
    done = subprocess.run(
        [sys.executable, "-I", str(script), side.bootstrap, side.topics.output, str(schema), str(len(ours))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    read = [json.loads(line) for line in done.stdout.splitlines()]
    assert {(domain, start, revision) for domain, start, revision, *_ in read} == set(ours)
    assert all(mean > 0 and limit > 0 and size == 64 for *_, mean, limit, size in read)
