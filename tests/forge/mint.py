"""Quotes with one fact wrong: every part of a simulated quote can be replaced before it is signed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from attester import pki
from attester.signing import public_point, sign_raw
from attester.simulated import TD_ATTRIBUTES, platform, qe_report, simulated_measurement, td_report
from verifier.abi.dcap import CERTIFICATION_PCK_CHAIN, Certification, QuoteHeader, SignatureSection
from verifier.abi.pem import join_chain
from verifier.abi.quote import Quote, signed_part
from verifier.abi.sgx import SgxReport
from verifier.abi.tdx import TdReport

HOST_ID = "host-1"
PLATFORM_ID = bytes(range(1, 17))
MRTD = simulated_measurement("agent")
HEADER = QuoteHeader(version=4, key_type=2, tee_type=0x81)


def identity(value: Any) -> Any:
    return value


@dataclass(frozen=True, kw_only=True)
class Mint:
    """What one quote is made of. The defaults make a genuine quote; `replace` one field to lie."""

    root: pki.Template = pki.ROOT
    ca: pki.Template = pki.PLATFORM_CA
    pck: pki.Template = field(default_factory=lambda: pki.pck_template(platform(PLATFORM_ID)))
    ca_curve: ec.EllipticCurve | None = None
    pck_curve: ec.EllipticCurve | None = None
    ca_signed_by_stranger: bool = False
    pck_signed_by_stranger: bool = False
    pck_issuer_name: x509.Name | None = None
    untrusted_root: bool = False
    chain: Callable[[tuple[bytes, ...]], tuple[bytes, ...]] = identity
    chain_text: Callable[[bytes], bytes] = identity
    header: QuoteHeader = HEADER
    body: Callable[[TdReport], TdReport] = identity
    td_attributes: bytes = TD_ATTRIBUTES
    binding: Callable[[bytes], bytes] = identity
    qe: Callable[[SgxReport], SgxReport] = identity
    qe_signed_by_stranger: bool = False
    quote_signed_by_stranger: bool = False
    section: Callable[[SignatureSection], SignatureSection] = identity
    quote: Callable[[bytes], bytes] = identity

    def make(self, report_data: bytes) -> tuple[bytes, bytes]:
        """(quote, DER of the root to trust)."""
        stranger = ec.generate_private_key(ec.SECP256R1())
        root = pki.issue(self.root)
        ca = pki.issue(
            self.ca, replace_key(root, stranger) if self.ca_signed_by_stranger else root, curve=self.ca_curve
        )
        pck = pki.issue(
            self.pck,
            replace_key(ca, stranger) if self.pck_signed_by_stranger else ca,
            curve=self.pck_curve,
            issuer_name=self.pck_issuer_name,
        )
        trusted = pki.issue(self.root) if self.untrusted_root else root
        attestation = ec.generate_private_key(ec.SECP256R1())
        point, auth = public_point(attestation.public_key())[1:], bytes(range(32))
        body = self.body(
            td_report(report_data=report_data, mrtd=MRTD, rtmrs=(bytes(48),) * 4, td_attributes=self.td_attributes)
        )
        report = self.qe(qe_report(self.binding(hashlib.sha256(point + auth).digest() + bytes(32))))
        section = SignatureSection(
            quote_signature=sign_raw(
                stranger if self.quote_signed_by_stranger else attestation, signed_part(self.header, body)
            ),
            attestation_key=point,
            qe_report=report,
            qe_report_signature=sign_any_s(stranger if self.qe_signed_by_stranger else pck.key, report.raw),
            auth_data=auth,
            certification=Certification(
                CERTIFICATION_PCK_CHAIN, self.chain_text(join_chain(self.chain((pck.der, ca.der, root.der))))
            ),
        )
        quote = Quote.of(header=self.header, body=body, signature=self.section(section))
        return self.quote(quote.encode()), trusted.der


def sign_any_s(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """r‖s as it comes, as hardware signs, on any 256-bit curve."""
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def replace_key(issued: pki.Issued, key: ec.EllipticCurvePrivateKey) -> pki.Issued:
    """The same name with another key: what a stranger signs with."""
    return pki.Issued(issued.certificate, key)


def edit(offset: int, value: bytes) -> Callable[[bytes], bytes]:
    """Overwrite bytes at `offset`."""
    return lambda data: data[:offset] + value + data[offset + len(value) :]


def raw_report(offset: int, value: bytes) -> Callable[[SgxReport], SgxReport]:
    """A QE report with bytes at `offset` replaced before it is signed."""
    return lambda report: SgxReport(edit(offset, value)(report.raw))


def with_body(**changes: bytes) -> Callable[[TdReport], TdReport]:
    """A TD report with fields replaced before it is signed."""
    return lambda body: replace(body, **changes)
