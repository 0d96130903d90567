"""Sort the items of a session's evidence: one CPU, and devices by their subject; nothing is left unread.

Nothing is verified here. An item that no verification step would read is refused, so that evidence never passes
because nobody looked at it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.records import EvidenceItem
from verifier.errors import (
    EvidenceAmbiguous,
    EvidenceKindUnknown,
    EvidenceMissing,
    EvidenceSubject,
    EvidenceTooLarge,
)
from verifier.limits import MAX_EVIDENCE_BYTES, MAX_EVIDENCE_ITEMS, MAX_SUBJECT_CHARACTERS
from verifier.nonces import NVIDIA, SPDM

SNP_REPORT, SNP_CERTIFICATES = "snp_report", "snp_certificates"
NVIDIA_REPORT, NVIDIA_CERTIFICATES, SPDM_TRANSCRIPT = "nvidia_gpu_report", "nvidia_gpu_certificates", "spdm_transcript"

DCAP_KINDS = {"tdx_quote_v4": ("tdx", 4), "tdx_quote_v5": ("tdx", 5), "sgx_quote_v3": ("sgx", 3)}
"""Quotes in Intel's format: the TEE whose roots and measurements count for them, and the quote's version."""

CPU_QUOTE_KINDS = frozenset({*DCAP_KINDS, SNP_REPORT})
OTHER_KINDS = frozenset({SNP_CERTIFICATES, NVIDIA_REPORT, NVIDIA_CERTIFICATES, SPDM_TRANSCRIPT})

_SEND_ONCE = "Send each piece of evidence once: one CPU quote first, one report and one chain for each subject."
_SEND_BOTH = "Send report and certificates of a subject together, under the same subject."


@dataclass(frozen=True, slots=True)
class CpuItems:
    """The CPU's evidence, unverified: `kind` of `data`, and for an SNP report the certificates sent with it."""

    kind: str
    data: bytes
    certificates: bytes | None

    @property
    def tee(self) -> str:
        """ "tdx", "sgx" or "snp", as the kind says."""
        return DCAP_KINDS[self.kind][0] if self.kind in DCAP_KINDS else "snp"


@dataclass(frozen=True, slots=True)
class DeviceItems:
    """A device's evidence, unverified: `kind` is "nvidia" (with certificates) or "spdm" (None)."""

    kind: str
    subject: str
    data: bytes
    certificates: bytes | None


@dataclass(frozen=True, slots=True)
class SortedEvidence:
    """What there is to verify, devices in the order of their first item."""

    cpu: CpuItems | None
    devices: tuple[DeviceItems, ...]


def sort_evidence(items: Sequence[EvidenceItem]) -> SortedEvidence:
    """The items by what they speak of; without a CPU quote `cpu` is None.

    Raises `EvidenceMissing` (nothing at all; a report without certificates or certificates without a report),
    `EvidenceTooLarge`, `EvidenceKindUnknown`, `EvidenceSubject` or `EvidenceAmbiguous` (something twice; the CPU's
    quote not first).
    """
    check_size(items)
    found: dict[tuple[str, str], bytes] = {}
    for item in items:
        check_kind(item)
        check_subject(item)
        # The kinds of CPU quotes are one place: two of them are two CPUs, whatever they are called.
        place = ("cpu" if item.kind in CPU_QUOTE_KINDS else item.kind, item.subject or "")
        check_once(place, found)
        found[place] = item.data
    check_pairs(found)
    return SortedEvidence(_cpu(items, found), tuple(_devices(found)))


def check_size(items: Sequence[EvidenceItem]) -> None:
    """There is some, and no more than the limits allow. `EvidenceMissing`, `EvidenceTooLarge`."""
    if not items:
        raise EvidenceMissing("there is no evidence", field="items")
    if len(items) > MAX_EVIDENCE_ITEMS or sum(len(item.data) for item in items) > MAX_EVIDENCE_BYTES:
        raise EvidenceTooLarge(f"{len(items)} evidence items", field="items")


def check_kind(item: EvidenceItem) -> None:
    """Somebody here reads it. `EvidenceKindUnknown`."""
    if item.kind not in CPU_QUOTE_KINDS | OTHER_KINDS:
        raise EvidenceKindUnknown(f"evidence kind {item.kind[:MAX_SUBJECT_CHARACTERS]!r}", field="kind")


def check_subject(item: EvidenceItem) -> None:
    """Device evidence names its device, the CPU's none. `EvidenceSubject`."""
    subject = item.subject
    if item.kind in CPU_QUOTE_KINDS or item.kind == SNP_CERTIFICATES:
        if subject is not None:
            raise EvidenceSubject(f"{item.kind} speaks of the CPU and names a device", field="subject")
    elif subject is None or not 0 < len(subject) <= MAX_SUBJECT_CHARACTERS or not subject.isprintable():
        raise EvidenceSubject(f"{item.kind} does not say of which device it is", field="subject")


def check_once(place: tuple[str, str], found: Mapping[tuple[str, str], bytes]) -> None:
    """Nothing stands in the same place yet. `EvidenceAmbiguous`."""
    if place in found:
        kind, subject = place
        raise EvidenceAmbiguous(f"two pieces of kind {kind} {_of(subject)}", field="items", remedy=_SEND_ONCE)


def check_pairs(found: Mapping[tuple[str, str], bytes]) -> None:
    """Certificates stand beside their report, and a device's report beside its certificates. `EvidenceMissing`."""
    if (SNP_CERTIFICATES, "") in found and ("cpu", "") not in found:
        raise EvidenceMissing(f"{SNP_CERTIFICATES} without a report", field=SNP_REPORT, remedy=_SEND_BOTH)
    for kind, subject in found:
        other = {NVIDIA_REPORT: NVIDIA_CERTIFICATES, NVIDIA_CERTIFICATES: NVIDIA_REPORT}.get(kind)
        if other is not None and (other, subject) not in found:
            raise EvidenceMissing(f"{kind} {_of(subject)} without {other}", field=other, remedy=_SEND_BOTH)


def check_cpu(first: EvidenceItem, certificates: bytes | None) -> None:
    """The CPU's quote comes first, and certificates beside it are of its vendor. `EvidenceAmbiguous`."""
    if first.kind not in CPU_QUOTE_KINDS:
        raise EvidenceAmbiguous("the CPU quote does not come first", field="items", remedy=_SEND_ONCE)
    if certificates is not None and first.kind != SNP_REPORT:
        raise EvidenceAmbiguous(f"{SNP_CERTIFICATES} beside {first.kind}", field="items", remedy=_SEND_ONCE)


def _cpu(items: Sequence[EvidenceItem], found: Mapping[tuple[str, str], bytes]) -> CpuItems | None:
    if ("cpu", "") not in found:
        return None
    certificates = found.get((SNP_CERTIFICATES, ""))
    check_cpu(items[0], certificates)
    kind = next(item.kind for item in items if item.kind in CPU_QUOTE_KINDS)
    return CpuItems(kind, found["cpu", ""], certificates)


def _devices(found: Mapping[tuple[str, str], bytes]) -> list[DeviceItems]:
    devices = []
    for (kind, subject), data in found.items():
        if kind == SPDM_TRANSCRIPT:
            devices.append(DeviceItems(SPDM, subject, data, None))
        elif kind == NVIDIA_REPORT:
            devices.append(DeviceItems(NVIDIA, subject, data, found.get((NVIDIA_CERTIFICATES, subject))))
    return devices


def _of(subject: str) -> str:
    return f"of {subject}" if subject else "of the CPU"
