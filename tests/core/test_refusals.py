"""One forged record per code: exactly that code, and every code of the core is reachable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from schemas.contract import HISTOGRAM_BINS, HISTOGRAM_CELLS
from schemas.records import ControlSubject, PrivacyRelease
from stream_jobs.core.checks import draw_bound, energy_residual_l1, noise_bound
from stream_jobs.core.effects import Effect
from stream_jobs.core.refusals import CODES
from tests.core import fleet
from tests.core.fleet import (
    GPUS,
    LIMITS,
    MODEL,
    PRIVACY,
    T0,
    TICKS,
    gpu_class,
    new_session,
    report_of,
    seal,
    session_of,
)
from tests.core.replay import remembered
from tests.core.sets import FIRST
from tests.core.story import Story, W, code_of, small_policy

VIEW = small_policy(domains=("d",), limits=replace(LIMITS, lateness_ms=W, evidence_interval_windows=1))
NEWER = small_policy(limits=VIEW.policy.limits, counter=2)
FOREIGN_CORE = small_policy(limits=VIEW.policy.limits, counter=3, core_version="x")
DEMANDING = small_policy(limits=replace(VIEW.policy.limits, max_collateral_age_ms=W))
SHORT = small_policy(limits=VIEW.policy.limits, not_after_ms=T0 + 2 * W)

NONE = bytes(32)

Forge = Callable[[Story], list[Effect]]


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    with remembered():
        yield


def story_of() -> Story:
    return Story(VIEW, NEWER, FOREIGN_CORE, SHORT)


def begun() -> Story:
    story = story_of()
    story.control("POLICY_SWITCH", VIEW)
    return story


def everyone(story: Story, *windows: int) -> None:
    for window in windows:
        for number in range(3):
            story.report(f"h{number}", window)


def late(story: Story) -> list[Effect]:
    everyone(story, 0, 1, 2, 3)
    return story.report("h0", 0, seq=9)


def duplicate(story: Story) -> list[Effect]:
    story.report("h0", 0)
    return story.report("h0", 0, evidence=None)


def equivocation(story: Story) -> list[Effect]:
    story.report("h0", 0)
    return story.report("h0", 0, dropped_reports=1)


def superseded(story: Story) -> list[Effect]:
    story.report("h0", 0, order=1)
    return story.report("h0", 1, order=0)


def stale(story: Story) -> list[Effect]:
    story.report("h0", 0)
    return story.report("h0", 3, evidence=None)


def again(story: Story) -> list[Effect]:
    return story.control("POLICY_SWITCH", VIEW)


def rollback(story: Story, forge: Forge = again) -> list[Effect]:
    story.control("POLICY_SWITCH", NEWER)
    return forge(story)


def switch_to(digest: bytes, **changes: Any) -> Forge:
    return lambda story: story.control(
        "COLLATERAL_SWITCH", VIEW, **{"content_digest": digest, "collateral_digest": digest, **changes}
    )


def since(at_ms: int) -> tuple[ControlSubject, ...]:
    return (ControlSubject(kind="collateral", id=FIRST.digest.hex(), at_ms=at_ms),)


def in_need_of_collateral(_: Story) -> list[Effect]:
    story = Story(DEMANDING)
    story.control("POLICY_SWITCH", DEMANDING)
    return story.report("h0", 0)


def wrong_partition(story: Story) -> list[Effect]:
    session = session_of("h0", "d")
    return story.put("e", seal(session, report_of(session, T0)).value(session.evidence), T0 + W)


def stale_control(story: Story) -> list[Effect]:
    story.now_ms = T0 + 10**6
    return story.control("POLICY_SWITCH", VIEW, issued_ms=T0)


def classes(**changes: object) -> Forge:
    return lambda story: story.report("h0", 0, classes=(gpu_class(**changes),))


def counts(value: int) -> bytes:
    return value.to_bytes(4, "little", signed=True) * 16


def panes(*sums: int) -> bytes:
    return b"".join(one.to_bytes(4, "little", signed=True) for one in sums)


PANE_SCALE = PRIVACY.releases[1].scale_micro / 1e6
FULL_PANE = 10 * GPUS * TICKS // 2 * MODEL.clip_high_w
"""All GPUs at the upper clip bound all the time, units of 0.1 W times sample."""
DRAW = draw_bound(PANE_SCALE, 2)
WINDOW = int(noise_bound(PANE_SCALE, 2))
assert WINDOW < 2 * DRAW, "else the bounds of the panes hold their sum"

ENERGY_L1 = energy_residual_l1([MODEL], fleet.HZ)
ENERGY = PrivacyRelease(
    release="energy_residual",
    unit="millijoule",
    sensitivity_l1=ENERGY_L1,
    sensitivity_l2_squared=ENERGY_L1**2,
    epsilon_micro=50_000,
    scale_micro=ENERGY_L1 * 20_000_000,
)
RESIDUAL_MJ = GPUS * (MODEL.clip_high_w - MODEL.clip_low_w) * W + draw_bound(20.0 * ENERGY_L1, 1)


def with_release(release: PrivacyRelease, **changes: object) -> Forge:
    """A session whose budget holds one more release, and a report with these changes to its class."""
    sums = replace(PRIVACY.releases[1], epsilon_micro=650_000, scale_micro=4_615_384_616)
    privacy = replace(PRIVACY, releases=(PRIVACY.releases[0], sums, release))
    session = new_session("h0", "d", T0 + 77, fleet.IMAGE, privacy=privacy)
    return lambda story: story.report("h0", 0, session=session, classes=(gpu_class(**changes),))


def with_energy(residual_mj: int, release: PrivacyRelease = ENERGY) -> Forge:
    return with_release(release, energy_residual_mj=residual_mj, energy_residual_mj_absent_reason=None)


HISTOGRAM = PrivacyRelease(
    release="histogram",
    unit="count",
    sensitivity_l1=2,
    sensitivity_l2_squared=2,
    epsilon_micro=50_000,
    scale_micro=40_000_000,
)
TAKEN = GPUS * TICKS - 3
BINS, BIN, MISSING = int(noise_bound(40.0, HISTOGRAM_BINS)), draw_bound(40.0, HISTOGRAM_BINS), draw_bound(40.0, 1)
assert BINS < HISTOGRAM_BINS * BIN


def with_histogram(*bins: int, missing: int = 3, shape: tuple[int, ...] = (HISTOGRAM_CELLS,)) -> Forge:
    """These first bins, zeros in the others."""
    cells = panes(*bins, *(0 for _ in range(HISTOGRAM_BINS - len(bins))), missing)
    return with_release(
        HISTOGRAM, histogram=cells, histogram_absent_reason=None, histogram_shape=shape, readings_taken=TAKEN
    )


def bins_of(total: int) -> list[int]:
    """Bins that sum up to `total`, spread evenly."""
    share, rest = divmod(total, HISTOGRAM_BINS)
    return [share + (at < rest) for at in range(HISTOGRAM_BINS)]


REPORTS: list[tuple[str, str, Forge]] = [
    ("tombstone", "TOMBSTONE", lambda s: s.put("d", None)),
    ("late", "LATE", late),
    ("duplicate", "DUPLICATE", duplicate),
    ("equivocation", "EQUIVOCATION", equivocation),
    ("superseded", "SUPERSEDED_SESSION", superseded),
    ("stale evidence", "EVIDENCE_STALE", stale),
    ("no evidence", "SESSION_UNKNOWN", lambda s: s.report("h0", 0, evidence=None)),
    (
        "evidence of another session",
        "SESSION_MISMATCH",
        lambda s: s.report("h0", 0, evidence=session_of("h1", "d").evidence),
    ),
    ("key of another domain", "WRONG_PARTITION", wrong_partition),
    ("a stranger", "HOST_NOT_ENROLLED", lambda s: s.report("h9", 0)),
    ("the future", "CLOCK_SKEW", lambda s: s.report("h0", 9, at_ms=T0)),
    (
        "half a window",
        "WINDOW_MISALIGNED",
        lambda s: s.report("h0", 0, window_start_ms=T0 + 1, window_end_ms=T0 + 1 + W),
    ),
    ("two windows", "WINDOW_MISALIGNED", lambda s: s.report("h0", 0, window_end_ms=T0 + 2 * W)),
    ("before the epoch", "NO_POLICY", lambda s: s.report("h0", 0, window_start_ms=-W, window_end_ms=0)),
    (
        "another host's name",
        "BINDING_MISMATCH",
        lambda s: s.report("h1", 0, session=session_of("h0", "d"), host_id="h1"),
    ),
    ("another source", "BINDING_MISMATCH", lambda s: s.report("h0", 0, source="nvml")),
    ("another rate", "BINDING_MISMATCH", lambda s: s.report("h0", 0, sample_hz=20)),
    ("another budget", "BINDING_MISMATCH", lambda s: s.report("h0", 0, privacy=replace(PRIVACY, group_size=2))),
    ("no classes", "CLASS_MISMATCH", lambda s: s.report("h0", 0, classes=())),
    ("a class twice", "CLASS_MISMATCH", lambda s: s.report("h0", 0, classes=(gpu_class(), gpu_class()))),
    ("more GPUs", "CLASS_MISMATCH", classes(gpus=GPUS + 1)),
    ("more capacity", "CLASS_MISMATCH", classes(capacity_w=10**6)),
    ("other edges", "CLASS_MISMATCH", classes(edges_w=(100, 201))),
    ("a wider clip range", "CLASS_MISMATCH", classes(clip_high_w=10**6)),
    ("another quantum", "CLASS_MISMATCH", classes(pane_sum_quantum_mw=0)),
    ("an average sampler", "PRIVACY_REFUSED", classes(sampler_mode="average")),
    ("half the cells", "SHAPE_INVALID", classes(transitions=bytes(32))),
    ("a flat shape", "SHAPE_INVALID", classes(transitions_shape=(16,))),
    ("no panes", "SHAPE_INVALID", classes(pane_sums=b"", pane_sums_shape=(0,))),
    ("a pane too many", "SHAPE_INVALID", classes(pane_sums=bytes(12), pane_sums_shape=(3,))),
    ("an absurd shape", "SHAPE_INVALID", classes(pane_sums_shape=(2**31 - 1,))),
    ("no schedule", "SHAPE_INVALID", lambda s: s.report("h0", 0, samples_scheduled=0)),
    ("too many readings", "COUNTS_IMPLAUSIBLE", classes(readings_taken=GPUS * TICKS + 1)),
    ("negative readings", "COUNTS_IMPLAUSIBLE", classes(readings_taken=-1)),
    ("large counts", "COUNTS_IMPLAUSIBLE", classes(transitions=counts(2**31 - 1))),
    ("very negative counts", "COUNTS_IMPLAUSIBLE", classes(transitions=counts(-(2**31)))),
    ("large sums", "POWER_IMPLAUSIBLE", classes(pane_sums=(2**31 - 1).to_bytes(4, "little") * 2)),
    ("very negative sums", "POWER_IMPLAUSIBLE", classes(pane_sums=(-(2**31)).to_bytes(4, "little", signed=True) * 2)),
    ("every pane as far as it may", "POWER_IMPLAUSIBLE", classes(pane_sums=panes(FULL_PANE + DRAW, FULL_PANE + DRAW))),
    ("every pane as low as it may", "POWER_IMPLAUSIBLE", classes(pane_sums=panes(-DRAW, -DRAW))),
    (
        "power of readings not taken",
        "POWER_IMPLAUSIBLE",
        classes(pane_sums=panes(FULL_PANE, WINDOW + 6_001 - FULL_PANE), readings_taken=2),
    ),
    ("a residual nobody stated", "PRIVACY_REFUSED", classes(energy_residual_mj=5)),
    ("a histogram nobody stated", "PRIVACY_REFUSED", classes(histogram=bytes(260), histogram_shape=(65,))),
    ("a histogram's shape without it", "SHAPE_INVALID", classes(histogram_shape=(65,))),
    ("a limit of nothing", "CLASS_MISMATCH", classes(enforced_limit_w=0)),
    ("a limit of no GPU", "CLASS_MISMATCH", classes(enforced_limit_w=4 * GPUS * 300 + 1)),
    ("no fresh collateral", "COLLATERAL_STALE", in_need_of_collateral),
    ("a better first mile", "FIRST_MILE_OVERCLAIMED", lambda s: s.report("h0", 0, first_mile="TDISP")),
    ("an unknown first mile", "FIRST_MILE_OVERCLAIMED", lambda s: s.report("h0", 0, first_mile="\0")),
]

STATED: list[tuple[str, str, Forge]] = [
    ("a large residual", "ENERGY_IMPLAUSIBLE", with_energy(RESIDUAL_MJ + 1)),
    ("a very negative residual", "ENERGY_IMPLAUSIBLE", with_energy(-RESIDUAL_MJ - 1)),
    ("the largest residual there is", "ENERGY_IMPLAUSIBLE", with_energy(2**63 - 1)),
    (
        "a residual with more noise than it needs",
        "PRIVACY_REFUSED",
        with_energy(0, replace(ENERGY, sensitivity_l1=2 * ENERGY_L1, scale_micro=2 * ENERGY.scale_micro)),
    ),
    ("a stated histogram that is not there", "SHAPE_INVALID", with_release(HISTOGRAM)),
    ("a histogram of another shape", "SHAPE_INVALID", with_histogram(shape=(64,))),
    ("half a histogram", "SHAPE_INVALID", with_release(HISTOGRAM, histogram=bytes(128), histogram_shape=(65,))),
    ("more in the bins than was read", "COUNTS_IMPLAUSIBLE", with_histogram(*bins_of(TAKEN + BINS + 1))),
    ("less in the bins than was read", "COUNTS_IMPLAUSIBLE", with_histogram(*bins_of(TAKEN - BINS - 1))),
    ("all in a bin, and more", "COUNTS_IMPLAUSIBLE", with_histogram(TAKEN + 3 + BIN + 1, -BIN)),
    ("a very negative bin", "COUNTS_IMPLAUSIBLE", with_histogram(-BIN - 1, TAKEN)),
    ("ticks missing that were read", "COUNTS_IMPLAUSIBLE", with_histogram(TAKEN, missing=4 + MISSING)),
    ("missing ticks hidden", "COUNTS_IMPLAUSIBLE", with_histogram(TAKEN, missing=2 - MISSING)),
]

CONTROLS: list[tuple[str, str, Forge]] = [
    ("stale", "CONTROL_STALE", stale_control),
    ("no content", "CONTROL_INVALID", lambda s: s.control("POLICY_SWITCH", VIEW, content_digest=None)),
    ("closes nothing", "CONTROL_INVALID", lambda s: s.control("IDLE_CLOSE", VIEW)),
    ("closes the future", "CONTROL_INVALID", lambda s: s.control("IDLE_CLOSE", VIEW, closed=99)),
    ("a revocation of nothing", "CONTROL_INVALID", lambda s: s.control("REVOCATION", VIEW)),
    ("a strange kind", "CONTROL_UNSUPPORTED", lambda s: s.control("\0" * 1000, VIEW)),
    ("a set nobody has", "COLLATERAL_UNKNOWN", switch_to(NONE)),
    (
        "a set nobody has, repeated",
        "COLLATERAL_UNKNOWN",
        lambda s: s.control("POLICY_SWITCH", VIEW, collateral_digest=NONE),
    ),
    ("another set than named", "CONTROL_INVALID", switch_to(FIRST.digest, content_digest=NONE)),
    ("no set", "CONTROL_INVALID", lambda s: s.control("COLLATERAL_SWITCH", VIEW)),
    ("a set since tomorrow", "CONTROL_INVALID", switch_to(FIRST.digest, subjects=since(T0 + 10**8))),
    ("a set under an old policy", "POLICY_ROLLBACK", lambda s: rollback(s, switch_to(FIRST.digest))),
    ("rollback", "POLICY_ROLLBACK", rollback),
    ("unknown policy", "POLICY_UNTRUSTED", lambda s: s.control("POLICY_SWITCH", VIEW, content_digest=bytes(32))),
    ("another core", "CORE_VERSION", lambda s: s.control("POLICY_SWITCH", FOREIGN_CORE)),
    ("a domain of no policy", "DOMAIN_UNKNOWN", lambda s: s.control("POLICY_SWITCH", VIEW, domain="e")),
]


@pytest.mark.parametrize(
    ("code", "forge"),
    [case[1:] for case in REPORTS + STATED + CONTROLS],
    ids=[c[0] for c in REPORTS + STATED + CONTROLS],
)
def test_the_forged_record_is_refused_with_its_code(code: str, forge: Forge) -> None:
    assert code_of(forge(begun())) == code


@pytest.mark.parametrize(
    "forge",
    [
        classes(pane_sums=panes(FULL_PANE + DRAW, FULL_PANE + WINDOW - DRAW)),
        classes(pane_sums=panes(-DRAW, DRAW - WINDOW)),
        classes(pane_sums=panes(FULL_PANE, WINDOW + 6_000 - FULL_PANE), readings_taken=2),
        classes(pane_sums=panes(FULL_PANE, WINDOW + 6_001 - FULL_PANE), readings_taken=3),
        classes(transitions=counts(0), readings_taken=0, pane_sums=panes(0, 0)),
        classes(enforced_limit_w=1),
        classes(enforced_limit_w=4 * GPUS * 300),
        with_energy(RESIDUAL_MJ),
        with_energy(-RESIDUAL_MJ),
        with_histogram(*bins_of(TAKEN + BINS)),
        with_histogram(*bins_of(TAKEN - BINS), missing=3 + MISSING),
        with_histogram(TAKEN + BIN, -BIN, missing=3 - MISSING),
    ],
)
def test_what_lies_on_a_bound_is_accepted(forge: Forge) -> None:
    story = begun()
    assert forge(story) == []
    assert list(story.state.windows[T0].entries) == ["h0"]


def test_without_a_policy_nothing_counts() -> None:
    assert code_of(story_of().report("h0", 0)) == "NO_POLICY"


def test_windows_after_a_policy_s_end_are_refused() -> None:
    story = Story(SHORT)
    story.control("POLICY_SWITCH", SHORT)
    assert code_of(story.report("h0", 2)) == "POLICY_EXPIRED"


def test_every_code_is_reached() -> None:
    # test_device_mode.py, test_revocation.py, test_beacons.py
    elsewhere = {"DEVICE_MODE", "REVOKED", "BEACON_UNKNOWN", "BEACON_STALE"}
    reached = {case[1] for case in REPORTS + STATED + CONTROLS} | {"NO_POLICY", "POLICY_EXPIRED"} | elsewhere
    assert reached == set(CODES)


def test_a_refused_record_changes_nothing_that_an_honest_one_meets() -> None:
    """All forged reports that do not need history, then an honest window."""
    story, clean = begun(), begun()
    for name, _, forge in REPORTS:
        if name not in {"late", "duplicate", "equivocation", "superseded", "stale evidence", "the future"}:
            forge(story)
    for one in (story, clean):
        everyone(one, 0, 1, 2)
    ours, theirs = story.outputs[0], clean.outputs[0]
    assert (ours.accepted, ours.classes, ours.mean) == (theirs.accepted, theirs.classes, theirs.mean)
    assert sum(one.count for one in ours.refused) == len(story.run.rejections)
