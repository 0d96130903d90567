"""Noise: OpenDP's exact discrete Laplace sampler, added once to exact integers.

Randomness: OpenDP's wheels draw from OpenSSL's generator, which the operating system seeds and which is seeded again
after a fork (two hosts forked from one process must not share noise: tested).

What leaves here is released raw. Nothing is clipped, rounded or normalised after the noise: negative counts are
right, the fleet's sum is projected once (MARGIN).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from opendp.domains import atom_domain, vector_domain
from opendp.measurements import make_laplace
from opendp.metrics import l1_distance
from opendp.mod import enable_features

from producers.distil import Distilled
from producers.privacy import MICRO
from schemas.records import PrivacyParameters, PrivacyRelease

ROUNDING = 1.0 + 2.0**-50
"""OpenDP rounds its privacy loss up by at most a few ulp; the exact quotient was checked when the scale was set."""


@dataclass(frozen=True, slots=True)
class Noisy:
    """Private statistics of one GPU class: little-endian int32 in the shape of `Distilled`; may be negative."""

    transitions: npt.NDArray[np.int32]
    pane_sums: npt.NDArray[np.int32]


class Privatiser:
    """Adds the noise that `parameters` state; one object per host, its measurements are made once.

    Raises `ValueError` if a release is missing or its scale does not keep its epsilon.
    """

    def __init__(self, parameters: PrivacyParameters) -> None:
        enable_features("contrib")  # make_laplace is proven, yet still behind this flag in OpenDP 0.16
        releases = {release.release: release for release in parameters.releases}
        if set(releases) != {"transitions", "pane_sums"}:
            raise ValueError("releases must be transitions and pane_sums")
        self.parameters = parameters
        self._transitions = _measurement(releases["transitions"])
        self._pane_sums = _measurement(releases["pane_sums"])

    def privatise(self, exact: Distilled) -> Noisy:
        """Draw fresh noise for every cell. Call once per window: a second draw would spend the budget again."""
        return Noisy(_add(self._transitions, exact.transitions), _add(self._pane_sums, exact.pane_sums))


def _measurement(release: PrivacyRelease) -> Any:
    # Saturation at 32 bits inside OpenDP is post-processing; privacy.py has refused scales that come near it.
    space = vector_domain(atom_domain(T="i32")), l1_distance(T="i32")
    measurement: Any = make_laplace(*space, scale=release.scale_micro / MICRO)
    if measurement.map(release.sensitivity_l1) > release.epsilon_micro / MICRO * ROUNDING:
        raise ValueError(f"{release.release}: scale {release.scale_micro} does not keep its epsilon")
    return measurement


def _add(measurement: Any, exact: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    noisy = measurement(exact.ravel().tolist())
    return np.array(noisy, dtype="<i4").reshape(exact.shape)
