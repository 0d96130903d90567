"""Reports read by their session's layout are what the walk and the decoder make of the same bytes."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import codec
from schemas.codec import DecodedRecord, Framing, encode_body, encode_signed_record
from schemas.errors import SchemaError
from schemas.layout import MAX_NUMBERS, Numbers, layout_of, leaves_of
from schemas.parts import NO_EVIDENCE
from schemas.records import ControlRecord, GpuClass, SensorFlag, SessionEvidence, WindowReport
from schemas.repeats import MAX_LAYOUTS, RepeatDecoder
from tests.schemas.examples import DIGEST, SIGNATURE, example, signed

TIER = os.environ.get("ENCLAVESCALE_TIER", "test")
EXAMPLES = {"test": 200, "soak": 5_000, "accept": 20_000}[TIER]
EVIDENCE = example(SessionEvidence, "SignedRecord", full=True)
FULL = replace(
    example(WindowReport, "SignedRecord", full=True), seq=70, window_start_ms=1_763_700_000_000, samples_taken=600,
    window_end_ms=1_763_700_060_000, stalls_coarse=3, host_id="host-17", domain="hall-a",
)  # fmt: skip
CLASS = replace(FULL.classes[0], readings_taken=4_800, energy_residual_mj=-123_456, transitions=bytes(range(64)))
FLAG = SensorFlag(flag="gap", gpus=3)
FULL = replace(
    FULL,
    sensor_flags=(FLAG, replace(FLAG, flag="stall")),
    classes=(CLASS, replace(CLASS, model="other", energy_residual_mj=9)),
)
SPARSE = example(WindowReport, "SignedRecord", full=False)
PLAIN = replace(
    FULL, classes=(replace(CLASS, histogram=None, energy_residual_mj=None),), stalls_coarse=None, sensor_flags=()
)
REPORTS = {"full": FULL, "sparse": SPARSE, "plain": PLAIN, "first": replace(PLAIN, seq=0, prev_digest=None)}


def value_of(
    report: WindowReport, evidence: SessionEvidence | None = None, framing: Framing = codec.SINGLE_OBJECT
) -> bytes:
    return encode_signed_record(encode_body(report), SIGNATURE, evidence, framing)


def learned(
    *reports: WindowReport, evidence: SessionEvidence | None = None, framing: Framing = codec.SINGLE_OBJECT
) -> RepeatDecoder:
    decoder = RepeatDecoder()
    for report in reports:
        value = value_of(report, evidence, framing)
        decoder.learn(value, codec.decode_signed_record(value, framing), evidence_counts=True)
    return decoder


@cache
def walked(value: bytes, framing: Framing | None = None) -> DecodedRecord | tuple[str, str, str | None]:
    """What the usual way says: a record, or code, message and field of its refusal."""
    try:
        return codec.decode_signed_record(value, framing or codec.SINGLE_OBJECT)
    except SchemaError as error:
        return error.code, str(error), error.field


def compare(decoder: RepeatDecoder, value: bytes) -> bool:
    """True if the decoder read (or refused) `value`, and then as the usual way does."""
    want = walked(value)
    got: DecodedRecord | tuple[str, str, str | None] | None
    try:
        got = decoder.decode(value)
    except SchemaError as error:
        got = error.code, str(error), error.field
    if got is None:
        return False
    assert got == want
    assert repr(got) == repr(want)  # a truth value is not the number it equals
    if isinstance(got, DecodedRecord):
        assert isinstance(got.body, WindowReport)
        assert codec.record_preimage(encode_body(got.body)) == got.preimage
    return True


LONGS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from((0, -1, 63, 64, -64, -65, 8_191, 8_192, 2**62, -(2**63)))
INTS = st.integers(-(2**31), 2**31 - 1) | st.sampled_from((0, 63, 64, 2**31 - 1, -(2**31)))


@st.composite
def next_class(draw: st.DrawFn, base: GpuClass) -> GpuClass:
    def content(old: bytes | None) -> bytes | None:
        return None if old is None else draw(st.binary(min_size=len(old), max_size=len(old)))

    return replace(
        base,
        readings_taken=draw(st.integers(4_000, 4_800) | LONGS),
        transitions=content(base.transitions),
        pane_sums=content(base.pane_sums),
        histogram=content(base.histogram),
        energy_residual_mj=None if base.energy_residual_mj is None else draw(LONGS),
    )


@st.composite
def next_report(draw: st.DrawFn, base: WindowReport) -> WindowReport:
    """A later report of the session: fields that change take any value of their type."""
    return replace(
        base,
        seq=draw(st.integers(0, 2**31) | LONGS),
        prev_digest=base.prev_digest and draw(st.binary(min_size=32, max_size=32)),
        window_start_ms=draw(st.integers(1_763_700_000_000, 1_763_800_000_000) | LONGS),
        window_end_ms=draw(st.integers(1_763_700_000_000, 1_763_800_000_000) | LONGS),
        samples_taken=draw(st.integers(64, 600) | INTS),
        stalls_coarse=None if base.stalls_coarse is None else draw(st.integers(0, 63) | INTS),
        classes=tuple(draw(next_class(one)) for one in base.classes),
        sensor_flags=tuple(replace(one, gpus=draw(INTS)) for one in base.sensor_flags),
    )


@pytest.mark.every_tier
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), name=st.sampled_from(sorted(REPORTS)), evidence=st.sampled_from((None, EVIDENCE)))
def test_later_reports_of_a_session(data: st.DataObject, name: str, evidence: SessionEvidence | None) -> None:
    base = REPORTS[name]
    compare(learned(base), value_of(data.draw(next_report(base)), evidence))


@pytest.mark.parametrize("name", ["full", "plain"])
def test_usual_reports_are_read_by_their_layout(name: str) -> None:
    """What a session's windows differ in, within the lengths that they usually have."""
    base, rng = REPORTS[name], random.Random(3)
    decoder = learned(base)
    for window in range(200):
        report = replace(
            base,
            seq=base.seq + 10**window if window < 18 else base.seq + window,
            prev_digest=rng.randbytes(32),
            window_start_ms=base.window_start_ms + window * 60_000,
            window_end_ms=base.window_end_ms + window * 60_000,
            samples_taken=rng.randrange(64, 600),
            classes=tuple(
                replace(
                    one,
                    readings_taken=rng.randrange(64, 4_800),
                    pane_sums=rng.randbytes(len(one.pane_sums)),
                    energy_residual_mj=one.energy_residual_mj and rng.randrange(-(2 ** rng.randrange(60)), 2**20),
                )
                for one in base.classes
            ),
        )
        assert compare(decoder, value_of(report))
        assert compare(decoder, value_of(report, EVIDENCE))


