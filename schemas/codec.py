"""The wire codec: framing, signed slices, digests.

A signed value begins with the part that is signed, so that its exact bytes are sliced from the value as received and
nobody re-encodes to verify. Decoding is total: any bytes give a record or a `SchemaError`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import fastavro

from schemas.errors import SchemaError
from schemas.layout import ReportLayout
from schemas.mapping import from_avro, to_avro
from schemas.parts import BINDING, ITEMS, NO_EVIDENCE, Part, finish, read_evidence, take_fixed
from schemas.pins import NAMES, SchemaPin, by_fingerprint, pin
from schemas.records import (
    Beacon,
    CollateralItem,
    ControlRecord,
    FleetPower,
    Policy,
    SessionBinding,
    SessionEvidence,
    SignedBeacon,
    SignedFleetPower,
    SignedPolicy,
    SignedRecord,
    SignedWindowManifest,
    WindowManifest,
    WindowReport,
    WorkerIdentity,
)
from schemas.scan import MAX_CELLS, Scan

T = TypeVar("T")

SINGLE_OBJECT_MARKER = b"\xc3\x01"
"""Avro 1.11 specification, single-object encoding: two bytes, then the 8-byte fingerprint of the writer's schema."""

MAX_VALUE_BYTES = 1 << 20
"""Largest value decoded, bytes: twice the reports topic's `max.message.bytes`, so that the topic is the limit."""

MAX_POLICY_BYTES = 8 << 20
"""Largest policy decoded, bytes: 10,000 enrolled hosts with 8 GPUs each, the policy topic's `max.message.bytes`."""

MAX_POLICY_CELLS = 8 * MAX_CELLS
"""Fields and array items in one policy: the same 10,000 hosts have about 300,000."""

NOT_DUE = "not_due"
"""`evidence_absent_reason` of a record between two repetitions of its session's evidence."""

_NAMESPACE = "org.enclavescale.v1."


def registry_id(value: bytes) -> int | None:
    """The registry's id that `value` carries (byte 0, then 4 bytes big-endian), None under any other framing."""
    return int.from_bytes(value[1:5], "big") if value[:1] == b"\x00" and len(value) >= 5 else None


@dataclass(frozen=True, slots=True)
class Framing:
    """How values name their schema.

    Without `registry_ids` values carry Avro single-object encoding. With them (schema name to id) values carry
    Confluent framing: byte 0, 4-byte big-endian id. Both are read; an id maps only to a pinned schema. `also_read`
    (id to schema name): further ids of pinned schemas; while values are read it may grow, and nothing else.
    """

    registry_ids: Mapping[str, int] = field(default_factory=dict)
    also_read: Mapping[int, str] = field(default_factory=dict)

    def prefix(self, name: str) -> bytes:
        """Bytes put before a value of schema `name`."""
        if name in self.registry_ids:
            return b"\x00" + self.registry_ids[name].to_bytes(4, "big")
        return SINGLE_OBJECT_MARKER + pin(name).fingerprint

    def named(self, number: int) -> str | None:
        """Name of the pinned schema that registry id `number` stands for, None if it stands for none known here."""
        for name, registered in self.registry_ids.items():
            if registered == number and name in NAMES:
                return name
        name = self.also_read.get(number, "")
        return name if name in NAMES else None

    def unframe(self, value: bytes) -> tuple[SchemaPin, int]:
        """Return the writer's pinned schema and where the Avro body begins.

        Raises SchemaError with code TOO_LARGE, MALFORMED (no framing) or SCHEMA_UNKNOWN.
        """
        if len(value) > MAX_POLICY_BYTES:
            raise SchemaError(f"value of {len(value)} bytes exceeds {MAX_POLICY_BYTES}", code="TOO_LARGE")
        found, offset = self._writer(value)
        if len(value) > MAX_VALUE_BYTES and found.name != "SignedPolicy":
            raise SchemaError(f"value of {len(value)} bytes exceeds {MAX_VALUE_BYTES}", code="TOO_LARGE")
        return found, offset

    def _writer(self, value: bytes) -> tuple[SchemaPin, int]:
        if value[:2] == SINGLE_OBJECT_MARKER and len(value) >= 10:
            found = _BY_FINGERPRINT.get(bytes(value[2:10]))
            if found is None:
                raise SchemaError(f"no pinned schema has fingerprint {value[2:10].hex()}", code="SCHEMA_UNKNOWN")
            return found, 10
        wanted = registry_id(value)
        if wanted is not None:
            name = self.named(wanted)
            if name is None:
                raise SchemaError(f"schema id {wanted} maps to no pinned schema", code="SCHEMA_UNKNOWN")
            return pin(name), 5
        raise SchemaError("value has neither single-object nor registry framing")


