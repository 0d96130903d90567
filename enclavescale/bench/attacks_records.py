"""Attacks on what is said: changed, repeated, moved, contradicted, misdated, inflated and broken records."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from enclavescale.agent.sessions import session_maker
from enclavescale.bench.attacks_scene import Attempt, Scene, decoded, flipped
from enclavescale.bench.attacks_world import LATENESS_MS, WINDOW_MS, Honest, seal_body
from enclavescale.bench.attestation_vendor import Machine
from enclavescale.fleet import AGGREGATOR_ID, HOST_IMAGE
from schemas.codec import SINGLE_OBJECT_MARKER, encode_body, encode_signed_record
from schemas.pins import pin
from schemas.records import ControlRecord, ControlSubject, GpuClass

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
JUNK_BYTES = 2_000
FUTURE_MS = (10 * WINDOW_MS, 86_400_000, 1 << 45)


# -- on the way -----------------------------------------------------------------------------------------------------


def report_tampering(scene: Scene) -> Attempt:
    """A genuine report with one field changed, whichever, or one bit of its signature; before or behind it."""
    number, one = scene.report()
    found = decoded(one.value)
    body, signature = scene.body(one), found.signature
    if scene.rng.random() < 0.95:
        body = scene.mutated(body)
    else:
        signature = flipped(scene.rng, signature)
    evidence = found.evidence if scene.rng.random() < 0.5 else scene.as_session(one).evidence
    value = encode_signed_record(encode_body(body), signature, evidence)
    return scene.place(scene.around(number), value, key=one.key, partition=one.partition)


def byte_tampering(scene: Scene) -> Attempt:
    """A genuine record, behind itself, with a bit of its bytes changed: evidence and frame included."""
    number, one = _any(scene)
    value = flipped(scene.rng, one.value or b"")
    return scene.place(scene.soon(number), value, key=one.key, partition=one.partition, genuine=True)


def truncated_bytes(scene: Scene) -> Attempt:
    """A genuine record cut short, or with something behind it."""
    number, one = _any(scene)
    value = one.value or b""
    if scene.rng.random() < 0.9:
        value = value[: scene.rng.randrange(len(value))]
    else:
        value += scene.rng.randbytes(scene.rng.randint(1, 64))
    return scene.place(scene.around(number), value, key=one.key, partition=one.partition)


def signature_malleability(scene: Scene) -> Attempt:
    """The same record again with the other s, without or with other evidence: one record, however it is framed."""
    number, one = scene.report()
    found = decoded(one.value)
    signature = found.signature
    if scene.rng.random() < 0.7:
        other = P256_ORDER - int.from_bytes(signature[32:], "big")
        signature = signature[:32] + other.to_bytes(32, "big")
    evidence = scene.rng.choice((None, found.evidence, scene.as_session(scene.report()[1]).evidence))
    value = encode_signed_record(encode_body(found.body), signature, evidence)
    return scene.place(scene.soon(number), value, key=one.key, partition=one.partition)


# -- replay ---------------------------------------------------------------------------------------------------------


def replay_same_session(scene: Scene) -> Attempt:
    """A genuine report again, byte for byte, at any time until its session is replaced."""
    number, one = scene.report()
    return scene.place(scene.behind(number, same_phase=True), one.value, key=one.key, partition=one.partition)


def replay_other_session(scene: Scene) -> Attempt:
    """A report under another session's name, with another session's evidence, or after its session was replaced."""
    number, one = scene.report()
    other = scene.report()[1]
    found, kind = decoded(one.value), scene.rng.randrange(3)
    body, evidence = found.body, found.evidence
    if kind == 0:
        body = replace(scene.body(one), session_id=scene.as_session(other).session_id)
    elif kind == 1:
        evidence = scene.as_session(other).evidence
        if evidence == scene.as_session(one).evidence:
            body = replace(scene.body(one), seq=scene.body(one).seq + 1)
    else:
        later = [at for at in scene.reports if at > number and scene.world.honest[at].phase > one.phase]
        if later:
            return scene.place(scene.rng.choice(later), one.value, key=one.key, partition=one.partition)
        body = replace(scene.body(one), session_id=scene.rng.randbytes(32))
    value = encode_signed_record(encode_body(body), found.signature, evidence)
    return scene.place(scene.behind(number), value, key=one.key, partition=one.partition)


def replay_other_domain(scene: Scene) -> Attempt:
    """A genuine report in another domain's partition, or under another key."""
    number, one = scene.report()
    others = [(name.encode(), at) for name, at in scene.world.domains.items() if name.encode() != one.key]
    key, partition = scene.rng.choice(others)
    kind = scene.rng.randrange(3)
    if kind == 0:
        key = one.key
    elif kind == 1:
        partition = one.partition
    return scene.place(scene.around(number), one.value, key=key, partition=partition)


