"""Judge all evidence of one host: its CPU, GPUs, switches and SPDM devices, under one challenge."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from typing import Any

from enclavescale.judging.inputs import Inputs
from schemas.codec import decode_binding, report_data_of
from schemas.errors import SchemaError
from schemas.records import SessionBinding
from verifier.abi.composite import CompositeFile, parse_composite
from verifier.claims import CompositeClaims
from verifier.composite import VerifiedComposite, verify_composite
from verifier.errors import CompositeMalformed, ReportDataMismatch, VerificationError
from verifier.policy.composite import composite_rules, composite_warnings, expectations_of
from verifier.policy.devices import NONE, earned_grade
from verifier.trust.roots import INTEL_SGX_ROOT, Root
from verifier.trust.store import Collateral
from verifier.verdicts.composite import composite_verdict


def judge_composite(inputs: Inputs) -> dict[str, Any]:
    """The verdict on the host of `inputs.data`.

    With the binding in the file, the CPU's report data must be its digest. Manifests of --rim count as collateral.
    """
    host: VerifiedComposite | None = None
    failures: list[VerificationError] = []
    warnings: tuple[str, ...] = ()
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
        claims = CompositeClaims(cpu=host.cpu, devices=host.devices, binding=binding, now_ms=inputs.now_ms)
        failures += composite_rules(inputs.policy, report_data=inputs.report_data).failures(claims)
        grade = earned_grade(claims, expectations_of(inputs.policy))
        warnings = composite_warnings(inputs.policy, claims, nonces=host.nonces, report_data=expected)
    return composite_verdict(
        policy=inputs.policy, now_ms=inputs.now_ms, host=host, grade=grade, failures=failures, warnings=warnings
    )


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
    intel = [INTEL_SGX_ROOT, *(root for root in inputs.trust_roots if root.is_p256)]
    return {
        "sgx": intel,
        "tdx": intel,
        "snp": inputs.roots("snp"),
        "nvidia": inputs.roots("nvidia"),
        "rim": inputs.roots("rim"),
        "spdm": inputs.roots("spdm"),
    }
