"""Which certificate is missing where a report's endorsement was refused, and where AMD's KDS has it (AMD 57230).

For people: a refusal stays one. Nothing here is verified, nothing fetched; what is said follows from names, chip ids
and TCBs alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from verifier.abi import x509
from verifier.abi.amd import GENOA, MILAN, TURIN, TURIN_HWID_BYTES, EkExtensions, TcbVersion, parse_ek_extensions
from verifier.abi.der import DerError
from verifier.abi.snp import VLEK, SnpReport
from verifier.errors import (
    CertChainInvalid,
    EkExtensionInvalid,
    EndorsementMissing,
    SnpSignature,
    SnpTcbMismatch,
    VerificationError,
)
from verifier.trust import amd
from verifier.trust.certificate import Certificate

_ZEN_3_4, _ZEN_5 = 0x19, 0x1A
_KDS = "https://kdsintf.amd.com"


def product_of_cpu(family: int, model: int) -> str | None:
    """The product line of a CPU, by family and model with their extensions; None if it is none we know."""
    if family == _ZEN_3_4:
        if model <= 0x0F:
            return MILAN
        return GENOA if 0x10 <= model <= 0x1F or 0xA0 <= model <= 0xAF else None
    return TURIN if family == _ZEN_5 and model <= 0x1F else None


def key_missing(report: SnpReport) -> EndorsementMissing:
    """There is no endorsement key at all."""
    what = "VLEK" if report.signing_key == VLEK else "VCEK"
    return _missing(f"no {what} certificate is given", _remedy(report))


def explained(refusal: VerificationError, report: SnpReport, pool: Sequence[Certificate]) -> VerificationError:
    """`refusal`, of the best path that `pool` has for `report`; or where it lacks a certificate, what is missing.

    `EndorsementMissing`: no key of the report's chip, or no issuer of the one there is. `SnpTcbMismatch`: of this chip
    there are only keys of other TCBs. It holds as long and after the same stages as `refusal`.
    """
    if not isinstance(refusal, CertChainInvalid | SnpSignature):
        return refusal
    keys = [one for one in dict.fromkeys(pool) if amd.is_endorsement_key(one)]
    found = _other_keys(report, keys)
    if found is None and isinstance(refusal, CertChainInvalid):
        found = _issuer_missing([one for one in keys if _fits(report, one)], pool)
    if found is None:
        return refusal
    found.verified = refusal.verified
    found.holds_from_ms, found.holds_until_ms = refusal.holds_from_ms, refusal.holds_until_ms
    return found


def _missing(message: str, remedy: str) -> EndorsementMissing:
    return EndorsementMissing(message, field="endorsements", remedy=remedy)


def _fits(report: SnpReport, one: Certificate) -> bool:
    """Whether the key may have signed the report, by what its certificate says; one that says nothing may."""
    found = _extensions(one)
    return found is None or (_of_chip(report, found) and _of_tcb(report, found))


def _extensions(one: Certificate) -> EkExtensions | None:
    try:
        return parse_ek_extensions(one.extensions)
    except EkExtensionInvalid:
        return None


def _of_chip(report: SnpReport, found: EkExtensions) -> bool:
    """Of the report's chip; a VLEK is of none, and a masked CHIP_ID tells nothing."""
    if found.hwid is None or not any(report.chip_id):
        return True
    return report.chip_id == found.hwid.ljust(len(report.chip_id), b"\x00")


def _of_tcb(report: SnpReport, found: EkExtensions) -> bool:
    return found.tcb.encode() == report.reported_tcb.to_bytes(8, "little")


def _other_keys(report: SnpReport, keys: Sequence[Certificate]) -> VerificationError | None:
    """Why none of the keys can be the report's; None where one can."""
    if any(_fits(report, one) for one in keys):
        return None
    held = [found for one in keys if (found := _extensions(one)) is not None]
    of_chip = next((found for found in held if _of_chip(report, found)), None)
    if of_chip is None:
        which = (
            "the given endorsement key is not"
            if len(keys) == 1
            else f"none of the {len(keys)} given endorsement keys is"
        )
        return _missing(f"{which} of this chip and TCB", _remedy(report))
    reported = TcbVersion.of(report.reported_tcb, GENOA if of_chip.tcb.fmc is None else TURIN)
    return SnpTcbMismatch(
        f"REPORTED_TCB {reported}; the given key's {of_chip.tcb}", field="reported_tcb", remedy=_remedy(report)
    )


def _issuer_missing(keys: Sequence[Certificate], pool: Sequence[Certificate]) -> EndorsementMissing | None:
    """The ASK or ASVK that issued the keys, or the ARK above it; None where both are there by name."""
    subjects = {one.subject for one in pool}
    lacking: list[EndorsementMissing] = []
    for key in keys:
        kind = "VLEK" if amd.VLEK in key.common_name else "VCEK"
        found = _extensions(key)
        remedy = _chain_remedy(kind, found.product if found is not None else None)
        above = [one for one in pool if one.subject == key.issuer and one != key]
        if not above:
            role = "ASVK" if kind == amd.VLEK else "ASK"
            lacking.append(_missing(f"{_name(key.issuer)} ({role}), the issuer of this {kind}, is not given", remedy))
        elif all(one.issuer not in subjects for one in above):
            lacking.append(_missing(f"{_name(above[0].issuer)}, the root of this {kind}, is not given", remedy))
        else:
            return None
    return lacking[0] if lacking else None


def _name(name: bytes) -> str:
    try:
        return x509.common_name(name) or "a certificate without a name"
    except DerError:
        return "a certificate without a name"


def _chain_remedy(kind: str, product: str | None) -> str:
    path = f"{_KDS}/{kind.lower()}/v1/{product or '<product>'}/cert_chain"
    return f"Give ASK and ARK of the product line; AMD's KDS serves both: {path}"


def _remedy(report: SnpReport) -> str:
    """Where the report's own key is found."""
    if report.signing_key == VLEK:
        return "Give the VLEK certificate for the report's REPORTED_TCB; the cloud provider delivers it to its hosts."
    if not any(report.chip_id):
        return "The report does not name its chip (MaskChipId): give the VCEK certificate that the host has."
    product = None if report.cpuid is None else product_of_cpu(*report.cpuid[:2])
    turin = product == TURIN or (product is None and not any(report.chip_id[TURIN_HWID_BYTES:]))
    product = TURIN if turin else product
    tcb = TcbVersion.of(report.reported_tcb, product or GENOA)
    levels = {"blSPL": tcb.boot_loader, "teeSPL": tcb.tee, "snpSPL": tcb.snp, "ucodeSPL": tcb.microcode}
    if tcb.fmc is not None:
        levels = {"fmcSPL": tcb.fmc, **levels}
    chip = report.chip_id[:TURIN_HWID_BYTES] if turin else report.chip_id
    query = "&".join(f"{name}={level:02d}" for name, level in levels.items())
    path = f"{_KDS}/vcek/v1/{product or '<product>'}/{chip.hex()}?{query}"
    return f"Give the VCEK certificate of this chip and TCB, which AMD's KDS serves: {path}"
