"""Every hostile case is refused with its own code, and every step of verification is needed to refuse some case."""

from __future__ import annotations

import inspect
from collections import Counter
from dataclasses import replace

import pytest

from tests.forge.nvidia import cases_chain, cases_policy, cases_report, cases_revocation
from tests.forge.nvidia.certificates import Answer, List
from tests.forge.nvidia.judge import Case, verify
from tests.forge.nvidia.steps import STEPS, disable
from tests.forge.nvidia.world import BROM, DAY, GENUINE, HOPPER, NOW, World, good_answers
from verifier.abi import nvidia as abi_nvidia
from verifier.abi import nvidia_opaque
from verifier.errors import VerificationError
from verifier.formats import nvidia
from verifier.policy import nvidia as policy
from verifier.trust import nvidia as trust
from verifier.trust import nvidia_revocation, ocsp
from verifier.trust.path import PathCache

PARTS = (cases_report, cases_chain, cases_revocation, cases_policy)
CASES = [case for part in PARTS for case in part.CASES]
UNUSUAL = [case for part in PARTS for case in part.GENUINE]
REACHED = [case for case in CASES if case.step is not None]
WORLDS = list(GENUINE.items())
ENTRANCES = ("check_revocation", "check_devices")
"""Checks that only call the others."""


@pytest.mark.parametrize(("name", "world"), WORLDS, ids=[name for name, _ in WORLDS])
def test_the_genuine_world_passes(name: str, world: World) -> None:
    verified = Case(name=name, code="", step=None, world=world).judge()
    assert verified.reference.matched
    assert verified.revocation.state == "checked"
    assert verified.fwid_bound == ("not_bound" if name == "LS10" else "bound")
    assert verified.report.encode() == world.mint().report


@pytest.mark.parametrize("case", UNUSUAL, ids=lambda case: case.name)
def test_unusual_and_genuine(case: Case) -> None:
    case.judge()


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
    for module in (abi_nvidia, nvidia_opaque, nvidia, trust, ocsp, nvidia_revocation, policy):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("check_") and function.__module__ == module.__name__ and name not in ENTRANCES:
                assert (module, name) in known, name
    for name, rule in inspect.getmembers(policy, inspect.isclass):
        if rule.__module__ == policy.__name__ and hasattr(rule, "check"):
            assert (rule, "check") in known, name


ANSWERS = good_answers()
LISTS = tuple(List(issuer=place, this_update=NOW - DAY, next_update=NOW + DAY) for place in (0, 1, 2))
REVOKING = replace(LISTS[2], this_update=NOW + 1, revoked=(BROM.serial,))
REVOKED = Answer(about=3, this_update=NOW + 1, next_update=NOW + DAY, status="revoked")
WINDOWS = {
    "leaf": (
        HOPPER.but(leaf=replace(HOPPER.leaf, not_before=NOW)),
        HOPPER.but(leaf=replace(HOPPER.leaf, not_after=NOW)),
    ),
    "answer": (
        HOPPER.but(answers=(replace(ANSWERS[0], this_update=NOW), *ANSWERS[1:])),
        HOPPER.but(answers=(replace(ANSWERS[0], next_update=NOW + 1), *ANSWERS[1:])),
    ),
    "list": (
        HOPPER.but(answers=(), lists=(replace(LISTS[0], this_update=NOW), *LISTS[1:])),
        HOPPER.but(answers=(), lists=(replace(LISTS[0], next_update=NOW + 1), *LISTS[1:])),
    ),
    "another list": (
        HOPPER.but(answers=(), lists=(*LISTS[:2], replace(LISTS[2], this_update=NOW))),
        HOPPER.but(answers=(), lists=(*LISTS, REVOKING)),
    ),
    "another answer": (
        HOPPER.but(answers=(*ANSWERS[:2], replace(ANSWERS[2], this_update=NOW))),
        HOPPER.but(answers=(*ANSWERS, REVOKED)),
    ),
    "responder": (
        HOPPER.but(answers=(replace(ANSWERS[0], responder={"not_before": NOW}), *ANSWERS[1:])),
        HOPPER.but(answers=(replace(ANSWERS[0], responder={"not_after": NOW}), *ANSWERS[1:])),
    ),
}


@pytest.mark.parametrize("part", WINDOWS)
@pytest.mark.parametrize("side", [0, 1], ids=["begin", "end"])
def test_memory_does_not_outlive_validity(part: str, side: int) -> None:
    """What was accepted is judged anew when one part of it is not valid; the claims say until when they hold."""
    minted, seen = WINDOWS[part][side].mint(), PathCache()
    outside = NOW + (1 if side else -1)
    for _ in range(2):
        verified = verify(minted, seen=seen)
        assert verified.valid_from_ms <= NOW * 1000 <= verified.expires_ms
        assert not verified.valid_from_ms <= outside * 1000 <= verified.expires_ms
        with pytest.raises(VerificationError) as caught:
            verify(minted, seen=seen, at=outside)
        assert caught.value.holds_from_ms == caught.value.holds_until_ms == outside * 1000
    assert len(seen) == 1


def test_manifests_bound_the_claims() -> None:
    minted = HOPPER.but(rims=(replace(HOPPER.rims[0], end=NOW + 1), HOPPER.rims[1])).mint()
    assert verify(minted).expires_ms == (NOW + 1) * 1000
    assert verify(HOPPER.mint()).expires_ms < (NOW + 7 * DAY) * 1000


def test_stages_are_named() -> None:
    """A refusal says which steps held before it."""
    held = {
        "cut by one byte": (),
        "a stranger's root delivered": ("format",),
        "a signature of zeros": ("format", "device_chain"),
        "boot ROM revoked": ("format", "device_chain", "signatures"),
        "manifest of another driver": ("format", "device_chain", "signatures", "collateral"),
        "family expired": ("format", "device_chain", "signatures", "collateral", "reference"),
    }
    named = {case.name: case for case in CASES if case.name in held}
    for name, stages in held.items():
        with pytest.raises(VerificationError) as caught:
            named[name].judge()
        assert caught.value.verified == stages, name


def test_names_are_unique() -> None:
    by_part = [(part.__name__, case.name) for part in PARTS for case in part.CASES]
    assert [name for name, count in Counter(by_part).items() if count > 1] == []
    assert len(CASES) >= 200
