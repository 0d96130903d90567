"""The ids a registry gave to the pinned schemas: read at the start, kept in a file, known to readers and writers."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from enclavescale.registry.client import Listed, Registry, subjects
from enclavescale.registry.errors import RegistryUnreachable, SchemaNotRegistered
from enclavescale.registry.options import RegistryOptions
from schemas.codec import SINGLE_OBJECT, Framing
from schemas.errors import ConfigError
from schemas.pins import NAMES
from schemas.topics import TopicNames

log = logging.getLogger(__name__)

FORMAT = "enclavescale/schema-ids/1"
MAX_FILE_BYTES = 64 * 1024
MAX_ID = 2**32 - 1


@dataclass(slots=True)
class SchemaIds:
    """Ids of the pinned schemas. `current`: by schema name, the id values are written with. `also`: further ids that
    are read, by id; it only grows."""

    current: dict[str, int] = field(default_factory=dict)
    also: dict[int, str] = field(default_factory=dict)

    def framing(self) -> Framing:
        """A framing that sees `also` grow."""
        return Framing(self.current, self.also)

    def add(self, listed: Iterable[Listed]) -> bool:
        """Take in what a registry lists; returns whether anything is new. A schema's first id is written with."""
        before = (dict(self.current), dict(self.also))
        for one in sorted(listed, key=lambda one: one.number):
            if one.schema is None or self.current.get(one.schema) == one.number:
                continue
            if one.schema in self.current:
                self.also[one.number] = one.schema
            else:
                self.current[one.schema] = one.number
        return before != (self.current, self.also)


def read_ids(path: Path) -> SchemaIds:
    """The ids in a file. Raises ConfigError for anything that is not one, whatever its bytes."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: more than {MAX_FILE_BYTES} bytes", field="ids_file")
        table = json.loads(data)
        if table["format"] != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        named = [(name, number) for name, numbers in table["ids"].items() for number in numbers]
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", field="ids_file") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path}: no file of schema ids: {error}"[:300], field="ids_file") from None
    ids, seen = SchemaIds(), set()
    for name, number in named:
        if name not in NAMES or type(number) is not int or not 0 <= number <= MAX_ID or number in seen:
            raise ConfigError(f"{path}: {name!s:.40} has an id that is none, or is another's", field="ids_file")
        seen.add(number)
        if name in ids.current:
            ids.also[number] = name
        else:
            ids.current[name] = number
    return ids


def write_ids(path: Path, ids: SchemaIds) -> None:
    """Put `ids` into the file in one step: a reader finds the old or the new ones. Raises ConfigError."""
    named = {name: [number] for name, number in sorted(ids.current.items())}
    for number, name in sorted(ids.also.items()):
        named.setdefault(name, []).append(number)
    text = json.dumps({"format": FORMAT, "ids": named}, indent=1) + "\n"
    try:
        handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(scratch, 0o644)  # ids are no secret, and auditors read them under another account
        os.replace(scratch, path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", field="ids_file") from None


def open_ids(options: RegistryOptions, names: TopicNames) -> SchemaIds:
    """The ids to start with: what the registry says beside what the file has, or the file alone; none without both.

    The file is written again where there is something new. Raises ConfigError, RegistryUnreachable (no answer and no
    file), RegistryRefused, SchemaNotRegistered.
    """
    path = Path(options.ids_file) if options.ids_file else None
    if not options.url:
        return read_ids(path) if path is not None else SchemaIds()
    kept = read_ids(path) if path is not None and path.exists() else SchemaIds()
    registry = Registry(options)
    try:
        listed = registry.listed(names)
    except RegistryUnreachable as error:
        missing = [schema for schema in subjects(names).values() if schema not in kept.current]
        if missing or path is None:
            raise
        log.warning("%s: %s. Started with the ids of %s", error.code, error, path)
        return kept
    finally:
        registry.close()
    ids = SchemaIds()
    ids.add(listed)
    missing = [one for one in subjects(names).values() if one not in {found.schema for found in listed}]
    if missing:
        raise SchemaNotRegistered(f"the registry does not have {', '.join(missing)}")
    # What was read once is read for ever; values are written with what the registry says now.
    for number, name in [*((one, name) for name, one in kept.current.items()), *kept.also.items()]:
        if ids.current.get(name) != number:
            ids.also.setdefault(number, name)
    if path is not None and ids != kept:
        write_ids(path, ids)
    return ids


def open_framing(options: RegistryOptions, names: TopicNames) -> Framing:
    """The framing of a command that reads once: whatever is not known at the start is refused. Raises as `open_ids`."""
    if not options.url and not options.ids_file:
        return SINGLE_OBJECT
    return open_ids(options, names).framing()
