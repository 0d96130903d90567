"""All evidence of a host as one `QuoteProvider`: its CPU's, then that of each device, all over one report data.

    evidence = HostEvidence(TsmQuotes(), devices)
    session = Session(evidence, lambda point: binding(point, gpu_identities_digest=evidence.identities_digest()))

The binding names the devices, and their nonces derive from the binding: so each is asked who it is before the binding
is made, and once more over it. A device that gives no evidence fails the whole: a session without it would be refused
for the device that is missing (`EVIDENCE_MISSING`), and only later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from attester.quote import QuoteProvider
from schemas.errors import EnclaveScaleError
from schemas.records import EvidenceItem
from verifier.evidence import sort_evidence
from verifier.nonces import gpu_identities_digest


class DeviceAttester(Protocol):
    """A device that gives evidence: `NvidiaGpu`, `SpdmDevice`. Both methods raise subclasses of EnclaveScaleError."""

    @property
    def subject(self) -> str:
        """The name its evidence goes by."""

    def identity(self) -> bytes:
        """SHA-256 of the SubjectPublicKeyInfo of its leaf key, 32 bytes."""

    def evidence(self, report_data: bytes) -> list[EvidenceItem]:
        """Its evidence in the session of `report_data` (64 bytes)."""


class DeviceFailed(EnclaveScaleError):
    """A device gave no evidence; `field` is its subject, `code` and `remedy` are those of what went wrong."""

    code = "DEVICE_FAILED"
    remedy = "The message names the device and says what is wrong with it."


class HostEvidence:
    """The CPU `cpu` and the devices that `devices` gives, asked for anew each time, since GPUs come and go.

    Not for several threads at once.
    """

    def __init__(self, cpu: QuoteProvider, devices: Callable[[], Sequence[DeviceAttester]] = tuple) -> None:
        self._cpu = cpu
        self._devices = devices

    @property
    def kind(self) -> str:
        """Kind of the CPU's quote."""
        return self._cpu.kind

    @property
    def simulated(self) -> bool:
        """Whether the CPU's evidence is."""
        return self._cpu.simulated

    def identities_digest(self) -> bytes | None:
        """`gpu_identities_digest` of the devices there are now, 32 bytes; None without devices. Raises DeviceFailed."""
        found = []
        for device in self._devices():
            with _named(device):
                found.append(device.identity())
        return gpu_identities_digest(found) if found else None

    def quote(self, report_data: bytes) -> list[EvidenceItem]:
        """The CPU's items over `report_data` (64 bytes), then those of each device.

        Raises what the CPU's provider raises, DeviceFailed, and the verifier's EvidenceTooLarge, EvidenceAmbiguous,
        EvidenceMissing and EvidenceSubject for a collection that no verifier takes.
        """
        items = self._cpu.quote(report_data)
        for device in self._devices():
            with _named(device):
                items += device.evidence(report_data)
        sort_evidence(items)
        return items


@contextmanager
def _named(device: DeviceAttester) -> Iterator[None]:
    """Errors say which device it is."""
    try:
        yield
    except EnclaveScaleError as error:
        raise DeviceFailed(
            f"{device.subject}: {error}", code=error.code, field=device.subject, remedy=error.remedy
        ) from error
