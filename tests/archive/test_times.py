"""Moments as options take them."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from enclavescale.cli import main
from enclavescale.cli.times import parse_time

NOW = 1_795_315_165_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("-2h", NOW - 7_200_000),
        ("-90s", NOW - 90_000),
        ("-250ms", NOW - 250),
        ("-1w", NOW - 7 * 86_400_000),
        ("1795000000000", 1_795_000_000_000),
        ("2026-11-22", 1_795_305_600_000),
        ("2026-11-22T03:04:05.678Z", 1_795_316_645_678),
        ("2026-11-22T03:04:05.678999", 1_795_316_645_678),
        ("2026-11-22 05:04+02:00", 1_795_316_640_000),
    ],
)
def test_moments(text: str, expected: int) -> None:
    assert parse_time(text, NOW) == expected


@pytest.mark.parametrize(
    "text", ["", "yesterday", "1795000000", "20261122", "2h", "-2y", "-999999999999w", "0001-01-01", "-h", "9" * 20]
)
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match=repr(text)[1:-1] or "no moment"):
        parse_time(text, NOW)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--from", "-1h", "--to", "-2h"], "must begin before it ends"),
        (["--from", "soon"], "is no moment"),
        ([], "one of them"),
        (["--everything", "--resume"], "one of them"),
        (["--everything", "--until", "x"], "is no moment"),
        (["--everything", "--context", "5"], "--context says nothing here"),
        (["--everything", "--to", "now"], "--to says nothing here"),
        (["--resume", "--until", "now"], "--until says nothing here"),
        (["--from", "-1h", "--digest", "00"], "--digest says nothing here"),
    ],
)
def test_export_says_what_is_wrong_with_a_range(arguments: list[str], what: str) -> None:
    done = CliRunner().invoke(main, ["export", "/nowhere", *arguments])
    assert done.exit_code == 2
    assert what in done.output
