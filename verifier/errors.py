"""Why evidence was refused: one error per cause, each with a stable code and a remedy.

Hostile bytes cause a `VerificationError` and nothing else. A programmer's mistake (a session id of the wrong
length, say) is a `ValueError`, never one of these.
"""

from __future__ import annotations

from typing import Self

from schemas.errors import EnclaveScaleError


class VerificationError(EnclaveScaleError):
    """Evidence that is refused. `code` says which cause, `field` where, `remedy` what a person can do.

    `holds_from_ms` and `holds_until_ms` (UTC milliseconds, inclusive; None: unbounded) say for which `now` the same
    evidence under the same policy fails in the same way; a cache may repeat the refusal inside, and only inside.
    """

    code = "VERIFICATION_FAILED"
    remedy = "Read the code and the field; the evidence is refused."

    def __init__(
        self, message: str, *, field: str | None = None, code: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(message, code=code, field=field, remedy=remedy)
        self.holds_from_ms: int | None = None
        self.holds_until_ms: int | None = None

    def holding(self, from_ms: int, until_ms: int) -> Self:
        """This error, marked as certain only for `from_ms` <= now <= `until_ms`."""
        self.holds_from_ms, self.holds_until_ms = from_ms, until_ms
        return self

    def replica(self) -> VerificationError:
        """A fresh error that says the same; an exception raised twice would drag its old traceback along."""
        copy = type(self)(str(self), field=self.field, code=self.code, remedy=self.remedy)
        copy.holds_from_ms, copy.holds_until_ms = self.holds_from_ms, self.holds_until_ms
        return copy


class QuoteMalformed(VerificationError):
    """A quote whose lengths or structure are wrong."""

    code = "QUOTE_MALFORMED"
    remedy = "The quote is damaged or not a quote; compare it with what the TEE delivered."


class QuoteVersionUnsupported(VerificationError):
    """A quote of a version this verifier does not read."""

    code = "QUOTE_VERSION_UNSUPPORTED"
    remedy = "Use a quote version this release supports, or a newer release."


class TeeTypeUnsupported(VerificationError):
    """A quote of another kind of TEE than its evidence kind says."""

    code = "TEE_TYPE_UNSUPPORTED"
    remedy = "Label the evidence with the kind of its TEE."


class KeyTypeUnsupported(VerificationError):
    """An attestation key that is not ECDSA P-256."""

    code = "KEY_TYPE_UNSUPPORTED"
    remedy = "Configure the quoting enclave for ECDSA-256-with-P-256."


class QeVendorUnknown(VerificationError):
    """A quoting enclave of another vendor than Intel."""

    code = "QE_VENDOR_UNKNOWN"
    remedy = "Use Intel's quoting enclave."


class CertificationUnsupported(VerificationError):
    """Certification data without a PCK chain inside."""

    code = "CERTIFICATION_UNSUPPORTED"
    remedy = "Configure the quote provider to embed the PCK chain (certification data type 5)."


class NoTrustRoots(VerificationError):
    """No root of trust was given: nothing can be trusted."""

    code = "NO_TRUST_ROOTS"
    remedy = "Name at least one root for this TEE."


class TrustRootInvalid(VerificationError):
    """A root in the policy that is no usable certificate."""

    code = "TRUST_ROOT_INVALID"
    remedy = "Correct policy.trust_roots: a DER certificate with a P-256 key."


class CertChainInvalid(VerificationError):
    """Certificates that are malformed or make no chain."""

    code = "CERT_CHAIN_INVALID"
    remedy = "Fetch the PCK chain of this platform anew."


class CertRoleInvalid(VerificationError):
    """A certificate used in a role it was not issued for."""

    code = "CERT_ROLE_INVALID"
    remedy = "Use the PCK certificate of this platform, with its own issuers."


class CertConstraint(VerificationError):
    """A certificate's constraints or key usage forbid its place in the chain."""

    code = "CERT_CONSTRAINT"
    remedy = "Fetch the PCK chain of this platform anew."


class CertKeyUnsupported(VerificationError):
    """A certificate whose key is not P-256."""

    code = "CERT_KEY_UNSUPPORTED"
    remedy = "Intel's PCK chains use P-256 only; this chain is not one."


class CertSignature(VerificationError):
    """A certificate its issuer did not sign."""

    code = "CERT_SIGNATURE"
    remedy = "Fetch the PCK chain of this platform anew."


class RootUntrusted(VerificationError):
    """A chain that ends at a root nobody named."""

    code = "ROOT_UNTRUSTED"
    remedy = "If the root is meant to be trusted, name it in policy.trust_roots."


class CertExpired(VerificationError):
    """A certificate past its validity."""

    code = "CERT_EXPIRED"
    remedy = "Renew the platform's PCK certificate."


class CertNotYetValid(VerificationError):
    """A certificate before its validity."""

    code = "CERT_NOT_YET_VALID"
    remedy = "Check the clocks; the certificate begins later."


class PckExtensionInvalid(VerificationError):
    """A PCK certificate without a well-formed Intel extension."""

    code = "PCK_EXTENSION_INVALID"
    remedy = "Fetch the PCK certificate of this platform anew."


class QeReportSignature(VerificationError):
    """A QE report the platform's PCK key did not sign."""

    code = "QE_REPORT_SIGNATURE"
    remedy = "The quote does not belong to this chain."


class QeBinding(VerificationError):
    """An attestation key its quoting enclave does not vouch for."""

    code = "QE_BINDING"
    remedy = "The attestation key was exchanged; quote again."


class QeIdentity(VerificationError):
    """A quoting enclave that is not the vendor's TD quoting enclave."""

    code = "QE_IDENTITY"
    remedy = "Use Intel's TD quoting enclave, in production mode."


class QuoteSignature(VerificationError):
    """A quote its attestation key did not sign."""

    code = "QUOTE_SIGNATURE"
    remedy = "The quote was altered after signing; quote again."


class PolicyEmpty(VerificationError):
    """A policy that demands nothing: it refuses."""

    code = "POLICY_EMPTY"
    remedy = "Fill the named part of the policy."


class ReportDataMismatch(VerificationError):
    """A quote made for something else than this session binding."""

    code = "REPORT_DATA_MISMATCH"
    remedy = "Quote again with the report data of this binding."


class DebugEnabled(VerificationError):
    """A debuggable TD: its memory can be read."""

    code = "DEBUG_ENABLED"
    remedy = "Start the TD without the DEBUG attribute."


class TdAttributesRefused(VerificationError):
    """TD attributes that leave the TD's protection open."""

    code = "TD_ATTRIBUTES"
    remedy = "Start the TD with SEPT_VE_DISABLE and without MIGRATABLE or TUD bits."


class TdxModuleMismatch(VerificationError):
    """A TDX module that is not Intel's production module."""

    code = "TDX_MODULE_MISMATCH"
    remedy = "Load Intel's production TDX module."


class MeasurementUnknown(VerificationError):
    """Measured code the policy does not trust in this role."""

    code = "MEASUREMENT_UNKNOWN"
    remedy = "Deploy an image named in policy.measurements, or have the policy signer add this one."


class TcbUnevaluated(VerificationError):
    """The platform's TCB status was not evaluated."""

    code = "TCB_UNEVALUATED"
    remedy = "Provide collateral. For a demo only: policy.unsafe_allow_unevaluated_tcb."


class PlatformNotEnrolled(VerificationError):
    """A genuine platform that is not the enrolled one."""

    code = "PLATFORM_NOT_ENROLLED"
    remedy = "Enrol the platform id of this machine under its host_id."


class HostNotEnrolled(VerificationError):
    """A host or aggregator the policy does not name."""

    code = "HOST_NOT_ENROLLED"
    remedy = "Enrol the host_id in the policy in this role."


class DomainMismatch(VerificationError):
    """A binding for another power domain than the enrolled one."""

    code = "DOMAIN_MISMATCH"
    remedy = "Configure the host with the domain it is enrolled in."


class RoleMismatch(VerificationError):
    """A session of another role than asked for."""

    code = "ROLE_MISMATCH"
    remedy = "Use host sessions for reports, aggregator sessions for control records and outputs."


class ProtocolUnsupported(VerificationError):
    """A binding of another protocol version."""

    code = "PROTOCOL_UNSUPPORTED"
    remedy = "Run releases that speak the same protocol."


class SourceRefused(VerificationError):
    """Readings from a source the policy does not accept."""

    code = "SOURCE_REFUSED"
    remedy = "Measure with an accepted source (default: nvml only)."


class SamplerModeRefused(VerificationError):
    """A sampler mode the policy does not accept."""

    code = "SAMPLER_MODE_REFUSED"
    remedy = "Sample in a mode of policy.accepted_sampler_modes."


class FirstMileTooLow(VerificationError):
    """The way from sensor to enclave is less authenticated than the policy demands."""

    code = "FIRST_MILE_TOO_LOW"
    remedy = "Provide GPU evidence, or lower policy.min_first_mile."


class EvidenceMissing(VerificationError):
    """A session without a CPU quote."""

    code = "EVIDENCE_MISSING"
    remedy = "Send the CPU quote as first evidence item."


class EvidenceAmbiguous(VerificationError):
    """Evidence that is not led by exactly one CPU quote."""

    code = "EVIDENCE_AMBIGUOUS"
    remedy = "Send exactly one CPU quote, first."


class EvidenceTooLarge(VerificationError):
    """More evidence than the limits allow."""

    code = "EVIDENCE_TOO_LARGE"
    remedy = "Send each piece of evidence once."


class EvidenceKindUnknown(VerificationError):
    """A kind of evidence nobody defined."""

    code = "EVIDENCE_KIND_UNKNOWN"
    remedy = "Check the sender's version; unknown evidence never passes."


class EvidenceKindUnsupported(VerificationError):
    """A defined kind of evidence this release cannot verify."""

    code = "EVIDENCE_KIND_UNSUPPORTED"
    remedy = "Use a release that verifies it; unverified evidence never passes."


class SessionKeyInvalid(VerificationError):
    """A session key that is no uncompressed P-256 point."""

    code = "SESSION_KEY_INVALID"
    remedy = "Bind a P-256 public key as 65 bytes, 04 || X || Y."


class SignatureInvalid(VerificationError):
    """A signature the session key did not make."""

    code = "SIGNATURE_INVALID"
    remedy = "The record was altered or signed by another session."


class SignatureNotLowS(VerificationError):
    """A signature with s in the upper half."""

    code = "SIGNATURE_NOT_LOW_S"
    remedy = "Sign with low s; the other form is refused so that signatures are unique."