def replay_after_a_month(scene: Scene) -> Attempt:
    """A genuine record of last month."""
    number = scene.rng.choice([at for at, one in enumerate(scene.world.honest) if one.phase < 2])
    one = scene.world.honest[number]
    after = scene.rng.choice([at for at, late in enumerate(scene.world.honest) if late.phase == 2])
    return scene.place(after, one.value, key=one.key, partition=one.partition)


def duplicated_by_the_broker(scene: Scene) -> Attempt:
    """Any record again, control records included, at any time."""
    number, one = _any(scene)
    return scene.place(scene.behind(number), one.value, key=one.key, partition=one.partition, genuine=True)


def splice_of_chains(scene: Scene) -> Attempt:
    """A genuine report moved to another place of its host's chains: another sequence number or predecessor."""
    number, one = scene.report()
    other = scene.body(scene.report()[1])
    body = scene.body(one)
    if scene.rng.random() < 0.5:
        body = replace(body, seq=other.seq + scene.rng.randint(1, 3))
    else:
        reason = None if other.prev_digest else body.prev_digest_absent_reason
        digest = other.prev_digest or scene.rng.randbytes(32)
        body = replace(body, seq=other.seq, prev_digest=digest, prev_digest_absent_reason=reason)
    if scene.rng.random() < 0.3:
        body = replace(body, session_id=other.session_id)
    if body == scene.body(one):
        body = replace(body, seq=body.seq + 1)
    value = encode_signed_record(encode_body(body), decoded(one.value).signature, decoded(one.value).evidence)
    return scene.place(scene.around(number), value, key=one.key, partition=one.partition)


# -- by an attested host --------------------------------------------------------------------------------------------


def equivocation(scene: Scene) -> Attempt:
    """A second report of an attested host for one window, other power, signed by its own session."""
    number, one = scene.report()
    session = scene.as_session(one)
    body = scene.lied(one, dropped_reports=scene.rng.randrange(3))
    value = seal_body(session, body, with_evidence=scene.rng.random() < 0.3)
    return scene.place(scene.soon(number), value, key=one.key, partition=one.partition)


