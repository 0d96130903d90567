"""`enclavescale verify --kind composite`: a whole host from files, as a person would give them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from enclavescale.cli import main
from schemas.codec import report_data_of
from tests.forge.composite.world import FOREIGN_GPU, NOW, SENSOR, SNP, Host, Minted, gpu_digest, mint, sensor_digest
from tests.forge.snp import world as snp
from tests.forge.spdm import world as spdm
from verifier.abi.composite import CompositeFile


def written(folder: Path, minted: Minted, *, binding: bool = True) -> list[str]:
    """The host's evidence, collateral and roots as files; the arguments that name them."""
    evidence = folder / "host.json"
    file = CompositeFile(items=minted.items, binding_bytes=minted.binding_bytes if binding else None)
    evidence.write_bytes(file.encode())
    held = folder / "collateral"
    held.mkdir()
    parts = [one.crl.der for one in minted.collateral.crls]
    parts += [*minted.collateral.rims, *minted.collateral.ocsp_responses]
    for index, data in enumerate(parts):
        (held / str(index)).write_bytes(data)
    found = ["verify", str(evidence), "--kind", "composite", "--at", str(NOW), "--collateral", str(held)]
    for use, der in minted.roots.items():
        (folder / f"{use}.der").write_bytes(der)
        found += ["--trust-root", f"{use}={folder / use}.der"]
    return found


def policy_file(folder: Path, host: Host, **changes: Any) -> str:
    """A policy that demands everything of this host."""
    world = host.cpu
    assert isinstance(world, snp.World)
    minimum = snp.PRODUCTS["Genoa"]["tcb"]
    components = {"boot_loader": minimum[0], "tee": minimum[1], "snp": minimum[6], "microcode": minimum[7]}
    blocks = {str(one.index): one.value.hex() for one in spdm.measurement_blocks()[:2]}
    table = {
        "tees": ["snp"],
        "platforms": [snp.chip_id(world.product, world.seed).hex()],
        "snp": {"tcb_minimums": [{"product": "Genoa", "reported": components}]},
        "nvidia": {"modes": ["PASSTHROUGH", "PPCIE", "UNSTATED"]},
        "devices": {"key_digests": [one.hex() for one in host.digests()], "first_mile": "SPDM_MEASURED"},
        "measurements": [
            {"label": "agent", "tee": "snp", "measurement": snp.MEASUREMENT.hex()},
            {"label": "sensor", "tee": "spdm", "blocks": blocks},
        ],
        **changes,
    }
    path = folder / "policy.json"
    path.write_text(json.dumps(table))
    return str(path)


def asked(minted: Minted) -> list[str]:
    """What the host was asked for, as the caller knows it."""
    return ["--report-data", report_data_of(minted.binding_bytes).hex()]


def call(*argv: str) -> Result:
    return CliRunner().invoke(main, argv)


def verdict(*argv: str) -> dict[str, Any]:
    result = call(*argv, "--json")
    assert result.exit_code in (0, 3), result.output
    said: dict[str, Any] = json.loads(result.stdout)
    assert (result.exit_code == 0) == said["accepted"], said["errors"]
    return said


def test_a_genuine_host_earns_its_grade(tmp_path: Path) -> None:
    minted = mint(SNP)
    said = verdict(*written(tmp_path, minted), "--policy", policy_file(tmp_path, SNP), *asked(minted))
    assert said["accepted"], said["errors"]
    claims = said["claims"]
    assert claims["first_mile"] == "SPDM_MEASURED"
    assert claims["nonces"] == "derived"
    assert claims["cpu"]["claims"]["report_data"] == report_data_of(minted.binding_bytes).hex()
    assert [one["kind"] for one in claims["devices"]] == ["nvidia-gpu", "nvidia-gpu", "spdm"]
    assert {one["claims"]["key_digest"] for one in claims["devices"]} == {one.hex() for one in SNP.digests()}
    assert all(one["fresh"] for one in claims["devices"])
    assert set(said["submods"]) == {"host", "gpu:GPU-0", "gpu:GPU-1", "spdm:sensor-0.rack7:2323"}
    assert said["codes"] == []


def test_the_screen_names_every_device(tmp_path: Path) -> None:
    minted = mint(SNP)
    result = call(*written(tmp_path, minted), "--policy", policy_file(tmp_path, SNP), *asked(minted))
    assert result.exit_code == 0, result.output
    for word in ("ACCEPTED", "SPDM_MEASURED", "GPU-0", "GPU-1", "sensor-0"):
        assert word in result.stdout


def test_authentic_reports_and_judges_no_device(tmp_path: Path) -> None:
    said = verdict(*written(tmp_path, mint(SNP), binding=False), "--policy", "authentic")
    assert said["accepted"], said["errors"]
    assert said["claims"]["first_mile"] == "NONE"
    assert any("binding" in one for one in said["warnings"])


