"""Every NVIDIA report of the corpus through the API, at its time, with its nonce: authentic and strict."""

from __future__ import annotations

import base64
import re
from functools import cache
from typing import Any

import pytest

from tests.verifier.corpus import Case, cases
from verifier.errors import VerificationError
from verifier.formats.nvidia import VerifiedNvidiaReport, verify_nvidia_report
from verifier.policy.nvidia import STRICT_NVIDIA, check_devices, nvidia_rules
from verifier.trust.certificate import Certificate, parse_certificate
from verifier.trust.nvidia import NVIDIA_DEVICE_ROOT
from verifier.trust.roots import Root

KINDS = {"nvidia_gpu": "gpu", "nvidia_switch": "switch"}
CASES = [case for case in cases() if case.entry["evidence_type"] in KINDS]
GENUINE = [case for case in CASES if case.expected("authentic")["verdict"] == "ok"]
PEM = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.S)


def certificates(case: Case, what: str) -> list[Certificate]:
    path = case.path(what)
    assert path is not None
    return [parse_certificate(base64.b64decode(body)) for body in PEM.findall(path.read_text())]


def judge(case: Case) -> VerifiedNvidiaReport:
    report = case.path("report")
    assert report is not None
    roots = [NVIDIA_DEVICE_ROOT]
    if case.entry["origin"] == "synthetic":
        roots.append(Root(label="synthetic", spki=certificates(case, "trust_root")[0].spki, simulated=True))
    nonce = case.entry.get("nonce")
    return verify_nvidia_report(
        report=report.read_bytes(),
        certificates=certificates(case, "cert_chain"),
        trust_roots=roots,
        now_ms=case.at * 1000,
        nonce=bytes.fromhex(nonce) if nonce else None,
        kind=KINDS[case.entry["evidence_type"]],
    )


@cache
def genuine() -> dict[str, VerifiedNvidiaReport]:
    return {case.name: judge(case) for case in GENUINE}


JUDGED = [
    (case, policy)
    for policy, expected in (("authentic", "expected"), ("strict", "expected_strict"))
    for case in CASES
    if expected in case.entry
]
"""Cases under the policies for which the corpus says what to expect."""


@pytest.mark.parametrize(("case", "policy"), JUDGED, ids=lambda value: getattr(value, "name", value))
def test_verdict(case: Case, policy: str) -> None:
    expected = case.expected(policy)
    try:
        device = judge(case)
        if policy == "strict":
            nvidia_rules(STRICT_NVIDIA).check(device)
        verdict = "ok"
    except VerificationError:
        verdict = "reject"
    assert verdict == expected["verdict"]


@pytest.mark.parametrize("case", GENUINE, ids=lambda case: case.name)
def test_facts(case: Case) -> None:
    device, fields = genuine()[case.name], case.entry.get("fields", {})
    path = case.path("report")
    assert path is not None
    assert device.report.encode() == path.read_bytes()
    said = {
        "arch": device.architecture,
        "driver_version": device.driver_version,
        "fwid": device.facts.fwid.hex() if device.facts.fwid else None,
        "rsp_nonce": device.responder_nonce.hex(),
        "blocks": len(device.measurements),
        "project": device.facts.project or "",
        "project_sku": device.facts.project_sku or "",
        "chip_sku": device.facts.chip_sku or "",
    }
    assert {name: said[name] for name in fields if name in said} == {
        name: fields[name] for name in said if name in fields
    }
    assert device.fwid_bound == ("not_bound" if device.facts.fwid is None else "bound")
    assert device.revocation.state == "unchecked"


def found(pattern: str) -> list[VerifiedNvidiaReport]:
    return [device for name, device in genuine().items() if re.search(pattern, name)]


def test_real_blackwell_says_not_configured() -> None:
    (device,) = found("^nv-blackwell")
    assert device.tcb_flags == ("not_configured", "fixed_width")
    assert device.mode == "UNSTATED"


HOST = {"a00f5683", "aacfb553", "e1f80685", "1d2ab387", "2b0831e3", "42b1775a", "47a5cc3b", "7ac51671"}


def test_real_host_of_eight_gpus_and_four_switches() -> None:
    gpus = [device for name, device in genuine().items() if name.rpartition("-")[2] in HOST]
    switches = found("^nv-ls10-nvtrust")
    if len(gpus) < 8:
        pytest.skip("the shared corpus is not mounted")
    assert {device.mode for device in gpus} == {"PPCIE"}
    check_devices([*gpus, *switches], allow_unattested_switches=False)
    refused: list[tuple[Any, ...]] = [
        ([*gpus, gpus[0]], "DEVICE_DUPLICATE"), ([*gpus, *switches[:3]], "DEVICE_TOPOLOGY"),
    ]  # fmt: skip
    for devices, code in refused:
        with pytest.raises(VerificationError) as caught:
            check_devices(devices, allow_unattested_switches=False)
        assert caught.value.code == code
