"""Policy documents: TOML or JSON that people edit, read strictly into the `Policy` that is signed, and written back.

Keys are the fields of `avsc/SignedPolicy.v1.avsc`, which decides about types; bytes are hexadecimal. Points in time may
be written as dates with a zone as well.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import tomllib
import typing
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from schemas import records
from schemas.errors import ConfigError
from schemas.mapping import from_avro, to_jsonable
from schemas.pins import pin
from schemas.records import Policy

MAX_DOCUMENT_BYTES = 32 << 20
"""Largest document read, bytes: 10,000 hosts take some 6 MB."""

REMEDY = "docs/policy.md has every field; `enclavescale policy init` writes a complete template."

AT_ISSUE = ("counter", "issued_at_ms", "not_after_ms")
"""What signing fills in where a document leaves it out (0 until then)."""

MOMENTS = ("issued_at_ms", "effective_from_ms", "not_after_ms")
"""Fields of a policy that are points in time."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHOWN = 60
_RANGES = {"int": 2**31, "long": 2**63}
_PEM = "-----BEGIN CERTIFICATE-----"
_WORDS = {str: "text", bool: "true or false", int: "an integer", list: "an array", dict: "a table", float: "a fraction"}


def read_document(path: Path) -> Policy:
    """The policy that a document states: TOML, or JSON with the suffix `.json`. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", field="source") from error
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ConfigError(f"{path}: more than {MAX_DOCUMENT_BYTES} bytes", field="source")
    return parse_document(data, as_json=path.suffix == ".json", name=str(path))


def parse_document(data: bytes, *, as_json: bool, name: str = "the document") -> Policy:
    """The policy of a document's bytes (UTF-8). Raises ConfigError naming the field, and nothing else."""
    try:
        text = data.decode("utf-8-sig")
        table = json.loads(text, object_pairs_hook=_unique) if as_json else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        kind = "JSON" if as_json else "TOML"
        raise ConfigError(f"{name} is not {kind}: {error}"[:300], field="source", remedy=REMEDY) from error
    if not isinstance(table, dict):
        raise ConfigError(f"{name} is not a table", field="source", remedy=REMEDY)
    return policy_of(table)


def policy_of(table: Mapping[str, Any]) -> Policy:
    """The policy that a table states: every field known, there and of its type. Raises ConfigError naming the field.

    Where `AT_ISSUE` are left out they are 0; other fields that may be left out have a default in the schema's record.
    """
    return from_avro(Policy, _record(schema(), table, ""))


def schema() -> dict[str, Any]:
    """The Avro schema of the record `Policy`, with its documentation."""
    found: dict[str, Any] = pin("SignedPolicy").raw["fields"][0]["type"]
    return found


def to_json(policy: Policy) -> str:
    """The document of a policy as JSON."""
    return json.dumps(to_jsonable(policy), indent=1, ensure_ascii=False) + "\n"


def to_toml(policy: Policy, *, comments: bool = True) -> str:
    """The document of a policy as TOML; with `comments` each field is explained where it stands first."""
    fields = schema()["fields"]
    scalars = [one for one in fields if not _holds_tables(one["type"]) and one["type"] != _limits()]
    lines: list[str] = []
    for one in scalars:
        name = one["name"]
        if name in AT_ISSUE and not getattr(policy, name):
            lines += [f"# {name} = …  # filled in by signing"] if comments else []
        else:
            lines += _line(one, getattr(policy, name), comments, moment=name in MOMENTS)
    empty = [one for one in fields if _holds_tables(one["type"]) and not getattr(policy, one["name"])]
    for one in empty:
        lines += _line(one, (), comments)
    lines += ["", "[limits]"]
    for one in _limits()["fields"]:
        lines += _line(one, getattr(policy.limits, one["name"]), comments)
    for one in fields:
        if _holds_tables(one["type"]):
            for number, record in enumerate(getattr(policy, one["name"])):
                lines += _block(one, record, comments and number == 0)
    return "\n".join(lines) + "\n"


def utc(moment_ms: int) -> str:
    """UTC milliseconds as ISO 8601; those beyond the calendar as a number."""
    try:
        text = (_EPOCH + timedelta(milliseconds=moment_ms)).isoformat(timespec="milliseconds")
    except OverflowError:
        return str(moment_ms)
    return text.replace("+00:00", "Z").replace(".000Z", "Z")


# -- reading ---------------------------------------------------------------------------------------------------


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(name for number, (name, _) in enumerate(pairs) if name in dict(pairs[:number]))
        raise ValueError(f"the key {twice!r} stands twice in one table")
    return found


@cache
def _defaults(name: str) -> dict[str, Any]:
    """Values of what may be left out of a record: those that its dataclass has."""
    cls: Any = getattr(records, name)
    found = {one.name: one.default for one in dataclasses.fields(cls) if one.default is not dataclasses.MISSING}
    return {**found, **dict.fromkeys(AT_ISSUE, 0)} if name == "Policy" else found


def _wrong(path: str, what: str, remedy: str = REMEDY) -> ConfigError:
    return ConfigError(f"{path}: {what}", field=path, remedy=remedy)


