"""Judge the report of a GPU or switch, and compare it with reference manifests."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from enclavescale.judging.composite import judge_composite
from enclavescale.judging.inputs import COMPOSITE, GPU, SWITCH, Inputs, NamedRoot, named_roots
from enclavescale.nvidia_file import DeviceFile, looks_like_devices, read_devices
from verifier.abi.composite import CompositeFile
from verifier.abi.nvidia import parse_nvidia_report
from verifier.abi.nvidia_opaque import read_facts
from verifier.abi.rim import parse_rim
from verifier.errors import EndorsementMissing, VerificationError
from verifier.formats.nvidia import VerifiedNvidiaReport, verify_nvidia_report
from verifier.formats.rim import VerifiedRim, verify_rim
from verifier.formats.rim_compare import RimComparison, compare
from verifier.policy.composite import nvidia_rules_of
from verifier.policy.nvidia import nvidia_warnings
from verifier.trust.store import Collateral
from verifier.trust.vendors import ROOTS_BY_USE
from verifier.verdicts.nvidia import nvidia_verdict

_GIVE_CHAIN = "Give the chain that the device delivers with its report, whole and leaf first, with --endorsement."
_DEVICES = {GPU: "gpu", SWITCH: "switch"}


def judge_nvidia(inputs: Inputs) -> dict[str, Any]:
    """The verdict on the report `inputs.data`; the kinds of GPUs and switches are demands.

    Manifests of --rim must be genuine, and are compared; one that is not is compared for the eye only.
    """
    device: VerifiedNvidiaReport | None = None
    failures: list[VerificationError] = []
    rims: list[VerifiedRim] = []
    try:
        if looks_like_devices(inputs.data):
            devices = read_devices(inputs.data)
            if len(devices) > 1:
                return judge_composite(_as_host(inputs, devices))
            chain = Collateral.of([devices[0].chain])
            inputs = replace(inputs, data=devices[0].report, endorsements=chain.merged(inputs.endorsements))
        if not inputs.endorsements.delivered:
            raise EndorsementMissing("no certificate chain is given", field="device_chain", remedy=_GIVE_CHAIN)
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


def _as_host(inputs: Inputs, devices: Sequence[DeviceFile]) -> Inputs:
    """Several devices are judged as those of one host; what a root was named for does not change."""
    items = [item for number, one in enumerate(devices) for item in one.items(f"device-{number}")]
    roots = [
        NamedRoot(use=use, anchor=one.anchor)
        for one in inputs.trust_roots
        for use in ((one.use,) if one.use is not None else ("nvidia", "rim"))
    ]
    file = CompositeFile(items=tuple(items), binding_bytes=None)
    return replace(inputs, data=file.encode(), kind=COMPOSITE, trust_roots=tuple(roots))


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
