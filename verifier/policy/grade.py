"""What a host's evidence earns it: the grade of the first mile.

It is what all of the demands together prove, and nothing that a switch of the policy let pass: `NONE`, where any of
them does not hold, on the CPU or on a device; `GPU_ATTESTED`, where the CPU is enrolled and runs known code, and every
enrolled device showed fresh evidence of firmware its vendor or the policy names; `SPDM_MEASURED`, where besides a
device was challenged over SPDM and signed its measurements (docs/evidence/composite.md says what that does not mean).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from schemas.contract import FIRST_MILE_GRADES
from verifier.claims import Claims, CpuEvidence, VerifiedDevice
from verifier.errors import FirstMileTooLow, PolicyEmpty, PolicyInvalid, VerificationError
from verifier.formats.nvidia import GPU, VerifiedNvidiaReport
from verifier.formats.spdm import VerifiedSpdm
from verifier.policy.base import Rule
from verifier.policy.devices import (
    SESSION_NVIDIA,
    DevicesComplete,
    DevicesEnrolled,
    EachDevice,
    Expectations,
    HasDevices,
    SpdmDemands,
)

NONE, GPU_ATTESTED, SPDM_MEASURED = FIRST_MILE_GRADES[:3]
"""The grades that this release gives; the higher ones nothing earns."""


class HasHost(Protocol):
    """Claims of a whole host: a session's, or those of composite evidence."""

    @property
    def cpu(self) -> CpuEvidence | None:
        """The CPU's evidence, if any was sent."""

    @property
    def devices(self) -> tuple[VerifiedDevice, ...]:
        """Every device whose evidence was sent, each verified."""

    @property
    def tied(self) -> bool:
        """Whether the devices' nonces derive from report data that the verifier expects of the CPU."""

    @property
    def now_ms(self) -> int:
        """As of when all of it is judged, UTC milliseconds."""


@dataclass(frozen=True, slots=True)
class GradeAtLeast:
    """The first mile's earned grade is at least `minimum`. Without one: `PolicyEmpty`; nobody's grade: refused."""

    minimum: str
    expected: Expectations

    def check(self, claims: HasHost) -> None:
        """`FirstMileTooLow`, `PolicyEmpty`."""
        if not self.minimum:
            raise PolicyEmpty("no lowest grade of the first mile is named", field="devices.first_mile")
        grade, why = earned_grade(claims, self.expected)
        if self.minimum not in FIRST_MILE_GRADES:
            raise PolicyInvalid(f"no grade is called {self.minimum[:40]!r}", field="devices.first_mile")
        if FIRST_MILE_GRADES.index(grade) < FIRST_MILE_GRADES.index(self.minimum):
            raise FirstMileTooLow(f"{grade} is below {self.minimum}: {why}", field="first_mile")


def earned_grade(claims: HasHost, expected: Expectations) -> tuple[str, str]:
    """The first mile's grade, and in words what it rests on, or lacks for being more than `NONE`.

    Nothing of `expected` may be left unjudged for a grade, whatever a policy lets pass.
    """
    devices = claims.devices
    if not devices:
        return NONE, "no device showed evidence"
    if not claims.tied or claims.cpu is None:
        return NONE, "nothing ties the devices to this CPU and to a challenge of ours"
    if expected.cpu is None:
        return NONE, "nothing is demanded of this CPU"
    strict = strictest(expected)
    enrolled = tuple(strict.key_digests or ())
    if not enrolled:
        return NONE, "no device is enrolled for this host"
    rules: list[Rule[HasDevices]] = [DevicesEnrolled(enrolled), DevicesComplete(enrolled, True), EachDevice(strict)]
    try:
        expected.cpu.check(Claims(quote=claims.cpu, now_ms=claims.now_ms))
        for rule in rules:
            rule.check(claims)
    except VerificationError as error:
        return NONE, f"{error.code}: {error}"
    gpus = sum(one.evidence.kind == GPU for one in devices if isinstance(one.evidence, VerifiedNvidiaReport))
    endpoints = sum(isinstance(one.evidence, VerifiedSpdm) for one in devices)
    if gpus + endpoints < max(expected.gpus, 1):
        shown = f"{_number(gpus, 'GPU')} and {_number(endpoints, 'SPDM device')}"
        return NONE, f"evidence of {shown}, for {_number(max(expected.gpus, 1), 'GPU')}"
    if endpoints:
        shown = _number(endpoints, "SPDM device")
        return SPDM_MEASURED, f"{_number(gpus, 'GPU')} attested, {shown} challenged and measured"
    return GPU_ATTESTED, f"{_number(gpus, 'GPU')} attested"


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def strictest(expected: Expectations) -> Expectations:
    """The same with everything demanded of devices that a grade stands for, and nothing allowed that gives it up.

    What a policy may choose stays its own: modes, versions, kinds whose reports name no firmware (never GPUs).
    """
    base = expected.nvidia or SESSION_NVIDIA
    unbound = tuple(kind for kind in base.unbound_kinds if kind != GPU)
    nvidia = replace(
        base,
        demand_nonce=True,
        demand_fwid=True,
        demand_reference=True,
        demand_revocation=True,
        allow_debug=False,
        allow_unattested_switches=False,
        unbound_kinds=unbound,
        modes=SESSION_NVIDIA.modes if base.modes is None else base.modes,
    )
    spdm = replace(expected.spdm or SpdmDemands(), demand_nonce=True, demand_grade=True, allow_debug=False)
    firmware = expected.spdm_firmware if expected.spdm_firmware is not None else ()
    return replace(expected, nvidia=nvidia, spdm=spdm, spdm_firmware=firmware)
