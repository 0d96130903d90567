"""What `enclavescale collateral show` shows people: the answer first, then what is wrong, what is missing, the rest.

Drawn from the JSON inventory, so that both say the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

GOOD, DOUBT, BAD, QUIET = "green", "dark_orange3", "bold red", "dim"
SOON_DAYS = 7
"""From so many days before its end an item is marked."""

_SHOWN = 20
"""Items that are not usable shown with their causes."""

_NO_END = "9999-"
"""How the end of a certificate begins that has none (RFC 5280 §4.1.2.5)."""

_ROOMY = 104
"""Columns from which on the items' sources stand beside them."""

_KINDS = {
    "tcb_info": "TCB info",
    "qe_identity": "QE identity",
    "tcb_evaluation_numbers": "TCB numbers",
    "root_ca_crl": "root CA CRL",
    "pck_crl": "PCK CRL",
    "crl": "CRL",
    "tcb_signer": "TCB signing",
    "pck_ca": "PCK CA",
    "pck_certificate": "PCK cert.",
    "root_ca": "root CA",
    "vendor_crl": "CRL",
    "rim": "RIM",
    "ocsp_response": "OCSP response",
    "certificate": "certificate",
    "unknown": "unknown",
}
_STATES = {
    "valid": "genuine and current",
    "expired": "expired",
    "not_yet_valid": "not yet valid",
    "refused": "refused",
    "unreadable": "unreadable",
}


def collateral_screen(inventory: Mapping[str, Any], width: int) -> RenderableType:
    """The whole screen for one inventory (`verifier.inventory.to_json`), `width` columns wide."""
    return Group(*_blocks(inventory, width))


def _blocks(inventory: Mapping[str, Any], width: int) -> Iterator[RenderableType]:
    yield _headline(inventory)
    wrong = [one for one in inventory["items"] if one["state"] != "valid"]
    if wrong:
        yield _block("Not usable", _problems(wrong))
    if inventory["platforms"]:
        yield _block("Platforms", _platforms(inventory["platforms"], inventory["at"]))
    if inventory["items"]:
        yield _block("Items", _items(inventory["items"], inventory["at"], width >= _ROOMY))


def _headline(inventory: Mapping[str, Any]) -> Text:
    count = len(inventory["items"])
    if inventory["ok"]:
        text = Text.assemble(("✔ ALL USABLE", "bold green"), f"  {_plural(count, 'item')}, as of {inventory['at']}")
    elif count:
        states = [f"{n} {_STATES[state]}" for state, n in inventory["states"].items() if n]
        text = Text.assemble(("✘ NOT ALL USABLE", "bold red"), f"  as of {inventory['at']}: {', '.join(states)}")
    else:
        text = Text.assemble(("✘ NOTHING HELD", "bold red"), "  there is no collateral here")
    if inventory["earliest_expiry"] is not None:
        text.append(f"\n  what is usable stays so until {_minute(inventory['earliest_expiry'])}Z")
    return text


def _block(title: str, body: RenderableType) -> RenderableType:
    return Padding(Group(Text(title, "bold"), Padding(body, (0, 0, 0, 2))), (1, 0, 0, 0))


def _problems(wrong: list[Mapping[str, Any]]) -> RenderableType:
    """The first items that are not usable, each with its cause; what to do about a cause once."""
    lines: list[RenderableType] = []
    advised = set()
    for one in wrong[:_SHOWN]:
        lines.append(Text.assemble(("✘ ", BAD), f"{_KINDS[one['kind']]} {_printable(one['subject'])}".rstrip()))
        cause = Text.assemble((one["code"], BAD), f"  {_printable(one['message'])}")
        if one["code"] not in advised:
            cause.append(f"\n{one['remedy']}", QUIET)
        advised.add(one["code"])
        lines.append(Padding(Group(Text(_printable(one["source"]), QUIET, overflow="fold"), cause), (0, 0, 0, 2)))
    if len(wrong) > _SHOWN:
        lines.append(Text(f"… and {len(wrong) - _SHOWN} more; --json lists them all", QUIET))
    return Group(*lines)


def _platforms(platforms: list[Mapping[str, Any]], now: str) -> Table:
    table = _table("", "TEE", "FMSPC", "PCE id", "eval.", "usable until (UTC)", "left", "missing")
    for one in platforms:
        numbers = {
            number for number in (one["tcb_evaluation_number"], one["qe_evaluation_number"]) if number is not None
        }
        table.add_row(
            _sign(one["complete"]),
            one["tee"].upper(),
            one["fmspc"].upper(),
            one["pce_id"].upper(),
            "/".join(str(number) for number in sorted(numbers, reverse=True)),
            _minute(one["expires"]),
            _left(one["expires"], now),
            Text(", ".join(_KINDS[kind] for kind in one["missing"]), BAD),
        )
    return table


def _items(items: list[Mapping[str, Any]], now: str, roomy: bool) -> Table:
    sources = {one["source"] for one in items}
    roomy = roomy and len(sources) > 1  # else the same name in every line
    above = os.path.commonpath({os.path.dirname(source) for source in sources}) if roomy else ""
    table = _table("", "item", "of", "eval.", "until (UTC)", "left", *(["from"] if roomy else []))
    for one in items:
        number = one["evaluation_number"]
        table.add_row(
            _sign(one["state"] == "valid"),
            _KINDS[one["kind"]],
            Text(_printable(one["subject"] or one["source"]), overflow="fold"),
            "" if number is None else str(number),
            _minute(one["next_update"]),
            _left(one["next_update"], now) if one["state"] == "valid" else Text(_STATES[one["state"]], BAD),
            *([Text(_printable(os.path.relpath(one["source"], above)), QUIET, overflow="fold")] if roomy else []),
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=QUIET, pad_edge=False)
    for name in columns:
        folded = name in ("of", "from", "missing")
        table.add_column(
            name, no_wrap=not folded, overflow="fold", justify="right" if name in ("left", "eval.") else "left"
        )
    return table


def _printable(text: str) -> str:
    """Names of files and certificates may hold what would command a terminal."""
    return text if text.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _sign(good: bool) -> Text:
    return Text("✔", GOOD) if good else Text("✘", BAD)


def _minute(moment: str | None) -> str:
    return "" if moment is None else moment[:16].replace("T", " ")


def _left(moment: str | None, now: str) -> Text:
    if moment is None:
        return Text("")
    if moment.startswith(_NO_END):
        return Text("no end", QUIET)
    left = datetime.fromisoformat(moment) - datetime.fromisoformat(now)
    if left >= timedelta(days=2):
        text = f"{left.days} days"
    else:
        minutes = left // timedelta(minutes=1)
        text = f"{minutes // 60} h {minutes % 60:02} min"
    return Text(text, BAD if left < timedelta(0) else DOUBT if left < timedelta(days=SOON_DAYS) else "")


def _plural(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
