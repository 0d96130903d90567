"""Dataclasses to Avro data and back: same names, same order, tuples for arrays."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")
Convert = Callable[[Any], Any]


def _identity(value: Any) -> Any:
    return value


@cache
def _reader(hint: Any) -> Convert:
    if dataclasses.is_dataclass(hint):
        return _record_reader(typing.cast(type, hint))
    origin = typing.get_origin(hint)
    if origin is tuple:
        item = _reader(typing.get_args(hint)[0])
        if item is _identity:
            return tuple
        return lambda value: tuple([item(one) for one in value])
    if origin in (types.UnionType, typing.Union):
        inner = _reader(next(arg for arg in typing.get_args(hint) if arg is not type(None)))
        if inner is _identity:
            return _identity
        return lambda value: None if value is None else inner(value)
    return _identity


@cache
def _record_reader(cls: type) -> Convert:
    hints = typing.get_type_hints(cls)
    readers = [(f.name, _reader(hints[f.name])) for f in dataclasses.fields(cls)]
    deep = [(name, read) for name, read in readers if read is not _identity]

    def read_record(value: dict[str, Any]) -> Any:
        for name, read in deep:
            value[name] = read(value[name])
        return cls(**value)

    return read_record


def from_avro(cls: type[T], value: dict[str, Any]) -> T:
    """Build dataclass `cls` from what fastavro decoded under the schema of the same name. Consumes `value`."""
    return typing.cast(T, _record_reader(typing.cast(Any, cls))(value))


@cache
def _writer(hint: Any) -> Convert:
    if dataclasses.is_dataclass(hint):
        return _record_writer(typing.cast(type, hint))
    origin = typing.get_origin(hint)
    if origin is tuple:
        item = _writer(typing.get_args(hint)[0])
        if item is _identity:
            return list
        return lambda value: [item(one) for one in value]
    if origin in (types.UnionType, typing.Union):
        members = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        if all(_writer(member) is _identity for member in members):
            return _identity
        return to_avro  # which member it is, only the value says
    return _identity


@cache
def _record_writer(cls: type) -> Convert:
    # Looking at the type of every value costs more than writing it; the record's own annotations say it once.
    hints = typing.get_type_hints(cls)
    names = tuple(f.name for f in dataclasses.fields(cls))
    deep = [(name, write) for name in names if (write := _writer(hints[name])) is not _identity]

    def write_record(value: Any) -> dict[str, Any]:
        record = {name: getattr(value, name) for name in names}
        for name, write in deep:
            record[name] = write(record[name])
        return record

    return write_record


def to_avro(value: Any) -> Any:
    """Turn a record dataclass into the dicts and lists that fastavro writes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _record_writer(type(value))(value)
    if isinstance(value, tuple):
        return [to_avro(one) for one in value]
    return value


def to_jsonable(value: Any) -> Any:
    """Turn a record dataclass into JSON: bytes become lower-case hexadecimal."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [to_jsonable(one) for one in value]
    if isinstance(value, bytes):
        return value.hex()
    return value


def _from_json(hint: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        cls = typing.cast(type, hint)
        hints = typing.get_type_hints(cls)
        unknown = set(value) - set(hints)
        if unknown:
            raise ValueError(f"unknown field {sorted(unknown)[0]!r} in {cls.__name__}")
        return cls(**{name: _from_json(hints[name], one) for name, one in value.items()})
    if typing.get_origin(hint) is tuple:
        return tuple(_from_json(typing.get_args(hint)[0], one) for one in value)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        inner = next(arg for arg in typing.get_args(hint) if arg is not type(None))
        return None if value is None else _from_json(inner, value)
    if hint is bytes:
        return bytes.fromhex(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ValueError(f"expected {hint.__name__}, got {value!r}")
    return value


def from_jsonable(cls: type[T], value: dict[str, Any]) -> T:
    """Inverse of `to_jsonable`. Raises ValueError, TypeError or KeyError on a document of another shape."""
    return typing.cast(T, _from_json(cls, value))
