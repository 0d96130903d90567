"""Refusals of AMD SEV-SNP evidence: reports, endorsement keys, Azure's blob around them, what a policy demands."""

from __future__ import annotations

from verifier.errors.base import VerificationError


class SnpMalformed(VerificationError):
    """A report whose length or reserved parts are wrong, or bytes behind it that are no certificate table."""

    code = "SNP_MALFORMED"
    remedy = "The report is damaged or not one; compare it with what the firmware delivered."


class SnpVersionUnsupported(VerificationError):
    """A report of a version this verifier does not read."""

    code = "SNP_VERSION_UNSUPPORTED"
    remedy = "Use a report of version 2 to 5, or a newer release."


class SnpAlgorithmUnsupported(VerificationError):
    """A report whose signature algorithm is not ECDSA P-384 with SHA-384."""

    code = "SNP_ALGORITHM_UNSUPPORTED"
    remedy = "Use a report as the firmware signs it: SIGNATURE_ALGO 1."


class SnpUnsigned(VerificationError):
    """A report that says itself that no key signed it."""

    code = "SNP_UNSIGNED"
    remedy = "Have the host sign reports: a VLEK loaded, or MASK_CHIP_KEY off."


class SnpSigningKey(VerificationError):
    """A report signed by another kind of key than the certificate certifies."""

    code = "SNP_SIGNING_KEY"
    remedy = "Give the certificate of the key that signed: VCEK or VLEK, as the report's SIGNING_KEY says."


class SnpSignature(VerificationError):
    """A report its endorsement key did not sign."""

    code = "SNP_SIGNATURE"
    remedy = "The report was altered after signing, or the certificate is another chip's; attest again."


class EndorsementMissing(VerificationError):
    """No endorsement key certificate for the report."""

    code = "ENDORSEMENT_MISSING"
    remedy = "Give the VCEK or VLEK certificate with its ASK and ARK; AMD's KDS serves all three."


class EkExtensionInvalid(VerificationError):
    """An endorsement key certificate whose AMD extensions are missing, wrong or contradict each other."""

    code = "EK_EXTENSION_INVALID"
    remedy = "Fetch the endorsement key's certificate anew from AMD's KDS."


class SnpTcbMismatch(VerificationError):
    """An endorsement key issued for another TCB than the report's REPORTED_TCB."""

    code = "SNP_TCB_MISMATCH"
    remedy = "Fetch the certificate for the report's REPORTED_TCB from AMD's KDS."


class SnpTcbOrder(VerificationError):
    """TCB or firmware versions that no genuine firmware reports together."""

    code = "SNP_TCB_ORDER"
    remedy = "REPORTED_TCB may not exceed COMMITTED_TCB, nor that CURRENT_TCB; the platform is not to be trusted."


class SnpChipId(VerificationError):
    """A report of another chip than its VCEK was issued for."""

    code = "SNP_CHIP_ID"
    remedy = "Fetch the VCEK certificate of the chip that made the report."


class SnpChipIdMasked(VerificationError):
    """A report that names no chip."""

    code = "SNP_CHIP_ID_MASKED"
    remedy = "Have the host not mask the chip id (MaskChipId), or accept VLEK reports without one in the policy."


class SnpProduct(VerificationError):
    """A report, certificate and chain that are not of one product line."""

    code = "SNP_PRODUCT"
    remedy = "Give the certificates of the product that made the report: Milan, Genoa or Turin."


class HclMalformed(VerificationError):
    """An Azure HCL blob whose lengths, kinds or runtime data are wrong."""

    code = "HCL_MALFORMED"
    remedy = "Read the blob anew from the vTPM (NV index 0x01400001) of an SEV-SNP machine."


class HclBinding(VerificationError):
    """Runtime data that the report's REPORT_DATA does not vouch for."""

    code = "HCL_BINDING"
    remedy = "The runtime data was exchanged; read the blob anew from the vTPM."


class SnpPolicyRefused(VerificationError):
    """A guest policy that leaves the guest open, or that demands too little of its platform."""

    code = "SNP_POLICY"
    remedy = "Launch the guest with the policy that is demanded."


class SnpPlatformRefused(VerificationError):
    """A platform whose state the policy does not accept."""

    code = "SNP_PLATFORM"
    remedy = "Configure host and firmware as demanded; the alias check needs the firmware of AMD-SB-3015."


class SnpVmplRefused(VerificationError):
    """A report asked for at another privilege level than is accepted."""

    code = "SNP_VMPL"
    remedy = "Request the report at an accepted VMPL; one made on the host's request is never accepted."


class SnpTcbTooOld(VerificationError):
    """A TCB or firmware older than the policy demands."""

    code = "SNP_TCB_TOO_OLD"
    remedy = "Update SEV firmware and microcode, commit the update, and fetch a new VCEK certificate."


class GuestSvnTooLow(VerificationError):
    """A guest of an older security version than the policy demands."""

    code = "GUEST_SVN_TOO_LOW"
    remedy = "Launch a guest whose ID block has at least the demanded GUEST_SVN."


class SnpSignerRefused(VerificationError):
    """A guest, or an endorsement key, of a signer or owner the policy does not name."""

    code = "SNP_SIGNER"
    remedy = "Launch with an ID block of an accepted key; a VLEK must be the demanded cloud's."
