"""The rules of a `QuotePolicy` on devices, one alone or those of a host together with its CPU."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    nvidia_device_rules,
    spdm_device_rules,
)
from verifier.policy.grade import GradeAtLeast, earned_grade
from verifier.policy.quote import quote_rules, quote_warnings
from verifier.policy.quote_policy import MeasuredCode, QuotePolicy, TdDemands
from verifier.policy.session import IdentitiesBound
from verifier.policy.snp import REPORTED_TCB_AT_LEAST, SnpDemands


def expectations_of(policy: QuotePolicy) -> Expectations:
    """What a policy expects of devices; its measurements for them are alternatives."""
    demanded = policy.devices
    return Expectations(
        key_digests=None if demanded is None else demanded.key_digests,
        cpu=quote_rules(graded(policy)),
        nvidia=policy.nvidia,
        spdm=policy.spdm,
        nvidia_firmware=_firmware(policy, "nvidia"),
        spdm_firmware=_firmware(policy, "spdm"),
    )


def graded(policy: QuotePolicy) -> QuotePolicy:
    """The same with everything demanded of a CPU that a grade stands for, as sessions do; the rest is its own choice.

    A guest's minimum TCB may be its measurement's, where the table has none. That report data is expected at all, the
    claims say (`CompositeClaims.tied`).
    """
    snp, code = policy.snp or SnpDemands(), policy.measurements or ()
    if snp.tcb_minimums is None:
        code = tuple(one for one in code if one.tee != "snp" or _names_minimum(one))
    return replace(
        policy,
        tcb=policy.tcb if policy.tcb.accepted_statuses is not None else replace(policy.tcb, accepted_statuses=()),
        allow_debug=False,
        td=replace(
            policy.td or TdDemands(),
            unsafe_allow_sept_ve=False,
            unsafe_allow_reserved_bits=False,
            allow_migratable=False,
        ),
        snp=replace(
            snp,
            allow_migration_agent=False,
            allow_masked_chip_id=False,
            unsafe_allow_unknown_policy_bits=False,
            unsafe_allow_unknown_platform_bits=False,
            unsafe_allow_incomplete_alias_check=False,
            demand_revocation=True,
        ),
        measurements=code,
        platforms=policy.platforms or (),
        demand_report_data=False,
    )


def _names_minimum(measured: MeasuredCode) -> bool:
    return any(one.register == REPORTED_TCB_AT_LEAST for one in measured.registers)


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
