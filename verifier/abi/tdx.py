"""TDX quote version 4 with a TD report 1.0 (Intel "TDX DCAP Quoting Library API" App. A; ATTESTATION.md §1.3, §1.4)."""

from __future__ import annotations

from dataclasses import dataclass, fields

from verifier.abi.dcap import (
    HEADER_BYTES,
    TEE_TYPE_TDX,
    QuoteHeader,
    SignatureSection,
    parse_header,
    parse_signature_section,
)
from verifier.abi.reader import Reader
from verifier.errors import QuoteMalformed, QuoteVersionUnsupported, TeeTypeUnsupported
from verifier.limits import MAX_QUOTE_BYTES

VERSION = 4
TD_REPORT_10_BYTES = 584

_SIZES = {
    "tee_tcb_svn": 16, "mrseam": 48, "mrsignerseam": 48, "seam_attributes": 8, "td_attributes": 8, "xfam": 8,
    "mrtd": 48, "mrconfigid": 48, "mrowner": 48, "mrownerconfig": 48, "rtmr0": 48, "rtmr1": 48, "rtmr2": 48,
    "rtmr3": 48, "report_data": 64,
}  # fmt: skip
"""Fields of a TD report 1.0 in order, with their bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TdReport:
    """A TD report 1.0: raw fields, named as in Intel's specification; 48-byte registers, 64-byte report data."""

    tee_tcb_svn: bytes
    mrseam: bytes
    mrsignerseam: bytes
    seam_attributes: bytes
    td_attributes: bytes
    xfam: bytes
    mrtd: bytes
    mrconfigid: bytes
    mrowner: bytes
    mrownerconfig: bytes
    rtmr0: bytes
    rtmr1: bytes
    rtmr2: bytes
    rtmr3: bytes
    report_data: bytes

    def encode(self) -> bytes:
        """584 bytes."""
        return b"".join(getattr(self, field.name) for field in fields(self))

    def registers(self) -> dict[str, bytes]:
        """The measured registers a policy may name (schemas: RegisterRule.register)."""
        names = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mrconfigid", "mrowner", "mrownerconfig")
        return {name: getattr(self, name) for name in names}


def parse_td_report(reader: Reader) -> TdReport:
    """The next 584 bytes as a TD report 1.0."""
    return TdReport(**{name: reader.take(size, name) for name, size in _SIZES.items()})


@dataclass(frozen=True, slots=True)
class TdAttributes:
    """TDATTRIBUTES as a little-endian 64-bit number, decoded."""

    bits: int

    TUD_MASK = 0xFF
    KNOWN_MASK = TUD_MASK | 1 << 28 | 1 << 29 | 1 << 30 | 1 << 31 | 1 << 63

    @property
    def debug(self) -> bool:
        """Bit 0: the host may read the TD."""
        return bool(self.bits & 1)

    @property
    def tud(self) -> int:
        """Bits 0 to 7: any of them set makes the TD untrusted."""
        return self.bits & self.TUD_MASK

    @property
    def sept_ve_disable(self) -> bool:
        """Bit 28: no #VE on pending pages, which the host could provoke."""
        return bool(self.bits >> 28 & 1)

    @property
    def migratable(self) -> bool:
        """Bit 29: a migration TD may move the TD's state."""
        return bool(self.bits >> 29 & 1)

    @property
    def pks(self) -> bool:
        """Bit 30: supervisor protection keys."""
        return bool(self.bits >> 30 & 1)

    @property
    def key_locker(self) -> bool:
        """Bit 31: key locker."""
        return bool(self.bits >> 31 & 1)

    @property
    def perfmon(self) -> bool:
        """Bit 63: performance monitoring."""
        return bool(self.bits >> 63 & 1)

    @property
    def reserved(self) -> int:
        """Bits nobody defined for us."""
        return self.bits & ~self.KNOWN_MASK


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxQuoteV4:
    """A parsed quote: nothing in it is verified. `padding` counts the zero bytes after it."""

    header: QuoteHeader
    body: TdReport
    signature: SignatureSection
    padding: int = 0

    @property
    def signed_bytes(self) -> bytes:
        """What the quote signature covers: header and body, 632 bytes, equal to the input's."""
        return self.header.encode() + self.body.encode()

    def encode(self) -> bytes:
        """The quote's bytes; for a parsed quote exactly those it was parsed from."""
        section = self.signature.encode()
        return self.signed_bytes + len(section).to_bytes(4, "little") + section + bytes(self.padding)


def parse_tdx_quote_v4(quote: bytes) -> TdxQuoteV4:
    """Parse a quote. Zero padding after it is accepted, other trailing bytes are not.

    Raises `QuoteMalformed`, `QuoteVersionUnsupported`, `TeeTypeUnsupported` or `CertificationUnsupported`.
    """
    if not HEADER_BYTES <= len(quote) <= MAX_QUOTE_BYTES:
        raise QuoteMalformed(f"a quote of {len(quote)} bytes", field="quote")
    reader = Reader(quote)
    header = parse_header(reader)
    # Version and TEE type say which layout follows; nothing else is read before them.
    if header.version != VERSION:
        raise QuoteVersionUnsupported(f"quote version {header.version}", field="version")
    if header.tee_type != TEE_TYPE_TDX:
        raise TeeTypeUnsupported(f"tee_type {header.tee_type:#x}", field="tee_type")
    body = parse_td_report(reader)
    section = reader.take(reader.u32("signature_size"), "signature_section")
    padding = reader.rest()
    if padding.strip(b"\x00"):
        raise QuoteMalformed("bytes other than zero after the quote", field="padding")
    return TdxQuoteV4(header=header, body=body, signature=parse_signature_section(section), padding=len(padding))
