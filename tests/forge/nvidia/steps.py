"""How to disable each step of verification of an NVIDIA report, one at a time, as a mutant of our code would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.forge.steps import nothing
from verifier.abi import nvidia as abi_nvidia
from verifier.abi import nvidia_opaque
from verifier.formats import nvidia
from verifier.policy import nvidia as policy
from verifier.trust import nvidia as trust
from verifier.trust import nvidia_revocation, ocsp, path
from verifier.trust.roots import Root


def own_root(first: Any, _roots: Any, _profile: Any) -> Root:
    return Root(label="own", spki=first.spki, simulated=False)


RULES = ("NonceDemanded", "FwidBound", "NoDeviceDebug", "ModeAccepted", "ReferenceMatched", "RevocationChecked",
         "VersionAccepted", "DriverAtLeast")  # fmt: skip

STEPS: dict[str, tuple[Any, str, Any]] = {
    # the bytes
    "request_header": (abi_nvidia, "check_request_header", nothing),
    "response_header": (abi_nvidia, "check_response_header", nothing),
    "slots": (abi_nvidia, "check_slots", nothing),
    "block": (abi_nvidia, "check_block", nothing),
    "block_count": (abi_nvidia, "check_block_count", nothing),
    "indices": (abi_nvidia, "check_indices", nothing),
    "opaque_types": (nvidia_opaque, "check_types", nothing),
    # the report
    "nonce": (nvidia, "check_nonce", nothing),
    "kind": (nvidia, "check_kind", nothing),
    "report_signature": (nvidia, "check_signature", nothing),
    "device_key": (nvidia, "check_device_key", nothing),
    "fwid": (nvidia, "check_fwid", nothing),
    # the device's chain
    "names": (path, "check_names", nothing),
    "root": (path, "find_root", own_root),
    "constraints": (path, "check_constraints", nothing),
    "critical": (path, "check_critical", nothing),
    "keys": (path, "check_keys", nothing),
    "signatures": (path, "check_signatures", nothing),
    "validity": (nvidia, "check_path_validity", nothing),
    "chip_names": (trust, "check_names", nothing),
    # revocation
    "delegation": (ocsp, "check_delegation", nothing),
    "ocsp_signature": (ocsp, "check_signature", nothing),
    "ocsp_revoked": (ocsp, "check_revoked", nothing),
    "ocsp_known": (ocsp, "check_known", nothing),
    "ocsp_window": (ocsp, "check_window", nothing),
    "responder_window": (ocsp, "check_responder_window", nothing),
    "list": (nvidia_revocation, "check_list", nothing),
    "list_signature": (nvidia_revocation, "check_list_signature", nothing),
    "list_window": (nvidia_revocation, "check_list_window", nothing),
    # devices together
    "distinct": (policy, "check_distinct", nothing),
    "links": (policy, "check_links", nothing),
    "switches_attested": (policy, "check_switches_attested", nothing),
    # policy
    **{name: (getattr(policy, name), "check", nothing) for name in RULES},
}


def disable(step: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A function that disables `step` for one test."""

    def patch_it(patch: pytest.MonkeyPatch) -> None:
        target, name, replacement = STEPS[step]
        patch.setattr(target, name, replacement)

    return patch_it
