"""What a check found, and what to do about it. A check never raises what a person would have to read as a traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from schemas.errors import EnclaveScaleError

State = Literal["ok", "warn", "fail", "skip"]
"""`skip`: could not be looked at, because something else is missing; says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check. `check` is its stable name, `section.what`; `about`: which of several, such as a host; `found`: what
    is the case; `remedy`: what to do, empty if nothing; `code` where an error with a stable code is behind it."""

    check: str
    state: State
    found: str
    remedy: str = ""
    about: str = ""
    code: str | None = None


Check = Callable[[], Iterator[Finding]]
"""A section: yields what it finds as it goes, so that what came before a time-out is not lost."""


def ok(check: str, found: str, about: str = "") -> Finding:
    """All is well."""
    return Finding(check=check, state="ok", found=found, about=about)


def warn(check: str, found: str, remedy: str, about: str = "", code: str | None = None) -> Finding:
    """The agent will run; somebody should know."""
    return Finding(check=check, state="warn", found=found, remedy=remedy, about=about, code=code)


def fail(check: str, found: str, remedy: str, about: str = "", code: str | None = None) -> Finding:
    """The agent will not run, or what it sends will be refused."""
    return Finding(check=check, state="fail", found=found, remedy=remedy, about=about, code=code)


def skip(check: str, found: str, about: str = "") -> Finding:
    """Not looked at; says for want of what."""
    return Finding(check=check, state="skip", found=found, about=about)


def some(number: int, what: str) -> str:
    """A number and its noun, in the plural unless it is 1."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def failed(check: str, error: EnclaveScaleError, about: str = "") -> Finding:
    """One of our errors as a finding, with its code and its remedy."""
    return fail(check, str(error), error.remedy, about, error.code)
