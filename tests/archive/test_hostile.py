"""Archives that were damaged or made to deceive: refused with the place, whatever the bytes, at a bounded cost."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_jobs.archive import (
    ArchiveDamaged,
    ArchiveError,
    ArchiveInvalid,
    ArchiveUnfinished,
    check_archive,
    open_archive,
)
from stream_jobs.archive.index import INDEX, UNFINISHED, Index, index_digest, parse_index, render_index
from stream_jobs.archive.records import (
    NotARecord,
    decode_records,
    encode_bytes,
    encode_long,
    encode_record,
)
from stream_jobs.archive.segment import MAX_CONTENT_BYTES, Limits, _header, _sync, pack, read_segment, records_of
from stream_jobs.log_record import LogRecord
from stream_jobs.reading import ReadFailed
from tests.archive.memory import NAMES, SMALL, MemorySource, contents, export, record, small_cluster
from tests.house.source import ROOT

TIER = os.environ.get("ENCLAVESCALE_TIER", "test")
FILE = "reports/0/00000000000000000000.avro"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive")
    export(small_cluster(), path)
    return path


@pytest.fixture
def copy(archive: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(archive, tmp_path / "copy"))


def check(path: Path) -> int:
    return check_archive(open_archive(path))[0]


def flips(data: bytes) -> list[bytes]:
    """Every byte changed: one bit of each, at the full tier every bit."""
    bits = range(8) if TIER == "accept" else (0,)
    found = []
    for at in range(len(data)):
        for bit in bits:
            changed = bytearray(data)
            changed[at] ^= 1 << ((at + bit) % 8)
            found.append(bytes(changed))
    return found


@pytest.mark.every_tier
def test_every_changed_byte_of_the_index_is_found(archive: Path) -> None:
    for changed in flips((archive / INDEX).read_bytes()):
        with pytest.raises(ArchiveInvalid, match=r"^index\.json"):
            parse_index(changed)


@pytest.mark.every_tier
def test_every_changed_byte_of_a_segment_is_found(copy: Path) -> None:
    for name in ("reports/0/00000000000000000003.avro", "policy/0/00000000000000000007.avro"):
        whole = (copy / name).read_bytes()
        source = open_archive(copy)
        topic, first = (NAMES.reports, 3) if "reports" in name else (NAMES.policy, 7)
        for changed in flips(whole):
            (copy / name).write_bytes(changed)
            with pytest.raises(ArchiveDamaged, match=name):
                next(source.read(topic, 0, first, first + 1))
        (copy / name).write_bytes(whole)
    assert check(copy) > 40


def test_a_file_cut_off_anywhere_is_found(copy: Path) -> None:
    name = "output/0/00000000000000000000.avro"
    whole = (copy / name).read_bytes()
    for size in range(len(whole)):
        (copy / name).write_bytes(whole[:size])
        with pytest.raises(ArchiveDamaged, match=rf"{name}, byte {size}: it ends here"):
            list(open_archive(copy).read(NAMES.output, 0, 0, 9))
    for size in range(0, len((copy / INDEX).read_bytes()), 11):
        with pytest.raises(ArchiveInvalid):
            parse_index((copy / INDEX).read_bytes()[:size])


def test_what_is_missing_is_an_error_not_an_end(copy: Path) -> None:
    names = [name for name in contents(copy) if name != INDEX]
    for name in names:
        (copy / name).rename(copy / "away")
        with pytest.raises(ArchiveDamaged, match=f"{name} is missing"):
            check(copy)
        (copy / "away").rename(copy / name)
    os.rename(copy / INDEX, copy / UNFINISHED)
    with pytest.raises(ArchiveUnfinished):
        open_archive(copy)
    (copy / UNFINISHED).unlink()
    with pytest.raises(ArchiveInvalid, match=r"has no index\.json"):
        open_archive(copy)
    with pytest.raises(ArchiveInvalid):
        open_archive(copy / "nowhere")


def test_files_of_no_archive_are_named(copy: Path) -> None:
    (copy / "reports" / "0" / "extra.avro").write_text("")
    assert check_archive(open_archive(copy))[1] == ["reports/0/extra.avro"]


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_only_plain_files_are_opened(copy: Path, kind: str) -> None:
    name = "collateral/0/00000000000000000000.avro"
    (copy / name).rename(copy / "elsewhere")
    if kind == "link":
        (copy / name).symlink_to(copy / "elsewhere")  # the right bytes, and still outside
    elif kind == "pipe":
        os.mkfifo(copy / name)
    else:
        (copy / name).mkdir()
    with pytest.raises(ArchiveDamaged, match=name):
        check(copy)


def test_a_topic_that_is_not_there(archive: Path) -> None:
    source = open_archive(archive)
    assert source.extents(NAMES.beacons) == []
    assert source.names == NAMES
    for ask in (
        lambda: source.extents("other"),
        lambda: list(source.read("other", 0, 0, 1)),
        lambda: source.offset_at(NAMES.reports, 3, 0),
    ):
        with pytest.raises(ReadFailed, match="not in the archive"):
            ask()


def test_the_digest_pins_an_archive(archive: Path, copy: Path) -> None:
    digest = open_archive(archive).digest
    first, _, *rest = (archive / INDEX).read_text().split("\n")
    assert hashlib.sha256("\n".join([first, *rest]).encode()).hexdigest() == digest, "`sed 2d index.json | sha256sum`"
    assert open_archive(copy, digest.upper()).digest == digest
    with pytest.raises(ArchiveInvalid, match="expected was"):
        open_archive(copy, "0" * 64)


def test_what_the_page_says_to_do_by_hand(copy: Path) -> None:
    (commands,) = re.findall(r"## By hand\n\n```\n(.*?)```", (ROOT / "docs" / "archive.md").read_text(), re.DOTALL)

    def run() -> tuple[int, str]:
        done = subprocess.run(["sh", "-c", commands], cwd=copy, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    assert run() == (0, f"{open_archive(copy).digest}  -\n")
    name = next(name for name in contents(copy) if name.startswith("collateral"))
    (copy / name).write_bytes((copy / name).read_bytes() + b"\0")
    assert run()[0] == 1
    assert name in run()[1]


# --- an index that agrees with what was put into the files ---------------------------------------------------


def lie(path: Path, change: Callable[[Any], None]) -> None:
    """Change the index and give it the digest that belongs to it."""
    content = json.loads((path / INDEX).read_bytes())
    change(content)
    content.pop("digest")
    bare = (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
    content["digest"] = hashlib.sha256(bare).hexdigest()
    (path / INDEX).write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def reports_segment(content: Any) -> Any:
    return content["topics"][0]["partitions"][0]["segments"][0]


LIES: dict[str, Callable[[Any], None]] = {
    "a path that leads out": lambda c: reports_segment(c).update(file="../" * 8 + "etc/passwd"),
    "an absolute path": lambda c: reports_segment(c).update(file="/etc/passwd"),
    "another file of the archive": lambda c: reports_segment(c).update(file="output/0/00000000000000000000.avro"),
    "a role of no topic": lambda c: c["topics"][0].update(role="secrets"),
    "a name with a path": lambda c: c["topics"][0].update(topic="../x"),
    "one topic twice": lambda c: c["topics"][0].update(topic=c["topics"][1]["topic"]),
    "a role less": lambda c: c["topics"].pop(),
    "partitions out of order": lambda c: c["topics"][0]["partitions"].reverse(),
    "overlapping segments": lambda c: c["topics"][0]["partitions"][0]["segments"].insert(0, reports_segment(c)),
    "more records than offsets": lambda c: reports_segment(c).update(records=8),
    "no records": lambda c: reports_segment(c).update(records=0),
    "a file of a terabyte": lambda c: reports_segment(c).update(bytes=1 << 40),
    "an end before the beginning": lambda c: c["topics"][0]["partitions"][0].update(end=2),
    "records beyond the end": lambda c: c["topics"][0]["partitions"][0].update(end=5),
    "a negative offset": lambda c: c["topics"][0]["partitions"][0].update(first=-1),
    "a number that is true": lambda c: c["topics"][0]["partitions"][0].update(first=True),
    "a number that is no integer": lambda c: reports_segment(c).update(records=3.0),
    "not a digest": lambda c: reports_segment(c).update(sha256="A" * 64),
    "times the wrong way round": lambda c: reports_segment(c).update(min_timestamp_ms=1 << 60),
    "a key that nobody knows": lambda c: reports_segment(c).update(other=1),
    "a key less": lambda c: reports_segment(c).pop("bytes"),
    "another format": lambda c: c.update(format="enclavescale-archive/2"),
    "a range of nonsense": lambda c: c["request"].update(from_ms="yesterday"),
    "topics of nothing": lambda c: c.update(topics=None),
}


@pytest.mark.parametrize("what", LIES)
def test_an_index_that_lies_about_its_shape_is_refused(copy: Path, what: str) -> None:
    lie(copy, LIES[what])
    with pytest.raises(ArchiveInvalid, match=r"^index\.json"):
        open_archive(copy)


@pytest.mark.parametrize(
    "change",
    [
        {"records": 1},
        {"min_timestamp_ms": 0},
        {"max_timestamp_ms": 1 << 50},
        {"first_offset": 4},
        {"sha256": "0" * 64},
        {"content_sha256": "0" * 64},
        {"bytes": 20},
        {"bytes": 100_000},
    ],
    ids=str,
)
def test_an_index_that_lies_about_a_file_is_refused(copy: Path, change: dict[str, Any]) -> None:
    lie(copy, lambda content: reports_segment(content).update(change))
    with pytest.raises(ArchiveError):
        check(copy)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format":"enclavescale-archive/1"}',
        b'{"format":"enclavescale-archive/1","request":' + b"9" * 5000 + b',"topics":[]}',
        b'{"format":"enclavescale-archive/1","request":NaN,"topics":[]}',
    ],
    ids=lambda text: repr(text[:30]),
)
def test_bytes_that_are_no_index_are_refused(text: bytes) -> None:
    with pytest.raises(ArchiveInvalid):
        parse_index(text)


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, one in pairs for found in paths_of(one, (*path, key)))]


@pytest.mark.every_tier
@settings(max_examples=60 if TIER == "test" else 500, deadline=None)
@given(data=st.data())
def test_any_value_in_any_place_of_the_index(archive: Path, data: st.DataObject) -> None:
    content = json.loads((archive / INDEX).read_bytes())
    where = data.draw(st.sampled_from(paths_of(content)[1:]))
    junk = st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=5)
    value = data.draw(st.recursive(junk, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner)))
    place = content
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    raw = (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
    for tried in (raw, raw.replace(str(content.get("digest")).encode(), index_digest(raw).encode())):
        try:
            index = parse_index(tried)
        except ArchiveInvalid:
            continue
        assert render_index(index) == tried


def forged(path: Path, records: list[bytes], *, count: int | None = None, packed: bytes | None = None) -> Index:
    """An archive of one report segment of these Avro bytes, with an index that agrees with it."""
    export(MemorySource({NAMES.reports: [[record(n) for n in range(4)]]}), path, limits=Limits())
    content = b"".join(records)
    digest = hashlib.sha256(content).digest()
    block = pa.Codec("zstd").compress(content, asbytes=True) if packed is None else packed
    head = _header(NAMES.reports, 0) + _sync(digest)
    data = head + encode_long(len(records) if count is None else count) + encode_bytes(block) + _sync(digest)
    (path / FILE).write_bytes(data)
    told = {"sha256": hashlib.sha256(data).hexdigest(), "content_sha256": digest.hex(), "bytes": len(data)}
    lie(path, lambda content: reports_segment(content).update(told))
    return open_archive(path).index


GOOD = [encode_record(record(n)) for n in range(4)]


def test_a_forgery_of_good_records_is_read(tmp_path: Path) -> None:
    """The forger of the tests below makes what would be accepted."""
    forged(tmp_path, GOOD)
    assert check(tmp_path) == 4


@pytest.mark.parametrize(
    ("records", "what"),
    [
        ([GOOD[0], GOOD[0], GOOD[2], GOOD[3]], "offset 0 follows 0"),
        ([GOOD[0], GOOD[2], GOOD[1], GOOD[3]], "offset 1 follows 2"),
        (GOOD[:3], "3 records up to offset 2"),
        (GOOD[1:], "offset 1: it is not one"),
        ([*GOOD, encode_record(record(4, time_ms=record(3).timestamp_ms))], "offset 4: it is not one"),
        ([*GOOD[:3], GOOD[3][:-1]], "a number is cut off"),
        ([*GOOD[:3], encode_record(record(3, time_ms=0))], "its time is outside"),
        ([*GOOD[:3], b"\x80\x00" + GOOD[3][1:]], "longer than it need be"),
        ([*GOOD[:3], b"\xff" * 12], "a number"),
        ([*GOOD[:3], GOOD[3][:1] + encode_long(0) + encode_long(7) + b"\x00\x00\x00"], "timestamp type 7"),
        ([*GOOD[:3], GOOD[3][:-1] + encode_long(1 << 40)], "headers are said to follow"),
        ([*GOOD[:3], GOOD[3][:-1] + encode_long(-1) + b"\x00"], "headers are said to follow"),
        ([*GOOD[:3], GOOD[3][:-1] + encode_long(1) + encode_bytes(b"\xff") + b"\x00\x00"], "not UTF-8"),
        ([*GOOD[:3], GOOD[3][:-1] + encode_long(1) + encode_bytes(b"a") + b"\x00\x02"], "headers do not end"),
        ([*GOOD[:3], GOOD[3][:-1] + encode_long(1) + encode_bytes(b"a") + b"\x04\x00"], "neither null nor bytes"),
    ],
)
def test_records_that_nobody_exports_are_refused(tmp_path: Path, records: list[bytes], what: str) -> None:
    forged(tmp_path, records)
    with pytest.raises(ArchiveDamaged, match=what) as caught:
        check(tmp_path)
    assert FILE in str(caught.value)


@pytest.mark.every_tier
@settings(max_examples=150 if TIER == "test" else 5_000, deadline=None)
@given(data=st.data())
def test_any_bytes_give_records_or_a_refusal(data: st.DataObject) -> None:
    head = _header(NAMES.reports, 0)
    whole = pack([record(n, b"v" * n) for n in range(9)], NAMES.reports, 0, Limits(block_bytes=60))[0]
    at, end = sorted((data.draw(st.integers(len(head), len(whole))), data.draw(st.integers(len(head), len(whole)))))
    tried = whole[:at] + data.draw(st.binary(max_size=40)) + whole[end:]
    try:
        segment = read_segment(tried, FILE, NAMES.reports, 0)
        found = list(records_of(segment, FILE, NAMES.reports, 0))
    except ArchiveDamaged:
        return
    assert segment.content_sha256 == hashlib.sha256(b"".join(map(encode_record, found))).digest()


@pytest.mark.every_tier
@settings(max_examples=150 if TIER == "test" else 5_000, deadline=None)
@given(block=st.binary(max_size=80) | st.lists(st.sampled_from(GOOD)).map(b"".join))
def test_any_block_gives_records_or_a_refusal(block: bytes) -> None:
    """What is read is what is written: no two encodings of one record."""
    try:
        found = [one for _, one in decode_records(block, NAMES.reports, 0)]
    except NotARecord:
        return
    assert b"".join(map(encode_record, found)) == block


@pytest.mark.parametrize("count", [-1, 0, 3, 5, 1 << 50])
def test_a_block_that_lies_about_its_records(tmp_path: Path, count: int) -> None:
    forged(tmp_path, GOOD, count=count)
    with pytest.raises(ArchiveDamaged, match=FILE):
        check(tmp_path)


def test_bombs_are_refused_before_they_unpack(tmp_path: Path) -> None:
    """Sizes are read from the frame's head, and zstd writes no more than was said."""
    bomb = pa.Codec("zstd").compress(bytes(MAX_CONTENT_BYTES + 1), asbytes=True)
    assert len(bomb) < 5000
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(bytes(1 << 20))
    unsaid = sink.getvalue().to_pybytes()
    small = pa.Codec("zstd").compress(bytes(300), asbytes=True)
    liar = small[:5] + (40).to_bytes(2, "little") + small[7:]
    twice = small + pa.Codec("zstd").compress(bytes(1 << 20), asbytes=True)
    for packed, what in (
        (bomb, f"unpacks to {MAX_CONTENT_BYTES + 1} bytes"),
        (unsaid, "an unknown number of bytes"),
        (liar, "cannot be unpacked"),
        (twice, "cannot be unpacked"),
        (b"", "unknown number"),
        (small[:-2], "cannot be unpacked"),
        (b"\x28\xb5\x2f\xfd\xe0", "unknown number"),
    ):
        shutil.rmtree(tmp_path)
        forged(tmp_path, GOOD, packed=packed)
        with pytest.raises(ArchiveDamaged, match=what):
            check(tmp_path)


