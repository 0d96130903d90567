"""Small edits that cases are made of; each fails where there is nothing to edit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.forge.rim.judge import Case
from tests.forge.rim.world import DRIVER, value_of

LIE = "ee" * 48
LIE_VALUE = bytes.fromhex(LIE)
INDEX7 = '<ns0:Resource type="Measurement" index="7"'


def case(name: str, code: str, step: str | None, **changes: Any) -> Case:
    """A driver's manifest with one fact changed."""
    return Case(name=name, code=code, step=step, world=DRIVER.but(**changes))


def swap(old: str, new: str, times: int = -1) -> Callable[[str], str]:
    """Replace what must be there, in text."""

    def edit(text: str) -> str:
        if old not in text:
            raise ValueError(f"nothing to replace: {old}")
        return text.replace(old, new, times)

    return edit


def sent(old: str, new: str, times: int = -1) -> Callable[[bytes], bytes]:
    """The same, in the bytes that are delivered."""
    return lambda data: swap(old, new, times)(data.decode()).encode()


def ahead(text: str) -> Callable[[bytes], bytes]:
    """Something in front of the document."""
    return lambda data: text.encode() + data


def root_tag(attribute: str) -> Callable[[str], str]:
    """An attribute more on the root."""
    return swap("<SoftwareIdentity ", f"<SoftwareIdentity {attribute} ")


def lying(body: str) -> str:
    """The document with another value for index 7."""
    return swap(value_of(7).hex(), LIE)(body)
