"""Coverage of `bench margin`: too small and too large are both seen, with many windows or few independent ones."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from enclavescale.bench.margin_score import coverage_test, estimator_figures, off_p, too_low_p, two_sided
from enclavescale.bench.margin_screen import margin_screen
from enclavescale.screen_parts import BAD, DOUBT
from tests.cli.test_bench_margin import window


@settings(max_examples=60)
@given(st.integers(1, 2000), st.floats(0, 1), st.sampled_from([0.5, 0.95]))
def test_the_two_sided_p_is_twice_the_smaller_tail(count: int, part: float, share: float) -> None:
    hits = round(part * count)
    below, above = stats.binom.cdf(hits, count, share), stats.binom.sf(hits - 1, count, share)
    assert two_sided(hits, count, share) == pytest.approx(min(1.0, 2 * min(below, above)), rel=1e-7, abs=1e-12)


def result_of(covered: np.ndarray, blocks: list[str]) -> dict[str, Any]:
    found = coverage_test(covered, blocks, seed=1)
    assert found is not None
    return found


def test_intervals_that_always_hold_are_too_wide() -> None:
    """300 of 300 is no 95 %; 19 of 20 is."""
    blocks = [f"b{index % 10}" for index in range(300)]
    found = result_of(np.ones(300), blocks)
    assert found["binomial_p"] == 1
    assert found["two_sided_p"] == pytest.approx(2 * 0.95**300)
    assert off_p(found) < 0.01 < too_low_p(found)
    fine = result_of(np.array([float(index % 20 > 0) for index in range(300)]), blocks)
    assert min(off_p(fine), too_low_p(fine)) > 0.5


def test_few_independent_windows_do_not_hide_a_failure() -> None:
    """Eight blocks, of which two are nearly all missed: 73 % of 200 windows, as good as 7 independent ones."""
    blocks = [f"b{index % 8}" for index in range(200)]
    covered = np.array([float(index % 8 > 1 or index < 16) for index in range(200)])
    found = result_of(covered, blocks)
    assert found["independent_windows"] < 30
    assert found["block_binomial_p"] > 0.01
    assert too_low_p(found) == found["binomial_p"] < 1e-6
    lumped = result_of(np.repeat([1.0, 0.0], [1_860, 140]), [f"b{index // 40}" for index in range(2_000)])
    assert lumped["independent_windows"] >= 30
    assert too_low_p(lumped) == lumped["block_binomial_p"]
    assert off_p(lumped) == lumped["block_two_sided_p"]


def test_the_screen_marks_both_and_shows_the_widths() -> None:
    windows = [window(f"b{index % 10}") for index in range(300)]
    figures = estimator_figures(windows, seed=1)
    assert figures["edge"]["mean_width_mw"] == pytest.approx(2.0)
    good = {**figures["edge"]["coverage_test"], "two_sided_p": 1.0, "block_two_sided_p": 1.0}
    poor = {**good, "binomial_p": 1e-9, "independent_windows": 7, "block_binomial_p": 0.04}
    assert {styles(figures, test) for test in (good, figures["edge"]["coverage_test"], poor)} == {None, DOUBT, BAD}


def styles(figures: dict[str, Any], test: dict[str, Any]) -> str | None:
    """The style of the margin's coverage of `edge`, where it is 12.3 %; the row shows both widths."""
    edge = {**figures["edge"], "coverage": 0.123, "coverage_test": test}
    console = Console(width=100, color_system="truecolor", force_terminal=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        segments = list(console.render(margin_screen({**RESULT, "estimators": {**figures, "edge": edge}})))
    (cell,) = [one for one in segments if "12.3" in one.text]
    row = "".join(one.text for one in segments)
    assert "4.00" in row.split("12.3 %")[1].split("\n")[0]
    return next((name for name in (BAD, DOUBT) if console.get_style(name) == cell.style), None)


RESULT: dict[str, Any] = {
    "forecast": {},
    "by_mode": {},
    "with_past": None,
    "seed": 1,
    "epsilon": 1.0,
    "skipped": [],
    "fleet": {
        "hosts": 8,
        "gpus_per_host": 2,
        "window_s": 10,
        "nameplate_mw": 100.0,
        "windows": 300,
        "fleets": 75,
        "true_mean_mw": 40.0,
        "true_margin_mw": 10.0,
        "job_traces": 2,
        "jobs_from": "inference",
        "job_on_one_row": True,
        "inference_traces": 2,
        "idle_traces": 0,
    },
}
