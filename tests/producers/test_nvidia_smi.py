"""nvidia-smi's CSV dialects and its faults: what is read, what is counted, what never stops the agent."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.sample.nvidia_smi import MAX_LINE_BYTES, NvidiaSmiLog, Reading, raw_lines

T0 = 1_772_625_600_123  # 2026/03/04 12:00:00.123 UTC
HEADER = "timestamp, index, power.draw [W]"


def read(text: str, **options: str) -> tuple[list[Reading], NvidiaSmiLog]:
    log = NvidiaSmiLog(raw_lines(io.BytesIO(text.encode())), **options)  # type: ignore[arg-type]
    return list(log), log


def line(value: str, milli: int = 123, index: str = "0") -> str:
    return f"2026/03/04 12:00:00.{milli:03d}, {index}, {value}\n"


def test_the_log_as_nvidia_smi_writes_it() -> None:
    found, log = read(f"{HEADER}\n" + line("612.34 W") + line("70.00 W", 124, "1"))
    assert found == [Reading(T0, 0, 612.34), Reading(T0 + 1, 1, 70.0)]
    assert (log.stats.readings, log.stats.headers, log.stats.bad_lines) == (2, 1, 0)
    assert log.sampler_mode == "legacy"


@pytest.mark.parametrize(
    "text",
    [
        line("612.34"),  # csv,noheader,nounits
        line("612.34 W"),  # csv,noheader
        f"{HEADER}\n" + line("612.34"),  # csv,nounits
        f"{HEADER}\r\n" + line("612.34 W").replace("\n", "\r\n"),
        "timestamp,index,power.draw\n" + line("612.34 W").replace(", ", ","),
        "index, power.draw [W], timestamp\n0, 612.34 W, 2026/03/04 12:00:00.123\n",
        "timestamp, name, index, power.draw [W]\n2026/03/04 12:00:00.123, NVIDIA H100, 0, 612.34 W\n",
    ],
)
def test_dialects(text: str) -> None:
    assert read(text)[0] == [Reading(T0, 0, 612.34)]


def test_without_an_index_everything_is_gpu_0() -> None:
    assert read("timestamp, power.draw [W]\n2026/03/04 12:00:00.123, 5.5 W\n")[0] == [Reading(T0, 0, 5.5)]


def test_the_column_decides_the_sampler_mode() -> None:
    header = "timestamp, index, power.draw [W], power.draw.average [W], power.draw.instant [W]\n"
    text = header + "2026/03/04 12:00:00.123, 0, 1.00 W, 2.00 W, 3.00 W\n"
    for column, mode, power in (
        (None, "instant", 3.0),
        ("power.draw", "legacy", 1.0),
        ("power.draw.average", "average", 2.0),
    ):
        found, log = read(text, **({"column": column} if column else {}))
        assert [r.power_w for r in found] == [power]
        assert log.sampler_mode == mode
    average_only = "timestamp, index, power.draw.average [W]\n" + line("9.00 W")
    assert read(average_only)[1].sampler_mode == "average"


def test_a_column_the_log_does_not_have() -> None:
    found, log = read(f"{HEADER}\n" + line("1.00 W"), column="power.draw.instant")
    assert (found, log.stats.bad_lines) == ([], 1)


@pytest.mark.parametrize(
    "word",
    ["[N/A]", "N/A", "[Unknown Error]", "[GPU is lost]", "[Not Supported]", "[Insufficient Permissions]"],
)
def test_a_reason_in_place_of_a_value_is_no_reading(word: str) -> None:
    found, log = read(f"{HEADER}\n" + line("1.00 W") + line(word, 223) + line("2.00 W", 323))
    assert [r.power_w for r in found] == [1.0, 2.0]
    assert log.stats.unavailable == {word: 1}
    assert log.stats.bad_lines == 0


@pytest.mark.parametrize(
    ("word", "power_w"),
    [
        ("10000.00 W", 10_000.0),
        ("10000.01 W", 10_000.0),
        ("99999.00 W", 10_000.0),
        ("612340.00 W", 10_000.0),
        (f"{'9' * 400}.00 W", 10_000.0),
        ("612.3456789 W", 612.3456789),
    ],
)
def test_no_value_decides_whether_there_is_a_reading(word: str, power_w: float) -> None:
    found, log = read(f"{HEADER}\n" + line(word))
    assert ([r.power_w for r in found], log.stats.bad_lines) == ([power_w], 0)


@pytest.mark.parametrize(
    "bad",
    [
        "\n",
        "garbage\n",
        line("6 12.34 W"),
        line("-5.00 W"),
        line("nan W"),
        line("inf W"),
        line("1e3 W"),
        line("612.34"),  # torn: the log has units
        line("612.34 kW"),
        line("٦.00 W"),
        line("6.00 W", index="-1"),
        line("6.00 W", index="256"),
        line("6.00 W", index="x"),
        line("6.00 W, 7"),
        "2026/13/04 12:00:00.123, 0, 6.00 W\n",
        "2026/02/30 12:00:00.123, 0, 6.00 W\n",
        "2026-03-04 12:00:00.123, 0, 6.00 W\n",
        "2026/03/04 12:00:60.123, 0, 6.00 W\n",
        "2026/03/04 12:00:00.123, 0, 61timestamp, index, power.draw [W]\n",
        "Unable to determine the device handle for GPU 0000:3B:00.0: Unknown Error\n",
        "\x00\x00\x00\n",
    ],
)
def test_a_bad_line_is_counted_and_the_next_one_read(bad: str) -> None:
    found, log = read(f"{HEADER}\n" + line("1.00 W") + bad + line("2.00 W", 323))
    assert [r.power_w for r in found] == [1.0, 2.0]
    assert log.stats.bad_lines == 1


def test_a_last_line_without_its_end_is_not_believed() -> None:
    for cut in range(1, len(line("612.34 W"))):
        found, log = read(f"{HEADER}\n" + line("1.00 W") + line("612.34 W")[:-cut])
        assert [r.power_w for r in found] == [1.0]
        assert log.stats.truncated + (log.stats.truncated == 0) == 1


def test_repeated_headers_may_change_the_columns() -> None:
    other = "timestamp, power.draw.instant [W]\n2026/03/04 12:00:01.123, 3.00\n"
    found, log = read(f"{HEADER}\n" + line("1.00 W") + f"{HEADER}\n" + line("2.00 W") + other)
    assert [r.power_w for r in found] == [1.0, 2.0, 3.0]
    assert (log.stats.headers, log.sampler_mode) == (3, "instant")


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    stream = io.BytesIO(b"x" * (20 * MAX_LINE_BYTES) + b"\n" + line("2.00 W").encode())
    log = NvidiaSmiLog(raw_lines(stream))
    assert [r.power_w for r in log] == [2.0]
    assert log.stats.truncated == 20


@given(st.binary(max_size=300))
def test_any_bytes_are_read_without_an_exception(data: bytes) -> None:
    list(NvidiaSmiLog(raw_lines(io.BytesIO(data))))


@given(st.text(alphabet="2026/0314 :.,W[]NA\n", max_size=120))
def test_nearly_right_text_gives_only_plausible_readings(text: str) -> None:
    for reading in read(text)[0]:
        assert 0 <= reading.power_w <= 10_000
        assert 0 <= reading.gpu < 256
