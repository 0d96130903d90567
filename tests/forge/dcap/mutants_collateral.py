"""Mutants of certificates, CRLs and signed documents."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from tests.forge.dcap import certificates, documents
from tests.forge.dcap.certificates import CERTS_AND_CRLS, DATA, Cert, Crl
from tests.forge.dcap.mutant import COMMON, Mutant, changed_byte
from tests.forge.dcap.platforms import Platform, integer, octets
from tests.forge.dcap.world import DAY, NOW, SGX3, TDX4, TDX5_15


def _cert_change(rng: random.Random, cert: Cert) -> dict[str, Any]:
    names = (certificates.ROOT_NAME, certificates.PLATFORM_CA_NAME, certificates.PROCESSOR_CA_NAME,
             certificates.PCK_NAME,
             certificates.TCB_SIGNER_NAME, "Somebody")  # fmt: skip
    usage = rng.choice(
        (DATA, CERTS_AND_CRLS, None, (True, False, True, True), (False,) * 4, (True, False, False, False))
    )
    return rng.choice([
        {"common_name": rng.choice(names)}, {"organization": "Another Corporation"},
        {"is_ca": False, "path_length": None}, {"is_ca": True, "path_length": None}, {"is_ca": None,
            "path_length": None},
        {"is_ca": True, "path_length": rng.choice((0, 1, 2))}, {"usage": usage}, {"critical_extra": "1.2.3.4"},
        {"curve": rng.choice(("p384", "k256"))}, {"digest": "sha384"}, {"issuer_name": rng.choice(names)},
        {"signed_with": rng.choice(("root", "pck ca", "pck", "tcb signer", "stranger"))},
        {"serial": rng.choice((1, 0x7F, 1 << 64, (1 << 159) - 1))},
        {"not_after": NOW + rng.choice((-1, 0, 1)), "not_before": min(cert.not_before, NOW - DAY)},
        {"not_before": NOW + rng.choice((-1, 0, 1)), "not_after": max(cert.not_after, NOW + DAY)},
    ])  # fmt: skip


def certificate_fields(rng: random.Random) -> Mutant:
    """A field of one certificate, properly signed unless the field is the signer."""
    world = rng.choice(COMMON)
    role = rng.choice(("root", "pck_ca", "pck", "tcb_signer", "qe_signer"))
    cert: Cert = getattr(world, role) or replace(world.tcb_signer, key="qe signer", serial=0x7E39)
    change = _cert_change(rng, cert)
    return Mutant("certificate fields", f"{role} {change}", world.but(**{role: replace(cert, **change)}).mint())


def platform_fields(rng: random.Random) -> Mutant:
    """The PCK extension."""
    world = rng.choice((SGX3, TDX4))
    arc = rng.choice(((1,), (2,), (3,), (4,), (5,), (6,), (7,)))
    inner = rng.choice([(2, number) for number in range(1, 19)])
    value = rng.choice(
        (integer(0), integer(255), integer(256), integer(-1), octets(b""), octets(bytes(16)), b"\x05\x00")
    )
    change = rng.choice(("drop", "twice", "drop inside", "twice inside", "set", "set inside"))
    edits: dict[str, Callable[[Any], Any]] = {
        "drop": lambda pairs: [one for one in pairs if one[0] != arc],
        "twice": lambda pairs: [*pairs, *[one for one in pairs if one[0] == arc]],
        "set": lambda pairs: [(name, value if name == arc else old) for name, old in pairs],
        "drop inside": lambda pairs: [one for one in pairs if one[0] != inner],
        "twice inside": lambda pairs: [*pairs, *[one for one in pairs if one[0] == inner]],
        "set inside": lambda pairs: [(name, value if name == inner else old) for name, old in pairs],
    }
    inside = change.endswith("inside")
    platform = Platform(**{"tcb_fields" if inside else "fields": edits[change]})
    what = (
        f"PCK field {'.'.join(map(str, inner if inside else arc))}: {change} {value.hex() if 'set' in change else ''}"
    )
    return Mutant("platform fields", what, world.but(platform=platform).mint())


def crl_fields(rng: random.Random) -> Mutant:
    """A field of a revocation list, or its bytes after signing."""
    world = rng.choice(COMMON)
    role = rng.choice(("root_crl", "pck_crl"))
    crl: Crl = getattr(world, role)
    serials = (world.root.serial, world.pck_ca.serial, world.pck.serial, world.tcb_signer.serial, 1, 1 << 100)
    change: dict[str, Any] = rng.choice([
        {"revoked": tuple(rng.sample(serials, rng.randrange(1, 4)))}, {"number": rng.choice((None, 0, 2, 1 << 70))},
        {"authority_key": False}, {"critical_extra": "1.2.3.4"},
        {"issuer_name": rng.choice((certificates.ROOT_NAME, certificates.PROCESSOR_CA_NAME, "Somebody"))},
        {"signed_with": rng.choice(("root", "pck ca", "pck", "stranger"))},
        {"next_update": NOW + rng.choice((-1, 0, 1))}, {"this_update": NOW + rng.choice((-1, 0, 1))}, {},
    ])  # fmt: skip
    minted = world.but(**{role: replace(crl, **change)}).mint()
    if change:
        return Mutant("CRL fields", f"{role} {change}", minted)
    key = "root_ca_crl" if role == "root_crl" else role
    raw = bytes.fromhex(minted.collateral[key])
    offset = rng.randrange(len(raw))
    held = minted.collateral | {key: changed_byte(rng, raw, offset).hex()}
    return Mutant("CRL fields", f"{role}: byte {offset}", replace(minted, collateral=held))


_DROP = object()


_ODD: tuple[Any, ...] = (
    None, "", "x", 0, 1, 2, 3, 255, 256, 65535, 65536, -1, 2**31, 2**32, 2**64, 0.0, 1.5, True, False, [], {}, [1],
    _DROP,
    "2026-02-02T06:40:00Z", "2026-02-02T06:39:59Z", "2026-02-02T06:40:01Z", "2026-02-02", "2026-02-02T06:40:00+00:00",
    "2026-02-02T06:40:00.5Z", "2026-02-02t06:40:00z", "00", "FFFFFFFF", "ff" * 16, "00" * 48, "UpToDate", "Revoked",
    "TDX",
    "SGX", "QE", "TD_QE", "INTEL-SA-00001",
)  # fmt: skip


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _paths(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _paths(inner, (*path, index))


def document_fields(rng: random.Random) -> Mutant:
    """A value somewhere in TCB info or QE identity, before signing."""
    world = rng.choice((SGX3, TDX4, TDX5_15))
    role = rng.choice(("tcb_info", "qe_identity"))
    said: list[str] = []

    def edit(document: dict[str, Any]) -> dict[str, Any]:
        paths = list(_paths(document))
        # Components are most of a document: without weights nothing else would be reached.
        shallow = [path for path in paths if len(path) < 4]
        path = rng.choice(shallow if rng.random() < 0.7 else paths)
        odd = rng.choice(_ODD)
        said.append(f"{'.'.join(map(str, path))} = {'dropped' if odd is _DROP else repr(odd)}")
        return documents.drop(*path)(document) if odd is _DROP else documents.put(*path, to=odd)(document)

    minted = world.but(**{f"{role}_edit": edit}).mint()
    return Mutant("document fields", f"{world.tee} {role} {said[0]}", minted)


def document_text(rng: random.Random) -> Mutant:
    """The text of a document: before signing in ways JSON allows, after signing in any."""
    world = rng.choice((SGX3, TDX4))
    role = rng.choice(("tcb_info", "qe_identity"))
    if rng.random() < 0.5:
        change = rng.choice(("indented", "key twice", "unknown key", "space around", "tail", "escape", "other order"))
        edits: dict[str, Callable[[str], str]] = {
            "indented": lambda text: json.dumps(json.loads(text), indent=2),
            "key twice": lambda text: '{"version":' + str(json.loads(text)["version"]) + "," + text[1:],
            "unknown key": lambda text: '{"unknown":{"deeper":[1,null,"x"]},' + text[1:],
            "space around": lambda text: f" {text}\n",
            "tail": lambda text: text + rng.choice(("x", "{}", "\x00")),
            "escape": lambda text: text.replace('"version"', '"\\u0076ersion"'),
            "other order": lambda text: json.dumps(dict(reversed(json.loads(text).items()))),
        }
        return Mutant("document text", f"{role} {change}", world.but(**{f"{role}_text": edits[change]}).mint())
    minted = world.mint()
    key = rng.choice((role, f"{role}_signature"))
    raw = bytes.fromhex(minted.collateral[key]) if key.endswith("signature") else minted.collateral[key].encode()
    offset = rng.randrange(len(raw))
    changed = changed_byte(rng, raw, offset)
    if key == role:
        changed = bytes(byte & 0x7F or 0x20 for byte in changed)
    held = minted.collateral | {key: changed.hex() if key.endswith("signature") else changed.decode()}
    return Mutant("document text", f"{key}: byte {offset}", replace(minted, collateral=held))
