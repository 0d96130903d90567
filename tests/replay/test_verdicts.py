"""Each verdict and each finding, from a log where one thing is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas.codec import (
    beacon_preimage,
    decode_signed_manifest,
    decode_signed_output,
    encode_beacon,
    encode_collateral,
    encode_manifest,
    encode_output,
    encode_signed_beacon,
    encode_signed_manifest,
    encode_signed_output,
    manifest_preimage,
    output_preimage,
)
from schemas.collateral import collateral_key
from schemas.records import Beacon, CollateralItem, FleetPower, WindowManifest
from stream_jobs.log_record import LogRecord
from tests.core.fleet import AGGREGATORS, PARTITION, session_of, spoilt
from tests.replay.logs import quiet, start_ms
from tests.replay.topics import NAMES, MemorySource, Published, Said

WORKER = session_of(AGGREGATORS[0], None)


def output_at(source: MemorySource, number: int) -> tuple[LogRecord, FleetPower]:
    record = source.topics[NAMES.output, PARTITION][number]
    return record, decode_signed_output(record.value or b"")[0].output


def signed(output: FleetPower) -> bytes:
    """An output signed by the worker that published the others."""
    data = encode_output(output)
    from schemas.records import WorkerIdentity

    worker = WorkerIdentity(host_id=AGGREGATORS[0], session_id=WORKER.session_id, evidence=WORKER.evidence)
    return encode_signed_output(data, WORKER.sign(output_preimage(data)), worker)


def signed_manifest(manifest: WindowManifest) -> bytes:
    data = encode_manifest(manifest)
    return encode_signed_manifest(data, WORKER.sign(manifest_preimage(data)), WORKER.session_id)


def again(made: Published) -> MemorySource:
    return made.source.copy()


def kinds(said: Said) -> list[str]:
    return [one.verdict.value for one in said.verdicts]


def test_an_output_with_another_figure_differs_in_that_field_and_the_next_ones_are_identical() -> None:
    made = quiet()
    source = again(made)
    record, output = output_at(source, 5)
    assert output.mean is not None
    false = replace(output, mean=replace(output.mean, value_w=output.mean.value_w + 1))
    source.put(replace(record, value=signed(false), headers=()))
    said = made.replay(source)
    assert kinds(said).count("differs") == 2  # the next one names the digest of what its worker published
    wrong = next(one for one in said.verdicts if one.offset == record.offset)
    (field,) = wrong.differences
    assert (field.field, field.published, field.computed) == (
        "mean.value_w",
        str(output.mean.value_w + 1),
        str(output.mean.value_w),
    )
    after = [one for one in said.verdicts if (one.offset or 0) > record.offset]
    assert [one.field for one in after[0].differences] == ["prev_output_digest"]
    assert {one.verdict.value for one in after[1:]} == {"identical"}
    assert not said.result.proven


def test_an_output_that_is_gone_is_missing() -> None:
    made = quiet()
    source = again(made)
    record, output = output_at(source, 3)
    source.topics[NAMES.output, PARTITION].remove(record)
    said = made.replay(source)
    assert kinds(said).count("missing") == 1
    wrong = next(one for one in said.verdicts if one.verdict.value == "missing")
    assert (wrong.domain, wrong.window_start_ms, wrong.offset) == ("d", output.window_start_ms, None)
    assert kinds(said).count("identical") == made.outputs - 1


def test_what_is_due_at_the_end_and_not_published_yet_is_pending() -> None:
    made = quiet()
    source = again(made)
    del source.topics[NAMES.output, PARTITION][-2:]
    said = made.replay(source)
    assert kinds(said) == ["identical"] * (made.outputs - 2) + ["pending"] * 2
    assert not said.result.proven


def test_an_output_nobody_computed_is_extra() -> None:
    made = quiet()
    source = again(made)
    record, output = output_at(source, 3)
    source.append(NAMES.output, signed(replace(output, revision=7)), record.key)
    said = made.replay(source)
    assert kinds(said) == ["identical"] * made.outputs + ["extra"]
    assert "OUTPUT_EXTRA" in said.codes
    assert said.alarms[-1].offset == source.topics[NAMES.output, PARTITION][-1].offset


@pytest.mark.parametrize("value", [None, b"", b"noise", b"\xc3\x01" + bytes(40)])
def test_noise_on_the_output_topic_is_extra_and_hides_nothing(value: bytes | None) -> None:
    made = quiet()
    source = again(made)
    noise = source.append(NAMES.output, value, f"d/{start_ms(2)}".encode())
    said = made.replay(source)
    assert sorted(kinds(said)) == ["extra"] + ["identical"] * made.outputs
    assert [(one.code, one.offset) for one in said.alarms] == [("OUTPUT_INVALID", noise.offset)]


@pytest.mark.parametrize("late", [False, True])
def test_two_outputs_for_one_window_are_an_equivocation(late: bool) -> None:
    made = quiet()
    source = again(made)
    record, output = output_at(source, 4)
    value = signed(replace(output, accepted=output.accepted + 1))
    if late:
        other = source.append(NAMES.output, value, record.key)
    else:
        records = source.topics[NAMES.output, PARTITION]
        records[5:] = [replace(one, offset=one.offset + 1) for one in records[5:]]
        other = replace(record, offset=record.offset + 1, value=value)
        source.put(other)
    said = made.replay(source)
    assert kinds(said).count("identical") == made.outputs
    assert ("OUTPUT_EQUIVOCATION", other.offset) in [(one.code, one.offset) for one in said.alarms]


def test_copies_of_outputs_and_manifests_are_no_alarm() -> None:
    """Two workers at a rebalance publish the same bits."""
    made = quiet()
    source = again(made)
    for topic in (NAMES.output, NAMES.manifests, NAMES.rejections):
        for record in list(source.topics[topic, PARTITION])[-3:]:
            source.append(topic, record.value, record.key, headers=record.headers)
    said = made.replay(source)
    assert said.result.proven
    assert said.findings == []


def test_a_manifest_that_differs_is_named_field_by_field() -> None:
    made = quiet()
    source = again(made)
    record = source.topics[NAMES.manifests, PARTITION][2]
    manifest = decode_signed_manifest(record.value or b"")[0].manifest
    source.put(replace(record, value=signed_manifest(replace(manifest, accepted_count=manifest.accepted_count + 1))))
    said = made.replay(source)
    wrong = [one for one in said.verdicts if one.verdict.value == "differs"]
    assert [one.field for one in wrong[0].differences] == ["manifests[0].accepted_count"]
    assert len(wrong) == 1
    assert [(one.code, one.offset) for one in said.alarms] == [("MANIFEST_DIFFERS", record.offset)]


def test_a_manifest_that_is_gone_makes_its_window_differ() -> None:
    made = quiet()
    source = again(made)
    del source.topics[NAMES.manifests, PARTITION][2]
    said = made.replay(source)
    wrong = [one for one in said.verdicts if one.verdict.value == "differs"]
    assert [one.field for one in wrong[0].differences] == ["manifests[0]"]


def test_a_manifest_of_a_worker_that_ended_before_its_output_is_a_notice() -> None:
    made = quiet()
    source = again(made)
    record = source.topics[NAMES.manifests, PARTITION][-1]
    manifest = decode_signed_manifest(record.value or b"")[0].manifest
    other, data = session_of(AGGREGATORS[0], None, 77), encode_manifest(manifest)
    value = encode_signed_manifest(data, other.sign(manifest_preimage(data)), other.session_id)
    source.append(NAMES.manifests, value, record.key)
    said = made.replay(source)
    assert said.result.proven
    assert [(one.code, one.severity.value) for one in said.findings] == [("MANIFEST_UNPROVEN", "notice")]


def test_dead_letters_that_are_gone_or_of_nothing() -> None:
    made = quiet()
    source = again(made)
    letters = source.topics[NAMES.rejections, PARTITION]
    del letters[1]
    headers = tuple((name, b"0" if name.endswith("offset") else value) for name, value in letters[0].headers)
    extra = source.append(NAMES.rejections, letters[0].value, letters[0].key, headers=headers)
    strange = source.append(NAMES.rejections, b"?", b"d")
    said = made.replay(source)
    assert {(one.code, one.offset) for one in said.findings if one.topic == NAMES.rejections} == {
        ("DEAD_LETTER_EXTRA", extra.offset),
        ("DEAD_LETTER_EXTRA", strange.offset),
    }
    assert [one.code for one in said.findings if one.topic == NAMES.reports] == ["DEAD_LETTER_MISSING"]
    assert set(kinds(said)) == {"identical"}
    assert not said.result.proven


def test_evidence_that_the_core_ignores_is_noticed() -> None:
    """Its session stands on its first copy; the touched one changes nothing, but somebody touched it."""
    made = quiet()
    source = again(made)
    from schemas.codec import decode_signed_record, encode_signed_record

    for record in source.topics[NAMES.reports, PARTITION][10:]:
        decoded = decode_signed_record(record.value or b"") if record.value != b"junk" else None
        if decoded is not None and decoded.evidence is not None and decoded.body.host_id == "h1":
            break
    body = (record.value or b"")[10 : len(record.value or b"") - len(decoded.evidence_bytes or b"") - 65]
    source.put(replace(record, value=encode_signed_record(body, decoded.signature, spoilt(decoded.evidence))))
    said = made.replay(source)
    assert {"EVIDENCE_IGNORED", "EVIDENCE_VARIES"} <= said.codes
    assert {one.offset for one in said.findings if one.code.startswith("EVIDENCE")} == {record.offset}


def test_beacons_are_checked_by_the_sessions_that_were_met() -> None:
    made = quiet()
    source = again(made)
    beacon = Beacon(nonce=bytes(range(32)), issued_at_ms=start_ms(1), session_id=WORKER.session_id)

    def put(of: Beacon, key: Beacon, signature: bytes | None = None) -> None:
        data = encode_beacon(of)
        value = encode_signed_beacon(data, signature or WORKER.sign(beacon_preimage(data)))
        source.append(NAMES.beacons, value, f"beacon/{key.nonce.hex()}".encode())

    other = replace(beacon, nonce=bytes(32))
    put(beacon, beacon)
    put(other, beacon)
    put(beacon, beacon, bytes(64))
    put(replace(beacon, session_id=bytes(32)), beacon)
    source.append(NAMES.beacons, b"noise", b"beacon/")
    said = made.replay(source)
    assert [(one.code, one.offset) for one in said.findings] == [
        ("ENVELOPE_DIFFERS", 1),
        ("BEACON_REFUSED", 2),
        ("BEACON_UNPROVEN", 3),
        ("BEACON_REFUSED", 4),
    ]
    assert said.result.beacons == 5


def test_collateral_is_what_its_key_says_and_is_said_to_have_ended() -> None:
    made = quiet()
    source = again(made)
    item = CollateralItem(kind="tcb_info", id="00", data=b"data", next_update_ms=start_ms(0), fetched_at_ms=0)
    source.append(NAMES.collateral, encode_collateral(item), collateral_key(item))
    source.append(NAMES.collateral, encode_collateral(replace(item, data=b"date")), collateral_key(item))
    source.append(NAMES.collateral, b"noise", b"tcb_info/00/00")
    said = made.replay(source)
    assert [(one.code, one.offset) for one in said.findings] == [("COLLATERAL_REFUSED", 1), ("COLLATERAL_REFUSED", 2)]
    later = made.replay(source, as_of_ms=start_ms(5))
    assert "COLLATERAL_ENDED" in later.codes


def test_what_has_expired_since_is_said_as_of_now_only() -> None:
    made = quiet()
    assert made.replay().findings == []
    later = made.replay(as_of_ms=start_ms(0) + 200 * 365 * 86_400_000)
    assert {"EVIDENCE_ENDED", "POLICY_ENDED"} <= later.codes
    assert later.kinds == {"identical"}
    assert later.alarms == []
    assert later.result.proven


def test_a_policy_nobody_trusts_is_named_and_proves_nothing() -> None:
    made = quiet()
    source = again(made)
    (record,) = source.topics[NAMES.policy, PARTITION]
    value = bytearray(record.value or b"")
    value[-100] ^= 1
    source.put(replace(record, value=bytes(value)))
    said = made.replay(source)
    assert ("POLICY_REFUSED", NAMES.policy, 0) in [(one.code, one.topic, one.offset) for one in said.alarms]
    assert set(kinds(said)) <= {"extra", "missing"}
    assert not said.result.proven


def test_producers_times_are_an_alarm_unless_the_policy_allows_them() -> None:
    made = quiet()
    source = again(made)
    records = source.topics[NAMES.reports, PARTITION]
    records[:] = [replace(one, timestamp_type=0) for one in records]
    said = made.replay(source)
    assert [one.code for one in said.alarms] == ["TIMESTAMP_TYPE"]


def test_an_empty_range_has_no_verdicts() -> None:
    made = quiet()
    said = made.replay(from_ms=start_ms(-10), to_ms=start_ms(0))
    assert said.verdicts == []
    assert said.findings == []
