"""Verify an Intel DCAP quote: SGX v3, SGX and TDX v4, SGX and TDX v5 (ATTESTATION.md §4; Intel QVL 4.1.2.5).

The steps, in order; each needs all before it, the same numbers stand at the code:

 1. The bytes are a quote, every length consistent; key type ECDSA P-256, vendor Intel, the TEE asked for.
 2. Its report data is what the caller expects, where it expects something. Cheap, and step 6 vouches for the bytes.
 3. The PCK chain leads to a pinned root (`verifier.trust.pck_chain`).
 4. The PCK key signed the QE report.
 5. The QE report binds the attestation key: SHA-256(key ‖ authentication data), then 32 zero bytes.
 6. The attestation key signed header, descriptor and body.
 7. Collateral for this platform is genuine and current at `now` (`verifier.trust.store`).
 8. No certificate of the chain is revoked.
 9. The quoting enclave is the one its signed identity describes.
10. The TCB matches a level that Intel lists: platform, TDX module, quoting enclave (`verifier.tcb`).
11. Every certificate of the chain is valid at `now`, on both sides.

Steps 1 to 6 do not depend on `now`: "expired" is only ever said of a genuine quote. Without collateral (None, not an
empty set) steps 7 to 10 are replaced by a comparison with the enclaves Intel has named so far; the result says
`tcb_evaluated=False`, and the default policy refuses it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from verifier.abi.collateral import EnclaveIdentity
from verifier.abi.dcap import (
    CERTIFICATION_PCK_CHAIN,
    INTEL_QE_VENDOR_ID,
    KEY_TYPE_ECDSA_P256,
    QuoteHeader,
    SignatureSection,
)
from verifier.abi.pck import PckExtension
from verifier.abi.quote import Quote, parse_quote
from verifier.abi.sgx import SgxReport
from verifier.abi.tdx import TdAttributes, TdReport
from verifier.errors import (
    CertRevoked,
    KeyTypeUnsupported,
    QeBinding,
    QeIdentity,
    QeReportSignature,
    QeVendorUnknown,
    QuoteSignature,
    ReportDataMismatch,
    TeeTypeUnsupported,
    VerificationError,
)
from verifier.formats.certification import certified_chain
from verifier.signature import p256_key, verify_raw
from verifier.tcb.evaluate import evaluate
from verifier.tcb.status import TcbReport
from verifier.trust import chain as chains
from verifier.trust.certificate import Certificate
from verifier.trust.chain import Chain
from verifier.trust.pck_chain import ChainCache
from verifier.trust.roots import ChainRoles, TrustAnchor
from verifier.trust.selection import Span
from verifier.trust.store import Collateral, CollateralWindow, PlatformCollateral


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedQuote:
    """The claims of a quote that passed every step. Only `verify_quote` makes one.

    `tee` is "sgx" or "tdx"; `body_type` None before v5; `attributes` None for SGX; `padding` counts zero bytes after
    the quote. `tcb` is None where no collateral was evaluated, as are `used`, what was picked for the platform, and
    `collateral`, the set it was picked from. Times are UTC milliseconds, inclusive: for every `now`
    from `valid_from_ms` to `expires_ms` the same bytes, roots and collateral verify to these same claims.
    """

    tee: str
    quote_version: int
    body_type: int | None
    body: TdReport | SgxReport
    attributes: TdAttributes | None
    debug: bool
    pck: PckExtension
    pck_serial_hex: str
    pck_issuer: str
    qe_isv_svn: int
    root_label: str
    simulated: bool
    tcb: TcbReport | None
    used: PlatformCollateral | None
    collateral: Collateral | None
    padding: int
    valid_from_ms: int
    expires_ms: int

    @property
    def report_data(self) -> bytes:
        """64 bytes the TD or enclave chose."""
        return self.body.report_data

    @property
    def registers(self) -> dict[str, bytes]:
        """Measured registers by the names a policy uses."""
        return self.body.registers()

    @property
    def windows(self) -> tuple[CollateralWindow, ...]:
        """When each piece of collateral that was used is current."""
        return () if self.used is None else self.used.windows

    @property
    def collateral_digest(self) -> bytes | None:
        """32 bytes that stand for the set of collateral, None where none was evaluated."""
        return None if self.collateral is None else self.collateral.digest

    @property
    def tcb_evaluated(self) -> bool:
        """Whether the TCB was judged against collateral."""
        return self.tcb is not None

    @property
    def platform_ids(self) -> tuple[str, ...]:
        """Hex of PPID and platform instance id; an id of zeros names no platform and is left out."""
        ids = (self.pck.ppid, self.pck.platform_instance_id)
        return tuple(value.hex() for value in ids if value is not None and any(value))


def verify_quote(
    *,
    quote: bytes,
    collateral: Collateral | None,
    trust_roots: Sequence[TrustAnchor],
    now_ms: int,
    report_data: bytes | None = None,
    tee: str | None = None,
    endorsements: Sequence[Certificate] = (),
    chains_seen: ChainCache | None = None,
) -> VerifiedQuote:
    """Verify `quote` at `now_ms` (UTC milliseconds) against the pinned `trust_roots` and `collateral`.

    `report_data` (64 bytes) and `tee` ("sgx" or "tdx") are demands where given. `endorsements` are certificates for
    quotes that carry no chain of their own; `chains_seen` remembers verified chains. Raises a subclass of
    `VerificationError` at the first step that fails, and nothing else; its `verified` names the steps that held.
    """
    done: list[str] = []
    span, chosen = Span(), False
    try:
        # (1)
        parsed = parse_quote(quote)
        check_header(parsed.header)
        check_tee(parsed, tee)
        done.append("format")
        # (2)
        check_report_data(parsed, report_data)
        section = parsed.signature
        # (3)
        chosen = section.certification.kind != CERTIFICATION_PCK_CHAIN
        pck = certified_chain(section, trust_roots, endorsements, collateral, chains_seen, now_ms, span)
        done.append("pck_chain")
        # (4)
        check_qe_report_signature(section, pck.chain.leaf)
        # (5)
        check_qe_binding(section)
        # (6)
        check_quote_signature(parsed)
        done.append("signatures")
        # (7) to (10)
        if collateral is None:
            check_quoting_enclave(section.qe_report, pck.anchor.roles, parsed.tee)
            found, tcb = None, None
        else:
            found = _collateral_of(collateral, parsed.tee, pck.chain, pck.anchor, pck.platform, now_ms)
            span.narrow(found.valid_from_ms, found.expires_ms, now_ms)
            done.append("collateral")
            tcb = _judge(parsed, pck.chain, pck.platform, found)
            done.append("tcb")
        # (11)
        chains.check_validity(pck.chain, now_ms)
    except VerificationError as error:
        error.verified = tuple(done)
        if chosen:  # at another time another chain may be chosen for the quote
            error.holding(now_ms, now_ms)
        raise
    span.narrow(pck.chain.valid_from_ms, pck.chain.expires_ms, now_ms)
    body, attributes = parsed.body, None
    if isinstance(body, TdReport):
        attributes = TdAttributes(int.from_bytes(body.td_attributes, "little"))
    return VerifiedQuote(
        tee=parsed.tee,
        quote_version=parsed.header.version,
        body_type=parsed.body_type,
        body=body,
        attributes=attributes,
        debug=attributes.debug if attributes is not None else isinstance(body, SgxReport) and body.debug,
        pck=pck.platform,
        pck_serial_hex=f"{pck.chain.leaf.serial_number:x}",
        pck_issuer=pck.chain.intermediate.common_name,
        qe_isv_svn=section.qe_report.isv_svn,
        root_label=pck.anchor.label,
        simulated=pck.anchor.simulated,
        tcb=tcb,
        used=found,
        collateral=collateral,
        padding=parsed.padding,
        valid_from_ms=span.from_ms,
        expires_ms=span.until_ms,
    )


def _collateral_of(
    collateral: Collateral, tee: str, chain: Chain, anchor: TrustAnchor, platform: PckExtension, now_ms: int
) -> PlatformCollateral:
    try:
        return collateral.select(
            tee=tee,
            fmspc=platform.fmspc,
            pce_id=platform.pce_id,
            pck_issuer=chain.intermediate,
            anchor=anchor,
            now_ms=now_ms,
        )
    except VerificationError as error:
        # At another time the same collateral may be current, or another item of it the pick.
        raise error.holding(now_ms, now_ms) from None


def _judge(parsed: Quote, chain: Chain, platform: PckExtension, found: PlatformCollateral) -> TcbReport:
    body, report = parsed.body, parsed.signature.qe_report
    td = body if isinstance(body, TdReport) else None
    try:
        # (8)
        check_revocation(chain, found)
        # (9)
        check_qe_identity(report, found.qe_identity)
        # (10)
        return evaluate(
            tee=parsed.tee,
            pck=platform,
            qe_isv_svn=report.isv_svn,
            tee_tcb_svn=None if td is None else td.tee_tcb_svn,
            tee_tcb_svn_2=None if td is None else td.tee_tcb_svn_2,
            mrsignerseam=None if td is None else td.mrsignerseam,
            seam_attributes=None if td is None else td.seam_attributes,
            tcb_info=found.tcb_info,
            qe_identity=found.qe_identity,
        )
    except VerificationError as error:
        raise error.holding(found.valid_from_ms, found.expires_ms) from None


def check_header(header: QuoteHeader) -> None:
    """Key type and vendor. `KeyTypeUnsupported`, `QeVendorUnknown`."""
    if header.key_type != KEY_TYPE_ECDSA_P256:
        raise KeyTypeUnsupported(f"attestation key type {header.key_type}", field="key_type")
    if header.qe_vendor_id != INTEL_QE_VENDOR_ID:
        raise QeVendorUnknown(f"QE vendor {header.qe_vendor_id.hex()}", field="qe_vendor_id")


def check_tee(quote: Quote, tee: str | None) -> None:
    """The quote is of the TEE asked for. `TeeTypeUnsupported`."""
    if tee is not None and quote.tee != tee:
        raise TeeTypeUnsupported(f"a quote of {quote.tee}, where {tee} is asked for", field="tee_type")


def check_report_data(quote: Quote, expected: bytes | None) -> None:
    """All 64 bytes of report data are the expected ones. `ReportDataMismatch`."""
    if expected is not None and not hmac.compare_digest(quote.body.report_data, expected):
        raise ReportDataMismatch("the quote was made for something else", field="report_data")


def check_qe_report_signature(section: SignatureSection, leaf: Certificate) -> None:
    """The PCK key's signature over the 384 bytes of the QE report. `QeReportSignature`."""
    if not verify_raw(leaf.public_key, section.qe_report.raw, section.qe_report_signature):
        raise QeReportSignature("the PCK key did not sign the QE report", field="qe_report_signature")


