"""The privacy statement of a report: sensitivities, budget, noise scales. Arithmetic on integers, no noise here.

Unit: one distinct reading of one GPU, replaced by any other value; with it the energy that the GPU drew in the
sensor's update behind that reading, which the energy counter sees. How far each release moves (L1):

- `transitions`, 4. A reading at tick t takes part in the transitions (t-1, t) and (t, t+1) of its own window, at most:
  two counts fall by one and two rise by one. L2 squared is 6 where both old transitions were the same cell
  (a,a,a -> a,b,a) and 4 otherwise. m readings in a row: at most m + 1 transitions, 2 (m + 1).
- `pane_sums`, the clip range R = high - low in units of 0.1 W: a reading is in one pane, clipped. m readings: m R.
- `histogram`, 2. A reading is in one bin, a tick without one in the last cell: one count falls by one and another rises
  by one, or none does. L2 squared is 2. m readings: 2 m.
- `energy_residual`, 100/90 R tick + high event, in mJ (W times ms). The residual of a GPU is S D / n - C: S the sum of
  its n present clipped readings, D = T tick the span's duration, C the counter's difference clipped to [low D, high D].
  S moves by at most R and n not at all, and a GPU counts only if n >= 0.9 T, so S D / n moves by R T tick / n
  <= R tick / 0.9; rounding down to whole mJ moves it to the next integer at most. The counter moves by the energy of
  one update: between 0 and `clip_high_w` times `event_ms`; clipping never widens a difference. Reading and counter
  are two sensors, so the two add up. An update that spreads over two windows moves both counters, by the same energy
  in all, because a counter reading is taken at a tick of its window and no two spans overlap: the sum over windows is
  bounded all the same. m readings: m times as much. (A GPU that draws x times `clip_high_w` on average over a whole
  update loses up to x times the epsilon of this release: enrol the clip range above the model's overshoot.)
- `glitches`, 2. The reading at t is compared at ticks t-1, t and t+1 only; if t is a spike it is above both neighbours,
  hence they are none. So of the three either {t} or a part of {t-1, t+1} are spikes: 0, 1 or 2, a difference of 2.
  m readings: m times as much (fewer in truth).

Which ticks are present does not depend on values; a counter is left out if it was not read or runs backwards, which a
sound one never does, whatever is drawn. So neighbours agree on both. "In a row" means in m ticks in a row: those
without a reading are counted. Windows and panes are disjoint (parallel composition); the releases of a window see the
same reading and add up. Classes are disjoint as well and share one scale per release, the one of the widest class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from power_model.noise import discrete_laplace_bound
from producers.config import ClassProfile, Schedule
from producers.distil import MIN_PRESENT_PERCENT
from schemas.contract import group_size_of
from schemas.errors import ConfigError
from schemas.records import PrivacyParameters, PrivacyRelease

MICRO = 1_000_000
TRANSITIONS_L1 = 4
TRANSITIONS_L2_SQUARED = 6
HISTOGRAM_L1 = 2
HISTOGRAM_L2_SQUARED = 2
GLITCHES_L1 = 2
RELEASES = ("transitions", "pane_sums", "histogram", "energy_residual", "glitches")
"""Every statistic that may be released, in the order of the statement."""
MIN_EPSILON_MICRO = 10_000
"""Smallest budget of one release that a worker accepts, millionths: less drowns its physics checks in noise."""
OVERFLOW_PROBABILITY = 2.0**-100
"""Chance per draw, at most, that a noisy value does not fit into its integer."""
MAX_INT32 = 2**31 - 1
MAX_INT64 = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Privacy loss per reading and window in millionths of epsilon, per release; windows of the w-event statement.

    0 for all but transitions and pane sums: not released. `default_budget` says how the defaults are split.
    """

    transitions_micro: int = 100_000
    pane_sums_micro: int = 550_000
    histogram_micro: int = 350_000
    w_event_windows: int = 1
    energy_residual_micro: int = 0
    glitches_micro: int = 0

    def __post_init__(self) -> None:
        if min(self.transitions_micro, self.pane_sums_micro, self.w_event_windows) <= 0:
            raise ConfigError("transitions and pane sums need a positive epsilon; w is at least 1", field="budget")
        if min(self.histogram_micro, self.energy_residual_micro, self.glitches_micro) < 0:
            raise ConfigError("an epsilon is never negative; 0 releases nothing", field="budget")

    @property
    def total_micro(self) -> int:
        """Loss of one reading over all releases, millionths."""
        small = self.energy_residual_micro + self.glitches_micro
        return self.transitions_micro + self.pane_sums_micro + self.histogram_micro + small


