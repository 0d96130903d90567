"""The rules a signed `Policy` stands for."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.records import Policy
from verifier.claims import Claims, SessionClaims
from verifier.errors import MeasurementUnknown, PolicyEmpty
from verifier.formats.dcap import VerifiedQuote
from verifier.policy.base import AllOf, AnyOf, Rule
from verifier.policy.rules import NoDebug, PlatformEnrolled, RegisterMatches, TcbEvaluated
from verifier.policy.session import FirstMileAtLeast, SamplerModeAccepted, SourceAccepted
from verifier.policy.tcb import TcbRequirement, grace_ends_ms
from verifier.policy.tdx import (
    NoReservedBits,
    NoServiceTd,
    NotMigratable,
    NoUntrustedBits,
    ProductionModule,
    SeptVeDisabled,
)

HOST = "host"
AGGREGATOR = "aggregator"
AGGREGATOR_SOURCE = "none"
"""What an aggregator's binding says it reads from."""


def tee_rules(tee: str) -> tuple[Rule[Claims], ...]:
    """What every TD ("tdx") or enclave ("sgx") must satisfy, whatever the policy says."""
    if tee != "tdx":
        return (NoDebug(),)
    return (
        NoDebug(),
        NoUntrustedBits(),
        SeptVeDisabled(),
        NotMigratable(),
        NoReservedBits(),
        NoServiceTd(),
        ProductionModule(),
    )


def tcb_requirements(policy: Policy, tee: str) -> tuple[TcbRequirement, ...]:
    """What the policy demands of the TCB on `tee`: each of its rules for it. The current TCB is judged, too."""
    return tuple(
        TcbRequirement(
            accepted_statuses=rule.accepted_statuses,
            grace_days=rule.grace_days,
            allowed_advisories=rule.allowed_advisories,
            min_evaluation_number=rule.min_tcb_evaluation_number,
            judge_current=True,
        )
        for rule in policy.tcb_rules
        if rule.tee == tee
    )


@dataclass(frozen=True, slots=True)
class TcbAccepted:
    """An evaluated TCB satisfies every requirement; no requirement: `PolicyEmpty`. Others `TcbEvaluated` judges."""

    requirements: tuple[TcbRequirement, ...]

    def check(self, claims: Claims) -> None:
        """`PolicyEmpty`, and what the rules of `verifier.policy.tcb` raise."""
        if claims.quote.tcb is None:
            return
        if not self.requirements:
            raise PolicyEmpty(f"no TCB rule for {claims.quote.tee}", field="tcb_rules")
        for requirement in self.requirements:
            requirement.rules().check(claims)


def measurement_rule(policy: Policy, role: str, tee: str) -> Rule[Claims]:
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


def policy_rules(policy: Policy, *, role: str, tee: str, platform_ids: tuple[str, ...]) -> AllOf[SessionClaims]:
    """All rules for a session of `role` on `tee`, enrolled with `platform_ids` (hex).

    That the report data is H(binding) is settled before them, while the quote is verified.
    """
    rules: list[Rule[SessionClaims]] = [
        *tee_rules(tee),
        TcbEvaluated(policy.unsafe_allow_unevaluated_tcb),
        TcbAccepted(tcb_requirements(policy, tee)),
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


def accepted_until_ms(quote: VerifiedQuote, policy: Policy) -> int | None:
    """The last moment (UTC milliseconds, inclusive) at which grace under `policy` carries a verdict on `quote`.

    None: no grace is at play, the verdict holds as long as the quote's own `expires_ms`. An acceptance made at or
    before this moment must not be repeated after it, nor a refusal made after it before it (`certain_between`).
    """
    ends = [end for one in tcb_requirements(policy, quote.tee) for end in grace_ends_ms(quote.tcb, one)]
    return min(ends) - 1 if ends else None


def certain_between(quote: VerifiedQuote, policy: Policy, now_ms: int) -> tuple[int, int]:
    """For which `now` (UTC milliseconds, inclusive) a verdict on `quote` under `policy` made at `now_ms` is certain.

    Inside of the quote's own validity, and on the same side of every day on which grace ends.
    """
    from_ms, until_ms = quote.valid_from_ms, quote.expires_ms
    for one in tcb_requirements(policy, quote.tee):
        for end in grace_ends_ms(quote.tcb, one):
            if now_ms < end:
                until_ms = min(until_ms, end - 1)
            else:
                from_ms = max(from_ms, end)
    return from_ms, until_ms


def policy_warnings(policy: Policy, *, platform_ids: tuple[str, ...], tcb_evaluated: bool) -> tuple[str, ...]:
    """What the policy's `unsafe_…` switches let pass for this session, in words a person must see."""
    warnings = []
    if policy.unsafe_allow_unevaluated_tcb and not tcb_evaluated:
        warnings.append("UNSAFE: TCB status not evaluated (policy.unsafe_allow_unevaluated_tcb)")
    if policy.unsafe_allow_unenrolled_platform and not platform_ids:
        warnings.append("UNSAFE: platform not enrolled (policy.unsafe_allow_unenrolled_platform)")
    return tuple(warnings)
