"""What `enclavescale verify` shows people: the verdict first, then why, what to do, and the facts behind it.

Drawn from the JSON verdict, so that both say the same. Laid out for the width there is: long values fold, none is cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from verifier.quote_verdict import STAGES

GOOD, DOUBT, BAD, QUIET = "green", "dark_orange3", "bold red", "dim"
NONE = "—"
PLAIN_SIGNS = str.maketrans({"✔": "+", "✘": "x", "·": "-", "←": "<", "—": "-"})
"""For terminals that know only ASCII."""

SOON_DAYS = 7
"""From so many days before collateral expires its row is marked."""

_HEADLINES = {
    "affirming": ("✔ ACCEPTED", "bold green"),
    "none": ("✔ ACCEPTED", "bold green"),
    "warning": ("✔ ACCEPTED, with reservations", "bold dark_orange3"),
    "contraindicated": ("✘ REFUSED", "bold red"),
}
_STAGES = {
    "format": "quote is well-formed",
    "pck_chain": "PCK chain leads to a trusted root",
    "signatures": "quote and quoting enclave are signed by this platform's key",
    "collateral": "collateral is genuine and current",
    "tcb": "not revoked, quoting enclave known, TCB level found",
    "validity": "certificates are valid at this time",
}
_PARTS = {"platform": "platform", "tdx_module": "TDX module", "qe": "quoting enclave"}
_KINDS = {
    "tcb_info": "TCB info",
    "qe_identity": "QE identity",
    "pck_crl": "PCK CRL",
    "root_ca_crl": "root CA CRL",
    "tcb_signer": "TCB signing",
}
_REGISTERS = (
    "mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mrconfigid", "mrowner", "mrownerconfig", "mrservicetd", "mrseam",
    "mrenclave", "mrsigner",
)  # fmt: skip
_LABEL_WIDTH = 13
_ROOMY = 60
"""Columns beside the labels from which on tables show everything."""


def verdict_screen(verdict: Mapping[str, Any], width: int) -> RenderableType:
    """The whole screen for one verdict of `verifier.quote_verdict`, `width` columns wide."""
    return Group(*_blocks(verdict, width - _LABEL_WIDTH - 3))


def _blocks(verdict: Mapping[str, Any], columns: int) -> Iterator[RenderableType]:
    yield _headline(verdict)
    for error in verdict["errors"]:
        yield _block("", _error(error))
    if verdict["warnings"]:
        yield _block("", [("note", Text(one, DOUBT)) for one in verdict["warnings"]])
    claims = verdict["claims"]
    if claims is None:
        yield _block("Verified", _stages(verdict["verified"]))
        return
    if verdict["tcb"] is not None:
        yield _block("TCB", _tcb(verdict["tcb"]))
    if verdict["collateral"]["windows"]:
        heading = Text.assemble(("Collateral", "bold"), ("  ← expires first", QUIET))
        yield Padding(heading, (1, 0, 0, 0))
        yield Padding(_windows(verdict["collateral"], columns >= _ROOMY), (0, 0, 0, 2))
    yield _block("Platform", _platform(claims))
    yield _block("Measured", _measured(claims, columns))


def _headline(verdict: Mapping[str, Any]) -> Text:
    word, style = _HEADLINES[verdict["status"]]
    claims = verdict["claims"]
    what = f"{claims['tee'].upper()} quote v{claims['quote_version']}, " if claims else ""
    text = Text.assemble((word, style), f"  {what}policy {verdict['policy']['name']}, as of {verdict['at']}")
    status = verdict["tcb_status"]
    if status is not None:
        text.append("\n  TCB status ").append(status, _style_of(status))
    return text


def _block(title: str, rows: list[tuple[str, RenderableType]]) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    table.add_column(min_width=_LABEL_WIDTH, no_wrap=True, style=QUIET)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(label, value)
    heading = [Text(title, "bold")] if title else []
    return Padding(Group(*heading, Padding(table, (0, 0, 0, 2))), (1, 0, 0, 0))


def _error(error: Mapping[str, Any]) -> list[tuple[str, RenderableType]]:
    return [
        ("cause", Text(error["code"], BAD)),
        ("", Text(error["message"], overflow="fold")),
        *([("field", Text(error["field"], overflow="fold"))] if error["field"] else []),
        ("remedy", Text(error["remedy"])),
    ]


def _stages(verified: list[str]) -> list[tuple[str, RenderableType]]:
    """Each stage with a sign: held, failed, not reached."""
    rows: list[tuple[str, RenderableType]] = []
    failed = next((stage for stage in STAGES if stage not in verified), None)
    for stage in STAGES:
        sign, style = ("✔", GOOD) if stage in verified else ("✘", BAD) if stage == failed else ("·", QUIET)
        rows.append((stage, Text.assemble((f"{sign} ", style), (_STAGES[stage], "" if sign != "·" else QUIET))))
    return rows


def _tcb(tcb: Mapping[str, Any]) -> list[tuple[str, RenderableType]]:
    rows: list[tuple[str, RenderableType]] = []
    apart = tcb["current"] != tcb["launch"]
    for name in ("launch", "current") if apart else ("launch",):
        state = tcb[name]
        rows.append((name if apart else "status", _status(state)))
        rows += [("", Text.assemble(f"{_PARTS[part['part']]:<16}", _status(part))) for part in state["parts"]]
    advisories = ", ".join(tcb["advisory_ids"]) or "none"
    rows.append(("advisories", Text(advisories)))
    short = _shortfalls(tcb)
    return rows if short is None else [*rows, ("short", short)]


def _status(state: Mapping[str, Any]) -> Text:
    """A status with its date, and how far it is behind."""
    text = Text(state["status"], _style_of(state["status"]))
    if state["tcb_date"] is not None:
        text.append(f"  TCB of {state['tcb_date'][:10]}", QUIET)
    if state.get("superseded") is not None:
        text.append(f", {_days(state['days_behind'])} behind", QUIET)
    return text


def _style_of(status: str) -> str:
    if status == "UpToDate":
        return GOOD
    return BAD if status == "Revoked" or status.startswith("OutOfDate") else DOUBT


def _shortfalls(tcb: Mapping[str, Any]) -> Table | None:
    """What is short, of the TCB at launch and of the one that runs now."""
    rows = {
        (one["component"], one["has"], one["needs"]): None
        for name in ("launch", "current")
        for one in tcb[name]["shortfalls"]
    }
    if not rows:
        return None
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=QUIET, pad_edge=False)
    table.add_column("component", overflow="fold")
    table.add_column("has", justify="right")
    table.add_column("needs", justify="right")
    for component, has, needs in rows:
        table.add_row(component, Text(str(has), BAD), str(needs))
    return table


def _windows(collateral: Mapping[str, Any], roomy: bool) -> Table:
    """What the collateral is, and until when; without room only what counts."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=QUIET, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("next update", no_wrap=True)
    table.add_column("left", justify="right", no_wrap=True)
    if roomy:
        table.add_column("issued", no_wrap=True)
        table.add_column("eval", justify="right", no_wrap=True)
    for one in collateral["windows"]:
        first = one["next_update"] == collateral["earliest_expiry"]
        style = DOUBT if one["days_left"] < SOON_DAYS else ""
        number = NONE if one["evaluation_number"] is None else str(one["evaluation_number"])
        until = one["next_update"][:16].replace("T", " ") + (" ←" if first else "")
        table.add_row(
            _KINDS.get(one["kind"], one["kind"]),
            Text(until, style),
            Text(_days(one["days_left"]), style),
            *([one["issued"][:10], number] if roomy else []),
        )
    return table