_BY_FINGERPRINT = by_fingerprint()
SINGLE_OBJECT = Framing()


@dataclass(frozen=True, slots=True)
class DecodedRecord:
    """A record of the reports topic, decoded but not verified.

    `preimage`: what the signature covers. `digest`: SHA-256 of it, the record's identity. `binding_bytes`: the exact
    bytes of the session binding, or None without evidence. `evidence_bytes`: the evidence as received, for caches.
    `evidence_absent_reason`: not signed. `layout`: what the report was read with, where it repeats an earlier one's
    bytes (`schemas.repeats`).
    """

    body: WindowReport | ControlRecord
    signature: bytes
    evidence: SessionEvidence | None
    preimage: bytes
    digest: bytes
    binding_bytes: bytes | None
    evidence_bytes: bytes | None
    evidence_absent_reason: str | None
    layout: ReportLayout | None = field(default=None, compare=False, repr=False)


def _expect(framing: Framing, value: bytes, name: str) -> int:
    found, offset = framing.unframe(value)
    if found.name != name:
        raise SchemaError(f"expected {name}, got {found.name}", code="SCHEMA_UNKNOWN")
    return offset


_BODY = Part("SignedRecord", "body")
_OUTPUT = Part("SignedFleetPower", "output")
_WORKER = Part("SignedFleetPower", "worker")
_MANIFEST = Part("SignedWindowManifest", "manifest")
_POLICY = Part("SignedPolicy", "policy", max_cells=MAX_POLICY_CELLS)
_SIGNER = Part("SignedPolicy", "signer_public_key")
_BEACON = Part("SignedBeacon", "beacon")
_COLLATERAL = pin("CollateralItem").parsed
_COLLATERAL_SCAN = Scan(_COLLATERAL)


def _preimage(tag: str, schema: str, data: bytes) -> bytes:
    return f"enclavescale/{tag}/1\0".encode() + pin(schema).sha256 + data


def record_preimage(body_bytes: bytes) -> bytes:
    """What a record's signature covers: tag, SHA-256 of the pinned schema text, the Avro bytes of `body`."""
    return _preimage("record", "SignedRecord", body_bytes)


def output_preimage(output_bytes: bytes) -> bytes:
    """What an output's signature covers."""
    return _preimage("output", "SignedFleetPower", output_bytes)


def manifest_preimage(manifest_bytes: bytes) -> bytes:
    """What a manifest's signature covers."""
    return _preimage("manifest", "SignedWindowManifest", manifest_bytes)


def policy_preimage(policy_bytes: bytes) -> bytes:
    """What a policy's signature covers; its SHA-256 is the policy digest."""
    return _preimage("policy", "SignedPolicy", policy_bytes)


def beacon_preimage(beacon_bytes: bytes) -> bytes:
    """What a beacon's signature covers."""
    return _preimage("beacon", "SignedBeacon", beacon_bytes)


def record_digest(preimage: bytes) -> bytes:
    """SHA-256 of a pre-image: the identity of a record, output, manifest or policy. 32 bytes."""
    return hashlib.sha256(preimage).digest()


def binding_preimage(binding_bytes: bytes) -> bytes:
    """Pre-image of a session binding."""
    return _preimage("binding", "SessionBinding", binding_bytes)


def session_id_of(binding_bytes: bytes) -> bytes:
    """Session id: SHA-256 of the binding's pre-image, 32 bytes."""
    return hashlib.sha256(binding_preimage(binding_bytes)).digest()


def report_data_of(binding_bytes: bytes) -> bytes:
    """Report data a hardware quote must carry for this binding: SHA-512 of its pre-image, 64 bytes."""
    return hashlib.sha512(binding_preimage(binding_bytes)).digest()


def encode_body(body: WindowReport | ControlRecord) -> bytes:
    """Avro bytes of `body`, branch index included: what is signed."""
    return _BODY.write((_NAMESPACE + type(body).__name__, to_avro(body)))


def encode_binding(binding: SessionBinding) -> bytes:
    """Avro bytes of a session binding."""
    return BINDING.write(to_avro(binding))


