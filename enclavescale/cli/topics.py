"""`enclavescale topics`: create, describe, check, and as resources for Strimzi."""

from __future__ import annotations

import sys
from typing import Any

import click

from enclavescale.cli.common import (
    EXIT_CODES,
    EXIT_REFUSED,
    Cluster,
    cluster_options,
    errors,
    json_option,
    say,
    topic_options,
)
from enclavescale.strimzi import kafka_topics
from enclavescale.topic_admin import Finding, apply_drift, check_topics, create_topics, describe_topics
from schemas.mapping import to_jsonable
from schemas.topics import AUDIT_RETENTION_MS, DAY_MS, TopicNames

partitions_option = click.option(
    "--partitions",
    default=8,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Of reports and what follows them.",
)
replication_option = click.option(
    "--replication", default=3, show_default=True, type=click.IntRange(1, 9), help="Copies of every partition."
)
retention_option = click.option(
    "--retention-days",
    default=AUDIT_RETENTION_MS // DAY_MS,
    show_default=True,
    type=click.IntRange(1, 36_500),
    help="How long everything is kept: one audit's reach.",
)


@click.group(epilog=EXIT_CODES)
def topics() -> None:
    """Create, describe and check the topics."""


@topics.command(epilog=EXIT_CODES)
@cluster_options
@partitions_option
@replication_option
@retention_option
@click.option("--apply-drift", "alter", is_flag=True, help="Also set the settings that differ; never partitions.")
@json_option
def create(
    cluster: Cluster, partitions: int, replication: int, retention_days: int, alter: bool, as_json: bool
) -> None:
    """Create the topics that are missing, with their settings; doing it again changes nothing.

    With --apply-drift settings that differ on topics that exist are set, too; exit 3 if a difference is left, such as
    another number of partitions: policies name them, so that takes new topics.
    """
    with errors(as_json):
        properties, kept_ms = cluster.quiet_properties(), retention_days * DAY_MS
        result = create_topics(
            properties, cluster.names, partitions=partitions, replication=replication, retention_ms=kept_ms
        )
        left: list[Finding] = []
        if alter:
            changed = apply_drift(properties, cluster.names, partitions=partitions, retention_ms=kept_ms)
            result |= dict.fromkeys((one.topic for one in changed), "altered")
            left = check_topics(properties, cluster.names, partitions=partitions, retention_ms=kept_ms)
            for one in changed:
                click.echo(f"{one.topic}: {one.what} was {one.found}, is {one.declared}", err=True)
        if as_json:
            say(result)
        else:
            for name, state in result.items():
                click.echo(f"{state:8} {name}")
        for one in left:
            click.echo(_line(one), err=True)
        sys.exit(EXIT_REFUSED if left else 0)


@topics.command(epilog=EXIT_CODES)
@topic_options
@json_option
def describe(names: TopicNames, as_json: bool) -> None:
    """Print the topics as declared: keys, schemas, settings. Needs no broker."""
    described = describe_topics(names)
    if as_json:
        say(described)
        return
    blocks = []
    for one in described:
        settings: Any = one["config"]
        lines = [click.style(str(one["topic"]), bold=True), f"  {one['description']}"]
        lines += [
            f"  {'role':<8} {one['role']}",
            f"  {'key':<8} {one['key']}",
            f"  {'value':<8} {one['schema'] or 'bytes'}",
        ]
        lines += [
            f"  {'settings' if index == 0 else '':<8} {name}={value}"
            for index, (name, value) in enumerate(settings.items())
        ]
        blocks.append("\n".join(lines))
    click.echo("\n\n".join(blocks))


@topics.command(epilog=EXIT_CODES)
@cluster_options
@partitions_option
@retention_option
@json_option
def check(cluster: Cluster, partitions: int, retention_days: int, as_json: bool) -> None:
    """Compare the topics on the cluster with the declaration; exit 3 if they differ.

    Longer retention and more copies in sync are no difference; outputs, manifests and the rest that are kept for a
    shorter time than the reports are.
    """
    with errors(as_json):
        findings = check_topics(
            cluster.quiet_properties(), cluster.names, partitions=partitions, retention_ms=retention_days * DAY_MS
        )
        if as_json:
            say([to_jsonable(one) for one in findings])
        else:
            for one in findings:
                click.echo(_line(one))
            click.echo(f"{len(findings)} differences" if findings else "as declared")
        sys.exit(EXIT_REFUSED if findings else 0)


@topics.command(epilog=EXIT_CODES)
@topic_options
@partitions_option
@replication_option
@retention_option
@click.option("--cluster", default="kafka", show_default=True, help="Name of Strimzi's Kafka resource.")
@click.option("--namespace", help="Where that operator watches; left out by default.")
@json_option
def strimzi(
    names: TopicNames,
    partitions: int,
    replication: int,
    retention_days: int,
    cluster: str,
    namespace: str | None,
    as_json: bool,
) -> None:
    """Print the topics as KafkaTopic resources. Needs no broker."""
    text = kafka_topics(
        names,
        cluster=cluster,
        namespace=namespace,
        partitions=partitions,
        replication=replication,
        retention_ms=retention_days * DAY_MS,
    )
    if as_json:
        say({"yaml": text})
    else:
        click.echo(text, nl=False)


def _line(one: Finding) -> str:
    return f"{one.topic}: {one.what} is {one.found}, declared {one.declared}"
