"""Power traces in Parquet: columns as numbers, GPU ids and times in the forms that loggers write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from enclavescale.bench.trace_log import INSTANT, MAX_ROWS, MAX_TIME_S, UNKNOWN, Log, moment_ms, on_ticks, unit_per_s
from producers.errors import TraceError
from producers.sample.nvidia_smi import MAX_GPUS, MAX_POWER_W, Reading

TIME, POWER, GPU, INSTANT_POWER = "timestamp_s", "power_w", "gpu_id", "power_instant_w"

Floats = npt.NDArray[np.float64]


def parquet_log(path: Path) -> Log:
    """Read a trace. Raises `TraceError` for what cannot be read, `Unusable` for one polled too slowly; `OSError`."""
    column = read_columns(path, (TIME, POWER), (GPU, INSTANT_POWER))
    time_s, power_w, mode = column[TIME], column[POWER], UNKNOWN
    instant = column.get(INSTANT_POWER)
    if instant is not None and 10 * np.count_nonzero(np.isfinite(instant)) >= 9 * instant.size:
        power_w, mode = instant, INSTANT
    gpu = column.get(GPU, np.zeros(time_s.size))
    timed = np.isfinite(time_s) & (np.abs(time_s) < MAX_TIME_S)
    powered = np.isfinite(power_w) & (power_w >= 0)
    known = (gpu >= 0) & (gpu < MAX_GPUS)
    use = timed & powered & known
    if not use.any():
        lacking = [
            f"{np.count_nonzero(~fine)} have {what}"
            for fine, what in (
                (timed, "no time"),
                (powered, "no power of 0 W or more"),
                (known, f"no GPU id from 0 to {MAX_GPUS - 1}"),
            )
            if not fine.all()
        ]
        raise TraceError(f"no reading in the file: of {use.size} rows " + (", ".join(lacking) or "none is left"))
    order = np.argsort(time_s[use], kind="stable")
    time_ms = np.rint(time_s[use][order] * 1000).astype(np.int64).tolist()
    gpus = gpu[use][order].astype(np.int64).tolist()
    powers = np.minimum(power_w[use][order], MAX_POWER_W).tolist()
    return Log(on_ticks(list(map(Reading, time_ms, gpus, powers))), mode)


def read_columns(path: Path, needed: Sequence[str], wanted: Sequence[str]) -> dict[str, Floats]:
    """Columns of a Parquet file as float64, missing values NaN; of `wanted` those that are there.

    Times (timestamps, ISO 8601 text, epoch numbers in s, ms, us or ns) become seconds; GPU ids that are text become
    their place in the sorted ids. Raises `TraceError` for what is no Parquet file, lacks a column, has it twice, or
    has one of another type.
    """
    import pyarrow as pa  # noqa: PLC0415  an agent on a host need not hold it in memory
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if not set(needed) <= set(names):
                raise TraceError(f"lacks a column: needs {' and '.join(needed)}")
            chosen = [*needed, *(one for one in wanted if one in names)]
            twice = [one for one in chosen if names.count(one) > 1]
            if twice:
                raise TraceError(f"has column {twice[0]} {names.count(twice[0])} times")
            if file.metadata.num_rows > MAX_ROWS:
                raise TraceError(f"more than {MAX_ROWS} rows")
            table = file.read(columns=chosen)
        return {name: _numbers(name, table.column(name)) for name in chosen}
    except (pa.ArrowException, ValueError, KeyError) as error:  # also of a name that is no text
        raise TraceError("not a Parquet file that can be read") from error


def _numbers(name: str, column: Any) -> Floats:
    """A pyarrow column as float64: numbers, and what times and GPU ids may be beside them."""
    import pyarrow as pa  # noqa: PLC0415

    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if name == TIME and pa.types.is_timestamp(kind):
        return _floats(column.cast(pa.timestamp("us", tz=kind.tz), safe=False).cast(pa.int64())) / 1e6
    if name == TIME and text:
        return _seconds_of_text(column.to_pylist())
    if name == GPU and text:
        words = column.to_pylist()
        place = {word: index for index, word in enumerate(sorted({word for word in words if word is not None}))}
        return np.array([place.get(word, np.nan) for word in words], dtype=np.float64)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise TraceError(f"column {name} holds {kind}, not numbers")
    return _epoch_s(_floats(column)) if name == TIME else _floats(column)


def _floats(column: Any) -> Floats:
    import pyarrow as pa  # noqa: PLC0415

    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)


def _epoch_s(time: Floats) -> Floats:
    """Times in the unit that the size of most of them says, s."""
    known = np.abs(time[np.isfinite(time)])
    return time / unit_per_s(float(np.median(known))) if known.size else time


def _seconds_of_text(words: Sequence[str | None]) -> Floats:
    found = [None if word is None else moment_ms(word.strip()) for word in words]
    if words and all(one is None for one in found):
        shown = next((word for word in words if word), "")
        raise TraceError(f"column {TIME} holds no time that is understood, such as {shown[:40]!r}")
    return np.array([np.nan if one is None else one / 1000 for one in found], dtype=np.float64)
