"""The audit report: what a replay said as one page and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from enclavescale.report.facts import Made, report_facts
from enclavescale.report.gather import Gathered
from schemas.errors import ConfigError

PAGE = "report.html"

__all__ = ["PAGE", "Gathered", "Made", "report_facts", "write_page"]


def write_page(directory: Path, facts: Mapping[str, Any]) -> Path:
    """Write report.html from `report_facts` into `directory`, whole or not at all. Raises ConfigError."""
    from enclavescale.report.page import render_page  # noqa: PLC0415  half a second, for a report only

    path, unfinished = directory / PAGE, directory / f".{PAGE}.part"
    text = render_page(facts)
    try:
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
        unfinished.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}", field="out") from error
    return path
