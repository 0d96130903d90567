"""What was published by workers without fault is identical: the whole, every range, from wherever a replay begins."""

from __future__ import annotations

import random

import pytest

from tests.core.fleet import PARTITION
from tests.core.replay import remembered
from tests.replay.logs import SPOILT, quiet, scenario, start_ms
from tests.replay.topics import NAMES, Published, Said
from tests.results import write_result

WINDOWS = 90
"""So many that a replay of the last ones does not begin at the log's beginning."""


def expected(made: Published, from_ms: int, to_ms: int) -> list[tuple[str, int, int]]:
    """Windows and revisions on the output topic, in its order, copies once."""
    from schemas.codec import decode_signed_output

    outputs = [decode_signed_output(one.value or b"")[0].output for one in made.source.topics[NAMES.output, PARTITION]]
    return [
        (one.domain, one.window_start_ms, one.revision) for one in outputs if from_ms <= one.window_start_ms < to_ms
    ]


def judged(said: Said) -> list[tuple[str | None, int | None, int | None]]:
    return [(one.domain, one.window_start_ms, one.revision) for one in said.verdicts]


def check_ranges(seed: int, count: int) -> tuple[int, int]:
    """Replay random ranges of a scenario, also where the log's beginning is gone. Returns replays, and those that began
    in the middle."""
    middle = 0
    made, rng = scenario(seed, WINDOWS), random.Random(seed)
    log = made.source.topics[NAMES.reports, PARTITION]
    for number in range(count):
        first = rng.randrange(WINDOWS)
        from_ms, to_ms = start_ms(first), start_ms(rng.randint(first + 1, WINDOWS + 1))
        source, trimmed = made.source, number % 2 == 1
        if trimmed:
            source = source.copy()
            source.drop(NAMES.reports, log[rng.randrange(len(log))].offset)
        with remembered():
            said = made.replay(source, from_ms=from_ms, to_ms=to_ms)
        context = f"seed {seed}, number {number}"
        assert said.kinds <= ({"identical", "input lost"} if trimmed else {"identical"}), context
        assert said.codes <= set(SPOILT), context
        if not trimmed:
            assert sorted(judged(said)) == sorted(expected(made, from_ms, to_ms)), context
        middle += said.result.partitions[0].first_offset > 0
    return count, middle


@pytest.mark.parametrize("seed", [0, 1, 3, 6])
def test_a_whole_log_is_identical(seed: int) -> None:
    made = scenario(seed)
    with remembered():
        said = made.replay()
    assert said.kinds <= {"identical"}
    assert said.codes <= set(SPOILT)
    assert said.result.proven
    assert judged(said) == expected(made, 0, 1 << 50)


def test_a_range_of_a_log_is_identical_wherever_the_replay_begins() -> None:
    replays = middle = 0
    for seed in (5, 8):
        more, begun = check_ranges(seed, 3)
        replays, middle = replays + more, middle + begun
    assert middle >= replays // 3


def test_one_domain_of_several() -> None:
    made = scenario(0)
    with remembered():
        said = made.replay(domain="d1")
    assert judged(said) == [one for one in expected(made, 0, 1 << 50) if one[0] == "d1"]
    assert said.kinds == {"identical"}
    assert 0 < len(said.verdicts) < made.outputs


def test_the_middle_of_a_log_is_read_from_near_there() -> None:
    """Not from the log's beginning, and not to its end."""
    made = quiet(100)
    source = made.source.copy()
    said = made.replay(source, from_ms=start_ms(80), to_ms=start_ms(82))
    assert [one.window_start_ms for one in said.verdicts] == [start_ms(80), start_ms(81)]
    assert said.kinds == {"identical"}
    assert said.findings == []
    log = source.topics[NAMES.reports, PARTITION]
    assert said.result.partitions[0].first_offset > len(log) // 3
    assert said.result.partitions[0].records < 2 * len(log) // 3
    assert said.result.partitions[0].attempts == 1


def test_what_rests_on_a_lost_beginning_is_input_lost_and_the_later_windows_are_not() -> None:
    made = quiet(100)
    source = made.source.copy()
    source.drop(NAMES.reports, 60)
    said = made.replay(source)
    kinds = [one.verdict.value for one in said.verdicts if one.window_start_ms is not None]
    assert set(kinds) == {"input lost", "identical"}
    by_window = {one.window_start_ms: one.verdict.value for one in said.verdicts}
    changes = [start for start in sorted(by_window) if start is not None]
    identical_from = min(start for start in changes if by_window[start] == "identical")
    assert all(by_window[start] == "identical" for start in changes if start >= identical_from)
    assert len(by_window) == made.outputs
    assert not said.result.proven
    assert said.codes == set()


def test_outputs_that_expired_are_not_missing() -> None:
    made = quiet()
    source = made.source.copy()
    source.drop(NAMES.output, 4)
    said = made.replay(source)
    assert [one.verdict.value for one in said.verdicts] == ["input lost"] * 4 + ["identical"] * (made.outputs - 4)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_many_ranges() -> None:
    replays = middle = 0
    for seed in range(100, 180):
        more, begun = check_ranges(seed, 8)
        replays, middle = replays + more, middle + begun
    assert middle >= replays // 3
    result = {"replays": replays, "begun_in_the_middle": middle, "differences": 0}
    write_result("replay-ranges", result, seeds={"first": 100, "last": 179})
