"""Verify a TDX quote version 4 (ATTESTATION.md §4 steps 1, 2, 5, 6, 8 and what §3 says of TD_QE).

The steps, in order; each needs all before it, the same numbers stand at the code:

 1. The bytes are a quote v4 of a TDX TD, every length consistent; key type ECDSA P-256, vendor Intel.
 2. The PEM chain is three certificates; issuer and subject names make them root, intermediate, leaf, in any order.
 3. The root's public key is one that the caller pinned. The quote's own root is never trusted for being there.
 4. Each certificate carries the common name of its role under that root.
 5. Constraints: CAs and path length, key usage, no unknown critical extension, every key on P-256.
 6. Each certificate is signed by its issuer.
 7. The PCK key signed the QE report.
 8. The QE report binds the attestation key: SHA-256(key ‖ authentication data), then 32 zero bytes.
 9. The quoting enclave is the vendor's TD quoting enclave and not a debug build. (Its version: with the collateral.)
10. The attestation key signed header and body.
11. The PCK certificate's extension names the platform.
12. Every certificate is valid at `now`, on both sides. Last, so that all other refusals do not depend on `now`, and
    so that "expired" is only ever said of a genuine quote.

Not done here: revocation and TCB status need collateral, which comes with a later release. The result says
`tcb_evaluated=False`, and the default policy refuses it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from verifier.abi.dcap import INTEL_QE_VENDOR_ID, KEY_TYPE_ECDSA_P256, QuoteHeader, SgxReport, SignatureSection
from verifier.abi.pck import PckExtension, parse_pck_extension
from verifier.abi.pem import split_chain
from verifier.abi.tdx import TdAttributes, TdReport, TdxQuoteV4, parse_tdx_quote_v4
from verifier.errors import (
    KeyTypeUnsupported,
    PckExtensionInvalid,
    QeBinding,
    QeIdentity,
    QeReportSignature,
    QeVendorUnknown,
    QuoteSignature,
)
from verifier.signature import p256_key, verify_raw
from verifier.trust import chain as chains
from verifier.trust.certificate import Certificate, parse_certificate
from verifier.trust.roots import ChainRoles, TrustAnchor


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedTdxQuote:
    """The claims of a quote that passed every step. Only `verify_tdx_quote` makes one.

    Times are UTC milliseconds, inclusive: latest notBefore and earliest notAfter of the chain.
    """

    tee: str = "tdx"
    quote_version: int = 4
    body: TdReport
    attributes: TdAttributes
    pck: PckExtension
    pck_serial_hex: str
    qe_isv_svn: int
    root_label: str
    simulated: bool
    tcb_evaluated: bool
    valid_from_ms: int
    expires_ms: int

    @property
    def report_data(self) -> bytes:
        """64 bytes the TD chose."""
        return self.body.report_data

    @property
    def registers(self) -> dict[str, bytes]:
        """Measured registers by the names a policy uses, 48 bytes each."""
        return self.body.registers()

    @property
    def platform_ids(self) -> tuple[str, ...]:
        """Hex of PPID and platform instance id; an id of zeros names no platform and is left out."""
        ids = (self.pck.ppid, self.pck.platform_instance_id)
        return tuple(value.hex() for value in ids if value is not None and any(value))


def verify_tdx_quote(*, quote: bytes, trust_roots: Sequence[TrustAnchor], now_ms: int) -> VerifiedTdxQuote:
    """Verify `quote` at `now_ms` (UTC milliseconds) against the pinned `trust_roots` (`verifier.trust.roots`).

    Raises a subclass of `VerificationError` at the first step that fails, and nothing else.
    """
    # (1)
    parsed = parse_tdx_quote_v4(quote)
    check_header(parsed.header)
    section = parsed.signature
    # (2)
    chain = chains.build_chain([parse_certificate(data) for data in split_chain(section.pck_chain)])
    # (3)
    anchor = chains.find_anchor(chain.root, trust_roots)
    # (4)
    chains.check_roles(chain, anchor.roles)
    # (5)
    chains.check_basic_constraints(chain)
    chains.check_key_usage(chain)
    chains.check_critical_extensions(chain)
    chains.check_keys(chain)
    # (6)
    chains.check_signatures(chain)
    # (7)
    check_qe_report_signature(section, chain.leaf)
    # (8)
    check_qe_binding(section)
    # (9)
    check_qe_identity(section.qe_report, anchor.roles)
    # (10)
    check_quote_signature(parsed)
    # (11)
    pck = platform_of(chain.leaf)
    # (12)
    chains.check_validity(chain, now_ms)
    return VerifiedTdxQuote(
        body=parsed.body,
        attributes=TdAttributes(int.from_bytes(parsed.body.td_attributes, "little")),
        pck=pck,
        pck_serial_hex=f"{chain.leaf.serial_number:x}",
        qe_isv_svn=section.qe_report.isv_svn,
        root_label=anchor.label,
        simulated=anchor.simulated,
        tcb_evaluated=False,
        valid_from_ms=chain.valid_from_ms,
        expires_ms=chain.expires_ms,
    )


def check_header(header: QuoteHeader) -> None:
    """Key type and vendor. `KeyTypeUnsupported`, `QeVendorUnknown`."""
    if header.key_type != KEY_TYPE_ECDSA_P256:
        raise KeyTypeUnsupported(f"attestation key type {header.key_type}", field="key_type")
    if header.qe_vendor_id != INTEL_QE_VENDOR_ID:
        raise QeVendorUnknown(f"QE vendor {header.qe_vendor_id.hex()}", field="qe_vendor_id")


def check_qe_report_signature(section: SignatureSection, leaf: Certificate) -> None:
    """The PCK key's signature over the 384 bytes of the QE report. `QeReportSignature`."""
    if not verify_raw(leaf.public_key, section.qe_report.raw, section.qe_report_signature):
        raise QeReportSignature("the PCK key did not sign the QE report", field="qe_report_signature")


