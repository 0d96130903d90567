"""The simulated TEE: shared roots, honest names."""

from __future__ import annotations

import stat
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from attester import pki
from attester.simulated import SIMULATED_BANNER, SimulatedTee, simulated_measurement, simulated_platform_id
from schemas.errors import ConfigError
from tests.forge.world import NOW_MS
from verifier.abi.pem import split_chain
from verifier.abi.quote import parse_quote
from verifier.formats.dcap import verify_quote
from verifier.trust.certificate import parse_certificate
from verifier.trust.roots import anchor_of


def root_of(directory: Path) -> bytes:
    return SimulatedTee.create(directory).root_der


def test_processes_that_race_share_one_root(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        roots = set(pool.map(root_of, [tmp_path / "tee"] * 8))
    assert len(roots) == 1
    file = tmp_path / "tee" / pki.ROOT_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [entry.name for entry in file.parent.iterdir()] == [pki.ROOT_FILE]


def test_a_quote_of_one_process_verifies_under_the_root_of_another(tmp_path: Path) -> None:
    one, other = SimulatedTee.create(tmp_path), SimulatedTee.create(tmp_path)
    quote = one.quote(b"\x07" * 64)[0].data
    verified = verify_quote(collateral=None, quote=quote, trust_roots=[anchor_of(other.trust_root())], now_ms=NOW_MS)
    assert verified.simulated
    assert verified.report_data == b"\x07" * 64


@pytest.mark.parametrize("content", [b"", b"garbage", pki.issue(pki.ROOT).der])
def test_a_broken_root_file_is_the_operators_to_mend(tmp_path: Path, content: bytes) -> None:
    (tmp_path / pki.ROOT_FILE).write_bytes(content)
    with pytest.raises(ConfigError):
        SimulatedTee.create(tmp_path)


def test_every_certificate_says_that_it_is_simulated() -> None:
    quote = parse_quote(SimulatedTee.create().mint(bytes(64)))
    for data in split_chain(quote.signature.certification.pck_chain):
        assert "EnclaveScale SIMULATED" in parse_certificate(data).common_name
    assert "SIMULATED" in SIMULATED_BANNER


def test_platforms_and_images_are_what_was_asked_for() -> None:
    tee = SimulatedTee.create()
    ids = simulated_platform_id("host-7")
    mrtd, rtmrs = simulated_measurement("image"), tuple(bytes([i]) * 48 for i in range(4))
    quote = tee.mint(bytes(64), mrtd=mrtd, platform_id=ids, rtmrs=rtmrs)  # type: ignore[arg-type]
    verified = verify_quote(collateral=None, quote=quote, trust_roots=[anchor_of(tee.trust_root())], now_ms=NOW_MS)
    assert verified.platform_ids[0] == ids.hex()
    assert verified.registers["mrtd"] == mrtd
    assert verified.registers["rtmr3"] == rtmrs[3]


@pytest.mark.parametrize("size", [0, 32, 63, 65])
def test_report_data_has_64_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        SimulatedTee.create().quote(bytes(size))


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        SimulatedTee.create(platform_id=b"x")
