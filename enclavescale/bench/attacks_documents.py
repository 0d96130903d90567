"""Attacks on what is signed beside reports: outputs and policies, judged as a reader of their topic judges them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from attester.session import Session
from attester.signing import public_point, sign_raw
from enclavescale.bench.attacks_scene import Scene, flipped
from enclavescale.bench.attestation_vendor import Machine
from enclavescale.fleet import AGGREGATOR_ID, AGGREGATOR_IMAGE, sign_policy
from schemas.codec import (
    decode_signed_output,
    encode_output,
    encode_policy,
    encode_signed_output,
    encode_signed_policy,
    output_preimage,
    policy_preimage,
)
from schemas.errors import EnclaveScaleError
from schemas.records import FleetPower, WorkerIdentity
from stream_jobs.audit.outputs import check_worker
from stream_jobs.policy_store import PolicyTrust, open_policy
from stream_jobs.worker import WorkerConfig, aggregator_binding
from verifier.cache import SessionCache

Judged = tuple[bytes, str | None]
"""The bytes that were tried, and the code they were refused with; None: they passed."""


class Documents:
    """Genuine outputs and policies of a world, and forged ones. `micros`: what reading the last one took, µs."""

    def __init__(self, scene: Scene, outputs: list[FleetPower], cache: SessionCache) -> None:
        self.scene, self.outputs, self.cache = scene, outputs, cache
        self.micros = 0.0
        self.worker = scene.world.aggregator(scene.world.start_ms)

    def identity(self, session: Session, host_id: str = AGGREGATOR_ID) -> WorkerIdentity:
        """How a worker signs its outputs."""
        return WorkerIdentity(host_id=host_id, session_id=session.session_id, evidence=session.evidence)

    def read_output(self, value: bytes) -> str | None:
        """What a reader of the output topic says of `value`: a code, or None if it counts."""
        world = self.scene.world
        begin = time.perf_counter()
        try:
            signed, preimage = decode_signed_output(value)
            view = world.policies.get(signed.output.policy_digest)
            if view is None:
                return "POLICY_UNTRUSTED"
            named = world.index.lookup(signed.output.collateral_digest or b"")
            check_worker(signed, preimage, view, self.cache.verify, () if named is None else (named,))
        except EnclaveScaleError as error:
            return error.code
        finally:
            self.micros = 1e6 * (time.perf_counter() - begin)
        return None

    def read_policy(self, value: bytes, trust: PolicyTrust) -> str | None:
        """What a reader of the policy topic says of `value`."""
        begin = time.perf_counter()
        try:
            open_policy(value, trust)
        except EnclaveScaleError as error:
            return error.code
        finally:
            self.micros = 1e6 * (time.perf_counter() - begin)
        return None

    def genuine(self) -> str | None:
        """A genuine output, read: it must count."""
        data = encode_output(self.outputs[0])
        value = encode_signed_output(data, self.worker.sign(output_preimage(data)), self.identity(self.worker))
        return self.read_output(value)

    def forged_output(self) -> Judged:
        """An output changed in any field, signed by nobody, by a host, by a modified or foreign aggregator."""
        rng, scene = self.scene.rng, self.scene
        output = rng.choice(self.outputs)
        data = encode_output(output)
        changed = encode_output(scene.mutated(output))
        kind = rng.randrange(5)
        identity, signature = self.identity(self.worker), self.worker.sign(output_preimage(data))
        if kind == 1:
            signature = sign_raw(scene.stranger_key().key, output_preimage(changed))
        elif kind == 2:
            host = scene.as_session(scene.report()[1])
            author = rng.choice((host.binding.host_id, AGGREGATOR_ID))
            identity, signature = self.identity(host, author), host.sign(output_preimage(changed))
        elif kind == 3:
            liar = self._liar()
            identity, signature = self.identity(liar), liar.sign(output_preimage(changed))
        elif kind == 4:
            changed, signature = data, flipped(rng, signature)
        value = encode_signed_output(changed, signature, identity)
        return value, self.read_output(value)

    def _liar(self) -> Session:
        world, rng = self.scene.world, self.scene.rng
        image = AGGREGATOR_IMAGE + rng.randbytes(4).hex()
        machine = rng.choice(
            (Machine(world.vendor, AGGREGATOR_ID, image), Machine(world.stranger, AGGREGATOR_ID, AGGREGATOR_IMAGE),
             Machine(world.vendor, "elsewhere", AGGREGATOR_IMAGE))
        )  # fmt: skip
        config = WorkerConfig(kafka={}, host_id=AGGREGATOR_ID, group="bench", provider=machine, trust=world.trust)
        return Session(machine, aggregator_binding(config, None, world.start_ms + rng.randrange(10**6)))

    def forged_policy(self) -> Judged:
        """A policy changed in any field, signed by somebody else, or with the signer's name and another's signature."""
        rng, world = self.scene.rng, self.scene.world
        policy: Any = self.scene.mutated(rng.choice(world.views).policy)
        data, kind = encode_policy(policy), rng.randrange(4)
        genuine = encode_policy(world.views[0].policy)
        signer, key = world.trust.signers[0], world.signing_key
        stranger = self.scene.stranger_key().key
        if kind == 0:
            value = encode_signed_policy(data, sign_raw(key, policy_preimage(genuine)), signer)
        elif kind == 1:
            value = encode_signed_policy(data, sign_raw(stranger, policy_preimage(data)), signer)
        elif kind == 2:
            value = sign_policy(policy, stranger)
        else:
            wrong = flipped(rng, sign_raw(key, policy_preimage(genuine)))
            value = encode_signed_policy(genuine, wrong, rng.choice((signer, public_point(stranger.public_key()))))
        return value, self.read_policy(value, world.trust)

    def rolled_back_policy(self) -> Judged:
        """A genuine older policy, below the counter from which a worker takes policies."""
        rng, world = self.scene.rng, self.scene.world
        floor = rng.randrange(2, 10**6)
        older = replace(world.views[0].policy, counter=rng.randrange(floor), issued_at_ms=rng.randrange(1 << 40))
        value = sign_policy(older, world.signing_key)
        return value, self.read_policy(value, replace(world.trust, min_counter=floor))


DOCUMENTS: dict[str, Callable[[Documents], Judged]] = {
    "forged_output": Documents.forged_output,
    "policy_tampering": Documents.forged_policy,
    "policy_below_the_floor": Documents.rolled_back_policy,
}
