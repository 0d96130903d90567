"""Roles and the least rights they need. Each was found by taking rights away on a broker that denies by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.errors import ConfigError
from schemas.topics import TopicNames

READ, WRITE, CREATE, DESCRIBE = "READ", "WRITE", "CREATE", "DESCRIBE"
DESCRIBE_CONFIGS, ALTER_CONFIGS = "DESCRIBE_CONFIGS", "ALTER_CONFIGS"
"""Kafka's operations. READ and WRITE imply DESCRIBE, ALTER_CONFIGS implies DESCRIBE_CONFIGS."""

TOPIC, GROUP = "TOPIC", "GROUP"


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """One right: an operation on one topic or group, by its whole name, from any address."""

    kind: str
    name: str
    operation: str

    def __str__(self) -> str:
        return f"{self.operation} {self.kind.lower()} {self.name}"


@dataclass(frozen=True, slots=True)
class Role:
    """What somebody is to the system. `topics`: operations by the topic's role; `group`: whether it joins a group."""

    name: str
    purpose: str
    topics: Mapping[str, tuple[str, ...]]
    group: bool = False


_DECLARE = (CREATE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS)
_ALL = ("reports", "output", "manifests", "rejections", "policy", "collateral", "beacons")

ROLES: dict[str, Role] = {
    role.name: role
    for role in (
        Role(
            "host",
            "An agent: writes the reports of its hosts, hears beacons.",
            {"reports": (WRITE,), "beacons": (READ,)},
        ),
        Role(
            "checking-host",
            "An agent with `check_aggregator`: also reads outputs and what they are judged by.",
            {
                "reports": (WRITE,),
                "beacons": (READ,),
                "output": (READ,),
                "policy": (READ,),
                "collateral": (READ,),
            },
        ),
        Role(
            "worker",
            "An aggregator: reads reports, writes what follows from them and its control records among them.",
            {
                "reports": (READ, WRITE),
                "output": (READ, WRITE),
                "manifests": (WRITE,),
                "rejections": (READ, WRITE),
                "policy": (READ,),
                "collateral": (READ,),
                "beacons": (READ, WRITE),
            },
            group=True,
        ),
        Role(
            "page",
            "`serve` and `top`: reads outputs and refusals, and what outputs are judged by.",
            {"output": (READ,), "rejections": (READ,), "policy": (READ,), "collateral": (READ,)},
        ),
        Role(
            "consumer",
            "Whoever uses the outputs: an orchestrator, a data base, `tail`.",
            {"output": (READ,)},
        ),
        Role(
            "auditor",
            "`replay`, `audit`, `export`: reads everything, writes nothing.",
            dict.fromkeys(_ALL, (READ,)),
        ),
        Role(
            "policy-admin",
            "Puts policies and collateral there. The signer's key, not this right, decides what is trusted.",
            {"policy": (READ, WRITE), "collateral": (READ, WRITE), "reports": (DESCRIBE,)},
        ),
        Role(
            "topic-admin",
            "`topics create` and `check`: declares the topics; neither reads nor writes them, never deletes one.",
            dict.fromkeys(_ALL, _DECLARE),
        ),
    )
}


def role_of(name: str) -> Role:
    """The role of a name. Raises ConfigError."""
    if name not in ROLES:
        raise ConfigError(f"no role {name!r}: one of {', '.join(ROLES)}", field="role")
    return ROLES[name]


def grants_of(role: Role, names: TopicNames, group: str | None = None) -> tuple[Grant, ...]:
    """The rights of a role on these topics, sorted. Raises ConfigError where it joins a group and none is named."""
    if role.group and not group:
        raise ConfigError(f"role {role.name} joins a consumer group: name it", field="group", remedy="Give --group.")
    found = [
        Grant(TOPIC, getattr(names, topic), operation)
        for topic, operations in role.topics.items()
        for operation in operations
    ]
    if role.group and group:
        found.append(Grant(GROUP, group, READ))
    return tuple(sorted(found))


def check_principal(principal: str) -> str:
    """A principal as Kafka writes it, `User:NAME`, which everybody is not. Raises ConfigError."""
    kind, colon, name = principal.partition(":")
    if not colon or kind != "User" or not name or name == "*" or not name.isprintable() or "'" in name:
        raise ConfigError(
            "a principal is given as User:NAME, with one name and not everybody's",
            field="principal",
            remedy="With client certificates NAME is what ssl.principal.mapping.rules make of the subject.",
        )
    return principal
