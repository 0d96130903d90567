"""`synthesize`: from bundled traces, files of outputs and a topic to traces, figures and a plot; bad input is ours."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer

from enclavescale.agent.file import TraceSpec
from enclavescale.agent.sources import trace_source
from enclavescale.bench.trace_files import read_traces
from enclavescale.embedded import MockCluster
from enclavescale.synthesize import Wanted, summary, synthesize
from enclavescale.synthesize_outputs import of_domain, parse_outputs, released_of_outputs
from enclavescale.synthesize_traces import Hosts, covered, real_traces, released_of_trace
from power_model.spectrum import BANDS_HZ
from power_model.synthesis import synthesise
from producers.privacy import Budget
from producers.sample.trace import bundled_names, format_trace, load_bundled, parse_trace, read_nvidia_smi
from schemas.codec import encode_output, encode_signed_output
from schemas.contract import PANE_SUM_QUANTUM_MW
from schemas.errors import EnclaveScaleError, SchemaError
from schemas.mapping import to_jsonable
from schemas.records import FleetPower, OutputClass, SignedFleetPower, WorkerIdentity
from schemas.topics import TopicNames
from tests.cli.conftest import call
from tests.results import write_result
from tests.schemas.examples import SIGNATURE, example

REAL = Path(__file__).resolve().parents[3] / "shared" / "traces" / "data"
INSTANT = ("gw_inference", "zeyuyang_microbench")
"""Data sets of instantaneous readings, where the traces for evaluation are there."""
START_MS = 1_767_225_600_000
EXACT = ("--traces", "bundled:v100_square", "--no-noise")
WORKER = example(WorkerIdentity, "SignedFleetPower", full=False)
EMPTY = example(FleetPower, "SignedFleetPower", full=False)


def outputs(domain: str = "hall-a", hosts: int = 4, **changes: Any) -> list[FleetPower]:
    """Outputs that release a bundled trace, without noise, as the aggregator's record carries it."""
    trace = real_traces("bundled:v100_square")[0]
    model = released_of_trace(trace, Hosts(count=hosts, epsilon=None)).model
    per_window = model.transitions // len(model.windows)
    found = []
    for number, window in enumerate(model.windows):
        sums = np.rint(window.pane_w * model.gpus * model.ticks_per_pane * 1000 / PANE_SUM_QUANTUM_MW)
        one = OutputClass(
            model=trace.gpu_model,
            sampler_mode="instant",
            edges_w=model.edges_w,
            hosts=hosts,
            gpus=model.gpus,
            capacity_w=model.gpus * trace.tdp_w,
            enrolled_capacity_w=model.gpus * trace.tdp_w,
            readings_taken=model.gpus * 600,
            transitions_sum=per_window.astype("<i8").tobytes(),
            transitions_shape=per_window.shape,
            pane_sums_sum=sums.astype("<i8").tobytes(),
            pane_sums_shape=(sums.size,),
            pane_sum_quantum_mw=PANE_SUM_QUANTUM_MW,
            transitions_noise_variance_micro=0,
            pane_noise_variance_w2=0,
            transition_matrix_ppm=b"",
            stationary_ppm=b"",
        )
        start = START_MS + 60_000 * number
        found.append(
            replace(
                EMPTY,
                domain=domain,
                window_start_ms=start,
                window_end_ms=start + 60_000,
                classes=(replace(one, **changes),),
            )
        )
    return found


def signed(output: FleetPower) -> bytes:
    return encode_signed_output(encode_output(output), SIGNATURE, WORKER)


def lines(found: list[FleetPower]) -> str:
    """What `tail --json` prints."""
    records = (SignedFleetPower(output=one, signature=SIGNATURE, worker=WORKER) for one in found)
    return "\n".join(json.dumps(to_jsonable(one)) for one in records) + "\n"


