"""Power traces of a directory, complete on the 10-Hz grid: what the GPUs of a benchmark's fleet draw.

Two layouts. With `manifest.json` its entries name Parquet files and say what GPU, nominal limit, workload and kind of
reading they hold. Without it every `*.parquet` and `*.csv` below the directory is a trace, and what a manifest would
say is taken from the data (`workload_of`, `nominal_limit_w`); file names mean nothing.

A logger that polls a little slower than 10 Hz, or stalls, leaves ticks without a reading. Here a tick takes the
nearest reading of its GPU, because these series are the truth that estimates are compared with; a silence of more
than `MAX_GAP_TICKS` cuts a trace in two, and the longer part is used.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from enclavescale.bench.trace_csv import csv_log
from enclavescale.bench.trace_log import AVERAGE, INSTANT, UNKNOWN, Powers, Unusable
from enclavescale.bench.trace_parquet import parquet_log
from producers.errors import TraceError
from producers.sample.nvidia_smi import MAX_POWER_W

MAX_GAP_TICKS = 100
MIN_TICKS = 200
"""Shortest trace that is used, 20 s: less says little of how a load moves."""
MAX_FILE_BYTES = 1 << 30
TRAINING, INFERENCE, IDLE = WORKLOADS = ("training", "inference", "idle")
WORKLOAD_WORDS = {
    **dict.fromkeys(("train", "training", "pretraining", "finetuning", "tuning"), TRAINING),
    **dict.fromkeys(("inference", "serve", "serving", "prefill", "decode", "decoding"), INFERENCE),
    **dict.fromkeys(("idle", "idling"), IDLE),
}
"""Words by which a manifest says what a GPU did."""
TRAINING_CORRELATION = 0.8
"""Mean pairwise correlation above which the GPUs of a log are taken to run one job in step."""
IDLE_SHARE = 0.25
LIMITS_W = (72, 75, 150, 165, 200, 250, 300, 350, 400, 450, 500, 575, 600, 700, 750, 1000, 1200, 1400)
"""Nominal limits of boards on the market, W."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchTrace:
    """One trace: `power_w` float32[gpus, ticks] at 10 Hz without holes, and what is known of it.

    `workload`: one of `WORKLOADS`, or a manifest's other words: the fleets make no use of those. `mode`: instant,
    average or unknown; `filled_ppm`: share of ticks that took a neighbour's reading.
    """

    name: str
    gpu: str
    tdp_w: int
    workload: str
    mode: str
    power_w: Powers
    filled_ppm: int

    @property
    def model(self) -> str:
        """GPU class: model and nominal limit."""
        return f"{self.gpu} ({self.tdp_w} W)"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is not used, and why."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class TraceSet:
    """The traces that can be used and the files that cannot."""

    traces: tuple[BenchTrace, ...]
    skipped: tuple[Skipped, ...]


def read_traces(directory: Path, *, tdp_w: int | None = None) -> TraceSet:
    """Read every trace of `directory`; `tdp_w` replaces the nominal limit where no manifest states one, W.

    A file that cannot be read is an error where a manifest names it; otherwise it is skipped like one that cannot be
    used. Raises `TraceError` for a directory, manifest or file that cannot be read, or if nothing is left.
    """
    if not directory.is_dir():
        raise TraceError(f"{directory} is not a directory", field="traces", remedy="Name a directory with traces.")
    manifest = directory / "manifest.json"
    listed = manifest.is_file()
    entries = list(_listed(directory, manifest) if listed else _found(directory))
    traces, skipped = [], []
    for path, name, facts in entries:
        try:
            traces.append(read_trace(path, name, facts, tdp_w))
        except Unusable as why:
            skipped.append(Skipped(name, str(why)))
        except TraceError as why:
            if listed:
                raise
            skipped.append(Skipped(name, str(why).removeprefix(f"{name}: ")))
    if not traces:
        first = f"; the first: {skipped[0].file}: {skipped[0].reason}" if skipped else ""
        raise TraceError(
            f"no usable trace among {len(entries)} files{first}",
            field="traces",
            remedy="Traces are Parquet files or nvidia-smi CSV logs polled at about 10 Hz for 20 s or more.",
        )
    return TraceSet(tuple(traces), tuple(skipped))