def flips(value: bytes) -> list[bytes]:
    return [
        bytes([*value[:at], value[at] ^ 1 << bit, *value[at + 1 :]]) for at in range(len(value)) for bit in range(8)
    ]


@pytest.mark.every_tier
@pytest.mark.parametrize("name", sorted(REPORTS))
def test_every_bit_flipped_every_byte_lost_or_doubled(name: str) -> None:
    decoder = learned(REPORTS[name])
    value = value_of(replace(REPORTS[name], seq=3))
    changed = [value[:at] for at in range(len(value))]
    changed += [value[:at] + value[at + 1 :] for at in range(len(value))]
    changed += [value[:at] + byte + value[at:] for at in range(len(value)) for byte in (b"\x80", b"\x00")]
    flipped = flips(value)
    random.Random(name).shuffle(flipped)
    changed += flipped[:1_000] if TIER == "test" else flipped
    taken = sum(compare(decoder, one) for one in changed)
    assert compare(decoder, value)
    assert taken >= len(value) // 8, "flipped digests, statistics and signatures are read by the layout"


@pytest.mark.every_tier
@settings(max_examples=EXAMPLES, deadline=None)
@given(st.sampled_from(sorted(REPORTS)), st.sampled_from(sorted(REPORTS)), st.booleans(), st.data())
def test_splices(name: str, learned_name: str, carried: bool, data: st.DataObject) -> None:
    decoder = learned(REPORTS[learned_name], evidence=EVIDENCE if carried else None)
    value = value_of(REPORTS[name], EVIDENCE if carried else None)
    start = data.draw(st.integers(0, len(value)))
    end = data.draw(st.integers(start, min(len(value), start + 12)))
    compare(decoder, value[:start] + data.draw(st.binary(max_size=12)) + value[end:])


