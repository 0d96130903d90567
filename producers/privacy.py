"""The privacy statement of a report: sensitivities, budget, noise scales. Arithmetic on integers, no noise here.

Unit: one reading of one GPU, replaced. It takes part in at most two transitions, so two counts fall by one and two
rise by one: L1 = 4; L2 squared is 6 where both old transitions were the same cell (a,a,a -> a,b,a) and 4 otherwise.
It is in one pane: the clipped sum moves by the clip range at most. Windows and panes are disjoint (parallel
composition); the two releases of a window see the same reading and add up. Classes are disjoint as well and share
one scale, the one of the widest clip range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from power_model.noise import discrete_laplace_bound
from producers.config import ClassProfile, Schedule
from schemas.contract import group_size_of
from schemas.errors import ConfigError
from schemas.records import PrivacyParameters, PrivacyRelease

MICRO = 1_000_000
TRANSITIONS_L1 = 4
TRANSITIONS_L2_SQUARED = 6
OVERFLOW_PROBABILITY = 2.0**-100
"""Chance per draw, at most, that a noisy value does not fit into 32 bits."""
MAX_INT32 = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Privacy loss per reading and window in millionths of epsilon, per release; windows of the w-event statement.

    The default (1.0 in total) gives most to the pane sums: they carry the swing of the fleet (MARGIN).
    """

    transitions_micro: int = 300_000
    pane_sums_micro: int = 700_000
    w_event_windows: int = 1

    def __post_init__(self) -> None:
        if min(self.transitions_micro, self.pane_sums_micro, self.w_event_windows) <= 0:
            raise ConfigError("every release needs a positive epsilon; w at least 1", field="budget")


def event_epsilon_micro(budget: Budget, readings: int) -> int:
    """Privacy loss of `readings` consecutive readings of one GPU, in millionths, rounded up.

    m readings in a row take part in at most m + 1 transitions, hence L1 = 2 (m + 1), and m terms of pane sums.
    """
    transitions = -(-budget.transitions_micro * (readings + 1) // 2)
    return transitions + budget.pane_sums_micro * readings


def privacy_parameters(budget: Budget, classes: Sequence[ClassProfile], schedule: Schedule) -> PrivacyParameters:
    """Return the statement that every report of a host with these classes carries.

    `epsilon_total_micro` multiplies by the group size (simple group privacy). `w_event_epsilon_micro` is the loss of
    an event that lasts w whole windows and changes every reading of one GPU in them.
    Raises `ConfigError` if a noisy value might not fit into 32 bits.
    """
    group = group_size_of(classes[0].source.sampler_mode)
    clip_range = 10 * max(c.clip_high_w - c.clip_low_w for c in classes)
    releases = (
        _release("transitions", "count", TRANSITIONS_L1, TRANSITIONS_L2_SQUARED, budget.transitions_micro),
        _release("pane_sums", "deciwatt_sample", clip_range, clip_range**2, budget.pane_sums_micro),
    )
    for item in classes:
        _check_fits(releases[0], item.source.gpus * (schedule.ticks - 1))
        _check_fits(releases[1], item.source.gpus * schedule.ticks_per_pane * item.clip_high_w * 10)
    lasting = budget.w_event_windows * schedule.ticks + group - 1
    return PrivacyParameters(
        mode="EDGE",
        mechanism="discrete_laplace",
        unit_of_privacy="reading",
        releases=releases,
        epsilon_total_micro=group * (budget.transitions_micro + budget.pane_sums_micro),
        group_size=group,
        w_event_windows=budget.w_event_windows,
        w_event_epsilon_micro=event_epsilon_micro(budget, lasting),
        delta_pico_absent_reason="pure_epsilon",
        rho_micro_absent_reason="pure_epsilon",
    )


def _release(name: str, unit: str, l1: int, l2_squared: int, epsilon_micro: int) -> PrivacyRelease:
    scale_micro = -(-l1 * MICRO * MICRO // epsilon_micro)
    # The sampler takes the scale as a double; should that round below the exact value, go up by one millionth.
    while Fraction(l1) / Fraction(scale_micro / MICRO) > Fraction(epsilon_micro, MICRO):
        scale_micro += 1
    return PrivacyRelease(
        release=name,
        unit=unit,
        sensitivity_l1=l1,
        sensitivity_l2_squared=l2_squared,
        epsilon_micro=epsilon_micro,
        scale_micro=scale_micro,
    )


def _check_fits(release: PrivacyRelease, largest: int) -> None:
    noise = discrete_laplace_bound(OVERFLOW_PROBABILITY, release.scale_micro / MICRO)
    if largest + noise > MAX_INT32:
        raise ConfigError(
            f"{release.release}: up to {largest} plus noise up to {noise} does not fit into 32 bits; "
            "use more epsilon, a narrower clip range or shorter panes",
            field=release.release,
        )
