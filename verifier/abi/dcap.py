"""What DCAP quotes of all versions share: header, QE report, signature section (ATTESTATION.md §1.1, §1.2, §1.4)."""

from __future__ import annotations

from dataclasses import dataclass

from verifier.abi.reader import Reader
from verifier.errors import CertificationUnsupported, QuoteMalformed
from verifier.limits import MAX_AUTH_DATA_BYTES, MAX_CERTIFICATION_BYTES

HEADER_BYTES = 48
SGX_REPORT_BYTES = 384
SIGNATURE_BYTES = 64
TEE_TYPE_SGX = 0x00
TEE_TYPE_TDX = 0x81
KEY_TYPE_ECDSA_P256 = 2
INTEL_QE_VENDOR_ID = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
CERTIFICATION_PCK_CHAIN = 5
CERTIFICATION_QE_REPORT = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteHeader:
    """The 48 bytes every quote begins with. `reserved` (4 bytes at 8) holds QE and PCE SVN in v3; never use it."""

    version: int
    key_type: int
    tee_type: int
    reserved: bytes = bytes(4)
    qe_vendor_id: bytes = INTEL_QE_VENDOR_ID
    user_data: bytes = bytes(20)

    def encode(self) -> bytes:
        """48 bytes."""
        return (
            self.version.to_bytes(2, "little")
            + self.key_type.to_bytes(2, "little")
            + self.tee_type.to_bytes(4, "little")
            + self.reserved
            + self.qe_vendor_id
            + self.user_data
        )


def parse_header(reader: Reader) -> QuoteHeader:
    """The header; only its length is checked here."""
    return QuoteHeader(
        version=reader.u16("version"),
        key_type=reader.u16("key_type"),
        tee_type=reader.u32("tee_type"),
        reserved=reader.take(4, "reserved"),
        qe_vendor_id=reader.take(16, "qe_vendor_id"),
        user_data=reader.take(20, "user_data"),
    )


@dataclass(frozen=True, slots=True)
class SgxReport:
    """An SGX report body of 384 bytes, kept as signed. With KSS its reserved areas carry data: none is checked."""

    raw: bytes

    @property
    def debug(self) -> bool:
        """DEBUG attribute: bit 1 of byte 48."""
        return bool(self.raw[48] & 0x02)

    @property
    def mrenclave(self) -> bytes:
        """Measurement of the enclave, 32 bytes."""
        return self.raw[64:96]

    @property
    def mrsigner(self) -> bytes:
        """SHA-256 of the key that signed the enclave, 32 bytes."""
        return self.raw[128:160]

    @property
    def isv_prod_id(self) -> int:
        """Product number given by the signer."""
        return int.from_bytes(self.raw[256:258], "little")

    @property
    def isv_svn(self) -> int:
        """Security version given by the signer."""
        return int.from_bytes(self.raw[258:260], "little")

    @property
    def report_data(self) -> bytes:
        """64 bytes the enclave chose."""
        return self.raw[320:384]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureSection:
    """Signature section of a v4 or v5 quote: type 6 (QE report) wrapping type 5 (PEM chain).

    Signatures are r‖s and the attestation key X‖Y, 64 bytes each, big-endian.
    """

    quote_signature: bytes
    attestation_key: bytes
    qe_report: SgxReport
    qe_report_signature: bytes
    auth_data: bytes
    pck_chain: bytes

    def encode(self) -> bytes:
        """The section without the length in front of it."""
        inner = (
            self.qe_report.raw
            + self.qe_report_signature
            + len(self.auth_data).to_bytes(2, "little")
            + self.auth_data
            + certification(CERTIFICATION_PCK_CHAIN, self.pck_chain)
        )
        return self.quote_signature + self.attestation_key + certification(CERTIFICATION_QE_REPORT, inner)


def certification(kind: int, data: bytes) -> bytes:
    """Certification data: type:2, length:4, data."""
    return kind.to_bytes(2, "little") + len(data).to_bytes(4, "little") + data


def parse_signature_section(data: bytes) -> SignatureSection:
    """The section of exactly `data`; every inner length must end where its outer one does."""
    reader = Reader(data)
    quote_signature = reader.take(SIGNATURE_BYTES, "quote_signature")
    attestation_key = reader.take(64, "attestation_key")
    kind, inner_data = _parse_certification(reader, "certification", len(data))
    if kind != CERTIFICATION_QE_REPORT:
        raise QuoteMalformed(f"outer certification data of type {kind}", field="certification_type")
    inner = Reader(inner_data)
    qe_report = SgxReport(inner.take(SGX_REPORT_BYTES, "qe_report"))
    qe_report_signature = inner.take(SIGNATURE_BYTES, "qe_report_signature")
    auth_size = inner.u16("auth_size")
    if auth_size > MAX_AUTH_DATA_BYTES:
        raise QuoteMalformed(f"{auth_size} bytes of QE authentication data", field="auth_size")
    auth_data = inner.take(auth_size, "auth_data")
    kind, chain = _parse_certification(inner, "pck_chain", MAX_CERTIFICATION_BYTES)
    if kind == CERTIFICATION_QE_REPORT:
        raise QuoteMalformed("certification data type 6 inside type 6", field="certification_type")
    if kind != CERTIFICATION_PCK_CHAIN:
        raise CertificationUnsupported(f"certification data type {kind}", field="certification_type")
    return SignatureSection(
        quote_signature=quote_signature,
        attestation_key=attestation_key,
        qe_report=qe_report,
        qe_report_signature=qe_report_signature,
        auth_data=auth_data,
        pck_chain=chain,
    )


def _parse_certification(reader: Reader, field: str, limit: int) -> tuple[int, bytes]:
    kind, size = reader.u16(f"{field}_type"), reader.u32(f"{field}_size")
    if size > limit:
        raise QuoteMalformed(f"{field}: {size} bytes", field=f"{field}_size")
    data = reader.take(size, field)
    reader.finish(field)
    return kind, data
