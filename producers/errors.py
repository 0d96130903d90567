"""Errors of the host side, each with a stable code and a remedy for the operator."""

from __future__ import annotations

from schemas.errors import EnclaveScaleError


class TraceError(EnclaveScaleError):
    """A power trace that cannot be read or holds no reading."""

    code = "TRACE_UNREADABLE"
    remedy = "Check that the file is an nvidia-smi CSV log with timestamp and power.draw, or a trace of this project."


class SpoolError(EnclaveScaleError):
    """The spool cannot be opened or written: nothing may be sent that is not on disk."""

    code = "SPOOL_FAILED"
    remedy = "Check space, permissions and the file system of the spool, and that no other agent uses the same file."


class DcgmError(EnclaveScaleError):
    """The DCGM exporter did not answer, or not with an exposition: its readings of that moment are missing."""

    code = "DCGM_UNAVAILABLE"
    remedy = "Check that the exporter runs at the configured address and collects DCGM_FI_DEV_POWER_USAGE."
