"""`bench byzantine`: strategies, distinguishers and counts one by one; the command as run; at full count, the goals."""

from __future__ import annotations

import itertools
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

from enclavescale.bench import byzantine as bench
from enclavescale.bench.byzantine_screen import GOAL_COST_MW, GOAL_MW, GOALS_MW, NOTES, byzantine_screen
from enclavescale.bench.byzantine_strategies import STRATEGIES, Scene, variants
from enclavescale.bench.byzantine_traces import bundled_traces
from enclavescale.bench.byzantine_trial import ByzantineSpec, Trial, figures_of, physics
from enclavescale.bench.honest_fleet import HonestCount, Work, fleets_for
from enclavescale.bench.presence import auc, best_threshold, presence_figures, watch
from enclavescale.bench.trace_fleet import model_rules, pools_of
from stream_jobs.core.refusals import Refused
from tests.cli.conftest import call
from tests.results import write_result

TIER = os.environ.get("ENCLAVESCALE_TIER", "test")
REAL = Path(__file__).resolve().parents[3] / "shared" / "traces"
SPEC = ByzantineSpec(hosts=16, gpus=2, epsilon=1.0, window_s=10, windows=4, history=6, seed=3)
ARGUMENTS = ("--hosts", "16", "--gpus", "2", "--window", "10", "--windows", "3", "--history", "6", "--trials", "1")


def trial(spec: ByzantineSpec = SPEC, index: int = 0) -> Trial:
    traces = bundled_traces()
    return Trial(spec, pools_of(traces), model_rules(traces), index)


# -- strategies ------------------------------------------------------------------------------------------------


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    seed = draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    low, width = draw(st.integers(0, 50)), draw(st.integers(100, 700))
    windows = draw(st.integers(1, 12))
    return Scene(
        own_w=rng.uniform(low, low + width, (draw(st.integers(1, 4)), 120)),
        fleet_share=rng.uniform(0.1, 0.9, 120),
        gpu_capacity_w=0.9 * (low + width),
        clip_low_w=low,
        clip_high_w=low + width,
        window=draw(st.integers(0, windows - 1)),
        windows=windows,
        step=draw(st.sampled_from(variants("frog_boiling"))),
    )


@settings(max_examples=60, deadline=None)
@given(scenes())
def test_readings_of_every_lie_stay_in_the_clip_range(scene: Scene) -> None:
    for name, strategy in STRATEGIES.items():
        claimed = strategy(scene).readings_w
        assert claimed.shape == scene.own_w.shape, name
        assert claimed.min() >= scene.clip_low_w, name
        assert claimed.max() <= scene.clip_high_w, name


@settings(max_examples=60, deadline=None)
@given(scenes())
def test_what_the_strategies_claim(scene: Scene) -> None:
    own = scene.own_w
    flipped = STRATEGIES["sign_flip"](scene).readings_w
    centre = scene.fleet_share * scene.gpu_capacity_w
    inside = (flipped > scene.clip_low_w) & (flipped < scene.clip_high_w)
    wide = np.broadcast_to(centre, own.shape)
    np.testing.assert_allclose((flipped - wide)[inside], (wide - own)[inside], atol=1e-9)
    crept = STRATEGIES["stealth"](scene).readings_w
    assert (crept >= own - 1e-9).all()
    assert (crept <= 1.1 * own + 1e-9).all()
    last = STRATEGIES["stealth"](replace(scene, window=scene.windows - 1, clip_high_w=10_000)).readings_w
    np.testing.assert_allclose(last, 1.1 * own)
    frogs = [STRATEGIES["frog_boiling"](replace(scene, window=one)).readings_w.mean() for one in range(scene.windows)]
    assert frogs == sorted(frogs)


@settings(max_examples=60, deadline=None)
@given(scenes())
def test_a_fake_swing_keeps_the_mean_and_is_in_step(scene: Scene) -> None:
    claimed = STRATEGIES["fake_swing"](scene).readings_w
    assert set(np.unique(claimed)) <= {float(scene.clip_low_w), float(scene.clip_high_w)}
    assert (claimed == claimed[0]).all()
    step = (scene.clip_high_w - scene.clip_low_w) / 40
    assert claimed.mean() == pytest.approx(scene.own_w.mean(), abs=step)


