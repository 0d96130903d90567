"""The command line. Results on stdout, logs on stderr; exit codes 0 ok, 1 failure, 2 usage, 3 refused.

A command is imported when it is named: an agent that runs for months holds nothing of what the other commands need.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from enclavescale.cli.common import EXIT_CODES
from enclavescale.logs import set_up

_PLACES = {
    "access": "access:access",
    "audit": "audit:audit_group",
    "bench": "bench:bench_group",
    "collateral": "collateral:collateral",
    "demo": "run:demo",
    "doctor": "doctor:doctor",
    "export": "export:export",
    "policy": "policy:policy_group",
    "produce": "run:produce_command",
    "replay": "replay:replay",
    "schemas": "schemas:schemas",
    "serve": "serve:serve",
    "show": "read:show",
    "spdm": "spdm:spdm",
    "synthesize": "synthesize:synthesize_command",
    "tail": "read:tail",
    "top": "top:top",
    "topics": "topics:topics",
    "verify": "verify:verify",
    "worker": "worker:worker",
}
"""Module and name of every command."""


class _Commands(dict[str, click.Command]):
    """Commands by name, each imported when it is first asked for."""

    def __init__(self) -> None:
        super().__init__()
        for name in _PLACES:
            self[name] = click.Command(name)

    def __getitem__(self, name: str) -> click.Command:
        found = super().__getitem__(name)
        if found.callback is None and not isinstance(found, click.Group):
            module, _, attribute = _PLACES[name].partition(":")
            found = self[name] = getattr(import_module(f"{__name__}.{module}"), attribute)
        return found

    def get(self, name: str, default: click.Command | None = None) -> click.Command | None:  # type: ignore[override]
        return self[name] if name in self else default  # noqa: SIM401

    def items(self) -> Any:
        return {name: self[name] for name in self}.items()

    def values(self) -> Any:
        return {name: self[name] for name in self}.values()


@click.group(commands=_Commands(), context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.version_option(package_name="enclavescale")
@click.option("-v", "--verbose", is_flag=True, help="Log more, the client library's own messages included.")
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Of logs on stderr."
)
@click.pass_context
def main(context: click.Context, verbose: bool, log_format: str) -> None:
    """Attested, differentially private GPU power telemetry on Apache Kafka."""
    context.obj = verbose
    set_up(verbose, log_format == "json")


__all__ = ["main"]
