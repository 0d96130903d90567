"""The command `synthesize`: traces from the released model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from enclavescale.bench.trace_files import Skipped
from enclavescale.cli.common import EXIT_CODES, Cluster, FiniteRange, cluster_options, errors, json_option, say
from enclavescale.synthesize import (
    PLOT_SUFFIXES,
    TRACE_SUFFIXES,
    Run,
    Wanted,
    check_target,
    summary,
    synthesize,
    write_trace,
)
from enclavescale.synthesize_outputs import of_domain, outputs_of_topic, parse_outputs, released_of_outputs
from enclavescale.synthesize_screen import synthesis_screen
from enclavescale.synthesize_traces import Hosts, covered, real_traces, released_of_trace
from power_model.synthesis import AUTO, SYNCHRONY
from schemas.errors import ConfigError

MAX_OUTPUT_BYTES = 256 << 20
FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("synthesize", epilog=EXIT_CODES)
@click.option("--output", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="File of outputs.")
@click.option("--traces", metavar="PATH", help="Trace, directory of traces or bundled:NAME: release, then compare.")
@cluster_options
@click.option("--domain", help="Domain of the outputs, where there are several.")
@click.option("--gpu-model", help="GPU class; the largest one by default.")
@click.option("--windows", default=60, show_default=True, type=click.IntRange(1, 100_000), help="Last windows read.")
@click.option("--sample-hz", default=10, show_default=True, type=click.IntRange(1, 1000), help="Of the released hosts.")
@click.option("--clip-high-w", type=click.IntRange(1, 100_000), help="Clip bound of the class, W, where it is known.")
@click.option("--seconds", type=FiniteRange(0.1, 1e7), help="Length; as long as the release by default.")
@click.option("--gpus", type=click.IntRange(1, 100_000), help="GPUs; those of the real trace by default, or 8.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**63 - 1), help="Fixes the readings.")
@click.option(
    "--synchrony",
    default=AUTO,
    show_default=True,
    type=click.Choice(SYNCHRONY),
    help="GPUs in step, each on its own, or as many in step as the panes' variance says.",
)
@click.option("--compare", metavar="PATH", help="Real trace to compare with.")
@click.option("--epsilon", default=1.0, show_default=True, type=FiniteRange(0.01, 1000), help="With --traces.")
@click.option("--no-noise", is_flag=True, help="With --traces: release exact sums.")
@click.option("--hosts", default=32, show_default=True, type=click.IntRange(1, 10_000), help="With --traces: in step.")
@click.option("--host-gpus", default=8, show_default=True, type=click.IntRange(1, 64), help="With --traces: on each.")
@click.option("--tdp", type=click.IntRange(10, 10_000), help="With --traces: nominal limit, W.")
@click.option("--out", type=FILE, help="Write the trace: .csv (an nvidia-smi log, for produce), .json or .parquet.")
@click.option("--plot", type=FILE, help="Draw it: .png, .svg or .pdf.")
@json_option
def synthesize_command(
    output: Path | None, traces: str | None, cluster: Cluster, compare: str | None, as_json: bool, **options: Any
) -> None:
    """Power traces from the released model, and how far they are from real ones.

    The model is what outputs publish: noisy pane sums and transition counts of one GPU class. It comes from a file of
    outputs (--output), from the output topic (--bootstrap), or is made from real traces (--traces) by the host side's
    own code, as if --hosts hosts ran the trace in step. Spectrum, ramps and autocorrelation are then compared. With
    --json the last line is one object.
    """
    with errors(as_json):
        wanted = Wanted(
            seconds=options["seconds"],
            gpus=options["gpus"],
            seed=options["seed"],
            synchrony=options["synchrony"],
        )
        sources = [output is not None, traces is not None, bool(cluster.bootstrap or cluster.config)]
        if sum(sources) != 1:
            raise ConfigError("give one of --output, --traces and --bootstrap", field="output")
        for target, suffixes, what in (
            (options["out"], TRACE_SUFFIXES, "trace"),
            (options["plot"], PLOT_SUFFIXES, "plot"),
        ):
            if target is not None:
                check_target(target, suffixes, what)
        skipped: list[Skipped] = []
        if traces is not None:
            runs = _from_traces(traces, wanted, options, skipped)
        else:
            runs = [_from_outputs(output, cluster, compare, wanted, options)]
        files = _write(runs, wanted, options["out"], options["plot"])
        result = {
            **summary([run.as_json(wanted) for run in runs]),
            "skipped": [{"file": one.file, "reason": one.reason} for one in skipped],
        }
        if as_json:
            say({**result, "files": files})
        else:
            Console().print(synthesis_screen(result, files))


def _from_traces(where: str, wanted: Wanted, options: dict[str, Any], skipped: list[Skipped]) -> list[Run]:
    epsilon = None if options["no_noise"] else options["epsilon"]
    hosts = Hosts(count=options["hosts"], gpus=options["host_gpus"], epsilon=epsilon)
    return [
        synthesize(one.name, released_of_trace(one, hosts), wanted, covered(one, hosts))
        for one in real_traces(where, options["tdp"], skip=skipped.append)
    ]


def _from_outputs(
    path: Path | None, cluster: Cluster, compare: str | None, wanted: Wanted, options: dict[str, Any]
) -> Run:
    domain, windows = options["domain"], options["windows"]
    if path is not None:
        if path.stat().st_size > MAX_OUTPUT_BYTES:
            raise ConfigError(f"{path.name} is larger than {MAX_OUTPUT_BYTES >> 20} MiB", field="output")
        outputs = of_domain(parse_outputs(path.read_bytes()), domain)[-windows:]
    else:
        outputs = outputs_of_topic(cluster.quiet_properties(), cluster.names.output, domain, windows)
    released = released_of_outputs(
        outputs, gpu_model=options["gpu_model"], sample_hz=options["sample_hz"], clip_high_w=options["clip_high_w"]
    )
    real = None if compare is None else real_traces(compare, options["tdp"])
    if real is not None and len(real) != 1:
        raise ConfigError("compare with one trace", field="compare")
    return synthesize(outputs[0].domain, released, wanted, None if real is None else real[0].power_w)


def _write(runs: list[Run], wanted: Wanted, out: Path | None, plot_path: Path | None) -> list[str]:
    written = []
    for number, run in enumerate(runs):
        if out is not None:
            path = _numbered(out, number, len(runs))
            write_trace(path, run, wanted)
            written.append(str(path))
        if plot_path is not None:
            from enclavescale.synthesize_plot import plot  # noqa: PLC0415  half a second, for a plot only

            path = _numbered(plot_path, number, len(runs))
            plot(path, run)
            written.append(str(path))
    return written


def _numbered(path: Path, number: int, count: int) -> Path:
    """A file per run: name-001.png where there are several."""
    return path if count == 1 else path.with_name(f"{path.stem}-{number:03d}{path.suffix}")
