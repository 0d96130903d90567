"""Synthetic traces of released models: made, compared with real ones, written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from enclavescale.synthesize_outputs import Released
from power_model.spectrum import BANDS_HZ, MIN_SEGMENTS_S, compare
from power_model.synthesis import AUTO, Synthetic, synthesise
from producers.sample.nvidia_smi import SAMPLER_MODES
from producers.sample.source import Readings
from producers.sample.trace import Trace, format_trace
from schemas.errors import ConfigError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TRACE_SUFFIXES = (".json", ".csv", ".parquet")
PLOT_SUFFIXES = (".png", ".svg", ".pdf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is synthesised: `seconds` None: as long as the release; `gpus` None: as many as the real trace, or 8."""

    seconds: float | None = None
    gpus: int | None = None
    seed: int = 0
    synchrony: str = AUTO


@dataclass(frozen=True, slots=True)
class Run:
    """One released model, the trace drawn from it, and the real trace it is compared with."""

    name: str
    released: Released
    synthetic: Synthetic
    real_w: Readings | None

    @property
    def sample_hz(self) -> int:
        """Sampling rate, Hz."""
        return self.released.model.sample_hz

    def as_json(self, wanted: Wanted) -> dict[str, Any]:
        """What was drawn and how well it agrees, JSON-ready."""
        drawn, model = self.synthetic, self.released.model
        return {
            "name": self.name,
            "origin": self.released.origin,
            "gpu_model": self.released.gpu_model,
            "gpus": drawn.power_w.shape[0],
            "seconds": drawn.power_w.shape[1] / self.sample_hz,
            "sample_hz": self.sample_hz,
            "seed": wanted.seed,
            "released_s": model.seconds,
            "bootstrapped_s": round(drawn.bootstrapped_s, 3),
            "synchrony": round(drawn.synchrony, 3),
            "gpus_in_step": drawn.in_step,
            "pane_noise_w": round(math.sqrt(max(window.noise_w2 for window in model.windows)), 3),
            "mean_w": round(float(drawn.power_w.mean()), 2),
            "p99_w": round(float(np.quantile(drawn.power_w, 0.99)), 2),
            "comparison": self.comparison(),
        }

    def comparison(self) -> dict[str, Any] | None:
        """Each GPU by itself and the sum of all, W per GPU; `halves`: what the real trace's halves differ by."""
        if self.real_w is None:
            return None
        real, made, hz = self.real_w.astype(np.float64), self.synthetic.power_w, self.sample_hz
        half = real.shape[1] // 2
        long = half >= MIN_SEGMENTS_S * hz
        return {
            "gpu": compare(real, made, hz).as_json(),
            "total": compare(total_w(real), total_w(made), hz).as_json(),
            "halves": compare(real[:, :half], real[:, half:], hz).as_json() if long else None,
        }


def total_w(power_w: np.ndarray) -> np.ndarray:
    """Power of all GPUs together, W per GPU, [1, ticks]; a tick without all readings is missing."""
    return np.asarray(power_w.mean(axis=0, keepdims=True))


def synthesize(name: str, released: Released, wanted: Wanted, real_w: Readings | None = None) -> Run:
    """Draw a trace from a released model. Raises ConfigError as `power_model.synthesis.synthesise` does."""
    gpus = wanted.gpus or (8 if real_w is None else real_w.shape[0])
    drawn = synthesise(released.model, seconds=wanted.seconds, gpus=gpus, seed=wanted.seed, synchrony=wanted.synchrony)
    return Run(name, released, drawn, real_w)


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All runs, and medians over those that were compared."""
    compared = [run["comparison"]["gpu"] for run in runs if run["comparison"]]
    if not compared:
        return {"runs": list(runs), "median": None}
    return {
        "runs": list(runs),
        "median": {
            "traces": len(compared),
            "spectral_distance_db": {
                band: round(median(one["spectral_distance_db"][band] for one in compared), 2) for band in BANDS_HZ
            },
            "spectral_bias_db": {
                band: round(median(one["spectral_bias_db"][band] for one in compared), 2) for band in BANDS_HZ
            },
            "ks": {
                step: round(median(one["ramps"][step]["ks"] for one in compared), 4) for step in compared[0]["ramps"]
            },
            "acf_rmse": round(median(one["acf_rmse"] for one in compared), 4),
            "mean_error_w": round(median(abs(one["mean_error_w"]) for one in compared), 3),
            "std_error_w": round(median(abs(one["std_error_w"]) for one in compared), 3),
        },
    }


def trace_of(run: Run, wanted: Wanted) -> Trace:
    """The synthetic trace in this project's terms."""
    mode = run.released.sampler_mode
    if mode not in SAMPLER_MODES.values():
        raise ConfigError(f"unknown sampler mode {mode!r}", field="sampler_mode")
    provenance = {"origin": "synthetic", "released": run.released.origin, "seed": wanted.seed}
    return Trace(run.synthetic.power_w.astype(np.float32), run.sample_hz, mode, run.released.gpu_model, provenance)


def check_target(path: Path, suffixes: Sequence[str], what: str) -> None:
    """Refuse a file that could not be written, before the work: ConfigError for another suffix or no directory."""
    if path.suffix.lower() not in suffixes:
        raise ConfigError(f"{path.name}: a {what} is written as {', '.join(suffixes)}", field=what)
    if not path.parent.is_dir():
        raise ConfigError(f"{path.name}: its directory does not exist", field=what)


def write_trace(path: Path, run: Run, wanted: Wanted) -> None:
    """Write the synthetic trace: `.json` this project's format, `.csv` an nvidia-smi log, `.parquet`.

    Raises ConfigError for another suffix or a file that cannot be written.
    """
    writers: dict[str, Callable[[Path, Run, Wanted], None]] = {
        ".json": _write_own,
        ".csv": _write_csv,
        ".parquet": _write_parquet,
    }
    check_target(path, TRACE_SUFFIXES, "trace")
    try:
        writers[path.suffix.lower()](path, run, wanted)
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be written: {error.strerror or error}", field="trace") from error


def _write_own(path: Path, run: Run, wanted: Wanted) -> None:
    path.write_bytes(format_trace(trace_of(run, wanted)))


def _write_csv(path: Path, run: Run, wanted: Wanted) -> None:
    trace = trace_of(run, wanted)
    column = next(name for name, mode in SAMPLER_MODES.items() if mode == trace.sampler_mode)
    begin = EPOCH + timedelta(milliseconds=run.released.start_ms)
    lines = [f"timestamp, index, {column} [W]"]
    for tick, powers in enumerate(trace.power_w.T):
        moment = begin + timedelta(seconds=tick / trace.sample_hz)
        stamp = f"{moment:%Y/%m/%d %H:%M:%S}.{moment.microsecond // 1000:03d}"
        lines += [f"{stamp}, {gpu}, {power:.2f} W" for gpu, power in enumerate(powers)]
    path.write_text("\n".join(lines) + "\n")


def _write_parquet(path: Path, run: Run, wanted: Wanted) -> None:
    trace = trace_of(run, wanted)
    gpus, ticks = trace.power_w.shape
    times = run.released.start_ms / 1000 + np.arange(ticks) / trace.sample_hz
    import pyarrow as pa  # noqa: PLC0415  45 MiB that no other command needs
    import pyarrow.parquet as pq  # noqa: PLC0415

    table = pa.table(
        {
            "timestamp_s": np.repeat(times, gpus),
            "gpu_id": np.tile(np.arange(gpus, dtype=np.int16), ticks),
            "power_w": trace.power_w.T.ravel(),
        }
    )
    pq.write_table(table, path)
