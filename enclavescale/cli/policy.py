"""`enclavescale policy`: write, check, sign, publish, show and compare policies."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from attester.signing import public_point
from attester.simulated import SimulatedTee
from enclavescale.checkup.finding import some
from enclavescale.cli.common import EXIT_CODES, EXIT_REFUSED, Cluster, cluster_options, errors, json_option, say
from enclavescale.cli.policy_options import (
    FILE,
    NEW_FILE,
    held_or_newest,
    names_cluster,
    passphrase,
    passphrase_option,
    points,
    show_screen,
    signers_option,
    topic_of,
)
from enclavescale.cli.policy_revoke import revoke_command
from enclavescale.cli.times import now_ms
from enclavescale.errors import TopicFailed
from enclavescale.fleet import demo_fleet
from enclavescale.policy.changes import Change, changes, weaker
from enclavescale.policy.document import parse_document, to_json, to_toml, utc
from enclavescale.policy.errors import PolicyRefused
from enclavescale.policy.files import write_new, write_whole
from enclavescale.policy.finding import Finding
from enclavescale.policy.held import TRUSTED, UNSIGNED, HeldPolicy, hold_file
from enclavescale.policy.issue import DEFAULT_VALID_DAYS, next_counter, prepared, sign, unissued
from enclavescale.policy.keys import load_key, make_key
from enclavescale.policy.lint import errors_in, lint, lint_held
from enclavescale.policy.screen import changes_screen, findings_screen, policy_json, policy_screen
from enclavescale.policy.template import template
from enclavescale.policy.topic import check_successor, publish
from enclavescale.reach import partitions_of_topic
from schemas.errors import ConfigError
from schemas.mapping import to_jsonable
from schemas.records import Policy
from stream_jobs.core.policies import CORE_VERSION
from stream_jobs.job import REFRESH_MS
from stream_jobs.policy_store import PolicyTrust, open_policy
from stream_jobs.reading import open_reader

DEMO_WINDOW_MS = 10_000


@click.group("policy", epilog=EXIT_CODES)
def policy_group() -> None:
    """Write, check, sign, publish, show and compare policies (docs/policy.md)."""


policy_group.add_command(revoke_command)


@policy_group.command("init", epilog=EXIT_CODES)
@click.argument("file", required=False, type=NEW_FILE)
@click.option("--from", "source", type=FILE, help="Begin with this policy, signed or not, instead of the template.")
@click.option(
    "--from-demo",
    "tee_directory",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIRECTORY",
    help="Begin with the demo's fleet, on the simulated TEE whose root is in DIRECTORY (made if missing).",
)
@click.option("--hosts", default=32, show_default=True, type=click.IntRange(2, 512), help="Of the demo's fleet.")
@json_option
def init_command(file: Path | None, source: Path | None, tee_directory: Path | None, hosts: int, as_json: bool) -> None:
    """Write a policy document to FILE (TOML; JSON with the suffix .json), or to stdout.

    The template trusts nobody until it is filled in. With --json the document is JSON.
    """
    with errors(as_json):
        if source is not None and tee_directory is not None:
            raise ConfigError("--from and --from-demo begin with different policies: give one", field="from")
        as_document = as_json if file is None else file.suffix == ".json"
        policy: Policy | None = None
        if source is not None:
            policy = unissued(hold_file(source).policy)
        elif tee_directory is not None:
            policy = demo_policy(tee_directory, hosts)
        if policy is None:
            text = template()
            text = to_json(parse_document(text.encode(), as_json=False)) if as_document else text
        else:
            text = to_json(policy) if as_document else to_toml(policy)
        if file is None:
            click.echo(text, nl=False)
            return
        write_new(file, text.encode())
        if as_json:
            say({"file": str(file)})
        else:
            click.echo(f"{file}: edit it, then `enclavescale policy lint {file}`")


def demo_policy(tee_directory: Path, hosts: int) -> Policy:
    """The demo's policy, for a cluster that stamps append times, to be signed."""
    tee = SimulatedTee.create(tee_directory)
    fleet = demo_fleet(tee, hosts=hosts, gpus=8, window_ms=DEMO_WINDOW_MS, now_ms=0, create_time=False)
    return unissued(fleet.policy)


