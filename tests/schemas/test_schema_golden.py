"""Golden bytes, the signed slice, both framings: what is written today is what was written on the first day."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import fastavro
import pytest

from schemas import codec
from schemas.errors import SchemaError
from schemas.mapping import from_jsonable, to_avro, to_jsonable
from schemas.pins import NAMES, part, pin
from schemas.records import (
    Policy,
    SessionBinding,
    SessionEvidence,
    SignedRecord,
    WindowReport,
)
from tests.schemas import examples
from tests.schemas.examples import GOLDEN, TOPIC_VALUES, VALUES, example, schema_of, shipped


def crc_64_avro(data: bytes) -> int:
    """CRC-64-AVRO bit by bit, as the Avro specification defines it (Rabin fingerprint)."""
    empty = 0xC15D213AA4D7A795
    value = empty
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (empty if value & 1 else 0)
    return value


def canonical_form(node: Any, namespace: str = "", known: frozenset[str] = frozenset()) -> str:
    """Parsing canonical form of a schema without aliases or logical types, as the specification's rules say."""
    if isinstance(node, str):
        simple = node in ("null", "boolean", "int", "long", "string", "bytes") or "." in node
        return json.dumps(node if simple else f"{namespace}.{node}", ensure_ascii=False)
    if isinstance(node, list):
        return "[" + ",".join(canonical_form(one, namespace) for one in node) + "]"
    if node["type"] == "array":
        return '{"type":"array","items":' + canonical_form(node["items"], namespace) + "}"
    if node["type"] not in ("record", "fixed"):
        return canonical_form(node["type"], namespace)
    namespace = node.get("namespace", namespace)
    head = f'{{"name":"{namespace}.{node["name"]}","type":"{node["type"]}"'
    if node["type"] == "fixed":
        return f'{head},"size":{node["size"]}}}'
    fields = (
        f'{{"name":"{field["name"]}","type":{canonical_form(field["type"], namespace)}}}' for field in node["fields"]
    )
    return f'{head},"fields":[{",".join(fields)}]}}'


def golden(name: str) -> bytes:
    return bytes.fromhex((GOLDEN / f"{name}.hex").read_text())


def stock(value: bytes, name: str) -> Any:
    """What anybody's fastavro reads with just the shipped schema."""
    buffer = io.BytesIO(value)
    result = fastavro.schemaless_reader(buffer, fastavro.parse_schema(shipped(name)), None)
    assert buffer.read() == b""
    return result


def test_golden_files_are_the_examples() -> None:
    assert {path.stem for path in GOLDEN.glob("*.hex")} == set(VALUES)


@pytest.mark.parametrize("name", VALUES)
def test_golden_bytes_are_what_is_written(name: str) -> None:
    assert VALUES[name] == golden(name), "released bytes changed: readers of the old ones would break"


@pytest.mark.parametrize("name", TOPIC_VALUES)
def test_golden_bytes_decode_to_the_record(name: str) -> None:
    decoded = codec.decode_any(golden(name))
    assert to_avro(decoded) == stock(golden(name)[10:], schema_of(name))
    assert from_jsonable_of(decoded) == decoded


def from_jsonable_of(record: Any) -> Any:
    if isinstance(record, SignedRecord):  # a union of two records has no name in JSON
        return record
    return from_jsonable(type(record), json.loads(json.dumps(to_jsonable(record))))


@pytest.mark.parametrize("name", VALUES)
def test_golden_bytes_read_with_just_the_schema(name: str) -> None:
    """A stock reader needs the `.avsc` and nothing of ours, and writes the same bytes again."""
    value = stock(golden(name)[10:], schema_of(name))
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(shipped(schema_of(name))), value)
    assert out.getvalue() == golden(name)[10:]


@pytest.mark.parametrize("name", [name for name in VALUES if name.startswith("SignedRecord")])
def test_signed_slice_is_found_and_hashed_without_our_codec(name: str) -> None:
    """The body is the value's first field: its length is the whole less what follows it."""
    body_schema = {**shipped("SignedRecord"), "fields": shipped("SignedRecord")["fields"][:1]}
    value = golden(name)
    buffer = io.BytesIO(value[10:])
    fastavro.schemaless_reader(buffer, fastavro.parse_schema(body_schema), None)
    body = value[10 : 10 + buffer.tell()]
    text = (examples.AVSC / "SignedRecord.v1.avsc").read_bytes()
    preimage = b"enclavescale/record/1\0" + hashlib.sha256(text).digest() + body
    decoded = codec.decode_signed_record(value)
    assert decoded.preimage == preimage
    assert decoded.digest == hashlib.sha256(preimage).digest()
    assert value[10 + len(body) :][:64] == decoded.signature == examples.SIGNATURE


