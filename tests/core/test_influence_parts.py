"""Parts of the influence bounds: swings that are set aside, and the others' highest pane."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from power_model.quantiles import normal_quantile
from stream_jobs.core.influence import _bounds, _influence, _Model
from stream_jobs.core.reject import Judgement


def balance(range_w: float, leaning_w: float) -> Any:
    return SimpleNamespace(range_w=lambda limit_w, own_w, reach_w: range_w, leaning_w=leaning_w)


def test_a_swing_that_is_set_aside_counts_at_its_peak() -> None:
    """It would come back with all that it does at 99.9 % of the ticks; the mean does not know of it."""
    judged = SimpleNamespace(up=balance(10.0, 2.0), down=balance(5.0, 1.0), swing=balance(100.0, 20.0))
    one = np.array([50.0, 40.0])
    found = _influence("host", one, 2 * one, cast(Judgement, judged), 1_000, 500, 0)
    assert found.mean_w == 50 + 18
    assert found.margin_w is not None
    assert 100 + 18 + 120 * (normal_quantile(0.999) - 0.1) <= found.margin_w <= 100 + 18 + 120 * normal_quantile(0.999)


def test_the_margin_s_bound_is_taken_at_the_others_peak_too() -> None:
    """Of three that draw 10 W one takes a third with it, or says 0: all the more where the others' panes are high."""
    three, none = np.ones(3), np.zeros(3)
    model = _Model(
        power_w=10 * three,
        taken=three,
        counted=three,
        counted_w=three,
        level_w=none,
        level_capacity_w=none,
        gpus=three,
        capacity_w=three,
        low_w=0.0,
        high_w=2.0,
        slack_w=none,
        spike_w=none,
        peak=2.0,
    )
    mean_w, margin_w = _bounds([model], None)
    assert mean_w.tolist() == [10.0] * 3
    assert margin_w.tolist() == [20.0] * 3
