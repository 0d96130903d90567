"""Figures over time stay few, and none of their peaks is lost."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from enclavescale.report.columns import MAX_COLUMNS, Series, columns_of, coverage_ppm, thinned
from tests.report.samples import T0, W, figures_at


@given(
    numbers=st.lists(st.integers(0, 4 * MAX_COLUMNS), min_size=1, max_size=40, unique=True),
    seed=st.integers(0, 1 << 30),
)
@settings(max_examples=40, deadline=None)
def test_columns_hold_every_extreme(numbers: list[int], seed: int) -> None:
    rng = random.Random(seed)
    series, taken = Series(W), []
    # Many windows at once, and some far away: both ways in which a series becomes too long.
    for number in sorted({*numbers, *range(min(numbers), min(numbers) + rng.choice((0, MAX_COLUMNS + 50)))}):
        figures = figures_at(number, rng, mean_w=None) if rng.random() < 0.1 else figures_at(number, rng)
        series.add(T0 + number * W, "identical", figures)
        taken.append((T0 + number * W, figures))
    said = columns_of(series)
    assert len(said["start_ms"]) <= MAX_COLUMNS
    assert sum(said["windows"]) == len(taken) == sum(one["identical"] for one in said["verdicts"])
    assert said["start_ms"] == sorted(said["start_ms"])
    assert all(end <= start for end, start in zip(said["end_ms"], said["start_ms"][1:], strict=False))
    for number, (start_ms, end_ms) in enumerate(zip(said["start_ms"], said["end_ms"], strict=True)):
        inside = [figures for at_ms, figures in taken if start_ms <= at_ms < end_ms]
        assert len(inside) == said["windows"][number]
        means = [one.mean_w for one in inside if one.mean_w is not None]
        assert said["mean_w"][number] == (
            [min(one[0] for one in means), max(one[0] for one in means), min(one[1] for one in means),
             max(one[2] for one in means)] if means else None
        )  # fmt: skip
        shares = [coverage_ppm(one) for one in inside]
        assert said["coverage_ppm"][number] == [min(shares), max(shares)]
        assert sum(said["refused"][number].values()) == sum(count for one in inside for _, count in one.refused)


def test_a_revision_takes_the_place_of_what_it_revises() -> None:
    rng = random.Random(1)
    series = Series(W)
    first = figures_at(0, rng, mean_w=(1, 0, 2), refused=(("LATE", 1),))
    series.add(T0, "identical", first)
    series.add(T0, "identical", figures_at(0, rng, mean_w=(5, 4, 6), refused=(("LATE", 2),)))
    said = columns_of(series)
    assert said["mean_w"] == [[5, 5, 4, 6]]
    assert said["windows"] == [1]
    assert said["refused"] == [{"LATE": 3}], "each output counts what was refused since the one before"
    assert said["verdicts"] == [{"identical": 2}]


def test_what_nobody_believes_has_a_verdict_and_no_figures() -> None:
    series = Series(W)
    series.add(T0, "extra", None)
    said = columns_of(series)
    assert (said["mean_w"], said["windows"], said["verdicts"]) == ([None], [0], [{"extra": 1}])


@given(windows=st.integers(1, 300), most=st.integers(1, 120), seed=st.integers(0, 1 << 30))
@settings(max_examples=30, deadline=None)
def test_what_is_thinned_for_a_plot_is_what_fewer_columns_would_have_been(windows: int, most: int, seed: int) -> None:
    rng = random.Random(seed)
    whole, few = Series(W), Series(W)
    for number in sorted(rng.sample(range(2 * windows), windows)):
        figures = figures_at(number, rng, mean_w=None) if rng.random() < 0.1 else figures_at(number, rng)
        for series in (whole, few):
            series.add(T0 + number * W, "identical", figures)
    before = columns_of(whole)
    few.shrink(most)
    assert thinned(before, most) == columns_of(few)
    assert before == columns_of(whole)
