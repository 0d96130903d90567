"""`enclavescale bench attestation`: what it costs to prove where a sample comes from."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from enclavescale.bench.attestation import SESSIONS_S, WINDOWS_S, bench_attestation
from enclavescale.bench.attestation_screen import attestation_screen
from enclavescale.cli.common import EXIT_CODES, FiniteRange, errors, json_option, say
from schemas.errors import ConfigError


@click.command("attestation", epilog=EXIT_CODES)
@click.option(
    "--window",
    "windows",
    multiple=True,
    type=click.IntRange(5, 3600),
    show_default=", ".join(str(one) for one in WINDOWS_S),
    help="Window, s; may be given several times.",
)
@click.option(
    "--session",
    "sessions",
    multiple=True,
    type=click.IntRange(60, 30 * 86_400),
    show_default=", ".join(str(one) for one in SESSIONS_S),
    help="Length of a session, s; may be given several times.",
)
@click.option("--quote-ms", type=FiniteRange(0, 600_000), help="What your TEE takes for a quote, ms.")
@click.option("--gpu-report-ms", type=FiniteRange(0, 600_000), help="What a GPU takes for a report, ms.")
@click.option("--rounds", default=15, show_default=True, type=click.IntRange(3, 1000), help="Medians are over these.")
@click.option(
    "--plot", "picture", type=click.Path(dir_okay=False, path_type=Path), help="Draw the curve into this PNG or SVG."
)
@json_option
def attestation(
    windows: tuple[int, ...],
    sessions: tuple[int, ...],
    quote_ms: float | None,
    gpu_report_ms: float | None,
    rounds: int,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Cost of attestation per sample over the lengths of sessions and windows.

    A host of eight GPUs at 10 Hz, with evidence of its CPU alone and with that of its GPUs: sessions are made and
    verified, reports signed and verified, in CPU time of one core. What hardware takes for quotes and reports stands
    apart: a TSM of this machine is asked, or you enter it. With --json the last line is one object.
    """
    with errors(as_json):
        result = bench_attestation(
            windows_s=windows or WINDOWS_S,
            sessions_s=sessions or SESSIONS_S,
            rounds=rounds,
            quote_ms=quote_ms,
            gpu_report_ms=gpu_report_ms,
        )
        if picture is not None:
            from enclavescale.bench.attestation_plot import plot  # noqa: PLC0415  half a second, for a plot only

            try:
                plot(result, picture)
            except (OSError, ValueError) as error:
                raise ConfigError(f"{picture}: {error}", field="plot") from error
        if as_json:
            say(result)
        else:
            Console().print(attestation_screen(result))