@pytest.mark.parametrize(
    ("host", "code"),
    [
        (SNP.but(gpus=(*SNP.gpus, FOREIGN_GPU)), "PLATFORM_NOT_ENROLLED"),
        (SNP.but(gpus=SNP.gpus[:1]), "EVIDENCE_MISSING"),
        (SNP.but(gpus=(SNP.gpus[0], SNP.gpus[0])), "DEVICE_DUPLICATE"),
        (SNP.but(sensors=()), "EVIDENCE_MISSING"),
        (SNP.but(identities=lambda found: bytes(32)), "GPU_IDENTITIES_MISMATCH"),
        (SNP.but(nonces=lambda kind, subject, index, nonce: bytes([index + 1]) * 32), "NONCE_MISMATCH"),
        (SNP.but(report_data=lambda data: bytes(64)), "REPORT_DATA_MISMATCH"),
    ],
)
def test_refused_with_its_code(tmp_path: Path, host: Host, code: str) -> None:
    said = verdict(*written(tmp_path, mint(host)), "--policy", policy_file(tmp_path, SNP))
    assert not said["accepted"]
    assert code in said["codes"], said["errors"]


def test_one_nonce_for_all_devices(tmp_path: Path) -> None:
    """As NVIDIA's tools ask: the caller's nonce stands in every report."""
    nonce = bytes(range(32))
    host = SNP.but(sensors=(), nonces=lambda kind, subject, index, right: nonce)
    table = {"devices": {"key_digests": [gpu_digest(one).hex() for one in host.gpus], "first_mile": "NONE"}}
    minted = mint(host)
    argv = [*written(tmp_path, minted), "--policy", policy_file(tmp_path, host, **table), *asked(minted)]
    said = verdict(*argv, "--nonce", nonce.hex())
    assert said["accepted"], said["errors"]
    assert (said["claims"]["nonces"], said["claims"]["first_mile"]) == ("given", "NONE")
    assert verdict(*argv)["codes"][0] == "NONCE_MISMATCH"
    assert verdict(*argv, "--nonce", bytes(32).hex())["codes"][0] == "NONCE_MISMATCH"


def test_report_data_must_be_the_bindings(tmp_path: Path) -> None:
    argv = [*written(tmp_path, mint(SNP)), "--policy", policy_file(tmp_path, SNP)]
    assert verdict(*argv, "--report-data", "00")["codes"] == ["REPORT_DATA_MISMATCH"]
    assert verdict(*argv, *asked(mint(SNP)))["accepted"]
    # The binding in the file says what the evidence was made for, and not that anybody asked for it.
    assert verdict(*argv)["codes"] == ["POLICY_EMPTY", "FIRST_MILE_TOO_LOW"]


def test_bytes_that_are_no_binding(tmp_path: Path) -> None:
    minted = mint(SNP)
    argv = written(tmp_path, replace(minted, binding_bytes=minted.binding_bytes + b"\x00"))
    assert verdict(*argv, "--policy", "authentic")["codes"] == ["COMPOSITE_MALFORMED"]


@pytest.mark.parametrize("text", ["{}", '{"items": 7}', '{"items": [{}]}', '{"items": [], "other": 1}'])
def test_files_that_are_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "host.json"
    path.write_text(text)
    said = verdict("verify", str(path), "--kind", "composite", "--policy", "authentic")
    assert said["codes"][0] in ("COMPOSITE_MALFORMED", "EVIDENCE_MISSING")


def test_without_any_measurement_of_a_sensor_nothing_says_what_it_may_run(tmp_path: Path) -> None:
    measured = [{"label": "agent", "tee": "snp", "measurement": snp.MEASUREMENT.hex()}]
    said = verdict(*written(tmp_path, mint(SNP)), "--policy", policy_file(tmp_path, SNP, measurements=measured))
    assert "POLICY_EMPTY" in said["codes"]
    assert sensor_digest(SENSOR).hex() in {one.hex() for one in SNP.digests()}


def test_roots_that_are_named_are_said_and_leave_doubt(tmp_path: Path) -> None:
    minted = mint(SNP)
    said = verdict(*written(tmp_path, minted), "--policy", policy_file(tmp_path, SNP), *asked(minted))
    assert said["status"] == "warning"
    assert {said["submods"][name]["ear.status"] for name in said["submods"]} == {"warning"}
    for part in ("genuine only under", "OVERRIDE", "GPU-0, GPU-1: "):
        assert any(part in one for one in said["warnings"]), part


def test_a_root_counts_for_what_it_is_named_for_and_nothing_else(tmp_path: Path) -> None:
    minted = mint(SNP)
    argv = written(tmp_path, minted)
    policy = ["--policy", policy_file(tmp_path, SNP), *asked(minted)]
    for use in minted.roots:
        at = argv.index(f"{use}={tmp_path / use}.der")
        other = "rim" if use != "rim" else "spdm"
        moved = [*argv[:at], f"{other}={tmp_path / use}.der", *argv[at + 1 :]]
        assert not verdict(*moved, *policy)["accepted"], use


def test_of_a_host_a_root_needs_its_use(tmp_path: Path) -> None:
    argv = written(tmp_path, mint(SNP))
    done = call(*argv, "--trust-root", str(tmp_path / "spdm.der"))
    assert done.exit_code == 2
    assert "spdm=FILE" in done.stderr


def test_the_kind_of_a_host_is_told_behind_white_space(tmp_path: Path) -> None:
    argv = written(tmp_path, mint(SNP))
    path = Path(argv[1])
    path.write_bytes(b"\xef\xbb\xbf\r\n  " + path.read_bytes())
    at = argv.index("--kind")
    assert verdict(*argv[:at], *argv[at + 2 :], "--policy", "authentic")["kind"] == "composite"
