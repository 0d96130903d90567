"""The one base error: a stable code, a remedy for the person who reads it, the field that failed."""

from __future__ import annotations


class EnclaveScaleError(Exception):
    """Base of every error that untrusted input may cause.

    `code` is stable and machine-readable (DLQ header, metric label, JSON field); `remedy` says what a person
    can do about it; `field` names the offending field where there is one.
    """

    code: str = "ERROR"
    remedy: str = ""

    def __init__(self, message: str, *, code: str | None = None, field: str | None = None, remedy: str | None = None):
        super().__init__(message)
        if code is not None:
            self.code = code
        if remedy is not None:
            self.remedy = remedy
        self.field = field


class SchemaError(EnclaveScaleError):
    """Bytes that are not a record of a pinned schema."""

    code = "MALFORMED"
    remedy = "Check what wrote these bytes, and with which schema; those of a refused record are in the DLQ."


class ConfigError(EnclaveScaleError):
    """Configuration or policy that an operator must correct before the program can run."""

    code = "CONFIG_INVALID"
    remedy = "Correct the named option or policy field and start again."