def decode_binding(data: bytes) -> SessionBinding:
    """The session binding of its Avro bytes. Raises SchemaError, nothing else, whatever the bytes."""
    binding, taken = BINDING.read(data, 0)
    finish(data, len(taken))
    return from_avro(SessionBinding, binding)


def encode_output(output: FleetPower) -> bytes:
    """Avro bytes of an output: what is signed and compared."""
    return _OUTPUT.write(to_avro(output))


def encode_manifest(manifest: WindowManifest) -> bytes:
    """Avro bytes of a manifest: what is signed."""
    return _MANIFEST.write(to_avro(manifest))


def encode_policy(policy: Policy) -> bytes:
    """Avro bytes of a policy: what is signed."""
    return _POLICY.write(to_avro(policy))


def encode_beacon(beacon: Beacon) -> bytes:
    """Avro bytes of a beacon: what is signed."""
    return _BEACON.write(to_avro(beacon))


def _evidence_bytes(evidence: SessionEvidence | None) -> bytes:
    if evidence is None:
        return b"\x00"
    return b"\x02" + encode_binding(evidence.binding) + ITEMS.write(to_avro(evidence.items))


def encode_signed_record(
    body_bytes: bytes,
    signature: bytes,
    evidence: SessionEvidence | None,
    framing: Framing = SINGLE_OBJECT,
    *,
    evidence_absent_reason: str = NOT_DUE,
) -> bytes:
    """Framed value of the reports topic. `signature`: 64 bytes, r and s big-endian.

    `evidence_absent_reason` is written where `evidence` is None.
    """
    reason = NO_EVIDENCE.write(evidence_absent_reason if evidence is None else None)
    return framing.prefix("SignedRecord") + body_bytes + signature + _evidence_bytes(evidence) + reason


def decode_signed_record(value: bytes, framing: Framing = SINGLE_OBJECT) -> DecodedRecord:
    """Decode a value of the reports topic. Raises SchemaError, nothing else, whatever the bytes."""
    start = _expect(framing, value, "SignedRecord")
    (name, body), body_bytes = _BODY.read(value, start)
    start += len(body_bytes)
    signature = take_fixed(value, start, 64, "signature")
    evidence, binding_bytes, evidence_bytes, start = read_evidence(value, start + 64)
    reason, reason_bytes = NO_EVIDENCE.read(value, start)
    finish(value, start + len(reason_bytes))
    kind: type[WindowReport | ControlRecord] = WindowReport if name == _NAMESPACE + "WindowReport" else ControlRecord
    preimage = record_preimage(body_bytes)
    return DecodedRecord(
        body=from_avro(kind, body),
        signature=signature,
        evidence=evidence,
        preimage=preimage,
        digest=record_digest(preimage),
        binding_bytes=binding_bytes,
        evidence_bytes=evidence_bytes,
        evidence_absent_reason=reason,
    )


def signed_record(decoded: DecodedRecord) -> SignedRecord:
    """The typed record of a decoded value, for display."""
    evidence, reason = decoded.evidence, decoded.evidence_absent_reason
    return SignedRecord(
        body=decoded.body, signature=decoded.signature, evidence=evidence, evidence_absent_reason=reason
    )


def encode_signed_output(
    output_bytes: bytes, signature: bytes, worker: WorkerIdentity, framing: Framing = SINGLE_OBJECT
) -> bytes:
    """Framed value of the output topic."""
    return framing.prefix("SignedFleetPower") + output_bytes + signature + _WORKER.write(to_avro(worker))


def decode_signed_output(value: bytes, framing: Framing = SINGLE_OBJECT) -> tuple[SignedFleetPower, bytes]:
    """Decode a value of the output topic; returns it with the pre-image of its signature. Raises SchemaError."""
    start = _expect(framing, value, "SignedFleetPower")
    output, output_bytes = _OUTPUT.read(value, start)
    start += len(output_bytes)
    signature = take_fixed(value, start, 64, "signature")
    worker, worker_bytes = _WORKER.read(value, start + 64)
    finish(value, start + 64 + len(worker_bytes))
    record = SignedFleetPower(
        output=from_avro(FleetPower, output), signature=signature, worker=from_avro(WorkerIdentity, worker)
    )
    return record, output_preimage(output_bytes)


def encode_signed_manifest(
    manifest_bytes: bytes, signature: bytes, session_id: bytes, framing: Framing = SINGLE_OBJECT
) -> bytes:
    """Framed value of the manifests topic."""
    return framing.prefix("SignedWindowManifest") + manifest_bytes + signature + session_id


