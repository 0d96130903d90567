"""Settings of topics: what counts as drift, what is set again, and the resources for Strimzi."""

from __future__ import annotations

import json

import pytest
import yaml
from click.testing import CliRunner, Result
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)

from enclavescale.cli import main
from enclavescale.strimzi import resource_name
from schemas.topics import TOPICS, TopicNames, meets, settings_of
from tests.broker import KafkaBroker
from tests.house.source import ROOT

RENDERED = ROOT / "deploy" / "strimzi" / "topics.yaml"


def cli(*words: str) -> Result:
    return CliRunner().invoke(main, ["topics", *words])


@pytest.mark.parametrize(
    ("setting", "found", "declared", "holds"),
    [
        ("retention.ms", "100", "100", True),
        ("retention.ms", "101", "100", True),
        ("retention.ms", "99", "100", False),
        ("retention.ms", "-1", "100", True),
        ("retention.ms", "100", "-1", False),
        ("retention.ms", "long", "100", False),
        ("retention.ms", None, "100", False),
        ("min.insync.replicas", "3", "2", True),
        ("min.insync.replicas", "1", "2", False),
        ("max.message.bytes", "200", "100", False),
        ("cleanup.policy", "compact,delete", "delete", False),
    ],
)
def test_what_is_drift(setting: str, found: str | None, declared: str, holds: bool) -> None:
    assert meets(setting, found, declared) is holds


@pytest.mark.parametrize(("replication", "in_sync"), [(1, "1"), (2, "1"), (3, "2"), (5, "2")])
def test_one_copy_may_be_away(replication: int, in_sync: str) -> None:
    for spec in TOPICS:
        settings = settings_of(spec, replication=replication)
        assert settings["min.insync.replicas"] == in_sync
        assert settings["cleanup.policy"] == "delete"  # all of them carry evidence
        assert settings["retention.bytes"] == "-1"


def test_strimzi_has_what_is_declared_and_the_file_is_what_the_command_prints() -> None:
    printed = cli("strimzi").stdout
    assert RENDERED.read_text() == printed, "run `enclavescale topics strimzi > deploy/strimzi/topics.yaml`"
    found = {one["spec"]["topicName"]: one for one in yaml.safe_load_all(printed)}
    assert set(found) == {spec.name for spec in TOPICS}
    for spec in TOPICS:
        one = found[spec.name]
        assert (one["kind"], one["spec"]["replicas"]) == ("KafkaTopic", 3)
        shown = {
            key: str(value).lower() if value is False else str(value) for key, value in one["spec"]["config"].items()
        }
        assert shown == settings_of(spec)


def test_strimzi_names_are_kubernetes_names() -> None:
    assert resource_name("Acme_DC.Power") == "acme-dc.power"
    text = cli("strimzi", "--topic-prefix", "Acme_1", "--namespace", "kafka", "--partitions", "3").stdout
    first = next(iter(yaml.safe_load_all(text)))
    assert first["metadata"]["name"] == "acme-1.window-reports.v1"
    assert first["metadata"]["namespace"] == "kafka"
    assert (first["spec"]["topicName"], first["spec"]["partitions"]) == ("Acme_1.window-reports.v1", 3)


@pytest.mark.broker
def test_drift_is_set_again_and_partitions_never_are(kafka: KafkaBroker) -> None:
    names = TopicNames.with_prefix("drift")
    where = ("--bootstrap", kafka.bootstrap, "--topic-prefix", "drift", "--partitions", "2")
    assert cli("create", *where, "--replication", "1").exit_code == 0
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    wrong = {names.reports: ("message.timestamp.type", "CreateTime"), names.output: ("retention.ms", "1000")}
    wrong[names.beacons] = ("retention.ms", "-1")  # longer: no difference
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            topic,
            incremental_configs=[ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)],
        )
        for topic, (name, value) in wrong.items()
    ]
    for future in admin.incremental_alter_configs(resources).values():
        future.result()
    found = json.loads(cli("check", *where, "--json").stdout)
    assert {(one["topic"], one["what"], one["found"]) for one in found} == {
        (names.reports, "message.timestamp.type", "CreateTime"),
        (names.output, "retention.ms", "1000"),
    }
    untouched = cli("create", *where, "--replication", "1")
    assert untouched.exit_code == 0, "without --apply-drift nothing changes"
    assert cli("check", *where).exit_code == 3
    done = cli("create", *where, "--replication", "1", "--apply-drift", "--json")
    assert done.exit_code == 0, done.output
    states = json.loads(done.stdout)
    assert {topic for topic, state in states.items() if state == "altered"} == {names.reports, names.output}
    assert cli("check", *where).stdout == "as declared\n"
    for future in admin.create_partitions([NewPartitions(names.reports, 4)]).values():
        future.result()
    left = cli("create", *where, "--replication", "1", "--apply-drift")
    assert left.exit_code == 3
    assert f"{names.reports}: partitions is 4, declared 2" in left.stderr


@pytest.mark.broker
def test_nothing_may_be_kept_longer_than_what_says_what_became_of_it(kafka: KafkaBroker) -> None:
    where = ("--bootstrap", kafka.bootstrap, "--topic-prefix", "kept", "--partitions", "1")
    assert cli("create", *where, "--replication", "1", "--retention-days", "40").exit_code == 0
    assert cli("check", *where).exit_code == 0
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    longer = ConfigEntry("retention.ms", "-1", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, TopicNames.with_prefix("kept").reports, incremental_configs=[longer])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result()
    found = json.loads(cli("check", *where, "--json").stdout)
    assert {one["what"] for one in found} == {"retention.ms"}
    assert {one["declared"] for one in found} == {"-1"}
    assert len(found) == len(TOPICS) - 1
