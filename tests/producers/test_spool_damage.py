"""Damaged spools: cut anywhere, torn, overwritten, gone. Losses are bounded and counted, nothing is sealed twice."""

import hashlib
import itertools
import json
import os
import random
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from producers.errors import SpoolError
from producers.spool import Spool
from producers.spool_file import COLUMNS, checksum
from producers.spool_heads import sync_directory
from producers.spool_rescue import KEEP_BROKEN
from schemas.codec import decode_signed_record
from tests.producers.forge import START_MS, report
from tests.producers.spool_damage import NOW, check, cuts, fresh, leave, memory_directory
from tests.producers.test_agent import Broker, config, go
from tests.results import write_result

SEED = int(os.environ.get("ENCLAVESCALE_SEED", "20261121"))
PAGE = 4096
FRAME = PAGE + 24
SIZE = 200
LONG = pytest.mark.soak


@pytest.fixture
def directory() -> Iterator[Path]:
    with memory_directory() as made:
        yield made


def value_at(data: bytes | bytearray, number: int) -> int:
    """Where the bytes of a report begin; the newest copy counts."""
    return data.rindex(report(number, size=SIZE).value)


@pytest.mark.parametrize("stride", [211, pytest.param(1, marks=LONG)])
def test_a_log_cut_anywhere_in_its_last_transaction_loses_one_report(directory: Path, stride: int) -> None:
    left = leave(directory, 8, 2, closed=False, size=SIZE)
    log = left.files["-wal"]
    begin = value_at(log, 7)
    frame = 32 + (begin - 32) // FRAME * FRAME
    row = range(begin - 100, begin + SIZE + 2)
    headers = range(frame, frame + 25)
    for cut in cuts(len(log), [*row, *headers, len(log) - 1], stride, first=frame):
        assert check(left.write(fresh(directory), wal=log[:cut]), left, size=SIZE) == 1
    assert check(left.write(fresh(directory)), left, size=SIZE) == 0


