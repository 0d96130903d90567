"""What can go wrong between this process and the kernel's report interface, and which of it passes."""

from __future__ import annotations

import errno

from schemas.errors import EnclaveScaleError

ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})
"""Errors of something that is not there."""

PASSING = frozenset({errno.EBUSY, errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT})
"""Errors that another attempt may not meet."""

_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class TsmUnavailable(EnclaveScaleError):
    """There is no report interface, or this process may not use it."""

    code = "TSM_UNAVAILABLE"
    remedy = (
        "Run in a TDX or SEV-SNP guest with Linux 6.7 or later, load tdx_guest or sev-guest, mount configfs at "
        "/sys/kernel/config, and let the agent write below its tsm/report (root, or a directory given to its user)."
    )


class TsmNoDriver(TsmUnavailable):
    """The interface is there, no driver behind it: not loaded, or being loaded again."""


class TsmUnsupported(EnclaveScaleError):
    """A provider whose reports nobody here verifies."""

    code = "TSM_UNSUPPORTED"
    remedy = "Only tdx_guest and sev_guest are supported; run the agent in such a guest."


class TsmBusy(EnclaveScaleError):
    """No report within all attempts: busy, no answer, interrupted, or others write to our entries."""

    code = "TSM_BUSY"
    remedy = (
        "See whether the quoting service of the host (Intel QGS) answers and whether other programs ask for reports "
        "all the time; the kernel's log says more."
    )


class TsmRefused(EnclaveScaleError):
    """The TEE or its driver refused the report for good."""

    code = "TSM_REFUSED"
    remedy = (
        "The kernel's log says why. ENOTTY on SEV-SNP means that the guest's message key was dropped after a failed "
        "request: the guest must be started again."
    )


class TsmOutputInvalid(EnclaveScaleError):
    """What came is no report over what was asked."""

    code = "TSM_OUTPUT_INVALID"
    remedy = "The driver or the host's quoting service is at fault, or speaks a newer format; update it or the agent."


def error_name(error: OSError) -> str:
    """ "EBUSY", for what people look up; "?" for a number nobody named."""
    return errno.errorcode.get(error.errno or 0, "?")


def refusal(error: OSError, step: str) -> EnclaveScaleError:
    """Our error for the kernel's at `step`; TsmBusy and TsmNoDriver are worth another attempt."""
    text = f"{step}: {error_name(error)} ({error.strerror})"
    if error.errno in PASSING:
        return TsmBusy(text, field=step)
    if error.errno == errno.ENXIO:
        return TsmNoDriver(text, field=step)
    if error.errno in _DENIED:
        return TsmUnavailable(text, field=step)
    if error.errno in ABSENT:  # it was there a moment ago
        return TsmBusy(f"{text}: somebody removed our entry", field=step)
    if error.errno == errno.EFBIG:
        return TsmOutputInvalid(text, field=step)
    return TsmRefused(text, field=step)
