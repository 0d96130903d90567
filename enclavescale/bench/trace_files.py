"""Power traces of a directory, complete on the 10-Hz grid: what the GPUs of a benchmark's fleet draw.

Two layouts. With `manifest.json` its entries name Parquet files and say what GPU, nominal limit, workload and kind of
reading they hold. Without it every `*.parquet` and `*.csv` below the directory is a trace, and what a manifest would
say is taken from the data (`workload_of`, `nominal_limit_w`); file names mean nothing.

A logger that polls a little slower than 10 Hz, or stalls, leaves ticks without a reading. Here a tick takes the
nearest reading of its GPU, because these series are the truth that estimates are compared with; a silence of more
than `MAX_GAP_TICKS` cuts a trace in two, and the longer part is used.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from producers.errors import TraceError
from producers.sample.nvidia_smi import MAX_GPUS, MAX_POWER_W, NvidiaSmiLog, Reading, raw_lines
from producers.sample.resample import Resampler, to_array

TICK_MS = 100
MAX_INTERVAL_S = 0.15
"""Median time between two readings of a GPU beyond which a log cannot carry 10-Hz figures."""
MAX_GAP_TICKS = 100
MIN_TICKS = 200
"""Shortest trace that is used, 20 s: less says little of how a load moves."""
MAX_FILE_BYTES, MAX_ROWS, MAX_TIME_S = 1 << 30, 10_000_000, 1e11
"""Ten million rows are eight GPUs for a day and a half."""
TRAINING, INFERENCE, IDLE = "training", "inference", "idle"
TRAINING_CORRELATION = 0.8
"""Mean pairwise correlation above which the GPUs of a log are taken to run one job in step."""
IDLE_SHARE = 0.25
LIMITS_W = (72, 75, 150, 165, 200, 250, 300, 350, 400, 450, 500, 575, 600, 700, 750, 1000, 1200, 1400)
"""Nominal limits of boards on the market, W."""
INSTANT, AVERAGE, UNKNOWN = MODES = ("instant", "average", "unknown")

Powers = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchTrace:
    """One trace: `power_w` float32[gpus, ticks] at 10 Hz without holes, and what is known of it.

    `mode`: instant, average or unknown; `filled_ppm`: share of ticks that took a neighbour's reading.
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


class Unusable(Exception):
    """A sound file that the benchmark cannot use."""


