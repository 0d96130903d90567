"""Where we and dcap-qvl 0.7.0 disagree: every class, with an example; docs/differential.md says who is right.

A class is recognised by the two verdicts, never by what was changed: what falls into none of them is a finding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.forge.dcap import documents
from tests.forge.dcap.cases_collateral import duplicated_level, pem_of_hex
from tests.forge.dcap.cases_quote import with_pck
from tests.forge.dcap.certificates import PCK_NAME, TCB_SIGNER_NAME
from tests.forge.dcap.comparison import Comparison
from tests.forge.dcap.documents import put
from tests.forge.dcap.platforms import Platform, octets
from tests.forge.dcap.world import (
    NOW,
    PCK,
    PCK_CA,
    PCK_CRL,
    ROOT,
    SGX3,
    SGX5,
    TDX4,
    TDX5_15,
    World,
)

Test = Callable[[Comparison], bool]


@dataclass(frozen=True)
class Class:
    """One class of disagreement: its name in the documentation, how to tell it, a world that falls into it."""

    name: str
    holds: Test
    example: World


def we_refuse(code: str, field: str = "", message: str = "") -> Test:
    """We refuse with `code`, at a field that begins with `field`; the peer accepts."""
    return lambda one: (
        not one.ours.accepted
        and one.theirs.accepted
        and one.ours.why == code
        and one.ours.field.startswith(field)
        and message in one.message
    )


def they_refuse(*why: str) -> Test:
    """The peer refuses with one of these messages; we accept."""
    return lambda one: one.ours.accepted and not one.theirs.accepted and any(text in one.theirs.why for text in why)


def both(*tests: Test) -> Test:
    return lambda one: all(test(one) for test in tests)


def either(*tests: Test) -> Test:
    return lambda one: any(test(one) for test in tests)


def unless(test: Test) -> Test:
    return lambda one: not test(one)


def cpu_svn_differs(one: Comparison) -> bool:
    return one.cpu_svn_differs


def levels_descend(one: Comparison) -> bool:
    return one.levels_descend


_KEY_USAGE = "key usage does not fit"
_DATES = ("issueDate", "nextUpdate", "tcbDate")
_REVOKED = "TCB status is invalid: Revoked"


def at_a_date(one: Comparison) -> bool:
    return one.ours.field.endswith(_DATES)


def levels_twice(one: Comparison) -> bool:
    return "the same level twice" in one.message


STRICTER = [
    Class("role-names", we_refuse("CERT_ROLE_INVALID"), TDX4.but(pck_ca=replace(PCK_CA, common_name=TCB_SIGNER_NAME))),
    Class("key-usage", we_refuse("CERT_CONSTRAINT", message=_KEY_USAGE), TDX4.but(pck=replace(PCK, usage=None))),
    Class("no-basic-constraints", both(we_refuse("CERT_CONSTRAINT", message="does not say that it is no CA")),
          TDX4.but(pck=replace(PCK, is_ca=None))),
    Class("carried-root", either(
        *(both(we_refuse(code, "pck_chain.root"), unless(we_refuse(code, message=_KEY_USAGE)))
          for code in ("CERT_CONSTRAINT", "CERT_SIGNATURE", "CERT_EXPIRED", "CERT_NOT_YET_VALID", "ROOT_UNTRUSTED"))),
          SGX3.but(root=replace(ROOT, is_ca=False, path_length=None))),
    Class("certificate-profile", we_refuse("CERT_CHAIN_INVALID", "certificate"),
          TDX4.but(root=replace(ROOT, digest="sha384"))),
    Class("chain-names", we_refuse("CERT_CHAIN_INVALID", "pck_chain"),
          TDX4.but(pck_ca=replace(PCK_CA, common_name=PCK_NAME))),
    Class("pem-text", we_refuse("CERT_CHAIN_INVALID", "certification_data"),
          TDX4.but(chain_text=lambda text: b"junk\n" + text)),
    Class("pck-extension", we_refuse("PCK_EXTENSION_INVALID"),
          SGX3.but(platform=Platform(tcb_fields=lambda pairs: [one for one in pairs if one[0] != (2, 7)]))),
    Class("signer-under-a-ca", we_refuse("CERT_CHAIN_INVALID", "tcb_info.signer"), SGX3.but(tcb_signer_issuer=PCK_CA)),
    Class("crl-profile", either(*(we_refuse("COLLATERAL_MALFORMED", f"{kind}.profile") for kind in ("pck_crl",
        "root_ca_crl")), we_refuse("COLLATERAL_MALFORMED", "crl")), TDX4.but(pck_crl=replace(PCK_CRL,
        authority_key=False))),
    Class("crl-this-update", either(*(we_refuse("COLLATERAL_NOT_YET_VALID", kind) for kind in ("pck_crl",
        "root_ca_crl"))),
          TDX4.but(pck_crl=replace(PCK_CRL, this_update=NOW + 1))),
    Class("pce-id", we_refuse("COLLATERAL_MISMATCH", "tcb_info", "PCE id"), SGX3.but(tcb_info_edit=put("pceId",
        to="0001"))),
    Class("tcb-type", we_refuse("COLLATERAL_UNSUPPORTED", "tcb_info.tcbType"), TDX4.but(tcb_info_edit=put("tcbType",
        to=1))),
    Class("levels-twice", we_refuse("COLLATERAL_MALFORMED", message="the same level twice"),
          SGX3.but(tcb_info_edit=duplicated_level)),
    Class("dates", both(either(we_refuse("COLLATERAL_MALFORMED", "tcb_info"), we_refuse("COLLATERAL_MALFORMED",
        "qe_identity")),
                        at_a_date),
          TDX4.but(qe_identity_edit=put("tcbLevels", 2, "tcbDate", to="x"))),
    Class("schema", both(either(we_refuse("COLLATERAL_MALFORMED", "tcb_info"), we_refuse("COLLATERAL_MALFORMED",
        "qe_identity")),
                         unless(at_a_date), unless(levels_twice)),
          TDX4.but(tcb_info_edit=put("tcbLevels", 3, "tcb", "sgxtcbcomponents", 7, "category", to=0))),
    Class("document-version", either(we_refuse("COLLATERAL_UNSUPPORTED", "qe_identity.version"),
                                     we_refuse("COLLATERAL_UNSUPPORTED", "tcb_info.version")),
          TDX4.but(qe_identity_edit=put("version", to=3))),
    Class("module-attributes", we_refuse("TDX_MODULE_MISMATCH", "seam_attributes"),
          TDX4.but(tcb_info_edit=documents.chained(put("tdxModuleIdentities", 1, "attributes", to="0100000000000000")),
                   body={"seam_attributes": b"\x01" + bytes(7)})),
    Class("identity-outside-its-mask", we_refuse("QE_IDENTITY"),
          SGX3.but(qe_identity_edit=put("attributes", to="15000000000000000000000000000000"))),
    Class("bytes-left-over", either(we_refuse("QUOTE_MALFORMED", "outer_certification", "too many"),
                                    we_refuse("QUOTE_MALFORMED", "certification", "too many")),
          TDX4.but(section=lambda one: replace(one, tail=b"\x00"))),
    Class("outer-type", we_refuse("QUOTE_MALFORMED", "outer_certification_type"),
          TDX4.but(section=lambda one: replace(one, outer_kind=5))),
    Class("inner-type", we_refuse("QUOTE_MALFORMED", "certification_type"),
          with_pck(TDX4).but(section=lambda one: replace(one, kind=7))),
    Class("trailing-bytes", we_refuse("QUOTE_MALFORMED", "padding"), TDX4.but(padding=b"\x01")),
    Class("size-limit", we_refuse("QUOTE_MALFORMED", "quote"), SGX3.but(padding=bytes(1 << 16))),
    Class("qe-binding-tail", we_refuse("QE_BINDING"), SGX3.but(qe_binding=lambda data: data[:32] + b"\x01" * 32)),
]  # fmt: skip

LAXER = [
    Class("tcb-info-v2", they_refuse("missing field `sgxtcbcomponents`"), SGX3.but(tcb_info_edit=documents.as_v2)),
    Class("sgx-in-v4-v5", they_refuse("SGX TEE quote must have version 3"), SGX5),
    Class("authentication-data", they_refuse("Invalid QE auth data length"), SGX3.but(auth_data=bytes(100))),
    Class("certification-types", they_refuse("Unsupported DCAP PCK cert format"),
          TDX4.but(chain=lambda chain: chain[:1], section=lambda one: replace(one, kind=4))),
    Class("debug", they_refuse("Debug mode is enabled"),
          TDX4.but(body={"td_attributes": b"\x01\x00\x00\x10" + bytes(4)})),
    Class("sept-ve-disable", they_refuse("SEPT_VE_DISABLE is not enabled"), TDX4.but(body={"td_attributes": bytes(8)})),
    Class("reserved-attributes", they_refuse("Reserved bits in TD attributes"),
          TDX4.but(body={"td_attributes": b"\x00\x00\x00\x10\x01" + bytes(3)})),
    Class("migratable", they_refuse("TD migration is enabled"),
          TDX4.but(body={"td_attributes": b"\x00\x00\x00\x30" + bytes(4)})),
    Class("service-td", they_refuse("Invalid MR service TD"), TDX5_15.but(body={"mrservicetd": b"\x01" * 48})),
    Class("crl-number", they_refuse("Failed to parse PCK CRL for claims", "Failed to parse root CA CRL for claims"),
          TDX4.but(pck_crl=replace(PCK_CRL, number=1 << 70))),
    Class("crl-encoding", they_refuse("TrailingData(CertRevocationList)", "Failed to parse JSON: Invalid character"),
          TDX4.but(collateral=pem_of_hex("pck_crl"))),
    Class("leaf-not-first", they_refuse("CaUsedAsEndEntity"), TDX4.but(chain=lambda chain: chain[::-1])),
    Class("signers-are-a-pool", they_refuse("InvalidSignatureForPublicKey", "UnknownIssuer",
                                            "Certificate chain is too short"),
          TDX4.but(collateral=lambda held: held | {"tcb_info_issuer_chain": TDX4.but(seed="x").mint().collateral[
              "tcb_info_issuer_chain"]})),
]  # fmt: skip


def statuses_differ(one: Comparison) -> bool:
    """Both accept with other statuses or advisories, or one finds the TCB revoked or below every level."""
    below = we_refuse("TCB_NOT_SUPPORTED")
    return (
        (one.ours.accepted and one.theirs.accepted and not one.agrees)
        or below(one)
        or we_refuse("TCB_REVOKED")(one)
        or they_refuse(_REVOKED, "No matching TCB level found", "below minimum required", "No matching QE TCB level")(
            one
        )
    )


OTHER = [
    Class("level-order", both(statuses_differ, unless(levels_descend)),
          SGX3.but(qe_identity_edit=lambda document: document | {"tcbLevels": document["tcbLevels"][::-1]})),
    Class("component-svns", both(statuses_differ, levels_descend, cpu_svn_differs),
          SGX3.but(platform=Platform(tcb_fields=lambda pairs: [
              (name, octets(bytes(16)) if name == (2, 18) else value) for name, value in pairs]))),
]  # fmt: skip

CLASSES = [*STRICTER, *LAXER, *OTHER]


def classes_of(one: Comparison) -> list[str]:
    """The names of the classes a disagreement falls into: exactly one, or it is a finding."""
    return [known.name for known in CLASSES if known.holds(one)]