def decode_signed_manifest(value: bytes, framing: Framing = SINGLE_OBJECT) -> tuple[SignedWindowManifest, bytes]:
    """Decode a value of the manifests topic; returns it with the pre-image of its signature. Raises SchemaError."""
    start = _expect(framing, value, "SignedWindowManifest")
    manifest, manifest_bytes = _MANIFEST.read(value, start)
    start += len(manifest_bytes)
    signature = take_fixed(value, start, 64, "signature")
    session_id = take_fixed(value, start + 64, 32, "session_id")
    finish(value, start + 64 + 32)
    record = SignedWindowManifest(
        manifest=from_avro(WindowManifest, manifest), signature=signature, session_id=session_id
    )
    return record, manifest_preimage(manifest_bytes)


def encode_signed_policy(
    policy_bytes: bytes, signature: bytes, signer_public_key: bytes, framing: Framing = SINGLE_OBJECT
) -> bytes:
    """Framed value of the policy topic."""
    return framing.prefix("SignedPolicy") + policy_bytes + signature + _SIGNER.write(signer_public_key)


def decode_signed_policy(value: bytes, framing: Framing = SINGLE_OBJECT) -> tuple[SignedPolicy, bytes]:
    """Decode a value of the policy topic; returns it with the pre-image of its signature. Raises SchemaError."""
    start = _expect(framing, value, "SignedPolicy")
    policy, policy_bytes = _POLICY.read(value, start)
    start += len(policy_bytes)
    signature = take_fixed(value, start, 64, "signature")
    signer, signer_bytes = _SIGNER.read(value, start + 64)
    finish(value, start + 64 + len(signer_bytes))
    record = SignedPolicy(policy=from_avro(Policy, policy), signature=signature, signer_public_key=signer)
    return record, policy_preimage(policy_bytes)


def encode_signed_beacon(beacon_bytes: bytes, signature: bytes, framing: Framing = SINGLE_OBJECT) -> bytes:
    """Framed value of the beacons topic."""
    return framing.prefix("SignedBeacon") + beacon_bytes + signature


def decode_signed_beacon(value: bytes, framing: Framing = SINGLE_OBJECT) -> tuple[SignedBeacon, bytes]:
    """Decode a value of the beacons topic; returns it with the pre-image of its signature. Raises SchemaError."""
    start = _expect(framing, value, "SignedBeacon")
    beacon, taken = _BEACON.read(value, start)
    end = start + len(taken)
    signature = take_fixed(value, end, 64, "signature")
    finish(value, end + 64)
    return SignedBeacon(beacon=from_avro(Beacon, beacon), signature=signature), beacon_preimage(taken)


def decode_any(value: bytes, framing: Framing = SINGLE_OBJECT) -> Any:
    """Decode a value of any of our topics into its typed record. Raises SchemaError."""
    name = framing.unframe(value)[0].name
    if name == "SignedRecord":
        return signed_record(decode_signed_record(value, framing))
    if name == "SignedFleetPower":
        return decode_signed_output(value, framing)[0]
    if name == "SignedWindowManifest":
        return decode_signed_manifest(value, framing)[0]
    if name == "SignedPolicy":
        return decode_signed_policy(value, framing)[0]
    if name == "SignedBeacon":
        return decode_signed_beacon(value, framing)[0]
    if name == "CollateralItem":
        return decode_collateral(value, framing)
    raise SchemaError(f"{name} is not the value of a topic this release reads", code="SCHEMA_UNKNOWN")


def encode_collateral(item: CollateralItem, framing: Framing = SINGLE_OBJECT) -> bytes:
    """Framed value of the collateral topic."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, _COLLATERAL, to_avro(item))
    return framing.prefix("CollateralItem") + out.getvalue()


def decode_collateral(value: bytes, framing: Framing = SINGLE_OBJECT) -> CollateralItem:
    """Decode a value of the collateral topic. Raises SchemaError."""
    start = _expect(framing, value, "CollateralItem")
    finish(value, _COLLATERAL_SCAN.end(value, start, "collateral"))
    read: Any = fastavro.schemaless_reader  # its annotations are wider than a record's
    try:
        return from_avro(CollateralItem, read(io.BytesIO(value[start:]), _COLLATERAL, None))
    except Exception as error:  # as in _Part.read
        raise SchemaError(f"collateral: {type(error).__name__}: {error}"[:300], field="collateral") from error
