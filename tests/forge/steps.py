"""How to disable each step of verification, one at a time, as a mutant would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from attester.simulated import platform
from tests.forge.mint import PLATFORM_ID
from tests.forge.world import KEY
from verifier import session
from verifier.abi import tdx as abi_tdx
from verifier.formats import tdx
from verifier.policy import base
from verifier.policy import session as session_policy
from verifier.policy import tdx as td_policy
from verifier.trust import chain as chains
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


def _rule(module: Any, name: str) -> tuple[Any, str, Any]:
    return getattr(module, name), "check", nothing


_TD_RULES = ("NoDebug", "NoUntrustedBits", "SeptVeDisabled", "NotMigratable", "NoReservedBits", "ProductionModule")
_SESSION_RULES = (
    "ReportDataBinds", "RegisterMatches", "PlatformEnrolled", "TcbEvaluated", "SourceAccepted", "SamplerModeAccepted",
    "FirstMileAtLeast",
)  # fmt: skip

STEPS: dict[str, tuple[Any, str, Any]] = {
    "version": (abi_tdx, "VERSION", 5),
    "tee_type": (abi_tdx, "TEE_TYPE_TDX", 0),
    "header": (tdx, "check_header", nothing),
    "chain": (chains, "build_chain", positional),
    "anchor": (chains, "find_anchor", own_root),
    "roles": (chains, "check_roles", nothing),
    "basic": (chains, "check_basic_constraints", nothing),
    "usage": (chains, "check_key_usage", nothing),
    "critical": (chains, "check_critical_extensions", nothing),
    "keys": (chains, "check_keys", nothing),
    "signatures": (chains, "check_signatures", nothing),
    "validity": (chains, "check_validity", nothing),
    "qe_report": (tdx, "check_qe_report_signature", nothing),
    "qe_binding": (tdx, "check_qe_binding", nothing),
    "qe_identity": (tdx, "check_qe_identity", nothing),
    "quote_signature": (tdx, "check_quote_signature", nothing),
    "platform": (tdx, "platform_of", lambda leaf: platform(PLATFORM_ID)),
    "binding": (session, "check_binding", nothing),
    "key": (session, "load_session_key", lambda point: KEY.public_key()),
    "enrolled": (session, "enrolled_platforms", lambda *_: (PLATFORM_ID.hex(),)),
    "domain": (session, "_check_domain", nothing),
    "items": (session, "cpu_quote_of", lambda items: items[0]),
    "AnyOf": (base.AnyOf, "check", nothing),
    "AllOf-empty": (base.AllOf, "check", holds_if_empty),
    **{name: _rule(td_policy, name) for name in _TD_RULES},
    **{name: _rule(session_policy, name) for name in _SESSION_RULES},
}


def disable(step: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A function that disables `step` for one test."""
    target, name, replacement = STEPS[step]
    return lambda patch: patch.setattr(target, name, replacement)
