"""What DCAP quotes of all versions share: header, signature section, certification data (ATTESTATION.md §1.1, §1.4)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from verifier.abi.reader import Reader
from verifier.abi.sgx import SGX_REPORT_BYTES, SgxReport
from verifier.errors import CertificationUnsupported, QuoteMalformed
from verifier.limits import MAX_CERTIFICATION_BYTES

HEADER_BYTES = 48
SIGNATURE_BYTES = 64
ATTESTATION_KEY_BYTES = 64
TEE_TYPE_SGX = 0x00
TEE_TYPE_TDX = 0x81
KEY_TYPE_ECDSA_P256 = 2
INTEL_QE_VENDOR_ID = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")

CERTIFICATION_PPID_PLAIN = 1
CERTIFICATION_PPID_RSA_2048 = 2
CERTIFICATION_PPID_RSA_3072 = 3
CERTIFICATION_PCK_LEAF = 4
CERTIFICATION_PCK_CHAIN = 5
CERTIFICATION_QE_REPORT = 6

_HEADER = struct.Struct("<HHI4s16s20s")


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
        return _HEADER.pack(
            self.version, self.key_type, self.tee_type, self.reserved, self.qe_vendor_id, self.user_data
        )


def parse_header(reader: Reader) -> QuoteHeader:
    """The header; only its length is checked here. Raises `QuoteMalformed`."""
    version, key_type, tee_type, reserved, qe_vendor_id, user_data = _HEADER.unpack(reader.take(HEADER_BYTES, "header"))
    return QuoteHeader(
        version=version,
        key_type=key_type,
        tee_type=tee_type,
        reserved=reserved,
        qe_vendor_id=qe_vendor_id,
        user_data=user_data,
    )


@dataclass(frozen=True, slots=True)
class Certification:
    """Certification data: which PCK certificate vouches for the quoting enclave. `kind` 1 to 5, `data` as delivered.

    1 to 3 name a platform (plain or encrypted PPID, CPUSVN, PCESVN, PCEID) to whoever fetches its certificate; 4 is
    the PCK certificate, 5 the whole chain as PEM text. Nothing is judged by kinds 1 to 3, and their layouts differ
    between releases of Intel's quoting enclave: as in Intel's library, only the length field binds them.
    """

    kind: int
    data: bytes

    @property
    def pck_chain(self) -> bytes:
        """PEM text of kind 5. Raises `CertificationUnsupported` for any other kind."""
        if self.kind != CERTIFICATION_PCK_CHAIN:
            raise CertificationUnsupported(f"certification data of type {self.kind}", field="certification_type")
        return self.data

    def encode(self) -> bytes:
        """type:2, length:4, data."""
        return self.kind.to_bytes(2, "little") + len(self.data).to_bytes(4, "little") + self.data


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureSection:
    """Signature section of a quote. Signatures are r‖s and the attestation key X‖Y, 64 bytes each, big-endian.

    `auth_data` is what the quoting enclave bound beside the key: 32 bytes in practice, any length by specification.
    """

    quote_signature: bytes
    attestation_key: bytes
    qe_report: SgxReport
    qe_report_signature: bytes
    auth_data: bytes
    certification: Certification

    def encode(self, version: int) -> bytes:
        """The section as quotes of `version` (3, 4, 5) lay it out, without the length in front of it."""
        inner = (
            self.qe_report.raw
            + self.qe_report_signature
            + len(self.auth_data).to_bytes(2, "little")
            + self.auth_data
            + self.certification.encode()
        )
        if version != 3:
            inner = Certification(CERTIFICATION_QE_REPORT, inner).encode()
        return self.quote_signature + self.attestation_key + inner


def parse_signature_section(data: bytes, version: int) -> SignatureSection:
    """The section of exactly `data`; every inner length must end where its outer one does. Raises `QuoteMalformed`.

    Before v4 the QE report follows the key at once; since then it is wrapped in certification data of type 6.
    """
    reader = Reader(data)
    quote_signature = reader.take(SIGNATURE_BYTES, "quote_signature")
    attestation_key = reader.take(ATTESTATION_KEY_BYTES, "attestation_key")
    if version != 3:
        outer = _parse_certification(reader, "outer_certification", len(data))
        check_outer_type(outer.kind)
        reader = Reader(outer.data)
    qe_report = SgxReport(reader.take(SGX_REPORT_BYTES, "qe_report"))
    qe_report_signature = reader.take(SIGNATURE_BYTES, "qe_report_signature")
    auth_data = reader.take(reader.u16("auth_size"), "auth_data")
    certification = _parse_certification(reader, "certification", MAX_CERTIFICATION_BYTES)
    check_certification_type(certification.kind)
    return SignatureSection(
        quote_signature=quote_signature,
        attestation_key=attestation_key,
        qe_report=qe_report,
        qe_report_signature=qe_report_signature,
        auth_data=auth_data,
        certification=certification,
    )


def check_outer_type(kind: int) -> None:
    """Since v4 the outer certification data is a QE report with its own. `QuoteMalformed`."""
    if kind != CERTIFICATION_QE_REPORT:
        raise QuoteMalformed(f"outer certification data of type {kind}", field="outer_certification_type")


def check_certification_type(kind: int) -> None:
    """What vouches for the QE report is of type 1 to 5. `QuoteMalformed`."""
    if not CERTIFICATION_PPID_PLAIN <= kind <= CERTIFICATION_PCK_CHAIN:
        raise QuoteMalformed(f"certification data of type {kind}", field="certification_type")


def _parse_certification(reader: Reader, field: str, limit: int) -> Certification:
    kind, size = reader.u16(f"{field}_type"), reader.u32(f"{field}_size")
    if size > limit:
        raise QuoteMalformed(f"{field}: {size} bytes", field=f"{field}_size")
    data = reader.take(size, field)
    reader.finish(field)
    return Certification(kind, data)
