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
from producers.privacy import MICRO, RELEASES
from schemas.records import PrivacyParameters, PrivacyRelease

ROUNDING = 1.0 + 2.0**-50
"""OpenDP rounds its privacy loss up by at most a few ulp; the exact quotient was checked when the scale was set."""


NOT_IN_BUDGET = "not_in_budget"
"""Why a release is absent that the budget gives nothing."""


@dataclass(frozen=True, slots=True)
class Noisy:
    """Private statistics of one GPU class: little-endian int32 in the shape of `Distilled`; may be negative.

    `histogram` and `glitches` are None where the budget gives them nothing, `energy_residual_mj` (mJ) is None with a
    reason where it is not released. There is no field for glitches: a metric carries them, and like everything here
    they may leave the process only once the window is in the spool.
    """

    transitions: npt.NDArray[np.int32]
    pane_sums: npt.NDArray[np.int32]
    histogram: npt.NDArray[np.int32] | None = None
    energy_residual_mj: int | None = None
    energy_absent_reason: str | None = NOT_IN_BUDGET
    glitches: int | None = None


class Privatiser:
    """Adds the noise that `parameters` state; one object per host, its measurements are made once.

    Raises `ValueError` if a release is missing or unknown or its scale does not keep its epsilon.
    """

    def __init__(self, parameters: PrivacyParameters) -> None:
        enable_features("contrib")  # make_laplace is proven, yet still behind this flag in OpenDP 0.16
        releases = {release.release: release for release in parameters.releases}
        if not {"transitions", "pane_sums"} <= set(releases) <= set(RELEASES):
            raise ValueError(f"releases must be transitions and pane_sums, and of {', '.join(RELEASES)}")
        self.parameters = parameters
        self._measurements = {name: _measurement(release) for name, release in releases.items()}

    def privatise(self, exact: Distilled) -> Noisy:
        """Draw fresh noise for every value. Call once per window: a second draw would spend the budget again."""
        residual, reason = exact.energy_residual_mj, exact.energy_absent_reason
        if "energy_residual" not in self._measurements:
            residual, reason = None, NOT_IN_BUDGET
        return Noisy(
            transitions=self.add_noise("transitions", exact.transitions).astype("<i4"),
            pane_sums=self.add_noise("pane_sums", exact.pane_sums).astype("<i4"),
            histogram=(
                self.add_noise("histogram", exact.histogram).astype("<i4")
                if "histogram" in self._measurements
                else None
            ),
            energy_residual_mj=None if residual is None else self._one("energy_residual", residual),
            energy_absent_reason=reason if residual is None else None,
            glitches=self._one("glitches", exact.glitches) if "glitches" in self._measurements else None,
        )

    def add_noise(self, release: str, exact: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return `exact` with independent noise on every value, same shape: the one place where noise is drawn.

        Raises `KeyError` for a release that the budget gives nothing.
        """
        measurement, integer = self._measurements[release]
        # OpenDP looks at every item of a list; an array of its own integer is taken as it is.
        noisy = measurement(np.ascontiguousarray(exact.ravel(), dtype=integer))
        return np.array(noisy, dtype=np.int64).reshape(exact.shape)

    def _one(self, release: str, exact: int) -> int:
        return int(self.add_noise(release, np.array([exact]))[0])


def _measurement(release: PrivacyRelease) -> tuple[Any, np.dtype[np.signedinteger[Any]]]:
    # Saturation inside OpenDP is post-processing; privacy.py has refused scales that come near it.
    integer = "i64" if release.release == "energy_residual" else "i32"
    space = vector_domain(atom_domain(T=integer)), l1_distance(T=integer)
    measurement: Any = make_laplace(*space, scale=release.scale_micro / MICRO)
    if measurement.map(release.sensitivity_l1) > release.epsilon_micro / MICRO * ROUNDING:
        raise ValueError(f"{release.release}: scale {release.scale_micro} does not keep its epsilon")
    return measurement, np.dtype(integer.replace("i", "int"))
