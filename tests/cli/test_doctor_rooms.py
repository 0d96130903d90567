"""Doctor's rooms over a played kernel, clock, disk, registry and agent: each fault is named, with a remedy."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import http.server
import json
import os
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from enclavescale.agent.file import DcgmSpec, HostSpec, ProduceSpec, SpdmSpec, TraceSpec
from enclavescale.checkup.clock import ClockState, check_clock, keeper
from enclavescale.checkup.cluster import check_registry
from enclavescale.checkup.finding import Finding
from enclavescale.checkup.running import check_running
from enclavescale.checkup.sources import check_dcgm, check_spdm, check_traces
from enclavescale.checkup.spool import check_spool, file_system_of
from enclavescale.checkup.tee import check_tee
from enclavescale.endpoint import Endpoint, endpoint_app
from enclavescale.health import Health, Need
from schemas.records import ClassEnrolment, HostEnrolment
from tests.attester.host import kernel, leaf_digest, policy
from tests.attester.loopback import honest, listening
from tests.attester.responder import Responder
from tests.producers import fake_gpu

HOST = HostSpec(host_id="h", source="nvml")


def enrolment(gpus: int = 2, model: str = fake_gpu.H100, **changes: Any) -> HostEnrolment:
    made = HostEnrolment(
        host_id="h", domain="d", tenant="t", failure_domain="r", platform_ids=(), gpu_key_digests=(),
        classes=(ClassEnrolment(model=model, gpus=gpus, capacity_w=700 * gpus),),
    )  # fmt: skip
    return replace(made, **changes)


def wrong(found: list[Finding]) -> list[tuple[str, str, str | None]]:
    for one in found:
        assert (one.remedy == "") == (one.state in ("ok", "skip")), "what to do, where something is to be done"
    return [(one.check, one.state, one.code) for one in found if one.state in ("warn", "fail")]


def text(found: list[Finding], check: str) -> str:
    return "; ".join(one.found for one in found if one.check == check)


SPEC = ProduceSpec(policy="p", spool="s", hosts=(HOST,))


@pytest.mark.parametrize("tee", ["tdx", "snp"])
def test_a_tee_that_is_well(tee: str) -> None:
    found_policy, _ = policy(tee, ())
    host = found_policy.hosts[0]
    found = list(check_tee(SPEC, "h", found_policy, host, trial=True, entries=kernel(tee)))
    assert wrong(found) == []
    assert [one.check for one in found] == ["tee.provider", "tee.quote", "tee.platform", "tee.measurement"]
    assert text(found, "tee.platform") == f"{host.platform_ids[0][:16]}…, as enrolled"


@pytest.mark.parametrize("tee", ["tdx", "snp"])
def test_another_machine_and_another_image(tee: str) -> None:
    found_policy, _ = policy(tee, ())
    host = found_policy.hosts[0]
    other = replace(
        found_policy,
        measurements=tuple(
            replace(one, registers=tuple(replace(rule, value=bytes(len(rule.value))) for rule in one.registers))
            for one in found_policy.measurements
        ),
    )
    found = list(check_tee(SPEC, "h", other, replace(host, platform_ids=("ab" * 16,)), trial=True, entries=kernel(tee)))
    assert wrong(found) == [
        ("tee.platform", "fail", "PLATFORM_NOT_ENROLLED"),
        ("tee.measurement", "fail", "MEASUREMENT_UNKNOWN"),
    ]
    assert host.platform_ids[0] in found[-2].remedy, "what is to be enrolled, for copying"


def test_a_tee_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attester.tsm.ATTEMPTS", 1)
    none = kernel("tdx")
    none.faults = {("create", ""): [errno.ENOENT]}
    assert wrong(list(check_tee(SPEC, "h", None, None, trial=True, entries=none))) == [
        ("tee.provider", "fail", "TSM_UNAVAILABLE")
    ]
    refuses = kernel("snp")
    refuses.faults = {("read", "outblob"): [errno.ENOTTY]}
    found = list(check_tee(SPEC, "h", None, None, trial=True, entries=refuses))
    assert wrong(found) == [("tee.quote", "fail", "TSM_REFUSED")]
    assert refuses.entries == {}


def test_a_slow_quote_and_one_without_certificates() -> None:
    times = iter((0.0, 11.0))
    slow = check_tee(SPEC, "h", None, None, trial=True, entries=kernel("tdx"), clock=lambda: next(times))
    assert wrong(list(slow)) == [("tee.quote", "warn", None)]
    bare = kernel("snp")
    made = bare.make
    bare.make = lambda data, level: (made(data, level)[0], b"")
    assert wrong(list(check_tee(SPEC, "h", None, None, trial=True, entries=bare))) == [("tee.quote", "warn", None)]


def test_a_simulated_tee_is_not_made(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, tee="simulated", tee_directory=str(tmp_path))
    found = list(check_tee(spec, "h", None, None, trial=True))
    assert [(one.check, one.state) for one in found] == [("tee.provider", "warn"), ("tee.quote", "skip")]
    assert not list(tmp_path.iterdir())


def test_no_trial_makes_no_report() -> None:
    asked = kernel("tdx")
    found = list(check_tee(SPEC, "h", None, None, trial=False, entries=asked))
    assert [(one.check, one.state) for one in found] == [("tee.provider", "ok"), ("tee.quote", "skip")]
    assert ("read", "outblob") not in asked.operations


CLOCKS: dict[str, tuple[ClockState | OSError, float, list[str]]] = {
    "well": (ClockState(estimated_error_ms=0.1, maximum_error_ms=30), 1e5, []),
    "unsynchronised": (ClockState(estimated_error_ms=16000, maximum_error_ms=16000), 1e5, ["fail"]),
    "far off": (ClockState(estimated_error_ms=1, maximum_error_ms=6000), 1e5, ["warn"]),
    "not allowed": (OSError(errno.EPERM, "no"), 1e5, []),
    "just booted": (ClockState(estimated_error_ms=0.1, maximum_error_ms=30), 20, ["warn"]),
}


@pytest.mark.parametrize("name", CLOCKS)
def test_clocks(name: str) -> None:
    state, up_s, expected = CLOCKS[name]
    assert [one[1] for one in wrong(list(check_clock(state, "chrony", up_s, 5_000)))] == expected


@pytest.mark.parametrize(
    ("mark", "name"),
    [("chrony/chronyd.pid", "chrony"), ("systemd/timesync/synchronized", "systemd-timesyncd"), ("other", "")],
)
def test_who_keeps_the_time(tmp_path: Path, mark: str, name: str) -> None:
    (tmp_path / mark).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / mark).touch()
    assert keeper(tmp_path) == name
    advice = next(check_clock(ClockState(estimated_error_ms=0, maximum_error_ms=16000), name, 1e5, 5_000)).remedy
    assert {"chrony": "chronyc", "systemd-timesyncd": "timedatectl", "": "Install"}[name] in advice


def mounts(directory: Path, *lines: str) -> Path:
    file = directory / "mountinfo"
    file.write_text("".join(f"36 35 98:0 / {line} - {kind} x rw\n" for line, kind in (one.split("|") for one in lines)))
    return file


@pytest.mark.parametrize(
    ("kind", "state"), [("ext4", []), ("tmpfs", ["warn"]), ("nfs4", ["warn"]), ("overlay", ["warn"])]
)
def test_a_spools_file_system(tmp_path: Path, kind: str, state: list[str]) -> None:
    table = mounts(tmp_path, "/ rw|xfs", f"{tmp_path} rw|{kind}")
    found = list(check_spool(tmp_path / "spool.db", 1 << 20, table, lambda: 0.0))
    assert [one[1] for one in wrong(found)] == state
    assert sorted(os.listdir(tmp_path)) == ["mountinfo"]


def test_the_last_mount_on_a_point_counts_and_names_may_hold_blanks(tmp_path: Path) -> None:
    room = tmp_path / "a b"
    room.mkdir()
    table = mounts(tmp_path, "/ rw|xfs", f"{tmp_path}/a\\040b rw|ext4", f"{tmp_path}/a\\040b rw|tmpfs", "short|no")
    assert file_system_of(room / "spool.db", table) == "tmpfs"
    assert file_system_of(room, tmp_path / "none") == ""


def test_a_spool_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    found = list(check_spool(tmp_path / "file" / "spool.db", 1 << 20))
    assert ("spool.write", "fail", "SPOOL_FAILED") in wrong(found)
    times = iter(range(100))
    slow = list(check_spool(tmp_path / "spool.db", 1 << 20, mounts(tmp_path, "/ rw|xfs"), lambda: float(next(times))))
    assert wrong(slow) == [("spool.write", "warn", None)]
    large = list(check_spool(tmp_path / "spool.db", 1 << 60, mounts(tmp_path, "/ rw|xfs"), lambda: 0.0))
    assert wrong(large) == [("spool.space", "fail", "SPOOL_FAILED")]
    assert wrong(list(check_spool(tmp_path, 1 << 20))) == [("spool.write", "fail", "SPOOL_FAILED")]
    assert ("spool.write", "fail", "SPOOL_FAILED") in wrong(list(check_spool(Path("/proc/1/root/x" * 999), 1 << 20)))


def test_a_spool_that_others_may_read(tmp_path: Path) -> None:
    spool = tmp_path / "spool.db"
    spool.touch(mode=0o644)
    spool.chmod(0o644)
    found = list(check_spool(spool, 1 << 20, mounts(tmp_path, "/ rw|xfs"), lambda: 0.0))
    assert wrong(found) == [("spool.user", "warn", None)]


def test_a_directory_that_is_not_there_yet(tmp_path: Path) -> None:
    found = list(check_spool(tmp_path / "a" / "b" / "spool.db", 1 << 20, mounts(tmp_path, "/ rw|xfs"), lambda: 0.0))
    assert wrong(found) == [("spool.directory", "warn", None)]
    assert not (tmp_path / "a").exists()


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers GET by path with (status, body) of the server."""

    def do_GET(self) -> None:
        status, body = self.server.answers.get(self.path, (404, b""))  # type: ignore[attr-defined]
        self.server.asked.append(self.headers.get("Authorization"))  # type: ignore[attr-defined]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def web(**answers: tuple[int, bytes]) -> Iterator[tuple[str, list[str | None]]]:
    """A web server: answers by first part of the path."""
    with socketserver.TCPServer(("127.0.0.1", 0), Answers) as server:
        server.answers = {f"/{path}": answer for path, answer in answers.items()}  # type: ignore[attr-defined]
        server.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}", server.asked  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


