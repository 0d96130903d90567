"""Export: what goes in comes out, in equal files, however often it was interrupted."""

from __future__ import annotations

import contextlib
import io
import json
import os
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import fastavro
import fastavro._read_py as reference
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_jobs.archive import (
    ArchiveExists,
    ArchiveInputLost,
    ArchiveInvalid,
    ArchiveNotWritten,
    ArchiveUnfinished,
    Directory,
    Request,
    check_archive,
    export_archive,
    open_archive,
)
from stream_jobs.archive.index import INDEX, UNFINISHED
from stream_jobs.archive.records import SCHEMA, decode_records, encode_record
from stream_jobs.archive.segment import Limits, pack
from stream_jobs.log_record import LogRecord
from tests.archive.memory import (
    EVERYTHING,
    NAMES,
    SMALL,
    MemorySource,
    contents,
    export,
    record,
    small_cluster,
)

PARSED = fastavro.parse_schema(json.loads(SCHEMA))
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
MAYBE = st.none() | st.binary(max_size=60)
RECORDS = st.builds(
    LogRecord,
    topic=st.just(NAMES.reports),
    partition=st.just(0),
    offset=st.integers(0, 1 << 62),
    timestamp_ms=INT64,
    timestamp_type=st.sampled_from((-1, 0, 1)),
    key=MAYBE,
    value=MAYBE,
    headers=st.lists(st.tuples(st.text(max_size=8), MAYBE), max_size=4).map(tuple),
)
LOGS = st.lists(RECORDS, max_size=40, unique_by=lambda one: one.offset).map(
    lambda found: sorted(found, key=lambda one: one.offset)
)


class Killed(BaseException):
    """The process ended here."""


class Killer:
    """Ends the process before its nth step on the file system."""

    def __init__(self, steps: int):
        self.left = steps

    def __call__(self, step: str) -> None:
        if self.left == 0:
            raise Killed(step)
        self.left -= 1


@settings(max_examples=30, deadline=None)
@given(log=LOGS, limits=st.builds(Limits, st.integers(1, 300), st.integers(1, 900), st.integers(1, 9)))
def test_what_is_exported_comes_back(
    tmp_path_factory: pytest.TempPathFactory, log: list[LogRecord], limits: Limits
) -> None:
    path = tmp_path_factory.mktemp("archive")
    source = MemorySource({NAMES.reports: [log]})
    made = export(source, path, limits=limits)
    with contextlib.closing(open_archive(path)) as archive:
        extents = archive.extents(NAMES.reports)
        assert extents == source.extents(NAMES.reports)
        (extent,) = extents
        assert list(archive.read(NAMES.reports, 0, extent.first, extent.end)) == log
        assert check_archive(archive) == (len(log), [])
        assert made.records == len(log)
        for one in log[:5]:
            assert list(archive.read(NAMES.reports, 0, one.offset, one.offset + 1)) == [one]
            for time_ms in (one.timestamp_ms, one.timestamp_ms + 1):
                assert archive.offset_at(NAMES.reports, 0, time_ms) == source.offset_at(NAMES.reports, 0, time_ms)


@settings(max_examples=200, deadline=None)
@given(one=RECORDS)
def test_a_record_is_what_the_schema_says(one: LogRecord) -> None:
    data = encode_record(one)
    fields = fastavro.schemaless_reader(io.BytesIO(data), PARSED, None)
    assert fields == {
        "offset": one.offset,
        "timestamp_ms": one.timestamp_ms,
        "timestamp_type": one.timestamp_type,
        "key": one.key,
        "value": one.value,
        "headers": [{"key": name, "value": value} for name, value in one.headers],
    }
    assert list(decode_records(data, one.topic, one.partition)) == [(0, one)]


def test_other_tools_read_a_segment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """fastavro's own reader of container files, with a zstd where this Python has none."""

    def unpack(decoder: reference.BinaryDecoder) -> io.BytesIO:
        return io.BytesIO(pa.input_stream(io.BytesIO(decoder.read_bytes()), compression="zstd").read())

    monkeypatch.setitem(reference.BLOCK_READERS, "zstandard", unpack)
    source = small_cluster()
    export(source, tmp_path)
    found = []
    for name in sorted(contents(tmp_path)):
        if name.startswith("reports/0/"):
            with open(tmp_path / name, "rb") as file:
                found += list(reference.reader(file))
    expected = source.logs[NAMES.reports][0]
    assert [(one["offset"], one["key"], one["value"]) for one in found] == [
        (one.offset, one.key, one.value) for one in expected
    ]


