"""Hosts, a worker and readers, each as a user with the rights of its role and no others; and rights taken away."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from schemas.topics import TopicNames
from stream_jobs.reading import open_reader, read_range, watermarks
from tests.security.estate import GROUP, PREFIX, ROLES, Estate, wait_until

pytestmark = pytest.mark.broker


@contextlib.contextmanager
def running(estate: Estate, arguments: list[str], log: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A process that is told to end, and ends, whatever the test comes to."""
    process, path = estate.begin(arguments, log)
    try:
        yield process, path
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        estate.heard.append(path.read_text(errors="replace"))


def set_right(estate: Estate, user: str, resource: ResourceType, name: str, operation: AclOperation, on: bool) -> None:
    """Give or take one right."""
    admin = AdminClient({**estate.broker.client("root")})
    parts = (resource, name, ResourcePatternType.LITERAL, f"User:{user}", "*", operation, AclPermissionType.ALLOW)
    futures = admin.create_acls([AclBinding(*parts)]) if on else admin.delete_acls([AclBindingFilter(*parts)])
    for future in futures.values():
        future.result(20)


def test_every_role_does_its_work(estate: Estate) -> None:
    """Both clients by SCRAM over TLS: agent and worker run, `tail` sees outputs, `replay` finds them identical."""
    agent = ["-v", "produce", "--config", str(estate.agent_config("agent", estate.as_role("host")))]
    worker = ["-v", *estate.worker_arguments(estate.as_role("worker"))]
    tail = ["tail", *estate.options("consumer", estate.as_role("consumer")), "--from-beginning", "--max", "2", "--json"]
    with running(estate, worker, "worker") as (aggregating, said), running(estate, agent, "agent") as (producing, _):
        with running(estate, tail, "tail") as (following, seen):
            wait_until(lambda: following.poll() is not None, f"outputs {said.read_text()[-2000:]}")
            outputs = [json.loads(line) for line in seen.read_text().splitlines() if line.startswith("{")]
            assert len(outputs) == 2, seen.read_text()
            assert following.returncode == 0
        assert aggregating.poll() is None, said.read_text()
        assert producing.poll() is None
    assert aggregating.returncode == 0, said.read_text()[-2000:]
    assert producing.returncode == 0
    auditor = estate.options("auditor", estate.as_role("auditor"))
    done = estate.run("replay", *auditor, "--from", "-5m", "--policy-signer", estate.signer, "--jobs", "1", "--json")
    assert done.exit_code == 0, done.output
    for role in ROLES:
        group = ["--group", GROUP] if role == "worker" else []
        arguments = ["--role", role, "--principal", f"User:{ROLES[role]}", *group]
        done = estate.run("access", "check", *estate.options("root", estate.broker.client("root")), *arguments)
        assert done.exit_code == 0, done.output


def test_drift_is_seen_and_mended(estate: Estate) -> None:
    """One right less and one more than the role; applying adds the one and leaves the other for a person."""
    user = ROLES["page"]
    policy, beacons = f"{PREFIX}.policy.v1", f"{PREFIX}.beacons.v1"
    arguments = [*estate.options("root", estate.broker.client("root")), "--role", "page", "--principal", f"User:{user}"]
    set_right(estate, user, ResourceType.TOPIC, policy, AclOperation.READ, on=False)
    set_right(estate, user, ResourceType.TOPIC, beacons, AclOperation.WRITE, on=True)
    found = estate.run("access", "check", *arguments)
    assert found.exit_code == 3
    assert found.stdout.splitlines() == [
        f"missing  READ topic {policy}",
        f"extra    ALLOW WRITE topic {beacons}",
        "2 differences",
    ]
    mended = json.loads(estate.run("access", "apply", *arguments, "--json").stdout)
    assert [(one["name"], one["operation"]) for one in mended["added"]] == [(policy, "READ")]
    assert json.loads(estate.run("access", "apply", *arguments, "--json").stdout)["added"] == []
    set_right(estate, user, ResourceType.TOPIC, beacons, AclOperation.WRITE, on=False)
    assert estate.run("access", "check", *arguments).exit_code == 0


