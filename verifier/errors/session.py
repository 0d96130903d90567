"""Refusals of a session: binding, enrolment, the evidence as a whole, its records."""

from __future__ import annotations

from verifier.errors.base import VerificationError


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