@pytest.mark.every_tier
def test_any_change_of_a_segment_that_the_index_agrees_with(tmp_path: Path) -> None:
    """Whoever changes a file and the index with it still has to give records: other contents never pass as these."""
    log = [record(n, b"v%d" % n, headers=(("h", None),)) for n in range(4)]
    export(MemorySource({NAMES.reports: [log]}), tmp_path, limits=SMALL)
    whole = (tmp_path / FILE).read_bytes()
    index = parse_index((tmp_path / INDEX).read_bytes())
    head = len(_header(NAMES.reports, 0))
    for tail in flips(whole[head:]):
        changed = whole[:head] + tail
        (tmp_path / FILE).write_bytes(changed)
        (tmp_path / INDEX).write_bytes(render_index(_with_digest(index, changed)))
        try:
            found = list(open_archive(tmp_path).read(NAMES.reports, 0, 0, 4))
        except ArchiveDamaged:
            continue
        assert found == log


def _with_digest(index: Index, data: bytes) -> Index:
    topic = index.topics[0]
    partition = topic.partitions[0]
    segment = replace(partition.segments[0], sha256=hashlib.sha256(data).hexdigest())
    changed = replace(topic, partitions=(replace(partition, segments=(segment,)),))
    return replace(index, topics=(changed, *index.topics[1:]))


def test_memory_does_not_grow_with_the_archive(tmp_path: Path) -> None:
    """Only a few segments are held, however many there are."""
    log = [LogRecord(NAMES.reports, 0, n, n, 1, None, b"x" * 100, ()) for n in range(300)]
    made = export(MemorySource({NAMES.reports: [log]}), tmp_path)
    source = open_archive(tmp_path)
    most = 0
    for _ in source.read(NAMES.reports, 0, 0, 300):
        most = max(most, len(source._held))
    assert (most, made.segments > 40) == (3, True)
    source.close()
    assert len(source._held) == 0
