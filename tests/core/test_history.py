"""Histories: references are a function of the raw claims of the last H windows' first revisions and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_jobs.core import history
from stream_jobs.core.history import References
from stream_jobs.core.windows import Window
from tests.core.claims import CAPACITY_W, GPUS, MODEL, PANES, WINDOW_MS, Domain, view_of

KEY = (MODEL.model, "instant")


def references(window: Window) -> References:
    assert window.history is not None
    return window.history.references[KEY]


def level_of(window: Window, host: int) -> float:
    known = references(window)
    row = int(known.rows_of([f"h{host:03d}"])[0])
    return float(known.level_w[row]) * GPUS if row >= 0 else float("nan")


@settings(max_examples=25, deadline=None)
@given(
    claims=st.lists(st.lists(st.integers(0, 4_000), min_size=3, max_size=3), min_size=14, max_size=14),
    span=st.integers(1, 12),
)
def test_references_are_those_of_the_older_half(claims: list[list[int]], span: int) -> None:
    domain = Domain(view_of(3, history_windows=span), noisy=False)
    for powers in claims:
        window = domain.window(dict(enumerate(powers)))
        domain.close(window)
    known = references(window)
    older = np.array(claims[-1 - span : -1][: span - span // 2], float) / GPUS
    assert window.history is not None
    assert window.history.windows == span
    for host in range(3):
        row = known.rows_of([f"h{host:03d}"])[0]
        assert known.level_w[row] == pytest.approx(np.median(older[:, host]), abs=0.02)
        assert known.low_w[row] == pytest.approx(older[:, host].min(), abs=0.02)
        assert known.high_w[row] == pytest.approx(older[:, host].max(), abs=0.02)


def test_what_lies_before_the_span_does_not_matter() -> None:
    """Two pasts that differ only before the last H windows lead to the same references, bit by bit."""
    found = []
    for before in (100, 3_000):
        domain = Domain(view_of(4, history_windows=6), noisy=False)
        domain.past(dict.fromkeys(range(4), before), 9)
        domain.rng = np.random.default_rng(5)
        domain.noisy = True
        domain.past({0: 800, 1: 900, 2: 1000, 3: 1100}, 6)
        window = domain.window({0: 800, 1: 900, 2: 1000, 3: 1100})
        domain.close(window)
        known = references(window)
        found.append(
            [getattr(known, name).tobytes() for name in ("level_w", "low_w", "high_w", "swing_w", "swing_high_w2")]
        )
    assert found[0] == found[1]


def test_a_level_is_one_s_own_after_half_of_the_history() -> None:
    domain = Domain(view_of(4, history_windows=10), noisy=False)
    domain.past(dict.fromkeys(range(4), 1_000), 12)
    levels, highest = [], []
    for _ in range(10):
        window = domain.window({0: 3_000} | dict.fromkeys(range(1, 4), 1_000))
        domain.close(window)
        levels.append(round(level_of(window, 0)))
        known = references(window)
        highest.append(round(float(known.high_w[known.rows_of(["h000"])[0]]) * GPUS))
    # What was claimed in the last five windows counts for nothing; then it is in the range, then the median.
    assert highest == [1_000] * 6 + [3_000] * 4
    assert levels == [1_000] * 8 + [3_000] * 2


def test_late_reports_change_no_history() -> None:
    """A revision is judged by the first close's history, and later windows remember the first revision."""
    domain = Domain(view_of(4, history_windows=4), noisy=False)
    domain.past(dict.fromkeys(range(4), 1_000), 4)
    window = domain.window(dict.fromkeys(range(3), 1_000))
    domain.close(window)
    before = window.history
    window.revision = 0
    domain.add(window, 3, np.full(PANES, 400_000, np.int64), 9)
    assert window.history is before
    for _ in range(3):
        after = domain.window(dict.fromkeys(range(4), 1_000))
        domain.close(after)
    # Of the two windows that count, the third host has but one: what it sent late is not among its claims.
    assert level_of(after, 2) == pytest.approx(1_000)
    assert np.isnan(level_of(after, 3))


def test_memory_is_bounded_and_hosts_that_left_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "COMPACT_ABOVE", 2)
    domain = Domain(view_of(30, history_windows=4), noisy=False)
    for number in range(25):
        window = domain.window({number: 1_000, number + 1: 2_000, number + 2: 3_000})
        domain.close(window)
        domain.histories.forget(window.start_ms - 4 * WINDOW_MS)
        assert len(domain.histories._memories) <= 5
        assert len(domain.histories._index) <= 2 * 8
    known = references(window)
    rows = known.rows_of([f"h{host:03d}" for host in (21, 22, 23)])
    assert (rows >= 0).all()
    assert known.rows_of(["h000"]).tolist() == [-1]


def test_swing_is_measured_without_the_known_noise() -> None:
    domain = Domain(view_of(300), seed=3)
    wave = np.where(np.arange(PANES) % 2, 2_400.0, 1_600.0)
    window = domain.window(dict.fromkeys(range(300), wave))
    claims = history.claims_of(window.sums[KEY], 600)
    truth = wave.var(ddof=1) / GPUS**2
    error = claims.swing_w2.std() / np.sqrt(300)
    assert abs(claims.swing_w2.mean() - truth) < 4 * error
    assert abs(claims.mean_w.mean() * GPUS - 2_000) < 4 * claims.mean_w.std() * GPUS / np.sqrt(300)


def test_large_deviations_are_squared_within_64_bits() -> None:
    matrix = np.array([[-(2**31), 2**31 - 1] * 30, [5, 7] * 30], np.int64)
    expected = matrix.astype(float).var(axis=1, ddof=1)
    sums, highest, lowest, variance = history._moments(matrix.astype(np.int32))
    assert variance == pytest.approx(expected, rel=1e-6)
    assert (sums == matrix.sum(axis=1)).all()
    assert (highest.tolist(), lowest.tolist()) == ([2**31 - 1, 7], [-(2**31), 5])


@given(st.integers(0, 2 * history.BLOCK_ROWS + 1), st.integers(1, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_hosts_are_gone_through_in_blocks(hosts: int, panes: int, seed: int) -> None:
    """The moments of every host are those of its own panes."""
    matrix = np.random.default_rng(seed).integers(-(2**31), 2**31, (hosts, panes)).astype(np.int32)
    together = history._moments(matrix)
    for row in {0, history.BLOCK_ROWS - 1, history.BLOCK_ROWS, hosts - 1} & set(range(hosts)):
        alone = history._moments(matrix[row : row + 1])
        assert [one[row] for one in together] == [one[0] for one in alone]
    assert [one.shape for one in together] == [(hosts,)] * 4


def test_no_history_when_the_policy_wants_none() -> None:
    domain = Domain(view_of(3, history_windows=0), noisy=False)
    domain.past(dict.fromkeys(range(3), CAPACITY_W // 2), 3)
    window = domain.window(dict.fromkeys(range(3), CAPACITY_W // 2))
    domain.close(window)
    assert window.history is not None
    assert (window.history.references, window.history.windows) == ({}, 0)
