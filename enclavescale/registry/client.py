"""What is asked of a registry: our subjects' versions, their ids, their compatibility; and registering, on request.

Subjects are named by TopicNameStrategy (`TOPIC-value`). Keys are plain text and have none.
"""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from fastavro.schema import to_parsing_canonical_form

from enclavescale.registry.errors import RegistryRefused, RegistryUnreachable
from enclavescale.registry.options import RegistryOptions, client_settings
from schemas.errors import ConfigError
from schemas.pins import pin
from schemas.topics import TOPICS, TopicNames

T = TypeVar("T")

LEVEL = "FULL_TRANSITIVE"
"""Every version reads what every other wrote: logs are replayed by later releases, and audits read old ones."""

COMMAND_RETRIES = 2
_NOT_FOUND = 404
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_DENIED = frozenset({401, 403})


@dataclass(frozen=True, slots=True)
class Listed:
    """One version under one of our subjects. `schema`: the pinned schema it is, None if it is none.

    `newer`: it came after the version that is pinned here, so that it belongs to a later release.
    """

    subject: str
    version: int
    number: int
    schema: str | None
    newer: bool = False


@dataclass(frozen=True, slots=True)
class Registered:
    """What became of one subject: `state` is `registered` or `exists`."""

    subject: str
    schema: str
    number: int
    state: str


@dataclass(frozen=True, slots=True)
class Drift:
    """A difference between what this release needs and what the registry has."""

    subject: str
    what: str
    declared: str
    found: str


def subjects(names: TopicNames) -> dict[str, str]:
    """Our subjects, each with its pinned schema's name."""
    return {f"{getattr(names, spec.role)}-value": spec.schema for spec in TOPICS if spec.schema is not None}


@cache
def _canonical(name: str) -> str:
    return to_parsing_canonical_form(pin(name).raw)


def _is_pinned(text: str | None, name: str) -> bool:
    try:
        return text is not None and to_parsing_canonical_form(json.loads(text)) == _canonical(name)
    except Exception:  # whatever stands there and cannot be read is not ours
        return False


class Registry:
    """A registry's answers about our subjects. Every method raises RegistryUnreachable or RegistryRefused."""

    def __init__(self, options: RegistryOptions, *, retries: int = COMMAND_RETRIES) -> None:
        """Open nothing yet. Raises ConfigError for files and settings that cannot be used."""
        if not options.url:
            raise ConfigError("no registry given", field="registry.url", remedy="Give --registry URL.")
        settings = client_settings(options, retries)
        # Slow to load (half a second), and most who come by this module have no registry.
        from confluent_kafka.schema_registry import Schema, SchemaRegistryClient  # noqa: PLC0415

        self._schema = Schema
        logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line for every request otherwise
        try:
            self._client = SchemaRegistryClient.new_client(settings)
        except (ValueError, TypeError, OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"registry: {type(error).__name__} in its TLS files or settings", field="registry"
            ) from None

    def listed(self, names: TopicNames) -> list[Listed]:
        """Every version under our subjects; subjects that are not there have none."""
        return [one for subject, schema in subjects(names).items() for one in self._versions(subject, schema)]

    def _versions(self, subject: str, schema: str) -> list[Listed]:
        with _answers():
            versions = _or_none(lambda: sorted(self._client.get_versions(subject))) or []
            found = [self._client.get_version(subject, version) for version in versions]
        named = [schema if _is_pinned(one.schema.schema_str, schema) else None for one in found]
        last = max((at for at, one in enumerate(named) if one), default=len(named))
        return [
            Listed(subject, versions[at], int(one.schema_id or 0), named[at], newer=at > last)
            for at, one in enumerate(found)
        ]

    def register(self, names: TopicNames) -> list[Registered]:
        """Register what is missing and demand `LEVEL` of every subject; doing it again changes nothing."""
        done = []
        for subject, schema in subjects(names).items():
            had = [one for one in self._versions(subject, schema) if one.schema]
            if self._level(subject) not in (LEVEL, None):
                self._demand(subject)  # before a version is added, which is judged by it
            if had:
                done.append(Registered(subject, schema, had[-1].number, "exists"))
            else:
                with _answers():
                    number = self._client.register_schema(subject, self._schema(pin(schema).text, "AVRO"))
                done.append(Registered(subject, schema, number, "registered"))
            if self._level(subject) != LEVEL:
                self._demand(subject)
        return done

    def _level(self, subject: str) -> str | None:
        with _answers():
            return _or_none(lambda: str(self._client.get_compatibility(subject)))  # None: not there, or the default

    def _demand(self, subject: str) -> None:
        with _answers():
            self._client.set_compatibility(subject, LEVEL)

    def check(self, names: TopicNames) -> list[Drift]:
        """What differs from what this release needs; nothing means that worker and agents may start."""
        found = []
        for subject, schema in subjects(names).items():
            versions = self._versions(subject, schema)
            ours = {one.number for one in versions if one.schema}
            if not versions:
                found.append(Drift(subject, "subject", schema, "missing"))
                continue
            if not ours:
                found.append(Drift(subject, "schema", schema, "differs"))
            if len(ours) > 1:
                found.append(Drift(subject, "ids", "one", ", ".join(map(str, sorted(ours)))))
            if newer := [str(one.version) for one in versions if one.newer]:
                found.append(Drift(subject, "version", schema, f"newer: {', '.join(newer)}"))
            level = self._level(subject)
            if level != LEVEL:
                found.append(Drift(subject, "compatibility", LEVEL, level or "the registry's default"))
        return found

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()


def _or_none(ask: Callable[[], T]) -> T | None:
    """What was asked for, None where there is no such thing."""
    from confluent_kafka.schema_registry.error import SchemaRegistryError  # noqa: PLC0415

    try:
        return ask()
    except SchemaRegistryError as error:
        if error.http_status_code == _NOT_FOUND:
            return None
        raise


@contextmanager
def _answers() -> Iterator[None]:
    """The client's errors as ours. Texts of the registry are shown, cut; the request, which has secrets, never is."""
    from confluent_kafka.schema_registry.error import SchemaRegistryError  # noqa: PLC0415
    from httpx2 import HTTPError  # noqa: PLC0415

    try:
        yield
    except SchemaRegistryError as error:
        status, text = error.http_status_code, str(error.error_message)[:200]
        if status in _TRANSIENT:
            raise RegistryUnreachable(f"the registry answers {status}: {text}") from None
        word = "lets this account in nowhere" if status in _DENIED else "refuses"
        raise RegistryRefused(f"the registry {word} ({status}): {text}") from None
    except HTTPError as error:
        raise RegistryUnreachable(f"the registry does not answer: {type(error).__name__}: {error}"[:300]) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RegistryRefused(f"the answer is not a schema registry's: {type(error).__name__}") from None