SUBJECTS = json.dumps(["t-value"]).encode()


def test_a_registry() -> None:
    with web(subjects=(200, SUBJECTS)) as (address, asked):
        assert wrong(list(check_registry(f"http://user:p%40ss@{address}", "t", 5))) == []
        assert asked == ["Basic dXNlcjpwQHNz"]
        assert wrong(list(check_registry(f"http://{address}/", "other", 5))) == [("registry.subject", "warn", None)]


@pytest.mark.parametrize("answer", [(401, b""), (200, b"<html>"), (200, b"{}")])
def test_a_registry_that_is_none(answer: tuple[int, bytes]) -> None:
    with web(subjects=answer) as (address, _):
        found = list(check_registry(f"http://user:hunter2@{address}", "t", 5))
    assert wrong(found) == [("registry.reach", "fail", None)]
    assert "hunter2" not in found[0].found


@pytest.mark.parametrize(
    "url", ["ftp://x", "registry.example", "http://127.0.0.1:9", "http://[::1", "http://h:x", "http://h/a b"]
)
def test_a_registry_that_is_away(url: str) -> None:
    assert wrong(list(check_registry(url, "t", 5))) == [("registry.reach", "fail", None)]


def test_an_agent_that_runs() -> None:
    health = Health(lambda: 0.0)
    health.expect("spool", Need.READY, within_s=60)
    health.expect("broker", Need.SHOWN, within_s=60)
    with Endpoint("127.0.0.1:0", endpoint_app(CollectorRegistry(), health)) as endpoint:
        listen = f"127.0.0.1:{endpoint.port}"
        assert wrong(list(check_running(listen, 5))) == [("agent.ready", "warn", None), ("agent.ready", "warn", None)]
        health.fail("spool", "SPOOL_FAILED")
        assert wrong(list(check_running(listen, 5)))[0] == ("agent.ready", "fail", "SPOOL_FAILED")
        health.ok("spool")
        health.fail("broker", "NOT_ACKNOWLEDGED", "12 reports wait")
        (found,) = check_running(f"0.0.0.0:{endpoint.port}", 5)
        assert (found.state, found.about, found.code) == ("warn", "broker", "NOT_ACKNOWLEDGED")
        assert "12 reports wait" in found.found
        health.ok("broker")
        assert [one.state for one in check_running(listen, 5)] == ["ok"]
    assert [one.state for one in check_running(listen, 5)] == ["skip"]


