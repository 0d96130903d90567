"""Late data, partial fleets, hosts that join and leave, mixed hardware: each case with its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from schemas.records import FleetPower, OutputClass
from stream_jobs.core.policies import PolicyView
from tests.core import arrivals, fleet
from tests.core.arrivals import FLEET, GPUS, TICKS, Arrival, Told, W, end_ms, mixed_policy, statistics
from tests.core.fleet import T0
from tests.core.replay import remembered

ALL = tuple(FLEET)


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    with remembered():
        yield


def on_time(told: Told, windows: Sequence[int], hosts: Sequence[str] = ALL) -> None:
    for window in windows:
        for host in hosts:
            told.put(Arrival(end_ms(window), 0, host, window))


def pane_sums(hosts: Sequence[str], window: int, model: str, mode: str = "instant") -> list[int]:
    """Sum over the hosts of what each said, by hand."""
    said = [statistics(host, window, model) for host in hosts if model in FLEET[host][0] and FLEET[host][1] == mode]
    return np.sum([np.frombuffer(one.pane_sums, "<i4") for one in said], axis=0).tolist()


def class_of(output: FleetPower, model: str, mode: str = "instant") -> OutputClass:
    return next(one for one in output.classes if (one.model, one.sampler_mode) == (model, mode))


def sums_of(output: FleetPower, model: str, mode: str = "instant") -> list[int]:
    return np.frombuffer(class_of(output, model, mode).pane_sums_sum, "<i8").tolist()


def outputs_of(told: Told, window: int) -> list[FleetPower]:
    return [output for output in told.story.outputs if output.window_start_ms == T0 + window * W]


# -- late data ---------------------------------------------------------------------------------------------------


def test_a_late_report_makes_a_revision() -> None:
    """Published with the next close; linked to what it replaces; counted as late; nothing else changes."""
    told = Told.begin(mixed_policy(1, 3))
    on_time(told, [0], ALL[:4])
    on_time(told, [1])
    (first,) = outputs_of(told, 0)
    assert (first.revision, first.accepted, first.late_accepted) == (0, 4, 0)
    assert told.put(Arrival(end_ms(1) + 10, 0, "h4", 0)) == []
    on_time(told, [2])
    _, second = outputs_of(told, 0)
    made = [made for _, made in told.story.run.emissions]
    assert (second.revision, second.accepted, second.late_accepted) == (1, 5, 1)
    assert second.prev_revision_digest == made[0].digest
    assert second.source.close_reason == "revision"
    assert [one.output.window_start_ms for one in made] == [T0, T0, T0 + W]
    assert first.classes[:1] == second.classes[:1]  # the class of "tiny" has nobody new
    assert sums_of(second, "toy", "average") == pane_sums(ALL, 0, "toy", "average")


def test_late_reports_that_come_together_make_one_revision() -> None:
    told = Told.begin(mixed_policy(1, 3))
    on_time(told, [0], ALL[:3])
    on_time(told, [1])
    for host in ("h3", "h4"):
        told.put(Arrival(end_ms(1) + 10, 0, host, 0))
    on_time(told, [2])
    assert [(one.revision, one.accepted) for one in outputs_of(told, 0)] == [(0, 3), (1, 5)]


def test_a_revision_equals_the_output_that_would_have_been() -> None:
    told, whole = Told.begin(mixed_policy(1, 3)), Told.begin(mixed_policy(1, 3))
    on_time(whole, [0, 1, 2])
    on_time(told, [0], ALL[2:])
    on_time(told, [1])
    for host in ALL[:2]:
        told.put(Arrival(end_ms(1) + 10, 0, host, 0))
    on_time(told, [2])
    assert arrivals.estimates(outputs_of(told, 0)[-1]) == arrivals.estimates(outputs_of(whole, 0)[0])


@pytest.mark.parametrize("late_windows", [0, 1, 3])
def test_lateness_ends_where_the_policy_says(late_windows: int) -> None:
    """A window takes reports until the watermark is L past its end: the last one that does, the first that does not."""
    told = Told.begin(mixed_policy(1, late_windows))
    on_time(told, [0], ALL[:4])
    on_time(told, range(1, 1 + late_windows))
    assert told.story.state.watermark_ms == end_ms(late_windows - 1) if late_windows else -1
    told.put(Arrival(told.story.now_ms, 0, "h4", 0))
    assert told.refused == []
    on_time(told, [1 + late_windows])
    told.put(Arrival(told.story.now_ms, 0, "h4", 0))
    assert told.refused == [(told.refused[0][0], "LATE")]


def test_a_window_of_which_nobody_reported_in_time() -> None:
    """Its first output comes with the next close, behind those of later windows."""
    told = Told.begin(mixed_policy(1, 4))
    on_time(told, [0, 2, 3])
    assert outputs_of(told, 1) == []
    for host in ALL[:3]:
        told.put(Arrival(told.story.now_ms + 1, 0, host, 1))
    on_time(told, [4])
    (output,) = outputs_of(told, 1)
    assert (output.revision, output.accepted, output.late_accepted) == (0, 3, 0)
    order = [(one.window_start_ms - T0) // W for one in told.story.outputs]
    assert order == [0, 2, 1, 3]


def test_what_comes_late_counts_once() -> None:
    """Late, duplicate and refused records appear in exactly one output's counts."""
    told = Told.begin(mixed_policy(1, 1))
    on_time(told, [0], ALL[:4])
    on_time(told, [1])
    told.put(Arrival(told.story.now_ms, 0, "h0", 0))  # a copy
    told.put(Arrival(told.story.now_ms, 0, "h4", 0))  # late
    on_time(told, [2, 3])
    told.put(Arrival(told.story.now_ms, 0, "h1", 0))  # too late
    on_time(told, [4])
    counted = [(one.duplicates, one.late_refused, one.late_accepted) for one in told.story.outputs]
    assert [sum(column) for column in zip(*counted, strict=True)] == [1, 1, 1]


