"""Commands that read: `tail` follows the output topic, `show` prints one record of any kind."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import IO, Any

import click
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, TIMESTAMP_LOG_APPEND_TIME, Consumer, Message, TopicPartition

from enclavescale.cli.common import EXIT_CODES, Cluster, cluster_options, errors, json_option, say
from enclavescale.cli.registry_options import OpenRegistry, registry_options
from enclavescale.live import P99_PPM, margin_style, moment, quantile_of, spread
from enclavescale.reach import partitions_of_topic
from enclavescale.records_text import record_text
from enclavescale.registry.ids import open_framing
from schemas.codec import Framing, decode_any, decode_signed_output
from schemas.errors import ConfigError, SchemaError
from schemas.mapping import to_jsonable
from schemas.records import FleetPower
from stream_jobs.kafka_errors import read_refusal
from stream_jobs.reading import open_reader, read_range, watermarks

READ_S = 15.0
CLICK_COLOURS = {"bold red": "red", "dark_orange3": "magenta", "green": "green"}


@click.command(epilog=EXIT_CODES)
@cluster_options
@registry_options
@click.option("--from-beginning", is_flag=True, help="Start at the oldest output instead of the next one.")
@click.option("--max", "limit", default=0, help="Stop after so many outputs; 0 means never.")
@click.option("--domain", help="Only this domain.")
@json_option
def tail(
    cluster: Cluster, registry: OpenRegistry, from_beginning: bool, limit: int, domain: str | None, as_json: bool
) -> None:
    """Follow the output topic: one line per window, or one JSON object a line with --json."""
    with errors(as_json):
        topic, framing = cluster.names.output, open_framing(registry(), cluster.names)
        consumer = open_reader(cluster.quiet_properties("consumer"))
        start = OFFSET_BEGINNING if from_beginning else OFFSET_END
        consumer.assign([TopicPartition(topic, one, start) for one in partitions_of_topic(consumer, topic)])
        with contextlib.suppress(KeyboardInterrupt):
            _follow(consumer, framing, limit, domain, as_json)
        consumer.close()


def _follow(consumer: Consumer, framing: Framing, limit: int, domain: str | None, as_json: bool) -> None:
    shown = 0
    while not limit or shown < limit:
        message = consumer.poll(0.5)
        if message is None:
            continue
        if (failed := message.error()) is not None:
            if (refusal := read_refusal(failed)) is not None:
                raise refusal
            continue
        try:
            signed = decode_signed_output(message.value() or b"", framing)[0]
        except SchemaError as error:
            click.echo(f"{message.partition()}/{message.offset()}: {error.code} {error}", err=True)
            continue
        if domain is None or signed.output.domain == domain:
            if as_json:
                say(to_jsonable(signed))
            else:
                click.echo(output_line(signed.output))
            shown += 1


def output_line(output: FleetPower) -> str:
    """One output in a line of text."""
    margin = output.margin.margin
    p99 = quantile_of(output, P99_PPM)
    text = spread(margin, signed=True) if margin else (output.margin.margin_absent_reason or "none")
    coverage = output.coverage
    parts = [
        moment(output.window_start_ms),
        f"{output.domain} r{output.revision}",
        f"mean {spread(output.mean)}",
        f"p99 {spread(p99).partition(' [')[0]}",
        click.style(f"margin {text}", fg=CLICK_COLOURS.get(margin_style(margin))),
        f"hosts {coverage.reporting_hosts}/{coverage.enrolled_hosts}",
    ]
    if output.refused:
        parts.append("refused " + ", ".join(f"{one.code} {one.count}" for one in output.refused))
    return "  ".join(parts)


@click.command(epilog=EXIT_CODES)
@click.argument("file", required=False, type=click.File("rb"))
@cluster_options
@registry_options
@click.option("--topic", help="Read from this topic instead of a file.")
@click.option("--partition", default=0, show_default=True, type=click.IntRange(0), help="Of the topic.")
@click.option("--offset", default=-1, type=click.IntRange(-1), help="Which record; -1, the default, is the last one.")
@json_option
def show(
    file: IO[bytes] | None,
    cluster: Cluster,
    registry: OpenRegistry,
    topic: str | None,
    partition: int,
    offset: int,
    as_json: bool,
) -> None:
    """Show any record as JSON: a FILE that holds one value (- for stdin), or one offset of a topic.

    With --json the record exactly as it is, on one line, bytes in hexadecimal. Without it for people: arrays of numbers
    are decoded, times are also given in UTC, long bytes are cut, and of a topic's record position and headers come
    first, which also helps with a dead letter that cannot be decoded.
    """
    with errors(as_json):
        if (file is None) == (topic is None):
            raise ConfigError("give a FILE or --topic, one of them", field="file")
        if file is not None:
            value = file.read()
        else:
            message = _fetch(cluster.quiet_properties(), str(topic), partition, offset)
            value = message.value() or b""
            if not as_json:
                click.echo(_position(message))
        record = decode_any(value, open_framing(registry(), cluster.names))
        if as_json:
            say(to_jsonable(record))
        else:
            click.echo(record_text(record))


def _fetch(properties: Mapping[str, str], topic: str, partition: int, offset: int) -> Message:
    consumer = open_reader(properties)
    with contextlib.closing(consumer):
        partitions = partitions_of_topic(consumer, topic)
        if partition not in partitions:
            raise ConfigError(f"{topic} has partitions 0 to {max(partitions)}", field="partition")
        low, high = watermarks(consumer, topic, partition, READ_S)
        if low == high:
            raise ConfigError(f"{topic}[{partition}] is empty", field="offset")
        wanted = high - 1 if offset < 0 else offset
        if not low <= wanted < high:
            raise ConfigError(f"{topic}[{partition}] holds offsets {low} to {high - 1}", field="offset")
        messages = read_range(consumer, topic, partition, wanted, wanted + 1, READ_S)
    if not messages:
        raise ConfigError(f"{topic}[{partition}] has no record at offset {wanted}", field="offset")
    return messages[0]


def _position(message: Message) -> str:
    """Where a record stands and what Kafka says of it, as comment lines."""
    kind, stamp = message.timestamp()
    clock = "append time" if kind == TIMESTAMP_LOG_APPEND_TIME else "producer's time"
    key = message.key()
    lines = [
        f"# {message.topic()}[{message.partition()}] offset {message.offset()}, {moment(stamp)} ({clock})",
        f"# key {key.decode('utf-8', 'backslashreplace') if isinstance(key, bytes) else key}",
    ]
    headers: Any = message.headers() or []
    for name, raw in headers:
        text = raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else str(raw)
        lines.append(f"# {name}: {text}")
    return "\n".join(lines)
