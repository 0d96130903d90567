"""Options of the commands: numbers that are none, names spelt either way, budgets, small fleets."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest

from enclavescale.bench.byzantine_strategies import STRATEGIES
from enclavescale.bench.byzantine_trial import ByzantineSpec
from enclavescale.bench.margin_trial import MarginSpec
from enclavescale.cli import main
from enclavescale.cli.bench_byzantine import StrategyName
from enclavescale.cli.common import FiniteRange
from producers.privacy import Budget, default_budget
from tests.cli.conftest import call
from tests.cli.trace_maker import manifest


def commands(group: click.Command = main, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(group, click.Group):
        return [(path, group)]
    return [found for name, one in group.commands.items() for found in commands(one, (*path, name))]


FLOATS = [
    (path, parameter.opts[0])
    for path, command in commands()
    for parameter in command.params
    if isinstance(parameter.type, click.types.FloatParamType)
]


def test_no_option_of_any_command_takes_an_unbounded_float() -> None:
    assert len(FLOATS) >= 9
    for _, command in commands():
        for parameter in command.params:
            if isinstance(parameter.type, click.types.FloatParamType):
                assert isinstance(parameter.type, FiniteRange), (command.name, parameter.name)


@pytest.mark.parametrize("word", ["nan", "-nan", "inf", "-inf", "NaN", "1e999"])
def test_a_number_that_is_none_is_a_usage_error(word: str) -> None:
    for path, option in FLOATS:
        done = call(*path, f"{option}={word}")
        assert done.exit_code == 2, (path, option, done.output)
        assert "Traceback" not in done.output
        assert option in done.stderr


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 10.0])
def test_both_benchmarks_scale_every_release(epsilon: float) -> None:
    common: dict[str, Any] = {"hosts": 8, "gpus": 1, "epsilon": epsilon, "window_s": 10, "windows": 1, "seed": 1}
    usual = default_budget(energy=False)
    for spec in (MarginSpec(**common), ByzantineSpec(**common, history=1)):
        assert spec.budget.total_micro == pytest.approx(epsilon * 1e6, abs=3)
        for one in fields(Budget):
            if one.name.endswith("_micro"):
                assert getattr(spec.budget, one.name) == pytest.approx(epsilon * getattr(usual, one.name), abs=1)


def test_strategies_are_named_with_hyphens_or_underscores() -> None:
    names = StrategyName(["all", *STRATEGIES])
    for name in STRATEGIES:
        assert names.convert(name, None, None) == name
        assert names.convert(name.replace("_", "-"), None, None) == name
    with pytest.raises(click.BadParameter):
        names.convert("sign flip", None, None)


@pytest.mark.parametrize("command", ["margin", "byzantine"])
def test_a_directory_that_is_none_has_a_code(command: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for name in ("missing", "file"):
        done = call("bench", command, "--traces", str(tmp_path / name), "--json")
        assert done.exit_code == 1
        said = json.loads(done.stdout)
        assert (said["error"], said["field"]) == ("TRACE_UNREADABLE", "traces")
        assert name in said["message"]


@pytest.mark.parametrize("hosts", [1, 2, 3])
def test_a_fleet_may_be_too_small_for_jobs(hosts: int, tmp_path: Path) -> None:
    arguments = ("--traces", str(manifest(tmp_path)), "--hosts", str(hosts), "--gpus", "1", "--window", "5")
    margin = ("--trials", "2", "--run-up", "0", "--mode", "any", "--noise", "simulated")
    done = call("bench", "margin", *arguments, *margin, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["fleet"]["hosts"] == hosts
    assert found["estimators"]["edge"]["mean_rmse_mw"] >= 0
    byzantine = ("--windows", "1", "--history", "1", "--trials", "1", "--fraction", "0.5", "--strategy", "fake-swing")
    done = call("bench", "byzantine", *arguments, *byzantine, "--json")
    assert done.exit_code == 0, done.output
    assert list(json.loads(done.stdout)["strategies"]) == ["fake_swing"]
