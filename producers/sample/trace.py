"""Power traces as a source of readings: bundled ones, files of this project and nvidia-smi logs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from producers.errors import TraceError
from producers.sample.nvidia_smi import SAMPLER_MODES, LogStats, NvidiaSmiLog, raw_lines
from producers.sample.resample import Resampler, ResampleStats, to_array
from producers.sample.source import NO_CONDITIONS, Conditions, Readings
from schemas.errors import ConfigError

FORMAT = "enclavescale-trace/1"
MAX_TRACE_BYTES = 64 * 1024 * 1024
"""Largest trace file of this project's own format that is read; the bundled ones have a few kilobytes."""
MAX_DECIWATTS = 100_000
SUFFIX = ".trace.json"


@dataclass(frozen=True, slots=True)
class Trace:
    """Readings on the tick grid, float32[gpus, ticks] in W, NaN = missing, and where they come from."""

    power_w: Readings
    sample_hz: int
    sampler_mode: str
    gpu_model: str
    provenance: Mapping[str, Any]


def bundled_names() -> tuple[str, ...]:
    """Return the names of the bundled traces, sorted."""
    files = resources.files("producers").joinpath("traces").iterdir()
    return tuple(sorted(f.name.removesuffix(SUFFIX) for f in files if f.name.endswith(SUFFIX)))


def load_bundled(name: str) -> Trace:
    """Return a bundled trace; raises `ConfigError` for an unknown name."""
    if name not in bundled_names():
        raise ConfigError(f"no bundled trace {name!r}; there are {', '.join(bundled_names())}", field="trace")
    return parse_trace(resources.files("producers").joinpath("traces", name + SUFFIX).read_bytes())


def parse_trace(data: bytes) -> Trace:
    """Read this project's trace format: JSON with integer deciwatts per GPU and tick, null where missing.

    Keys: `format` ("enclavescale-trace/1"), `sample_hz`, `sampler_mode`, `gpu_model`, `provenance` (object) and
    `deciwatts` (one list per GPU, equally long). Raises `TraceError` for anything else.
    """
    if len(data) > MAX_TRACE_BYTES:
        raise TraceError("trace file too large")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TraceError("not a JSON document") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise TraceError(f"not a {FORMAT} document")
    hz, mode = document.get("sample_hz"), document.get("sampler_mode")
    model, provenance = document.get("gpu_model"), document.get("provenance")
    if type(hz) is not int or not 1 <= hz <= 1000 or 1000 % hz:
        raise TraceError("sample_hz must divide 1000", field="sample_hz")
    if mode not in SAMPLER_MODES.values():
        raise TraceError("unknown sampler_mode", field="sampler_mode")
    if not isinstance(model, str) or not isinstance(provenance, dict):
        raise TraceError("gpu_model or provenance is missing")
    return Trace(_power(document.get("deciwatts")), hz, str(mode), model, provenance)


def _power(rows: object) -> Readings:
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) and row for row in rows):
        raise TraceError("deciwatts must be one non-empty list per GPU", field="deciwatts")
    if any(len(row) != len(rows[0]) for row in rows):
        raise TraceError("GPUs with different numbers of ticks", field="deciwatts")
    if not all(x is None or (type(x) is int and 0 <= x <= MAX_DECIWATTS) for row in rows for x in row):
        raise TraceError("a reading must be an integer number of deciwatts or null", field="deciwatts")
    return np.array([[np.nan if x is None else x / 10.0 for x in row] for row in rows], dtype=np.float32)


def format_trace(trace: Trace) -> bytes:
    """Return a trace in this project's format; readings are rounded to 0.1 W."""
    rows = [[None if np.isnan(x) else int(np.rint(np.float64(x) * 10.0)) for x in row] for row in trace.power_w]
    head = {
        "format": FORMAT,
        "sample_hz": trace.sample_hz,
        "sampler_mode": trace.sampler_mode,
        "gpu_model": trace.gpu_model,
        "provenance": dict(trace.provenance),
    }
    # One GPU per line keeps the file readable and its differences small.
    body = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    return (json.dumps(head, indent=1)[:-2] + ',\n "deciwatts": [\n' + body + "\n ]\n}\n").encode()