def test_two_exports_are_equal_byte_for_byte(tmp_path: Path) -> None:
    first, second = export(small_cluster(), tmp_path / "a"), export(small_cluster(), tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert first == second
    assert first.segments > 8
    assert UNFINISHED not in contents(tmp_path / "a")


def test_the_digest_of_contents_stays() -> None:
    """A change here makes archives of one release unlike those of another: raise the format's number then."""
    records = [record(n, b"x" * n, headers=(("h", b"1"), ("n", None))) for n in range(50)]
    data, content = pack(records, "topic", 3, Limits())
    assert content.hex() == "82c39b435542e38b85fb3a3ad8795f1b9e784dc7535de6ed3fe112f4376dd535"
    assert data.startswith(b"Obj\x01\x08\x16avro.schema")


def test_an_export_killed_at_any_step_goes_on(tmp_path: Path) -> None:
    export(small_cluster(), tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    kept, steps = set(), 0
    while True:
        path = tmp_path / str(steps)
        try:
            export_archive(small_cluster(), NAMES, Directory(path, Killer(steps)), EVERYTHING, limits=SMALL)
        except Killed:
            done = INDEX in contents(path)
            if not done:
                with pytest.raises((ArchiveUnfinished, ArchiveInvalid)):
                    open_archive(path)
            # Asked for again in the same words; a step later also by --resume, once there is a plan.
            again = None if UNFINISHED in contents(path) and steps % 2 else EVERYTHING
            kept.add(export(small_cluster(), path, again).kept)
            assert contents(path) == expected, steps
        else:
            break
        steps += 1
    assert steps > 80
    assert len(kept) > 8, "finished segments stay"


def test_killed_again_and_again(tmp_path: Path) -> None:
    export(small_cluster(), tmp_path / "whole")
    for _ in range(300):
        with contextlib.suppress(Killed):
            export_archive(small_cluster(), NAMES, Directory(tmp_path / "a", Killer(9)), EVERYTHING, limits=SMALL)
            break
    assert contents(tmp_path / "a") == contents(tmp_path / "whole")


def test_a_file_is_on_the_disk_before_its_name_counts(tmp_path: Path) -> None:
    seen: list[str] = []
    directory = Directory(tmp_path, lambda step: seen.append(step.split()[0]))

    def sync(descriptor: int) -> None:
        seen.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).relative_to(tmp_path)}")

    with patch("stream_jobs.archive.files.os.fsync", sync):
        directory.write("a/b/c.avro", b"data")
    assert seen == [
        *("mkdir", "open", "write", "written", "written"),
        "fsync a/b/c.avro.part",
        *("rename", "renamed"),
        *("fsync a/b", "fsync a", "fsync ."),
    ]


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign"])
def test_a_torn_segment_is_written_again(tmp_path: Path, damage: str) -> None:
    export(small_cluster(), tmp_path / "whole")
    path = tmp_path / "a"
    with pytest.raises(Killed):
        export_archive(small_cluster(), NAMES, Directory(path, Killer(40)), EVERYTHING, limits=SMALL)
    name = next(name for name in contents(path) if name.endswith(".avro"))
    data = bytearray((path / name).read_bytes())
    if damage == "cut":
        del data[-5:]
    elif damage == "flipped":
        data[-20] ^= 1
    else:
        data[:] = pack([record(3, b"other")], NAMES.output, 0, SMALL)[0]
    (path / name).write_bytes(data)
    export(small_cluster(), path)
    assert contents(path) == contents(tmp_path / "whole")


def test_records_that_came_since_are_not_taken_by_a_resumed_export(tmp_path: Path) -> None:
    export(small_cluster(), tmp_path / "whole")
    with pytest.raises(Killed):
        export_archive(small_cluster(), NAMES, Directory(tmp_path / "a", Killer(30)), EVERYTHING, limits=SMALL)
    grown = small_cluster()
    grown.logs[NAMES.reports][0] += [record(n) for n in range(42, 60)]
    grown.ends.clear()
    export(grown, tmp_path / "a", None)
    assert contents(tmp_path / "a") == contents(tmp_path / "whole")


def test_retention_during_an_export_is_not_a_hole(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        export_archive(small_cluster(), NAMES, Directory(tmp_path / "a", Killer(20)), EVERYTHING, limits=SMALL)
    later = small_cluster()
    later.logs[NAMES.reports][0] = [one for one in later.logs[NAMES.reports][0] if one.offset > 37]
    with pytest.raises(ArchiveInputLost, match="begins at 38"):
        export(later, tmp_path / "a")


def test_a_topic_that_was_made_again_is_noticed(tmp_path: Path) -> None:
    def begun(path: Path) -> Path:
        with pytest.raises(Killed):
            export_archive(small_cluster(), NAMES, Directory(path, Killer(40)), EVERYTHING, limits=SMALL)
        return path

    shorter = small_cluster()
    shorter.logs[NAMES.output] = [shorter.logs[NAMES.output][0][:3], [], []]
    with pytest.raises(ArchiveInputLost, match="ends before"):
        export(shorter, begun(tmp_path / "a"))
    other = small_cluster()
    other.logs[NAMES.reports][0] = [replace(one, value=b"another") for one in other.logs[NAMES.reports][0]]
    with pytest.raises(ArchiveInputLost, match="not what was exported"):
        export(other, begun(tmp_path / "b"))


def test_another_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ArchiveExists):
        export(small_cluster(), tmp_path)
    with pytest.raises(ArchiveInvalid, match="no export to go on with"):
        export(small_cluster(), tmp_path / "new", None)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_a_finished_archive_is_not_overwritten(tmp_path: Path) -> None:
    made = export(small_cluster(), tmp_path)
    before = contents(tmp_path)
    assert replace(export(MemorySource(), tmp_path), kept=0) == made
    assert export(MemorySource(), tmp_path, None).kept == made.segments
    with pytest.raises(ArchiveExists):
        export(small_cluster(), tmp_path, Request(5, None, None, None))
    assert contents(tmp_path) == before


def test_two_exports_do_not_write_into_one_directory(tmp_path: Path) -> None:
    with Directory(tmp_path).locked(), pytest.raises(ArchiveExists, match="another export"):
        export(small_cluster(), tmp_path)
    assert export(small_cluster(), tmp_path).records > 0


def test_a_disk_that_is_full_is_said(tmp_path: Path) -> None:
    def full(step: str) -> None:
        if step.startswith("write output"):
            raise OSError(28, "No space left on device")

    with pytest.raises(ArchiveNotWritten, match="No space left"):
        export_archive(small_cluster(), NAMES, Directory(tmp_path, full), EVERYTHING, limits=SMALL)
    assert export(small_cluster(), tmp_path, None).kept > 0


def test_a_record_too_large_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_jobs.archive.segment.MAX_RECORD_BYTES", 1000)
    with pytest.raises(ArchiveNotWritten, match=r"t.collateral.v1\[0\] offset 0 has 20\d\d bytes"):
        export(small_cluster(), tmp_path)
