"""Options that the commands `bench margin` and `bench byzantine` share: the fleet that is made of traces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from enclavescale.cli.common import FiniteRange

F = TypeVar("F", bound=Callable[..., Any])


def traces_option(*, required: bool) -> Callable[[F], F]:
    """The option --traces; a path that is no directory is the benchmark's error, not a usage one."""
    return click.option(
        "--traces",
        required=required,
        type=click.Path(path_type=Path),
        show_default=not required and "the bundled ones",
        help="Directory of Parquet files or nvidia-smi CSV logs, with or without a manifest.json.",
    )


def fleet_options(function: F) -> F:
    """The options --hosts, --gpus, --epsilon and --window."""
    for option in (
        click.option("--window", default=60, show_default=True, type=click.IntRange(5, 3600), help="Window, s."),
        click.option(
            "--epsilon", default=1.0, show_default=True, type=FiniteRange(0.05, 100), help="Per window and reading."
        ),
        click.option("--gpus", default=8, show_default=True, type=click.IntRange(1, 64), help="GPUs per host."),
        click.option(
            "--hosts",
            default=32,
            show_default=True,
            type=click.IntRange(1, 4096),
            help="Hosts of a fleet; a job in step needs 3, two of them 4.",
        ),
    ):
        function = option(function)
    return function


def run_options(function: F) -> F:
    """The options --seed and --workers."""
    for option in (
        click.option(
            "--workers", default=0, show_default="one per core", type=click.IntRange(0, 1024), help="Processes."
        ),
        click.option(
            "--seed", default=1, show_default=True, type=click.IntRange(0, 2**63 - 1), help="Fixes fleets and readings."
        ),
    ):
        function = option(function)
    return function
