"""Make the bundled traces from a clone of JimZeyuYang/GPU_Power_Benchmark: python -m producers.traces.build CLONE.

The clone must be at the commit that is recorded below. Logs polled every 7-14 ms are put on the 10-Hz tick grid
with the same code that reads a user's log.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from producers.sample.trace import SUFFIX, format_trace, read_nvidia_smi

REPOSITORY = "https://github.com/JimZeyuYang/GPU_Power_Benchmark"
COMMIT = "4b5c944c2454bcb52f28b975c5484aff1a78368f"


class Origin(NamedTuple):
    """A log of the repository; `mode_reason` where the sampler mode is not the column's own."""

    name: str
    path: str
    gpu_model: str
    tdp_w: int
    column: str
    mode_reason: str | None = None


ORIGINS = (
    Origin("a100_square", "pwr_update_freq/A100_gpudata.csv", "A100-PCIE-40GB", 250, "power.draw.instant"),
    Origin("a100_step", "Transient_Response/A100_TR/gpudata.csv", "A100-PCIE-40GB", 250, "power.draw.instant"),
    Origin("v100_square", "pwr_update_freq/V100_gpudata.csv", "V100-SXM2-16GB", 300, "power.draw.instant"),
    Origin("rtx3090_square", "pwr_update_freq/3090_gpudata.csv", "RTX 3090", 350, "power.draw.instant"),
    Origin(
        "rtx4090_step",
        "Transient_Response/4090_TR/gpudata.csv",
        "RTX 4090",
        450,
        "power.draw",
        "power.draw with a 100-ms window (driver 530): the step from 52 to 380 W takes three readings, not ten",
    ),
)


def build(clone: Path, target: Path) -> None:
    """Write one trace file per origin into `target`; prints what was met in the logs."""
    for origin in ORIGINS:
        trace, log, ticks = read_nvidia_smi(
            clone / "plotting" / "data" / origin.path, column=origin.column, gpu_model=origin.gpu_model
        )
        provenance = {
            "repository": REPOSITORY,
            "path": f"plotting/data/{origin.path}",
            "commit": COMMIT,
            "licence": "MIT, Copyright (c) 2023 Zeyu Yang; see NOTICE.md",
            "column": origin.column,
            "sampler_mode_reason": origin.mode_reason or "the column's own meaning",
            "tdp_w_nominal": origin.tdp_w,
            "workload": "square-wave or step microbenchmark of the power sensor",
            "changes": "put on a 10-Hz grid (nearest reading within 50 ms), rounded to 0.1 W, times dropped",
        }
        made = replace(trace, sampler_mode="instant", provenance=provenance)
        (target / (origin.name + SUFFIX)).write_bytes(format_trace(made))
        print(origin.name, trace.power_w.shape, log, ticks)


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(__file__).parent)
