"""How long this requester waits and how much it takes; every bound with its unit and the reason for its number."""

from __future__ import annotations

from dataclasses import dataclass

ST1_S = 0.1
"""Longest time, s, a responder takes for a response without cryptography (DSP0274 table of timing, ST1)."""

MAX_CT_EXPONENT = 24
"""Largest CTExponent, log2 µs, taken from a responder: 17 s. libspdm's own largest wait has exponent 20."""

MAX_WAIT_EXPONENT = 24
"""Largest RDTExponent, log2 µs, of RESPONSE_NOT_READY that we wait for; the deadline ends a longer one anyhow."""


MAX_CHAIN_BYTES = 0xFFFF
"""Bytes of a certificate chain: what its length field holds. Chains beyond are 1.4's large ones, not asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one run of the requester may cost. Times in s, sizes in bytes."""

    total_s: float = 30.0
    """From the first request to the last response, waits included."""

    round_trip_s: float = 2.0
    """Allowed for the network, beside what the device says it takes: emulators announce CTExponent 0, no time."""

    connect_s: float = 10.0
    """For a connection to be made, or for a responder to call."""

    retries: int = 8
    """BUSY and RESPONSE_NOT_READY taken for one request. libspdm's requester asks three times."""

    busy_s: float = 0.05
    """First wait after BUSY; it doubles each time. SPDM names no time."""

    portion: int = 0xFFFF - 2 - 8
    """Bytes of the certificate chain asked for at a time: what fits into one message over TCP."""

    portions: int = 128
    """Portions of one chain. A device that sends 512 bytes at a time needs all of them for a chain of 64 KB."""

    message: int = 0xFFFF - 2
    """Bytes of one message; announced as DataTransferSize and MaxSPDMmsgSize (1.2 and later)."""
