"""Verified claims: all that a policy ever sees."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.records import SessionBinding
from verifier.formats.dcap import VerifiedQuote
from verifier.formats.nvidia import VerifiedNvidiaReport
from verifier.formats.snp import VerifiedSnpReport
from verifier.formats.spdm import VerifiedSpdm

CpuEvidence = VerifiedQuote | VerifiedSnpReport
"""Verified evidence of a CPU, whoever made it. Both have TEE, debug state, registers, report data and platform ids."""

DeviceEvidence = VerifiedNvidiaReport | VerifiedSpdm
"""Verified evidence of a device. Both have a leaf key's digest, registers and a root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """Verified evidence of a CPU, judged at `now_ms` (UTC milliseconds)."""

    quote: CpuEvidence
    now_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedDevice:
    """A device whose evidence verified, as `subject` names it. Only `verify_composite` makes one.

    `kind` is "nvidia" or "spdm"; `fresh` says whether its nonces were compared with what they had to be.
    """

    kind: str
    subject: str
    evidence: DeviceEvidence
    fresh: bool

    @property
    def key_digest(self) -> bytes:
        """SHA-256 of the leaf key's SubjectPublicKeyInfo, 32 bytes: who the device is."""
        return self.evidence.key_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionClaims(Claims):
    """The claims of a session: its CPU, the binding that report data names, its devices, the grade of the first mile.

    `report_data` (64 bytes) is H(binding) as the caller computed it from the bytes received; `first_mile` is what the
    verified evidence earns, whatever a report says; `first_mile_reason` says in words what it rests on or lacks.
    """

    binding: SessionBinding
    report_data: bytes
    first_mile: str
    first_mile_reason: str = ""
    devices: tuple[VerifiedDevice, ...] = ()

    @property
    def cpu(self) -> CpuEvidence:
        """The CPU's evidence, as `CompositeClaims` calls it."""
        return self.quote

    @property
    def tied(self) -> bool:
        """True: a session's devices carry nonces that derive from its binding."""
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class CompositeClaims:
    """The claims of one host's evidence, judged at `now_ms` (UTC milliseconds) without a session around it.

    `cpu` is None where no CPU's evidence was given. `binding` is the session binding that the evidence is said to be
    made for, None where none was given; that report data is its digest, was a demand while verifying. `tied`: the
    devices' nonces derive from report data that the verifier knows to expect, and not from the evidence itself.
    """

    cpu: CpuEvidence | None
    devices: tuple[VerifiedDevice, ...]
    now_ms: int
    binding: SessionBinding | None = None
    tied: bool = False