def _listed(directory: Path, manifest: Path) -> Iterator[tuple[Path, str, Mapping[str, Any]]]:
    try:
        document = json.loads(manifest.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise TraceError("manifest.json is not a JSON document", field="traces") from error
    entries = document.get("traces") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries:
        raise TraceError("manifest.json lists no traces", field="traces")
    root = directory.resolve()
    for entry in entries:
        file = entry.get("file") if isinstance(entry, dict) else None
        if not isinstance(file, str) or "\0" in file or not (directory / file).resolve().is_relative_to(root):
            raise TraceError("an entry of manifest.json names no file inside the directory", field="traces")
        yield directory / file, _plain(str(entry.get("trace") or file)), entry


def _found(directory: Path) -> Iterator[tuple[Path, str, Mapping[str, Any]]]:
    for path in sorted(directory.rglob("*")):
        if path.suffix.lower() in {".parquet", ".csv"} and path.is_file():
            yield path, _plain(path.relative_to(directory).as_posix()), {}


def read_trace(path: Path, name: str, facts: Mapping[str, Any], tdp_w: int | None) -> BenchTrace:
    """Return the trace of one file, named `name`, with what a manifest says of it in `facts`.

    The nominal limit, W, is the manifest's, else the log's, else `tdp_w`, else guessed from the readings. Raises
    `TraceError` if the file cannot be read, `Unusable` if it holds no power or too little of it.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise TraceError(f"larger than {MAX_FILE_BYTES >> 20} MiB")
        log = parquet_log(path) if path.suffix.lower() == ".parquet" else csv_log(path)
    except OSError as error:
        raise TraceError(f"{name}: cannot be read: {error.strerror or error}", field="traces") from error
    except TraceError as error:
        raise TraceError(f"{name}: {error}", field="traces") from error
    power_w, filled = complete(log.power_w)
    mode = mode_of(str(facts.get("power_kind", ""))) if log.mode == UNKNOWN else log.mode
    return BenchTrace(
        name=name,
        gpu=_plain(str(facts.get("gpu") or log.gpu or "GPU")),
        tdp_w=_stated_w(facts.get("tdp_w")) or log.limit_w or tdp_w or nominal_limit_w(power_w),
        workload=stated_workload(_plain(str(facts["workload"]))) if facts.get("workload") else workload_of(power_w),
        mode=mode,
        power_w=power_w,
        filled_ppm=filled,
    )


def _stated_w(value: object) -> int | None:
    """A nominal limit as a manifest states it, W; a grid of ten states needs 10 W."""
    return round(value) if isinstance(value, int | float) and 10 <= value <= MAX_POWER_W else None


def _plain(text: str) -> str:
    """Text as a record can hold it: half of a surrogate pair, which JSON lets through, becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def complete(power_w: Powers) -> tuple[Powers, int]:
    """Fill the holes of float32[gpus, ticks] from the nearest reading of the row; ppm of ticks filled.

    Rows without a reading are dropped. Of stretches between silences of more than `MAX_GAP_TICKS` (of any GPU) the
    longest is kept. Raises `Unusable` if it is shorter than `MIN_TICKS`.
    """
    rows = power_w[~np.isnan(power_w).all(axis=1)]
    ticks = np.arange(rows.shape[1])
    silent = np.zeros(rows.shape[1], dtype=np.bool_)
    nearest = np.empty(rows.shape, dtype=np.int64)
    for index, row in enumerate(rows):
        known = np.flatnonzero(~np.isnan(row))
        at = np.searchsorted(known, ticks)
        before = known[np.maximum(at - 1, 0)]
        after = known[np.minimum(at, known.size - 1)]
        nearest[index] = np.where(np.abs(ticks - before) <= np.abs(after - ticks), before, after)
        inside = (at > 0) & (at < known.size)
        silent |= np.where(inside, after - before > MAX_GAP_TICKS + 1, ticks != nearest[index])
    silent[np.isfinite(rows).all(axis=0)] = False
    start, end = _longest(~silent)
    if end - start < MIN_TICKS:
        raise Unusable(f"{(end - start) / 10:g} s without a long silence, shorter than {MIN_TICKS / 10:g} s")
    filled = np.take_along_axis(rows, nearest, axis=1)[:, start:end]
    holes = int(np.count_nonzero(np.isnan(rows[:, start:end])))
    return np.ascontiguousarray(filled), holes * 1_000_000 // filled.size


def _longest(flags: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Begin and end of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    runs = list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
    return max(runs, key=lambda run: run[1] - run[0], default=(0, 0))


def stated_workload(text: str) -> str:
    """The one of `WORKLOADS` that a manifest's words speak of; the words themselves if it is none, or several."""
    found = {WORKLOAD_WORDS[word] for word in re.findall("[a-z]+", text.lower()) if word in WORKLOAD_WORDS}
    return found.pop() if len(found) == 1 else text.lower()


def workload_of(power_w: Powers) -> str:
    """Training if several GPUs move in step, idle if the mean stays far below the peak, inference otherwise."""
    if power_w.shape[0] > 1 and in_step(power_w):
        return TRAINING
    return IDLE if float(power_w.mean()) < IDLE_SHARE * float(power_w.max()) else INFERENCE


def in_step(power_w: Powers) -> bool:
    """Whether the GPUs of float32[gpus, ticks] move together; one GPU alone does."""
    if power_w.shape[0] == 1:
        return True
    moving = power_w[power_w.std(axis=1) > 0].astype(np.float64)
    if len(moving) < 2:
        return False
    together = np.corrcoef(moving)[np.triu_indices(len(moving), 1)]
    return float(together.mean()) > TRAINING_CORRELATION


def nominal_limit_w(power_w: Powers) -> int:
    """The smallest board limit that 99.9 % of the readings stay below, W."""
    high = float(np.quantile(power_w, 0.999))
    return next((limit for limit in LIMITS_W if limit >= high), math.ceil(high / 100) * 100)


def mode_of(power_kind: str) -> str:
    """Kind of reading from a manifest's words: an average over a second, instantaneous, or unknown."""
    words = power_kind.lower()
    if "boxcar" in words or "average" in words:
        return AVERAGE
    return INSTANT if "instant" in words else UNKNOWN


def clip_high_w(traces: Sequence[BenchTrace]) -> int:
    """Upper clip bound of a class, W: 1.1 times the nominal limit, or what covers its traces, up to 1.5 times."""
    tdp_w = traces[0].tdp_w
    seen_w = math.ceil(max(float(one.power_w.max()) for one in traces))
    usual, most = -(-11 * tdp_w // 100), -(-15 * tdp_w // 100)
    return 10 * min(max(usual, -(-seen_w // 10)), most)
