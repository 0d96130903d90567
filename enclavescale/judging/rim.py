"""Judge a reference integrity manifest."""

from __future__ import annotations

from typing import Any

from enclavescale.judging.inputs import Inputs
from verifier.errors import VerificationError
from verifier.formats.rim import VerifiedRim, verify_rim
from verifier.verdicts.rim import rim_verdict, rim_warnings


def judge_rim(inputs: Inputs) -> dict[str, Any]:
    """The verdict on the manifest `inputs.data`: that it is genuine. What it demands, no policy judges."""
    rim: VerifiedRim | None = None
    failures: list[VerificationError] = []
    try:
        rim = verify_rim(
            data=inputs.data,
            trust_roots=inputs.roots("rim"),
            now_ms=inputs.now_ms,
            ocsp=inputs.ocsp(),
            crls=inputs.crls,
        )
    except VerificationError as error:
        failures.append(error)
    warnings = () if rim is None else rim_warnings(rim)
    return rim_verdict(policy=inputs.policy, now_ms=inputs.now_ms, rim=rim, failures=failures, warnings=warnings)
