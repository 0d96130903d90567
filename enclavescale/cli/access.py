"""`enclavescale access`: what each role may do on the cluster, as lines, as ACLs, as Strimzi's resources."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from enclavescale.access.cluster import apply as apply_grants
from enclavescale.access.cluster import drift
from enclavescale.access.commands import acl_commands, kafka_user, quota_command
from enclavescale.access.quotas import Load, quota_of
from enclavescale.access.roles import ROLES, Grant, check_principal, grants_of, role_of
from enclavescale.cli.common import (
    EXIT_CODES,
    EXIT_REFUSED,
    Cluster,
    FiniteRange,
    cluster_options,
    errors,
    json_option,
    say,
    topic_options,
)
from enclavescale.policy.held import hold_file
from schemas.errors import ConfigError
from schemas.mapping import to_jsonable
from schemas.topics import TopicNames

F = TypeVar("F", bound=Callable[..., Any])

role_option = click.option("--role", required=True, type=click.Choice(list(ROLES)), help="What the principal is.")
principal_option = click.option("--principal", required=True, metavar="User:NAME", help="As the brokers know it.")
group_option = click.option("--group", help="Consumer group of a worker.")


def _load_options(function: F) -> F:
    """What quotas are computed from; the command gets `window_s`, `evidence_interval`, `hosts`, `models`, `policy`."""
    for option in (
        click.option(
            "--policy",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Take the shortest window and the evidence interval from this policy, signed or not.",
        ),
        click.option(
            "--models", default=1, show_default=True, type=click.IntRange(1, 16), help="GPU models in a host."
        ),
        click.option(
            "--hosts", default=1, show_default=True, type=click.IntRange(1, 10_000), help="Hosts of one principal."
        ),
        click.option("--evidence-interval", default=6, show_default=True, type=click.IntRange(1), help="Windows."),
        click.option("--window-s", default=60.0, show_default=True, type=FiniteRange(1, 3600), help="Window, s."),
    ):
        function = option(function)
    return function


def _load(window_s: float, evidence_interval: int, hosts: int, models: int, policy: Path | None) -> Load:
    if policy is None:
        return Load(round(window_s * 1000), evidence_interval, hosts, models)
    held = hold_file(policy).policy
    if not held.domains:
        raise ConfigError(f"{policy} names no domain", field="policy")
    shortest = min(rule.window_ms for rule in held.domains)
    return Load(shortest, held.limits.evidence_interval_windows, hosts, models)


@click.group(epilog=EXIT_CODES)
def access() -> None:
    """Rights by role: show them, print or apply them, check for drift."""


@access.command(epilog=EXIT_CODES)
@topic_options
@click.option("--role", type=click.Choice(list(ROLES)), help="Only this one.")
@click.option("--group", default="enclavescale", show_default=True, help="Consumer group of workers.")
@json_option
def show(names: TopicNames, role: str | None, group: str, as_json: bool) -> None:
    """Print the roles and what each of them may do. Needs no broker."""
    chosen = [role_of(role)] if role else list(ROLES.values())
    if as_json:
        say(
            [
                {"role": one.name, "purpose": one.purpose, "grants": _plain(grants_of(one, names, group))}
                for one in chosen
            ]
        )
        return
    blocks = []
    for one in chosen:
        lines = [click.style(one.name, bold=True), f"  {one.purpose}"]
        lines += [f"  {grant}" for grant in grants_of(one, names, group)]
        blocks.append("\n".join(lines))
    click.echo("\n\n".join(blocks))


def _plain(grants: tuple[Grant, ...]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(one) for one in grants]


@access.command(epilog=EXIT_CODES)
@topic_options
@role_option
@principal_option
@group_option
@click.option("--bootstrap", default="HOST:PORT", metavar="HOST:PORT", help="Brokers, as the lines shall name them.")
@_load_options
@json_option
def commands(
    names: TopicNames, role: str, principal: str, group: str | None, bootstrap: str, as_json: bool, **load: Any
) -> None:
    """Print the lines of kafka-acls.sh and kafka-configs.sh for a role. Needs no broker.

    Rights first, then the recommended quota. The lines read the administrator's connection from admin.properties.
    """
    with errors(as_json):
        grants = grants_of(role_of(role), names, group)
        quota = quota_of(role, _load(**load))
        line = quota_command(quota, check_principal(principal), bootstrap)
        lines = acl_commands(grants, principal, bootstrap)
        if as_json:
            say({"acls": lines, "quota": line, "quota_settings": quota.settings(), "reason": quota.reason})
            return
        click.echo("\n".join(lines))
        click.echo(f"# quota: {quota.reason}")
        if line:
            click.echo(line)


@access.command(epilog=EXIT_CODES)
@cluster_options
@role_option
@principal_option
@group_option
@json_option
def apply(cluster: Cluster, role: str, principal: str, group: str | None, as_json: bool) -> None:
    """Give a principal the rights of a role on the cluster; those it has already stay as they are.

    Takes nothing away: `access check` shows what is too much. Quotas are set with the line that `access commands`
    prints, because the client library cannot.
    """
    with errors(as_json):
        grants = grants_of(role_of(role), cluster.names, group)
        added = apply_grants(cluster.quiet_properties(), grants, check_principal(principal))
        if as_json:
            say({"principal": principal, "role": role, "added": _plain(added), "present": len(grants) - len(added)})
            return
        for one in grants:
            click.echo(f"{'added' if one in added else 'present':8} {one}")


@access.command("check", epilog=EXIT_CODES)
@cluster_options
@role_option
@principal_option
@group_option
@json_option
def check_command(cluster: Cluster, role: str, principal: str, group: str | None, as_json: bool) -> None:
    """Compare a principal's rights on the cluster with its role; exit 3 if they differ."""
    with errors(as_json):
        grants = grants_of(role_of(role), cluster.names, group)
        found = drift(cluster.quiet_properties(), grants, check_principal(principal))
        if as_json:
            say(to_jsonable(found))
        else:
            for one in found.missing:
                click.echo(f"missing  {one}")
            for text in found.extra:
                click.echo(f"extra    {text}")
            differences = len(found.missing) + len(found.extra)
            click.echo(f"{differences} differences" if differences else f"exactly the rights of {role}")
        sys.exit(EXIT_REFUSED if found.missing or found.extra else 0)


