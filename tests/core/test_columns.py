"""What a window keeps of its reports does not hang on when, in what order or in how many parts they were taken in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.contract import HISTOGRAM_CELLS
from schemas.records import ClassEnrolment, GpuClass
from stream_jobs.core.columns import ClassSum
from stream_jobs.core.entries import Entries, Scales
from stream_jobs.core.roster import roster_of
from tests.core import fleet
from tests.core.claims import MODEL, enrolled, view_of

HOSTS, PANES = 12, 4
ROSTER = roster_of(view_of(HOSTS), "d")
NAMES = list(ROSTER.row)
ORIGINS = (("nvml", "root", False, "NONE"), ("trace", "other", True, "TDISP"))


def stated(number: int, **changes: Any) -> GpuClass:
    panes = np.arange(PANES, dtype="<i4") * 70_000 + number
    cells = np.full(HISTOGRAM_CELLS, number - 3, "<i4")
    fields: dict[str, Any] = {
        "model": MODEL.model,
        "gpus": 1 + number % 3,
        "capacity_w": 1000 + number,
        "enforced_limit_w": None if number % 2 else 900 + 20 * number,
        "readings_taken": 100 + number,
        "edges_w": MODEL.edges_w,
        "transitions": np.full(36, 2**31 - 1 - number, "<i4").tobytes(),
        "transitions_shape": (6, 6),
        "pane_sums": panes.tobytes(),
        "pane_sums_shape": (PANES,),
        "histogram": cells.tobytes(),
        "histogram_shape": cells.shape,
    }
    return fleet.gpu_class(**fields | changes)


def scales_of(number: int) -> Scales:
    return number % 2, 2, 3 + number % 4, 5


def summed(order: list[int], parts: set[int], **changes: Any) -> ClassSum:
    """Reports of hosts in this order, settled before each of `parts`."""
    total = ClassSum(MODEL.edges_w, ROSTER)
    for place, number in enumerate(order):
        if place in parts and place:
            assert total.hosts == place
        total.add(NAMES[number], stated(number, **changes), f"g{number}", scales_of(number))
    return total


@given(st.permutations(range(HOSTS)), st.integers(1, HOSTS), st.sets(st.integers(0, HOSTS - 1), max_size=4))
def test_columns_are_the_same_however_reports_came(order: list[int], count: int, parts: set[int]) -> None:
    total = summed(order[:count], parts)
    known = sorted(order[:count])
    assert total.rows.tolist() == known
    assert total.host_ids == [NAMES[number] for number in known]
    assert total.labels == [f"g{number}" for number in known]
    want = [stated(number) for number in known]
    assert total.gpus_of.tolist() == [one.gpus for one in want]
    assert total.capacity_of_w.tolist() == [one.capacity_w for one in want]
    limits = [one.capacity_w if one.enforced_limit_w is None else one.enforced_limit_w for one in want]
    assert total.effective_of_w.tolist() == [min(w, one.capacity_w) for w, one in zip(limits, want, strict=True)]
    assert total.readings_of.tolist() == [one.readings_taken for one in want]
    assert total.pane_matrix().tolist() == [np.frombuffer(one.pane_sums, "<i4").tolist() for one in want]
    assert total.pane_sums.tolist() == total.pane_matrix().sum(axis=0).tolist()
    cells = total.histograms
    assert cells is not None
    assert cells.dtype == np.int16
    assert cells.tolist() == [np.frombuffer(one.histogram or b"", "<i4").tolist() for one in want]
    assert total.transitions.tolist() == [[sum(2**31 - 1 - number for number in known)] * 6] * 6
    scales = [total.scales[code] for code in total.scale_codes.tolist()]
    assert scales == [scales_of(number) for number in known]
    assert total.pane_scales_micro == [one[2] for one in scales]
    assert total.pane_epsilons_micro == [one[3] for one in scales]
    assert (total.hosts, total.gpus) == (count, sum(one.gpus for one in want))
    assert total.capacity_w == sum(one.capacity_w for one in want)
    assert total.readings_taken == sum(one.readings_taken for one in want)


def test_histograms_are_as_wide_as_they_must_be() -> None:
    wide = np.full(HISTOGRAM_CELLS, 2**15, "<i4").tobytes()
    cells = summed([3, 1], {1}, histogram=wide).histograms
    assert cells is not None
    assert cells.dtype == np.int32
    assert int(cells.max()) == 2**15
    mixed = summed([3, 1], set())
    mixed.add(NAMES[2], stated(2, histogram=wide), None, scales_of(2))
    assert mixed.histograms is not None
    assert mixed.histograms[1].tolist() == [2**15] * HISTOGRAM_CELLS
    none = summed([3, 1], {1}, histogram=None)
    assert none.histograms is None


def test_a_window_at_rest_gives_the_same_again() -> None:
    total = summed([5, 2, 7], set())
    before = total.pane_matrix().tolist(), total.gpus_of.tolist(), total.pane_scales_micro
    total.rest()
    assert (total.pane_matrix().tolist(), total.gpus_of.tolist(), total.pane_scales_micro) == before


SUBJECTS = (("host", "h"),)


@given(st.permutations(range(HOSTS)), st.sets(st.integers(0, HOSTS - 1), max_size=4))
def test_entries_keep_the_order_of_the_log(order: list[int], parts: set[int]) -> None:
    entries = Entries()
    for place, number in enumerate(order):
        if place in parts:
            assert len(entries.host_ids()) == place
        assert NAMES[number] not in entries
        assert entries.find(NAMES[number]) is None
        flags = ("CHAIN_GAP",) if number % 3 == 0 else ()
        digest, origin = bytes([number]) * 32, ORIGINS[number % 2]
        entries.add(NAMES[number], digest, 50 + place, origin, flags, number > 8, SUBJECTS, fleet.PRIVACY)
        assert entries.find(NAMES[number]) == (bytes([number]) * 32, 50 + place)
    for place, number in enumerate(order):
        assert NAMES[number] in entries
        assert entries.find(NAMES[number]) == (bytes([number]) * 32, 50 + place)
    assert list(entries) == entries.host_ids() == [NAMES[number] for number in order]
    assert entries.digests() == [bytes([number]) * 32 for number in order]
    assert entries.first_offset() == 50
    assert [entries.origins[code] for code in entries.origin_codes().tolist()] == [ORIGINS[n % 2] for n in order]
    assert (len(entries), entries.late, entries.flagged) == (HOSTS, 3, {"CHAIN_GAP": 4})


def test_the_largest_statements_of_privacy_are_kept() -> None:
    entries = Entries()
    for total, windows, event in ((3, 5, 1), (4, 2, 9), (1, 1, 1)):
        one = replace(fleet.PRIVACY, epsilon_total_micro=total, w_event_windows=windows, w_event_epsilon_micro=event)
        scales = entries.scales_of(one)
    by_name = {one.release: one for one in fleet.PRIVACY.releases}
    assert scales[1:3] == (by_name["transitions"].scale_micro, by_name["pane_sums"].scale_micro)
    assert scales[3] == by_name["pane_sums"].epsilon_micro
    assert (entries.epsilon_micro, entries.w_event_windows, entries.w_event_epsilon_micro) == (4, 5, 9)


def test_a_roster_says_what_is_enrolled() -> None:
    other = replace(MODEL, model="other", clip_low_w=100, clip_high_w=900)
    both = (*enrolled(1).classes, ClassEnrolment(model="other", gpus=2, capacity_w=1500))
    hosts = [enrolled(0), replace(enrolled(1), classes=both), replace(enrolled(2), domain="elsewhere"), enrolled(3)]
    view = fleet.policy_of(hosts, [fleet.domain_rule("d")], models=(MODEL, other))
    roster = roster_of(view, "d")
    assert list(roster.row.items()) == [("h000", 0), ("h001", 1), ("h003", 2)]
    assert roster.rows_of(["h003", "h000"]).tolist() == [2, 0]
    assert roster.capacity_w.tolist() == [sum(one.capacity_w for one in host.classes) for host in roster.hosts]
    assert (roster.total_gpus, roster.total_capacity_w) == (26, 3 * 4000 + 1500)
    assert roster.widest_w.tolist() == [600, 800, 600]
    assert roster.models["other"].gpus.tolist() == [0, 2, 0]
    assert roster.models["other"].capacity_w.tolist() == [0, 1500, 0]
    assert roster.enrolled_w == {MODEL.model: 12_000, "other": 1500}
    assert [roster.tenants.names[code] for code in roster.tenants.codes] == ["t0", "t1", "t0"]
    with pytest.raises(KeyError):
        roster.rows_of(["h002"])
