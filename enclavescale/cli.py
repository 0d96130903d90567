"""The command line. Results on stdout, logs on stderr; exit codes 0 ok, 1 failure, 2 usage, 3 refused."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, TopicPartition
from rich.console import Console
from rich.table import Table

from attester.simulated import SIMULATED_BANNER, SimulatedTee, simulated_measurement, simulated_platform_id
from enclavescale.demo import DemoOptions, run_demo
from enclavescale.live import mw, quantile_of, spread
from enclavescale.producing import load_spec, produce
from enclavescale.settings import kafka_properties, load_file
from enclavescale.topic_admin import check_topics, create_topics, describe_topics
from schemas.codec import decode_any, decode_signed_output
from schemas.errors import ConfigError, EnclaveScaleError, SchemaError
from schemas.mapping import to_jsonable
from schemas.records import FleetPower
from schemas.topics import TopicNames
from stream_jobs.policy_store import PolicyTrust
from stream_jobs.reading import open_reader, read_range, watermarks
from stream_jobs.settings import LogSettings
from stream_jobs.worker import WorkerConfig, run_worker
from verifier.errors import VerificationError

EXIT_FAILURE, EXIT_REFUSED = 1, 3

F = TypeVar("F", bound=Callable[..., Any])


def _exit_code(error: EnclaveScaleError) -> int:
    """3 where evidence or a record was refused, 2 for what the user must correct, 1 otherwise."""
    if isinstance(error, VerificationError | SchemaError):
        return EXIT_REFUSED
    return 2 if isinstance(error, ConfigError) and error.code == "CONFIG_INVALID" else EXIT_FAILURE


@contextlib.contextmanager
def _errors(as_json: bool) -> Iterator[None]:
    """Turn our errors into a message with a remedy, or a JSON object, and an exit code."""
    try:
        yield
    except EnclaveScaleError as error:
        if as_json:
            click.echo(json.dumps({"error": error.code, "message": str(error), "remedy": error.remedy}))
        click.echo(f"{error.code}: {error}\n{error.remedy}".rstrip(), err=True)
        sys.exit(_exit_code(error))


def _topic_names(context: click.Context, _option: click.Parameter, pairs: tuple[str, ...]) -> TopicNames:
    """The topics' names: all under the prefix, single ones replaced."""
    given = dict(pair.partition("=")[::2] for pair in pairs)
    try:
        return dataclasses.replace(TopicNames.with_prefix(context.params.pop("topic_prefix")), **given)
    except TypeError as error:
        raise click.BadParameter(f"no such role: {', '.join(given)}") from error


def _kafka_options(function: F) -> F:
    for option in (
        click.option(
            "--topic-name",
            "names",
            multiple=True,
            metavar="ROLE=NAME",
            callback=_topic_names,
            help="Name of one topic: reports, output, manifests, rejections, policy, collateral, beacons.",
        ),
        click.option(
            "--topic-prefix",
            default="enclavescale",
            show_default=True,
            is_eager=True,
            help="First part of topic names.",
        ),
        click.option("-K", "--kafka", "pairs", multiple=True, metavar="NAME=VALUE", help="Any librdkafka property."),
        click.option(
            "--kafka-config",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="TOML or JSON file with a table `kafka`.",
        ),
        click.option("--bootstrap", metavar="HOST:PORT", help="Brokers; there is no default."),
    ):
        function = option(function)
    return function


