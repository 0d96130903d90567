"""Every hostile case is refused with its own code, and every step of verification is needed to refuse some case."""

from __future__ import annotations

import inspect
from collections import Counter
from dataclasses import replace

import pytest

from tests.forge.snp import cases_chain, cases_policy, cases_report
from tests.forge.snp.certificates import ONLY_CERTS
from tests.forge.snp.judge import Case, verify
from tests.forge.snp.steps import STEPS, disable
from tests.forge.snp.world import (
    ARK,
    ASK,
    CRL,
    EK,
    EXTENDED,
    GENOA,
    GENUINE,
    MILAN,
    NOW,
    REPORT_DATA,
    TURIN,
    VLEK,
    Minted,
    World,
    bringing,
)
from verifier.abi import hcl as abi_hcl
from verifier.abi import snp as abi_snp
from verifier.errors import VerificationError
from verifier.formats import snp
from verifier.policy import snp as snp_policy
from verifier.policy import snp_rules
from verifier.trust import amd
from verifier.trust.path import PathCache

CASES = [*cases_report.CASES, *cases_chain.CASES, *cases_policy.CASES]
REACHED = [case for case in CASES if case.step is not None]
WORLDS = list(GENUINE.items())
COMPOSED = (amd.check_revocation,)
"""Checks that only call others."""


@pytest.mark.parametrize(("name", "world"), WORLDS, ids=[name for name, _ in WORLDS])
def test_the_genuine_world_passes(name: str, world: World) -> None:
    demands = {"tcb_minimums": None, "demand_revocation": True, "allow_masked_chip_id": world.vlek}
    verified = Case(name=name, code="", step=None, world=world, demands=demands, report_data=REPORT_DATA).judge()
    assert (verified.product, verified.key_type) == (world.product, "VLEK" if world.vlek else "VCEK")
    assert verified.revocation == "checked"
    assert verified.reported_tcb.encode() == world.tcb_bytes


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refused_with_its_code(case: Case) -> None:
    with pytest.raises(VerificationError) as caught:
        case.judge()
    assert caught.value.code == case.code, f"{caught.value.field}: {caught.value}"
    assert caught.value.remedy
    assert caught.value.field


