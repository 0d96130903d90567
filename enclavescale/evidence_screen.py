"""The facts behind a verdict on an SNP report, a GPU or switch, a manifest, an SPDM transcript, or a whole host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from enclavescale.screen_parts import BAD, DOUBT, GOOD, NONE, QUIET, Row, block, hexadecimal, titled, windows

_NAMES = {
    "snp": "SNP report",
    "nvidia-gpu": "GPU report",
    "nvidia-switch": "switch report",
    "nvidia-rim": "RIM",
    "spdm": "SPDM transcript",
    "composite": "host",
}
_SHORT = {"id_key_digest": "ID key", "author_key_digest": "author key"}
"""Labels that would widen the column of labels."""

_ROOMY = 60
"""Columns beside the labels from which on tables show everything."""

_SHOWN = 12
"""Indexes and events a row repeats."""


def name_of(kind: str, claims: Mapping[str, Any]) -> str:
    """What was judged, in words: "TDX quote v4"."""
    if kind in ("sgx", "tdx"):
        return f"{kind.upper()} quote v{claims['quote_version']}"
    if kind == "snp":
        return f"SNP report v{claims['quote_version']} ({claims['product']})"
    if kind in ("nvidia-gpu", "nvidia-switch"):
        return f"{claims['chip']} {_NAMES[kind]}"
    if kind == "nvidia-rim":
        return f"{claims['product']} {claims['kind']} RIM {claims['version']}"
    if kind == "spdm":
        return f"SPDM {claims['spdm_version']} transcript"
    return _NAMES.get(kind, kind)


def evidence_blocks(verdict: Mapping[str, Any], columns: int) -> Iterator[RenderableType]:
    """The blocks below the headline for verified evidence of any kind but quotes in Intel's format."""
    yield from _BLOCKS[verdict["kind"]](verdict, columns)


def _snp(verdict: Mapping[str, Any], columns: int) -> Iterator[RenderableType]:
    claims = verdict["claims"]
    yield titled("TCB", _tcbs(verdict["tcb"]))
    if verdict["collateral"]["windows"]:
        yield titled("Collateral", windows(verdict["collateral"], columns >= _ROOMY))
    key = f"{claims['key_type']}, serial {claims['ek_serial']}, {claims['ek_product_name']}"
    cpuid = claims["cpuid"]
    rows: list[Row] = [
        ("chip id", hexadecimal(claims["chip_id"], columns)),
        ("key", Text(f"{key} under {claims['ek_issuer']}", overflow="fold")),
        *([("provider", Text(claims["csp_id"]))] if claims["csp_id"] else []),
        *([("CPUID", Text(", ".join(f"{name} {value:#x}" for name, value in cpuid.items())))] if cpuid else []),
        ("platform", _flags(claims["platform_info"], claims["platform_info_decoded"])),
        ("revocation", _checked(claims["revocation"])),
        ("root", _root(claims)),
    ]
    yield block("Platform", rows)
    measured: list[Row] = [
        ("policy", _flags(claims["policy"], claims["policy_decoded"], bad=("debug",))),
        ("vmpl, svn", Text(f"VMPL {claims['vmpl']}, guest SVN {claims['guest_svn']}")),
    ]
    names = ("measurement", "host_data", "id_key_digest", "author_key_digest", "report_data")
    measured += [(_SHORT.get(name, name.replace("_", " ")), hexadecimal(claims[name], columns)) for name in names]
    yield block("Measured", measured)


def _tcbs(tcbs: Mapping[str, Any]) -> Table:
    table = _table("", *next(iter(tcbs.values())))
    for name, parts in tcbs.items():
        table.add_row(name, *(NONE if value is None else str(value) for value in parts.values()))
    return table


def _device(verdict: Mapping[str, Any], columns: int) -> Iterator[RenderableType]:
    claims = verdict["claims"]
    yield from _reference(verdict)
    bound = claims["fwid_bound"] == "bound"
    rows: list[Row] = [
        ("driver", Text(claims["driver_version"] or NONE)),
        ("VBIOS", Text(claims["vbios_version"] or NONE)),
        ("mode", Text(claims["mode"])),
        ("board", Text(" ".join(str(claims[name] or NONE) for name in ("project", "project_sku", "chip_sku")))),
        ("key", hexadecimal(claims["key_digest"], columns)),
        ("serial", Text(claims["device_serial"])),
        ("FWID", Text("the firmware is the one its key was issued to", GOOD) if bound else Text("not bound", DOUBT)),
        ("nonce", _nonce(claims["nonce"], claims["nonce_checked"])),
        ("revocation", _checked(claims["revocation"])),
        ("root", _root(claims)),
    ]
    yield block("Device", rows)


def _reference(verdict: Mapping[str, Any]) -> Iterator[RenderableType]:
    if verdict["reference"]:
        yield block("Reference", reference_rows(verdict["reference"]))