@pytest.mark.parametrize("answer", [(200, b"<html>"), (404, b"{}"), (200, b"[]"), (503, b'{"checks": 3}')])
def test_somebody_else_where_the_agent_should_be(answer: tuple[int, bytes]) -> None:
    with web(readyz=answer) as (address, _):
        assert wrong(list(check_running(address, 5))) == [("agent.ready", "fail", None)]


def test_an_address_that_is_none_and_none_at_all() -> None:
    assert wrong(list(check_running("here", 5))) == [("agent.listen", "fail", "CONFIG_INVALID")]
    assert [one.state for one in check_running("", 5)] == ["skip"]


def exposition(*gpus: tuple[str, str]) -> bytes:
    rows = (
        f'DCGM_FI_DEV_POWER_USAGE{{gpu="{i}",UUID="GPU-{i}",modelName="{model}"}} {value}\n'
        for i, (model, value) in enumerate(gpus)
    )
    return "".join(rows).encode()


def test_a_dcgm_exporter() -> None:
    body = exposition((fake_gpu.H100, "301.5"), (fake_gpu.H100, "9.22337e+18"))
    with web(metrics=(200, body)) as (address, _):
        spec = DcgmSpec(url=f"http://{address}/metrics", collect_interval_ms=1_000)
        found = list(check_dcgm(spec, enrolment(), 5))
        assert wrong(found) == [("dcgm.power", "warn", None)]
        assert "301" not in " ".join(one.found for one in found), "no reading on a screen"
        assert wrong(list(check_dcgm(spec, enrolment(3), 5)))[0] == ("dcgm.gpus", "fail", "GPU_LOST")
    assert wrong(list(check_dcgm(spec, enrolment(), 5))) == [("dcgm.reach", "fail", "DCGM_UNAVAILABLE")]