def test_kafkas_own_tool_takes_the_line_of_the_quota(estate: Estate) -> None:
    bootstrap = estate.broker.bootstrap
    arguments = ["--role", "host", "--principal", f"User:{ROLES['host']}", "--bootstrap", bootstrap, "--json"]
    words = shlex.split(json.loads(estate.run("access", "commands", *arguments).stdout)["quota"])
    at = words.index("--command-config")
    done = estate.broker.tool("kafka.admin.ConfigCommand", *words[1:at], *words[at + 2 :])
    assert f"Completed updating config for user {ROLES['host']}" in done


REPORTS = f"{PREFIX}.window-reports.v1"


def test_an_agent_that_loses_its_right_keeps_its_reports(estate: Estate) -> None:
    """It says so, goes on sampling into its spool, and delivers when the right is back: nothing is lost."""
    arguments = ["produce", "--config", str(estate.agent_config("revoked", estate.as_role("host")))]
    with running(estate, arguments, "revoked-agent") as (agent, path):
        wait_until(lambda: "sealed" in path.read_text(), "a first window", agent)
        set_right(estate, ROLES["host"], ResourceType.TOPIC, REPORTS, AclOperation.WRITE, on=False)
        try:
            wait_until(lambda: "TOPIC_AUTHORIZATION_FAILED" in path.read_text(), "a word of it", agent)
            sealed = path.read_text().count("sealed")
            wait_until(lambda: path.read_text().count("sealed") > sealed + 2, "windows without brokers", agent)
        finally:
            set_right(estate, ROLES["host"], ResourceType.TOPIC, REPORTS, AclOperation.WRITE, on=True)
        failures = path.read_text().count("not delivered")
        sealed = path.read_text().count("sealed")
        wait_until(lambda: path.read_text().count("sealed") > sealed + 2, "windows with brokers", agent)
    assert agent.returncode == 0
    assert failures < 60, "a line for each try, and tries that become rarer"
    assert "Traceback" not in path.read_text()
    assert ", 0 lost, 0 left in the spool" in path.read_text().splitlines()[-1], path.read_text()[-2000:]


@pytest.mark.parametrize(
    ("kind", "name", "operation"),
    [
        (ResourceType.TOPIC, REPORTS, AclOperation.READ),
        (ResourceType.GROUP, GROUP, AclOperation.READ),
    ],
    ids=["topic", "group"],
)
def test_a_worker_that_loses_a_right_ends_and_says_which(
    estate: Estate, kind: ResourceType, name: str, operation: AclOperation
) -> None:
    user = ROLES["worker"]
    with running(estate, estate.worker_arguments(estate.as_role("worker")), f"revoked-{kind.name}") as (worker, path):
        wait_until(lambda: "outputs up to offset" in path.read_text(), "an assignment", worker)
        set_right(estate, user, kind, name, operation, on=False)
        try:
            wait_until(lambda: worker.poll() is not None, "its end")
        finally:
            set_right(estate, user, kind, name, operation, on=True)
    assert worker.returncode == 1
    last = [line for line in path.read_text().splitlines() if "CRITICAL" in line]
    assert last
    assert "NOT_AUTHORIZED" in last[-1], last
    assert name in last[-1]


def test_no_secret_was_written(estate: Estate) -> None:
    """Last in this file: in logs, with -v too, in what commands say, and in every record on every topic."""
    for secret in estate.secrets():
        assert not any(secret in one for one in estate.written())
    reader = open_reader(estate.broker.client("root"))
    records = []
    for topic in dataclasses.astuple(TopicNames.with_prefix(PREFIX)):
        low, end = watermarks(reader, topic, 0, 20)
        records += read_range(reader, topic, 0, low, end, 20)
    reader.close()
    assert len(records) > 10
    bytes_of = [repr((one.key(), one.value(), one.headers())) for one in records]
    for secret in estate.secrets():
        assert not any(secret in one for one in bytes_of)
