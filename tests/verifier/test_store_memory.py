"""What a set of collateral remembers: verdicts on signatures, and picks; never more than the contents decide."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.forge.dcap.judge import anchor
from tests.forge.dcap.platforms import Platform
from tests.forge.dcap.world import DAY, ROOT_CRL, TDX4
from tests.verifier.selecting import NOW_MS, asking, held
from verifier.errors import CollateralExpired, CollateralSignature, VerificationError
from verifier.formats.dcap import verify_quote
from verifier.signature import verify_raw
from verifier.trust import collateral_checks as checks
from verifier.trust import selection, store
from verifier.trust.pck_chain import ChainCache
from verifier.trust.roots import TrustAnchor

STRANGER = TDX4.but(seed="stranger")
"""The same names, other keys."""


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the public-key operations made."""
    made: list[str] = []

    def count(name: str) -> None:
        genuine = getattr(checks, name)

        def counting(*arguments: Any) -> None:
            made.append(name)
            genuine(*arguments)

        monkeypatch.setattr(checks, name, counting)

    for name in ("check_crl_signature", "check_signer_signature", "check_document_signature"):
        count(name)
    return made


def test_five_public_key_operations_and_then_none(counted: list[str]) -> None:
    collateral, ask = held(TDX4), asking(TDX4)
    ask.of(collateral)
    assert sorted(counted) == ["check_crl_signature"] * 2 + ["check_document_signature"] * 2 + [
        "check_signer_signature"
    ]
    counted.clear()
    ask.of(collateral)
    ask.of(collateral, NOW_MS + 1)
    with pytest.raises(CollateralExpired):
        ask.of(collateral, NOW_MS + 1000 * DAY * 1000)
    replace(ask, pce_id=bytes(2)).of(collateral)
    assert counted == []


def test_refusals_are_remembered_too_and_raised_afresh(counted: list[str]) -> None:
    collateral, ask = held(TDX4.but(root_crl=replace(ROOT_CRL, signed_with="stranger"))), asking(TDX4)
    raised = []
    for _ in range(3):
        with pytest.raises(CollateralSignature) as caught:
            ask.of(collateral)
        raised.append(caught.value)
    assert counted == ["check_crl_signature"]
    assert len({id(one) for one in raised}) == 3
    assert {one.field for one in raised} == {"root_ca_crl.signature"}


def test_what_is_remembered_depends_on_who_asks() -> None:
    """The same documents under another root, or for a PCK CA of another key, are judged anew."""
    collateral, ask = held(TDX4), asking(TDX4)
    ask.of(collateral)
    with pytest.raises(VerificationError):
        replace(ask, anchor=asking(STRANGER).anchor).of(collateral)
    with pytest.raises(VerificationError):
        replace(ask, pck_issuer=asking(STRANGER).pck_issuer).of(collateral)
    ask.of(collateral)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_pick_is_for_one_pce(order: tuple[int, int]) -> None:
    """Platforms of one FMSPC whose PCEs differ have TCB info of their own."""
    worlds = [TDX4.but(platform=Platform(pce_id=bytes([n, 0])), number=18 + n) for n in (0, 1)]
    collateral, anyone = held(*worlds), asking(worlds[0])
    for _ in range(2):
        for n in order:
            found = replace(anyone, pce_id=bytes([n, 0])).of(collateral).tcb_info
            assert (found.pce_id, found.evaluation_number) == (bytes([n, 0]), 18 + n)


def test_a_verified_chain_is_one_of_its_roots() -> None:
    """What one set of roots vouched for says nothing under another."""
    minted, stranger, chains = TDX4.mint(), anchor(STRANGER.mint().root), ChainCache()

    def judge(*roots: TrustAnchor) -> str:
        verified = verify_quote(
            quote=minted.quote, collateral=None, trust_roots=roots, now_ms=NOW_MS, chains_seen=chains
        )
        return verified.root_label

    genuine = replace(anchor(minted.root), label="genuine")
    assert judge(genuine) == "genuine"
    assert len(chains) == 1
    for roots in ((stranger,), ()):
        with pytest.raises(VerificationError) as caught:
            judge(*roots)
        assert caught.value.code == ("ROOT_UNTRUSTED" if roots else "NO_TRUST_ROOTS")
    assert judge(stranger, replace(genuine, label="renamed")) == "renamed"
    assert judge(genuine) == "genuine"


def test_why_nobody_signed_is_found_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bytes] = []
    monkeypatch.setattr(selection, "verify_raw", lambda *of: made.append(of[1]) or verify_raw(*of))
    collateral = held(TDX4.but(tcb_info_signed_with="nobody"))
    for _ in range(3):
        with pytest.raises(CollateralSignature):
            asking(TDX4).of(collateral)
    assert len(made) == len(collateral.certificates)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_VERDICTS_REMEMBERED", 3)
    monkeypatch.setattr(store, "MAX_SELECTIONS_REMEMBERED", 2)
    collateral, ask = held(TDX4), asking(TDX4)
    for n in range(4):
        replace(ask, anchor=replace(ask.anchor, label=str(n))).of(collateral)
    assert len(collateral._picks) <= 2
    assert len(collateral._verdicts) <= 3
