"""Commands of hosts: `demo`, `produce`."""

from __future__ import annotations

import dataclasses
import logging
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import click
from rich.console import Console

from attester.simulated import SIMULATED_BANNER
from enclavescale.access.cluster import check_host
from enclavescale.agent.file import ProduceSpec, load_spec
from enclavescale.agent.producing import Production, is_simulated
from enclavescale.cli.common import (
    EXIT_CODES,
    EXIT_FAILURE,
    errors,
    json_option,
    say,
)
from enclavescale.demo import MIN_ATTACK_HOSTS, DemoOptions, run_demo
from enclavescale.errors import NotDelivered
from enclavescale.gate import Gate
from enclavescale.live import summary_screen
from enclavescale.settings import kafka_properties, load_file
from schemas.topics import TopicNames

Load = Callable[[], tuple[ProduceSpec, dict[str, str]]]


@click.command(epilog=EXIT_CODES)
@click.option("--hosts", default=32, show_default=True, type=click.IntRange(2, 512), help="Hosts in all.")
@click.option("--gpus", default=8, show_default=True, type=click.IntRange(1, 64), help="GPUs per host.")
@click.option("--windows", default=250, show_default=True, type=click.IntRange(1, 100_000), help="Per domain.")
@click.option("--window-s", default=10, show_default=True, type=click.IntRange(2, 600), help="Window length, s.")
@click.option(
    "--speed", default=60, show_default=True, type=click.IntRange(1, 10_000), help="At most so many times real time."
)
@click.option("--processes", default=4, show_default=True, type=click.IntRange(1, 512), help="Host processes.")
@click.option("--bootstrap", metavar="HOST:PORT", help="A real cluster instead of the embedded mock broker.")
@click.option("--no-attack", is_flag=True, help="Leave the three dishonest hosts out.")
@click.option(
    "--windows-out",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write truth and estimate per window here, one JSON object a line.",
)
@json_option
def demo(
    hosts: int,
    gpus: int,
    windows: int,
    window_s: int,
    speed: int,
    processes: int,
    bootstrap: str | None,
    no_attack: bool,
    windows_out: Path | None,
    as_json: bool,
) -> None:
    """Run everything on this machine: broker, hosts, three dishonest hosts, worker.

    Replays real NVML power traces faster than real time and shows power, swing and margin per domain. Three hosts lie
    (with 6 hosts and more): one tampers, one replays, one runs modified code; their records are refused.
    """
    logging.getLogger().setLevel(logging.WARNING)
    options = DemoOptions(
        hosts=hosts,
        gpus=gpus,
        windows=windows,
        window_ms=window_s * 1000,
        speed=speed,
        bootstrap=bootstrap,
        processes=processes,
        attack=not no_attack,
        windows_out=windows_out,
    )
    if windows_out is not None:
        _check_writable(windows_out)
    if options.attack and not options.attacked:
        click.echo(f"Fewer than {MIN_ATTACK_HOSTS} hosts: the three dishonest ones are left out.", err=True)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(EXIT_FAILURE))
    with errors(as_json):
        try:
            summary = run_demo(options, Console(stderr=True))
        except KeyboardInterrupt:
            click.echo("Interrupted; every process of the demo was ended.", err=True)
            sys.exit(EXIT_FAILURE)
        if as_json:
            say(summary)
        else:
            console = Console()
            console.print(summary_screen(summary, console.width))


def _check_writable(path: Path) -> None:
    """Say before the run, not after it, that its result cannot be written."""
    try:
        path.open("a").close()
    except OSError as error:
        raise click.BadParameter(f"{path}: {error.strerror}", param_hint="--windows-out") from error


@click.command("produce", epilog=EXIT_CODES)
@click.option(
    "--config",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The agent's file.",
)
@json_option
def produce_command(config: Path, as_json: bool) -> None:
    """Run the host agent for the hosts of a TOML or JSON file (`docs/agent.md` describes it).

    Runs until SIGTERM, or until its windows are done; what no broker has acknowledged stays in the spool. SIGHUP reads
    file and policy again: the next window is made under them, or under the old ones if they do not hold.
    """
    stop, gate = threading.Event(), None
    # Handlers may put into such a queue at any moment; one that sets an event can meet itself, or the loop that waits
    # for the event, while its lock is held.
    asked: SimpleQueue[None] = SimpleQueue()
    ended: SimpleQueue[None] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.put(None))
    signal.signal(signal.SIGHUP, lambda *_: asked.put(None))
    threading.Thread(target=_stop_when_asked, args=(ended, stop), daemon=True).start()

    def load() -> tuple[ProduceSpec, dict[str, str]]:
        table = load_file(config)
        return load_spec(table), kafka_properties(None, (), table)

    with errors(as_json):
        spec, kafka = load()
        check_host(kafka, TopicNames.with_prefix(spec.topic_prefix))
        if is_simulated(spec):
            click.echo(SIMULATED_BANNER, err=True)
        if spec.gated:
            gate = Gate()
            threading.Thread(target=gate.listen, args=(sys.stdin, stop), daemon=True).start()
        with Production(spec, kafka, gate) as production:
            threading.Thread(target=reload_when_asked, args=(asked, production, load), daemon=True).start()
            summary = production.run(stop)
        if summary.left_in_spool and not stop.is_set():
            raise NotDelivered(f"reports that wait in the spool, not acknowledged: {summary.left_in_spool}")
        if as_json:
            say(dataclasses.asdict(summary))
        else:
            click.echo(
                f"{summary.windows} windows, {summary.reports} reports, {summary.acknowledged} acknowledged, "
                f"{summary.lost} lost, {summary.left_in_spool} left in the spool"
            )


def _stop_when_asked(asked: SimpleQueue[None], stop: threading.Event) -> None:
    asked.get()
    stop.set()


def reload_when_asked(asked: SimpleQueue[None], production: Production, load: Load) -> None:
    """For ever, one after the other; however often it was asked for meanwhile, once more will do."""
    while True:
        asked.get()
        while not asked.empty():
            asked.get()
        production.reload(load)
