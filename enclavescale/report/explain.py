"""What a code of a refusal means and what to do about it, from where the code is defined."""

from __future__ import annotations

import inspect

import verifier.errors
from schemas import errors as schema_errors
from schemas.errors import EnclaveScaleError
from stream_jobs.core import refusals, reject
from stream_jobs.replay import verdicts
from verifier.errors import VerificationError

FOREIGN = "No release that this report knows gives this code."


def explanations() -> dict[str, str]:
    """Every code that a record may be refused or flagged with, or a finding have."""
    found: dict[str, str] = {}
    for module in (verifier.errors, schema_errors):
        for _, one in inspect.getmembers(module, inspect.isclass):
            if issubclass(one, EnclaveScaleError) and one not in {EnclaveScaleError, VerificationError}:
                found[one.code] = f"{' '.join((one.__doc__ or '').split())} {one.remedy}".strip()
    return found | reject.CODES | refusals.CODES | verdicts.CODES
