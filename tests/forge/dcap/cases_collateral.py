"""Hostile collateral: CRLs, signers, signatures, times, selection, JSON (ATTESTATION.md §3, §11.1 items 6 to 9, 16)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.forge.dcap.cases_quote import case, flip
from tests.forge.dcap.certificates import CERTS_AND_CRLS, ONLY_CERTS, PCK_NAME, PROCESSOR_CA_NAME
from tests.forge.dcap.documents import as_v2, chained, drop, put
from tests.forge.dcap.judge import Case
from tests.forge.dcap.platforms import Platform
from tests.forge.dcap.policies import lenient
from tests.forge.dcap.world import DAY, NOW, PCK, PCK_CA, PCK_CRL, ROOT, ROOT_CRL, SGX3, TCB_SIGNER, TDX4, TDX5_15

PROCESSOR_CA = replace(PCK_CA, common_name=PROCESSOR_CA_NAME, key="processor ca", serial=0x9570)
OTHER_FMSPC = bytes.fromhex("00906ea10000")
TOP = 0
"""The first level of TCB info: the one the genuine platform matches."""


def swapped(first: str, second: str) -> Callable[[dict[str, str]], dict[str, str]]:
    return lambda held: held | {first: held[second], second: held[first]}


def reserialised(text: str) -> str:
    return json.dumps(json.loads(text), indent=1)


def pem_of_hex(key: str, label: str = "X509 CRL") -> Callable[[dict[str, str]], dict[str, str]]:
    """A DER item given as the hex of its PEM text."""
    import base64

    def change(held: dict[str, str]) -> dict[str, str]:
        body = base64.encodebytes(bytes.fromhex(held[key])).decode()
        return held | {key: f"-----BEGIN {label}-----\n{body}-----END {label}-----\n".encode().hex()}

    return change


CRLS = [
    case("PCK CRL expired a second ago", "COLLATERAL_EXPIRED", "crl_window", TDX4,
         pck_crl=replace(PCK_CRL, next_update=NOW - 1)),
    case("PCK CRL not yet valid", "COLLATERAL_NOT_YET_VALID", "crl_window", SGX3,
         pck_crl=replace(PCK_CRL, this_update=NOW + 1)),
    case("root CRL expired", "COLLATERAL_EXPIRED", "crl_window", TDX4, root_crl=replace(ROOT_CRL, next_update=NOW - 1)),
    case("root CRL not yet valid", "COLLATERAL_NOT_YET_VALID", "crl_window", TDX4,
         root_crl=replace(ROOT_CRL, this_update=NOW + 1)),
    case("PCK CRL signed by a stranger", "COLLATERAL_SIGNATURE", "crl_signature", TDX4,
         pck_crl=replace(PCK_CRL, signed_with="stranger")),
    case("root CRL signed by a stranger", "COLLATERAL_SIGNATURE", "crl_signature", SGX3,
         root_crl=replace(ROOT_CRL, signed_with="stranger")),
    case("root CRL signed by the PCK CA", "COLLATERAL_SIGNATURE", "crl_signature", TDX4,
         root_crl=replace(ROOT_CRL, signed_with="pck ca")),
    case("PCK CRL signed with SHA-384", "COLLATERAL_MALFORMED", "crl_profile", TDX4,
         pck_crl=replace(PCK_CRL, digest="sha384")),
    case("root CRL without a number", "COLLATERAL_MALFORMED", "crl_profile", SGX3,
         root_crl=replace(ROOT_CRL, number=None)),
    case("PCK CRL of the other CA", "CRL_ISSUER", None, TDX4, pck_crl_issuer=PROCESSOR_CA),
    case("PCK CRL under another name", "CRL_ISSUER", "crl_issuer", SGX3,
         pck_crl=replace(PCK_CRL, issuer_name=PROCESSOR_CA_NAME)),
    case("PCK CA may not sign CRLs", "CERT_CONSTRAINT", "crl_signer", TDX4, pck_ca=replace(PCK_CA, usage=ONLY_CERTS)),
    case("root CRL as PCK CRL", "CRL_ISSUER", None, TDX4, collateral=lambda c: c | {"pck_crl": c["root_ca_crl"]}),
    case("PCK CRL as root CRL", "CRL_ISSUER", None, TDX4, collateral=lambda c: c | {"root_ca_crl": c["pck_crl"]}),
    case("PCK certificate revoked", "CERT_REVOKED", "revocation", TDX4, pck_crl=replace(PCK_CRL,
        revoked=(PCK.serial,))),
    case("PCK certificate revoked among many", "CERT_REVOKED", "revocation", SGX3,
         pck_crl=replace(PCK_CRL, revoked=(*range(1, 60), PCK.serial))),
    case("PCK CA revoked", "CERT_REVOKED", "revocation", TDX4, root_crl=replace(ROOT_CRL, revoked=(PCK_CA.serial,))),
    case("root revoked by its own list", "CERT_REVOKED", "revocation", TDX4,
         root_crl=replace(ROOT_CRL, revoked=(ROOT.serial,))),
    case("TCB signer revoked", "CERT_REVOKED", "signer_revocation", TDX4,
         root_crl=replace(ROOT_CRL, revoked=(TCB_SIGNER.serial,))),
    case("QE identity signer revoked", "CERT_REVOKED", "signer_revocation", SGX3,
         qe_signer=replace(TCB_SIGNER, key="qe signer", serial=0x7E39), root_crl=replace(ROOT_CRL, revoked=(0x7E39,))),
    case("unknown critical extension in the PCK CRL", "COLLATERAL_MALFORMED", None, TDX4,
         pck_crl=replace(PCK_CRL, critical_extra="2.5.29.28")),
    case("PCK CRL without number", "COLLATERAL_MALFORMED", None, TDX4, pck_crl=replace(PCK_CRL, number=None)),
    case("PCK CRL without authority key", "COLLATERAL_MALFORMED", None, TDX4,
         pck_crl=replace(PCK_CRL, authority_key=False)),
    case("a certificate as PCK CRL", "COLLATERAL_MALFORMED", None, TDX4,
         collateral=lambda c: c | {"pck_crl": TDX4.pck_chain()[1].hex()}),
    case("PCK CRL truncated", "COLLATERAL_MALFORMED", None, TDX4,
         collateral=lambda c: c | {"pck_crl": c["pck_crl"][:-2]}),
    case("PCK CRL with a tail", "COLLATERAL_MALFORMED", None, TDX4,
         collateral=lambda c: c | {"pck_crl": c["pck_crl"] + "00"}),
    case("PCK CRL edited", "COLLATERAL_SIGNATURE", "crl_signature", TDX4,
         collateral=lambda c: c | {"pck_crl": c["pck_crl"].replace("5a01", "5a03")}),
    case("a CRL's PEM under a certificate's label", "COLLATERAL_MALFORMED", None, SGX3,
         collateral=pem_of_hex("pck_crl", "CERTIFICATE")),
]  # fmt: skip

MISSING = [
    case("no PCK CRL", "COLLATERAL_MISSING", None, TDX4, collateral=lambda c: c | {"pck_crl": ""}),
    case("no root CRL", "COLLATERAL_MISSING", None, SGX3, collateral=lambda c: c | {"root_ca_crl": ""}),
    case("no TCB info", "COLLATERAL_MISSING", None, TDX4, collateral=lambda c: c | {"tcb_info": ""}),
    case("no QE identity", "COLLATERAL_MISSING", None, TDX4, collateral=lambda c: c | {"qe_identity": ""}),
    case("no issuer chain", "COLLATERAL_MISSING", None, TDX4,
         collateral=lambda c: c | {"tcb_info_issuer_chain": "", "qe_identity_issuer_chain": ""}),
    Case(name="an empty set", code="COLLATERAL_MISSING", step=None, world=TDX4, held=lambda held: type(held).empty()),
    Case(name="no collateral at all", code="TCB_UNEVALUATED", step="evaluated", world=TDX4, held=lambda held: None),
    Case(name="an attacker's quoting enclave, without collateral", code="QE_IDENTITY", step="quoting_enclave",
         world=TDX4.but(qe={"mrsigner": bytes(32)}), held=lambda held: None, built_in=None),
    Case(name="the other quoting enclave, without collateral", code="QE_IDENTITY", step="quoting_enclave",
         world=SGX3.but(qe={"isvprodid": b"\x02\x00"}), held=lambda held: None, built_in=None),
    Case(name="a debug quoting enclave, without collateral", code="QE_IDENTITY", step="quoting_enclave",
         world=TDX4.but(qe={"attributes": b"\x17" + bytes(15)}), held=lambda held: None, built_in=None),
]  # fmt: skip

SIGNERS = [
    case("TCB info signed by a stranger", "COLLATERAL_SIGNATURE", "document_signature", TDX4,
         tcb_info_signed_with="stranger"),
    case("QE identity signed by a stranger", "COLLATERAL_SIGNATURE", "document_signature", SGX3,
         qe_identity_signed_with="stranger"),
    case("TCB info signed by the PCK key", "COLLATERAL_SIGNATURE", "document_signature", TDX4,
         tcb_info_signed_with="pck"),
    case("TCB info signature of zeros", "COLLATERAL_SIGNATURE", "document_signature", TDX4,
         tcb_info_signature=lambda s: bytes(64)),
    case("QE identity signature off by a bit", "COLLATERAL_SIGNATURE", "document_signature", TDX4,
         qe_identity_signature=flip(40)),
    case("signatures exchanged", "COLLATERAL_SIGNATURE", "document_signature", TDX4,
         collateral=swapped("tcb_info_signature", "qe_identity_signature")),
    case("TCB signature of 63 bytes", "COLLATERAL_MALFORMED", None, TDX4, tcb_info_signature=lambda s: s[:-1]),
    case("a PCK certificate as TCB signer", "CERT_ROLE_INVALID", None, TDX4,
         tcb_signer=replace(PCK, key="other pck", serial=0x7C02), tcb_signer_issuer=PCK_CA),
    case("TCB signer named like a PCK certificate", "CERT_ROLE_INVALID", "signer_role", TDX4,
         tcb_signer=replace(TCB_SIGNER, common_name=PCK_NAME)),
    case("TCB signer under the PCK CA", "CERT_CHAIN_INVALID", None, SGX3, tcb_signer_issuer=PCK_CA),
    case("TCB signer that names another issuer", "CERT_CHAIN_INVALID", "signer_issuer", TDX4,
         tcb_signer=replace(TCB_SIGNER, issuer_name="Somebody")),
    case("TCB signer under a stranger's root", "ROOT_UNTRUSTED", None, TDX4,
         tcb_signer_issuer=replace(ROOT, key="stranger root", serial=0x2266)),
    case("TCB signer signed by a stranger", "CERT_SIGNATURE", "signer_signature", TDX4,
         tcb_signer=replace(TCB_SIGNER, signed_with="stranger")),
    case("TCB signer is a CA", "CERT_CONSTRAINT", "signer_constraints", TDX4, tcb_signer=replace(TCB_SIGNER,
        is_ca=True)),
    case("TCB signer may sign certificates", "CERT_CONSTRAINT", "signer_constraints", TDX4,
         tcb_signer=replace(TCB_SIGNER, usage=CERTS_AND_CRLS)),
    case("TCB signer with an unknown critical extension", "CERT_CONSTRAINT", "signer_constraints", SGX3,
         tcb_signer=replace(TCB_SIGNER, critical_extra="1.2.3.4")),
    case("TCB signer on secp256k1", "CERT_KEY_UNSUPPORTED", "signer_key", TDX4, tcb_signer=replace(TCB_SIGNER,
        curve="k256")),
    case("TCB signer expired", "CERT_EXPIRED", "signer_window", TDX4,
         tcb_signer=replace(TCB_SIGNER, not_before=NOW - 900 * DAY, not_after=NOW - 1)),
    case("TCB signer not yet valid", "CERT_NOT_YET_VALID", "signer_window", TDX4,
         tcb_signer=replace(TCB_SIGNER, not_before=NOW + 1)),
    case("root expired", "CERT_EXPIRED", None, TDX4, root=replace(ROOT, not_after=NOW - 1)),
]  # fmt: skip

TIMES = [
    case("TCB info expired a second ago", "COLLATERAL_EXPIRED", "document_window", TDX4,
         tcb_info_window=(NOW - 30 * DAY, NOW - 1)),
    case("TCB info issued in a second", "COLLATERAL_NOT_YET_VALID", "document_window", TDX4,
         tcb_info_window=(NOW + 1, NOW + 30 * DAY)),
    case("QE identity expired", "COLLATERAL_EXPIRED", "document_window", SGX3,
         qe_identity_window=(NOW - 30 * DAY, NOW - 1)),
    case("QE identity not yet issued", "COLLATERAL_NOT_YET_VALID", "document_window", TDX5_15,
         qe_identity_window=(NOW + 1, NOW + 30 * DAY)),
]  # fmt: skip

SELECTION = [
    case("TCB info of another FMSPC", "COLLATERAL_MISMATCH", None, TDX4,
         tcb_info_edit=put("fmspc", to=OTHER_FMSPC.hex())),
    case("TCB info of another PCE id", "COLLATERAL_MISMATCH", None, SGX3, tcb_info_edit=put("pceId", to="0001")),
    case("SGX TCB info for a TD", "COLLATERAL_MISMATCH", None, TDX4, tcb_info_tee="sgx"),
    case("TDX TCB info for an enclave", "COLLATERAL_MISMATCH", None, SGX3, tcb_info_tee="tdx"),
    case("QE identity for a TD", "COLLATERAL_MISMATCH", None, TDX4, qe_identity_tee="sgx"),
    case("TD_QE identity for an enclave", "COLLATERAL_MISMATCH", None, SGX3, qe_identity_tee="tdx"),
    case("QVE identity", "COLLATERAL_MISMATCH", None, SGX3, qe_identity_edit=put("id", to="QVE")),
    Case(name="only the collateral of another platform", code="COLLATERAL_MISMATCH", step=None, world=TDX4,
         beside=(TDX4.but(platform=Platform(fmspc=OTHER_FMSPC)),), only_beside=True),
    case("TCB info and QE identity exchanged", "COLLATERAL_MALFORMED", None, TDX4,
         collateral=swapped("tcb_info", "qe_identity")),
]  # fmt: skip

TEXT = [
    case("TCB info edited", "COLLATERAL_SIGNATURE", "document_signature", TDX4,
         tcb_info_sent=lambda t: t.replace("OutOfDate", "UpToDate")),
    case("QE identity edited", "COLLATERAL_SIGNATURE", "document_signature", SGX3,
         qe_identity_sent=lambda t: t.replace('"isvprodid":1', '"isvprodid":1 ')),
    case("TCB info re-serialised", "COLLATERAL_SIGNATURE", "document_signature", TDX4, tcb_info_sent=reserialised),
    case("QE identity with a space behind it", "COLLATERAL_SIGNATURE", "document_signature", TDX4,
         qe_identity_sent=lambda t: t + " "),
    case("TCB info truncated", "COLLATERAL_MALFORMED", None, TDX4, tcb_info_sent=lambda t: t[:-1]),
    case("TCB info with a tail", "COLLATERAL_MALFORMED", None, TDX4, tcb_info_text=lambda t: t + "{}"),
    case("a key twice", "COLLATERAL_MALFORMED", "duplicate_keys", TDX4,
         tcb_info_text=lambda t: t.replace('"tcbType":0', '"tcbType":1,"tcbType":0')),
    case("a status twice", "COLLATERAL_MALFORMED", "duplicate_keys", SGX3, tcb_info_text=lambda t: t.replace(
         '"tcbStatus":"UpToDate"', '"tcbStatus":"Revoked","tcbStatus":"UpToDate"', 1)),
    case("nested without end", "COLLATERAL_MALFORMED", None, TDX4,
         tcb_info_text=lambda t: t[:-1] + ',"x":' + "[" * 5000 + "]" * 5000 + "}"),
    case("not JSON", "COLLATERAL_MALFORMED", None, TDX4, tcb_info_text=lambda t: "<xml/>"),
    case("an array", "COLLATERAL_MALFORMED", None, TDX4, tcb_info_text=lambda t: f"[{t}]"),
    case("not a number", "COLLATERAL_MALFORMED", None, TDX4, tcb_info_text=lambda t: t.replace('"pcesvn":13',
        '"pcesvn":NaN', 1)),
]  # fmt: skip

_COMPONENTS = ("tcbLevels", TOP, "tcb", "sgxtcbcomponents")
_TDX_COMPONENTS = ("tcbLevels", TOP, "tcb", "tdxtcbcomponents")


def short(*path: str | int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """An array without its last element."""

    def edit(document: dict[str, Any]) -> dict[str, Any]:
        here: Any = document
        for step in path:
            here = here[step]
        here.pop()
        return document

    return edit


def duplicated_level(document: dict[str, Any]) -> dict[str, Any]:
    document["tcbLevels"].insert(1, json.loads(json.dumps(document["tcbLevels"][0])))
    return document


FIELDS = [
    case("tcbType 1", "COLLATERAL_UNSUPPORTED", None, TDX4, tcb_info_edit=put("tcbType", to=1)),
    case("TCB info version 4", "COLLATERAL_UNSUPPORTED", None, SGX3, tcb_info_edit=put("version", to=4)),
    case("TCB info version 1", "COLLATERAL_UNSUPPORTED", None, SGX3, tcb_info_edit=put("version", to=1)),
    case("TCB info version 2 for TDX", "COLLATERAL_UNSUPPORTED", None, TDX4, tcb_info_edit=put("version", to=2)),
    case("flat TCB info version 2 for a TD", "COLLATERAL_MISMATCH", None, TDX4, tcb_info_edit=as_v2),
    case("QE identity version 1", "COLLATERAL_UNSUPPORTED", None, SGX3, qe_identity_edit=put("version", to=1)),
    case("QE identity version 1 for a TD", "COLLATERAL_UNSUPPORTED", None, TDX4, qe_identity_edit=put("version", to=1)),
    case("TCB info id XYZ", "COLLATERAL_MALFORMED", None, TDX4, tcb_info_edit=put("id", to="XYZ")),
    case("15 SGX components", "COLLATERAL_MALFORMED", None, SGX3, tcb_info_edit=short(*_COMPONENTS)),
    case("15 TDX components", "COLLATERAL_MALFORMED", None, TDX4, tcb_info_edit=short(*_TDX_COMPONENTS)),
    case("17 SGX components", "COLLATERAL_MALFORMED", None, TDX4,
         tcb_info_edit=lambda d: put(*_COMPONENTS, to=[*d["tcbLevels"][0]["tcb"]["sgxtcbcomponents"], {"svn": 0}])(d)),
    case("no TDX components", "COLLATERAL_MALFORMED", None, TDX4, tcb_info_edit=drop(*_TDX_COMPONENTS)),
    case("component SVN 256", "COLLATERAL_MALFORMED", None, SGX3, tcb_info_edit=put(*_COMPONENTS, 15, "svn", to=256)),
    case("component SVN -1", "COLLATERAL_MALFORMED", None, TDX4, tcb_info_edit=put(*_COMPONENTS, 15, "svn", to=-1)),
    case("component SVN 0.0", "COLLATERAL_MALFORMED", None, TDX4, tcb_info_edit=put(*_COMPONENTS, 15, "svn", to=0.0)),
    case("component SVN false", "COLLATERAL_MALFORMED", None, TDX4, tcb_info_edit=put(*_COMPONENTS, 15, "svn",
        to=False)),
    case("component SVN as text", "COLLATERAL_MALFORMED", None, TDX4, tcb_info_edit=put(*_COMPONENTS, 15, "svn",
        to="0")),
    case("PCESVN of 65536 in TCB info", "COLLATERAL_MALFORMED", None, SGX3,
         tcb_info_edit=put("tcbLevels", 0, "tcb", "pcesvn", to=65536)),
    case("no PCESVN", "COLLATERAL_MALFORMED", None, SGX3, tcb_info_edit=drop("tcbLevels", 0, "tcb", "pcesvn")),
    case("unknown status", "COLLATERAL_MALFORMED", None, TDX4, tcb_info_edit=put("tcbLevels", 0, "tcbStatus",
        to="Fine")),
    case("status in other letters", "COLLATERAL_MALFORMED", None, TDX4,
         tcb_info_edit=put("tcbLevels", 0, "tcbStatus", to="upToDate")),
    case("a relaunch status in TCB info", "COLLATERAL_MALFORMED", None, TDX4,
         tcb_info_edit=put("tcbLevels", 0, "tcbStatus", to="TDRelaunchAdvised")),
    case("unknown status of a QE level", "COLLATERAL_MALFORMED", None, SGX3,
         qe_identity_edit=put("tcbLevels", 0, "tcbStatus", to="OK")),
    case("module status SWHardeningNeeded", "COLLATERAL_MALFORMED", None, TDX4,
         tcb_info_edit=put("tdxModuleIdentities", 0, "tcbLevels", 0, "tcbStatus", to="SWHardeningNeeded")),
    case("levels twice", "COLLATERAL_MALFORMED", "duplicate_levels", SGX3, tcb_info_edit=duplicated_level),
    case("levels twice, of TDX", "COLLATERAL_MALFORMED", "duplicate_levels", TDX4, tcb_info_edit=duplicated_level),
    case("no levels", "COLLATERAL_MALFORMED", None, TDX4, tcb_info_edit=put("tcbLevels", to=[])),
    case("no QE levels", "COLLATERAL_MALFORMED", None, SGX3, qe_identity_edit=put("tcbLevels", to=[])),
    case("no next update", "COLLATERAL_MALFORMED", None, TDX4, tcb_info_edit=drop("nextUpdate")),
    case("a date that is none", "COLLATERAL_MALFORMED", None, TDX4, tcb_info_edit=put("nextUpdate",
        to="2026-13-01T00:00:00Z")),
    case("a date without zone", "COLLATERAL_MALFORMED", None, TDX4, tcb_info_edit=put("nextUpdate",
        to="2026-12-01T00:00:00")),
    case("FMSPC of 5 bytes in TCB info", "COLLATERAL_MALFORMED", None, SGX3, tcb_info_edit=put("fmspc",
        to="00906EA100")),
    case("no evaluation number", "COLLATERAL_MALFORMED", None, TDX4, tcb_info_edit=drop("tcbEvaluationDataNumber")),
    case("no tdxModule", "COLLATERAL_MALFORMED", None, TDX4, tcb_info_edit=drop("tdxModule")),
    case("module mask of 7 bytes", "COLLATERAL_MALFORMED", None, TDX4,
         tcb_info_edit=put("tdxModule", "attributesMask", to="FF" * 7)),
    case("QE MRSIGNER of 31 bytes", "COLLATERAL_MALFORMED", None, SGX3, qe_identity_edit=put("mrsigner", to="8C" * 31)),
    case("QE identity without mask", "COLLATERAL_MALFORMED", None, SGX3, qe_identity_edit=drop("attributesMask")),
]  # fmt: skip

OLDER = (NOW - 20 * DAY, NOW + 10 * DAY)
_BEHIND = chained(
    put("tcbLevels", 0, "tcbStatus", to="OutOfDate"), put("tcbLevels", 0, "tcbDate", to="2024-01-01T00:00:00Z")
)

ROLLBACK = [
    Case(name="an older valid TCB info beside a newer one", code="TCB_STATUS_REFUSED", step="pick",
         world=TDX4.but(number=19, tcb_info_window=OLDER), beside=(TDX4.but(tcb_info_edit=_BEHIND),), policy=lenient()),
    Case(name="an older valid TCB info of the same number", code="TCB_STATUS_REFUSED", step="pick",
         world=SGX3.but(tcb_info_window=OLDER), beside=(SGX3.but(tcb_info_edit=_BEHIND),), policy=lenient()),
    Case(name="an older valid QE identity beside a newer one", code="TCB_STATUS_REFUSED", step="pick",
         world=TDX4.but(qe_number=19, qe_identity_window=OLDER),
         beside=(TDX4.but(qe_identity_edit=put("tcbLevels", 0, "tcb", "isvsvn", to=9)),), policy=lenient()),
    Case(name="an older CRL beside one that revokes", code="CERT_REVOKED", step="pick",
         world=TDX4.but(pck_crl=replace(PCK_CRL, this_update=NOW - 20 * DAY)),
         beside=(TDX4.but(pck_crl=replace(PCK_CRL, number=2, revoked=(PCK.serial,))),)),
    Case(name="an older root CRL beside one that revokes", code="CERT_REVOKED", step="pick",
         world=TDX4.but(root_crl=replace(ROOT_CRL, this_update=NOW - 200 * DAY)),
         beside=(TDX4.but(root_crl=replace(ROOT_CRL, number=2, revoked=(PCK_CA.serial,))),)),
]  # fmt: skip

CASES = [*CRLS, *MISSING, *SIGNERS, *TIMES, *SELECTION, *TEXT, *FIELDS, *ROLLBACK]
