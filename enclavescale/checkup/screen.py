"""The screen of `enclavescale doctor`: for somebody who was woken up. What to fix, in order, stands at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from enclavescale.checkup.doctor import Section, counts
from enclavescale.checkup.finding import Finding, State
from enclavescale.screen_parts import BAD, DOUBT, GOOD, QUIET

MARKS: dict[State, tuple[str, str]] = {
    "ok": ("ok", GOOD),
    "warn": ("warn", DOUBT),
    "fail": ("FAIL", BAD),
    "skip": ("–", QUIET),
}
"""Words, not signs alone: colours are lost in tickets and log files."""

LABEL_WIDTH = 13


def doctor_screen(sections: Sequence[Section], config: Path) -> RenderableType:
    """Every section with its findings, remedies below them; then what to fix."""
    blocks: list[RenderableType] = [_block(one) for one in sections if one.findings]
    return Group(*blocks, _summary(sections, config))


def _block(section: Section) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    table.add_column(min_width=4, no_wrap=True)
    table.add_column(min_width=LABEL_WIDTH, no_wrap=True, style=QUIET)
    table.add_column(overflow="fold")
    for one in _together(section):
        word, style = MARKS[one.state]
        table.add_row(Text(word, style), one.check.partition(".")[2].replace("_", " "), _words(one, section))
    return Padding(Group(Text(section.title, "bold"), Padding(table, (0, 0, 0, 2))), (1, 0, 0, 0))


def _together(section: Section) -> Iterator[Finding]:
    """Findings in order; those that say the same of several things in a row are one."""
    for _, same in groupby(section.findings, lambda one: replace(one, about="")):
        first, *more = same
        names = dict.fromkeys((first.about, *(one.about for one in more)))
        yield replace(first, about=", ".join(filter(None, names)))


def _of(one: Finding, section: Section) -> str:
    return f"{one.about}: " if one.about not in ("", section.host) else ""


def _words(one: Finding, section: Section) -> Text:
    code = f"  {one.code}" if one.code and one.state in ("warn", "fail") else ""
    style = QUIET if one.state == "skip" else ""
    text = Text.assemble((_of(one, section), QUIET), (one.found, style), (code, MARKS[one.state][1]))
    if one.remedy and one.state in ("warn", "fail"):
        text.append(f"\n→ {one.remedy}", "bold" if one.state == "fail" else "")
    return text


def _summary(sections: Sequence[Section], config: Path) -> RenderableType:
    found = counts(sections)
    if not found["fail"]:
        text = "The agent can run." if not found["warn"] else "The agent can run; read the warnings above."
        return Padding(Text.assemble((text, GOOD), f"  {_numbers(found)}"), (1, 0, 0, 0))
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    failures = [(section, one) for section in sections for one in _together(section) if one.state == "fail"]
    for number, (section, one) in enumerate(failures, 1):
        table.add_row(f"{number}.", f"{section.title}: {_of(one, section)}{one.found}")
    heading = Text.assemble(("Fix first, in this order", BAD), f"  {_numbers(found)}")
    again = Text(f"Then: enclavescale doctor --config {config}", QUIET, overflow="fold")
    return Padding(Group(heading, Padding(table, (0, 0, 0, 2)), again), (1, 0, 0, 0))


def _numbers(found: dict[str, int]) -> str:
    words = {"fail": "failed", "warn": "warnings", "ok": "ok", "skip": "not looked at"}
    one = {"warn": "warning"}
    return ", ".join(
        f"{found[state]} {one.get(state, word) if found[state] == 1 else word}"
        for state, word in words.items()
        if found[state]
    )
