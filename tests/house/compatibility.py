"""Can a reader's Avro schema read what a writer's wrote? The resolution rules of Avro 1.11, on parsed JSON.

For the released schemas in schemas/avsc; tests/registry/test_compatible.py holds these rules against a registry's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

NAMED = ("record", "error", "fixed", "enum")
PROMOTED = {
    "int": {"int", "long", "float", "double"},
    "long": {"long", "float", "double"},
    "float": {"float", "double"},
    "string": {"string", "bytes"},
    "bytes": {"bytes", "string"},
}
"""Writer's type -> types that read it (Avro 1.11, Schema Resolution)."""


class Schemas:
    """One schema and the types it defines."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.types: dict[str, Any] = {}
        self._collect(raw)

    def _collect(self, node: Any) -> None:
        if isinstance(node, list):
            for one in node:
                self._collect(one)
        elif isinstance(node, dict):
            if node.get("type") in NAMED:
                self.types[node["name"].rpartition(".")[2]] = node
            for key in ("type", "items", "values", "fields"):
                self._collect(node.get(key))

    def resolved(self, node: Any) -> Any:
        """`node` with names and `{"type": X}` replaced by what they stand for."""
        while True:
            if isinstance(node, str) and node.rpartition(".")[2] in self.types:
                node = self.types[node.rpartition(".")[2]]
            elif isinstance(node, dict) and node["type"] not in (*NAMED, "array", "map"):
                node = node["type"]
            else:
                return node


def problems(reader: Any, writer: Any) -> list[str]:
    """Why `reader` cannot read everything `writer` wrote; empty where it can. Places are paths of field names."""
    ours, theirs = Schemas(reader), Schemas(writer)
    return list(_node(ours, theirs, reader, writer, "", frozenset()))


def _node(ours: Schemas, theirs: Schemas, reader: Any, writer: Any, at: str, seen: frozenset[str]) -> Iterator[str]:
    reader, writer = ours.resolved(reader), theirs.resolved(writer)
    if isinstance(writer, list):
        for branch in writer:
            yield from _node(ours, theirs, reader, branch, at, seen)
    elif isinstance(reader, list):
        if not any(not list(_node(ours, theirs, branch, writer, at, seen)) for branch in reader):
            yield f"{at or '/'}: no branch reads {_kind(writer)}"
    elif _kind(reader) != _kind(writer) or isinstance(reader, str):
        if not (isinstance(reader, str) and isinstance(writer, str) and reader in PROMOTED.get(writer, {writer})):
            yield f"{at or '/'}: {_kind(reader)} does not read {_kind(writer)}"
    elif reader["type"] == "array":
        yield from _node(ours, theirs, reader["items"], writer["items"], at + "[]", seen)
    elif reader["type"] == "map":
        yield from _node(ours, theirs, reader["values"], writer["values"], at + "{}", seen)
    else:
        yield from _named(ours, theirs, reader, writer, at, seen)


def _named(ours: Schemas, theirs: Schemas, reader: Any, writer: Any, at: str, seen: frozenset[str]) -> Iterator[str]:
    names = [one["name"].rpartition(".")[2] for one in (reader, writer)]
    if names[0] != names[1] and names[0] not in reader.get("aliases", ()):
        yield f"{at or '/'}: {names[0]} does not read {names[1]}"
    elif reader["type"] == "fixed" and reader["size"] != writer["size"]:
        yield f"{at or '/'}: {reader['size']} bytes do not read {writer['size']}"
    elif reader["type"] == "enum" and not set(writer["symbols"]) <= set(reader["symbols"]) and "default" not in reader:
        yield f"{at or '/'}: symbols are missing"
    elif reader["type"] == "record" and names[0] not in seen:
        written = {one["name"]: one for one in writer["fields"]}
        for field in reader["fields"]:
            found = next(
                (written[name] for name in (field["name"], *field.get("aliases", ())) if name in written), None
            )
            place = f"{at}/{field['name']}"
            if found is not None:
                yield from _node(ours, theirs, field["type"], found["type"], place, seen | {names[0]})
            elif "default" not in field:
                yield f"{place}: not written, and without a default"


def _kind(node: Any) -> str:
    return node if isinstance(node, str) else str(node["type"])
