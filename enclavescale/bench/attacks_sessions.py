"""Attacks on who reports: sessions without evidence, with forged, foreign, old or revoked evidence, floods of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from attester.session import Session
from attester.simulated import TD_ATTRIBUTES, SimulatedTee, simulated_measurement, simulated_platform_id
from enclavescale.agent.sessions import session_maker
from enclavescale.bench.attacks_scene import Attempt, Maker, Scene, decoded, flipped, session_id
from enclavescale.bench.attacks_world import WINDOW_MS, Honest, seal_body
from enclavescale.bench.attestation_vendor import KIND, OLD_SVN, REVOKED_SVN, Machine
from enclavescale.fleet import HOST_IMAGE
from schemas.codec import encode_body, encode_signed_record
from schemas.records import EvidenceItem, SessionEvidence


def on_machine(change: Callable[[Scene, Machine], Machine]) -> Maker:
    """Sessions of an enrolled host on a machine that is not what the policy wants; the quote is genuine otherwise."""

    def make(scene: Scene) -> Attempt:
        number, one = scene.report()
        session = scene.world.session(one.author, scene.born_ms(one), machine=lambda machine: change(scene, machine))
        return reported(scene, number, one, session)

    return make


def reported(scene: Scene, number: int, one: Honest, session: Session) -> Attempt:
    """A report of a session that stands for an honest host, near the honest report."""
    body = scene.resumed(scene.lied(one), session)
    return scene.place(scene.around(number), seal_body(session, body, with_evidence=True), key=one.key,
                       partition=one.partition)  # fmt: skip


def unattested(scene: Scene) -> Attempt:
    """No evidence, none that is any, or random bytes for a quote; the name of an enrolled host."""
    number, one = scene.report()
    stranger = scene.stranger_key()
    binding = replace(
        scene.as_session(one).binding, session_public_key=stranger.point, created_at_ms=scene.born_ms(one)
    )
    body = replace(scene.lied(one), session_id=session_id(binding))
    quote = EvidenceItem(kind=KIND, data=scene.rng.randbytes(scene.rng.randint(1, 5000)), subject_absent_reason="cpu")
    evidence = scene.rng.choice(
        (None, SessionEvidence(binding=binding, items=()), SessionEvidence(binding=binding, items=(quote,)))
    )
    return scene.place(scene.around(number), stranger.value(body, evidence), key=one.key, partition=one.partition)


def _forged(scene: Scene, machine: Machine) -> Machine:
    return replace(machine, vendor=scene.world.stranger)


def simulated(scene: Scene) -> Attempt:
    """A simulated TEE passed off as a machine of the vendor's."""
    number, one = scene.report()
    provider = _Simulated(scene.world.simulated_tee, one.author)
    session = session_maker(provider, scene.world.plans[one.author].facts)(None, scene.born_ms(one))
    return reported(scene, number, one, session)


def forged_root(scene: Scene) -> Attempt:
    """Chains under a root of the attacker's own, named like the vendor's, or a simulated one."""
    return simulated(scene) if scene.rng.random() < 0.2 else on_machine(_forged)(scene)


def _modified(scene: Scene, machine: Machine) -> Machine:
    return replace(machine, image=f"{HOST_IMAGE}-{scene.rng.randbytes(8).hex()}")


def _debuggable(scene: Scene, machine: Machine) -> Machine:
    bits = int.from_bytes(TD_ATTRIBUTES, "little") | 1
    for _ in range(scene.rng.randrange(3)):
        bits |= 1 << scene.rng.randrange(64)
    return replace(machine, td_attributes=bits.to_bytes(8, "little"))


def _outdated(_: Scene, machine: Machine) -> Machine:
    return replace(machine, svn=OLD_SVN)


wrong_measurement = on_machine(_modified)
debug = on_machine(_debuggable)
old_tcb = on_machine(_outdated)


def revoked(scene: Scene) -> Attempt:
    """The stolen host goes on, in its old session or in a new one; or a machine whose certificate was revoked."""
    rng, world = scene.rng, scene.world
    if rng.random() < 0.3:
        return on_machine(lambda _, machine: replace(machine, svn=REVOKED_SVN))(scene)
    last = next(at for at in reversed(scene.reports) if world.honest[at].author == world.revoked_host)
    one = world.honest[last]
    number, other = scene.report(phases=(1, 2))
    start_ms = (other.start_ms or 0) - rng.choice((0, 0, 0, 1, 2)) * WINDOW_MS
    body = replace(scene.lied(one), window_start_ms=start_ms, window_end_ms=start_ms + WINDOW_MS)
    session = scene.as_session(one)
    if rng.random() < 0.7:
        session = world.session(one.author, start_ms + rng.randrange(WINDOW_MS))
        body = scene.resumed(body, session)
    value = seal_body(session, body, with_evidence=rng.random() < 0.8)
    return scene.place(scene.behind(number), value, key=one.key, partition=one.partition)


