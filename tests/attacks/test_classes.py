"""The committed list of attack classes: complete, documented, and apart from everything that runs in production."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from enclavescale.bench.attacks_broker import LIVE
from enclavescale.bench.attacks_classes import CLASSES, DOCUMENT, NOT_TRIED, READINGS, RECORD, STREAM
from enclavescale.bench.attacks_documents import DOCUMENTS
from enclavescale.bench.attacks_streams import STREAMS

ROOT = Path(__file__).resolve().parents[2]
DEMANDED = (
    "unattested forged_root wrong_measurement debug old_tcb revoked collateral_rollback quote_relay report_tampering "
    "session_key_substitution replay_same_session replay_other_session replay_other_domain replay_after_restart "
    "replay_after_a_month broker_reorder chain_truncation splice_of_chains equivocation clock_attack sybil "
    "wrong_domain capacity_inflation policy_rollback forged_policy forged_output broker_drop broker_duplicate "
    "dead_letter_flood decompression_bomb byzantine_values policy_withholding collateral_withholding evidence_flood"
)


def rows() -> set[str]:
    """Numbers of the threat model's rows."""
    return set(re.findall(r"^\| (T\d+) \|", (ROOT / "docs" / "threat-model.md").read_text(), re.MULTILINE))


def test_every_row_of_the_threat_model_is_tried_or_says_why_not() -> None:
    tried = {row for one in CLASSES.values() for row in one.threats}
    left = [row for group in NOT_TRIED.values() for row in group]
    assert len(left) == len(set(left))
    assert not tried & set(left)
    assert tried | set(left) == rows()


def test_the_classes_that_were_asked_for_are_there() -> None:
    assert set(DEMANDED.split()) <= set(CLASSES)


def test_every_class_can_be_run() -> None:
    for name, one in CLASSES.items():
        assert (one.make is not None) == (one.kind == RECORD), name
    assert {name for name, one in CLASSES.items() if one.kind == STREAM} == set(STREAMS)
    assert {name for name, one in CLASSES.items() if one.kind == DOCUMENT} == set(DOCUMENTS)
    assert [name for name, one in CLASSES.items() if one.kind == READINGS] == ["byzantine_values"]
    assert set(LIVE) <= set(CLASSES)


def test_the_page_has_every_class() -> None:
    page = (ROOT / "docs" / "bench-attacks.md").read_text()
    assert set(re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE)) == set(CLASSES)


def test_no_host_and_no_worker_can_reach_an_attack() -> None:
    code = (
        "import sys, stream_jobs.worker, stream_jobs.replay, enclavescale.agent.producing, producers.agent\n"
        "print([name for name in sys.modules if name.startswith('enclavescale.bench')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
