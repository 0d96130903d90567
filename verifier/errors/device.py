"""Refusals of devices: GPUs, switches and SPDM endpoints, and of what is said about them."""

from __future__ import annotations

from verifier.errors.base import VerificationError


class NonceMismatch(VerificationError):
    """A device's evidence made for another challenge."""

    code = "NONCE_MISMATCH"
    remedy = "Ask the device again with the nonce that is expected; evidence of another challenge may be of any age."


class NonceReused(VerificationError):
    """One nonce in several challenges: a later answer may be the earlier one."""

    code = "NONCE_REUSED"
    remedy = "Draw a nonce of its own for every challenge."


class RevocationUnchecked(VerificationError):
    """Certificates about whose revocation nothing was given."""

    code = "REVOCATION_UNCHECKED"
    remedy = "Give the issuer's revocation list (AMD) or OCSP responses (NVIDIA), current at the time of judgement."


class DeviceDuplicate(VerificationError):
    """One device that stands for several."""

    code = "DEVICE_DUPLICATE"
    remedy = "Collect one report of every device; the same device counts once."


class DeviceModeRefused(VerificationError):
    """A device in a mode the policy does not accept."""

    code = "DEVICE_MODE"
    remedy = "Set the device's confidential-computing mode as the policy says, and developer tools off."


class ReferenceMissing(VerificationError):
    """Measurements that nothing given says the right values of."""

    code = "REFERENCE_MISSING"
    remedy = "Give the reference values of these versions: the driver's RIM and the VBIOS's."


class ReferenceMismatch(VerificationError):
    """Measurements that differ from their reference values."""

    code = "REFERENCE_MISMATCH"
    remedy = "The firmware or driver is not the one its vendor signed; take the device out of service and reinstall."
