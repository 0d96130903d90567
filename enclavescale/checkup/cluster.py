"""Kafka and the Schema Registry: do they answer, and is the reports topic what hosts and workers rest on?"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclOperation,
    AdminClient,
    ConfigResource,
    ResourceType,
)

from enclavescale.checkup.finding import Finding, fail, ok, skip, some, warn
from schemas.topics import TOPICS

REMEDY_REACH = (
    "Check bootstrap.servers, name resolution, firewalls, security.protocol and the client's certificate or password; "
    "`enclavescale -v doctor …` shows what the client library says."
)
_DECLARED = next(spec.config for spec in TOPICS if spec.role == "reports")
_TIMESTAMPS, _LARGEST = "message.timestamp.type", "max.message.bytes"
MAX_ANSWER_BYTES = 4 << 20
MAX_REASONS = 3
"""Different errors of the client library shown, about one per broker."""

_DETAIL = re.compile(r" \(after \d+ms in state \w+[^)]*\)$")
_PLAIN = ("plaintext", "sasl_plaintext")
_LOCAL = ("127.0.0.1:", "localhost:", "[::1]:")


def check_broker(
    kafka: Mapping[str, str], topic: str, partitions: Mapping[str, int], timeout_s: float
) -> Iterator[Finding]:
    """`partitions`: the partition that the policy names for each domain of the hosts. Writes nothing to the cluster."""
    yield from _transport(kafka)
    heard: list[str] = []
    try:
        settings: dict[str, Any] = {**kafka, "error_cb": partial(_hear, heard)}
        admin = AdminClient(settings)
    except KafkaException as error:
        remedy = "Correct the property that is named; docs/operations.md says where properties come from."
        yield fail("broker.settings", _said(error), remedy, code="CONFIG_INVALID")
        return
    try:
        began = time.monotonic()
        # All topics: asking for one by name may create it.
        cluster = admin.list_topics(timeout=timeout_s)
    except KafkaException as error:
        admin.poll(0)  # hands out what the client has met
        reasons = list(dict.fromkeys(_DETAIL.sub("", one) for one in heard))[:MAX_REASONS] or [_said(error)]
        yield fail("broker.reach", f"no answer. {'; '.join(reasons)}", REMEDY_REACH, code="CLUSTER_UNREACHABLE")
        return
    took = (time.monotonic() - began) * 1000
    yield ok("broker.reach", f"answers within {took:.0f} ms: {some(len(cluster.brokers), 'broker')}")
    found = cluster.topics.get(topic)
    if found is None or found.error is not None:
        reason = found.error.str() if found and found.error else "missing, or hidden from this client"
        remedy = "Create it with `enclavescale topics create`, or allow this client to describe it."
        yield fail("broker.topic", f"{topic}: {reason}", remedy, code="TOPIC_FAILED")
        return
    yield ok("broker.topic", f"{topic} has {some(len(found.partitions), 'partition')}")
    for domain, partition in sorted(partitions.items()):
        yield _partition(domain, partition, found.partitions)
    yield from _settings(admin, topic, timeout_s)
    yield from _rights(admin, topic, timeout_s)


def _hear(heard: list[str], error: KafkaError) -> None:
    if error.code() != KafkaError._ALL_BROKERS_DOWN:  # the sum of the others
        heard.append(error.str())


def _transport(kafka: Mapping[str, str]) -> Iterator[Finding]:
    protocol = kafka.get("security.protocol", "plaintext").lower()
    local = all(one.strip().startswith(_LOCAL) for one in kafka["bootstrap.servers"].split(","))
    if protocol in _PLAIN and not local:
        remedy = "Set security.protocol to SSL or SASL_SSL: reports are signed, passwords and topic rights are not."
        yield warn("broker.transport", f"security.protocol is {protocol}", remedy)
    else:
        yield ok("broker.transport", f"{protocol}{', this machine only' if local else ''}")


def _partition(domain: str, partition: int, present: Mapping[int, Any]) -> Finding:
    check = "broker.partition"
    if partition not in present:
        remedy = "Policy and topic disagree: see `enclavescale topics check`; partitions are never added to a topic."
        found = f"the policy names partition {partition}, the topic has {len(present)}"
        return fail(check, found, remedy, domain, code="WRONG_PARTITION")
    state = present[partition]
    if state.leader < 0:
        return fail(check, f"partition {partition} has no leader", "See to the brokers that hold it.", domain)
    if len(state.isrs) < len(state.replicas):
        found = f"partition {partition}: {len(state.isrs)} of {len(state.replicas)} replicas in sync"
        return warn(check, found, "See to the brokers that lag or are away.", domain)
    return ok(check, f"partition {partition}: {len(state.replicas)} of {len(state.replicas)} replicas in sync", domain)


def _settings(admin: AdminClient, topic: str, timeout_s: float) -> Iterator[Finding]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        settings = admin.describe_configs([resource], request_timeout=timeout_s)[resource].result(timeout_s)
    except (KafkaException, TimeoutError) as error:
        yield skip("broker.settings", f"the topic's settings cannot be read: {_said(error)}")
        return
    values = {name: str(one.value) for name, one in settings.items()}
    remedy = f"kafka-configs.sh --alter --topic {topic} --add-config "
    if values.get(_TIMESTAMPS) != _DECLARED[_TIMESTAMPS]:
        wanted = f"{_TIMESTAMPS}={_DECLARED[_TIMESTAMPS]}"
        found = f"{_TIMESTAMPS} is {values.get(_TIMESTAMPS, 'unset')}: workers stop"
        yield fail("broker.settings", found, remedy + wanted, code="TIMESTAMP_TYPE")
    elif int(values.get(_LARGEST, "0")) < int(_DECLARED[_LARGEST]):
        found = f"{_LARGEST} is {values.get(_LARGEST)}: evidence of many GPUs may not fit"
        yield fail("broker.settings", found, f"{remedy}{_LARGEST}={_DECLARED[_LARGEST]}", code="TOPIC_FAILED")
    else:
        yield ok("broker.settings", f"{_DECLARED[_TIMESTAMPS]}, messages of up to {values[_LARGEST]} bytes")


def _rights(admin: AdminClient, topic: str, timeout_s: float) -> Iterator[Finding]:
    """What the brokers say this client may do; those without an authorizer allow everything."""
    try:
        asked = admin.describe_topics(
            TopicCollection([topic]), include_authorized_operations=True, request_timeout=timeout_s
        )
        allowed = asked[topic].result(timeout_s).authorized_operations
    except (KafkaException, TimeoutError) as error:
        yield skip("broker.rights", f"cannot be asked: {_said(error)}")
        return
    if not allowed:
        yield skip("broker.rights", "the brokers do not say")
    elif AclOperation.WRITE in allowed or AclOperation.ALL in allowed:
        yield ok("broker.rights", f"this client may write to {topic}")
    else:
        remedy = f"kafka-acls.sh --add --producer --topic {topic} --allow-principal User:…"
        yield fail("broker.rights", f"this client may not write to {topic}", remedy, code="TOPIC_FAILED")


def _said(error: Exception) -> str:
    """The client library's words, which hold no secret."""
    cause = error.args[0] if error.args else None
    return str(cause.str() if isinstance(cause, KafkaError) else cause or "no answer in time")


