"""The topics as KafkaTopic resources for Strimzi's topic operator."""

from __future__ import annotations

import json
import re

from enclavescale.topic_admin import partitions_of
from schemas.topics import AUDIT_RETENTION_MS, TOPICS, TopicNames, settings_of


def kafka_topics(
    names: TopicNames,
    *,
    cluster: str,
    namespace: str | None,
    partitions: int,
    replication: int,
    retention_ms: int = AUDIT_RETENTION_MS,
) -> str:
    """One YAML document a topic. `cluster`: name of the Kafka resource whose operator watches."""
    documents = []
    for spec in TOPICS:
        topic = getattr(names, spec.role)
        settings = settings_of(spec, replication=replication, retention_ms=retention_ms)
        lines = [
            f"# {spec.description}",
            "apiVersion: kafka.strimzi.io/v1beta2",
            "kind: KafkaTopic",
            "metadata:",
            f"  name: {json.dumps(resource_name(topic))}",
            *([f"  namespace: {json.dumps(namespace)}"] if namespace else []),
            "  labels:",
            f"    strimzi.io/cluster: {json.dumps(cluster)}",
            "spec:",
            f"  topicName: {json.dumps(topic)}",
            f"  partitions: {partitions_of(spec.role, partitions)}",
            f"  replicas: {replication}",
            "  config:",
            *(f"    {name}: {_scalar(value)}" for name, value in settings.items()),
        ]
        documents.append("\n".join(lines) + "\n")
    return "---\n".join(documents)


def resource_name(topic: str) -> str:
    """A topic's name as Kubernetes allows it: lower case, digits, dots and hyphens."""
    return re.sub(r"[^a-z0-9.-]+", "-", topic.lower()).strip(".-")


def _scalar(value: str) -> str:
    return value if re.fullmatch(r"-?\d+|true|false", value) else json.dumps(value)
