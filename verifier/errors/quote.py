"""Refusals of a quote: its bytes, its quoting enclave, its signatures."""

from __future__ import annotations

from verifier.errors.base import VerificationError


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
    remedy = "Have the quote provider embed the PCK chain (type 5), or give the PCK certificate as an endorsement."


class QeReportSignature(VerificationError):
    """A QE report the platform's PCK key did not sign."""

    code = "QE_REPORT_SIGNATURE"
    remedy = "The quote does not belong to this chain."


class QeBinding(VerificationError):
    """An attestation key its quoting enclave does not vouch for."""

    code = "QE_BINDING"
    remedy = "The attestation key was exchanged; quote again."


class QeIdentity(VerificationError):
    """A quoting enclave that is not the vendor's for this TEE, as its signed identity describes it."""

    code = "QE_IDENTITY"
    remedy = "Use Intel's quoting enclave for this TEE, in production mode."


class QuoteSignature(VerificationError):
    """A quote its attestation key did not sign."""

    code = "QUOTE_SIGNATURE"
    remedy = "The quote was altered after signing; quote again."
