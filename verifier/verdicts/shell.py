"""The shape that every verdict on evidence has: EAR-shaped, with what a person or a program asks next beside it.

Three outcomes. Accepted. Refused by policy: the evidence is verified, so its claims are given. Refused by verification:
nothing in it is proven, so claims are null, and `verified` says how far verification came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from verifier.abi import fields as formats
from verifier.errors import VerificationError
from verifier.policy.quote_policy import QuotePolicy
from verifier.trust.selection import FOREVER_MS, CollateralWindow
from verifier.verdicts.ear import AFFIRMING, CONTRAINDICATED, STATUS_OF_TIER, WARNING, ear, error_json

DAY_MS = 86_400_000


def evidence_verdict(
    *,
    kind: str,
    policy: QuotePolicy,
    now_ms: int,
    stages: Sequence[str],
    vector: Mapping[str, int] | None,
    claims: Mapping[str, Any] | None,
    failures: Sequence[VerificationError],
    warnings: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
    submods: Mapping[str, Any] | None = None,
    name: str = "cpu",
) -> dict[str, Any]:
    """The verdict at `now_ms` (UTC milliseconds) on evidence of `kind`: accepted if `failures` is empty.

    `vector` (AR4SI tiers by aspect) and `claims` are None where verification itself failed, with the one failure it
    raised; else `failures` are the policy's rules that do not hold, in order. `stages` are those of the kind's
    verification in order. `facts` stand beside the claims, `submods` beside the first submodule, called `name`. With an
    `unsafe_` switch set, the status is `warning` at best.
    """
    judged = dict(vector) if vector is not None else {"hardware": CONTRAINDICATED}
    status = "contraindicated"
    if not failures:
        # A simulated root the caller named contraindicates the hardware claim, not the acceptance it was named for.
        status = STATUS_OF_TIER[WARNING if policy.unsafe else min(max(judged.values()), WARNING)]
    codes = list(dict.fromkeys(error.code for error in failures))
    verified = stages if claims is not None else failures[0].verified if failures else ()
    result = ear(now_ms, status, judged, policy.digest(), {"accepted": not failures, "codes": codes}, name)
    result["submods"] |= submods or {}
    return {
        **result,
        "kind": kind,
        "status": status,
        "accepted": not failures,
        "at": moment(now_ms),
        "codes": codes,
        "stages": list(stages),
        "verified": list(verified),
        "claims": None if claims is None else dict(claims),
        **(facts or {}),
        "policy": {"name": policy.name, "digest": f"sha256:{policy.digest().hex()}"},
        "warnings": list(warnings),
        "errors": [error_json(error) for error in failures],
    }


def vector_of(
    hardware: int, judged: Mapping[str, bool], failures: Sequence[VerificationError], aspects: Mapping[str, str]
) -> dict[str, int]:
    """AR4SI tiers: `hardware` as given, affirming for aspects the policy judged, contraindicated where a rule failed.

    `aspects` says of what a code speaks; all others speak of the hardware.
    """
    vector = {aspect: AFFIRMING if holds else 0 for aspect, holds in judged.items()} | {"hardware": hardware}
    for error in failures:
        vector[aspects.get(error.code, "hardware")] = CONTRAINDICATED
    return vector


def windows_json(windows: Sequence[CollateralWindow], now_ms: int, digest: bytes | None) -> dict[str, Any]:
    """The collateral evidence was judged with: the set's digest, each item's window, which one expires first."""
    first = min(windows, key=lambda one: one.next_update_ms, default=None)
    return {
        "digest": None if digest is None else f"sha256:{digest.hex()}",
        "earliest_expiry": None if first is None else moment(first.next_update_ms),
        "earliest_expiry_of": None if first is None else first.kind,
        "windows": [
            {
                "kind": one.kind,
                "subject": one.subject,
                "digest": f"sha256:{one.digest.hex()}",
                "issued": moment(one.issued_ms),
                "next_update": moment(one.next_update_ms),
                "days_left": (one.next_update_ms - now_ms) // DAY_MS,
                "evaluation_number": one.evaluation_number,
            }
            for one in windows
        ],
    }


def moment(moment_ms: int | None) -> str | None:
    """UTC milliseconds as RFC 3339 with seconds, beyond any calendar as a number; None and "for ever" are None."""
    return None if moment_ms is None or abs(moment_ms) >= FOREVER_MS else formats.moment(moment_ms)
