"""Every hostile case is refused with its own code, and every step of verification is needed to refuse some case."""

from __future__ import annotations

import inspect
from collections import Counter

import pytest

from tests.forge.dcap import cases_chain, cases_collateral, cases_policy, cases_quote, cases_tcb
from tests.forge.dcap.cases_genuine import GENUINE_CASES
from tests.forge.dcap.judge import Case, anchor, collateral_of
from tests.forge.dcap.policies import FULL
from tests.forge.dcap.steps import STEPS, disable
from tests.forge.dcap.world import GENUINE, NOW, REPORT_DATA, Minted, World, bounded
from verifier.abi import dcap as abi_dcap
from verifier.abi import quote as abi_quote
from verifier.errors import VerificationError
from verifier.formats import dcap
from verifier.policy import rules
from verifier.policy import tcb as tcb_policy
from verifier.policy import tdx as td_policy
from verifier.tcb import evaluate
from verifier.trust import chain, collateral_checks
from verifier.trust.pck_chain import ChainCache
from verifier.trust.store import Collateral

CASES = [
    *cases_quote.CASES,
    *cases_chain.CASES,
    *cases_collateral.CASES,
    *cases_tcb.CASES,
    *cases_policy.CASES,
]
OF_SESSIONS = ("TcbEvaluated", "ProductionModule", "PlatformOfOneHost")
"""Rules that only a session's policy has: tests/forge/test_forge.py."""

REACHED = [case for case in CASES if case.step is not None]
WORLDS = list(GENUINE.items())


@pytest.mark.parametrize(("name", "world"), WORLDS, ids=[name for name, _ in WORLDS])
def test_the_genuine_world_passes(name: str, world: World) -> None:
    verified = Case(name=name, code="", step=None, world=world, built_in="strict", report_data=REPORT_DATA).judge()
    assert verified.tcb.status == "UpToDate"
    assert verified.tcb.advisory_ids == ()
    assert verified.pck.ppid == world.platform.ppid


@pytest.mark.parametrize(("name", "world"), WORLDS, ids=[name for name, _ in WORLDS])
def test_the_genuine_world_passes_a_policy_that_demands_everything(name: str, world: World) -> None:
    Case(name=name, code="", step=None, world=world, policy=FULL, report_data=REPORT_DATA).judge()


@pytest.mark.parametrize(("case", "status"), GENUINE_CASES, ids=[case.name for case, _ in GENUINE_CASES])
def test_unusual_and_genuine(case: Case, status: str) -> None:
    assert case.judge().tcb.status == status


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
    for module in (abi_dcap, abi_quote, dcap, chain, collateral_checks, evaluate):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if name.startswith(("check_", "match_", "choose_")) and function.__module__ == module.__name__:
                assert (module, name) in known, name
    for module in (rules, tcb_policy, td_policy):
        for name, rule in inspect.getmembers(module, inspect.isclass):
            if rule.__module__ == module.__name__ and hasattr(rule, "check") and name not in OF_SESSIONS:
                assert (rule, "check") in known, name


ITEMS = ("tcb_info_window", "qe_identity_window", "root_crl", "pck_crl", "pck", "pck_ca", "tcb_signer")


@pytest.mark.parametrize("item", ITEMS)
@pytest.mark.parametrize("side", ["begin", "end"])
def test_memory_does_not_outlive_validity(item: str, side: str) -> None:
    """A set of collateral and a chain that were accepted are judged anew when one part of them is not valid."""
    world = bounded(GENUINE["TDX v4"], item, side)
    minted, seen = world.mint(), ChainCache()
    held = collateral_of([minted])
    outside = NOW + (-1 if side == "begin" else 1)
    for _ in range(2):
        for at, accepted in ((NOW, True), (outside, False), (NOW, True)):
            fresh = outcome(minted, collateral_of([minted]), ChainCache(), at)
            assert (fresh == "") is accepted
            assert outcome(minted, held, seen, at) == fresh
    assert len(seen) == 1


def outcome(minted: Minted, held: Collateral, seen: ChainCache, at: int) -> str:
    """The code of the refusal at `at` (Unix seconds), empty if there is none."""
    try:
        dcap.verify_quote(
            quote=minted.quote, collateral=held, trust_roots=[anchor(minted.root)], now_ms=at * 1000, chains_seen=seen
        )
    except VerificationError as error:
        return error.code
    return ""


def test_names_are_unique() -> None:
    assert [name for name, count in Counter(case.name for case in CASES).items() if count > 1] == []
    assert len(CASES) >= 300
