"""Files that outside users bring: encodings, times, ids, words of a manifest, foreign files among the traces."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enclavescale.bench.trace_csv import nvidia_lines
from enclavescale.bench.trace_files import read_traces, stated_workload
from enclavescale.bench.trace_log import moment_ms
from producers.errors import TraceError
from tests.cli.conftest import call
from tests.cli.trace_maker import START_S, inference, log, manifest, parquet

POWER = inference(1, 300)
TIMES = START_S + 0.1 * np.arange(300)


def columns(path: Path, **changed: Any) -> Path:
    """A Parquet file with the usual columns, some of them changed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"timestamp_s": TIMES, "power_w": POWER[0], **changed}), path)
    return path.parent


def only(directory: Path) -> np.ndarray:
    (found,) = read_traces(directory).traces
    return found.power_w


def refused(directory: Path) -> str:
    with pytest.raises(TraceError) as caught:
        read_traces(directory)
    return str(caught.value)


# -- Parquet ---------------------------------------------------------------------------------------------------


def stamps(unit: str, zone: str | None) -> pa.Array:
    ms = pa.array(np.rint(TIMES * 1000).astype(np.int64), pa.timestamp("ms"))
    return ms.cast(pa.timestamp(unit)).cast(pa.timestamp(unit, zone)) if zone else ms.cast(pa.timestamp(unit))


@pytest.mark.parametrize(
    "times",
    [
        TIMES * 1e3,
        (TIMES * 1e6).astype(np.int64),
        (TIMES * 1e9).astype(np.int64),
        TIMES - START_S,
        stamps("ms", None),
        stamps("us", "UTC"),
        stamps("ns", "Asia/Tokyo"),
        [f"{datetime.fromtimestamp(one, UTC):%Y-%m-%dT%H:%M:%S.%f}Z" for one in TIMES],
        [datetime.fromtimestamp(one, timezone(timedelta(hours=5, minutes=30))).isoformat() for one in TIMES],
    ],
    ids=["ms", "us", "ns", "relative", "timestamp", "zone", "other zone", "text", "text with an offset"],
)
def test_times_in_any_form_are_the_same_times(tmp_path: Path, times: Any) -> None:
    np.testing.assert_array_equal(only(columns(tmp_path / "a.parquet", timestamp_s=times)), POWER)


