"""A question asked twice is answered once: what is remembered of groups is what would be found."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from power_model import groups


def series(seed: int, hosts: int = 24, panes: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    job = np.where(np.arange(panes) % 4 < 2, 400.0, -400.0)
    power = 2_000 + rng.normal(0, 5, (hosts, panes)) + np.where(np.arange(hosts)[:, np.newaxis] < hosts // 2, job, 0.0)
    return power, np.full(hosts, 5.0)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=20), st.booleans())
@settings(max_examples=40, deadline=None)
def test_any_history_finds_the_same_groups(seeds: list[int], transposed: bool) -> None:
    groups._RECENT.clear()
    for seed in seeds:
        panes, noise = series(seed)
        asked = np.asfortranarray(panes) if transposed else panes
        found = groups.synchronised_groups(asked, noise)
        assert [one.tolist() for one in found] == [one.tolist() for one in groups._found(panes, noise)]
        assert len(groups._RECENT) <= groups.MAX_RECENT
    assert found


def test_the_same_series_are_looked_through_once_and_others_again() -> None:
    groups._RECENT.clear()
    panes, noise = series(1)
    with patch("power_model.groups._found", wraps=groups._found) as found:
        first = groups.synchronised_groups(panes, noise)
        again = groups.synchronised_groups(panes.copy(), noise.copy())
        assert found.call_count == 1
        groups.synchronised_groups(panes, noise * 1.5)
        groups.synchronised_groups(panes + np.eye(*panes.shape), noise)
        groups.synchronised_groups(panes.reshape(12, 24), noise[:12])
        assert found.call_count == 4
    again[0][0] = 99  # what is given out is the caller's own
    assert first[0][0] != 99
    assert groups.synchronised_groups(panes, noise)[0].tolist() == first[0].tolist()