def _properties(bootstrap: str | None, pairs: tuple[str, ...], config: Path | None) -> dict[str, str]:
    return kafka_properties(bootstrap, pairs, load_file(config) if config else None)


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="enclavescale")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
def main(verbose: bool) -> None:
    """Attested, differentially private GPU power telemetry on Apache Kafka."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for noisy in ("aiokafka", "faust", "mode"):
        logging.getLogger(noisy).setLevel(logging.INFO if verbose else logging.WARNING)


@main.command()
@click.option("--hosts", default=32, show_default=True, type=click.IntRange(2, 512))
@click.option("--gpus", default=8, show_default=True, type=click.IntRange(1, 64), help="GPUs per host.")
@click.option("--windows", default=250, show_default=True, type=click.IntRange(1, 100_000), help="Per domain.")
@click.option("--window-s", default=10, show_default=True, type=click.IntRange(2, 600), help="Window length, s.")
@click.option("--speed", default=60, show_default=True, type=click.IntRange(1, 10_000), help="Times real time.")
@click.option("--processes", default=4, show_default=True, type=click.IntRange(1, 512), help="Host processes.")
@click.option("--bootstrap", metavar="HOST:PORT", help="A real cluster instead of the embedded mock broker.")
@click.option("--no-attack", is_flag=True, help="Leave the three dishonest hosts out.")
@click.option(
    "--windows-out", type=click.Path(dir_okay=False, path_type=Path), help="Write truth and estimate per window here."
)
@_json_option
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

    Replays real NVML power traces faster than real time and shows power, swing and margin per domain.
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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_FAILURE))
    with _errors(as_json):
        summary = run_demo(options, Console(stderr=True))
        if as_json:
            click.echo(json.dumps(summary))
        else:
            _print_summary(summary)


def _print_summary(summary: Mapping[str, Any]) -> None:
    console = Console()
    grid = Table(title="Last window of each domain", header_style="bold")
    for name in ("domain", "mean, MW", "raw traces, MW", "p99, MW", "margin, MW", "95 % interval of the margin"):
        grid.add_column(name, justify="left" if name == "domain" else "right")
    for name, figures in summary["domains"].items():
        low, high = figures["margin_ci_mw"] or (None, None)
        grid.add_row(
            name,
            f"{figures['mean_mw']:.4f}",
            f"{figures['truth_mw']:.4f}",
            f"{figures['p99_mw']:.4f}",
            f"{figures['margin_mw']:.4f}" if figures["margin_mw"] is not None else "—",
            f"{low:.4f} … {high:.4f}" if low is not None else "—",
        )
    console.print(grid)
    interval = summary["interval_95"]
    console.print(
        f"{summary['accepted']} reports of {summary['hosts']} hosts accepted, {summary['samples']:,} samples, "
        f"{summary['samples_per_s']:,.0f} samples/s."
    )
    refused = ", ".join(f"{code} {count}" for code, count in summary["refused"].items()) or "none"
    console.print(f"Refused (three dishonest hosts): {refused}.")
    console.print(
        f"The raw traces' mean lay inside the stated 95 % interval in {interval['covered']} of "
        f"{interval['windows']} windows."
    )
    console.print(SIMULATED_BANNER, style="bold black on yellow")


@main.command("produce")
@click.option("--config", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_json_option
def produce_command(config: Path, as_json: bool) -> None:
    """Run the host agent for the hosts of a TOML or JSON file (`docs/operations.md` describes it)."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with _errors(as_json):
        spec = load_spec(load_file(config))
        click.echo(SIMULATED_BANNER, err=True)
        summary = produce(spec, kafka_properties(None, spec.kafka), stop)
        if as_json:
            click.echo(json.dumps(to_jsonable(summary)))


