"""`enclavescale bench byzantine`: what colluding hosts can do to the output."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from enclavescale.bench.byzantine import ALL, FRACTIONS, bench_byzantine
from enclavescale.bench.byzantine_screen import byzantine_screen
from enclavescale.bench.byzantine_strategies import STRATEGIES
from enclavescale.bench.byzantine_trial import ByzantineSpec
from enclavescale.cli.bench_options import fleet_options, run_options, traces_option
from enclavescale.cli.common import EXIT_CODES, FiniteRange, errors, json_option, say
from schemas.records import DomainRule

HISTORY = next(one.default for one in DomainRule.__dataclass_fields__.values() if one.name == "history_windows")


class StrategyName(click.Choice[str]):
    """One of the strategies, with hyphens or underscores."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name as the code has it."""
        return super().convert(value.replace("-", "_"), param, ctx)


@click.command("byzantine", epilog=EXIT_CODES)
@click.option(
    "--fraction",
    type=FiniteRange(0, 0.99),
    show_default=", ".join(f"{one:g}" for one in FRACTIONS),
    help="Share of the hosts that lie together.",
)
@click.option(
    "--strategy", default=ALL, show_default=True, type=StrategyName([ALL, *STRATEGIES]), help="What they claim."
)
@traces_option(required=False)
@fleet_options
@click.option("--windows", default=10, show_default=True, type=click.IntRange(1, 1000), help="Windows of an attack.")
@click.option(
    "--history", default=HISTORY, show_default=True, type=click.IntRange(0, 1000), help="Honest windows before."
)
@click.option("--trials", default=2, show_default=True, type=click.IntRange(1, 10_000), help="Fleets drawn.")
@run_options
@click.option("--presence/--no-presence", default=True, show_default=True, help="Measure what outputs tell of one job.")
@click.option(
    "--honest",
    default=0,
    show_default=True,
    type=click.IntRange(0, 100_000_000),
    help="Honest host-windows to count refusals and flags on, with jobs that start and stop.",
)
@json_option
def byzantine(
    fraction: float | None,
    strategy: str,
    traces: Path | None,
    hosts: int,
    gpus: int,
    epsilon: float,
    window: int,
    windows: int,
    history: int,
    trials: int,
    seed: int,
    presence: bool,
    honest: int,
    workers: int,
    as_json: bool,
) -> None:
    """What attested hosts that lie together do to mean and margin.

    Draws fleets from traces, gives the core an honest history, then lets a share of the hosts lie: to the limits of
    physics, slowly, in step, or about their capacity. Compares with the same fleet all honest (MW moved per 100 MW
    nameplate), with the truth, and with the influence bounds. Also says what the layers cost an honest fleet, and how
    well a reader of the output can tell whether one job runs. With --json the last line is one object.
    """
    with errors(as_json):
        spec = ByzantineSpec(
            hosts=hosts,
            gpus=gpus,
            epsilon=epsilon,
            window_s=window,
            windows=windows,
            history=history,
            seed=seed,
        )
        result = bench_byzantine(
            traces,
            spec,
            fractions=FRACTIONS if fraction is None else (fraction,),
            strategies=tuple(STRATEGIES) if strategy == ALL else (strategy,),
            trials=trials,
            presence=presence,
            honest_host_windows=honest,
            workers=workers,
        )
        if as_json:
            say(result)
        else:
            Console().print(byzantine_screen(result))
