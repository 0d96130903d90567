"""The terminal's screen over any state: fits, says the same, and nothing in it acts on the terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from enclavescale.top_screen import MAX_ROWS, PROBLEMS, plain, top_screen
from enclavescale.watching import explain
from tests.web.samples import NOW, judged, output, session
from tests.web.test_board import a_board, a_refusal, put


def drawn(state: dict[str, Any], width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(top_screen(state, width))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_it_fits_and_names_what_is_wrong_first(width: int) -> None:
    board = a_board()
    for number, margin in enumerate((400_000, 10_000, -50_000, None)):
        put(board, output(f"hall-{number}", margin_w=margin), number, worker=session(simulated=True))
    board.take(judged(output("x"), code="SIGNATURE_INVALID"), 0, 9, NOW)
    board.refusal(a_refusal("MALFORMED", 7))
    text = drawn(board.snapshot(NOW), width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    first = next(line for line in lines if line.startswith("✗"))
    assert "hall-2 is over its limit of 2.00 MW by 50.00 kW" in first
    for expected in (
        "SIMULATED",
        "withheld",
        "−0.050",
        "+0.400",
        "✗ act",
        "! look",
        "MALFORMED 1",
        "reports[0] offset 7",
    ):
        assert expected in text


def test_what_is_not_verified_says_so_in_words() -> None:
    board = a_board(checked=False)
    put(board, output(), checked=False)
    text = drawn(board.snapshot(NOW), 120)
    assert "NOT VERIFIED" in text
    assert "? unverified" in text


def test_names_cannot_reach_the_terminal() -> None:
    board = a_board(checked=False)
    name = "\x1b[2J\u202e[red]x[/red]\n"
    put(board, output(name, margin_w=-1), checked=False)
    text = drawn(board.snapshot(NOW), 120)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[red]x[/red]" in text
    assert plain(name) == "\\u{1b}[2J\\u{202e}[red]x[/red]\\u{a}"


def test_many_domains_and_problems_are_counted() -> None:
    board = a_board()
    for number in range(MAX_ROWS + 5):
        put(board, output(f"hall-{number:02}", margin_w=-1), number)
    text = drawn(board.snapshot(NOW), 120)
    assert f"and {MAX_ROWS + 5 - 1 - PROBLEMS} more: see the page" in text
    assert "and 5 more domains" in text
    assert "hall-39" in text
    assert drawn(a_board().snapshot(NOW), 80).count("…") == 1


def test_every_code_of_an_output_that_does_not_verify_is_explained() -> None:
    for code in ("POLICY_OTHER", "POLICY_NOT_IN_FORCE", "SIGNATURE_INVALID", "EVIDENCE_MISSING", "MALFORMED",
                 "WRONG_PARTITION", "OTHER", "WORKER_MISMATCH", "COLLATERAL_OTHER"):  # fmt: skip
        assert "No release" not in explain(code), code
    assert "No release" in explain("INVENTED")
