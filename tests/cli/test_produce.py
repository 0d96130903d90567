"""`enclavescale produce` as an operator runs it: a live source, probes, a reload, a stop; and why it does not start."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from enclavescale.agent.producing import Production
from enclavescale.embedded import MockCluster
from schemas.codec import decode_signed_record
from schemas.errors import ConfigError, EnclaveScaleError
from schemas.records import WindowReport
from schemas.topics import TopicNames
from tests.cli.conftest import ENVIRONMENT, PROGRAM, call
from tests.cli.site import HOST, WINDOW_MS, Site, judge, make_site, published

DEADLINE_S = 40.0


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path, "simulated", "trace")


def get(address: str, path: str) -> tuple[int, str]:
    """Status and body; 0 while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def until(what: Callable[[], object], agent: subprocess.Popen[str]) -> None:
    """Wait for something the agent does; fail with its log if it does not."""
    end = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while not what():
        if agent.poll() is not None or time.monotonic() > end:
            agent.kill()
            pytest.fail(f"not seen: {agent.communicate()[1]}")
        pause.wait(0.05)


def free_address() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


def metric(text: str, name: str) -> float:
    (line,) = (line for line in text.splitlines() if line.startswith(f"enclavescale_agent_{name} "))
    return float(line.split()[1])


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """A service manager: the address to notify, and what it was told so far."""
    path = tmp_path / "notify"
    told: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))

        def listen() -> None:
            while (said := listener.recv(4096).decode()) != "end":
                told.append(said)

        thread = threading.Thread(target=listen)
        thread.start()
        yield str(path), lambda: list(told)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"end", str(path))
        thread.join()


def test_an_agent_runs_is_probed_reloaded_and_stopped(site: Site, manager: tuple[str, Callable[[], list[str]]]) -> None:
    names, address = TopicNames(), free_address()
    bootstrap = MockCluster({names.reports: 2}).bootstrap
    path, (notify, heard) = site.directory / "agent.json", manager
    kafka = {"bootstrap.servers": bootstrap}
    path.write_text(json.dumps(site.table(listen=address, kafka=kafka)))
    agent = subprocess.Popen(
        [*PROGRAM, "--log-format", "json", "produce", "--config", str(path), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**ENVIRONMENT, "NOTIFY_SOCKET": notify, "WATCHDOG_USEC": "400000"},
    )
    try:
        until(lambda: get(address, "/readyz")[0] == 200, agent)
        assert get(address, "/livez")[0] == 200
        assert heard()[0].startswith("READY=1")
        until(lambda: "WATCHDOG=1" in heard(), agent)
        assert json.loads(get(address, "/readyz")[1])["status"] == "ok"

        path.write_text(json.dumps(site.table(listen=address, kafka=kafka, polcy="x")))
        agent.send_signal(signal.SIGHUP)
        until(lambda: 'reloads_total{result="refused"} 1.0' in get(address, "/metrics")[1], agent)
        assert any("reload refused: CONFIG_INVALID" in one for one in heard())

        budget = {"transitions_micro": 200_000, "pane_sums_micro": 400_000}
        path.write_text(json.dumps(site.table(listen=address, kafka=kafka, budget=budget)))
        agent.send_signal(signal.SIGHUP)
        until(lambda: 'reloads_total{result="ok"} 1.0' in get(address, "/metrics")[1], agent)
        before = metric(get(address, "/metrics")[1], "windows_total")
        until(lambda: metric(get(address, "/metrics")[1], "windows_total") >= before + 2, agent)
        assert get(address, "/readyz")[0] == 200
        agent.send_signal(signal.SIGTERM)
        out, err = agent.communicate(timeout=DEADLINE_S)
    finally:
        agent.kill()
    assert agent.returncode == 0, err
    assert any("STOPPING=1" in one for one in heard())
    assert sum(one.startswith("RELOADING=1") for one in heard()) == 2
    summary = json.loads(out)
    assert summary["lost"] == summary["left_in_spool"] == 0
    assert summary["windows"] == summary["reports"] == summary["acknowledged"]
    for line in err.splitlines()[1:]:
        json.loads(line)

    values = published(bootstrap, names.reports)
    records = [decode_signed_record(value) for value in values]
    bodies = [record.body for record in records if isinstance(record.body, WindowReport)]
    assert len(bodies) == summary["reports"]
    starts = [body.window_start_ms for body in bodies]
    assert starts == list(range(starts[0], starts[0] + len(starts) * WINDOW_MS, WINDOW_MS)), "a window is missing"
    for one, after in zip(records, bodies[1:], strict=False):
        assert after.prev_digest == one.digest
    assert len({body.session_id for body in bodies}) == 2, "the reload is a new session"
    epsilons = {sum(one.epsilon_micro for one in body.privacy.releases) for body in bodies}
    assert epsilons == {1_000_000, 600_000}
    assert all(one.energy_residual_mj is not None for one in bodies[0].classes)
    assert judge(site, site.sign(), values) == []


