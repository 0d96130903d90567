"""The verdict on an NVIDIA GPU's or switch's report: its claims, its measurements beside their reference values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from verifier.errors import VerificationError
from verifier.formats.nvidia import BOUND, VerifiedNvidiaReport
from verifier.formats.rim_compare import RimComparison, RimUse
from verifier.policy.quote_policy import QuotePolicy
from verifier.trust.nvidia_revocation import CHECKED
from verifier.trust.vendors import is_vendors
from verifier.verdicts.ear import AFFIRMING, CONTRAINDICATED, WARNING
from verifier.verdicts.shell import evidence_verdict, moment, vector_of

STAGES = ("format", "device_chain", "signatures", "collateral", "reference", "validity")
"""Stages of verification in order; `verified` names those that held."""

ASPECTS = {
    "DEVICE_DEBUG": "runtime-opaque",
    "DEVICE_MODE": "configuration",
    "DEVICE_VERSION_REFUSED": "executables",
    "FWID_UNBOUND": "instance-identity",
    "MEASUREMENT_UNKNOWN": "executables",
    "NONCE_UNCHECKED": "instance-identity",
    "PLATFORM_NOT_ENROLLED": "instance-identity",
    "REFERENCE_MISMATCH": "executables",
    "REFERENCE_MISSING": "executables",
}
"""What of the trust vector a refusal by policy speaks of; all others speak of the hardware."""


def nvidia_verdict(
    *,
    kind: str,
    policy: QuotePolicy,
    now_ms: int,
    device: VerifiedNvidiaReport | None,
    failures: Sequence[VerificationError],
    warnings: Sequence[str] = (),
    reference: RimComparison | None = None,
) -> dict[str, Any]:
    """The verdict at `now_ms` (UTC milliseconds); see `evidence_verdict`.

    `reference` is what is shown where nothing is verified: a comparison with manifests nobody vouches for.
    """
    found = reference if device is None or device.reference is None else device.reference
    return evidence_verdict(
        kind=kind if device is None else f"nvidia-{device.kind}",
        name="device" if device is None else device.kind,
        policy=policy,
        now_ms=now_ms,
        stages=STAGES,
        vector=None if device is None else device_vector(policy, device, failures),
        claims=None if device is None else claims_json(device),
        failures=failures,
        warnings=warnings,
        facts={"reference": None if found is None else reference_json(found)},
    )


def device_vector(
    policy: QuotePolicy, device: VerifiedNvidiaReport, failures: Sequence[VerificationError]
) -> dict[str, int]:
    """AR4SI tiers. Unless firmware is bound, no certificate revoked and the root NVIDIA's, hardware is in doubt."""
    sure = device.fwid_bound == BOUND and device.revocation.state == CHECKED and is_vendors("nvidia", device.root_label)
    judged = {
        "instance-identity": device.nonce_checked,
        "configuration": policy.nvidia is not None and policy.nvidia.modes is not None,
        "executables": device.reference is not None and device.reference.matched,
    }
    hardware = CONTRAINDICATED if device.simulated else AFFIRMING if sure else WARNING
    return vector_of(hardware, judged, failures, ASPECTS)


def claims_json(device: VerifiedNvidiaReport) -> dict[str, Any]:
    """Every verified claim; byte strings in hexadecimal. Names are those of the report's opaque fields."""
    facts, revocation = device.facts, device.revocation
    return {
        "device": device.kind,
        "architecture": device.architecture,
        "chip": device.chip,
        "driver_version": device.driver_version,
        "vbios_version": device.vbios_version,
        "mode": device.mode,
        "nonce": device.nonce.hex(),
        "nonce_checked": device.nonce_checked,
        "responder_nonce": device.responder_nonce.hex(),
        "fwid": None if device.fwid is None else device.fwid.hex(),
        "fwid_bound": device.fwid_bound,
        "tcb_flags": list(device.tcb_flags),
        "key_digest": device.key_digest.hex(),
        "device_serial": device.device_serial_hex,
        "leaf_serial": device.leaf_serial_hex,
        "chain": list(device.chain),
        "project": facts.project,
        "project_sku": facts.project_sku,
        "project_sku_mod": facts.project_sku_mod,
        "chip_sku": facts.chip_sku,
        "chip_sku_mod": facts.chip_sku_mod,
        "chip_info": facts.chip_info,
        "board_id": facts.board_id,
        "nvdec0_disabled": facts.nvdec0_disabled,
        "protected_pcie": facts.protected_pcie,
        "feature_flag": facts.feature_flag,
        "position_id": facts.position_id,
        "pdi": None if facts.pdi is None else facts.pdi.hex(),
        "switch_pdis": _hex_list(facts.switch_pdis),
        "gpu_pdis": _hex_list(facts.gpu_pdis),
        "measurements": {str(block): value.hex() for block, value in sorted(device.measurements.items())},
        "revocation": revocation.state,
        "revocation_checked": list(revocation.checked),
        "revocation_sources": list(revocation.sources),
        "root": device.root_label,
        "simulated": device.simulated,
        "valid_from": moment(device.valid_from_ms),
        "expires": moment(device.expires_ms),
    }


def reference_json(found: RimComparison) -> dict[str, Any]:
    """A comparison with reference manifests; indexes are the manifests', that is measurement block minus one."""
    return {
        "outcome": found.outcome,
        "verified": found.verified,
        "mismatched_indexes": list(found.mismatched_indexes),
        "compared_indexes": list(found.compared),
        "skipped_indexes": list(found.skipped),
        "unreferenced_indexes": list(found.unreferenced),
        "missing": list(found.missing),
        "override": found.override,
        "manifests": [_use_json(use) for use in found.used],
    }


def _use_json(use: RimUse) -> dict[str, Any]:
    return {
        "kind": use.kind,
        "version": use.version,
        "product": use.product,
        "tag_id": use.tag_id,
        "digest": None if use.digest is None else f"sha256:{use.digest.hex()}",
        "verified": use.verified,
        "override": use.override,
        "root": use.root_label,
    }


def _hex_list(values: tuple[bytes, ...] | None) -> list[str] | None:
    return None if values is None else [value.hex() for value in values]
