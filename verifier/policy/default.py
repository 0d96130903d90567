"""The rules a signed `Policy` stands for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from schemas.contract import FIRST_MILE_GRADES
from schemas.records import HostEnrolment, Measurement, Policy, RegisterRule
from verifier.claims import Claims, CpuEvidence, SessionClaims, VerifiedDevice
from verifier.errors import MeasurementUnknown, PolicyEmpty, PolicyInvalid
from verifier.policy.base import AllOf, AnyOf, Rule
from verifier.policy.devices import (
    SESSION_NVIDIA,
    Alternative,
    DevicesComplete,
    DevicesEnrolled,
    EachDevice,
    Expectations,
    device_warnings,
)
from verifier.policy.enrolment import enrolment_of
from verifier.policy.quote_policy import CODE_REGISTERS
from verifier.policy.rules import NoDebug, PlatformEnrolled, PlatformOfOneHost, RegisterMatches, TcbEvaluated
from verifier.policy.session import FirstMileAtLeast, IdentitiesBound, SamplerModeAccepted, SourceAccepted
from verifier.policy.snp import REPORTED_TCB_AT_LEAST, SnpDemands, snp_code_rules, snp_rules
from verifier.policy.snp_rules import RevocationListSeen
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

SNP = "snp"
_SNP_DEMANDS = SnpDemands(demand_revocation=False, tcb_minimums=None)
"""Of every guest; whether revocation is checked and how old the TCB is, sessions judge by their own rules."""


def tee_rules(tee: str) -> tuple[Rule[Claims], ...]:
    """What every TD ("tdx"), enclave ("sgx") or guest ("snp") must satisfy, whatever the policy says."""
    if tee == SNP:
        return tuple(snp_rules(_SNP_DEMANDS))
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
    found = [one for one in policy.measurements if one.role == role and one.tee == tee]
    return AnyOf(
        [AllOf(code_rules(one, policy), f"measurement {one.label}") for one in found],
        "measurements",
        MeasurementUnknown,
    )


def code_rules(measurement: Measurement, policy: Policy) -> list[Rule[Claims]]:
    """The rules of one measurement of a CPU's code: all of its registers."""
    if measurement.tee == SNP:
        return snp_measurement(measurement, policy.unsafe_allow_unevaluated_tcb)
    return _equal(measurement.registers)


def _equal(registers: tuple[RegisterRule, ...]) -> list[Rule[Claims]]:
    return [RegisterMatches(register) for register in registers]


def snp_measurement(measurement: Measurement, unsafe_allow_unevaluated: bool) -> list[Rule[Claims]]:
    """The rules of a measurement of guests, which must name code, and a minimum TCB: AMD evaluates none.

    Where one of them is missing, a rule stands for it that refuses with `PolicyEmpty`.
    """
    names = {one.register for one in measurement.registers}
    rules: list[Rule[Claims]] = []
    if CODE_REGISTERS.isdisjoint(names):
        rules.append(
            Lacking(f"measurement {measurement.label} names no code: none of {', '.join(sorted(CODE_REGISTERS))}")
        )
    if REPORTED_TCB_AT_LEAST not in names and not unsafe_allow_unevaluated:
        rules.append(Lacking(f"measurement {measurement.label} names no {REPORTED_TCB_AT_LEAST}"))
    return [*rules, *snp_code_rules(measurement.registers)]


@dataclass(frozen=True, slots=True)
class Lacking:
    """Stands where a measurement lacks what it cannot do without."""

    why: str

    def check(self, claims: Claims) -> None:
        """`PolicyEmpty`, always."""
        raise PolicyEmpty(self.why, field="measurements")


@dataclass(frozen=True, slots=True)
class NoTcbRules:
    """The policy has no `tcb_rules` for guests: AMD publishes no TCB levels, and nothing would read them."""

    policy: Policy

    def check(self, claims: Claims) -> None:
        """`PolicyInvalid`."""
        if tcb_requirements(self.policy, SNP):
            raise PolicyInvalid(
                "tcb_rules for snp say nothing", field="tcb_rules", remedy=f"Name {REPORTED_TCB_AT_LEAST} instead."
            )


def tcb_judged(policy: Policy, tee: str) -> list[Rule[Claims]]:
    """What the policy demands of the TCB: for Intel's TEEs its status, for guests that it can be judged at all.

    How old a guest's TCB may be, its measurement says; the list that revokes its keys must have been at hand.
    """
    lax = policy.unsafe_allow_unevaluated_tcb
    if tee == SNP:
        return [NoTcbRules(policy)] if lax else [NoTcbRules(policy), RevocationListSeen()]
    return [TcbEvaluated(lax), TcbAccepted(tcb_requirements(policy, tee))]


def graded_expectations(policy: Policy, host: HostEnrolment, tee: str) -> Expectations:
    """What a grade demands of a host with a CPU of this TEE: nothing that an `unsafe_` switch lets pass."""
    strict = replace(policy, unsafe_allow_unevaluated_tcb=False, unsafe_allow_unenrolled_platform=False)
    rules = quote_side(strict, role=HOST, tee=tee, platform_ids=host.platform_ids, host=host)
    return replace(device_expectations(policy, host), cpu=AllOf(rules, "policy"))


def device_expectations(policy: Policy, host: HostEnrolment) -> Expectations:
    """What the policy expects of the devices of a host. Without evaluated TCBs neither manifests nor revocation."""
    lax = policy.unsafe_allow_unevaluated_tcb
    nvidia = replace(SESSION_NVIDIA, demand_reference=not lax, demand_revocation=not lax)
    return Expectations(
        key_digests=host.gpu_key_digests,
        gpus=sum(one.gpus for one in host.classes),
        nvidia=nvidia,
        nvidia_firmware=_firmware(policy, "nvidia"),
        spdm_firmware=_firmware(policy, "spdm"),
    )


