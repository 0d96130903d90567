"""DCAP quotes: SGX v3, SGX and TDX v4, SGX and TDX v5 (ATTESTATION.md §1; Intel QVL `Quote.cpp`).

    v3, v4:  header:48 | body                          | signature size:4 | signature section | padding
    v5:      header:48 | body type:2, size:4 | body    | signature size:4 | signature section | padding
             └──────────── signed bytes ──────────────┘

Nothing is trusted or verified here. Each check stands alone; what it refuses Intel's library refuses too, except that
we also refuse what follows a quote unless it is zero, and quotes beyond our limits.
"""

from __future__ import annotations

from dataclasses import dataclass

from verifier.abi.dcap import (
    HEADER_BYTES,
    TEE_TYPE_SGX,
    TEE_TYPE_TDX,
    QuoteHeader,
    SignatureSection,
    parse_header,
    parse_signature_section,
)
from verifier.abi.reader import Reader
from verifier.abi.sgx import SGX_REPORT_BYTES, SgxReport
from verifier.abi.tdx import (
    TD_REPORT_10_BYTES,
    TD_REPORT_15_BYTES,
    TD_REPORT_15_EXTENDED_BYTES,
    TdReport,
    parse_td_report,
)
from verifier.errors import QuoteMalformed, QuoteVersionUnsupported, TeeTypeUnsupported
from verifier.limits import MAX_QUOTE_BYTES

VERSIONS = (3, 4, 5)
BODY_SGX = 1
BODY_TD_10 = 2
BODY_TD_15 = 3
BODY_TD_15_EXTENDED = 4

BODY_BYTES = {
    BODY_SGX: SGX_REPORT_BYTES,
    BODY_TD_10: TD_REPORT_10_BYTES,
    BODY_TD_15: TD_REPORT_15_BYTES,
    BODY_TD_15_EXTENDED: TD_REPORT_15_EXTENDED_BYTES,
}
"""Bytes of a body by its type in v5; before v5 the TEE type alone says that it is type 1 or 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A parsed quote: nothing in it is verified.

    `body_type` is v5's (`BODY_…`), None before. `signed_bytes` is what the quote signature covers, as it came in;
    `padding` counts the zero bytes after the quote. Make one with `parse_quote` or `Quote.of`.
    """

    header: QuoteHeader
    body_type: int | None
    body: SgxReport | TdReport
    signature: SignatureSection
    signed_bytes: bytes
    padding: int = 0

    @classmethod
    def of(
        cls,
        *,
        header: QuoteHeader,
        body: SgxReport | TdReport,
        signature: SignatureSection,
        body_type: int | None = None,
        padding: int = 0,
    ) -> Quote:
        """A quote of these parts, to be written."""
        return cls(
            header=header,
            body_type=body_type,
            body=body,
            signature=signature,
            signed_bytes=signed_part(header, body, body_type),
            padding=padding,
        )

    @property
    def tee(self) -> str:
        """The kind of TEE: "sgx" or "tdx"."""
        return "tdx" if isinstance(self.body, TdReport) else "sgx"

    def encode(self) -> bytes:
        """The quote's bytes; for a parsed quote exactly those it was parsed from."""
        section = self.signature.encode(self.header.version)
        return self.signed_bytes + len(section).to_bytes(4, "little") + section + bytes(self.padding)


def signed_part(header: QuoteHeader, body: SgxReport | TdReport, body_type: int | None = None) -> bytes:
    """What the quote signature covers: header, v5's descriptor where `body_type` is given, body."""
    encoded, descriptor = body.encode(), b""
    if body_type is not None:
        descriptor = body_type.to_bytes(2, "little") + len(encoded).to_bytes(4, "little")
    return header.encode() + descriptor + encoded


def parse_quote(data: bytes) -> Quote:
    """Parse a quote. Zero padding after it is accepted, other trailing bytes are not.

    Raises `QuoteMalformed`, `QuoteVersionUnsupported` or `TeeTypeUnsupported`.
    """
    if not HEADER_BYTES <= len(data) <= MAX_QUOTE_BYTES:
        raise QuoteMalformed(f"{len(data)} bytes; a quote has {HEADER_BYTES} to {MAX_QUOTE_BYTES}", field="quote")
    reader = Reader(data)
    header = parse_header(reader)
    # Version and TEE type say which layout follows; nothing else is read before them.
    check_version(header)
    check_tee_type(header)
    body_type = None
    if header.version == 5:
        body_type, size = reader.u16("body_type"), reader.u32("body_size")
        check_body_type(header, body_type)
        check_body_size(body_type, size)
    body = _parse_body(reader, header, body_type)
    signed_bytes = data[: reader.offset]
    section = reader.take(reader.u32("signature_size"), "signature_section")
    padding = reader.rest()
    check_padding(padding)
    return Quote(
        header=header,
        body_type=body_type,
        body=body,
        signature=parse_signature_section(section, header.version),
        signed_bytes=signed_bytes,
        padding=len(padding),
    )


def check_version(header: QuoteHeader) -> None:
    """3, 4 or 5. `QuoteVersionUnsupported`."""
    if header.version not in VERSIONS:
        raise QuoteVersionUnsupported(f"quote version {header.version}", field="version")


def check_tee_type(header: QuoteHeader) -> None:
    """SGX or TDX; v3, where these bytes are reserved, is always SGX. `TeeTypeUnsupported`."""
    known = (TEE_TYPE_SGX,) if header.version == 3 else (TEE_TYPE_SGX, TEE_TYPE_TDX)
    if header.tee_type not in known:
        raise TeeTypeUnsupported(f"tee_type {header.tee_type:#x} in version {header.version}", field="tee_type")


def check_body_type(header: QuoteHeader, body_type: int) -> None:
    """A known body, of the TEE that the header names. `QuoteVersionUnsupported`, `QuoteMalformed`."""
    if body_type not in BODY_BYTES:
        raise QuoteVersionUnsupported(f"quote body of type {body_type}", field="body_type")
    if (body_type == BODY_SGX) != (header.tee_type == TEE_TYPE_SGX):
        raise QuoteMalformed(f"body of type {body_type} under tee_type {header.tee_type:#x}", field="body_type")


def check_body_size(body_type: int, size: int) -> None:
    """The size that the type has. `QuoteMalformed`."""
    if size != BODY_BYTES[body_type]:
        raise QuoteMalformed(f"body of type {body_type}: {size} bytes", field="body_size")


def check_padding(padding: bytes) -> None:
    """Buffers of configfs-tsm and clouds end in zeros; anything else after a quote is not part of it. `QuoteMalformed`.

    Intel's library and dcap-qvl do not look at it (ATTESTATION.md §1.4 leaves refusing to us).
    """
    if padding.count(0) != len(padding):
        raise QuoteMalformed("bytes other than zero after the quote", field="padding")


def _parse_body(reader: Reader, header: QuoteHeader, body_type: int | None) -> SgxReport | TdReport:
    if body_type is None:
        body_type = BODY_SGX if header.version == 3 or header.tee_type == TEE_TYPE_SGX else BODY_TD_10
    data = reader.take(BODY_BYTES[body_type], "body")
    return SgxReport(data) if body_type == BODY_SGX else parse_td_report(data)