# -- partial fleets ----------------------------------------------------------------------------------------------


def test_missing_capacity_is_scaled_up_class_by_class() -> None:
    """Two of three "toy" hosts with instant readings: their sum stands for all that is enrolled of that model."""
    told = Told.begin(mixed_policy(1, 0))
    on_time(told, [0, 1], ("h0", "h2", "h3"))
    output = told.story.outputs[0]
    toy, tiny = class_of(output, "toy"), class_of(output, "tiny")
    assert (toy.hosts, toy.gpus, toy.capacity_w, toy.enrolled_capacity_w) == (2, 2 * GPUS, 1_200, 2_400)
    assert (tiny.hosts, tiny.capacity_w, tiny.enrolled_capacity_w) == (2, 480, 480)
    assert sums_of(output, "toy") == pane_sums(("h0", "h3"), 0, "toy")
    covered = output.coverage
    assert (covered.reporting_hosts, covered.enrolled_hosts) == (3, 5)
    assert (covered.reporting_capacity_w, covered.enrolled_capacity_w) == (1_680, 2_880)
    assert not covered.quorum_met  # 58 % of 60 %
    assert (output.margin.margin, output.margin.margin_absent_reason) == (None, "coverage below quorum")
    assert output.mean is not None


def test_a_mean_scaled_up_is_the_mean_by_hand() -> None:
    """Two of three hosts: reported power per capacity times what is enrolled, h3's 240 W of another model included."""
    hosts = ("h0", "h1", "h3")
    told = Told.begin(mixed_policy(1, 0, hosts))
    on_time(told, [0, 1], ("h0", "h1"))
    output = told.story.outputs[0]
    said = sum(pane_sums(("h0", "h1"), 0, "toy"))
    reported_w = said / 10 / TICKS  # pane sums are in 0.1 W samples, of both GPUs together
    assert output.mean is not None
    (toy,) = output.classes
    assert (toy.capacity_w, toy.enrolled_capacity_w, toy.readings_taken) == (1_200, 1_800, 2 * GPUS * TICKS)
    assert output.mean.value_w == pytest.approx(reported_w * (1_800 + 240) / 1_200, abs=0.51)
    assert output.mean.low_w < output.mean.value_w < output.mean.high_w


