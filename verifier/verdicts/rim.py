"""The verdict on a reference integrity manifest: what it is for, who signed it, what it demands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from verifier.errors import VerificationError
from verifier.formats.rim import VerifiedRim
from verifier.policy.quote_policy import QuotePolicy
from verifier.verdicts.ear import AFFIRMING, CONTRAINDICATED, WARNING
from verifier.verdicts.shell import evidence_verdict, moment

STAGES = ("format", "digest", "rim_chain", "signatures", "validity")
"""Stages of verification in order; `verified` names those that held."""


def rim_verdict(
    *,
    policy: QuotePolicy,
    now_ms: int,
    rim: VerifiedRim | None,
    failures: Sequence[VerificationError],
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """The verdict at `now_ms` (UTC milliseconds); see `evidence_verdict`."""
    return evidence_verdict(
        kind="nvidia-rim",
        name="rim",
        policy=policy,
        now_ms=now_ms,
        stages=STAGES,
        vector=None if rim is None else {"instance-identity": _tier(rim)},
        claims=None if rim is None else claims_json(rim),
        failures=failures,
        warnings=warnings,
    )


def _tier(rim: VerifiedRim) -> int:
    return CONTRAINDICATED if rim.simulated else WARNING if rim.override else AFFIRMING


def claims_json(rim: VerifiedRim) -> dict[str, Any]:
    """What the manifest says; `reference_values` by index, which counts from 0."""
    document = rim.document
    return {
        "kind": rim.kind,
        "version": rim.version,
        "product": rim.product,
        "edition": document.edition,
        "tag_id": document.tag_id,
        "digest": f"sha256:{rim.digest.hex()}",
        "signers": list(rim.signers),
        "signer_serial": rim.signer_serial_hex,
        "override": rim.override,
        "revocation": rim.revocation,
        "reference_values": {
            str(index): {"name": entry.name, "size": entry.size, "alternatives": [v.hex() for v in entry.alternatives]}
            for index, entry in sorted(rim.golden.items())
        },
        "root": rim.root_label,
        "simulated": rim.simulated,
        "valid_from": moment(rim.valid_from_ms),
        "expires": moment(rim.expires_ms),
    }


def rim_warnings(rim: VerifiedRim) -> tuple[str, ...]:
    """What an acceptance does not mean, in words a person must see."""
    found = []
    if rim.simulated:
        found.append("SIMULATED: the root of trust is not NVIDIA's")
    elif rim.override:
        found.append(f"OVERRIDE: signed under {rim.root_label}, a root that the operator named, not NVIDIA's")
    if rim.revocation != "checked":
        found.append("revocation of the signer's certificates is not checked: nothing given says it")
    return tuple(found)
