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

from enclavescale.evidence_screen import event_rows, evidence_blocks, name_of, reference_rows
from enclavescale.screen_parts import BAD, DOUBT, GOOD, LABEL_WIDTH, NONE, QUIET, Row, block, days, hexadecimal, windows

_QUOTES = ("sgx", "tdx")
PLAIN_SIGNS = str.maketrans({"✔": "+", "✘": "x", "·": "-", "←": "<", "—": "-"})
"""For terminals that know only ASCII."""

_HEADLINES = {
    "affirming": ("✔ ACCEPTED", "bold green"),
    "none": ("✔ ACCEPTED", "bold green"),
    "warning": ("✔ ACCEPTED, with reservations", "bold dark_orange3"),
    "contraindicated": ("✘ REFUSED", "bold red"),
}
_STAGES = {
    "format": "well-formed",
    "pck_chain": "PCK chain leads to a trusted root",
    "ek_chain": "endorsement key's chain leads to a trusted root",
    "device_chain": "device's chain leads to a trusted root",
    "rim_chain": "signer's chain leads to a trusted root",
    "slot_chain": "one key signed, slots and chain agree",
    "signatures": "signed by this platform's or device's key",
    "nonces": "nonces are the expected ones, none twice",
    "measurements": "measurements are consistent",
    "digest": "content is the one that was signed",
    "collateral": "collateral is genuine and current",
    "reference": "compared with reference values",
    "tcb": "TCB, chip and product fit the key",
    "cpu": "the CPU's evidence holds",
    "devices": "every device's evidence holds, made for this CPU",
    "validity": "certificates are valid at this time",
}
_QUOTE_STAGES = _STAGES | {
    "signatures": "quote and quoting enclave are signed by this platform's key",
    "tcb": "not revoked, quoting enclave known, TCB level found",
}
_PARTS = {"platform": "platform", "tdx_module": "TDX module", "qe": "quoting enclave"}
_REGISTERS = (
    "mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mrconfigid", "mrowner", "mrownerconfig", "mrservicetd", "mrseam",
    "mrenclave", "mrsigner",
)  # fmt: skip
_ROOMY = 60
"""Columns beside the labels from which on tables show everything."""


def verdict_screen(verdict: Mapping[str, Any], width: int) -> RenderableType:
    """The whole screen for one verdict of `verifier.verdicts`, `width` columns wide."""
    return Group(*_blocks(verdict, width - LABEL_WIDTH - 3))


def _blocks(verdict: Mapping[str, Any], columns: int) -> Iterator[RenderableType]:
    yield _headline(verdict)
    for error in verdict["errors"]:
        yield block("", _error(error))
    if verdict["warnings"]:
        yield block("", [("note", Text(one, DOUBT)) for one in verdict["warnings"]])
    claims = verdict["claims"]
    if claims is None:
        if verdict["stages"]:
            yield block("Verified", _stages(verdict))
        yield from _reference(verdict)
        yield from _events(verdict)
        return
    if verdict["kind"] not in _QUOTES:
        yield from evidence_blocks(verdict, columns)
        return
    if verdict["tcb"] is not None:
        yield block("TCB", _tcb(verdict["tcb"]))
    if verdict["collateral"]["windows"]:
        heading = Text.assemble(("Collateral", "bold"), ("  ← expires first", QUIET))
        yield Padding(heading, (1, 0, 0, 0))
        yield Padding(windows(verdict["collateral"], columns >= _ROOMY), (0, 0, 0, 2))
    yield block("Platform", _platform(claims))
    yield block("Measured", _measured(claims, columns))


def _headline(verdict: Mapping[str, Any]) -> Text:
    word, style = _HEADLINES[verdict["status"]]
    claims = verdict["claims"]
    what = f"{name_of(verdict['kind'], claims)}, " if claims else ""
    text = Text.assemble((word, style), f"  {what}policy {verdict['policy']['name']}, as of {verdict['at']}")
    status = verdict.get("tcb_status")
    if status is not None:
        text.append("\n  TCB status ").append(status, _style_of(status))
    return text


def _error(error: Mapping[str, Any]) -> list[Row]:
    return [
        ("cause", Text(error["code"], BAD)),
        ("", Text(error["message"], overflow="fold")),
        *([("field", Text(error["field"], overflow="fold"))] if error["field"] else []),
        ("remedy", Text(error["remedy"])),
    ]


def _stages(verdict: Mapping[str, Any]) -> list[Row]:
    """Each stage with a sign: held, failed, not reached or passed over."""
    rows: list[Row] = []
    verified, stages = verdict["verified"], verdict["stages"]
    words = _QUOTE_STAGES if "pck_chain" in stages else _STAGES
    # A stage that had nothing to look at is passed over: what failed comes behind the last that held.
    reached = max((stages.index(stage) for stage in verified if stage in stages), default=-1) + 1
    failed = stages[reached] if reached < len(stages) else None
    for stage in stages:
        sign, style = ("✔", GOOD) if stage in verified else ("✘", BAD) if stage == failed else ("·", QUIET)
        rows.append((stage, Text.assemble((f"{sign} ", style), (words[stage], "" if sign != "·" else QUIET))))
    return rows


def _reference(verdict: Mapping[str, Any]) -> Iterator[RenderableType]:
    if verdict.get("reference"):
        yield block("Reference", reference_rows(verdict["reference"]))


def _events(verdict: Mapping[str, Any]) -> Iterator[RenderableType]:
    if verdict.get("events"):
        yield block("Signed", event_rows(verdict["events"]))


def _tcb(tcb: Mapping[str, Any]) -> list[Row]:
    rows: list[Row] = []
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
        text.append(f", {days(state['days_behind'])} behind", QUIET)
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


def _platform(claims: Mapping[str, Any]) -> list[Row]:
    root = Text(claims["root"], BAD if claims["simulated"] else "")
    return [
        ("PPID", Text(claims["ppid"])),
        ("instance", Text(claims["platform_instance_id"] or NONE)),
        ("FMSPC", Text(f"{claims['fmspc']}, PCE id {claims['pce_id']}")),
        ("PCK", Text(f"{claims['pck_issuer']}, serial {claims['pck_serial']}", overflow="fold")),
        ("root", root),
    ]


def _measured(claims: Mapping[str, Any], columns: int) -> list[Row]:
    rows: list[Row] = []
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
    rows += [(name, hexadecimal(claims[name], columns)) for name in _REGISTERS if name in claims]
    rows.append(("report data", hexadecimal(claims["report_data"], columns)))
    return rows
