"""Refusals of an NVIDIA GPU's or switch's attestation report, its device identity and its revocation answers."""

from __future__ import annotations

from verifier.errors.base import VerificationError


class NvidiaReportMalformed(VerificationError):
    """A report whose lengths or structure are wrong."""

    code = "NVIDIA_REPORT_MALFORMED"
    remedy = "The report is damaged or not one; use the bytes NVML or NSCQ returned, only as many as it says."


class NvidiaReportSignature(VerificationError):
    """A report the device's key did not sign."""

    code = "NVIDIA_REPORT_SIGNATURE"
    remedy = "Report and certificate chain must come from one device and be unchanged."


class NvidiaChipUnsupported(VerificationError):
    """A device certificate of a chip this verifier does not know."""

    code = "NVIDIA_CHIP_UNSUPPORTED"
    remedy = "Use a chip family this release supports, or a newer release."


class DeviceKindMismatch(VerificationError):
    """A GPU's report where a switch's is asked for, or the other way round."""

    code = "DEVICE_KIND"
    remedy = "Label the report with the kind of its device: nvidia-gpu or nvidia-switch."


class DiceInvalid(VerificationError):
    """A DICE extension (FWID, TCB info, device id) that cannot be read, or that is missing where it is needed."""

    code = "DICE_INVALID"
    remedy = "Use the attestation certificate chain as the device delivered it."


class DeviceKeyBinding(VerificationError):
    """A leaf certificate whose DICE device id is another key than its issuer's."""

    code = "DEVICE_KEY_BINDING"
    remedy = "The chain is put together from different devices; use one device's own."


class FwidMismatch(VerificationError):
    """A report made by other firmware than its key was issued to."""

    code = "FWID_MISMATCH"
    remedy = "Report and certificate chain must come from one boot of one device."


class FwidUnbound(VerificationError):
    """A report that does not say which firmware made it: nothing ties it to the FWID of its certificate."""

    code = "FWID_UNBOUND"
    remedy = "Use a driver whose reports carry the FWID, or allow reports without it in the policy."


class NonceUnchecked(VerificationError):
    """A report that was compared with no nonce: it may have been made at any time, for anyone."""

    code = "NONCE_UNCHECKED"
    remedy = "Give the nonce that this report was asked for."


class DeviceVersionRefused(VerificationError):
    """A driver or VBIOS version the policy does not accept."""

    code = "DEVICE_VERSION_REFUSED"
    remedy = "Update the device's driver or firmware, or add the version to the policy."


class DeviceTopologyMismatch(VerificationError):
    """GPUs and switches of one host that do not name each other."""

    code = "DEVICE_TOPOLOGY"
    remedy = "Give the reports of every GPU and switch of one host, and of no other."


class DeviceDebug(VerificationError):
    """A device whose certificate says it is in a debug, recovery or otherwise insecure state."""

    code = "DEVICE_DEBUG"
    remedy = "Use a production device with production firmware."


class OcspMalformed(VerificationError):
    """An OCSP response that cannot be read, or that reports an error."""

    code = "OCSP_MALFORMED"
    remedy = "Ask the responder again and keep its answer unchanged."


class OcspResponder(VerificationError):
    """An OCSP response of someone the certificate's issuer did not authorise."""

    code = "OCSP_RESPONDER"
    remedy = "Use the issuer's own responder."


class OcspSignature(VerificationError):
    """An OCSP response its responder did not sign."""

    code = "OCSP_SIGNATURE"
    remedy = "Ask the responder again and keep its answer unchanged."


class OcspExpired(VerificationError):
    """An OCSP response that is out of date."""

    code = "OCSP_EXPIRED"
    remedy = "Ask the responder again."


class OcspNotYetValid(VerificationError):
    """An OCSP response from the future."""

    code = "OCSP_NOT_YET_VALID"
    remedy = "Check the clocks of this machine and of the responder."


class OcspUnknown(VerificationError):
    """A certificate that its issuer's responder does not know."""

    code = "OCSP_UNKNOWN"
    remedy = "A genuine certificate is known to its issuer; ask the vendor."
