"""Refusals of SPDM: messages, transcripts, algorithms, certificate chains of slots, signatures."""

from __future__ import annotations

from verifier.errors.base import VerificationError


class SpdmError(VerificationError):
    """A refusal of SPDM evidence; what is raised is always one of those below."""

    code = "SPDM_REFUSED"
    remedy = "Record the transcript anew."


class SpdmMalformed(SpdmError):
    """An SPDM message, transcript or capture whose lengths or structure are wrong."""

    code = "SPDM_MALFORMED"
    remedy = "Record the exchange anew; the bytes are damaged or no SPDM transcript."


class SpdmTooLarge(SpdmError):
    """A transcript or capture beyond what a verifier reads."""

    code = "SPDM_TOO_LARGE"
    remedy = "Record one connection to one device, from GET_VERSION to its last signed answer."


class SpdmUnsupported(SpdmError):
    """A message or option of SPDM this release does not read."""

    code = "SPDM_UNSUPPORTED"
    remedy = "Record GET_VERSION to MEASUREMENTS only, without sessions, chunks, chains over 64 KB or encapsulation."


class SpdmVersionMismatch(SpdmError):
    """A message of another version than the one negotiated, or a version nobody offered."""

    code = "SPDM_VERSION"
    remedy = "Use one of SPDM 1.0 to 1.4, the same in every message after VERSION."


class SpdmSequence(SpdmError):
    """Messages out of order: a response without its request, requests that cross, a connection that restarts."""

    code = "SPDM_SEQUENCE"
    remedy = "Record one connection, every request followed by its response."


class SpdmAlgorithms(SpdmError):
    """Algorithms that are ambiguous, were not offered, or that this release does not verify."""

    code = "SPDM_ALGORITHMS"
    remedy = "Negotiate one of SHA-256, SHA-384, SHA-512 with ECDSA P-256, P-384, P-521 or RSA 2048 to 4096."


class SpdmSlot(SpdmError):
    """An answer for another certificate slot than the one asked for, or a slot without a chain."""

    code = "SPDM_SLOT"
    remedy = "Ask for the slot that holds the device's chain, and fetch that chain first."


class SpdmChain(SpdmError):
    """A slot's certificate chain that contradicts its own length, its root hash or a digest of the transcript."""

    code = "SPDM_CHAIN"
    remedy = "Read the slot's certificate chain anew, all portions of it."


class SpdmKey(SpdmError):
    """A leaf key of another kind than the one negotiated."""

    code = "SPDM_KEY"
    remedy = "Use a slot whose leaf certificate has a key of the negotiated algorithm."


class SpdmSignature(SpdmError):
    """A signature over the transcript that the device's key did not make."""

    code = "SPDM_SIGNATURE"
    remedy = "The transcript was altered or put together from several; record it anew."


class SpdmContext(SpdmError):
    """A requester context that came back changed (1.3 and later)."""

    code = "SPDM_CONTEXT"
    remedy = "The answer belongs to another request; record it anew."


class SpdmSummary(SpdmError):
    """A measurement summary hash that differs from the measurements of the same transcript."""

    code = "SPDM_SUMMARY"
    remedy = "The measurements changed between CHALLENGE and GET_MEASUREMENTS, or were exchanged; record anew."


class SpdmMeasurements(SpdmError):
    """A measurement record that is inconsistent: indices, counts, sizes, or content that changed while read."""

    code = "SPDM_MEASUREMENTS"
    remedy = "Read the measurements anew; if it persists, the device's firmware answers wrongly."


class SpdmUnsigned(SpdmError):
    """A transcript in which nothing is signed."""

    code = "SPDM_UNSIGNED"
    remedy = "Ask for CHALLENGE, or for GET_MEASUREMENTS with a signature."
