"""The demo as a person, a pipe and an impatient operator meet it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result

from tests.broker import KafkaBroker
from tests.cli.conftest import ENVIRONMENT, PROGRAM, DemoRun, call, process

INJECTED = {"DUPLICATE": 20, "MEASUREMENT_UNKNOWN": 20, "SIGNATURE_INVALID": 20}
FIELDS = {"windows", "reports", "samples", "hosts", "accepted", "refused", "domains", "samples_per_s"}
DOMAIN_FIELDS = {"mean_mw", "p99_mw", "margin_mw", "margin_ci_mw"}
OPERATIONS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


def test_summary_is_one_json_object_with_what_was_promised(demo_run: DemoRun) -> None:
    summary = demo_run.summary
    assert demo_run.done.stdout.count("\n") == 1
    assert summary.keys() >= FIELDS
    assert set(summary["domains"]) == {"hall-a", "hall-b"}
    for figures in summary["domains"].values():
        assert figures.keys() >= DOMAIN_FIELDS
        low, high = figures["margin_ci_mw"]
        assert low <= figures["margin_mw"] <= high
        assert figures["margin_mw"] == pytest.approx(figures["limit_mw"] - figures["p99_mw"], abs=2e-6)


def test_refused_are_the_injected_and_nothing_else_at_any_speed(demo_run: DemoRun) -> None:
    summary = demo_run.summary
    assert summary["refused"] == INJECTED
    assert set(summary["dishonest"]) == set(INJECTED)
    assert summary["injected"] == 60
    assert (summary["windows"], summary["hosts"], summary["accepted"]) == (120, 8, 8 * 60)
    assert summary["reports"] == 480 + 60
    assert summary["samples"] == 480 * 8 * 100  # GPUs per host, ticks per window


def test_coverage_is_what_the_rows_say(demo_run: DemoRun) -> None:
    covered = [row["mean_ci_mw"][0] <= row["truth_mw"] <= row["mean_ci_mw"][1] for row in demo_run.rows]
    assert [row["covered"] for row in demo_run.rows] == covered
    assert demo_run.summary["interval_95"] == {"windows": len(covered), "covered": sum(covered)}
    assert {(row["domain"], row["window_start_ms"]) for row in demo_run.rows}.__len__() == 120
    for name, figures in demo_run.summary["domains"].items():
        last = max((row for row in demo_run.rows if row["domain"] == name), key=lambda row: row["window_start_ms"])
        assert (figures["mean_mw"], figures["truth_mw"]) == (last["mean_mw"], last["truth_mw"])


def test_a_pipe_gets_plain_lines(demo_run: DemoRun) -> None:
    text = demo_run.done.stderr
    assert "SIMULATED TEE" in text
    assert "MOCK BROKER" in text
    assert "120/120 windows (100 %)" in text
    assert not any(ord(character) < 32 and character != "\n" for character in text)


def test_every_field_is_documented(demo_run: DemoRun) -> None:
    names = set(demo_run.summary) | {name for one in demo_run.summary["domains"].values() for name in one}
    assert [name for name in sorted(names | set(demo_run.rows[0])) if f"`{name}`" not in OPERATIONS] == []


def test_few_hosts_leave_the_liars_out_and_withhold_what_one_host_would_tell() -> None:
    done = process("demo", "--hosts", "3", "--gpus", "1", "--windows", "1", "--speed", "1000", "--no-attack", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["refused"] == {}
    assert summary["accepted"] == 3
    assert summary["domains"]["hall-b"]["margin_mw"] is None
    assert "k_min" in summary["domains"]["hall-b"]["margin_absent_reason"]
    assert summary["interval_95"]["windows"] == 1


@pytest.mark.parametrize("arguments", [("--hosts", "1"), ("--hosts", "513"), ("--windows", "0"), ("--speed", "x")])
def test_demo_refuses_options_out_of_range(arguments: tuple[str, str]) -> None:
    assert call("demo", *arguments).exit_code == 2


def test_unwritable_result_is_said_before_the_run(tmp_path: Path) -> None:
    done: Result = call("demo", "--windows-out", str(tmp_path / "missing" / "file"))
    assert done.exit_code == 2
    assert "--windows-out" in done.stderr


def test_unreachable_cluster_ends_the_demo_with_a_remedy() -> None:
    done = process("demo", "--bootstrap", "127.0.0.1:1", "--json", timeout_s=30)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"] == "CLUSTER_UNREACHABLE"
    assert "Traceback" not in done.stderr
    assert "Connect to" not in done.stderr, "no log of every attempt"


def descendants(pid: int) -> set[int]:
    """Ids of a process's children."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) == pid:
                    found.add(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def alive(pid: int) -> bool:
    """Running, not merely waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Children can be interrupted even if this process was started to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.quiet
@pytest.mark.usefixtures("interruptible")
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_ended_demo_leaves_no_process_behind(number: signal.Signals, tmp_path: Path) -> None:
    errors = tmp_path / "stderr"
    with errors.open("wb") as stderr:
        demo = subprocess.Popen(
            [*PROGRAM, "demo", "--hosts", "6", "--windows", "5000", "--processes", "2"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=ENVIRONMENT | {"TMPDIR": str(tmp_path)},
        )
        deadline = time.monotonic() + 60
        while "running" not in errors.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        children = descendants(demo.pid)
        assert len(children) == 5, errors.read_text()  # broker, worker, two processes of hosts, attackers
        began = time.monotonic()
        os.kill(demo.pid, number)
        stdout, _ = demo.communicate(timeout=20)
        while any(alive(pid) for pid in children) and time.monotonic() - began < 5:
            time.sleep(0.05)
    assert time.monotonic() - began < 5
    assert not any(alive(pid) for pid in children)
    assert demo.returncode == (-9 if number is signal.SIGKILL else 1)
    assert stdout == b""
    assert "Traceback" not in errors.read_text()
    if number is not signal.SIGKILL:
        assert not list(tmp_path.glob("enclavescale-*"))


@pytest.mark.broker
def test_demo_runs_on_a_real_cluster(kafka: KafkaBroker) -> None:
    arguments = ["--hosts", "8", "--windows", "12", "--speed", "10000", "--json"]
    done = process("demo", "--bootstrap", kafka.bootstrap, *arguments, timeout_s=60)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["refused"] == dict.fromkeys(INJECTED, 12)
    assert summary["accepted"] == 8 * 12
    assert summary["embedded_broker"] is False
    assert "MOCK" not in done.stderr
    prefix = summary["topic_prefix"]
    checked = process(
        "topics", "check", "--bootstrap", kafka.bootstrap, "--topic-prefix", prefix, "--partitions", "2", "--json"
    )
    assert (checked.returncode, json.loads(checked.stdout)) == (0, [])
    reports = ["show", "--bootstrap", kafka.bootstrap, "--topic", f"{prefix}.window-reports.v1"]
    assert "(append time)" in process(*reports).stdout
