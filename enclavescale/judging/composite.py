"""Judge all evidence of one host: its CPU, GPUs, switches and SPDM devices, under one challenge."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from enclavescale.judging.inputs import Inputs, named_roots
from schemas.codec import decode_binding, report_data_of
from schemas.errors import SchemaError
from schemas.records import SessionBinding
from verifier.abi.composite import CompositeFile, parse_composite
from verifier.claims import CompositeClaims
from verifier.composite import VerifiedComposite, verify_composite
from verifier.errors import CompositeMalformed, ReportDataMismatch, VerificationError
from verifier.formats.nvidia import VerifiedNvidiaReport
from verifier.policy.composite import composite_rules, composite_warnings, expectations_of
from verifier.policy.grade import NONE, earned_grade
from verifier.policy.nvidia import nvidia_warnings
from verifier.trust.roots import Root
from verifier.trust.store import Collateral
from verifier.trust.vendors import ROOTS_BY_USE
from verifier.verdicts.composite import composite_verdict
from verifier.verdicts.spdm import spdm_warnings

_SHOWN = 3
"""Subjects that a warning about several names."""


def judge_composite(inputs: Inputs) -> dict[str, Any]:
    """The verdict on the host of `inputs.data`.

    With the binding in the file, the CPU's report data must be its digest. Manifests of --rim count as collateral.
    """
    host: VerifiedComposite | None = None
    failures: list[VerificationError] = []
    warnings: list[str] = []
    grade = (NONE, "nothing is verified")
    try:
        file = parse_composite(inputs.data)
        expected, binding = expected_data(file, inputs.report_data)
        host = verify_composite(
            items=file.items,
            collateral=inputs.collateral.merged(Collateral.of(inputs.rims)),
            trust_roots=roots_of(inputs),
            now_ms=inputs.now_ms,
            report_data=expected,
            nonce=inputs.nonces[0] if inputs.nonces else None,
        )
    except VerificationError as error:
        failures.append(error)
    else:
        claims = CompositeClaims(
            cpu=host.cpu,
            devices=host.devices,
            binding=binding,
            # The binding in the file is part of what is judged: it says which session, and nobody says that it is ours.
            tied=host.tied and (inputs.report_data is not None or inputs.policy.report_data is not None),
            now_ms=inputs.now_ms,
        )
        failures += composite_rules(inputs.policy, report_data=inputs.report_data).failures(claims)
        grade = earned_grade(claims, expectations_of(inputs.policy))
        warnings = [
            *composite_warnings(inputs.policy, claims, nonces=host.nonces, report_data=expected),
            *part_warnings(host, inputs),
        ]
    return composite_verdict(
        policy=inputs.policy, now_ms=inputs.now_ms, host=host, grade=grade, failures=failures, warnings=warnings
    )


def part_warnings(host: VerifiedComposite, inputs: Inputs) -> list[str]:
    """What an acceptance does not mean for one part of the host: who vouches for it, what of it is not compared."""
    found = [] if host.cpu is None else named_roots(ROOTS_BY_USE[host.cpu.tee], host.cpu.root_label)
    by_text: dict[str, list[str]] = {}
    for device in host.devices:
        evidence = device.evidence
        if isinstance(evidence, VerifiedNvidiaReport):
            texts = [*nvidia_warnings(inputs.policy.nvidia, replace(evidence, nonce_checked=device.fresh))]
        else:
            texts = [*spdm_warnings(evidence)]
        for text in (*texts, *named_roots(ROOTS_BY_USE[device.kind], evidence.root_label)):
            by_text.setdefault(text, []).append(device.subject)
    return [*found, *(f"{_several(subjects)}: {text}" for text, subjects in by_text.items())]


def _several(subjects: Sequence[str]) -> str:
    more = len(subjects) - _SHOWN
    return ", ".join(subjects[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def expected_data(file: CompositeFile, report_data: bytes | None) -> tuple[bytes | None, SessionBinding | None]:
    """(what the CPU's evidence must be made for, the binding if there is one).

    Of --report-data and the file's binding both count where both are there. `CompositeMalformed` for bytes that are
    no binding, `ReportDataMismatch` where the two contradict each other.
    """
    if file.binding_bytes is None:
        return report_data, None
    try:
        binding = decode_binding(file.binding_bytes)
    except SchemaError as error:
        raise CompositeMalformed(f"the binding is none: {error}", field="binding") from None
    digest = report_data_of(file.binding_bytes)
    if report_data is not None and not hmac.compare_digest(report_data, digest):
        raise ReportDataMismatch("--report-data is not the digest of the binding in the file", field="binding")
    return digest, binding


def roots_of(inputs: Inputs) -> Mapping[str, Sequence[Root]]:
    """The roots for each kind of evidence, by the names that `verify_composite` takes."""
    return {
        "sgx": inputs.roots("sgx"),
        "tdx": inputs.roots("tdx"),
        "snp": inputs.roots("snp"),
        "nvidia": inputs.roots("nvidia"),
        "rim": inputs.roots("rim"),
        "spdm": inputs.roots("spdm"),
    }