def _elsewhere(scene: Scene, machine: Machine) -> Machine:
    return replace(machine, name=scene.rng.choice([name for name in scene.world.plans if name != machine.name]))


def quote_relay(scene: Scene) -> Attempt:
    """A genuine quote of one host in another's session, or a genuine machine that quotes for another host."""
    rng, world = scene.rng, scene.world
    number, one = scene.report()
    if rng.random() < 0.5:
        return on_machine(_elsewhere)(scene)
    stranger = scene.stranger_key()
    genuine = world.honest[rng.choice(scene.reports)]
    binding = replace(
        scene.as_session(one).binding, session_public_key=stranger.point, created_at_ms=scene.born_ms(one)
    )
    evidence = SessionEvidence(binding=binding, items=scene.as_session(genuine).evidence.items)
    body = replace(scene.lied(one), session_id=session_id(binding))
    return scene.place(scene.around(number), stranger.value(body, evidence), key=one.key, partition=one.partition)


def key_substitution(scene: Scene) -> Attempt:
    """The attacker's signature under a genuine session's name, its genuine evidence or with his own key in it."""
    number, one = scene.report()
    session, stranger = scene.as_session(one), scene.stranger_key()
    body, evidence = scene.lied(one), session.evidence
    if scene.rng.random() < 0.5:
        binding = replace(session.binding, session_public_key=stranger.point)
        evidence = replace(evidence, binding=binding)
        if scene.rng.random() < 0.5:
            body = replace(body, session_id=session_id(binding))
    sent = scene.rng.choice((evidence, evidence, None))
    return scene.place(scene.around(number), stranger.value(body, sent), key=one.key, partition=one.partition)


def quote_tampering(scene: Scene) -> Attempt:
    """A genuine new session of an enrolled host, one bit of its quote changed on the way."""
    number, one = scene.report()
    session = scene.world.session(one.author, (one.start_ms or 0) - WINDOW_MS * 10)
    item = session.evidence.items[0]
    evidence = replace(session.evidence, items=(replace(item, data=flipped(scene.rng, item.data)),))
    body = scene.resumed(scene.lied(one), session)
    value = seal_body(session, body, with_evidence=False)
    return scene.place(scene.soon(number), _with_evidence(value, evidence), key=one.key, partition=one.partition)


def sybil(scene: Scene) -> Attempt:
    """Machines of the vendor's that nobody enrolled, under names that nobody enrolled or under an enrolled host's."""
    rng, world = scene.rng, scene.world
    number, one = scene.report()
    name = f"{one.author}-{rng.randbytes(4).hex()}"
    if rng.random() < 0.5:
        return on_machine(lambda _, machine: replace(machine, name=name))(scene)
    facts: Any = replace(world.plans[one.author].facts, host_id=name)
    session = session_maker(Machine(world.vendor, name, HOST_IMAGE), facts)(None, scene.born_ms(one))
    body = replace(scene.resumed(scene.lied(one), session), host_id=name)
    return scene.place(scene.around(number), seal_body(session, body, with_evidence=True), key=one.key,
                       partition=one.partition)  # fmt: skip


def evidence_flood(scene: Scene) -> Attempt:
    """New sessions without end in the names of enrolled hosts: signed by their own keys, evidence that costs."""
    number, one = scene.report()
    lie = scene.rng.choice((_modified, _forged, _outdated))
    session = scene.world.session(one.author, scene.born_ms(one), machine=lambda machine: lie(scene, machine))
    return reported(scene, number, one, session)


def _with_evidence(value: bytes, evidence: SessionEvidence) -> bytes:
    one = decoded(value)
    return encode_signed_record(encode_body(one.body), one.signature, evidence)


class _Simulated:
    """Quotes of a simulated TEE for one host."""

    kind, simulated = KIND, True

    def __init__(self, tee: SimulatedTee, host_id: str) -> None:
        self._tee, self._host_id = tee, host_id

    def quote(self, report_data: bytes) -> list[EvidenceItem]:
        """Evidence over `report_data` (64 bytes)."""
        data = self._tee.mint(
            report_data, mrtd=simulated_measurement(HOST_IMAGE), platform_id=simulated_platform_id(self._host_id)
        )
        return [EvidenceItem(kind=KIND, data=data, subject_absent_reason="cpu")]
