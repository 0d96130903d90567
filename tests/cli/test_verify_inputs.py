"""`enclavescale verify` on device evidence as people hold it, and with the mistakes they make."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from enclavescale.cli import main
from enclavescale.nvidia_file import read_devices
from tests.verifier.corpus import Case, cases
from verifier.errors import VerificationError

CASES = {case.name: case for case in cases()}
HOPPER, BLACKWELL = CASES["nv-hopper-nvtrust-c438e7e7"], CASES["nv-blackwell-nvsdk-5fec340f"]
GENOA = CASES["snp-v3-genoa-trustee-227a641d"]
MATCH = CASES["nvcmp-nv-hopper-nvsdk-30cddcd0-vs-1010_0200_882_96005E0001_PROD"]


def path(case: Case, what: str) -> Path:
    found = case.path(what)
    assert found is not None
    return found


def call(*argv: object) -> Result:
    return CliRunner().invoke(main, ["verify", *map(str, argv)])


def verdict(*argv: object) -> dict[str, Any]:
    result = call(*argv, "--json", "--policy", "authentic")
    assert result.exit_code in (0, 3), result.output
    said: dict[str, Any] = json.loads(result.stdout)
    assert (result.exit_code == 0) == said["accepted"], said["errors"]
    return said


def entry(case: Case) -> dict[str, str]:
    """A device as NVIDIA's tools write it."""
    texts = {"evidence": path(case, "report"), "certificate": path(case, "cert_chain")}
    return {"arch": "HOPPER"} | {name: base64.b64encode(file.read_bytes()).decode() for name, file in texts.items()}


class TestNvidiaFiles:
    @pytest.mark.parametrize("kind", ["auto", "nvidia-gpu"])
    def test_one_device(self, tmp_path: Path, kind: str) -> None:
        file = tmp_path / "gpu.json"
        for text in (entry(HOPPER), [entry(HOPPER)], {"nonce": "00", "evidence_list": [entry(HOPPER)]}):
            file.write_text(json.dumps(text))
            said = verdict(file, "--kind", kind, "--at", HOPPER.at, "--nonce", HOPPER.entry["nonce"])
            assert said["accepted"], said["errors"]
            assert (said["kind"], said["claims"]["nonce_checked"]) == ("nvidia-gpu", True)

    def test_several_devices_are_one_host(self, tmp_path: Path) -> None:
        file = tmp_path / "host.json"
        file.write_text(json.dumps([entry(HOPPER), entry(BLACKWELL)]))
        said = verdict(file, "--at", HOPPER.at)
        assert said["accepted"], said["errors"]
        assert [one["subject"] for one in said["claims"]["devices"]] == ["device-0", "device-1"]
        assert said["claims"]["first_mile"] == "NONE"
        file.write_text(json.dumps([entry(HOPPER), entry(HOPPER)]))
        assert verdict(file, "--at", HOPPER.at)["codes"] == ["DEVICE_DUPLICATE"]

    @pytest.mark.parametrize(
        "text",
        [
            '[{"evidence": 7, "certificate": ""}]',
            '[{"evidence": "!", "certificate": ""}]',
            '[{"evidence": "", "certificate": ""}]',
            '{"evidence_list": [], "evidence": "", "certificate": ""}',
            '{"evidence": "\\u00e9", "certificate": "AAAA"}',
            '[{"evidence": "AAAA", "certificate": "AAAA"}, 7]',
            '[{"evidence": "AAAA", "certificate": "AAAA"},',
        ],
    )
    def test_files_that_are_none(self, tmp_path: Path, text: str) -> None:
        file = tmp_path / "gpu.json"
        file.write_text(text)
        said = verdict(file, "--kind", "nvidia-gpu")
        assert said["codes"][0] in ("NVIDIA_REPORT_MALFORMED", "ENDORSEMENT_MISSING")

    @given(
        st.binary(max_size=200)
        | st.recursive(st.none() | st.text(max_size=8) | st.integers(), lambda inner: st.lists(inner, max_size=3))
        .map(lambda value: json.dumps([{"evidence": value, "certificate": value}, value]).encode())
    )  # fmt: skip
    def test_any_bytes_are_devices_or_refused(self, data: bytes) -> None:
        with suppress(VerificationError):
            assert read_devices(data)

    def test_more_devices_than_a_host_may_have(self, tmp_path: Path) -> None:
        file = tmp_path / "many.json"
        file.write_text(json.dumps([{"evidence": "AAAA", "certificate": "AAAA"}] * 33))
        assert verdict(file)["codes"] == ["EVIDENCE_TOO_LARGE"]

    def test_without_a_chain_it_is_said_what_to_give(self) -> None:
        said = verdict(path(HOPPER, "report"))
        assert said["codes"] == ["ENDORSEMENT_MISSING"]
        assert "leaf first" in said["errors"][0]["remedy"]


