"""schemas/asyncapi.json before the official AsyncAPI parser, and before what is really written to the topics."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from producers.publish import cloud_event_headers
from producers.spool import SpoolEntry
from schemas.topics import TOPICS, settings_of
from stream_jobs.core.effects import Rejection
from stream_jobs.log_record import LogRecord
from stream_jobs.output import MAX_KEY_BYTES, cloud_event, dead_letter
from tests.house import asyncapi
from tests.tools import need_tool

TOOL = Path(__file__).parent / "parser"
FETCH_TIMEOUT_S, CHECK_TIMEOUT_S = 600, 120


@pytest.fixture(scope="module")
def parser() -> Path:
    """Directory with the parser, as the lock file pins it; fetched with npm once, below the user's cache."""
    for name in ("node", "npm"):
        need_tool(name)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "enclavescale"
    digest = hashlib.sha256((TOOL / "package-lock.json").read_bytes()).hexdigest()[:16]
    target = base / f"asyncapi-{digest}"
    base.mkdir(parents=True, exist_ok=True)
    with open(base / "asyncapi.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=base, prefix="fetch-") as scratch:
                for name in ("package.json", "package-lock.json"):
                    shutil.copy(TOOL / name, scratch)
                # `ci`: what the lock says, by its digests; nobody's scripts are run.
                command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
                subprocess.run(command, cwd=scratch, check=True, capture_output=True, timeout=FETCH_TIMEOUT_S)
                made = Path(scratch) / "made"
                made.mkdir()
                (Path(scratch) / "node_modules").rename(made / "node_modules")
                made.rename(target)
    return target


def check(parser: Path, document: Path) -> subprocess.CompletedProcess[str]:
    shutil.copy(TOOL / "validate.mjs", parser)  # modules are looked for beside the script
    command = ["node", str(parser / "validate.mjs"), str(document)]
    return subprocess.run(command, capture_output=True, text=True, timeout=CHECK_TIMEOUT_S, check=False)


def test_the_official_parser_finds_nothing_wrong(parser: Path) -> None:
    done = check(parser, asyncapi.PAGE)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert f"channels {len(TOPICS)}" in lines
    assert not [line for line in lines if line.startswith(("error", "warning"))]


def test_the_official_parser_would_find_it(parser: Path, tmp_path: Path) -> None:
    document = json.loads(asyncapi.PAGE.read_text())
    shutil.copytree(asyncapi.PAGE.parent / "avsc", tmp_path / "avsc")
    document["channels"]["output"]["bindings"]["kafka"]["topicConfiguration"]["cleanup.policy"] = "delete"
    (tmp_path / "asyncapi.json").write_text(json.dumps(document))
    done = check(parser, tmp_path / "asyncapi.json")
    assert done.returncode == 1
    assert "cleanup.policy" in done.stdout


def message(role: str) -> Any:
    return json.loads(asyncapi.PAGE.read_text())["channels"][role]["messages"][role]


def test_bindings_name_every_setting() -> None:
    channels = json.loads(asyncapi.PAGE.read_text())["channels"]
    for spec in TOPICS:
        bound = channels[spec.role]["bindings"]["kafka"]
        assert bound["topic"] == spec.name
        assert set(bound["topicConfiguration"]) == set(settings_of(spec))
        assert message(spec.role)["bindings"]["kafka"]["key"]["description"] == spec.key


def test_headers_are_those_that_are_written() -> None:
    record = LogRecord("t", 0, 1, 0, 1, bytes(MAX_KEY_BYTES + 1), b"v", ())
    refused = Rejection(offset=1, code="LATE", message="late", domain=None, digest=bytes(32))
    written = {
        "output": cloud_event(bytes(32), "row", "output", 0, 1),
        "rejections": dead_letter(record, refused)[2],
        "reports": cloud_event_headers(entry()),
    }
    for role, headers in written.items():
        assert {name for name, _ in headers} == set(asyncapi.HEADERS[role]), role
        assert set(message(role)["headers"]["properties"]) == set(asyncapi.HEADERS[role])
    bare = dead_letter(LogRecord("t", 0, 1, 0, 1, None, b"v", ()), Rejection(1, "MALFORMED", "m", None, None))[2]
    assert {name for name, _ in bare} == set(message("rejections")["headers"]["required"])


def entry() -> SpoolEntry:
    return SpoolEntry(1, "h", "row", digest=bytes(32), window_end_ms=10_000, appended_ms=10_001, value=b"v")
