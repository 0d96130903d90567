"""Judge an SPDM transcript: messages in JSON, or a capture."""

from __future__ import annotations

from typing import Any

from enclavescale.judging.inputs import Inputs, named_roots
from verifier.errors import NoTrustRoots, VerificationError
from verifier.formats.spdm import VerifiedSpdm, verify_spdm_transcript
from verifier.formats.spdm_reading import read_transcript
from verifier.policy.composite import spdm_rules_of
from verifier.verdicts.spdm import spdm_verdict, spdm_warnings


def judge_spdm(inputs: Inputs) -> dict[str, Any]:
    """The verdict on the transcript `inputs.data`. SPDM endpoints have no vendor in common: a root must be named."""
    device: VerifiedSpdm | None = None
    failures: list[VerificationError] = []
    try:
        device = verify_spdm_transcript(
            messages=read_transcript(inputs.data),
            trust_roots=inputs.roots("spdm"),
            now_ms=inputs.now_ms,
            nonces=inputs.nonces,
        )
    except NoTrustRoots as error:
        error.remedy = "Name the device vendor's root with --trust-root."
        failures.append(error)
    except VerificationError as error:
        failures.append(error)
    warnings: tuple[str, ...] = ()
    if device is not None:
        failures += spdm_rules_of(inputs.policy, fresh=device.fresh).failures(device)
        warnings = spdm_warnings(device)
    return spdm_verdict(
        policy=inputs.policy,
        now_ms=inputs.now_ms,
        device=device,
        failures=failures,
        warnings=[*warnings, *([] if device is None else named_roots([], device.root_label))],
    )
