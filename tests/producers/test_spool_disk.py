"""Disks that are full, limited or read-only: reports are lost and counted, the agent goes on, and it heals."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from producers.errors import SpoolError
from producers.spool import RETRY_S, Spool
from tests.producers.forge import report

NOW = 1_000_000_000
SIZE = 20_000

FULL = """
import json, os, sys
from pathlib import Path
from producers.errors import SpoolError
from producers.spool import Spool
from tests.producers.forge import report

directory = Path(sys.argv[1])
clock = [0.0]
found = {"refused": 0, "first": None}

def append(spool, number):
    try:
        spool.append([report(number, size=20_000)], 0)
    except SpoolError:
        found["refused"] += 1
        found["first"] = found["first"] or number

spool = Spool(directory / "s", now=lambda: clock[0])
for number in range(10):
    append(spool, number)
filler = os.open(directory / "filler", os.O_WRONLY | os.O_CREAT)
for size in (1 << 16, 1 << 12, 1):
    try:
        while True:
            os.write(filler, b"x" * size)
    except OSError as error:
        found["errno"] = error.errno
for number in range(10, 30):
    append(spool, number)
    clock[0] += 60
stats = spool.stats(0)
found["while_full"] = [stats.writable, stats.entries, stats.failures > 0, len(spool.pending())]
spool.close()
spool = Spool(directory / "s", now=lambda: clock[0])  # a restart in the middle of it
found["reopened"] = [len(spool.pending()), spool.dropped("host-1") - spool.heard("host-1")]
for number in range(30, 33):
    append(spool, number)
refused = found["refused"]
os.unlink(directory / "filler")
os.close(filler)
clock[0] += 60
for number in range(33, 36):
    append(spool, number)
