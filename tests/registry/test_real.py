"""Our commands and readers against a real registry."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from enclavescale.cli import main
from enclavescale.registry.client import LEVEL, Listed, Registry, subjects
from enclavescale.registry.errors import RegistryRefused, SchemaNotRegistered
from enclavescale.registry.ids import open_ids, read_ids
from enclavescale.registry.options import RegistryOptions
from schemas.pins import pin
from schemas.topics import TopicNames
from tests.registry.server import RegistryServer

pytestmark = pytest.mark.broker

LATER = json.dumps(
    {"type": "record", "name": "Another", "fields": [{"name": "a", "type": "long"}, {"name": "b", "type": "string"}]}
)


def cli(*words: str) -> Result:
    return CliRunner().invoke(main, ["schemas", *words])


def test_registering_twice_changes_nothing_and_the_ids_are_kept(
    server: RegistryServer, prefix: str, names: TopicNames, tmp_path: Path
) -> None:
    where = ["--registry", server.url, "--topic-prefix", prefix, "--json"]
    missing = cli("check", *where)
    assert missing.exit_code == 3
    assert {one["found"] for one in json.loads(missing.stdout)} == {"missing"}
    first = cli("register", *where, "--schema-ids", str(tmp_path / "ids.json"))
    assert first.exit_code == 0, first.output
    made = json.loads(first.stdout)
    assert {one["subject"]: one["schema"] for one in made} == subjects(names)
    again = json.loads(cli("register", *where).stdout)
    assert [one["number"] for one in again] == [one["number"] for one in made]
    assert {one["state"] for one in again} == {"exists"}
    assert cli("check", *where).exit_code == 0
    kept = read_ids(tmp_path / "ids.json")
    assert kept.current == {one["schema"]: one["number"] for one in made}
    assert kept.also == {}


def test_check_tells_a_lower_level_and_a_newer_version(
    server: RegistryServer, client: SchemaRegistryClient, names: TopicNames
) -> None:
    with closing(Registry(RegistryOptions(url=server.url))) as registry:
        registry.register(names)
        assert registry.check(names) == []
        subject = f"{names.beacons}-value"
        assert client.get_compatibility(subject) == LEVEL
        client.set_compatibility(subject, "NONE")
        client.register_schema(subject, Schema(LATER, "AVRO"))
        found = {(one.subject, one.what): one.found for one in registry.check(names)}
        assert found == {(subject, "version"): "newer: 2", (subject, "compatibility"): "NONE"}
        newer = [one for one in registry.listed(names) if one.newer]
        assert [(one.subject, one.version, one.schema) for one in newer] == [(subject, 2, None)]
        registry.register(names)
        assert client.get_compatibility(subject) == LEVEL


def test_an_incompatible_schema_is_refused_by_the_registry(
    server: RegistryServer, client: SchemaRegistryClient, names: TopicNames
) -> None:
    """What FULL_TRANSITIVE is there for; the same rule judges every change here (tests/house/test_compatibility.py)."""
    with closing(Registry(RegistryOptions(url=server.url))) as registry:
        registry.register(names)
    raw = json.loads(pin("SignedBeacon").text)
    raw["fields"].append({"name": "without_a_default", "type": "string"})
    with pytest.raises(Exception, match="409"):
        client.register_schema(f"{names.beacons}-value", Schema(json.dumps(raw), "AVRO"))


def test_a_foreign_schema_under_a_subject_is_told_and_never_ours(
    server: RegistryServer, client: SchemaRegistryClient, names: TopicNames
) -> None:
    client.register_schema(f"{names.beacons}-value", Schema(LATER, "AVRO"))
    with closing(Registry(RegistryOptions(url=server.url))) as registry:
        found = {(one.subject, one.what): one.found for one in registry.check(names)}
        assert found[f"{names.beacons}-value", "schema"] == "differs"
        listed = registry.listed(names)
    assert [(one.schema, one.newer) for one in listed] == [(None, False)]


def test_a_start_needs_all_schemas(server: RegistryServer, names: TopicNames) -> None:
    with pytest.raises(SchemaNotRegistered, match="SignedRecord"):
        open_ids(RegistryOptions(url=server.url), names)


def test_ids_of_another_registry_are_read_and_no_longer_written(
    server: RegistryServer, names: TopicNames, tmp_path: Path
) -> None:
    with closing(Registry(RegistryOptions(url=server.url))) as registry:
        numbers = {one.schema: one.number for one in registry.register(names)}
    file = tmp_path / "ids.json"
    file.write_text(json.dumps({"format": "enclavescale/schema-ids/1", "ids": {"SignedRecord": [900_001, 900_002]}}))
    ids = open_ids(RegistryOptions(url=server.url, ids_file=str(file)), names)
    assert ids.current == numbers
    assert ids.also == {900_001: "SignedRecord", 900_002: "SignedRecord"}
    assert read_ids(file) == ids


def test_what_is_no_registry_is_said(server: RegistryServer, names: TopicNames) -> None:
    wrong = RegistryOptions(url=f"http://127.0.0.1:{server.port}/apis")
    with closing(Registry(wrong)) as registry, pytest.raises(RegistryRefused):
        registry.register(names)


def test_listed_is_what_was_registered(server: RegistryServer, names: TopicNames) -> None:
    with closing(Registry(RegistryOptions(url=server.url))) as registry:
        made = registry.register(names)
        assert registry.listed(names) == [Listed(one.subject, 1, one.number, one.schema) for one in made]
