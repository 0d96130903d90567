"""What people see of a verdict on a record, of a proof, of a chain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from enclavescale.live import moment, spread
from enclavescale.screen_parts import BAD, DOUBT, GOOD, NONE, QUIET, Row, block, hexadecimal
from schemas.records import Interval
from stream_jobs.audit.chain import Chain
from stream_jobs.audit.check import EquivocationStatement, Published, ReportStatement, Statement
from stream_jobs.audit.document import ACCEPTED

_HEADLINES = {
    "affirming": ("✔ ACCEPTED", "bold green"),
    "warning": ("✔ ACCEPTED, with reservations", "bold dark_orange3"),
    "contraindicated": ("✘ REFUSED", "bold red"),
}
_STAGES = {
    "format": "well-formed",
    "policy": "rests on this policy, which was in force for the window",
    "worker": "the session stated is the one that the evidence binds",
    "signature": "signed by that session's key",
    "evidence": "the key lives in measured code of an enrolled aggregator",
    "chain": "linked to what was published before",
}
_HEX_COLUMNS = 64


def record_screen(verdict: Mapping[str, Any], columns: int = _HEX_COLUMNS) -> RenderableType:
    """The whole screen for a verdict of `enclavescale.judging.output`."""
    return Group(*_record_blocks(verdict, columns))


def _record_blocks(verdict: Mapping[str, Any], columns: int) -> Iterator[RenderableType]:
    word, style = _HEADLINES[verdict["status"]]
    policy = "" if verdict["policy"] is None else f", policy {verdict['policy']['name']}"
    yield Text.assemble((word, style), f"  {verdict['kind']}{policy}, as of {verdict['at'] or NONE}")
    for error in verdict["errors"]:
        yield block("", _error_rows(error))
    if verdict["warnings"]:
        yield block("", [("note", Text(one, DOUBT)) for one in verdict["warnings"]])
    claims, worker = verdict["claims"], verdict["worker"]
    if claims is None:
        yield block("Verified", _stage_rows(verdict))
        return
    rows: list[Row] = [
        ("domain", Text(claims["domain"])),
        ("window", Text(f"{claims['window_start']} to {claims['window_end']}, revision {claims['revision']}")),
    ]
    if verdict["kind"] == "output":
        rows += [
            ("mean", Text(_interval(claims["mean_w"]))),
            ("margin", Text(f"{_interval(claims['margin_w'], signed=True)} below {claims['limit_w']:,} W")),
        ]
    refused = ", ".join(f"{code} {count}" for code, count in claims["refused"].items())
    rows += [
        ("reports", Text(f"{claims['accepted']} accepted" + (f"; refused: {refused}" if refused else ""))),
        ("digest", hexadecimal(claims["digest"], columns)),
    ]
    if verdict["kind"] == "output":
        before = claims["prev_output_digest"]
        reason = claims["prev_output_digest_absent_reason"]
        rows.append(("follows", hexadecimal(before, columns) if before else Text(str(reason))))
    yield block("Says", rows)
    signed: list[Row] = [
        ("worker", Text(worker["host_id"])),
        ("session", hexadecimal(worker["session_id"], columns)),
        ("root", Text(worker["root"], BAD if worker["simulated"] else "")),
        ("evidence", Text(f"as of {worker['evidence_as_of']}; valid to {worker['expires'] or 'the end of time'}")),
    ]
    yield block("Signed by", signed)


def _error_rows(error: Mapping[str, Any]) -> list[Row]:
    return [
        ("cause", Text(error["code"], BAD)),
        ("", Text(error["message"], overflow="fold")),
        *([("field", Text(error["field"], overflow="fold"))] if error["field"] else []),
        ("remedy", Text(error["remedy"])),
    ]


def _stage_rows(verdict: Mapping[str, Any]) -> list[Row]:
    rows: list[Row] = []
    failed = next((stage for stage in verdict["stages"] if stage not in verdict["verified"]), None)
    for stage in verdict["stages"]:
        sign, style = ("✔", GOOD) if stage in verdict["verified"] else ("✘", BAD) if stage == failed else ("·", QUIET)
        rows.append((stage, Text.assemble((f"{sign} ", style), (_STAGES[stage], "" if sign != "·" else QUIET))))
    return rows


def _interval(value: Mapping[str, int] | None, *, signed: bool = False) -> str:
    return "withheld" if value is None else spread(Interval(**value), signed=signed)


def statement_screen(statement: Statement) -> RenderableType:
    """What a proof proves, in words."""
    if isinstance(statement, ReportStatement):
        return Group(*_report_blocks(statement))
    return Group(*_equivocation_blocks(statement))


def _report_blocks(statement: ReportStatement) -> Iterator[RenderableType]:
    made = statement.published
    if statement.verdict == ACCEPTED:
        yield Text.assemble(("✔ COUNTED", "bold green"), f"  {_window(made)}")
        yield Text("This report is one of those that the output's figures rest on.")
    else:
        yield Text.assemble(("✔ REFUSED, and published as refused", "bold dark_orange3"), f"  {_window(made)}")
        yield Text("This report is one of those that the output names as refused; no figure rests on it.")
    rows: list[Row] = [("digest", hexadecimal(statement.digest.hex(), _HEX_COLUMNS))]
    if statement.host_id is not None:
        rows.append(("host", Text(f"{statement.host_id}, record {statement.seq} of its session")))
    rows.append(("place", Text(f"{statement.index + 1} of {statement.count} in the tree")))
    yield block("Report", rows)
    yield from _published_blocks(made)


def _equivocation_blocks(statement: EquivocationStatement) -> Iterator[RenderableType]:
    yield Text.assemble(("✘ EQUIVOCATION", "bold red"), f"  {_window(statement.first)}")
    yield Text(f"Attested aggregators signed two different {statement.records} for one window and revision.")
    yield block("", [("they differ in", Text(", ".join(statement.fields) or NONE, overflow="fold"))])
    for made in (statement.first, statement.second):
        yield from _published_blocks(made)


def _window(made: Published) -> str:
    return f"{made.domain}, {moment(made.window_start_ms)} to {moment(made.window_end_ms)}, revision {made.revision}"


def _published_blocks(made: Published) -> Iterator[RenderableType]:
    mean = made.mean_absent_reason if made.mean is None else spread(made.mean)
    margin = made.margin_absent_reason if made.margin is None else spread(made.margin, signed=True)
    simulated = " (simulated: proves nothing)" if made.simulated else ""
    yield block(
        "Output",
        [
            ("mean", Text(mean or NONE)),
            ("margin", Text(f"{margin or NONE}, limit {made.limit_w:,} W")),
            ("reports", Text(f"{made.accepted} accepted, {made.refused} refused")),
            ("log", Text(f"{made.topic}[{made.partition}], closed at offset {made.close_offset}")),
            ("digest", hexadecimal(made.digest.hex(), _HEX_COLUMNS)),
            ("worker", Text(f"{made.worker}, core {made.core_version}")),
            ("session", hexadecimal(made.session_id.hex(), _HEX_COLUMNS)),
            ("root", Text(made.root + simulated, BAD if made.simulated else "")),
            ("policy", Text(f"counter {made.policy_counter}, {made.policy_digest.hex()}", overflow="fold")),
            ("signer", Text(made.policy_signer.hex(), overflow="fold")),
        ],
    )


def chain_screen(chain: Chain) -> RenderableType:
    """What was found along a chain, in words."""
    return Group(*_chain_blocks(chain))


def _chain_blocks(chain: Chain) -> Iterator[RenderableType]:
    if chain.broken is None:
        yield Text.assemble(("✔ ONE CHAIN", "bold green"), f"  {chain.domain}, {chain.outputs} outputs")
    else:
        yield Text.assemble(("✘ BROKEN", "bold red"), f"  {chain.domain}, after {chain.outputs} outputs that hold")
        broken = chain.broken
        error = {"code": broken.code, "message": broken.message, "field": broken.field, "remedy": broken.remedy}
        place = f"output at offset {broken.link.offset}, window {moment(broken.link.window_start_ms)}"
        yield block("", [("at", Text(f"{place}, revision {broken.link.revision}")), *_error_rows(error)])
    rows: list[Row] = []
    for name, link in (("newest", chain.newest), ("oldest", chain.oldest)):
        place = f"partition {link.partition}, offset {link.offset}"
        rows.append((name, Text(f"{moment(link.window_start_ms)} revision {link.revision}, {place}")))
        rows.append(("", hexadecimal(link.digest.hex(), _HEX_COLUMNS)))
    rows.append(("revisions", Text(f"{chain.revisions} follow the ones that they name")))
    rows.append(("workers", Text(", ".join(chain.workers) or NONE)))
    yield block("", rows)
    if chain.passed:
        named = [("", Text(f"offset {one.link.offset}: {one.code} {one.message}")) for one in chain.passed_over]
        more = [("", Text(f"and {chain.passed - len(named)} more"))] if chain.passed > len(named) else []
        yield block("Passed over: no attested worker signed them", [*named, *more])
    for one in chain.restarts:
        why = _why_restarted(one.before is None, one.idle_close_offset)
        place = f"offset {one.link.offset}, window {moment(one.link.window_start_ms)}"
        yield block("Begins anew", [("at", Text(place)), ("states", Text(one.reason)), ("because", Text(why))])


def _why_restarted(first: bool, idle_close_offset: int | None) -> str:
    if first:
        return "no output of the domain stands before it on the topic"
    if idle_close_offset is None:
        return "nothing in the log explains it"
    return f"the domain was closed for idleness at offset {idle_close_offset} of the log"


def unproven_rows(pairs: Sequence[tuple[Any, Any, str]]) -> RenderableType:
    """Versions that do not verify, with the first reason."""
    return block(
        "Not evidence",
        [("", Text(f"{one[0]}[{one[1]}]@{one[2]} and @{other[2]}: {code}")) for one, other, code in pairs],
    )
