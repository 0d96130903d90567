"""`bench margin`: estimators against hand-made truths, scores against independent formulas, the command as run."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from enclavescale.bench import margin as bench
from enclavescale.bench.estimators import (
    ABSENT,
    Estimate,
    PaperWindow,
    discrete_laplace,
    forecast_of,
    of_output,
    upper_quantile,
)
from enclavescale.bench.margin_core import CoreFleet, HostReport
from enclavescale.bench.margin_score import (
    binomial_tail,
    block_shares,
    coverage_test,
    estimator_figures,
    forecast_figures,
    paper_variants,
    too_low_p,
)
from enclavescale.bench.margin_screen import GOALS, margin_screen
from enclavescale.bench.margin_trial import Forecasted, MarginSpec, WindowFigures, bench_of, run_trial
from enclavescale.bench.trace_files import BenchTrace, read_traces
from enclavescale.bench.trace_fleet import draw_fleet, model_rules, pools_of
from power_model.noise import discrete_laplace_variance
from producers.privacy import default_budget, privacy_parameters
from schemas.records import Forecast, Interval
from tests.cli.conftest import call, process
from tests.cli.trace_maker import TDP_W, TRACES, log, manifest
from tests.results import write_result

TIER = os.environ.get("ENCLAVESCALE_TIER", "test")
REAL = Path(__file__).resolve().parents[3] / "shared" / "traces"
SPEC = MarginSpec(
    hosts=16, gpus=4, epsilon=1.0, window_s=10, windows=6, seed=5, run_up=1, per_fleet=3, noise="simulated"
)
MADE = [
    BenchTrace(name=name, gpu="X", tdp_w=TDP_W, workload=kind, mode="instant", power_w=power_w, filled_ppm=0)
    for name, (kind, power_w) in TRACES.items()
]
FORECASTS = {horizon: Forecasted(math.nan, 1.0, 1.0, 1.0) for horizon in (1, 10, 60)}


def window(block: str = "a", **changes: Any) -> WindowFigures:
    """A window of a fleet of 1 MW nameplate with a mean of 0.4 MW and a p99 of 0.5: x 100 in the figures."""
    right = Estimate(400_000, 500_000, 390_000, 410_000, 480_000, 520_000)
    base = WindowFigures(
        block=block,
        mw_per_w=1e-4,
        mean_w=400_000.0,
        p99_w=500_000.0,
        estimates={"edge": right, "central": right, "exact": right},
        paper={"x": Estimate(400_000, 450_000), "y": Estimate(410_000, 500_000)},
        forecasts=FORECASTS,
    )
    return replace(base, **changes)


# -- quantiles and noise ---------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=700), st.sampled_from([0.5, 0.9, 0.99, 0.999, 1.0]))
def test_the_upper_quantile_is_the_smallest_that_holds_the_share(values: list[float], share: float) -> None:
    found = upper_quantile(np.array(values), share)
    assert found in values
    assert sum(one <= found for one in values) >= share * len(values) - 1e-6
    assert sum(one < found for one in values) < share * len(values)


def test_of_600_ticks_six_may_lie_above() -> None:
    assert upper_quantile(np.arange(600.0)) == 593.0
    assert upper_quantile(np.arange(100.0)) == 98.0


@pytest.mark.parametrize("scale", [0.7, 13.3, 9_000.0])
def test_simulated_noise_has_the_law_of_the_hosts(scale: float) -> None:
    drawn = discrete_laplace(np.random.default_rng(1), scale, (200_000,))
    variance = discrete_laplace_variance(scale)
    assert drawn.mean() == pytest.approx(0, abs=5 * math.sqrt(variance / drawn.size))
    assert drawn.var() == pytest.approx(variance, rel=0.03)


# -- the paper's estimator -------------------------------------------------------------------------------------


def paper(hosts: list[np.ndarray], epsilon: float) -> dict[str, Estimate]:
    rule = next(iter(model_rules(MADE).values()))
    made = PaperWindow(epsilon, np.random.default_rng(2))
    for power_w in hosts:
        made.add(power_w.astype(np.float32), rule, TDP_W * len(power_w))
    return made.estimates()


def test_without_noise_the_paper_is_right_about_independent_gpus_up_to_its_grid() -> None:
    rng = np.random.default_rng(3)
    hosts = [rng.uniform(100, 300, (8, 600)) for _ in range(16)]
    total = np.sum([one.sum(axis=0) for one in hosts], axis=0)
    for name, found in paper(hosts, 1e6).items():
        width = 440 / int(name.split()[0])
        assert found.mean_w == pytest.approx(total.mean(), abs=128 * width / 4), name
        spread = found.p99_w - found.mean_w
        assert spread == pytest.approx(2.326 * total.std(), rel=0.35 if name.startswith("5") else 0.1), name


def test_the_paper_sees_none_of_a_synchronised_swing() -> None:
    swing = np.where(np.arange(600) // 50 % 2, 120.0, 320.0)
    hosts = [np.tile(swing, (8, 1)) for _ in range(16)]
    true_margin_w = 128 * (320 - 220)
    for found in paper(hosts, 1e6).values():
        assert found.p99_w - found.mean_w < 0.3 * true_margin_w


def test_clamped_noise_moves_the_paper_s_mean() -> None:
    """Idle GPUs: what is clamped adds states that were never visited."""
    hosts = [np.full((8, 600), 60.0) for _ in range(16)]
    quiet, noisy = paper(hosts, 1e6), paper(hosts, 1.0)
    for name, found in noisy.items():
        assert found.mean_w > quiet[name].mean_w + 0.01 * quiet[name].mean_w


# -- scores ----------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.integers(1, 3000), st.floats(0, 1), st.sampled_from([0.5, 0.95, 0.99]))
def test_the_binomial_tail_is_scipy_s(count: int, part: float, share: float) -> None:
    hits = round(part * count)
    assert binomial_tail(hits, count, share) == pytest.approx(stats.binom.cdf(hits, count, share), rel=1e-7, abs=1e-12)


def test_errors_are_those_of_mean_and_margin_in_mw() -> None:
    off = Estimate(401_000, 503_000, 400_500, 402_000, 501_000, 504_000, set_aside=3)
    windows = [window(), window(estimates={"edge": off, "central": ABSENT, "exact": off})]
    found = estimator_figures(windows, seed=1)
    edge, central = found["edge"], found["central"]
    assert edge["mean_rmse_mw"] == pytest.approx(math.sqrt((0 + 0.1**2) / 2))
    assert edge["margin_rmse_mw"] == pytest.approx(math.sqrt((0 + 0.2**2) / 2))
    assert edge["margin_bias_mw"] == pytest.approx(0.1)
    assert (edge["coverage"], edge["mean_coverage"], edge["withheld"]) == (0.5, 0.5, 0)
    assert edge["coverage"] == edge["margin_coverage"]
    assert edge["margin_width_mw"] == pytest.approx((4.0 + 0.3) / 2)
    assert (edge["missed_low"], edge["set_aside_hosts"], central["set_aside_hosts"]) == (0.0, 3, 0)
    assert (central["withheld"], central["coverage"], central["mean_rmse_mw"]) == (1, 1.0, 0.0)
    assert found["paper"]["parameters"] == "y"
    assert found["paper"]["mean_rmse_mw"] == pytest.approx(1.0)
    assert found["paper"]["coverage"] is None
    assert paper_variants(windows) == {
        "x": {"mean_rmse_mw": pytest.approx(0), "margin_rmse_mw": pytest.approx(5.0)},
        "y": {"mean_rmse_mw": pytest.approx(1.0), "margin_rmse_mw": pytest.approx(1.0)},
    }


def test_coverage_of_windows_that_hang_together_proves_less() -> None:
    """The same 93 %: spread evenly, or missed in whole blocks."""
    blocks = [f"b{index // 100}" for index in range(2_000)]
    even = np.array([float(index % 100 >= 7) for index in range(2_000)])
    lumped = np.ones(2_000)
    lumped[:140] = 0
    for covered in (even, lumped):
        found = coverage_test(covered, blocks, seed=1)
        assert found is not None
        assert found["binomial_p"] == pytest.approx(stats.binom.cdf(1860, 2000, 0.95))
        assert found["low"] <= 0.93 <= found["high"]
    tested = [coverage_test(covered, blocks, seed=1) for covered in (even, lumped)]
    assert tested[0] is not None
    assert tested[1] is not None
    assert tested[0]["independent_windows"] == 2_000
    assert tested[1]["independent_windows"] < 100
    assert tested[0]["block_binomial_p"] < 0.01 < tested[1]["block_binomial_p"]


def test_few_blocks_have_no_bootstrap_and_no_interval_no_test() -> None:
    assert coverage_test(np.full(10, np.nan), ["a"] * 10, seed=1) is None
    found = coverage_test(np.ones(10), ["a", "b"] * 5, seed=1)
    assert found is not None
    assert (found["low"], found["block_binomial_p"], found["binomial_p"]) == (None, None, 1.0)
    assert block_shares(np.array([1.0, np.nan]), ["a", "b"], seed=1) is None


def test_forecasts_are_scored_beside_naive_ones() -> None:
    def row(forecast: float, came: float) -> dict[int, Forecasted]:
        return {horizon: Forecasted(forecast, came, 40.0, 42.0) for horizon in (1, 10, 60)}

    windows = [
        window("a", forecasts=row(50.0, 51.0)),
        window("b", forecasts=row(50.0, 43.0)),
        window("c", forecasts=row(math.nan, 40.0)),
    ]
    found = forecast_figures(windows, seed=1)["10"]
    assert found["windows"] == 2
    assert found["exceeded"] == 0.5
    assert found["pinball_mw"] == pytest.approx((0.99 * 1 + 0.01 * 7) / 2)
    assert found["persistence_pinball_mw"] == pytest.approx((0.99 * 11 + 0.99 * 3 + 0) / 3)
    assert found["persistence_and_rise_pinball_mw"] == pytest.approx((0.99 * 9 + 0.99 * 1 + 0.01 * 2) / 3)
    assert found["persistence_and_rise_exceeded"] == pytest.approx(2 / 3)
    assert found["exceeded_low"] is None
    none = forecast_figures([window()], seed=1)["1"]
    assert (none["windows"], none["exceeded"], none["pinball_mw"]) == (0, None, None)


# -- trials ----------------------------------------------------------------------------------------------------


def measured(spec: MarginSpec) -> list[WindowFigures]:
    made = bench_of(spec, MADE, [None])
    return [one for index in range(spec.windows // spec.per_fleet) for one in run_trial(made, None, index, 3)]


def test_a_trial_knows_the_truth_and_the_estimators_differ_by_their_noise() -> None:
    """Truth recomputed tick by tick; errors of the means against the noise that the statements promise."""
    spec = replace(SPEC, windows=30)
    windows = measured(spec)
    again = bench_of(spec, MADE, [None])
    rng = np.random.default_rng([spec.seed, 0, 0])
    fleet = draw_fleet(pools_of(MADE), again.rules, rng, hosts=16, gpus=4, ticks=4 * 100 + 601)
    for number in range(3):
        ticks = [
            math.fsum(float(power) for host in fleet.hosts for power in host.power_w(100 * (number + 1) + t, 1).ravel())
            for t in range(100)
        ]
        assert windows[number].mean_w == pytest.approx(math.fsum(ticks) / 100)
        assert windows[number].p99_w == pytest.approx(sorted(ticks)[98])
    assert windows[0].block == fleet.jobs[0]
    found = estimator_figures(windows, seed=1)
    profile = CoreFleet(fleet, spec.schedule).profiles[0]
    releases = privacy_parameters(spec.budget, [profile], spec.schedule).releases
    panes = next(one for one in releases if one.release == "pane_sums")
    # One host's noise in the window's mean: ten panes, each off by the scale's spread, in 0.1 W times 100 ticks.
    one_w = math.sqrt(10 * discrete_laplace_variance(panes.scale_micro / 1e6)) / 10 / 100
    one_mw = one_w * windows[0].mw_per_w
    assert found["exact"]["mean_rmse_mw"] < 0.02 * one_mw, "outputs are rounded to 1 W, nothing else"
    assert 0.2 * one_mw < found["central"]["mean_rmse_mw"] < 1.35 * one_mw
    assert 0.8 * one_mw < found["edge"]["mean_rmse_mw"] < 4 * 1.35 * one_mw, "16 hosts' noise, four times one's"
    assert found["paper"]["mean_rmse_mw"] > 5 * found["edge"]["mean_rmse_mw"]


def test_more_epsilon_is_less_error() -> None:
    rough, fine = (estimator_figures(measured(replace(SPEC, windows=15, epsilon=epsilon)), 1) for epsilon in (0.5, 8.0))
    assert fine["edge"]["mean_rmse_mw"] < 0.15 * rough["edge"]["mean_rmse_mw"]
    assert fine["exact"]["mean_rmse_mw"] == pytest.approx(rough["exact"]["mean_rmse_mw"], rel=1e-9)


def test_opendp_s_noise_has_the_same_size() -> None:
    windows = measured(replace(SPEC, windows=15, noise="opendp"))
    simulated = measured(replace(SPEC, windows=15))
    found, like = (estimator_figures(one, 1)["edge"]["mean_rmse_mw"] for one in (windows, simulated))
    assert 0.4 < found / like < 2.5
    assert [one.mean_w for one in windows[:3]] == [one.mean_w for one in simulated[:3]], "fleets do not depend on it"


def test_the_split_is_the_default_s_whatever_the_epsilon() -> None:
    for epsilon in (0.5, 1.0, 3.0):
        budget = replace(SPEC, epsilon=epsilon).budget
        assert budget.total_micro == pytest.approx(epsilon * 1e6, abs=3)
        usual = default_budget(energy=False)
        assert budget.pane_sums_micro == pytest.approx(epsilon * usual.pane_sums_micro, abs=1)


def test_figures_of_an_output_are_the_margin_turned_around() -> None:
    made = bench_of(SPEC, MADE, [None])
    fleet = draw_fleet(made.pools[None], made.rules, np.random.default_rng(1), hosts=4, gpus=2, ticks=100)
    core = CoreFleet(fleet, SPEC.schedule)
    output = core.output([report_of_nothing(core, index) for index in range(4)])
    assert of_output(output) != ABSENT
    assert of_output(replace(output, mean=None)) == ABSENT
    assert of_output(replace(output, margin=replace(output.margin, quantile_ppm=950_000))) == ABSENT
    room = replace(output.margin, margin=Interval(value_w=100, low_w=80, high_w=130), margin_absent_reason=None)
    given = replace(output, mean=Interval(value_w=10, low_w=9, high_w=12), margin=room)
    limit = output.margin.limit_w
    assert of_output(given) == Estimate(10, limit - 100, 9, 12, limit - 130, limit - 80)
    soon = Forecast(horizon_ms=1_000, quantile_ppm=990_000, estimate=Interval(value_w=7, low_w=6, high_w=8))
    other = replace(soon, quantile_ppm=500_000, estimate=Interval(value_w=1, low_w=1, high_w=1))
    assert forecast_of(replace(output, forecasts=(other, soon)), 1_000) == soon.estimate
    assert forecast_of(replace(output, forecasts=(other, soon)), 10_000) is None


# -- the command -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return manifest(tmp_path_factory.mktemp("traces"))


ARGUMENTS = ("--hosts", "16", "--gpus", "2", "--window", "10", "--trials", "6", "--run-up", "1", "--noise", "simulated")


def test_the_command_reports_every_estimator(traces: Path) -> None:
    done = call("bench", "margin", "--traces", str(traces), *ARGUMENTS, "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result["estimators"]) == ["paper", "edge", "central", "exact"]
    for name, one in result["estimators"].items():
        assert one["mean_rmse_mw"] >= 0
        assert one["margin_rmse_mw"] >= 0
        assert (one["coverage"] is None) == (name == "paper")
    assert result["fleet"]["windows"] == 6
    assert result["fleet"]["readings"] == {"average": 3, "instant": 2}
    assert result["by_mode"].keys() == {"instant", "average"}
    assert result["by_mode"]["instant"]["fleet"]["readings"] == {"instant": 2}
    assert result["forecast"].keys() == {"1", "10", "60"}
    assert (result["seed"], result["epsilon"], result["skipped"]) == (1, 1.0, [])


def test_the_seed_fixes_everything_but_opendp_s_noise(traces: Path) -> None:
    runs = [call("bench", "margin", "--traces", str(traces), *ARGUMENTS, "--json").stdout for _ in range(2)]
    assert runs[0] == runs[1]
    other = call("bench", "margin", "--traces", str(traces), *ARGUMENTS, "--json", "--seed", "2").stdout
    assert json.loads(other)["estimators"] != json.loads(runs[0])["estimators"]


def test_as_many_processes_as_you_like_give_the_same(traces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "FEW_REPORTS", 0)
    seen: list[tuple[int, int]] = []
    one, two = (
        bench.bench_margin(traces, SPEC, mode="any", workers=workers, progress=lambda *now: seen.append(now))
        for workers in (1, 2)
    )
    assert one == two
    assert seen == [(3, 6), (6, 6)] * 2


def test_one_kind_of_reading_alone(traces: Path) -> None:
    def result(*arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            call("bench", "margin", "--traces", str(traces), *ARGUMENTS, *arguments, "--json").stdout
        )
        return found

    alone, mixed = result("--mode", "instant"), result("--mode", "any")
    assert alone["fleet"]["readings"] == alone["by_mode"]["instant"]["fleet"]["readings"] == {"instant": 2}
    assert alone["by_mode"]["instant"]["estimators"] == alone["estimators"]
    assert mixed["by_mode"] == {}
    assert result("--mode", "any", "--gpu", "nothing like it") == {
        "error": "TRACE_UNREADABLE",
        "message": "no trace of a GPU named 'nothing like it'",
        "field": "gpu",
        "remedy": bench.TraceError.remedy,
    }


def test_logs_without_a_word_about_them_are_enough(tmp_path: Path) -> None:
    for number, name in enumerate(("t1", "t2", "i1")):
        log(tmp_path / f"{number}.csv", TRACES[name][1][:, :600], board=("Tesla Y", 450) if number else None)
    done = call("bench", "margin", "--traces", str(tmp_path), *ARGUMENTS, "--mode", "any", "--tdp", "500", "--json")
    assert done.exit_code == 0, done.output
    fleet = json.loads(done.stdout.splitlines()[-1])["fleet"]
    assert (fleet["jobs_from"], fleet["job_traces"], fleet["inference_traces"]) == ("training", 2, 1)
    assert fleet["classes"].keys() == {"GPU (500 W)", "Tesla Y (450 W)"}
    assert fleet["readings"] == {"unknown": 3}


def test_labels_reach_the_reports(traces: Path) -> None:
    made = bench_of(SPEC, read_traces(traces).traces, [None])
    fleet = draw_fleet(made.pools[None], made.rules, np.random.default_rng(1), hosts=16, gpus=1, ticks=100)
    for labels in (False, True):
        core = CoreFleet(fleet, SPEC.schedule, labels=labels)
        stated, _ = core.statement(0, report_of_nothing(core, 0))
        assert stated.group_label == ("job-a" if labels else None)


def report_of_nothing(core: CoreFleet, index: int) -> HostReport:
    """GPUs that draw nothing, without a transition."""
    profile = core.profiles[index]
    cells = len(profile.edges_w) + 2
    privacy = privacy_parameters(SPEC.budget, [profile], SPEC.schedule)
    readings = profile.source.gpus * SPEC.schedule.ticks
    return HostReport(np.zeros((cells, cells), np.int64), np.zeros(10, np.int64), readings, privacy)


def test_the_screen_says_what_is_missed(traces: Path) -> None:
    result = bench.bench_margin(traces, SPEC, mode="all")
    text = " ".join(shown(result).split())
    for part in ("16 hosts × 4 GPUs, 10-s windows, ε = 1", "paper", "edge", "central", "exact", "(best of its kind"):
        assert part in text
    assert "Fleets of instant readings alone" in text
    goal = {**result, "fleet": {**result["fleet"], "hosts": 32, "gpus_per_host": 8, "window_s": 60}}
    edge = {**goal["estimators"]["edge"], "mean_rmse_mw": 0.09, "margin_rmse_mw": 0.5}
    exact = {**goal["estimators"]["exact"], "margin_rmse_mw": 0.4}
    good = {**goal, "estimators": {**goal["estimators"], "edge": edge, "exact": exact}}
    for changed in ({"mean_rmse_mw": 0.11}, {"margin_rmse_mw": 0.751}, {"margin_rmse_mw": 0.76}):
        worse = {**good, "estimators": {**good["estimators"], "edge": {**edge, **changed}}}
        assert styles(worse) != styles(good)
    assert GOALS[512] == (0.03, None, 0.12)


def shown(result: dict[str, Any]) -> str:
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        console.print(margin_screen(result))
        return console.export_text()


def styles(result: dict[str, Any]) -> list[str]:
    console = Console(width=100, color_system="standard", force_terminal=True)
    return [str(segment.style) for segment in console.render(margin_screen(result))]


@pytest.mark.accept
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not REAL.is_dir(), reason="the real traces are not part of the project")
@pytest.mark.parametrize(("hosts", "windows"), [(32, 2_000), (512, 60)])
def test_on_real_traces_the_edge_is_about_as_good_as_exact(hosts: int, windows: int) -> None:
    done = process(
        *("bench", "margin", "--traces", str(REAL), "--hosts", str(hosts), "--trials", str(windows), "--json"),
        timeout_s=3_000,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    write_result(f"bench-margin-{hosts}", result, seeds={"fleets": result["seed"]})
    edge, exact = result["estimators"]["edge"], result["estimators"]["exact"]
    mean, margin, above = GOALS[hosts]
    assert edge["mean_rmse_mw"] <= mean
    assert edge["margin_rmse_mw"] <= exact["margin_rmse_mw"] + above
    assert margin is None or edge["margin_rmse_mw"] <= margin
    if hosts == 32:
        for test in (edge["coverage_test"], edge["mean_coverage_test"]):
            assert too_low_p(test) >= 0.01
        for one in result["forecast"].values():
            assert 0.005 <= one["exceeded"] <= 0.02
            assert one["pinball_mw"] < min(one["persistence_pinball_mw"], one["persistence_and_rise_pinball_mw"])
