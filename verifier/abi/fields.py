"""Typed members of JSON objects: present, of the right type and size, or refused with their name."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NoReturn

from verifier.abi.json import members_of
from verifier.errors import CollateralMalformed
from verifier.limits import MAX_LABEL_CHARACTERS

MAX_U16, MAX_U32 = 0xFFFF, 0xFFFF_FFFF

_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_MOMENT_CHARACTERS = 20


def refuse(field: str, why: str) -> NoReturn:
    """Raise `CollateralMalformed` for `field`."""
    raise CollateralMalformed(f"{field}: {why}", field=field)


def member(parent: dict[str, Any], name: str, kind: type, field: str) -> Any:
    """The member `name`, of exactly the type `kind`: True is no integer. `CollateralMalformed`."""
    value = parent.get(name)
    if type(value) is not kind:
        refuse(f"{field}.{name}", f"not of type {kind.__name__}" if name in parent else "missing")
    return value


def inner(parent: dict[str, Any], name: str, field: str) -> dict[str, Any]:
    """The members of the object `name`. `CollateralMalformed`."""
    if name not in parent:
        refuse(f"{field}.{name}", "missing")
    return members_of(parent[name], f"{field}.{name}")


def unsigned(parent: dict[str, Any], name: str, maximum: int, field: str) -> int:
    """An integer from 0 to `maximum`. `CollateralMalformed`."""
    value: int = member(parent, name, int, field)
    if not 0 <= value <= maximum:
        refuse(f"{field}.{name}", f"not in 0 to {maximum}")
    return value


def hexadecimal(parent: dict[str, Any], name: str, size: int, field: str) -> bytes:
    """`size` bytes in hexadecimal digits of either case, nothing between them. `CollateralMalformed`."""
    text: str = member(parent, name, str, field)
    try:
        value = bytes.fromhex(text) if len(text) == 2 * size else b""
    except ValueError:
        value = b""
    if len(value) != size:
        refuse(f"{field}.{name}", f"not {size} bytes of hexadecimal")
    return value


def date(parent: dict[str, Any], name: str, field: str) -> int:
    """A moment written YYYY-MM-DDThh:mm:ssZ, as UTC milliseconds. `CollateralMalformed`."""
    text: str = member(parent, name, str, field)
    found = _milliseconds(text) if len(text) == _MOMENT_CHARACTERS else None
    if found is None:
        refuse(f"{field}.{name}", "not a moment YYYY-MM-DDThh:mm:ssZ")
    return found


def moment(moment_ms: int) -> str:
    """UTC milliseconds as such a text, for people and JSON; what no calendar holds, as a number."""
    try:
        return datetime.fromtimestamp(moment_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{moment_ms} ms"


def label(text: object) -> str | None:
    """A short text of printable ASCII, safe to show to people, or None."""
    if type(text) is str and 0 < len(text) <= MAX_LABEL_CHARACTERS and text.isascii() and text.isprintable():
        return text
    return None


@lru_cache(maxsize=1024)
def _milliseconds(text: str) -> int | None:
    if _MOMENT.fullmatch(text) is None:
        return None
    try:
        return int(datetime.fromisoformat(text).timestamp()) * 1000
    except ValueError:  # no such day or hour
        return None
