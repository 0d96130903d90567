"""Hostile bytes: any bytes give a record or a SchemaError with a known code, in bounded memory."""

from __future__ import annotations

import copy
import dataclasses
import gc
import io
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import codec
from schemas.errors import SchemaError
from schemas.mapping import to_avro
from schemas.pins import pin
from schemas.records import (
    ControlRecord,
    EvidenceItem,
    Policy,
    SessionBinding,
    SessionEvidence,
    SignedRecord,
    WindowReport,
)
from schemas.scan import MAX_CELLS
from tests.schemas import examples
from tests.schemas.examples import TOPIC_VALUES, VALUES, Filler, example, named_types, schema_of, signed

CODES = {"MALFORMED", "NOT_CANONICAL", "TRAILING_BYTES", "SCHEMA_UNKNOWN", "TOO_LARGE"}
PREFIX = codec.SINGLE_OBJECT.prefix("SignedRecord")
TOPIC_LIMIT = 512 * 1024
MEMORY_LIMIT = 16 * 1024 * 1024


def refusal(value: bytes, decode: Callable[[bytes], Any] = codec.decode_any) -> str:
    """Code of the refusal; anything but a SchemaError fails the test."""
    with pytest.raises(SchemaError) as refused:
        decode(value)
    assert refused.value.code in CODES
    assert len(str(refused.value)) < 500
    return refused.value.code


def code_of(value: bytes) -> str | None:
    """None where the value decodes, else the refusal's code."""
    try:
        codec.decode_any(value)
    except SchemaError as error:
        return error.code
    return None


def decoded_or_code(value: bytes) -> str | None:
    """None where the value decodes, and then it is the one encoding of what it decodes to."""
    code = code_of(value)
    if code is not None:
        assert code in CODES
        return code
    record = codec.decode_any(value)
    name = codec.SINGLE_OBJECT.unframe(value)[0].name
    data = to_avro(record)
    if isinstance(record, SignedRecord):
        data["body"] = (f"org.enclavescale.v1.{type(record.body).__name__}", data["body"])
    out = io.BytesIO()
    fastavro.schemaless_writer(out, pin(name).parsed, data)
    assert out.getvalue() == value[10:], "two encodings of one record"
    return None


def varint(number: int) -> bytes:
    """Zigzag varint of any size, also of more than 64 bits."""
    number = number << 1 if number >= 0 else (-number << 1) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


CONTROL = codec.encode_body(example(ControlRecord, "SignedRecord", full=False))
AFTER_BODY = bytes(64) + b"\x00" + b"\x00"
assert CONTROL.endswith(b"\x00\x00")  # subjects: empty array; reason: empty text


def control(subjects: bytes, reason: bytes = b"\x00") -> bytes:
    """A framed control record with these bytes for its array and its last text."""
    return PREFIX + CONTROL[:-2] + subjects + reason + AFTER_BODY


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300))
def test_hostile_random_bytes(data: bytes) -> None:
    assert decoded_or_code(data) is not None
    for name in TOPIC_VALUES:
        decoded_or_code(codec.SINGLE_OBJECT.prefix(schema_of(name)) + data)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(TOPIC_VALUES)), st.data())
def test_hostile_splices_of_valid_values(name: str, data: st.DataObject) -> None:
    value = TOPIC_VALUES[name]
    start = data.draw(st.integers(0, len(value)))
    end = data.draw(st.integers(start, min(len(value), start + 12)))
    decoded_or_code(value[:start] + data.draw(st.binary(max_size=12)) + value[end:])


@pytest.mark.parametrize("name", TOPIC_VALUES)
def test_hostile_truncation_at_every_byte(name: str) -> None:
    value = TOPIC_VALUES[name]
    for end in range(len(value)):
        assert refusal(value[:end]) == "MALFORMED", end