def varint(number: int, padding: int = 0) -> bytes:
    raw = number << 1 if number >= 0 else (-number << 1) - 1
    out = bytearray()
    while raw > 0x7F:
        out.append(raw & 0x7F | 0x80)
        raw >>= 7
    out.append(raw)
    for _ in range(padding):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


@pytest.mark.parametrize("name", ["full", "plain"])
@pytest.mark.parametrize("padding", [0, 1, 2, 8, 20])
def test_numbers_at_every_place_in_other_encodings(name: str, padding: int) -> None:
    """Also where the layout expects a number of that very length: 0 in two bytes is not 0."""
    base = REPORTS[name]
    body = encode_body(base)
    tail = value_of(base)[10 + len(body) :]
    decoder = learned(base)
    prefix = codec.SINGLE_OBJECT.prefix("SignedRecord")
    for leaf in leaves_of(body):
        if leaf.kind not in ("int", "long"):
            continue
        for number in (0, 1, -1, 63, 64, 2**20, 2**31 - 1, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63), 2**63, 2**70):
            other = prefix + body[: leaf.start] + varint(number, padding) + body[leaf.end :] + tail
            compare(decoder, other)
        width = leaf.end - leaf.start
        for piece in (b"\x80" * (width - 1) + b"\x00", b"\x80" * width, b"\xff" * width, bytes(width)):
            other = prefix + body[: leaf.start] + piece + body[leaf.end :] + tail
            compare(decoder, other)


@pytest.mark.every_tier
@settings(max_examples=EXAMPLES, deadline=None)
@given(st.binary(max_size=12))
def test_a_number_is_read_from_its_canonical_bytes_only(data: bytes) -> None:
    number = Numbers().read(data)
    if number is not None:
        assert varint(number) == data
    elif 1 <= len(data) <= 9 and all(byte > 0x7F for byte in data[:-1]) and data[-1] <= 0x7F:
        assert len(data) > 1
        assert data[-1] == 0


def test_numbers_are_bounded() -> None:
    numbers = Numbers()
    for number in range(3 * MAX_NUMBERS):
        assert numbers.read(varint(number)) == number
        assert len(numbers.known) <= MAX_NUMBERS


# Evidence, framing, sessions ------------------------------------------------------------------------------------------


def test_evidence_of_the_same_bytes_is_the_same_object() -> None:
    decoder = learned(PLAIN, evidence=EVIDENCE)
    value = value_of(replace(PLAIN, seq=9), EVIDENCE)
    first, second = decoder.decode(value), decoder.decode(value)
    assert first is not None
    assert second is not None
    assert first.evidence is second.evidence
    assert first == walked(value)


def test_evidence_that_does_not_count_is_read_and_not_remembered() -> None:
    decoder = learned(PLAIN, evidence=EVIDENCE)
    other = replace(EVIDENCE, items=EVIDENCE.items[:1])
    value = value_of(replace(PLAIN, seq=9), other)
    decoded = decoder.decode(value)
    assert decoded == walked(value)
    assert decoded is not None
    decoder.learn(value, decoded, evidence_counts=False)
    again = decoder.decode(value)
    assert again is not None
    assert again.evidence is not decoded.evidence
    before = decoder.evidence_of(PLAIN.session_id)
    assert before == EVIDENCE
    decoder.learn(value, decoded, evidence_counts=True)
    third = decoder.decode(value)
    assert third is not None
    assert third.evidence is decoder.evidence_of(PLAIN.session_id) is not before
    assert third.evidence == decoded.evidence == other
    assert hash(third.evidence) == hash(other)


