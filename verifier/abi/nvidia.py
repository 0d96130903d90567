"""NVIDIA attestation reports as NVML and NSCQ return them: an SPDM 1.1 request and its response (ATTESTATION.md §9.1).

    request   11 E0 01 FF | nonce:32 | slot:1                                                      37 bytes
    response  11 60 p1 p2 | blocks:1 | record length:3 | record | nonce:32 | opaque length:2 | opaque | signature:96

What is signed is every byte of both but the signature. Strict: no byte that is not accounted for, the number of blocks
and all lengths agree, no block index and no opaque type twice.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from verifier.abi.nvidia_opaque import OpaqueField, parse_opaque
from verifier.errors import NvidiaReportMalformed
from verifier.limits import MAX_NVIDIA_REPORT_BYTES

NONCE_BYTES = 32
SIGNATURE_BYTES = 96
"""ECDSA P-384, r‖s big-endian."""

SHA384_BYTES = 48
REQUEST_BYTES = 37
ALL_BLOCKS = 0xFF

_VERSION_11, _GET_MEASUREMENTS, _MEASUREMENTS, _SIGN = 0x11, 0xE0, 0x60, 0x01
_DMTF, _RAW_BIT = 1, 0x80
_MAX_SLOT, _SLOT_MASK = 7, 0x0F
_BLOCK_HEAD = struct.Struct("<BBHBH")
"""index, specification, size of what follows; DMTF type, size of the value."""

_OUTER_BYTES = 4
_LAST_INDEX = 0xEF
"""SPDM reserves the indices above for other uses (DSP0274: 0xF0 to 0xFF)."""


class MeasurementBlock(NamedTuple):
    """A measurement: its `number` from 1, DMTF `value_type` (bit 7: raw bits, else a digest of 48 bytes), `value`."""

    number: int
    value_type: int
    value: bytes

    @property
    def is_digest(self) -> bool:
        """Whether the value is a SHA-384 digest, not a raw bit stream."""
        return not self.value_type & _RAW_BIT

    def encode(self) -> bytes:
        """index:1 | specification:1 | size:2 | type:1 | value size:2 | value."""
        size = len(self.value)
        head = bytes([self.number, _DMTF]) + (size + 3).to_bytes(2, "little")
        return head + bytes([self.value_type]) + size.to_bytes(2, "little") + self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class NvidiaReport:
    """A parsed report; nothing in it is verified yet. `nonce` is the verifier's, `responder_nonce` the device's own.

    `param1` and `param2` are the response's; the low nibble of `param2` is the slot, the same as the request's.
    """

    nonce: bytes
    slot: int
    param1: int
    param2: int
    blocks: tuple[MeasurementBlock, ...]
    responder_nonce: bytes
    opaque: tuple[OpaqueField, ...]
    signature: bytes

    def encode(self) -> bytes:
        """The report's bytes."""
        return self.signed_bytes() + self.signature

    def signed_bytes(self) -> bytes:
        """What the device's key signs: request ‖ response without its signature."""
        record = b"".join(block.encode() for block in self.blocks)
        opaque = b"".join(field.encode() for field in self.opaque)
        return b"".join([
            bytes([_VERSION_11, _GET_MEASUREMENTS, _SIGN, ALL_BLOCKS]), self.nonce, bytes([self.slot]),
            bytes([_VERSION_11, _MEASUREMENTS, self.param1, self.param2, len(self.blocks)]),
            len(record).to_bytes(3, "little"), record, self.responder_nonce,
            len(opaque).to_bytes(2, "little"), opaque,
        ])  # fmt: skip

    def measurements(self) -> dict[int, bytes]:
        """Values by block index."""
        return {block.number: block.value for block in self.blocks}

    def opaque_value(self, kind: int) -> bytes | None:
        """The value of the opaque field of that type, None if there is none."""
        return next((field.value for field in self.opaque if field.kind == kind), None)


class _Cursor:
    """Takes fields off the front of a report; what would reach beyond its end raises `NvidiaReportMalformed`."""

    __slots__ = ("data", "offset")

    def __init__(self, data: bytes) -> None:
        self.data, self.offset = data, 0

    def take(self, size: int, field: str) -> bytes:
        start, left = self.offset, len(self.data) - self.offset
        if size > left:
            raise NvidiaReportMalformed(f"{field}: needs {size} bytes, {left} are left", field=field)
        self.offset += size
        return self.data[start : self.offset]

    def number(self, size: int, field: str) -> int:
        return int.from_bytes(self.take(size, field), "little")