entries = spool.pending()
found["after"] = [spool.stats(0).writable, found["refused"] - refused, spool.dropped("host-1")]
found["values"] = [entry.value == report(int.from_bytes(entry.digest, "big"), size=20_000).value for entry in entries]
found["numbers"] = [int.from_bytes(entry.digest, "big") for entry in entries]
spool.acknowledge([entry.id for entry in entries])
found["left"] = spool.depth()
print(json.dumps(found))
"""


def small_file_system(code: str, megabytes: int) -> subprocess.CompletedProcess[str]:
    """Run Python in a file system of its own, of that size, which nobody else sees and which goes with the process."""
    with tempfile.TemporaryDirectory() as directory:
        mount = f"mount -t tmpfs -o size={megabytes}m none {directory} && exec {sys.executable} - {directory}"
        return subprocess.run(
            ["unshare", "-Urm", "sh", "-c", mount], input=code, capture_output=True, text=True, timeout=60, check=False
        )


def namespaces() -> bool:
    """Whether this machine lets a test mount something for itself."""
    if shutil.which("unshare") is None:
        return False
    return small_file_system("print()", 1).returncode == 0


def test_a_full_disk_loses_what_comes_keeps_what_is_there_and_heals(tmp_path: Path) -> None:
    if not namespaces():
        pytest.skip("no mount namespaces here; test_a_limit_on_files_is_a_full_disk_too covers the same")
    done = small_file_system(FULL, 3)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["errno"] == 28
    first, refused = found["first"], found["refused"]
    assert 10 <= first < 30  # what SQLite had already of the disk was used up first
    assert found["while_full"] == [False, first, True, first]
    assert found["reopened"][0] == first
    # What a process refused and found no room to write down goes with it; what this one refused is stated.
    assert found["after"][:2] == [True, 0]
    assert found["after"][2] == found["reopened"][1] + 3 <= refused
    assert refused == 33 - first
    assert found["numbers"] == [*range(first), 33, 34, 35]
    assert all(found["values"])
    assert found["left"] == [0, 0]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def refused(spool: Spool, numbers: range) -> int:
    """Append reports one by one; return how many the spool refused."""
    count = 0
    for number in numbers:
        try:
            spool.append([report(number, size=SIZE)], NOW)
        except SpoolError:
            count += 1
    return count


def test_a_limit_on_files_is_a_full_disk_too(tmp_path: Path) -> None:
    clock = [0.0]
    with Spool(tmp_path / "s", now=lambda: clock[0]) as spool:
        with largest_file(400_000):
            lost = refused(spool, range(40))
            assert 5 < lost < 35
            assert (spool.depth()[0], spool.dropped("host-1"), spool.stats(NOW).dropped) == (40 - lost, lost, 0)
            assert not spool.stats(NOW).writable
            clock[0] += RETRY_S
            kept = spool.pending()
            assert [entry.id for entry in kept] == list(range(1, 41 - lost))
        assert refused(spool, range(40, 43)) == 0
        assert spool.stats(NOW).writable
        assert (spool.dropped("host-1"), spool.heard("host-1")) == (lost, 0)
        spool.acknowledge([entry.id for entry in spool.pending()])
    with Spool(tmp_path / "s") as spool:
        assert (spool.depth(), spool.dropped("host-1"), spool.heard("host-1")) == ((0, 0), lost, lost)


def test_what_was_refused_is_counted_although_the_agent_ended_before_it_could_say_so(tmp_path: Path) -> None:
    with largest_file(400_000), Spool(tmp_path / "s") as spool:
        lost = refused(spool, range(40))
        kept = spool.depth()[0]
        assert (lost, kept) == (spool.dropped("host-1"), 40 - lost)
    for _ in range(2):
        with Spool(tmp_path / "s") as spool:
            assert (spool.dropped("host-1"), spool.heard("host-1"), spool.depth()[0]) == (lost, 0, kept)
            assert len(spool.pending()) == kept
    with Spool(tmp_path / "s") as spool:
        assert refused(spool, range(40, 41)) == 0
        assert (spool.dropped("host-1"), spool.depth()[0]) == (lost, kept + 1)
        spool.acknowledge([spool.pending()[-1].id])
        assert spool.heard("host-1") == lost


def test_the_count_of_what_was_refused_outlives_the_next_writing_of_the_second_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("disk full")

    clock = [0.0]
    with Spool(tmp_path / "s", now=lambda: clock[0]) as spool:
        spool.append([report(0)], NOW)
        (tmp_path / "s.heads.new").mkdir()
        spool.append([report(1)], NOW)  # waits for the second file
        (tmp_path / "s.heads.new").rmdir()
        with monkeypatch.context() as broken:
            broken.setattr(spool, "_insert", full)
            with pytest.raises(SpoolError):
                spool.append([report(2)], NOW)
        clock[0] += RETRY_S
        assert len(spool.pending()) == 2
    with Spool(tmp_path / "s") as spool:
        assert (spool.dropped("host-1"), spool.heard("host-1"), spool.depth()[0]) == (1, 0, 2)


def test_the_first_report_of_a_host_is_counted_if_it_is_refused(tmp_path: Path) -> None:
    for starts in range(3):
        with Spool(tmp_path / "s") as spool:
            assert (spool.dropped("host-1"), spool.last_digest("host-1"), spool.depth()) == (starts, None, (0, 0))
            spool._db.execute(  # type: ignore[union-attr]
                "CREATE TEMP TRIGGER full BEFORE INSERT ON entries BEGIN SELECT RAISE(ABORT, 'disk full'); END"
            )
            assert refused(spool, range(starts, starts + 1)) == 1
    with Spool(tmp_path / "s") as spool:
        assert refused(spool, range(3, 4)) == 0
        assert (spool.dropped("host-1"), spool.heard("host-1"), spool.depth()[0]) == (3, 0, 1)
        assert spool.last_digest("host-1") == report(3).digest
        spool.acknowledge([entry.id for entry in spool.pending()])
        assert spool.heard("host-1") == 3


def test_a_spool_that_is_made_on_a_full_disk_begins_when_there_is_room(tmp_path: Path) -> None:
    clock = [0.0]
    with largest_file(0):
        spool = Spool(tmp_path / "s", now=lambda: clock[0])
        assert refused(spool, range(3)) == 3
        assert spool.pending() == []
        assert spool.stats(NOW).oldest_age_ms is None
    clock[0] += RETRY_S
    assert refused(spool, range(3, 5)) == 0
    assert [entry.value for entry in spool.pending()] == [report(number, size=SIZE).value for number in (3, 4)]
    assert spool.dropped("host-1") == 3
    spool.close()


def test_nothing_leaves_before_the_second_file_is_written(tmp_path: Path) -> None:
    clock = [0.0]
    with Spool(tmp_path / "s", now=lambda: clock[0]) as spool:
        (tmp_path / "s.heads.new").mkdir()  # as good as a disk that refuses it
        spool.append([report(0)], NOW)
        assert spool.pending() == []
        assert (spool.depth()[0], spool.stats(NOW).writable) == (1, False)
        (tmp_path / "s.heads.new").rmdir()
        assert spool.pending() == []  # not asked at every turn of a loop
        clock[0] += RETRY_S
        assert len(spool.pending()) == 1
        assert spool.stats(NOW).writable
    (tmp_path / "s.heads").unlink()
    (tmp_path / "s.heads.new").mkdir()
    with Spool(tmp_path / "s") as spool:  # nor after a restart, if it is lost
        assert spool.pending() == []


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A directory, and the right to write into it gone: root gives up being root for the test."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with Spool(directory / "s") as spool:
            spool.append([report(number) for number in range(3)], NOW)
        directory.chmod(0o555)
        for path in directory.iterdir():
            path.chmod(0o444)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield directory
        finally:
            if root:
                os.seteuid(0)
            directory.chmod(0o700)


def test_a_read_only_directory_is_refused_at_the_start(read_only: Path) -> None:
    with pytest.raises(SpoolError, match="cannot open") as refusal:
        Spool(read_only / "s")
    assert "permissions" in refusal.value.remedy
    with pytest.raises(SpoolError):
        Spool(read_only / "other")


def test_a_directory_that_becomes_read_only_stops_sending_new_reports_and_heals(tmp_path: Path) -> None:
    """What is open stays writable by POSIX; the second file is replaced, which needs the directory."""
    clock = [0.0]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        nobody = os.geteuid() == 0
        if nobody:
            os.chown(directory, 65534, 65534)
            os.seteuid(65534)
        try:
            with Spool(directory / "s", now=lambda: clock[0]) as spool:
                spool.append([report(0)], NOW)
                directory.chmod(0o555)
                spool.append([report(1)], NOW)
                assert [entry.id for entry in spool.pending()] == [1]
                clock[0] += RETRY_S
                assert [entry.id for entry in spool.pending()] == [1]
                directory.chmod(0o755)
                clock[0] += RETRY_S
                assert [entry.id for entry in spool.pending()] == [1, 2]
        finally:
            if nobody:
                os.seteuid(0)
