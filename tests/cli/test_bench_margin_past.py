"""`bench margin`: fleets with a past, whose hosts have references, beside those without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from enclavescale.bench import margin as bench
from enclavescale.bench.margin_trial import MarginSpec, bench_of, run_trial
from enclavescale.bench.trace_files import read_traces
from tests.cli.conftest import call
from tests.cli.trace_maker import manifest

SPEC = MarginSpec(hosts=4, gpus=1, epsilon=1.0, window_s=5, windows=2, seed=5, run_up=0, per_fleet=2, noise="simulated")


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return manifest(tmp_path_factory.mktemp("traces"), ["t1", "i1"])


def test_fleets_cover_the_windows() -> None:
    part = bench.Part("instant", windows=7, per_fleet=3, run_up=2, first=100)
    assert part.tasks() == [("instant", 100, 3, 2), ("instant", 101, 3, 2), ("instant", 102, 1, 2)]
    assert part.fleets == 3


def test_a_long_run_measures_fleets_with_a_past_too(traces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a small scale: four windows are a long run, four windows a past."""
    for name, value in (("SHARE", 4), ("WINDOWS", 4), ("PER_FLEET", 2)):
        monkeypatch.setattr(bench, f"PAST_{name}", value)
    arguments = ["--hosts", "4", "--gpus", "1", "--window", "5", "--run-up", "0", "--seed", "5", "--trials", "4"]
    done = call("bench", "margin", "--traces", str(traces), *arguments, "--noise=simulated", "--json")
    assert done.exit_code == 0, done.output
    past = json.loads(done.stdout)["with_past"]
    assert (past["fleet"]["windows"], past["fleet"]["run_up_windows"], past["fleet"]["fleets"]) == (2, 4, 1)
    made = bench_of(SPEC, read_traces(traces).traces, [None])
    again = run_trial(made, None, bench.PAST_FIRST, 2, 4)
    assert past["fleet"]["true_mean_mw"] == pytest.approx(sum(one.mean_w * one.mw_per_w for one in again) / 2)
    assert past["estimators"]["edge"]["set_aside_hosts"] == sum(one.estimates["edge"].set_aside for one in again)


def test_a_short_run_or_a_long_run_up_measures_none(traces: Path) -> None:
    main = bench.Part(None, windows=1_000, per_fleet=4, run_up=3)
    assert bench._past(bench.Part(None, windows=49, per_fleet=4, run_up=3)) is None
    assert bench._past(bench.Part(None, windows=1_000, per_fleet=4, run_up=30)) is None
    assert bench._past(main) == bench.Part(None, 120, 10, 30, bench.PAST_FIRST)
    for mode in ("any", "all"):
        assert bench.bench_margin(traces, SPEC, mode=mode, workers=1)["with_past"] is None
