"""Every hostile case is refused with its own code, and every step is needed to refuse some case."""

from __future__ import annotations

import pytest

from tests.forge.cases import CASES
from tests.forge.composite.cases import CASES as HOST_CASES
from tests.forge.dcap.test_hostile import CASES as QUOTE_CASES
from tests.forge.nvidia.test_nvidia_hostile import CASES as NVIDIA_CASES
from tests.forge.rim.test_hostile import CASES as RIM_CASES
from tests.forge.snp.test_hostile import CASES as SNP_CASES
from tests.forge.spdm.test_hostile import CASES as SPDM_CASES
from tests.forge.steps import STEPS, disable
from tests.forge.world import GENUINE, Case, aggregator_binding
from verifier import errors
from verifier.errors import VerificationError

REACHED = [case for case in CASES if case.step is not None]


def test_the_genuine_case_passes() -> None:
    session = GENUINE.judge()
    assert session.simulated
    assert session.first_mile == "NONE"


def test_a_genuine_aggregator_passes() -> None:
    case = Case(name="aggregator", code="", step=None, binding=aggregator_binding(), role="aggregator")
    assert case.judge().domain is None


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


def test_every_code_has_a_case_or_is_said_elsewhere() -> None:
    codes = {c.code for c in vars(errors).values() if isinstance(c, type) and issubclass(c, VerificationError)}
    elsewhere = {
        "VERIFICATION_FAILED", "SPDM_REFUSED",  # bases
        "COMPOSITE_MALFORMED",  # tests/verifier/test_composite.py
        "COLLATERAL_TOO_LARGE",  # tests/verifier/test_store.py
        "SIGNATURE_INVALID", "SIGNATURE_NOT_LOW_S",  # tests/verifier/test_signature.py
    }  # fmt: skip
    forged = (*CASES, *QUOTE_CASES, *SNP_CASES, *NVIDIA_CASES, *RIM_CASES, *SPDM_CASES, *HOST_CASES)
    assert codes - elsewhere == {case.code for case in forged}


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
