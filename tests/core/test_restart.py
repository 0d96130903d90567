"""The log is the state: after a crash at any position every later output is the same, bit by bit."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence

import pytest

from tests.core.replay import Crash, Run, remembered, restart
from tests.core.scenario import Scenario, crash_points
from tests.results import write_result

BATCH = 10

KEPT = (201, 222, 228, 237, 253, 278, 316)
"""Seeds on which the first version of the core differed: refusals lost before the first output, policies a restart did
not know, counters and chains of outputs after a leap, flags of chains. Each cause also has its shortest log in
`test_restart_cases.py`."""


def check(seed: int, count: int, plain: bool = False) -> tuple[int, Run]:
    """Build the log of `seed` and crash `count` times; a third of the restarts crash again. Returns the restarts.

    `plain`: nothing is in force but policies.
    """
    restarts = 0
    with remembered():
        scenario = Scenario(seed, plain)
        run = scenario.build()
        rng = random.Random(seed)
        for commit, at, kept in crash_points(rng, run, count):
            again, difference = restart(run, scenario.policies, Crash(commit, at, kept))
            assert difference is None, f"seed {seed}: {difference}"
            restarts += 1
            if rng.random() < 0.3:
                restarts += crash_again(rng, seed, scenario, run, again, at)
    monotone([offset for offset in run.resume if offset is not None])
    return restarts, run


def crash_again(rng: random.Random, seed: int, scenario: Scenario, run: Run, again: Run, after: int) -> int:
    """The restarted core commits its own resume offset later on, and its successor starts from there."""
    index = {record.offset: number for number, record in enumerate(again.log)}
    later = [number for number in range(after, len(run.log)) if run.log[number].offset in index]
    if not later:
        return 0
    second = rng.choice(later)
    resumed = again.resume[index[run.log[second].offset]]
    _, difference = restart(run, scenario.policies, Crash(second, second), resumed=resumed)
    assert difference is None, f"seed {seed}, crash at {after}, then {difference}"
    return 1


def monotone(resume: Sequence[int]) -> None:
    """What was given up is never needed again."""
    assert all(a <= b for a, b in itertools.pairwise(resume))


@pytest.mark.parametrize("first", range(0, 60, BATCH))
def test_every_output_after_a_crash_is_the_same(first: int) -> None:
    for seed in range(first, first + BATCH):
        check(seed, 3)


@pytest.mark.parametrize("seed", KEPT)
def test_seeds_that_once_differed(seed: int) -> None:
    check(seed, 6, plain=True)


def test_the_scenarios_have_what_they_promise() -> None:
    """A generator that has stopped to make trouble would prove nothing."""
    codes: Counter[str] = Counter()
    late = idle = several = moved = gaps = switched = 0
    for seed in range(40):
        with remembered():
            run = Scenario(seed).build()
        codes.update(one.code for one in run.rejections)
        outputs = [made.output for _, made in run.emissions]
        late += sum(output.revision > 0 for output in outputs)
        idle += sum(output.source.close_reason == "idle_close" for output in outputs)
        gaps += sum(output.source.gap_ranges for output in outputs)
        switched += len({output.policy_counter for output in outputs}) > 1
        several += len(run.emissions) - len({at for at, _ in run.emissions})
        moved += (run.resume[-1] or 0) > len(run.log) // 10
    assert min(late, idle, several, gaps) >= 20
    assert switched >= 4
    assert moved >= 10
    expected = (
        "LATE DUPLICATE EQUIVOCATION SESSION_UNKNOWN EVIDENCE_STALE SUPERSEDED_SESSION NO_POLICY CONTROL_STALE "
        "MEASUREMENT_UNKNOWN QUOTE_SIGNATURE MALFORMED TOMBSTONE HOST_NOT_ENROLLED BINDING_MISMATCH WRONG_PARTITION "
        "TCB_STATUS_REFUSED COLLATERAL_STALE REVOKED BEACON_UNKNOWN BEACON_STALE"
    )
    assert set(expected.split()) <= set(codes)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_many_more_crashes() -> None:
    total = sum(check(seed, 25, plain=True)[0] for seed in KEPT)
    total += sum(check(seed, 5)[0] for seed in range(10_000, 10_300))
    assert total >= 1_600


@pytest.mark.accept
@pytest.mark.timeout(6 * 3600)
def test_ten_thousand_crashes() -> None:
    restarts = records = outputs = 0
    first = 20_000
    seed = first
    while restarts < 10_000:
        more, run = check(seed, 8)
        restarts, records, outputs = restarts + more, records + len(run.log), outputs + len(run.emissions)
        seed += 1
    result = {"restarts": restarts, "logs": seed - first, "records": records, "outputs": outputs, "differences": 0}
    write_result("core-restarts", result, seeds={"first": first, "last": seed - 1})
