"""The rules by which every change of a schema is judged here are those of a real registry."""

from __future__ import annotations

import json

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from enclavescale.registry.client import LEVEL
from tests.house.compatibility import problems
from tests.house.test_compatibility import CHANGES, beacon

pytestmark = pytest.mark.broker


@pytest.mark.parametrize("change", CHANGES)
def test_a_registry_says_the_same_of_a_change(client: SchemaRegistryClient, prefix: str, change: str) -> None:
    old, new = beacon(), beacon()
    CHANGES[change][0](new)
    client.register_schema(prefix, Schema(json.dumps(old), "AVRO"))
    client.set_compatibility(prefix, LEVEL)
    ours = not problems(new, old) and not problems(old, new)
    assert client.test_compatibility(prefix, Schema(json.dumps(new), "AVRO")) is ours
