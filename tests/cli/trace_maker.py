"""Directories of made-up traces: training in step, inference, idle; as Parquet or nvidia-smi logs."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

START_S = 1_700_000_000.0
TDP_W = 400


def training(seed: int, gpus: int = 4, ticks: int = 900) -> np.ndarray:
    """Steps of some seconds that all GPUs make together, float32[gpus, ticks], W."""
    rng = np.random.default_rng(seed)
    level, values = 350.0, []
    while len(values) < ticks:
        level = 120.0 if level > 200 else 350.0
        values += [level] * int(rng.integers(15, 60))
    return (np.array(values[:ticks]) + rng.normal(0, 6, (gpus, ticks))).astype(np.float32)


def inference(seed: int, ticks: int = 700) -> np.ndarray:
    """A random walk between 100 and 380 W, float32[1, ticks]."""
    walk = np.cumsum(np.random.default_rng(seed).normal(0, 12, ticks)) + 240
    return (100 + np.abs((walk - 100) % 560 - 280))[None].astype(np.float32)


def idle(seed: int, ticks: int = 400) -> np.ndarray:
    """One start that soon ends, then nothing, float32[1, ticks]."""
    power = 60 + np.random.default_rng(seed).normal(0, 0.5, (1, ticks))
    power[0, :12] = 300
    return power.astype(np.float32)


TRACES: dict[str, tuple[str, np.ndarray]] = {
    "t1": ("training", training(1)),
    "t2": ("training", training(2)),
    "i1": ("inference", inference(3)),
    "i2": ("inference", inference(4)),
    "z1": ("idle", idle(5)),
}


def parquet(path: Path, power_w: np.ndarray, *, step_s: float = 0.1, **columns: Any) -> None:
    """Write float[gpus, ticks] as the traces are written; NaN: no row."""
    gpus, ticks = power_w.shape
    at = np.repeat(START_S + step_s * np.arange(ticks), gpus)
    gpu, power = np.tile(np.arange(gpus), ticks), power_w.T.ravel()
    keep = ~np.isnan(power)
    table = {
        "timestamp_s": pa.array(at[keep]),
        "gpu_id": pa.array(gpu[keep], pa.int16()),
        "power_w": pa.array(power[keep], pa.float32()),
        **{name: pa.array(value) for name, value in columns.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), path)


def log(path: Path, power_w: np.ndarray, *, index: bool = True, board: tuple[str, int] | None = None) -> None:
    """Write float[gpus, ticks] as nvidia-smi would, lines of one round a millisecond apart."""
    names = [
        "timestamp",
        *(["index"] if index else []),
        *(["name", "power.limit [W]"] if board else []),
        "power.draw [W]",
    ]
    lines = [", ".join(names)]
    begin = datetime.fromtimestamp(START_S, UTC)
    for tick, column in enumerate(power_w.T):
        for gpu, power in enumerate(column):
            at = begin + timedelta(milliseconds=100 * tick + gpu)
            stamp = at.strftime("%Y/%m/%d %H:%M:%S.") + f"{at.microsecond // 1000:03d}"
            cells = [stamp, *([str(gpu)] if index else [])]
            cells += [board[0], f"{board[1]}.00 W"] if board else []
            lines.append(", ".join([*cells, f"{power:.2f} W"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def manifest(directory: Path, names: list[str] | None = None, **changes: Any) -> Path:
    """A directory of `TRACES` with a manifest; `changes` go into every entry."""
    entries = []
    for name in names or list(TRACES):
        workload, power_w = TRACES[name]
        parquet(directory / "data" / f"{name}.parquet", power_w)
        entry = {
            "file": f"data/{name}.parquet",
            "trace": name,
            "gpu": "X400",
            "tdp_w": TDP_W,
            "workload": workload,
            "power_kind": "power.draw (instantaneous)" if name in {"i1", "t1"} else "power.draw (1 s boxcar)",
        }
        entries.append({**entry, **changes})
    (directory / "manifest.json").write_text(json.dumps({"version": 1, "traces": entries}))
    return directory


def plain(directory: Path) -> Path:
    """The same traces without a word about them, under names that say nothing."""
    for number, (_, power_w) in enumerate(TRACES.values()):
        parquet(directory / f"{number}.parquet", power_w)
    return directory
