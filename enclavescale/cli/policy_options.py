"""What the commands on policies share: trusted signers, the signer's passphrase, whether a cluster is named, output."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console, RenderableType

from enclavescale.cli.common import Cluster
from enclavescale.policy.held import HeldPolicy, hold_file
from enclavescale.policy.keys import PASSPHRASE_VARIABLE, read_passphrase
from enclavescale.policy.topic import PolicyTopic, read_topic
from enclavescale.settings import ENVIRONMENT_PREFIX
from schemas.errors import ConfigError
from verifier.errors import VerificationError
from verifier.signature import load_session_key

F = TypeVar("F", bound=Callable[..., Any])
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
NEW_FILE = click.Path(dir_okay=False, writable=True, path_type=Path)

passphrase_option = click.option(
    "--passphrase-file",
    type=FILE,
    help=f"File whose first line is the key's passphrase; else ${PASSPHRASE_VARIABLE}, else it is asked for.",
)


def signers_option(*, required: bool) -> Callable[[F], F]:
    """The option --policy-signer, repeatable; the command gets `signers`, a tuple of hexadecimal points."""
    return click.option(
        "--policy-signer",
        "signers",
        multiple=True,
        required=required,
        metavar="HEX",
        help="Trusted signer's key, as workers have it; repeatable.",
    )


def points(signers: Sequence[str]) -> tuple[bytes, ...]:
    """The signers' uncompressed points, 65 bytes each. Raises ConfigError for text that is none."""
    found = []
    for text in signers:
        try:
            point = bytes.fromhex(text)
            load_session_key(point)
        except (ValueError, VerificationError) as error:
            raise ConfigError(
                f"--policy-signer {text[:20]}…: no uncompressed P-256 point in hexadecimal", field="policy_signer"
            ) from error
        found.append(point)
    return tuple(found)


def passphrase(file: Path | None, *, confirm: bool = False) -> bytes | None:
    """The key's passphrase from a file, the environment or a prompt; None where nobody can be asked."""
    held = read_passphrase(file, os.environ)
    if held is None and sys.stdin.isatty():
        return os.fsencode(
            click.prompt("Passphrase of the key", hide_input=True, confirmation_prompt=confirm, err=True)
        )
    return held


def names_cluster(cluster: Cluster) -> bool:
    """Whether options or environment name a cluster, for commands that can do without."""
    given = bool(cluster.bootstrap or cluster.config or cluster.pairs)
    return given or f"{ENVIRONMENT_PREFIX}BOOTSTRAP_SERVERS" in os.environ


def topic_of(cluster: Cluster, signers: tuple[bytes, ...]) -> PolicyTopic:
    """What stands on the cluster's policy topic; values that do not count are told on stderr."""
    found = read_topic(cluster.quiet_properties(), cluster.names.policy, signers)
    for partition, offset, code in found.others:
        click.echo(f"{cluster.names.policy}[{partition}] offset {offset} does not count: {code}", err=True)
    return found


def held_or_newest(file: Path | None, cluster: Cluster, signers: tuple[bytes, ...]) -> HeldPolicy:
    """The policy in a file, or without one the newest on the topic. Raises ConfigError NO_POLICY for an empty topic."""
    if file is not None:
        return hold_file(file, signers)
    if not signers:
        click.echo("no --policy-signer given: whoever signed counts here; workers ask who it was", err=True)
    newest = topic_of(cluster, signers).newest
    if newest is None:
        raise ConfigError(
            f"no policy that counts on {cluster.names.policy}",
            code="NO_POLICY",
            remedy="Publish one: enclavescale policy apply FILE.",
        )
    return newest.held


def show_screen(screen: RenderableType, *, err: bool = False) -> None:
    """Print for people, as wide as there is room."""
    Console(stderr=err, highlight=False).print(screen)
