"""`enclavescale worker`: an aggregator."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import click

from attester.simulated import SIMULATED_BANNER, SimulatedTee, simulated_measurement, simulated_platform_id
from enclavescale.cli.common import EXIT_CODES, Cluster, FiniteRange, cluster_options, errors, json_option, say
from enclavescale.reach import metadata
from schemas.errors import ConfigError
from stream_jobs.policy_store import PolicyTrust
from stream_jobs.reading import open_reader
from stream_jobs.settings import LogSettings


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