@policy_group.command("keygen", epilog=EXIT_CODES)
@click.argument("file", type=NEW_FILE)
@passphrase_option
@json_option
def keygen_command(file: Path, passphrase_file: Path | None, as_json: bool) -> None:
    """Make a policy signer's key in FILE: P-256, PKCS#8, encrypted, mode 0600. Prints its public point."""
    with errors(as_json):
        secret = passphrase(passphrase_file, confirm=True)
        if secret is None:
            raise ConfigError(
                "no passphrase, and nobody to ask", field="passphrase", remedy="Give one with --passphrase-file."
            )
        point = make_key(file, secret).hex()
        if as_json:
            say({"file": str(file), "signer_public_key": point})
        else:
            click.echo(f"{file}: keep it away from workers and hosts; they are given\n--policy-signer {point}")


@policy_group.command("lint", epilog=EXIT_CODES)
@click.argument("file", type=FILE)
@cluster_options
@click.option("--partitions", type=click.IntRange(1, 10_000), help="Of the reports topic; else the cluster says.")
@click.option("--strict", is_flag=True, help="Exit 3 for warnings, too.")
@json_option
def lint_command(file: Path, cluster: Cluster, partitions: int | None, strict: bool, as_json: bool) -> None:
    """Everything that is wrong with a policy, signed or not; exit 3 if there are errors.

    With a cluster its partitions are checked against those of the reports topic.
    """
    with errors(as_json):
        held = hold_file(file)
        if partitions is None:
            partitions = _partitions(cluster)
        findings = lint_held(held, now_ms=now_ms(), partitions=partitions)
        if as_json:
            say({"file": str(file), "ok": not errors_in(findings), "findings": [to_jsonable(one) for one in findings]})
        else:
            show_screen(findings_screen(findings))
        sys.exit(EXIT_REFUSED if errors_in(findings) or (strict and findings) else 0)


def _partitions(cluster: Cluster) -> int | None:
    """How many partitions the reports topic has; None where no cluster is named, or where it does not say."""
    if not names_cluster(cluster):
        return None
    with contextlib.closing(open_reader(cluster.quiet_properties())) as reader:
        try:
            return len(partitions_of_topic(reader, cluster.names.reports))
        except TopicFailed as error:  # whoever signs may have no right to look there
            click.echo(f"partitions are not checked: {error}", err=True)
            return None


@policy_group.command("sign", epilog=EXIT_CODES)
@click.argument("source", type=FILE)
@cluster_options
@click.option("--key", required=True, type=FILE, help="The signer's key: `policy keygen`.")
@passphrase_option
@click.option("-o", "--out", required=True, type=NEW_FILE, help="The signed value.")
@click.option("--counter", default="auto", show_default=True, metavar="N|auto", help="auto: one above those before it.")
@click.option("--previous", type=FILE, help="The policy before it, signed.")
@click.option("--first", is_flag=True, help="There is none before it: auto is 1.")
@click.option(
    "--valid-days",
    type=click.IntRange(1, 3660),
    help=f"Until so long after it is in force; else as the document says, else {DEFAULT_VALID_DAYS} days.",
)
@signers_option(required=False)
@json_option
def sign_command(
    source: Path,
    cluster: Cluster,
    key: Path,
    passphrase_file: Path | None,
    out: Path,
    counter: str,
    previous: Path | None,
    first: bool,
    valid_days: int | None,
    signers: tuple[str, ...],
    as_json: bool,
) -> None:
    """Sign a policy document. Errors of lint refuse it, warnings are shown, and what it weakens.

    The counter must exceed that of --previous and, with a cluster, of every policy on the topic that this key or a
    --policy-signer signed.
    """
    with errors(as_json):
        held = hold_file(source)
        signer = load_key(key, passphrase(passphrase_file))
        trusted = (public_point(signer.public_key()), *points(signers))
        known = [] if previous is None else [hold_file(previous, trusted)]
        for one in known:
            if one.signature != TRUSTED:
                raise PolicyRefused(f"{one.origin}: {one.signature}", code="POLICY_UNTRUSTED", field="previous")
        if names_cluster(cluster):
            known += [one.held for one in topic_of(cluster, trusted).standing]
        number = next_counter(_counter(counter), held.policy.counter, known, first=first)
        now = now_ms()
        policy = prepared(held.policy, counter=number, now_ms=now, valid_days=valid_days)
        findings = lint(policy, now_ms=now, partitions=_partitions(cluster))
        _refuse_errors(findings, as_json)
        signed = sign(policy, signer)
        before = max(known, key=lambda one: one.policy.counter, default=None)
        found = () if before is None else weaker(changes(before.policy, policy))
        write_whole(out, signed.value or b"")
        _tell_signed(signed, out, findings, found, as_json)


