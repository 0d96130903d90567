"""`enclavescale worker`: an aggregator."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import click

from attester.quote import QuoteProvider
from attester.simulated import SIMULATED_BANNER, SimulatedTee, simulated_measurement, simulated_platform_id
from attester.tsm import TsmQuotes
from attester.tsm_entries import REPORT_DIRECTORY, ConfigfsEntries
from enclavescale.cli.common import EXIT_CODES, Cluster, FiniteRange, cluster_options, errors, json_option, say
from enclavescale.cli.policy_options import points
from enclavescale.cli.registry_options import OpenRegistry, registry_options
from enclavescale.reach import metadata
from enclavescale.registry.live import open_gate
from schemas.errors import ConfigError
from stream_jobs.policy_store import PolicyTrust
from stream_jobs.reading import open_reader
from stream_jobs.settings import LogSettings

TSM, SIMULATED = TEES = ("tsm", "simulated")
READY_LAG_S, LINGER_S = 60.0, 30.0
"""As `enclavescale.worker_watch` has them, which is slow to load."""


@click.command(epilog=EXIT_CODES)
@cluster_options
@registry_options
@click.option("--group", required=True, help="Consumer group.")
@click.option("--host-id", required=True, help="Enrolled identity of this aggregator.")
@click.option("--policy-signer", "signers", multiple=True, required=True, metavar="HEX", help="Trusted signer's key.")
@click.option("--min-policy-counter", default=0, show_default=True, help="Refuse older policies.")
@click.option(
    "--tee",
    type=click.Choice(TEES),
    help="Where its evidence comes from: the guest's TEE (tsm, the default), or none at all (simulated).",
)
@click.option(
    "--simulated-tee",
    "tee_directory",
    type=click.Path(path_type=Path),
    help="Key material of a simulated TEE; implies it.",
)
@click.option(
    "--tee-image", default="enclavescale-aggregator", show_default=True, help="Image a simulated TEE claims to measure."
)
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
@click.option("--listen", metavar="HOST:PORT", help="Serve /metrics, /livez and /readyz there.")
@click.option(
    "--ready-lag",
    default=READY_LAG_S,
    show_default=True,
    type=FiniteRange(1, 86_400),
    help="/readyz fails where the next record is older, s.",
)
@click.option(
    "--linger",
    default=LINGER_S,
    show_default=True,
    type=FiniteRange(0, 600),
    help="After a failure answer at --listen so much longer, s: a scraper sees why.",
)
@click.option("--unsafe-allow-create-time", is_flag=True, help="Accept producers' timestamps. Never outside a demo.")
@json_option
def worker(
    cluster: Cluster,
    registry: OpenRegistry,
    group: str,
    host_id: str,
    signers: tuple[str, ...],
    min_policy_counter: int,
    tee: str | None,
    tee_directory: Path | None,
    tee_image: str,
    session_timeout: float,
    beacon_interval: float,
    listen: str | None,
    ready_lag: float,
    linger: float,
    unsafe_allow_create_time: bool,
    as_json: bool,
) -> None:
    """Run an aggregator: verify, reject, aggregate, publish; until SIGTERM.

    Its evidence is that of the guest's TEE (Linux configfs-tsm) unless --simulated-tee says otherwise.
    With --json one object at the end says how it ended; `enclavescale --log-format json worker …` makes every log line
    one.
    """
    from enclavescale.tracing import open_tracer  # noqa: PLC0415
    from enclavescale.worker_watch import WorkerWatch  # noqa: PLC0415  Faust is slow to load
    from stream_jobs.worker import WorkerConfig, run_worker  # noqa: PLC0415

    with (
        errors(as_json),
        WorkerWatch(ready_lag_s=ready_lag, linger_s=linger) as watch,
        open_tracer("enclavescale-worker") as tracer,
    ):
        provider = quotes(tee, tee_directory, host_id, tee_image)
        if provider.simulated:
            click.echo(SIMULATED_BANNER, err=True)
        if unsafe_allow_create_time:
            click.echo("UNSAFE: producers' timestamps are believed", err=True)
        trust = PolicyTrust(points(signers), min_policy_counter)
        framing, gate = open_gate(registry(), cluster.names)
        config = WorkerConfig(
            kafka=cluster.properties(),
            host_id=host_id,
            group=group,
            provider=provider,
            trust=trust,
            topics=cluster.names,
            framing=framing,
            gate=gate,
            settings=LogSettings(
                session_timeout_s=session_timeout,
                heartbeat_interval_s=session_timeout / 3,
                unsafe_allow_create_time=unsafe_allow_create_time,
            ),
            beacon_interval_ms=round(beacon_interval * 1000) or None,
            observer=watch,
            tracer=tracer,
        )
        if listen is not None:
            watch.listen(listen)
        with contextlib.closing(open_reader(cluster.quiet_properties("worker", group))) as reader:
            metadata(reader)  # one message when nobody answers, instead of the client library's log of every attempt
        code = run_worker(config, watch.registry)
        if as_json:
            say({"host_id": host_id, "group": group, "exit_code": code})
        sys.exit(code)


def quotes(tee: str | None, directory: Path | None, host_id: str, image: str) -> QuoteProvider:
    """The TEE that the options name. Hardware's where they name none: no worker simulates one by omission.

    Raises ConfigError for options that contradict each other, TsmUnavailable where the guest has no TEE.
    """
    if directory is None:
        if tee == SIMULATED:
            raise ConfigError("--tee simulated: say where its keys are, with --simulated-tee", field="simulated_tee")
        return TsmQuotes(ConfigfsEntries(Path(REPORT_DIRECTORY)))
    if tee == TSM:
        raise ConfigError("--simulated-tee contradicts --tee tsm: leave one of them out", field="tee")
    try:
        return SimulatedTee.create(
            directory, platform_id=simulated_platform_id(host_id), mrtd=simulated_measurement(image)
        )
    except OSError as error:
        raise ConfigError(f"{directory}: {error.strerror}", field="simulated_tee") from error
