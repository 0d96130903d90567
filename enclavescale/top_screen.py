"""The state of the page for a terminal: what is wrong first, then one row per domain. No meaning by colour alone.

Everything is laid out for the width there is: columns are left out, never cut. Of text that a record claims, characters
that a terminal acts on are shown by number.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from enclavescale.live import BANNER, GAP, NONE, SIMULATED_SHORT, TREND, moment, number, refused_line, unit_of
from stream_jobs.web.card import P99_PPM, POINT_FIELDS
from stream_jobs.web.problems import span

SIGNS = {"fine": "✓", "trouble": "✗", "watch": "!", "waiting": "…"}
STYLES = {"fine": "green", "trouble": "bold red", "watch": "dark_orange3", "waiting": ""}
MARKS = {"fine": "✓", "trouble": "✗ act", "watch": "! look"}
UNCHECKED = "NOT VERIFIED: no --policy-signer was given."
PROBLEMS = 6
"""Lines of what is wrong beside the worst; the rest is counted."""

MAX_ROWS = 40
MAX_LABEL, MIN_TREND, MAX_TREND = 24, 8, 40
_MEAN = POINT_FIELDS.index("mean_w")
_UNSEEN = {"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"}


def plain(text: str) -> str:
    """A text whose characters a terminal would act on, or that hide themselves, are shown by number."""
    return "".join(f"\\u{{{ord(one):x}}}" if unicodedata.category(one) in _UNSEEN else one for one in text)


@dataclass(frozen=True, slots=True)
class _Column:
    key: str
    head: str
    cells: int
    left: bool = False
    drop: int = 0
    """Order in which columns leave a narrow screen; 0 never."""


def _columns(width: int, unit: str, names: Sequence[str]) -> list[_Column]:
    wanted = [
        _Column("state", "state", 6, left=True),
        _Column("domain", "domain", min(MAX_LABEL, max([6, *map(len, names)])), left=True),
        _Column("mean", f"mean, {unit}", 9),
        _Column("p99", f"p99, {unit}", 9, drop=2),
        _Column("limit", f"limit, {unit}", 9, drop=3),
        _Column("margin", f"margin, {unit}", 10),
        _Column("interval", "95 % interval", 18, left=True, drop=1),
        _Column("hosts", "hosts", 9),
        _Column("age", "age", 9),
        _Column("output", "output", 12, left=True, drop=4),
    ]
    for step in (2, 3, 1, 4):
        if sum(one.cells + GAP for one in wanted) > width:
            wanted = [one for one in wanted if one.drop != step]
    left = width - sum(one.cells + GAP for one in wanted)
    return [*wanted, _Column("trend", "mean", min(left, MAX_TREND), left=True)] if left >= MIN_TREND else wanted


def _trend(points: Sequence[Sequence[Any]], cells: int) -> str:
    means = [one[_MEAN] for one in points if one[_MEAN] is not None][-cells:]
    if not means:
        return ""
    low, width = min(means), max(1, max(means) - min(means))
    return "".join(TREND[(value - low) * (len(TREND) - 1) // width] for value in means)


def _label(name: str, cells: int) -> str:
    shown = plain(name)
    return shown if len(shown) <= cells else "…" + shown[1 - cells :]


def _level(state: Mapping[str, Any], domain: str) -> str:
    levels = {one["level"] for one in state["problems"] if one["domain"] == domain}
    return "trouble" if "trouble" in levels else "watch" if levels else "fine"


def _trust(facts: Mapping[str, Any]) -> str:
    if facts["trust"] != "verified":
        return "? unverified"
    return "✗ chain" if facts["chain"] == "broken" else "✓ verified"


def _row(state: Mapping[str, Any], facts: Mapping[str, Any], size: int) -> dict[str, str | Text]:
    output, level = facts["output"], _level(state, facts["domain"])
    margin, mean = output["margin"]["margin"], output["mean"]
    p99 = next((one["estimate"] for one in output["quantiles"] if one["quantile_ppm"] == P99_PPM), None)
    ends = [number(margin[end], size, signed=True) for end in ("low_w", "high_w")] if margin else []
    return {
        "state": Text(MARKS[level], style=STYLES[level]),
        "mean": number(mean["value_w"], size) if mean else NONE,
        "p99": number(p99["value_w"], size) if p99 else NONE,
        "limit": number(output["margin"]["limit_w"], size),
        "margin": number(margin["value_w"], size, signed=True) if margin else "withheld",
        "interval": f"[{', '.join(ends)}]" if ends else "",
        "hosts": f"{output['coverage']['reporting_hosts']}/{output['coverage']['enrolled_hosts']}",
        "age": span(state["now_ms"] - facts["published_ms"]),
        "output": _trust(facts),
    }


def domain_table(state: Mapping[str, Any], width: int) -> Table:
    """One row per domain, at most `width` cells wide and `MAX_ROWS` high."""
    domains = state["domains"][:MAX_ROWS]
    unit, size = unit_of(one["output"]["margin"]["limit_w"] for one in domains)
    columns = _columns(width, unit, [plain(one["domain"]) for one in domains])
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0), header_style="bold")
    for one in columns:
        justify: Any = "left" if one.left else "right"
        grid.add_column(one.head, justify=justify, width=one.cells, no_wrap=True, overflow="crop")
    for facts in domains:
        row = _row(state, facts, size)
        row["domain"] = _label(facts["domain"], columns[1].cells)
        if columns[-1].key == "trend":
            row["trend"] = Text(_trend(facts["points"], columns[-1].cells), style="cyan")
        grid.add_row(*(row[one.key] for one in columns))
    return grid


def _banners(state: Mapping[str, Any], width: int) -> list[RenderableType]:
    shown = [SIMULATED_SHORT] if state["simulated"] else []
    shown += [] if state["checked"] else [UNCHECKED]
    return [Text(f" {one} ".ljust(width), style=BANNER, no_wrap=True, overflow="crop") for one in shown]


def _problems(state: Mapping[str, Any]) -> list[RenderableType]:
    level = state["level"]
    style = f"bold {STYLES[level]}".strip()
    lines: list[RenderableType] = [Text(f"{SIGNS[level]} {plain(state['headline'])}", style=style)]
    problems = state["problems"]
    if problems and level != "waiting":
        lines.append(Text(f"  {plain(problems[0]['todo'])}"))
        problems = problems[1:]
    for one in problems[:PROBLEMS]:
        lines.append(Text(f"{MARKS[one['level']]:<7}{plain(one['text'])}", style=STYLES[one["level"]]))
    if len(problems) > PROBLEMS:
        lines.append(Text(f"       and {len(problems) - PROBLEMS} more: see the page, or --json"))
    return lines


def _facts(state: Mapping[str, Any], width: int) -> list[RenderableType]:
    recent = {one["code"]: one["recent"] for one in state["refused"]["codes"] if one["recent"]}
    minutes = state["refused"]["span_ms"] // 60_000
    rows = [("refused", f"in {minutes} min: {refused_line(recent, width - 24)}")]
    newest = state["refused"]["newest"]
    if newest:
        last = newest[0]
        partition, offset = ("?" if last[name] is None else last[name] for name in ("partition", "offset"))
        place = f"{plain(last['topic']) or '?'}[{partition}] offset {offset}"
        rows.append(("", f"newest {last['code']} at {place}, {moment(last['at_ms'])}"))
    policy, collateral = state["policy"], state["collateral"]
    if policy is not None:
        rows.append(("policy", f"{policy['counter']}, until {moment(policy['not_after_ms'])}"))
    if collateral["used"] and collateral["ends_ms"] is not None:
        rows.append(("collateral", f"until {moment(collateral['ends_ms'])}"))
    for one in state["aggregators"][:3]:
        root = f"{plain(one['root'])}{' (simulated)' if one['simulated'] else ''}"
        rows.append(("signed by", f"{plain(one['host_id'])}, {root}, until {moment(one['evidence_ends_ms'])}"))
    since = state["source"]["stale_since_ms"]
    rows.append(("brokers", f"silent since {moment(since)}" if since is not None else "answer"))
    return [Text.assemble((f"{name:<12}", "bold"), text, no_wrap=True, overflow="ellipsis") for name, text in rows]


def top_screen(state: Mapping[str, Any], width: int) -> RenderableType:
    """The whole state, for a terminal of `width` cells."""
    width -= 1  # terminals differ on a character in the last column
    head = Text.assemble(("EnclaveScale", "bold"), f"   {moment(state['now_ms'])}", no_wrap=True, overflow="crop")
    parts: list[RenderableType] = [head, *_banners(state, width), Text(), *_problems(state), Text()]
    if state["domains"]:
        parts += [domain_table(state, width), Text()]
        if len(state["domains"]) > MAX_ROWS:
            parts.append(Text(f"and {len(state['domains']) - MAX_ROWS} more domains: see the page, or --json"))
    return Group(*parts, *_facts(state, width))
