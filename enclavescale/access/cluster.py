"""Rights on a real cluster: put there what a role needs, see what is missing or too much, ask what this client may."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from enclavescale.access.roles import GROUP, READ, TOPIC, WRITE, Grant, grants_of, role_of
from enclavescale.errors import ClusterUnreachable
from enclavescale.reach import check
from schemas.errors import EnclaveScaleError
from schemas.topics import TopicNames
from stream_jobs.kafka_errors import NotAuthorized, access_error

TIMEOUT_S = 15.0
"""Longest wait for one answer of the brokers, s."""

HOST_WAIT_S = 2.0
"""Longest wait of an agent for brokers that may be away, s: sampling begins after it."""

_SUPER_USER = "Rights are read with DESCRIBE and set with ALTER on the cluster: run this as a super user."
_NO_AUTHORIZER = KafkaError.SECURITY_DISABLED


class NoAuthorizer(EnclaveScaleError):
    """The brokers have no authorizer: everybody may do everything, and rights cannot be set."""

    code = "NO_AUTHORIZER"
    remedy = "Set authorizer.class.name on the brokers (docs/security.md), then apply the roles."


@dataclass(frozen=True, slots=True)
class Drift:
    """Rights of one principal: `missing` ones of its role, and `extra` ones on the same topics and groups, as texts."""

    missing: tuple[Grant, ...]
    extra: tuple[str, ...]


def apply(kafka: Mapping[str, str], grants: Sequence[Grant], principal: str) -> tuple[Grant, ...]:
    """Add the rights that are missing; returns them. Raises NotAuthorized, NoAuthorizer, ClusterUnreachable."""
    admin = check(kafka)
    missing = _compare(_standing(admin, principal), grants).missing
    if missing:
        futures = admin.create_acls([_binding(one, principal) for one in missing], request_timeout=TIMEOUT_S)
        for future in futures.values():
            _answer(future, "ACLs cannot be written")
    return missing


def drift(kafka: Mapping[str, str], grants: Sequence[Grant], principal: str) -> Drift:
    """How the principal's rights differ from `grants`. Raises as `apply` does."""
    return _compare(_standing(check(kafka), principal), grants)


def _answer(future: Any, what: str) -> Any:
    try:
        return future.result(TIMEOUT_S)
    except KafkaException as error:
        if error.args[0].code() == _NO_AUTHORIZER:
            raise NoAuthorizer("the brokers have no authorizer") from error
        if isinstance(access_error(error), NotAuthorized):
            raise NotAuthorized(
                f"{what}: {error.args[0].name()}",  # the broker's text is a dump of its request
                remedy=_SUPER_USER,
            ) from error
        raise ClusterUnreachable(f"{what}: {error.args[0].str()}") from error
    except TimeoutError as error:
        raise ClusterUnreachable(f"{what}: no answer within {TIMEOUT_S:.0f} s") from error


def _check_reading(admin: AdminClient) -> None:
    """The client library shows an empty list to whoever may not read ACLs: ask first."""
    future = admin.describe_cluster(include_authorized_operations=True, request_timeout=TIMEOUT_S)
    said = _answer(future, "the cluster cannot be asked").authorized_operations
    if not {one.name for one in said or ()} & {"DESCRIBE", "ALTER", "ALL"}:
        raise NotAuthorized("ACLs cannot be read: this client may not DESCRIBE the cluster", remedy=_SUPER_USER)


