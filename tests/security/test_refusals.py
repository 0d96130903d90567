"""Whoever is not let in is told why: one message with a code and what to do, a failed exit, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from click.testing import Result

from enclavescale.reach import handshake_failure, servers
from tests.security.certificates import Authority
from tests.security.estate import ROLES, Estate

pytestmark = pytest.mark.broker

Properties = dict[str, str]
WRONG = "Falsch-0815-niemals-richtig"


def wrong_password(estate: Estate, user: str) -> Properties:
    return {**estate.broker.client(user), "sasl.password": WRONG}


def wrong_password_plain(estate: Estate, user: str) -> Properties:
    return {**estate.broker.client(user, "PLAIN"), "sasl.password": WRONG}


def expired_server(estate: Estate, user: str) -> Properties:
    return estate.broker.client(user, listener="EXPIRED")


def other_name(estate: Estate, user: str) -> Properties:
    return estate.broker.client(user, listener="ELSEWHERE")


def unknown_authority(estate: Estate, user: str) -> Properties:
    other = Authority(estate.directory / "other", "another authority")
    return {**estate.broker.client(user), "ssl.ca.location": str(other.ca)}


def expired_client(estate: Estate, user: str) -> Properties:
    return estate.broker.mutual(user, expired=True)


def no_certificate(estate: Estate, user: str) -> Properties:
    given = estate.broker.mutual(user)
    return {name: value for name, value in given.items() if "certificate" not in name and "key" not in name}


FAULTS: dict[Callable[[Estate, str], Properties], tuple[str, str]] = {
    wrong_password: ("AUTHENTICATION_FAILED", "invalid credentials"),
    wrong_password_plain: ("AUTHENTICATION_FAILED", "Invalid username or password"),
    expired_server: ("TLS_FAILED", "certificate has expired"),
    other_name: ("TLS_FAILED", "not valid for '127.0.0.1'"),
    unknown_authority: ("TLS_FAILED", "broker's certificate is not accepted"),
    expired_client: ("TLS_FAILED", "its certificate ended"),
    no_certificate: ("TLS_FAILED", "none is configured"),
}


def run(estate: Estate, command: str, kafka: Properties) -> Result:
    """One of six commands, as somebody."""
    if command == "produce":
        return estate.run("produce", "--config", str(estate.agent_config("refused", kafka)))
    if command == "worker":
        return estate.run(*estate.worker_arguments(kafka, "refused"))
    options = estate.options("refused", kafka)
    if command == "tail":
        return estate.run("tail", *options, "--max", "1")
    if command in ("serve", "top"):
        return estate.run(command, *options, "--policy-signer", estate.signer)
    return estate.run("topics", "check", *options, "--partitions", "1")


USERS = {"produce": "host", "worker": "worker", "tail": "consumer", "topics": "topic-admin", "serve": "page"}


def check_message(done: Result, code: str, text: str) -> None:
    """A failed exit, the code and its remedy in two lines after the banner, no traceback."""
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == 1
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith("***")]
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith(f"{code}: ")
    assert text in lines[0]
    assert done.stdout == ""


@pytest.mark.parametrize("command", USERS)
@pytest.mark.parametrize("fault", [wrong_password, expired_server, expired_client], ids=lambda one: one.__name__)
def test_every_command_says_why_it_is_not_let_in(
    estate: Estate, capfd: pytest.CaptureFixture[str], command: str, fault: Callable[[Estate, str], Properties]
) -> None:
    began = time.monotonic()
    check_message(run(estate, command, fault(estate, ROLES[USERS[command]])), *FAULTS[fault])
    assert time.monotonic() - began < 30, "no endless tries"
    assert capfd.readouterr().err == "", "the client library is silent"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.__name__)
def test_every_fault_has_its_reason(estate: Estate, fault: Callable[[Estate, str], Properties]) -> None:
    check_message(run(estate, "topics", fault(estate, ROLES["topic-admin"])), *FAULTS[fault])


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("produce", "WRITE topic site.window-reports.v1"),
        ("worker", "READ group fleet"),
        ("tail", "READ topic site.fleet-power.v1"),
        ("serve", "READ topic site.collateral.v1, READ topic site.fleet-power.v1, READ topic site.policy.v1"),
        ("top", "READ topic site.rejections.v1"),
    ],
)
def test_who_has_no_rights_is_told_which(estate: Estate, command: str, missing: str) -> None:
    check_message(run(estate, command, estate.broker.client("nobody")), "NOT_AUTHORIZED", missing)


def test_rights_of_another_role_are_not_enough(estate: Estate) -> None:
    """A consumer may describe the output topic and no other; an auditor reads everything and writes nothing."""
    as_auditor = run(estate, "produce", estate.as_role("auditor"))
    check_message(as_auditor, "NOT_AUTHORIZED", "WRITE topic site.window-reports.v1")
    as_admin = run(estate, "tail", estate.as_role("topic-admin"))
    check_message(as_admin, "NOT_AUTHORIZED", "READ topic site.fleet-power.v1")
    assert "DESCRIBE" not in as_admin.stderr
    other_group = estate.run(*estate.worker_arguments(estate.as_role("worker"), "refused", "another"))
    check_message(other_group, "NOT_AUTHORIZED", "READ group another")
    assert "topic" not in other_group.stderr.splitlines()[-2].partition("may not")[2]


def test_commands_of_administrators_say_it_too(estate: Estate) -> None:
    options = estate.options("refused", estate.as_role("consumer"))
    create = estate.run("topics", "create", *options, "--topic-prefix", "other", "--replication", "1")
    check_message(create, "NOT_AUTHORIZED", "")
    grant = estate.run("access", "apply", *options, "--role", "host", "--principal", "User:host-b")
    check_message(grant, "NOT_AUTHORIZED", "ACLs cannot be read")
    look = estate.run("access", "check", *options, "--role", "host", "--principal", "User:host-b")
    check_message(look, "NOT_AUTHORIZED", "ACLs cannot be read")
    publish = estate.run("policy", "apply", str(estate.policy), *options, "--policy-signer", estate.signer)
    check_message(publish, "NOT_AUTHORIZED", "site.window-reports.v1")  # how many partitions it has comes first


def test_a_handshake_that_holds_has_no_reason(estate: Estate) -> None:
    (place,) = servers(estate.broker.at("MTLS"))
    assert handshake_failure(estate.broker.mutual(ROLES["host"]), *place) is None
    (gone,) = servers("127.0.0.1:1")
    assert handshake_failure(estate.broker.mutual(ROLES["host"]), *gone) is None


def test_no_secret_was_written(estate: Estate) -> None:
    """Last in this file: in what commands and the broker wrote, refused passwords included."""
    assert any("AUTHENTICATION_FAILED" in one for one in estate.written())
    for secret in [WRONG, *estate.secrets()]:
        assert not any(secret in one for one in estate.written())
