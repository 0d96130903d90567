"""The same rights and quotas for people with Kafka's own tools, and for Strimzi's operator."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from enclavescale.access.quotas import Quota
from enclavescale.access.roles import GROUP, Grant

ADMIN_FILE = "admin.properties"
"""The file with the administrator's connection, in printed commands."""

_OPERATIONS = {
    "READ": "Read",
    "WRITE": "Write",
    "CREATE": "Create",
    "DESCRIBE": "Describe",
    "DESCRIBE_CONFIGS": "DescribeConfigs",
    "ALTER_CONFIGS": "AlterConfigs",
}
_STRIMZI_QUOTAS = {
    "producer_byte_rate": "producerByteRate",
    "consumer_byte_rate": "consumerByteRate",
    "request_percentage": "requestPercentage",
}


def _by_resource(grants: Sequence[Grant]) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for one in grants:
        found.setdefault((one.kind, one.name), []).append(one.operation)
    return found


def acl_commands(grants: Sequence[Grant], principal: str, bootstrap: str) -> list[str]:
    """One line of `kafka-acls.sh` for each topic and group; running one again changes nothing."""
    lines = []
    for (kind, name), operations in _by_resource(grants).items():
        words = ["kafka-acls.sh", "--bootstrap-server", bootstrap, "--command-config", ADMIN_FILE, "--add"]
        words += ["--allow-principal", principal]
        for operation in operations:
            words += ["--operation", _OPERATIONS[operation]]
        words += ["--group" if kind == GROUP else "--topic", name]
        lines.append(shlex.join(words))
    return lines


def quota_command(quota: Quota, principal: str, bootstrap: str) -> str | None:
    """The line of `kafka-configs.sh`, None without a limit."""
    settings = quota.settings()
    if not settings:
        return None
    words = ["kafka-configs.sh", "--bootstrap-server", bootstrap, "--command-config", ADMIN_FILE, "--alter"]
    words += ["--add-config", ",".join(f"{name}={value}" for name, value in settings.items())]
    return shlex.join([*words, "--entity-type", "users", "--entity-name", principal.partition(":")[2]])


def kafka_user(
    grants: Sequence[Grant], quota: Quota, *, name: str, cluster: str, namespace: str | None, authentication: str
) -> str:
    """A KafkaUser of Strimzi as YAML. The operator makes the password or the certificate; none is in here."""
    lines = [
        "apiVersion: kafka.strimzi.io/v1beta2",
        "kind: KafkaUser",
        "metadata:",
        f"  name: {json.dumps(name)}",
        *([f"  namespace: {json.dumps(namespace)}"] if namespace else []),
        "  labels:",
        f"    strimzi.io/cluster: {json.dumps(cluster)}",
        "spec:",
        "  authentication:",
        f"    type: {authentication}",
        "  authorization:",
        "    type: simple",
        "    acls:",
    ]
    for (kind, resource), operations in _by_resource(grants).items():
        lines += [
            "      - resource:",
            f"          type: {kind.lower()}",
            f"          name: {json.dumps(resource)}",
            "          patternType: literal",
            f"        operations: [{', '.join(_OPERATIONS[one] for one in operations)}]",
            '        host: "*"',
        ]
    settings = quota.settings()
    if settings:
        lines += [f"  quotas:  # {quota.reason}"]
        lines += [f"    {_STRIMZI_QUOTAS[key]}: {value}" for key, value in settings.items()]
    return "\n".join(lines) + "\n"