def parse_nvidia_report(data: bytes) -> NvidiaReport:
    """The report of exactly `data`. Raises `NvidiaReportMalformed`."""
    if len(data) > MAX_NVIDIA_REPORT_BYTES:
        raise NvidiaReportMalformed(
            f"a report of {len(data)} bytes, at most {MAX_NVIDIA_REPORT_BYTES}", field="attestation_report"
        )
    cursor = _Cursor(data)
    check_request_header(cursor.take(4, "request"))
    nonce = cursor.take(NONCE_BYTES, "request.nonce")
    slot = cursor.number(1, "request.slot")
    header = cursor.take(4, "response")
    check_response_header(header)
    check_slots(slot, header[3])
    count = cursor.number(1, "response.blocks")
    record = cursor.take(cursor.number(3, "response.record_length"), "response.record")
    blocks = _blocks(record, count)
    responder_nonce = cursor.take(NONCE_BYTES, "response.nonce")
    opaque = parse_opaque(cursor.take(cursor.number(2, "response.opaque_length"), "response.opaque"))
    signature = cursor.take(SIGNATURE_BYTES, "response.signature")
    if cursor.offset != len(data):
        raise NvidiaReportMalformed(f"{len(data) - cursor.offset} bytes too many", field="attestation_report")
    return NvidiaReport(
        nonce=nonce,
        slot=slot,
        param1=header[2],
        param2=header[3],
        blocks=blocks,
        responder_nonce=responder_nonce,
        opaque=opaque,
        signature=signature,
    )


def _blocks(record: bytes, count: int) -> tuple[MeasurementBlock, ...]:
    found: list[MeasurementBlock] = []
    at, end = 0, len(record)
    while at < end:
        if end - at < _BLOCK_HEAD.size:
            raise NvidiaReportMalformed("half a block at the end of the record", field="response.record")
        index, specification, size, value_type, value_size = _BLOCK_HEAD.unpack_from(record, at)
        start, stop = at + _BLOCK_HEAD.size, at + _BLOCK_HEAD.size + value_size
        at += _OUTER_BYTES + size
        if stop > at or at > end:
            raise NvidiaReportMalformed(f"block[{index}]: reaches beyond its end", field=f"block[{index}]")
        block = MeasurementBlock(index, value_type, record[start:stop])
        check_block(block, specification, at - stop)
        found.append(block)
    check_block_count(count, len(found))
    check_indices(found)
    return tuple(found)


def check_request_header(header: bytes) -> None:
    """SPDM 1.1, GET_MEASUREMENTS, a signature asked for, of all blocks. `NvidiaReportMalformed`."""
    if header != bytes([_VERSION_11, _GET_MEASUREMENTS, _SIGN, ALL_BLOCKS]):
        raise NvidiaReportMalformed(
            f"request {header.hex()}: not a request of SPDM 1.1 for all measurements, signed", field="request"
        )


def check_response_header(header: bytes) -> None:
    """SPDM 1.1, MEASUREMENTS. `NvidiaReportMalformed`."""
    if header[:2] != bytes([_VERSION_11, _MEASUREMENTS]):
        raise NvidiaReportMalformed(f"response {header[:2].hex()}: not MEASUREMENTS of SPDM 1.1", field="response")


def check_slots(asked: int, answered: int) -> None:
    """The certificate slot asked for, 0 to 7, is the one that signed. `NvidiaReportMalformed`."""
    if asked > _MAX_SLOT or answered & _SLOT_MASK != asked:
        raise NvidiaReportMalformed(f"slot {asked} asked for, parameter {answered:#04x}", field="request.slot")


def check_block(block: MeasurementBlock, specification: int, left: int) -> None:
    """A block as DMTF defines it, nothing left in it, a digest of SHA-384's size. `NvidiaReportMalformed`."""
    size = len(block.value)
    if specification != _DMTF:
        why = f"measurement specification {specification}"
    elif left:
        why = f"{left} bytes behind its value"
    elif not 1 <= block.number <= _LAST_INDEX:
        why = "no index of a measurement"
    elif not size or (size != SHA384_BYTES and block.is_digest):
        why = f"a value of {size} bytes"
    else:
        return
    raise NvidiaReportMalformed(f"block[{block.number}]: {why}", field=f"block[{block.number}]")


def check_block_count(said: int, found: int) -> None:
    """As many blocks as the response says. `NvidiaReportMalformed`."""
    if said != found or not found:
        raise NvidiaReportMalformed(f"{said} blocks announced, {found} found", field="response.blocks")


def check_indices(blocks: list[MeasurementBlock]) -> None:
    """No index twice. `NvidiaReportMalformed`."""
    if len({block.number for block in blocks}) != len(blocks):
        raise NvidiaReportMalformed("a measurement index stands twice", field="response.record")
