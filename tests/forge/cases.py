"""The corpus: one fact wrong per case, the expected code beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from attester import pki
from attester.simulated import platform
from schemas.records import EvidenceItem, Measurement, RegisterRule, TrustRoot
from tests.forge.mint import HEADER, MRTD, PLATFORM_ID, Mint, edit, raw_report, with_body
from tests.forge.world import Case, aggregator_binding, binding, policy
from verifier.abi import der
from verifier.trust.roots import INTEL_ROLES

PCK = pki.pck_template(platform(PLATFORM_ID))
EXTENSION = platform(PLATFORM_ID)
LATER, EARLIER = datetime(2040, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC)
SIGNATURE_SECTION = 636
"""Offset of the signature section in a v4 quote."""


def attributes(*bits: int) -> bytes:
    return sum(1 << bit for bit in bits).to_bytes(8, "little")


def twice(extension: bytes) -> bytes:
    pairs = der.read_sequence(der.read_all(extension, "e"), "e")
    return der.sequence(*pairs, pairs[0]).encode()


def without(extension: bytes, index: int) -> bytes:
    pairs = der.read_sequence(der.read_all(extension, "e"), "e")
    return der.sequence(*(p for i, p in enumerate(pairs) if i != index)).encode()


def measured(register: str, value: bytes, mask: bytes | None = None) -> tuple[Measurement, ...]:
    rule = RegisterRule(register=register, value=value, mask=mask)
    return (Measurement(label="m", role="host", tee="tdx", registers=(rule,)),)


def mint_case(name: str, code: str, step: str | None, **changes: object) -> Case:
    return Case(name=name, code=code, step=step, mint=Mint(**changes))  # type: ignore[arg-type]


BYTES = [
    mint_case("truncated by one byte", "QUOTE_MALFORMED", None, quote=lambda q: q[:-1]),
    mint_case("truncated header", "QUOTE_MALFORMED", None, quote=lambda q: q[:40]),
    mint_case("empty", "QUOTE_MALFORMED", None, quote=lambda q: b""),
    mint_case("huge signature length", "QUOTE_MALFORMED", None, quote=edit(632, b"\xff" * 4)),
    mint_case("huge inner length", "QUOTE_MALFORMED", None, quote=edit(SIGNATURE_SECTION + 130, b"\xff" * 4)),
    mint_case("huge auth length", "QUOTE_MALFORMED", None, quote=edit(SIGNATURE_SECTION + 582, b"\xff\xff")),
    mint_case("trailing byte", "QUOTE_MALFORMED", "padding", quote=lambda q: q + bytes(10) + b"\x01"),
    mint_case("too long", "QUOTE_MALFORMED", None, quote=lambda q: q + bytes(40_000)),
    mint_case("outer type 5", "QUOTE_MALFORMED", "outer_type", quote=edit(SIGNATURE_SECTION + 128, b"\x05\x00")),
    mint_case("inner type 6", "QUOTE_MALFORMED", None, quote=edit(SIGNATURE_SECTION + 616, b"\x06\x00")),
    mint_case("inner type 1", "CERTIFICATION_UNSUPPORTED", None, quote=edit(SIGNATURE_SECTION + 616, b"\x01\x00")),
    mint_case("version 6", "QUOTE_VERSION_UNSUPPORTED", None, header=replace(HEADER, version=6)),
    mint_case("unknown tee type", "TEE_TYPE_UNSUPPORTED", "tee_type", header=replace(HEADER, tee_type=0x82)),
    mint_case("P-384 key type", "KEY_TYPE_UNSUPPORTED", "header", header=replace(HEADER, key_type=3)),
    mint_case("foreign vendor", "QE_VENDOR_UNKNOWN", "header", header=replace(HEADER, qe_vendor_id=bytes(16))),
]

CHAIN = [
    mint_case("no PEM", "CERT_CHAIN_INVALID", None, chain_text=lambda t: b"x" * len(t)),
    mint_case("junk between blocks", "CERT_CHAIN_INVALID", None, chain_text=lambda t: b"junk" + t),
    mint_case("not DER", "CERT_CHAIN_INVALID", None, chain=lambda c: (b"\x30\x03abc", c[1], c[2])),
    mint_case("two certificates", "CERT_CHAIN_INVALID", None, chain=lambda c: c[1:]),
    mint_case("four certificates", "CERT_CHAIN_INVALID", None, chain=lambda c: (*c, c[0])),
    mint_case("root twice", "CERT_CHAIN_INVALID", None, chain=lambda c: (c[0], c[2], c[2])),
    mint_case("byte behind a certificate", "CERT_CHAIN_INVALID", None, chain=lambda c: (c[0], c[1], c[2] + b"\x00")),
    mint_case(
        "leaf names another issuer", "CERT_CHAIN_INVALID", "chain",
        pck_issuer_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Somebody")]),
    ),
    mint_case("foreign root, same names", "ROOT_UNTRUSTED", "anchor", untrusted_root=True),
    mint_case("leaf with an issuer's name", "CERT_ROLE_INVALID", "roles", pck=replace(PCK, common_name="TCB Signing")),
    mint_case(
        "CA with Intel's name", "CERT_ROLE_INVALID", "roles",
        ca=replace(pki.PLATFORM_CA, common_name=INTEL_ROLES.issuers[0]),
    ),
    mint_case(
        "issuer is no CA", "CERT_CONSTRAINT", "basic", ca=replace(pki.PLATFORM_CA, is_ca=False, path_length=None),
    ),
    mint_case("issuer without constraints", "CERT_CONSTRAINT", "basic", ca=replace(pki.PLATFORM_CA, is_ca=None)),
    mint_case("root forbids an intermediate", "CERT_CONSTRAINT", "basic", root=replace(pki.ROOT, path_length=0)),
    mint_case("leaf is a CA", "CERT_CONSTRAINT", "basic", pck=replace(PCK, is_ca=True)),
    mint_case(
        "issuer may not sign certificates", "CERT_CONSTRAINT", "usage",
        ca=replace(pki.PLATFORM_CA, sign_certificates=False),
    ),
    mint_case("leaf may sign certificates", "CERT_CONSTRAINT", "usage", pck=replace(PCK, sign_certificates=True)),
    mint_case("leaf without key usage", "CERT_CONSTRAINT", "usage", pck=replace(PCK, sign_certificates=None)),
    mint_case("unknown critical extension", "CERT_CONSTRAINT", "critical", pck=replace(PCK, critical_extra="1.2.3.4")),
    mint_case("leaf key on secp256k1", "CERT_KEY_UNSUPPORTED", "keys", pck_curve=ec.SECP256K1()),
    mint_case("issuer key on P-384", "CERT_KEY_UNSUPPORTED", "keys", ca_curve=ec.SECP384R1()),
    mint_case("intermediate signed by a stranger", "CERT_SIGNATURE", "signatures", ca_signed_by_stranger=True),
    mint_case("leaf signed by a stranger", "CERT_SIGNATURE", "signatures", pck_signed_by_stranger=True),
    mint_case("leaf expired", "CERT_EXPIRED", "validity", pck=replace(PCK, not_after=EARLIER)),
    mint_case("intermediate expired", "CERT_EXPIRED", "validity", ca=replace(pki.PLATFORM_CA, not_after=EARLIER)),
    mint_case("root expired", "CERT_EXPIRED", "validity", root=replace(pki.ROOT, not_after=EARLIER)),
    mint_case("leaf not yet valid", "CERT_NOT_YET_VALID", "validity", pck=replace(PCK, not_before=LATER)),
    mint_case("no PCK extension", "PCK_EXTENSION_INVALID", "platform", pck=replace(PCK, pck_extension=None)),
    mint_case(
        "PCK field twice", "PCK_EXTENSION_INVALID", "platform",
        pck=replace(PCK, pck_extension=twice(EXTENSION.encode())),
    ),
    mint_case(
        "PCK without FMSPC", "PCK_EXTENSION_INVALID", "platform",
        pck=replace(PCK, pck_extension=without(EXTENSION.encode(), 3)),
    ),
    mint_case(
        "component SVN 256", "PCK_EXTENSION_INVALID", "platform",
        pck=replace(PCK, pck_extension=replace(EXTENSION, component_svns=(256,) * 16).encode()),
    ),
]  # fmt: skip

CRYPTOGRAPHY = [
    mint_case("QE report signed by a stranger", "QE_REPORT_SIGNATURE", "qe_report", qe_signed_by_stranger=True),
    mint_case(
        "QE signature zero", "QE_REPORT_SIGNATURE", "qe_report",
        section=lambda s: replace(s, qe_report_signature=bytes(64)),
    ),
    mint_case("QE binds another key", "QE_BINDING", "qe_binding", binding=edit(0, bytes(32))),
    mint_case("QE binding with a tail", "QE_BINDING", "qe_binding", binding=edit(63, b"\x01")),
    mint_case("auth data changed", "QE_BINDING", "qe_binding", section=lambda s: replace(s, auth_data=bytes(32))),
    mint_case("own quoting enclave", "QE_IDENTITY", "qe_identity", qe=raw_report(128, bytes(32))),
    mint_case("SGX quoting enclave", "QE_IDENTITY", "qe_identity", qe=raw_report(256, b"\x01\x00")),
    mint_case("debug quoting enclave", "QE_IDENTITY", "qe_identity", qe=raw_report(48, b"\x17")),
    mint_case("quote signed by a stranger", "QUOTE_SIGNATURE", "quote_signature", quote_signed_by_stranger=True),
    mint_case("MRSEAM changed after signing", "QUOTE_SIGNATURE", "quote_signature", quote=edit(64, b"\x55")),
    mint_case(
        "signature zero", "QUOTE_SIGNATURE", "quote_signature", section=lambda s: replace(s, quote_signature=bytes(64)),
    ),
]  # fmt: skip

TD = [
    mint_case("DEBUG", "DEBUG_ENABLED", "NoDebug", td_attributes=attributes(0, 28)),
    mint_case("TUD bit 3", "TD_ATTRIBUTES", "NoUntrustedBits", td_attributes=attributes(3, 28)),
    mint_case("SEPT_VE_DISABLE clear", "TD_ATTRIBUTES", "SeptVeDisabled", td_attributes=attributes()),
    mint_case("MIGRATABLE", "TD_ATTRIBUTES", "NotMigratable", td_attributes=attributes(28, 29)),
    mint_case("reserved attribute", "TD_ATTRIBUTES", "NoReservedBits", td_attributes=attributes(28, 40)),
    mint_case("XFAM without SSE", "TD_ATTRIBUTES", "NoReservedBits", body=with_body(xfam=b"\x01" + bytes(7))),
    mint_case(
        "foreign module signer", "TDX_MODULE_MISMATCH", "ProductionModule", body=with_body(mrsignerseam=b"\x01" * 48),
    ),
    mint_case(
        "SEAMATTRIBUTES", "TDX_MODULE_MISMATCH", "ProductionModule", body=with_body(seam_attributes=b"\x01" + bytes(7)),
    ),
    mint_case("other image", "MEASUREMENT_UNKNOWN", "AnyOf", body=with_body(mrtd=bytes(48))),
]  # fmt: skip

POLICY = [
    Case(name="report data of another binding", code="REPORT_DATA_MISMATCH", step="report_data",
         report_data=lambda d: bytes(64)),
    Case(name="report data equal in its first half", code="REPORT_DATA_MISMATCH", step="report_data",
         report_data=lambda d: d[:32] + bytes(32)),
    Case(name="TCB not evaluated", code="TCB_UNEVALUATED", step="TcbEvaluated",
         policy={"unsafe_allow_unevaluated_tcb": False}),
    Case(name="another platform", code="PLATFORM_NOT_ENROLLED", step="PlatformEnrolled",
         mint=Mint(pck=pki.pck_template(platform(b"\x77" * 16)))),
    Case(name="no platform enrolled", code="PLATFORM_NOT_ENROLLED", step="PlatformEnrolled",
         policy={"hosts": (replace(policy(b"").hosts[0], platform_ids=()),)}),
    Case(name="platform id of zeros", code="PLATFORM_NOT_ENROLLED", step="PlatformEnrolled",
         mint=Mint(pck=pki.pck_template(replace(EXTENSION, ppid=bytes(16), platform_instance_id=None))),
         policy={"hosts": (replace(policy(b"").hosts[0], platform_ids=("00" * 16,)),)}),
    Case(name="no measurements", code="POLICY_EMPTY", step="AnyOf", policy={"measurements": ()}),
    Case(name="measurement of another role", code="POLICY_EMPTY", step="AnyOf",
         policy={"measurements": policy(b"").measurements[1:]}),
    Case(name="measurement without registers", code="POLICY_EMPTY", step="AllOf-empty",
         policy={"measurements": (replace(policy(b"").measurements[0], registers=()),)}),
    Case(name="register mask of zeros", code="POLICY_EMPTY", step="RegisterMatches",
         policy={"measurements": measured("mrtd", MRTD, bytes(48))}),
    Case(name="register of another length", code="MEASUREMENT_UNKNOWN", step="RegisterMatches",
         policy={"measurements": measured("mrtd", MRTD[:32])}),
    Case(name="register of another TEE", code="MEASUREMENT_UNKNOWN", step="RegisterMatches",
         policy={"measurements": measured("mrenclave", MRTD)}),
    Case(name="no sources", code="POLICY_EMPTY", step="SourceAccepted", policy={"accepted_sources": ()}),
    Case(name="trace source", code="SOURCE_REFUSED", step="SourceAccepted", binding=binding(source="trace")),
    Case(name="average mode", code="SAMPLER_MODE_REFUSED", step="SamplerModeAccepted",
         binding=binding(sampler_mode="average")),
    Case(name="no sampler modes", code="POLICY_EMPTY", step="SamplerModeAccepted",
         policy={"accepted_sampler_modes": ()}),
    Case(name="GPU evidence demanded", code="FIRST_MILE_TOO_LOW", step="FirstMileAtLeast",
         policy={"min_first_mile": "GPU_ATTESTED"}),
    Case(name="unknown grade demanded", code="FIRST_MILE_TOO_LOW", step="FirstMileAtLeast",
         policy={"min_first_mile": "SOME"}),
    Case(name="broken root in the policy", code="TRUST_ROOT_INVALID", step=None,
         policy={"trust_roots": (TrustRoot(label="x", tee="tdx", certificate_der=b"x", simulated=True),)}),
    Case(name="policy names no simulated root", code="ROOT_UNTRUSTED", step="anchor", policy={"trust_roots": ()}),
]  # fmt: skip


def beside(kind: str) -> Callable[[EvidenceItem], tuple[EvidenceItem, ...]]:
    return lambda item: (item, EvidenceItem(kind=kind, data=b"x"))


SESSION = [
    Case(
        name="other protocol", code="PROTOCOL_UNSUPPORTED", step="binding", binding=binding(protocol="enclavescale/2"),
    ),
    Case(name="aggregator as host", code="ROLE_MISMATCH", step="binding", binding=binding(role="aggregator")),
    Case(name="compressed key", code="SESSION_KEY_INVALID", step="key",
         binding=binding(session_public_key=b"\x02" + bytes(64))),
    Case(name="short key", code="SESSION_KEY_INVALID", step="key", binding=binding(session_public_key=b"\x04")),
    Case(name="key off the curve", code="SESSION_KEY_INVALID", step="key",
         binding=binding(session_public_key=b"\x04" + b"\x01" * 64)),
    Case(name="unknown host", code="HOST_NOT_ENROLLED", step="enrolled", binding=binding(host_id="host-2")),
    Case(name="host as aggregator", code="HOST_NOT_ENROLLED", step="enrolled", role="aggregator",
         binding=aggregator_binding(host_id="host-1")),
    Case(name="other domain", code="DOMAIN_MISMATCH", step="domain", binding=binding(domain="hall-b")),
    Case(name="aggregator with a domain", code="DOMAIN_MISMATCH", step="domain", role="aggregator",
         binding=aggregator_binding(domain="hall-a")),
    Case(name="aggregator with a source", code="SOURCE_REFUSED", step="SourceAccepted", role="aggregator",
         binding=aggregator_binding(source="nvml")),
    Case(name="no evidence", code="EVIDENCE_MISSING", step=None, items=lambda item: ()),
    Case(name="unknown evidence", code="EVIDENCE_KIND_UNKNOWN", step="items", items=beside("tpm_quote")),
    Case(name="a quote of another version than its kind", code="QUOTE_VERSION_UNSUPPORTED", step="kind",
         items=lambda item: (replace(item, kind="tdx_quote_v5"),)),
    Case(name="two quotes", code="EVIDENCE_AMBIGUOUS", step="items", items=lambda item: (item, item)),
    Case(name="too many items", code="EVIDENCE_TOO_LARGE", step="items", items=lambda item: (item,) * 100),
    Case(name="too many bytes", code="EVIDENCE_TOO_LARGE", step="items",
         items=lambda item: (item, EvidenceItem(kind="tdx_quote_v4", data=bytes(600_000)))),
]  # fmt: skip

CASES = [*BYTES, *CHAIN, *CRYPTOGRAPHY, *TD, *POLICY, *SESSION]
