"""Hostile PCK chains: roots, roles, constraints, signatures, validity, platform (ATTESTATION.md §2, §11.1 item 5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.forge.dcap.cases_quote import case
from tests.forge.dcap.certificates import CERTS_AND_CRLS, ONLY_CRLS, PCK_NAME, TCB_SIGNER_NAME, issue
from tests.forge.dcap.judge import Case
from tests.forge.dcap.platforms import Pairs, Platform, integer, octets, sequence
from tests.forge.dcap.world import DAY, NOW, PCK, PCK_CA, ROOT, SGX3, TCB_SIGNER, TDX4, TDX5_15

STRANGER_ROOT = replace(ROOT, key="stranger root")
MARKER = b"-----BEGIN CERTIFICATE-----"


def platform(**changes: Any) -> Platform:
    return replace(Platform(), **changes)


def without(*arc: int) -> Callable[[Pairs], Pairs]:
    return lambda pairs: [pair for pair in pairs if pair[0] != arc]


def changed(value: bytes, *arc: int) -> Callable[[Pairs], Pairs]:
    return lambda pairs: [(name, value if name == arc else old) for name, old in pairs]


def nested(depth: int) -> bytes:
    """A SEQUENCE of a SEQUENCE of …"""
    found = b""
    for _ in range(depth):
        found = sequence(found)
    return found


TEXT = [
    case("no PEM", "CERT_CHAIN_INVALID", None, TDX4, chain_text=lambda t: b"x" * len(t)),
    case("empty chain", "CERT_CHAIN_INVALID", None, TDX4, chain_text=lambda t: b""),
    case("junk before the chain", "CERT_CHAIN_INVALID", None, TDX4, chain_text=lambda t: b"junk" + t),
    case("junk between certificates", "CERT_CHAIN_INVALID", None, SGX3,
         chain_text=lambda t: MARKER.join([*t.split(MARKER)[:2], b"junk\n" + t.split(MARKER)[2]])),
    case("a CRL's PEM label", "CERT_CHAIN_INVALID", None, TDX4, chain_text=lambda t: t.replace(b"CERTIFICATE",
        b"X509 CRL")),
    case("not DER", "CERT_CHAIN_INVALID", None, TDX4, chain=lambda c: (b"\x30\x03abc", c[1], c[2])),
    case("a byte behind a certificate", "CERT_CHAIN_INVALID", None, SGX3, chain=lambda c: (c[0] + b"\x00", *c[1:])),
    case("leaf only", "CERT_CHAIN_INVALID", None, TDX4, chain=lambda c: c[:1]),
    case("a whole chain as type 4", "CERT_CHAIN_INVALID", None, TDX4, section=lambda s: replace(s, kind=4)),
    case("no root", "CERT_CHAIN_INVALID", None, TDX4, chain=lambda c: c[:2]),
    case("no leaf", "CERT_CHAIN_INVALID", None, SGX3, chain=lambda c: c[1:]),
    case("four certificates", "CERT_CHAIN_INVALID", None, TDX4, chain=lambda c: (*c, c[0])),
    case("root twice", "CERT_CHAIN_INVALID", None, TDX4, chain=lambda c: (c[0], c[2], c[2])),
    case("leaf twice", "CERT_CHAIN_INVALID", None, TDX4, chain=lambda c: (c[0], c[0], c[2])),
    case("TCB Signing as intermediate", "CERT_CHAIN_INVALID", None, TDX4,
         chain=lambda c: (c[0], issue(TCB_SIGNER, ROOT), c[2])),
]  # fmt: skip

TRUST = [
    Case(name="no root is trusted", code="NO_TRUST_ROOTS", step=None, world=TDX4, trust_roots=lambda roots: []),
    case("foreign root with the same names", "ROOT_UNTRUSTED", "anchor", TDX4, trusted=STRANGER_ROOT),
    case("root re-issued with a stranger's key", "ROOT_UNTRUSTED", "anchor", SGX3,
         trusted=replace(ROOT, key="other root", serial=7)),
    case("root of the quote replaced", "ROOT_UNTRUSTED", None, TDX4,
         chain=lambda c: (c[0], c[1], issue(STRANGER_ROOT))),
    case("intermediate signed by a stranger", "CERT_SIGNATURE", "signatures", TDX4,
         pck_ca=replace(PCK_CA, signed_with="stranger")),
    case("leaf signed by a stranger", "CERT_SIGNATURE", "signatures", SGX3, pck=replace(PCK, signed_with="stranger")),
    case("root not signed by itself", "CERT_SIGNATURE", "signatures", TDX4, root=replace(ROOT, signed_with="stranger")),
    case("leaf signed by the root", "CERT_SIGNATURE", "signatures", TDX4, pck=replace(PCK, signed_with="root")),
    case("leaf signed by TCB Signing", "CERT_SIGNATURE", "signatures", TDX4,
         pck=replace(PCK, signed_with="tcb signer")),
    case("leaf names another issuer", "CERT_CHAIN_INVALID", "chain", TDX4, pck=replace(PCK, issuer_name="Somebody")),
]  # fmt: skip

ROLES = [
    case("leaf called TCB Signing", "CERT_ROLE_INVALID", "roles", TDX4, pck=replace(PCK, common_name=TCB_SIGNER_NAME)),
    case("leaf with a look-alike name", "CERT_ROLE_INVALID", "roles", SGX3,
         pck=replace(PCK, common_name=f"{PCK_NAME} ")),
    case("intermediate called TCB Signing", "CERT_ROLE_INVALID", "roles", TDX4,
         pck_ca=replace(PCK_CA, common_name=TCB_SIGNER_NAME)),
    case("intermediate of another name", "CERT_ROLE_INVALID", "roles", TDX4,
         pck_ca=replace(PCK_CA, common_name="Intel SGX PCK Cloud CA")),
    case("root of another name", "CERT_ROLE_INVALID", "roles", TDX4, root=replace(ROOT, common_name="Intel Root CA")),
    case("issuer is no CA", "CERT_CONSTRAINT", "basic", TDX4, pck_ca=replace(PCK_CA, is_ca=False, path_length=None)),
    case("issuer without basic constraints", "CERT_CONSTRAINT", "basic", SGX3,
         pck_ca=replace(PCK_CA, is_ca=None, path_length=None)),
    case("root is no CA", "CERT_CONSTRAINT", "basic", TDX4, root=replace(ROOT, is_ca=False, path_length=None)),
    case("root forbids an intermediate", "CERT_CONSTRAINT", "basic", TDX4, root=replace(ROOT, path_length=0)),
    case("leaf is a CA", "CERT_CONSTRAINT", "basic", TDX4, pck=replace(PCK, is_ca=True)),
    case("issuer may not sign certificates", "CERT_CONSTRAINT", "usage", TDX4, pck_ca=replace(PCK_CA, usage=ONLY_CRLS)),
    case("leaf may sign certificates", "CERT_CONSTRAINT", "usage", SGX3, pck=replace(PCK, usage=CERTS_AND_CRLS)),
    case("leaf without key usage", "CERT_CONSTRAINT", "usage", TDX4, pck=replace(PCK, usage=None)),
    case("unknown critical extension", "CERT_CONSTRAINT", "critical", TDX4, pck=replace(PCK, critical_extra="1.2.3.4")),
    case("unknown critical extension of the intermediate", "CERT_CONSTRAINT", "critical", SGX3,
         pck_ca=replace(PCK_CA, critical_extra="1.2.3.4")),
    case("leaf key on secp256k1", "CERT_KEY_UNSUPPORTED", "keys", TDX4, pck=replace(PCK, curve="k256")),
    case("issuer key on P-384", "CERT_KEY_UNSUPPORTED", "keys", SGX3, pck_ca=replace(PCK_CA, curve="p384")),
    case("leaf signed with SHA-384", "CERT_CHAIN_INVALID", "profile", TDX4, pck=replace(PCK, digest="sha384")),
    case("serial number of zeros", "CERT_CHAIN_INVALID", "profile", TDX4, pck=replace(PCK, serial=0)),
]  # fmt: skip


VALIDITY = [
    case("leaf expired a second ago", "CERT_EXPIRED", "validity", TDX4, pck=replace(PCK, not_after=NOW - 1)),
    case("leaf expired long ago", "CERT_EXPIRED", "validity", SGX3, pck=replace(PCK, not_after=NOW - 900 * DAY,
         not_before=NOW - 1000 * DAY)),
    case("leaf not yet valid", "CERT_NOT_YET_VALID", "validity", TDX4, pck=replace(PCK, not_before=NOW + 1)),
    case("intermediate expired", "CERT_EXPIRED", "validity", TDX4, pck_ca=replace(PCK_CA, not_after=NOW - 1)),
    case("intermediate not yet valid", "CERT_NOT_YET_VALID", "validity", TDX5_15,
         pck_ca=replace(PCK_CA, not_before=NOW + 1)),
]  # fmt: skip

PLATFORM = [
    case("no PCK extension", "PCK_EXTENSION_INVALID", "platform", TDX4, pck=replace(PCK, extension=b"")),
    case("extension under another OID", "PCK_EXTENSION_INVALID", "platform", TDX4,
         pck=replace(PCK, extension_oid="1.2.840.113741.1.13.2")),
    case("PCK field twice", "PCK_EXTENSION_INVALID", "platform", TDX4,
         platform=platform(fields=lambda pairs: [*pairs, pairs[0]])),
    case("FMSPC twice, the second another", "PCK_EXTENSION_INVALID", "platform", SGX3,
         platform=platform(fields=lambda pairs: [*pairs, ((4,), octets(bytes(6)))])),
    case("PCK without FMSPC", "PCK_EXTENSION_INVALID", "platform", TDX4, platform=platform(fields=without(4))),
    case("PCK without PCEID", "PCK_EXTENSION_INVALID", "platform", SGX3, platform=platform(fields=without(3))),
    case("PCK without TCB", "PCK_EXTENSION_INVALID", "platform", TDX4, platform=platform(fields=without(2))),
    case("PCK with 15 components", "PCK_EXTENSION_INVALID", "platform", TDX4, platform=platform(tcb_fields=without(2,
        16))),
    case("PCK component SVN of 256", "PCK_EXTENSION_INVALID", "platform", TDX4,
         platform=platform(tcb_fields=changed(integer(256), 2, 1))),
    case("PCK component SVN of -1", "PCK_EXTENSION_INVALID", "platform", SGX3,
         platform=platform(tcb_fields=changed(integer(-1), 2, 1))),
    case("PCESVN of 65536", "PCK_EXTENSION_INVALID", "platform", SGX3,
         platform=platform(tcb_fields=changed(integer(65536), 2, 17))),
    case("FMSPC of 5 bytes", "PCK_EXTENSION_INVALID", "platform", TDX4,
         platform=platform(fields=changed(octets(bytes(5)), 4))),
    case("extension nested without end", "PCK_EXTENSION_INVALID", "platform", TDX4, pck=replace(PCK,
        extension=nested(200))),
]  # fmt: skip

CASES = [*TEXT, *TRUST, *ROLES, *VALIDITY, *PLATFORM]
