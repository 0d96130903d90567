"""Rules, runbooks, dashboards and pages agree with what workers and agents serve, and the real promtool takes them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from tests.house.source import ROOT
from tests.house.test_docs import cli_commands
from tests.house.test_privacy_page import KINDS, page
from tests.observe import metrics_page
from tests.observe.metrics_page import agent_registry, described, names_in, rules, worker_registry
from tests.observe.promtool import RULES, run_promtool
from tests.observe.worker_bench import WorkerBench

RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text()
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
ALERTS = [rule for rule in rules() if "alert" in rule]
KNOWN = {one.name for registry in (worker_registry(), agent_registry()) for one in described(registry)}
RECORDED = {rule["record"] for rule in rules() if "record" in rule}


@pytest.mark.parametrize(
    "command",
    [
        ("check", "rules", str(RULES)),
        ("check", "config", str(RULES.parent / "prometheus.yml")),
        ("test", "rules", str(RULES.parent / "rules_test.yml")),
    ],
    ids=" ".join,
)
def test_promtool_takes_what_is_shipped(command: tuple[str, ...]) -> None:
    done = run_promtool(*command)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_has_nothing_against_the_metrics(tmp_path: Path) -> None:
    """Names, types, units, help. The agent's lateness is a gauge by quantile of its own window, no summary."""
    bench = WorkerBench(tmp_path)
    for _ in range(3):
        bench.window()
    for text in (bench.text(), generate_latest(agent_registry()).decode()):
        done = run_promtool("check", "metrics", text=text)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_of_metrics_is_what_the_registries_say() -> None:
    assert metrics_page.PAGE.read_text() == metrics_page.render(), "run `make docs`"


def test_rules_ask_for_metrics_that_there_are() -> None:
    asked = {name for rule in rules() for name in names_in(rule["expr"])}
    assert asked <= KNOWN | RECORDED, asked - KNOWN - RECORDED


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_has_a_runbook(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"]["summary"].endswith((".", "?"))
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{rule['alert'].lower()}"
    section = RUNBOOKS.split(f"### {rule['alert']}\n")[1].split("\n##")[0]
    for part in ("**Means**", "**Look**", "**Do**", "**Over when**"):
        assert section.count(part) == 1, part


def test_no_runbook_is_without_its_alert() -> None:
    assert sorted(re.findall(r"^### (\w+)$", RUNBOOKS, re.MULTILINE)) == sorted(rule["alert"] for rule in ALERTS)


def test_runbooks_name_what_there_is() -> None:
    """Commands, options, metrics, headings."""
    commands = cli_commands()
    first = {command.split()[0] for command in commands}
    for name, second in re.findall(r"`enclavescale ([a-z]+)(?: ([a-z]+))?", RUNBOOKS):
        assert name in first, name
        assert not second or f"{name} {second}" in commands or name in commands, f"{name} {second}"
    asked = {one for text in re.findall(r"`([^`\n]+)`", RUNBOOKS) for one in names_in(text)}
    assert asked <= KNOWN | RECORDED, asked - KNOWN - RECORDED
    anchors = {head.lower() for head in re.findall(r"^### (\w+)$", RUNBOOKS, re.MULTILINE)}
    assert set(re.findall(r"\]\(#(\w+)\)", RUNBOOKS)) <= anchors


def test_every_alert_is_brought_about_by_a_test() -> None:
    """Each stands in a set of what fires, in a test that is not the healthy one."""
    named = set()
    for path in Path(__file__).parent.glob("test_alerts_*.py"):
        tree = ast.parse(path.read_text())
        named |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert {rule["alert"] for rule in ALERTS} <= named


def test_labels_are_nothing_that_a_host_can_choose(tmp_path: Path) -> None:
    """Whatever comes in, series appear for codes only."""
    bench = WorkerBench(tmp_path)
    for _ in range(3):
        bench.window()

    def series() -> set[str]:
        return {line.rsplit(" ", 1)[0] for line in bench.text().splitlines() if not line.startswith("#")}

    before = series()
    good = bench.log[-1].value or b""
    for number in range(50):
        bench.append(b"noise %d" % number, b"domain-%d" % number)
        bench.append(good, b"domain-%d" % number)
        bench.append(good[: number * 20], b"hall-a")
        bench.append(None, b"hall-a")
    bench.read()
    added = series() - before
    assert added, "refusals were counted"
    assert all(re.fullmatch(r'enclavescale_refused_total\{code="[A-Z_]+"\}', one) for one in added), added


def test_privacy_has_a_row_for_every_metric_of_a_worker() -> None:
    rows = page()["Metrics of workers"]
    names = {one.name for one in described(worker_registry())}
    assert set(rows) == names, set(rows) ^ names
    for name, cells in rows.items():
        assert cells[0] in KINDS, name
        assert len(cells[1].split()) >= 3, name


def panels(path: Path) -> Iterator[dict[str, Any]]:
    yield from json.loads(path.read_text())["panels"]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_ask_what_there_is_in_units(path: Path, tmp_path: Path) -> None:
    board, expressions = json.loads(path.read_text()), []
    for panel in panels(path):
        assert panel["title"], panel["id"]
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        expressions += [target["expr"] for target in panel["targets"]]
    for variable in board["templating"]["list"][1:]:
        expressions.append(re.sub(r"label_values\((.*), \w+\)", r"\1", variable["query"]["query"]))
    asked = {name for text in expressions for name in names_in(text)}
    assert asked <= KNOWN | RECORDED, asked - KNOWN - RECORDED
    group = {"name": "x", "rules": [{"record": "x:y", "expr": text} for text in dict.fromkeys(expressions)]}
    (tmp_path / "asked.yml").write_text(yaml.safe_dump({"groups": [group]}))
    done = run_promtool("check", "rules", "--lint=none", str(tmp_path / "asked.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


SAFE = {"#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"}
"""Okabe and Ito's, told apart by people with any kind of colour blindness."""


def colours(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, one in value.items():
            if key in ("fixedColor", "color", "iconColor") and isinstance(one, str):
                yield one
            yield from colours(one)
    elif isinstance(value, list):
        for one in value:
            yield from colours(one)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_are_told_apart_without_red_and_green(path: Path) -> None:
    assert set(colours(json.loads(path.read_text()))) <= SAFE
    for panel in panels(path):
        mode = panel["fieldConfig"]["defaults"].get("color", {}).get("mode", "fixed")
        assert mode in ("fixed", "thresholds", "continuous-BlPu"), panel["title"]


def test_dashboards_are_told_apart_and_provisioned() -> None:
    boards = [json.loads(path.read_text()) for path in DASHBOARDS]
    assert len({board["uid"] for board in boards}) == len(boards) == 4
    room = ROOT / "deploy" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((room / "datasources" / "prometheus.yml").read_text())["datasources"]
    for board in boards:
        assert board["templating"]["list"][0]["current"]["value"] == source["uid"]
        for one in board["panels"]:
            at = one["gridPos"]
            assert at["x"] + at["w"] <= 24, one["title"]
