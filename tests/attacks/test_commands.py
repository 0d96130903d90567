"""`bench attacks` and `bench attestation` at the command line."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from enclavescale.bench import attacks
from enclavescale.bench.attacks_screen import attacks_screen
from enclavescale.bench.attestation_screen import span
from enclavescale.cli import main


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["bench", *arguments])


def shown(document: dict[str, Any], width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(attacks_screen(document, width))
    return console.export_text()


def test_one_class_as_json_and_on_the_screen() -> None:
    done = run("attacks", "--class", "policy_below_the_floor", "--trials", "3", "--workers", "1", "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.output.splitlines()[-1])
    (one,) = document["classes"].values()
    assert (one["trials"], one["successes"], one["upper_bound_95"]) == (3, 0, 1.0)
    assert one["codes"] == {"POLICY_ROLLBACK": 3}
    assert document["met"]
    for width in (80, 160):
        text = shown(document, width)
        assert "policy_below_the_floor" in text
        assert "POLICY_ROLLBACK" in text
        assert max(map(len, text.splitlines())) <= width


def test_a_success_ends_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enclavescale.bench.attacks_documents.open_policy", lambda *_, **__: None)
    attacks._baseline(1000, attacks.HOSTS)
    done = run("attacks", "--class", "policy_below_the_floor", "--trials", "3", "--workers", "1", "--json")
    assert done.exit_code == 1
    document = json.loads(done.output.splitlines()[-1])
    assert document["successes"] == 3
    assert "counts" in shown(document, 120)


def test_what_changes_the_log_itself_is_not_tried_through_a_broker() -> None:
    done = run("attacks", "--class", "broker_drop", "--bootstrap", "127.0.0.1:1", "--json")
    assert done.exit_code == 2
    assert json.loads(done.output.splitlines()[0])["error"] == "CONFIG_INVALID"


def test_an_unknown_class_is_a_usage_error() -> None:
    assert run("attacks", "--class", "nonsense").exit_code == 2


def test_attestation_as_json_and_on_the_screen() -> None:
    arguments = ("attestation", "--window", "60", "--session", "3600", "--rounds", "3", "--quote-ms", "4")
    document = json.loads(run(*arguments, "--json").output.splitlines()[-1])
    assert {one["kind"] for one in document["curve"]} == {"cpu", "eight_gpus"}
    assert document["goals"]["cpu"]["us_per_sample"] > 0
    done = run(*arguments)
    assert done.exit_code == 0
    assert "4 ms (entered)" in done.output


@pytest.mark.parametrize(("seconds", "text"), [(86_400, "24 h"), (600, "10 min"), (90, "90 s"), (60, "1 min")])
def test_spans(seconds: int, text: str) -> None:
    assert span(seconds) == text
