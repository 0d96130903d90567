"""Facts of the records that writer and reader must agree on, stated once."""

from __future__ import annotations

PROTOCOL = "enclavescale/1"
"""`SessionBinding.protocol`."""

FIRST_MILE_GRADES = ("NONE", "GPU_ATTESTED", "SPDM_MEASURED", "SPDM_SESSION", "TDISP")
"""How far the way from sensor to enclave is authenticated, worst first (design, section 2)."""

PANE_SUM_QUANTUM_MW = 100
"""Unit of pane sums, mW: a decimal place finer than any sensor's error, and 2^31 units are 214 MW samples."""

AVERAGE_GROUP = 11
"""Readings that one physical event of 100 ms touches where the sensor averages over one second (10 to 11)."""


def group_size_of(sampler_mode: str) -> int:
    """Readings one physical event touches: 1 for instant power, 11 for an average, and for legacy, which may be one."""
    return 1 if sampler_mode == "instant" else AVERAGE_GROUP