@pytest.mark.parametrize(
    "reason", [b"\x00", b"\x02\x00", b"\x02\x02x", NO_EVIDENCE.write("not_due"), b"\x04", b"", b"\x00\x00"]
)
@pytest.mark.parametrize("evidence", [None, EVIDENCE])
def test_what_follows_the_signature(reason: bytes, evidence: SessionEvidence | None) -> None:
    decoder = learned(PLAIN, evidence=EVIDENCE)
    full = value_of(replace(PLAIN, seq=9), evidence)
    own = NO_EVIDENCE.write("not_due" if evidence is None else None)
    value = full[: -len(own)] + reason
    assert compare(decoder, value)
    decoded = walked(value)
    if isinstance(decoded, DecodedRecord):
        decoder.learn(value, decoded, evidence_counts=True)
        assert compare(decoder, value)


def test_other_framings_and_schemas() -> None:
    registry = Framing({"SignedRecord": 7})
    decoder, ours = learned(PLAIN, framing=registry), learned(PLAIN)
    value = value_of(replace(PLAIN, seq=9), framing=registry)
    got = decoder.decode(value)
    assert got == codec.decode_signed_record(value, registry)
    assert ours.decode(value) is None
    assert decoder.decode(value_of(replace(PLAIN, seq=9))) is None
    assert decoder.decode(b"\x00\x00\x00\x00\x08" + value[5:]) is None
    assert ours.decode(signed(example(ControlRecord, "SignedRecord", full=True))) is None
    assert ours.decode(b"") is None
    assert ours.decode(value_of(PLAIN) + bytes(codec.MAX_VALUE_BYTES)) is None


@pytest.mark.parametrize("name", ["é" * 40, "h" * 63, "h" * 64, "h" * 9_000, ""])
def test_names_of_any_length(name: str) -> None:
    report = replace(PLAIN, host_id=name, domain=name[::2])
    decoder = learned(report)
    assert compare(decoder, value_of(replace(report, seq=9))) is (len(name) < 8_192)
    assert not compare(decoder, value_of(replace(report, host_id=name + "x")))
    assert not compare(decoder, value_of(replace(report, domain=name + "x")))


def test_a_session_keeps_its_last_layouts_and_shares_them_with_others() -> None:
    shapes = [replace(PLAIN, sensor_flags=(FLAG,) * count) for count in range(9)]
    decoder = learned(*shapes)
    kept = [compare(decoder, value_of(replace(one, seq=9))) for one in shapes]
    assert kept.count(True) >= MAX_LAYOUTS
    assert not kept[0]
    other = replace(PLAIN, session_id=DIGEST, host_id="elsewhere")
    value = value_of(other)
    decoder.learn(value, codec.decode_signed_record(value), evidence_counts=True)
    assert compare(decoder, value_of(replace(other, sensor_flags=(FLAG,) * 8))), "learned from another host"
    assert decoder.retain(other.domain, {DIGEST}) == [PLAIN.session_id]
    assert len(decoder) == 1
    assert not compare(decoder, value_of(shapes[-1]))
    assert compare(decoder, value_of(other))


def test_another_domains_sessions_are_not_forgotten() -> None:
    decoder = learned(PLAIN)
    assert decoder.retain("elsewhere", set()) == []
    assert compare(decoder, value_of(PLAIN))


def long_number(report: WindowReport) -> WindowReport:
    return replace(report, samples_taken=2**31 - 1)


def longest_number(report: WindowReport) -> WindowReport:
    return replace(report, window_start_ms=-(2**63))


@pytest.mark.parametrize("change", [long_number, longest_number])
def test_numbers_near_the_end_of_their_range_are_left_to_the_walk(
    change: Callable[[WindowReport], WindowReport],
) -> None:
    report = change(PLAIN)
    assert layout_of(encode_body(report), report) is None
    decoder = learned(report)
    assert not compare(decoder, value_of(report))
