"""Facts of the records that writer and reader must agree on, stated once."""

from __future__ import annotations

PROTOCOL = "enclavescale/1"
"""`SessionBinding.protocol`."""

FIRST_MILE_GRADES = ("NONE", "GPU_ATTESTED", "SPDM_MEASURED", "SPDM_SESSION", "TDISP")
"""How far the way from sensor to enclave is authenticated, worst first (design, section 2)."""

PANE_SUM_QUANTUM_MW = 100
"""Unit of pane sums, mW: a decimal place finer than any sensor's error, and 2^31 units are 214 MW samples."""

HISTOGRAM_BINS = 64
"""Bins of equal width over a class's clip range: of 11 W where that is 0 to 700 W."""

HISTOGRAM_CELLS = HISTOGRAM_BINS + 1
"""Values of `GpuClass.histogram`: the bins, then the cell of the ticks without a reading."""

AVERAGE_GROUP = 11
"""Readings that one physical event of 100 ms touches where the sensor averages over one second (10 to 11)."""


def histogram_edges_w(clip_low_w: int, clip_high_w: int) -> tuple[float, ...]:
    """Edges of the histogram's bins, W, `HISTOGRAM_BINS` + 1 of them, exact: 64 is a power of two.

    A reading, clipped and rounded to 0.1 W as for the pane sums, lies in bin floor((x - low) * 64 / (high - low)):
    on an edge in the bin above it, at the upper clip bound in the last.
    """
    width_w = (clip_high_w - clip_low_w) / HISTOGRAM_BINS
    return tuple(clip_low_w + index * width_w for index in range(HISTOGRAM_BINS + 1))


def group_size_of(sampler_mode: str) -> int:
    """Readings one physical event touches: 1 for instant power, 11 for an average, and for legacy, which may be one."""
    return 1 if sampler_mode == "instant" else AVERAGE_GROUP
