"""`enclavescale export` without a cluster: what it says, what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from enclavescale.cli import main
from enclavescale.cli.export import _bar
from stream_jobs.archive import open_archive
from tests.archive.memory import NAMES, MemorySource, contents, small_cluster


@pytest.fixture
def cluster() -> Iterator[MemorySource]:
    source = small_cluster()
    with (
        patch("enclavescale.cli.export.ClusterSource", lambda _: source),
        patch("enclavescale.cli.export.metadata", lambda _: None),
        patch("enclavescale.cli.common.check"),
    ):
        yield source


def run(*arguments: object) -> Result:
    words = ["export", *map(str, arguments)]
    if "--check" not in words:
        words += ["--bootstrap", "127.0.0.1:1", "--topic-prefix", "t"]
    return CliRunner().invoke(main, words)


def test_what_it_says(cluster: MemorySource, tmp_path: Path) -> None:
    done = run(tmp_path / "a", "--everything")
    assert done.exit_code == 0, done.output
    digest = open_archive(tmp_path / "a").digest
    assert f"digest {digest}" in done.stdout
    assert "records  t.window-reports.v1" in done.stdout
    told = json.loads(run(tmp_path / "b", "--everything", "--json").stdout)
    assert (told["digest"], told["from_ms"], told["segments_kept"]) == (digest, None, 0)
    assert told["topics"]["reports"]["partitions"] == [[3, 42], [0, 0], [0, 1]]
    assert told["topics"]["beacons"] == {"topic": NAMES.beacons, "partitions": [], "records": 0}
    assert told["records"] == sum(one["records"] for one in told["topics"].values())
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_range_and_its_context(cluster: MemorySource, tmp_path: Path) -> None:
    done = run(tmp_path / "a", "--from", "2026-09-21T14:53:40Z", "--to", "2026-09-21T15:00Z", "--context", 2)
    assert "for windows from 2026-09-21T14:53:40Z to 2026-09-21T15:00:00Z, with 2 minutes before" in done.stdout
    open_ended = run(tmp_path / "b", "--from", "2026-09-21T14:53:40Z", "--json")
    told = json.loads(open_ended.stdout)
    assert (told["to_ms"], told["context_ms"]) == (None, 3_600_000)
    other = run(tmp_path / "a", "--from", "2026-09-21T14:53:41Z")
    assert (other.exit_code, other.stderr.split(":")[0]) == (1, "ARCHIVE_EXISTS")


def test_it_goes_on_with_what_was_interrupted(cluster: MemorySource, tmp_path: Path) -> None:
    with patch.object(cluster, "read", side_effect=KeyboardInterrupt):
        assert run(tmp_path / "a", "--everything").exit_code == 1
    assert run(tmp_path / "a", "--check").exit_code == 3
    assert run(tmp_path / "a", "--resume").exit_code == 0
    assert run(tmp_path / "a", "--check").exit_code == 0


def test_check(cluster: MemorySource, tmp_path: Path) -> None:
    run(tmp_path / "a", "--everything")
    digest = open_archive(tmp_path / "a").digest
    (tmp_path / "a" / "notes.txt").write_text("")
    done = run(tmp_path / "a", "--check", "--digest", digest)
    assert done.exit_code == 0
    assert "not of the archive: notes.txt" in done.stdout
    told = json.loads(run(tmp_path / "a", "--check", "--json").stdout)
    assert (told["digest"], told["other_files"]) == (digest, ["notes.txt"])
    assert run(tmp_path / "a", "--check", "--digest", "0" * 64).exit_code == 3
    name = next(name for name in contents(tmp_path / "a") if name.startswith("output/"))
    (tmp_path / "a" / name).unlink()
    refused = run(tmp_path / "a", "--check", "--json")
    assert refused.exit_code == 3
    assert json.loads(refused.stdout)["error"] == "ARCHIVE_DAMAGED"
    assert name in refused.stderr


@pytest.mark.parametrize(
    "options", [("--from", "-2h"), ("--resume",), ("--everything",), ("--until", "now"), ("--bootstrap", "b:1")]
)
def test_a_check_takes_no_other_option(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = run(tmp_path, "--check", "--json", *options)
    assert (done.exit_code, json.loads(done.stdout)["field"]) == (2, options[0].removeprefix("--"))


@pytest.mark.parametrize(
    "options",
    [
        ("--from", "2026-09-21", "--until", "2026-09-21"),
        ("--from", "2026-09-21", "--to", "2026-09-23", "--until", "2026-09-22"),
    ],
)
def test_an_end_within_the_range_is_refused(cluster: MemorySource, tmp_path: Path, options: tuple[str, ...]) -> None:
    done = run(tmp_path / "a", *options, "--json")
    assert (done.exit_code, json.loads(done.stdout)["field"]) == (2, "until")
    assert not (tmp_path / "a").exists()


def test_a_cluster_that_does_not_answer(tmp_path: Path) -> None:
    with patch("enclavescale.reach.REACH_S", 0.2):
        done = run(tmp_path / "a", "--everything", "--json")
    assert (done.exit_code, json.loads(done.stdout)["error"]) == (1, "CLUSTER_UNREACHABLE")
    assert not (tmp_path / "a").exists()


def test_a_bar_on_a_terminal_and_nothing_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    with _bar(quiet=False) as progress:
        progress("topic", 1, 2)
    assert capsys.readouterr() == ("", "")
    console = Console(force_terminal=True, width=80, stderr=True)
    with patch("enclavescale.cli.export.Console", lambda stderr: console), _bar(quiet=False) as progress:
        progress("t.window-reports.v1", 500, 1000)
    assert "t.window-reports.v1" in capsys.readouterr().err
