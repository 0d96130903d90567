"""How to disable each step of verification, one at a time, as a mutant would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from attester.simulated import platform
from tests.forge.mint import PLATFORM_ID
from tests.forge.world import KEY, policy
from verifier import composite, session
from verifier.abi import dcap as abi_dcap
from verifier.abi import quote as abi_quote
from verifier.evidence import CpuItems, SortedEvidence
from verifier.formats import dcap
from verifier.policy import base, rules
from verifier.policy import session as session_policy
from verifier.policy import tdx as td_policy
from verifier.trust import chain as chains
from verifier.trust import pck_chain
from verifier.trust.chain import Chain
from verifier.trust.roots import SIMULATED_ROLES, TrustAnchor


def nothing(*_: Any, **__: Any) -> None:
    return None


def positional(certificates: Any) -> Chain:
    leaf, intermediate, root = certificates
    return Chain(root=root, intermediate=intermediate, leaf=leaf)


def own_root(root: Any, _anchors: Any) -> TrustAnchor:
    return TrustAnchor(label="own", spki=root.spki, simulated=True, roles=SIMULATED_ROLES)


def holds_if_empty(self: base.AllOf, claims: Any) -> None:
    for rule in self.rules:
        rule.check(claims)


def first_alone(items: Any) -> SortedEvidence:
    return SortedEvidence(CpuItems(items[0].kind, items[0].data, None), ())


def _rule(module: Any, name: str) -> tuple[Any, str, Any]:
    return getattr(module, name), "check", nothing


_RULES = ("NoDebug", "RegisterMatches", "PlatformEnrolled", "TcbEvaluated")
_TD_RULES = ("NoUntrustedBits", "SeptVeDisabled", "NotMigratable", "NoReservedBits", "ProductionModule")
_SESSION_RULES = ("SourceAccepted", "SamplerModeAccepted", "FirstMileAtLeast")

STEPS: dict[str, tuple[Any, str, Any]] = {
    "tee_type": (abi_quote, "check_tee_type", nothing),
    "padding": (abi_quote, "check_padding", nothing),
    "outer_type": (abi_dcap, "check_outer_type", nothing),
    "header": (dcap, "check_header", nothing),
    "chain": (chains, "build_chain", positional),
    "anchor": (chains, "find_anchor", own_root),
    "roles": (chains, "check_roles", nothing),
    "basic": (chains, "check_basic_constraints", nothing),
    "usage": (chains, "check_key_usage", nothing),
    "critical": (chains, "check_critical_extensions", nothing),
    "keys": (chains, "check_keys", nothing),
    "signatures": (chains, "check_signatures", nothing),
    "validity": (chains, "check_validity", nothing),
    "qe_report": (dcap, "check_qe_report_signature", nothing),
    "qe_binding": (dcap, "check_qe_binding", nothing),
    "qe_identity": (dcap, "check_quoting_enclave", nothing),
    "quote_signature": (dcap, "check_quote_signature", nothing),
    "platform": (pck_chain, "platform_of", lambda leaf: platform(PLATFORM_ID)),
    "report_data": (dcap, "check_report_data", nothing),
    "kind": (composite, "check_version", nothing),
    "binding": (session, "check_binding", nothing),
    "key": (session, "load_session_key", lambda point: KEY.public_key()),
    "enrolled": (session, "enrolled_as", lambda *_: policy(b"").hosts[0]),
    "domain": (session, "_check_domain", nothing),
    "items": (session, "sort_evidence", first_alone),
    "AnyOf": (base.AnyOf, "check", nothing),
    "AllOf-empty": (base.AllOf, "check", holds_if_empty),
    **{name: _rule(rules, name) for name in _RULES},
    **{name: _rule(td_policy, name) for name in _TD_RULES},
    **{name: _rule(session_policy, name) for name in _SESSION_RULES},
}


def disable(step: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A function that disables `step` for one test."""
    target, name, replacement = STEPS[step]
    return lambda patch: patch.setattr(target, name, replacement)
