"""The rules of a `QuotePolicy` on devices, one alone or those of a host together with its CPU."""

from __future__ import annotations

from dataclasses import dataclass

from verifier.claims import Claims, CompositeClaims
from verifier.errors import EvidenceMissing, PolicyEmpty, VerificationError
from verifier.formats.nvidia import VerifiedNvidiaReport
from verifier.formats.spdm import VerifiedSpdm
from verifier.policy.base import Every, Rule, failures_of
from verifier.policy.devices import (
    Alternative,
    DevicesComplete,
    DevicesEnrolled,
    EachDevice,
    Expectations,
    GradeAtLeast,
    earned_grade,
    nvidia_device_rules,
    spdm_device_rules,
)
from verifier.policy.quote import quote_rules, quote_warnings
from verifier.policy.quote_policy import QuotePolicy
from verifier.policy.session import IdentitiesBound


def expectations_of(policy: QuotePolicy) -> Expectations:
    """What a policy expects of devices; its measurements for them are alternatives."""
    demanded = policy.devices
    return Expectations(
        key_digests=None if demanded is None else demanded.key_digests,
        nvidia=policy.nvidia,
        spdm=policy.spdm,
        nvidia_firmware=_firmware(policy, "nvidia"),
        spdm_firmware=_firmware(policy, "spdm"),
    )


def _firmware(policy: QuotePolicy, tee: str) -> tuple[Alternative, ...] | None:
    if policy.measurements is None:
        return None
    found = (one for one in policy.measurements if one.tee == tee)
    return tuple(Alternative(label=one.label, registers=one.registers) for one in found)


def nvidia_rules_of(policy: QuotePolicy, report: VerifiedNvidiaReport) -> Every[VerifiedNvidiaReport]:
    """Every rule of `policy` on one GPU or switch."""
    return nvidia_device_rules(policy.nvidia, _firmware(policy, "nvidia"), report)


def spdm_rules_of(policy: QuotePolicy, *, fresh: bool) -> Every[VerifiedSpdm]:
    """Every rule of `policy` on one SPDM device; `fresh`: its nonces were compared."""
    return spdm_device_rules(policy.spdm, _firmware(policy, "spdm"), fresh=fresh)


def composite_rules(policy: QuotePolicy, *, report_data: bytes | None = None) -> Every[CompositeClaims]:
    """Every rule of `policy` on a host's evidence; `report_data` (64 bytes), if given, is what the CPU's must be.

    The CPU first, then which devices there are, what each is, and what all of it earns.
    """
    expected, demanded = expectations_of(policy), policy.devices
    rules: list[Rule[CompositeClaims]] = [OnCpu(policy, report_data), BoundDevices()]
    if demanded is not None:
        if demanded.key_digests is not None:
            rules += [DevicesNamed(demanded.key_digests), DevicesEnrolled(demanded.key_digests)]
            rules.append(DevicesComplete(demanded.key_digests, bool(demanded.key_digests)))
        rules.append(EachDevice(expected))
        rules.append(GradeAtLeast(demanded.first_mile, expected))
    else:
        rules.append(EachDevice(expected))
    return Every(rules)


def composite_warnings(
    policy: QuotePolicy, claims: CompositeClaims, *, nonces: str, report_data: bytes | None = None
) -> tuple[str, ...]:
    """What an acceptance under `policy` does not mean, in words a person must see.

    `nonces` is what devices' nonces were compared with (`VerifiedComposite.nonces`).
    """
    found: list[str] = []
    if claims.cpu is None:
        found.append("no CPU evidence: nothing says which machine these devices belong to")
    else:
        found += quote_warnings(policy, Claims(quote=claims.cpu, now_ms=claims.now_ms), report_data)
    if claims.devices and nonces == "unchecked":
        found.append("devices' nonces are not compared: nothing says when, or for whom, they attested")
    if claims.devices and claims.binding is None:
        found.append("no binding is given: which devices the attested code saw is not compared")
    if any(one.evidence.simulated for one in claims.devices):
        found.append("SIMULATED: the root of trust of a device is not hardware")
    if claims.devices:
        grade, why = earned_grade(claims, expectations_of(policy))
        found.append(f"first mile {grade}: {why}")
        found.append("relay is not excluded: no report says which machine a device is attached to")
    return tuple(found)


@dataclass(frozen=True, slots=True)
class OnCpu:
    """The rules on the CPU's evidence, which must be there unless the policy only reports what devices are."""

    policy: QuotePolicy
    report_data: bytes | None

    def check(self, claims: CompositeClaims) -> None:
        """`EvidenceMissing`, and what the rules raise."""
        for error in self.failures(claims):
            raise error

    def failures(self, claims: CompositeClaims) -> list[VerificationError]:
        """Why each of the rules that fails does."""
        if claims.cpu is None:
            if self.policy.devices is None:
                return []
            return [EvidenceMissing("no evidence of a CPU", field="items")]
        rules = quote_rules(self.policy, report_data=self.report_data)
        return failures_of(rules, Claims(quote=claims.cpu, now_ms=claims.now_ms))


@dataclass(frozen=True, slots=True)
class BoundDevices:
    """Where a binding is given, it names these devices."""

    def check(self, claims: CompositeClaims) -> None:
        """`GpuIdentitiesMismatch`."""
        if claims.binding is not None:
            IdentitiesBound().check(claims)


@dataclass(frozen=True, slots=True)
class DevicesNamed:
    """The policy names devices."""

    digests: tuple[str, ...]

    def check(self, claims: CompositeClaims) -> None:
        """`PolicyEmpty`."""
        if not self.digests:
            raise PolicyEmpty("no device is named", field="devices.key_digests")
