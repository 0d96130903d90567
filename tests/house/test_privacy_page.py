"""`docs/privacy.md` has a row for everything that leaves a host, as found in the source: none missing, none stale."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from producers.config import ClassProfile, Schedule
from producers.metrics import AgentMetrics
from producers.privacy import MICRO, RELEASES, default_budget, privacy_parameters
from producers.publish import cloud_event_headers
from producers.spool import SpoolEntry
from tests.house.source import ROOT, modules
from tests.producers.forge import FakeSource

PAGE = ROOT / "docs" / "privacy.md"
ROOMS = ("producers", "attester", "enclavescale")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
KINDS = {"noise", "public"}
"""Of rows that are compared: with noise and its release, or public and why."""
NOISY_FIELDS = {
    "GpuClass.transitions",
    "GpuClass.pane_sums",
    "GpuClass.histogram",
    "GpuClass.energy_residual_mj",
}
NOT_FROM_HOSTS = {"ControlRecord", "ControlSubject"}
SECRET = {"power_w", "power_mw", "energy_mj", "delta_mj", "deciwatts", "exact", "readings", "reading", "residual"}
"""Names that hold readings or what is not private yet: none of them stands in a log statement."""


@cache
def page() -> Mapping[str, dict[str, tuple[str, ...]]]:
    """Rows by section: every name in backticks in a row's first cell, and the cells after it."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    section = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif line.startswith("| `"):
            cells = tuple(cell.strip() for cell in line.strip("| ").split(" | "))
            for name in re.findall(r"`([^`]+)`", cells[0]):
                assert name not in found.get(section, {}), f"docs/privacy.md: two rows for {name}"
                found.setdefault(section, {})[name] = cells[1:]
    return found


def compare(section: str, names: set[str]) -> None:
    """Every name has its row, of a known kind and with a reason, and no row is without its name."""
    rows = page().get(section, {})
    missing, stale = sorted(names - set(rows)), sorted(set(rows) - names)
    lines = [f"no row in '{section}', add: | `{name}` | public or noise | why |" for name in missing]
    lines += [f"stale row in '{section}', not in the source: `{name}`" for name in stale]
    assert not lines, "docs/privacy.md\n" + "\n".join(lines)
    for name, cells in rows.items():
        assert len(cells) == 2, f"{name}: name, kind, why"
        assert cells[0] in KINDS, f"{name}: {cells[0]}"
        assert len(cells[1].split()) >= 3, f"{name}: {cells[1]} is no reason"
        if cells[0] == "noise":
            assert re.search("|".join(f"`{release}`" for release in RELEASES), cells[1]), name


def records(schema: Any) -> Iterator[tuple[str, list[str]]]:
    """Every record of an Avro schema with the names of its fields."""
    if isinstance(schema, list):
        for one in schema:
            yield from records(one)
    elif isinstance(schema, dict):
        if schema.get("type") == "record":
            yield schema["name"], [one["name"] for one in schema["fields"]]
            yield from records([one["type"] for one in schema["fields"]])
        yield from records([schema[key] for key in ("type", "items") if isinstance(schema.get(key), dict | list)])


def test_every_field_of_a_report_has_a_row() -> None:
    """A field `x_absent_reason` says why `x` is null and shares its row."""
    schema = json.loads((ROOT / "schemas" / "avsc" / "SignedRecord.v1.avsc").read_text())
    names = set()
    for record, fields in records(schema):
        if record not in NOT_FROM_HOSTS:
            names |= {f"{record}.{name}" for name in fields if name.removesuffix("_absent_reason") not in fields}
            names |= {f"{record}.{name}" for name in fields if not name.endswith("_absent_reason")}
    assert "WindowReport.samples_taken" in names
    compare("Fields of a report", names)
    noisy = {name for name, cells in page()["Fields of a report"].items() if cells[0] == "noise"}
    assert noisy == NOISY_FIELDS


def test_everything_around_the_record_has_a_row() -> None:
    entry = SpoolEntry(1, "host-1", "row-1", bytes(32), 60_000, 60_000, b"value")
    headers = {name for name, _ in cloud_event_headers(entry)}
    compare("Around the record", headers | {"key", "partition", "timestamp", "size"})


def test_every_metric_has_a_row() -> None:
    registry = CollectorRegistry()
    AgentMetrics(registry)
    families = {one.name + "_total" * (one.type == "counter") for one in registry.collect()}
    assert "enclavescale_agent_windows_total" in families
    compare("Metrics", families)
    noisy = {name for name, cells in page()["Metrics"].items() if cells[0] == "noise"}
    assert noisy == {name for name in families if name.startswith("enclavescale_agent_noisy_")}


