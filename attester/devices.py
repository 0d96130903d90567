"""SPDM devices of a host, from its configuration: a transcript over the session's nonces for each endpoint.

A device is asked twice for a session: once for who it is, which the binding names, and then over the binding.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Self, cast, get_args

from attester.spdm.emulator import EMULATED, Emulated, EmulatorTransport
from attester.spdm.limits import Limits
from attester.spdm.requester import Wish, record_evidence
from attester.spdm.tcp import DEFAULT_PORT, Length, TcpTransport
from attester.spdm.transport import Clock, Transport
from schemas.errors import ConfigError, EnclaveScaleError
from schemas.records import EvidenceItem
from verifier.abi.spdm_fields import MAX_SLOT, NONCE_BYTES
from verifier.claimed import claimed_device
from verifier.evidence import SPDM_TRANSCRIPT, DeviceItems
from verifier.limits import MAX_SUBJECT_CHARACTERS
from verifier.nonces import CHALLENGE_INDEX, MEASUREMENTS_INDEX, SPDM, device_nonce

DSP0287: Literal["dsp0287"] = "dsp0287"
Framing = Literal["dsp0287"] | Emulated
"""What stands around messages on the connection: SPDM's own TCP binding, or the protocol of DMTF's emulator."""

_FRAMINGS = (DSP0287, *EMULATED)
_LENGTHS = get_args(Length)


class SpdmIdentityUnreadable(EnclaveScaleError):
    """A transcript from which no leaf certificate can be read."""

    code = "SPDM_IDENTITY_UNREADABLE"
    remedy = "Ask the device with `enclavescale spdm` and read the verdict on its transcript."


@dataclass(frozen=True, slots=True, kw_only=True)
class SpdmEndpoint:
    """Where a device is and how it is asked. `subject` is the name its evidence goes by, unique on the host.

    `slot` is that of its certificate chain, `length` what the frames of DSP0287 count. Raises ConfigError.
    """

    subject: str
    host: str
    port: int = DEFAULT_PORT
    framing: Framing = DSP0287
    length: Length = "remainder"
    slot: int = 0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not 0 < len(self.subject) <= MAX_SUBJECT_CHARACTERS or not self.subject.isprintable():
            raise ConfigError(f"a subject has 1 to {MAX_SUBJECT_CHARACTERS} printable characters", field="subject")
        if not self.host or not 0 < self.port < 1 << 16:
            raise ConfigError(f"{self.subject}: host or port is missing or none", field="address")
        if self.framing not in _FRAMINGS:
            raise ConfigError(f"{self.subject}: framing is one of {', '.join(_FRAMINGS)}", field="framing")
        if self.length not in _LENGTHS:
            raise ConfigError(f"{self.subject}: length is one of {', '.join(_LENGTHS)}", field="length")
        if not 0 <= self.slot <= MAX_SLOT:
            raise ConfigError(f"{self.subject}: slot is 0 to {MAX_SLOT}", field="slot")

    @classmethod
    def at(cls, subject: str, address: str, *, framing: str = DSP0287, slot: int = 0) -> Self:
        """The endpoint at `address`: HOST, HOST:PORT or [IPV6]:PORT. Raises ConfigError."""
        host, separator, port = address.rpartition(":")
        if not separator or address.endswith("]"):
            host, port = address, str(DEFAULT_PORT)
        elif ":" in host and not host.startswith("["):
            raise ConfigError(f"{subject}: write an IPv6 address as [ADDRESS]:PORT", field="address")
        if not (port.isascii() and port.isdecimal()):
            raise ConfigError(f"{subject}: {address!r} is not HOST:PORT", field="address")
        bare = host.removeprefix("[").removesuffix("]")
        return cls(subject=subject, host=bare, port=int(port), framing=cast(Framing, framing), slot=slot)


Connect = Callable[[SpdmEndpoint], Transport]


def connect(endpoint: SpdmEndpoint) -> Transport:
    """A connection to the endpoint. Raises SpdmUnreachable."""
    wait_s = min(endpoint.limits.connect_s, endpoint.limits.total_s)
    if endpoint.framing == DSP0287:
        return TcpTransport.connect(endpoint.host, endpoint.port, wait_s, length=endpoint.length)
    return EmulatorTransport.connect(endpoint.host, endpoint.port, wait_s, framing=endpoint.framing)


class SpdmDevice:
    """One endpoint as a `DeviceAttester`."""

    def __init__(self, endpoint: SpdmEndpoint, *, connect: Connect = connect, clock: Clock | None = None) -> None:
        self.subject = endpoint.subject
        self._endpoint = endpoint
        self._connect = connect
        self._clock = clock

    def identity(self) -> bytes:
        """SHA-256 of its leaf key's SubjectPublicKeyInfo, 32 bytes; costs one exchange, over nonces thrown away.

        Raises SpdmIdentityUnreadable and what the requester raises (attester.spdm.errors, the verifier's SpdmError).
        """
        transcript = self._ask(secrets.token_bytes(NONCE_BYTES), secrets.token_bytes(NONCE_BYTES))
        claimed = claimed_device(DeviceItems(SPDM, self.subject, transcript, None))
        if claimed is None:
            raise SpdmIdentityUnreadable("no leaf certificate", field="transcript")
        return claimed.key_digest

    def evidence(self, report_data: bytes) -> list[EvidenceItem]:
        """The transcript for the session of `report_data` (64 bytes). Raises what the requester raises."""
        challenge, measurements = (
            device_nonce(report_data, SPDM, self.subject, index) for index in (CHALLENGE_INDEX, MEASUREMENTS_INDEX)
        )
        return [EvidenceItem(kind=SPDM_TRANSCRIPT, data=self._ask(challenge, measurements), subject=self.subject)]

    def _ask(self, challenge: bytes, measurements: bytes) -> bytes:
        wish = Wish(nonces=(challenge, measurements), slot=self._endpoint.slot, limits=self._endpoint.limits)
        with contextlib.closing(self._connect(self._endpoint)) as transport:
            return record_evidence(transport, wish, self._clock).to_json()
