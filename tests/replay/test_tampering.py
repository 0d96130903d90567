"""One byte of one record of any topic is changed in a copy: a replay says so, and where."""

from __future__ import annotations

import hashlib
import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from schemas.codec import beacon_preimage, encode_beacon, encode_collateral, encode_signed_beacon
from schemas.collateral import VALUE_DIGEST, collateral_key
from schemas.records import Beacon, CollateralItem
from stream_jobs.log_record import LogRecord
from tests.core.fleet import AGGREGATORS, PARTITION, session_of
from tests.core.replay import remembered
from tests.replay.logs import quiet, scenario, start_ms
from tests.replay.topics import NAMES, MemorySource, Published, Said
from tests.results import write_result

COUNT = {"test": 36, "soak": 300, "accept": 1_200}[os.environ.get("ENCLAVESCALE_TIER", "test")]


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    with remembered():
        yield


def furnished(made: Published) -> MemorySource:
    """The published topics, with something on the topics of beacons and collateral."""
    source = made.source.copy()
    worker = session_of(AGGREGATORS[0], None)
    for number in range(3):
        beacon = Beacon(nonce=hashlib.sha256(bytes([number])).digest(), issued_at_ms=1, session_id=worker.session_id)
        data = encode_beacon(beacon)
        value = encode_signed_beacon(data, worker.sign(beacon_preimage(data)))
        source.append(NAMES.beacons, value, f"beacon/{beacon.nonce.hex()}".encode())
        item = CollateralItem(
            kind="tcb_info",
            id=f"{number:02x}",
            data=b"data" * 20,
            issuer_chain_absent_reason="none",
            not_before_ms=start_ms(0),
            next_update_ms=start_ms(900),
            fetched_at_ms=start_ms(0),
        )
        value = encode_collateral(item)
        headers = ((VALUE_DIGEST, hashlib.sha256(value).hexdigest().encode()),)
        source.append(NAMES.collateral, value, collateral_key(item), headers=headers)
    return source


def flipped(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def parts(record: LogRecord) -> list[str]:
    """What of a record can be changed: the value as often as all else together, because it has most to it."""
    others = ["key"] * bool(record.key) + ["headers"] * bool(record.headers)
    return ["value"] * max(1, len(others)) * bool(record.value) + others


def tampered(rng: random.Random, record: LogRecord, part: str) -> LogRecord:
    """`record` with one bit of its value, key or headers changed."""
    if part == "value":
        return replace(record, value=flipped(rng, record.value or b""))
    if part == "key":
        return replace(record, key=flipped(rng, record.key or b""))
    headers = list(record.headers)
    number = rng.choice([number for number, (_, value) in enumerate(headers) if value])
    name, value = headers[number]
    headers[number] = name, flipped(rng, value or b"")
    return replace(record, headers=tuple(headers))


def told(said: Said) -> Counter[tuple[str, ...]]:
    """Everything a replay said that is not in order."""
    found: Counter[tuple[str, ...]] = Counter((one.code, one.topic, str(one.offset)) for one in said.findings)
    found.update((one.verdict, str(one.window_start_ms), str(one.offset)) for one in said.verdicts
                 if one.verdict != "identical")  # fmt: skip
    return found


def check(made: Published, count: int, seed: int) -> tuple[Counter[str], int]:
    """Tamper `count` times, topics and parts in turns; returns how often each, and how often the place was named."""
    source, rng = furnished(made), random.Random(seed)
    before = told(made.replay(source))
    classes = [
        (topic, part) for topic, records in sorted(source.topics.items()) if records for part in parts(records[0])
    ]
    done: Counter[str] = Counter()
    placed = 0
    for number in range(count):
        topic, part = classes[number % len(classes)]
        record = rng.choice([one for one in source.topics[topic] if part in parts(one)])
        changed = tampered(rng, record, part)
        copy = source.copy()
        copy.put(changed)
        more = told(made.replay(copy)) - before
        assert more, f"seed {seed}, number {number}: {part} of {topic} at {record.offset} was changed, nothing is said"
        done[f"{topic[0]} {part}"] += 1
        placed += any(record.topic in one and str(record.offset) in one for one in more) or (
            record.topic == NAMES.output and any(one[2] == str(record.offset) for one in more)
        )
    return done, placed


@pytest.mark.every_tier
@pytest.mark.timeout(3600)
def test_every_tampering_is_seen_and_its_place_is_named() -> None:
    done, placed = check(quiet(4), COUNT, 1)
    assert len(done) == 17
    assert placed == COUNT
    facts = {"tamperings": COUNT, "unseen": 0, "place_named": placed, "by": dict(sorted(done.items()))}
    write_result("replay-tampering", facts, seeds={"seed": 1})


def test_tampering_with_random_logs_is_seen() -> None:
    for seed in (3, 4):
        check(scenario(seed, 20), COUNT // 9, seed)


@pytest.mark.every_tier
@pytest.mark.timeout(3600)
def test_every_byte_of_the_smallest_records() -> None:
    made = quiet(4)
    source = furnished(made)
    for topic in (NAMES.beacons, NAMES.manifests, NAMES.collateral):
        record = source.topics[topic, PARTITION][1]
        value = record.value or b""
        every = 1 if COUNT > 36 else len(value) // 10
        for at in range(0, len(value), every):
            changed = bytearray(value)
            changed[at] ^= 0x20
            copy = source.copy()
            copy.put(replace(record, value=bytes(changed)))
            assert told(made.replay(copy)), f"byte {at} of {topic}"
