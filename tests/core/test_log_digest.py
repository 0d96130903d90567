"""Whoever changes one byte of a record of the log afterwards is seen in an output, and the record is named."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from schemas.codec import decode_signed_manifest, encode_signed_manifest
from schemas.records import WindowManifest
from stream_jobs.core.effects import Emission
from stream_jobs.core.log_digest import MAX_WITNESSES, LogDigest, record_witness
from stream_jobs.log_record import LogRecord
from tests.core.fleet import log_record
from tests.core.replay import Run, new_core, remembered
from tests.core.story import CARRIED, Story, small_policy

SEED = 7


@pytest.fixture(scope="module")
def told() -> Story:
    """Eight windows of three hosts with junk, a tombstone, a stranger, duplicates, evidence repeated and left out."""
    view = small_policy()
    story = Story(view)
    story.control("POLICY_SWITCH", view)
    for window in range(8):
        for number in range(3):
            evidence = CARRIED if window % 3 == 0 else None
            story.report(f"h{number}", window, evidence=evidence)
        story.put("d", b"junk %d" % window)
        story.report("h1", window, evidence=None)
    story.put(None, None)
    story.report("stranger", 7)
    for window in range(8, 11):
        for number in range(3):
            story.report(f"h{number}", window)
    return story


def witnesses(made: Emission) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for one in made.manifests:
        manifest: WindowManifest = decode_signed_manifest(encode_signed_manifest(one, bytes(64), bytes(32)))[0].manifest
        found |= {witness.offset: witness.digest for witness in manifest.witnesses}
    return found


def altered(record: LogRecord, rng: random.Random) -> LogRecord:
    """`record` with one bit of its value, its key or its time changed."""
    where = rng.choice(("value", "value", "value", "key", "time"))
    if where == "value" and record.value:
        value = bytearray(record.value)
        value[rng.randrange(len(value))] ^= 1 << rng.randrange(8)
        return replace(record, value=bytes(value))
    if where == "key" and record.key:
        return replace(record, key=bytes([record.key[0] ^ 1]) + record.key[1:])
    return replace(record, timestamp_ms=record.timestamp_ms + 1)


def test_a_changed_record_changes_an_output(told: Story) -> None:
    run = told.run
    before = [made.output_bytes for _, made in run.emissions]
    last = run.emissions[-1][1].output.source.close_offset
    rng = random.Random(SEED)
    with remembered():
        for index, record in enumerate(run.log):
            if record.offset > last:
                continue
            for _ in range(3):
                log = list(run.log)
                log[index] = altered(record, rng)
                again = Run(new_core(told.policies)).feed_all(log)
                assert [made.output_bytes for _, made in again.emissions] != before, record


def test_what_no_signature_covers_is_witnessed_at_its_offset(told: Story) -> None:
    run = told.run
    found: dict[int, bytes] = {}
    for _, made in run.emissions:
        found |= witnesses(made)
    last = run.emissions[-1][0]
    refused = {one.offset for one in run.rejections if one.offset <= last}
    by_offset = {record.offset: record for record in run.log}
    assert len(refused) > 10
    assert refused <= set(found)
    assert 0 in found, "the policy's control record"
    assert all(found[offset] == record_witness(by_offset[offset]) for offset in found)


def test_every_record_is_counted_once(told: Story) -> None:
    run = told.run
    counted = sum(made.output.source.records for _, made in run.emissions)
    assert counted == 1 + run.emissions[-1][0]


@pytest.mark.parametrize(
    "other",
    [
        replace(log_record(1, 5, "d", b"v"), key=None),
        log_record(1, 5, "", b"dv"),
        log_record(1, 5, "d", None),
        log_record(1, 5, "d", b""),
        replace(log_record(1, 5, "d", b"v"), headers=(("a", b"b"),)),
        replace(log_record(1, 5, "d", b"v"), headers=(("a", None),)),
        replace(log_record(1, 5, "d", b"v"), headers=(("ab", b""),)),
    ],
)
def test_nothing_runs_together(other: LogRecord) -> None:
    assert record_witness(other) != record_witness(log_record(1, 5, "d", b"v"))


def test_place_and_time_count_also_where_the_signature_covers_the_rest() -> None:
    def digest(*records: LogRecord, whole: bool = False) -> bytes:
        found = LogDigest()
        for record in records:
            found.add(record, whole=whole)
        return found.digest()

    one = log_record(1, 5, "d", b"v")
    others = [replace(one, offset=2), replace(one, timestamp_ms=6), replace(one, timestamp_type=0)]
    assert len({digest(one), digest(one, whole=True), digest(), digest(one, one), *map(digest, others)}) == 7


def test_a_flood_is_bounded_and_still_counts() -> None:
    found, more = LogDigest(), LogDigest()
    for offset in range(MAX_WITNESSES + 10):
        found.add(log_record(offset, 0, None, b"junk"), whole=True)
    before = found.digest()
    assert len(found.witnesses) == MAX_WITNESSES
    assert found.records == MAX_WITNESSES + 10
    more.add(log_record(0, 0, None, b"other"), whole=True)
    found.extend(more)
    assert found.digest() != before
    assert len(found.witnesses) == MAX_WITNESSES
