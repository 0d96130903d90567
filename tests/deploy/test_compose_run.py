"""The compose file without an engine: each service's own command as a process, volumes as directories, a real broker
and a real registry. It ends as `docker compose up` does, with margins on the page."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.broker import KafkaBroker
from tests.broker.kafka import free_ports
from tests.deploy.compose import OURS, STAGES, command_line, mounts
from tests.deploy.test_tutorial import margins, state
from tests.house.source import ROOT
from tests.registry.server import RegistryServer

pytestmark = [pytest.mark.broker, pytest.mark.soak]
UP = ("hall-a-0", "hall-a-1", "hall-b-0", "hall-b-1", "worker", "page")
START_S = 180


class Engine:
    """Runs services: what stands for a place in the container, an address or a port of the compose network."""

    def __init__(self, directory: Path, kafka: str, registry: str) -> None:
        self._directory = directory
        self._common = {"kafka:9092": kafka, "http://schema-registry:8080/apis/ccompat/v7": registry}
        self.port: dict[str, str] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def _place(self, name: str, target: str, source: str) -> Path:
        if source.startswith("./"):
            copy = self._directory / name / Path(target).name
            shutil.copy(ROOT / source, copy)
            copy.write_text(self._translated(name, copy.read_text()))
            return copy
        volume = self._directory / "volumes" / source
        volume.mkdir(parents=True, exist_ok=True)
        return volume

    def _translated(self, name: str, text: str) -> str:
        for old, new in {**self._common, **self._places}.items():
            text = text.replace(old, new)
        for port in ("9464", "9465", "8480"):
            if f"0.0.0.0:{port}" in text:
                self.port[name] = str(free_ports(1)[0])
                text = text.replace(f"0.0.0.0:{port}", f"127.0.0.1:{self.port[name]}")
        return text

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start the service as its container would be."""
        (self._directory / name).mkdir(exist_ok=True)
        self._places: dict[str, str] = {}
        volumes = sorted(mounts(name).items(), key=lambda pair: pair[1].startswith("./"))  # files name volumes
        for target, source in volumes:
            self._places[target] = str(self._place(name, target, source))
        words = [self._translated(name, one) for one in command_line(name)]
        given = {key: self._translated(name, str(one)) for key, one in OURS[name].get("environment", {}).items()}
        outside = {key: value for key, value in os.environ.items() if not key.startswith("ENCLAVESCALE_")}
        path = f"{Path(sys.executable).parent}:{outside['PATH']}"
        with (self._directory / f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(
                words,
                cwd=self._places.get("/var/lib/enclavescale", str(self._directory / name)),
                env={**outside, **given, "PATH": path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self._running[name]

    def log(self, name: str) -> str:
        return (self._directory / f"{name}.log").read_text()

    def down(self) -> None:
        for process in self._running.values():
            if process.poll() is None:
                process.terminate()
        for process in self._running.values():
            process.wait(60)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with ExitStack() as stack:
        broker = stack.enter_context(KafkaBroker.start())
        registry = RegistryServer(tmp_path)
        stack.callback(registry.stop)
        registry.launch()
        one = Engine(tmp_path, broker.bootstrap, registry.url)
        stack.callback(one.down)
        yield one


def test_up_gives_a_page_with_a_margin_and_healthy_services(engine: Engine) -> None:
    for _ in range(2):  # the second start of the stack changes nothing but the policy's counter
        assert engine.start("setup").wait(START_S) == 0, engine.log("setup")
    assert "policy 2 published" in engine.log("setup")
    for name in UP:
        engine.start(name)
    deadline = time.monotonic() + START_S
    found: dict[str, object] = {}
    while set(found) != {"hall-a", "hall-b"}:
        assert time.monotonic() < deadline, "\n".join(engine.log(name)[-1000:] for name in UP)
        time.sleep(1)
        try:
            found = dict(margins(engine.port["page"]))
        except OSError:
            continue  # not listening yet
    seen = state(engine.port["page"])
    assert seen["policy"]["counter"] == 2
    assert seen["simulated"] is True
    for name in UP:
        assert STAGES[OURS[name]["image"]] in ("agent", "worker", "page")
        with urllib.request.urlopen(f"http://127.0.0.1:{engine.port[name]}/readyz", timeout=10) as answer:
            assert json.load(answer)["status"] == "ok", name
        with urllib.request.urlopen(f"http://127.0.0.1:{engine.port[name]}/metrics", timeout=10) as answer:
            assert b"enclavescale_" in answer.read()
    engine.down()
    assert "Traceback" not in "".join(engine.log(name) for name in UP)