def test_the_strongest_push_is_the_last_that_physics_admits() -> None:
    one = trial()
    for name in ("max", "zero"):
        branch = one.attack(name, 0.0, [0, 1])
        assert not branch.refused
    core, honest = one.core(), one.honest_reports(0)
    for (host, sign), push in one.pushes.items():
        assert push > 0
        rule = one.profiles[host]
        level = rule.clip_high_w if sign > 0 else rule.clip_low_w
        exact = np.full_like(honest[host].pane_sums, 10 * level * rule.source.gpus * one.spec.schedule.ticks_per_pane)
        physics(core, host, replace(honest[host], pane_sums=exact + sign * push))
        with pytest.raises(Refused) as refused:
            physics(core, host, replace(honest[host], pane_sums=exact + sign * (push + 1)))
        assert refused.value.code == "POWER_IMPLAUSIBLE"


def test_capacity_beyond_enrolment_is_refused_and_only_the_liars_are() -> None:
    one = trial()
    liars = one.liars(0.25)
    branch = one.attack("capacity_inflation", 0.0, liars)
    assert branch.refused == {"CLASS_MISMATCH": SPEC.windows * len(liars)}
    assert all(output.accepted == SPEC.hosts - len(liars) for output in branch.outputs)


def test_honest_reports_are_the_same_in_every_branch() -> None:
    one = trial()
    nobody = one.attack("max", 0.0, [])
    assert [figures_of(output) for output in nobody.outputs] == [figures_of(o) for o in one.honest.outputs]
    assert one.checked().outputs == one.honest.outputs, "physics refuses no honest report"


def test_colluders_of_a_larger_share_include_those_of_a_smaller_one() -> None:
    one = trial()
    sets = [set(one.liars(fraction)) for fraction in (0.0, 0.05, 0.15, 0.3, 0.4)]
    assert [len(some) for some in sets] == [0, 1, 2, 5, 6]
    assert all(small <= large for small, large in itertools.pairwise(sets))


# -- job presence ----------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=30),
    st.lists(st.integers(-5, 5), min_size=1, max_size=30),
)
def test_auc_is_the_mann_whitney_statistic(without: list[int], with_job: list[int]) -> None:
    a, b = np.array(without, float), np.array(with_job, float)
    wanted = stats.mannwhitneyu(b, a).statistic / (len(a) * len(b))
    assert auc(a, b) == pytest.approx(wanted)
    threshold = best_threshold(a, b)
    gain = (b > threshold).mean() - (a > threshold).mean()
    others = [(b > one).mean() - (a > one).mean() for one in np.linspace(-6, 6, 49)]
    assert gain >= max(others) - 1e-12


def test_a_large_job_is_seen_and_one_without_hosts_is_not() -> None:
    one = trial(replace(SPEC, windows=12))
    members = [index for index, host in enumerate(one.fleet.hosts) if host.group == "job-b"]
    seen = [{len(job): watch(one, job)} for job in (members, [])]
    by_size = {found["hosts"]: found for found in presence_figures(seen, SPEC.hosts)}
    assert by_size[4]["auc"] > 0.95
    assert by_size[4]["advantage"] > 0.8
    assert 0.1 < by_size[4]["share_of_capacity"] < 0.5
    assert by_size[4]["dilution"]["hosts"] == SPEC.hosts
    assert set(by_size[0]["auc_by_feature"].values()) == {0.5}
    assert by_size[0]["advantage"] == 0


# -- the honest fleet ------------------------------------------------------------------------------------------


def test_work_comes_and_goes_and_a_host_without_it_idles() -> None:
    spec = replace(SPEC, hosts=128, windows=100, history=0, window_s=10)
    one = trial(spec)
    work = Work(one, np.random.default_rng(1))
    assert work.changes > 100
    on = off = 0
    for host in range(0, 128, 7):
        for window in range(0, 100, 9):
            power, own = work.power_w(host, window), one.own_w(host, window)
            busy = power == own
            on, off = on + int(busy.all()), off + int(not busy.any())
            assert (power <= own.max()).all()
    assert on > 20
    assert off > 20


def test_honest_counts_add_up() -> None:
    one, two = HonestCount(host_windows=100), HonestCount(host_windows=50, set_aside=2)
    one.refused.update({"POWER_IMPLAUSIBLE": 1, "CLASS_MISMATCH": 3})
    two.layers.update({"HISTORY_UP": 4})
    one.add(two)
    document = one.document()
    assert (document["host_windows"], document["refused"], document["set_aside_host_windows"]) == (150, 1, 2)
    assert document["refused_rate"] == 1 / 150
    assert document["layers"] == {"HISTORY_UP": 4}
    assert [fleets_for(count) for count in (0, 1, 12_800, 12_801)] == [0, 1, 1, 2]


# -- the command -----------------------------------------------------------------------------------------------


