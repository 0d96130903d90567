"""The TEE: does it give quotes, and is it the platform and the code that the policy knows? Nothing is verified here."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from attester.pki import ROOT_FILE
from attester.quote import QuoteProvider
from attester.simulated import SimulatedTee
from attester.tsm import TsmQuotes
from attester.tsm_entries import ReportEntries
from enclavescale.agent.file import TSM, ProduceSpec
from enclavescale.agent.sessions import cpu_quotes
from enclavescale.checkup.finding import Finding, fail, failed, ok, skip, some, warn
from schemas.errors import EnclaveScaleError
from schemas.records import EvidenceItem, HostEnrolment, Policy
from verifier.abi.pck import parse_pck_extension
from verifier.abi.pem import split_chain
from verifier.abi.quote import parse_quote
from verifier.errors import VerificationError
from verifier.evidence import SNP_CERTIFICATES, SNP_REPORT
from verifier.formats.snp_evidence import parse_snp_evidence
from verifier.policy.rules import check_register
from verifier.trust.certificate import parse_certificate

REPORT_DATA_BYTES = 64
SLOW_MS = 10_000.0
"""From here on a quote is slow, ms: renewals have minutes, a restart waits for it."""


@dataclass(frozen=True, slots=True)
class _Claims:
    """What unverified evidence says: `tee` as in a policy, ids of the platform (hex), measured registers."""

    tee: str
    platform_ids: tuple[str, ...]
    registers: Mapping[str, bytes]


def check_tee(
    spec: ProduceSpec,
    host_id: str,
    policy: Policy | None,
    enrolment: HostEnrolment | None,
    *,
    trial: bool,
    entries: ReportEntries | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Finding]:
    """`trial`: ask for one quote, over random report data. `entries`: the kernel's interface, where not the real one.

    Nothing is written to the directory of a simulated TEE.
    """
    provider: QuoteProvider
    if spec.tee == TSM:
        try:
            provider = cpu_quotes(spec, host_id) if entries is None else TsmQuotes(entries)
        except EnclaveScaleError as error:
            yield failed("tee.provider", error)
            return
        name = provider.provider if isinstance(provider, TsmQuotes) else provider.kind
        yield ok("tee.provider", f"{name}, through the kernel's report interface")
    else:
        yield warn("tee.provider", "simulated", 'For demonstrations only; on a TDX or SEV-SNP guest set tee = "tsm".')
        directory = Path(spec.tee_directory)
        if not (directory / ROOT_FILE).is_file():
            yield skip("tee.quote", f"{directory} has no root yet; the agent makes one when it starts")
            return
        provider = cpu_quotes(spec, host_id)
        roots = [root.certificate_der for root in policy.trust_roots] if policy else []
        if policy is not None and SimulatedTee.create(directory).trust_root().certificate_der not in roots:
            remedy = f"Use the tee_directory of the policy's simulated root; {directory} has another one."
            yield fail("tee.root", "the policy does not trust this simulated TEE", remedy, code="ROOT_UNTRUSTED")
    if not trial:
        yield skip("tee.quote", "no quote was asked for")
        return
    yield from _trial(provider, policy, enrolment, clock)


def _trial(
    provider: QuoteProvider, policy: Policy | None, enrolment: HostEnrolment | None, clock: Callable[[], float]
) -> Iterator[Finding]:
    began = clock()
    try:
        items = provider.quote(secrets.token_bytes(REPORT_DATA_BYTES))
    except EnclaveScaleError as error:
        yield failed("tee.quote", error)
        return
    took_ms = (clock() - began) * 1000
    with_certificates = any(one.kind == SNP_CERTIFICATES for one in items)
    found = f"{items[0].kind}, {len(items[0].data):,} bytes, within {took_ms:,.0f} ms"
    if took_ms > SLOW_MS:
        yield warn("tee.quote", found, "See to the host's quoting service: a start waits for the quote.")
    elif items[0].kind == SNP_REPORT and not with_certificates:
        remedy = "Verifiers then need the VCEK from elsewhere: have the hypervisor load AMD's certificates for guests."
        yield warn("tee.quote", f"{found}; the hypervisor offers no certificates", remedy)
    else:
        yield ok("tee.quote", found + ("; with certificates" if with_certificates else ""))
    claims = _claims(items)
    if enrolment is not None:
        yield _platform(claims, enrolment)
    if policy is not None:
        yield _measurement(claims, policy)


def _platform(claims: _Claims, enrolment: HostEnrolment) -> Finding:
    check = "tee.platform"
    if not claims.platform_ids:
        remedy = "Have the vendor's certificate of the platform delivered with the quote, or CHIP_ID not masked."
        return warn(check, "the quote does not name its platform by itself", remedy)
    enrolled = {one.lower() for one in enrolment.platform_ids}
    known = [one for one in claims.platform_ids if one in enrolled]
    if known:
        return ok(check, f"{known[0][:16]}…, as enrolled")
    if not enrolled:
        return skip(check, f"{claims.platform_ids[0][:16]}…; none is enrolled to compare with")
    remedy = f"If this is the machine you mean, have it enrolled: platform_ids = {', '.join(claims.platform_ids)}"
    return fail(check, "this machine is not the enrolled one", remedy, code="PLATFORM_NOT_ENROLLED")


def _measurement(claims: _Claims, policy: Policy) -> Finding:
    check = "tee.measurement"
    candidates = [one for one in policy.measurements if one.role == "host" and one.tee == claims.tee]
    for one in candidates:
        # Of SNP the policy names numbers too, such as a least VMPL: those are the verifier's to judge.
        rules = [rule for rule in one.registers if claims.tee != "snp" or rule.register in claims.registers]
        with contextlib.suppress(VerificationError):
            for rule in rules:
                check_register(rule, claims.registers)
            return ok(check, f"{one.label}, as the policy names it")
    main = next((name for name in ("mrtd", "measurement") if name in claims.registers), "")
    shown = f"{main} {claims.registers[main].hex()}" if main else "no register"
    remedy = f"Start the image that the policy names, or have this one added to its measurements: {shown}"
    found = f"none of the policy's {some(len(candidates), 'image')} for hosts of this kind"
    return fail(check, found, remedy, code="MEASUREMENT_UNKNOWN")


def _claims(items: Sequence[EvidenceItem]) -> _Claims:
    """What the CPU's item says of itself; empty where it cannot be read."""
    with contextlib.suppress(VerificationError):
        if items[0].kind == SNP_REPORT:
            report = parse_snp_evidence(items[0].data).report
            chip = (report.chip_id.hex(),) if any(report.chip_id) else ()
            values = {one.name: getattr(report, one.name) for one in fields(report)}
            return _Claims("snp", chip, {name: value for name, value in values.items() if isinstance(value, bytes)})
        quote = parse_quote(items[0].data)
        return _Claims(quote.tee, _pck_ids(quote.signature.certification.data), quote.body.registers())
    return _Claims("", (), {})


def _pck_ids(chain: bytes) -> tuple[str, ...]:
    with contextlib.suppress(VerificationError):
        extension = parse_certificate(split_chain(chain)[0]).pck_extension
        if extension is not None:
            pck = parse_pck_extension(extension)
            return tuple(one.hex() for one in (pck.ppid, pck.platform_instance_id) if one is not None and any(one))
    return ()