def reference_rows(found: Mapping[str, Any]) -> list[Row]:
    """How measurements compare with manifests."""
    match = found["outcome"] == "match"
    outcome = Text("match" if match else "MISMATCH", GOOD if match and found["verified"] else BAD)
    outcome.append(f"  {len(found['compared_indexes'])} compared", QUIET)
    rows: list[Row] = [("outcome", outcome)]
    if found["mismatched_indexes"]:
        shown = ", ".join(map(str, found["mismatched_indexes"][:_SHOWN]))
        more = len(found["mismatched_indexes"]) - _SHOWN
        rows.append(("differing", Text(shown + (f" and {more} more" if more > 0 else ""), BAD)))
    for use in found["manifests"]:
        vouched = use["root"] if use["verified"] else "NOT VERIFIED"
        style = BAD if not use["verified"] else DOUBT if use["override"] else ""
        override = "  OVERRIDE" if use["override"] else ""
        rows.append((use["kind"], Text(f"{use['version']}, {vouched}{override}", style, overflow="fold")))
    return [*rows, *((kind, Text("no manifest", DOUBT)) for kind in found["missing"])]


def _rim(verdict: Mapping[str, Any], columns: int) -> Iterator[RenderableType]:
    claims = verdict["claims"]
    rows: list[Row] = [
        ("for", Text(f"{claims['edition']} {claims['product']}, {claims['kind']} {claims['version']}")),
        ("tag", Text(claims["tag_id"], overflow="fold")),
        ("values", Text(f"{len(claims['reference_values'])} measurements: {_ranges(claims['reference_values'])}")),
        ("digest", Text(claims["digest"], overflow="fold")),
        ("signer", Text(" ← ".join(claims["signers"]), overflow="fold")),
        ("until", Text(str(claims["expires"]))),
        ("root", _root(claims)),
    ]
    yield block("Manifest", rows)


def _ranges(indexes: Mapping[str, Any]) -> str:
    numbers, found = sorted(map(int, indexes)), list[list[int]]()
    for number in numbers:
        if found and found[-1][-1] == number - 1:
            found[-1].append(number)
        else:
            found.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in found)


def _spdm(verdict: Mapping[str, Any], columns: int) -> Iterator[RenderableType]:
    claims = verdict["claims"]
    measured = claims["grade"] != "NONE"
    rows: list[Row] = [
        ("grade", Text(f"{claims['grade']}  {claims['grade_reason']}".strip(), GOOD if measured else DOUBT)),
        ("algorithms", Text(f"{claims['signature_algorithm']}, {claims['base_hash']}, slot {claims['slot']}")),
        ("key", hexadecimal(claims["key_digest"], columns)),
        ("chain", Text(" ← ".join(reversed(claims["chain"])), overflow="fold")),
        ("revocation", _checked(claims["revocation"])),
        ("root", _root(claims)),
    ]
    yield block("Device", rows)
    yield block("Signed", event_rows(verdict["events"]))
    table = _table("", "measurement", "value")
    for one in claims["measurements"]:
        value = one["value"] if len(one["value"]) <= 96 else f"{one['value'][:64]}… ({len(one['value']) // 2} bytes)"
        table.add_row(str(one["index"]), one["type"], Text(value, overflow="fold"))
    if claims["measurements"]:
        yield titled("Measured", table)


def event_rows(events: Sequence[Sequence[str]]) -> list[Row]:
    """Every signature of a transcript: whether it holds."""
    rows: list[Row] = [(kind, Text(result, GOOD if result == "ok" else BAD)) for kind, result in events[:_SHOWN]]
    more = len(events) - _SHOWN
    return [*rows, ("", Text(f"and {more} more", QUIET))] if more > 0 else rows


def _host(verdict: Mapping[str, Any], columns: int) -> Iterator[RenderableType]:
    claims = verdict["claims"]
    grade = claims["first_mile"]
    rows: list[Row] = [
        ("first mile", Text(grade, GOOD if grade != "NONE" else DOUBT)),
        ("CPU", Text(NONE if claims["cpu"] is None else name_of(claims["cpu"]["kind"], claims["cpu"]["claims"]))),
    ]
    yield block("Host", rows)
    table = _table("", "device", "subject", "key", "reference")
    for one in claims["devices"]:
        facts = one["claims"]
        reference = one.get("reference")
        outcome = NONE if reference is None else reference["outcome"]
        table.add_row(
            Text("✔", GOOD),
            name_of(one["kind"], facts),
            Text(one["subject"], overflow="fold"),
            facts["key_digest"][:16],
            Text(outcome, GOOD if outcome == "match" else DOUBT),
        )
    if claims["devices"]:
        yield titled("Devices", table)


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=QUIET, pad_edge=False)
    for name in columns:
        table.add_column(name.replace("_", " "), overflow="fold")
    return table


def _flags(number: str, decoded: Mapping[str, Any], bad: Sequence[str] = ()) -> Text:
    names = [name for name, value in decoded.items() if value is True]
    wrong = any(decoded.get(name) for name in bad)
    return Text(f"{number}  {', '.join(name.replace('_', ' ') for name in names)}", BAD if wrong else "")


def _nonce(nonce: str, checked: bool) -> Text:
    return Text(nonce, overflow="fold") if checked else Text(f"{nonce} (not compared)", DOUBT, overflow="fold")


def _checked(state: str) -> Text:
    return Text(state, GOOD if state == "checked" else DOUBT)


def _root(claims: Mapping[str, Any]) -> Text:
    return Text(claims["root"], BAD if claims["simulated"] else "")


_BLOCKS: dict[str, Callable[[Mapping[str, Any], int], Iterator[RenderableType]]] = {
    "snp": _snp,
    "nvidia-gpu": _device,
    "nvidia-switch": _device,
    "nvidia-rim": _rim,
    "spdm": _spdm,
    "composite": _host,
}
