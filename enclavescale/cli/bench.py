"""Commands that measure this machine: `bench host`."""

from __future__ import annotations

import click
from rich.console import Console

from enclavescale.bench.host import READERS, bench, readers_here
from enclavescale.bench.host_screen import bench_screen
from enclavescale.cli.common import EXIT_CODES, errors, json_option, say


@click.group(epilog=EXIT_CODES)
def bench_group() -> None:
    """Measure what EnclaveScale costs on this machine."""


@bench_group.command("host", epilog=EXIT_CODES)
@click.option(
    "--windows", default=0, show_default="by time", type=click.IntRange(0, 1_000_000), help="Reports to make."
)
@click.option("--seconds", default=10.0, show_default=True, type=click.FloatRange(0.1, 3600), help="Else: so long.")
@click.option("--gpus", default=8, show_default=True, type=click.IntRange(1, 64), help="Simulated GPUs.")
@click.option(
    "--agent-seconds",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0, 86_400),
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
