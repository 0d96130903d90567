"""How to disable each step of verification of a quote, one at a time, as a mutant of our code would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.forge.dcap.platforms import Platform
from tests.forge.steps import nothing, positional
from verifier.abi import collateral as abi_collateral
from verifier.abi import dcap as abi_dcap
from verifier.abi import json as abi_json
from verifier.abi import quote as abi_quote
from verifier.abi.pck import PckExtension
from verifier.formats import dcap
from verifier.policy import base, rules
from verifier.policy import tcb as tcb_policy
from verifier.policy import tdx as td_policy
from verifier.tcb import evaluate
from verifier.tcb.status import PartStatus, TcbReport, TcbState, TcbStatus
from verifier.trust import chain as chains
from verifier.trust import collateral_checks as checks
from verifier.trust import pck_chain, selection
from verifier.trust.roots import INTEL_ROLES, TrustAnchor
from verifier.trust.store import Collateral

GENUINE_PCK = PckExtension(
    ppid=Platform().ppid,
    component_svns=Platform().components,
    pce_svn=Platform().pce_svn,
    cpu_svn=bytes(16),
    pce_id=Platform().pce_id,
    fmspc=Platform().fmspc,
    sgx_type=1,
)


def own_root(root: Any, _anchors: Any) -> TrustAnchor:
    return TrustAnchor(label="own", spki=root.spki, simulated=False, roles=INTEL_ROLES)


def up_to_date(part: str) -> Callable[..., Any]:
    status = PartStatus(part=part, status=TcbStatus.UP_TO_DATE, tcb_date_ms=None, advisory_ids=())
    return lambda *_: (status, ())


def some_report(_claims: Any) -> TcbReport:
    state = TcbState(status=TcbStatus.UP_TO_DATE, tcb_date_ms=None, advisory_ids=(), parts=(), shortfalls=())
    return TcbReport(
        status=state.status, tcb_date_ms=None, advisory_ids=(), launch=state, current=state, tcb_evaluation_number=99,
        qe_evaluation_number=99,
    )  # fmt: skip


def first_module(tcb_info: Any, _svn: Any) -> Any:
    return tcb_info.tdx_module


def holds_if_empty(self: base.AllOf[Any], claims: Any) -> None:
    for rule in self.rules:
        rule.check(claims)


_any_of = base.AnyOf.check


def any_holds_if_empty(self: base.AnyOf[Any], claims: Any) -> None:
    if self.rules:
        _any_of(self, claims)


def launch_only(tcb: Any, _requirement: Any) -> Any:
    return [("tcb_status", tcb.launch, tcb.status)]


def _rule(module: Any, name: str) -> tuple[Any, str, Any]:
    return getattr(module, name), "check", nothing


_RULES = {
    rules: ("TeeAccepted", "NoDebug", "ReportDataIs", "ReportDataDemanded", "RegisterMatches", "IsvSvnAtLeast",
            "EnclaveAttributesMatch", "PlatformEnrolled"),
    td_policy: ("NoUntrustedBits", "SeptVeDisabled", "NotMigratable", "NoReservedBits", "NoServiceTd",
                "TdFieldMatches"),
}  # fmt: skip

STEPS: dict[str, tuple[Any, str, Any]] = {
    # the bytes
    "version": (abi_quote, "check_version", nothing),
    "tee_type": (abi_quote, "check_tee_type", nothing),
    "body_type": (abi_quote, "check_body_type", nothing),
    "body_size": (abi_quote, "check_body_size", nothing),
    "padding": (abi_quote, "check_padding", nothing),
    "outer_type": (abi_dcap, "check_outer_type", nothing),
    "certification_type": (abi_dcap, "check_certification_type", nothing),
    # the quote
    "header": (dcap, "check_header", nothing),
    "tee": (dcap, "check_tee", nothing),
    "report_data": (dcap, "check_report_data", nothing),
    "qe_report": (dcap, "check_qe_report_signature", nothing),
    "qe_binding": (dcap, "check_qe_binding", nothing),
    "quote_signature": (dcap, "check_quote_signature", nothing),
    "quoting_enclave": (dcap, "check_quoting_enclave", nothing),
    "revocation": (dcap, "check_revocation", nothing),
    "qe_identity": (dcap, "check_qe_identity", nothing),
    # the PCK chain
    "profile": (chains, "check_profile", nothing),
    "chain": (chains, "build_chain", positional),
    "anchor": (chains, "find_anchor", own_root),
    "roles": (chains, "check_roles", nothing),
    "basic": (chains, "check_basic_constraints", nothing),
    "usage": (chains, "check_key_usage", nothing),
    "critical": (chains, "check_critical_extensions", nothing),
    "keys": (chains, "check_keys", nothing),
    "signatures": (chains, "check_signatures", nothing),
    "validity": (chains, "check_validity", nothing),
    "platform": (pck_chain, "platform_of", lambda leaf: GENUINE_PCK),
    # collateral
    "crl_issuer": (checks, "check_crl_issuer", nothing),
    "crl_profile": (checks, "check_crl_profile", nothing),
    "crl_signer": (checks, "check_crl_signer", nothing),
    "crl_signature": (checks, "check_crl_signature", nothing),
    "crl_window": (checks, "check_crl_window", nothing),
    "signer_role": (checks, "check_signer_role", nothing),
    "signer_issuer": (checks, "check_signer_issuer", nothing),
    "signer_constraints": (checks, "check_signer_constraints", nothing),
    "signer_key": (checks, "check_signer_key", nothing),
    "signer_signature": (checks, "check_signer_signature", nothing),
    "signer_window": (checks, "check_signer_window", nothing),
    "signer_revocation": (checks, "check_signer_revocation", nothing),
    "document_signature": (checks, "check_document_signature", nothing),
    "document_window": (checks, "check_document_window", nothing),
    "duplicate_keys": (abi_json, "check_duplicate_keys", nothing),
    "duplicate_levels": (abi_collateral, "_descending", lambda levels, keys, field: tuple(levels)),
    "pick": (selection, "best_first", lambda candidates: sorted(candidates, key=lambda one: one.rank)),
    # the TCB
    "choose_module": (evaluate, "choose_module", first_module),
    "module": (evaluate, "check_module", nothing),
    "match_platform": (evaluate, "match_platform", up_to_date("platform")),
    "match_module": (evaluate, "match_module", up_to_date("tdx_module")),
    "match_qe": (evaluate, "match_qe", up_to_date("qe")),
    "converge": (evaluate, "converge", lambda platform, parts: platform),
    "relaunch": (evaluate, "relaunch", lambda launch, current: current),
    # policy
    "evaluated": (tcb_policy, "evaluated", some_report),
    "revoked": (tcb_policy.NotRevoked, "check", nothing),
    "status": (tcb_policy.StatusAccepted, "check", nothing),
    "evaluation": (tcb_policy.EvaluationAtLeast, "check", nothing),
    "advisories": (tcb_policy.AdvisoriesAllowed, "check", nothing),
    "current": (tcb_policy, "_judged", launch_only),
    "AnyOf": (base.AnyOf, "check", nothing),
    "AnyOf-empty": (base.AnyOf, "check", any_holds_if_empty),
    "AllOf-empty": (base.AllOf, "check", holds_if_empty),
    **{name: _rule(module, name) for module, names in _RULES.items() for name in names},
}
BESIDES: dict[str, tuple[tuple[Any, str, Any], ...]] = {
    # Signers are looked for by name before their role is checked.
    "signer_role": ((Collateral, "named", lambda self, name: list(self.certificates)),),
}
"""What else stands in a step's way."""


def disable(step: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A function that disables `step` for one test."""

    def patch_it(patch: pytest.MonkeyPatch) -> None:
        for target, name, replacement in (STEPS[step], *BESIDES.get(step, ())):
            patch.setattr(target, name, replacement)

    return patch_it
