"""Mutants of quotes: bytes, lengths, fields, and evidence of another shape or another world."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from tests.forge.dcap import certificates, documents, quotes
from tests.forge.dcap.keys import other_s
from tests.forge.dcap.mutant import COMMON, Mutant, changed_byte
from tests.forge.dcap.platforms import Platform
from tests.forge.dcap.world import DAY, GENUINE, NOW, SGX3, TDX4, World


def layout(world: World, quote: bytes) -> list[tuple[str, int, int]]:
    """(part, begin, end) of a quote this forge made."""
    kind = 1 if world.tee == "sgx" else world.body_type or 2
    sizes = [
        ("header", 48),
        ("descriptor", 6 if world.version == 5 else 0),
        ("body", quotes.size_of(quotes.BODIES[kind])),
    ]
    sizes += [("signature size", 4), ("signature", 64), ("attestation key", 64)]
    sizes += [("outer certification", 0 if world.version == 3 else 6), ("QE report", 384), ("QE signature", 64)]
    sizes += [("authentication size", 2), ("authentication data", len(world.auth_data)), ("certification", 6)]
    found, offset = [], 0
    for name, size in sizes:
        if size:
            found.append((name, offset, offset + size))
        offset += size
    return [*found, ("chain", offset, len(quote))]


def quote_bytes(rng: random.Random) -> Mutant:
    """A byte of the quote, after signing; every part of it as often as every other."""
    world = rng.choice(COMMON)
    minted = world.mint()
    part, begin, end = rng.choice(layout(world, minted.quote))
    offset = rng.randrange(begin, end)
    changed = changed_byte(rng, minted.quote, offset)
    what = f"{part}: byte {offset - begin} of v{world.version} {world.tee} is {changed[offset]:#04x}"
    return Mutant("quote bytes", what, replace(minted, quote=changed))


def quote_lengths(rng: random.Random) -> Mutant:
    """Truncation, padding, tails, and lengths inside."""
    world = rng.choice(COMMON)
    section: dict[str, Any] = {}
    choice = rng.choice(("cut", "zeros", "tail", "auth", "section", "sizes", "section tail", "auth size"))
    if choice == "cut":
        cut = rng.randrange(1, 5000)
        world = world.but(quote=lambda quote: quote[: max(0, len(quote) - cut)])
        choice = f"cut by {cut}"
    elif choice == "zeros":
        world = world.but(padding=bytes(rng.randrange(1, 4000)))
    elif choice == "tail":
        world = world.but(padding=bytes(rng.randrange(8)) + rng.randbytes(rng.randrange(1, 40)) + b"\x01")
    elif choice == "auth":
        size = rng.choice((0, 1, 16, 31, 33, 64, 100, 1000))
        world = world.but(auth_data=rng.randbytes(size))
        choice = f"authentication data of {size} bytes"
    elif choice == "section":
        world = world.but(section_size=rng.choice((0, 1, 100, 0x7FFFFFFF, 0xFFFFFFFF)))
    elif choice == "section tail":
        section = {"tail": bytes(rng.randrange(1, 5))}
    else:
        field = rng.choice(("outer_size", "data_size", "auth_size"))
        section = {
            field: rng.choice((0, 1, 31, 33, 0xFFFF) if field == "auth_size" else (0, 1, 64, 0xFFFF, 0xFFFFFFFF))
        }
    if section:
        world = world.but(section=lambda one: replace(one, **section))
        choice = f"{choice} {section}"
    return Mutant("quote lengths", f"{choice} of v{world.version} {world.tee}", world.mint())


def quote_fields(rng: random.Random) -> Mutant:
    """Header and body fields, properly signed."""
    world = rng.choice(COMMON)
    kind = rng.choice(("header", "attributes", "body", "kind", "QE report", "signature"))
    what = kind
    if kind == "header":
        change = rng.choice([
            {"version": rng.choice((0, 1, 2, 3, 4, 5, 6, 0x0103))}, {"tee_type": rng.choice((0, 1, 0x80, 0x81,
                0x8100))},
            {"key_type": rng.choice((0, 1, 3))}, {"vendor": rng.randbytes(16)}, {"reserved": rng.randbytes(4)},
            {"user_data": rng.randbytes(20)}, {"size": rng.choice((0, 384, 584, 648, 885, 1 << 30))},
            {"body_type": rng.choice((0, 1, 2, 3, 4, 5))},
        ])  # fmt: skip
        if world.version != 5 and {"size", "body_type"} & set(change):
            change = {"reserved": rng.randbytes(4)}
        what = f"header {change}"
        world = world.but(header=lambda header: replace(header, **change))
    elif kind == "attributes":
        bits = rng.choice((0, 1, 7, 8, 27, 28, 29, 30, 31, 32, 62, 63))
        what = f"attribute bit {bits}"
        if world.tee == "tdx":
            world = world.but(body={"td_attributes": (1 << 28 ^ 1 << bits).to_bytes(8, "little")})
        else:
            world = world.but(body={"attributes": (0x05 ^ 1 << bits).to_bytes(8, "little") + b"\xe7" + bytes(7)})
    elif kind == "body":
        name, size = rng.choice(quotes.BODIES[1 if world.tee == "sgx" else world.body_type or 2])
        if name not in ("td_attributes", "attributes", "tee_tcb_svn", "tee_tcb_svn_2"):
            what = f"body {name}"
            world = world.but(body={name: rng.randbytes(size)})
    elif kind == "kind":
        number = rng.choice((0, 1, 2, 3, 4, 6, 7))
        what = f"certification type {number}"
        world = world.but(section=lambda one: replace(one, kind=number))
    elif kind == "QE report":
        name, size = rng.choice(quotes.SGX_REPORT)
        if name not in ("report_data", "isvsvn"):
            what = f"QE report {name}"
            world = world.but(qe={name: rng.randbytes(size)})
    else:
        what = "the other s"
        world = world.but(
            section=lambda one: replace(
                one,
                quote_signature=other_s(one.quote_signature),
                qe_report_signature=other_s(one.qe_report_signature),
            )
        )
    return Mutant("quote fields", f"{what} of v{world.version} {world.tee}", world.mint())


def exchanges(rng: random.Random) -> Mutant:
    """Parts of another genuine world in the place of this one's."""
    world = rng.choice(COMMON)
    others = {
        "another platform": world.but(platform=Platform(fmspc=bytes.fromhex("00906ea10000"))),
        "another PCE": world.but(platform=Platform(pce_id=b"\x01\x00")),
        "another root": world.but(seed="other"),
        "the other TEE": SGX3 if world.tee == "tdx" else TDX4,
        "the other CA": world.but(
            pck_ca=replace(world.pck_ca, common_name=certificates.PROCESSOR_CA_NAME, key="processor ca")
        ),
        "another day": world.but(tcb_info_window=(NOW - 40 * DAY, NOW - 10 * DAY)),
    }
    name = rng.choice(list(others))
    ours, theirs = world.mint(), others[name].mint()
    keys = rng.choice((
        ("tcb_info", "tcb_info_signature", "tcb_info_issuer_chain"), ("tcb_info", "tcb_info_signature"), ("pck_crl",),
        ("qe_identity", "qe_identity_signature", "qe_identity_issuer_chain"), ("qe_identity", "qe_identity_signature"),
        ("root_ca_crl",), ("tcb_info_issuer_chain",), ("pck_crl_issuer_chain",), ("pck_crl_issuer_chain", "pck_crl"),
        tuple(theirs.collateral),
    ))  # fmt: skip
    held = ours.collateral | {key: theirs.collateral[key] for key in keys}
    return Mutant("exchanges", f"{', '.join(keys)} of {name}", replace(ours, collateral=held))


def other_shapes(rng: random.Random) -> Mutant:
    """Genuine evidence of every shape, under seeds of its own, SGX in v4 and v5 among it, and TCB info of version 2."""
    name = rng.choice(list(GENUINE))
    world = GENUINE[name].but(seed=str(rng.randrange(8)))
    if world.tee == "sgx" and rng.random() < 0.3:
        return Mutant("other shapes", f"{name}, TCB info v2", world.but(tcb_info_edit=documents.as_v2).mint())
    return Mutant("other shapes", name, world.mint())
