"""Judge an SNP report, alone or in Azure's blob."""

from __future__ import annotations

from typing import Any

from enclavescale.judging.inputs import Inputs, named_roots
from verifier.claims import Claims
from verifier.errors import VerificationError
from verifier.formats.snp import VerifiedSnpReport, verify_snp_report
from verifier.policy.quote import quote_rules, quote_warnings
from verifier.trust.vendors import ROOTS_BY_USE
from verifier.verdicts.snp import snp_verdict


def judge_snp(inputs: Inputs) -> dict[str, Any]:
    """The verdict on the report `inputs.data`."""
    report: VerifiedSnpReport | None = None
    failures: list[VerificationError] = []
    warnings: list[str] = []
    try:
        report = verify_snp_report(
            report=inputs.data,
            endorsements=inputs.collateral.certificates,
            crls=inputs.crls,
            trust_roots=inputs.roots("snp"),
            now_ms=inputs.now_ms,
        )
    except VerificationError as error:
        failures.append(error)
    if report is not None:
        claims = Claims(quote=report, now_ms=inputs.now_ms)
        failures += quote_rules(inputs.policy, report_data=inputs.report_data).failures(claims)
        warnings += quote_warnings(inputs.policy, claims, inputs.report_data)
        warnings += named_roots(ROOTS_BY_USE["snp"], report.root_label)
    return snp_verdict(policy=inputs.policy, now_ms=inputs.now_ms, report=report, failures=failures, warnings=warnings)
