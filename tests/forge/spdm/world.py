"""A forged device: it answers a requester, keeps the transcripts by itself, and signs them; any part may lie.

The transcripts are put together here from the story that is told, not by the code under test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.forge.spdm.keys import CERT_SIGN, NOW, SERVER_AUTH, Cert, key_of, mint, sign, spki_of
from verifier.abi.spdm import (
    Algorithms,
    AlgorithmTable,
    Capabilities,
    Certificate,
    Challenge,
    ChallengeAuth,
    Digests,
    ErrorResponse,
    GetCapabilities,
    GetCertificate,
    GetDigests,
    GetMeasurements,
    GetVersion,
    MeasurementBlock,
    Measurements,
    NegotiateAlgorithms,
    RespondIfReady,
    Version,
)

SIGNATURES = {
    "p256": (0x10, "ecdsa"), "p384": (0x80, "ecdsa"), "p521": (0x100, "ecdsa"),
    "rsa2048": (0x01, "rsa"), "rsa2048-pss": (0x02, "rsa-pss"), "rsa3072-pss": (0x08, "rsa-pss"),
}  # fmt: skip
HASHES = {"sha256": 0x01, "sha384": 0x02, "sha512": 0x04}
MEASUREMENT_HASHES = {0x02: 32, 0x04: 48, 0x08: 64}
CONTEXTS = {"challenge": b"responder-challenge_auth signing", "measurements": b"responder-measurements signing"}

ROOT = Cert(name="forge root", key="root", is_ca=True, usage=None)
ISSUER = Cert(name="forge issuer", key="issuer", is_ca=True, usage=CERT_SIGN, purposes=(SERVER_AUTH,))
LEAF = Cert(name="forge device", key="device", purposes=(SERVER_AUTH,))


def same(value: Any) -> Any:
    return value


def measurement_blocks(size: int = 32) -> tuple[MeasurementBlock, ...]:
    """What the device has: four digests, a version number, a device mode."""
    digests = tuple(
        MeasurementBlock(index=index, type=kind, value=hashlib.sha512(bytes([index])).digest()[:size])
        for index, kind in ((1, 0), (2, 1), (3, 2), (9, 3))
    )
    version = MeasurementBlock(index=16, type=0x87, value=(7).to_bytes(8, "little"))
    mode = MeasurementBlock(index=254, type=0x85, value=bytes.fromhex("3f000000040000001f00000000000000"))
    return (*digests, version, mode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """How a transcript is signed; a case may change any of it."""

    kind: str
    version: int
    base_hash: str
    scheme: str
    key: str
    key_kind: str
    transcript: bytes
    context: bytes
    prefix: str

    def input(self) -> bytes:
        if not self.prefix:
            return self.transcript
        head = self.prefix.encode() * 4 + self.context.rjust(36, b"\0")
        return head + hashlib.new(self.base_hash, self.transcript).digest()

    def signature(self) -> bytes:
        return sign(key_of(self.key, self.key_kind), self.scheme, self.base_hash, self.input())


@dataclass(frozen=True, slots=True, kw_only=True)
class Minted:
    """A transcript and what it is to be judged by."""

    messages: tuple[bytes, ...]
    root: bytes
    nonces: tuple[bytes, ...]
    at: int


@dataclass(frozen=True, kw_only=True)
class World:
    """A device and the story of its connection. The defaults make a genuine one; `but` lies.

    `edits` change messages, by the name of their class, before anything is signed; `signing` changes how signatures
    are made, `recorded` the messages after all, `chain` the bytes of a slot's chain, `second` the leaf in slots but 0.
    """

    version: int = 0x12
    kind: str = "p256"
    base_hash: str = "sha256"
    measurement_hash: int = 0x02
    story: tuple[Callable[[Session], None], ...] = ()
    root: Cert = ROOT
    issuers: tuple[Cert, ...] = (ISSUER,)
    leaf: Cert = LEAF
    second: Mapping[str, Any] = field(default_factory=dict)
    certificates: Callable[[tuple[bytes, ...]], tuple[bytes, ...]] = same
    chain: Callable[[bytes], bytes] = same
    root_hash: bytes | None = None
    blocks: tuple[MeasurementBlock, ...] | None = None
    edits: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    signing: Callable[[Signing], Signing] = same
    recorded: Callable[[list[bytes]], list[bytes]] = same
    seed: str = "1"
    at: int = NOW

    def but(self, **changes: Any) -> World:
        return replace(self, **changes)

    @property
    def device_blocks(self) -> tuple[MeasurementBlock, ...]:
        return measurement_blocks(MEASUREMENT_HASHES[self.measurement_hash]) if self.blocks is None else self.blocks

    @property
    def key_kind(self) -> str:
        return self.kind.removesuffix("-pss")

    def slot_chain(self, slot: int) -> bytes:
        """The chain of `slot`; slot 1 has a leaf of its own with the same key."""
        kind = self.key_kind
        certs = [replace(one, kind=kind) if one.kind == "p256" else one for one in (self.root, *self.issuers)]
        leaf = replace(self.leaf, kind=kind) if self.leaf.kind == "p256" else self.leaf
        certs.append(leaf if slot == 0 else replace(leaf, serial=100 + slot, **self.second))
        made = tuple(mint(one, certs[max(0, index - 1)]) for index, one in enumerate(certs))
        made = self.certificates(made)
        digest = hashlib.new(self.base_hash, made[0]).digest() if self.root_hash is None else self.root_hash
        body = digest + b"".join(made)
        return self.chain((len(body) + 4).to_bytes(4, "little") + body)

    def mint(self) -> Minted:
        session = Session(self)
        for act in (greet, *(self.story or STORY)):
            act(session)
        root_kind = self.key_kind if self.root.kind == "p256" else self.root.kind
        return Minted(
            messages=tuple(self.recorded(session.messages)),
            root=spki_of(self.root.key, root_kind),
            nonces=tuple(session.nonces),
            at=self.at,
        )


class Session:
    """What the device and the requester remember while the story is told."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.messages: list[bytes] = []
        self.nonces: list[bytes] = []
        self.a = self.b = self.l = b""
        self.challenged = False
        self.count = 0

    def random(self, size: int = 32) -> bytes:
        self.count += 1
        return hashlib.sha256(f"{self.world.seed}/{self.count}".encode()).digest()[:size]

    @property
    def context(self) -> bytes:
        return self.random(8) if self.world.version >= 0x13 else b""

    def edited(self, message: Any) -> Any:
        return self.world.edits.get(type(message).__name__, same)(message)

    def put(self, request: Any, response: Any) -> tuple[bytes, bytes]:
        """Record an exchange as it is; the edits were made before."""
        pair = request.encode(), response.encode()
        self.messages += pair
        return pair

    def signature(self, kind: str, transcript: bytes) -> bytes:
        world = self.world
        major, minor = world.version >> 4, world.version & 15
        signing = Signing(
            kind=kind, version=world.version, base_hash=world.base_hash, scheme=SIGNATURES[world.kind][1],
            key=world.leaf.key, key_kind=world.key_kind, transcript=transcript, context=CONTEXTS[kind],
            prefix=f"dmtf-spdm-v{major}.{minor}.*" if world.version >= 0x12 else "",
        )  # fmt: skip
        return world.signing(signing).signature()


