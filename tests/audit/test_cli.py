"""`enclavescale audit` and `enclavescale verify` on a worker's records: offline, over an archive."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from enclavescale.cli import main
from enclavescale.judging.output import judge_manifest, judge_output, record_kind
from schemas.codec import decode_signed_manifest
from stream_jobs.archive import Directory, Request, export_archive
from tests.audit.site import NAMES, Site, signed_policy, signer_point
from tests.audit.stories import T0, W, fresh, told
from tests.audit.test_chain import output, resigned
from tests.audit.test_equivocation import lie

SIGNER = ("--policy-signer", signer_point().hex())
STRANGER = ("--policy-signer", signer_point(1).hex())


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def said(result: Result) -> Any:
    return json.loads(result.stdout)


def archived(site: Site, directory: Path) -> tuple[str, str]:
    export_archive(site.topics, NAMES, Directory(directory), Request(None, None, None, None))
    return "--archive", str(directory)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return archived(told(), tmp_path_factory.mktemp("audit") / "archive")


def accepted_digests() -> list[bytes]:
    held = decode_signed_manifest(told().topics.of(NAMES.manifests)[0].value or b"")[0].manifest.accepted_digests
    return [held[i : i + 32] for i in range(0, len(held), 32)]


def test_a_proof_goes_from_one_command_to_the_other(archive: tuple[str, str], tmp_path: Path) -> None:
    digest, proof = accepted_digests()[1].hex(), tmp_path / "proof.json"
    made = run("audit", "prove", digest, "--out", proof, *archive, "--json")
    assert made.exit_code == 0, made.output
    assert (said(made)["verdict"], said(made)["digest"]) == ("accepted", digest)
    checked = run("audit", "check", proof, *SIGNER, "--json")
    assert checked.exit_code == 0
    assert said(checked) == said(made)
    assert said(checked)["published"]["domain"] == "d"
    words = run("audit", "check", proof, *SIGNER)
    assert words.exit_code == 0
    assert "COUNTED" in words.stdout
    assert "simulated" in words.stdout


def test_without_an_output_file_the_proof_is_what_is_printed(archive: tuple[str, str], tmp_path: Path) -> None:
    made = run("audit", "prove", accepted_digests()[0].hex(), *archive, *SIGNER)
    assert made.exit_code == 0
    assert "COUNTED" in made.stderr
    checked = CliRunner().invoke(main, ["audit", "check", "-", *SIGNER], input=made.stdout)
    assert checked.exit_code == 0


def test_a_proof_is_found_by_host_and_window_and_by_the_report(archive: tuple[str, str], tmp_path: Path) -> None:
    by_host = run("audit", "prove", "--host", "h1", "--window", T0 + 2 * W, "--include-report", *archive)
    assert by_host.exit_code == 0, by_host.stderr
    assert "h1" in by_host.stderr
    report = tmp_path / "report.avro"
    record = next(one for _, one in told().prover.reports_of("h1", T0 + 2 * W))
    report.write_bytes(record)
    by_report = run("audit", "prove", "--report", report, "--include-report", *archive)
    assert by_report.stdout == by_host.stdout


def test_a_refused_report_is_proven_refused(archive: tuple[str, str]) -> None:
    letter = next(one for one in told().story.run.rejections if one.code == "CLASS_MISMATCH")
    made = run("audit", "prove", (letter.digest or b"").hex(), *archive)
    assert made.exit_code == 0
    assert "REFUSED, and published as refused" in made.stderr


@pytest.mark.parametrize("signer", [(), STRANGER])
def test_nothing_is_proven_without_a_trusted_signer(
    archive: tuple[str, str], tmp_path: Path, signer: Sequence[str]
) -> None:
    proof = tmp_path / "proof.json"
    run("audit", "prove", accepted_digests()[0].hex(), "-o", proof, *archive)
    checked = run("audit", "check", proof, *signer, "--json")
    assert checked.exit_code == 3
    assert said(checked)["error"] == ("POLICY_UNTRUSTED" if signer else "POLICY_SIGNER_NEEDED")


def test_a_damaged_proof_is_refused(archive: tuple[str, str], tmp_path: Path) -> None:
    made = run("audit", "prove", accepted_digests()[0].hex(), *archive)
    document = json.loads(made.stdout)
    document["path"]["siblings"][0] = "00" * 32
    damaged = CliRunner().invoke(main, ["audit", "check", "-", *SIGNER, "--json"], input=json.dumps(document))
    assert (damaged.exit_code, said(damaged)["error"]) == (3, "INCLUSION_INVALID")
    nothing = CliRunner().invoke(main, ["audit", "check", "-", *SIGNER], input="no proof")
    assert nothing.exit_code == 3
    assert "PROOF_MALFORMED" in nothing.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["00" * 32], 1),
        (["xy"], 2),
        ([], 2),
        (["00" * 32, "--host", "h0"], 2),
        (["--host", "h0"], 2),
        (["--host", "h0", "--window", "yesterday"], 2),
        (["--host", "nobody", "--window", str(T0)], 1),
        (["00" * 32, "--include-report"], 2),
        (["00" * 32, "--window", str(T0)], 2),
    ],
)
def test_what_cannot_be_proven_has_an_exit_code(archive: tuple[str, str], arguments: list[str], code: int) -> None:
    assert run("audit", "prove", *arguments, *archive).exit_code == code


def test_a_chain_is_followed(archive: tuple[str, str], tmp_path: Path) -> None:
    whole = run("audit", "chain", "--domain", "d", *SIGNER, *archive, "--json")
    assert (whole.exit_code, said(whole)["whole"], said(whole)["outputs"]) == (0, True, 5)
    first, last = output(told(), 1).digest.hex(), "0/3"
    part = run("audit", "chain", "--from", last, "--to", first, *SIGNER, *archive, "--json")
    assert (part.exit_code, said(part)["outputs"]) == (0, 3)
    words = run("audit", "chain", "--to", "0/4", *SIGNER, *archive)
    assert "ONE CHAIN" in words.stdout
    site = fresh()
    record = output(site, 2).record
    site.topics.replace(record, value=resigned(record, lambda made: replace(made, duplicates=9), site))
    broken = run("audit", "chain", "--domain", "d", *SIGNER, *archived(site, tmp_path / "a"), "--json")
    assert (broken.exit_code, said(broken)["broken"]["code"]) == (3, "CHAIN_BROKEN")
    words = run("audit", "chain", "--domain", "d", *SIGNER, "--archive", tmp_path / "a")
    assert "BROKEN" in words.stdout
    assert run("audit", "chain", *SIGNER, *archive).exit_code == 2
    assert run("audit", "chain", "--to", "0/99", *SIGNER, *archive).exit_code == 1


def test_an_archive_that_was_altered_is_refused(tmp_path: Path) -> None:
    where = archived(told(), tmp_path / "a")
    given = ("audit", "prove", accepted_digests()[0].hex(), *where)
    assert run(*given).exit_code == 0
    assert run(*given, "--archive-digest", "00" * 32).exit_code == 3
    assert run(*given, "--bootstrap", "127.0.0.1:1").exit_code == 2
    for path in (tmp_path / "a").rglob("*.avro"):
        if "manifests" in str(path):
            path.write_bytes(path.read_bytes()[:-1])
    damaged = run(*given, "--json")
    assert damaged.exit_code == 3
    assert "ARCHIVE" in said(damaged)["error"]


def test_equivocation_is_found_and_its_evidence_holds(archive: tuple[str, str], tmp_path: Path) -> None:
    none = run("audit", "equivocation", *SIGNER, *archive, "--json")
    assert (none.exit_code, said(none)["found"]) == (0, [])
    site = fresh()
    lie(site)
    found = run("audit", "equivocation", *SIGNER, *archived(site, tmp_path / "a"), "-o", tmp_path / "found", "--json")
    assert found.exit_code == 1
    (one,) = said(found)["found"]
    checked = run("audit", "check", one["proof"], *SIGNER, "--json")
    assert (checked.exit_code, said(checked)["kind"], said(checked)["fields"]) == (0, "equivocation", ["late_accepted"])
    assert "EQUIVOCATION" in run("audit", "check", one["proof"], *SIGNER).stdout


def test_evidence_of_another_search_is_not_overwritten(tmp_path: Path) -> None:
    for number, offset in enumerate((0, 4)):
        site = fresh()
        lie(site, offset=offset)
        where = archived(site, tmp_path / str(number))
        assert run("audit", "equivocation", *SIGNER, *where, "-o", tmp_path / "found").exit_code == 1
    assert len(list((tmp_path / "found").iterdir())) == 2


def test_the_end_of_the_range_counts_without_its_begin(tmp_path: Path) -> None:
    site = fresh()
    lie(site, offset=4)
    where = archived(site, tmp_path / "a")
    start_ms = output(site, 4).output.window_start_ms
    assert run("audit", "equivocation", *SIGNER, *where, "--to", start_ms).exit_code == 0
    assert run("audit", "equivocation", *SIGNER, *where, "--to", start_ms + 1).exit_code == 1


def test_topics_that_are_not_there_do_not_pass_for_honest_ones(tmp_path: Path) -> None:
    site = fresh()
    del site.topics.records[NAMES.output, 0]
    nothing = run("audit", "equivocation", *SIGNER, *archived(site, tmp_path / "a"), "--json")
    assert (nothing.exit_code, said(nothing)["error"]) == (1, "RECORD_NOT_FOUND")


def test_the_digest_of_an_archive_needs_an_archive() -> None:
    nothing = ("--bootstrap", "127.0.0.1:1", "--archive-digest", "00" * 32)
    assert run("audit", "equivocation", *SIGNER, *nothing).exit_code == 2
    replay = ("replay", "--from", "-1h", "--bootstrap", "127.0.0.1:1", "--digest", "00" * 32)
    assert run(*replay, *SIGNER).exit_code == 2


# -- enclavescale verify -------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """An output, its manifest and its policy as files."""
    site = told()
    made = {
        "output": site.outputs()[0].value,
        "manifest": site.topics.of(NAMES.manifests)[0].value,
        "other": site.outputs()[3].value,
        "policy": signed_policy(site.story.policies[0]),
    }
    for name, value in made.items():
        (tmp_path / name).write_bytes(value or b"")
    return {name: tmp_path / name for name in made}


def test_verify_judges_an_output(files: dict[str, Path]) -> None:
    result = run("verify", files["output"], "--policy", files["policy"], *SIGNER, "--json")
    assert result.exit_code == 0, result.output
    verdict = said(result)
    assert (verdict["kind"], verdict["status"], verdict["accepted"], verdict["codes"]) == (
        "output",
        "warning",
        True,
        [],
    )
    assert verdict["verified"] == verdict["stages"]
    assert verdict["claims"]["domain"] == "d"
    assert verdict["claims"]["digest"] == output(told(), 0).digest.hex()
    assert verdict["worker"]["host_id"] == "aggregator-0"
    assert set(verdict["submods"]) == {"cpu", "output"}
    assert verdict["eat_profile"].startswith("tag:")
    words = run("verify", files["output"], "--policy", files["policy"], *SIGNER)
    assert words.exit_code == 0
    assert "ACCEPTED" in words.stdout
    assert "aggregator-0" in words.stdout


def test_verify_judges_a_manifest_beside_its_output(files: dict[str, Path]) -> None:
    given = ("--policy", files["policy"], *SIGNER, "--json")
    result = run("verify", files["manifest"], "--output", files["output"], *given)
    assert result.exit_code == 0
    assert said(result)["claims"]["accepted"] == 3
    other = run("verify", files["manifest"], "--output", files["other"], *given)
    assert (other.exit_code, said(other)["codes"]) == (3, ["MANIFEST_MISMATCH"])
    assert run("verify", files["manifest"], *given).exit_code == 2


def test_verify_refuses_with_the_stage_that_failed(files: dict[str, Path], tmp_path: Path) -> None:
    value = bytearray(files["output"].read_bytes())
    found = told().audit.as_output(told().outputs()[0])
    assert found is not None
    value[bytes(value).index(found.signed.signature) + 3] ^= 1
    bad = tmp_path / "bad"
    bad.write_bytes(bytes(value))
    result = run("verify", bad, "--policy", files["policy"], *SIGNER, "--json")
    assert (result.exit_code, said(result)["codes"]) == (3, ["SIGNATURE_INVALID"])
    assert said(result)["verified"] == ["format", "policy", "worker"]
    words = run("verify", bad, "--policy", files["policy"], *SIGNER)
    assert "REFUSED" in words.stdout
    stranger = run("verify", files["output"], "--policy", files["policy"], *STRANGER, "--json")
    assert (stranger.exit_code, said(stranger)["codes"]) == (3, ["POLICY_UNTRUSTED"])


def test_verify_says_what_a_record_needs(files: dict[str, Path]) -> None:
    assert run("verify", files["output"]).exit_code == 2
    assert run("verify", files["output"], "--policy", files["policy"]).exit_code == 2
    assert run("verify", files["policy"], "--policy", files["policy"]).exit_code == 2
    assert (
        run("verify", files["output"], "--output", files["output"], "--policy", files["policy"], *SIGNER).exit_code == 2
    )


def test_the_same_verdict_comes_from_the_function() -> None:
    site = told()
    policy, signers = signed_policy(site.story.policies[0]), [signer_point()]
    value, manifest = site.outputs()[0].value or b"", site.topics.of(NAMES.manifests)[0].value or b""
    assert (record_kind(value), record_kind(manifest), record_kind(b"{}")) == ("output", "manifest", None)
    assert judge_output(value, policy=policy, signers=signers)["accepted"]
    assert judge_manifest(manifest, output=value, policy=policy, signers=signers)["accepted"]
    assert judge_output(b"", policy=policy, signers=signers)["codes"] == ["MALFORMED"]
    assert judge_output(value, policy=b"", signers=signers)["codes"] == ["MALFORMED"]
    assert judge_output(value, policy=policy, signers=[])["codes"] == ["CONFIG_INVALID"]
