"""Every field of every record, from the schemas' own text: `python -m tests.house.fields` writes docs/fields.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from schemas.pins import pin
from schemas.topics import TOPICS
from tests.house.compatibility import NAMED
from tests.house.source import ROOT

PAGE = ROOT / "docs" / "fields.md"
HEAD = """# Field reference

Written by `make docs` from `schemas/avsc`; a test compares. One section a topic, in the order of the bytes. How
to read and verify a value stands in [consumers](consumers.md), ids and versions in [schemas](schemas.md).

Names end in their units: `_ms` milliseconds (a time: since 1970, UTC), `_w` watts, `_mw` milliwatts, `_mj` millijoules,
`_hz`, `_ppm` millionths. A value that may be missing has a field `..._absent_reason` beside it that says why.
"""


def render() -> str:
    """The whole page."""
    parts = [HEAD]
    for spec in TOPICS:
        if spec.schema is None:
            parts.append(f"\n## {spec.name}\n\n{spec.description} Headers: `schemas/asyncapi.json`.\n")
            continue
        parts.append(f"\n## {spec.name}\n\n{spec.description} Key: {spec.key}. Value: `{spec.schema}`.\n")
        parts += [_section(record) for record in _records(pin(spec.schema).raw, set())]
    return "".join(parts)


def _section(record: dict[str, Any]) -> str:
    title = f"\n### {record['name']}\n\n{_text(record)}\n"
    if record["type"] == "fixed":
        return title
    rows = [f"| `{one['name']}` | {_type(one['type'])} | {_text(one)} |\n" for one in record["fields"]]
    return f"{title}\n| field | type | meaning |\n|---|---|---|\n{''.join(rows)}"


def _text(node: dict[str, Any]) -> str:
    return " ".join(str(node.get("doc", "")).split()).replace("|", "\\|")


def _records(node: Any, seen: set[str]) -> Iterator[dict[str, Any]]:
    """Records in the order in which they are met, each once a schema."""
    if isinstance(node, list):
        for one in node:
            yield from _records(one, seen)
    elif isinstance(node, dict):
        if node.get("type") == "record" and node["name"] not in seen:
            seen.add(node["name"])
            yield node
            for field in node["fields"]:
                yield from _records(field["type"], seen)
        for key in ("items", "values", "type"):
            if isinstance(node.get(key), list | dict):
                yield from _records(node[key], seen)


def _type(node: Any) -> str:
    """A type in words; null is said as `optional`."""
    if isinstance(node, str):
        return node.rpartition(".")[2]
    if isinstance(node, list):
        words = " or ".join(_type(one) for one in node if one != "null")
        return f"{words}, optional" if "null" in node else words
    if node["type"] == "fixed":
        return f"{node['size']} bytes"
    if node["type"] in NAMED:
        return str(node["name"])
    if node["type"] == "array":
        return f"list of {_type(node['items'])}"
    if node["type"] == "map":
        return f"map of {_type(node['values'])}"
    return _type(node["type"])


if __name__ == "__main__":
    PAGE.write_text(render())
    print(f"wrote {PAGE.relative_to(ROOT)}")