def _standing(admin: AdminClient, principal: str) -> list[Any]:
    _check_reading(admin)
    everything: Any = None  # the stubs want a name and a host, the client takes None for any
    wanted = AclBindingFilter(
        ResourceType.ANY,
        everything,
        ResourcePatternType.ANY,
        principal,
        everything,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
    found = _answer(admin.describe_acls(wanted, request_timeout=TIMEOUT_S), "ACLs cannot be read")
    return list(found)


def _binding(grant: Grant, principal: str) -> AclBinding:
    return AclBinding(
        ResourceType[grant.kind],
        grant.name,
        ResourcePatternType.LITERAL,
        principal,
        "*",
        AclOperation[grant.operation],
        AclPermissionType.ALLOW,
    )


def _compare(standing: Iterable[Any], grants: Sequence[Grant]) -> Drift:
    left = list(standing)
    missing = []
    for grant in grants:
        same = [
            one
            for one in left
            if (one.restype.name, one.name, one.operation.name) == (grant.kind, grant.name, grant.operation)
            and one.resource_pattern_type == ResourcePatternType.LITERAL
            and one.permission_type == AclPermissionType.ALLOW
            and one.host == "*"
        ]
        left = [one for one in left if one not in same]
        if not same:
            missing.append(grant)
    return Drift(tuple(missing), tuple(sorted(_text(one) for one in left)))


def _text(one: Any) -> str:
    pattern = "" if one.resource_pattern_type == ResourcePatternType.LITERAL else f" ({one.resource_pattern_type.name})"
    host = "" if one.host == "*" else f" from {one.host}"
    return f"{one.permission_type.name} {one.operation.name} {one.restype.name.lower()} {one.name}{pattern}{host}"


def require(admin: AdminClient, grants: Sequence[Grant], role: str) -> None:
    """Raise NotAuthorized, naming all of them, for rights that the brokers say this client does not have.

    Brokers without an authorizer allow everything; what they do not say is taken as allowed, and shows when it is used.
    """
    missing = [*_missing_topics(admin, grants), *_missing_groups(admin, grants)]
    if missing:
        raise NotAuthorized(
            f"this client may not {', '.join(str(one) for one in missing)}",
            field=missing[0].name,
            remedy=(
                f"Grant it role {role}: `enclavescale access apply --role {role} --principal User:NAME`, as a super "
                "user, with the same options for topics."
            ),
        )


def check_host(kafka: Mapping[str, str], names: TopicNames) -> None:
    """Before an agent starts: raise AuthenticationFailed, TlsFailed or NotAuthorized where brokers refuse it.

    Brokers that do not answer are nothing to wait for: reports go to the spool until they do. What the client library
    does not take is said where the agent makes its client.
    """
    wanted = [one for one in grants_of(role_of("host"), names) if one.operation == WRITE]
    with contextlib.suppress(ClusterUnreachable, KafkaException):
        require(check(kafka, HOST_WAIT_S), wanted, "host")


def _missing_topics(admin: AdminClient, grants: Sequence[Grant]) -> list[Grant]:
    names = sorted({one.name for one in grants if one.kind == TOPIC})
    if not names:
        return []
    try:
        cluster = admin.list_topics(timeout=TIMEOUT_S)
        if cluster.controller_id not in cluster.brokers:
            return []  # the question goes to the controller, and the client library would wait for one to the end
        asked = admin.describe_topics(
            TopicCollection(names), include_authorized_operations=True, request_timeout=TIMEOUT_S
        )
    except KafkaException:
        return []
    allowed: dict[str, set[str] | None] = {}
    for name, future in asked.items():
        try:
            said = future.result(TIMEOUT_S).authorized_operations
            allowed[name] = {one.name for one in said} if said else None
        except KafkaException as error:
            allowed[name] = set() if isinstance(access_error(error), NotAuthorized) else None
        except TimeoutError:
            allowed[name] = None
    return [
        one
        for one in grants
        if one.kind == TOPIC and (may := allowed.get(one.name)) is not None and not may & {one.operation, "ALL"}
    ]


def _missing_groups(admin: AdminClient, grants: Sequence[Grant]) -> list[Grant]:
    """Only whether a group may be described: brokers say nothing of one that nobody has joined yet."""
    names = sorted({one.name for one in grants if one.kind == GROUP and one.operation == READ})
    if not names:
        return []
    missing = []
    for name, future in admin.describe_consumer_groups(
        names, include_authorized_operations=True, request_timeout=TIMEOUT_S
    ).items():
        try:
            said = future.result(TIMEOUT_S).authorized_operations
            if said and not {one.name for one in said} & {READ, "ALL"}:
                missing.append(Grant(GROUP, name, READ))
        except KafkaException as error:
            if isinstance(access_error(error), NotAuthorized):
                missing.append(Grant(GROUP, name, READ))
        except TimeoutError:
            continue
    return missing
