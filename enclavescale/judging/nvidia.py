"""Judge the report of a GPU or switch, and compare it with reference manifests."""

from __future__ import annotations

import contextlib
from typing import Any

from enclavescale.judging.inputs import GPU, SWITCH, Inputs, named_roots
from verifier.abi.nvidia import parse_nvidia_report
from verifier.abi.nvidia_opaque import read_facts
from verifier.abi.rim import parse_rim
from verifier.errors import VerificationError
from verifier.formats.nvidia import VerifiedNvidiaReport, verify_nvidia_report
from verifier.formats.rim import VerifiedRim, verify_rim
from verifier.formats.rim_compare import RimComparison, compare
from verifier.policy.composite import nvidia_rules_of
from verifier.policy.nvidia import nvidia_warnings
from verifier.trust.vendors import ROOTS_BY_USE
from verifier.verdicts.nvidia import nvidia_verdict

_DEVICES = {GPU: "gpu", SWITCH: "switch"}


def judge_nvidia(inputs: Inputs) -> dict[str, Any]:
    """The verdict on the report `inputs.data`; the kinds of GPUs and switches are demands.

    Manifests of --rim must be genuine, and are compared; one that is not is compared for the eye only.
    """
    device: VerifiedNvidiaReport | None = None
    failures: list[VerificationError] = []
    rims: list[VerifiedRim] = []
    try:
        ocsp = inputs.ocsp()
    except VerificationError as error:
        return nvidia_verdict(
            kind=inputs.kind, policy=inputs.policy, now_ms=inputs.now_ms, device=None, failures=[error]
        )
    for data in inputs.rims:
        try:
            rims.append(
                verify_rim(
                    data=data, trust_roots=inputs.roots("rim"), now_ms=inputs.now_ms, ocsp=ocsp, crls=inputs.crls
                )
            )
        except VerificationError as error:
            failures.append(error)
    reference = unverified_comparison(inputs) if failures else None
    try:
        device = verify_nvidia_report(
            report=inputs.data,
            certificates=inputs.endorsements.delivered,
            trust_roots=inputs.roots("nvidia"),
            now_ms=inputs.now_ms,
            nonce=inputs.nonces[0] if inputs.nonces else None,
            kind=_DEVICES.get(inputs.kind),
            rims=rims,
            ocsp=ocsp,
            crls=inputs.crls,
        )
    except VerificationError as error:
        failures.insert(0, error)
    warnings: list[str] = []
    if device is not None:
        failures += nvidia_rules_of(inputs.policy, device).failures(device)
        warnings += nvidia_warnings(inputs.policy.nvidia, device)
        warnings += named_roots(ROOTS_BY_USE["nvidia"], device.root_label)
    return nvidia_verdict(
        kind=inputs.kind,
        policy=inputs.policy,
        now_ms=inputs.now_ms,
        device=device,
        failures=failures,
        warnings=warnings,
        reference=reference,
    )


def unverified_comparison(inputs: Inputs) -> RimComparison | None:
    """The manifests as they are, genuine or not, beside what was measured; None where they cannot be compared."""
    with contextlib.suppress(VerificationError):
        report = parse_nvidia_report(inputs.data)
        kind = "switch" if inputs.kind == SWITCH else "gpu"
        facts = read_facts(report.opaque, kind)
        return compare(
            report.measurements(),
            [parse_rim(data) for data in inputs.rims],
            driver_version=facts.driver_version,
            vbios_version=facts.vbios_version,
            nvdec0_disabled=bool(facts.nvdec0_disabled),
            edition=kind.upper(),
        )
    return None
