"""`enclavescale audit`: proofs about reports, chains of outputs, evidence of equivocation."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

import click
from rich.console import Console

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
from enclavescale.cli.times import now_ms, parse_time, range_options
from enclavescale.judging.record_screen import chain_screen, statement_screen, unproven_rows
from enclavescale.reach import metadata
from enclavescale.registry.ids import open_framing
from schemas.codec import decode_signed_policy, decode_signed_record
from schemas.errors import ConfigError, EnclaveScaleError
from schemas.mapping import to_jsonable
from stream_jobs.archive import ArchiveError, open_archive
from stream_jobs.audit.chain import Chain, ChainWalker
from stream_jobs.audit.check import Checker, ReportStatement, Statement
from stream_jobs.audit.document import (
    ACCEPTED,
    MAX_DOCUMENT_BYTES,
    REFUSED,
    EquivocationProof,
    ReportProof,
    proof_text,
    read_proof,
)
from stream_jobs.audit.equivocation import EquivocationFinder
from stream_jobs.audit.errors import UNSOUND, RecordNotFound
from stream_jobs.audit.prove import Prover
from stream_jobs.audit.topics import AuditTopics, OutputRecord
from stream_jobs.core.policies import PolicyView
from stream_jobs.policy_store import PolicyTrust, open_policy
from stream_jobs.reading import open_reader
from stream_jobs.replay.kafka_source import KafkaSpec
from verifier.cache import SessionCache

F = TypeVar("F", bound=Callable[..., Any])

MAX_RECORD_BYTES = 1 << 20
"""Bytes read of a report's file: no value on the topics is larger."""

_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_PLACE = re.compile(r"([0-9]{1,9})/([0-9]{1,18})")


@click.group("audit", epilog=EXIT_CODES)
def audit_group() -> None:
    """Prove what became of a report, follow the chain of outputs, find who said two things."""


def _source_options(function: F) -> F:
    """Options of cluster, archive and schema ids; the command gets `open_topics`, which opens what they name."""

    @functools.wraps(function)
    def wrapped(
        *args: Any,
        cluster: Cluster,
        registry: OpenRegistry,
        archive: Path | None,
        archive_digest: str | None,
        **kwargs: Any,
    ) -> Any:
        opener = functools.partial(_topics, cluster, registry, archive, archive_digest)
        return function(*args, open_topics=opener, **kwargs)

    result = cluster_options(registry_options(wrapped))
    for option in (
        click.option("--archive-digest", metavar="HEX", help="With --archive: what the digest of its index must be."),
        click.option(
            "--archive",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            metavar="DIR",
            help="Read an archive made by export instead of a cluster.",
        ),
    ):
        result = option(result)
    return result  # type: ignore[return-value]


OpenTopics = Callable[[], contextlib.AbstractContextManager[AuditTopics]]


@contextlib.contextmanager
def _topics(
    cluster: Cluster, registry: OpenRegistry, archive: Path | None, archive_digest: str | None
) -> Iterator[AuditTopics]:
    if archive is not None:
        if names_cluster(cluster):
            raise ConfigError("give a cluster or --archive, one of them", field="archive")
        with contextlib.closing(open_archive(archive, archive_digest)) as held:
            yield AuditTopics(held, held.names, open_framing(registry(), held.names))
        return
    if archive_digest is not None:
        raise ConfigError("--archive-digest needs --archive", field="archive_digest")
    framing = open_framing(registry(), cluster.names)
    properties = cluster.quiet_properties()
    with contextlib.closing(open_reader(properties)) as consumer:
        metadata(consumer)  # one message where nobody answers
    with contextlib.closing(KafkaSpec(properties).open()) as source:
        yield AuditTopics(source, cluster.names, framing)


@contextlib.contextmanager
def _errors(as_json: bool) -> Iterator[None]:
    """As `errors`; an archive that is not what its index says is refused."""
    with errors(as_json):
        try:
            yield
        except ArchiveError as error:
            _refuse(error, as_json)


def _opener(signers: tuple[str, ...]) -> Callable[[bytes], PolicyView]:
    trust = PolicyTrust(points(signers))
    return lambda value: open_policy(value, trust)


def _under_its_own_signer(value: bytes) -> PolicyView:
    """A policy that is believed because it is signed at all: for what is checked again by whoever gets the proof."""
    return open_policy(value, PolicyTrust((decode_signed_policy(value)[0].signer_public_key,)))


