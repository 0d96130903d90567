"""What can go wrong between this requester and a device; nothing here is a verdict on what a device said."""

from __future__ import annotations

from schemas.errors import EnclaveScaleError
from verifier.errors import VerificationError


class SpdmUnreachable(EnclaveScaleError):
    """No connection to the responder could be made."""

    code = "SPDM_UNREACHABLE"
    remedy = "Check host and port (4194 is the one registered for SPDM), the network, and that the responder listens."


class SpdmTimeout(EnclaveScaleError):
    """The responder did not answer within its time, or the whole exchange took too long."""

    code = "SPDM_TIMEOUT"
    remedy = (
        "See whether the device is busy or hung, and whether its transport frames messages otherwise (--framing) or "
        "counts the payload length in the other way (--length); --round-trip and --timeout give it more time."
    )


class SpdmClosed(EnclaveScaleError):
    """The responder ended the connection while an answer was due."""

    code = "SPDM_CLOSED"
    remedy = "Read the responder's log: it may refuse this requester, or expect another transport binding (--framing)."


class SpdmTransportRefused(EnclaveScaleError):
    """The responder answered with an error of the TCP binding (DSP0287, message types 0xC0 to 0xFF)."""

    code = "SPDM_TRANSPORT_REFUSED"
    remedy = "The message says which; the other end must be an SPDM responder of TCP binding version 1."


class SpdmBusy(EnclaveScaleError):
    """The responder put us off (BUSY, RESPONSE_NOT_READY) more often than we ask."""

    code = "SPDM_BUSY"
    remedy = "Try again later; a device that is never ready needs its vendor's attention."


class SpdmResponderError(EnclaveScaleError):
    """The responder answered with an ERROR message that asking again does not cure."""

    code = "SPDM_RESPONDER_ERROR"
    remedy = "The error's name says why the device refuses the request; the specification explains it."


class SpdmNotOffered(EnclaveScaleError):
    """The responder lacks what evidence needs: a version, a slot, signed measurements, room for a request."""

    code = "SPDM_NOT_OFFERED"
    remedy = "Offer the versions the device speaks (--spdm-version), or another slot; else it needs newer firmware."


class SpdmFrameInvalid(VerificationError):
    """Bytes on the connection that are no frame of the binding."""

    code = "SPDM_FRAME_INVALID"
    remedy = (
        "The other end speaks another protocol or framing (--framing), or counts the payload length in the other way "
        "(--length)."
    )


class SpdmResponseInvalid(VerificationError):
    """A well-formed response that does not answer the request it follows."""

    code = "SPDM_RESPONSE_INVALID"
    remedy = "The device's SPDM implementation is at fault, or something between here and there alters messages."


class SpdmLimit(VerificationError):
    """A response beyond what this requester takes, or progress too small ever to end."""

    code = "SPDM_LIMIT"
    remedy = "No honest device needs that much; raise the limit only for one you know."


class SpdmReplayMismatch(EnclaveScaleError):
    """A recorded transcript holds another request than the one that was to be sent."""

    code = "SPDM_REPLAY_MISMATCH"
    remedy = "Replay with the nonces, slot, version and limits that the transcript was recorded with."