def check_qe_binding(section: SignatureSection) -> None:
    """Report data of the QE = SHA-256(attestation key ‖ authentication data) ‖ 32 zero bytes. `QeBinding`."""
    digest = hashlib.sha256(section.attestation_key + section.auth_data).digest()
    if not hmac.compare_digest(section.qe_report.report_data, digest + bytes(32)):
        raise QeBinding("the QE report does not bind the attestation key", field="qe_report.report_data")


def check_qe_identity(report: SgxReport, roles: ChainRoles) -> None:
    """Signer and product of the quoting enclave, DEBUG clear: a real PCK key signs anyone's enclave. `QeIdentity`."""
    if report.mrsigner != roles.qe_mrsigner or report.isv_prod_id != roles.qe_prod_id:
        raise QeIdentity("not the vendor's TD quoting enclave", field="qe_report.mrsigner")
    if report.debug:
        raise QeIdentity("a debug build of the quoting enclave", field="qe_report.attributes")


def check_quote_signature(quote: TdxQuoteV4) -> None:
    """The attestation key's signature over header and body; the key is a point of P-256. `QuoteSignature`."""
    key = p256_key(quote.signature.attestation_key)
    if key is None:
        raise QuoteSignature("the attestation key is no point of P-256", field="attestation_key")
    if not verify_raw(key, quote.signed_bytes, quote.signature.quote_signature):
        raise QuoteSignature("the attestation key did not sign the quote", field="quote_signature")


def platform_of(leaf: Certificate) -> PckExtension:
    """The platform the PCK certificate was issued for. `PckExtensionInvalid`."""
    if leaf.pck_extension is None:
        raise PckExtensionInvalid("the PCK certificate has no Intel extension", field="pck_extension")
    return parse_pck_extension(leaf.pck_extension)