def test_signed_slice_of_the_binding_is_what_is_hashed() -> None:
    evidence = example(SessionEvidence, "SignedRecord", full=True)
    value = examples.signed(example(WindowReport, "SignedRecord", full=True))
    decoded = codec.decode_signed_record(value)
    assert decoded.evidence == evidence
    assert decoded.binding_bytes == codec.encode_binding(evidence.binding)
    assert decoded.binding_bytes is not None
    text = (examples.AVSC / "SessionBinding.v1.avsc").read_bytes()
    preimage = b"enclavescale/binding/1\0" + hashlib.sha256(text).digest() + decoded.binding_bytes
    assert codec.report_data_of(decoded.binding_bytes) == hashlib.sha512(preimage).digest()
    assert codec.session_id_of(decoded.binding_bytes) == hashlib.sha256(preimage).digest()


def test_binding_has_one_encoding_in_every_schema_that_holds_it() -> None:
    binding = example(SessionBinding, "SessionBinding", full=True)
    alone = examples.stock_bytes("SessionBinding", binding)
    assert codec.encode_binding(binding) == alone
    out = io.BytesIO()
    fastavro.schemaless_writer(
        out, part("SignedFleetPower", "worker", "evidence", "binding"), {"value": to_avro(binding)}
    )
    assert out.getvalue() == alone


def test_record_identity_is_the_body_and_nothing_else() -> None:
    """Stripped evidence, another signature and another framing are the same record; another body is not."""
    body = codec.encode_body(example(WindowReport, "SignedRecord", full=True))
    evidence = example(SessionEvidence, "SignedRecord", full=True)
    registry = codec.Framing({"SignedRecord": 7})
    same = [
        codec.decode_signed_record(codec.encode_signed_record(body, bytes(64), evidence)),
        codec.decode_signed_record(codec.encode_signed_record(body, bytes(64), None)),
        codec.decode_signed_record(codec.encode_signed_record(body, examples.SIGNATURE, evidence)),
        codec.decode_signed_record(codec.encode_signed_record(body, bytes(64), None, registry), registry),
    ]
    assert len({decoded.digest for decoded in same}) == 1
    other = codec.encode_body(example(WindowReport, "SignedRecord", full=False))
    assert codec.decode_signed_record(codec.encode_signed_record(other, bytes(64), None)).digest != same[0].digest


def test_schema_digest_is_part_of_what_is_signed() -> None:
    data = b"the same bytes"
    preimages = {
        codec.record_preimage(data),
        codec.output_preimage(data),
        codec.manifest_preimage(data),
        codec.policy_preimage(data),
        codec.binding_preimage(data),
    }
    assert len(preimages) == 5


@pytest.mark.parametrize("name", NAMES)
def test_framing_fingerprint_is_crc_64_avro_of_the_canonical_form(name: str) -> None:
    expected = crc_64_avro(canonical_form(shipped(name)).encode()).to_bytes(8, "little")
    assert pin(name).fingerprint == expected
    assert codec.SINGLE_OBJECT.prefix(name) == b"\xc3\x01" + expected
    assert codec.SINGLE_OBJECT.unframe(b"\xc3\x01" + expected) == (pin(name), 10)


@pytest.mark.parametrize("name", TOPIC_VALUES)
def test_framing_by_registry_id(name: str) -> None:
    framing = codec.Framing({schema_of(name): 0x01020304})
    value = examples.reframed(golden(name), schema_of(name), 0x01020304)
    assert value[:5] == b"\x00\x01\x02\x03\x04"
    assert codec.decode_any(value, framing) == codec.decode_any(golden(name), framing), "both framings are read"
    with pytest.raises(SchemaError) as refused:
        codec.decode_any(value)
    assert refused.value.code == "SCHEMA_UNKNOWN"


def test_framing_writes_registry_ids_where_there_are_any() -> None:
    framing = codec.Framing({"SignedPolicy": 5})
    policy = codec.encode_policy(example(Policy, "SignedPolicy", full=False))
    assert codec.encode_signed_policy(policy, bytes(64), b"", framing)[:5] == b"\x00\x00\x00\x00\x05"
    assert framing.prefix("SignedRecord")[:2] == b"\xc3\x01"


def test_part_reads_and_writes_what_it_has_inside_the_whole() -> None:
    evidence = example(SessionEvidence, "SignedRecord", full=True)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, part("SignedRecord", "evidence"), {"value": to_avro(evidence)})
    assert out.getvalue() in golden("SignedRecord.report.full")
