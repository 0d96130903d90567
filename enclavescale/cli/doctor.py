"""`enclavescale doctor`: is this host fit to run the agent, and if not, what is to be done?"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
from rich.console import Console

from enclavescale.checkup.doctor import Options, counts, examine, result_json
from enclavescale.checkup.screen import doctor_screen
from enclavescale.cli.common import EXIT_CODES, EXIT_FAILURE, FiniteRange, json_option, say

DEFAULT_CONFIG = Path("/etc/enclavescale/agent.toml")


@click.command("doctor", epilog=EXIT_CODES)
@click.option(
    "--config",
    default=DEFAULT_CONFIG,
    show_default=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The agent's file.",
)
@click.option(
    "--timeout", default=10.0, show_default=True, type=FiniteRange(1, 600), help="For each part that is asked, s."
)
@click.option("--no-evidence", is_flag=True, help="Ask neither TEE nor devices for trial evidence.")
@json_option
@click.pass_context
def doctor(context: click.Context, config: Path, timeout: float, no_evidence: bool, as_json: bool) -> None:
    """Check everything the host agent needs, and say what to do.

    Looks at the agent's file, the policy, the clock, GPUs, TEE, spool, brokers, registry and the agent itself if one
    runs. Changes nothing; TEE and devices are asked for evidence that is thrown away. Run it as the agent's user. Exit
    code 1 if anything failed; warnings alone are 0.
    """
    verbose = bool(context.obj)
    if not verbose:
        logging.getLogger().setLevel(logging.CRITICAL)  # what they would say is on the screen, with a remedy
    options = Options(trial=not no_evidence, timeout_s=timeout, verbose=verbose)
    with _waiting() as watch:
        sections = examine(config, options, watch=watch)
    if as_json:
        say(result_json(sections, config))
    else:
        Console().print(doctor_screen(sections, config))
    if counts(sections)["fail"]:
        sys.exit(EXIT_FAILURE)


@contextlib.contextmanager
def _waiting() -> Iterator[Callable[[Sequence[str]], None]]:
    """On a terminal, whose answer is being waited for."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda waiting: None
        return
    with console.status("Asking …") as status:
        yield lambda waiting: status.update(f"Waiting for {', '.join(waiting)} …" if waiting else "Asking …")