def test_gpu_ids_may_be_text(tmp_path: Path) -> None:
    both = np.concatenate([POWER, POWER + 50])
    ids = np.tile(["GPU-aa", "GPU-ff"], 300)
    where = tmp_path / "a.parquet"
    for gpu in (pa.array(ids), pa.array(ids).dictionary_encode()):
        table = {"timestamp_s": np.repeat(TIMES, 2), "power_w": both.T.ravel(), "gpu_id": gpu}
        np.testing.assert_allclose(only(columns(where, **table)), both)
    power = pa.array(POWER[0].astype(np.float64)).dictionary_encode()
    np.testing.assert_array_equal(only(columns(where, power_w=power)), POWER)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"power_w": [f"{one} W" for one in POWER[0]]}, "column power_w holds string, not numbers"),
        ({"power_w": POWER[0] > 200}, "column power_w holds bool, not numbers"),
        ({"power_w": [[one] for one in POWER[0]]}, "column power_w holds list"),
        ({"power_w": np.full(300, -1.0)}, "of 300 rows 300 have no power of 0 W or more"),
        ({"power_w": np.full(300, np.nan)}, "of 300 rows 300 have no power of 0 W or more"),
        ({"gpu_id": np.full(300, 2**62)}, "of 300 rows 300 have no GPU id from 0 to 255"),
        ({"timestamp_s": ["noon"] * 300}, "column timestamp_s holds no time that is understood, such as 'noon'"),
        ({"timestamp_s": TIMES * 1e12}, "times are no seconds, milliseconds, microseconds or nanoseconds since 1970"),
        ({"timestamp_s": pa.array([1] * 300, pa.date32())}, "column timestamp_s holds date32"),
    ],
)
def test_what_is_wrong_with_a_parquet_file_is_named(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    assert said in refused(columns(tmp_path / "a.parquet", **changed))


def test_a_column_that_stands_twice_is_no_traceback(tmp_path: Path) -> None:
    arrays = [pa.array(one) for one in (TIMES, POWER[0], POWER[0])]
    table = pa.Table.from_arrays(arrays, names=["timestamp_s", "power_w", "power_w"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert "has column power_w 2 times" in refused(tmp_path)
    unused = pa.Table.from_arrays([*arrays, arrays[2]], names=["timestamp_s", "power_w", "x", "x"])
    pq.write_table(unused, tmp_path / "a.parquet")
    np.testing.assert_array_equal(only(tmp_path), POWER)


def test_a_column_name_that_is_no_text_is_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns(path, extra=POWER[0])
    path.write_bytes(path.read_bytes().replace(b"extra", b"ex\x82ra"))
    assert "not a Parquet file that can be read" in refused(tmp_path)


# -- CSV -------------------------------------------------------------------------------------------------------


def rows(stamp: Callable[[datetime], str], form: str, head: str) -> str:
    begin = datetime.fromtimestamp(START_S, UTC)
    moments = [begin + timedelta(milliseconds=100 * tick) for tick in range(300)]
    lines = [form.format(time=stamp(at), power=f"{power:.2f}") for at, power in zip(moments, POWER[0], strict=True)]
    return "\n".join([head, *lines]) + "\n"


def own(at: datetime) -> str:
    return at.strftime("%Y/%m/%d %H:%M:%S.") + f"{at.microsecond // 1000:03d}"


def tokyo(at: datetime) -> str:
    return at.astimezone(timezone(timedelta(hours=9))).isoformat()


USUAL = "timestamp, index, power.draw [W]"
PLAIN = rows(own, "{time}, 0, {power} W", USUAL)
FORMS: dict[str, bytes] = {
    "as it is": PLAIN.encode(),
    "byte order mark": PLAIN.encode("utf-8-sig"),
    "UTF-16": PLAIN.replace("\n", "\r\n").encode("utf-16"),
    "UTF-16, big end first": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
    "decimal commas": "\n".join(
        line[:28] + line[28:].replace(".", ",") if tick else line for tick, line in enumerate(PLAIN.split("\n"))
    ).encode(),
    "semicolons": rows(own, "{time};0;{power}", "timestamp;index;power.draw [W]").encode(),
    "ISO times": rows(datetime.isoformat, "{time}, 0, {power} W", USUAL).encode(),
    "ISO times with a zone": rows(tokyo, "{time},{power}", "timestamp,power_w").encode(),
    "epoch seconds": rows(
        lambda at: f"{at.timestamp():.3f}", "{time},0,{power}", "timestamp_s,gpu_id,power_w"
    ).encode(),
    "epoch ms": rows(lambda at: f"{1000 * at.timestamp():.0f}", "{time},{power}", "timestamp_s,power_w").encode(),
    "quotes": rows(own, '"{time}","0","{power} W"', '"timestamp","index","power.draw [W]"').encode(),
    "a remark before": b"# host 7\n" + PLAIN.encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_log_in_any_form_is_the_same_trace(tmp_path: Path, form: str) -> None:
    (tmp_path / "a.csv").write_bytes(FORMS[form])
    (found,) = read_traces(tmp_path).traces
    np.testing.assert_allclose(found.power_w, POWER, atol=0.006)
    assert found.filled_ppm == 0


def test_comma_decimals_with_semicolons(tmp_path: Path) -> None:
    text = rows(own, "{time};0;{power}", "timestamp;index;power.draw [W]")
    head, *lines = text.splitlines()
    (tmp_path / "a.csv").write_text("\n".join([head, *(one[:24] + one[24:].replace(".", ",") for one in lines)]) + "\n")
    np.testing.assert_allclose(only(tmp_path), POWER, atol=0.006)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("name,mean\nT4,50\n", "its first line names no timestamp and power.draw"),
        (USUAL + "\n", "it ends after the header"),
        (USUAL + "\nyesterday, 0, 60.00 W\n", "the time 'yesterday' is not understood"),
        (USUAL + "\n2026/01/01 00:00:00.000, 0, many W\n", "the power 'many W' or the index is no number"),
        (USUAL + "\n2026/01/01 00:00:00.000, 0, [N/A]\n", "the power is '[N/A]'"),
        ("timestamp,index,power.draw\n2026-01-01,0,60,5\n", "4 fields below 3 names (decimal commas?)"),
    ],
)
def test_why_a_log_cannot_be_read_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    assert f"a.csv: no reading in the log: {said}" in refused(tmp_path)


def test_a_log_of_which_most_lines_are_lost_is_not_used(tmp_path: Path) -> None:
    head, *lines = PLAIN.splitlines()
    torn = [line if tick % 3 == 0 else line[:-6] for tick, line in enumerate(lines)]
    (tmp_path / "a.csv").write_text("\n".join([head, *torn]) + "\n")
    assert "200 lines of 300 cannot be read" in refused(tmp_path)


@given(st.binary(max_size=400))
def test_no_bytes_are_too_odd(data: bytes) -> None:
    for start in (b"", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"timestamp;power.draw\n", b"timestamp, power_w\n"):
        for line in nvidia_lines(io.BytesIO(start + data)):
            assert isinstance(line, bytes)


@given(st.datetimes(datetime(1975, 1, 1), datetime(2200, 1, 1)), st.integers(-840, 840))
def test_moments_agree_whatever_they_are_written_as(at: datetime, minutes: int) -> None:
    at = at.replace(microsecond=at.microsecond // 1000 * 1000)
    zoned = at.replace(tzinfo=UTC)
    ms = (zoned - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    forms = [at.isoformat(), zoned.isoformat(), str(at).replace("-", "/"), f"{at.isoformat()}Z"]
    forms += [zoned.astimezone(timezone(timedelta(minutes=minutes))).isoformat()]
    forms += [f"{ms / 1000:.3f}", str(ms), str(1000 * ms), str(1_000_000 * ms)]
    assert {moment_ms(one) for one in forms} == {ms}
    for one in ("", "noon", "1e5", "-5", "0001-01-01T00:00:00+23:59x", "9" * 21, "9" * 20 + ".", "nan"):
        assert moment_ms(one) is None or one.startswith("9")


# -- directories and manifests -----------------------------------------------------------------------------------


def test_a_foreign_file_does_not_spoil_the_others(tmp_path: Path) -> None:
    log(tmp_path / "0.csv", POWER)
    (tmp_path / "summary.csv").write_text("name,mean\nT4,50\n")
    found = read_traces(tmp_path)
    assert [one.name for one in found.traces] == ["0.csv"]
    assert [(one.file, one.reason) for one in found.skipped] == [
        ("summary.csv", "no reading in the log: its first line names no timestamp and power.draw")
    ]
    (tmp_path / "manifest.json").write_text(json.dumps({"traces": [{"file": "0.csv"}, {"file": "summary.csv"}]}))
    assert refused(tmp_path).startswith("summary.csv: no reading")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("training", "training"),
        ("LLM fine-tuning (training)", "training"),
        ("Pre-training, 8 nodes", "training"),
        ("LLM serving", "inference"),
        ("batch_inference", "inference"),
        ("Idle", "idle"),
        ("Mixed", "mixed"),
        ("training and inference", "training and inference"),
        ("constraining", "constraining"),
    ],
)
def test_a_manifest_s_words_for_a_workload(text: str, kind: str) -> None:
    assert stated_workload(text) == kind


def test_a_workload_that_no_fleet_has_is_listed(tmp_path: Path) -> None:
    manifest(tmp_path, ["t1", "i1"])
    document = json.loads((tmp_path / "manifest.json").read_text())
    document["traces"] += [{**document["traces"][0], "trace": "m", "workload": "microbenchmark"}]
    document["traces"][0]["workload"] = "LLM fine-tuning (training)"
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    done = call(*margin(tmp_path, hosts=4))
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["fleet"]["jobs_from"], result["fleet"]["job_traces"]) == ("training", 1)
    assert result["skipped"] == [
        {"file": "m", "reason": "workload 'microbenchmark' is none of training, inference, idle"}
    ]


def margin(directory: Path, hosts: int) -> list[str]:
    arguments = {"traces": directory, "hosts": hosts, "gpus": 1, "window": 5, "trials": 1, "run-up": 0, "mode": "any"}
    return ["bench", "margin", "--json", *(f"--{name}={value}" for name, value in arguments.items())]


def test_half_a_surrogate_pair_is_no_traceback(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", POWER)
    (tmp_path / "manifest.json").write_text(
        '{"traces": [{"file": "a.parquet", "trace": "\\ud800", "gpu": "G\\ud800", "workload": "inference"}]}'
    )
    done = call(*margin(tmp_path, hosts=4))
    assert done.exit_code == 0, done.output
    assert [name[:2] for name in json.loads(done.stdout)["fleet"]["classes"]] == ["G?"]