def _url(text: str) -> urllib.parse.SplitResult | None:
    """An http or https URL in its parts."""
    with contextlib.suppress(ValueError):
        parts = urllib.parse.urlsplit(text)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:  # raises for what is no port
            return parts
    return None


def check_registry(url: str, topic: str, timeout_s: float) -> Iterator[Finding]:
    """Ask a Schema Registry for its subjects. Credentials in the URL are used, and never shown."""
    parts = _url(url)
    if parts is None:
        yield fail("registry.reach", "registry.url is no http or https URL", "For instance https://registry.example.")
        return
    shown = f"{parts.scheme}://{parts.hostname}"
    place = parts.netloc.rpartition("@")[2]
    request = urllib.request.Request(f"{parts.scheme}://{place}{parts.path.rstrip('/')}/subjects")  # noqa: S310
    if parts.username:
        pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        request.add_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
    remedy = "Check registry.url, the network and its credentials. The agent asks it at its start."
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310  checked above
            subjects = json.loads(answer.read(MAX_ANSWER_BYTES))
    except urllib.error.HTTPError as error:
        error.close()
        yield fail("registry.reach", f"{shown} answers {error.code}", remedy)
        return
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        yield fail("registry.reach", f"{shown}: {reason}", remedy)
        return
    if not isinstance(subjects, list):
        yield fail("registry.reach", f"{shown} is no Schema Registry", remedy)
        return
    yield ok("registry.reach", f"{shown} holds {some(len(subjects), 'subject')}")
    subject = f"{topic}-value"
    if subject in subjects:
        yield ok("registry.subject", subject)
    else:
        remedy = "Run `enclavescale schemas register`; producers register nothing by themselves."
        yield warn("registry.subject", f"no subject {subject}", remedy)
