"""Health by an injected clock; the endpoint over real sockets, with clients that do not behave."""

from __future__ import annotations

import contextlib
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from enclavescale import endpoint
from enclavescale.endpoint import App, Endpoint, endpoint_app, parse_address
from enclavescale.health import Health, Need
from producers.metrics import AgentMetrics
from schemas.errors import ConfigError
from tests.cli.test_notify import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    made = Health(clock)
    made.expect("loop", Need.LIVE, within_s=120)
    made.expect("spool", Need.READY, within_s=150)
    made.expect("broker", Need.SHOWN, within_s=180)
    return made


def states(health: Health) -> dict[str, str]:
    return {one.name: one.state for one in health.ready().checks}


def test_waiting_is_alive_and_not_ready(health: Health, clock: Clock) -> None:
    assert (health.live().status, health.ready().status) == ("ok", "failing")
    assert states(health) == {"loop": "waiting", "spool": "waiting", "broker": "waiting"}
    health.ok("loop")
    health.ok("spool")
    assert health.ready().status == "ok", "a broker that was not needed yet is nothing wrong"


def test_a_loop_that_hangs_is_dead(health: Health, clock: Clock) -> None:
    health.ok("loop")
    clock.now += 120
    assert health.live().good
    clock.now += 0.001
    answer = health.live()
    assert not answer.good
    assert [(one.name, one.state, one.code) for one in answer.checks] == [("loop", "stale", "NO_SUCCESS")]


def test_a_loop_that_never_turned_is_dead_after_its_grace(health: Health, clock: Clock) -> None:
    clock.now += 121
    assert not health.live().good


def test_brokers_away_are_shown_and_nothing_else(health: Health, clock: Clock) -> None:
    for name in ("loop", "spool", "broker"):
        health.ok(name)
    health.fail("broker", "CLUSTER_UNREACHABLE", "12 reports wait in the spool")
    answer = health.ready()
    assert (answer.good, answer.status) == (True, "degraded")
    clock.now += 10
    assert health.ready().checks[2].age_s == 10, "since it worked, not since it was told to fail"


def test_a_failing_spool_is_not_ready_and_no_reason_to_restart(health: Health) -> None:
    health.ok("loop")
    health.fail("spool", "SPOOL_FAILED")
    assert (health.live().status, health.ready().status) == ("ok", "failing")
    health.ok("spool")
    assert health.ready().good


def test_terms_may_change_and_checks_may_go(health: Health, clock: Clock) -> None:
    health.ok("loop")
    health.expect("loop", Need.LIVE, within_s=20)
    clock.now += 21
    assert not health.live().good
    health.forget("loop")
    assert health.live().good
    with pytest.raises(KeyError):
        health.ok("loop")


@given(st.lists(st.tuples(st.sampled_from(["ok", "fail", "wait"]), st.sampled_from(list(Need))), max_size=6))
def test_ready_implies_live_and_says_why_not(told: list[tuple[str, Need]]) -> None:
    clock = Clock()
    health = Health(clock)
    for index, (what, need) in enumerate(told):
        health.expect(str(index), need, within_s=10)
        if what == "ok":
            health.ok(str(index))
        elif what == "fail":
            health.fail(str(index), "CODE")
    ready = health.ready()
    assert not ready.good or health.live().good
    assert ready.good or any(one.state != "ok" and one.need is not Need.SHOWN for one in ready.checks)
    assert not ready.degraded or any(one.code for one in ready.checks)


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Endpoint, dict[str, App]]]:
    """One server for all, since closing one takes half a second; what it serves is the test's own."""
    apps: dict[str, App] = {}
    with Endpoint("127.0.0.1:0", lambda *request: apps["now"](*request)) as made:  # noqa: PLW0108  looked up late
        yield made, apps


@pytest.fixture
def served(shared: tuple[Endpoint, dict[str, App]], health: Health) -> Endpoint:
    registry = CollectorRegistry()
    AgentMetrics(registry).window(end_ms=60_000, sealed=1, lost=0)
    shared[1]["now"] = endpoint_app(registry, health)
    return shared[0]


def get(served: Endpoint, path: str, **options: object) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{served.port}{path}", **options)  # type: ignore[arg-type]
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def test_metrics_are_served(served: Endpoint) -> None:
    code, headers, body = get(served, "/metrics")
    assert code == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    assert b"enclavescale_agent_windows_total 1.0\n" in body