def run(*arguments: str) -> dict[str, Any]:
    result = call("synthesize", *arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def test_a_bundled_trace_is_released_drawn_and_compared() -> None:
    found = run("--traces", "bundled:v100_square", "--epsilon", "2", "--seed", "4")
    (one,) = found["runs"]
    assert (one["gpus"], one["sample_hz"], one["seconds"], one["seed"]) == (1, 10, 180.0, 4)
    assert one["pane_noise_w"] == pytest.approx(noise_w(220, 2.0), rel=0.001), "220 W of clip range, 256 GPUs"
    gpu = one["comparison"]["gpu"]
    assert gpu["spectral_distance_db"].keys() == gpu["spectral_bias_db"].keys() == BANDS_HZ.keys()
    assert all(0 < gpu["spectral_distance_db"][band] < 8 for band in BANDS_HZ)
    assert {step: len(gpu["ramps"][step]["real_w_per_s"]) for step in gpu["ramps"]} == {"tick": 7, "1s": 7}
    assert abs(gpu["mean_error_w"]) < 2
    assert gpu["acf_rmse"] < 0.2
    assert one["comparison"]["halves"]["spectral_distance_db"]["0.1-0.5"] > 0
    assert found["median"]["spectral_distance_db"] == gpu["spectral_distance_db"]


def noise_w(clip_w: int, epsilon: float, hosts: int = 32, gpus: int = 8) -> float:
    """Standard deviation of a pane mean's noise: `hosts` Laplace draws over so many GPUs and ten ticks."""
    scale = 10 * clip_w / (Budget().pane_sums_micro / 1e6 * epsilon)
    return float(scale * np.sqrt(2 * hosts)) / (10 * 10 * hosts * gpus)


def test_the_same_release_options_and_seed_give_the_same_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        files = ("--out", str(tmp_path / f"{name}.json"), "--plot", str(tmp_path / f"{name}.svg"))
        assert len(run(*EXACT, "--seed", "3", *files)["files"]) == 2
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    run(*EXACT, "--seed", "4", "--out", str(tmp_path / "c.json"))
    assert (tmp_path / "c.json").read_bytes() != (tmp_path / "a.json").read_bytes()


def test_what_is_written_is_read_by_the_program(tmp_path: Path) -> None:
    """Own format, an nvidia-smi log as `produce` replays it, Parquet: the same readings to their resolution."""
    for suffix in ("json", "csv", "parquet"):
        arguments = (*EXACT, "--seconds", "30", "--gpus", "2", "--out", str(tmp_path / f"t.{suffix}"))
        run(*arguments)
    own = parse_trace((tmp_path / "t.json").read_bytes())
    assert (own.power_w.shape, own.sample_hz, own.sampler_mode) == ((2, 300), 10, "instant")
    assert own.gpu_model == load_bundled("v100_square").gpu_model
    assert own.provenance["origin"] == "synthetic"
    log, stats, _ = read_nvidia_smi(tmp_path / "t.csv")
    assert (stats.readings, log.sampler_mode) == (600, "instant")
    assert log.power_w == pytest.approx(own.power_w, abs=0.06)
    replayed = trace_source(TraceSpec(trace=str(tmp_path / "t.csv"), seed="x"), 2)
    assert np.sort(replayed.window(0, 30_000).ravel()) == pytest.approx(np.sort(own.power_w.ravel()), abs=0.06)
    (tmp_path / "t.csv").unlink()
    (parquet,) = read_traces(tmp_path).traces
    assert parquet.power_w == pytest.approx(own.power_w, abs=0.06)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_plot(tmp_path: Path, suffix: str) -> None:
    """With and without a real trace; the picture has its size, and no date that would make each one another."""
    path = tmp_path / f"report{suffix}"
    run(*EXACT, "--plot", str(path))
    with_real = path.read_bytes()
    assert with_real[: {".png": 8, ".svg": 5}[suffix]] in {b"\x89PNG\r\n\x1a\n", b"<?xml"}
    source = tmp_path / "outputs.jsonl"
    source.write_text(lines(outputs()))
    run("--output", str(source), "--plot", str(path))
    assert 20_000 < len(path.read_bytes()) < len(with_real) or suffix != ".png"


def test_a_directory_of_traces_is_compared_one_by_one(tmp_path: Path) -> None:
    for name in ("v100_square", "a100_step"):
        (tmp_path / f"{name}.trace.json").write_bytes(format_trace(load_bundled(name)))
    found = run("--traces", str(tmp_path), "--no-noise", "--out", str(tmp_path / "made.json"))
    assert [one["name"] for one in found["runs"]] == ["a100_step", "v100_square"]
    assert found["median"]["traces"] == 2
    assert [Path(name).name for name in found["files"]] == ["made-000.json", "made-001.json"]
    screen = call("synthesize", "--traces", str(tmp_path / "v100_square.trace.json"), "--no-noise").stdout
    assert "halves" in screen
    assert "Synthetic against real" in screen


def test_a_foreign_file_in_a_directory_is_named_and_skipped(tmp_path: Path) -> None:
    run(*EXACT, "--seconds", "30", "--out", str(tmp_path / "t.csv"))
    (tmp_path / "summary.csv").write_text("name,mean\nT4,50\n")
    found = run("--traces", str(tmp_path), "--no-noise")
    assert [one["name"] for one in found["runs"]] == ["t.csv"]
    assert [one["file"] for one in found["skipped"]] == ["summary.csv"]
    screen = call("synthesize", "--traces", str(tmp_path), "--no-noise").stdout
    assert "summary.csv: no reading in the log" in " ".join(screen.split())
    assert run("--traces", str(tmp_path / "t.csv"), "--no-noise")["skipped"] == []


def test_outputs_of_a_file_in_every_form(tmp_path: Path) -> None:
    found = outputs()
    forms = {
        "lines": lines(found).encode(),
        "list": json.dumps([to_jsonable(one) for one in found]).encode(),
        "one": json.dumps(to_jsonable(found[0])).encode(),
        "value": signed(found[0]),
    }
    for name, data in forms.items():
        path = tmp_path / name
        path.write_bytes(data)
        (one,) = run("--output", str(path), "--compare", "bundled:v100_square", "--gpus", "1")["runs"]
        assert one["name"] == "hall-a"
        assert one["released_s"] == (60.0 if name in {"one", "value"} else 180.0)
        assert one["comparison"]["gpu"]["spectral_distance_db"]["0.5-2"] < 8
        assert "halves" in one["comparison"]


def test_the_model_of_outputs_is_the_model_of_their_trace() -> None:
    """Sums in the record and back: same panes, same chain, same trace."""
    direct = released_of_trace(real_traces("bundled:v100_square")[0], Hosts(count=4, epsilon=None)).model
    read = released_of_outputs(outputs(), clip_high_w=direct.high_w).model
    assert read.gpus == direct.gpus
    assert read.ticks_per_pane == direct.ticks_per_pane
    for one, other in zip(read.windows, direct.windows, strict=True):
        assert one.pane_w == pytest.approx(other.pane_w, abs=0.01)
    drawn = [synthesise(model, seed=1).slow_w for model in (read, direct)]
    assert drawn[0] == pytest.approx(drawn[1], abs=0.1)


def test_outputs_of_the_topic() -> None:
    names = TopicNames()
    cluster = MockCluster({names.output: 2})
    producer = Producer({"bootstrap.servers": cluster.bootstrap})
    for number, output in enumerate(outputs() + outputs("hall-b", hosts=2)):
        producer.produce(names.output, signed(output), partition=int(number >= 3))
    producer.produce(names.output, signed(replace(outputs()[0], revision=1)), partition=0)
    producer.produce(names.output, b"foreign", partition=1)
    assert producer.flush(20) == 0
    where = ("--bootstrap", cluster.bootstrap)
    (one,) = run(*where, "--domain", "hall-b", "--windows", "2", "--gpus", "2")["runs"]
    assert (one["released_s"], one["gpus"], one["name"], one["comparison"]) == (120.0, 2, "hall-b", None)
    several = call("synthesize", *where, "--json")
    assert several.exit_code == 2
    assert "hall-a, hall-b" in several.stderr


def test_the_newest_revision_and_the_largest_class_count() -> None:
    first = outputs()
    revised = replace(first[1], revision=1, classes=(replace(first[1].classes[0], hosts=9),))
    kept = of_domain([revised, *first], "hall-a")
    assert [one.revision for one in kept] == [0, 1, 0]
    small = replace(first[0].classes[0], model="other", gpus=1)
    both = [replace(one, classes=(small, *one.classes)) for one in first]
    assert released_of_outputs(both).gpu_model == first[0].classes[0].model
    assert released_of_outputs(both, gpu_model="other").gpu_model == "other"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"pane_sums_sum": b"\0" * 7}, "MALFORMED"),
        ({"pane_sums_shape": (6, 10)}, "MALFORMED"),
        ({"pane_sums_sum": b"\xff" * 7 * 60 + b"\x7f" * 60}, "MALFORMED"),
        ({"transitions_shape": (2, 2)}, "MALFORMED"),
        ({"transitions_sum": bytes(8 * 121)}, "CONFIG_INVALID"),
        ({"transitions_sum": (b"\0" * 5 + b"\xff\0\0") * 121}, "MALFORMED"),
        ({"edges_w": (10, 5)}, "MALFORMED"),
        ({"readings_taken": 0}, "CONFIG_INVALID"),
        ({"gpus": 0}, "CONFIG_INVALID"),
    ],
)
def test_a_record_that_does_not_hold_together_is_refused(tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    path = tmp_path / "outputs.jsonl"
    path.write_text(lines(outputs(**changes)))
    result = call("synthesize", "--output", str(path), "--json")
    assert json.loads(result.stdout)["error"] == code
    assert result.exit_code in {2, 3}
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), 2),
        (("--traces", "bundled:none"), 2),
        (("--traces", "nowhere.csv"), 1),
        (("--traces", "nowhere"), 1),
        ((*EXACT, "--out", "t.xml"), 2),
        ((*EXACT, "--plot", "t.bmp"), 2),
        ((*EXACT, "--out", "no/such/directory/t.json"), 2),
        ((*EXACT, "--plot", "no/such/directory/t.png"), 2),
        ((*EXACT, "--gpus", "100000", "--seconds", "1e6"), 2),
    ],
)
def test_bad_input_has_a_message_and_an_exit_code(arguments: tuple[str, ...], code: int) -> None:
    result = call("synthesize", *arguments, "--json")
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    assert json.loads(result.stdout.splitlines()[-1])["error"]