def _record(declared: Mapping[str, Any], value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(path, f"a table is expected, not {_word(value)}")
    prefix = f"{path}." if path else ""
    names = [one["name"] for one in declared["fields"]]
    for key in value:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, 1)
            hint = f"Did you mean {near[0]}?" if near else f"Known here: {', '.join(names)}."
            shown = ascii(key)[1:-1][:_SHOWN]
            raise _wrong(f"{prefix}{shown}", "unknown key", f"{hint} {REMEDY}")
    defaults, found = _defaults(declared["name"]), {}
    for one in declared["fields"]:
        name = one["name"]
        where = f"{prefix}{name}"
        if name in value:
            found[name] = _value(one["type"], value[name], where)
        elif name in defaults:
            found[name] = defaults[name]
        else:
            raise _wrong(where, "missing", f"{one['doc']} {REMEDY}")
    return found


def _value(declared: Any, value: Any, path: str) -> Any:
    if isinstance(declared, list):  # a union with null: what is left out is null
        return None if value is None else _value(next(one for one in declared if one != "null"), value, path)
    if isinstance(declared, dict) and declared["type"] == "record":
        return _record(declared, value, path)
    if isinstance(declared, dict):
        if not isinstance(value, list):
            raise _wrong(path, f"an array is expected, not {_word(value)}")
        return [_value(declared["items"], one, f"{path}[{number}]") for number, one in enumerate(value)]
    if declared in _RANGES:
        return _integer(declared, value, path)
    if declared == "boolean":
        if not isinstance(value, bool):
            raise _wrong(path, f"true or false is expected, not {_word(value)}")
        return value
    text = _text(value, path)
    return _bytes(text, path) if declared == "bytes" else text


def _integer(declared: str, value: Any, path: str) -> int:
    if path in MOMENTS and isinstance(value, datetime | str):
        value = _moment(value, path)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(path, f"an integer is expected, not {_word(value)}")
    if not -_RANGES[declared] <= value < _RANGES[declared]:
        raise _wrong(path, f"{str(value)[:_SHOWN]} does not fit: {declared} of Avro")
    return value


def _moment(value: datetime | str, path: str) -> int:
    remedy = f"Write UTC milliseconds, or a date with time and zone: 2026-01-31T12:00:00Z. {REMEDY}"
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise _wrong(path, "a point in time without a zone", remedy)
        since = moment - _EPOCH
    except (ValueError, OverflowError) as error:
        raise _wrong(path, "not a point in time", remedy) from error
    if since % timedelta(milliseconds=1):
        raise _wrong(path, "milliseconds are as fine as it goes", remedy)
    return since // timedelta(milliseconds=1)


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise _wrong(path, f"text is expected, not {_word(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _wrong(path, "text with half of a surrogate pair, which UTF-8 does not have") from error
    return value


def _bytes(text: str, path: str) -> bytes:
    if text.lstrip().startswith(_PEM):
        try:
            return x509.load_pem_x509_certificate(text.encode()).public_bytes(Encoding.DER)
        except ValueError as error:
            raise _wrong(path, "a PEM block that holds no certificate") from error
    if len(text) % 2 or re.fullmatch("[0-9a-fA-F]*", text) is None:
        raise _wrong(path, "bytes are written in hexadecimal, two digits each and nothing else")
    return bytes.fromhex(text)


def _word(value: Any) -> str:
    return next((word for kind, word in _WORDS.items() if isinstance(value, kind)), "this")


# -- writing ---------------------------------------------------------------------------------------------------


@cache
def _limits() -> dict[str, Any]:
    found: dict[str, Any] = next(one["type"] for one in schema()["fields"] if one["name"] == "limits")
    return found


def _holds_tables(declared: Any) -> bool:
    return isinstance(declared, dict) and isinstance(declared.get("items"), dict)


def _line(declared: Mapping[str, Any], value: Any, comments: bool, *, moment: bool = False) -> list[str]:
    if value is None:
        return []
    text = f"{declared['name']} = {_toml(value)}" + (f"  # {utc(value)}" if moment else "")
    return [f"# {declared['doc']}", text] if comments else [text]


def _block(declared: Mapping[str, Any], record: Any, comments: bool) -> list[str]:
    lines = ["", *([f"# {declared['doc']}"] if comments else []), f"[[{declared['name']}]]"]
    for one in declared["type"]["items"]["fields"]:
        lines += _line(one, getattr(record, one["name"]), comments)
    return lines


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, bytes):
        return f'"{value.hex()}"'
    if isinstance(value, str):  # TOML's escapes are JSON's, and a raw DEL is no TOML
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if dataclasses.is_dataclass(value):
        held = ((one.name, getattr(value, one.name)) for one in dataclasses.fields(value))
        return "{ " + ", ".join(f"{name} = {_toml(one)}" for name, one in held if one is not None) + " }"
    items = [_toml(one) for one in typing.cast(tuple[Any, ...], value)]
    if items and dataclasses.is_dataclass(value[0]):
        return "[\n" + "".join(f"  {one},\n" for one in items) + "]"
    return f"[{', '.join(items)}]"