def test_quorum_is_by_capacity_and_exact() -> None:
    """h0, h1, h4 have 1,800 of 2,880 W: 62.5 %."""
    hosts = ("h0", "h1", "h4")
    for quorum, met in ((625_000, True), (625_001, False)):
        told = Told.begin(mixed_policy(1, 0, quorum_ppm=quorum))
        on_time(told, [0, 1], hosts)
        output = told.story.outputs[0]
        assert output.coverage.quorum_met is met
        assert (output.margin.margin is not None) is met


def test_too_few_hosts_or_tenants_are_withheld() -> None:
    """k_min = 2 hosts and 2 tenants: h0 and h2 are of one tenant; with h1 the figures appear."""
    told = Told.begin(mixed_policy(0, 4))
    on_time(told, [0], ("h0", "h2"))
    on_time(told, [1])
    output = outputs_of(told, 0)[0]
    assert (output.dilution.hosts, output.dilution.tenants, output.dilution.met) == (2, 1, False)
    assert (output.mean, output.classes, output.power_by, output.quantiles) == (None, (), (), ())
    assert output.margin.margin is None
    told.put(Arrival(told.story.now_ms, 0, "h1", 0))
    on_time(told, [2])
    output = outputs_of(told, 0)[-1]
    assert output.dilution.met
    assert output.dilution.largest_host_share_ppm == 600 * 10**6 // 1_440
    assert output.dilution.largest_tenant_share_ppm == 840 * 10**6 // 1_440
    assert output.mean is not None


# -- hosts that join and leave -----------------------------------------------------------------------------------


def switched(told: Told, view: PolicyView) -> None:
    told.story.control("POLICY_SWITCH", view)


def begin(*views: PolicyView) -> Told:
    told = Told.begin(views[0])
    told.story.policies = views
    told.story.run.core.config = replace(told.story.run.core.config, policies={view.digest: view for view in views}.get)
    return told


def test_hosts_that_join_count_from_their_first_window() -> None:
    small, large = mixed_policy(1, 2, ("h0", "h1")), mixed_policy(1, 2, counter=2)
    told = begin(small, large)
    on_time(told, [0, 1], ("h0", "h1"))
    switched(told, large)
    told.put(Arrival(end_ms(1), 0, "h2", 1))
    assert [code for _, code in told.refused] == ["HOST_NOT_ENROLLED"]
    on_time(told, [2, 3, 4])
    covered = {
        (one.window_start_ms - T0) // W: (one.policy_counter, one.coverage.enrolled_hosts, one.accepted)
        for one in told.story.outputs
    }
    assert covered == {0: (1, 2, 2), 1: (1, 2, 2), 2: (2, 5, 5), 3: (2, 5, 5)}
    told.story.crash_everywhere()


