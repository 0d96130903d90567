"""How to disable each step of verification of a transcript, one at a time, as a mutant of our code would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.forge.steps import nothing
from verifier.abi import spdm_algorithms
from verifier.formats import spdm, spdm_checks, spdm_transcript
from verifier.policy import devices
from verifier.trust import path
from verifier.trust.roots import Root


def own_root(first: Any, _roots: Any, _profile: Any) -> Root:
    return Root(label="own", spki=first.spki, simulated=True)


STEPS: dict[str, tuple[Any, str, Any]] = {
    "chosen": (spdm_algorithms, "check_chosen", nothing),
    "tables": (spdm_algorithms, "check_tables", nothing),
    "size": (spdm_transcript, "check_size", nothing),
    "finished": (spdm_transcript, "check_finished", nothing),
    "version": (spdm_transcript, "check_version", nothing),
    "order": (spdm_transcript, "check_order", nothing),
    "retry": (spdm_transcript, "check_retry", nothing),
    "portion": (spdm_transcript, "check_portion", nothing),
    "digest": (spdm_transcript, "check_digest", nothing),
    "root_hash": (spdm, "check_root_hash", nothing),
    "signature": (spdm_checks, "check_signature", nothing),
    "slot": (spdm_checks, "check_slot", nothing),
    "chain_hash": (spdm_checks, "check_chain_hash", nothing),
    "context": (spdm_checks, "check_context", nothing),
    "one_device": (spdm_checks, "check_one_device", nothing),
    "nonces": (spdm_checks, "check_nonces", nothing),
    "expected_nonces": (spdm_checks, "check_expected_nonces", nothing),
    "total": (spdm_checks, "check_total", nothing),
    "answer": (spdm_checks, "check_answer", nothing),
    "index": (spdm_checks, "check_index", nothing),
    "unchanged": (spdm_checks, "check_unchanged", nothing),
    "same_value": (spdm_checks, "check_same_value", nothing),
    "summary": (spdm_checks, "check_summary", nothing),
    "stale": (spdm_checks, "stale_part", lambda *_: ""),
    "purposes": (spdm_checks, "check_purposes", nothing),
    "names": (path, "check_names", nothing),
    "anchor": (path, "find_root", own_root),
    "constraints": (path, "check_constraints", nothing),
    "critical": (path, "check_critical", nothing),
    "keys": (path, "check_keys", nothing),
    "signatures": (path, "check_signatures", nothing),
    "validity": (spdm, "check_path_validity", nothing),
    "SpdmFresh": (devices.SpdmFresh, "check", nothing),
    "SpdmGraded": (devices.SpdmGraded, "check", nothing),
    "NoSpdmDebug": (devices.NoSpdmDebug, "check", nothing),
}

BESIDE_OTHERS = {
    (spdm_transcript, "check_direction"): "a response is none of the requests that are read next",
    (spdm_checks, "check_key"): "signatures of another kind of key have another length",
    (spdm_checks, "check_signed"): "without a signed exchange there is no result to give",
    (spdm_checks, "check_records"): "its parts are steps",
    (spdm, "check_root_hash"): "imported: a step",
}
"""Checks for which a case exists, but none that they alone refuse, and why."""


def disable(step: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A function that disables `step` for one test."""
    target, name, replacement = STEPS[step]
    return lambda patch: patch.setattr(target, name, replacement)
