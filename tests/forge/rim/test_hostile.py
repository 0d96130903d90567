"""Every hostile manifest is refused with its own code, and every step of verification is needed to refuse some case."""

from __future__ import annotations

import inspect
from collections import Counter
from dataclasses import replace

import pytest

from tests.forge.rim import cases_signature, cases_trust, cases_xml
from tests.forge.rim.cases_genuine import GENUINE_CASES
from tests.forge.rim.cases_trust import CURRENT
from tests.forge.rim.judge import Case, root_of
from tests.forge.rim.steps import STEPS, disable
from tests.forge.rim.world import CA, DAY, DRIVER, L3, NOW, OPERATOR, ROOT, SIGNER
from verifier.abi import rim as abi_rim
from verifier.abi import xml, xmldsig
from verifier.errors import RimMalformed, VerificationError
from verifier.formats import rim, rim_compare
from verifier.trust import path, rim_root
from verifier.trust.path import PathCache

CASES = [*cases_xml.CASES, *cases_signature.CASES, *cases_trust.CASES]
REACHED = [case for case in CASES if case.step is not None]


@pytest.fixture(autouse=True)
def nvidia_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The forged root stands in NVIDIA's place, so that NVIDIA's names are demanded under it."""
    monkeypatch.setattr(rim_root, "NVIDIA_RIM_ROOT", root_of(DRIVER))


@pytest.mark.parametrize("case", GENUINE_CASES, ids=lambda case: case.name)
def test_unusual_and_genuine(case: Case) -> None:
    found = case.judge()
    assert found.matched
    assert found.override is (case.world is OPERATOR)


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
    known = {(target, name) for target, name, _ in STEPS.values()} | {(path, "check_path_validity")}
    for module in (xml, xmldsig, abi_rim, rim, rim_compare, rim_root, path):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("check_") and function.__module__ == module.__name__:
                assert (module, name) in known, name


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "cp037"])
def test_no_other_encoding_is_ever_read(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What forbids markup looks at bytes: the parser must not see other characters than it, even on its own."""
    monkeypatch.setattr(xml, "check_markup", lambda _: None)
    with pytest.raises(RimMalformed):
        xml.parse_xml(DRIVER.mint().decode().encode(encoding))


def test_names_are_unique() -> None:
    assert [name for name, count in Counter(case.name for case in CASES).items() if count > 1] == []


def test_memory_of_paths_does_not_outlive_validity() -> None:
    """A path that was accepted is judged anew at every moment."""
    seen, data = PathCache(), DRIVER.mint()

    def judge(at: int) -> None:
        rim.verify_rim(data=data, trust_roots=[root_of(DRIVER)], now_ms=at * 1000, chains_seen=seen)

    judge(NOW)
    for at in (SIGNER.not_after + 1, SIGNER.not_before - 1):
        with pytest.raises(VerificationError) as caught:
            judge(at)
        assert (caught.value.holds_from_ms, caught.value.holds_until_ms) == (at * 1000, at * 1000)
        assert caught.value.verified == ("format", "digest", "rim_chain", "signatures")
    judge(NOW)
    assert len(seen) == 1


def test_revocation_is_checked_when_every_issuer_says_so() -> None:
    """Three lists speak of CA, L3 and signer; the result is current as long as all of them are."""
    lists = tuple((replace(CURRENT, next_update=NOW + days * DAY), one) for days, one in ((3, ROOT), (1, CA), (2, L3)))
    found = Case(name="", code="", step=None, lists=lists).verify(DRIVER)
    assert found.revocation == "checked"
    assert (found.valid_from_ms, found.expires_ms) == ((NOW - DAY) * 1000, (NOW + DAY) * 1000 - 1)
    for some in (lists[:2], lists[1:], lists[::2]):
        assert Case(name="", code="", step=None, lists=some).verify(DRIVER).revocation == "unchecked"


def test_the_interval_of_a_manifest_is_that_of_its_path() -> None:
    found = rim.verify_rim(data=DRIVER.mint(), trust_roots=[root_of(DRIVER)], now_ms=NOW * 1000)
    assert (found.valid_from_ms, found.expires_ms) == ((NOW - 100 * DAY) * 1000, (NOW + 630 * DAY) * 1000)
    assert found.signers[0] == "HCC RIM L4 Signer"
    assert found.revocation == "unchecked"