@audit_group.command(epilog=EXIT_CODES)
@click.argument("digest", required=False)
@click.option("--report", type=click.File("rb"), help="The report itself, its value as on the topic.")
@click.option("--host", metavar="HOST", help="With --window: the host's report of that window.")
@click.option("--window", metavar="T", help="The window's begin.")
@click.option("--verdict", type=click.Choice([ACCEPTED, REFUSED]), help="What to prove; without it what there is.")
@click.option("--revision", type=click.IntRange(0), help="Of the output; the newest that counts the report without it.")
@click.option("--include-report", is_flag=True, help="Put the report into the proof, so that it names its host.")
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the proof there.")
@signers_option(required=False)
@_source_options
@json_option
def prove(
    digest: str | None,
    report: IO[bytes] | None,
    host: str | None,
    window: str | None,
    verdict: str | None,
    revision: int | None,
    include_report: bool,
    out: Path | None,
    signers: tuple[str, ...],
    open_topics: OpenTopics,
    as_json: bool,
) -> None:
    """Prove that a report was accepted or refused: DIGEST is its record's, in hexadecimal.

    The proof goes to --out, or to stdout; it is checked before, under --policy-signer if that is given.
    """
    with _errors(as_json):
        if [digest is not None, report is not None, host is not None].count(True) != 1:
            raise ConfigError("give DIGEST, --report or --host, one of them", field="digest")
        if window is not None and host is None:
            raise ConfigError("--window needs --host", field="window")
        opener = _opener(signers) if signers else _under_its_own_signer
        checker = Checker(open_policy=opener, verify=SessionCache().verify)
        with open_topics() as topics:
            prover = Prover(topics, checker.check)
            if host is not None:
                wanted = [verdict] if verdict else [ACCEPTED, REFUSED]
                proof = _prove_of_host(prover, host, _start(window), include_report, wanted, revision)
            else:
                named, value = _named(digest, report)
                if include_report and value is None:
                    raise ConfigError("--include-report needs --report or --host", field="include_report")
                kept = value if include_report else None
                proof = prover.prove(named, verdict=verdict, revision=revision, report=kept)
        statement = checker.check(proof)
        if out is None:
            sys.stdout.write(proof_text(proof))
        else:
            _write(out, proof)
        _tell(statement, as_json, quiet=out is None)


def _named(digest: str | None, report: IO[bytes] | None) -> tuple[bytes, bytes | None]:
    if report is not None:
        value = report.read(MAX_RECORD_BYTES + 1)
        return decode_signed_record(value).digest, value
    return _digest(digest or "", "digest"), None


def _digest(text: str, field: str) -> bytes:
    if not _DIGEST.fullmatch(text):
        raise ConfigError(f"{text[:70]!r} is no digest: 64 hexadecimal digits", field=field)
    return bytes.fromhex(text)


def _start(window: str | None) -> int:
    if window is None:
        raise ConfigError("--host needs --window", field="window")
    try:
        return parse_time(window, now_ms())
    except ValueError as error:
        raise ConfigError(str(error), field="window") from None


def _prove_of_host(
    prover: Prover, host: str, start_ms: int, include_report: bool, verdicts: list[str], revision: int | None
) -> ReportProof:
    """A proof about a host's report of a window: of one that was accepted, if there is one.

    Anybody who may write to the topic can put reports in a host's name there; they are refused.
    """
    found = dict(prover.reports_of(host, start_ms))
    if not found:
        raise RecordNotFound(f"no report of {host} for the window that begins at {start_ms} ms is on the topic")
    failure: EnclaveScaleError | None = None
    for verdict in verdicts:
        for digest, value in found.items():
            try:
                kept = value if include_report else None
                return prover.prove(digest, verdict=verdict, revision=revision, report=kept)
            except UNSOUND as error:
                failure = failure or error
    raise failure or RecordNotFound(f"nothing tells what became of the report of {host}")


