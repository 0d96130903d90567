"""`enclavescale verify --kind spdm`: what nonces and policies say of a transcript that is genuine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from enclavescale.cli import main
from tests.forge.spdm import keys
from tests.forge.spdm.world import ROOT, V11, V12, V13, World, measurement_blocks

DEBUG = (
    *measurement_blocks()[:-1],
    replace(measurement_blocks()[-1], value=bytes.fromhex("3f000000040000001f00000001000000")),
)
POLICY = f"""version = 1
tees = ["tdx"]
[spdm]
[[measurements]]
label = "sensor"
tee = "spdm"
blocks = {{ 1 = "{measurement_blocks()[0].value.hex()}" }}
"""


def verdict(tmp_path: Path, world: World, policy: str, *, given: slice) -> dict[str, Any]:
    """The verdict under a built-in policy or POLICY, with some of the transcript's nonces given."""
    minted = world.mint()
    transcript, root, file = tmp_path / "transcript.json", tmp_path / "root.der", tmp_path / "policy.toml"
    transcript.write_text(json.dumps({"messages": [one.hex() for one in minted.messages]}))
    root.write_bytes(keys.mint(ROOT, ROOT))
    file.write_text(POLICY)
    argv = ["verify", str(transcript), "--kind", "spdm", "--trust-root", str(root), "--at", str(minted.at), "--json"]
    argv += ["--policy", str(file) if policy == "file" else policy]
    for nonce in minted.nonces[given]:
        argv += ["--nonce", nonce.hex()]
    result = CliRunner().invoke(main, argv)
    found = json.loads(result.stdout)
    assert result.exit_code == (0 if found["accepted"] else 3)
    assert isinstance(found, dict)
    return found


def identity(found: dict[str, Any]) -> int:
    """The tier of "instance-identity": 0 no claim, 2 affirming."""
    (part,) = found["submods"].values()
    tier = part["ear.trustworthiness-vector"]["instance-identity"]
    assert isinstance(tier, int)
    return tier


@pytest.mark.parametrize("world", [V11, V12, V13], ids=lambda world: f"{world.version:#04x}")
@pytest.mark.parametrize("given", [slice(0, 0), slice(0, 1), slice(1, 2)], ids=["none", "challenge", "measurements"])
def test_some_nonces_do_not_make_a_transcript_fresh(tmp_path: Path, world: World, given: slice) -> None:
    assert verdict(tmp_path, world, "file", given=given)["codes"] == ["NONCE_UNCHECKED"]
    for policy in ("authentic", "strict"):
        found = verdict(tmp_path, world, policy, given=given)
        assert found["accepted"]
        assert (found["claims"]["fresh"], found["claims"]["grade"]) == (False, "NONE")
        assert identity(found) == 0
        assert any("any age" in one for one in found["warnings"])


@pytest.mark.parametrize("policy", ["authentic", "strict", "file"])
def test_all_nonces_do(tmp_path: Path, policy: str) -> None:
    found = verdict(tmp_path, V12, policy, given=slice(None))
    assert found["accepted"]
    assert (found["claims"]["fresh"], found["claims"]["grade"]) == (True, "SPDM_MEASURED")
    assert identity(found) == 2
    assert not any("any age" in one for one in found["warnings"])


@pytest.mark.parametrize(
    ("policy", "codes"), [("authentic", []), ("strict", ["DEVICE_MODE"]), ("file", ["DEVICE_MODE"])]
)
def test_a_debug_mode_that_is_active(tmp_path: Path, policy: str, codes: list[str]) -> None:
    found = verdict(tmp_path, V12.but(blocks=DEBUG), policy, given=slice(None))
    assert found["codes"] == codes
    assert any(one.startswith("DEBUG") for one in found["warnings"])
