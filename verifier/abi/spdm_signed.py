"""SPDM's signed exchanges: CHALLENGE, GET_MEASUREMENTS and the measurement record (DSP0274 §10.8, §10.11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, Self

from verifier.abi.spdm_algorithms import DMTF_MEASUREMENTS, Suite
from verifier.abi.spdm_fields import (
    CHALLENGE,
    CHALLENGE_AUTH,
    CONTEXT_BYTES,
    GET_MEASUREMENTS,
    MAX_SLOT,
    MEASUREMENTS,
    NONCE_BYTES,
    VERSION_10,
    VERSION_11,
    VERSION_12,
    VERSION_13,
    Fields,
    Header,
    begin,
    unsigned,
)
from verifier.errors import SpdmMalformed, SpdmMeasurements, SpdmUnsupported

NO_SUMMARY, TCB_SUMMARY, ALL_SUMMARY = 0x00, 0x01, 0xFF
"""Measurement summary hash types of CHALLENGE: none, the TCB's (immutable ROM) measurements, all."""

COUNT_ONLY, ALL_MEASUREMENTS = 0x00, 0xFF
"""Operations of GET_MEASUREMENTS that are no index: how many indices there are, every block."""

SIGN, RAW_BIT_STREAM_REQUESTED = 0x01, 0x02
"""Attributes of GET_MEASUREMENTS."""

INDEX_MANIFEST, INDEX_DEVICE_MODE = 0xFD, 0xFE
"""Indices whose sense is fixed from 1.2 on: measurement manifest and device mode."""

CONTENT_CHANGED = 0x10
"""Bits 4 and 5 of param2 (1.2 and later): 0 nothing detected, 0x10 changed, 0x20 no change detected."""

RAW_BIT_STREAM = 0x80
IMMUTABLE_ROM = 0
DEVICE_MODE = 5
VALUE_NAMES = (
    "immutable_rom", "mutable_firmware", "hardware_configuration", "firmware_configuration", "measurement_manifest",
    "device_mode", "firmware_version", "secure_version_number", "hash_extended", "informational",
    "structured_manifest",
)  # fmt: skip
"""What a measured value is, by bits 0 to 6 of its type."""

_BLOCK_HEADER_BYTES = 4
_VALUE_HEADER_BYTES = 3
_DEVICE_MODE_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """CHALLENGE (0x83): nonce of 32 bytes; from 1.3 on a context of 8 that comes back. 36 or 44 bytes.

    `summary` is the type of measurement summary hash asked for: 0, 1 or 0xFF.
    """

    version: int
    slot: int
    nonce: bytes
    summary: int = NO_SUMMARY
    context: bytes = b""

    def encode(self) -> bytes:
        """36 or 44 bytes. `ValueError` on a nonce or context of another size than the version's."""
        sized = _sized(self.nonce, NONCE_BYTES) + _sized(self.context, context_bytes(self.version))
        return Header(self.version, CHALLENGE, self.slot, self.summary).encode() + sized

    @classmethod
    def read(cls, data: bytes) -> tuple[Self, int]:
        """The message at the front of `data` and its bytes. `SpdmMalformed`, `SpdmUnsupported`."""
        header, fields = begin(data, CHALLENGE, "CHALLENGE")
        if header.param1 == 0xFF:
            raise SpdmUnsupported("CHALLENGE: a key without a certificate", field="CHALLENGE.slot")
        if header.param1 > MAX_SLOT:
            raise SpdmMalformed(f"CHALLENGE: slot {header.param1}", field="CHALLENGE.slot")
        if header.param2 not in (NO_SUMMARY, TCB_SUMMARY, ALL_SUMMARY):
            raise SpdmMalformed(f"CHALLENGE: summary type {header.param2:#04x}", field="CHALLENGE.param2")
        nonce = fields.take(NONCE_BYTES, "nonce")
        context = fields.take(context_bytes(header.version), "context")
        message = cls(version=header.version, slot=header.param1, nonce=nonce, summary=header.param2, context=context)
        return message, fields.offset


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengeAuth:
    """CHALLENGE_AUTH (0x03): hash of the slot's chain, the responder's nonce, and the signature over the transcript.

    `slot_mask` names the slots that have a chain, `attributes` are the upper four bits of param1 (bit 7: the responder
    wants the requester to authenticate itself, 1.1). `summary_hash` is empty where none was asked for.
    """

    version: int
    slot: int
    slot_mask: int
    chain_hash: bytes
    nonce: bytes
    summary_hash: bytes = b""
    opaque: bytes = b""
    context: bytes = b""
    signature: bytes = b""
    attributes: int = 0

    def encode(self) -> bytes:
        """The message with its signature."""
        head = Header(self.version, CHALLENGE_AUTH, self.slot | self.attributes, self.slot_mask).encode()
        body = self.chain_hash + _sized(self.nonce, NONCE_BYTES) + self.summary_hash
        tail = unsigned(len(self.opaque), 2) + self.opaque + _sized(self.context, context_bytes(self.version))
        return head + body + tail + self.signature

    @classmethod
    def read(cls, data: bytes, suite: Suite, request: Challenge) -> tuple[Self, int]:
        """The answer to `request` at the front of `data` and its bytes. `SpdmMalformed`."""
        header, fields = begin(data, CHALLENGE_AUTH, "CHALLENGE_AUTH")
        chain_hash = fields.take(suite.hash_bytes, "chain_hash")
        nonce = fields.take(NONCE_BYTES, "nonce")
        summary = fields.take(suite.hash_bytes if request.summary != NO_SUMMARY else 0, "summary_hash")
        opaque = fields.take(fields.number(2, "opaque_length"), "opaque")
        context = fields.take(context_bytes(suite.version), "context")
        message = cls(
            version=header.version, slot=header.param1 & 0x0F, slot_mask=header.param2, chain_hash=chain_hash,
            nonce=nonce, summary_hash=summary, opaque=opaque, context=context,
            signature=fields.take(suite.signature_bytes, "signature"), attributes=header.param1 & 0xF0,
        )  # fmt: skip
        return message, fields.offset


