"""The shape of an EAT Attestation Result (draft-ietf-rats-ear; AR4SI trust vector): names and tiers, unsigned."""

from __future__ import annotations

from typing import Any

from verifier.errors import VerificationError

EAR_PROFILE = "tag:github.com,2023:veraison/ear"
VERIFIER_ID = {"developer": "EnclaveScale", "build": "enclavescale-verifier/1"}

AFFIRMING, WARNING, CONTRAINDICATED, NO_CLAIM = 2, 32, 96, 0
"""AR4SI tiers, as the number that opens each."""

STATUS_OF_TIER = {AFFIRMING: "affirming", WARNING: "warning", CONTRAINDICATED: "contraindicated", NO_CLAIM: "none"}


def ear(
    now_ms: int, status: str, vector: dict[str, int], policy_digest: bytes, ours: dict[str, Any], name: str = "cpu"
) -> dict[str, Any]:
    """An attestation result issued at `now_ms` (UTC milliseconds) under the policy of `policy_digest` (32 bytes).

    `name` is what its submodule is called.
    """
    return {
        "eat_profile": EAR_PROFILE,
        "iat": now_ms // 1000,
        "ear.verifier-id": dict(VERIFIER_ID),
        "submods": {name: submodule(status, vector, policy_digest, ours)},
    }


def submodule(status: str, vector: dict[str, int], policy_digest: bytes, ours: dict[str, Any]) -> dict[str, Any]:
    """What is said of one part of the evidence."""
    return {
        "ear.status": status,
        "ear.trustworthiness-vector": vector,
        "ear.appraisal-policy-id": f"sha256:{policy_digest.hex()}",
        "enclavescale": ours,
    }


def error_json(error: VerificationError) -> dict[str, str | None]:
    """A refusal: code, failing field, what happened, what to do."""
    return {"code": error.code, "field": error.field, "message": str(error), "remedy": error.remedy}
