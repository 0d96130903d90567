"""`enclavescale schemas`: register the pinned schemas with a Schema Registry, and compare."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import click

from enclavescale.cli.common import EXIT_CODES, EXIT_REFUSED, errors, json_option, say, topic_options
from enclavescale.registry.client import Registry
from enclavescale.registry.ids import open_ids
from enclavescale.registry.options import RegistryOptions, read_options
from enclavescale.settings import load_file
from schemas.mapping import to_jsonable
from schemas.topics import TopicNames


def _reach(function: Callable[..., None]) -> Callable[..., None]:
    """Options that name the registry."""
    for option in (
        click.option(
            "--schema-ids", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Keep the ids there."
        ),
        click.option(
            "--config",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="TOML or JSON file with a table `registry`; the one with the Kafka properties will do.",
        ),
        click.option("--registry", "url", metavar="URL", help="Of its Confluent-compatible API."),
    ):
        function = option(function)
    return function


def _options(url: str | None, config: Path | None, schema_ids: Path | None) -> RegistryOptions:
    table = load_file(config).get("registry") if config else None
    return read_options(table, url=url, ids_file=str(schema_ids) if schema_ids else None)


@click.group(epilog=EXIT_CODES)
def schemas() -> None:
    """Register the schemas with a Schema Registry, and compare what it has."""


@schemas.command(epilog=EXIT_CODES)
@_reach
@topic_options
@json_option
def register(url: str | None, config: Path | None, schema_ids: Path | None, names: TopicNames, as_json: bool) -> None:
    """Register what is missing, one subject a topic, and demand FULL_TRANSITIVE of each.

    Nothing else registers: worker and agents only read. Doing it again changes nothing. Register after the workers are
    upgraded.
    """
    with errors(as_json):
        options = _options(url, config, schema_ids)
        with closing(Registry(options)) as registry:
            done = registry.register(names)
        if options.ids_file:
            open_ids(options, names)
        if as_json:
            say([to_jsonable(one) for one in done])
            return
        for one in done:
            click.echo(f"{one.state:10} {one.subject}  {one.schema} id {one.number}")


@schemas.command(epilog=EXIT_CODES)
@_reach
@topic_options
@json_option
def check(url: str | None, config: Path | None, schema_ids: Path | None, names: TopicNames, as_json: bool) -> None:
    """Compare the registry with this release: missing or other schemas, two ids of one, compatibility; exit 3."""
    with errors(as_json):
        with closing(Registry(_options(url, config, schema_ids))) as registry:
            found = registry.check(names)
        if as_json:
            say([to_jsonable(one) for one in found])
        else:
            for one in found:
                click.echo(f"{one.subject}: {one.what} is {one.found}, declared {one.declared}")
            click.echo(f"{len(found)} differences" if found else "as declared")
        sys.exit(EXIT_REFUSED if found else 0)
