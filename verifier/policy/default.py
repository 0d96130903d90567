"""The rules a signed `Policy` stands for."""

from __future__ import annotations

from schemas.records import Policy
from verifier.errors import MeasurementUnknown
from verifier.policy.base import AllOf, AnyOf, Rule
from verifier.policy.session import (
    FirstMileAtLeast,
    PlatformEnrolled,
    RegisterMatches,
    ReportDataBinds,
    SamplerModeAccepted,
    SourceAccepted,
    TcbEvaluated,
)
from verifier.policy.tdx import (
    NoDebug,
    NoReservedBits,
    NotMigratable,
    NoUntrustedBits,
    ProductionModule,
    SeptVeDisabled,
)

HOST = "host"
AGGREGATOR = "aggregator"
AGGREGATOR_SOURCE = "none"
"""What an aggregator's binding says it reads from."""


def td_rules() -> tuple[Rule, ...]:
    """What every TD must satisfy, whatever the policy says."""
    return NoDebug(), NoUntrustedBits(), SeptVeDisabled(), NotMigratable(), NoReservedBits(), ProductionModule()


def measurement_rule(policy: Policy, role: str, tee: str) -> Rule:
    """One of the policy's measurements for `role` on `tee`, all of its registers."""
    return AnyOf(
        [
            AllOf([RegisterMatches(register) for register in measurement.registers], f"measurement {measurement.label}")
            for measurement in policy.measurements
            if measurement.role == role and measurement.tee == tee
        ],
        "measurements",
        MeasurementUnknown,
    )


def policy_rules(policy: Policy, *, role: str, tee: str, platform_ids: tuple[str, ...]) -> AllOf:
    """All rules for a session of `role` on `tee`, enrolled with `platform_ids` (hex)."""
    rules: list[Rule] = [
        ReportDataBinds(),
        *td_rules(),
        TcbEvaluated(policy.unsafe_allow_unevaluated_tcb),
        measurement_rule(policy, role, tee),
        PlatformEnrolled(platform_ids, policy.unsafe_allow_unenrolled_platform),
    ]
    if role == HOST:
        rules += [
            SourceAccepted(policy.accepted_sources),
            SamplerModeAccepted(policy.accepted_sampler_modes),
            FirstMileAtLeast(policy.min_first_mile),
        ]
    else:
        rules.append(SourceAccepted((AGGREGATOR_SOURCE,)))
    return AllOf(rules, "policy")


def policy_warnings(policy: Policy, *, platform_ids: tuple[str, ...], tcb_evaluated: bool) -> tuple[str, ...]:
    """What the policy's `unsafe_…` switches let pass for this session, in words a person must see."""
    warnings = []
    if policy.unsafe_allow_unevaluated_tcb and not tcb_evaluated:
        warnings.append("UNSAFE: TCB status not evaluated (policy.unsafe_allow_unevaluated_tcb)")
    if policy.unsafe_allow_unenrolled_platform and not platform_ids:
        warnings.append("UNSAFE: platform not enrolled (policy.unsafe_allow_unenrolled_platform)")
    return tuple(warnings)
