"""What the screens of verdicts are made of: blocks with a title, long hexadecimal, tables of collateral."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

GOOD, DOUBT, BAD, QUIET = "green", "dark_orange3", "bold red", "dim"
NONE = "—"
LABEL_WIDTH = 13
SOON_DAYS = 7
"""From so many days before collateral expires its row is marked."""

Row = tuple[str, RenderableType]
"""A label and what stands beside it."""

_KINDS = {
    "tcb_info": "TCB info",
    "qe_identity": "QE identity",
    "pck_crl": "PCK CRL",
    "root_ca_crl": "root CA CRL",
    "tcb_signer": "TCB signing",
    "ark_crl": "ARK CRL",
    "rim": "RIM",
    "ocsp_response": "OCSP response",
}


def titled(title: str, body: RenderableType) -> RenderableType:
    """A title, and below it something as wide as there is room."""
    return Padding(Group(Text(title, "bold"), Padding(body, (0, 0, 0, 2))), (1, 0, 0, 0))


def block(title: str, rows: Sequence[Row]) -> RenderableType:
    """A title, and rows below it; without a title only the rows."""
    table = Table.grid(padding=(0, 1))
    table.add_column(min_width=LABEL_WIDTH, no_wrap=True, style=QUIET)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(label, value)
    heading = [Text(title, "bold")] if title else []
    return Padding(Group(*heading, Padding(table, (0, 0, 0, 2))), (1, 0, 0, 0))


def windows(collateral: Mapping[str, Any], roomy: bool) -> Table:
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
            Text(days(one["days_left"]), style),
            *([one["issued"][:10], number] if roomy else []),
        )
    return table


def hexadecimal(value: str, columns: int) -> Text:
    """All of it, in as many even lines as it takes; zeros in a word."""
    if not value.strip("0"):
        return Text("zero", QUIET)
    step = next((one for one in (len(value), 64, 48, 32) if one <= columns and len(value) % one == 0), len(value))
    return Text("\n".join(value[at : at + step] for at in range(0, len(value), step)), overflow="fold")


def days(days: int) -> str:
    """A number of days in words."""
    return f"{days} day" if days == 1 else f"{days} days"