@pytest.mark.parametrize("case", REACHED, ids=lambda case: f"{case.step}: {case.name}")
def test_without_its_step_the_case_would_pass(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    disable(case.step or "")(monkeypatch)
    case.judge()


def test_every_step_has_a_case() -> None:
    assert {case.step for case in REACHED} == set(STEPS)


def test_every_check_is_a_step() -> None:
    """A check that is added must come with a case that only it refuses."""
    known = {(target, name) for target, name, _ in STEPS.values()}
    for module in (abi_snp, abi_hcl, snp, amd):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("check_") and function.__module__ == module.__name__ and function not in COMPOSED:
                assert (module, name) in known, name
    for module in (snp_rules, snp_policy):
        for name, rule in inspect.getmembers(module, inspect.isclass):
            if rule.__module__ == module.__name__ and hasattr(rule, "check"):
                assert (rule, "check") in known, name


ITEMS = ("ek", "ask", "ark", "crl")


@pytest.mark.parametrize("item", ITEMS)
@pytest.mark.parametrize("side", ["begin", "end"])
def test_memory_does_not_outlive_validity(item: str, side: str) -> None:
    """A path that was accepted is judged anew when one part of the evidence is not valid, and the span says when."""
    if item == "crl":
        world = GENOA.but(crls=(replace(CRL, **{"this_update": NOW} if side == "begin" else {"next_update": NOW + 1}),))
    else:
        change = {"not_before" if side == "begin" else "not_after": NOW}
        world = GENOA.but(**{item: replace(getattr(GENOA, item), **change)})
    minted, seen = world.mint(), PathCache()
    outside = NOW + (-1 if side == "begin" else 1)
    for _ in range(2):
        claims = verify(minted, chains_seen=seen)
        bound = claims.valid_from_ms if side == "begin" else claims.expires_ms
        assert bound // 1000 == NOW
        with pytest.raises(VerificationError) as caught:
            verify(minted, at=outside, chains_seen=seen)
        assert caught.value.holds_from_ms == caught.value.holds_until_ms == outside * 1000
    assert len(seen) == 1


def test_the_order_of_certificates_decides_nothing() -> None:
    beside = (
        MILAN, TURIN, VLEK, GENOA.but(seed="another"), GENOA.but(ek=replace(EK, not_after=NOW - 1)),
        GENOA.but(ek_tcb=bytes([10, 0, 0, 0, 0, 0, 22, 84])),
    )  # fmt: skip
    minted = GENOA.mint()
    worlds = [one.mint() for one in beside]
    for order in (worlds, worlds[::-1]):
        assert verify(minted, beside=tuple(order)).product == "Genoa"


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_certificates_of_a_chip_the_same_is_chosen_all_along(first: int) -> None:
    """A verdict's interval ends where another certificate would have been taken."""
    old, new = (GENOA.but(ek=replace(EK, serial=number)) for number in (1, 2))
    old = old.but(ek=replace(old.ek, not_after=NOW + 100))
    new = new.but(ek=replace(new.ek, not_before=NOW - 100, not_after=NOW + 3_000))
    agrees_all_along((old.mint(), new.mint())[:: 1 if first else -1])


@pytest.mark.parametrize("serials", [(0x20001, 0x20002), (0x20002, 0x20001)])
def test_of_two_certificates_of_an_issuer_the_same_is_chosen_all_along(serials: tuple[int, int]) -> None:
    """As above, of a chip with one certificate and two of its issuer."""
    old, new = (GENOA.but(ask=replace(ASK, serial=serial)) for serial in serials)
    old = old.but(ask=replace(old.ask, not_after=NOW + 100))
    new = new.but(ask=replace(new.ask, not_before=NOW - 100, not_after=NOW + 3_000))
    agrees_all_along((old.mint(), new.mint()))


def agrees_all_along(worlds: tuple[Minted, ...]) -> None:
    found = {}
    for at in (NOW - 101, NOW - 100, NOW, NOW + 100, NOW + 101, NOW + 3_000):
        claims = verify(worlds[0], beside=worlds[1:], at=at)
        assert claims.valid_from_ms <= at * 1000 <= claims.expires_ms
        found[at] = claims
    for at, claims in found.items():
        for other, others in found.items():
            if claims.valid_from_ms <= other * 1000 <= claims.expires_ms:
                assert others == claims, (at, other)


def test_a_lying_certificate_takes_nothing_but_its_turn() -> None:
    """Someone's own key that claims this chip and TCB stands beside the genuine one."""
    own = GENOA.but(ek=replace(EK, key="own", signed_with="stranger"))
    assert verify(GENOA.mint(), beside=(own.mint(),)).ek_serial_hex == "0"


def test_a_refusal_with_several_certificates_is_certain_for_its_time_only() -> None:
    """A lying certificate is refused whatever the time; when it is not the best one, another one is judged."""
    own = GENOA.but(ek=replace(EK, key="own", signed_with="stranger")).mint()
    genuine = GENOA.but(ek=replace(EK, not_after=NOW - 1)).mint()
    with pytest.raises(VerificationError) as caught:
        verify(genuine, beside=(own,))
    assert caught.value.code == "CERT_SIGNATURE"
    assert caught.value.holds_from_ms == caught.value.holds_until_ms == NOW * 1000
    assert verify(genuine, beside=(own,), at=NOW - 1).ek_serial_hex == "0"


def test_lying_certificates_do_not_use_up_the_tries() -> None:
    """More of them than are tried, each of them before the genuine one: endorsement keys and issuers."""
    genuine = GENOA.but(ek=replace(EK, serial=9), ask=replace(ASK, serial=0x10009))
    liars = [
        genuine.but(
            ek=replace(EK, key=f"own {number}", serial=number, signed_with="stranger"),
            ask=replace(ASK, key="asvk" if number % 2 else "stranger", serial=0x10000 + number, signed_with="stranger"),
        )
        for number in range(1, 7)
    ]
    assert verify(genuine.mint(), beside=tuple(one.mint() for one in liars)).ek_serial_hex == "9"


def test_of_lying_certificates_alone_none_is_accepted() -> None:
    liars = [GENOA.but(ek=replace(EK, key=f"own {number}", signed_with="stranger")) for number in range(6)]
    with pytest.raises(VerificationError) as caught:
        verify(liars[0].mint(), beside=tuple(one.mint() for one in liars[1:]))
    assert caught.value.code == "CERT_SIGNATURE"


def test_a_list_that_the_prover_brings_can_only_revoke() -> None:
    """Whoever sends the evidence picks the list, and would pick one of before the revocation."""
    alone = verify(EXTENDED.but(crls=()).mint())
    assert verify(bringing(CRL).mint()) == alone
    assert (alone.revocation, alone.windows) == ("unchecked", ())
    assert verify(bringing(replace(CRL, next_update=NOW - 1)).mint()) == alone
    assert verify(bringing(replace(CRL, signed_with="stranger", revoked=(ASK.serial,))).mint()) == alone
    no_signer = replace(ARK, usage=ONLY_CERTS)
    assert verify(bringing(replace(CRL, revoked=(ASK.serial,))).but(ark=no_signer).mint()).windows == ()
    later = verify(bringing(replace(CRL, this_update=NOW + 100, revoked=(ASK.serial,))).mint())
    assert later.expires_ms == (NOW + 100) * 1000 - 1
    longer = replace(CRL, next_update=CRL.next_update + 1)
    assert verify(bringing(longer).but(crls=(CRL,)).mint()) == verify(EXTENDED.mint())


def test_another_list_beside_a_good_one() -> None:
    """A list under the ARK's name that somebody else signed counts for nothing; the genuine one does."""
    foreign = replace(CRL, signed_with="stranger", revoked=(0x10001,))
    assert verify(GENOA.but(crls=(foreign, CRL)).mint()).revocation == "checked"


def test_a_list_of_tomorrow_bounds_todays_verdict() -> None:
    later = replace(CRL, this_update=NOW + 100, revoked=(0x10001,))
    claims = verify(GENOA.but(crls=(CRL, later)).mint())
    assert claims.expires_ms == (NOW + 100) * 1000 - 1


def test_names_are_unique() -> None:
    assert [name for name, count in Counter(case.name for case in CASES).items() if count > 1] == []
    assert len(CASES) >= 180
