"""The bundled traces as traces of a benchmark's fleet."""

from __future__ import annotations

from enclavescale.bench.trace_files import MIN_TICKS, BenchTrace, complete, nominal_limit_w, workload_of
from enclavescale.bench.trace_log import MODES, UNKNOWN
from producers.sample.trace import bundled_names, load_bundled


def bundled_traces() -> tuple[BenchTrace, ...]:
    """Every bundled trace that lasts long enough; none of them has several GPUs, so one of them stands for each job."""
    traces = []
    for name in bundled_names():
        trace = load_bundled(name)
        if trace.power_w.shape[1] < MIN_TICKS:
            continue
        power_w, filled_ppm = complete(trace.power_w)
        stated = trace.provenance.get("tdp_w_nominal")
        traces.append(
            BenchTrace(
                name=name,
                gpu=trace.gpu_model,
                tdp_w=stated if isinstance(stated, int) and stated > 0 else nominal_limit_w(power_w),
                workload=workload_of(power_w),
                mode=trace.sampler_mode if trace.sampler_mode in MODES else UNKNOWN,
                power_w=power_w,
                filled_ppm=filled_ppm,
            )
        )
    return tuple(traces)