class TestEndorsements:
    def test_der_values_one_behind_the_other(self, tmp_path: Path) -> None:
        whole = tmp_path / "all.der"
        whole.write_bytes(b"".join(path(GENOA, what).read_bytes() for what in ("ek_cert", "ask", "ark")))
        said = verdict(path(GENOA, "report"), "--endorsement", whole, "--at", GENOA.at)
        assert said["accepted"], said["errors"]
        text = tmp_path / "all.b64"
        text.write_bytes(base64.b64encode(whole.read_bytes()))
        assert verdict(path(GENOA, "report"), "--collateral", text, "--at", GENOA.at)["accepted"]

    @pytest.mark.parametrize("data", [b"\x30\x03abc", b"nothing", b"<html></html>"])
    def test_a_file_that_holds_none_is_named(self, tmp_path: Path, data: bytes) -> None:
        file = tmp_path / "broken.der"
        file.write_bytes(data)
        said = verdict(path(GENOA, "report"), "--endorsement", file, "--at", GENOA.at)
        assert "broken.der" in said["errors"][0]["message"]
        assert "PCCS" not in said["errors"][0]["remedy"]

    def test_der_with_rubbish_behind_it_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "vcek.der"
        file.write_bytes(path(GENOA, "ek_cert").read_bytes() + b"\x00rubbish")
        said = verdict(path(GENOA, "report"), "--endorsement", file, "--at", GENOA.at)
        assert "vcek.der" in said["errors"][0]["message"]


class TestManifests:
    def test_one_for_another_version_says_which_is_needed(self) -> None:
        said = verdict(
            path(HOPPER, "report"), "--endorsement", path(HOPPER, "cert_chain"), "--rim", path(MATCH, "rim"),
            "--at", MATCH.at,
        )  # fmt: skip
        assert said["codes"] == ["REFERENCE_MISMATCH"]
        assert "96.00.9F.00.01" in said["errors"][0]["remedy"]

    def test_a_report_may_be_given_as_what_a_manifest_is_compared_with(self) -> None:
        said = verdict(
            path(MATCH, "report"), "--kind", "nvidia-rim", "--endorsement", path(MATCH, "cert_chain"),
            "--rim", path(MATCH, "rim"), "--at", MATCH.at,
        )  # fmt: skip
        assert said["accepted"], said["errors"]
        assert said["reference"]["outcome"] == "match"

    def test_manifests_are_for_devices(self) -> None:
        done = call(path(GENOA, "report"), "--rim", path(MATCH, "rim"))
        assert done.exit_code == 2
        assert "--rim" in done.stderr


@pytest.mark.parametrize(
    ("case", "option", "value"),
    [(HOPPER, "--report-data", "00"), (GENOA, "--nonce", "00" * 32), (MATCH, "--report-data", "00")],
)
def test_what_is_asked_for_in_the_wrong_form(case: Case, option: str, value: str) -> None:
    done = call(path(case, "report"), option, value)
    assert done.exit_code == 2
    assert option in done.stderr


def test_two_nonces_for_one_report() -> None:
    done = call(path(HOPPER, "report"), "--nonce", "00" * 32, "--nonce", "01" * 32)
    assert done.exit_code == 2
    assert "one nonce" in done.stderr
