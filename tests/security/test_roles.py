"""Roles, the lines that print them, quotas with their numbers, and resources for Strimzi."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from attester.simulated import SimulatedTee
from enclavescale.access.quotas import STEP_BYTES, Load, Quota, quota_of
from enclavescale.access.roles import READ, ROLES, WRITE, check_principal, grants_of, role_of
from enclavescale.fleet import demo_fleet
from enclavescale.policy.document import to_toml
from enclavescale.secrets import SECRETS, TOKEN_FILE
from producers.backoff import CATCH_UP
from schemas.errors import ConfigError
from schemas.topics import MAX_MESSAGE_BYTES, TOPICS, TopicNames
from stream_jobs.kafka_tls import TLS_PROPERTIES
from stream_jobs.kafka_tokens import OIDC_PROPERTIES
from tests.cli.conftest import call

ROOT = Path(__file__).parents[2]
USERS = ROOT / "deploy" / "strimzi" / "users.yaml"
NAMES = TopicNames.with_prefix("dc1")


def writers(topic: str) -> set[str]:
    return {name for name, role in ROLES.items() if WRITE in role.topics.get(topic, ())}


def test_who_may_write_what() -> None:
    assert writers("reports") == {"host", "checking-host", "worker"}
    for topic in ("output", "manifests", "rejections", "beacons"):
        assert writers(topic) == {"worker"}
    for topic in ("policy", "collateral"):
        assert writers(topic) == {"policy-admin"}


def test_reports_are_read_by_workers_and_auditors_alone() -> None:
    assert {name for name, role in ROLES.items() if READ in role.topics.get("reports", ())} == {"worker", "auditor"}


def test_rights_are_by_whole_names_of_known_topics() -> None:
    known = {spec.role for spec in TOPICS}
    for role in ROLES.values():
        assert set(role.topics) <= known
        grants = grants_of(role, NAMES, "g")
        assert len(set(grants)) == len(grants)
        assert all(one.name.startswith("dc1.") or one.kind == "GROUP" for one in grants)
        assert any(one.kind == "GROUP" for one in grants) == role.group


def test_what_is_missing_or_unknown_is_said() -> None:
    with pytest.raises(ConfigError, match="consumer group"):
        grants_of(role_of("worker"), NAMES)
    with pytest.raises(ConfigError, match="no role"):
        role_of("king")


@pytest.mark.parametrize("principal", ["alice", "Group:alice", "User:", "User:*", "User:a'b", "User:a\nb"])
def test_a_principal_is_one_user(principal: str) -> None:
    with pytest.raises(ConfigError):
        check_principal(principal)
    done = call("access", "commands", "--role", "host", "--principal", principal)
    assert done.exit_code == 2


def test_lines_can_be_pasted_and_name_every_right() -> None:
    principal = "User:CN=host a; rm -rf $HOME"
    done = call("access", "commands", "--role", "host", "--principal", principal, "--topic-prefix", "dc1", "--json")
    made = json.loads(done.stdout)
    words = [shlex.split(line) for line in made["acls"]]
    assert {word[word.index("--topic") + 1] for word in words} == {one.name for one in grants_of(ROLES["host"], NAMES)}
    assert all(word[word.index("--allow-principal") + 1] == principal for word in words)
    assert shlex.split(made["quota"])[-1] == "CN=host a; rm -rf $HOME"
    text = call("access", "commands", "--role", "worker", "--principal", "User:w", "--group", "g").stdout
    assert "--group g" in text
    assert "kafka-configs.sh" not in text, "a worker has no limit"


def test_a_hosts_quota_lets_its_backlog_leave_and_the_largest_record_pass() -> None:
    for window_ms in (10_000, 60_000):
        load = Load(window_ms, 6, 1, 2)
        rate = quota_of("host", load).producer_byte_rate
        assert rate is not None
        assert rate % STEP_BYTES == 0
        assert rate > CATCH_UP * load.steady_bytes_s
        assert rate * 11 > MAX_MESSAGE_BYTES, "Kafka's window has 11 samples of 1 s"
    one, many = quota_of("host", Load(hosts=1)), quota_of("host", Load(hosts=512))
    assert (one.producer_byte_rate or 0) < (many.producer_byte_rate or 0)
    assert quota_of("worker", Load()).settings() == {}
    for name in set(ROLES) - {"worker"}:
        assert set(quota_of(name, Load()).settings()) == {
            "producer_byte_rate",
            "consumer_byte_rate",
            "request_percentage",
        }


def test_quotas_follow_the_policy(tmp_path: Path) -> None:
    """The shortest window of the policy counts, and its interval of evidence."""
    tee = SimulatedTee.create(tmp_path / "tee")
    fleet = demo_fleet(tee, hosts=2, gpus=8, window_ms=2_000, now_ms=1, create_time=False, evidence_interval=3)
    file = tmp_path / "policy.toml"
    file.write_text(to_toml(fleet.policy))
    arguments = ["access", "commands", "--role", "host", "--principal", "User:h", "--json"]
    made = json.loads(call(*arguments, "--policy", str(file)).stdout)
    assert made["quota_settings"] == quota_of("host", Load(2_000, 3)).settings()
    assert made["quota_settings"] != quota_of("host", Load()).settings()


def test_strimzis_resources_hold_the_same() -> None:
    printed = call("access", "strimzi").stdout
    assert USERS.read_text() == printed, "run `enclavescale access strimzi > deploy/strimzi/users.yaml`"
    users: list[dict[str, Any]] = list(yaml.safe_load_all(printed))
    assert [one["metadata"]["name"] for one in users] == [f"enclavescale-{name}" for name in ROLES]
    for user, role in zip(users, ROLES.values(), strict=True):
        rules = user["spec"]["authorization"]["acls"]
        found = {
            (one["resource"]["type"].upper(), one["resource"]["name"], operation)
            for one in rules
            for operation in one["operations"]
        }
        title = {"READ": "Read", "WRITE": "Write", "CREATE": "Create", "DESCRIBE": "Describe"}
        title |= {"DESCRIBE_CONFIGS": "DescribeConfigs", "ALTER_CONFIGS": "AlterConfigs"}
        wanted = grants_of(role, TopicNames(), "enclavescale")
        assert found == {(one.kind, one.name, title[one.operation]) for one in wanted}
        limits = quota_of(role.name, Load()).settings()
        assert len(user["spec"].get("quotas") or {}) == len(limits)


def test_show_needs_no_broker() -> None:
    shown = json.loads(call("access", "show", "--json").stdout)
    assert [one["role"] for one in shown] == list(ROLES)
    assert "READ topic enclavescale.window-reports.v1" in call("access", "show", "--role", "auditor").stdout


PAGE = (ROOT / "docs" / "security.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """Cells of the first table below a heading, without its head."""
    part = PAGE[PAGE.index(f"## {heading}") :]
    lines = [line for line in part.split("\n\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_page_has_every_role_with_its_topics() -> None:
    found = {row[0].strip("`"): row[1:3] for row in rows("Roles")}
    assert set(found) == set(ROLES)
    for name, cells in found.items():
        for operation, cell in zip((READ, WRITE), cells, strict=True):
            topics = {topic for topic, operations in ROLES[name].topics.items() if operation in operations}
            named = re.sub(r" \([^)]*\)", "", cell).replace("all seven", ", ".join(ROLES["auditor"].topics))
            assert {one.strip() for one in named.split(",") if one.strip()} == topics, (name, operation)


def test_the_page_has_the_numbers_of_the_quotas() -> None:
    found = {name: row[1:] for row in rows("Quotas") for name in row[0].split(", ") if name.startswith("`")}
    assert {name.strip("`") for name in found} == set(ROLES)
    short = next(row for row in rows("Quotas") if "10-s" in row[0])
    assert short[1:] == shown(quota_of("host", Load(10_000)))
    assert found.pop("`host`") == found.pop("`checking-host`") == short[1:]
    for name, cells in found.items():
        assert cells == shown(quota_of(name.strip("`"), Load())), name
    assert f"| `host`, `checking-host`, 60-s windows | {shown(quota_of('host', Load()))[0]} |" in PAGE
    load = Load()
    assert f"that is {STEP_BYTES / load.steady_bytes_s:.0f} times the steady load" in PAGE


def shown(quota: Quota) -> list[str]:
    """Cells of the page's table."""
    values = (quota.producer_byte_rate, quota.consumer_byte_rate, quota.request_percentage)
    return ["no limit" if one is None else f"{one // 2**20} MiB" if one % 2**20 == 0 else f"{one:,}" for one in values]


def test_the_page_names_the_secrets_and_properties_of_the_code() -> None:
    named = set(re.findall(r"`((?:sasl|ssl|https)\.[a-z.]+)`", PAGE))
    known = SECRETS | TLS_PROPERTIES | OIDC_PROPERTIES | {TOKEN_FILE, "sasl.username", "sasl.mechanism"}
    assert named - known == {"ssl.keystore.location"}
    assert {one for one in TLS_PROPERTIES if one.startswith("ssl.")} <= {
        *named,
        *re.findall(r"`([a-z.]+)=none`", PAGE),
    }
