"""Distillation against plain loops, and the sensitivities that the privacy statement rests on, by brute force."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_model.grid import Grid
from producers.distil import MIN_PRESENT_PERCENT, SPIKES_PER_RANGE, Distilled, distil, gaps
from producers.privacy import (
    GLITCHES_L1,
    HISTOGRAM_L1,
    HISTOGRAM_L2_SQUARED,
    TRANSITIONS_L1,
    TRANSITIONS_L2_SQUARED,
    energy_residual_l1,
    event_ms,
)
from producers.sample.source import EnergySpan
from schemas.contract import HISTOGRAM_BINS, HISTOGRAM_CELLS, histogram_edges_w

GRID = Grid((100, 200, 300))
LOW, HIGH, PANE, TICK_MS = 50, 400, 3, 100
NAN = math.nan
POWER = st.sampled_from([0.0, 60.04, 99.95, 100.0, 150.0, 250.0, 350.0, 401.0, 9000.0]) | st.floats(0, 500, width=32)
WINDOWS = st.lists(st.lists(POWER | st.just(NAN), min_size=9, max_size=9), min_size=1, max_size=3)


def run(rows: list[list[float]], energy: EnergySpan | None = None) -> Distilled:
    return distil(np.array(rows, dtype=np.float32), GRID, LOW, HIGH, PANE, tick_ms=TICK_MS, energy=energy)


def span(delta_mj: list[int], valid: list[bool] | None = None, first: int = 1, last: int = 8) -> EnergySpan:
    known = np.array(valid or [True] * len(delta_mj))
    return EnergySpan(delta_mj=np.array(delta_mj, dtype=np.int64), valid=known, first_tick=first, last_tick=last)


@given(WINDOWS)
def test_agrees_with_plain_loops(rows: list[list[float]]) -> None:
    found = run(rows)
    panes = [0, 0, 0]
    counts = np.zeros((GRID.cells, GRID.cells), dtype=np.int64)
    bins = [0] * HISTOGRAM_CELLS
    taken = 0
    for row in rows:
        cells = []
        for tick, x in enumerate(row):
            if x != x:
                cells.append(GRID.missing)
                bins[HISTOGRAM_BINS] += 1
                continue
            single = float(np.float32(x))
            taken += 1
            deciwatt = round(min(max(single, LOW), HIGH) * 10)
            panes[tick // PANE] += deciwatt
            above = [edge for edge in histogram_edges_w(LOW, HIGH) if Fraction(edge) <= Fraction(deciwatt, 10)]
            bins[min(len(above), HISTOGRAM_BINS) - 1] += 1
            cells.append(sum(single >= edge for edge in GRID.edges_w))
        for a, b in itertools.pairwise(cells):
            counts[a, b] += 1
    assert found.pane_sums.tolist() == panes
    assert np.array_equal(found.transitions, counts)
    assert found.histogram.tolist() == bins
    assert found.readings_taken == taken
    assert found.transitions.sum() == len(rows) * 8
    assert found.histogram.sum() == len(rows) * 9
    assert found.histogram[HISTOGRAM_BINS] == len(rows) * 9 - taken


@given(WINDOWS, st.data())
def test_replacing_one_reading_stays_within_the_sensitivities(rows: list[list[float]], data: st.DataObject) -> None:
    gpu = data.draw(st.integers(0, len(rows) - 1))
    tick = data.draw(st.integers(0, 8))
    before = [list(row) for row in rows]
    before[gpu][tick] = data.draw(POWER)
    after = [list(row) for row in before]
    after[gpu][tick] = data.draw(POWER | st.just(math.inf) | st.just(-math.inf))
    _check(run(before), run(after))


BOUNDS = (TRANSITIONS_L1, TRANSITIONS_L2_SQUARED, 10 * (HIGH - LOW), HISTOGRAM_L1, HISTOGRAM_L2_SQUARED)


def _check(a: Distilled, b: Distilled) -> tuple[int, ...]:
    moved, bins = (a.transitions - b.transitions).ravel(), a.histogram - b.histogram
    pane = int(np.abs(a.pane_sums - b.pane_sums).sum())
    found = int(np.abs(moved).sum()), int((moved**2).sum()), pane, int(np.abs(bins).sum()), int((bins**2).sum())
    assert all(one <= bound for one, bound in zip(found, BOUNDS, strict=True))
    assert a.readings_taken == b.readings_taken  # public: must not move with a value
    assert bins[HISTOGRAM_BINS] == 0  # neither must the cell that says the same
    return found


def test_every_neighbourhood_exhaustively_and_the_bounds_are_reached() -> None:
    worst = [0] * len(BOUNDS)
    levels = [0.0, 150.0, 250.0, 9000.0]
    for left, right in itertools.product([*levels, NAN], repeat=2):
        for x, y in itertools.permutations(levels, 2):
            found = _check(run([[left, x, right]]), run([[left, y, right]]))
            worst = [max(a, b) for a, b in zip(worst, found, strict=True)]
    assert worst == list(BOUNDS)


def test_every_bin_to_every_other_moves_two_counts() -> None:
    """A reading anywhere in the range, or beyond it, goes anywhere else: beside another reading and a missing one."""
    edges = histogram_edges_w(LOW, HIGH)
    levels = [-math.inf, *((low + high) / 2 for low, high in itertools.pairwise(edges)), math.inf]
    found = [run([[200.0, x, NAN]]).histogram for x in levels]
    for (x, a), (y, b) in itertools.combinations(zip(levels, found, strict=True), 2):
        ends = {x, y} <= {-math.inf, levels[1]} or {x, y} <= {levels[-2], math.inf}
        assert np.abs(a - b).sum() == (0 if ends else HISTOGRAM_L1), (x, y)


@pytest.mark.parametrize(("low", "high"), [(0, 640), (0, 700), (50, 400), (3, 4), (0, 2000)])
def test_the_bins_edges(low: int, high: int) -> None:
    """Equal widths, exact; on an edge a reading is in the bin above, at the upper clip bound and beyond in the last."""
    edges = [Fraction(edge) for edge in histogram_edges_w(low, high)]
    assert edges == [low + Fraction(high - low) * index / HISTOGRAM_BINS for index in range(HISTOGRAM_BINS + 1)]
    deciwatts = np.arange(10 * low, 10 * high + 1)  # each of them once
    found = distil(deciwatts[None, :] / 10, Grid((low + 1,)), low, high, deciwatts.size).histogram
    first = [math.ceil(10 * edge) for edge in edges]
    first[-1] += 1
    assert found.tolist() == [*np.diff(first), 0]
    beyond = np.array([[math.inf, -math.inf, high + 1.0, low - 1.0]])
    found = distil(beyond, Grid((low + 1,)), low, high, 2).histogram
    assert (found[0], found[HISTOGRAM_BINS - 1], found.sum()) == (2, 2, 4)


def test_holding_the_last_reading_would_break_the_sensitivity() -> None:
    """The mutant this design avoids: a stale tick filled with the reading before it."""
    held = [run([[150.0, x, x, 150.0, 150.0, 150.0]]) for x in (150.0, 9000.0)]
    assert np.abs(held[0].pane_sums - held[1].pane_sums).sum() > 10 * (HIGH - LOW) * 0.9
    assert np.abs(held[0].transitions - held[1].transitions).sum() > TRANSITIONS_L1
    assert np.abs(held[0].histogram - held[1].histogram).sum() > HISTOGRAM_L1


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


WIDE_TICKS = 21
"""Ticks of the windows with counters: a span of 20, of which 18 must be present."""
WIDE = st.lists(st.lists(POWER | st.just(NAN), min_size=WIDE_TICKS, max_size=WIDE_TICKS), min_size=1, max_size=3)
ENERGY_L1 = energy_residual_l1(LOW, HIGH, TICK_MS)


@given(WIDE, st.data())
def test_the_energy_residual_agrees_with_plain_loops(rows: list[list[float]], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, 3))
    last = data.draw(st.integers(first + 1, WIDE_TICKS - 1))
    deltas = [data.draw(st.integers(-(10**6), 10**6)) for _ in rows]
    valid = [data.draw(st.booleans()) for _ in rows]
    found = run(rows, span(deltas, valid, first, last))
    duration = (last - first) * TICK_MS
    residuals = []
    for row, delta, known in zip(rows, deltas, valid, strict=True):
        clipped = [round(min(max(float(np.float32(x)), LOW), HIGH) * 10) for x in row[first:last] if x == x]
        if known and len(clipped) * 100 >= MIN_PRESENT_PERCENT * (last - first):
            counted = min(max(delta, LOW * duration), HIGH * duration)
            residuals.append(sum(clipped) * duration // (10 * len(clipped)) - counted)
    assert found.energy_residual_mj == (sum(residuals) if residuals else None)
    reason = None if residuals else "incomplete" if any(valid) else "no_counter"
    assert found.energy_absent_reason == reason


@given(WIDE, st.data())
def test_replacing_a_reading_and_its_energy_stays_within_the_sensitivity(
    rows: list[list[float]], data: st.DataObject
) -> None:
    """The counter sees the event, too: it moves by what the update may have drawn, either way."""
    gpu, tick = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(0, WIDE_TICKS - 1))
    rows[gpu][tick] = data.draw(POWER)
    before = [data.draw(st.integers(-100_000, 2 * HIGH * 2_000)) for _ in rows]
    after = list(before)
    most = HIGH * event_ms(TICK_MS)
    after[gpu] += data.draw(st.integers(-most, most))
    first = run(rows, span(before, first=0, last=20))
    changed = [list(row) for row in rows]
    changed[gpu][tick] = data.draw(POWER | st.just(math.inf) | st.just(-math.inf))
    second = run(changed, span(after, first=0, last=20))
    assert (first.energy_absent_reason, first.readings_taken) == (second.energy_absent_reason, second.readings_taken)
    if first.energy_residual_mj is not None and second.energy_residual_mj is not None:
        assert abs(first.energy_residual_mj - second.energy_residual_mj) <= ENERGY_L1


def test_the_energy_bound_is_reached() -> None:
    """Two ticks of twenty missing, the reading goes from end to end, the counter the other way."""
    rows = [[200.0] * WIDE_TICKS]
    rows[0][3] = rows[0][4] = NAN
    low, high = (
        [[-math.inf if t == 9 else x for t, x in enumerate(rows[0])]],
        [[math.inf if t == 9 else x for t, x in enumerate(rows[0])]],
    )
    most = HIGH * event_ms(TICK_MS)
    a, b = run(low, span([400_000 + most], first=0, last=20)), run(high, span([400_000], first=0, last=20))
    assert a.energy_residual_mj is not None
    assert b.energy_residual_mj is not None
    assert ENERGY_L1 - 1 <= b.energy_residual_mj - a.energy_residual_mj <= ENERGY_L1


def test_an_energy_residual_needs_nine_ticks_in_ten_and_a_counter() -> None:
    full, thin = [200.0] * WIDE_TICKS, [200.0] * (WIDE_TICKS - 3) + [NAN] * 3
    counted = [200 * 20 * TICK_MS] * 2
    both = span(counted, first=0, last=20)
    assert run([full, thin], both).energy_residual_mj == 0  # the last tick is not in the span: 18 of 20
    later = span(counted, first=1, last=20)
    assert run([thin], span(counted[:1], first=1, last=20)).energy_absent_reason == "incomplete"  # 17 of 19
    assert run([full, thin], later).energy_residual_mj == 200 * 19 * TICK_MS - counted[0]
    assert run([full], span([0], [False], first=1, last=20)).energy_absent_reason == "no_counter"
    assert run([full]).energy_absent_reason == "no_counter"


@pytest.mark.parametrize(("first", "last"), [(-1, 8), (4, 4), (1, 9), (5, 4)])
def test_a_counter_that_was_not_read_inside_the_window_is_a_mistake(first: int, last: int) -> None:
    with pytest.raises(ValueError, match="inside"):
        run([[100.0] * 9], span([0], first=first, last=last))


def test_a_spike_is_one_sample_above_both_neighbours() -> None:
    rise = (HIGH - LOW) / SPIKES_PER_RANGE
    flat = [100.0] * 9
    for changes, spikes in [
        ({4: 100 + rise}, 1),
        ({4: 99.9 + rise}, 0),
        ({4: math.inf}, 1),
        ({4: 400.0, 5: 400.0}, 0),  # lasts two samples
        ({4: -math.inf}, 0),  # a dip
        ({3: 400.0, 5: 400.0}, 2),
        ({0: 400.0, 8: 400.0}, 0),  # half a neighbourhood
        ({4: 400.0, 3: NAN}, 0),
        ({4: 400.0, 5: NAN}, 0),
        ({4: NAN}, 0),
    ]:
        row = [changes.get(tick, x) for tick, x in enumerate(flat)]
        assert run([row, flat]).glitches == spikes, changes


def test_every_neighbourhood_of_spikes_exhaustively_and_the_bound_is_reached() -> None:
    worst = 0
    levels = [50.0, 120.0, 200.0, 400.0, NAN]
    for around in itertools.product(levels, repeat=4):
        left, right = list(around[:2]), list(around[2:])
        counts = {run([[150.0, *left, x, *right, 150.0, 150.0, 150.0]]).glitches for x in levels[:4]}
        worst = max(worst, max(counts) - min(counts))
    assert worst == GLITCHES_L1
