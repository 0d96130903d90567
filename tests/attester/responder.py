"""An SPDM responder of our own: a device with its keys, chain and measurements, that can be told to misbehave.

It answers message by message (`Responder.answer`); `DirectTransport` puts a requester on it without a socket, and
`tests.attester.loopback` behind a real one. What it signs it puts together here, from DSP0274 and not from the code
under test.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from attester.spdm.errors import SpdmTimeout
from attester.spdm.tcp import MAX_MESSAGE
from verifier.abi.spdm_algorithms import DMTF_MEASUREMENTS, Algorithms, NegotiateAlgorithms
from verifier.abi.spdm_messages import (
    Capabilities,
    Certificate,
    Digests,
    ErrorResponse,
    GetCertificate,
    Version,
)
from verifier.abi.spdm_signed import Challenge, ChallengeAuth, GetMeasurements, MeasurementBlock, Measurements

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
AT = "2026-06-01T00:00:00Z"
HASH = {0x01: "sha256", 0x02: "sha384", 0x04: "sha512"}
KINDS = {
    "p256": (0x10, 0x01, lambda: ec.generate_private_key(ec.SECP256R1())),
    "p384": (0x80, 0x02, lambda: ec.generate_private_key(ec.SECP384R1())),
    "rsapss3072": (0x08, 0x02, lambda: rsa.generate_private_key(65537, 3072)),
}
"""Signature bit, hash bit and a new key, by name."""


@dataclass(frozen=True)
class Identity:
    """A device's key and its chain in DER, root first."""

    key: Key
    chain: tuple[bytes, ...]


def _certificate(subject: str, key: Key, issuer: x509.Name | None, signer: Key, ca: bool) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    usage = dict.fromkeys(
        (
            "key_cert_sign", "crl_sign", "digital_signature", "content_commitment", "key_encipherment",
            "data_encipherment", "key_agreement", "encipher_only", "decipher_only",
        ),
        False,
    )  # fmt: skip
    usage |= {"key_cert_sign": True, "crl_sign": True} if ca else {"digital_signature": True}
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer or name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(START)
        .not_valid_after(START + datetime.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .sign(signer, hashes.SHA384())
    )


@functools.cache
def identity(kind: str) -> Identity:
    """One device per kind of key for all tests: an RSA key takes its time."""
    make = KINDS[kind][2]
    root_key, ca_key, key = make(), ec.generate_private_key(ec.SECP256R1()), make()
    root = _certificate("SPDM test root", root_key, None, root_key, True)
    ca = _certificate("SPDM test CA", ca_key, root.subject, root_key, True)
    leaf = _certificate("SPDM test device", key, ca.subject, ca_key, False)
    return Identity(key, tuple(one.public_bytes(Encoding.DER) for one in (root, ca, leaf)))


def measurement_blocks(hash_name: str) -> tuple[MeasurementBlock, ...]:
    """Two digests and a version number."""
    digests = [hashlib.new(hash_name, bytes([index])).digest() for index in (1, 2)]
    return (
        MeasurementBlock(index=1, type=0, value=digests[0]),
        MeasurementBlock(index=2, type=1, value=digests[1]),
        MeasurementBlock(index=16, type=0x86, value=b"1.2.3"),
    )