def test_probes_say_why(served: Endpoint, health: Health) -> None:
    assert get(served, "/livez")[0] == 200
    code, headers, body = get(served, "/readyz")
    assert (code, headers["Content-Type"]) == (503, "application/json; charset=utf-8")
    assert json.loads(body)["status"] == "failing"
    health.ok("loop")
    health.ok("spool", "3 reports wait")
    health.fail("broker", "CLUSTER_UNREACHABLE", "none acknowledged for 200 s")
    code, _, body = get(served, "/readyz")
    assert code == 200
    assert json.loads(body) == {
        "status": "degraded",
        "checks": [
            {"check": "loop", "state": "ok", "needed_for": "live", "code": None, "detail": "", "last_ok_s_ago": 0.0},
            {
                "check": "spool",
                "state": "ok",
                "needed_for": "ready",
                "code": None,
                "detail": "3 reports wait",
                "last_ok_s_ago": 0.0,
            },
            {
                "check": "broker",
                "state": "failing",
                "needed_for": "shown",
                "code": "CLUSTER_UNREACHABLE",
                "detail": "none acknowledged for 200 s",
                "last_ok_s_ago": None,
            },
        ],
    }


@pytest.mark.parametrize(
    ("path", "options", "code"),
    [
        ("/", {}, 404),
        ("/metrics/../etc", {}, 404),
        ("/livez", {"method": "POST"}, 405),
        ("/metrics", {"method": "HEAD"}, 405),
        ("/metrics", {"headers": {"Content-Length": "1"}, "data": b"x", "method": "GET"}, 413),
        ("/metrics", {"headers": {"Transfer-Encoding": "chunked"}}, 413),
    ],
)
def test_nothing_else_is_served(served: Endpoint, path: str, options: dict[str, object], code: int) -> None:
    assert get(served, path, **options)[0] == code


def test_slow_clients_hold_nobody_up(served: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there is room for, each with half a request: others are turned away until their time is over."""
    monkeypatch.setattr(endpoint, "REQUEST_S", 1.0)
    slow = [socket.create_connection(("127.0.0.1", served.port), 10) for _ in range(endpoint.MAX_REQUESTS)]
    for one in slow:
        one.sendall(b"GET /livez HTTP/1.1\r\nX: ")
    with socket.create_connection(("127.0.0.1", served.port), 10) as turned_away:
        turned_away.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):  # the other way in which a connection is seen to be closed
            assert turned_away.recv(100) == b""
    for one in slow:  # each is given up after its time, whatever it sent last
        assert one.recv(100) == b""
        one.close()
    assert get(served, "/livez")[0] == 200


def test_a_drip_gains_no_time(served: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "REQUEST_S", 0.3)
    with socket.create_connection(("127.0.0.1", served.port), 10) as drip:
        drip.settimeout(0.02)
        sent = 0
        while sent < 10_000:
            try:
                drip.sendall(b"G")
                sent += 1
                if drip.recv(100) == b"":
                    break
            except TimeoutError:
                continue
            except (ConnectionResetError, BrokenPipeError):
                break
    assert 0 < sent < 1_000


def test_a_close_ends_it(health: Health) -> None:
    made = Endpoint("127.0.0.1:0", endpoint_app(CollectorRegistry(), health))
    made.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", made.port), 5)


def test_an_address_in_use_is_said(served: Endpoint, health: Health) -> None:
    with pytest.raises(ConfigError, match=f"127.0.0.1:{served.port}") as caught:
        Endpoint(f"127.0.0.1:{served.port}", endpoint_app(CollectorRegistry(), health))
    assert caught.value.field == "listen"


def test_addresses() -> None:
    assert parse_address("127.0.0.1:9464") == ("127.0.0.1", 9464)
    assert parse_address("[::1]:9464") == ("::1", 9464)
    assert parse_address("agent.example:80") == ("agent.example", 80)


@pytest.mark.parametrize("listen", ["a..b:1", "a" * 64 + ":1", "256.0.0.1:1"])
def test_a_name_that_is_no_hosts_is_said(health: Health, listen: str) -> None:
    with pytest.raises(ConfigError, match="cannot listen") as caught:
        Endpoint(listen, endpoint_app(CollectorRegistry(), health))
    assert caught.value.field == "listen"


@pytest.mark.parametrize("text", ["", "9464", ":9464", "a:", "a:b", "a:65536", "::1:9464", "a:-1", "[]:1"])
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_address(text)
