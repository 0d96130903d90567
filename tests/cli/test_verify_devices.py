"""`enclavescale verify` of devices' evidence: which roots count for what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from enclavescale.judging.inputs import AUTO, COMPOSITE, GPU, RIM, SNP, SPDM, USES, Inputs, NamedRoot
from tests.cli.conftest import call
from tests.verifier.vectors import DATA
from verifier.policy.quote_policy import AUTHENTIC
from verifier.trust.roots import SIMULATED_ROLES, TrustAnchor
from verifier.trust.store import Collateral
from verifier.trust.vendors import BUILT_IN_ROOTS, ROOTS_BY_USE

DEVICES = DATA / "devices"
VENDORS = ("device_identity_ca.pem", "rim_root.pem", "genoa_ark.der")


def verdict(path: Path, *options: str) -> dict[str, Any]:
    done = call("verify", str(path), "--at", "1770014400", "--json", *options)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.mark.parametrize("name", VENDORS)
@pytest.mark.parametrize("prefix", ["", "spdm="])
def test_a_vendors_root_is_none_of_an_spdm_devices(name: str, prefix: str) -> None:
    """Such a root stands above every device of its vendor: naming it for a sensor would make each of them one."""
    said = verdict(DEVICES / "spdm12_ecdsa_p384_all.json", "--trust-root", f"{prefix}{DEVICES / name}")
    assert said["codes"] == ["NO_TRUST_ROOTS"]


@pytest.mark.parametrize("kind", [AUTO, SNP, GPU, RIM, SPDM, COMPOSITE])
@pytest.mark.parametrize("named_for", [None, *USES])
def test_a_root_that_is_built_in_counts_for_its_own_use_only(kind: str, named_for: str | None) -> None:
    own = TrustAnchor(label="own", spki=BUILT_IN_ROOTS[0].spki[:-1] + b"\x07", simulated=False, roles=SIMULATED_ROLES)
    named = [
        NamedRoot(use=named_for, anchor=TrustAnchor(label="named", spki=one, simulated=False, roles=SIMULATED_ROLES))
        for one in [root.spki for root in BUILT_IN_ROOTS]
    ]
    inputs = Inputs(
        data=b"", kind=kind, collateral=Collateral.empty(), endorsements=Collateral.empty(), rims=(),
        trust_roots=(*named, NamedRoot(use=named_for, anchor=own)), policy=AUTHENTIC, now_ms=0, report_data=None,
        nonces=(),
    )  # fmt: skip
    for use, roots in ROOTS_BY_USE.items():
        assert [root for root in inputs.roots(use) if root != own] == list(roots)
