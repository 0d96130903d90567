"""What an agent says of its GPUs can only take a grade back, never earn one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from schemas.records import ConfidentialCompute
from stream_jobs.core.checks import check_confidential_compute
from stream_jobs.core.refusals import Refused
from tests.core import replay
from tests.core.fleet import T0, report_of, session_of
from tests.core.test_refusals import begun, code_of

REPORT = report_of(session_of("h0", "d"), T0)
REFUSED = [
    ConfidentialCompute(gpu_cc_mode="on", gpu_dev_tools=True),
    ConfidentialCompute(gpu_cc_mode="devtools", gpu_dev_tools=False),
    ConfidentialCompute(gpu_cc_mode="off"),
    ConfidentialCompute(gpu_cc_mode=""),
    ConfidentialCompute(gpu_cc_mode="ON\0" * 1000),
]
FINE = [
    ConfidentialCompute(gpu_cc_mode="on", gpu_dev_tools=False, gpu_ready=False),
    ConfidentialCompute(gpu_cc_mode_absent_reason="no NVML", gpu_dev_tools_absent_reason="no NVML"),
]
GRADED = ("GPU_ATTESTED", "SPDM_MEASURED", "SPDM_SESSION", "TDISP")


@pytest.mark.parametrize("first_mile", GRADED)
@pytest.mark.parametrize("stated", REFUSED)
def test_a_graded_session_is_not_in_such_a_mode(stated: ConfidentialCompute, first_mile: str) -> None:
    with pytest.raises(Refused) as caught:
        check_confidential_compute(replace(REPORT, confidential_compute=stated), first_mile)
    assert caught.value.code == "DEVICE_MODE"
    assert (caught.value.field or "").startswith("confidential_compute.")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("stated", FINE)
@pytest.mark.parametrize("first_mile", ["NONE", *GRADED])
def test_what_is_fine_or_cannot_be_said_passes(stated: ConfidentialCompute, first_mile: str) -> None:
    check_confidential_compute(replace(REPORT, confidential_compute=stated), first_mile)


@pytest.mark.parametrize("stated", REFUSED)
def test_without_a_grade_nobody_asks(stated: ConfidentialCompute) -> None:
    check_confidential_compute(replace(REPORT, confidential_compute=stated), "NONE")


@pytest.mark.parametrize(("grade", "code"), [("NONE", ""), ("GPU_ATTESTED", "DEVICE_MODE")])
def test_the_core_asks_the_session_s_own_grade(grade: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The grade the evidence earned counts, not the one that the report claims."""
    genuine = replay.CACHE.verify

    def graded(**arguments: Any) -> Any:
        return replace(genuine(**arguments), first_mile=grade)

    monkeypatch.setattr(replay.CACHE, "verify", graded)
    story = begun()
    effects = story.report("h0", 0, confidential_compute=ConfidentialCompute(gpu_dev_tools=True), first_mile="NONE")
    assert (code_of(effects) if effects else "") == code