def test_traces(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    names = ("bundled:a100_square", "bundled:none", str(tmp_path / "none.csv"), str(tmp_path / "empty"))
    host = HostSpec(host_id="h", traces=tuple(TraceSpec(trace=one, seed="s") for one in names))
    assert [one.state for one in check_traces(host)] == ["ok", "fail", "fail", "fail"]


def test_an_spdm_device() -> None:
    responder = Responder()
    key = leaf_digest(responder).hex()
    with listening(honest(responder)) as port:
        spec = SpdmSpec(subject="sensor", address=f"127.0.0.1:{port}")
        assert wrong(list(check_spdm(spec, enrolment(gpu_key_digests=(key,)), trial=True))) == []
    with listening(honest(responder)) as port:
        spec = SpdmSpec(subject="sensor", address=f"127.0.0.1:{port}")
        stranger = list(check_spdm(spec, enrolment(), trial=True))
        assert wrong(stranger) == [("spdm.device", "fail", "PLATFORM_NOT_ENROLLED")]
        assert key in stranger[0].remedy
        assert [one.state for one in check_spdm(spec, None, trial=False)] == ["skip"]
    away = list(check_spdm(replace(spec, address="127.0.0.1:9"), None, trial=True))
    assert wrong(away) == [("spdm.device", "fail", "SPDM_UNREACHABLE")]
