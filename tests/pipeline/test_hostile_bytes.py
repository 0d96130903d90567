"""Anything may be on the topic: each record to the rejections topic with a code, once, and the partition advances."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Producer

from schemas.codec import SINGLE_OBJECT_MARKER
from schemas.pins import pin
from schemas.topics import MAX_MESSAGE_BYTES
from stream_jobs.output import MAX_KEY_BYTES
from tests.broker import KafkaBroker
from tests.pipeline.kafka_side import Side, WorkerProcess, header, outputs_of, reference, wait_until
from tests.pipeline.world import WINDOW_MS, Item, World

SEED = 7
FLOOD = 20_000
MAX_GROWTH_KIB = 48 * 1024
"""Growth of resident memory over the flood: librdkafka's and aiokafka's buffers, not one per record."""


def varint(number: int) -> bytes:
    """Avro's zig-zag varint."""
    value = (number << 1) ^ (number >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def hostile_values(good: bytes, rng: random.Random) -> dict[str, tuple[bytes, str]]:
    """Values by name, with the code expected."""
    frame = SINGLE_OBJECT_MARKER + pin("SignedRecord").fingerprint
    absurd = varint(2**40)
    biggest = MAX_MESSAGE_BYTES - 1024
    changed = bytearray(good)
    changed[-100 if len(good) < 4000 else len(good) // 2] ^= 1
    return {
        "empty": (b"", "MALFORMED"),
        "random": (rng.randbytes(500), "MALFORMED"),
        "truncated": (good[: len(good) // 2], "MALFORMED"),
        "largest": (rng.randbytes(biggest), "MALFORMED"),
        "largest behind our frame": (frame + b"\x00" * biggest, "TRAILING_BYTES"),
        "registry id of nobody": (b"\x00" + (99).to_bytes(4, "big") + good[10:], "SCHEMA_UNKNOWN"),
        "fingerprint of nobody": (SINGLE_OBJECT_MARKER + b"\x01" * 8 + good[10:], "SCHEMA_UNKNOWN"),
        "another schema": (SINGLE_OBJECT_MARKER + pin("SignedPolicy").fingerprint + good[10:], "SCHEMA_UNKNOWN"),
        "string of 2^40 bytes": (frame + b"\x00" + absurd + b"h", "MALFORMED"),
        "union branch 2^40": (frame + absurd, "MALFORMED"),
        "trailing byte": (good + b"\x00", "TRAILING_BYTES"),
    }


@pytest.mark.broker
def test_hostile_bytes_go_to_the_dead_letters_once(kafka: KafkaBroker, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    world = World(tmp_path, {"hall-a": 0}, 3, SEED)
    side = Side(kafka.bootstrap, world, 1)
    worker = WorkerProcess(side, f"{side.prefix}-w", tmp_path / "worker.log")
    wait_until(lambda: sum(side.ends(side.topics.reports)) >= 1, "the first control record")
    start_ms = int(time.time() * 1000) // WINDOW_MS * WINDOW_MS - 20 * WINDOW_MS
    first = world.clean(start_ms)
    side.append(first)
    cases = hostile_values(first[0].value, rng)
    base = side.ends(side.topics.reports)[0]
    side.append(Item(0, b"hall-a", value) for value, _ in cases.values())
    wait_until(lambda: side.ends(side.topics.rejections)[0] >= len(cases), "the rejections")
    before = worker.rss_kib()

    # A flood: half of it noise, half of it genuine records with one byte changed.
    sample = world.clean(start_ms + WINDOW_MS)
    flood = []
    for index in range(FLOOD):
        value = bytearray(sample[index % len(sample)].value if index % 2 else rng.randbytes(300))
        value[rng.randrange(len(value))] ^= 1 + rng.randrange(255)
        flood.append(Item(0, rng.choice((b"hall-a", b"elsewhere", b"\xff\xfe", b"")), bytes(value)))
    side.append(flood)
    for window in range(2, 6):
        side.append(world.clean(start_ms + window * WINDOW_MS))
    expected, refused = reference(side)
    assert len(expected) >= 4
    wait_until(lambda: len(outputs_of(side.read(side.topics.output))) >= len(expected), "outputs behind the flood", 120)
    time.sleep(2.5)  # two ticks: rejections behind the last output are acknowledged by then
    grown = worker.rss_kib() - before
    assert worker.alive()
    assert worker.stop() == 0

    assert outputs_of(side.read(side.topics.output)) == expected
    letters = {int(header(m, "__connect.errors.offset")): m for m in side.read(side.topics.rejections)}
    assert len(letters) == side.ends(side.topics.rejections)[0], "an offset was rejected twice"
    codes = {(0, offset): header(message, "enclavescale.error.code") for offset, message in letters.items()}
    assert codes == refused
    for index, (name, (value, code)) in enumerate(cases.items()):
        assert codes[0, base + index] == code, name
        assert (letters[base + index].value() or b"") == value, name
    text = (tmp_path / "worker.log").read_text()
    assert text.count("0 outputs up to offset -1 are published already") == 1, "the partition's job was made anew"
    assert "Traceback" not in text
    assert grown < MAX_GROWTH_KIB


@pytest.mark.broker
def test_hostile_compressed_records_stop_nobody(kafka: KafkaBroker, tmp_path: Path) -> None:
    """A few KiB that unpack to far more: the broker refuses what exceeds the topic's limit once unpacked. The rest is
    a dead letter, though its key alone is larger than most records."""
    world = World(tmp_path, {"hall-a": 0}, 3, SEED)
    side = Side(kafka.bootstrap, world, 1)
    worker = WorkerProcess(side, f"{side.prefix}-w", tmp_path / "worker.log")
    wait_until(lambda: sum(side.ends(side.topics.reports)) >= 1, "the first control record")
    producer = Producer({**side.kafka, "compression.type": "zstd", "message.max.bytes": "1000000000"})
    refused: list[object] = []
    for key, size in ((5, 50_000_000), (600_000, 500_000), (300_000, 200_000)):
        producer.produce(
            side.topics.reports,
            value=bytes(size),
            key=b"k" * key,
            partition=0,
            on_delivery=lambda error, _: refused.append(error and error.code()),
        )
        assert producer.flush(30) == 0
    assert refused == [KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.MSG_SIZE_TOO_LARGE, None]
    wait_until(lambda: side.ends(side.topics.rejections)[0] >= 1, "the rejection")
    assert worker.alive()
    assert worker.stop() == 0
    (letter,) = side.read(side.topics.rejections)
    assert letter.value() == bytes(200_000)
    assert letter.key() == b"k" * MAX_KEY_BYTES
    assert header(letter, "enclavescale.original.key.size") == "300000"