@dataclass(frozen=True, slots=True, kw_only=True)
class GetMeasurements:
    """GET_MEASUREMENTS (0xE0): one index, all (0xFF) or their number (0).

    With `signed`, a nonce of 32 bytes follows, and from 1.1 on the slot whose key shall sign; without, both are empty
    and 0. From 1.3 on a context of 8 bytes follows in either case.
    """

    version: int
    operation: int
    signed: bool = False
    nonce: bytes = b""
    slot: int = 0
    context: bytes = b""
    other_attributes: int = 0

    def encode(self) -> bytes:
        """4, 36, 37 or 45 bytes; 12 without a signature from 1.3 on."""
        attributes = self.other_attributes | (SIGN if self.signed else 0)
        head = Header(self.version, GET_MEASUREMENTS, attributes, self.operation).encode()
        asked = _sized(self.nonce, NONCE_BYTES if self.signed else 0)
        if self.signed and self.version >= VERSION_11:
            asked += unsigned(self.slot, 1)
        return head + asked + _sized(self.context, context_bytes(self.version))

    @classmethod
    def read(cls, data: bytes) -> tuple[Self, int]:
        """The message at the front of `data` and its bytes. `SpdmMalformed`."""
        header, fields = begin(data, GET_MEASUREMENTS, "GET_MEASUREMENTS")
        signed = bool(header.param1 & SIGN)
        nonce = fields.take(NONCE_BYTES if signed else 0, "nonce")
        slot = fields.number(1, "slot") if signed and header.version >= VERSION_11 else 0
        if slot == 0x0F:
            raise SpdmUnsupported("GET_MEASUREMENTS: a key without a certificate", field="GET_MEASUREMENTS.slot")
        if slot > MAX_SLOT:
            raise SpdmMalformed(f"GET_MEASUREMENTS: slot {slot}", field="GET_MEASUREMENTS.slot")
        message = cls(
            version=header.version, operation=header.param2, signed=signed, nonce=nonce, slot=slot,
            context=fields.take(context_bytes(header.version), "context"), other_attributes=header.param1 & ~SIGN,
        )  # fmt: skip
        return message, fields.offset


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementBlock:
    """One measurement in DMTF's format: `index` 1 to 254, `type` as in the message, `value` a digest or raw bytes."""

    index: int
    type: int
    value: bytes

    @property
    def raw(self) -> bool:
        """Whether `value` is a bit stream rather than a digest."""
        return bool(self.type & RAW_BIT_STREAM)

    @property
    def kind(self) -> str:
        """What is measured."""
        number = self.type & 0x7F
        return VALUE_NAMES[number] if number < len(VALUE_NAMES) else f"type_{number}"

    def encode(self) -> bytes:
        """7 bytes and the value."""
        value = unsigned(self.type, 1) + unsigned(len(self.value), 2) + self.value
        return unsigned(self.index, 1) + unsigned(DMTF_MEASUREMENTS, 1) + unsigned(len(value), 2) + value


@dataclass(frozen=True, slots=True)
class DeviceMode:
    """The device mode of block 254 (1.2 and later): four bit fields, capabilities and states."""

    operational_capabilities: int
    operational_state: int
    mode_capabilities: int
    mode_state: int

    @property
    def debug_active(self) -> bool:
        """Whether a debug mode is active, invasive or not (bits 0 and 1 of the mode's state)."""
        return bool(self.mode_state & 0x3)

    @property
    def debug_seen(self) -> bool:
        """Whether one has been active since the last reset, or since manufacturing (bits 2 to 4)."""
        return bool(self.mode_state & 0x1C)