Act = Callable[[Session], None]


def greet(session: Session) -> None:
    """Version, capabilities, algorithms."""
    world = session.world
    version, asym, hashed = world.version, SIGNATURES[world.kind][0], HASHES[world.base_hash]
    tables = (AlgorithmTable(2, b"\x1b\x00"), AlgorithmTable(3, b"\x06\x00")) if version >= 0x11 else ()
    chosen = (AlgorithmTable(2, b"\x10\x00"), AlgorithmTable(3, b"\x02\x00")) if version >= 0x11 else ()
    sizes = {"data_transfer_size": 0x1200, "max_message_size": 0x1200} if version >= 0x12 else {}
    opaque = 0x02 if version >= 0x12 else 0
    for request, response in (
        (GetVersion(), Version(entries=(0x1000, 0x1100, 0x1200, 0x1300, 0x1400))),
        (
            GetCapabilities(version=version, flags=6 if version >= 0x11 else 0, **sizes),
            Capabilities(version=version, flags=0x37, **sizes),
        ),
        (
            NegotiateAlgorithms(
                version=version, measurement_specification=1, base_asym=asym, base_hash=hashed, other_params=opaque,
                tables=tables,
            ),
            Algorithms(
                version=version, measurement_specification=1, measurement_hash=world.measurement_hash, base_asym=asym,
                base_hash=hashed, other_params=opaque, tables=chosen,
            ),
        ),
    ):  # fmt: skip
        session.a += b"".join(session.put(session.edited(request), session.edited(response)))


def digests(*slots: int) -> Act:
    def act(session: Session) -> None:
        world = session.world
        found = {slot: hashlib.new(world.base_hash, world.slot_chain(slot)).digest() for slot in slots or (0, 1)}
        supported = 3 if world.version >= 0x13 else 0
        request = session.edited(GetDigests(version=world.version))
        response = session.edited(Digests(version=world.version, digests=found, supported_slots=supported))
        session.b = b"".join(session.put(request, response))
        session.l = b""

    return act