def check_qe_binding(section: SignatureSection) -> None:
    """Report data of the QE = SHA-256(attestation key ‖ authentication data) ‖ 32 zero bytes. `QeBinding`."""
    digest = hashlib.sha256(section.attestation_key + section.auth_data).digest()
    if not hmac.compare_digest(section.qe_report.report_data, digest + bytes(32)):
        raise QeBinding("the QE report does not bind the attestation key", field="qe_report.report_data")


def check_quote_signature(quote: Quote) -> None:
    """The attestation key's signature over what a quote signs; the key is a point of P-256. `QuoteSignature`."""
    key = p256_key(quote.signature.attestation_key)
    if key is None:
        raise QuoteSignature("the attestation key is no point of P-256", field="attestation_key")
    if not verify_raw(key, quote.signed_bytes, quote.signature.quote_signature):
        raise QuoteSignature("the attestation key did not sign the quote", field="quote_signature")


def check_quoting_enclave(report: SgxReport, roles: ChainRoles, tee: str) -> None:
    """Without collateral: signer and product of the vendor's quoting enclave, DEBUG clear. `QeIdentity`.

    A real PCK key signs anyone's enclave; which version of the vendor's this is, only collateral can judge.
    """
    expected = (roles.qe_mrsigner, roles.qe_prod_id) if tee == "tdx" else (roles.sgx_qe_mrsigner, roles.sgx_qe_prod_id)
    if (report.mrsigner, report.isv_prod_id) != expected:
        raise QeIdentity("not the vendor's quoting enclave for this TEE", field="qe_report.mrsigner")
    if report.debug:
        raise QeIdentity("a debug build of the quoting enclave", field="qe_report.attributes")