def read_traces(directory: Path, *, tdp_w: int | None = None) -> TraceSet:
    """Read every trace of `directory`; `tdp_w` replaces the nominal limit where no manifest states one, W.

    Raises `TraceError` for a directory, manifest or file that cannot be read, or if nothing is left.
    """
    if not directory.is_dir():
        raise TraceError(f"{directory} is not a directory", field="traces", remedy="Name a directory with traces.")
    manifest = directory / "manifest.json"
    entries = list(_listed(directory, manifest) if manifest.is_file() else _found(directory))
    traces, skipped = [], []
    for path, name, facts in entries:
        try:
            traces.append(read_trace(path, name, facts, tdp_w))
        except Unusable as why:
            skipped.append(Skipped(name, str(why)))
    if not traces:
        raise TraceError(
            f"no usable trace among {len(entries)} files" + (f"; the first: {skipped[0].reason}" if skipped else ""),
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
        yield directory / file, str(entry.get("trace") or file), entry


def _found(directory: Path) -> Iterator[tuple[Path, str, Mapping[str, Any]]]:
    for path in sorted(directory.rglob("*")):
        if path.suffix.lower() in {".parquet", ".csv"} and path.is_file():
            yield path, path.relative_to(directory).as_posix(), {}


def read_trace(path: Path, name: str, facts: Mapping[str, Any], tdp_w: int | None) -> BenchTrace:
    """Return the trace of one file, named `name`, with what a manifest says of it in `facts`.

    The nominal limit, W, is the manifest's, else the log's, else `tdp_w`, else guessed from the readings. Raises
    `TraceError` if the file cannot be read, `Unusable` if it holds no power or too little of it.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise TraceError(f"larger than {MAX_FILE_BYTES >> 20} MiB")
        log = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    except OSError as error:
        raise TraceError(f"{name}: cannot be read: {error.strerror or error}", field="traces") from error
    except TraceError as error:
        raise TraceError(f"{name}: {error}", field="traces") from error
    power_w, filled = complete(log.power_w)
    mode = mode_of(str(facts.get("power_kind", ""))) if log.mode == UNKNOWN else log.mode
    return BenchTrace(
        name=name,
        gpu=str(facts.get("gpu") or log.gpu or "GPU"),
        tdp_w=_stated_w(facts.get("tdp_w")) or log.limit_w or tdp_w or nominal_limit_w(power_w),
        workload=str(facts.get("workload") or workload_of(power_w)).lower(),
        mode=mode,
        power_w=power_w,
        filled_ppm=filled,
    )


def _stated_w(value: object) -> int | None:
    """A nominal limit as a manifest states it, W; a grid of ten states needs 10 W."""
    return round(value) if isinstance(value, int | float) and 10 <= value <= MAX_POWER_W else None


@dataclass(frozen=True, slots=True)
class _Log:
    """A log on ticks, NaN = no reading; what it says of the sensor and the board."""

    power_w: Powers
    mode: str = UNKNOWN
    gpu: str | None = None
    limit_w: int | None = None


def _on_ticks(readings: list[Reading]) -> Powers:
    """Put a log's readings on the tick grid; refuse logs that were polled too slowly."""
    times: dict[int, list[int]] = {}
    for reading in readings:
        times.setdefault(reading.gpu, []).append(reading.time_ms)
    steps = [np.diff(np.array(one)) for one in times.values() if len(one) > 1]
    median_s = float(np.median(np.concatenate(steps))) / 1000 if steps else math.inf
    if median_s > MAX_INTERVAL_S:
        raise Unusable(f"polled every {median_s:g} s, slower than {MAX_INTERVAL_S:g} s")
    return to_array(Resampler(TICK_MS).ticks(readings))


def _parquet(path: Path) -> _Log:
    column = read_columns(path, ("timestamp_s", "power_w"), ("gpu_id", "power_instant_w"))
    time_s, power_w, mode = column["timestamp_s"], column["power_w"], UNKNOWN
    instant = column.get("power_instant_w")
    if instant is not None and 10 * np.count_nonzero(np.isfinite(instant)) >= 9 * instant.size:
        power_w, mode = instant, INSTANT
    gpu = column.get("gpu_id", np.zeros(time_s.size))
    use = np.isfinite(time_s) & np.isfinite(power_w) & (power_w >= 0) & (np.abs(time_s) < MAX_TIME_S)
    use &= (gpu >= 0) & (gpu < MAX_GPUS)
    if not use.any():
        raise TraceError("no reading in the file")
    order = np.argsort(time_s[use], kind="stable")
    time_ms = np.rint(time_s[use][order] * 1000).astype(np.int64).tolist()
    gpus = gpu[use][order].astype(np.int64).tolist()
    powers = np.minimum(power_w[use][order], MAX_POWER_W).tolist()
    return _Log(_on_ticks(list(map(Reading, time_ms, gpus, powers))), mode)


def read_columns(path: Path, needed: Sequence[str], wanted: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
    """Columns of a Parquet file as float64, missing values NaN; of `wanted` those that are there.

    Raises `TraceError` for what is no Parquet file, lacks a column or has one that is not numeric.
    """
    import pyarrow as pa  # noqa: PLC0415  an agent on a host need not hold it in memory
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with pq.ParquetFile(path) as file:
            names = set(file.schema_arrow.names)
            if not set(needed) <= names:
                raise TraceError(f"lacks a column: needs {' and '.join(needed)}")
            if file.metadata.num_rows > MAX_ROWS:
                raise TraceError(f"more than {MAX_ROWS} rows")
            table = file.read(columns=[*needed, *(one for one in wanted if one in names)])
        if any(not (pa.types.is_integer(one.type) or pa.types.is_floating(one.type)) for one in table.schema):
            raise TraceError("a column is not numeric")
        return {
            name: np.asarray(table.column(name).cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)
            for name in table.column_names
        }
    except pa.ArrowException as error:
        raise TraceError("not a Parquet file that can be read") from error


def _csv(path: Path) -> _Log:
    with path.open("rb") as stream:
        log = NvidiaSmiLog(raw_lines(stream))
        readings = list(itertools.islice(log, MAX_ROWS + 1))
    if not readings:
        raise TraceError("no reading in the log")
    if len(readings) > MAX_ROWS:
        raise TraceError(f"more than {MAX_ROWS} lines")
    mode = log.sampler_mode if log.sampler_mode in {INSTANT, AVERAGE} else UNKNOWN
    first = _first_line(path)
    if first and "index" not in first:
        readings = by_place(readings)
    limit = next((first[one] for one in ("power.limit", "enforced.power.limit") if one in first), "")
    found = re.fullmatch(r"(\d{2,5})(?:\.\d+)?(?: W)?", limit, re.ASCII)
    return _Log(_on_ticks(readings), mode, first.get("name"), int(found[1]) if found else None)


def _first_line(path: Path) -> dict[str, str]:
    """Header and first line of a log, by column; empty without a header."""
    with path.open("rb") as stream:
        lines = [line.decode("ascii", "replace").strip() for line in itertools.islice(raw_lines(stream), 2)]
    if len(lines) < 2 or "timestamp" not in lines[0]:
        return {}
    names = [part.strip().split(" [")[0] for part in lines[0].split(",")]
    return dict(zip(names, (part.strip() for part in lines[1].split(",")), strict=False))


def by_place(readings: list[Reading]) -> list[Reading]:
    """Tell the GPUs of a log without an index apart by their place in each round of polling.

    A round ends where the time to the next line is more than half of what it usually is between rounds. Only a log
    nine tenths of whose rounds have the same number of lines is taken so; its other rounds are left out.
    """
    steps = np.diff(np.array([one.time_ms for one in readings]))
    if steps.size < 2:
        return readings
    ends = np.flatnonzero(2 * steps > np.quantile(steps, 0.95)) + 1
    rounds = [readings[a:b] for a, b in itertools.pairwise([0, *ends.tolist(), len(readings)])]
    size, count = Counter(map(len, rounds)).most_common(1)[0]
    if size == 1 or size > MAX_GPUS or 10 * count < 9 * len(rounds):
        return readings
    whole = (one for one in rounds if len(one) == size)
    return [reading._replace(gpu=place) for one in whole for place, reading in enumerate(one)]


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