def default_budget(*, energy: bool) -> Budget:
    """Return the default split of 1.0 for a source without (False) or with (True) an energy counter and live sensors.

    Most goes to the pane sums: they carry the swing of the fleet. The histogram carries what panes average away, the
    shape of the power inside a second, and holds the window's mean; transitions are left what the released chain needs
    (ADR 22). Where there is a counter, panes give up 0.05 and the histogram 0.03: the noise of a one-second pane of 32
    hosts with a clip range of 700 W grows from 1.02 kW to 1.12 kW. For it, 0.05 buys the energy residual with a
    standard deviation of 4.7 kJ, 1.9 % of what eight such GPUs draw in a minute at 500 W: a sensor that is off by 1 %
    is seen within an hour (35 windows, three sigmas). 0.03 buys the count of spikes with one of 94 per window: a broken
    sensor, one reading in 400, is seen within a day (9 hours), a single glitch never.
    `benchmarks/budget.py` computes these, and other splits beside them (`docs/privacy.md`).
    """
    if not energy:
        return Budget()
    return Budget(
        transitions_micro=100_000,
        pane_sums_micro=500_000,
        histogram_micro=320_000,
        energy_residual_micro=50_000,
        glitches_micro=30_000,
    )


def event_epsilon_micro(budget: Budget, readings: int) -> int:
    """Privacy loss of `readings` consecutive readings of one GPU, in millionths, rounded up.

    m readings in a row take part in at most m + 1 transitions, hence L1 = 2 (m + 1), and move the rest m times.
    """
    transitions = -(-budget.transitions_micro * (readings + 1) // 2)
    return transitions + (budget.total_micro - budget.transitions_micro) * readings


def energy_residual_l1(clip_low_w: int, clip_high_w: int, tick_ms: int) -> int:
    """Sensitivity of the energy residual to one reading and the energy behind it, mJ (proof: this module)."""
    integrated = -(-(clip_high_w - clip_low_w) * tick_ms * 100 // MIN_PRESENT_PERCENT)
    return integrated + clip_high_w * event_ms(tick_ms)


def event_ms(tick_ms: int) -> int:
    """Longest update of a sensor behind one reading, ms: sensors update every 20 to 104 ms; a quarter on top."""
    return -(-max(tick_ms, 100) * 5 // 4)


def privacy_parameters(budget: Budget, classes: Sequence[ClassProfile], schedule: Schedule) -> PrivacyParameters:
    """Return the statement that every report of a host with these classes carries: every release that is drawn.

    `epsilon_total_micro` multiplies by the group size (simple group privacy). `w_event_epsilon_micro` is the loss of
    an event that lasts w whole windows and changes every reading of one GPU in them.
    Raises `ConfigError` if a noisy value might not fit into 32 bits (the energy residual: 64).
    """
    group = group_size_of(classes[0].source.sampler_mode)
    lasting = budget.w_event_windows * schedule.ticks + group - 1
    return PrivacyParameters(
        mode="EDGE",
        mechanism="discrete_laplace",
        unit_of_privacy="reading",
        releases=tuple(_releases(budget, classes, schedule)),
        epsilon_total_micro=group * budget.total_micro,
        group_size=group,
        w_event_windows=budget.w_event_windows,
        w_event_epsilon_micro=event_epsilon_micro(budget, lasting),
        delta_pico_absent_reason="pure_epsilon",
        rho_micro_absent_reason="pure_epsilon",
    )


def check_budget(parameters: PrivacyParameters, policy_max_epsilon_micro: int) -> None:
    """Refuse to start what every worker would refuse: more loss than the policy allows, or a release with too little.

    Raises `ConfigError`: `BUDGET_EXCEEDED` (the group cost of an averaging sensor included), `BUDGET_TOO_SMALL`.
    """
    if parameters.epsilon_total_micro > policy_max_epsilon_micro:
        group = f", {parameters.group_size} readings per event" if parameters.group_size > 1 else ""
        raise ConfigError(
            f"epsilon {parameters.epsilon_total_micro / MICRO:g} per window and event{group}; "
            f"the policy allows {policy_max_epsilon_micro / MICRO:g}",
            code="BUDGET_EXCEEDED",
            field="budget",
            remedy="Lower the budget, use a sensor with instant power, or have the policy's limit raised.",
        )
    for release in parameters.releases:
        if release.epsilon_micro < MIN_EPSILON_MICRO:
            raise ConfigError(
                f"{release.release} has epsilon {release.epsilon_micro / MICRO:g}, less than "
                f"{MIN_EPSILON_MICRO / MICRO:g}",
                code="BUDGET_TOO_SMALL",
                field=f"budget.{release.release}_micro",
                remedy="Give the release more of the budget; 0 leaves out histogram, energy residual or glitches.",
            )


def _releases(budget: Budget, classes: Sequence[ClassProfile], schedule: Schedule) -> Iterator[PrivacyRelease]:
    clip_range = 10 * max(c.clip_high_w - c.clip_low_w for c in classes)
    transitions = _release("transitions", "count", TRANSITIONS_L1, TRANSITIONS_L2_SQUARED, budget.transitions_micro)
    pane_sums = _release("pane_sums", "deciwatt_sample", clip_range, clip_range**2, budget.pane_sums_micro)
    for item in classes:
        _check_fits(transitions, item.source.gpus * (schedule.ticks - 1), MAX_INT32)
        _check_fits(pane_sums, item.source.gpus * schedule.ticks_per_pane * item.clip_high_w * 10, MAX_INT32)
    yield from (transitions, pane_sums)
    if budget.histogram_micro:
        histogram = _release("histogram", "count", HISTOGRAM_L1, HISTOGRAM_L2_SQUARED, budget.histogram_micro)
        for item in classes:
            _check_fits(histogram, item.source.gpus * schedule.ticks, MAX_INT32)
        yield histogram
    if budget.energy_residual_micro:
        l1 = max(energy_residual_l1(c.clip_low_w, c.clip_high_w, schedule.tick_ms) for c in classes)
        energy = _release("energy_residual", "millijoule", l1, l1**2, budget.energy_residual_micro)
        for item in classes:
            _check_fits(energy, item.source.gpus * item.clip_high_w * schedule.window_ms, MAX_INT64)
        yield energy
    if budget.glitches_micro:
        glitches = _release("glitches", "count", GLITCHES_L1, GLITCHES_L1**2, budget.glitches_micro)
        for item in classes:
            _check_fits(glitches, item.source.gpus * schedule.ticks, MAX_INT32)
        yield glitches


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


def _check_fits(release: PrivacyRelease, largest: int, most: int) -> None:
    noise = discrete_laplace_bound(OVERFLOW_PROBABILITY, release.scale_micro / MICRO)
    if largest + noise > most:
        raise ConfigError(
            f"{release.release}: up to {largest} plus noise up to {noise} does not fit into "
            f"{most.bit_length() + 1} bits; use more epsilon, a narrower clip range or shorter panes",
            field=release.release,
        )
