"""Refusals of certificates, chains, roots and revocation lists."""

from __future__ import annotations

from verifier.errors.base import VerificationError


class NoTrustRoots(VerificationError):
    """No root of trust was given: nothing can be trusted."""

    code = "NO_TRUST_ROOTS"
    remedy = "Name at least one root for this TEE."


class TrustRootInvalid(VerificationError):
    """A root that is no usable certificate."""

    code = "TRUST_ROOT_INVALID"
    remedy = "Give a root certificate of this kind of evidence: policy.trust_roots takes DER, --trust-root DER or PEM."


class CertChainInvalid(VerificationError):
    """Certificates that are malformed or make no chain."""

    code = "CERT_CHAIN_INVALID"
    remedy = "Fetch the certificate chain of this platform or device anew, whole and as it was issued."


class CertRoleInvalid(VerificationError):
    """A certificate used in a role it was not issued for."""

    code = "CERT_ROLE_INVALID"
    remedy = "Use the certificate of this platform or device, with its own issuers."


class CertConstraint(VerificationError):
    """A certificate's constraints or key usage forbid its place in the chain."""

    code = "CERT_CONSTRAINT"
    remedy = "Fetch the certificate chain of this platform or device anew."


class CertKeyUnsupported(VerificationError):
    """A certificate with a key or signature algorithm that its vendor's chains do not use."""

    code = "CERT_KEY_UNSUPPORTED"
    remedy = "This is not a chain of this vendor: Intel uses P-256, NVIDIA P-384, AMD P-384 under RSA-4096."


class CertSignature(VerificationError):
    """A certificate its issuer did not sign."""

    code = "CERT_SIGNATURE"
    remedy = "Fetch the certificate chain of this platform or device anew."


class RootUntrusted(VerificationError):
    """A chain that ends at a root nobody named."""

    code = "ROOT_UNTRUSTED"
    remedy = "If the root is meant to be trusted, name it in policy.trust_roots, or with --trust-root."


class CertExpired(VerificationError):
    """A certificate past its validity."""

    code = "CERT_EXPIRED"
    remedy = "Renew the certificate, and collect the evidence again."


class CertNotYetValid(VerificationError):
    """A certificate before its validity."""

    code = "CERT_NOT_YET_VALID"
    remedy = "Check the clocks; the certificate begins later."


class PckExtensionInvalid(VerificationError):
    """A PCK certificate without a well-formed Intel extension."""

    code = "PCK_EXTENSION_INVALID"
    remedy = "Fetch the PCK certificate of this platform anew."


class CertRevoked(VerificationError):
    """A certificate its issuer has revoked."""

    code = "CERT_REVOKED"
    remedy = "The platform's key or its signer is revoked; take the machine out of service and ask its vendor."


class CrlIssuer(VerificationError):
    """A revocation list of another issuer than the certificate it shall judge."""

    code = "CRL_ISSUER"
    remedy = "Fetch the CRL of the CA that issued this certificate."
