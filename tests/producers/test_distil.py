"""Distillation against plain loops, and the sensitivities that the privacy statement rests on, by brute force."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_model.grid import Grid
from producers.distil import Distilled, distil, gaps
from producers.privacy import TRANSITIONS_L1, TRANSITIONS_L2_SQUARED

GRID = Grid((100, 200, 300))
LOW, HIGH, PANE = 50, 400, 3
NAN = math.nan
POWER = st.sampled_from([0.0, 60.04, 99.95, 100.0, 150.0, 250.0, 350.0, 401.0, 9000.0]) | st.floats(0, 500, width=32)
WINDOWS = st.lists(st.lists(POWER | st.just(NAN), min_size=9, max_size=9), min_size=1, max_size=3)


def run(rows: list[list[float]]) -> Distilled:
    return distil(np.array(rows, dtype=np.float32), GRID, LOW, HIGH, PANE)


@given(WINDOWS)
def test_agrees_with_plain_loops(rows: list[list[float]]) -> None:
    found = run(rows)
    panes = [0, 0, 0]
    counts = np.zeros((GRID.cells, GRID.cells), dtype=np.int64)
    taken = 0
    for row in rows:
        cells = []
        for tick, x in enumerate(row):
            if x != x:
                cells.append(GRID.missing)
                continue
            single = float(np.float32(x))
            taken += 1
            panes[tick // PANE] += round(min(max(single, LOW), HIGH) * 10)
            cells.append(sum(single >= edge for edge in GRID.edges_w))
        for a, b in itertools.pairwise(cells):
            counts[a, b] += 1
    assert found.pane_sums.tolist() == panes
    assert np.array_equal(found.transitions, counts)
    assert found.readings_taken == taken
    assert found.transitions.sum() == len(rows) * 8


@given(WINDOWS, st.data())
def test_replacing_one_reading_stays_within_the_sensitivities(rows: list[list[float]], data: st.DataObject) -> None:
    gpu = data.draw(st.integers(0, len(rows) - 1))
    tick = data.draw(st.integers(0, 8))
    before = [list(row) for row in rows]
    before[gpu][tick] = data.draw(POWER)
    after = [list(row) for row in before]
    after[gpu][tick] = data.draw(POWER | st.just(math.inf) | st.just(-math.inf))
    _check(run(before), run(after))


def _check(a: Distilled, b: Distilled) -> tuple[int, int, int]:
    moved = (a.transitions - b.transitions).ravel()
    l1, l2, pane = int(np.abs(moved).sum()), int((moved**2).sum()), int(np.abs(a.pane_sums - b.pane_sums).sum())
    assert l1 <= TRANSITIONS_L1
    assert l2 <= TRANSITIONS_L2_SQUARED
    assert pane <= 10 * (HIGH - LOW)
    assert a.readings_taken == b.readings_taken  # public: must not move with a value
    return l1, l2, pane


def test_every_neighbourhood_exhaustively_and_the_bounds_are_reached() -> None:
    worst = [0, 0, 0]
    levels = [0.0, 150.0, 250.0, 9000.0]
    for left, right in itertools.product([*levels, NAN], repeat=2):
        for x, y in itertools.permutations(levels, 2):
            found = _check(run([[left, x, right]]), run([[left, y, right]]))
            worst = [max(a, b) for a, b in zip(worst, found, strict=True)]
    assert worst == [TRANSITIONS_L1, TRANSITIONS_L2_SQUARED, 10 * (HIGH - LOW)]


def test_holding_the_last_reading_would_break_the_sensitivity() -> None:
    """The mutant this design avoids: a stale tick filled with the reading before it."""
    held = [run([[150.0, x, x, 150.0, 150.0, 150.0]]) for x in (150.0, 9000.0)]
    assert np.abs(held[0].pane_sums - held[1].pane_sums).sum() > 10 * (HIGH - LOW) * 0.9
    assert np.abs(held[0].transitions - held[1].transitions).sum() > TRANSITIONS_L1


def test_ticks_must_fill_the_panes() -> None:
    with pytest.raises(ValueError, match="panes"):
        run([[100.0] * 4])


def test_gaps_say_when_but_nothing_else() -> None:
    a = np.full((2, 40), 100.0, dtype=np.float32)
    b = np.full((1, 40), 100.0, dtype=np.float32)
    a[:, 3:8] = b[:, 3:8] = NAN  # a stall
    a[:, 20:24] = b[:, 20:24] = NAN  # too short for one
    a[:, 30:] = b[:, 30:] = NAN  # a stall at the end
    a[0, 12] = NAN
    found = gaps([a, b])
    assert (found.samples_taken, found.stalls_coarse) == (21, 2)
    assert (found.gpus_with_gaps, found.gpus_silent) == (3, 0)
    assert gaps([np.full((2, 7), NAN, dtype=np.float32)]).gpus_silent == 2
    assert gaps([np.zeros((1, 9), dtype=np.float32)]).stalls_coarse == 0


def test_stalls_are_rounded_up_to_a_power_of_two() -> None:
    row = np.zeros((1, 60), dtype=np.float32)
    for k in range(5):
        row[0, 10 * k : 10 * k + 5] = NAN
    assert gaps([row]).stalls_coarse == 8