def calls(*rooms: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call in these packages, with its file."""
    for path, tree in modules():
        name = path.relative_to(ROOT).as_posix()
        if name.split("/")[0] in rooms:
            yield from ((name, node) for node in ast.walk(tree) if isinstance(node, ast.Call))


def statements() -> Iterator[tuple[str, ast.Call]]:
    """Every log statement of what runs on a host, with its file."""
    for name, call in calls(*ROOMS):
        owner, _, method = ast.unparse(call.func).rpartition(".")
        if owner == "log" and method in LEVELS:
            yield name, call


def message(call: ast.Call) -> str:
    """The statement's text, or the expression that makes it."""
    assert isinstance(call.func, ast.Attribute)
    text = call.args[1 if call.func.attr == "log" else 0]
    if isinstance(text, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in text.values)
    return str(text.value) if isinstance(text, ast.Constant) else ast.unparse(text)


def test_every_log_line_has_a_row() -> None:
    names = {f"{name}: {message(call)}" for name, call in statements()}
    assert any(name.startswith("producers/agent.py: window") for name in names)
    compare("Log lines", names)


def test_there_is_no_other_logger() -> None:
    """All loggers are called `log`, the agent prints nothing, and nobody logs past them: the scan sees everything."""
    for path, tree in modules():
        if path.relative_to(ROOT).parts[0] in ROOMS:
            made = (node for node in ast.walk(tree) if isinstance(node, ast.Assign))
            loggers = [node for node in made if ast.unparse(node.value).startswith("logging.getLogger(")]
            assert {ast.unparse(target) for node in loggers for target in node.targets} <= {"log"}, path.name
    for name, call in calls(*ROOMS):
        called = ast.unparse(call.func)
        assert called.removeprefix("logging.") not in LEVELS, f"{name}: {called}"
        screen = name.startswith("enclavescale/") or name == "producers/traces/build.py"
        assert screen or called not in ("print", "click.echo"), f"{name}: {called}"


def test_no_log_line_is_given_a_reading() -> None:
    for name, call in statements():
        used = {node.id for node in ast.walk(call) if isinstance(node, ast.Name)}
        used |= {node.attr for node in ast.walk(call) if isinstance(node, ast.Attribute)}
        assert not used & SECRET, f"{name}:{call.lineno} logs {used & SECRET}"


def calls_of(thing: str, methods: set[str]) -> Iterator[ast.Call]:
    """Calls of methods of whatever is called `thing` in `enclavescale`."""
    for _, call in calls("enclavescale"):
        owner, _, method = ast.unparse(call.func).rpartition(".")
        if method in methods and owner.split(".")[-1].lstrip("_") == thing:
            yield call


def test_every_check_of_health_and_every_status_line_has_a_row() -> None:
    checks = {ast.literal_eval(call.args[0]) for call in calls_of("health", {"ok", "fail"})}
    lines = {message(call) for call in calls_of("notifier", {"ready", "status", "stopping"}) if call.args}
    assert {"loop", "spool"} <= checks
    compare("Health and status", checks | lines)


def test_every_line_of_the_terminal_has_a_row() -> None:
    (produce,) = (
        node
        for path, tree in modules()
        if path.relative_to(ROOT).as_posix() == "enclavescale/cli/run.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == "produce_command"
    )
    said = {ast.unparse(node.func) for node in ast.walk(produce) if isinstance(node, ast.Call)}
    compare("Terminal", said & {"say", "click.echo", "print"})


@pytest.mark.parametrize("energy", [False, True])
def test_the_page_states_what_is_drawn(energy: bool) -> None:
    """Sensitivity, epsilon and scale of every release, for a class of H100s, as the report would state them."""
    sixty = Schedule()
    source = FakeSource(gpus=8, kind="nvml")
    h100 = ClassProfile(model="H100", capacity_w=5600, edges_w=(100, 600), clip_low_w=0, clip_high_w=700, source=source)
    stated = privacy_parameters(default_budget(energy=energy), [h100], sixty)
    rows = page()["Releases"]
    assert set(rows) == set(RELEASES)
    column = 3 if energy else 2
    for name in RELEASES:
        drawn = next((one for one in stated.releases if one.release == name), None)
        epsilon = "0" if drawn is None else f"{drawn.epsilon_micro / MICRO:g}"
        assert rows[name][column] == epsilon, f"{name}: epsilon {epsilon}"
        if drawn is not None:
            assert rows[name][1].endswith(f"= {drawn.sensitivity_l1:,} {drawn.unit}"), (name, drawn.sensitivity_l1)
