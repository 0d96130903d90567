"""What colluding hosts claim: strategies as pure functions of a host's true readings and of what the fleet draws.

The colluders pass verification (their reports are genuine and signed), know the true power of the whole fleet and act
together. A strategy replaces the readings of a host; `push` asks for more than readings can say: the largest or the
smallest pane sums that the core's physics checks still let through.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Powers = npt.NDArray[np.float64]

STEALTH_DRIFT = 0.10
"""Stealth: claims creep up to so much above what is drawn, over the first half of the attack, and stay there."""
FROG_STEPS = (0.0025, 0.01, 0.04)
"""Frog-boiling: claims rise by one of these shares of the capacity every window; the worst of them is reported."""
SWING_TICKS = 40
"""Fake swing: all colluders go up and down together with this period, four seconds at 10 Hz."""
INFLATION = 2
"""Capacity inflation: the factor by which a host states more capacity than is enrolled, at full power."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What a colluder knows of one window.

    `own_w` float[gpus, ticks]: true readings of its GPUs. `fleet_share` float[ticks]: power of the whole fleet over
    its capacity. `window`: number of the window in the attack, from 0, of `windows`. `step`: of frog-boiling.
    """

    own_w: Powers
    fleet_share: Powers
    gpu_capacity_w: float
    clip_low_w: int
    clip_high_w: int
    window: int
    windows: int
    step: float = FROG_STEPS[0]


@dataclass(frozen=True, slots=True)
class Lie:
    """What a colluder reports: readings float[gpus, ticks], W; +1 or -1 pushes them to the limits of physics.

    `capacity_factor`: how many times the enrolled capacity it states.
    """

    readings_w: Powers
    push: int = 0
    capacity_factor: int = 1


Strategy = Callable[[Scene], Lie]


def most(scene: Scene) -> Lie:
    """All GPUs at the top of the clip range, and above it as far as the bounds for noise allow."""
    return Lie(np.full_like(scene.own_w, scene.clip_high_w), push=1)


def zero(scene: Scene) -> Lie:
    """All GPUs at the bottom of the clip range, and below it as far as the bounds for noise allow."""
    return Lie(np.full_like(scene.own_w, scene.clip_low_w), push=-1)


def sign_flip(scene: Scene) -> Lie:
    """Deviations from the fleet's mean utilisation change their sign, tick by tick."""
    centre_w = scene.fleet_share * scene.gpu_capacity_w
    return Lie(_clipped(2.0 * centre_w - scene.own_w, scene))


def stealth(scene: Scene) -> Lie:
    """Claims creep up to 10 % above the truth over the first half of the attack, and stay there."""
    share = min(1.0, 2.0 * (scene.window + 1) / scene.windows)
    return Lie(_clipped(scene.own_w * (1.0 + STEALTH_DRIFT * share), scene))


def frog_boiling(scene: Scene) -> Lie:
    """Every window a little more than the one before."""
    return Lie(_clipped(scene.own_w + scene.step * (scene.window + 1) * scene.gpu_capacity_w, scene))


def fake_swing(scene: Scene) -> Lie:
    """The true mean, drawn as a square wave over the whole clip range that all colluders follow in step."""
    span_w = float(scene.clip_high_w - scene.clip_low_w)
    share = (float(scene.own_w.mean()) - scene.clip_low_w) / span_w
    on = np.arange(scene.own_w.shape[1]) % SWING_TICKS < round(SWING_TICKS * share)
    return Lie(np.broadcast_to(np.where(on, float(scene.clip_high_w), scene.clip_low_w), scene.own_w.shape).copy())


def capacity_inflation(scene: Scene) -> Lie:
    """Full power, and more capacity stated than is enrolled, to weigh more."""
    return Lie(np.full_like(scene.own_w, scene.clip_high_w), capacity_factor=INFLATION)


STRATEGIES: dict[str, Strategy] = {
    "max": most,
    "zero": zero,
    "sign_flip": sign_flip,
    "stealth": stealth,
    "frog_boiling": frog_boiling,
    "fake_swing": fake_swing,
    "capacity_inflation": capacity_inflation,
}


def variants(name: str) -> tuple[float, ...]:
    """Parameters with which a strategy is tried: the attacker takes the worst for the fleet."""
    return FROG_STEPS if name == "frog_boiling" else FROG_STEPS[:1]


def _clipped(power_w: Powers, scene: Scene) -> Powers:
    return np.clip(power_w, scene.clip_low_w, scene.clip_high_w)
