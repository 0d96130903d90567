"""Influence bounds of a set of hosts, from the policy alone: what an attack's effect is held against.

A host's power lies in its GPUs' clip ranges, whatever it reports, so that all it can move is the width of its range,
scaled as its class is scaled to the enrolled capacity. Mean and quantile are both monotone in every host's power and
move by no more than the power does.
"""

from __future__ import annotations

from collections.abc import Sequence

from producers.config import ClassProfile
from schemas.records import DomainRule, FleetPower


def influence_bounds_w(
    outputs: Sequence[FleetPower], rule: DomainRule, profiles: Sequence[ClassProfile], liars: Sequence[int]
) -> list[tuple[float, float]]:
    """Return for every output how far `liars` together may move mean and margin, W."""
    result = []
    for _ in outputs:
        span_w = sum(
            profiles[one].source.gpus * (profiles[one].clip_high_w - profiles[one].clip_low_w) for one in liars
        )
        result.append((float(span_w), float(span_w)))
    return result
