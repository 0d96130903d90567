"""Commands that run something: `demo`, `produce`, `worker`."""

from __future__ import annotations

import contextlib
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

from attester.simulated import SIMULATED_BANNER, SimulatedTee, simulated_measurement, simulated_platform_id
from enclavescale.agent.file import ProduceSpec, load_spec
from enclavescale.agent.producing import Production, is_simulated
from enclavescale.cli.common import (
    EXIT_CODES,
    EXIT_FAILURE,
    Cluster,
    FiniteRange,
    cluster_options,
    errors,
    json_option,
    say,
)
from enclavescale.demo import MIN_ATTACK_HOSTS, DemoOptions, run_demo
from enclavescale.errors import NotDelivered
from enclavescale.gate import Gate
from enclavescale.live import summary_screen
from enclavescale.reach import metadata
from enclavescale.settings import kafka_properties, load_file
from schemas.errors import ConfigError
from stream_jobs.policy_store import PolicyTrust
from stream_jobs.reading import open_reader
from stream_jobs.settings import LogSettings

Load = Callable[[], tuple[ProduceSpec, dict[str, str]]]


@click.command(epilog=EXIT_CODES)
@click.option("--hosts", default=32, show_default=True, type=click.IntRange(2, 512))
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
@click.option("--config", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
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


@click.command(epilog=EXIT_CODES)
@cluster_options
@click.option("--group", required=True, help="Consumer group.")
@click.option("--host-id", required=True, help="Enrolled identity of this aggregator.")
@click.option("--policy-signer", "signers", multiple=True, required=True, metavar="HEX", help="Trusted signer's key.")
@click.option("--min-policy-counter", default=0, show_default=True, help="Refuse older policies.")
@click.option("--simulated-tee", "tee_directory", required=True, type=click.Path(path_type=Path), help="Its directory.")
@click.option("--tee-image", default="enclavescale-aggregator", show_default=True, help="Image it claims to measure.")
@click.option(
    "--session-timeout", default=10.0, show_default=True, type=FiniteRange(0.1, 3600), help="Of the consumer group, s."
)
@click.option(
    "--beacon-interval",
    default=3600.0,
    show_default=True,
    type=FiniteRange(0, 30 * 86_400),
    help="Issue a beacon after so many seconds without one, s; 0 for never.",
)
@click.option("--metrics", metavar="HOST:PORT", help="Serve Prometheus metrics there.")
@click.option("--unsafe-allow-create-time", is_flag=True, help="Accept producers' timestamps. Never outside a demo.")
@json_option
def worker(
    cluster: Cluster,
    group: str,
    host_id: str,
    signers: tuple[str, ...],
    min_policy_counter: int,
    tee_directory: Path,
    tee_image: str,
    session_timeout: float,
    beacon_interval: float,
    metrics: str | None,
    unsafe_allow_create_time: bool,
    as_json: bool,
) -> None:
    """Run an aggregator: verify, reject, aggregate, publish; until SIGTERM.

    With --json one object at the end says how it ended; `enclavescale --log-format json worker …` makes every log line
    one.
    """
    from stream_jobs.worker import WorkerConfig, run_worker  # noqa: PLC0415  Faust is slow to load

    with errors(as_json):
        click.echo(SIMULATED_BANNER, err=True)
        if unsafe_allow_create_time:
            click.echo("UNSAFE: producers' timestamps are believed", err=True)
        try:
            trust = PolicyTrust(tuple(bytes.fromhex(one) for one in signers), min_policy_counter)
        except ValueError as error:
            raise ConfigError("--policy-signer: not hexadecimal", field="policy_signer") from error
        provider = SimulatedTee.create(
            tee_directory, platform_id=simulated_platform_id(host_id), mrtd=simulated_measurement(tee_image)
        )
        config = WorkerConfig(
            kafka=cluster.properties(),
            host_id=host_id,
            group=group,
            provider=provider,
            trust=trust,
            topics=cluster.names,
            settings=LogSettings(
                session_timeout_s=session_timeout,
                heartbeat_interval_s=session_timeout / 3,
                unsafe_allow_create_time=unsafe_allow_create_time,
            ),
            metrics_address=_address(metrics),
            beacon_interval_ms=round(beacon_interval * 1000) or None,
        )
        with contextlib.closing(open_reader(cluster.quiet_properties())) as reader:
            metadata(reader)  # one message when nobody answers, instead of the client library's log of every attempt
        code = run_worker(config)
        if as_json:
            say({"host_id": host_id, "group": group, "exit_code": code})
        sys.exit(code)


def _address(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError("--metrics: give an address as HOST:PORT", field="metrics")
    return host, int(port)
