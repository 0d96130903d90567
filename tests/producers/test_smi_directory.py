"""Directories of nvidia-smi logs: side by side by their times, every file once, and errors that name the file."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.errors import TraceError
from producers.sample.smi_directory import MAX_LOGS, read_directory, read_hosts
from producers.sample.trace import read_nvidia_smi
from schemas.errors import ConfigError

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
PLAIN = "timestamp, power.draw [W]\n"
INDEXED = "timestamp, index, power.draw [W]\n"


def stamp(tick: int) -> str:
    return (NOON + timedelta(milliseconds=100 * tick + 3)).strftime("%Y/%m/%d %H:%M:%S.%f")[:-3]


def plain(ticks: range, level: float, header: str = PLAIN) -> str:
    return header + "".join(f"{stamp(tick)}, {level + tick:.2f} W\n" for tick in ticks)


def indexed(ticks: range, gpus: range, level: float = 100.0) -> str:
    rows = [f"{stamp(tick)}, {gpu}, {level * gpu + tick:.2f} W\n" for tick in ticks for gpu in gpus]
    return INDEXED + "".join(rows)


def write(directory: Path, **logs: str) -> Path:
    for name, text in logs.items():
        (directory / name.replace("_", ".")).write_text(text)
    return directory


def test_one_file_per_gpu_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    write(tmp_path, gpu10_csv=plain(range(5), 1000), gpu2_csv=plain(range(5), 200), gpu0_csv=plain(range(5), 0))
    (tmp_path / ".hidden").write_text("no log")
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "gpu0.csv").write_text("no log")
    found = read_directory(tmp_path, gpu_model="H100")
    assert found.trace.power_w.tolist() == [[level + tick for tick in range(5)] for level in (0, 200, 1000)]
    assert list(found.logs) == ["gpu0.csv", "gpu2.csv", "gpu10.csv"]
    assert found.trace.provenance == {"origin": tmp_path.name, "logs": list(found.logs)}
    assert (found.trace.sampler_mode, found.trace.gpu_model, found.trace.sample_hz) == ("legacy", "H100", 10)


def test_files_are_put_side_by_side_by_time_not_by_line(tmp_path: Path) -> None:
    write(tmp_path, a=plain(range(6), 0), b=plain(range(4, 9), 100), c=indexed(range(2, 5), range(2)))
    power_w = read_directory(tmp_path).trace.power_w
    assert power_w.shape == (4, 9)
    there = [np.flatnonzero(~np.isnan(row)).tolist() for row in power_w]
    assert there == [[0, 1, 2, 3, 4, 5], [4, 5, 6, 7, 8], [2, 3, 4], [2, 3, 4]]
    assert power_w[1, 4:].tolist() == [104, 105, 106, 107, 108]
    assert power_w[3, 2:5].tolist() == [102, 103, 104]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(6, 20)), min_size=1, max_size=4), st.data())
def test_a_split_log_gives_the_trace_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, spans: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Every GPU into a file of its own, or all into one: the same readings on the same ticks."""
    one, many = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("many")
    gpus = range(len(spans))
    rows = {gpu: [(tick, 100 * gpu + tick) for tick in range(*spans[gpu])] for gpu in gpus}
    skip = data.draw(st.sets(st.integers(0, 20), max_size=3))
    kept = {gpu: [row for row in rows[gpu] if row[0] not in skip or row[0] in (5, 6)] for gpu in gpus}
    for gpu in gpus:
        text = PLAIN + "".join(f"{stamp(tick)}, {watts:.2f} W\n" for tick, watts in kept[gpu])
        (many / f"log {gpu}").write_text(text)
    lines = sorted((tick, gpu, watts) for gpu in gpus for tick, watts in kept[gpu])
    text = INDEXED + "".join(f"{stamp(tick)}, {gpu}, {watts:.2f} W\n" for tick, gpu, watts in lines)
    (one / "all").write_text(text)
    whole, _, _ = read_nvidia_smi(one / "all")
    apart = read_directory(many) if len(spans) == 1 or _overlap(kept) else None
    if apart is not None:
        assert np.array_equal(apart.trace.power_w, whole.power_w, equal_nan=True)
        assert sum(stats.readings for stats in apart.logs.values()) == len(lines)
    assert np.array_equal(read_directory(one).trace.power_w, whole.power_w, equal_nan=True)


def _overlap(kept: dict[int, list[tuple[int, int]]]) -> bool:
    ticks = {gpu: {tick for tick, _ in rows} for gpu, rows in kept.items()}
    return all(any(ticks[gpu] & ticks[other] for other in ticks if other != gpu) for gpu in ticks)


