"""`enclavescale replay` over an archive: what it prints and writes, and its exit codes."""

from __future__ import annotations

import json
import multiprocessing
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from enclavescale.cli import main
from enclavescale.cli.replay import ArchiveSpec
from stream_jobs.archive import Directory, Request, export_archive
from stream_jobs.replay.desk import ReplayRequest
from stream_jobs.replay.document import NAME
from stream_jobs.replay.partitions import replay_parallel
from tests.core.fleet import PARTITION
from tests.replay.logs import quiet, start_ms
from tests.replay.topics import NAMES, SIGNER, TRUST, MemorySource

WINDOWS = 8


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return exported(quiet(WINDOWS).source, tmp_path / "archive")


def exported(source: MemorySource, path: Path) -> Path:
    export_archive(source, NAMES, Directory(path), Request(None, None, None, None))
    return path


def replay(archive: Path, *arguments: str, from_ms: int | None = None, signer: bytes = SIGNER) -> Result:
    begin = start_ms(0) if from_ms is None else from_ms
    given = ["--archive", str(archive), "--policy-signer", signer.hex(), "--from", str(begin), *arguments]
    return CliRunner().invoke(main, ["replay", *given])


def test_an_identical_range(archive: Path, tmp_path: Path) -> None:
    done = replay(archive, "--json", "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    said: dict[str, Any] = json.loads(done.stdout)
    count = said["result"]["verdicts"]["identical"]
    assert said["proven"]
    assert (said["windows"], said["findings"]) == ([], [])
    document = json.loads((tmp_path / "out" / NAME).read_text())
    assert len(document["windows"]) == count == quiet(WINDOWS).outputs
    assert document["result"]["proven"]
    assert document["windows"][0]["figures"]["accepted"] == 3
    assert not list((tmp_path / "out").glob(".*")), "parts are removed"


def test_for_people(archive: Path) -> None:
    done = replay(archive)
    assert done.exit_code == 0
    assert "are identical, and nothing was found altered" in done.stdout


def test_a_range_with_nothing_in_it_proves_nothing(archive: Path) -> None:
    done = replay(archive, "--to", str(start_ms(-1)), from_ms=start_ms(-5))
    assert done.exit_code == 1
    assert "No window of the range" in done.stdout


def test_what_is_wrong_is_shown_with_its_place(tmp_path: Path) -> None:
    source = quiet(WINDOWS).source.copy()
    record = source.topics[NAMES.reports, PARTITION][8]
    value = bytearray(record.value or b"")
    value[400] ^= 1
    source.put(replace(record, value=bytes(value)))
    path = exported(source, tmp_path / "archive")
    done = replay(path)
    assert done.exit_code == 1
    assert "RECORD_ALTERED" in done.stdout
    assert "Not everything that was published follows from the log" in done.stdout
    said = json.loads(replay(path, "--json").stdout)
    assert ("DEAD_LETTER_MISSING", NAMES.reports, 8) in [
        (one["code"], one["topic"], one["offset"]) for one in said["findings"]
    ]
    assert {one["verdict"] for one in said["windows"]} >= {"differs"}


def test_another_signer_is_another_truth(archive: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    from attester.signing import public_point

    other = public_point(ec.generate_private_key(ec.SECP256R1()).public_key())
    done = replay(archive, "--json", signer=other)
    assert done.exit_code == 1
    said = json.loads(done.stdout)
    assert said["findings"][0]["code"] == "POLICY_REFUSED"
    assert set(said["result"]["verdicts"]) == {"extra"}


def test_what_expired_since(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["enclavescale.cli.replay"], "now_ms", lambda: start_ms(0) + 200 * 365 * 86_400_000)
    done = replay(archive, "--as-of", "now", "--json")
    assert done.exit_code == 0
    said = json.loads(done.stdout)
    assert {one["code"] for one in said["findings"]} == {"EVIDENCE_ENDED", "POLICY_ENDED"}
    assert {one["severity"] for one in said["findings"]} == {"notice"}


def test_an_archive_that_was_damaged_is_refused(archive: Path) -> None:
    segment = max(archive.rglob("*.avro"), key=lambda path: path.stat().st_size)
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(bytes(data))
    done = replay(archive, "--json")
    assert done.exit_code == 3
    assert json.loads(done.stdout)["error"] == "ARCHIVE_DAMAGED"


@pytest.mark.parametrize(
    "wrong",
    [
        ["--policy-signer", "00"],
        ["--bootstrap", "127.0.0.1:1"],
        ["--from", "yesterday"],
        ["--from", "2100-01-01", "--to", "2000-01-01"],
    ],
)
def test_usage(archive: Path, wrong: list[str]) -> None:
    assert replay(archive, *wrong).exit_code == 2


def two_partitions() -> MemorySource:
    """A second log beside the first, of the same records."""
    source = quiet(WINDOWS).source.copy()
    for record in list(source.topics[NAMES.reports, PARTITION]):
        source.topics[NAMES.reports, 1].append(replace(record, partition=1))
    return source


def test_an_interrupt_ends_the_processes(tmp_path: Path) -> None:
    """Ctrl-C reaches every process of a terminal: those of partitions leave it to their parent, which ends them."""
    ignored: list[int] = []

    def interrupted(*_: int) -> None:
        for process in multiprocessing.active_children():
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            mask = int(next(line.split()[1] for line in lines if line.startswith("SigIgn")), 16)
            ignored.append(mask >> (signal.SIGINT - 1) & 1)
        raise KeyboardInterrupt

    request = ReplayRequest(topics=NAMES, trust=TRUST, from_ms=start_ms(0), to_ms=start_ms(1_000))
    spec = ArchiveSpec(exported(two_partitions(), tmp_path / "archive"), None)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        replay_parallel(spec, request, 2, on_verdict=print, on_finding=print, progress=interrupted)
    assert ignored == [1, 1]
    assert multiprocessing.active_children() == []
    assert signal.getsignal(signal.SIGINT) is before


def test_partitions_in_processes_of_their_own_say_the_same(tmp_path: Path) -> None:
    """The topics' partition 1 is a second log: its records name the first, so that nothing in it counts."""
    path = exported(two_partitions(), tmp_path / "archive")
    until = ["--json", "--to", str(start_ms(1_000))]
    one, two = (json.loads(replay(path, *until, "--jobs", jobs).stdout) for jobs in ("1", "2"))
    for said in (one, two):
        del said["seconds"]
        said["findings"].sort(key=lambda found: (found["topic"], found["partition"], found["offset"]))
    assert one == two
    assert two["result"]["verdicts"] == {"identical": quiet(WINDOWS).outputs}
    assert {(found["code"], found["partition"]) for found in two["findings"]} == {("DEAD_LETTER_PENDING", 1)}
