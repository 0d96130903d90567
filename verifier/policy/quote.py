"""The rules that a `QuotePolicy` stands for; the data is in `quote_policy`, reading a file in `quote_file`."""

from __future__ import annotations

from verifier.claims import Claims
from verifier.errors import MeasurementUnknown
from verifier.formats.snp import VerifiedSnpReport
from verifier.policy.base import AllOf, AnyOf, ForTee, Rule
from verifier.policy.quote_file import parse_quote_policy
from verifier.policy.quote_policy import AUTHENTIC, BUILT_IN, STRICT, MeasuredCode, QuotePolicy, TdDemands
from verifier.policy.rules import (
    EnclaveAttributesMatch,
    IsvSvnAtLeast,
    NoDebug,
    PlatformEnrolled,
    RegisterMatches,
    ReportDataDemanded,
    ReportDataIs,
    TeeAccepted,
)
from verifier.policy.snp import snp_code_rules, snp_rules, snp_warnings
from verifier.policy.tdx import (
    NoReservedBits,
    NoServiceTd,
    NotMigratable,
    NoUntrustedBits,
    SeptVeDisabled,
    TdFieldMatches,
)
from verifier.tcb.status import TcbStatus

__all__ = ["AUTHENTIC", "BUILT_IN", "STRICT", "QuotePolicy", "parse_quote_policy", "quote_rules", "quote_warnings"]


INTEL = ("tdx", "sgx")
"""TEEs whose TCB has a status; AMD publishes none, a guest's minimum TCB is in [snp] or its measurement."""


def quote_rules(policy: QuotePolicy, *, report_data: bytes | None = None) -> AllOf[Claims]:
    """Every rule of `policy`, and that the report data (64 bytes) is `report_data` where the caller gives one.

    The order is that of severity: what the quote is for, debug, TCB, the TEE's own state, code, platform.
    """
    rules: list[Rule[Claims]] = [TeeAccepted(policy.tees)]
    expected = [one for one in (policy.report_data, report_data) if one is not None]
    rules += [ReportDataIs(one) for one in expected]
    if policy.demand_report_data and not expected:
        rules.append(ReportDataDemanded())
    if not policy.allow_debug:
        rules.append(NoDebug())
    rules += [ForTee(tee, policy.tcb.rules()) for tee in INTEL]
    if policy.td is not None:
        rules.append(ForTee("tdx", AllOf(td_rules(policy.td), "tdx")))
    if policy.sgx_attributes is not None:
        bits = policy.sgx_attributes
        rules.append(ForTee("sgx", EnclaveAttributesMatch(bits.value, bits.mask)))
    if policy.snp is not None and (found := snp_rules(policy.snp)):
        rules.append(ForTee("snp", AllOf(found, "snp")))
    if policy.measurements is not None:
        rules += [ForTee(tee, code_rule(policy.measurements, tee)) for tee in policy.tees]
    if policy.platforms is not None:
        rules.append(platform_rule(policy.platforms))
    return AllOf(rules, "policy")


def td_rules(demands: TdDemands) -> list[Rule[Claims]]:
    """What a TD must be beside its measurements."""
    rules: list[Rule[Claims]] = [NoUntrustedBits(), NoServiceTd(demands.service_tds)]
    if not demands.unsafe_allow_sept_ve:
        rules.append(SeptVeDisabled())
    if not demands.allow_migratable:
        rules.append(NotMigratable())
    if not demands.unsafe_allow_reserved_bits:
        rules.append(NoReservedBits())
    for field, bits in (("td_attributes", demands.td_attributes), ("xfam", demands.xfam)):
        if bits is not None:
            rules.append(TdFieldMatches(field, bits.value, bits.mask))
    return rules


def code_rule(measurements: tuple[MeasuredCode, ...], tee: str) -> Rule[Claims]:
    """One of the measurements for `tee`, all of it; where there is only one, what it lacks is said itself."""
    alternatives = [
        AllOf(_code_rules(measured), f"measurement {measured.label}")
        for measured in measurements
        if measured.tee == tee
    ]
    if len(alternatives) == 1:
        return alternatives[0]
    return AnyOf(alternatives, "measurements", MeasurementUnknown)


def _code_rules(measured: MeasuredCode) -> list[Rule[Claims]]:
    if measured.tee == "snp":
        return snp_code_rules(measured.registers)
    rules: list[Rule[Claims]] = [RegisterMatches(register) for register in measured.registers]
    if rules and measured.min_isvsvn is not None:
        rules.append(IsvSvnAtLeast(measured.min_isvsvn))
    return rules


def platform_rule(platforms: tuple[str, ...]) -> Rule[Claims]:
    """The platform is one of these; none at all: `PolicyEmpty`."""
    return PlatformEnrolled(platforms, False) if platforms else AllOf([], "platforms")


def quote_warnings(policy: QuotePolicy, claims: Claims, report_data: bytes | None = None) -> tuple[str, ...]:
    """What an acceptance under `policy` does not mean, in words a person must see: switches, facts not judged."""
    quote, tcb = claims.quote, claims.quote.tcb
    found = [f"UNSAFE: {name} is set in the policy" for name in policy.unsafe]
    if isinstance(quote, VerifiedSnpReport):
        found += snp_warnings(quote)
    elif quote.simulated:
        found.append("SIMULATED: the root of trust is not hardware")
    if policy.allow_debug and quote.debug:
        found.append("DEBUG: the host can read this TEE's memory; this policy does not judge it")
    if tcb is not None and policy.tcb.accepted_statuses is None and tcb.status is not TcbStatus.UP_TO_DATE:
        found.append(f"TCB status {tcb.status} is reported, not judged")
    if tcb is not None and not policy.tcb.judge_current and tcb.current.status is not tcb.launch.status:
        found.append(f"the TCB that runs now is {tcb.current.status}, the one at launch {tcb.launch.status}")
    if policy.report_data is None and report_data is None and not policy.demand_report_data:
        found.append("report data is not compared: nothing says what this quote was made for, or when")
    return tuple(found)