def _firmware(policy: Policy, tee: str) -> tuple[Alternative, ...]:
    found = (one for one in policy.measurements if one.role == HOST and one.tee == tee)
    return tuple(Alternative(label=one.label, registers=one.registers) for one in found)


def devices_enrolled(policy: Policy, host: HostEnrolment) -> DevicesEnrolled:
    """Every device is enrolled for this host."""
    return DevicesEnrolled(host.gpu_key_digests, policy.unsafe_allow_unenrolled_platform, enrolment_of(policy).owner_of)


def device_rules(policy: Policy, host: HostEnrolment) -> list[Rule[SessionClaims]]:
    """What a host's devices must be; with no evidence of any, only whether the policy can do without."""
    digests = host.gpu_key_digests
    demanded = policy.min_first_mile != FIRST_MILE_GRADES[0]
    return [
        devices_enrolled(policy, host),
        DevicesComplete(digests, demanded and bool(digests)),
        IdentitiesBound(),
        EachDevice(device_expectations(policy, host)),
    ]


def quote_side(
    policy: Policy, *, role: str, tee: str, platform_ids: tuple[str, ...], host: HostEnrolment | None
) -> list[Rule[Claims]]:
    """The rules on the CPU's evidence itself."""
    rules: list[Rule[Claims]] = [
        *tee_rules(tee),
        *tcb_judged(policy, tee),
        measurement_rule(policy, role, tee),
        PlatformEnrolled(platform_ids, policy.unsafe_allow_unenrolled_platform),
    ]
    if host is not None:
        rules.append(PlatformOfOneHost(host.host_id, enrolment_of(policy).owner_of_platform))
    return rules


def cpu_rules(
    policy: Policy, *, role: str, tee: str, platform_ids: tuple[str, ...], host: HostEnrolment | None = None
) -> AllOf[SessionClaims]:
    """All rules for a session of `role` on `tee` that need no device: platform, TCB, code, and what its binding says.

    It is enrolled with `platform_ids` (hex); `host` is a host's enrolment. That the report data is H(binding) is
    settled before them, while the evidence is verified.
    """
    rules: list[Rule[SessionClaims]] = [*quote_side(policy, role=role, tee=tee, platform_ids=platform_ids, host=host)]
    if role == HOST:
        rules += [SourceAccepted(policy.accepted_sources), SamplerModeAccepted(policy.accepted_sampler_modes)]
    else:
        rules.append(SourceAccepted((AGGREGATOR_SOURCE,)))
    return AllOf(rules, "policy")


def host_rules(policy: Policy, *, role: str, host: HostEnrolment | None) -> list[Rule[SessionClaims]]:
    """All rules for a session of `role` on its devices and what they earn; none for an aggregator, which has none."""
    if role != HOST:
        return []
    devices = [] if host is None else device_rules(policy, host)
    return [*devices, FirstMileAtLeast(policy.min_first_mile)]


def policy_rules(
    policy: Policy, *, role: str, tee: str, platform_ids: tuple[str, ...], host: HostEnrolment | None = None
) -> AllOf[SessionClaims]:
    """All rules for a session, in their order: `cpu_rules`, then `host_rules`."""
    cpu = cpu_rules(policy, role=role, tee=tee, platform_ids=platform_ids, host=host)
    return AllOf([cpu, *host_rules(policy, role=role, host=host)], "policy")


def accepted_until_ms(quote: CpuEvidence, policy: Policy) -> int | None:
    """The last moment (UTC milliseconds, inclusive) at which grace under `policy` carries a verdict on `quote`.

    None: no grace is at play, the verdict holds as long as the quote's own `expires_ms`. An acceptance made at or
    before this moment must not be repeated after it, nor a refusal made after it before it (`certain_between`).
    """
    ends = [end for one in tcb_requirements(policy, quote.tee) for end in grace_ends_ms(quote.tcb, one)]
    return min(ends) - 1 if ends else None


def certain_between(quote: CpuEvidence, policy: Policy, now_ms: int) -> tuple[int, int]:
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


def policy_warnings(
    policy: Policy,
    *,
    platform_ids: tuple[str, ...],
    tcb_evaluated: bool,
    devices: tuple[VerifiedDevice, ...] = (),
    key_digests: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """What the policy's `unsafe_…` switches let pass for this session, in words a person must see.

    `tcb_evaluated`: the age of the CPU's TCB was judged; `key_digests` are the devices enrolled for the host.
    """
    warnings = []
    if policy.unsafe_allow_unevaluated_tcb and not tcb_evaluated:
        warnings.append("UNSAFE: TCB status not evaluated (policy.unsafe_allow_unevaluated_tcb)")
    if policy.unsafe_allow_unevaluated_tcb and devices:
        warnings.append("UNSAFE: devices without references or revocation pass (policy.unsafe_allow_unevaluated_tcb)")
    if policy.unsafe_allow_unenrolled_platform and not platform_ids:
        warnings.append("UNSAFE: platform not enrolled (policy.unsafe_allow_unenrolled_platform)")
    if policy.unsafe_allow_unenrolled_platform and devices and not key_digests:
        warnings.append("UNSAFE: devices not enrolled (policy.unsafe_allow_unenrolled_platform)")
    return (*warnings, *device_warnings(devices))
