"""Everything that can be set, read from the code: `python -m tests.house.configuration` writes docs/configuration.md."""

# ruff: noqa: E501  the page's own lines
from __future__ import annotations

import ast
import inspect
import textwrap
from collections import Counter
from collections.abc import Iterator

import click

from enclavescale.cli import main
from stream_jobs.settings import LogSettings
from tests.house.source import ROOT

PAGE = ROOT / "docs" / "configuration.md"
HEAD = """# Configuration reference

Written by `make docs` from the code; a test compares. Three things are configured: commands by their options, the host agent by
[its file](agent.md#the-file), the Kafka clients by librdkafka's own property names. What is trusted, and with what limits, is not
configuration: it stands in the signed [policy](policy.md).

Kafka properties come, weakest first, from the environment (`ENCLAVESCALE_KAFKA_SASL_USERNAME` is `sasl.username`, two underscores
stand for one), from the table `kafka` of a file, from `-K`. [Security](security.md) has the properties of TLS and SASL, and where
secrets are kept.
"""
COMMON = 8
"""An option that so many commands have with the same words is listed once."""


def commands(command: click.Command = main, name: str = "enclavescale") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with its full name, in alphabetical order."""
    if isinstance(command, click.Group):
        for one in sorted(command.commands):
            yield from commands(command.commands[one], f"{name} {one}")
    else:
        yield name, command


def _default(option: click.Option) -> str:
    if option.required:
        return "required"
    shown = option.default
    if option.is_flag or option.multiple or callable(shown) or not isinstance(shown, str | int | float):
        return ""
    return f"`{shown}`"


def _takes(option: click.Option) -> str:
    if option.is_flag:
        return ""
    kind = option.type
    if isinstance(kind, click.Choice):
        text = ", ".join(f"`{one}`" for one in kind.choices)
    elif isinstance(kind, click.IntRange | click.FloatRange):
        text = f"{kind.min} to {kind.max}" if kind.max is not None else f"{kind.min} or more"
    else:
        text = option.metavar or kind.name.upper()
    return text + (", repeatable" if option.multiple else "")


Row = tuple[str, str, str, str]


def _options(command: click.Command) -> list[Row]:
    return [
        (
            ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts)),
            _takes(option),
            _default(option),
            option.help or "",
        )
        for option in command.params
        if isinstance(option, click.Option) and not option.hidden
    ]


def _table(head: Row, rows: list[Row]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(
        "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in row) + " |\n" for row in lines
    )


def _settings() -> list[Row]:
    body = ast.parse(textwrap.dedent(inspect.getsource(LogSettings))).body[0]
    assert isinstance(body, ast.ClassDef)
    return [
        (
            f"`{ast.unparse(line.target)}`",
            ast.unparse(line.annotation),
            f"`{getattr(LogSettings(), ast.unparse(line.target))}`",
            said.value.value,
        )
        for line, said in zip(body.body, body.body[1:], strict=False)
        if isinstance(line, ast.AnnAssign) and isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant)
    ]


def page() -> str:
    """The whole page."""
    found = {name: _options(command) for name, command in commands()}
    counts = Counter(row for rows in found.values() for row in rows)
    common = [row for row in dict.fromkeys(row for rows in found.values() for row in rows) if counts[row] >= COMMON]
    head = ("option", "takes", "default", "does")
    parts = [HEAD, "\n## Options of many commands\n\nFor all that ask a cluster, or print.\n\n", _table(head, common)]
    parts.append("\n## Options of the program\n\nBefore the command's name.\n\n" + _table(head, _options(main)))
    parts.append("\n## Commands\n")
    for name, rows in found.items():
        own = [row for row in rows if row not in common]
        shared = ", ".join(row[0].split(", ")[-1] for row in rows if row in common)
        parts.append(f"\n### `{name}`\n\n")
        parts.append(_table(head, own) + ("\n" if shared else "") if own else "")
        parts.append(f"{'And' if own else 'Only'} {shared}.\n" if shared else "")
    parts.append("\n## What the worker runs with\n\nFixed in the code; some have an option of the worker.\n\n")
    parts.append(_table(("name", "type", "value", "why"), _settings()))
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
