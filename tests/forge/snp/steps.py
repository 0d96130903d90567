"""How to disable each step of verification of a report, one at a time, as a mutant of our code would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.forge.steps import nothing
from verifier.abi import hcl as abi_hcl
from verifier.abi import snp as abi_snp
from verifier.formats import snp
from verifier.policy import rules, snp_rules
from verifier.policy import snp as snp_policy
from verifier.trust import amd, collateral_checks
from verifier.trust import path as paths
from verifier.trust.roots import Root


def own_root(first: Any, _roots: Any, _profile: Any) -> Root:
    return Root(label="own", spki=first.spki, simulated=False)


def by_role(leaf: Any, pool: Any, _roots: Any) -> Any:
    ark, ask = sorted(pool, key=lambda one: not one.common_name.startswith("ARK"))
    return [[ark, ask, leaf]]


def any_roles(path: Any) -> tuple[str, str]:
    names = "".join(one.common_name for one in path.certificates)
    return "Genoa", "VLEK" if "SEV-VLEK" in path.leaf.common_name and "VCEK" not in names else "VCEK"


_RULES = (
    "NotDebuggable", "VmplAccepted", "NoMigrationAgent", "AliasCheckComplete", "RevocationListSeen", "TcbAtLeast",
    "FirmwareCommitted", "NoSmt", "NoCxl", "NoUnknownPolicyBits", "PolicyBitsSet", "AbiAtLeast", "GuestSvnAtLeast",
    "NoUnknownPlatformBits", "PlatformBitsSet", "IdKeyAccepted", "AuthorKeyAccepted", "ProviderAccepted",
    "ChipIdShown",
)  # fmt: skip

STEPS: dict[str, tuple[Any, str, Any]] = {
    # the bytes
    "version": (abi_snp, "check_version", nothing),
    "reserved": (abi_snp, "check_reserved", nothing),
    "hcl_report_type": (abi_hcl, "check_report_type", nothing),
    "hcl_request": (abi_hcl, "check_request", nothing),
    "hcl_sizes": (abi_hcl, "check_sizes", nothing),
    "hcl_padding": (abi_hcl, "check_padding", nothing),
    # the report
    "algorithm": (snp, "check_algorithm", nothing),
    "signed": (snp, "check_signed", nothing),
    "hcl_binding": (snp, "check_runtime_data", nothing),
    "report_data": (snp, "check_report_data", nothing),
    "signing_key": (snp, "check_signing_key", nothing),
    "signature": (snp, "check_signature", nothing),
    "tcb": (snp, "check_tcb", nothing),
    "tcb_order": (snp, "check_tcb_order", nothing),
    "firmware_order": (snp, "check_firmware_order", nothing),
    "chip": (snp, "check_chip", nothing),
    "cpu": (snp, "check_cpu", nothing),
    # the endorsement key
    "names": (amd, "paths_of", by_role),
    "root": (paths, "find_root", own_root),
    "constraints": (paths, "check_constraints", nothing),
    "critical": (paths, "check_critical", nothing),
    "keys": (paths, "check_keys", nothing),
    "signatures": (paths, "check_signatures", nothing),
    "validity": (paths, "check_path_validity", nothing),
    "roles": (amd, "roles_of", any_roles),
    "identity": (amd, "check_identity", nothing),
    "product_name": (amd, "check_product_name", nothing),
    # revocation
    "list_signer": (amd, "check_list_signer", nothing),
    "list_signature": (amd, "signed_list", lambda crl, root: True),
    "list_window": (collateral_checks, "check_crl_window", nothing),
    "revoked": (amd, "check_not_revoked", nothing),
    # policy
    **{name: (getattr(snp_rules, name), "check", nothing) for name in _RULES},
    "RegisterMatches": (rules.RegisterMatches, "check", nothing),
    "RegisterAtLeast": (snp_policy.RegisterAtLeast, "check", nothing),
    "MinimumOfProduct": (snp_policy.MinimumOfProduct, "check", nothing),
}
BESIDES: dict[str, tuple[tuple[Any, str, Any], ...]] = {
    "names": ((paths, "check_names", nothing),),
}
"""What else stands in a step's way."""


def disable(step: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A function that disables `step` for one test."""

    def patch_it(patch: pytest.MonkeyPatch) -> None:
        for target, name, replacement in (STEPS[step], *BESIDES.get(step, ())):
            patch.setattr(target, name, replacement)

    return patch_it
