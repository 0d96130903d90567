"""Parts of the swing one by one: who is in a group, the order of ticks, the middle of what is open, bounds of steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from power_model.groups import synchronised_groups
from power_model.interpolation import pane_means
from power_model.pooled import pooled_quantiles
from power_model.swing import LEAST_IN_STEP, _course, _shares, _spread, swing_of
from tests.power_model.test_swing import GPUS, PANES, TICKS, TICKS_PER_PANE, fleet, rows_of, square


def directions() -> tuple[np.ndarray, np.ndarray]:
    """Two courses of panes that have nothing in common, of length 1."""
    turn = 2 * np.pi * np.arange(PANES) / PANES
    return np.sin(3 * turn) / np.sqrt(PANES / 2), np.cos(7 * turn) / np.sqrt(PANES / 2)


@pytest.mark.parametrize(("across", "member"), [(2.5, True), (4.0, False)])
def test_a_weak_host_is_in_step_if_what_is_left_is_no_more_than_noise(across: float, member: bool) -> None:
    """Its angle alone would leave it out: at 4.2 standard deviations noise turns it by more than `COSINE` allows."""
    first, second = directions()
    panes = np.concatenate([np.tile(10 * first, (10, 1)), np.tile(10 * second, (10, 1))])
    panes = np.concatenate([panes, (4.2 * first + across * second)[np.newaxis]])
    found = synchronised_groups(panes, np.ones(21))
    expected = [[*range(10), 20] if member else list(range(10)), list(range(10, 20))]
    assert sorted(one.tolist() for one in found) == expected


def test_labels_name_the_rows_that_have_them() -> None:
    panes = np.random.default_rng(1).normal(0, 1, (9, PANES))
    labels = [None, "b", "a", None, "b", "a", "alone", None, "a"]
    assert [one.tolist() for one in synchronised_groups(panes, np.ones(9), labels)] == [[2, 5, 8], [1, 4]]


def test_ticks_follow_the_panes_in_rank() -> None:
    """The k-th highest tick of the slow part has the k-th highest quantile: highs are where the panes are high."""
    rows = rows_of(fleet(np.random.default_rng(2), square(200, 200, 500), others=0), None)
    (course,) = swing_of([rows], TICKS_PER_PANE).paths_w[:1]
    panes = pane_means(course, TICKS_PER_PANE)
    truth = rows.total_w
    assert np.corrcoef(panes, truth)[0, 1] > 0.99
    assert np.abs(panes - truth).max() < 0.5 * float(np.ptp(truth))


def test_hosts_of_a_group_do_not_update_at_one_moment() -> None:
    alternating = np.tile([1.0, -1.0], 30)[np.newaxis]
    spread = _spread(alternating)
    assert spread[0, 1:-1] == pytest.approx(0.5 * alternating[0, 1:-1])
    assert spread[0, 0] == pytest.approx(0.75)
    # Two hosts that read the same are spread, one host is not.
    rows = rows_of(np.broadcast_to(square(60, 200, 500), (2, GPUS, TICKS)), None)
    alone, _ = _course(rows, np.arange(1), rows.panes_w[0], 0.0, TICKS_PER_PANE, 0)
    both, _ = _course(rows, np.arange(2), rows.panes_w.sum(axis=0), 0.0, TICKS_PER_PANE, 0)
    level = float(rows.panes_w[0].mean())
    assert both == pytest.approx(2 * level + 2 * _spread(alone - level), rel=1e-6)


def test_what_panes_leave_open_is_halved_and_the_rest_is_in_doubt() -> None:
    """Panes that stand still bear out anything from `LEAST_IN_STEP` on to all of the readings' spread."""
    rows = rows_of(square(10, 200, 500)[np.newaxis, np.newaxis] * np.ones((1, GPUS, 1)), None)
    course, doubt = _course(rows, np.arange(1), rows.panes_w[0], 0.0, TICKS_PER_PANE, 0)
    quantiles = pooled_quantiles(rows, np.arange(1), TICKS)
    assert quantiles is not None
    spread = float(quantiles.std())
    assert course[0].std() == pytest.approx((1 + LEAST_IN_STEP) / 2 * spread, rel=0.01)
    assert doubt == pytest.approx((1 - LEAST_IN_STEP) / 2 * spread, rel=0.02)


def test_steps_of_the_chain_are_no_larger_than_the_readings_spread() -> None:
    """Readings that chatter around an edge of the grid seem to jump by a whole state."""
    rng = np.random.default_rng(3)
    rows = rows_of(rng.normal(300, 4, (6, GPUS, TICKS)), None)
    swing = swing_of([replace(rows, step_w2=60.0**2)], TICKS_PER_PANE)
    assert swing.independent_w < 15 * np.sqrt(6 * GPUS)
    assert swing.independent_w > 2 * np.sqrt(6 * GPUS)


def test_a_swing_may_hide_in_the_noise_of_its_panes() -> None:
    """Its panes moved by 1 W^2 as far as one can see, by up to 4 W^2 as far as noise can hide: twice as far, then."""
    course = np.sin(0.7 * np.arange(PANES))[np.newaxis] * 50.0
    seen = 2.0 * course[0]
    for most_w2, far in ((1.0, 1.0), (4.0, 2.0)):
        least, most = _shares(course, seen, 100.0, 100.0 * most_w2)
        assert most == pytest.approx(far * _shares(course, seen, 100.0, 100.0)[1])
        assert least == _shares(course, seen, 100.0, 100.0)[0]
    rows = rows_of(square(10, 200, 500)[np.newaxis, np.newaxis] * np.ones((1, GPUS, 1)), None)
    panes = rows.panes_w[0] + 400 * np.sin(2.9 * np.arange(PANES))
    doubts = [_course(rows, np.arange(1), panes, noise_w2, TICKS_PER_PANE, 0)[1] for noise_w2 in (0.0, 60_000.0)]
    assert doubts[1] > 1.2 * doubts[0]