@main.command()
@_kafka_options
@click.option("--group", required=True, help="Consumer group.")
@click.option("--host-id", required=True, help="Enrolled identity of this aggregator.")
@click.option("--policy-signer", "signers", multiple=True, required=True, metavar="HEX", help="Trusted signer's key.")
@click.option("--min-policy-counter", default=0, show_default=True, help="Refuse older policies.")
@click.option("--simulated-tee", "tee_directory", required=True, type=click.Path(path_type=Path), help="Its directory.")
@click.option("--tee-image", default="enclavescale-aggregator", show_default=True, help="Image it claims to measure.")
@click.option("--session-timeout", default=10.0, show_default=True, help="Of the consumer group, s.")
@click.option("--metrics", metavar="HOST:PORT", help="Serve Prometheus metrics there.")
@click.option("--unsafe-allow-create-time", is_flag=True, help="Accept producers' timestamps. Never outside a demo.")
def worker(
    bootstrap: str | None,
    kafka_config: Path | None,
    pairs: tuple[str, ...],
    names: TopicNames,
    group: str,
    host_id: str,
    signers: tuple[str, ...],
    min_policy_counter: int,
    tee_directory: Path,
    tee_image: str,
    session_timeout: float,
    metrics: str | None,
    unsafe_allow_create_time: bool,
) -> None:
    """Run an aggregator: verify, reject, aggregate, publish; until SIGTERM."""
    with _errors(False):
        click.echo(SIMULATED_BANNER, err=True)
        if unsafe_allow_create_time:
            click.echo("UNSAFE: producers' timestamps are believed", err=True)
        try:
            trust = PolicyTrust(tuple(bytes.fromhex(one) for one in signers), min_policy_counter)
        except ValueError as error:
            raise ConfigError(f"--policy-signer: {error}", field="policy_signer") from error
        provider = SimulatedTee.create(
            tee_directory, platform_id=simulated_platform_id(host_id), mrtd=simulated_measurement(tee_image)
        )
        config = WorkerConfig(
            kafka=_properties(bootstrap, pairs, kafka_config),
            host_id=host_id,
            group=group,
            provider=provider,
            trust=trust,
            topics=names,
            settings=LogSettings(
                session_timeout_s=session_timeout,
                heartbeat_interval_s=session_timeout / 3,
                unsafe_allow_create_time=unsafe_allow_create_time,
            ),
            metrics_address=_address(metrics),
        )
        sys.exit(run_worker(config))


