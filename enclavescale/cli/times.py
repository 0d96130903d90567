"""Moments and ranges as options: ISO 8601 in UTC, a time before now such as `-2h`, milliseconds since the epoch."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

FORMS = "ISO 8601 (UTC unless it says otherwise), `now`, a time before now such as `-2h`, or milliseconds since 1970"
_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_BEFORE = re.compile(r"-(\d{1,12})(ms|s|m|h|d|w)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LEAST_MS = 10**11
"""Numbers below it, 1973 in milliseconds, are seconds by mistake."""
_MOST_MS = 253_402_300_800_000  # year 10,000


def now_ms() -> int:
    """The wall clock, UTC milliseconds."""
    return time.time_ns() // 1_000_000


def parse_time(text: str, now: int) -> int:
    """A moment, UTC milliseconds; `now` is what relative ones count from. Raises ValueError, with what is wrong."""
    found = _BEFORE.fullmatch(text)
    if text == "now":
        result = now
    elif found:
        result = now - int(found[1]) * _UNITS_MS[found[2]]
    elif re.fullmatch(r"[0-9]{1,20}", text):
        result = int(text)
        if result < _LEAST_MS:
            raise ValueError(f"{text!r} is too small for milliseconds since 1970")
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{text!r} is no moment: give {FORMS}") from None
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        result = (aware - _EPOCH) // timedelta(milliseconds=1)
    if not 0 <= result < _MOST_MS:
        raise ValueError(f"{text!r} lies outside the years 1970 to 9999")
    return result


def _moment(text: str | None, now: int, option: str) -> int | None:
    try:
        return None if text is None else parse_time(text, now)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


def range_options(*, required: bool = True, open_ended: bool = False) -> Callable[[F], F]:
    """Options --from and --to; the command gets `from_ms` and `to_ms`, UTC milliseconds, from_ms < to_ms.

    Without --to the range ends now, or with `open_ended` nowhere: `to_ms` is None. Unless `required`, --from may be
    missing too: `from_ms` is None then.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def wrapped(*args: Any, from_text: str | None, to_text: str | None, **kwargs: Any) -> Any:
            now = now_ms()
            first, end = _moment(from_text, now, "--from"), _moment(to_text, now, "--to")
            if first is not None and end is not None and first >= end:
                raise click.BadParameter("the range must begin before it ends", param_hint="--from")
            return function(*args, from_ms=first, to_ms=end, **kwargs)

        begin = click.option(
            "--from", "from_text", metavar="T", required=required, help=f"Begin of the range of windows: {FORMS}."
        )
        end = click.option(
            "--to",
            "to_text",
            metavar="T",
            default=None if open_ended else "now",
            show_default=not open_ended,
            help="End of the range, not included.",
        )
        return begin(end(wrapped))  # type: ignore[return-value]

    return decorate
