"""Create, alter, describe and check the topics on a cluster, as `schemas.topics` declares them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from enclavescale.errors import TopicFailed
from enclavescale.reach import metadata
from schemas.topics import AUDIT_RETENTION_MS, TOPICS, TopicNames, meets, settings_of

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


def create_topics(
    kafka: Mapping[str, str],
    names: TopicNames,
    *,
    partitions: int,
    replication: int,
    retention_ms: int = AUDIT_RETENTION_MS,
) -> dict[str, str]:
    """Create what is missing; returns `created` or `exists` per topic. Raises ClusterUnreachable or TopicFailed."""
    admin = AdminClient(dict(kafka))
    metadata(admin)  # says sooner and better than a request that there is nobody
    wanted = [
        NewTopic(
            getattr(names, spec.role),
            num_partitions=partitions_of(spec.role, partitions),
            replication_factor=replication,
            config=settings_of(spec, replication=replication, retention_ms=retention_ms),
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


def apply_drift(
    kafka: Mapping[str, str], names: TopicNames, *, partitions: int, retention_ms: int = AUDIT_RETENTION_MS
) -> list[Finding]:
    """Set the settings that `check_topics` finds different; returns what was changed.

    Partitions and replicas are never changed: a policy names partitions, and replicas are moved by a plan. Raises
    ClusterUnreachable or TopicFailed.
    """
    admin = AdminClient(dict(kafka))
    findings = check_topics(kafka, names, partitions=partitions, retention_ms=retention_ms)
    wrong = [one for one in findings if one.what not in ("topic", "partitions")]
    resources: dict[str, ConfigResource] = {}
    for one in wrong:
        resource = resources.setdefault(one.topic, ConfigResource(ResourceType.TOPIC, one.topic))
        resource.add_incremental_config(
            ConfigEntry(one.what, one.declared, incremental_operation=AlterConfigOpType.SET)
        )
    for resource, future in (
        admin.incremental_alter_configs(list(resources.values()), request_timeout=TIMEOUT_S).items()
        if resources
        else ()
    ):
        try:
            future.result()
        except KafkaException as error:
            raise TopicFailed(f"{resource.name}: {error.args[0].str()}", field=resource.name) from error
    return wrong


def describe_topics(names: TopicNames, *, replication: int = 3) -> list[dict[str, object]]:
    """The topics as declared: name, role, key, schema, settings."""
    return [
        {
            "topic": getattr(names, spec.role),
            "role": spec.role,
            "key": spec.key,
            "schema": spec.schema,
            "description": spec.description,
            "config": settings_of(spec, replication=replication),
        }
        for spec in TOPICS
    ]


def check_topics(
    kafka: Mapping[str, str], names: TopicNames, *, partitions: int, retention_ms: int = AUDIT_RETENTION_MS
) -> list[Finding]:
    """Differences between declared and real topics; none means that a worker may start.

    A longer retention is no difference, except that nothing may be kept longer than the outputs and manifests that say
    what became of it. Raises ClusterUnreachable or TopicFailed.
    """
    admin = AdminClient(dict(kafka))
    present = metadata(admin).topics
    findings, kept = [], {}
    for spec in TOPICS:
        name = getattr(names, spec.role)
        if name not in present:
            findings.append(Finding(name, "topic", "exists", "missing"))
            continue
        layout = present[name].partitions
        expected = partitions_of(spec.role, partitions)
        if len(layout) != expected:
            findings.append(Finding(name, "partitions", str(expected), str(len(layout))))
        replication = min((len(one.replicas) for one in layout.values()), default=1)
        found = _settings(admin, name)
        declared = settings_of(spec, replication=replication, retention_ms=retention_ms)
        findings += [
            Finding(name, setting, value, found.get(setting, "unset"))
            for setting, value in declared.items()
            if not meets(setting, found.get(setting), value)
        ]
        kept[spec.role] = found.get("retention.ms", "")
    return findings + _kept_too_short(names, kept, findings)


def _kept_too_short(names: TopicNames, kept: Mapping[str, str], known: list[Finding]) -> list[Finding]:
    reports = kept.get("reports", "")
    if not reports:
        return []
    named = {(one.topic, one.what) for one in known}
    return [
        Finding(name, "retention.ms", reports, value)
        for role, value in kept.items()
        if not meets("retention.ms", value, reports) and ((name := getattr(names, role)), "retention.ms") not in named
    ]


def _settings(admin: AdminClient, name: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, name)
    try:
        found = admin.describe_configs([resource], request_timeout=TIMEOUT_S)[resource].result()
    except KafkaException as error:
        raise TopicFailed(f"{name}: {error.args[0].str()}", field=name) from error
    return {setting: str(one.value) for setting, one in found.items()}
