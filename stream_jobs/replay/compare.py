"""Two records of one schema, field by field."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from stream_jobs.replay.verdicts import MAX_TEXT, Difference, jsonable

MAX_DIFFERENCES = 64
"""Differences named of one output."""


def differences(published: Any, computed: Any, path: str = "") -> tuple[Difference, ...]:
    """Fields in which two records (dataclasses, tuples, plain values) differ, by dotted path."""
    found = []
    for difference in _walk(published, computed, path):
        found.append(difference)
        if len(found) == MAX_DIFFERENCES:
            break
    return tuple(found)


def difference(path: str, published: object, computed: object) -> Difference:
    """One difference."""
    return Difference(field=path, published=_text(published), computed=_text(computed))


def _walk(published: Any, computed: Any, path: str) -> Iterator[Difference]:
    if dataclasses.is_dataclass(published) and type(published) is type(computed):
        for one in dataclasses.fields(published):
            name = f"{path}.{one.name}" if path else one.name
            yield from _walk(getattr(published, one.name), getattr(computed, one.name), name)
    elif isinstance(published, tuple) and isinstance(computed, tuple) and len(published) == len(computed):
        for number, pair in enumerate(zip(published, computed, strict=True)):
            yield from _walk(*pair, f"{path}[{number}]")
    elif published != computed:
        yield difference(path, published, computed)


def _text(value: object) -> str:
    text = json.dumps(jsonable(value))
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"
