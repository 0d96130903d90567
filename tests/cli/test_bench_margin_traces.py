"""Traces of `bench margin`: what is read, what is filled, what is refused; fleets drawn from them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enclavescale.bench.trace_csv import by_place
from enclavescale.bench.trace_files import (
    LIMITS_W,
    MAX_GAP_TICKS,
    MIN_TICKS,
    BenchTrace,
    clip_high_w,
    complete,
    mode_of,
    nominal_limit_w,
    read_traces,
    workload_of,
)
from enclavescale.bench.trace_fleet import JITTER_TICKS, draw_fleet, model_rules, pools_of
from enclavescale.bench.trace_log import Unusable
from producers.errors import TraceError
from producers.sample.nvidia_smi import Reading
from tests.cli.conftest import call
from tests.cli.trace_maker import TDP_W, TRACES, idle, inference, log, manifest, parquet, plain, training


def trace(name: str, workload: str, power_w: np.ndarray, *, mode: str = "instant", tdp_w: int = TDP_W) -> BenchTrace:
    return BenchTrace(name=name, gpu="X400", tdp_w=tdp_w, workload=workload, mode=mode, power_w=power_w, filled_ppm=0)


MADE = [trace(name, workload, power_w) for name, (workload, power_w) in TRACES.items()]


def test_a_manifest_says_what_the_files_are(tmp_path: Path) -> None:
    found = {one.name: one for one in read_traces(manifest(tmp_path)).traces}
    assert found.keys() == TRACES.keys()
    for name, (workload, power_w) in TRACES.items():
        one = found[name]
        assert (one.workload, one.model, one.tdp_w) == (workload, "X400 (400 W)", TDP_W)
        assert one.mode == ("instant" if name in {"i1", "t1"} else "average")
        np.testing.assert_allclose(one.power_w, power_w, atol=1e-3)
        assert one.filled_ppm == 0


def test_without_a_manifest_the_data_say_it(tmp_path: Path) -> None:
    found = read_traces(plain(tmp_path)).traces
    assert [one.workload for one in found] == [workload for workload, _ in TRACES.values()]
    assert [one.tdp_w for one in found] == [nominal_limit_w(power_w) for _, power_w in TRACES.values()]
    assert {one.mode for one in found} == {"unknown"}
    assert {one.tdp_w for one in read_traces(tmp_path, tdp_w=555).traces} == {555}


@pytest.mark.parametrize("index", [True, False])
def test_logs_of_nvidia_smi_with_and_without_an_index(tmp_path: Path, index: bool) -> None:
    power_w = training(7, gpus=3, ticks=300)
    log(tmp_path / "a.csv", power_w, index=index, board=("Tesla Y", 450))
    log(tmp_path / "b.csv", inference(8, 250), index=index)
    (first, second) = read_traces(tmp_path).traces
    np.testing.assert_allclose(first.power_w, power_w, atol=0.006)
    assert (first.model, first.workload) == ("Tesla Y (450 W)", "training")
    assert (second.gpu, second.workload, second.power_w.shape) == ("GPU", "inference", (1, 250))


def test_rounds_that_differ_are_one_gpu() -> None:
    """A log of one GPU, polled unevenly, must not become two."""
    times = np.cumsum(np.random.default_rng(1).integers(7, 15, 5000)).tolist()
    readings = [Reading(at, 0, 1.0) for at in times]
    assert {one.gpu for one in by_place(readings)} == {0}
    rounds = [Reading(100 * tick + gpu, 0, float(gpu)) for tick in range(500) for gpu in range(8) if tick != 9 or gpu]
    told = by_place(rounds)
    assert len(told) == 499 * 8, "the torn round is left out"
    assert all(one.gpu == one.power_w for one in told)
    assert by_place(rounds[:2]) == rounds[:2]


def test_instantaneous_readings_are_preferred(tmp_path: Path) -> None:
    power_w = inference(9, 300)
    parquet(tmp_path / "a.parquet", power_w, power_instant_w=power_w[0] + 7)
    holes = np.where(np.arange(300) % 5 == 0, np.nan, power_w[0] + 7)
    parquet(tmp_path / "b.parquet", power_w, power_instant_w=holes)
    first, second = read_traces(tmp_path).traces
    assert (first.mode, second.mode) == ("instant", "unknown")
    np.testing.assert_allclose(first.power_w, power_w + 7, atol=1e-3)
    np.testing.assert_allclose(second.power_w, power_w, atol=1e-3)


def test_what_cannot_be_used_is_skipped_with_a_reason(tmp_path: Path) -> None:
    parquet(tmp_path / "fine.parquet", inference(1, 300))
    parquet(tmp_path / "short.parquet", inference(1, MIN_TICKS - 1))
    parquet(tmp_path / "slow.parquet", inference(1, 300), step_s=1.0)
    found = read_traces(tmp_path)
    assert [one.name for one in found.traces] == ["fine.parquet"]
    reasons = {one.file: one.reason for one in found.skipped}
    assert "19.9 s" in reasons["short.parquet"]
    assert "every 1 s" in reasons["slow.parquet"]
    (tmp_path / "fine.parquet").unlink()
    with pytest.raises(TraceError, match=r"no usable trace among 2 files; the first: short\.parquet: 19\.9 s"):
        read_traces(tmp_path)


BAD_FILES: dict[str, tuple[str, bytes | dict[str, list[object]]]] = {
    "not Parquet": ("x.parquet", b"PAR1 and then nothing of the kind"),
    "empty": ("x.parquet", b""),
    "no power": ("x.parquet", {"timestamp_s": [1.0], "gpu_id": [0]}),
    "text": ("x.parquet", {"timestamp_s": ["now"], "power_w": [1.0]}),
    "no rows": ("x.parquet", {"timestamp_s": pa.array([], pa.float64()), "power_w": pa.array([], pa.float64())}),
    "no numbers": ("x.parquet", {"timestamp_s": [float("nan")], "power_w": [1.0]}),
    "negative": ("x.parquet", {"timestamp_s": [1.0], "power_w": [-1.0]}),
    "lost GPU": ("x.parquet", {"timestamp_s": [1.0], "power_w": [1.0], "gpu_id": [70_000]}),
    "other CSV": ("x.csv", b"a, b\n1, 2\n"),
    "empty CSV": ("x.csv", b""),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_an_error_with_a_code(tmp_path: Path, case: str) -> None:
    parquet(tmp_path / "a.parquet", inference(1, 300))
    name, content = BAD_FILES[case]
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        pq.write_table(pa.table(content), tmp_path / name)
    (skipped,) = read_traces(tmp_path).skipped
    assert skipped.file == name
    assert skipped.reason
    (tmp_path / "a.parquet").unlink()
    done = call("bench", "margin", "--traces", str(tmp_path), "--json")
    assert done.exit_code == 1
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["error"] == "TRACE_UNREADABLE"
    assert f"{name}: {skipped.reason}" in said["message"]
    (tmp_path / "manifest.json").write_text(json.dumps({"traces": [{"file": name}]}))
    with pytest.raises(TraceError, match=f"^{name}: "):
        read_traces(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[" * 100_000,
        "[]",
        '{"traces": []}',
        '{"traces": [1]}',
        '{"traces": [{"file": "../outside.parquet"}]}',
        '{"traces": [{"file": "/etc/passwd"}]}',
        '{"traces": [{"file": "missing.parquet"}]}',
        '{"traces": [{"file": "nul\\u0000.parquet"}]}',
    ],
)
def test_a_bad_manifest_is_an_error_with_a_code(tmp_path: Path, text: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    parquet(tmp_path / "outside.parquet", inference(1, 300))
    (inside / "manifest.json").write_text(text)
    with pytest.raises(TraceError) as caught:
        read_traces(inside)
    assert caught.value.code == "TRACE_UNREADABLE"


def test_a_manifest_s_odd_facts_are_replaced_by_the_data(tmp_path: Path) -> None:
    for number, limit in enumerate([True, -1, 1e9, "400", None]):
        (one,) = read_traces(manifest(tmp_path / str(number), ["i1"], tdp_w=limit, gpu=None)).traces
        assert one.tdp_w == nominal_limit_w(one.power_w)
        assert one.gpu == "GPU"
    assert read_traces(manifest(tmp_path / "float", ["i1"], tdp_w=399.6)).traces[0].tdp_w == 400


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 3), st.floats(0, 0.6))
def test_holes_take_the_nearest_reading_of_their_row(seed: int, gpus: int, share: float) -> None:
    """From the tick on at which every GPU was read once, to the last at which each will be."""
    rng = np.random.default_rng(seed)
    power_w = rng.uniform(0, 700, (gpus, 320)).astype(np.float32)
    power_w[rng.random(power_w.shape) < share] = np.nan
    known = [np.flatnonzero(~np.isnan(row)) for row in power_w]
    inside = slice(max(int(one[0]) for one in known), min(int(one[-1]) for one in known) + 1)
    filled, ppm = complete(power_w)
    np.testing.assert_array_equal(filled, _nearest(power_w)[:, inside])
    assert ppm == int(np.isnan(power_w[:, inside]).sum()) * 1_000_000 // filled.size


def _nearest(power_w: np.ndarray) -> np.ndarray:
    """By searching, of two equally near the earlier."""
    result = power_w.copy()
    for row, out in zip(power_w, result, strict=True):
        known = [t for t, x in enumerate(row) if not np.isnan(x)]
        for t in range(len(row)):
            out[t] = row[min(known, key=lambda k: (abs(k - t), k))]
    return result


@pytest.mark.parametrize(("gap", "kept"), [(MAX_GAP_TICKS, 900), (MAX_GAP_TICKS + 1, 500)])
def test_a_long_silence_of_one_gpu_cuts_the_trace(gap: int, kept: int) -> None:
    power_w = training(1, gpus=2)
    begin = 900 - 500 - gap
    power_w[1, begin : begin + gap] = np.nan
    filled, _ = complete(power_w)
    assert filled.shape == (2, kept)
    np.testing.assert_array_equal(filled[0], power_w[0, -kept:])
    power_w[:, 600:700] = np.nan
    power_w[1, begin - 150 : begin] = np.nan
    assert complete(power_w)[0].shape[1] >= 500 or gap == MAX_GAP_TICKS


def test_a_gpu_that_was_never_read_is_no_gpu() -> None:
    power_w = training(1, gpus=3)
    power_w[1] = np.nan
    assert complete(power_w)[0].shape == (2, 900)
    with pytest.raises(Unusable, match=r"19\.9 s"):
        complete(power_w[:, : MIN_TICKS - 1])


def test_workloads_by_what_the_gpus_do() -> None:
    assert workload_of(training(1)) == "training"
    assert workload_of(np.concatenate([inference(1), inference(2)])) == "inference"
    assert workload_of(idle(1)) == "idle"
    assert workload_of(np.full((2, 300), 60, np.float32)) == "inference", "no movement is no step in common"


def test_limits_and_modes() -> None:
    assert nominal_limit_w(np.array([[300.0]] * 999 + [[990.0]], np.float32).T) in LIMITS_W
    assert nominal_limit_w(np.full((1, 300), 300.1, np.float32)) == 350
    assert nominal_limit_w(np.full((1, 300), 1450.0, np.float32)) == 1500
    assert [mode_of(text) for text in ("x (1 s boxcar)", "Average", "instantaneous 25 ms", "power.draw", "")] == [
        "average",
        "average",
        "instant",
        "unknown",
        "unknown",
    ]


@pytest.mark.parametrize(("peak_w", "clip_w"), [(300.0, 440), (440.0, 440), (440.1, 450), (9_000.0, 600)])
def test_the_clip_covers_what_was_seen_within_reason(peak_w: float, clip_w: int) -> None:
    power_w = np.full((1, 300), 100.0, np.float32)
    high = power_w.copy()
    high[0, 5] = peak_w
    members = [trace("a", "inference", power_w), trace("b", "inference", high)]
    assert clip_high_w(members) == clip_w
    (rule,) = model_rules(members).values()
    assert rule.edges_w == (40, 80, 120, 160, 200, 240, 280, 320, 360)
    assert (rule.clip_low_w, rule.clip_high_w) == (0, clip_w)


def test_a_fleet_is_two_jobs_in_step_and_the_rest_alone() -> None:
    pools, rules = pools_of(MADE), model_rules(MADE)
    seen: Counter[str] = Counter()
    for seed in range(20):
        fleet = draw_fleet(pools, rules, np.random.default_rng(seed), hosts=32, gpus=8, ticks=300)
        groups = Counter(host.group for host in fleet.hosts)
        assert groups == {"job-a": 12, "job-b": 8, None: 12}
        assert fleet.jobs[0] != fleet.jobs[1]
        assert fleet.capacity_w == 32 * 8 * TDP_W
        for group in ("job-a", "job-b"):
            members = [host for host in fleet.hosts if host.group == group]
            starts = np.concatenate([host.starts for host in members])
            assert starts.max() - starts.min() < JITTER_TICKS
            assert {host.trace.workload for host in members} == {"training"}
            assert all(host.rows.tolist() == [0, 1, 2, 3] * 2 for host in members)
        alone = [host for host in fleet.hosts if host.group is None]
        seen.update(host.trace.workload for host in alone)
        assert all(len(set(host.starts.tolist())) > 1 for host in alone if host.trace.workload == "inference")
    assert 0.15 < seen["idle"] / (20 * 12) < 0.35
    assert seen.keys() == {"idle", "inference"}


def test_a_fleet_draws_what_its_traces_say() -> None:
    """By hand: to and fro, row by row; the total is the sum of the hosts."""
    fleet = draw_fleet(pools_of(MADE), model_rules(MADE), np.random.default_rng(3), hosts=8, gpus=5, ticks=2_500)
    total = np.zeros(2_500)
    for host in fleet.hosts:
        power_w = host.power_w(0, 2_500)
        source = host.trace.power_w
        there_and_back = np.concatenate([source, source[:, ::-1]], axis=1)
        for gpu in range(5):
            row = there_and_back[host.rows[gpu]]
            expected = [row[(int(host.starts[gpu]) + t) % len(row)] for t in range(2_500)]
            np.testing.assert_array_equal(power_w[gpu], expected)
            assert np.abs(np.diff(power_w[gpu])).max() <= np.abs(np.diff(source[host.rows[gpu]])).max()
        np.testing.assert_array_equal(power_w[:, 700:800], host.power_w(700, 100))
        total += power_w.astype(np.float64).sum(axis=0)
    np.testing.assert_allclose(fleet.total_w(0, 2_500), total)


def test_a_long_trace_does_not_turn_within_a_trial() -> None:
    pools, rules = pools_of(MADE), model_rules(MADE)
    for seed in range(50):
        fleet = draw_fleet(pools, rules, np.random.default_rng(seed), hosts=8, gpus=2, ticks=600)
        for host in fleet.hosts:
            if host.trace.power_w.shape[1] > 600 + JITTER_TICKS:
                assert int(host.starts.max()) + 600 <= host.trace.power_w.shape[1]


def test_gpus_of_one_log_keep_their_time() -> None:
    pools = pools_of([trace("t", "training", training(1)), trace("i", "inference", training(2, gpus=3))])
    fleet = draw_fleet(pools, model_rules(pools.jobs), np.random.default_rng(1), hosts=32, gpus=8, ticks=300)
    for host in (one for one in fleet.hosts if one.group is None):
        assert host.rows.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
        assert [len(set(host.starts[at : at + 3].tolist())) for at in (0, 3, 6)] == [1, 1, 1]
    alone = [one.starts for one in fleet.hosts if one.group is None]
    assert sum(len({int(starts[0]), int(starts[3]), int(starts[6])}) for starts in alone) > 2.5 * len(alone)
    together = draw_fleet(pools, model_rules(pools.jobs), np.random.default_rng(1), hosts=32, gpus=3, ticks=300)
    assert all(len(set(host.starts.tolist())) == 1 for host in together.hosts)


def test_pools_fall_back_to_what_there_is() -> None:
    only_inference = pools_of([one for one in MADE if one.workload != "training"])
    assert only_inference.job_workload == "inference"
    apart = trace("p", "inference", np.concatenate([inference(1), inference(2)]))
    assert pools_of([*MADE[2:], apart]).jobs == only_inference.jobs, "a job's GPUs move in step"
    assert apart in pools_of([*MADE[2:], apart]).inference
    assert (pools_of([apart]).jobs, pools_of([apart]).one_row) == ((apart,), True)
    assert not only_inference.one_row
    assert not pools_of(MADE).one_row
    only_training = pools_of([one for one in MADE if one.workload == "training"])
    assert only_training.inference == only_training.jobs
    with pytest.raises(TraceError, match="no trace of training or inference with average readings"):
        pools_of(MADE, "average")
    with pytest.raises(TraceError):
        pools_of([trace("m", "microbenchmark", inference(1))])


def test_a_job_of_inference_is_in_step_too() -> None:
    """Rows that go their own ways are no job: its GPUs share one of them, hosts within a tick."""
    apart = trace("p", "inference", np.concatenate([inference(1), inference(2), inference(3)]))
    pools = pools_of([apart])
    rows = set()
    for seed in range(12):
        fleet = draw_fleet(pools, model_rules([apart]), np.random.default_rng(seed), hosts=32, gpus=8, ticks=300)
        for group in ("job-a", "job-b"):
            power_w = [host.power_w(0, 300) for host in fleet.hosts if host.group == group]
            assert all((one == one[0]).all() for one in power_w)
            assert len({one[0].tobytes() for one in power_w}) <= JITTER_TICKS
            rows.update(int(host.rows[0]) for host in fleet.hosts if host.group == group)
        alone = [host for host in fleet.hosts if host.group is None]
        assert all(host.rows.tolist() == [0, 1, 2, 0, 1, 2, 0, 1] for host in alone)
    assert rows == {0, 1, 2}


def test_the_seed_fixes_the_fleet() -> None:
    pools, rules = pools_of(MADE), model_rules(MADE)
    made = [
        draw_fleet(pools, rules, np.random.default_rng(seed), hosts=32, gpus=8, ticks=300).total_w(0, 300)
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])