def _address(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError("give an address as HOST:PORT", field="metrics")
    return host, int(port)


@main.command()
@_kafka_options
@click.option("--from-beginning", is_flag=True, help="Start at the oldest output instead of the next one.")
@click.option("--max", "limit", default=0, help="Stop after so many outputs; 0 means never.")
@click.option("--domain", help="Only this domain.")
@_json_option
def tail(
    bootstrap: str | None,
    kafka_config: Path | None,
    pairs: tuple[str, ...],
    names: TopicNames,
    from_beginning: bool,
    limit: int,
    domain: str | None,
    as_json: bool,
) -> None:
    """Follow the output topic: one line per window, or one JSON object with --json."""
    with _errors(as_json):
        properties = _properties(bootstrap, pairs, kafka_config)
        topic = names.output
        consumer = open_reader(properties)
        start = OFFSET_BEGINNING if from_beginning else OFFSET_END
        metadata = consumer.list_topics(topic, timeout=20).topics[topic]
        if metadata.error is not None:
            raise ConfigError(f"{topic}: {metadata.error.str()}", code="TOPIC_FAILED", field=topic)
        consumer.assign([TopicPartition(topic, partition, start) for partition in metadata.partitions])
        with contextlib.suppress(KeyboardInterrupt):
            _follow(consumer, limit, domain, as_json)
        consumer.close()


def _follow(consumer: Consumer, limit: int, domain: str | None, as_json: bool) -> None:
    shown = 0
    while not limit or shown < limit:
        message = consumer.poll(0.5)
        if message is None or message.error() is not None:
            continue
        try:
            signed = decode_signed_output(message.value() or b"")[0]
        except SchemaError as error:
            click.echo(f"offset {message.offset()}: {error.code} {error}", err=True)
            continue
        if domain is None or signed.output.domain == domain:
            click.echo(json.dumps(to_jsonable(signed)) if as_json else _line(signed.output))
            shown += 1


def _line(output: FleetPower) -> str:
    p99 = quantile_of(output, 990_000)
    margin = spread(output.margin.margin) if output.margin.margin else output.margin.margin_absent_reason
    refused = sum(one.count for one in output.refused)
    return (
        f"{output.domain} {output.window_start_ms} r{output.revision}  mean {spread(output.mean)}  "
        f"p99 {mw(p99.value_w) if p99 else float('nan'):.4f} MW  margin {margin}  "
        f"hosts {output.coverage.reporting_hosts}/{output.coverage.enrolled_hosts}  refused {refused}"
    )


@main.command()
@click.argument("file", required=False, type=click.File("rb"))
@_kafka_options
@click.option("--topic", help="Read from this topic instead of a file.")
@click.option("--partition", default=0, show_default=True)
@click.option("--offset", default=0, show_default=True)
@_json_option
def show(
    file: Any,
    bootstrap: str | None,
    kafka_config: Path | None,
    pairs: tuple[str, ...],
    names: TopicNames,
    topic: str | None,
    partition: int,
    offset: int,
    as_json: bool,
) -> None:
    """Show any record as JSON: a FILE that holds one value (- for stdin), or one offset of a topic."""
    del names  # --topic is a whole name
    with _errors(as_json):
        if file is not None:
            value = file.read()
        elif topic is not None:
            value = _fetch(_properties(bootstrap, pairs, kafka_config), topic, partition, offset)
        else:
            raise ConfigError("give a FILE or --topic", field="file")
        record = decode_any(value)
        click.echo(json.dumps(to_jsonable(record), indent=None if as_json else 2))


def _fetch(properties: Mapping[str, str], topic: str, partition: int, offset: int) -> bytes:
    consumer = open_reader(properties)
    low, high = watermarks(consumer, topic, partition, 20)
    if not low <= offset < high:
        raise ConfigError(f"{topic}[{partition}] holds offsets {low} to {high - 1}", field="offset")
    messages = read_range(consumer, topic, partition, offset, offset + 1, 20)
    consumer.close()
    if not messages:
        raise ConfigError(f"{topic}[{partition}] has no record at offset {offset}", field="offset")
    return messages[0].value() or b""


@main.group()
def topics() -> None:
    """Create, describe and check the topics."""


@topics.command()
@_kafka_options
@click.option("--partitions", default=8, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--replication", default=3, show_default=True, type=click.IntRange(1, 9))
@_json_option
def create(
    bootstrap: str | None,
    kafka_config: Path | None,
    pairs: tuple[str, ...],
    names: TopicNames,
    partitions: int,
    replication: int,
    as_json: bool,
) -> None:
    """Create the topics that are missing, with their settings."""
    with _errors(as_json):
        properties = _properties(bootstrap, pairs, kafka_config)
        result = create_topics(properties, names, partitions=partitions, replication=replication)
        if as_json:
            click.echo(json.dumps(result))
        else:
            for name, state in result.items():
                click.echo(f"{state:8} {name}")


@topics.command()
@click.option("--topic-prefix", default="enclavescale", show_default=True, help="First part of topic names.")
@_json_option
def describe(topic_prefix: str, as_json: bool) -> None:
    """Print the topics as declared: keys, schemas, settings. Needs no broker."""
    described = describe_topics(TopicNames.with_prefix(topic_prefix))
    if as_json:
        click.echo(json.dumps(described))
        return
    for one in described:
        click.echo(f"{one['topic']}\n  {one['description']}\n  key: {one['key']}   value: {one['schema'] or 'bytes'}")
        settings: Any = one["config"]
        for name, value in settings.items():
            click.echo(f"  {name}={value}")


@topics.command()
@_kafka_options
@click.option("--partitions", default=8, show_default=True, type=click.IntRange(1, 10_000))
@_json_option
def check(
    bootstrap: str | None,
    kafka_config: Path | None,
    pairs: tuple[str, ...],
    names: TopicNames,
    partitions: int,
    as_json: bool,
) -> None:
    """Compare the topics on the cluster with the declaration; exit 3 if they differ."""
    with _errors(as_json):
        properties = _properties(bootstrap, pairs, kafka_config)
        findings = check_topics(properties, names, partitions=partitions)
        if as_json:
            click.echo(json.dumps([to_jsonable(one) for one in findings]))
        else:
            for one in findings:
                click.echo(f"{one.topic}: {one.what} is {one.found}, declared {one.declared}")
            click.echo("differs" if findings else "as declared")
        sys.exit(EXIT_REFUSED if findings else 0)
