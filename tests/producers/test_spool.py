"""The spool: bytes survive a kill, only the same bytes come back, bounds hold, two agents never share a file."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.errors import SpoolError
from producers.spool import MIN_BYTES, Spool
from schemas.errors import ConfigError
from tests.producers.forge import report

NOW = 1_000_000_000

KILLED = """
import os, sys
from pathlib import Path
from producers.spool import Spool
from tests.producers.forge import report
spool = Spool(Path(sys.argv[1]))
entries = []
for number in range(0, 30, 3):
    entries += spool.append([report(number + k, f"host-{k}") for k in range(3)], 1000)
    if number == 12:
        spool.acknowledge(e.id for e in entries[:7])
print("appended", flush=True)
spool._db.execute("BEGIN IMMEDIATE")
spool._insert(report(99, "host-0"), 1000, 0, 0)  # never committed
print("torn", flush=True)
os.read(0, 1)
"""


def test_kill_9_between_append_and_acknowledgement_loses_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert [child.stdout.readline() for _ in range(2)] == ["appended\n", "torn\n"]
        child.send_signal(signal.SIGKILL)
        child.wait()
    with Spool(path) as spool:
        left = spool.pending()
        assert [entry.value for entry in left] == [report(number).value for number in range(7, 30)]
        assert [entry.digest for entry in left] == [report(number).digest for number in range(7, 30)]
        assert [entry.host_id for entry in left] == [f"host-{number % 3}" for number in range(7, 30)]
        assert spool.last_digest("host-0") == report(27).digest
        assert spool.depth() == (23, 2300)


@pytest.mark.parametrize("kills", range(3))
def test_kill_at_any_moment_leaves_whole_transactions(tmp_path: Path, kills: int) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom producers.spool import Spool\n"
        "from tests.producers.forge import report\nspool = Spool(Path(sys.argv[1]))\nprint('go', flush=True)\n"
        "n = 0\nwhile True:\n"
        "    spool.append([report(n), report(n + 1)], 1000)\n    n += 2\n    print(n, flush=True)\n"
    )
    path = tmp_path / "spool.sqlite"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(5 + 7 * kills):
            seen = child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split()
        child.wait()
    claimed = int(([seen.strip()] + [word for word in rest if word.isdigit()])[-1])
    with Spool(path) as spool:
        values = [entry.value for entry in spool.pending(limit=100_000)]
    assert len(values) >= claimed
    assert len(values) % 2 == 0
    assert values == [report(number).value for number in range(len(values))]


def test_reopening_gives_the_same_order(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "spool.sqlite"
    with Spool(path) as spool:
        entries = spool.append([report(1), report(2)], NOW)
        assert spool.pending() == list(entries)
        assert spool.pending(after_id=entries[0].id) == [entries[1]]
        assert spool.pending(limit=1) == [entries[0]]
        spool.acknowledge([e.id for e in entries])
        spool.acknowledge([e.id for e in entries])  # twice is no harm
        assert spool.depth() == (0, 0)
        assert spool.append([report(3)], NOW)[0].id > entries[1].id
    assert os.stat(path).st_mode & 0o077 == 0
    with Spool(path) as spool:
        spool.acknowledge([entry.id for entry in spool.pending()])
        assert spool.last_digest("host-1") == report(3).digest  # outlives trimming
        assert spool.last_digest("host-2") is None
        assert spool.append([report(4)], NOW) == tuple(spool.pending())


def test_the_bound_in_bytes_drops_the_oldest_and_counts(tmp_path: Path) -> None:
    size = MIN_BYTES // 8
    with Spool(tmp_path / "s", max_bytes=MIN_BYTES) as spool:
        for number in range(20):
            spool.append([report(number, f"host-{number % 2}", size)], NOW)
            assert spool.depth()[1] <= MIN_BYTES
        assert [entry.digest for entry in spool.pending()] == [report(n).digest for n in range(12, 20)]
        assert (spool.dropped("host-0"), spool.dropped("host-1"), spool.dropped("host-2")) == (6, 6, 0)
    with Spool(tmp_path / "s", max_bytes=MIN_BYTES) as spool:
        assert spool.dropped("host-0") == 6
        spool.append([report(20, "host-0", size)], NOW)  # the size was found again on opening
        assert spool.depth() == (8, MIN_BYTES)


def test_the_bound_in_age(tmp_path: Path) -> None:
    with Spool(tmp_path / "s", max_age_ms=1_000) as spool:
        spool.append([report(number) for number in range(200)], NOW)
        spool.append([report(200)], NOW + 1_000)
        assert spool.depth()[0] == 201
        spool.append([report(201)], NOW + 1_001)
        assert spool.depth() == (2, 200)
        assert spool.dropped("host-1") == 200


def test_discarded_entries_are_counted_acknowledged_ones_are_not(tmp_path: Path) -> None:
    with Spool(tmp_path / "s") as spool:
        entries = spool.append([report(n) for n in range(3)], NOW)
        spool.acknowledge([entries[0].id])
        spool.discard([entries[1].id, 12345])
        assert spool.dropped("host-1") == 1
        assert spool.pending() == [entries[2]]


def test_a_failing_append_leaves_nothing_behind(tmp_path: Path) -> None:
    with Spool(tmp_path / "s") as spool:
        spool.append([report(0)], NOW)
        spool._db.execute("CREATE TRIGGER full BEFORE INSERT ON entries BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        with pytest.raises(SpoolError, match="disk full"):
            spool.append([report(1), report(2)], NOW)
        spool._db.execute("DROP TRIGGER full")
        assert spool.depth() == (1, 100)
        assert spool.last_digest("host-1") == report(0).digest
        spool.append([report(3)], NOW)


def test_it_is_synchronous_and_write_ahead(tmp_path: Path) -> None:
    with Spool(tmp_path / "s") as spool:
        assert spool._db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert spool._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_second_agent_is_refused(tmp_path: Path) -> None:
    with Spool(tmp_path / "s"), pytest.raises(SpoolError, match="locked") as refused:
        Spool(tmp_path / "s", busy_s=0.05)
    assert refused.value.code == "SPOOL_FAILED"
    assert "other agent" in refused.value.remedy


def test_files_of_other_versions_and_bad_bounds_are_refused(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "newer")
    db.execute("PRAGMA user_version=9")
    db.execute(f"PRAGMA application_id={0x45535000 + 9}")
    db.close()
    with pytest.raises(SpoolError, match="format 9"):
        Spool(tmp_path / "newer")
    with pytest.raises(SpoolError):
        Spool(tmp_path)
    for bad in ({"max_bytes": MIN_BYTES - 1}, {"max_age_ms": 0}):
        with pytest.raises(ConfigError):
            Spool(tmp_path / "s", **bad)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("asd"), st.integers(0, 9)), max_size=30))
def test_model_any_sequence_of_operations(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    model: dict[int, bytes] = {}
    dropped = number = 0
    path = tmp_path_factory.mktemp("spool") / "s"
    spool = Spool(path)
    for kind, pick in steps:
        if kind == "a":
            for entry in spool.append([report(number)], NOW):
                model[entry.id] = entry.value
            number += 1
        elif model:
            chosen = sorted(model)[pick % len(model)]
            (spool.acknowledge if kind == "s" else spool.discard)([chosen])
            dropped += kind == "d"
            del model[chosen]
        if pick == 9:
            spool.close()
            spool = Spool(path)
        assert {entry.id: entry.value for entry in spool.pending()} == model
        assert spool.depth() == (len(model), sum(map(len, model.values())))
        assert spool.dropped("host-1") == dropped
    spool.close()
