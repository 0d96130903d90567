"""Pinned schemas: the exact text of every shipped `.avsc`, its digest, its fingerprint.

Signatures cover the digest of the writer's schema text, so these files never change once released: a change is a
new file with a new version.
"""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

NAMES = (
    "SignedRecord",
    "SignedFleetPower",
    "SignedWindowManifest",
    "SignedPolicy",
    "CollateralItem",
    "SignedBeacon",
    "SessionBinding",
)


@dataclass(frozen=True, slots=True, eq=False)
class SchemaPin:
    """One shipped schema.

    `text`: the file as shipped (UTF-8). `sha256`: digest of `text`, 32 bytes. `fingerprint`: CRC-64-AVRO of the
    parsing canonical form, 8 bytes little-endian as in Avro's single-object encoding. `raw`: the JSON.
    """

    name: str
    version: int
    text: str
    sha256: bytes
    fingerprint: bytes
    raw: dict[str, Any]
    parsed: Any


@cache
def pin(name: str, version: int = 1) -> SchemaPin:
    """Return the pinned schema `name`; KeyError (a programmer's error) if there is none."""
    if name not in NAMES:
        raise KeyError(name)
    text = resources.files("schemas").joinpath("avsc", f"{name}.v{version}.avsc").read_text(encoding="utf-8")
    raw = json.loads(text)
    crc = int(fingerprint(to_parsing_canonical_form(raw), "CRC-64-AVRO"), 16).to_bytes(8, "big")
    # fastavro prints the CRC's bytes in the order they travel: the hexadecimal form is already little-endian.
    return SchemaPin(
        name=name,
        version=version,
        text=text,
        sha256=hashlib.sha256(text.encode()).digest(),
        fingerprint=crc,
        raw=raw,
        parsed=fastavro.parse_schema(copy.deepcopy(raw)),
    )


def _named_types(node: Any, found: dict[str, Any]) -> None:
    if isinstance(node, list):
        for branch in node:
            _named_types(branch, found)
    elif isinstance(node, dict):
        if "name" in node and node.get("type") in ("record", "fixed", "enum"):
            found[node["name"]] = node
        for key in ("fields", "items", "type", "values"):
            if isinstance(node.get(key), list | dict):
                _named_types(node[key], found)


def _inline(node: Any, types: dict[str, Any], done: set[str]) -> Any:
    if isinstance(node, str):
        return _inline(types[node], types, done) if node in types and node not in done else node
    if isinstance(node, list):
        return [_inline(branch, types, done) for branch in node]
    if "name" in node and node.get("type") in ("record", "fixed", "enum"):
        if node["name"] in done:
            return node["name"]
        done.add(node["name"])
    result = dict(node)
    for key in ("items", "values"):
        if key in result:
            result[key] = _inline(result[key], types, done)
    if isinstance(result.get("type"), list | dict) or result.get("type") in types:
        result["type"] = _inline(result["type"], types, done)
    if "fields" in result:
        result["fields"] = [_inline(field, types, done) for field in result["fields"]]
    return result


@cache
def part(name: str, *path: str) -> Any:
    """Parsed schema of one part of a pinned schema, wrapped in a record with the single field `value`.

    `path` names fields from the top (`part("SignedRecord", "evidence")`). A record adds no bytes of its own, so the
    wrapped part reads and writes exactly the bytes it has inside the whole.
    """
    raw = pin(name).raw
    types: dict[str, Any] = {}
    _named_types(raw, types)
    node: Any = raw
    for step in path:
        if isinstance(node, list):
            node = next(branch for branch in node if branch != "null")
        if isinstance(node, str):
            node = types[node]
        node = next(field["type"] for field in node["fields"] if field["name"] == step)
    wrapper = {
        "type": "record",
        "name": "Part",
        "namespace": raw["namespace"],
        "fields": [{"name": "value", "type": _inline(node, types, set())}],
    }
    return fastavro.parse_schema(wrapper)


def by_fingerprint() -> dict[bytes, SchemaPin]:
    """Table of pinned schemas by fingerprint."""
    return {pin(name).fingerprint: pin(name) for name in NAMES}
