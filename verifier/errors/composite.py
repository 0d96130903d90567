"""Refusals of several pieces of evidence together: whose they are, and whether they make one host."""

from __future__ import annotations

from verifier.errors.base import VerificationError


class CompositeMalformed(VerificationError):
    """A file of composite evidence that cannot be read."""

    code = "COMPOSITE_MALFORMED"
    remedy = 'Give {"items": [{"kind", "subject", "data"}], "binding"}: JSON, bytes in base64, binding optional.'


class EvidenceSubject(VerificationError):
    """Device evidence that names no device, or CPU evidence that names one."""

    code = "EVIDENCE_SUBJECT"
    remedy = "Name the device in the subject of its evidence, the same in report and certificates; none for the CPU."


class EnrolmentAmbiguous(VerificationError):
    """A platform or device that the policy enrols for two hosts."""

    code = "ENROLMENT_AMBIGUOUS"
    remedy = "Enrol each platform id and each device key digest for one host only, and once."


class GpuIdentitiesMismatch(VerificationError):
    """A session binding that names other devices than its evidence shows."""

    code = "GPU_IDENTITIES_MISMATCH"
    remedy = "Bind the digest of exactly the devices whose evidence is sent; null only where none is."