@dataclass
class Responder:
    """A device. `tamper` gets each response's name and the response, and gives what is sent instead.

    `put_off` names responses that are preceded by errors: each entry is an ERROR to send first.
    """

    kind: str = "p256"
    versions: tuple[int, ...] = (0x10, 0x11, 0x12, 0x13)
    slots: tuple[int, ...] = (0,)
    portion: int = 1024
    flags: int = 0x02 | 0x04 | 0x10
    ct_exponent: int = 0
    buffer: int = 4096
    tamper: Callable[[str, bytes], bytes] = lambda name, response: response
    put_off: dict[str, list[ErrorResponse]] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)
    blocks: tuple[MeasurementBlock, ...] | None = None

    def __post_init__(self) -> None:
        self.asym, self.hash_bit, _ = KINDS[self.kind]
        self.hash = HASH[self.hash_bit]
        self.identity = identity(self.kind)
        self.blocks = measurement_blocks("sha384") if self.blocks is None else self.blocks
        self.vca, self.path = b"", b""
        self.waiting: tuple[bytes, str] | None = None

    @property
    def root(self) -> bytes:
        """DER of the root a verifier must trust."""
        return self.identity.chain[0]

    @property
    def chain(self) -> bytes:
        """The chain as a slot holds it: length, reserved, hash of the root, certificates."""
        body = self.digest(self.root) + b"".join(self.identity.chain)
        return (len(body) + 4).to_bytes(2, "little") + bytes(2) + body

    def digest(self, data: bytes) -> bytes:
        """With the connection's hash."""
        return hashlib.new(self.hash, data).digest()

    def answer(self, request: bytes) -> bytes:
        """The response to one request, whatever order they come in."""
        self.asked.append(request[1])
        if request[1] == 0xFF and self.waiting is not None:
            request, name = self.waiting
        else:
            name = {
                0x84: "VERSION", 0xE1: "CAPABILITIES", 0xE3: "ALGORITHMS", 0x81: "DIGESTS", 0x82: "CERTIFICATE",
                0x83: "CHALLENGE_AUTH", 0xE0: "MEASUREMENTS",
            }[request[1]]  # fmt: skip
        errors = self.put_off.get(name)
        if errors:
            self.waiting = (request, name)
            return replace(errors.pop(0), version=request[0]).encode()
        response = getattr(self, f"_{name.lower()}")(request)
        return self.tamper(name, response)

    def _version(self, request: bytes) -> bytes:
        response = Version(entries=tuple(one << 8 for one in self.versions)).encode()
        self.vca = request + response
        return response

    def _capabilities(self, request: bytes) -> bytes:
        sizes = {"data_transfer_size": self.buffer, "max_message_size": self.buffer} if request[0] >= 0x12 else {}
        message = Capabilities(version=request[0], flags=self.flags, ct_exponent=self.ct_exponent, **sizes)
        self.vca += request + message.encode()
        return message.encode()

    def _algorithms(self, request: bytes) -> bytes:
        asked, _ = NegotiateAlgorithms.read(request)
        message = Algorithms(
            version=asked.version, measurement_specification=DMTF_MEASUREMENTS, measurement_hash=0x04,
            base_asym=self.asym & asked.base_asym, base_hash=self.hash_bit & asked.base_hash,
            other_params=asked.other_params,
        )  # fmt: skip
        self.vca += request + message.encode()
        self.path = b""
        return message.encode()

    def _digests(self, request: bytes) -> bytes:
        found = {slot: self.digest(self.chain) for slot in self.slots}
        response = Digests(version=request[0], digests=found).encode()
        self.path += request + response
        return response

    def _certificate(self, request: bytes) -> bytes:
        asked, _ = GetCertificate.read(request)
        portion = self.chain[asked.offset : asked.offset + min(asked.length, self.portion)]
        rest = len(self.chain) - asked.offset - len(portion)
        response = Certificate(version=request[0], slot=asked.slot, portion=portion, remainder=rest).encode()
        self.path += request + response
        return response

    def _challenge_auth(self, request: bytes) -> bytes:
        asked, _ = Challenge.read(request)
        summary = self.digest(self._record()) if asked.summary else b""
        message = ChallengeAuth(
            version=asked.version, slot=asked.slot, slot_mask=sum(1 << one for one in self.slots),
            chain_hash=self.digest(self.chain), nonce=bytes(range(32)), summary_hash=summary, context=asked.context,
        )  # fmt: skip
        signed = self.vca + self.path + request + message.encode()
        self.path = b""
        return replace(message, signature=self._sign(asked.version, "challenge_auth", signed)).encode()

    def _measurements(self, request: bytes) -> bytes:
        asked, _ = GetMeasurements.read(request)
        assert self.blocks is not None
        message = Measurements(
            version=asked.version, count=len(self.blocks), record=self._record(), nonce=bytes(range(32, 64)),
            slot=asked.slot, context=asked.context,
        )  # fmt: skip
        signed = (self.vca if asked.version >= 0x12 else b"") + request + message.encode()
        return replace(message, signature=self._sign(asked.version, "measurements", signed)).encode()

    def _record(self) -> bytes:
        assert self.blocks is not None
        return b"".join(block.encode() for block in self.blocks)

    def _sign(self, version: int, what: str, transcript: bytes) -> bytes:
        """Over the transcript (1.0, 1.1), else over prefix, context and the transcript's hash."""
        message = transcript
        if version >= 0x12:
            prefix = f"dmtf-spdm-v1.{version & 15}.*".encode() * 4
            message = prefix + f"responder-{what} signing".encode().rjust(36, b"\0") + self.digest(transcript)
        algorithm = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384()}[self.hash]
        key = self.identity.key
        if isinstance(key, rsa.RSAPrivateKey):
            return key.sign(message, padding.PSS(padding.MGF1(algorithm), algorithm.digest_size), algorithm)
        r, s = decode_dss_signature(key.sign(message, ec.ECDSA(algorithm)))
        size = (key.key_size + 7) // 8
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")


@dataclass
class Timeline:
    """A clock that only moves when somebody waits."""

    at: float = 1000.0
    waits: list[float] = field(default_factory=list)

    def now(self) -> float:
        """Seconds."""
        return self.at

    def wait(self, seconds: float) -> None:
        """Go on by `seconds`."""
        self.waits.append(seconds)
        self.at += seconds


class DirectTransport:
    """A responder without a socket. `takes_s` is how long each answer takes on `timeline`."""

    name = "direct"
    alignment = 1

    def __init__(self, responder: Responder, timeline: Timeline | None = None, takes_s: float = 0.0) -> None:
        self.responder, self.timeline, self.takes_s = responder, timeline or Timeline(), takes_s
        self.max_message = MAX_MESSAGE
        self.timeouts: list[float] = []

    def exchange(self, request: bytes, timeout_s: float) -> bytes:
        """Its answer, or a time-out after exactly `timeout_s`."""
        self.timeouts.append(timeout_s)
        self.timeline.at += min(self.takes_s, timeout_s)
        if self.takes_s > timeout_s:
            raise SpdmTimeout("nothing came")
        return self.responder.answer(request)

    def close(self) -> None:
        """Nothing."""
