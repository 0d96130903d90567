"""`enclavescale top`: the page's state in a terminal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import click
from rich.console import Console
from rich.live import Live

from enclavescale.cli.common import EXIT_CODES, Cluster, cluster_options, errors, json_option, say
from enclavescale.cli.policy_options import points
from enclavescale.cli.registry_options import OpenRegistry, registry_options
from enclavescale.reach import partitions_of_topic
from enclavescale.registry.ids import open_framing
from enclavescale.top_screen import top_screen
from enclavescale.watching import Watching
from stream_jobs.policy_store import PolicyTrust
from stream_jobs.reading import open_reader

DRAW_S = 0.5
HISTORY = 40
"""Windows per domain: what the trend shows."""

CATCH_UP_S = 60.0
"""Longest time --once waits for what was there when it began, s."""


@click.command(epilog=EXIT_CODES)
@cluster_options
@registry_options
@click.option(
    "--policy-signer",
    "signers",
    multiple=True,
    metavar="HEX",
    help="Trusted policy signer: outputs are verified under its policies. Without one they are shown as not verified.",
)
@click.option("--min-policy-counter", default=0, show_default=True, help="Refuse older policies.")
@click.option("--once", is_flag=True, help="Show the state once and end.")
@json_option
def top(
    cluster: Cluster,
    registry: OpenRegistry,
    signers: tuple[str, ...],
    min_policy_counter: int,
    once: bool,
    as_json: bool,
) -> None:
    """Show live power, margin, refusals and what is wrong in this terminal, until Ctrl-C.

    With --json one object a line, as /api/v1/state of the page gives it, whenever something has changed.
    """
    with errors(as_json):
        trust = PolicyTrust(points(signers), min_policy_counter) if signers else None
        framing = open_framing(registry(), cluster.names)
        kafka = cluster.quiet_properties("page")
        with contextlib.closing(open_reader(kafka)) as reader:
            partitions_of_topic(reader, cluster.names.output)
        with (
            Watching(kafka, cluster.names, trust, keep=HISTORY, framing=framing) as watching,
            contextlib.suppress(KeyboardInterrupt),
        ):
            if once:
                wait_for(watching)
                _show_once(watching, as_json)
            elif as_json:
                _follow(watching)
            else:
                _live(watching)


def wait_for(
    watching: Watching,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Until everything is read that was there at the start, at most `CATCH_UP_S`."""
    end = clock() + CATCH_UP_S
    while not watching.board.caught_up() and watching.alive and clock() < end:
        pause(0.05)


def _now_ms() -> int:
    return int(time.time() * 1000)


def _show_once(watching: Watching, as_json: bool) -> None:
    state = watching.board.snapshot(_now_ms())
    if as_json:
        say(state)
    else:
        console = Console()
        console.print(top_screen(state, console.width))


def _follow(watching: Watching) -> None:
    while watching.alive:
        if watching.board.changes(_now_ms()):
            say(watching.board.snapshot(_now_ms()))
        time.sleep(DRAW_S)


def _live(watching: Watching) -> None:
    console = Console()
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while watching.alive:
            live.update(top_screen(watching.board.snapshot(_now_ms()), console.width), refresh=True)
            time.sleep(DRAW_S)