def _counter(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise click.BadParameter(f"{text!r}: give a number, or auto", param_hint="--counter")
    return int(text)


def _refuse_errors(findings: tuple[Finding, ...], as_json: bool) -> None:
    """Show what lint found; refuse errors."""
    if findings and not as_json:
        show_screen(findings_screen(findings), err=True)
    wrong = errors_in(findings)
    if wrong:
        first = f"{wrong[0].code} {wrong[0].field}: {wrong[0].message}"
        raise PolicyRefused(f"{some(len(wrong), 'error')}, the first: {first}", field=wrong[0].field)


def _tell_signed(
    signed: HeldPolicy, out: Path, findings: Sequence[Finding], found: Sequence[Change], as_json: bool
) -> None:
    policy, digest = signed.policy, signed.digest or b""
    if as_json:
        say(
            {
                "file": str(out),
                "counter": policy.counter,
                "digest": digest.hex(),
                "signer_public_key": (signed.signer or b"").hex(),
                "not_after_ms": policy.not_after_ms,
                "warnings": [to_jsonable(one) for one in findings],
                "weaker": [to_jsonable(one) for one in found],
            }
        )
        return
    if found:
        show_screen(changes_screen(found), err=True)
    click.echo(f"{out}: policy {policy.counter}, digest {digest.hex()}, until {utc(policy.not_after_ms)}")


@policy_group.command("apply", epilog=EXIT_CODES)
@click.argument("file", type=FILE)
@cluster_options
@signers_option(required=True)
@click.option("--again", is_flag=True, help="Publish the newest once more, before retention takes it.")
@json_option
def apply_command(file: Path, cluster: Cluster, signers: tuple[str, ...], again: bool, as_json: bool) -> None:
    """Publish a signed policy, if it may follow what stands on the topic. A second time changes nothing.

    Waits until all replicas in sync have it, and says from when it holds.
    """
    with errors(as_json):
        trusted = points(signers)
        held = hold_file(file, trusted)
        if held.signature == UNSIGNED:
            raise ConfigError(f"{file} is a document", field="file", remedy="Sign it first: enclavescale policy sign.")
        if held.signature != TRUSTED or held.value is None or held.digest is None:
            raise PolicyRefused(
                f"{file}: its signature: {held.signature}",
                code="POLICY_UNTRUSTED",
                field="signer",
                remedy="Give --policy-signer with the key that signed it, if workers trust it; else sign it anew.",
            )
        open_policy(held.value, PolicyTrust(trusted))  # as workers will
        _refuse_errors(errors_in(lint(held.policy, now_ms=now_ms(), partitions=_partitions(cluster))), as_json)
        before = topic_of(cluster, trusted)
        check_successor(before, held)
        there = before.with_digest(held.digest)
        if there is None or again:
            partition, offset = publish(cluster.quiet_properties(), cluster.names.policy, held)
            check_successor(topic_of(cluster, trusted), held)  # somebody may have been quicker
        else:
            partition, offset = there.partition, there.offset
        _tell_applied(cluster, held, partition, offset, there is None or again, as_json)


def _tell_applied(
    cluster: Cluster, held: HeldPolicy, partition: int, offset: int, published: bool, as_json: bool
) -> None:
    policy = held.policy
    if as_json:
        say(
            {
                "topic": cluster.names.policy,
                "partition": partition,
                "offset": offset,
                "published": published,
                "counter": policy.counter,
                "digest": (held.digest or b"").hex(),
                "effective_from_ms": policy.effective_from_ms,
                "not_after_ms": policy.not_after_ms,
            }
        )
        return
    state = "published" if published else "was there already"
    start = f" that begins at {utc(policy.effective_from_ms)} or later" if policy.effective_from_ms > now_ms() else ""
    lines = [
        f"policy {policy.counter} {state}: {cluster.names.policy}[{partition}] offset {offset}",
        f"Workers look every {REFRESH_MS // 1000} s and write a switch into each domain's partition; it holds from the "
        f"first window after that switch{start}, until {utc(policy.not_after_ms)}.",
        "Hosts judge nothing by it, but need its windows, grids and partitions: replace their file and reload them.",
    ]
    if policy.core_version != CORE_VERSION:
        lines.append(f"Workers whose core is not {policy.core_version} leave it alone.")
    click.echo("\n".join(lines))


@policy_group.command("show", epilog=EXIT_CODES)
@click.argument("file", required=False, type=FILE)
@cluster_options
@signers_option(required=False)
@click.option("--document", is_flag=True, help="Print it as a document that can be edited; with --json as JSON.")
@json_option
def show_command(file: Path | None, cluster: Cluster, signers: tuple[str, ...], document: bool, as_json: bool) -> None:
    """Show a policy: that of FILE, signed or not, or without it the newest on the policy topic."""
    with errors(as_json):
        held = held_or_newest(file, cluster, points(signers))
        if document:
            click.echo(to_json(held.policy) if as_json else to_toml(held.policy), nl=False)
        elif as_json:
            say(policy_json(held, now_ms()))
        else:
            show_screen(policy_screen(held, now_ms()))
        if not held.believed and held.signature != UNSIGNED:
            sys.exit(EXIT_REFUSED)


@policy_group.command("diff", epilog=EXIT_CODES)
@click.argument("before", type=FILE)
@click.argument("after", required=False, type=FILE)
@cluster_options
@signers_option(required=False)
@click.option("--refuse-weaker", is_flag=True, help="Exit 3 if the later one trusts more or protects less anywhere.")
@json_option
def diff_command(
    before: Path, after: Path | None, cluster: Cluster, signers: tuple[str, ...], refuse_weaker: bool, as_json: bool
) -> None:
    """What changes from policy BEFORE to AFTER, field by field; with one file, from the newest on the topic to it.

    Changes that trust more or protect less are marked.
    """
    with errors(as_json):
        trusted = points(signers)
        old = hold_file(before, trusted) if after is not None else held_or_newest(None, cluster, trusted)
        new = hold_file(after if after is not None else before, trusted)
        for one in (old, new):
            if not one.believed and one.signature != UNSIGNED:
                click.echo(f"{one.origin}: its signature: {one.signature}", err=True)
        found = changes(old.policy, new.policy)
        if as_json:
            said: dict[str, Any] = {"before": old.origin, "after": new.origin}
            say({**said, "weaker": len(weaker(found)), "changes": [to_jsonable(one) for one in found]})
        else:
            show_screen(changes_screen(found))
        sys.exit(EXIT_REFUSED if refuse_weaker and weaker(found) else 0)
