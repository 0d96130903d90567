"""`enclavescale bench attacks`: every attack of the threat model, tried many times."""

from __future__ import annotations

import sys
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from enclavescale.cli.common import EXIT_CODES, EXIT_FAILURE, errors, json_option, say
from schemas.errors import ConfigError


class AttackName(click.ParamType):
    """One of the classes of attack. They bring the whole worker with them, so they are loaded when they are asked for:
    no other command waits for that."""

    name = "class"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name of a class, or click's own message with all of them."""
        return _choice().convert(value, param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """All of them, for --help."""
        return _choice().get_metavar(param, ctx)


def _choice() -> click.Choice[str]:
    from enclavescale.bench.attacks_classes import CLASSES  # noqa: PLC0415  a second

    return click.Choice(list(CLASSES))


def _live(classes: tuple[str, ...]) -> tuple[str, ...]:
    """The classes to try through a broker. Raises ConfigError for one that is not."""
    from enclavescale.bench.attacks_broker import LIVE  # noqa: PLC0415

    for one in classes:
        if one not in LIVE:
            raise ConfigError(f"{one} is tried in the fast harness only: leave --bootstrap out", field="class")
    return classes or LIVE


@click.command("attacks", epilog=EXIT_CODES)
@click.option(
    "--trials", default=200, show_default=True, type=click.IntRange(1, 10_000_000), help="Of each class, all different."
)
@click.option(
    "--class",
    "classes",
    multiple=True,
    type=AttackName(),
    show_default="all",
    help="Only this class; may be given several times.",
)
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0, 2**31), help="Fixes what is tried.")
@click.option(
    "--bootstrap",
    metavar="HOST:PORT",
    help="Against a running worker through this broker, on topics of its own: what puts records on topics.",
)
@click.option("--workers", default=0, show_default="one per core", type=click.IntRange(0, 1024), help="Processes.")
@json_option
def attacks(
    trials: int, classes: tuple[str, ...], seed: int, bootstrap: str | None, workers: int, as_json: bool
) -> None:
    """Every attack of the threat model as code: how often it succeeds, and how it is refused.

    A fleet with real sessions, signatures and evidence reports into the real pipeline; attackers put records into its
    log, change it, or withhold parts of it. With --bootstrap the same records go through a broker to a worker that is
    killed on the way. A trial succeeds if anything in an output changes but the counts of what
    was refused, or if an honest report is lost without a trace. Ends with 1 if one does. With --json the last line is
    one object.
    """
    from enclavescale.bench.attacks import bench_attacks, bench_attacks_live  # noqa: PLC0415
    from enclavescale.bench.attacks_classes import CLASSES  # noqa: PLC0415
    from enclavescale.bench.attacks_screen import attacks_screen  # noqa: PLC0415

    with errors(as_json):
        console = Console(stderr=True)
        with Progress(
            TextColumn("classes"), BarColumn(), MofNCompleteColumn(), console=console, transient=True,
            disable=as_json or not console.is_terminal,
        ) as bar:  # fmt: skip
            task = bar.add_task("classes", total=None)
            result = (
                bench_attacks(
                    trials,
                    classes=classes or tuple(CLASSES),
                    seed=seed,
                    workers=workers,
                    progress=lambda done, total: bar.update(task, completed=done, total=total),
                )
                if bootstrap is None
                else bench_attacks_live(bootstrap, trials, classes=_live(classes), seed=seed)
            )
        if as_json:
            say(result)
        else:
            screen = Console()
            screen.print(attacks_screen(result, screen.width))
    if not result["met"]:
        sys.exit(EXIT_FAILURE)
