"""The verdict on an SNP report: its claims, the levels of its TCB, AMD's list it was judged with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from verifier.abi.amd import TcbVersion
from verifier.abi.snp import GuestPolicy, PlatformInfo
from verifier.errors import VerificationError
from verifier.formats.snp import CHECKED, VerifiedSnpReport
from verifier.policy.quote_policy import QuotePolicy
from verifier.trust.vendors import is_vendors
from verifier.verdicts.ear import AFFIRMING, CONTRAINDICATED, WARNING
from verifier.verdicts.shell import evidence_verdict, moment, vector_of, windows_json

STAGES = ("format", "ek_chain", "signatures", "collateral", "tcb", "validity")
"""Stages of verification in order; `verified` names those that held."""

ASPECTS = {
    "GUEST_SVN_TOO_LOW": "executables",
    "HCL_BINDING": "instance-identity",
    "MEASUREMENT_UNKNOWN": "executables",
    "PLATFORM_NOT_ENROLLED": "instance-identity",
    "REPORT_DATA_MISMATCH": "instance-identity",
    "DEBUG_ENABLED": "runtime-opaque",
    "SNP_POLICY": "configuration",
    "SNP_SIGNER": "executables",
    "SNP_VMPL": "configuration",
}
"""What of the trust vector a refusal by policy speaks of; all others speak of the hardware."""


def snp_verdict(
    *,
    policy: QuotePolicy,
    now_ms: int,
    report: VerifiedSnpReport | None,
    failures: Sequence[VerificationError],
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """The verdict at `now_ms` (UTC milliseconds); see `evidence_verdict`."""
    return evidence_verdict(
        kind="snp",
        policy=policy,
        now_ms=now_ms,
        stages=STAGES,
        vector=None if report is None else snp_vector(policy, report, failures),
        claims=None if report is None else claims_json(report),
        failures=failures,
        warnings=warnings,
        facts={
            "tcb_status": None,
            "advisory_ids": None,
            "tcb": None if report is None else tcb_json(report),
            "collateral": None if report is None else windows_json(report.windows, now_ms, report.collateral_digest),
        },
    )


def snp_vector(policy: QuotePolicy, report: VerifiedSnpReport, failures: Sequence[VerificationError]) -> dict[str, int]:
    """AR4SI tiers. Without a revocation list, or under a root that is not AMD's, the hardware is in doubt."""
    sure = report.revocation == CHECKED and not report.debug and is_vendors("snp", report.root_label)
    hardware = AFFIRMING if sure else WARNING
    code = [one for one in policy.measurements or () if one.tee == "snp"]
    judged = {
        "instance-identity": bool(policy.platforms),
        "configuration": policy.snp is not None,
        "executables": bool(code),
    }
    vector = vector_of(CONTRAINDICATED if report.simulated else hardware, judged, failures, ASPECTS)
    return {"runtime-opaque": WARNING if report.debug else AFFIRMING, **vector}


def tcb_json(report: VerifiedSnpReport) -> dict[str, Any]:
    """The four TCBs of a report by component; AMD publishes no status for them."""
    found = {
        "reported": report.reported_tcb,
        "committed": report.committed_tcb,
        "current": report.current_tcb,
        "launch": report.launch_tcb,
    }
    return {name: _components(tcb) for name, tcb in found.items()}


def _components(tcb: TcbVersion) -> dict[str, int | None]:
    return {name: value for name, value in asdict(tcb).items() if name != "reserved"}


def claims_json(report: VerifiedSnpReport) -> dict[str, Any]:
    """Every verified claim by its name in the report; byte strings in hexadecimal, in the report's own order."""
    raw = report.report
    names = ("family_id", "image_id", "measurement", "host_data", "id_key_digest", "author_key_digest", "report_id",
             "report_id_ma", "chip_id")  # fmt: skip
    return {
        "tee": report.tee,
        "quote_version": report.quote_version,
        "product": report.product,
        "padding_bytes": report.padding,
        "debug": report.debug,
        "report_data": report.report_data.hex(),
        "guest_svn": raw.guest_svn,
        "vmpl": raw.vmpl,
        "policy": f"{raw.policy:#018x}",
        "policy_decoded": _guest_policy(report.policy),
        "platform_info": f"{raw.platform_info:#x}",
        "platform_info_decoded": _bits(report.platform, PlatformInfo),
        **{name: getattr(raw, name).hex() for name in names},
        "cpuid": None if raw.cpuid is None else dict(zip(("family", "model", "stepping"), raw.cpuid, strict=True)),
        "current_version": ".".join(map(str, raw.current_version)),
        "committed_version": ".".join(map(str, raw.committed_version)),
        "launch_mitigations": raw.launch_mitigations,
        "current_mitigations": raw.current_mitigations,
        "author_key_enabled": raw.author_key_enabled,
        "mask_chip_key": raw.mask_chip_key,
        "key_type": report.key_type,
        "hwid": None if report.hwid is None else report.hwid.hex(),
        "csp_id": report.csp_id,
        "ek_product_name": report.ek_product_name,
        "ek_serial": report.ek_serial_hex,
        "ek_issuer": report.ek_issuer,
        "platform_ids": list(report.platform_ids),
        "revocation": report.revocation,
        "runtime_data": None if report.runtime_data is None else report.runtime_data.decode("utf-8", "replace"),
        "root": report.root_label,
        "simulated": report.simulated,
        "valid_from": moment(report.valid_from_ms),
        "expires": moment(report.expires_ms),
    }


def _guest_policy(policy: GuestPolicy) -> dict[str, Any]:
    return {"abi_minimum": ".".join(map(str, policy.abi_minimum)), **_bits(policy, GuestPolicy)}


def _bits(flags: GuestPolicy | PlatformInfo, kind: type[GuestPolicy | PlatformInfo]) -> dict[str, bool | int]:
    """Each bit by its name, as the type's properties read it."""
    names = [name for name, value in vars(kind).items() if isinstance(value, property) and name != "abi_minimum"]
    return {name: getattr(flags, name) for name in names}
