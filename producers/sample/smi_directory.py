"""Directories of nvidia-smi logs: the files of one host's GPUs as one trace, or of several hosts as one trace each.

Files may have any name; hidden ones and subdirectories are passed over, whatever else is not a log stops the reading.
Every file is opened once and read line by line. The same log twice, by a link or as a copy, would count its GPUs
twice and is refused.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from producers.errors import TraceError
from producers.sample.nvidia_smi import MAX_GPUS, LogStats, NvidiaSmiLog, Reading, raw_lines
from producers.sample.resample import Resampler, ResampleStats, to_array
from producers.sample.source import Readings
from producers.sample.trace import Trace, tick_ms_of

MAX_LOGS = 256
"""Most files of a directory: all logs of one host are open at the same time."""


@dataclass(frozen=True, slots=True)
class DirectoryTrace:
    """A trace and what was met on the way: lines by file, readings on the grid. Rows: files by name, GPUs by index."""

    trace: Trace
    logs: dict[str, LogStats]
    ticks: ResampleStats


def read_directory(
    directory: Path, *, sample_hz: int = 10, column: str | None = None, gpu_model: str = "unknown"
) -> DirectoryTrace:
    """Read all logs of a directory as those of one host, put side by side by their times.

    Raises `TraceError` if there is no log, one has no reading, one cannot be read, two are the same, they mix sampler
    modes or do not overlap in time; `ConfigError` if `sample_hz` does not divide 1000.
    """
    resampler = Resampler(tick_ms_of(sample_hz))
    paths = _paths(directory)
    with ExitStack() as stack:
        logs = [_Log(stack.enter_context(_open(path)), path.name, column) for path in paths]
        try:
            merged = heapq.merge(*(one.readings(rank) for rank, one in enumerate(logs)), key=_time)
            power_w = _array(resampler.ticks(merged), directory.name)
        except OSError as error:
            raise TraceError(f"{directory.name}: cannot read a log: {error.strerror}") from error
        _check(logs)
    _check_overlap(logs, power_w)
    return _result(directory, logs, power_w, sample_hz, gpu_model, resampler.stats)


def read_hosts(
    directory: Path, *, sample_hz: int = 10, column: str | None = None, gpu_model: str = "unknown"
) -> dict[str, DirectoryTrace]:
    """Read every log of a directory as that of a host of its own; the key is the file's name without its last suffix.

    Raises as `read_directory`, and for two files whose names differ in the suffix alone.
    """
    hosts: dict[str, DirectoryTrace] = {}
    seen: list[_Log] = []
    for path in _paths(directory):
        if path.stem in hosts:
            raise TraceError(f"{directory.name}: two logs of host {path.stem}")
        resampler = Resampler(tick_ms_of(sample_hz))
        with _open(path) as stream:
            log = _Log(stream, path.name, column)
            try:
                power_w = _array(resampler.ticks(log.readings(0)), path.name)
            except OSError as error:
                raise TraceError(f"{path.name}: cannot read the log: {error.strerror}") from error
        seen.append(log)
        _check(seen)
        hosts[path.stem] = _result(directory, [log], power_w, sample_hz, gpu_model, resampler.stats)
    return hosts


@dataclass(slots=True)
class _Log:
    """One file while it is read: its readings, GPUs renumbered, and a digest of its lines."""

    stream: BinaryIO
    name: str
    column: str | None
    gpus: set[int] = field(default_factory=set)
    mode: str = ""
    stats: LogStats = field(default_factory=LogStats)
    digest: bytes = b""

    def readings(self, rank: int) -> Iterator[Reading]:
        """Yield the readings in the order written; GPU = place of the file, then index in it."""
        sha = hashlib.sha256()
        log = NvidiaSmiLog(_hashed(raw_lines(self.stream), sha), column=self.column)
        self.stats = log.stats
        for reading in log:
            gpu = rank * MAX_GPUS + reading.gpu
            self.gpus.add(gpu)
            yield Reading(reading.time_ms, gpu, reading.power_w)
        self.mode, self.digest = log.sampler_mode, sha.digest()


def _hashed(lines: Iterable[bytes], sha: hashlib._Hash) -> Iterator[bytes]:
    for line in lines:
        sha.update(line)
        yield line


def _time(reading: Reading) -> int:
    return reading.time_ms


def _paths(directory: Path) -> list[Path]:
    """The logs of a directory, numbers in names compared as numbers. Raises `TraceError`."""
    try:
        paths = [path for path in directory.iterdir() if not path.name.startswith(".") and not path.is_dir()]
        inodes: dict[tuple[int, int], str] = {}
        for path in sorted(paths):
            status = path.stat()
            other = inodes.setdefault((status.st_dev, status.st_ino), path.name)
            if other != path.name:
                raise TraceError(f"{directory.name}: {other} and {path.name} are the same file")
            if not path.is_file():
                raise TraceError(f"{directory.name}: {path.name} is no file")
    except OSError as error:
        raise TraceError(f"{directory.name}: cannot read the directory: {error.strerror}") from error
    if not 1 <= len(paths) <= MAX_LOGS:
        raise TraceError(f"{directory.name}: {len(paths)} files; 1 to {MAX_LOGS} logs are read")
    return sorted(paths, key=_natural)


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    parts = re.findall(r"[0-9]+|[^0-9]+", path.name)
    return [(int(part), "") if part.isdecimal() and part.isascii() else (-1, part) for part in parts], path.name


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise TraceError(f"{path.name}: cannot read the log: {error.strerror}") from error


def _array(ticks: Iterator[dict[int, float]], name: str) -> Readings:
    try:
        return to_array(ticks)
    except TraceError as error:
        raise TraceError(f"{name}: {error}") from error


def _check(logs: list[_Log]) -> None:
    """Every file was a log, no two are the same, all measure alike."""
    by_digest: dict[bytes, str] = {}
    for log in logs:
        if not log.gpus:
            raise TraceError(f"{log.name}: no reading in the log")
        other = by_digest.setdefault(log.digest, log.name)
        if other != log.name:
            raise TraceError(f"{other} and {log.name} are the same log")
        if log.mode != logs[0].mode:
            raise TraceError(f"{log.name} is {log.mode}, {logs[0].name} is {logs[0].mode}: choose one column")


def _check_overlap(logs: list[_Log], power_w: Readings) -> None:
    """GPUs of one host run at the same time; logs that never do are of different runs or hosts."""
    order = sorted(gpu for log in logs for gpu in log.gpus)
    read = ~np.isnan(power_w)
    for log in logs:
        own = np.array([gpu in log.gpus for gpu in order])
        if not own.all() and not (read[own].any(axis=0) & read[~own].any(axis=0)).any():
            raise TraceError(f"{log.name} has no time in common with the other logs")


def _result(
    directory: Path, logs: list[_Log], power_w: Readings, sample_hz: int, gpu_model: str, ticks: ResampleStats
) -> DirectoryTrace:
    provenance = {"origin": directory.name, "logs": [log.name for log in logs]}
    trace = Trace(power_w, sample_hz, logs[0].mode, gpu_model, provenance)
    return DirectoryTrace(trace, {log.name: log.stats for log in logs}, ticks)