def _platform(claims: Mapping[str, Any]) -> list[tuple[str, RenderableType]]:
    root = Text(claims["root"], BAD if claims["simulated"] else "")
    return [
        ("PPID", Text(claims["ppid"])),
        ("instance", Text(claims["platform_instance_id"] or NONE)),
        ("FMSPC", Text(f"{claims['fmspc']}, PCE id {claims['pce_id']}")),
        ("PCK", Text(f"{claims['pck_issuer']}, serial {claims['pck_serial']}", overflow="fold")),
        ("root", root),
    ]


def _measured(claims: Mapping[str, Any], columns: int) -> list[tuple[str, RenderableType]]:
    rows: list[tuple[str, RenderableType]] = []
    if claims["tee"] == "tdx":
        flags = [name for name, value in claims["td_attributes_decoded"].items() if value is True]
        rows.append(
            ("attributes", Text(f"{claims['td_attributes']}  {', '.join(flags)}", BAD if claims["debug"] else ""))
        )
        rows.append(("xfam", Text(claims["xfam"])))
    else:
        debug = "  DEBUG" if claims["debug"] else ""
        rows.append(("attributes", Text(claims["attributes"] + debug, BAD if debug else "")))
        rows.append(("isv", Text(f"product {claims['isvprodid']}, version {claims['isvsvn']}")))
    rows += [(name, _hexadecimal(claims[name], columns)) for name in _REGISTERS if name in claims]
    rows.append(("report data", _hexadecimal(claims["report_data"], columns)))
    return rows


def _hexadecimal(value: str, columns: int) -> Text:
    """All of it, in as many even lines as it takes; zeros in a word."""
    if not value.strip("0"):
        return Text("zero", QUIET)
    step = next((one for one in (len(value), 64, 48, 32) if one <= columns and len(value) % one == 0), len(value))
    return Text("\n".join(value[at : at + step] for at in range(0, len(value), step)), overflow="fold")


def _days(days: int) -> str:
    return f"{days} day" if days == 1 else f"{days} days"