def clock_attack(scene: Scene) -> Attempt:
    """An attested host whose clock lies: windows to come, windows of no schedule, windows long closed."""
    rng = scene.rng
    number, one = scene.report()
    after = scene.behind(number, same_phase=True)
    now_ms, body, kind = scene.stamp_ms(after), scene.lied(one), rng.randrange(3)
    closed_ms = scene.world.honest[after].at_ms - LATENESS_MS - 3 * WINDOW_MS
    if kind == 2 and closed_ms + LATENESS_MS < scene.world.start_ms + WINDOW_MS:
        kind = 1  # nothing is closed yet
    if kind == 0:
        tolerance_ms = scene.world.views[0].policy.limits.clock_skew_tolerance_ms
        first = (now_ms + tolerance_ms) // WINDOW_MS * WINDOW_MS
        start_ms = first + rng.randrange(1, 1 + rng.choice(FUTURE_MS) // WINDOW_MS) * WINDOW_MS
    elif kind == 1:
        start_ms = body.window_start_ms + rng.randrange(1, WINDOW_MS)
    else:
        start_ms = closed_ms // WINDOW_MS * WINDOW_MS - rng.randrange(1, rng.choice((100, 10**6))) * WINDOW_MS
    length_ms = WINDOW_MS if rng.random() < 0.8 else WINDOW_MS * rng.randrange(2, 100)
    if kind == 2 and length_ms > WINDOW_MS:
        length_ms = WINDOW_MS
    body = replace(body, window_start_ms=start_ms, window_end_ms=start_ms + length_ms)
    value = seal_body(scene.as_session(one), body, with_evidence=rng.random() < 0.5)
    return scene.place(after, value, key=one.key, partition=one.partition)


def capacity_inflation(scene: Scene) -> Attempt:
    """An attested host with more or other GPUs, or more capacity, than it is enrolled with."""
    rng = scene.rng
    number, one = scene.report()
    body = scene.lied(one)
    first, kind = body.classes[0], rng.randrange(4)
    changed: tuple[GpuClass, ...]
    if kind == 0:
        changed = (replace(first, capacity_w=first.capacity_w + rng.randint(1, 10**6)),)
    elif kind == 1:
        changed = (replace(first, gpus=first.gpus + rng.randint(1, 1000)),)
    elif kind == 2:
        changed = (first, replace(first, model=f"{first.model} {rng.randrange(10**6)}"))
    else:
        changed = (replace(first, clip_high_w=first.clip_high_w + rng.randint(1, 10**5)),)
    value = seal_body(scene.as_session(one), replace(body, classes=changed), with_evidence=rng.random() < 0.3)
    return scene.place(scene.around(number), value, key=one.key, partition=one.partition)


def implausible_power(scene: Scene) -> Attempt:
    """An attested host with power or counts that its GPUs cannot have, at the edge of physics or far beyond."""
    rng = scene.rng
    number, one = scene.report()
    body = scene.body(one)
    first = body.classes[0]
    raw = first.pane_sums if rng.random() < 0.5 else first.transitions
    at, big = 4 * rng.randrange(len(raw) // 4), (1 << 31) - 1 - rng.randrange(1 << 24)
    changed = raw[:at] + (rng.choice((-1, 1)) * big).to_bytes(4, "little", signed=True) + raw[at + 4 :]
    part = replace(first, pane_sums=changed) if raw is first.pane_sums else replace(first, transitions=changed)
    value = seal_body(scene.as_session(one), replace(body, classes=(part,)), with_evidence=rng.random() < 0.3)
    return scene.place(scene.around(number), value, key=one.key, partition=one.partition)


def understated_noise(scene: Scene) -> Attempt:
    """An attested host that states less noise, or a larger budget, than the policy allows."""
    rng = scene.rng
    number, one = scene.report()
    body = scene.lied(one)
    releases = list(body.privacy.releases)
    at = rng.randrange(len(releases))
    scale = releases[at].scale_micro
    releases[at] = replace(releases[at], scale_micro=max(1, scale - rng.randint(1 + scale // 1000, scale)))
    privacy = replace(body.privacy, releases=tuple(releases))
    body, session = replace(body, privacy=privacy), scene.as_session(one)
    if rng.random() < 0.5:  # bound to the lie from the beginning
        facts: Any = replace(scene.world.plans[one.author].facts, privacy=privacy)
        machine = Machine(scene.world.vendor, one.author, HOST_IMAGE)
        session = session_maker(machine, facts)(None, (one.start_ms or 0) - 10 * WINDOW_MS)
        body = scene.resumed(body, session)
    value = seal_body(session, body, with_evidence=rng.random() < 0.5 or session is not scene.as_session(one))
    return scene.place(scene.around(number), value, key=one.key, partition=one.partition)


def wrong_domain(scene: Scene) -> Attempt:
    """An attested host that reports for a domain it is not enrolled in."""
    rng = scene.rng
    number, one = scene.report()
    others = [(name, at) for name, at in scene.world.domains.items() if name.encode() != one.key]
    domain, partition = rng.choice([*others, (f"hall-{rng.randbytes(4).hex()}", one.partition)])
    session = scene.as_session(one)
    value = seal_body(session, scene.lied(one, domain=domain), with_evidence=rng.random() < 0.7)
    return scene.place(scene.around(number), value, key=domain.encode(), partition=partition)


# -- control records ------------------------------------------------------------------------------------------------


def policy_rollback(scene: Scene) -> Attempt:
    """The older policy put back: by copies of the record that switched to it, or by an attested aggregator itself."""
    rng, world = scene.rng, scene.world
    switched = [at for at in scene.controls if world.honest[at].phase == 1]
    number = rng.choice(switched)
    one = world.honest[number]
    after = rng.choice([at for at, late in enumerate(world.honest) if late.phase and at > max(switched)])
    if rng.random() < 0.2:
        old = next(world.honest[at] for at in scene.controls if world.honest[at].key == one.key)
        return scene.place(after, old.value, key=one.key, partition=one.partition)
    at_ms = scene.stamp_ms(after)
    session = world.aggregator(at_ms - rng.randrange(10**7)) if rng.random() < 0.3 else scene.as_session(one)
    issued_ms = at_ms - rng.randrange(50_000)
    value = world.control(session, "POLICY_SWITCH", one.key.decode(), world.views[0], world.sets[1], issued_ms)
    return scene.place(after, value, key=one.key, partition=one.partition)


def forged_policy(scene: Scene) -> Attempt:
    """A switch to a policy that no trusted signer signed, by an attested aggregator."""
    rng, world = scene.rng, scene.world
    number, one = scene.report()
    after = scene.behind(number)
    session = scene.as_session(world.honest[scene.controls[0]])
    value = world.control(
        session, rng.choice(("POLICY_SWITCH", "IDLE_CLOSE", "REVOCATION")), one.key.decode(), world.views[0],
        world.sets[0], scene.stamp_ms(after), policy_digest=rng.randbytes(32), closed_through_ms=world.start_ms,
    )  # fmt: skip
    return scene.place(after, value, key=one.key, partition=one.partition)


def forged_control(scene: Scene) -> Attempt:
    """Control records of hosts and of strangers: closes, revocations, beacons, switches of collateral and policy."""
    rng, world = scene.rng, scene.world
    number, one = scene.report()
    after = scene.behind(number)
    at_ms, domain = scene.stamp_ms(after), one.key.decode()
    kind = rng.choice(("POLICY_SWITCH", "COLLATERAL_SWITCH", "REVOCATION", "IDLE_CLOSE", "BEACON"))
    view = world.views[rng.randrange(2)]
    subjects = (ControlSubject(kind="beacon", id=rng.randbytes(32).hex(), at_ms=at_ms),) if kind == "BEACON" else None
    closed_ms = at_ms - rng.randrange(WINDOW_MS) if kind == "IDLE_CLOSE" else None
    author = rng.choice((one.author, AGGREGATOR_ID))
    session = scene.as_session(one)
    value = world.control(
        session, kind, domain, view, world.sets[rng.randrange(2)], at_ms, host_id=author, subjects=subjects,
        closed_through_ms=closed_ms, evidence=rng.random() < 0.8,
    )  # fmt: skip
    if rng.random() < 0.5:  # with the aggregator's genuine evidence, signed by nobody's key
        genuine = scene.as_session(world.honest[scene.controls[0]])
        body = decoded(value).body
        if isinstance(body, ControlRecord):
            body = replace(body, session_id=genuine.session_id, host_id=AGGREGATOR_ID)
            value = scene.stranger_key().value(body, genuine.evidence)
    return scene.place(after, value, key=one.key, partition=one.partition)


def collateral_rollback(scene: Scene) -> Attempt:
    """The older collateral put back, or collateral that is out of date put in force, without an aggregator's key."""
    rng, world = scene.rng, scene.world
    number, one = scene.report(phases=(1, 2))
    after = scene.behind(number)
    switches = [at for at in scene.controls if world.honest[at].key == one.key and at < number]
    old = world.honest[rng.choice(switches)]
    if rng.random() < 0.3:
        return scene.place(after, old.value, key=one.key, partition=one.partition, genuine=True)
    found = decoded(old.value)
    body = found.body
    if isinstance(body, ControlRecord):
        digest = rng.choice((world.sets[0], rng.randbytes(32)))
        body = replace(
            body, kind="COLLATERAL_SWITCH", collateral_digest=digest, content_digest=digest,
            content_digest_absent_reason=None, issued_at_ms=scene.stamp_ms(after) - rng.randrange(60_000),
        )  # fmt: skip
    if rng.random() < 0.5:
        value = encode_signed_record(encode_body(body), found.signature, found.evidence)
    else:
        value = scene.stranger_key().value(body, found.evidence)
    return scene.place(after, value, key=one.key, partition=one.partition)


# -- noise ----------------------------------------------------------------------------------------------------------


def junk_flood(scene: Scene) -> Attempt:
    """Bytes of no record, under any key: each costs a dead letter and nothing else."""
    rng = scene.rng
    after = rng.randrange(len(scene.world.honest))
    keys = [*(name.encode() for name in scene.world.domains), b"", b"\xff\xfe", rng.randbytes(8)]
    value = rng.randbytes(rng.randrange(JUNK_BYTES))
    if rng.random() < 0.5:
        value = SINGLE_OBJECT_MARKER + pin("SignedRecord").fingerprint + value
    partition = rng.choice(list(scene.world.domains.values()))
    return scene.place(after, value, key=rng.choice(keys), partition=partition)


def decompression_bomb(scene: Scene) -> Attempt:
    """A few bytes that claim to hold gigabytes: absurd counts and lengths anywhere in a genuine record."""
    rng = scene.rng
    number, one = _any(scene)
    value = one.value or b""
    at = rng.randrange(10, min(len(value), 3000))
    absurd = varint(rng.choice((1, -1)) * rng.randrange(2**24, 2**62))
    tail = value[at:] if rng.random() < 0.5 else rng.randbytes(rng.randrange(200))
    return scene.place(scene.around(number), value[:at] + absurd + tail, key=one.key, partition=one.partition)


def varint(number: int) -> bytes:
    """Avro's zig-zag varint of a 64-bit integer."""
    value = (number << 1) ^ (number >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _any(scene: Scene) -> tuple[int, Honest]:
    number = scene.rng.randrange(len(scene.world.honest))
    return number, scene.world.honest[number]
