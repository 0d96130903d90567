"""Refusals of reference integrity manifests (RIM): their XML, their signature, what they say."""

from __future__ import annotations

from verifier.errors.base import VerificationError


class RimMalformed(VerificationError):
    """A file that is no reference integrity manifest, or one that says nothing definite."""

    code = "RIM_MALFORMED"
    remedy = "Fetch the RIM anew and keep its bytes; it is the TCG/SWID form (XML) of NVIDIA's RIM service."


class RimTooLarge(VerificationError):
    """A reference integrity manifest beyond the limits."""

    code = "RIM_TOO_LARGE"
    remedy = "Give the RIM only; the limits are in verifier/limits.py."


class RimProfile(VerificationError):
    """An XML signature of another form than the one accepted here."""

    code = "RIM_PROFILE"
    remedy = "One enveloped signature over the whole document: ECDSA and SHA-384, C14N 1.1 or exclusive, X509Data."


class RimDigest(VerificationError):
    """A manifest whose content is not what was signed."""

    code = "RIM_DIGEST"
    remedy = "The RIM was altered after it was signed; fetch it anew."


class RimSignature(VerificationError):
    """A manifest its signer did not sign."""

    code = "RIM_SIGNATURE"
    remedy = "The signature does not belong to this RIM or this signer; fetch the RIM anew."
