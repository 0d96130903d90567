"""What the readers of Parquet and CSV share: limits, moments in every form that is unambiguous, the tick grid."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from producers.sample.nvidia_smi import Reading
from producers.sample.resample import Resampler, to_array

TICK_MS = 100
MAX_INTERVAL_S = 0.15
"""Median time between two readings of a GPU beyond which a log cannot carry 10-Hz figures."""
MAX_ROWS, MAX_TIME_S = 10_000_000, 1e11
"""Ten million rows are eight GPUs for a day and a half."""
INSTANT, AVERAGE, UNKNOWN = MODES = ("instant", "average", "unknown")
PER_S = (1.0, 1e3, 1e6, 1e9)
"""Units of epoch times: s, ms, us, ns. Moments between 1974 and 5138 are told apart by their size alone."""

Powers = npt.NDArray[np.float32]

_NUMBER = re.compile(r"\d{1,20}(?:\.\d*)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Unusable(Exception):
    """A sound file that the benchmark cannot use."""


@dataclass(frozen=True, slots=True)
class Log:
    """A log on ticks, float32[gpus, ticks], NaN = no reading; what it says of the sensor and the board."""

    power_w: Powers
    mode: str = UNKNOWN
    gpu: str | None = None
    limit_w: int | None = None


def unit_per_s(time: float) -> float:
    """How many units of a positive epoch time are a second, by its size. Raises `Unusable` beyond nanoseconds."""
    for unit in PER_S:
        if time < MAX_TIME_S * unit:
            return unit
    raise Unusable("times are no seconds, milliseconds, microseconds or nanoseconds since 1970")


def moment_ms(word: str) -> int | None:
    """UTC ms of an ISO 8601 time (without a zone UTC), one with slashes, or an epoch time; None for anything else."""
    if _NUMBER.fullmatch(word):
        number = float(word)
        return round(number / unit_per_s(number) * 1000) if number < MAX_TIME_S * PER_S[-1] else None
    try:
        moment = datetime.fromisoformat(word.replace("/", "-"))
        span = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    except (ValueError, OverflowError):
        return None
    return round(1000 * span.total_seconds())


def on_ticks(readings: list[Reading]) -> Powers:
    """Put a log's readings on the tick grid; refuse logs that were polled too slowly."""
    times: dict[int, list[int]] = {}
    for reading in readings:
        times.setdefault(reading.gpu, []).append(reading.time_ms)
    steps = [np.diff(np.array(one)) for one in times.values() if len(one) > 1]
    if not steps:
        raise Unusable("one reading of every GPU is no trace")
    median_s = float(np.median(np.concatenate(steps))) / 1000
    if median_s > MAX_INTERVAL_S or not math.isfinite(median_s):
        raise Unusable(f"polled every {median_s:g} s, slower than {MAX_INTERVAL_S:g} s")
    return to_array(Resampler(TICK_MS).ticks(readings))
