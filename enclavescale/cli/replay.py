"""`enclavescale replay`: recompute what was published, and compare."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from rich.console import Console, Group
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from enclavescale.cli.common import (
    EXIT_CODES,
    EXIT_FAILURE,
    EXIT_REFUSED,
    Cluster,
    cluster_options,
    errors,
    fail,
    json_option,
    say,
)
from enclavescale.cli.policy_options import names_cluster, points, show_screen, signers_option
from enclavescale.cli.registry_options import OpenRegistry, registry_options
from enclavescale.cli.times import now_ms, range_options
from enclavescale.live import moment
from enclavescale.reach import metadata
from enclavescale.registry.ids import open_framing
from enclavescale.report import Gathered, Made, report_facts, write_page
from schemas.errors import ConfigError
from schemas.topics import TopicNames
from stream_jobs.archive import ArchiveError, ArchiveSource, open_archive
from stream_jobs.core.policies import CORE_VERSION
from stream_jobs.policy_store import PolicyTrust
from stream_jobs.reading import open_reader
from stream_jobs.replay.beside_facts import collateral_facts, policy_facts
from stream_jobs.replay.desk import ReplayRequest
from stream_jobs.replay.document import ReplayDocument, request_facts, result_facts
from stream_jobs.replay.kafka_source import KafkaSpec
from stream_jobs.replay.partitions import ReplayResult, SourceSpec, replay_parallel
from stream_jobs.replay.source import RecordSource
from stream_jobs.replay.verdicts import Finding, Verdict, WindowVerdict, jsonable

SHOWN = 20
"""Windows and findings shown to people; --json has up to `KEPT`, the file of --out all."""
KEPT = 1_000
LINE_S = 5.0

STYLES = {"identical": "green", "pending": "yellow", "input lost": "yellow"}


@dataclass(frozen=True, slots=True)
class ArchiveSpec:
    """How to open an archive."""

    path: Path
    digest: str | None

    def open(self) -> RecordSource:
        """Open it; its index is checked."""
        return open_archive(self.path, self.digest)


@dataclass(slots=True)
class _Kept:
    """What is shown in the end; verdicts and findings also go to a document."""

    document: ReplayDocument | None
    gathered: Gathered = field(default_factory=Gathered)
    windows: list[WindowVerdict] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def verdict(self, verdict: WindowVerdict) -> None:
        """Keep what is not identical."""
        if verdict.verdict is not Verdict.IDENTICAL and len(self.windows) < KEPT:
            self.windows.append(verdict)
        if self.document is not None:
            self.document.verdict(verdict)
            self.gathered.verdict(verdict)

    def finding(self, finding: Finding) -> None:
        """Keep a finding."""
        if len(self.findings) < KEPT:
            self.findings.append(finding)
        if self.document is not None:
            self.document.finding(finding)
            self.gathered.finding(finding)


@click.command("replay", epilog=EXIT_CODES)
@range_options()
@click.option("--domain", help="Only this domain.")
@signers_option(required=True)
@click.option("--min-policy-counter", default=0, show_default=True, help="Refuse older policies, as the workers did.")
@click.option(
    "--as-of",
    type=click.Choice(["event", "now"]),
    default="event",
    show_default=True,
    help="now: say in addition what has expired since.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write report.html there, and report.json: everything.",
)
@click.option(
    "--archive",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Read an archive made by export instead of a cluster.",
)
@click.option("--digest", metavar="HEX", help="With --archive: what the digest of its index must be.")
@click.option("--jobs", type=click.IntRange(1, 1024), help="Processes, one partition each; as many as processors.")
@cluster_options
@registry_options
@json_option
def replay(
    from_ms: int,
    to_ms: int,
    domain: str | None,
    signers: tuple[str, ...],
    min_policy_counter: int,
    as_of: str,
    out: Path | None,
    archive: Path | None,
    digest: str | None,
    jobs: int | None,
    cluster: Cluster,
    registry: OpenRegistry,
    as_json: bool,
) -> None:
    """Recompute what was published for a range of windows from its inputs, and compare bit for bit.

    Reads reports, policies, collateral, beacons, manifests, outputs and dead letters with plain consumers, verifies
    all signatures and evidence as of the time of the event, runs the same core and says for each window: identical,
    differs (field by field), missing, extra, pending or input lost. What was altered is named with its place. Begins as
    far back as the first window needs. Exit code 0 only if every window is identical and nothing was found altered.
    """
    with errors(as_json):
        trust = PolicyTrust(points(signers), min_policy_counter)
        spec, names = _source(cluster, archive, digest, as_json)
        request = ReplayRequest(
            topics=names,
            trust=trust,
            from_ms=from_ms,
            to_ms=to_ms,
            domain=domain,
            as_of_ms=now_ms() if as_of == "now" else None,
            sessions=out is not None,
            framing=open_framing(registry(), names),
        )
        began_s = time.monotonic()
        with contextlib.ExitStack() as stack:
            document = None if out is None else stack.enter_context(ReplayDocument(out))
            kept = _Kept(document)
            bar = stack.enter_context(_bar(quiet=as_json))
            try:
                result = replay_parallel(
                    spec,
                    request,
                    jobs or os.cpu_count() or 1,
                    on_verdict=kept.verdict,
                    on_finding=kept.finding,
                    progress=bar,
                )
            except ArchiveError as error:
                _refuse(error, as_json)
            took_s = time.monotonic() - began_s
            if not result.partitions:
                raise ConfigError(f"there is no topic {names.reports}", field="topic_prefix")
            if document is not None and out is not None:
                facts = _report_facts(spec, request, result, kept.gathered)
                full = {name: one for name, one in facts.items() if name not in {"shown", "request", "result"}}
                document.write(request, result, full)
                write_page(out, facts)
    if as_json:
        say(_summary(request, result, kept, took_s))
    else:
        show_screen(_screen(result, kept, took_s))
    sys.exit(0 if result.proven and result.verdicts.total() else EXIT_FAILURE)


def _source(cluster: Cluster, archive: Path | None, digest: str | None, as_json: bool) -> tuple[SourceSpec, TopicNames]:
    if archive is not None:
        if names_cluster(cluster):
            raise ConfigError("give a cluster or --archive, one of them", field="archive")
        try:
            with contextlib.closing(open_archive(archive, digest)) as opened:
                return ArchiveSpec(archive, digest), opened.names
        except ArchiveError as error:
            _refuse(error, as_json)
    if digest is not None:
        raise ConfigError("--digest needs --archive", field="digest")
    properties = cluster.quiet_properties()
    with contextlib.closing(open_reader(properties)) as consumer:
        metadata(consumer)  # one message where nobody answers
    return KafkaSpec(properties), cluster.names


def _report_facts(spec: SourceSpec, request: ReplayRequest, result: ReplayResult, gathered: Gathered) -> dict[str, Any]:
    with contextlib.closing(spec.open()) as source:
        text = f"an archive with the digest {source.digest}" if isinstance(source, ArchiveSource) else "a cluster"
        if isinstance(spec, KafkaSpec):
            text = f"Kafka at {spec.kafka.get('bootstrap.servers', 'brokers that are not named')}"
        made = Made(at_ms=now_ms(), source=text, release=version("enclavescale"), core_version=CORE_VERSION)
        policies, collateral = policy_facts(source, request), collateral_facts(source, request)
    return report_facts(gathered, request, result, policies, collateral, made)


def _refuse(error: ArchiveError, as_json: bool) -> Any:
    """Exit 3: the archive is not what its index says."""
    with contextlib.suppress(SystemExit):
        fail(error, as_json)
    sys.exit(EXIT_REFUSED)


# -- what is shown ---------------------------------------------------------------------------------------------------


class _Rate(ProgressColumn):
    """Records per second."""

    def render(self, task: Task) -> Text:
        """The rate as a text."""
        return Text("" if task.speed is None else f"{task.speed:,.0f} records/s")


@contextlib.contextmanager
def _bar(*, quiet: bool) -> Iterator[Callable[[int, int, int], None]]:
    """Progress on stderr: a bar on a terminal, else a line every few seconds; nothing with --json."""
    console = Console(stderr=True)
    parts: dict[int, tuple[int, int]] = {}
    if quiet:
        yield lambda *_: None
        return
    if console.is_terminal:
        columns = (TextColumn("replay"), BarColumn(), TextColumn("{task.percentage:.0f} %"), _Rate())
        with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
            task = bar.add_task("replay", total=None)

            def moved(partition: int, done: int, total: int) -> None:
                parts[partition] = done, total
                bar.update(task, completed=_sum(parts, 0), total=_sum(parts, 1))

            yield moved
        return
    lines = _Lines(parts)
    yield lines


@dataclass(slots=True)
class _Lines:
    parts: dict[int, tuple[int, int]]
    began_s: float = field(default_factory=time.monotonic)
    next_s: float = field(default_factory=lambda: time.monotonic() + LINE_S)

    def __call__(self, partition: int, done: int, total: int) -> None:
        self.parts[partition] = done, total
        now_s = time.monotonic()
        if now_s < self.next_s:
            return
        self.next_s = now_s + LINE_S
        ready, whole = _sum(self.parts, 0), _sum(self.parts, 1)
        rate = ready / (now_s - self.began_s)
        left = f", {(whole - ready) / rate:,.0f} s left" if rate > 0 else ""
        sys.stderr.write(f"replay: {ready:,} of {whole:,} records, {rate:,.0f}/s{left}\n")
        sys.stderr.flush()


def _sum(parts: dict[int, tuple[int, int]], which: int) -> int:
    return sum(one[which] for one in parts.values())


def _summary(request: ReplayRequest, result: ReplayResult, kept: _Kept, took_s: float) -> dict[str, Any]:
    return {
        "proven": result.proven and bool(result.verdicts.total()),
        "seconds": round(took_s, 3),
        "request": request_facts(request),
        "result": result_facts(result),
        "windows": jsonable(kept.windows),
        "findings": jsonable(kept.findings),
    }


def _screen(result: ReplayResult, kept: _Kept, took_s: float) -> Group:
    parts: list[Any] = [_totals(result)]
    if kept.windows:
        parts.append(_windows(kept.windows, result))
    if kept.findings:
        parts.append(_findings(kept.findings, result))
    records = sum(one.records for one in result.partitions)
    rate = f", {records / took_s:,.0f} records/s" if took_s > 0 else ""
    parts.append(f"{records:,} records in {took_s:,.1f} s{rate}; {result.policies} policies")
    windows = result.verdicts.total()
    if not windows:
        parts.append(Text("No window of the range is on the topics, nor follows from them.", "bold yellow"))
    elif result.proven:
        parts.append(Text(f"All {windows:,} outputs are identical, and nothing was found altered.", "bold green"))
    else:
        parts.append(Text("Not everything that was published follows from the log.", "bold red"))
    return Group(*parts)


def _totals(result: ReplayResult) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("partition", justify="right")
    for verdict in Verdict:
        table.add_column(verdict.value, justify="right", style=STYLES.get(verdict.value, "red"))
    for name in ("records", "dead letters", "from offset"):
        table.add_column(name, justify="right")
    for one in result.partitions:
        counts = [f"{one.verdicts[verdict.value]:,}" for verdict in Verdict]
        more = [f"{one.records:,}", f"{one.dead_letters:,}", f"{one.first_offset:,}"]
        table.add_row(str(one.partition), *counts, *more)
    return table


def _windows(windows: list[WindowVerdict], result: ReplayResult) -> Table:
    count = result.verdicts.total() - result.verdicts[Verdict.IDENTICAL.value]
    table = Table(title=f"Not identical: {count:,}", title_justify="left", box=None, pad_edge=False)
    for name in ("verdict", "domain", "window", "offset", "why"):
        table.add_column(name, overflow="fold")
    for one in windows[:SHOWN]:
        why = [one.message] if one.message else []
        why += [f"{each.field}: {each.published} published, {each.computed} computed" for each in one.differences[:3]]
        if len(one.differences) > 3:
            why.append(f"and {len(one.differences) - 3} more fields")
        window = "" if one.window_start_ms is None else moment(one.window_start_ms)
        window += "" if one.revision is None else f" r{one.revision}"
        place = "" if one.offset is None else f"{one.partition}/{one.offset}"
        cells = (one.domain or "", window, place, "\n".join(why))
        style = STYLES.get(one.verdict.value, "red")
        table.add_row(f"[{style}]{one.verdict.value}[/]", *(escape(cell) for cell in cells))
    if count > SHOWN:
        table.add_row(f"… {count - SHOWN:,} more")
    return table


def _findings(findings: list[Finding], result: ReplayResult) -> Table:
    count = result.alarms + result.notices
    title = f"Findings: {result.alarms:,} alarms, {result.notices:,} notices"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("", "code", "place", "what"):
        table.add_column(name, overflow="fold")
    for one in sorted(findings, key=lambda found: found.severity)[:SHOWN]:
        place = f"{one.topic}[{one.partition}]@{one.offset}"
        style = "red" if one.severity == "alarm" else "yellow"
        cells = (one.code, place, one.message)
        table.add_row(f"[{style}]{one.severity.value}[/]", *(escape(cell) for cell in cells))
    if count > SHOWN:
        table.add_row(f"… {count - SHOWN:,} more")
    return table
