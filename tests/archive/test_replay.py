"""A replay of an archive says what a replay of the topics says, for the whole and for the range it was made for."""

from __future__ import annotations

from pathlib import Path

from stream_jobs.archive import Directory, Request, check_archive, export_archive, needed_context_ms, open_archive
from stream_jobs.archive.segment import Limits
from stream_jobs.archive.selection import GENEROUS
from tests.core.fleet import PARTITION
from tests.core.replay import remembered
from tests.replay.logs import scenario, start_ms
from tests.replay.topics import NAMES, Published, Said

WINDOWS = 90
LIMITS = Limits(segment_records=200)


def archived(made: Published, path: Path, asked: Request, **changes: int) -> Said:
    export_archive(made.source, NAMES, Directory(path), asked, limits=LIMITS)
    with remembered():
        return made.replay(open_archive(path), **changes)  # type: ignore[arg-type]


def test_a_whole_archive_is_judged_as_the_topics_are(tmp_path: Path) -> None:
    made = scenario(5)
    with remembered():
        live = made.replay()
    said = archived(made, tmp_path, Request(None, None, None, None))
    assert said.verdicts == live.verdicts
    assert "identical" in said.kinds
    assert said.findings == live.findings


def test_an_archive_has_what_a_replay_of_its_range_needs(tmp_path: Path) -> None:
    shorter = 0
    for seed in (8,):
        made = scenario(seed, WINDOWS)
        context_ms = GENEROUS * needed_context_ms(view.policy for view in made.policies)
        whole = made.source.topics[NAMES.reports, PARTITION]
        for first in (20, 60):
            changes = {"from_ms": start_ms(first), "to_ms": start_ms(first + 12)}
            path = tmp_path / f"{seed}-{first}"
            said = archived(made, path, Request(changes["from_ms"], changes["to_ms"], context_ms, None), **changes)
            with remembered():
                live = made.replay(**changes)
            assert said.verdicts == live.verdicts, path
            assert "input lost" not in said.kinds, path
            assert {one.code for one in said.alarms} == {one.code for one in live.alarms}, path
            (extent,) = open_archive(path).extents(NAMES.reports)
            shorter += extent.first > whole[0].offset
            check_archive(open_archive(path))
    assert shorter, "of some logs the beginning was left out"


def test_an_archive_that_begins_too_late_says_so(tmp_path: Path) -> None:
    made = scenario(5, WINDOWS)
    changes = {"from_ms": start_ms(60), "to_ms": start_ms(72)}
    said = archived(made, tmp_path, Request(changes["from_ms"], None, 0, None), **changes)
    assert "input lost" in said.kinds
