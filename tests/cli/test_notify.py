"""What the service manager hears, on real datagram sockets: a path, an abstract name, nobody."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from enclavescale.agent.notify import Notifier


class Clock:
    """A monotonic clock that goes when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Manager:
    """A service manager's end of the socket."""

    def __init__(self, bound: str, name: str) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(bound)
        self._socket.setblocking(False)

    def heard(self) -> list[list[str]]:
        """Every message since the last call, line by line."""
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    if request.param == "path":
        made = Manager(str(tmp_path / "notify"), str(tmp_path / "notify"))
    else:
        name = "enclavescale-" + secrets.token_hex(8)
        made = Manager("\0" + name, "@" + name)
    yield made
    made.close()


def test_a_life(manager: Manager) -> None:
    told = Notifier.from_environment({"NOTIFY_SOCKET": manager.name})
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    told.ready("windows of 60 s")
    told.status("windows of 60 s")
    told.status("12 reports wait\nREADY=0")
    told.reloading()
    told.ready()
    told.stopping("flushing")
    heard = manager.heard()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert heard[0] == ["READY=1", "STATUS=windows of 60 s"]
    assert heard[1] == ["STATUS=12 reports wait READY=0"], "one line, and the unchanged one is not repeated"
    name, _, moment = heard[2][1].partition("=")
    assert (heard[2][0], name) == ("RELOADING=1", "MONOTONIC_USEC")
    assert before <= int(moment) <= after
    assert heard[3:] == [["READY=1"], ["STOPPING=1", "STATUS=flushing"]]


def test_signs_of_life_come_at_half_of_what_is_demanded(manager: Manager) -> None:
    clock = Clock()
    environment = {"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}
    told = Notifier.from_environment(environment, clock)
    for _ in range(1_000):  # 100 s of a loop that turns ten times a second
        told.alive()
        clock.now += 0.1
    assert manager.heard() == [["WATCHDOG=1"]] * 4


@pytest.mark.parametrize(
    "watchdog",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-1"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "x"},
    ],
)
def test_without_a_watchdog_for_this_process_there_are_no_signs(manager: Manager, watchdog: dict[str, str]) -> None:
    told = Notifier.from_environment({"NOTIFY_SOCKET": manager.name, **watchdog})
    told.alive()
    assert told.watchdog_s is None
    assert manager.heard() == []


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_nobody_listens(environment: dict[str, str]) -> None:
    told = Notifier.from_environment({**environment, "WATCHDOG_USEC": "1000000"})
    assert (told.address, told.watchdog_s) == (None, None)
    told.ready("x")
    told.alive()


def test_a_manager_that_is_gone_stops_nobody(tmp_path: Path) -> None:
    told = Notifier.from_environment({"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "1000000"})
    told.ready("x")
    told.alive()
    assert told.watchdog_s == 1.0
