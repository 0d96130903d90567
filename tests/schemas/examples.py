"""One fully populated and one sparse example of every top-level record, built from the schema by rule.

Full: every field has a value of its own, every nullable is present, every array has two items. Sparse: zeros, empty
texts, nulls and empty arrays. By rule, so that a new field cannot be forgotten.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro

import schemas
from schemas import codec
from schemas.mapping import from_avro, to_avro
from schemas.pins import NAMES, pin
from schemas.records import (
    CollateralItem,
    ControlRecord,
    FleetPower,
    Policy,
    SessionBinding,
    SessionEvidence,
    SignedBeacon,
    WindowManifest,
    WindowReport,
    WorkerIdentity,
)

GOLDEN = Path(__file__).parent / "golden"
AVSC = Path(schemas.__file__).parent / "avsc"
SIGNATURE = bytes(range(64))
KEY = b"\x04" + bytes(range(64))
DIGEST = bytes(range(100, 132))


def shipped(name: str) -> dict[str, Any]:
    """The schema as anybody reads it from the file, without our code."""
    return json.loads((AVSC / f"{name}.v1.avsc").read_text())


def named_types(name: str) -> dict[str, Any]:
    """Every named type defined in one shipped schema."""
    found: dict[str, Any] = {}

    def walk(node: Any) -> None:
        if isinstance(node, list):
            for one in node:
                walk(one)
        elif isinstance(node, dict):
            if isinstance(node.get("name"), str) and node.get("type") in ("record", "fixed"):
                found[node["name"]] = node
            for key in ("fields", "items", "type"):
                walk(node.get(key))

    walk(shipped(name))
    return found


def records() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(file, record, definition) for every record in every shipped schema."""
    for name in NAMES:
        for record, node in named_types(name).items():
            if node["type"] == "record":
                yield name, record, node


class Filler:
    """Values by rule for any node of one schema."""

    def __init__(self, name: str, *, full: bool) -> None:
        self._types = named_types(name)
        self._full = full
        self._count = itertools.count(1)

    def make(self, node: Any, label: str = "") -> Any:
        """A value of `node` as fastavro writes it; for a union of records, of its first branch."""
        if isinstance(node, list):
            if "null" in node and not self._full:
                return None
            return self.make(next(one for one in node if one != "null"), label)
        if isinstance(node, str) and node in self._types:
            node = self._types[node]
        kind = node["type"] if isinstance(node, dict) else node
        if kind == "record":
            return {field["name"]: self.make(field["type"], field["name"]) for field in node["fields"]}
        if kind == "array":
            return [self.make(node["items"], label) for _ in range(2)] if self._full else []
        return self._leaf(kind, node, label)

    def _leaf(self, kind: str, node: Any, label: str) -> Any:
        n = next(self._count)
        if kind == "fixed":
            return bytes([n % 256]) * node["size"] if self._full else bytes(node["size"])
        if not self._full:
            return {"string": "", "bytes": b"", "boolean": False}.get(kind, 0)
        sign = -1 if n % 3 == 0 else 1
        values = {
            "string": f"{label} № {n}",
            "bytes": n.to_bytes(4, "little"),
            "boolean": n % 2 == 0,
            "int": sign * (n * 2654435761 % 2**31),
            "long": sign * (n * 0x9E3779B97F4A7C15 % 2**63),
        }
        return values[kind]


def example(cls: type[Any], name: str, *, full: bool) -> Any:
    """An example of record `cls` as defined in schema `name`."""
    return from_avro(cls, Filler(name, full=full).make(named_types(name)[cls.__name__]))


def stock_bytes(name: str, record: Any) -> bytes:
    """What fastavro writes under the shipped schema, without our codec."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(shipped(name)), to_avro(record))
    return out.getvalue()


def signed(body: Any, *, evidence: bool = True, full: bool = True) -> bytes:
    """A framed value of the reports topic around `body`."""
    proof = example(SessionEvidence, "SignedRecord", full=full) if evidence else None
    return codec.encode_signed_record(codec.encode_body(body), SIGNATURE, proof)


def _examples(full: bool) -> Iterator[tuple[str, bytes]]:
    yield "SignedRecord.report", signed(example(WindowReport, "SignedRecord", full=full), evidence=full)
    yield "SignedRecord.control", signed(example(ControlRecord, "SignedRecord", full=full), evidence=full)
    output = codec.encode_output(example(FleetPower, "SignedFleetPower", full=full))
    worker = example(WorkerIdentity, "SignedFleetPower", full=full)
    yield "SignedFleetPower", codec.encode_signed_output(output, SIGNATURE, worker)
    manifest = codec.encode_manifest(example(WindowManifest, "SignedWindowManifest", full=full))
    yield "SignedWindowManifest", codec.encode_signed_manifest(manifest, SIGNATURE, DIGEST)
    policy = codec.encode_policy(example(Policy, "SignedPolicy", full=full))
    yield "SignedPolicy", codec.encode_signed_policy(policy, SIGNATURE, KEY)
    yield "CollateralItem", codec.encode_collateral(example(CollateralItem, "CollateralItem", full=full))
    beacon = example(SignedBeacon, "SignedBeacon", full=full)
    yield "SignedBeacon", codec.encode_signed_beacon(codec.encode_beacon(beacon.beacon), beacon.signature)
    binding = example(SessionBinding, "SessionBinding", full=full)
    yield "SessionBinding", codec.SINGLE_OBJECT.prefix("SessionBinding") + codec.encode_binding(binding)


def values() -> dict[str, bytes]:
    """Framed value by name: `SignedPolicy.full`, `SignedPolicy.sparse`, …"""
    return {
        f"{name}.{'full' if full else 'sparse'}": value for full in (True, False) for name, value in _examples(full)
    }


VALUES = values()
TOPIC_VALUES = {name: value for name, value in VALUES.items() if not name.startswith("SessionBinding")}
"""The values of topics that this release reads."""


def schema_of(name: str) -> str:
    """Schema of an example's name."""
    return name.split(".", maxsplit=1)[0]


def reframed(value: bytes, name: str, number: int) -> bytes:
    """The same body under registry framing with id `number`."""
    assert value.startswith(codec.SINGLE_OBJECT_MARKER + pin(name).fingerprint)
    return b"\x00" + number.to_bytes(4, "big") + value[10:]
