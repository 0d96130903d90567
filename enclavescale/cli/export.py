"""`enclavescale export`: a range of all topics as an archive, and the check of one."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from click.core import ParameterSource
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from enclavescale.cli.common import EXIT_CODES, EXIT_REFUSED, Cluster, cluster_options, errors, json_option, say
from enclavescale.cli.registry_options import OpenRegistry, registry_options
from enclavescale.cli.times import now_ms, parse_time, range_options
from enclavescale.live import moment
from enclavescale.reach import metadata
from enclavescale.registry.ids import open_framing
from schemas.errors import ConfigError
from stream_jobs.archive import ArchiveError, Directory, Exported, Request, check_archive, export_archive, open_archive
from stream_jobs.archive.cluster import ClusterSource
from stream_jobs.reading import open_reader

MINUTE_MS = 60_000


@click.command("export", epilog=EXIT_CODES)
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@range_options(required=False, open_ended=True)
@click.option("--everything", is_flag=True, help="All that the topics hold, instead of a range.")
@click.option(
    "--context",
    type=click.IntRange(0, 1_000_000),
    metavar="MINUTES",
    help="Taken before the range. Without it: twice what the policies on the cluster ask for, at least an hour.",
)
@click.option("--until", metavar="T", help="Leave out reports and outputs appended at or after T; without it none are.")
@click.option(
    "--resume", is_flag=True, help="Go on with the export that was interrupted in DIRECTORY, whatever it was."
)
@click.option("--check", is_flag=True, help="Read the archive in DIRECTORY and compare every byte with its index.")
@click.option("--digest", metavar="HEX", help="With --check: what the index's digest must be.")
@cluster_options
@registry_options
@json_option
def export(
    directory: Path,
    from_ms: int | None,
    to_ms: int | None,
    everything: bool,
    context: int | None,
    until: str | None,
    resume: bool,
    check: bool,
    digest: str | None,
    cluster: Cluster,
    registry: OpenRegistry,
    as_json: bool,
) -> None:
    """Write a range of all topics into DIRECTORY: an archive that replay reads without Kafka.

    Takes reports, outputs, manifests and rejections from some time before the range, so that its windows can be
    recomputed, up to the end of the topics, because a late revision may stand anywhere; and policies, collateral and
    beacons whole. Offsets, times and headers are kept. Nothing is committed. An interrupted export goes on where it
    was when it is started again in the same words, or with --resume; equal records give equal files.
    """
    with errors(as_json):
        if check:
            _nothing_but_the_digest()
            _check(directory, digest, as_json)
            return
        if [from_ms is not None, everything, resume].count(True) != 1:
            raise ConfigError("give --from, --everything or --resume, one of them", field="from")
        given = {"to": to_ms, "context": context, "until": until, "digest": digest}
        for name in ("to", "context", *(("until",) if resume else ()), "digest"):
            if given[name] is not None and (from_ms is None or name == "digest"):
                raise ConfigError(f"--{name} says nothing here", field=name)
        asked = None if resume else _request(from_ms, to_ms, context, until)
        framing = open_framing(registry(), cluster.names)
        properties = cluster.quiet_properties()
        with contextlib.closing(open_reader(properties)) as consumer:
            metadata(consumer)
        source = ClusterSource(properties)
        with contextlib.closing(source), _bar(quiet=as_json) as progress:
            made = export_archive(
                source, cluster.names, Directory(directory), asked, framing=framing, progress=progress
            )
        _tell(directory, made, as_json)


def _nothing_but_the_digest() -> None:
    """Raise ConfigError for options that would do nothing beside --check: whoever gives them means another thing."""
    context = click.get_current_context()
    for name in (
        "from_text",
        "to_text",
        "everything",
        "context",
        "until",
        "resume",
        "bootstrap",
        "kafka_config",
        "kafka",
        "registry_url",
        "schema_ids",
    ):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = name.removesuffix("_text").replace("_", "-")
            raise ConfigError(f"--check reads what is in the directory: --{option} says nothing here", field=option)


def _request(from_ms: int | None, to_ms: int | None, context: int | None, until: str | None) -> Request:
    try:
        until_ms = None if until is None else parse_time(until, now_ms())
    except ValueError as error:
        raise ConfigError(str(error), field="until") from None
    # A window is decided after it has ended: what was appended before then does not decide it.
    least_ms = max(-1 if one is None else one for one in (from_ms, to_ms))
    if until_ms is not None and until_ms <= least_ms:
        raise ConfigError("--until must lie after the range: its windows are decided later", field="until")
    if from_ms is None:
        return Request(None, None, None, until_ms)
    return Request(from_ms, to_ms, None if context is None else MINUTE_MS * context, until_ms)


@contextlib.contextmanager
def _bar(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr while it is a terminal."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda topic, done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("export", total=None)
        yield lambda topic, done, total: bar.update(task, description=topic, completed=done, total=total)


def _tell(directory: Path, made: Exported, as_json: bool) -> None:
    request = made.index.request
    if as_json:
        topics = {
            topic.role: {
                "topic": topic.topic,
                "partitions": [[one.first, one.end] for one in topic.partitions],
                "records": sum(segment.records for one in topic.partitions for segment in one.segments),
            }
            for topic in made.index.topics
        }
        say(
            {
                "directory": str(directory),
                "digest": made.digest,
                "records": made.records,
                "segments": made.segments,
                "segments_kept": made.kept,
                "bytes": made.bytes,
                "from_ms": request.from_ms,
                "to_ms": request.to_ms,
                "context_ms": request.context_ms,
                "until_ms": request.until_ms,
                "topics": topics,
            }
        )
        return
    for topic in made.index.topics:
        records = sum(segment.records for one in topic.partitions for segment in one.segments)
        click.echo(f"{topic.role:<11}{records:>12,} records  {topic.topic}")
    if request.from_ms is not None:
        upto = "the end" if request.to_ms is None else moment(request.to_ms)
        context = (request.context_ms or 0) // MINUTE_MS
        click.echo(f"for windows from {moment(request.from_ms)} to {upto}, with {context} minutes before")
    kept = f", {made.kept} of them from before" if made.kept else ""
    click.echo(f"{made.records:,} records, {made.bytes:,} bytes, {made.segments} segments{kept}")
    click.echo(f"digest {made.digest}")


def _check(directory: Path, digest: str | None, as_json: bool) -> None:
    """Exit 3 where the archive is not what its index, or the digest given, says."""
    try:
        source = open_archive(directory, digest)
        records, strays = check_archive(source)
    except ArchiveError as error:
        if as_json:
            say({"error": error.code, "message": str(error), "field": error.field, "remedy": error.remedy})
        click.echo(f"{error.code}: {error}\n{error.remedy}", err=True)
        sys.exit(EXIT_REFUSED)
    if as_json:
        say({"directory": str(directory), "digest": source.digest, "records": records, "other_files": strays})
        return
    for name in strays:
        click.echo(f"not of the archive: {name}")
    click.echo(f"{records:,} records as the index says, digest {source.digest}")
