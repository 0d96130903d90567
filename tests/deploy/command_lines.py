"""Command lines as deployment files have them, read by the program itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from enclavescale.cli import main


def parse(arguments: Sequence[str], scratch: Path) -> click.Context:
    """Parse a command line of `enclavescale` without running it: raises click's error for what the program refuses.

    Paths of another machine stand for a file in `scratch` that exists. Returns the context of the command itself.
    """
    file = scratch / "some-file"
    file.touch()
    rest = [str(file) if one.startswith("/") else one for one in arguments]
    command: click.Command = main
    context, name = None, "enclavescale"
    while True:
        context = command.make_context(name, list(rest), parent=context)
        if not isinstance(command, click.Group):
            return context
        found, command_found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert command_found is not None
        assert found is not None
        name, command = found, command_found
