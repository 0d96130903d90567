"""Commands that measure: this machine (`bench host`), the estimates on real traces (`bench margin`)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from enclavescale.bench.host import READERS, bench, readers_here
from enclavescale.bench.host_screen import bench_screen
from enclavescale.bench.margin import MODE_CHOICES, bench_margin
from enclavescale.bench.margin_screen import margin_screen
from enclavescale.bench.margin_trial import NOISES, MarginSpec
from enclavescale.cli.bench_attacks import attacks
from enclavescale.cli.bench_attestation import attestation
from enclavescale.cli.bench_byzantine import byzantine
from enclavescale.cli.bench_options import fleet_options, run_options, traces_option
from enclavescale.cli.common import EXIT_CODES, FiniteRange, errors, json_option, say


@click.group(epilog=EXIT_CODES)
def bench_group() -> None:
    """Measure what EnclaveScale costs on this machine, and how good its estimates are."""


@bench_group.command("host", epilog=EXIT_CODES)
@click.option(
    "--windows", default=0, show_default="by time", type=click.IntRange(0, 1_000_000), help="Reports to make."
)
@click.option("--seconds", default=10.0, show_default=True, type=FiniteRange(0.1, 3600), help="Else: so long.")
@click.option("--gpus", default=8, show_default=True, type=click.IntRange(1, 64), help="Simulated GPUs.")
@click.option(
    "--agent-seconds",
    default=30.0,
    show_default=True,
    type=FiniteRange(0, 86_400),
    help="Then run an agent so long in real time; 0 leaves it out. From 150 on with 60-s windows, else shorter ones.",
)
@click.option(
    "--reader",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", *READERS]),
    help="GPUs of the agent: simulated, real ones through NVML; auto: both where there are real ones.",
)
@json_option
def host(windows: int, seconds: float, gpus: int, agent_seconds: float, reader: str, as_json: bool) -> None:
    """Samples per second of the host side, and what the agent costs.

    Distils, privatises, seals and encodes prepared readings on one core at the shipped defaults, with OpenDP's real
    noise and a session of the simulated TEE. Then runs an agent in a process of its own against an embedded broker
    and says its share of a core, its memory and the jitter of its sampling. With --json the last line is one object.
    """
    with errors(as_json):
        readers = (readers_here() if reader == "auto" else (reader,)) if agent_seconds else ()
        result = bench(windows=windows, seconds=seconds, gpus=gpus, agent_seconds=agent_seconds, readers=readers)
        if as_json:
            say(result)
        else:
            Console().print(bench_screen(result))


@contextlib.contextmanager
def progress_bar(what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr while it is a terminal; the block calls what it gets with the number done and that in all."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda done, total: None
        return
    with Progress(TextColumn(what), BarColumn(), MofNCompleteColumn(), console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@bench_group.command("margin", epilog=EXIT_CODES)
@traces_option(required=True)
@fleet_options
@click.option("--trials", default=200, show_default=True, type=click.IntRange(1, 1_000_000), help="Windows measured.")
@click.option("--per-fleet", default=4, show_default=True, type=click.IntRange(1, 1000), help="Of them in one fleet.")
@click.option("--run-up", default=3, show_default=True, type=click.IntRange(0, 1000), help="Windows before them.")
@run_options
@click.option(
    "--mode",
    default=MODE_CHOICES[0],
    show_default=True,
    type=click.Choice(MODE_CHOICES),
    help="Traces by kind of reading: all of them and each kind alone; any: mixed only; or one kind only.",
)
@click.option("--gpu", help="Only traces of GPUs whose name has this in it.")
@click.option("--tdp", type=click.IntRange(10, 5000), help="Nominal limit in W of GPUs for which no file states one.")
@click.option("--labels", is_flag=True, help="Hosts of a job state a group label.")
@click.option(
    "--noise",
    default=NOISES[0],
    show_default=True,
    type=click.Choice(NOISES),
    help="OpenDP's, as hosts add it; or simulated draws of the same law, which the seed fixes.",
)
@json_option
def margin(
    traces: Path,
    hosts: int,
    gpus: int,
    epsilon: float,
    window: int,
    trials: int,
    per_fleet: int,
    run_up: int,
    seed: int,
    mode: str,
    gpu: str | None,
    tdp: int | None,
    labels: bool,
    noise: str,
    workers: int,
    as_json: bool,
) -> None:
    """Errors of mean and margin on fleets made of real traces.

    Draws fleets from the traces (12 of 32 hosts in one training job, 8 in another, the rest inference and idle),
    scales their nameplate to 100 MW, runs hosts and core on them and compares with the truth: edge (this product),
    central (noise once for the fleet), exact (no noise), paper (clamped rows, averaged chain). With --json the last
    line is one object.
    """
    with errors(as_json):
        spec = MarginSpec(
            hosts=hosts,
            gpus=gpus,
            epsilon=epsilon,
            window_s=window,
            windows=trials,
            seed=seed,
            run_up=run_up,
            per_fleet=per_fleet,
            noise=noise,
            labels=labels,
        )
        with progress_bar("windows", quiet=as_json) as done:
            result = bench_margin(traces, spec, mode=mode, gpu=gpu, tdp_w=tdp, workers=workers, progress=done)
        if as_json:
            say(result)
        else:
            Console().print(margin_screen(result))


bench_group.add_command(byzantine)
bench_group.add_command(attacks)
bench_group.add_command(attestation)
