"""Groups are remembered from raw claims of the last few first revisions, by every reader alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_jobs.core import history, in_step
from stream_jobs.core.in_step import GROUP_WINDOWS, raw_groups
from stream_jobs.core.windows import Window
from tests.core.claims import MODEL, PANES, WINDOW_MS, Domain, view_of

KEY = (MODEL.model, "instant")
HOSTS = 12
JOB_W = 2_000 + 900 * np.sin(np.arange(PANES))
NAMES = [f"h{number:03d}" for number in range(HOSTS)]


def powers(in_step: int, first: int = 0) -> dict[int, np.ndarray]:
    """Power of every host: so many of them, from `first` on, swing in step."""
    return {
        host: JOB_W if first <= host < first + in_step else np.full(PANES, 1_500.0 + 10 * host) for host in range(HOSTS)
    }


def known(window: Window) -> list[list[int]]:
    """What the window's history says of every host, the newest window first."""
    assert window.history is not None
    labels = window.history.groups.of(KEY, NAMES)
    return [[] for _ in NAMES] if labels is None else labels.tolist()


def closed(domain: Domain, in_step: int) -> Window:
    window = domain.window(powers(in_step))
    domain.close(window)
    return window


def test_who_swings_in_step_is_remembered_and_forgotten() -> None:
    domain = Domain(view_of(HOSTS), noisy=False)
    assert known(closed(domain, 6)) == [[]] * HOSTS
    after = closed(domain, 0)
    assert known(after) == [[0]] * 6 + [[-1]] * 6
    for gone in range(1, GROUP_WINDOWS):
        after = closed(domain, 0)
        assert known(after) == [[-1] * gone + [0]] * 6 + [[-1] * (gone + 1)] * 6
    assert known(closed(domain, 0)) == [[]] * HOSTS


def test_windows_without_an_output_do_not_make_a_group_last() -> None:
    domain = Domain(view_of(HOSTS), noisy=False)
    closed(domain, 6)
    domain.number += GROUP_WINDOWS - 1
    assert known(closed(domain, 6)) == [[0]] * 6 + [[-1]] * 6
    domain.number += GROUP_WINDOWS
    assert known(closed(domain, 6)) == [[]] * HOSTS


@pytest.mark.parametrize(("span", "remembered"), [(0, 0), (2, 2), (5, 5), (30, 5)])
def test_no_more_windows_than_the_policy_s_history(span: int, remembered: int) -> None:
    """A restart reads no further back than for the references."""
    domain = Domain(view_of(HOSTS, history_windows=span), noisy=False)
    for _ in range(8):
        window = closed(domain, 6)
    assert known(window) == [[0] * remembered] * 6 + [[-1] * remembered if remembered else []] * 6


def test_what_lies_before_leaves_no_trace() -> None:
    found = []
    for before in (0, 8):
        domain = Domain(view_of(HOSTS, history_windows=6))
        for number in range(9):
            domain.rng = np.random.default_rng(number)
            closed(domain, before if number < 9 - GROUP_WINDOWS - 1 else 6)
        found.append(known(closed(domain, 6)))
    assert found[0] == found[1]
    assert max(map(max, found[0])) == 0


def test_late_reports_change_no_group() -> None:
    domain = Domain(view_of(HOSTS), noisy=False)
    window = domain.window({host: one for host, one in powers(6).items() if host != 5})
    domain.close(window)
    before = window.history
    window.revision = 0
    domain.add(window, 5, np.rint(JOB_W * 100).astype(np.int64), 99)
    assert window.history is before
    assert [one[0] for one in known(closed(domain, 6))] == [0] * 5 + [-1] * 7


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(HOSTS)))
def test_the_order_of_arrival_does_not_matter(order: list[int]) -> None:
    groups = []
    for arrival in (range(HOSTS), order):
        window = Domain(view_of(HOSTS), seed=7).window(powers(6, first=3), order=arrival)
        groups.append(raw_groups(window)[KEY].tolist())
    assert groups[0] == groups[1] == [-1] * 3 + [0] * 6 + [-1] * 3


def test_hosts_that_are_renumbered_keep_their_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "COMPACT_ABOVE", 2)
    domain = Domain(view_of(40, history_windows=6), noisy=False)
    for number in range(25):
        job = {number + place: JOB_W for place in range(5)}
        window = domain.window(job)
        domain.close(window)
        domain.histories.forget(window.start_ms - 6 * WINDOW_MS)
        assert window.history is not None
        labels = window.history.groups.of(KEY, [f"h{number + place:03d}" for place in range(5)])
        seen = min(number, GROUP_WINDOWS)
        # Host `number + place` was there in the windows before from the one on that began with it or before it.
        expected = [[0 if ago < 5 - place else -1 for ago in range(1, seen + 1)] for place in range(5)]
        assert (labels.tolist() if labels is not None else [[]] * 5) == expected
    assert len(domain.histories._index) <= 2 * 12


def test_hosts_that_name_their_job_and_hosts_without_readings_are_in_no_group() -> None:
    domain = Domain(view_of(HOSTS), noisy=False)
    window = domain.window(powers(8))
    total = window.sums[KEY]
    total.labels[0] = "job"
    assert raw_groups(window)[KEY].tolist() == [-1] + [0] * 7 + [-1] * 4
    nobody = domain.window(powers(8), readings_taken=0)
    assert raw_groups(nobody)[KEY].tolist() == [-1] * HOSTS
    assert raw_groups(replace(window, sums={})) == {}


def test_groups_go_through_all_classes() -> None:
    """Hosts of a job that report in two sampler modes have one number."""
    domain = Domain(view_of(HOSTS), noisy=False)
    window = domain.window({host: one for host, one in powers(8).items() if host % 2 == 0})
    other = (MODEL.model, "average")
    for host, power in powers(8).items():
        if host % 2:
            domain.add(window, host, np.rint(power * 100).astype(np.int64), host, sampler_mode="average")
    groups = raw_groups(window)
    assert groups[KEY].tolist() == groups[other].tolist() == [0, 0, 0, 0, -1, -1]
    past = in_step.past_groups(
        {name: row for row, name in enumerate(NAMES)},
        [{key: (window.sums[key].rows.astype(np.int32), groups[key]) for key in groups}],
    )
    assert past.of(other, ["h001", "h009", "stranger"]) is not None
    assert [one.tolist() for one in (past.of(other, ["h001", "h009", "stranger"]),) if one is not None] == [
        [[0], [-1], [-1]]
    ]
    assert past.of(("another", "instant"), NAMES) is None
