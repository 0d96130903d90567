"""How to reach a registry: a table `registry` in the file that has the Kafka properties, the environment, options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from enclavescale.secrets import read_secret
from schemas.errors import ConfigError
from schemas.mapping import from_jsonable

ENVIRONMENT_PREFIX = "ENCLAVESCALE_REGISTRY_"
MAX_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryOptions:
    """A Schema Registry: `url` of its Confluent-compatible API, how to be let in, and where the ids are kept.

    Every `..._file` is a path: `ca_file`, `certificate_file` and `key_file` in PEM, `password_file` and
    `key_password_file` with a secret in their only line. `ids_file`: what `url` said last, used where it does not
    answer; without `url` it is all there is. `timeout_s`: of one request.
    """

    url: str = ""
    username: str = ""
    password_file: str = ""
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    key_password_file: str = ""
    ids_file: str = ""
    timeout_s: int = 5


def read_options(
    table: Mapping[str, Any] | None,
    *,
    url: str | None = None,
    ids_file: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> RegistryOptions:
    """Options from, weakest first: environment (ENCLAVESCALE_REGISTRY_URL ...), table `registry`, command line.

    Raises ConfigError.
    """
    given: dict[str, Any] = {}
    around = os.environ if environment is None else environment
    for one in fields(RegistryOptions):
        if text := around.get(ENVIRONMENT_PREFIX + one.name.upper()):
            given[one.name] = int(text) if one.name == "timeout_s" and text.isdigit() else text
    if table is not None and not isinstance(table, Mapping):
        raise ConfigError("`registry` is a table", field="registry")
    try:
        options = from_jsonable(RegistryOptions, {**given, **(table or {})})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"registry: {error}", field="registry") from error
    options = replace(options, url=url or options.url, ids_file=ids_file or options.ids_file)
    check_options(options)
    return options


def check_options(options: RegistryOptions) -> None:
    """Raise ConfigError naming the first option that makes no sense; never shows a secret."""
    if options.url:
        parts = urlsplit(options.url.split(",")[0])
        if parts.scheme not in ("http", "https", "mock") or "@" in options.url:
            raise ConfigError("registry: url is http(s)://HOST:PORT/PATH, without user and password", field="url")
    if not 1 <= options.timeout_s <= MAX_TIMEOUT_S:
        raise ConfigError(f"registry: timeout_s is 1 to {MAX_TIMEOUT_S}", field="timeout_s")
    if bool(options.username) != bool(options.password_file):
        raise ConfigError("registry: username and password_file go together", field="password_file")
    if (options.key_file or options.key_password_file) and not options.certificate_file:
        raise ConfigError("registry: a key goes with a certificate_file", field="certificate_file")


def client_settings(options: RegistryOptions, retries: int) -> dict[str, Any]:
    """The client library's own settings, secrets read from their files. Raises ConfigError. Never log the result."""
    settings: dict[str, Any] = {
        "url": options.url,
        "timeout": options.timeout_s,
        "max.retries": retries,
        "retries.wait.ms": 200,
        "retries.max.wait.ms": 2_000,
    }
    files = {
        "ssl.ca.location": options.ca_file,
        "ssl.certificate.location": options.certificate_file,
        "ssl.key.location": options.key_file,
    }
    for name, place in files.items():
        if place:
            if not Path(place).exists():
                raise ConfigError(f"registry: {place} does not exist", field=name)
            settings[name] = place
    if options.username:
        password = read_secret(Path(options.password_file), "registry.password_file")
        settings["basic.auth.user.info"] = f"{options.username}:{password}"
    if options.key_password_file:
        settings["ssl.key.password"] = read_secret(Path(options.key_password_file), "registry.key_password_file")
    return settings
