"""The verdict on one quote in Intel's format (`verifier.verdicts.shell`): its claims, its TCB, its collateral."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from verifier.abi.sgx import SgxReport
from verifier.abi.tdx import TdAttributes, TdReport
from verifier.errors import PolicyEmpty, VerificationError
from verifier.formats.dcap import VerifiedQuote
from verifier.policy.quote_policy import QuotePolicy
from verifier.tcb.status import PartStatus, TcbReport, TcbState
from verifier.trust.roots import INTEL_SGX_ROOT
from verifier.verdicts.ear import AFFIRMING, CONTRAINDICATED, NO_CLAIM, WARNING
from verifier.verdicts.session import hardware_tier
from verifier.verdicts.shell import DAY_MS, evidence_verdict, moment, windows_json

STAGES = ("format", "pck_chain", "signatures", "collateral", "tcb", "validity")
"""Stages of verification in order; `verified` names those that held."""

ASPECTS = {
    "DEBUG_ENABLED": "runtime-opaque",
    "ENCLAVE_ATTRIBUTES": "configuration",
    "ISV_SVN_TOO_LOW": "executables",
    "MEASUREMENT_UNKNOWN": "executables",
    "PLATFORM_NOT_ENROLLED": "instance-identity",
    "REPORT_DATA_MISMATCH": "instance-identity",
    "SERVICE_TD_BOUND": "configuration",
    "TD_ATTRIBUTES": "configuration",
}
"""What of the trust vector a refusal by policy speaks of; all others speak of the hardware."""

_EMPTY_ASPECTS = {
    "measurement": "executables",
    "platforms": "instance-identity",
    "report_data": "instance-identity",
    "tdx": "configuration",
}
"""The same for `POLICY_EMPTY`, by what its field begins with."""


def quote_verdict(
    *,
    policy: QuotePolicy,
    now_ms: int,
    quote: VerifiedQuote | None,
    failures: Sequence[VerificationError],
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """The verdict at `now_ms` (UTC milliseconds): accepted if `failures` is empty.

    `quote` is None where verification itself failed, with the one failure it raised; else `failures` are the policy's
    rules that do not hold, in order. With an `unsafe_` switch set, or under a root that is not the vendor's, its status
    is `warning` at best.
    """
    tcb = None if quote is None else quote.tcb
    return evidence_verdict(
        kind="quote" if quote is None else quote.tee,
        policy=policy,
        now_ms=now_ms,
        stages=STAGES,
        vector=None if quote is None else _vector(policy, quote, failures),
        claims=None if quote is None else claims_json(quote),
        failures=failures,
        warnings=warnings,
        facts={
            "tcb_status": None if tcb is None else str(tcb.status),
            "advisory_ids": None if tcb is None else list(tcb.advisory_ids),
            "tcb": None if tcb is None else tcb_json(tcb, now_ms),
            "collateral": None if quote is None else windows_json(quote.windows, now_ms, quote.collateral_digest),
        },
    )


def _vector(policy: QuotePolicy, quote: VerifiedQuote, failures: Sequence[VerificationError]) -> dict[str, int]:
    hardware = hardware_tier(quote)
    if quote.root_label != INTEL_SGX_ROOT.label:
        hardware = max(hardware, WARNING)
    td, code = policy.td, policy.measurements or ()
    whole = td is not None and not (td.unsafe_allow_sept_ve or td.unsafe_allow_reserved_bits or td.allow_migratable)
    judged = {
        "instance-identity": bool(policy.platforms),
        "configuration": whole and quote.tee == "tdx",
        "executables": quote.tee in policy.tees and any(one.tee == quote.tee for one in code),
    }
    vector = {
        **{aspect: AFFIRMING if holds else NO_CLAIM for aspect, holds in judged.items()},
        "hardware": hardware,
        "runtime-opaque": WARNING if quote.debug else AFFIRMING,
    }
    for error in failures:
        vector[_aspect(error)] = CONTRAINDICATED
    return vector


def _aspect(error: VerificationError) -> str:
    if isinstance(error, PolicyEmpty):
        field = error.field or ""
        return next((aspect for begin, aspect in _EMPTY_ASPECTS.items() if field.startswith(begin)), "hardware")
    return ASPECTS.get(error.code, "hardware")


def claims_json(quote: VerifiedQuote) -> dict[str, Any]:
    """Every verified claim by its name in the report; byte strings in hexadecimal, in the report's own order (§7)."""
    pck, body = quote.pck, quote.body
    switches = ("dynamic_platform", "cached_keys", "smt_enabled")
    return {
        "tee": quote.tee,
        "quote_version": quote.quote_version,
        "body_type": quote.body_type,
        "padding_bytes": quote.padding,
        "debug": quote.debug,
        "report_data": quote.report_data.hex(),
        **(_td_json(body, quote.attributes) if isinstance(body, TdReport) else _enclave_json(body)),
        "fmspc": pck.fmspc.hex(),
        "pce_id": pck.pce_id.hex(),
        "ppid": pck.ppid.hex(),
        "platform_instance_id": None if pck.platform_instance_id is None else pck.platform_instance_id.hex(),
        "platform_ids": list(quote.platform_ids),
        "platform_configuration": (
            None if pck.configuration is None else dict(zip(switches, pck.configuration, strict=True))
        ),
        "sgx_type": ("standard", "scalable", "scalable_with_integrity")[pck.sgx_type],
        "component_svns": list(pck.component_svns),
        "pce_svn": pck.pce_svn,
        "cpu_svn": pck.cpu_svn.hex(),
        "pck_serial": quote.pck_serial_hex,
        "pck_issuer": quote.pck_issuer,
        "qe_isv_svn": quote.qe_isv_svn,
        "root": quote.root_label,
        "simulated": quote.simulated,
        "valid_from": moment(quote.valid_from_ms),
        "expires": moment(quote.expires_ms),
    }