def test_hosts_that_leave_are_missed_no_longer() -> None:
    """Their late reports for windows of the old policy still count, under it."""
    large, small = mixed_policy(1, 3), mixed_policy(1, 3, ("h0", "h1", "h3"), counter=2)
    told = begin(large, small)
    on_time(told, [0, 1], ALL[:4])
    switched(told, small)
    on_time(told, [2, 3], ("h0", "h1", "h3"))
    told.put(Arrival(told.story.now_ms, 0, "h4", 1))
    told.put(Arrival(told.story.now_ms, 0, "h4", 2))
    assert [code for _, code in told.refused] == ["HOST_NOT_ENROLLED"]
    on_time(told, [4], ("h0", "h1", "h3"))
    last = {(one.window_start_ms - T0) // W: one for one in told.story.outputs}
    assert (last[1].revision, last[1].accepted, last[1].coverage.enrolled_hosts) == (1, 5, 5)
    assert (last[2].accepted, last[2].coverage.enrolled_hosts, last[2].coverage.quorum_met) == (3, 3, True)
    assert class_of(last[2], "toy").enrolled_capacity_w == 1_800
    told.story.crash_everywhere()


def test_a_fleet_that_doubles_waits_for_its_new_hosts_or_the_worker() -> None:
    """Enrolled before they are there: the others are no majority of the new policy, so a control record closes."""
    small, large = mixed_policy(1, 2, ("h0", "h1")), mixed_policy(1, 2, counter=2)
    told = begin(small, large)
    on_time(told, [0, 1], ("h0", "h1"))
    switched(told, large)
    on_time(told, range(2, 14), ("h0", "h1"))
    assert told.story.state.watermark_ms == end_ms(0)
    (wanted,) = [one for one in told.story.wanted(large, {"d": told.story.now_ms}) if one.kind == "IDLE_CLOSE"]
    told.story.write(wanted)
    behind_ms = W + fleet.LIMITS.max_idle_ms + fleet.LIMITS.clock_skew_tolerance_ms
    assert told.story.state.watermark_ms == (end_ms(13) - behind_ms) // W * W
    assert {one.margin.margin_absent_reason for one in told.story.outputs[2:]} == {"coverage below quorum"}


def test_a_host_whose_hardware_changes() -> None:
    """Under the new policy the old class is refused, and the new one counts."""
    before, other = mixed_policy(1, 2, ("h0", "h1", "h3")), mixed_policy(1, 2, ("h0", "h1", "h3"), counter=2)
    fewer = replace(other.policy.hosts[2], classes=other.policy.hosts[2].classes[:1])
    after = PolicyView(replace(other.policy, hosts=(*other.policy.hosts[:2], fewer)), b"\x07" * 32)
    told = begin(before, after)
    on_time(told, [0, 1], ("h0", "h1", "h3"))
    switched(told, after)
    on_time(told, [2, 3, 4], ("h0", "h1", "h3"))
    assert {code for _, code in told.refused} == {"CLASS_MISMATCH"}
    last = told.story.outputs[-1]
    assert (last.accepted, last.coverage.enrolled_hosts, last.coverage.enrolled_capacity_w) == (2, 3, 1_440)


# -- mixed hardware ----------------------------------------------------------------------------------------------


def test_classes_and_modes_are_summed_apart() -> None:
    """Two classes on h3, and one model in two sampler modes: each its own sums, together the enrolled capacity."""
    told = Told.begin(mixed_policy(1, 0))
    on_time(told, [0, 1])
    output = told.story.outputs[0]
    keys = [("tiny", "instant"), ("toy", "average"), ("toy", "instant")]
    assert [(one.model, one.sampler_mode) for one in output.classes] == keys
    assert [one.hosts for one in output.classes] == [2, 1, 3]
    assert [one.enrolled_capacity_w for one in output.classes] == [480, 600, 1_800]
    for model, mode in keys:
        assert sums_of(output, model, mode) == pane_sums(ALL, 0, model, mode)
    shapes = {one.model: one.transitions_shape for one in output.classes}
    assert shapes == {"tiny": (5, 5), "toy": (4, 4)}
    # A group of eleven readings pays more for the same noise; the output states the worst.
    assert output.privacy.epsilon_max_micro == max(
        arrivals.privacy_of(*one[:2]).epsilon_total_micro for one in FLEET.values()
    )


def test_one_mode_stands_for_the_other_where_it_is_missing() -> None:
    """All capacity of a model is scaled from what reported, in proportion to each mode's share."""
    told = Told.begin(mixed_policy(1, 0))
    on_time(told, [0, 1], ALL[:4])
    output = told.story.outputs[0]
    assert [one.enrolled_capacity_w for one in output.classes] == [480, 2_400]


def test_readings_that_are_missing_are_not_zero_watts() -> None:
    """h4's fifth report lacks some readings: its mean is over those taken."""
    window = 0
    told = Told.begin(mixed_policy(1, 0, ("h0", "h1", "h4")))
    on_time(told, [window, 1], ("h0", "h1", "h4"))
    output = told.story.outputs[0]
    lacking = class_of(output, "toy", "average")
    assert lacking.readings_taken < GPUS * TICKS
    by_hand = 0.0
    for mode, hosts in (("average", ("h4",)), ("instant", ("h0", "h1"))):
        one = class_of(output, "toy", mode)
        by_hand += sum(pane_sums(hosts, window, "toy", mode)) / 10 / one.readings_taken * one.gpus
    assert output.mean is not None
    assert output.mean.value_w == pytest.approx(by_hand, abs=0.51)