def test_files_that_are_no_traces(tmp_path: Path) -> None:
    for name in ("t.csv", "t.parquet", "t.trace.json"):
        path = tmp_path / name
        path.write_bytes(b"no trace\n" * 20)
        result = call("synthesize", "--traces", str(path), "--json")
        assert json.loads(result.stdout)["error"] == "TRACE_UNREADABLE", name
    with pytest.raises(EnclaveScaleError, match="too short"):
        covered(replace(real_traces("bundled:v100_square")[0], power_w=np.ones((1, 50), dtype=np.float32)), Hosts())


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"[1]", b"\xff\xfe", b'{"output": 3}', b"\xc3\x01", b"[[[]]]", b"null"]
)
def test_what_is_no_output_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    result = call("synthesize", "--output", str(path), "--json")
    assert result.exit_code in {2, 3}, result.output
    assert "Traceback" not in result.output


def test_deep_json_is_refused() -> None:
    with pytest.raises(SchemaError):
        parse_outputs(b"[" * 100_000)


@pytest.mark.accept
def test_distances_from_real_traces() -> None:
    """At epsilon 1 the median distances are kept, and free chains are far off: bundled traces, real ones if there."""
    found = {"bundled": [one for name in bundled_names() for one in real_traces(f"bundled:{name}")]}
    if REAL.is_dir():
        found["real"] = [one for name in INSTANT for one in real_traces(str(REAL / name))]
    measured = {}
    for where, traces in found.items():
        runs = []
        for trace in traces:
            real = covered(trace, Hosts())
            drawn = synthesize(trace.name, released_of_trace(trace, Hosts()), Wanted(seed=1), real)
            runs.append(drawn.as_json(Wanted(seed=1)))
        measured[where] = middle = summary(runs)["median"]
        assert all(middle["spectral_distance_db"][band] < 6.5 for band in BANDS_HZ), where
        assert max(middle["ks"].values()) < 0.35
        assert middle["acf_rmse"] < 0.12
        assert middle["mean_error_w"] < 1.5
    write_result("synthesize", measured, seeds={"synthesis": 1})