def certificate(slot: int = 0, portion: int = 0xFFFF, stop_after: int | None = None, large: bool = False) -> Act:
    """Read a slot's chain in portions; `large`: with the 32-bit numbers of 1.4."""

    def act(session: Session) -> None:
        chain, at, count = session.world.slot_chain(slot), 0, 0
        while at < len(chain) and count != stop_after:
            part = chain[at : at + portion]
            version = session.world.version
            request = GetCertificate(version=version, slot=slot, offset=at, length=portion, large=large)
            remainder = len(chain) - at - len(part)
            response = Certificate(version=version, slot=slot, portion=part, remainder=remainder, large=large)
            session.b += b"".join(session.put(session.edited(request), session.edited(response)))
            at, count = at + len(part), count + 1
        session.l = b""

    return act


def challenge(slot: int = 0, summary: int = 0xFF, slot_key: bool = True) -> Act:
    def act(session: Session) -> None:
        world = session.world
        request = session.edited(
            Challenge(
                version=world.version, slot=slot, nonce=session.random(), summary=summary, context=session.context
            )
        )
        blocks = b"".join(block.encode() for block in world.device_blocks)
        response = session.edited(
            ChallengeAuth(
                version=world.version, slot=slot, slot_mask=3, nonce=session.random(), context=request.context,
                chain_hash=hashlib.new(world.base_hash, world.slot_chain(slot)).digest(),
                summary_hash=hashlib.new(world.base_hash, blocks).digest() if summary else b"",
            )
        )  # fmt: skip
        transcript = session.a + session.b + request.encode() + response.encode()
        response = replace(response, signature=session.signature("challenge", transcript))
        session.put(request, response)
        session.nonces.append(request.nonce)
        session.b = session.l = b""
        session.challenged = True

    return act


def measure(operation: int = 0xFF, signed: bool = True, slot: int = 0, attributes: int = 0) -> Act:
    def act(session: Session) -> None:
        world = session.world
        slot_of = slot if signed and world.version >= 0x11 else 0
        request = session.edited(
            GetMeasurements(
                version=world.version, operation=operation, signed=signed, slot=slot_of, context=session.context,
                nonce=session.random() if signed else b"", other_attributes=attributes,
            )
        )  # fmt: skip
        chosen = [block for block in world.device_blocks if operation in (0xFF, block.index)]
        response = session.edited(
            Measurements(
                version=world.version, count=len(chosen), record=b"".join(block.encode() for block in chosen),
                nonce=session.random(), slot=slot_of, total=0 if operation else len(world.device_blocks),
                context=request.context,
            )
        )  # fmt: skip
        if not session.challenged:
            session.b = b""
        session.l += request.encode() + response.encode()
        if signed:
            transcript = session.a + session.l if world.version >= 0x12 else session.l
            response = replace(response, signature=session.signature("measurements", transcript))
            session.nonces.append(request.nonce)
            session.l = b""
        session.put(request, response)

    return act


def refused(request: Callable[[int], Any], code: int = 0x01) -> Act:
    """A request that ERROR answers."""

    def act(session: Session) -> None:
        session.put(request(session.world.version), ErrorResponse(version=session.world.version, error=code))
        session.l = b""

    return act


def not_ready(inner: Act, token: int = 5, retry_token: int | None = None) -> Act:
    """`inner`'s exchange, whose answer the device delivers only when it is asked again."""

    def act(session: Session) -> None:
        inner(session)
        response, request = session.messages.pop(), session.messages.pop()
        version, code = request[0], request[1]
        wait = ErrorResponse(version=version, error=0x42, extended=bytes((10, code, token, 1)))
        again = RespondIfReady(version=version, code=code, token=token if retry_token is None else retry_token)
        session.messages += [request, wait.encode(), again.encode(), response]

    return act


def raw(request: bytes, response: bytes) -> Act:
    """An exchange of bytes that no transcript holds."""

    def act(session: Session) -> None:
        session.messages += [request, response]
        session.l = b""

    return act


def passed_over(code: int, *, ends: bool) -> Act:
    """An exchange that no transcript holds; with `ends`, it ends B as long as there was no challenge."""

    def act(session: Session) -> None:
        version = session.world.version
        raw(bytes((version, code, 0, 0)), bytes((version, code & 0x7F, 0, 0)))(session)
        if ends and not session.challenged:
            session.b = b""

    return act


def counted_by_nobody(total: int) -> Act:
    """A number of blocks that a stranger puts in, and an ERROR after it, so that no signature covers it."""

    def act(session: Session) -> None:
        version, context = session.world.version, session.context
        request = GetMeasurements(version=version, operation=0, context=context)
        answer = Measurements(
            version=version, count=0, record=b"", nonce=session.random(), total=total, context=context
        )
        refusal = GetMeasurements(version=version, operation=7, context=context)
        session.messages += [request.encode(), answer.encode()]
        session.messages += [refusal.encode(), ErrorResponse(version=version, error=1).encode()]

    return act


STORY: tuple[Act, ...] = (digests(), certificate(), certificate(1), challenge(), digests(), certificate(), measure())
V10, V11, V12, V13, V14 = (World(version=version) for version in (0x10, 0x11, 0x12, 0x13, 0x14))