def device_mode_of(blocks: Sequence[MeasurementBlock]) -> DeviceMode | None:
    """The device mode among `blocks`, None where there is none, or none of 16 bytes."""
    for block in blocks:
        is_mode = (block.index, block.type) == (INDEX_DEVICE_MODE, DEVICE_MODE | RAW_BIT_STREAM)
        if is_mode and len(block.value) == _DEVICE_MODE_BYTES:
            return DeviceMode(*(int.from_bytes(block.value[at : at + 4], "little") for at in range(0, 16, 4)))
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """MEASUREMENTS (0x60): `count` blocks in `record` (see `parse_record`), the responder's nonce, the signature.

    `total` (param1) is the number of indices where that was asked for. `content_changed` are bits 4 and 5 of param2
    (1.2 and later). The nonce is there in any case, the signature only where one was asked for.
    """

    version: int
    count: int
    record: bytes
    nonce: bytes
    slot: int = 0
    total: int = 0
    content_changed: int = 0
    opaque: bytes = b""
    context: bytes = b""
    signature: bytes = b""
    reserved: int = 0

    def encode(self) -> bytes:
        """The message with its signature."""
        param2 = self.slot | self.content_changed | self.reserved
        head = Header(self.version, MEASUREMENTS, self.total, param2).encode()
        body = unsigned(self.count, 1) + unsigned(len(self.record), 3) + self.record
        tail = unsigned(len(self.opaque), 2) + self.opaque + _sized(self.context, context_bytes(self.version))
        return head + body + _sized(self.nonce, NONCE_BYTES) + tail + self.signature

    @classmethod
    def read(cls, data: bytes, suite: Suite, request: GetMeasurements) -> tuple[Self, int]:
        """The answer to `request` at the front of `data` and its bytes. `SpdmMalformed`."""
        header, fields = begin(data, MEASUREMENTS, "MEASUREMENTS")
        count, size = fields.number(1, "count"), fields.number(3, "record_length")
        record = fields.take(size, "record")
        nonce = fields.take(NONCE_BYTES, "nonce")
        opaque = fields.take(fields.number(2, "opaque_length"), "opaque")
        context = fields.take(context_bytes(suite.version), "context")
        changed = header.param2 & 0x30 if suite.version >= VERSION_12 else 0
        slot = header.param2 & 0x0F if suite.version > VERSION_10 else 0
        message = cls(
            version=header.version, count=count, record=record, nonce=nonce, slot=slot, total=header.param1,
            content_changed=changed, opaque=opaque, context=context,
            signature=fields.take(suite.signature_bytes if request.signed else 0, "signature"),
            reserved=header.param2 & ~(slot | changed),
        )  # fmt: skip
        return message, fields.offset


def parse_record(record: bytes, count: int, suite: Suite) -> tuple[MeasurementBlock, ...]:
    """The `count` blocks that make up all of `record`, as they stand. `SpdmMeasurements`, `SpdmUnsupported`.

    Every block has the format that was negotiated, an index of its own, and sizes that agree; a digest has the length
    of the negotiated measurement hash.
    """
    fields, found, seen = Fields(record, "record"), [], set()
    for _ in range(count):
        block = _block(fields, suite)
        if not 0 < block.index < ALL_MEASUREMENTS or block.index in seen:
            _refuse(f"index {block.index} stands twice or is none", "index")
        seen.add(block.index)
        found.append(block)
    if fields.remaining:
        _refuse(f"{fields.remaining} bytes after {count} blocks", "record")
    return tuple(found)


def _block(fields: Fields, suite: Suite) -> MeasurementBlock:
    if fields.remaining < _BLOCK_HEADER_BYTES + _VALUE_HEADER_BYTES:
        _refuse(f"{fields.remaining} bytes are no block", "record")
    index, specification = fields.number(1, "index"), fields.number(1, "specification")
    size = fields.number(2, "size")
    if specification != DMTF_MEASUREMENTS or suite.measurement_specification != DMTF_MEASUREMENTS:
        raise SpdmUnsupported(
            f"block {index}: measurement specification {specification:#04x}", field="MEASUREMENTS.specification"
        )
    kind, length = fields.number(1, "type"), fields.number(2, "value_size")
    if size != _VALUE_HEADER_BYTES + length or length > fields.remaining:
        _refuse(f"block {index}: {size} bytes hold a value of {length}, {fields.remaining} are left", "size")
    block = MeasurementBlock(index=index, type=kind, value=fields.take(length, "value"))
    if not block.raw and length != suite.measurement_hash_bytes:
        _refuse(f"block {index}: a digest of {length} bytes, {suite.measurement_hash_bytes} were negotiated", "value")
    return block


def context_bytes(version: int) -> int:
    """Bytes of the requester context in messages of `version`: 8 from 1.3 on, else 0."""
    return CONTEXT_BYTES if version >= VERSION_13 else 0


def _sized(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise ValueError(f"{len(value)} bytes instead of {size}")
    return value


def _refuse(why: str, field: str) -> NoReturn:
    raise SpdmMeasurements(why, field=f"MEASUREMENTS.{field}")
