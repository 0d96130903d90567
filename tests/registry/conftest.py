"""One registry for this room's tests, fresh topic names for each of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient

from schemas.topics import TopicNames
from tests.registry.server import RegistryServer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A running registry. Only tests marked `broker` (Java and Maven) may ask for it."""
    made = RegistryServer(tmp_path_factory.mktemp("registry"))
    try:
        yield made.launch()
    finally:
        made.stop()
        made.remove()


@pytest.fixture
def client(server: RegistryServer) -> Iterator[SchemaRegistryClient]:
    """Somebody else's client."""
    with SchemaRegistryClient({"url": server.url}) as made:
        yield made


@pytest.fixture
def prefix() -> str:
    """Nobody else's first part of topic names."""
    return f"t{uuid.uuid4().hex[:8]}"


@pytest.fixture
def names(prefix: str) -> TopicNames:
    """The topics under `prefix`."""
    return TopicNames.with_prefix(prefix)