def read_nvidia_smi(
    path: Path, *, sample_hz: int = 10, column: str | None = None, gpu_model: str = "unknown"
) -> tuple[Trace, LogStats, ResampleStats]:
    """Read an nvidia-smi CSV log of any length line by line and put it on the tick grid.

    Returns the trace and what was met on the way. Raises `TraceError` if the file cannot be opened or has no
    reading, `ConfigError` if `sample_hz` does not divide 1000.
    """
    resampler = Resampler(tick_ms_of(sample_hz))
    try:
        with path.open("rb") as stream:
            log = NvidiaSmiLog(raw_lines(stream), column=column)
            power_w = to_array(resampler.ticks(log))
    except OSError as error:
        raise TraceError(f"cannot read the log: {error.strerror}") from error
    trace = Trace(power_w, sample_hz, log.sampler_mode, gpu_model, {"origin": path.name})
    return trace, log.stats, resampler.stats


def tick_ms_of(sample_hz: int) -> int:
    """Return the time between two ticks, ms; raises `ConfigError` if `sample_hz` does not divide 1000."""
    if not 1 <= sample_hz <= 1000 or 1000 % sample_hz:
        raise ConfigError("sample_hz must divide 1000", field="sample_hz")
    return 1000 // sample_hz


class TraceSource:
    """Replay a trace for ever on `gpus` GPUs: what a GPU reads at a time is a function of time and seed alone.

    GPU g follows row g (modulo the rows) at tick + base + jitter_g. `seed` fixes both: hosts with one seed run one
    synchronised job. `spread_ticks` bounds the jitter (0: in step); None gives every GPU an offset of its own, like
    unrelated inference. The step from the trace's end to its start is one transition that nobody measured, once per
    loop. A reading here is a line of the log: a log polled faster than the sensor updates repeats sensor readings,
    and the privacy statement then speaks of lines.
    """

    kind = "trace"

    def __init__(self, trace: Trace, *, gpus: int, seed: str, spread_ticks: int | None = 0) -> None:
        if gpus < 1 or (spread_ticks is not None and spread_ticks < 0):
            raise ConfigError("a trace needs at least one GPU and a spread of 0 ticks or more", field="gpus")
        self.trace = trace
        self._tick_ms = tick_ms_of(trace.sample_hz)
        length = trace.power_w.shape[1]
        spread = length if spread_ticks is None else min(spread_ticks + 1, length)
        base = _draw(seed, "base", length)
        self._offsets = [base + _draw(seed, f"gpu {g}", spread) for g in range(gpus)]

    @property
    def gpus(self) -> int:
        """Number of GPUs."""
        return len(self._offsets)

    @property
    def sampler_mode(self) -> str:
        """Kind of reading of the trace."""
        return self.trace.sampler_mode

    def window(self, start_ms: int, end_ms: int) -> Readings:
        """Return float32[gpus, ticks] of [start_ms, end_ms); raises `ValueError` unless both lie on a tick."""
        if start_ms % self._tick_ms or end_ms % self._tick_ms or end_ms <= start_ms:
            raise ValueError("a window begins and ends on a tick")
        rows, length = self.trace.power_w.shape
        ticks = np.arange(start_ms // self._tick_ms, end_ms // self._tick_ms, dtype=np.int64)
        return np.stack(
            [self.trace.power_w[g % rows, (ticks + offset) % length] for g, offset in enumerate(self._offsets)]
        )

    def conditions(self, start_ms: int, end_ms: int) -> Conditions:
        """Return `NO_CONDITIONS`: a log says nothing about its sampler."""
        return NO_CONDITIONS

    def windows(self, start_ms: int, window_ms: int) -> Iterator[Readings]:
        """Yield one window after the other from `start_ms` on, without end."""
        while True:
            yield self.window(start_ms, start_ms + window_ms)
            start_ms += window_ms


def _draw(seed: str, what: str, bound: int) -> int:
    """Return a number below `bound`, the same everywhere: SHA-256 rather than a library's generator."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{what}".encode()).digest()[:8], "big") % bound
