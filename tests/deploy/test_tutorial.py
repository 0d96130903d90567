"""docs/tutorial.md, run as it is written: from nothing to a margin on the page, on a real broker."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.broker.kafka import fetch_jars, free_ports
from tests.deploy.compose import SERVICES
from tests.house.source import ROOT

PAGE = (ROOT / "docs" / "tutorial.md").read_text()
FENCED = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
BLOCKS = [text for language, text in FENCED if language == "sh"]
PORTS = ("9094", "9464", "9465", "8480")
"""Those of the page; a test takes free ones instead."""
LIMIT_W = 3500
BLOCK_S = 180
"""The longest a block may take on a loaded machine: the first figures take 30 s."""


class Shell:
    """One bash for all of the page's blocks, as a reader has it."""

    def __init__(self, home: Path, ports: dict[str, str]) -> None:
        self._ports = ports
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ENCLAVESCALE_")}
        environment["HOME"] = str(home)
        environment.pop("XDG_CACHE_HOME", None)
        (home / ".cache" / "enclavescale").mkdir(parents=True)
        (home / ".cache" / "enclavescale" / fetch_jars().name).symlink_to(fetch_jars())
        # A group of its own: whatever the blocks leave behind ends with it.
        self._process = subprocess.Popen(
            ["bash", "-s"],
            cwd=ROOT,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.said = ""
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._lines.put(line)
        self._lines.put(None)

    def run(self, block: str) -> str:
        """Run a block; fails with what it said where a line of it fails."""
        for port, free in self._ports.items():
            block = re.sub(rf"\b{port}\b", free, block)
        assert self._process.stdin is not None
        self._process.stdin.write(f"set -e\n{block}\nset +e\necho DONE\n")
        self._process.stdin.flush()
        said = ""
        deadline = time.monotonic() + BLOCK_S
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"{block}\ntook longer than {BLOCK_S} s:\n{self.said}{said}") from None
            if line is None:
                raise AssertionError(f"{block}\nended with {self._process.wait()}:\n{self.said}{said}")
            if line == "DONE\n":
                self.said += said
                return said
            said += line

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with self._process, contextlib.suppress(BrokenPipeError):  # waits, and closes its pipes
            pass


@pytest.fixture
def ports() -> dict[str, str]:
    return dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))


@pytest.fixture
def shell(tmp_path: Path, ports: dict[str, str]) -> Iterator[Shell]:
    one = Shell(tmp_path, ports)
    try:
        yield one
    finally:
        one.close()


def state(port: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/state", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def margins(port: str) -> dict[str, dict[str, Any]]:
    """What the page shows as a verified margin, by domain."""
    found = {}
    for one in state(port)["domains"]:
        margin = one["output"]["margin"]
        if one["trust"] == "verified" and margin["margin"] is not None:
            found[one["domain"]] = margin
    return found


@pytest.mark.broker
@pytest.mark.soak
def test_the_tutorial_ends_with_ones_own_margin_on_the_page(
    shell: Shell, ports: dict[str, str], tmp_path: Path
) -> None:
    install, *blocks, stop = BLOCKS
    current = subprocess.run(["make", "-q", ".venv/.installed"], cwd=ROOT, check=False).returncode == 0
    if current and Path(sys.executable).is_relative_to(ROOT / ".venv"):
        shell.run(install)
    else:  # a developer's environment elsewhere: it is not replaced by a test
        shell.run(f'export PATH="{Path(sys.executable).parent}:$PATH"')
    said = [shell.run(block) for block in blocks]
    deadline = time.monotonic() + 60
    while set(found := margins(ports["8480"])) != {"hall-a", "hall-b"}:
        assert time.monotonic() < deadline, state(ports["8480"])["headline"]
        time.sleep(0.5)
    assert found["hall-a"]["limit_w"] == LIMIT_W, "the limit that the reader set"
    assert found["hall-a"]["margin"]["low_w"] < found["hall-a"]["margin"]["value_w"] < LIMIT_W
    assert "identical" in said[-2]
    assert (tmp_path / "enclavescale-tutorial" / "proof.json").exists()
    shell.run(stop)
    logs = "".join(one.read_text() for one in (tmp_path / "enclavescale-tutorial").glob("*.log"))
    assert "Traceback" not in logs + shell.said
    assert "ERROR" not in logs


def test_what_is_not_run_is_in_the_compose_file() -> None:
    """Blocks and commands for Docker are the only ones that the test above leaves out."""
    assert [text for language, text in FENCED if language != "sh"] == ["docker compose up --build\n"]
    for command in re.findall(r"`docker compose ([^`]+)`", PAGE):
        action, *rest = command.split()
        assert action in {"up", "stop"}
        assert [one for one in rest if not one.startswith("-") and one not in SERVICES] == []