@pytest.mark.parametrize("stride", [1009, pytest.param(1, marks=LONG)])
def test_a_file_cut_anywhere_in_its_last_record_loses_what_lay_behind_the_cut(directory: Path, stride: int) -> None:
    count = 40
    left = leave(directory, count, 2, closed=True, size=SIZE)
    file = left.files[""]
    places = [value_at(file, number) for number in range(2, count)]
    last = places[-1]
    worst = 0
    for cut in cuts(len(file), range(last - 100, last + SIZE + 2), stride, first=last // PAGE * PAGE):
        behind = sum(place >= cut // PAGE * PAGE for place in places)
        lost = check(left.write(fresh(directory), file=file[:cut]), left, size=SIZE)
        assert lost <= behind < len(places)
        worst = max(worst, lost)
    assert worst > 0


def test_an_empty_or_foreign_file_in_its_place_is_set_aside(directory: Path) -> None:
    left = leave(directory, 8, 2, closed=True, size=SIZE)
    for junk in (b"", b"\0" * 3 * PAGE, b"not a database" * 1000, left.files[""][:100]):
        assert check(left.write(fresh(directory), file=junk), left, size=SIZE) == 6
    assert (directory / "s.broken-1").read_bytes() == left.files[""][:100]  # for somebody to look at
    assert check(left.write(fresh(directory), file=None), left, size=SIZE) == 6


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Some sectors of it zeroed, overwritten, swapped or flipped by a bit."""
    result = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at, length = rng.randrange(len(data)), rng.choice([1, 16, 512, 512, PAGE])
        if length >= 512:
            at -= at % 512
        place = slice(at, min(at + length, len(data)))
        width = place.stop - place.start
        kind = rng.randrange(4)
        if kind == 0:
            result[place] = bytes(width)
        elif kind == 1:
            result[place] = rng.randbytes(width)
        elif kind == 2:
            other = rng.randrange(max(len(data) - width, 1))
            result[place] = data[other : other + width]
        else:
            result[at] ^= 1 << rng.randrange(8)
    return bytes(result)


@pytest.mark.parametrize("rounds", [250, pytest.param(20_000, marks=[LONG, pytest.mark.accept])])
def test_whatever_is_torn_or_overwritten_it_opens_and_counts(directory: Path, rounds: int) -> None:
    rng = random.Random(SEED)
    kinds = [leave(fresh(directory), 24, 5, closed=closed, size=SIZE) for closed in (False, True)]
    worst = dict.fromkeys(("file", "wal"), 0)
    for number in range(rounds):
        left = kinds[number % 2]
        which = "file" if number % 2 or rng.random() < 0.2 else "wal"
        data = damaged(left.files["" if which == "file" else "-wal"], rng)
        lost = check(left.write(fresh(directory), **{which: data}), left, size=SIZE)
        worst[which] = max(worst[which], lost)
    assert min(worst.values()) > 0
    if rounds > 250:
        write_result("spool-damage", {"rounds": rounds, "reports": 19, "worst_loss": worst}, seeds={"damage": SEED})


def test_the_second_file_cut_or_gone_is_written_again(directory: Path) -> None:
    left = leave(directory, 8, 2, closed=True, size=SIZE)
    heads = left.files[".heads"]
    for cut in [*range(len(heads)), None]:
        path = left.write(fresh(directory), heads=None if cut is None else heads[:cut])
        with Spool(path) as spool:
            assert len(spool.pending()) == 6
        assert path.with_name("s.heads").read_bytes() == heads
        assert check(path, left, size=SIZE) == 0


def test_with_both_files_gone_nothing_is_known(directory: Path) -> None:
    """As documented: what was sealed is forgotten with them."""
    left = leave(directory, 8, 2, closed=True)
    path = left.write(fresh(directory), file=None, heads=None)
    with Spool(path) as spool:
        assert (spool.last_digest("host-0"), spool.sealed_ms("host-0"), spool.dropped("host-0")) == (None, 0, 0)


def test_a_report_that_changed_on_disk_is_found_before_it_is_sent(directory: Path) -> None:
    left = leave(directory, 8, 0, closed=True, size=SIZE)
    file = bytearray(left.files[""])
    file[value_at(file, 3) + 50] ^= 1
    with Spool(left.write(fresh(directory), file=bytes(file))) as spool:
        assert spool.depth()[0] == 8  # SQLite sees nothing wrong
        found = spool.pending()
        assert [entry.id for entry in found] == [1, 2, 3, 5, 6, 7, 8]
        stats = spool.stats(NOW)
        assert (stats.quarantined, stats.dropped, stats.entries, stats.writable) == (1, 1, 7, True)
        spool.acknowledge([entry.id for entry in found])
        assert spool.depth() == (0, 0)
        assert spool.append([report(8, "host-0")], NOW)[0].id == 9


def test_damaged_spools_do_not_pile_up(directory: Path) -> None:
    left = leave(directory, 8, 0, closed=True)
    path = left.write(fresh(directory))
    for _ in range(KEEP_BROKEN + 3):
        with Spool(path):
            pass
        path.write_bytes(b"x" * 5000)
    names = sorted(item.name for item in directory.iterdir() if "broken" in item.name)
    assert names == [f"s.broken-{number}" for number in range(3, 3 + KEEP_BROKEN)]


def test_a_spool_used_from_another_thread_is_an_error_and_no_damage(directory: Path) -> None:
    with Spool(directory / "s") as spool:
        spool.append([report(0)], NOW)
        caught: list[SpoolError] = []

        def append() -> None:
            try:
                spool.append([report(1)], NOW)
            except SpoolError as error:
                caught.append(error)

        other = threading.Thread(target=append)
        other.start()
        other.join()
        assert "thread" in str(caught[0])
        assert not list(directory.glob("*broken*"))
    with Spool(directory / "s") as spool:
        assert spool.depth()[0] == 1


def test_what_a_damaged_spool_lost_is_in_the_next_report_and_the_chain_goes_on(tmp_path: Path) -> None:
    down, up = Broker(), Broker()
    down.down = True
    go(config(tmp_path, windows=6), down)
    sent = [decode_signed_record(value) for value in down.values]
    path = tmp_path / "spool"
    path.write_bytes(path.read_bytes()[: 2 * PAGE])  # what is left is the schema
    assert go(config(tmp_path, windows=2), up).acknowledged == 2  # the same replay, begun anew
    first, second = (record.body for record in up.records)
    assert (first.dropped_reports, second.dropped_reports) == (6, 6)  # type: ignore[union-attr]
    assert first.window_start_ms == START_MS + 60_000  # type: ignore[union-attr]
    assert first.prev_digest == sent[-1].digest


@pytest.mark.parametrize("step", range(3))
def test_a_rescue_killed_at_any_step_is_done_by_the_next_start(
    directory: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    left = leave(directory, 8, 2, closed=False, size=SIZE)
    path = left.write(fresh(directory), file=b"x" * PAGE, wal=b"y" * PAGE)
    child = os.fork()
    if child == 0:
        steps = itertools.count()

        def dying(original: Callable[..., object]) -> Callable[..., object]:
            def call(*args: object) -> object:
                if next(steps) == step:
                    os._exit(9)
                return original(*args)

            return call

        monkeypatch.setattr(Path, "replace", dying(Path.replace))
        monkeypatch.setattr("producers.spool_rescue.sync_directory", dying(sync_directory))
        Spool(path)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    check(path, left, size=SIZE)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "null",
        '{"format":1,"hosts":[1]}',
        '{"format":1,"hosts":{"host-1":"ab"}}',
        '{"format":1,"hosts":{"host-1":["00","x",1,0,0,0]}}',
        '{"format":1,"hosts":{"host-1":["00",-5,1,0,0,0]}}',
        '{"format":1,"hosts":{"host-1":["00",1,1' + "0" * 30 + ",0,0,0]}}",
    ],
    ids=range(7),
)
def test_a_second_file_that_somebody_made_up_does_not_stop_the_agent(directory: Path, text: str) -> None:
    data = text.encode()
    (directory / "s.heads").write_bytes(hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
    with Spool(directory / "s") as spool:
        spool.append([report(0)], NOW)
        assert (len(spool.pending()), spool.dropped("host-1")) == (1, 0)


@pytest.mark.parametrize(
    ("column", "value"),
    [("domain", b"x"), ("digest", "x"), ("window_end_ms", "x"), ("window_end_ms", 1 << 61), ("appended_ms", "x")],
)
def test_a_row_that_somebody_made_up_is_not_sent(directory: Path, column: str, value: object) -> None:
    with Spool(directory / "s") as spool:
        spool.append([report(0), report(1)], NOW)
    with closing(sqlite3.connect(directory / "s")) as db, db:
        db.execute(f"UPDATE entries SET {column} = ? WHERE id = 1", (value,))
        (row,) = db.execute(f"SELECT {COLUMNS} FROM entries WHERE id = 1").fetchall()
        db.execute("UPDATE entries SET checksum = ? WHERE id = 1", (checksum(row[:6], row[6]),))
    with Spool(directory / "s") as spool:
        assert [entry.digest for entry in spool.pending()] == [report(1).digest]
        assert spool.dropped("host-1") == 1


def format_2(path: Path, hosts: dict[str, list[int]]) -> None:
    """A spool as agents before format 3 left it: by host the numbers of what waits; 3 were dropped, 2 acknowledged."""
    heads = {}
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(
            "CREATE TABLE entries (id INTEGER PRIMARY KEY, host_id TEXT NOT NULL, domain TEXT NOT NULL,"
            " digest BLOB NOT NULL, window_end_ms INTEGER NOT NULL, appended_ms INTEGER NOT NULL, value BLOB NOT NULL,"
            " checksum INTEGER NOT NULL)"
        )
        db.execute(
            "CREATE TABLE heads (host_id TEXT PRIMARY KEY, digest BLOB NOT NULL, sealed_ms INTEGER NOT NULL,"
            " appended INTEGER NOT NULL, dropped INTEGER NOT NULL, told INTEGER NOT NULL, acked INTEGER NOT NULL,"
            " checksum INTEGER NOT NULL)"
        )
        for host_id, numbers in hosts.items():
            for one in (report(number, host_id, SIZE) for number in numbers):
                row = (one.seq + 1, host_id, one.domain, one.digest, one.window_end_ms, NOW)
                crc = zlib.crc32(one.value, zlib.crc32(repr(row).encode()))
                db.execute("INSERT INTO entries VALUES (?,?,?,?,?,?,?,?)", (*row, one.value, crc))
            head = (host_id, one.digest, one.window_end_ms, len(numbers) + 5, 3, 3, 2)
            db.execute("INSERT INTO heads VALUES (?,?,?,?,?,?,?,?)", (*head, zlib.crc32(repr(head).encode())))
            heads[host_id] = [one.digest.hex(), *head[2:]]
        db.execute("PRAGMA user_version=2")
        db.execute(f"PRAGMA application_id={0x45535000 + 2}")
    text = json.dumps({"format": 1, "hosts": heads}, separators=(",", ":")).encode()
    path.with_name(path.name + ".heads").write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)


def test_a_spool_of_the_format_before_is_migrated(directory: Path) -> None:
    format_2(directory / "s", {"host-0": [6, 8], "host-1": [7, 9]})
    for _ in range(2):
        with Spool(directory / "s") as spool:
            stats = spool.stats(NOW)
            assert (stats.entries, stats.quarantined, stats.failures) == (4, 0, 0)
            numbers = {"host-0": (6, 8), "host-1": (7, 9)}
            waiting = [report(n, host_id, SIZE).value for host_id, found in numbers.items() for n in found]
            assert sorted(entry.value for entry in spool.pending()) == sorted(waiting)
            # Whether a report that states them reached a broker, the old format does not say.
            assert (spool.dropped("host-0"), spool.heard("host-0")) == (3, 0)
            assert spool.last_digest("host-1") == report(9).digest
    with Spool(directory / "s") as spool:
        spool.append([report(10, "host-0")], NOW)
        spool.acknowledge([entry.id for entry in spool.pending()])
        assert (spool.heard("host-0"), spool.heard("host-1"), spool.depth()) == (3, 0, (0, 0))


def test_the_second_file_of_the_format_before_is_enough_when_the_first_is_gone(directory: Path) -> None:
    format_2(directory / "s", {"host-1": [7, 9]})
    (directory / "s").unlink()
    with Spool(directory / "s") as spool:
        assert (spool.dropped("host-1"), spool.heard("host-1"), spool.depth()) == (5, 0, (0, 0))
        assert (spool.last_digest("host-1"), spool.sealed_ms("host-1")) == (report(9).digest, report(9).window_end_ms)


@pytest.mark.parametrize("suffix", ["", ".heads"])
def test_a_damaged_spool_of_the_format_before_opens_and_counts(directory: Path, suffix: str) -> None:
    format_2(fresh(directory) / "whole", {"host-1": [7, 9]})
    data, rng = (directory / f"whole{suffix}").read_bytes(), random.Random(SEED)
    for _ in range(100):
        fresh(directory)
        format_2(directory / "s", {"host-1": [7, 9]})
        (directory / f"s{suffix}").write_bytes(damaged(data, rng))
        with Spool(directory / "s") as spool:
            kept = spool.pending()
            assert len(kept) + spool.dropped("host-1") >= 5
            assert spool.sealed_ms("host-1") == report(9).window_end_ms
            assert {entry.value for entry in kept} <= {report(number, size=SIZE).value for number in (7, 9)}
            spool.append([report(10)], NOW)


def test_a_directory_named_like_a_damaged_spool_stops_no_rescue(directory: Path) -> None:
    left = leave(directory, 8, 2, closed=True, size=SIZE)
    (fresh(directory) / "s.broken-1").mkdir()
    for number in range(KEEP_BROKEN + 1):
        path = left.write(directory, file=b"x" * PAGE)
        with Spool(path) as spool:
            stats = spool.stats(NOW)
            assert (stats.quarantined, stats.failures, stats.writable) == (1, 0, True)
            assert spool.dropped("host-0") + spool.dropped("host-1") == 6
        assert (directory / f"s.broken-{number + 2}").exists()
    assert (directory / "s.broken-1").is_dir()
    assert not (directory / "s.broken-2").exists()
    assert check(path, left, size=SIZE) == 6


def test_the_second_file_is_replaced_only_when_it_is_on_disk_and_then_the_directory_is_synced(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut would find after each step."""
    steps: list[tuple[str, str, bytes]] = []
    fsync, replace = os.fsync, os.replace
    heads = directory / "s.heads"

    def syncing(handle: int) -> None:
        name = os.readlink(f"/proc/self/fd/{handle}")
        steps.append(("fsync", name, b"" if os.path.isdir(name) else Path(name).read_bytes()))
        fsync(handle)

    def replacing(source: Path, target: Path) -> None:
        steps.append(("replace", os.fspath(source), Path(source).read_bytes()))
        assert Path(target) == heads
        replace(source, target)

    with Spool(directory / "s") as spool:
        monkeypatch.setattr(os, "fsync", syncing)
        monkeypatch.setattr(os, "replace", replacing)
        spool.append([report(0)], NOW)
        monkeypatch.undo()
    made, whole = f"{heads}.new", heads.read_bytes()
    assert whole
    assert steps == [("fsync", made, whole), ("replace", made, whole), ("fsync", os.fspath(directory), b"")]