def run(*arguments: str) -> dict[str, Any]:
    done = call("bench", "byzantine", *ARGUMENTS, "--workers", "1", *arguments, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_command_reports_every_strategy() -> None:
    result = run("--fraction", "0.25", "--strategy", "all")
    assert set(result["strategies"]) == set(STRATEGIES)
    for name, one in result["strategies"].items():
        assert 0 <= one["mean_error_mw"] <= one["influence_bound_mw"], name
        assert one["margin_error_mw"] >= 0
        assert one["mean_error_rms_mw"] <= one["mean_error_mw"] + 1e-4
    assert result["fractions"]["0.25"]["hosts"] == 4
    assert [one["hosts"] for one in result["presence"]] == [1, 2, 4]
    for one in result["presence"]:
        assert 0 <= one["auc"] <= 1
        assert 0 <= one["advantage"] <= 1
    assert result["fleet"]["bundled"]
    assert result["honest"]["fleet"] is None
    text = " ".join(shown(result).split())
    for part in ("4 hosts lie (25 %", "capacity_inflation", "CLASS_MISMATCH", "AUC", *STRATEGIES):
        assert part in text


def test_the_seed_fixes_everything() -> None:
    arguments = ("--fraction", "0.25", "--strategy", "max", "--no-presence")
    one = run(*arguments)
    assert run(*arguments) == one
    assert run(*arguments, "--seed", "9")["strategies"] != one["strategies"]


def test_without_a_fraction_all_of_them_are_tried_and_nobody_moves_nothing() -> None:
    result = run("--strategy", "zero", "--no-presence")
    assert list(result["fractions"]) == ["0", "0.05", "0.15", "0.3", "0.4"]
    assert result["strategies"] == result["fractions"]["0.4"]["strategies"]
    moved = [one["strategies"]["zero"]["mean_error_mw"] for one in result["fractions"].values()]
    assert moved[0] == 0
    assert moved[-1] > 0
    assert result["presence"] == []


@pytest.mark.soak
def test_two_processes_give_the_same() -> None:
    one, two = (
        bench.bench_byzantine(
            None, SPEC, fractions=(0.25,), strategies=("max",), trials=2, presence=False, workers=workers
        )
        for workers in (1, 2)
    )
    assert one == two


def test_a_directory_without_traces_is_an_error_with_a_code(tmp_path: Path) -> None:
    done = call("bench", "byzantine", "--traces", str(tmp_path), "--json")
    assert done.exit_code != 0
    assert json.loads(done.stdout)["error"] == "TRACE_UNREADABLE"
    assert "Traceback" not in done.output


def test_every_strategy_has_a_note_and_goals_name_strategies() -> None:
    assert set(NOTES) == set(STRATEGIES)
    assert set(GOALS_MW) <= set(STRATEGIES)


def shown(result: dict[str, Any]) -> str:
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        console.print(byzantine_screen(result))
        return console.export_text()


# -- at full count ---------------------------------------------------------------------------------------------


FULL = ByzantineSpec(hosts=32, gpus=8, epsilon=1.0, window_s=60, windows=10, history=30, seed=1)


@pytest.mark.accept
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("source", ["bundled", "real"])
def test_colluders_move_no_more_than_they_may(source: str) -> None:
    if source == "real" and not REAL.is_dir():
        pytest.skip("the real traces are not part of the project")
    result = bench.bench_byzantine(REAL if source == "real" else None, FULL, trials=6)
    if source == "bundled":
        write_result("byzantine", result, seeds={"fleets": FULL.seed})
    for name, one in result["layers"].items():
        assert max(one["mean_mw"], one["margin_mw"]) <= GOAL_COST_MW, name
    for name, one in result["fractions"]["0.15"]["strategies"].items():
        assert one["mean_error_mw"] <= GOALS_MW.get(name, GOAL_MW), name
    for fraction, by_name in result["fractions"].items():
        for name, one in by_name["strategies"].items():
            assert one["exceeded"] == 0, (fraction, name)


@pytest.mark.accept
@pytest.mark.timeout(7200)
def test_honest_hosts_are_not_refused_when_jobs_start_and_stop() -> None:
    result = bench.bench_byzantine(None, FULL, fractions=(0.0,), trials=1, presence=False, honest_host_windows=100_000)
    honest = result["honest"]["fleet"]
    write_result("byzantine-honest", honest, seeds={"fleets": FULL.seed})
    assert honest["host_windows"] >= 100_000
    assert honest["refused"] <= math.floor(1e-4 * honest["host_windows"])