_TD_BYTES = tuple(field.name for field in fields(TdReport) if field.name != "report_data")


def _td_json(body: TdReport, attributes: TdAttributes | None) -> dict[str, Any]:
    bits = attributes or TdAttributes(int.from_bytes(body.td_attributes, "little"))
    found: dict[str, Any] = {name: value.hex() for name in _TD_BYTES if (value := getattr(body, name)) is not None}
    found["td_attributes_decoded"] = {
        "debug": bits.debug,
        "tud": bits.tud,
        "sept_ve_disable": bits.sept_ve_disable,
        "migratable": bits.migratable,
        "pks": bits.pks,
        "key_locker": bits.key_locker,
        "perfmon": bits.perfmon,
        "reserved": f"{bits.reserved:#x}",
    }
    return found


def _enclave_json(body: SgxReport) -> dict[str, Any]:
    return {
        "mrenclave": body.mrenclave.hex(),
        "mrsigner": body.mrsigner.hex(),
        "isvprodid": body.isv_prod_id,
        "isvsvn": body.isv_svn,
        "attributes": body.attributes.hex(),
        "miscselect": body.miscselect.hex(),
        "cpusvn": body.cpusvn.hex(),
    }


def tcb_json(tcb: TcbReport, now_ms: int) -> dict[str, Any]:
    """Status as Intel's library reports it, launch and current apart, what is short, how far behind at `now_ms`."""
    return {
        "status": str(tcb.status),
        "tcb_date": moment(tcb.tcb_date_ms),
        "advisory_ids": list(tcb.advisory_ids),
        "tcb_evaluation_number": tcb.tcb_evaluation_number,
        "qe_evaluation_number": tcb.qe_evaluation_number,
        "days_behind": days_behind(tcb.launch, now_ms),
        "launch": _state_json(tcb.launch, now_ms),
        "current": _state_json(tcb.current, now_ms),
    }


def _state_json(state: TcbState, now_ms: int) -> dict[str, Any]:
    return {
        "status": str(state.status),
        "tcb_date": moment(state.tcb_date_ms),
        "advisory_ids": list(state.advisory_ids),
        "parts": [
            {
                "part": part.part,
                "status": str(part.status),
                "tcb_date": moment(part.tcb_date_ms),
                "advisory_ids": list(part.advisory_ids),
                "superseded": moment(part.superseded_ms),
                "days_behind": part_days_behind(part, now_ms),
                "newest": moment(part.newest_ms),
            }
            for part in state.parts
        ],
        "shortfalls": [
            {"part": one.part, "component": one.component, "has": one.has, "needs": one.needs}
            for one in state.shortfalls
        ],
    }


def part_days_behind(part: PartStatus, now_ms: int) -> int:
    """Whole days since this part was superseded; 0 where it was not."""
    return 0 if part.superseded_ms is None else max(0, (now_ms - part.superseded_ms) // DAY_MS)


def days_behind(state: TcbState, now_ms: int) -> int:
    """Whole days since the first part of a state was superseded; 0 where none was."""
    return max((part_days_behind(part, now_ms) for part in state.parts), default=0)
