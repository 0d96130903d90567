"""Traces: the bundled ones and their licence, the file format, replay as a function of time and seed."""

import json
import math
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from producers.errors import TraceError
from producers.sample.trace import (
    Trace,
    TraceSource,
    bundled_names,
    format_trace,
    load_bundled,
    parse_trace,
    read_nvidia_smi,
)
from schemas.errors import ConfigError

RAMP = Trace(np.arange(20, dtype=np.float32).reshape(1, 20), 10, "instant", "X", {})
GOOD = {
    "format": "enclavescale-trace/1",
    "sample_hz": 10,
    "sampler_mode": "instant",
    "gpu_model": "X",
    "provenance": {},
    "deciwatts": [[1, None], [3, 4]],
}


def test_bundled_traces_are_complete_small_and_licensed() -> None:
    names = bundled_names()
    assert names == ("a100_square", "a100_step", "rtx3090_square", "rtx4090_step", "v100_square")
    folder = resources.files("producers").joinpath("traces")
    notice = folder.joinpath("NOTICE.md").read_text()
    assert "Copyright (c) 2023 Zeyu Yang" in notice
    assert "Permission is hereby granted, free of charge" in notice
    for name in names:
        trace = load_bundled(name)
        assert f"| {name} | " in notice
        assert f"| {trace.power_w.shape[1]} |" in notice
        assert trace.provenance["commit"] in notice
        assert trace.sampler_mode == "instant"
        assert trace.sample_hz == 10
        assert 20 < np.nanmin(trace.power_w) < np.nanmax(trace.power_w) < trace.provenance["tdp_w_nominal"]
    assert sum(len(f.read_bytes()) for f in folder.iterdir() if f.name.endswith(".json")) < 300_000
    with pytest.raises(ConfigError, match="a100_square"):
        load_bundled("../errors")


def test_format_round_trip_keeps_missing_and_tenths() -> None:
    trace = Trace(np.array([[612.3, math.nan]], np.float32), 10, "average", "H100", {"origin": "x"})
    found = parse_trace(format_trace(trace))
    assert np.array_equal(found.power_w, trace.power_w, equal_nan=True)
    assert (found.sampler_mode, found.gpu_model, found.provenance) == ("average", "H100", {"origin": "x"})


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"sample_hz": 3},
        {"sample_hz": 0},
        {"sample_hz": True},
        {"sampler_mode": "guess"},
        {"gpu_model": None},
        {"provenance": []},
        {"deciwatts": []},
        {"deciwatts": [[]]},
        {"deciwatts": [[1], [1, 2]]},
        {"deciwatts": [[1.5]]},
        {"deciwatts": [[-1]]},
        {"deciwatts": [[True]]},
        {"deciwatts": [[100_001]]},
        {"deciwatts": {}},
    ],
)
def test_other_documents_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(TraceError):
        parse_trace(json.dumps({**GOOD, **change}).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 100_000])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(TraceError):
        parse_trace(data)


def test_replay_loops_and_depends_on_time_and_seed_alone() -> None:
    source = TraceSource(RAMP, gpus=3, seed="job-1")
    window = source.window(5_000, 9_000)
    assert window.shape == (3, 40)
    assert window.dtype == np.float32
    assert np.array_equal(window[0], window[1])  # in step
    assert np.array_equal(np.diff(window[0]) % 20, np.ones(39))
    assert np.array_equal(window, TraceSource(RAMP, gpus=3, seed="job-1").window(5_000, 9_000))
    later = TraceSource(RAMP, gpus=3, seed="job-1").window(6_000, 10_000)
    assert np.array_equal(window[:, 10:], later[:, :30])
    chained = source.windows(5_000, 1_000)
    assert np.array_equal(np.concatenate([next(chained) for _ in range(4)], axis=1), window)


def test_offsets_are_small_within_a_job_and_free_without() -> None:
    jitter = TraceSource(RAMP, gpus=64, seed="job-1", spread_ticks=2).window(0, 100)[:, 0]
    assert len(set(((jitter - jitter.min()) % 20).tolist())) <= 3 or len(set(jitter.tolist())) == 3
    free = TraceSource(RAMP, gpus=64, seed="job-1", spread_ticks=None).window(0, 100)[:, 0]
    assert len(set(free.tolist())) > 10
    base = {float(TraceSource(RAMP, gpus=1, seed=f"job-{i}").window(0, 100)[0, 0]) for i in range(64)}
    assert len(base) > 10


def test_gpus_share_the_rows_of_a_trace() -> None:
    two = Trace(np.array([[1, 1], [2, 2]], np.float32), 10, "instant", "X", {})
    assert TraceSource(two, gpus=3, seed="s").window(0, 100)[:, 0].tolist() == [1.0, 2.0, 1.0]


@pytest.mark.parametrize("options", [{"gpus": 0}, {"gpus": 1, "spread_ticks": -1}])
def test_source_options(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        TraceSource(RAMP, seed="s", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("span", [(50, 150), (0, 150), (100, 100)])
def test_windows_lie_on_ticks(span: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="tick"):
        TraceSource(RAMP, gpus=1, seed="s").window(*span)


def test_a_log_becomes_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "gpu.csv"
    rows = ["timestamp, index, power.draw.instant [W]\n"]
    for tick in range(30):
        if tick == 12:
            rows.append("2026/03/04 12:00:01.200, 0, [GPU is lost]\n")
            continue
        rows.append(f"2026/03/04 12:00:{tick // 10:02d}.{tick % 10}04, 0, {100 + tick}.50 W\n")
        rows.append(f"2026/03/04 12:00:{tick // 10:02d}.{tick % 10}05, 1, {200 + tick}.50 W\n")
    path.write_text("".join(rows))
    trace, log, ticks = read_nvidia_smi(path, gpu_model="H100")
    assert trace.power_w.shape == (2, 30)
    assert np.isnan(trace.power_w[:, 12]).all()
    assert trace.power_w[1, 29] == np.float32(229.5)
    assert (trace.sampler_mode, log.readings, log.unavailable) == ("instant", 58, {"[GPU is lost]": 1})
    assert ticks.surplus == ticks.stray == ticks.breaks == 0


def test_logs_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot read"):
        read_nvidia_smi(tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text("timestamp, index, power.draw [W]\n")
    with pytest.raises(TraceError, match="no reading"):
        read_nvidia_smi(tmp_path / "empty.csv")
    with pytest.raises(ConfigError):
        read_nvidia_smi(tmp_path / "empty.csv", sample_hz=3)
