"""Every SGX, TDX and DCAP-JSON case of the corpus through the command line: verdict, status, advisories, codes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from enclavescale.cli import main
from tests.verifier.corpus import CARRIED, Case, cases, documents, quotes

POLICIES = ("authentic", "strict")
IN_A_PROCESS = (
    "tdx_v4-dcapqvl-f1c85033-e17", "sgx_v3-intelqvl-sample", "synth-tdx5-t3-relaunch-conf",
    "tdx_v4-dcapqvl-f1c85033-e17+expired",
)  # fmt: skip
"""A handful is run as people run it: a process of its own."""


def case_id(case: Case) -> str:
    return case.name


def arguments(case: Case, policy: str) -> list[str]:
    """`enclavescale verify` for this case."""
    found = ["verify", str(case.path("quote")), "--policy", policy, "--json", "--at", str(case.at)]
    options = {"collateral": "--collateral", "pck_cert": "--endorsement", "trust_root": "--trust-root"}
    for what, option in options.items():
        if (path := case.path(what)) is not None:
            found += [option, str(path)]
    return found


def run(case: Case, policy: str) -> tuple[int, dict[str, Any]]:
    """Exit code and verdict, in this process."""
    result = CliRunner().invoke(main, arguments(case, policy))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout)


def check(case: Case, policy: str, exit_code: int, verdict: dict[str, Any]) -> None:
    """The verdict is the manifest's, and a refusal says why."""
    expected = case.expected(policy)
    accepted = expected["verdict"] == "ok"
    assert exit_code == (0 if accepted else 3), verdict["errors"]
    assert (verdict["status"] == "contraindicated") is not accepted
    judged = case.expected("authentic")
    if "tcb_status" in judged:
        assert verdict["tcb_status"] == judged["tcb_status"]
        assert verdict["advisory_ids"] == sorted(judged["advisory_ids"])
    if "current_tcb_status" in judged:
        assert verdict["tcb"]["current"]["status"] == judged["current_tcb_status"]
    if accepted:
        assert verdict["codes"] == []
        assert verdict["errors"] == []
        return
    assert verdict["codes"][0] in case.codes(policy)
    for error in verdict["errors"]:
        assert error["remedy"]
        assert error["field"]
        assert error["message"]
    if judged["verdict"] == "reject" and "tcb_status" not in judged:
        assert verdict["tcb_status"] is None


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("case", quotes(), ids=case_id)
def test_quote(case: Case, policy: str) -> None:
    check(case, policy, *run(case, policy))


@pytest.mark.parametrize("case", [case for case in quotes() if case.name in IN_A_PROCESS], ids=case_id)
def test_quote_in_a_process(case: Case) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "enclavescale", *arguments(case, "authentic")],
        capture_output=True,
        text=True,
        check=False,
    )
    check(case, "authentic", done.returncode, json.loads(done.stdout))
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("case", [case for case in quotes() if case.entry.get("report_data")], ids=case_id)
def test_claims_are_the_quotes(case: Case) -> None:
    """Where a quote is judged at all, its report data and platform are those the corpus recorded."""
    _, verdict = run(case, "authentic")
    if verdict["claims"] is not None:
        assert verdict["claims"]["report_data"] == case.entry["report_data"]
        assert verdict["claims"]["fmspc"] == case.entry.get("fmspc", verdict["claims"]["fmspc"])


@pytest.mark.parametrize("case", documents(), ids=case_id)
def test_document(case: Case) -> None:
    """A document of Intel's that is genuine and current passes `collateral show`; of others it says what is wrong.

    What Intel's library cannot read we cannot read either, and the other way round.
    """
    result = CliRunner().invoke(main, ["collateral", "show", str(case.path("json")), "--json", "--at", str(case.at)])
    shown = json.loads(result.stdout)
    if case.expected("authentic")["verdict"] == "ok":
        assert (result.exit_code, shown["ok"]) == (0, True), result.output
        return
    assert (result.exit_code, shown["ok"]) == (3, False), result.output
    readable = not case.entry["intel_qvl"]["format_error"]
    codes = (
        {"COLLATERAL_MISSING", "COLLATERAL_SIGNATURE"}
        if readable
        else {"COLLATERAL_MALFORMED", "COLLATERAL_UNSUPPORTED"}
    )
    assert {item["code"] for item in shown["items"]} <= codes
    assert shown["items"]


def test_a_quote_without_collateral_is_refused_after_its_signatures_held() -> None:
    case = next(case for case in quotes() if case.name == "tdx_v4-dcapqvl-f1c85033-e17")
    bare = Case({**case.entry, "files": {"quote": case.entry["files"]["quote"]}}, case.folder)
    exit_code, verdict = run(bare, "authentic")
    assert (exit_code, verdict["codes"][0]) == (3, "COLLATERAL_MISSING")


@pytest.mark.parametrize("folder", CARRIED, ids=lambda folder: folder.name)
def test_the_carried_cases_are_those_in_the_notice(folder: Path) -> None:
    notice = (folder / "NOTICE").read_text() + (folder.parent / "NOTICE").read_text()
    named = {folder / name for case in cases() if case.folder == folder for name in case.entry["files"].values()}
    assert len(named) > 20
    for path in named:
        assert path.name in notice
        assert hashlib.sha256(path.read_bytes()).hexdigest() in notice
    assert {path.name for path in folder.iterdir()} <= {path.name for path in named} | {"NOTICE", "manifest.json"}
