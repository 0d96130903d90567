"""How to disable each step that judges a host's evidence as a whole, one at a time, as a mutant of our code would."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.forge.steps import nothing
from verifier import composite, evidence, session
from verifier.formats import dcap, nvidia, snp
from verifier.policy import base, default, devices, enrolment, grade, rules, snp_rules
from verifier.policy import nvidia as nvidia_policy
from verifier.policy import session as session_policy
from verifier.trust import ocsp, path
from verifier.trust.roots import Root


def own_root(first: Any, _roots: Any, _profile: Any) -> Root:
    return Root(label="own", spki=first.spki, simulated=False)


def best_grade(*_: Any) -> tuple[str, str]:
    return "SPDM_MEASURED", "whatever was shown"


def unfussy(expected: Any) -> Any:
    """Grades by what the policy lets pass."""
    return replace(expected)


def without_cpu(policy: Any, host: Any, _tee: str) -> Any:
    """Grades by the devices alone."""
    return replace(default.device_expectations(policy, host), cpu=base.Every([]))


def _rule(module: Any, name: str) -> tuple[Any, str, Any]:
    return getattr(module, name), "check", nothing


_DEVICE_RULES = (
    "DevicesEnrolled", "DevicesComplete", "FirmwareNamed", "NotContradicted", "SpdmGraded", "NoSpdmDebug",
)  # fmt: skip
_NVIDIA_RULES = ("FwidBound", "NoDeviceDebug", "ModeAccepted", "ReferenceMatched", "RevocationChecked")

STEPS: dict[str, tuple[Any, str, Any]] = {
    # the items
    "size": (evidence, "check_size", nothing),
    "kind": (evidence, "check_kind", nothing),
    "subject": (evidence, "check_subject", nothing),
    "once": (evidence, "check_once", nothing),
    "pairs": (evidence, "check_pairs", nothing),
    "cpu": (evidence, "check_cpu", nothing),
    "items": (session, "check_items", nothing),
    # who is enrolled
    "ambiguous": (enrolment.Enrolment, "check", nothing),
    "aggregators": (session, "check_aggregators", nothing),
    # the evidence
    "version": (composite, "check_version", nothing),
    "quote report data": (dcap, "check_report_data", nothing),
    "guest report data": (snp, "check_report_data", nothing),
    "GPU nonce": (nvidia, "check_nonce", nothing),
    "places": (composite, "check_places", nothing),
    "distinct": (composite, "check_distinct", nothing),
    "distinct GPUs": (nvidia_policy, "check_distinct", nothing),
    "links": (nvidia_policy, "check_links", nothing),
    "root": (path, "find_root", own_root),
    "OCSP revoked": (ocsp, "check_revoked", nothing),
    # policy
    "measurement": (base.AnyOf, "check", nothing),
    "Lacking": _rule(default, "Lacking"),
    "NoTcbRules": _rule(default, "NoTcbRules"),
    "RevocationListSeen": _rule(snp_rules, "RevocationListSeen"),
    "VmplAccepted": _rule(snp_rules, "VmplAccepted"),
    "PlatformEnrolled": _rule(rules, "PlatformEnrolled"),
    "PlatformOfOneHost": _rule(rules, "PlatformOfOneHost"),
    "IdentitiesBound": _rule(session_policy, "IdentitiesBound"),
    "FirstMileAtLeast": _rule(session_policy, "FirstMileAtLeast"),
    "grade": (session, "earned_grade", best_grade),
    "graded CPU": (session, "graded_expectations", without_cpu),
    "strictest": (grade, "strictest", unfussy),
    "switches": (devices, "check_switches_attested", nothing),
    **{name: _rule(devices, name) for name in _DEVICE_RULES},
    **{name: _rule(nvidia_policy, name) for name in _NVIDIA_RULES},
}


def disable(step: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A function that disables `step` for one test."""
    target, name, replacement = STEPS[step]
    return lambda patch: patch.setattr(target, name, replacement)
