"""Create, describe and check the topics on a cluster, as `schemas.topics` declares them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]

from enclavescale.errors import TopicFailed
from enclavescale.reach import metadata
from schemas.topics import TOPICS, TopicNames, TopicSpec

TIMEOUT_S = 15.0
PARTITIONED = ("reports", "output", "manifests", "rejections")
"""Roles that share one partition count: output goes to the same partition number as its source."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A difference between a topic as declared and as it is on the cluster."""

    topic: str
    what: str
    declared: str
    found: str


def partitions_of(role: str, partitions: int) -> int:
    """Partition count of a topic: `partitions` for those that follow the reports topic, 1 for the others."""
    return partitions if role in PARTITIONED else 1


def create_topics(kafka: Mapping[str, str], names: TopicNames, *, partitions: int, replication: int) -> dict[str, str]:
    """Create what is missing; returns `created` or `exists` per topic. Raises ClusterUnreachable or TopicFailed."""
    admin = AdminClient(dict(kafka))
    metadata(admin)  # says sooner and better than a request that there is nobody
    wanted = [
        NewTopic(
            getattr(names, spec.role),
            num_partitions=partitions_of(spec.role, partitions),
            replication_factor=replication,
            config=dict(spec.config),
        )
        for spec in TOPICS
    ]
    result = {}
    for name, future in admin.create_topics(wanted, operation_timeout=TIMEOUT_S, request_timeout=TIMEOUT_S).items():
        try:
            future.result()
            result[name] = "created"
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise TopicFailed(f"{name}: {error.args[0].str()}", field=name) from error
            result[name] = "exists"
    return result


def describe_topics(names: TopicNames) -> list[dict[str, object]]:
    """The topics as declared: name, role, key, schema, settings."""
    return [
        {
            "topic": getattr(names, spec.role),
            "role": spec.role,
            "key": spec.key,
            "schema": spec.schema,
            "description": spec.description,
            "config": dict(spec.config),
        }
        for spec in TOPICS
    ]


def check_topics(kafka: Mapping[str, str], names: TopicNames, *, partitions: int) -> list[Finding]:
    """Differences between declared and real topics; none means that a worker may start.

    Raises ClusterUnreachable or TopicFailed.
    """
    admin = AdminClient(dict(kafka))
    present = metadata(admin).topics
    findings = []
    for spec in TOPICS:
        name = getattr(names, spec.role)
        if name not in present:
            findings.append(Finding(name, "topic", "exists", "missing"))
            continue
        expected, count = partitions_of(spec.role, partitions), len(present[name].partitions)
        if count != expected:
            findings.append(Finding(name, "partitions", str(expected), str(count)))
        findings += _check_config(admin, name, spec)
    return findings


def _check_config(admin: AdminClient, name: str, spec: TopicSpec) -> list[Finding]:
    resource = ConfigResource(ResourceType.TOPIC, name)
    try:
        found = admin.describe_configs([resource], request_timeout=TIMEOUT_S)[resource].result()
    except KafkaException as error:
        raise TopicFailed(f"{name}: {error.args[0].str()}", field=name) from error
    return [
        Finding(name, setting, declared, str(found[setting].value) if setting in found else "unset")
        for setting, declared in spec.config.items()
        if setting not in found or str(found[setting].value) != declared
    ]