def check_revocation(chain: Chain, found: PlatformCollateral) -> None:
    """No certificate of the chain is in a revocation list of its issuer (QVL 4.1.2.5.8). `CertRevoked`.

    A root can hardly revoke itself; if its list names it, its vendor means something, and nobody should go on.
    """
    if found.root_crl.revokes(chain.root.serial_number):
        raise CertRevoked("the root is in its own revocation list", field="pck_chain.root")
    if found.root_crl.revokes(chain.intermediate.serial_number):
        serial = f"{chain.intermediate.serial_number:x}"
        raise CertRevoked(
            f"{chain.intermediate.common_name}, serial {serial}, is revoked", field="pck_chain.intermediate"
        )
    if found.pck_crl.revokes(chain.leaf.serial_number):
        serial = f"{chain.leaf.serial_number:x}"
        raise CertRevoked(f"the platform's PCK certificate, serial {serial}, is revoked", field="pck_chain.leaf")


def check_qe_identity(report: SgxReport, identity: EnclaveIdentity) -> None:
    """MISCSELECT and attributes under their masks, MRSIGNER, ISVPRODID (QVL 4.1.2.5.16). `QeIdentity`.

    ISVSVN is left to TCB evaluation.
    """
    if _masked(report.miscselect, identity.miscselect_mask) != identity.miscselect:
        raise QeIdentity("MISCSELECT differs from the identity", field="qe_report.miscselect")
    if _masked(report.attributes, identity.attributes_mask) != identity.attributes:
        raise QeIdentity("attributes differ from the identity", field="qe_report.attributes")
    if report.mrsigner != identity.mrsigner:
        raise QeIdentity("MRSIGNER differs from the identity", field="qe_report.mrsigner")
    if report.isv_prod_id != identity.isv_prod_id:
        raise QeIdentity("ISVPRODID differs from the identity", field="qe_report.isv_prod_id")


def _masked(value: bytes, mask: bytes) -> bytes:
    return (int.from_bytes(value, "big") & int.from_bytes(mask, "big")).to_bytes(len(value), "big")
