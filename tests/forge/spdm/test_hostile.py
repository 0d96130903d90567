"""Every hostile transcript is refused with its own code, and every step of verification is needed to refuse some."""

from __future__ import annotations

import inspect
from collections import Counter
from dataclasses import replace

import pytest

from tests.forge.spdm import cases_chain, cases_messages, cases_policy, cases_signed
from tests.forge.spdm.cases_genuine import GENUINE
from tests.forge.spdm.judge import Case, judge, root_of
from tests.forge.spdm.keys import DAY, NOW
from tests.forge.spdm.steps import BESIDE_OTHERS, STEPS, disable
from tests.forge.spdm.world import LEAF, V12, Minted, World, certificate, challenge, digests, measure
from verifier.abi import spdm_algorithms
from verifier.errors import VerificationError
from verifier.formats import spdm, spdm_checks, spdm_transcript
from verifier.trust.path import PathCache

CASES = [*cases_messages.CASES, *cases_chain.CASES, *cases_signed.CASES, *cases_policy.CASES]
REACHED = [case for case in CASES if case.step is not None]


@pytest.mark.parametrize(("name", "world", "grade"), GENUINE, ids=[name for name, _, _ in GENUINE])
def test_genuine(name: str, world: World, grade: str) -> None:
    minted = world.mint()
    verified = judge(minted, nonces=minted.nonces)
    assert verified.grade == grade, verified.grade_reason
    assert verified.grade_reason
    assert {result for _, result in verified.events} == {"ok"}
    assert sorted(one.nonce for one in verified.exchanges) == sorted(minted.nonces)


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
    """A check that is added must come with a case that only it refuses, or with a reason why there is none."""
    known = {(target, name) for target, name, _ in STEPS.values()} | set(BESIDE_OTHERS)
    for module in (spdm_algorithms, spdm, spdm_checks, spdm_transcript):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("check_") and function.__module__ == module.__name__:
                assert (module, name) in known, name


@pytest.mark.parametrize(("not_before", "not_after", "outside"), [(NOW, NOW + DAY, NOW - 1), (NOW - DAY, NOW, NOW + 1)])
def test_memory_does_not_outlive_validity(not_before: int, not_after: int, outside: int) -> None:
    """A chain that was accepted is judged anew when it is not valid."""
    minted = V12.but(leaf=replace(LEAF, not_before=not_before, not_after=not_after)).mint()
    seen = PathCache()
    for _ in range(2):
        for at, accepted in ((NOW, True), (outside, False), (NOW, True)):
            error = refusal(minted, seen, at)
            assert (error is None) is accepted
            assert error is None or (error.holds_from_ms, error.holds_until_ms) == (at * 1000, at * 1000)
    assert len(seen) == 1


def refusal(minted: Minted, seen: PathCache, at: int) -> VerificationError | None:
    """Why the transcript is refused at `at`, Unix seconds; None if it is not."""
    try:
        verified = spdm.verify_spdm_transcript(
            messages=minted.messages, trust_roots=[root_of(minted)], now_ms=at * 1000, chains_seen=seen
        )
    except VerificationError as error:
        return error
    assert verified.valid_from_ms <= at * 1000 <= verified.expires_ms
    return None


@pytest.mark.parametrize(("of_challenge", "of_measurements"), [(1, 50), (50, 1)])
def test_the_shortest_chain_says_how_long_a_verdict_holds(of_challenge: int, of_measurements: int) -> None:
    """Two chains of one key, each valid for so many days on both sides."""
    days = {"not_before": NOW - of_measurements * DAY, "not_after": NOW + of_measurements * DAY}
    minted = V12.but(
        story=(digests(), certificate(), certificate(1), challenge(), measure(slot=1)),
        leaf=replace(LEAF, not_before=NOW - of_challenge * DAY, not_after=NOW + of_challenge * DAY),
        second=days,
    ).mint()
    verified = judge(minted, nonces=minted.nonces)
    assert (verified.valid_from_ms, verified.expires_ms) == ((NOW - DAY) * 1000, (NOW + DAY) * 1000)
    assert refusal(minted, PathCache(), NOW + DAY + 1) is not None
    assert refusal(minted, PathCache(), NOW - DAY - 1) is not None


def test_names_are_unique() -> None:
    assert [name for name, count in Counter(case.name for case in CASES).items() if count > 1] == []
    assert len(CASES) >= 100