def test_every_file_is_a_host(tmp_path: Path) -> None:
    write(tmp_path, node1_csv=indexed(range(4), range(2)), node2_csv=plain(range(50, 53), 7))
    hosts = read_hosts(tmp_path)
    assert list(hosts) == ["node1", "node2"]
    assert hosts["node1"].trace.power_w.shape == (2, 4)
    assert hosts["node2"].trace.power_w.tolist() == [[57, 58, 59]]
    assert hosts["node2"].trace.provenance["logs"] == ["node2.csv"]


@pytest.mark.parametrize("read", [read_directory, read_hosts])
class TestRefused:
    def refused(self, read: object, directory: Path, message: str) -> None:
        with pytest.raises(TraceError, match=message):
            read(directory)  # type: ignore[operator]

    def test_no_log(self, tmp_path: Path, read: object) -> None:
        self.refused(read, tmp_path, "0 files; 1 to 256")
        self.refused(read, tmp_path / "none", "No such file")
        (tmp_path / "file").write_text("")
        self.refused(read, tmp_path / "file", "Not a directory")

    def test_too_many(self, tmp_path: Path, read: object) -> None:
        for number in range(MAX_LOGS + 1):
            (tmp_path / str(number)).touch()
        self.refused(read, tmp_path, "257 files")

    def test_a_file_that_is_no_log(self, tmp_path: Path, read: object) -> None:
        write(tmp_path, a_csv=plain(range(3), 0), README="Read me.\n")
        self.refused(read, tmp_path, "README: no reading")

    def test_a_link_to_another(self, tmp_path: Path, read: object) -> None:
        write(tmp_path, a=plain(range(3), 0))
        (tmp_path / "b").symlink_to(tmp_path / "a")
        self.refused(read, tmp_path, "a and b are the same file")
        (tmp_path / "b").unlink()
        (tmp_path / "b").hardlink_to(tmp_path / "a")
        self.refused(read, tmp_path, "a and b are the same file")

    def test_a_copy(self, tmp_path: Path, read: object) -> None:
        write(tmp_path, a=plain(range(3), 0), b=plain(range(3), 0))
        self.refused(read, tmp_path, "a and b are the same log")

    def test_a_dangling_link(self, tmp_path: Path, read: object) -> None:
        (tmp_path / "a").symlink_to(tmp_path / "gone")
        self.refused(read, tmp_path, "No such file")

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path, read: object) -> None:
        os.mkfifo(tmp_path / "pipe")
        self.refused(read, tmp_path, "pipe is no file")

    def test_sampler_modes_that_differ(self, tmp_path: Path, read: object) -> None:
        header = "timestamp, power.draw.instant [W]\n"
        write(tmp_path, a=plain(range(3), 0), b=plain(range(3), 9, header))
        self.refused(read, tmp_path, "b is instant, a is legacy: choose one column")


def test_logs_that_never_ran_together(tmp_path: Path) -> None:
    write(tmp_path, a=plain(range(3), 0), b=plain(range(3), 9), c=plain(range(50, 60), 0))
    with pytest.raises(TraceError, match="c has no time in common"):
        read_directory(tmp_path)


def test_two_files_of_one_host(tmp_path: Path) -> None:
    write(tmp_path, n_csv=plain(range(3), 0), n_log=plain(range(3), 9))
    with pytest.raises(TraceError, match="two logs of host n"):
        read_hosts(tmp_path)


@pytest.mark.parametrize("read", [read_directory, read_hosts])
def test_options_reach_the_logs(tmp_path: Path, read: object) -> None:
    header = "timestamp, power.draw [W], power.draw.instant [W]\n"
    write(tmp_path, a=header + f"{stamp(0)}, 1.00 W, 2.00 W\n{stamp(5)}, 3.00 W, 4.00 W\n")
    found = read(tmp_path, column="power.draw", sample_hz=2)  # type: ignore[operator]
    one = found["a"] if isinstance(found, dict) else found
    assert (one.trace.power_w.tolist(), one.trace.sampler_mode, one.trace.sample_hz) == ([[1, 3]], "legacy", 2)
    with pytest.raises(ConfigError):
        read(tmp_path, sample_hz=7)  # type: ignore[operator]


def test_no_file_stays_open(tmp_path: Path) -> None:
    """Warnings are errors here: a file left open would be one."""
    write(tmp_path, a=plain(range(3), 0), b="no log\n")
    for read in (read_directory, read_hosts):
        with pytest.raises(TraceError):
            read(tmp_path)
    handles = Path("/proc/self/fd")
    # Only those of these logs: other descriptors of this process come and go with threads of other tests.
    links = [os.readlink(handles / name) for name in os.listdir(handles) if (handles / name).is_symlink()]
    assert [link for link in links if link.startswith(str(tmp_path))] == []
