"""`enclavescale collateral show`: exit codes, streams, times, and what a person sees."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result
from rich.console import Console

from enclavescale.cli.evidence import Moment
from enclavescale.collateral_screen import collateral_screen
from tests.cli.conftest import call, process
from tests.forge.dcap.certificates import issue
from tests.forge.dcap.world import DAY, NOW, ROOT, TCB_SIGNER, TDX4, pem
from tests.verifier.selecting import NOW_MS, held, real
from verifier.inventory import take_inventory, to_json
from verifier.trust.roots import INTEL_SGX_ROOT

AT = str(NOW)


@pytest.fixture
def forged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A forged set. Its path is short: a table shortens long ones."""
    monkeypatch.chdir(tmp_path)
    path = Path("set.json")
    path.write_text(TDX4.mint().collateral_json)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root it stands under."""
    path = tmp_path / "root.pem"
    path.write_text(pem(TDX4.mint().root))
    return path


def show(*arguments: str | Path) -> Result:
    return call("collateral", "show", *map(str, arguments))


def test_real_sets_are_all_usable(tmp_path: Path) -> None:
    for one in real():
        path = tmp_path / f"{one.name}.json"
        path.write_bytes(one.text)
        done = show(path, "--at", str(one.now_ms // 1000), "--json")
        assert (done.exit_code, done.stderr) == (0, "")
        assert json.loads(done.stdout)["ok"] is True
        done = show(path, "--at", str(one.now_ms // 1000))
        assert (done.exit_code, done.stderr) == (0, "")
        assert "ALL USABLE" in done.stdout


def test_exit_3_and_the_causes_where_something_is_not_usable(forged: Path) -> None:
    done = show(forged, "--at", AT)
    assert done.exit_code == 3
    for text in ("NOT ALL USABLE", "ROOT_UNTRUSTED", "--trust-root", "set.json"):
        assert text in done.stdout
    found = json.loads(show(forged, "--at", AT, "--json").stdout)
    assert found["ok"] is False
    assert found["states"]["refused"] == 7


def test_a_root_may_be_named_and_says_so_on_stderr(forged: Path, root: Path) -> None:
    done = show(forged, "--at", AT, "--trust-root", root, "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["ok"] is True
    assert "WARNING" in done.stderr
    assert "Intel SGX Root CA" in done.stderr
    assert str(root) in done.stderr


def test_it_runs_as_a_process_and_prints_one_json_value(forged: Path) -> None:
    done = process("collateral", "show", str(forged), "--json", "--at", AT)
    assert (done.returncode, done.stderr) == (3, "")
    assert json.loads(done.stdout)["at"] == "2026-02-02T06:40:00Z"


def test_without_a_time_it_is_now(forged: Path, root: Path) -> None:
    before = time.time()
    at = json.loads(show(forged, "--json", "--trust-root", root).stdout)["at"]
    assert before - 2 <= Moment().convert(at, None, None) / 1000 <= time.time() + 2


MOMENTS = {
    "1770014400": NOW,
    " 1770014400 ": NOW,
    "2026-02-02T06:40:00Z": NOW,
    "2026-02-02t06:40:00z": NOW,
    "2026-02-02 06:40:00Z": NOW,
    "2026-02-02T07:40:00+01:00": NOW,
    "2026-02-01T22:40:00-08:00": NOW,
    "2026-02-02T06:40:00-00:00": NOW,
    "2026-02-02T06:40:00.250Z": NOW + 0.25,
    "1970-01-01T00:00:00Z": 0,
    "0": 0,
    "2100-01-01T00:00:00Z": 4_102_444_800,
}


@pytest.mark.parametrize(("text", "seconds"), MOMENTS.items())
@pytest.mark.parametrize("zone", ["UTC", "America/Los_Angeles", "Asia/Kolkata"])
def test_moments_do_not_depend_on_this_machines_zone(
    text: str, seconds: float, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert Moment().convert(text, None, None) == round(seconds * 1000)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2026-02-02T06:40:00", "no zone"),
        ("2026-02-02", "neither"),
        ("yesterday", "neither"),
        ("-5", "neither"),
        ("1770014400.5", "neither"),
        ("1770014400000", "milliseconds"),
        ("2026-02-30T00:00:00Z", "2026-02-30"),
        ("2026-01-01T25:00:00Z", "2026-01-01"),
        ("2026-01-01T00:00:00+99:00", "2026-01-01"),
        ("٢٠٢٦-02-02T06:40:00Z", "neither"),
        ("", "neither"),
    ],
)
def test_other_moments_are_refused_with_a_hint(text: str, said: str) -> None:
    with pytest.raises(click.BadParameter, match=said):
        Moment().convert(text, None, None)


USAGE: list[tuple[tuple[str, ...], str]] = [
    ((), "PATH"),
    (("no-such-file",), "no-such-file"),
    (("{set}", "--at", "2026-02-02T06:40:00"), "no zone"),
    (("{set}", "--trust-root", "{set}"), "neither JSON, PEM"),
    (("{set}", "--trust-root", "{leaf}"), "not a root"),
    (("{set}", "--trust-root", "{two}"), "not exactly one"),
    (("{set}", "--trust-root", "{broken}"), "certificate"),
    (("{set}", "--trust-root", "{curve}"), "secp256k1"),
]


@pytest.mark.parametrize(("arguments", "said"), USAGE)
def test_exit_2_for_what_the_user_must_correct(
    arguments: tuple[str, ...], said: str, forged: Path, tmp_path: Path
) -> None:
    files = {
        "leaf": pem(issue(TCB_SIGNER, ROOT)),
        "two": pem(TDX4.mint().root) + pem(issue(TCB_SIGNER, ROOT)),
        "broken": pem(b"\x30\x03\x30\x01\x00"),
        "curve": pem(_root_on("k256")),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    names = {name: str(tmp_path / name) for name in files} | {"set": str(forged)}
    done = show(*(one.format(**names) for one in arguments))
    assert done.exit_code == 2
    assert said in re.sub(r"\s+", " ", done.stderr.replace("│", ""))
    assert done.stdout == ""


def _root_on(curve: str) -> bytes:
    from dataclasses import replace

    return issue(replace(ROOT, curve=curve, key=f"root on {curve}"))


def test_intels_own_root_needs_no_warning(tmp_path: Path) -> None:
    (one, *_) = real()
    from verifier.trust.store import Collateral

    (der,) = [c.der for c in Collateral.from_json(one.text).certificates if c.spki == INTEL_SGX_ROOT.spki]
    (tmp_path / "root").write_bytes(der)
    (tmp_path / "set").write_bytes(one.text)
    done = show(tmp_path / "set", "--trust-root", tmp_path / "root", "--at", str(one.now_ms // 1000))
    assert (done.exit_code, done.stderr) == (0, "")


def test_a_file_that_cannot_be_opened_is_usage(tmp_path: Path) -> None:
    done = show(tmp_path / "absent")
    assert done.exit_code == 2
    assert "absent" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_in_a_directory_that_cannot_be_opened_is_listed(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    done = show(tmp_path)
    assert done.exit_code == 3
    assert "dangling" in done.stdout
    assert "cannot be opened" in " ".join(done.stdout.split())


def test_an_empty_directory_is_not_usable(tmp_path: Path) -> None:
    done = show(tmp_path)
    assert done.exit_code == 3
    assert "NOTHING HELD" in done.stdout


def screen(inventory: dict[str, Any], width: int) -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(collateral_screen(inventory, width))
    return [line.rstrip() for line in console.export_text().splitlines()]


MIXED = to_json(take_inventory(held(TDX4.but(tcb_info_window=(NOW - 3 * DAY, NOW - 1))), [INTEL_SGX_ROOT], NOW_MS))


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_nothing_is_cut_off_at_any_width(width: int) -> None:
    lines = screen(MIXED, width)
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    squeezed = "".join("".join(lines).split())
    for one in MIXED["items"]:
        assert "".join(one["subject"].split()) in squeezed
        assert one["code"] is None or one["code"] in squeezed


def test_long_lists_of_problems_are_cut_and_say_so() -> None:
    many = MIXED | {"items": MIXED["items"] * 10}
    assert any("--json lists them all" in line for line in screen(many, 80))


def test_control_characters_reach_no_terminal(tmp_path: Path) -> None:
    (tmp_path / "a\x1b[2Jb").write_bytes(b'{"tcbInfo":{"id":"\\u001b[2J"},"signature":""}')
    done = show(tmp_path)
    assert done.exit_code == 3
    assert "\x1b[2J" not in done.stdout + done.stderr
    assert "\x1b[2J" not in show(tmp_path, "--json").stdout
