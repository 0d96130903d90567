"""Hostile device chains and DICE extensions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.forge.nvidia.cases_report import case
from tests.forge.nvidia.certificates import CERTS, DATA, issue
from tests.forge.nvidia.judge import Case
from tests.forge.nvidia.world import (
    BLACKWELL,
    BROM,
    FAMILY,
    FIRMWARE,
    HOPPER,
    LEAF,
    LS10,
    NOW,
    PROVISIONER,
    ROOT,
    SHA384_OID,
    World,
    another,
    composite,
    named,
    tcb_info,
)
from verifier.abi import der

STRANGER = replace(ROOT, key="stranger root")
OTHER_FIRMWARE = bytes(47) + b"\x01"


def reordered(*order: int) -> Callable[[tuple[bytes, ...]], tuple[bytes, ...]]:
    return lambda chain: tuple(chain[at] for at in order)


SHAPE = [
    case("no chain", "CERT_CHAIN_INVALID", None, HOPPER, chain=reordered()),
    case("leaf alone", "CERT_CHAIN_INVALID", None, HOPPER, chain=reordered(0)),
    case("leaf and boot ROM", "CERT_CHAIN_INVALID", None, LS10, chain=reordered(0, 1)),
    case("no root", "CERT_CHAIN_INVALID", None, HOPPER, chain=reordered(0, 1, 2, 3)),
    case("no leaf", "CERT_CHAIN_INVALID", None, HOPPER, chain=reordered(1, 2, 3, 4)),
    case("six certificates", "CERT_CHAIN_INVALID", None, HOPPER, chain=reordered(0, 1, 2, 3, 4, 4)),
    case("root first", "CERT_CHAIN_INVALID", None, HOPPER, chain=reordered(4, 3, 2, 1, 0)),
    case("provisioner and family exchanged", "CERT_CHAIN_INVALID", None, HOPPER, chain=reordered(0, 1, 3, 2, 4)),
    case("one certificate twice", "CERT_CHAIN_INVALID", None, BLACKWELL, chain=reordered(0, 1, 2, 2, 4)),
    case("leaf names another issuer", "CERT_CHAIN_INVALID", "names", HOPPER, leaf=replace(LEAF, issuer_name="Other")),
    case("not DER", "CERT_CHAIN_INVALID", None, HOPPER, chain=lambda chain: (b"\x30\x03abc", *chain[1:])),
]  # fmt: skip

TRUST = [
    Case(name="no root is trusted", code="NO_TRUST_ROOTS", step=None, world=HOPPER, trust_roots=lambda roots: []),
    case("foreign root with the same names", "ROOT_UNTRUSTED", "root", HOPPER, trusted=STRANGER),
    case("a stranger's root delivered", "ROOT_UNTRUSTED", None, LS10,
         chain=lambda chain: (*chain[:4], issue(STRANGER))),
    case("leaf signed by a stranger", "CERT_SIGNATURE", "signatures", HOPPER,
         leaf=replace(LEAF, signed_with="stranger")),
    case("boot ROM signed by a stranger", "CERT_SIGNATURE", "signatures", LS10,
         brom=replace(BROM, common_name="LS_10 A01 FSP BROM", signed_with="stranger")),
    case("provisioner signed by the root", "CERT_SIGNATURE", "signatures", HOPPER,
         provisioner=replace(PROVISIONER, signed_with="nvidia root")),
    case("root not signed by itself", "CERT_SIGNATURE", "signatures", HOPPER,
         root=replace(ROOT, signed_with="stranger")),
    case("boot ROM of another device", "CERT_SIGNATURE", None, HOPPER,
         chain=lambda chain: (chain[0], another(HOPPER, 1).mint().chain[1], *chain[2:])),
]  # fmt: skip

CONSTRAINTS = [
    case("provisioner is no CA", "CERT_CONSTRAINT", "constraints", HOPPER,
         provisioner=replace(PROVISIONER, is_ca=False)),
    case("boot ROM without basic constraints", "CERT_CONSTRAINT", "constraints", HOPPER,
         brom=replace(BROM, is_ca=None)),
    case("family allows one CA below", "CERT_CONSTRAINT", "constraints", HOPPER,
         family=replace(FAMILY, path_length=1)),
    case("boot ROM may not sign certificates", "CERT_CONSTRAINT", "constraints", HOPPER,
         brom=replace(BROM, usage=DATA)),
    case("leaf is a CA", "CERT_CONSTRAINT", "constraints", HOPPER, leaf=replace(LEAF, is_ca=True)),
    case("leaf may not sign data", "CERT_CONSTRAINT", "constraints", BLACKWELL,
         leaf=replace(LEAF, common_name="GB100 A01 GSP FMC LF", usage=CERTS)),
    case("critical extension of the leaf", "CERT_CONSTRAINT", "critical", HOPPER,
         leaf=replace(LEAF, extensions=(("1.2.3.4", b"\x05\x00", True),))),
    case("critical extension of the provisioner", "CERT_CONSTRAINT", "critical", HOPPER,
         provisioner=replace(PROVISIONER, extensions=(("1.2.3.4", b"\x05\x00", True),))),
    case("provisioner key on P-256", "CERT_KEY_UNSUPPORTED", "keys", HOPPER,
         provisioner=replace(PROVISIONER, curve="p256", digest="sha384")),
    case("leaf signed with SHA-256", "CERT_KEY_UNSUPPORTED", "keys", HOPPER, leaf=replace(LEAF, digest="sha256")),
]  # fmt: skip


TIMES = [
    case("leaf expired a second ago", "CERT_EXPIRED", "validity", HOPPER, leaf=replace(LEAF, not_after=NOW - 1)),
    case("leaf not yet valid", "CERT_NOT_YET_VALID", "validity", HOPPER, leaf=replace(LEAF, not_before=NOW + 1)),
    case("family expired", "CERT_EXPIRED", "validity", HOPPER, family=replace(FAMILY, not_after=NOW - 1)),
    case("root not yet valid", "CERT_NOT_YET_VALID", "validity", HOPPER, root=replace(ROOT, not_before=NOW + 1)),
]  # fmt: skip

CHIPS = [
    case("leaf of another chip than its boot ROM", "CERT_ROLE_INVALID", "chip_names", HOPPER,
         brom=replace(BROM, common_name="GB100 A01 GSP BROM")),
    case("a chip nobody knows", "NVIDIA_CHIP_UNSUPPORTED", None, named(HOPPER, "GX999")),
    case("no chip at all", "NVIDIA_CHIP_UNSUPPORTED", None, named(HOPPER, "")),
    case("a leaf that is called after no one", "CERT_ROLE_INVALID", None, HOPPER,
         leaf=replace(LEAF, common_name="NVIDIA Device Identity CA")),
]  # fmt: skip


def dice(name: str, code: str, step: str | None, extension: bytes | None, world: World = HOPPER) -> Case:
    return case(name, code, step, world, dice=lambda _: extension)


def one_of(*members: der.Der) -> bytes:
    return der.sequence(*members).encode()


def fwid(oid: bytes, digest: bytes) -> der.Der:
    return der.sequence(der.Der(der.OBJECT_ID, oid), der.octets(digest))


SHA1_OID = bytes.fromhex("2b0e03021a")
GOOD_TCB = tcb_info(FIRMWARE)

DICE = [
    case("FWID of other firmware in the report", "FWID_MISMATCH", "fwid", HOPPER, opaque={20: OTHER_FIRMWARE}),
    case("FWID of other firmware in the leaf", "FWID_MISMATCH", "fwid", HOPPER,
         dice=lambda world: composite(world, digest=OTHER_FIRMWARE)),
    case("FWID of zeros", "FWID_MISMATCH", "fwid", BLACKWELL, opaque={20: bytes(48)}),
    dice("the report's FWID as the second of the leaf's", "FWID_MISMATCH", "fwid",
         tcb_info(OTHER_FIRMWARE, FIRMWARE), BLACKWELL),
    dice("leaf without DICE, FWID in the report", "DICE_INVALID", "fwid", None),
    dice("TCB info without FWIDs", "DICE_INVALID", "fwid", tcb_info(), BLACKWELL),
    case("device key of another device", "DEVICE_KEY_BINDING", "device_key", HOPPER,
         dice=lambda world: composite(world, key="nvidia brom 1")),
    case("device key of the leaf itself", "DEVICE_KEY_BINDING", "device_key", LS10,
         dice=lambda world: composite(world, key="nvidia leaf")),
    case("two DICE extensions", "DICE_INVALID", None, BLACKWELL,
         leaf=replace(LEAF, common_name="GB100 A01 GSP FMC LF", extensions=(("2.23.133.5.4.1", GOOD_TCB, False),))),
    dice("DICE extension of no bytes", "DICE_INVALID", None, b""),
    dice("DICE extension that is no DER", "DICE_INVALID", None, b"\x30\x80\x00\x00"),
    dice("something behind the DICE extension", "DICE_INVALID", None, GOOD_TCB + b"\x00"),
    dice("DICE extension of 3 KB", "DICE_INVALID", None, one_of(der.octets(bytes(3000)))),
    dice("device id of version 2", "DICE_INVALID", None,
         one_of(der.unsigned(2), der.sequence(), fwid(SHA384_OID, FIRMWARE))),
    dice("device id without a key", "DICE_INVALID", None, one_of(der.unsigned(1), fwid(SHA384_OID, FIRMWARE))),
    dice("FWID with SHA-1", "DICE_INVALID", None,
         one_of(der.Der(0xA6, fwid(SHA1_OID, bytes(20)).encode())), BLACKWELL),
    dice("FWID of 47 bytes", "DICE_INVALID", None,
         one_of(der.Der(0xA6, fwid(SHA384_OID, FIRMWARE[:47]).encode())), BLACKWELL),
    dice("FWIDs twice", "DICE_INVALID", None,
         one_of(*[der.Der(0xA6, fwid(SHA384_OID, FIRMWARE).encode())] * 2), BLACKWELL),
    dice("members out of order", "DICE_INVALID", None,
         one_of(der.Der(0xA6, fwid(SHA384_OID, FIRMWARE).encode()), der.Der(0x80, b"NVIDIA")), BLACKWELL),
    dice("a member nobody knows", "DICE_INVALID", None, one_of(der.Der(0x9E, b"")), BLACKWELL),
    dice("17 FWIDs", "DICE_INVALID", None, tcb_info(*[FIRMWARE] * 17), BLACKWELL),
    dice("debug flag", "DEVICE_DEBUG", "NoDeviceDebug", tcb_info(FIRMWARE, flags=bytes.fromhex("0010000001")),
         BLACKWELL),
    dice("recovery flag", "DEVICE_DEBUG", "NoDeviceDebug", tcb_info(FIRMWARE, flags=bytes.fromhex("0520")),
         BLACKWELL),
    dice("not-secure flag", "DEVICE_DEBUG", "NoDeviceDebug", tcb_info(FIRMWARE, flags=bytes.fromhex("0640")),
         BLACKWELL),
]  # fmt: skip


def good(name: str, world: World, **changes: Any) -> Case:
    return case(name, "", None, world, **changes)


GENUINE = [
    good("issuers without key usage", HOPPER, family=replace(FAMILY, usage=None), brom=replace(BROM, usage=None)),
    good("leaf that says it is no CA", HOPPER, leaf=replace(LEAF, is_ca=False)),
    good("TCB info under the older OID", HOPPER, dice=lambda world: tcb_info(FIRMWARE)),
    good("leaf that expires now", HOPPER, leaf=replace(LEAF, not_after=NOW)),
    good("critical DICE extension", HOPPER, dice=lambda world: None,
         leaf=replace(LEAF, extensions=(("2.23.133.5.4.1", composite(HOPPER), True),))),
    good("no flags at all", BLACKWELL, dice=lambda world: tcb_info(FIRMWARE, flags=None)),
    good("no DICE extension, no FWID reported", LS10, dice=lambda world: None),
]  # fmt: skip

CASES = [*SHAPE, *TRUST, *CONSTRAINTS, *TIMES, *CHIPS, *DICE]
