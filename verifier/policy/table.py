"""Read values of a policy file's tables: each key known, each value of its type and size, or `PolicyInvalid`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from schemas.records import RegisterRule
from verifier.errors import PolicyInvalid
from verifier.policy.quote_policy import Bits

_SHOWN_CHARACTERS = 80

T = TypeVar("T")
Read = Callable[[Any, str], T]
"""A value and its key's path to what it means."""


class Keys:
    """A table whose keys are taken one by one; what is left at the end nobody knows."""

    def __init__(self, table: Mapping[str, Any], prefix: str) -> None:
        self._left, self._prefix = dict(table), prefix

    def take(self, key: str, read: Read[Any], default: Any) -> Any:
        """The value of a key as `read` understands it, or `default` where it is not there."""
        if key not in self._left:
            return default
        return read(self._left.pop(key), self._prefix + key)

    def end(self) -> None:
        """`PolicyInvalid` for the first key that nobody took."""
        for key in self._left:
            shown = f"{self._prefix}{ascii(key)[1:-1][:_SHOWN_CHARACTERS]}"
            raise PolicyInvalid(f"unknown key {shown}", field=shown)


def expect(condition: bool, path: str, what: str) -> None:
    """`PolicyInvalid` unless the condition holds."""
    if not condition:
        raise PolicyInvalid(f"{path} is not {what}", field=path)


def flag(value: Any, path: str) -> bool:
    """true or false."""
    expect(isinstance(value, bool), path, "true or false")
    return bool(value)


def text(value: Any, path: str) -> str:
    """Text that is not empty and can be shown: no control characters, no halves of surrogate pairs."""
    expect(isinstance(value, str) and value != "" and value.isprintable(), path, "text that can be shown")
    return str(value)


def table(value: Any, path: str) -> Mapping[str, Any]:
    """A table."""
    expect(isinstance(value, Mapping), path, "a table")
    found: Mapping[str, Any] = value
    return found


def integer(low: int, high: int) -> Read[int]:
    """A number from `low` to `high`."""

    def read(value: Any, path: str) -> int:
        expect(type(value) is int and low <= value <= high, path, f"a number from {low} to {high}")
        return int(value)

    return read


def one_of(choices: tuple[str, ...]) -> Read[str]:
    """One of these texts."""

    def read(value: Any, path: str) -> str:
        expect(isinstance(value, str) and value in choices, path, f"one of {', '.join(sorted(choices))}")
        return str(value)

    return read


def list_of(read: Read[T]) -> Read[tuple[T, ...]]:
    """A list, each value as `read` understands it."""

    def read_all(value: Any, path: str) -> tuple[T, ...]:
        expect(isinstance(value, list | tuple), path, "a list")
        return tuple(read(one, f"{path}[{index}]") for index, one in enumerate(value))

    return read_all


def hexadecimal(size: int | None) -> Read[bytes]:
    """`size` bytes (None: any number) in hexadecimal, with or without 0x."""

    def read(value: Any, path: str) -> bytes:
        expect(isinstance(value, str) and value != "", path, "text")
        try:
            data = bytes.fromhex(value.removeprefix("0x"))
        except ValueError:
            raise PolicyInvalid(f"{path} is not hexadecimal", field=path) from None
        expect(size is None or len(data) == size, path, f"{size} bytes in hexadecimal but {len(data)}")
        return data

    return read


def bits(size: int) -> Read[Bits]:
    """Bytes in hexadecimal, all of which count, or a table of `value` and `mask`."""

    def read(value: Any, path: str) -> Bits:
        if not isinstance(value, Mapping):
            return Bits(value=hexadecimal(size)(value, path), mask=b"\xff" * size)
        keys = Keys(value, f"{path}.")
        expected = keys.take("value", hexadecimal(size), None)
        mask = keys.take("mask", hexadecimal(size), b"\xff" * size)
        keys.end()
        if expected is None:
            raise PolicyInvalid(f"{path}.value is missing", field=f"{path}.value")
        if not any(mask):
            raise PolicyInvalid(f"{path}.mask is zero: everything would match", field=f"{path}.mask")
        return Bits(value=expected, mask=mask)

    return read


def registers_of(keys: Keys, readers: Mapping[str, Read[Bits]]) -> tuple[RegisterRule, ...]:
    """The registers that a measurement names, in the order of `readers`."""
    found = []
    for register, read in readers.items():
        expected: Bits | None = keys.take(register, read, None)
        if expected is not None:
            mask = None if all(byte == 0xFF for byte in expected.mask) else expected.mask
            found.append(RegisterRule(register=register, value=expected.value, mask=mask))
    return tuple(found)
