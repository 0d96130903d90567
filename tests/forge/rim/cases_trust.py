"""Hostile paths of signers, and manifests that are for another device (ATTESTATION.md §9.3, §11.3 item 3)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.forge.dcap.certificates import CERTS_AND_CRLS, DATA, Cert, Crl, issue
from tests.forge.rim.edits import case, lying
from tests.forge.rim.judge import Case, Device
from tests.forge.rim.world import (
    CA,
    DAY,
    DRIVER,
    L3,
    NOW,
    OPERATOR,
    ROOT,
    SIGNER,
    SWITCH,
    VBIOS,
    VBIOS_ENTRIES,
    Entry,
    World,
    value_of,
)

INVALID, ROLE, CONSTRAINT, KEY = "CERT_CHAIN_INVALID", "CERT_ROLE_INVALID", "CERT_CONSTRAINT", "CERT_KEY_UNSUPPORTED"
MISMATCH, MISSING = "REFERENCE_MISMATCH", "REFERENCE_MISSING"


def signer(**changes: Any) -> Cert:
    return replace(SIGNER, **changes)


def reversed_path(ders: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(reversed(ders))


PATHS = [
    Case(name="no root is trusted", code="NO_TRUST_ROOTS", step=None, trust_roots=lambda roots: []),
    Case(name="a foreign root of the same name", code="ROOT_UNTRUSTED", step="anchor",
         world=DRIVER.but(root=replace(ROOT, key="stranger's root")),
         trust_roots=lambda roots: [replace(roots[0], spki=roots[0].spki[:-1] + b"?")]),
    case("the root's certificate left out", INVALID, None, certificates=lambda ders: ders[:-1]),
    case("root first", INVALID, None, certificates=reversed_path),
    case("the signer alone", INVALID, None, certificates=lambda ders: ders[:1]),
    case("an issuer left out", INVALID, None, certificates=lambda ders: (ders[0], *ders[2:])),
    case("the root twice", INVALID, None, certificates=lambda ders: (*ders, ders[-1])),
    case("six certificates", INVALID, None, certificates=lambda ders: (*ders, *ders[:2])),
    case("signer names another issuer", INVALID, "names", signer=signer(issuer_name="NVIDIA Reference Value L3 GB100")),
    case("something that is no certificate", INVALID, None, certificates=lambda ders: (b"\x30\x03\x02\x01\x01", *ders)),
    case("a certificate of 5 KB", INVALID, None, certificates=lambda ders: (bytes(5000), *ders)),
    case("the certificate of another signer", "RIM_SIGNATURE", "signature", certificates=lambda ders: (
        issue(signer(key="another"), L3), *ders[1:])),
    case("issuer is no CA", CONSTRAINT, "constraints", l3=replace(L3, is_ca=False, path_length=None)),
    case("issuer may not sign certificates", CONSTRAINT, "constraints", l3=replace(L3, usage=DATA)),
    case("issuer without key usage", CONSTRAINT, "constraints", ca=replace(CA, usage=None)),
    case("no room below the issuer", CONSTRAINT, "constraints", ca=replace(CA, path_length=0)),
    case("signer is a CA", CONSTRAINT, "constraints", signer=signer(is_ca=True)),
    case("signer that may sign certificates only", CONSTRAINT, None, signer=signer(usage=CERTS_AND_CRLS)),
    case("signer without key usage", ROLE, "signer", signer=signer(usage=None)),
    case("critical extension nobody reads", CONSTRAINT, "critical", signer=signer(critical_extra="1.2.3.4")),
    case("critical extension of an issuer", CONSTRAINT, "critical", ca=replace(CA, critical_extra="1.2.3.4")),
    case("signer on P-256", KEY, None, signer=signer(curve="p256"), signed_with=("rim signer", "p384")),
    case("issuer's signature over SHA-256", KEY, "keys", l3=replace(L3, digest="sha256")),
    case("root's signature over SHA-256", KEY, "keys", root=replace(ROOT, digest="sha256")),
    case("signer's certificate signed by a stranger", "CERT_SIGNATURE", "signatures",
         signer=signer(signed_with="stranger")),
    case("issuer signed by a stranger", "CERT_SIGNATURE", "signatures", ca=replace(CA, signed_with="stranger")),
    case("root not signed by itself", "CERT_SIGNATURE", "signatures", root=replace(ROOT, signed_with="stranger")),
    case("signer expired", "CERT_EXPIRED", "validity", signer=signer(not_after=NOW - 1)),
    case("issuer expired", "CERT_EXPIRED", "validity", l3=replace(L3, not_after=NOW - 1)),
    case("root expired", "CERT_EXPIRED", "validity", root=replace(ROOT, not_after=NOW - 1)),
    case("signer not valid yet", "CERT_NOT_YET_VALID", "validity", signer=signer(not_before=NOW + 1)),
    Case(name="judged after two years", code="CERT_EXPIRED", step="validity", at=NOW + 631 * DAY),
    case("issuers of another name", ROLE, "signer", ca=replace(CA, common_name="NVIDIA GH100 Identity")),
    case("an issuer of development hardware", ROLE, "signer", l3=replace(
        L3, common_name="NVIDIA Reference Value L3 GH100 001 Debug Only")),
    case("a signer of something else", ROLE, "signer", signer=signer(common_name="NVIDIA OCSP responder")),
    case("a root of another name", ROLE, "signer", root=replace(ROOT, common_name="NVIDIA Device Identity CA")),
    case("a level left out", ROLE, "signer", l3=None),
    case("signed by the root itself", ROLE, "signer", l3=None, ca=None),
]  # fmt: skip


def device(name: str, step: str | None, world: World = DRIVER, **facts: Any) -> Case:
    beside = facts.pop("beside", (VBIOS,))
    return Case(name=name, code=MISMATCH, step=step, world=world, beside=beside, device=Device(**facts))


OTHER = DRIVER.but(body=lying, tag="other")
"""Another manifest for the same version."""

DEVICES = [
    device("manifest of another driver", "version", driver_version="550.144.04"),
    device("manifest of a driver whose version begins alike", "version", driver_version="550.144.0"),
    device("manifest of another VBIOS", "version", vbios_version="96.00.74.00.1C"),
    device("no driver version reported", "version", driver_version=None),
    device("manifest for another chip", "product", product="GB100"),
    device("VBIOS manifest for another chip", "product", beside=(VBIOS.but(product="GB100"),)),
    device("manifest for switches, to a GPU", None, SWITCH, beside=()),
    device("manifest for GPUs, to a switch", None, edition="SWITCH"),
    device("an index active in both", "indexes", beside=(VBIOS.but(entries=(*VBIOS_ENTRIES[:2], Entry(index=7))),)),
    device("two manifests that contradict each other", "agreement", beside=(VBIOS, OTHER)),
    device("a contradiction in the alternatives", "agreement", beside=(VBIOS, VBIOS.but(entries=(
        *VBIOS_ENTRIES[:3], Entry(index=12, alternatives=3))))),
    device("one index more than its twin", "agreement", beside=(VBIOS, DRIVER.but(entries=(
        *DRIVER.entries, Entry(index=40))))),
    device("thousands of manifests", "count", beside=(VBIOS,) * 4096),
    device("a value that differs", "fits", values={8: value_of(99)}),
    device("a value that differs in the VBIOS", "fits", values={1: value_of(99)}),
    device("a value that differs in its last bit", "fits", values={8: value_of(7)[:-1] + bytes([value_of(7)[-1] ^ 1])}),
    device("a value cut short", "fits", values={8: value_of(7)[:32]}),
    device("a value with a tail", "fits", values={8: value_of(7) + b"\x00"}),
    device("the value of the next index", "fits", values={8: value_of(8)}),
    device("an alternative of another index", "fits", values={24: value_of(35, 1)}),
    device("an alternative beyond those counted", "fits", values={24: value_of(23, 2)}),
    device("a block that is not there", "fits", values={8: b""}),
    device("no blocks at all", "fits", values=dict.fromkeys(range(1, 65), b"")),
    device("blocks counted from zero", "fits", values={index: value_of(index) for index in range(64)}),
    device("NVDEC0's firmware differs, enabled", "fits", values={36: value_of(99)}),
    device("another index differs, NVDEC0 disabled", "fits", values={35: value_of(99), 22: value_of(99)},
           nvdec0_disabled=True),
    Case(name="no VBIOS manifest", code=MISSING, step=None, beside=()),
    Case(name="no driver manifest", code=MISSING, step=None, world=VBIOS, beside=()),
]  # fmt: skip

OPERATORS = [
    Case(name="operator's manifest, changed", code="RIM_DIGEST", step="digest", beside=(VBIOS,),
         world=OPERATOR.but(sent=lambda data: data.replace(b'"r1"', b'"r2"'))),
    Case(name="operator's signer expired", code="CERT_EXPIRED", step="validity",
         world=OPERATOR.but(signer=replace(OPERATOR.signer, not_after=NOW - 1))),
    Case(name="operator's signer is a CA", code=CONSTRAINT, step="constraints",
         world=OPERATOR.but(signer=replace(OPERATOR.signer, is_ca=True))),
    Case(name="operator's root signs by itself", code=INVALID, step=None, world=OPERATOR.but(
        certificates=lambda ders: ders[1:], signed_with=("operator", "p384"))),
    Case(name="operator's manifest contradicts NVIDIA's", code=MISMATCH, step="agreement", world=DRIVER,
         beside=(VBIOS, OPERATOR.but(body=lying))),
]  # fmt: skip

CURRENT = Crl(this_update=NOW - DAY, next_update=NOW + DAY)
OLD = replace(CURRENT, this_update=NOW - 3 * DAY, next_update=NOW - 2 * DAY)


def listed(name: str, code: str, step: str | None, *lists: tuple[Crl, Cert]) -> Case:
    return Case(name=name, code=code, step=step, lists=lists)


REVOCATION = [
    listed("signer revoked", "CERT_REVOKED", "revocation", (replace(CURRENT, revoked=(SIGNER.serial,)), L3)),
    listed("issuer revoked", "CERT_REVOKED", "revocation", (replace(CURRENT, revoked=(L3.serial,)), CA)),
    listed("CA revoked", "CERT_REVOKED", "revocation", (replace(CURRENT, revoked=(1, CA.serial)), ROOT)),
    listed("revocation list out of date", "COLLATERAL_EXPIRED", "revocation", (OLD, L3)),
    listed("revocation list of tomorrow", "COLLATERAL_NOT_YET_VALID", "revocation",
           (replace(CURRENT, this_update=NOW + 1), L3)),
    listed("revocation list signed by a stranger", "COLLATERAL_SIGNATURE", "revocation",
           (replace(CURRENT, signed_with="stranger"), L3)),
]  # fmt: skip

CASES = [*PATHS, *DEVICES, *OPERATORS, *REVOCATION]