def refusal(site: Site, **changes: Any) -> EnclaveScaleError:
    """Why an agent does not start; nothing may be left behind."""
    threads = set(threading.enumerate())
    with pytest.raises(EnclaveScaleError) as caught:
        Production(site.spec(**changes), {"bootstrap.servers": "127.0.0.1:1"})
    assert set(threading.enumerate()) <= threads
    return caught.value


def one_host(**changes: Any) -> list[dict[str, Any]]:
    return [{"host_id": HOST, "source": "simulated"} | changes]


EXPORTER = {"url": "http://localhost:9400/metrics", "collect_interval_ms": 1_000}
REFUSALS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "another signer": ({}, {"policy_signers": ["04" + "00" * 64]}, "POLICY_UNTRUSTED"),
    "another host": ({}, {"hosts": one_host(host_id="nobody")}, "HOST_NOT_ENROLLED"),
    "source": ({"accepted_sources": ("nvml",)}, {}, "SOURCE_NOT_ACCEPTED"),
    "sampler mode": ({"accepted_sampler_modes": ("average",)}, {}, "SAMPLER_MODE_NOT_ACCEPTED"),
    "budget": ({}, {"budget": {"transitions_micro": 400_000, "pane_sums_micro": 700_000}}, "BUDGET_EXCEEDED"),
    "small budget": ({}, {"budget": {"transitions_micro": 9_999, "pane_sums_micro": 700_000}}, "BUDGET_TOO_SMALL"),
    "no TEE": ({}, {"tee": "tsm", "tee_directory": "/nonexistent"}, "TSM_UNAVAILABLE"),
    "no driver": ({}, {"hosts": one_host(source="nvml")}, "NVML_UNAVAILABLE"),
    "no driver to attest with": ({}, {"hosts": one_host(gpu_evidence=True)}, "NVML_UNAVAILABLE"),
    "SPDM endpoint": ({}, {"hosts": one_host(spdm=[{"subject": "s", "address": "x:y"}])}, "CONFIG_INVALID"),
    "traces": (
        {},
        {"hosts": one_host(source="trace", traces=[{"trace": "bundled:no", "seed": "s"}])},
        "CONFIG_INVALID",
    ),
    "address": ({}, {"listen": "256.0.0.1:1"}, "CONFIG_INVALID"),
    "no host": ({}, {"hosts": []}, "CONFIG_INVALID"),
    "an exporter twice": (
        {},
        {"hosts": [host for name in (HOST, "b") for host in one_host(host_id=name, source="dcgm", dcgm=EXPORTER)]},
        "CONFIG_INVALID",
    ),
    "a host twice": ({}, {"hosts": one_host() * 2}, "CONFIG_INVALID"),
    "windows": ({}, {"windows": -1}, "CONFIG_INVALID"),
    "no spool": ({}, {"spool": ""}, "CONFIG_INVALID"),
    "claim": ({}, {"hosts": one_host(first_mile="GPU_ATTESTED")}, "FIRST_MILE_OVERCLAIMED"),
    "grade": ({"min_first_mile": "GPU_ATTESTED"}, {}, "FIRST_MILE_TOO_LOW"),
    "simulated TEE": ({"trust_roots": ()}, {}, "ROOT_UNTRUSTED"),
    "a file for a directory": ({}, {"tee_directory": __file__}, "CONFIG_INVALID"),
    "models": ({"models": ()}, {}, "CONFIG_INVALID"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_why_it_does_not_start(site: Site, name: str) -> None:
    policy, changes, code = REFUSALS[name]
    site.sign(**policy)
    error = refusal(site, **changes)
    assert error.code == code
    assert error.remedy


def test_a_policy_that_was_altered_is_refused(site: Site) -> None:
    path = site.directory / "policy.avro"
    value = bytearray(path.read_bytes())
    value[60] ^= 1
    path.write_bytes(bytes(value))
    with pytest.raises(EnclaveScaleError):
        Production(site.spec(), {"bootstrap.servers": "127.0.0.1:1"})


def test_an_unknown_kafka_property_is_an_error_of_the_user(site: Site) -> None:
    path = site.directory / "agent.json"
    path.write_text(json.dumps(site.table(kafka={"bootstrap.servers": "127.0.0.1:1", "no.such": 1})))
    done = call("produce", "--config", str(path), "--json")
    assert done.exit_code == 2
    assert json.loads(done.stdout)["error"] == "CONFIG_INVALID"


@pytest.mark.parametrize(
    "changes",
    [{"spool": "elsewhere.db"}, {"listen": "127.0.0.1:0"}, {"windows": 3}, {"spool_max_mib": 5}],
    ids=lambda one: next(iter(one)),
)
def test_what_a_reload_does_not_change(site: Site, changes: dict[str, Any]) -> None:
    kafka = {"bootstrap.servers": "127.0.0.1:1"}
    with Production(site.spec(), kafka) as production:
        assert not production.reload(lambda: (site.spec(**changes), kafka))
        assert production.reload(lambda: (site.spec(), kafka))


@pytest.mark.parametrize("wrong", ["no.such", "error_cb"])
def test_a_reload_with_a_broken_kafka_property_keeps_the_old_one(site: Site, wrong: str) -> None:
    kafka = {"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": "1"}
    stop = threading.Event()
    hosts = one_host(source="trace", traces=[{"trace": "bundled:a100_square", "seed": "s"}])
    spec = site.spec(hosts=hosts, speed=20)

    def meanwhile() -> None:
        with contextlib.ExitStack() as at_end:
            at_end.callback(stop.set)
            assert production.reload(lambda: (spec, kafka | {wrong: "1"})), "only librdkafka knows its properties"
            end = time.monotonic() + DEADLINE_S
            while not sample("enclavescale_agent_reloads_total", {"result": "refused"}) and time.monotonic() < end:
                stop.wait(0.02)
            windows = sample("enclavescale_agent_windows_total") or 0.0
            while (sample("enclavescale_agent_windows_total") or 0.0) < windows + 2 and time.monotonic() < end:
                stop.wait(0.02)

    with Production(spec, kafka) as production:
        sample = production.instruments.registry.get_sample_value
        thread = threading.Thread(target=meanwhile)
        thread.start()
        summary = production.run(stop)
        thread.join()
    assert sample("enclavescale_agent_reloads_total", {"result": "refused"}) == 1
    assert not sample("enclavescale_agent_reloads_total", {"result": "ok"})
    assert summary.windows >= 3
    assert summary.acknowledged == summary.reports == summary.windows


def test_evidence_that_would_not_last_for_two_windows_is_refused(site: Site) -> None:
    site.sign(domains=tuple(dataclasses.replace(one, window_ms=31_000) for one in site.policy.domains))
    assert refusal(site, evidence_max_age_s=60).field == "evidence_max_age_s"


@pytest.mark.parametrize(
    "changes",
    [
        {"spool": "a\0b"},
        {"policy": "a\0b"},
        {"tee_directory": "\0"},
        {"speed": 10**400},
        {"budget": {"w_event_windows": 10**12}},
        {"budget": {"w_event_windows": 0}},
    ],
    ids=str,
)
def test_what_no_file_may_say(site: Site, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        site.spec(**changes)


def test_a_policy_that_has_ended_is_said(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.sign(not_after_ms=1)
    with Production(site.spec(), {"bootstrap.servers": "127.0.0.1:1"}):
        assert [one.levelname for one in caplog.records if "the policy has ended" in one.message] == ["ERROR"]


def test_an_agent_of_two_schedules_is_refused(site: Site) -> None:
    rules = [
        dataclasses.replace(one, window_ms=2_000) if one.domain == "hall-b" else one for one in site.policy.domains
    ]
    site.sign(domains=tuple(rules))
    trace = [{"trace": "bundled:v100_square", "seed": "s"}]
    hosts = [
        {"host_id": HOST, "traces": [{"trace": "bundled:a100_square", "seed": "s"}]},
        {"host_id": "hall-b-host000", "traces": trace},
    ]
    with pytest.raises(ConfigError, match="schedule"):
        Production(site.spec(hosts=hosts), {"bootstrap.servers": "127.0.0.1:1"})
