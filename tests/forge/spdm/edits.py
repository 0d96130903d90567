"""Edits that cases share: of messages before they are signed, and of what was recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

Edit = Callable[[Any], Any]
Recorded = Callable[[list[bytes]], list[bytes]]


def with_(**changes: Any) -> Edit:
    """The message with fields replaced."""
    return lambda message: replace(message, **changes)


def first(edit: Edit) -> Edit:
    """`edit`, of the first message of its class only; made anew for every world."""
    done: list[int] = []

    def apply(message: Any) -> Any:
        done.append(1)
        return edit(message) if len(done) % 2 else message

    return apply


def where(condition: Callable[[Any], bool], edit: Edit) -> Edit:
    """`edit`, of messages that meet `condition`."""
    return lambda message: edit(message) if condition(message) else message


def of_code(messages: list[bytes], code: int) -> list[int]:
    """Indices of messages with `code`."""
    return [index for index, message in enumerate(messages) if message[1] == code]


def flip(code: int, offset: int, which: int = 0, bit: int = 1) -> Recorded:
    """One bit of the message with `code`; negative offsets count from its end."""

    def edit(messages: list[bytes]) -> list[bytes]:
        at = of_code(messages, code)[which]
        changed = bytearray(messages[at])
        changed[offset] ^= bit
        return [*messages[:at], bytes(changed), *messages[at + 1 :]]

    return edit


def cut(code: int, size: int = 1, which: int = 0) -> Recorded:
    """The message without its last bytes."""

    def edit(messages: list[bytes]) -> list[bytes]:
        at = of_code(messages, code)[which]
        return [*messages[:at], messages[at][:-size], *messages[at + 1 :]]

    return edit


def tail(code: int, more: bytes, which: int = 0) -> Recorded:
    """The message with bytes after it."""

    def edit(messages: list[bytes]) -> list[bytes]:
        at = of_code(messages, code)[which]
        return [*messages[:at], messages[at] + more, *messages[at + 1 :]]

    return edit


def without(code: int, which: int = 0) -> Recorded:
    """The exchange whose request has `code`, left out."""

    def edit(messages: list[bytes]) -> list[bytes]:
        at = of_code(messages, code)[which]
        return messages[:at] + messages[at + 2 :]

    return edit


def doubled(code: int, which: int = 0) -> Recorded:
    """The exchange whose request has `code`, once more."""

    def edit(messages: list[bytes]) -> list[bytes]:
        at = of_code(messages, code)[which]
        return messages[: at + 2] + messages[at : at + 2] + messages[at + 2 :]

    return edit


def inserted(before: int, *more: bytes, which: int = 0) -> Recorded:
    """Messages put before the one with code `before`."""

    def edit(messages: list[bytes]) -> list[bytes]:
        at = of_code(messages, before)[which]
        return messages[:at] + list(more) + messages[at:]

    return edit


def exchanged(code: int, other: Callable[[], list[bytes]], which: int = 0, size: int = 2) -> Recorded:
    """The exchange whose request has `code`, out of another transcript."""

    def edit(messages: list[bytes]) -> list[bytes]:
        theirs = other()
        at, there = of_code(messages, code)[which], of_code(theirs, code)[which]
        return messages[:at] + theirs[there : there + size] + messages[at + size :]

    return edit