@access.command(epilog=EXIT_CODES)
@topic_options
@click.option("--role", type=click.Choice(list(ROLES)), help="Only this one; all of them otherwise.")
@click.option("--name", help="Of the KafkaUser, with --role; enclavescale-ROLE otherwise.")
@click.option("--group", default="enclavescale", show_default=True, help="Consumer group of workers.")
@click.option("--cluster", "kafka_cluster", default="kafka", show_default=True, help="Strimzi's Kafka resource.")
@click.option("--namespace", help="Of the resources.")
@click.option(
    "--authentication",
    type=click.Choice(["scram-sha-512", "tls", "tls-external"]),
    default="scram-sha-512",
    show_default=True,
    help="How they say who they are.",
)
@_load_options
@json_option
def strimzi(
    names: TopicNames,
    role: str | None,
    name: str | None,
    group: str,
    kafka_cluster: str,
    namespace: str | None,
    authentication: str,
    as_json: bool,
    **load: Any,
) -> None:
    """Print KafkaUser resources: rights and quotas of roles. Needs no broker.

    With scram-sha-512 the principal is User:NAME, with tls User:CN=NAME. The operator makes passwords and certificates.
    """
    with errors(as_json):
        if name and not role:
            raise ConfigError("--name without --role", field="name")
        load_of_hosts = _load(**load)
        made = {
            one.name: kafka_user(
                grants_of(one, names, group),
                quota_of(one.name, load_of_hosts),
                name=name or f"enclavescale-{one.name}",
                cluster=kafka_cluster,
                namespace=namespace,
                authentication=authentication,
            )
            for one in ([role_of(role)] if role else ROLES.values())
        }
        if as_json:
            say({"yaml": "---\n".join(made.values())})
        else:
            click.echo("---\n".join(made.values()), nl=False)
