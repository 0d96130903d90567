"""Settings from files and the environment. Kafka properties pass through under librdkafka's own names."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from enclavescale.secrets import SECRETS, read_secrets
from schemas.errors import ConfigError

ENVIRONMENT_PREFIX = "ENCLAVESCALE_KAFKA_"
"""`ENCLAVESCALE_KAFKA_SASL_USERNAME` is `kafka.sasl.username`; two underscores stand for one (`LOG__LEVEL`)."""

PROPERTY_PREFIX = "kafka."

MAX_FILE_BYTES = 4 * 1024 * 1024
"""Bytes of a file of settings or of a policy: 100,000 platforms by their ids fit; nothing beyond is ever in memory."""


def load_file(path: Path) -> dict[str, Any]:
    """A TOML or JSON file (by suffix) of at most `MAX_FILE_BYTES` as a dictionary. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: more than {MAX_FILE_BYTES} bytes")
        loaded = json.loads(data) if path.suffix == ".json" else tomllib.loads(data.decode())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: not a table")
    return loaded


def kafka_properties(
    bootstrap: str | None,
    pairs: Iterable[str] = (),
    file: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """librdkafka properties from, weakest first: environment, file (table `kafka` or keys `kafka.…`), options.

    A secret may be named by its file: `sasl.password.file`. There is no default broker. Raises ConfigError; never shows
    a value.
    """
    result: dict[str, str] = {}
    for name, value in (os.environ if environment is None else environment).items():
        if name.startswith(ENVIRONMENT_PREFIX):
            words = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
            result["_".join(word.replace("_", ".") for word in words)] = value
    given = dict(file or {})
    table = given.get("kafka", {})
    if not isinstance(table, Mapping):
        raise ConfigError("`kafka` is a table of properties", field="kafka")
    quoted = (
        (name.removeprefix(PROPERTY_PREFIX), one) for name, one in given.items() if name.startswith(PROPERTY_PREFIX)
    )
    for name, value in [*_flat(table), *quoted]:
        if not isinstance(value, str | int | float):
            raise ConfigError(f"kafka.{name} is neither text, number nor boolean", field=f"kafka.{name}")
        result[name] = str(value).lower() if isinstance(value, bool) else str(value)
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:  # what was given may be a secret: it is not shown
            raise ConfigError("a Kafka property is given as NAME=VALUE", field="kafka")
        name = name.removeprefix(PROPERTY_PREFIX)
        if name in SECRETS:
            raise ConfigError(
                f"{name} on the command line, where every user of the machine can read it",
                field=f"kafka.{name}",
                remedy=f"Give -K {name}.file=PATH, or {environment_name(name)} in the environment.",
            )
        result[name] = value
    read_secrets(result)
    if bootstrap:
        result["bootstrap.servers"] = bootstrap
    if not result.get("bootstrap.servers"):
        raise ConfigError(
            "no broker given",
            field="kafka.bootstrap.servers",
            remedy="Give --bootstrap HOST:PORT, or bootstrap.servers in the file or the environment.",
        )
    return result


def environment_name(name: str) -> str:
    """The variable that gives a property."""
    return ENVIRONMENT_PREFIX + name.replace("_", "__").replace(".", "_").upper()


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
