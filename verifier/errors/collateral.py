"""Refusals of collateral, and of platforms it does not cover."""

from __future__ import annotations

from verifier.errors.base import VerificationError


class CollateralMissing(VerificationError):
    """Collateral this platform needs is not there."""

    code = "COLLATERAL_MISSING"
    remedy = "Provide what `enclavescale collateral show` reports as missing for this platform."


class CollateralMalformed(VerificationError):
    """Collateral that is not what its format says."""

    code = "COLLATERAL_MALFORMED"
    remedy = "Fetch it anew from whoever publishes it; keep its bytes as delivered."


class CollateralUnsupported(VerificationError):
    """Collateral of a version or type this release does not judge."""

    code = "COLLATERAL_UNSUPPORTED"
    remedy = "Fetch TCB info version 3 and enclave identity version 2 (PCS API v4)."


class CollateralTooLarge(VerificationError):
    """Collateral beyond the limits."""

    code = "COLLATERAL_TOO_LARGE"
    remedy = "Give only collateral; the limits are in verifier/limits.py."


class CollateralSignature(VerificationError):
    """Collateral its signer did not sign."""

    code = "COLLATERAL_SIGNATURE"
    remedy = "It was altered, or re-serialised on its way; fetch it anew and keep its bytes."


class CollateralExpired(VerificationError):
    """Collateral past its next update."""

    code = "COLLATERAL_EXPIRED"
    remedy = "Fetch current collateral; there is no grace for expired collateral."


class CollateralNotYetValid(VerificationError):
    """Collateral issued after the moment of judgement."""

    code = "COLLATERAL_NOT_YET_VALID"
    remedy = "Check the clock, or give collateral of the time asked for."


class CollateralMismatch(VerificationError):
    """Collateral for another platform or TEE."""

    code = "COLLATERAL_MISMATCH"
    remedy = "Provide collateral for this platform's FMSPC, PCE id and TEE."


class TcbNotSupported(VerificationError):
    """A platform below every TCB level its vendor lists."""

    code = "TCB_NOT_SUPPORTED"
    remedy = "Update BIOS and microcode; the vendor makes no statement about this TCB."
