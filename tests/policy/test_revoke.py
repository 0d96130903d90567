"""`policy revoke`: what it adds, what it leaves, what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from enclavescale.policy.document import read_document
from enclavescale.policy.held import hold_file
from enclavescale.policy.revoke import named, unknown_to, with_revoked
from schemas.errors import ConfigError
from tests.policy.samples import strict
from tests.policy.test_commands import Desk

DIGEST = "AB" * 32


def test_what_is_revoked_is_all_that_changes(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    host = strict().hosts[0]
    subjects = ["--host", host.host_id, "--platform", host.platform_ids[0].upper(), "--session", DIGEST]
    out = tmp_path / "next.toml"
    assert desk.sign("--first").exit_code == 0
    done = desk("revoke", desk.out, "-o", out, "--reason", "stolen", *subjects)
    assert done.exit_code == 0, done.output
    assert f"revoked: session {DIGEST.lower()}" in done.stdout
    before, after = hold_file(desk.out).policy, read_document(out)
    assert {(one.kind, one.id, one.reason) for one in after.revoked} - {
        (one.kind, one.id, one.reason) for one in before.revoked
    } == {
        ("host", host.host_id, "stolen"),
        ("platform", host.platform_ids[0].lower(), "stolen"),
        ("session", DIGEST.lower(), "stolen"),
    }
    assert (after.counter, after.not_after_ms) == (0, 0), "signing says"
    assert (after.hosts, after.limits, after.trust_roots) == (before.hosts, before.limits, before.trust_roots)
    signed = tmp_path / "next.bin"
    key = ["--key", str(tmp_path / "key.pem"), "--previous", str(desk.out)]
    assert desk("sign", out, *key, "-o", signed).exit_code == 0
    assert hold_file(signed).policy.counter == before.counter + 1
    again = desk("revoke", signed, "-o", tmp_path / "more.json", "--reason", "again", *subjects, "--json")
    assert "CONFIG_INVALID" in again.stdout, "nothing is left to revoke"
    assert again.exit_code == 2
    assert not (tmp_path / "more.json").exists()


def test_a_name_that_stands_nowhere_else_is_said(tmp_path: Path) -> None:
    desk, out = Desk(tmp_path), tmp_path / "next.json"
    done = desk("revoke", desk.document, "-o", out, "--reason", "r", "--host", "no-such-host")
    assert done.exit_code == 0
    assert "no-such-host: the policy names it nowhere else" in done.stderr
    assert read_document(out).revoked[-1].id == "no-such-host"
    policy = strict()
    there = [("host", policy.aggregators[0].host_id), ("measurement", policy.measurements[0].label)]
    strange = [("platform", "00"), ("gpu", "11" * 32), ("measurement", "x")]
    assert list(unknown_to(policy, [*there, *strange, ("session", DIGEST), ("root", "x")])) == strange


def test_it_reads_the_newest_of_the_topic_and_writes_over_nothing(tmp_path: Path) -> None:
    desk, out = Desk(tmp_path), tmp_path / "next.toml"
    assert desk.sign("--first").exit_code == 0
    signer = ["--policy-signer", desk.signer]
    assert desk("apply", desk.out, *desk.cluster, *signer).exit_code == 0
    arguments = ["-o", str(out), "--reason", "r", "--root", "old-root"]
    assert desk("revoke", *arguments, *desk.cluster, *signer).exit_code == 0
    assert read_document(out).revoked[-1].kind == "root"
    twice = desk("revoke", *arguments, *desk.cluster, *signer)
    assert twice.exit_code == 2
    assert "is there already" in twice.stderr
    assert desk("revoke", desk.document, "-o", tmp_path / "x", "--reason", "r").exit_code == 2, "nothing named"


@pytest.mark.parametrize(
    ("kind", "identifier"),
    [("session", "ab"), ("gpu", "zz" * 32), ("session", DIGEST + "00"), ("platform", "x"), ("platform", ""),
     ("host", ""), ("platform", "a b c")],
)  # fmt: skip
def test_what_names_nothing_is_refused(kind: str, identifier: str) -> None:
    with pytest.raises(ConfigError) as refused:
        named(kind, identifier)
    assert refused.value.field == kind


def test_what_is_revoked_already_keeps_its_reason() -> None:
    first, new = with_revoked(strict(), [named("host", "a"), named("host", "a")], "one")
    assert new == (("host", "a"),)
    second, more = with_revoked(first, [named("host", "a"), named("host", "b")], "two")
    assert more == (("host", "b"),)
    assert [(one.id, one.reason) for one in second.revoked[-2:]] == [("a", "one"), ("b", "two")]
