"""Strict JSON (RFC 8259), as far as signed collateral needs it: one object, UTF-8, every key once, integers only.

Two readers of a document must see the same thing: a key that stands twice, a number that is no integer, NaN or text
after the end is refused, not interpreted. Signatures cover bytes as delivered, so `members` also tells where each
value of an object stands in the text.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from verifier.errors import CollateralMalformed, CollateralTooLarge
from verifier.limits import (
    COUNTED_JSON_BYTES,
    MAX_COLLATERAL_BYTES,
    MAX_INTEGER_CHARACTERS,
    MAX_JSON_CONTAINERS,
    MAX_JSON_DEPTH,
    MAX_JSON_MEMBERS,
)

_SHOWN_KEY_CHARACTERS = 40
_SPACE = re.compile(r"[ \t\n\r]*")

NOT_READ = object()
"""Stands for a number that is no integer, in a member that nobody reads."""


@dataclass(frozen=True, slots=True)
class Member:
    """A value of an object and the text between `start` and `stop` it was read from."""

    value: Any
    start: int
    stop: int


def loads(
    data: bytes | str, field: str, limit: int = MAX_COLLATERAL_BYTES, *, any_number: bool = False
) -> dict[str, Any]:
    """The members of the object that is all of `data`; objects inside are still to be read by `members_of`.

    With `any_number`, for what nobody signed, a number that is no integer is read as `NOT_READ`, not refused.
    Raises `CollateralMalformed` or `CollateralTooLarge`, naming `field`.
    """
    text = decode(data, field, limit)
    try:
        value = (_WRAPPER_DECODER if any_number else _decoder(text)).decode(text)
    except (ValueError, RecursionError) as error:
        raise CollateralMalformed(f"{field}: {_cause(error)}", field=field) from None
    return members_of(value, field)


def _value(text: str) -> Any:
    """What all of `text` says. Documents begin and end with their object: the search for white space is left out."""
    decoder = _decoder(text)
    if text.startswith("{"):
        value, stop = decoder.raw_decode(text)
        if stop == len(text):
            return value
    return decoder.decode(text)


def members_of(value: Any, field: str) -> dict[str, Any]:
    """The members of an object as the decoder leaves it, a tuple of pairs. `CollateralMalformed`.

    TCB info has hundreds of objects with one member each: they are worth reading without a dictionary.
    """
    if type(value) is not tuple:
        raise CollateralMalformed(f"{field}: not a JSON object", field=field)
    found = dict(value)
    if len(found) != len(value):
        check_duplicate_keys(value, field)
    return found


def check_duplicate_keys(pairs: tuple[tuple[str, Any], ...], field: str) -> None:
    """Every key of an object stands once; readers differ about which of two counts. `CollateralMalformed`."""
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise CollateralMalformed(f"{field}: {_twice(name)}", field=field)
        seen.add(name)


def members(text: str, field: str) -> dict[str, Member]:
    """The members of the object that is all of `text`, white space around it allowed, with their places.

    Raises `CollateralMalformed`.
    """
    try:
        return _members(text)
    except (ValueError, RecursionError) as error:
        raise CollateralMalformed(f"{field}: {_cause(error)}", field=field) from None


def decode(data: bytes | str, field: str, limit: int = MAX_COLLATERAL_BYTES) -> str:
    """`data` as text, small enough to be parsed. Raises `CollateralMalformed` or `CollateralTooLarge`."""
    if len(data) > limit:
        raise CollateralTooLarge(f"{field}: {len(data)} bytes, at most {limit}", field=field)
    if isinstance(data, str):
        text = data
        if not _is_unicode(text):
            raise CollateralMalformed(f"{field}: half a surrogate pair is no text", field=field)
    else:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise CollateralMalformed(f"{field}: not UTF-8", field=field) from None
    # Every container and member costs memory, whatever its text is worth; short texts cannot hold too many.
    if len(text) > COUNTED_JSON_BYTES and (
        text.count("{") + text.count("[") > MAX_JSON_CONTAINERS or text.count(",") > MAX_JSON_MEMBERS
    ):
        raise CollateralTooLarge(f"{field}: too many JSON values", field=field)
    return text


def _is_unicode(text: str) -> bool:
    """A JSON string may hold half a surrogate pair, as an escape, which no bytes can stand for."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def check_unread(value: Any, field: str, depth: int = MAX_JSON_DEPTH) -> None:
    """What nobody interprets is still nested at most `depth` deep, and has no key twice. `CollateralMalformed`."""
    layer = [value]
    for _ in range(depth):
        inner: list[Any] = []
        for one in layer:
            if type(one) is tuple:
                inner += members_of(one, field).values()
            elif type(one) is list:
                inner += one
        if not inner:
            return
        layer = inner
    raise CollateralMalformed(f"{field}: nested too deep", field=field)


def _members(text: str) -> dict[str, Member]:
    found: dict[str, Member] = {}
    decoder, at = _decoder(text), _after_space(text, 0)
    if text[at : at + 1] != "{":
        raise ValueError("not a JSON object")
    at = _after_space(text, at + 1)
    while text[at : at + 1] != "}":
        if found:
            if text[at : at + 1] != ",":
                raise ValueError("members without a comma between them")
            at = _after_space(text, at + 1)
        key, at = decoder.raw_decode(text, at)
        at = _after_space(text, at)
        if type(key) is not str or text[at : at + 1] != ":":
            raise ValueError("a member without its name")
        if key in found:
            raise ValueError(_twice(key))
        start = _after_space(text, at + 1)
        value, stop = decoder.raw_decode(text, start)
        found[key] = Member(value, start, stop)
        at = _after_space(text, stop)
    if _after_space(text, at + 1) != len(text):
        raise ValueError("text after the object")
    return found


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _twice(key: str) -> str:
    return f"key {key[:_SHOWN_KEY_CHARACTERS]!r} stands twice"


def _not_an_integer(text: str) -> NoReturn:
    raise ValueError(f"{text[:_SHOWN_KEY_CHARACTERS]} is no integer of ours")


def _cause(error: ValueError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    return f"not JSON: {error}" if isinstance(error, json.JSONDecodeError) else str(error)


def _short_integer(text: str) -> int:
    return int(text) if len(text) <= MAX_INTEGER_CHARACTERS else _not_an_integer(text)


def _decoder(text: str) -> json.JSONDecoder:
    """For long texts one that looks at every number first: reading thousands of digits takes its time."""
    return _DECODER if len(text) <= COUNTED_JSON_BYTES else _CAREFUL_DECODER


_DECODER = json.JSONDecoder(object_pairs_hook=tuple, parse_float=_not_an_integer, parse_constant=_not_an_integer)
_CAREFUL_DECODER = json.JSONDecoder(
    object_pairs_hook=tuple, parse_float=_not_an_integer, parse_constant=_not_an_integer, parse_int=_short_integer
)
_WRAPPER_DECODER = json.JSONDecoder(
    object_pairs_hook=tuple,
    parse_float=lambda text: NOT_READ,
    parse_constant=_not_an_integer,
    parse_int=_short_integer,
)
