"""What the TDX format promises beside the forge's corpus."""

from __future__ import annotations

from dataclasses import replace

import pytest

from attester import pki
from schemas.records import TrustRoot
from tests.forge.mint import Mint
from tests.forge.world import NOW_MS
from verifier.errors import CertRoleInvalid, NoTrustRoots
from verifier.formats.dcap import verify_quote
from verifier.trust.roots import INTEL_SGX_ROOT, TrustAnchor, anchor_of, trust_anchors


def anchor(der: bytes, *, simulated: bool = True) -> TrustAnchor:
    return anchor_of(TrustRoot(label="r", tee="tdx", certificate_der=der, simulated=simulated))


def test_no_roots_refuse() -> None:
    quote, _ = Mint().make(bytes(64))
    with pytest.raises(NoTrustRoots):
        verify_quote(collateral=None, quote=quote, trust_roots=[], now_ms=NOW_MS)


@pytest.mark.parametrize("order", [(0, 2, 1), (1, 0, 2), (2, 1, 0)])
def test_certificates_may_come_in_any_order(order: tuple[int, ...]) -> None:
    quote, root = Mint(chain=lambda c: tuple(c[i] for i in order)).make(bytes(64))
    assert verify_quote(collateral=None, quote=quote, trust_roots=[anchor(root)], now_ms=NOW_MS).simulated


def test_a_simulated_root_cannot_be_declared_real() -> None:
    quote, root = Mint().make(bytes(64))
    with pytest.raises(CertRoleInvalid):
        verify_quote(collateral=None, quote=quote, trust_roots=[anchor(root, simulated=False)], now_ms=NOW_MS)


def test_anchors_are_per_tee_and_built_in_first() -> None:
    root = TrustRoot(label="r", tee="snp", certificate_der=pki.issue(pki.ROOT).der, simulated=True)
    assert trust_anchors([root], "tdx") == (INTEL_SGX_ROOT,)
    assert [a.label for a in trust_anchors([replace(root, tee="tdx")], "tdx")] == ["intel-sgx-root-ca", "r"]
    assert trust_anchors([], "snp") == ()


def test_a_processor_ca_platform_has_no_instance_id() -> None:
    from attester.simulated import platform

    extension = replace(platform(b"\x01" * 16), platform_instance_id=None, configuration=None)
    quote, root = Mint(pck=pki.pck_template(extension)).make(bytes(64))
    verified = verify_quote(collateral=None, quote=quote, trust_roots=[anchor(root)], now_ms=NOW_MS)
    assert verified.pck == extension
    assert verified.platform_ids == ("01" * 16,)
