"""The page of a report: one HTML file that loads nothing. What records claim is escaped by the template engine."""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from enclavescale.live import moment
from enclavescale.report.columns import thinned
from enclavescale.report.plots import Plot, domain_plots
from stream_jobs.replay.verdicts import Verdict

TEMPLATES = Path(__file__).parent / "templates"

MAX_PLOTTED = 20
"""Domains with plots."""

PLOTTED_COLUMNS = 1_600
"""Columns drawn of all domains together: a page of many domains is still one that can be sent by mail."""

MAX_TEXT = 400
"""Characters shown of one text."""

SIGNS = {
    Verdict.IDENTICAL: ("identical", "■"),
    Verdict.DIFFERS: ("differs", "◆"),
    Verdict.MISSING: ("missing", "○"),
    Verdict.EXTRA: ("extra", "✕"),
    Verdict.INPUT_LOST: ("lost", "▼"),
    Verdict.PENDING: ("pending", "▲"),
}
"""Class and sign of each verdict; the plot of verdicts has the same shapes."""

MEANINGS = {
    Verdict.IDENTICAL: "What was published is what follows from the log, bit for bit.",
    Verdict.DIFFERS: "Both are there and differ; the fields are named, with both values.",
    Verdict.MISSING: "An output follows from the log, and is not on the topic.",
    Verdict.EXTRA: "On the output topic, and does not follow from the log: forged, altered, or a second answer.",
    Verdict.INPUT_LOST: "What the window rests on is gone, so that it can be neither proven nor disproven.",
    Verdict.PENDING: "Due at the very end of the log, and not published yet.",
}

LEADS = {
    "proven": "Every output of the range follows from the log bit for bit, and nothing was found altered.",
    "altered": "What was published is not what follows from the log, or something was altered: see below, with places.",
    "open": "Nothing was found altered, but not every output could be judged.",
}

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Categories of characters that show nothing, or turn what stands around them."""


def render_page(facts: Mapping[str, Any]) -> str:
    """The page of `report_facts`; the same facts give the same text."""
    css = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    result = facts["result"]
    most = PLOTTED_COLUMNS // max(1, min(MAX_PLOTTED, len(facts["domains"])))
    plotted = [thinned(one["columns"], most) for one in facts["domains"]]
    page = _environment().get_template("report.html.j2")
    text = page.render(
        facts,
        css=Markup(css),  # noqa: S704  ours
        csp=policy,
        lead=LEADS[facts["headline"]["state"]],
        verdicts=[one.value for one in Verdict],
        meanings={one.value: text for one, text in MEANINGS.items()},
        records=sum(one["records"] for one in result["partitions"]),
        different=sum(result["verdicts"].values()) - result["verdicts"].get(Verdict.IDENTICAL.value, 0),
        drawn=[_drawn(one, number) for number, one in enumerate(plotted)],
        thinned=any(one is not domain["columns"] for one, domain in zip(plotted, facts["domains"], strict=True)),
        most_plotted=MAX_PLOTTED,
        reservations=_reservations(facts),
        tcb=_tcb(facts["sessions"]),
        warnings=_warnings(facts["sessions"]),
    )
    return text.lstrip()


def _drawn(columns: Mapping[str, Any], number: int) -> list[dict[str, Any]]:
    wanted = number < MAX_PLOTTED and columns["start_ms"]
    plots: Sequence[Plot] = domain_plots(columns, f"d{number}") if wanted else ()
    return [
        {
            "heading": one.heading,
            "note": one.note,
            "legend": one.legend,
            "wide": Markup(one.wide),  # noqa: S704  a tree that lxml wrote
            "narrow": Markup(one.narrow),  # noqa: S704
        }
        for one in plots
    ]


def _reservations(facts: Mapping[str, Any]) -> list[str]:
    """What a reader of the headline must know besides."""
    found = []
    simulated = sum(one["simulated"] is True for one in facts["sessions"])
    if simulated:
        found.append(
            f"{simulated:,} of {len(facts['sessions']):,} sessions rest on a simulated root of trust: their evidence "
            "says nothing about real hardware."
        )
    unsafe = sorted({switch for one in facts["policies"] if one["outputs"] for switch in one["unsafe"]})
    if unsafe:
        found.append(f"Outputs were made under policies with unsafe switches on: {', '.join(unsafe)}.")
    if not facts["policies"]:
        found.append("No policy on the topic is signed by a signer named below.")
    return found


def _tcb(sessions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], tuple[Counter[str], set[str]]] = {}
    for one in sessions:
        key = (one["tee"] or "–", one["tcb_status"] or f"refused: {one['code']}")
        counts, advisories = found.setdefault(key, (Counter(), set()))
        counts["sessions"] += 1
        advisories.update(one["advisories"])
    return [
        {"tee": tee, "status": status, "sessions": counts["sessions"], "advisories": sorted(advisories)}
        for (tee, status), (counts, advisories) in sorted(found.items())
    ]


def _warnings(sessions: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    counts = Counter(warning for one in sessions for warning in one["warnings"])
    return sorted(counts.items())


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "moment": moment,
        "percent": _percent,
        "epsilon": lambda micro: f"{micro / 1e6:,.6g}",
        "quantity": lambda value, how: _percent(value) if how == "ppm" else _power(value),
        "mark_class": lambda verdict: SIGNS[Verdict(verdict)][0],
        "mark_sign": lambda verdict: SIGNS[Verdict(verdict)][1],
    }
    return environment


def _shown(value: Any) -> Any:
    """Texts without characters that hide or turn others, cut at `MAX_TEXT`; what we wrote ourselves as it is."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    cut = value if len(value) <= MAX_TEXT else f"{value[:MAX_TEXT]}…"
    return "".join(one if unicodedata.category(one) not in _HIDDEN else f"\\u{{{ord(one):x}}}" for one in cut)


def _percent(ppm: int) -> str:
    return f"{ppm / 10_000:,.4g} %"


def _power(power_w: int) -> str:
    size = abs(power_w)
    if size >= 1_000_000:
        return f"{power_w / 1e6:,.3f} MW"
    return f"{power_w / 1e3:,.2f} kW" if size >= 10_000 else f"{power_w:,} W"