@pytest.mark.parametrize("name", [name for name in TOPIC_VALUES if name.endswith("full")])
def test_hostile_bit_flips(name: str) -> None:
    value = TOPIC_VALUES[name]
    for bit in range(0, len(value) * 8, max(1, len(value) * 8 // 4000) | 1):
        flipped = bytearray(value)
        flipped[bit // 8] ^= 1 << bit % 8
        decoded_or_code(bytes(flipped))


@pytest.mark.parametrize("name", TOPIC_VALUES)
def test_hostile_trailing_bytes(name: str) -> None:
    assert refusal(TOPIC_VALUES[name] + b"\x00") == "TRAILING_BYTES"
    assert refusal(TOPIC_VALUES[name] * 2) == "TRAILING_BYTES"


@pytest.mark.parametrize(
    "value", [b"", b"\x00", b"\x00\x00\x00\x00", b"\xc3", b"\xc3\x01" + bytes(7), b"{}", b"\x01" * 20]
)
def test_hostile_framing(value: bytes) -> None:
    assert refusal(value) == "MALFORMED"


@pytest.mark.parametrize("value", [b"\x00\x00\x00\x00\x09" + bytes(90), b"\xc3\x01" + bytes(8) + bytes(90)])
def test_hostile_schema_id(value: bytes) -> None:
    assert refusal(value) == "SCHEMA_UNKNOWN"
    framing = codec.Framing({"SignedRecord": 1, "Unpinned": 9})
    assert refusal(value, lambda one: codec.decode_any(one, framing)) == "SCHEMA_UNKNOWN"


def test_hostile_schema_of_another_topic() -> None:
    decoders: dict[str, Callable[[bytes], Any]] = {
        "SignedRecord": codec.decode_signed_record,
        "SignedFleetPower": codec.decode_signed_output,
        "SignedWindowManifest": codec.decode_signed_manifest,
        "SignedPolicy": codec.decode_signed_policy,
        "CollateralItem": codec.decode_collateral,
        "SignedBeacon": codec.decode_signed_beacon,
    }
    for name, value in VALUES.items():
        for schema, decode in decoders.items():
            if schema != schema_of(name):
                assert refusal(value, decode) == "SCHEMA_UNKNOWN"


@pytest.mark.parametrize(
    ("subjects", "code"),
    [
        (varint(2**62), "MALFORMED"),
        (varint(2**63 - 1), "MALFORMED"),
        (varint(2**63), "MALFORMED"),
        (varint(2**200), "MALFORMED"),
        (b"\x80" * 100_000, "MALFORMED"),
        (varint(-1) + varint(4) + b"\x00\x00\x00\x00\x00", "NOT_CANONICAL"),
        (varint(-(2**62)), "NOT_CANONICAL"),
        (b"\x02\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00", "NOT_CANONICAL"),  # two blocks
        (b"\x82\x00\x00\x00\x00\x00\x00", "NOT_CANONICAL"),  # a count longer than it need be
        (b"\x80\x00", "NOT_CANONICAL"),
        (varint(1) + varint(-1), "MALFORMED"),  # a negative length
        (varint(1) + varint(2**31), "MALFORMED"),
        (varint(1) + varint(2**62), "MALFORMED"),
        (varint(1) + b"\x02\xff\x00\x00", "MALFORMED"),  # not UTF-8
    ],
)
def test_hostile_counts_and_lengths(subjects: bytes, code: str) -> None:
    assert refusal(control(subjects)) == code


def test_hostile_control_baseline_is_valid() -> None:
    assert decoded_or_code(control(b"\x00")) is None
    assert decoded_or_code(control(varint(1) + b"\x02a\x02b\x00\x00\x00")) is None


def test_hostile_union_branches() -> None:
    for branch in (b"\x04", b"\x01", b"\x80\x80\x80\x80\x10"):
        assert refusal(PREFIX + branch + CONTROL[1:] + AFTER_BODY) == "MALFORMED"
    for branch in (b"\x04", b"\x01", b"\x82\x00"):
        assert refusal(PREFIX + CONTROL + bytes(64) + branch + b"\x00") == "MALFORMED"


def test_hostile_int_beyond_32_bits() -> None:
    """A Java reader refuses such a value, so nobody may be able to sign one."""
    report = example(WindowReport, "SignedRecord", full=False)
    for number, fits in ((2**31 - 1, True), (-(2**31), True), (2**31, False), (-(2**31) - 1, False), (2**40, False)):
        body = codec.encode_body(dataclasses.replace(report, sample_hz=number))
        value = PREFIX + body + AFTER_BODY
        if fits:
            body_read = codec.decode_signed_record(value).body
            assert isinstance(body_read, WindowReport)
            assert body_read.sample_hz == number
        else:
            assert refusal(value) == "MALFORMED"


def test_hostile_boolean() -> None:
    policy = codec.encode_policy(example(Policy, "SignedPolicy", full=False))
    # The three unsafe switches, then nothing revoked: a bypass cannot be a 2 that some read as true.
    assert policy.endswith(b"\x00\x00\x00\x00")
    prefix, rest = codec.SINGLE_OBJECT.prefix("SignedPolicy"), b"\x00" + bytes(64) + b"\x00"
    assert decoded_or_code(prefix + policy[:-2] + b"\x01" + rest) is None
    for byte in (b"\x02", b"\x80", b"\xff"):
        assert refusal(prefix + policy[:-2] + byte + rest) == "NOT_CANONICAL"


def test_hostile_sizes() -> None:
    big = b"\x00" * (codec.MAX_VALUE_BYTES + 1)
    assert refusal(PREFIX + big) == "TOO_LARGE"
    assert refusal(codec.SINGLE_OBJECT.prefix("SignedPolicy") + b"\x00" * (codec.MAX_POLICY_BYTES + 1)) == "TOO_LARGE"


# Memory ---------------------------------------------------------------------------------------------------------


def arrays(name: str) -> Iterator[tuple[str, ...]]:
    """Path of every array in a schema; a path enters arrays without naming their items."""
    types = named_types(name)

    def walk(node: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if isinstance(node, str) and node in types:
            node = types[node]
        if isinstance(node, list):
            for one in node:
                yield from walk(one, path)
        elif isinstance(node, dict):
            if node["type"] == "array":
                yield path
                yield from walk(node["items"], path)
            for field in node.get("fields", ()):
                yield from walk(field["type"], (*path, field["name"]))

    yield from walk(types[name], ())


ARRAYS = [(name, path) for name in sorted({schema_of(one) for one in TOPIC_VALUES}) for path in arrays(name)]


def filler_of(name: str, path: tuple[str, ...]) -> tuple[int, Callable[[int], bytes]]:
    """Size of a sparse item of the array at `path`, and what makes a value of `name` with so many of them."""
    types, filler = named_types(name), Filler(name, full=False)

    def item_of(node: Any) -> Any:
        return filler.make(node["items"])

    def build(node: Any, rest: tuple[str, ...], count: int) -> Any:
        if isinstance(node, str) and node in types:
            node = types[node]
        if isinstance(node, list):
            node = next(one for one in node if one != "null" and (not rest or reaches(one, rest)))
            made = build(node, rest, count)
            named = types.get(node, node) if isinstance(node, str) else node
            return (f"org.enclavescale.v1.{named['name']}", made) if named.get("type") == "record" else made
        if node["type"] == "array":
            return [build(node["items"], rest, count)] if rest else [item_of(node)] * count
        made = filler.make(node)
        field = next(one for one in node["fields"] if one["name"] == rest[0])
        return {**made, rest[0]: build(field["type"], rest[1:], count)}

    def reaches(node: Any, rest: tuple[str, ...]) -> bool:
        node = types.get(node, node) if isinstance(node, str) else node
        return not isinstance(node, dict) or "fields" not in node or rest[0] in {one["name"] for one in node["fields"]}

    def encode(count: int) -> bytes:
        out = io.BytesIO()
        whole = build(types[name], path, count)
        fastavro.schemaless_writer(out, copy.deepcopy(pin(name).parsed), whole)
        return codec.SINGLE_OBJECT.prefix(name) + out.getvalue()

    none, one, two = encode(0), encode(1), encode(2)
    at = next(i for i, (left, right) in enumerate(zip(none, one, strict=False)) if left != right)
    size = len(two) - len(one)
    item = one[at + 1 : at + 1 + size]

    def make(count: int) -> bytes:
        return one[:at] + varint(count) + item * count + one[at + 1 + size :]

    assert make(2) == two
    return size, make


def peak_of(value: bytes) -> tuple[str | None, int]:
    """What decoding gives (None or the refusal's code) and its peak memory, bytes."""
    gc.collect()
    tracemalloc.start()
    try:
        return code_of(value), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("name", "path"), ARRAYS, ids=lambda one: one if isinstance(one, str) else ".".join(one))
def test_hostile_memory_of_arrays_of_tiny_items(name: str, path: tuple[str, ...]) -> None:
    """512 KiB of the smallest items there are, and as many of them as are let through: both stay small."""
    size, make = filler_of(name, path)
    code, peak = peak_of(make((TOPIC_LIMIT - 2000) // size))
    assert code in (None, "TOO_LARGE")
    if name == "SignedPolicy":  # decoded only where a control record names its digest, hence less hostile
        assert peak < 4 * MEMORY_LIMIT
        return
    assert peak < MEMORY_LIMIT
    if code is None:
        return
    low, high = 1, TOPIC_LIMIT // size
    while low < high:  # the largest count that is let through
        middle = (low + high + 1) // 2
        low, high = (middle, high) if code_of(make(middle)) is None else (low, middle - 1)
    code, peak = peak_of(make(low))
    assert code is None
    assert low > MAX_CELLS // 200
    assert peak < MEMORY_LIMIT


@pytest.mark.parametrize("value", [PREFIX + bytes(TOPIC_LIMIT), control(varint(2**62) + bytes(TOPIC_LIMIT))])
def test_hostile_memory_of_absurd_values(value: bytes) -> None:
    code, peak = peak_of(value)
    assert code is not None
    assert peak < 4 * 1024 * 1024


def test_largest_honest_evidence_fits() -> None:
    """Eight GPUs with chains in one record, near the topic's limit."""
    binding = example(SessionBinding, "SignedRecord", full=True)
    items = tuple(EvidenceItem(kind="nvidia_gpu_report", data=bytes(20_000), subject=f"GPU-{n}") for n in range(25))
    report = example(WindowReport, "SignedRecord", full=True)
    gpu = dataclasses.replace(report.classes[0], edges_w=tuple(range(0, 3000, 100)), transitions=bytes(4 * 32 * 32))
    body = dataclasses.replace(report, classes=(gpu,) * 8)
    value = codec.encode_signed_record(
        codec.encode_body(body), bytes(64), SessionEvidence(binding=binding, items=items)
    )
    assert TOPIC_LIMIT < len(value) < codec.MAX_VALUE_BYTES
    assert codec.decode_signed_record(value).body == body


def test_largest_honest_policy_fits() -> None:
    """The 10,000 hosts the policy topic is made for."""
    policy = example(Policy, "SignedPolicy", full=True)
    many = tuple(
        dataclasses.replace(
            policy.hosts[0],
            host_id=f"host-{n:05}",
            platform_ids=("0" * 32,),
            gpu_key_digests=tuple(f"{n:032x}{gpu:032x}" for gpu in range(8)),
        )
        for n in range(10_000)
    )
    full = dataclasses.replace(policy, hosts=many)
    value = codec.encode_signed_policy(codec.encode_policy(full), bytes(64), examples.KEY)
    assert len(value) < codec.MAX_POLICY_BYTES
    assert codec.decode_signed_policy(value)[0].policy == full


def test_unknown_evidence_kind_decodes() -> None:
    """Evidence invented after this release is read; refusing it is the verifier's, with a code of its own."""
    report = example(WindowReport, "SignedRecord", full=True)
    evidence = SessionEvidence(
        binding=example(SessionBinding, "SignedRecord", full=True),
        items=(EvidenceItem(kind="tdisp_report_v9", data=b"\x01\x02", subject="GPU-0"),),
    )
    value = codec.encode_signed_record(codec.encode_body(report), bytes(64), evidence)
    decoded = codec.decode_signed_record(value)
    assert decoded.evidence == evidence
    assert decoded.digest == codec.decode_signed_record(signed(report, evidence=False)).digest
