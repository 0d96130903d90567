"""Every hostile host is refused with its own code, and every step is needed to refuse some of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.forge.composite.cases import CASES
from tests.forge.composite.steps import STEPS, disable
from tests.forge.composite.world import GENUINE, Case, Host
from verifier.errors import VerificationError

REACHED = [case for case in CASES if case.step is not None]


@pytest.mark.parametrize(("host", "grade"), GENUINE.values(), ids=GENUINE)
def test_a_genuine_host_earns_its_grade(host: Host, grade: str) -> None:
    session = Case(name="genuine", code="", step=None, host=host).judge()
    assert session.first_mile == grade
    assert not session.simulated
    assert all(warning.startswith("OVERRIDE") for warning in session.warnings)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refused_with_its_code(case: Case) -> None:
    with pytest.raises(VerificationError) as caught:
        case.judge()
    assert caught.value.code == case.code
    assert caught.value.remedy
    assert caught.value.field


@pytest.mark.parametrize("case", REACHED, ids=lambda case: f"{case.step}: {case.name}")
def test_without_its_step_the_case_would_pass(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    disable(case.step or "")(monkeypatch)
    case.judge()


def test_every_step_has_a_case() -> None:
    assert {case.step for case in REACHED} == set(STEPS)


def test_there_are_enough_of_them_and_names_are_unique() -> None:
    assert len(CASES) >= 25
    assert len({case.name for case in CASES}) == len(CASES)


def test_a_refusal_names_its_device() -> None:
    found: dict[str, Any] = {}
    for case in CASES:
        if case.code in ("FWID_UNBOUND", "DEVICE_MODE", "NONCE_MISMATCH"):
            with pytest.raises(VerificationError) as caught:
                case.judge()
            found[case.name] = caught.value.field
    assert all(str(field).startswith(("GPU-", "sensor-")) for field in found.values()), found
