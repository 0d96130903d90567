"""`enclavescale topics`: create, describe, check."""

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
from enclavescale.topic_admin import check_topics, create_topics, describe_topics
from schemas.mapping import to_jsonable
from schemas.topics import TopicNames

partitions_option = click.option(
    "--partitions",
    default=8,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Of reports and what follows them.",
)


@click.group(epilog=EXIT_CODES)
def topics() -> None:
    """Create, describe and check the topics."""


@topics.command(epilog=EXIT_CODES)
@cluster_options
@partitions_option
@click.option("--replication", default=3, show_default=True, type=click.IntRange(1, 9))
@json_option
def create(cluster: Cluster, partitions: int, replication: int, as_json: bool) -> None:
    """Create the topics that are missing, with their settings."""
    with errors(as_json):
        result = create_topics(
            cluster.quiet_properties(), cluster.names, partitions=partitions, replication=replication
        )
        if as_json:
            say(result)
        else:
            for name, state in result.items():
                click.echo(f"{state:8} {name}")


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
@json_option
def check(cluster: Cluster, partitions: int, as_json: bool) -> None:
    """Compare the topics on the cluster with the declaration; exit 3 if they differ."""
    with errors(as_json):
        findings = check_topics(cluster.quiet_properties(), cluster.names, partitions=partitions)
        if as_json:
            say([to_jsonable(one) for one in findings])
        else:
            for one in findings:
                click.echo(f"{one.topic}: {one.what} is {one.found}, declared {one.declared}")
            click.echo(f"{len(findings)} differences" if findings else "as declared")
        sys.exit(EXIT_REFUSED if findings else 0)
