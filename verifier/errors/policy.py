"""Refusals by policy: verified claims that nobody accepts."""

from __future__ import annotations

from verifier.errors.base import VerificationError


class PolicyEmpty(VerificationError):
    """A policy that demands nothing: it refuses."""

    code = "POLICY_EMPTY"
    remedy = "Fill the named part of the policy."


class ReportDataMismatch(VerificationError):
    """A quote made for something else than is expected: another session binding, another challenge."""

    code = "REPORT_DATA_MISMATCH"
    remedy = "Quote again with the report data that is expected; all 64 bytes of it count."


class TeeRefused(VerificationError):
    """A kind of TEE the policy does not accept."""

    code = "TEE_REFUSED"
    remedy = "Attest from a TEE the policy names, or have the policy accept this one."


class DebugEnabled(VerificationError):
    """A debuggable TD or enclave: its memory can be read."""

    code = "DEBUG_ENABLED"
    remedy = "Start the TD or enclave without the DEBUG attribute."


class TdAttributesRefused(VerificationError):
    """TD attributes that leave the TD's protection open."""

    code = "TD_ATTRIBUTES"
    remedy = "Start the TD with SEPT_VE_DISABLE and without MIGRATABLE or TUD bits."


class EnclaveAttributesRefused(VerificationError):
    """Attributes of an enclave that the policy does not accept."""

    code = "ENCLAVE_ATTRIBUTES"
    remedy = "Start the enclave with the attributes the policy demands."


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
    remedy = "Enrol this machine: its platform id under its host_id, or under `platforms` in a policy file."


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


class TcbRevoked(VerificationError):
    """A platform whose TCB level is revoked."""

    code = "TCB_REVOKED"
    remedy = "The TCB is revoked: update BIOS, microcode or quoting enclave; until then nothing it says counts."


class TcbStatusRefused(VerificationError):
    """A TCB status the policy does not accept."""

    code = "TCB_STATUS_REFUSED"
    remedy = "Update the platform as its advisories say, or have the policy accept this status."


class AdvisoryRefused(VerificationError):
    """A security advisory the policy does not allow."""

    code = "ADVISORY_REFUSED"
    remedy = "Mitigate the advisory, or have the policy allow it."


class TcbEvaluationTooOld(VerificationError):
    """Collateral of an older TCB evaluation than the policy demands."""

    code = "TCB_EVALUATION_TOO_OLD"
    remedy = "Fetch collateral of the TCB evaluation data number that the policy names, or a later one."


class IsvSvnTooLow(VerificationError):
    """An enclave older than the policy demands."""

    code = "ISV_SVN_TOO_LOW"
    remedy = "Deploy an enclave with at least the ISVSVN the policy names."


class ServiceTdBound(VerificationError):
    """A TD bound to a service TD."""

    code = "SERVICE_TD_BOUND"
    remedy = "Start the TD without a service TD (migration TD), or have the policy allow it."


class PolicyInvalid(VerificationError):
    """A policy that cannot be read."""

    code = "POLICY_INVALID"
    remedy = "Correct the named key of the policy file; `enclavescale verify --policy-template` prints a complete one."
