"""`enclavescale bench byzantine`: what colluding hosts can do to the output."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from enclavescale.bench.byzantine import ALL, FRACTIONS, bench_byzantine
from enclavescale.bench.byzantine_screen import byzantine_screen
from enclavescale.bench.byzantine_strategies import STRATEGIES
from enclavescale.bench.byzantine_trial import ByzantineSpec
from enclavescale.cli.common import EXIT_CODES, errors, json_option, say
from schemas.records import DomainRule

HISTORY = next(one.default for one in DomainRule.__dataclass_fields__.values() if one.name == "history_windows")


@click.command("byzantine", epilog=EXIT_CODES)
@click.option(
    "--fraction",
    type=click.FloatRange(0, 0.99),
    show_default=", ".join(f"{one:g}" for one in FRACTIONS),
    help="Share of the hosts that lie together.",
)
@click.option(
    "--strategy", default=ALL, show_default=True, type=click.Choice([ALL, *STRATEGIES]), help="What they claim."
)
@click.option(
    "--traces",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    show_default="the bundled ones",
    help="Directory of Parquet files or nvidia-smi CSV logs, with or without a manifest.json.",
)
@click.option("--hosts", default=32, show_default=True, type=click.IntRange(4, 4096), help="Hosts of a fleet.")
@click.option("--gpus", default=8, show_default=True, type=click.IntRange(1, 64), help="GPUs per host.")
@click.option(
    "--epsilon", default=1.0, show_default=True, type=click.FloatRange(0.05, 100), help="Per window and reading."
)
@click.option("--window", default=60, show_default=True, type=click.IntRange(5, 3600), help="Seconds per window.")
@click.option("--windows", default=10, show_default=True, type=click.IntRange(1, 1000), help="Windows of an attack.")
@click.option(
    "--history", default=HISTORY, show_default=True, type=click.IntRange(0, 1000), help="Honest windows before."
)
@click.option("--trials", default=2, show_default=True, type=click.IntRange(1, 10_000), help="Fleets drawn.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0, 2**63 - 1), help="Fixes everything.")
@click.option("--presence/--no-presence", default=True, show_default=True, help="Measure what outputs tell of one job.")
@click.option(
    "--honest",
    default=0,
    show_default=True,
    type=click.IntRange(0, 100_000_000),
    help="Honest host-windows to count refusals and flags on, with jobs that start and stop.",
)
@click.option("--workers", default=0, show_default="one per core", type=click.IntRange(0, 1024), help="Processes.")
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
