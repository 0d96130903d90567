"""Hostile reports: bytes, lengths, opaque data, signatures, nonces."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.forge.nvidia.judge import EVERYTHING, Case
from tests.forge.nvidia.world import BLACKWELL, HOPPER, LS10, NONCE, World, another, block, field_of, value_of

OTHER_NONCE = hashlib.sha256(b"another challenge").digest()
P384_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973


def case(name: str, code: str, step: str | None, world: World, **changes: Any) -> Case:
    return Case(name=name, code=code, step=step, world=world.but(**changes))


def malformed(name: str, step: str | None, world: World = HOPPER, **changes: Any) -> Case:
    return case(name, "NVIDIA_REPORT_MALFORMED", step, world, **changes)


def unsigned(name: str, world: World = HOPPER, step: str | None = "report_signature", **changes: Any) -> Case:
    return case(name, "NVIDIA_REPORT_SIGNATURE", step, world, **changes)


def overwritten(at: int, new: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + new + data[at + len(new) :]


def swapped(signature: bytes) -> bytes:
    return signature[48:] + signature[:48]


def little(signature: bytes) -> bytes:
    return signature[:48][::-1] + signature[48:][::-1]


def without_request(data: bytes) -> bytes:
    return data[37:]


FIELD_BYTES = 4
RECORD_AT = 45
OPAQUE_FROM_END = 96 + 200

BYTES = [
    malformed("no bytes", None, report=lambda data: b""),
    malformed("request alone", None, report=lambda data: data[:37]),
    malformed("cut by one byte", None, report=lambda data: data[:-1]),
    malformed("without its signature", None, report=lambda data: data[:-96]),
    malformed("a byte too many", None, report=lambda data: data + b"\x00"),
    malformed("two reports", None, report=lambda data: data + data),
    malformed("a report of 9 KB", None, report=lambda data: data + bytes(5000)),
    malformed("hexadecimal text", None, report=lambda data: data.hex().encode()),
    malformed("8 signed bytes between opaque data and signature", None, between=bytes(8)),
    malformed("96 signed bytes between opaque data and signature", None, between=b"\x01" * 96),
    malformed("request of SPDM 1.2", "request_header", request=bytes.fromhex("12e001ff")),
    malformed("request for a challenge", "request_header", request=bytes.fromhex("118301ff")),
    malformed("no signature asked for", "request_header", request=bytes.fromhex("11e000ff")),
    malformed("one block asked for", "request_header", LS10, request=bytes.fromhex("11e00101")),
    malformed("response of SPDM 1.2", "response_header", response=bytes.fromhex("12600000")),
    malformed("CHALLENGE_AUTH in the response's place", "response_header", response=bytes.fromhex("11030000")),
    malformed("an error response", "response_header", BLACKWELL, response=bytes.fromhex("117f0000")),
    malformed("another slot answers", "slots", response=bytes.fromhex("11600001")),
    malformed("slot 9", "slots", slot=9, response=bytes.fromhex("11600009")),
    malformed("63 blocks announced", "block_count", block_count=63),
    malformed("255 blocks announced", "block_count", LS10, block_count=255),
    malformed("no block at all", None, number_of_blocks=0),
    malformed("record length beyond the report", None, record_length=0xFFFFFF),
    malformed("record length of zero", None, record_length=0),
    malformed("record length one short", None, record_length=64 * 55 - 1),
    malformed("a block larger than the record", None, blocks={64: b"\x40\x01\xff\xff" + bytes(51)}),
    malformed("a value larger than its block", None, blocks={7: block(7, bytes(48), size=0xFFFF)}),
    malformed("a value smaller than its block", "block", blocks={50: block(50, bytes(48), tail=b"\x01\x02")}),
    malformed("a block of no bytes", None, blocks={50: b"\x32\x01\x00\x00"}),
    malformed("another measurement specification", "block", blocks={50: block(50, bytes(48), spec=2)}),
    malformed("index 0", "block", blocks={50: block(0, bytes(48))}),
    malformed("index 255", "block", blocks={50: block(255, bytes(48))}),
    malformed("a digest of 32 bytes", "block", blocks={50: block(50, bytes(32))}),
    malformed("an empty value", "block", blocks={50: block(50, b"", kind=0x81)}),
    malformed("an index twice", "indices", blocks={50: block(51, bytes(48))}),
    malformed("an index twice, the second genuine", "indices", blocks={64: block(1, value_of(1))}),
]  # fmt: skip

OPAQUE = [
    malformed("opaque length beyond the report", None, opaque_length=0xFFFF),
    malformed("opaque length of zero", None, opaque_length=0),
    malformed("a field longer than the opaque data", None,
              raw_opaque=lambda data: field_of(3, b"550")[:2] + b"\xf4\x01550"),
    malformed("half a field's head", None, raw_opaque=lambda data: data + b"\x19\x00\x01"),
    malformed("an opaque type twice", "opaque_types", raw_opaque=lambda data: data + field_of(14, b"\x07")),
    malformed("a second driver version", None, raw_opaque=lambda data: data + field_of(3, b"999.99\x00")),
    malformed("a thousand opaque fields", None,
              raw_opaque=lambda data: b"".join(field_of(1000 + at, b"") for at in range(1000))),
    malformed("driver version that is no text", None, opaque={3: b"550.90\xff\x00"}),
    malformed("driver version with something behind its end", None, opaque={3: b"550.90.07\x00999.99.99"}),
    malformed("driver version of 200 characters", None, opaque={3: b"5" * 200}),
    malformed("driver version with a line break", None, opaque={3: b"550\n90"}),
    malformed("VBIOS version of 9 bytes", None, opaque={6: bytes(9)}),
    malformed("VBIOS version with a sixth byte", None, opaque={6: bytes.fromhex("009f009601010000")}),
    malformed("VBIOS version of a switch that is no text", None, LS10, opaque={6: b"\x00\x9f\x00\x96\x01"}),
    malformed("FWID of 32 bytes", None, opaque={20: bytes(32)}),
    malformed("NVDEC0 neither enabled nor disabled", None, opaque={11: b"\x00"}),
    malformed("NVDEC0 status of two bytes", None, opaque={11: b"\xaa\x55"}),
    malformed("protected PCIe in no state", None, opaque={21: b"\x01"}),
    malformed("switch ids of 9 bytes", None, opaque={22: bytes(9)}),
    malformed("no switch id", None, LS10, opaque={22: b""}),
    malformed("a switch with two ids", None, LS10, opaque={22: b"\x01" * 16}),
    malformed("a switch's links in 8 bytes", None, LS10, opaque={26: b"\x01" * 8}),
    malformed("feature flag of 9 bytes", None, opaque={36: bytes(9)}),
    malformed("measurement counts of 5 bytes", None, opaque={12: bytes(5)}),
]  # fmt: skip

SIGNATURES = [
    unsigned("signed with SHA-256", signing=("", "sha256")),
    unsigned("signed by the boot ROM", signing=("nvidia brom", "sha384")),
    unsigned("signed by a stranger", LS10, signing=("stranger", "sha384")),
    unsigned("r and s exchanged", signature=swapped),
    unsigned("r and s little-endian", BLACKWELL, signature=little),
    unsigned("a signature of zeros", signature=lambda old: bytes(96)),
    unsigned("a signature of ones", signature=lambda old: b"\xff" * 96),
    unsigned("s plus the order", signature=lambda old: old[:48] + bytes(48)),
    unsigned("response signed without the request", signed=without_request),
    unsigned("a measurement changed", report=overwritten(RECORD_AT + 7 + 50 * 55, b"\x01")),
    unsigned("response parameter changed", report=overwritten(39, b"\x01")),
    unsigned("the nonce of another challenge written in", nonce=OTHER_NONCE, report=overwritten(4, NONCE)),
    unsigned("another device's report", chain=lambda chain: another(HOPPER, 1).mint().chain, step=None),
    unsigned("a report of the leaf's former key", step="report_signature", signing=("nvidia leaf 1", "sha384")),
    unsigned("a driver version changed", report=lambda data: data.replace(b"550.90.07", b"550.90.08"), rims=(),
             step=None),
]  # fmt: skip


def challenge(name: str, world: World = HOPPER, step: str | None = "nonce", **changes: Any) -> Case:
    return Case(name=name, code="NONCE_MISMATCH", step=step, world=world, **changes)


NONCES = [
    challenge("another nonce", HOPPER.but(nonce=OTHER_NONCE)),
    challenge("a nonce of zeros in the report", HOPPER.but(nonce=bytes(32))),
    challenge("the public sample nonce",
              HOPPER.but(nonce=bytes.fromhex("931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb"))),
    challenge("the nonce hashed once more", BLACKWELL.but(nonce=hashlib.sha256(NONCE).digest())),
    challenge("the nonce backwards", HOPPER.but(nonce=NONCE[::-1])),
    challenge("the nonce as the responder's", LS10.but(nonce=OTHER_NONCE, responder_nonce=NONCE)),
    challenge("one bit of the nonce", HOPPER.but(nonce=bytes([NONCE[0] ^ 1]) + NONCE[1:])),
    challenge("a nonce of zeros demanded and delivered", HOPPER.but(nonce=bytes(32)), nonce=bytes(32)),
    challenge("31 bytes demanded", HOPPER, nonce=NONCE[:31]),
    challenge("a second GPU's report was made for another host", beside=(another(HOPPER, 1, nonce=OTHER_NONCE),)),
    Case(name="no nonce demanded", code="NONCE_UNCHECKED", step="NonceDemanded", world=HOPPER, nonce=None),
    Case(name="a switch asked for, a GPU delivered", code="DEVICE_KIND", step="kind", world=HOPPER, kind="switch"),
    Case(name="a GPU asked for, a switch delivered", code="DEVICE_KIND", step="kind", world=LS10, kind="gpu"),
]  # fmt: skip

GENUINE = [
    Case(name="a raw measurement", code="", step=None, world=HOPPER.but(blocks={50: block(50, b"raw", kind=0x81)})),
    Case(name="blocks out of order", code="", step=None,
         world=HOPPER.but(blocks={50: block(51, bytes(48)), 51: block(50, bytes(48))})),
    Case(name="slot 3", code="", step=None, world=HOPPER.but(slot=3, response=bytes.fromhex("11600003"))),
    Case(name="the other s", code="", step=None, world=LS10.but(
        signature=lambda old: old[:48] + (P384_ORDER - int.from_bytes(old[48:], "big")).to_bytes(48, "big"))),
    Case(name="an opaque type nobody knows", code="", step=None, world=HOPPER.but(opaque={300: b"news"})),
    Case(name="no nonce, under no policy", code="", step=None, world=HOPPER, nonce=None, demands=None),
    Case(name="no FWID, reported", code="", step=None, world=HOPPER.but(opaque={20: None}),
         demands=replace(EVERYTHING, unbound_kinds=("gpu",))),
    Case(name="several GPUs and switches of one host", code="", step=None, world=HOPPER,
         beside=(another(HOPPER, 1), another(LS10, 10)), allow_unattested_switches=True),
]  # fmt: skip

CASES = [*BYTES, *OPAQUE, *SIGNATURES, *NONCES]
