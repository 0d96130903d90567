"""Judge a quote in Intel's format: SGX or TDX."""

from __future__ import annotations

from typing import Any

from enclavescale.judging.inputs import AUTO, Inputs, named_roots
from verifier.claims import Claims
from verifier.errors import VerificationError
from verifier.formats.dcap import VerifiedQuote, verify_quote
from verifier.policy.quote import quote_rules, quote_warnings
from verifier.trust.roots import TrustAnchor
from verifier.trust.vendors import ROOTS_BY_USE
from verifier.verdicts.quote import quote_verdict


def judge_quote(inputs: Inputs) -> dict[str, Any]:
    """The verdict on the quote `inputs.data`."""
    quote: VerifiedQuote | None = None
    failures: list[VerificationError] = []
    warnings: list[str] = []
    try:
        quote = verify_quote(
            quote=inputs.data,
            collateral=inputs.collateral,
            trust_roots=[root for root in inputs.roots("tdx") if isinstance(root, TrustAnchor)],
            now_ms=inputs.now_ms,
            tee=None if inputs.kind == AUTO else inputs.kind,
            endorsements=inputs.endorsements.certificates,
        )
    except VerificationError as error:
        failures.append(error)
    if quote is not None:
        claims = Claims(quote=quote, now_ms=inputs.now_ms)
        failures += quote_rules(inputs.policy, report_data=inputs.report_data).failures(claims)
        warnings += quote_warnings(inputs.policy, claims, inputs.report_data)
        warnings += named_roots(ROOTS_BY_USE["tdx"], quote.root_label)
    return quote_verdict(policy=inputs.policy, now_ms=inputs.now_ms, quote=quote, failures=failures, warnings=warnings)