def _write(out: Path, proof: ReportProof | EquivocationProof) -> None:
    try:
        out.write_text(proof_text(proof), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{out}: {error.strerror}", field="out") from error


def _tell(statement: Statement, as_json: bool, *, quiet: bool = False) -> None:
    if as_json and not quiet:
        kind = "report" if isinstance(statement, ReportStatement) else "equivocation"
        say({"kind": kind, "holds": True, **to_jsonable(statement)})
    else:
        show_screen(statement_screen(statement), err=quiet)


def _refuse(error: EnclaveScaleError, as_json: bool) -> NoReturn:
    """As `fail`, but for records that do not hold the exit code is always 3."""
    with contextlib.suppress(SystemExit):
        fail(error, as_json)
    sys.exit(EXIT_REFUSED)


@audit_group.command(epilog=EXIT_CODES)
@click.argument("proof", type=click.File("rb"))
@signers_option(required=False)
@json_option
def check(proof: IO[bytes], signers: tuple[str, ...], as_json: bool) -> None:
    """Check a PROOF (a file, - for stdin) offline and say what it proves. Exit 0 if it holds, 3 if not.

    Without --policy-signer nothing is proven: whoever made the proof could have signed its policy.
    """
    with errors(as_json):
        opener = _opener(signers) if signers else None
        checker = Checker(open_policy=opener, verify=SessionCache().verify)
        try:
            statement = checker.check(read_proof(proof.read(MAX_DOCUMENT_BYTES + 1)))
        except UNSOUND as error:
            _refuse(error, as_json)
        _tell(statement, as_json)


@audit_group.command(epilog=EXIT_CODES)
@click.option("--to", "newest", metavar="OUTPUT", help="Where to begin: the newest of --domain without it.")
@click.option("--from", "oldest", metavar="OUTPUT", help="Where to end; as far back as there is anything without it.")
@click.option("--domain", help="Whose chain; not needed with --to.")
@signers_option(required=True)
@_source_options
@json_option
def chain(
    newest: str | None,
    oldest: str | None,
    domain: str | None,
    signers: tuple[str, ...],
    open_topics: OpenTopics,
    as_json: bool,
) -> None:
    """Follow a domain's outputs from one back to another: each must name the one before it. Exit 3 at a break.

    OUTPUT is an output's digest, or its place on the output topic as PARTITION/OFFSET.
    """
    with _errors(as_json):
        if newest is None and domain is None:
            raise ConfigError("give --to or --domain", field="to")
        with open_topics() as topics, _counting(quiet=as_json) as step:
            walker = ChainWalker(topics, _opener(signers), SessionCache().verify)
            first = None if oldest is None else _output(topics, oldest)
            if newest is None:
                found = walker.follow(domain or "", first, step)
            else:
                last = _output(topics, newest)
                if domain not in (None, last.output.domain):
                    raise ConfigError(f"--to is an output of {last.output.domain}", field="domain")
                if first is not None and first.output.source.close_offset > last.output.source.close_offset:
                    first, last = last, first
                found = walker.walk(last, first, step)
        if as_json:
            say({"whole": found.whole, **to_jsonable(found)})
        else:
            show_screen(chain_screen(found))
        _exit_of(found)


def _exit_of(found: Chain) -> None:
    if not found.whole:
        sys.exit(EXIT_REFUSED)


def _output(topics: AuditTopics, text: str) -> OutputRecord:
    place = _PLACE.fullmatch(text)
    if place is not None:
        return topics.output_at(int(place[1]), int(place[2]))
    return topics.output_with(_digest(text, "output"))


@contextlib.contextmanager
def _counting(*, quiet: bool) -> Iterator[Callable[[int], None]]:
    """How many outputs hold so far, on stderr while it is a terminal."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda count: None
        return
    with console.status("") as status:
        yield lambda count: status.update(f"{count:,} outputs hold")


@audit_group.command(epilog=EXIT_CODES)
@range_options(required=False, open_ended=True)
@click.option("--domain", help="Only this domain.")
@click.option(
    "-o", "--out", type=click.Path(file_okay=False, path_type=Path), help="Directory for one proof per window."
)
@signers_option(required=True)
@_source_options
@json_option
def equivocation(
    from_ms: int | None,
    to_ms: int | None,
    domain: str | None,
    out: Path | None,
    signers: tuple[str, ...],
    open_topics: OpenTopics,
    as_json: bool,
) -> None:
    """Look for aggregators that signed two different outputs or manifests for one window and revision.

    Exit 0 if there are none, 1 if there are. `audit check` verifies what is written to --out, wherever it is taken.
    """
    with _errors(as_json):
        checker = Checker(open_policy=_opener(signers), verify=SessionCache().verify)
        if out is not None:
            _make(out)
        found: list[dict[str, Any]] = []
        with open_topics() as topics:
            if not topics.source.extents(topics.names.output):
                raise RecordNotFound(f"there is no topic {topics.names.output}: nothing was looked through")
            finder = EquivocationFinder(topics, checker)
            for proof in finder.find(domain, from_ms or 0, to_ms):
                statement = checker.check(proof)
                path = None if out is None else out / _evidence_name(proof)
                if path is not None:
                    _write(path, proof)
                found.append({"proof": None if path is None else str(path), **to_jsonable(statement)})
                if not as_json:
                    show_screen(statement_screen(statement))
        seen = finder.seen
        if as_json:
            counts = {"outputs": seen.outputs, "manifests": seen.manifests, "contested": seen.contested}
            say({"found": found, **counts, "unproven": [list(one) for one in seen.unproven]})
        else:
            if seen.unproven:
                show_screen(unproven_rows(seen.unproven))
            click.echo(f"{seen.outputs:,} outputs and {seen.manifests:,} manifests read; contradictions: {len(found)}")
        if found:
            sys.exit(EXIT_FAILURE)


def _evidence_name(proof: EquivocationProof) -> str:
    """A file's name by what is in it: evidence of another search is never overwritten."""
    return f"equivocation-{hashlib.sha256(proof_text(proof).encode()).hexdigest()[:16]}.json"


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{directory}: {error.strerror}", field="out") from error
