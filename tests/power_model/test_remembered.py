"""Groups of earlier windows: kept where panes show nothing, given up where they or the readings speak against them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from power_model.groups import ALIKE, MAX_GROUPS, MIN_HOSTS
from power_model.interpolation import pane_means
from power_model.pooled import ClassRows
from power_model.remembered import OVERLAP, clear, readings_alike, still_in_step, with_past
from power_model.swing import swing_of
from tests.power_model.test_swing import (
    CLIP_W,
    EDGES_W,
    GPUS,
    PANE_STD_W,
    PANES,
    TICKS,
    TICKS_PER_PANE,
    estimated_w,
    fleet,
    p99_over_mean_w,
    rows_of,
    square,
)

NONE = np.zeros(0, np.int64)
NOISE = np.full(32, PANE_STD_W)


def noise_of(rng: np.random.Generator, hosts: int) -> np.ndarray:
    return np.asarray(rng.laplace(0, PANE_STD_W / math.sqrt(2), (hosts, PANES)))


def column(*groups: int) -> np.ndarray:
    """Groups of one window before, int8[rows, 1]."""
    return np.array(groups, np.int8)[:, np.newaxis]


@settings(max_examples=200)
@given(
    past=st.lists(st.lists(st.integers(-1, 3), min_size=20, max_size=20), min_size=0, max_size=5),
    now=st.lists(st.integers(-1, 2), min_size=20, max_size=20),
    named=st.sets(st.integers(0, 19)),
)
def test_no_row_is_in_two_groups_and_what_is_found_stays(
    past: list[list[int]], now: list[int], named: set[int]
) -> None:
    owner = np.array(now)
    found = [rows for label in range(3) if (rows := np.flatnonzero(owner == label)).size]
    free = np.array([row not in named for row in range(20)])
    labels = np.array(past, np.int8).reshape(-1, 20).T
    groups = with_past(found, labels, free)
    assert [rows.tolist() for rows, _ in groups[: len(found)]] == [rows.tolist() for rows in found]
    taken = [row for rows, before in groups for row in (*rows.tolist(), *before.tolist())]
    assert len(taken) == len(set(taken))
    assert len(groups) <= MAX_GROUPS
    for rows, before in groups:
        assert free[before].all()
        assert (labels[before] >= 0).any(axis=1).all()
        assert rows.size or before.size >= MIN_HOSTS


def test_a_group_found_in_part_is_that_of_the_window_before() -> None:
    found = [np.arange(3)]
    ((now, before),) = with_past(found, column(*[0] * 12, *[-1] * 4), np.ones(16, np.bool_))
    assert (now.tolist(), before.tolist()) == ([0, 1, 2], list(range(3, 12)))
    # Fewer than one in `OVERLAP` of its hosts say nothing of the others.
    few = with_past([np.arange(12 // OVERLAP - 1)], column(*[0] * 12, *[-1] * 4), np.ones(16, np.bool_))
    assert [(one.size, other.size) for one, other in few] == [(2, 0), (0, 10)]


def test_who_was_with_two_jobs_does_not_join_them() -> None:
    """Host 5 copied one job in one window and the other in the next: both stay what they are, whoever is found now."""
    newest = [0] * 6 + [-1] * 6
    older = [-1] * 5 + [0] * 7
    past = np.array([newest, older], np.int8).T
    free = np.ones(12, np.bool_)
    groups = with_past([], past, free)
    assert [before.tolist() for _, before in groups] == [list(range(6)), list(range(6, 12))]
    # Nor does a window in which both were taken for one: who is not found now is not given to either.
    merged = np.zeros((12, 1), np.int8)
    apart = with_past([np.arange(4), np.arange(6, 10)], merged, free)
    assert [(now.size, before.size) for now, before in apart] == [(4, 0), (4, 0)]
    ((_, first), (_, second)) = with_past([np.array([5, 6, 7, 8])], past, free)
    assert (first.tolist(), second.tolist()) == ([9, 10, 11], [0, 1, 2, 3, 4])


@pytest.mark.parametrize("seed", range(5))
def test_noise_speaks_against_nobody(seed: int) -> None:
    """A job that leaves nothing in the panes, and one that is found in part."""
    rng = np.random.default_rng(seed)
    series = noise_of(rng, 32)
    assert still_in_step(series, NOISE, NONE, np.arange(12)).size >= 11
    swing_w = 220 * np.sin(np.arange(PANES))
    series[:12] += swing_w
    assert still_in_step(series, NOISE, np.arange(5), np.arange(5, 12)).size >= 6


@pytest.mark.parametrize("seed", range(5))
def test_hosts_that_move_on_their_own_are_no_group(seed: int) -> None:
    """A job that ended: each of its hosts serves requests of its own."""
    rng = np.random.default_rng(seed)
    own_w = 250 * np.sin(np.arange(PANES)[np.newaxis] * rng.uniform(0.05, 1, (12, 1)) + rng.uniform(0, 6, (12, 1)))
    series = noise_of(rng, 32)
    series[:12] += own_w
    assert still_in_step(series, NOISE, NONE, np.arange(12)).size == 0
    # As far in step they stay: the same movement, together.
    series = noise_of(rng, 32)
    series[:12] += own_w[0]
    assert still_in_step(series, NOISE, NONE, np.arange(12)).size >= 11


def test_hosts_that_do_not_follow_what_is_found_are_left_out() -> None:
    rng = np.random.default_rng(1)
    series = noise_of(rng, 32)
    swing_w = 400 * np.sin(np.arange(PANES))
    series[:8] += swing_w
    series[9] -= swing_w
    series[10] += 10 * swing_w
    series[12] += swing_w + 600 * np.cos(0.3 * np.arange(PANES))
    series[11] += swing_w
    kept = still_in_step(series, NOISE, np.arange(6), np.arange(6, 13))
    # Not the one that stands still, nor against the others, nor ten times as far, nor who does other things beside.
    assert kept.tolist() == [6, 7, 11]


@pytest.mark.parametrize("against_w", [-100_000.0, -1_000.0, -300.0, 300.0, 100_000.0])
def test_one_host_does_not_break_a_group_up(against_w: float) -> None:
    """Whatever one host states, nine tenths of the others stay: moving, and standing still in the panes."""
    for amplitude_w in (0.0, 300.0):
        rng = np.random.default_rng(2)
        series = noise_of(rng, 32)
        swing_w = np.sin(np.arange(PANES))
        series[:12] += amplitude_w * swing_w
        series[11] = against_w * swing_w
        kept = still_in_step(series, NOISE, NONE, np.arange(12))
        assert np.intersect1d(kept, np.arange(11)).size >= 10


@pytest.mark.parametrize("share", [1 / ALIKE, ALIKE])
def test_one_host_that_is_found_does_not_shut_the_others_out(share: float) -> None:
    """It goes as far, or as little, as a host that is found in step may."""
    rng = np.random.default_rng(3)
    series = noise_of(rng, 32)
    swing_w = 300 * np.sin(np.arange(PANES))
    series[:12] += swing_w
    series[11] = share * swing_w
    assert still_in_step(series, NOISE, np.array([0, 1, 2, 11]), np.arange(3, 11)).size >= 7


def test_readings_of_another_kind_are_not_of_the_job() -> None:
    rng = np.random.default_rng(3)
    power = fleet(rng, square(10, 200, 500), others=4)
    rows = rows_of(power, rng)
    assert readings_alike(rows, np.arange(6), np.arange(6, 16)).tolist() == list(range(6, 12))
    assert readings_alike(rows, NONE, np.arange(16)).tolist() == list(range(12))
    # Who releases no histogram is not judged by one.
    silent = replace(rows, counted=np.arange(16) != 15)
    assert readings_alike(silent, NONE, np.arange(16)).tolist() == [*range(12), 15]
    assert readings_alike(replace(rows, histograms=None), NONE, np.arange(16)).size == 16


def past_of(hosts: int, members: int) -> np.ndarray:
    return np.where(np.arange(hosts) < members, 0, -1).astype(np.int8)[:, np.newaxis]


def test_a_job_that_panes_do_not_show_swings_as_it_did() -> None:
    rng = np.random.default_rng(4)
    power = fleet(rng, square(10, 200, 500), others=12)
    rows = rows_of(power, rng)
    truth = p99_over_mean_w(power.sum(axis=(0, 1)))
    unknown = swing_of([rows], TICKS_PER_PANE)
    known = swing_of([replace(rows, past=past_of(24, 12))], TICKS_PER_PANE)
    named = swing_of([replace(rows, labels=("job",) * 12 + (None,) * 12)], TICKS_PER_PANE)
    assert unknown.groups == ()
    assert known.groups == (12 * GPUS,)
    assert abs(estimated_w(known) - truth) < abs(estimated_w(unknown) - truth) / 1.5
    assert np.array_equal(known.paths_w, named.paths_w)
    assert known.in_doubt_w < unknown.in_doubt_w


def test_where_noise_drowns_the_histograms_no_group_is_remembered() -> None:
    rng = np.random.default_rng(7)
    rows = replace(rows_of(fleet(rng, square(10, 200, 500), others=12), rng), past=past_of(24, 12))
    assert clear(rows, NONE, np.arange(12))
    loud = replace(rows, histogram_noise=np.full(24, 40.0))
    assert not clear(loud, NONE, np.arange(12))
    assert not clear(replace(rows, counted=np.zeros(24, np.bool_)), np.arange(4), np.arange(4, 12))
    assert swing_of([loud], TICKS_PER_PANE).groups == ()


def test_a_job_that_ended_leaves_nothing() -> None:
    """Its hosts do other things now, each its own: the figures are those without a past, bit by bit."""
    rng = np.random.default_rng(5)
    ends = rng.integers(20, 200, (24, 1, 1))
    power = np.where((np.arange(TICKS) + 7 * ends) // ends % 2, 150.0, 450.0) + rng.normal(0, 5, (24, GPUS, TICKS))
    rows = rows_of(power, rng)
    after, never = (swing_of([replace(rows, past=past)], TICKS_PER_PANE) for past in (past_of(24, 12), None))
    assert np.array_equal(after.paths_w, never.paths_w)
    assert (after.groups, after.in_doubt_w) == (never.groups, never.in_doubt_w)


def test_a_job_with_hosts_of_two_classes_is_remembered_in_both() -> None:
    rng = np.random.default_rng(6)
    power = fleet(rng, square(10, 200, 500), others=4)
    whole = rows_of(power, rng)
    classes = []
    for places in (np.arange(0, 16, 2), np.arange(1, 16, 2)):
        part = rows_of(power[places], None)
        classes.append(
            replace(
                part,
                panes_w=whole.panes_w[places],
                noise_w=whole.noise_w[places],
                histograms=None if whole.histograms is None else whole.histograms[places],
                histogram_noise=whole.histogram_noise[places],
                total_w=whole.panes_w[places].sum(axis=0),
                total_noise_w2=float((whole.noise_w[places] ** 2).sum()),
                past=past_of(16, 12)[places],
            )
        )
    assert swing_of(classes, TICKS_PER_PANE).groups == (6 * GPUS, 6 * GPUS)
    # One of them may have been in no group at all.
    assert swing_of([classes[0], replace(classes[1], past=None)], TICKS_PER_PANE).groups == (6 * GPUS,)


def with_claim(rows: ClassRows, host: int, power_w: np.ndarray) -> ClassRows:
    """The rows with a host that claims to draw `power_w` [ticks] per GPU."""
    assert rows.histograms is not None
    panes, histograms = rows.panes_w.copy(), rows.histograms.copy()
    panes[host] = pane_means(GPUS * power_w, TICKS_PER_PANE)
    histograms[host] = GPUS * np.histogram(power_w, EDGES_W)[0]
    return replace(rows, panes_w=panes, histograms=histograms, total_w=rows.total_w - rows.panes_w[host] + panes[host])


@pytest.mark.parametrize("period", [10, 24])
def test_a_liar_in_a_job_gains_nothing_by_the_memory(period: int) -> None:
    """Whatever it claims, the others stay a group, and the claim moves the p99 no further than without a past."""
    rng = np.random.default_rng(period)
    rows = rows_of(fleet(rng, square(period, 250, 450), others=12), rng)
    claims = [
        np.zeros(TICKS),
        np.full(TICKS, float(CLIP_W)),
        square(period, 0, CLIP_W),
        square(period, CLIP_W, 0),
        square(2 * TICKS_PER_PANE, 0, CLIP_W),
        square(TICKS, 0, CLIP_W),
        square(TICKS, CLIP_W, 0),
        np.where(np.arange(TICKS) % 50 == 0, float(CLIP_W), 300.0),
    ]
    reach = {}
    for name, members in (("never", 0), ("known", 12)):
        past = past_of(24, members)
        found = [swing_of([replace(with_claim(rows, 11, one), past=past)], TICKS_PER_PANE) for one in claims]
        values = [one.quantiles_w([0.99])[0] for one in found]
        reach[name] = max(values) - min(values)
        if members:
            assert {one.groups for one in found} <= {(11 * GPUS,), (12 * GPUS,)}
    assert reach["known"] <= reach["never"]
