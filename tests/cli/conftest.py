"""The command line in this process and as a process, one demo for all, a mock broker with something on it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Producer

from enclavescale.cli import main
from enclavescale.embedded import MockCluster
from schemas.topics import TopicNames
from tests.schemas.examples import VALUES

PROGRAM = [sys.executable, "-m", "enclavescale"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("ENCLAVESCALE_")}


def call(*arguments: str, env: dict[str, str] | None = None, stdin: bytes | None = None) -> Result:
    """Run a command in this process; logging is as before afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        return CliRunner().invoke(main, arguments, env=env, input=stdin)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def process(*arguments: str, timeout_s: float = 120.0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a process, away from any terminal."""
    return subprocess.run(
        [*PROGRAM, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
        env={**ENVIRONMENT, **environment},
    )


@dataclass(frozen=True)
class DemoRun:
    """A finished demo: its JSON, its rows per window, and the process."""

    summary: dict[str, Any]
    rows: list[dict[str, Any]]
    done: subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """Eight hosts, sixty windows, as fast as the machine can: nothing may be late for all that."""
    rows = tmp_path_factory.mktemp("demo") / "windows.jsonl"
    arguments = ["--hosts", "8", "--windows", "60", "--speed", "10000", "--json", "--windows-out", str(rows)]
    done = process("demo", *arguments)
    assert done.returncode == 0, done.stderr
    return DemoRun(json.loads(done.stdout), [json.loads(line) for line in rows.read_text().splitlines()], done)


@pytest.fixture(scope="session")
def mock_topics() -> str:
    """A mock broker whose topics hold one example record each, and a dead letter that cannot be decoded."""
    names = TopicNames()
    cluster = MockCluster({names.reports: 2, names.output: 2, names.rejections: 1, names.policy: 1, "empty": 1})
    producer = Producer({"bootstrap.servers": cluster.bootstrap})
    producer.produce(names.reports, VALUES["SignedRecord.report.full"], key=b"hall-a", partition=0)
    for name in ("full", "sparse"):
        producer.produce(names.output, VALUES[f"SignedFleetPower.{name}"], key=b"k", partition=1)
    producer.produce(names.output, b"foreign", partition=1)
    headers: Any = [("enclavescale.error.code", b"MALFORMED")]
    producer.produce(names.rejections, b"\xff\xfe not a record", key=b"\xff", partition=0, headers=headers)
    assert producer.flush(20) == 0
    return cluster.bootstrap  # it serves until this process ends


@pytest.fixture
def garbage(tmp_path: Path) -> Path:
    """A file that holds no record."""
    path = tmp_path / "garbage"
    path.write_bytes(b"no record")
    return path
