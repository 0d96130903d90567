"""`report.json`: all that a replay said, written as it comes, so that memory does not grow with the windows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Self

from schemas.errors import ConfigError
from stream_jobs.replay.desk import ReplayRequest
from stream_jobs.replay.partitions import ReplayResult
from stream_jobs.replay.verdicts import Finding, WindowVerdict, jsonable

FORMAT = 1
"""Version of the document; a field may be added without a new one."""

NAME = "report.json"


class ReplayDocument:
    """Takes verdicts and findings, and writes the document in `directory` at the end; whole, or not at all."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._parts: dict[str, IO[str]] = {}
        try:
            directory.mkdir(parents=True, exist_ok=True)
            (directory / NAME).unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"{directory}: {error.strerror}", field="out") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what is not finished."""
        for name, part in self._parts.items():
            part.close()
            self._path(name).unlink(missing_ok=True)

    def verdict(self, verdict: WindowVerdict) -> None:
        """Take a verdict."""
        self._line(f"windows-{verdict.partition:05d}", verdict)

    def finding(self, finding: Finding) -> None:
        """Take a finding."""
        self._line("findings", finding)

    def write(self, request: ReplayRequest, result: ReplayResult, facts: dict[str, Any]) -> Path:
        """Write the document. `facts`: more fields for its head."""
        path = self._directory / NAME
        unfinished = self._path("document")
        head = {"format": FORMAT, **facts, "request": request_facts(request), "result": result_facts(result)}
        with unfinished.open("w", encoding="utf-8") as out:
            out.write(json.dumps(head)[:-1])
            for field, names in (
                ("findings", ["findings"]),
                ("windows", sorted(name for name in self._parts if name.startswith("windows-"))),
            ):
                out.write(f',\n"{field}": [')
                for number, line in enumerate(self._lines(names)):
                    out.write(("\n" if not number else ",\n") + line)
                out.write("\n]")
            out.write("}\n")
        unfinished.replace(path)
        return path

    def _line(self, name: str, value: Any) -> None:
        part = self._parts.get(name)
        if part is None:
            part = self._parts[name] = self._path(name).open("w+", encoding="utf-8")
        part.write(json.dumps(jsonable(value)) + "\n")

    def _lines(self, names: list[str]) -> Iterator[str]:
        for name in names:
            part = self._parts.get(name)
            if part is not None:
                part.seek(0)
                for line in part:
                    yield line.rstrip("\n")

    def _path(self, name: str) -> Path:
        return self._directory / f".{name}.part"


def request_facts(request: ReplayRequest) -> dict[str, Any]:
    """What was asked for, as JSON takes it."""
    return {
        "from_ms": request.from_ms,
        "to_ms": request.to_ms,
        "domain": request.domain,
        "as_of_ms": request.as_of_ms,
        "topics": jsonable(request.topics),
        "policy_signers": [one.hex() for one in request.trust.signers],
    }


def result_facts(result: ReplayResult) -> dict[str, Any]:
    """Totals, as JSON takes them."""
    facts: dict[str, Any] = jsonable(result)
    for one in facts["partitions"]:
        one["sessions"] = sorted(one["sessions"])
        del one["met"], one["met_left_out"]
    return {**facts, "proven": result.proven}
