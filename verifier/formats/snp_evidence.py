"""What arrives as SNP evidence, and which of many certificates may be the endorsement key's; nothing is verified here.

Reports come alone, with zeros or a certificate table behind them, or in Azure's HCL blob; certificates come in a pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice

from verifier.abi import der
from verifier.abi.amd import TURIN_HWID_BYTES, parse_certificate_table, parse_ek_extensions
from verifier.abi.der import DerError
from verifier.abi.hcl import HCL_MAGIC, HclReport, parse_hcl_report
from verifier.abi.pem_blocks import CRL, has_blocks, split_blocks
from verifier.abi.snp import SNP_REPORT_BYTES, VLEK, SnpReport, parse_snp_report
from verifier.errors import CertChainInvalid, EkExtensionInvalid, SnpMalformed
from verifier.limits import (
    MAX_CERTIFICATE_TABLE_ENTRIES,
    MAX_ENDORSEMENT_CANDIDATES,
    MAX_ENDORSEMENT_KEYS,
    MAX_SNP_EVIDENCE_BYTES,
)
from verifier.trust import amd
from verifier.trust.certificate import Certificate, parse_certificate
from verifier.trust.crl import Crl, parse_crl
from verifier.trust.roots import Root
from verifier.trust.selection import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpEvidence:
    """What arrived as one: a report, and what stood around it. Nothing in it is verified.

    `raw` are the report's 1184 bytes; `certificates` and `crls` those of the certificate table; `hcl` Azure's blob,
    None where there is none; `padding` zero bytes behind everything.
    """

    raw: bytes
    report: SnpReport
    certificates: tuple[Certificate, ...] = ()
    crls: tuple[Crl, ...] = ()
    hcl: HclReport | None = None
    padding: int = 0


def parse_snp_evidence(data: bytes) -> SnpEvidence:
    """What `data` holds: a report with nothing, zeros or a certificate table behind it, or Azure's blob.

    Raises `SnpMalformed`, `SnpVersionUnsupported`, `HclMalformed` or `TeeTypeUnsupported`; for a table's contents
    `CertChainInvalid`, `CollateralMalformed` or `CollateralTooLarge`.
    """
    if data.startswith(HCL_MAGIC):
        blob = parse_hcl_report(data)
        return SnpEvidence(raw=blob.report, report=parse_snp_report(blob.report), hcl=blob, padding=blob.padding)
    if not SNP_REPORT_BYTES <= len(data) <= MAX_SNP_EVIDENCE_BYTES:
        raise SnpMalformed(f"{len(data)} bytes, a report has {SNP_REPORT_BYTES}", field="report")
    raw, behind = data[:SNP_REPORT_BYTES], data[SNP_REPORT_BYTES:]
    report = parse_snp_report(raw)
    if not any(behind):
        return SnpEvidence(raw=raw, report=report, padding=len(behind))
    certificates, crls = read_table(behind)
    return SnpEvidence(raw=raw, report=report, certificates=certificates, crls=crls)


def read_table(data: bytes) -> tuple[tuple[Certificate, ...], tuple[Crl, ...]]:
    """Certificates and lists of a certificate table; what clouds put beside them is passed over.

    Raises `SnpMalformed`, `CertChainInvalid`, `CollateralMalformed` or `CollateralTooLarge`.
    """
    entries = parse_certificate_table(data)
    return (
        tuple(parse_certificate(one.data) for one in entries if one.kind not in (None, "crl")),
        tuple(parse_crl(one.data) for one in entries if one.kind == "crl"),
    )


def read_endorsements(data: bytes) -> tuple[tuple[Certificate, ...], tuple[Crl, ...]]:
    """Certificates and lists sent beside a report: PEM, certificates in DER one after another, or AMD's table.

    Raises `CertChainInvalid`, `SnpMalformed`, `CollateralMalformed` or `CollateralTooLarge`.
    """
    if len(data) > MAX_SNP_EVIDENCE_BYTES:
        raise CertChainInvalid(f"{len(data)} bytes of certificates", field="snp_certificates")
    if has_blocks(data):
        blocks = split_blocks(data, "snp_certificates")
        return (
            tuple(parse_certificate(one) for kind, one in blocks if kind != CRL),
            tuple(parse_crl(one) for kind, one in blocks if kind == CRL),
        )
    if data[:1] != bytes([der.SEQUENCE]):
        return read_table(data)
    return tuple(map(parse_certificate, _split_der(data))), ()


def _split_der(data: bytes) -> list[bytes]:
    found: list[bytes] = []
    at = 0
    try:
        while at < len(data):
            if len(found) == MAX_CERTIFICATE_TABLE_ENTRIES:
                raise DerError(f"more than {MAX_CERTIFICATE_TABLE_ENTRIES}")
            _, stop = der.span_of(data, at, len(data), der.SEQUENCE, "certificate")
            found.append(data[at:stop])
            at = stop
    except DerError as error:
        raise CertChainInvalid(f"not certificates one after another: {error}", field="snp_certificates") from error
    return found


def candidates(
    report: SnpReport, pool: Sequence[Certificate], roots: Sequence[Root], now_ms: int
) -> tuple[list[list[Certificate]], Span]:
    """Paths to try, root first, those of the endorsement keys that fit the report best before others; and until when
    they are the ones.

    The order in which certificates are given decides nothing. Nothing here is trusted: a certificate can say anything,
    and one that lies about the chip only takes its turn. Where there are more paths than are tried, those that no
    pinned key vouches for give way (`verifier.trust.amd.vouched`).
    """
    span = Span()
    keys = {one.der: one for one in pool if amd.is_endorsement_key(one)}
    if len(keys) > 1:
        mark = report.chip_id[:TURIN_HWID_BYTES]
        # A VCEK of this chip has its id in it, and finding bytes is quick; a pool may hold a whole fleet's.
        own = [one for one in keys.values() if mark in one.der] if report.signing_key != VLEK else []
        some = sorted(own or keys.values(), key=lambda one: one.der)[:MAX_ENDORSEMENT_KEYS]
        ranked = sorted(some, key=lambda one: _fit(report, one, now_ms))
        for one in some:
            span.narrow(one.not_before_ms, one.not_after_ms, now_ms)
    else:
        ranked = list(keys.values())
    issuers = sorted({one.der: one for one in pool if one.der not in keys}.values(), key=lambda one: one.der)
    found = _paths(ranked, issuers, roots)
    if len(found) > MAX_ENDORSEMENT_CANDIDATES:
        leaves, above = amd.vouched(ranked, issuers, roots)
        found = (_paths(leaves, above, roots) or found)[:MAX_ENDORSEMENT_CANDIDATES]
    if len(found) > 1:
        for one in chain.from_iterable(found):
            span.narrow(one.not_before_ms, one.not_after_ms, now_ms)
    return found, span


def _paths(
    leaves: Sequence[Certificate], issuers: Sequence[Certificate], roots: Sequence[Root]
) -> list[list[Certificate]]:
    """The first paths there are, one more than are tried."""
    paths = chain.from_iterable(amd.paths_of(leaf, issuers, roots) for leaf in leaves)
    return list(islice(paths, MAX_ENDORSEMENT_CANDIDATES + 1))


def _fit(report: SnpReport, one: Certificate, now_ms: int) -> tuple[bool, ...]:
    """What speaks against a certificate, the graver the earlier."""
    try:
        found = parse_ek_extensions(one.extensions)
    except EkExtensionInvalid:
        return (True,)
    vlek = found.csp_id is not None
    tcb = found.tcb.encode() != report.reported_tcb.to_bytes(8, "little")
    foreign = not vlek and found.hwid != report.chip_id[: len(found.hwid or b"")]
    return False, vlek != (report.signing_key == VLEK), foreign, tcb, now_ms > one.not_after_ms
