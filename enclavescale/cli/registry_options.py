"""Options that name a Schema Registry, or a file of the ids it gave."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from enclavescale.cli.common import Cluster
from enclavescale.registry.options import RegistryOptions, read_options
from enclavescale.settings import load_file

F = TypeVar("F", bound=Callable[..., Any])

OpenRegistry = Callable[[], RegistryOptions]
"""Reads what was given; raises ConfigError."""


def registry_options(function: F) -> F:
    """The options --registry and --schema-ids, below `cluster_options`; the command gets `registry`."""

    @functools.wraps(function)
    def wrapped(*args: Any, cluster: Cluster, registry_url: str | None, schema_ids: Path | None, **kwargs: Any) -> Any:
        def read() -> RegistryOptions:
            table = load_file(cluster.config).get("registry") if cluster.config else None
            return read_options(table, url=registry_url, ids_file=str(schema_ids) if schema_ids else None)

        return function(*args, cluster=cluster, registry=read, **kwargs)

    for option in (
        click.option(
            "--schema-ids",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Where the registry's ids are kept; without --registry the only ones known.",
        ),
        click.option(
            "--registry",
            "registry_url",
            metavar="URL",
            help="Schema Registry (Confluent-compatible API); the rest in a table `registry` of --kafka-config.",
        ),
    ):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]
