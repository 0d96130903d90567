"""Inputs built to be as expensive as the limits allow: 50 ms and 16 MiB hold for these, too, not only for accidents."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.forge.dcap.certificates import issue
from tests.forge.dcap.platforms import Platform, integer, octets, sequence, tlv
from tests.forge.dcap.world import PCK, PCK_CA, PCK_CRL, ROOT, TCB_SIGNER, TDX4, Crl, issue_crl, pem_chain
from tests.verifier import fuzzing_corpus as genuine
from tests.verifier.fuzzing import Seed, pem_text
from tests.verifier.fuzzing_der import nodes_of, replaced
from tests.verifier.fuzzing_targets import TARGETS
from tests.verifier.test_fuzz_verifier import Tally, examine, size_of
from verifier.limits import (
    MAX_CERTIFICATE_BYTES,
    MAX_CERTIFICATION_BYTES,
    MAX_COLLATERAL_BYTES,
    MAX_CRL_BYTES,
    MAX_JSON_CONTAINERS,
    MAX_JSON_MEMBERS,
    MAX_QUOTE_BYTES,
    MAX_SIGNED_DOCUMENT_BYTES,
)

pytestmark = pytest.mark.quiet

WORLD = "forge/TDX v4"
Inputs = Iterator[tuple[str, str, bytes | tuple[bytes, bytes]]]
"""(target, what it is, bytes, or a quote and its collateral)."""


def filled(unit: str, size: int, front: str = "", back: str = "") -> bytes:
    """`unit` repeated between `front` and `back` up to `size` bytes."""
    return (front + unit * ((size - len(front) - len(back)) // len(unit)) + back).encode()


def texts(size: int) -> Iterator[tuple[str, bytes]]:
    """JSON of `size` bytes, each expensive in its own way."""
    yield "one string", filled("a", size, '{"a":"', '"}')
    yield "escapes", filled("\\u0041", size, '{"a":"', '"}')
    yield "escaped pairs", filled("\\ud83d\\ude00", size, '{"a":"', '"}')
    yield "wide characters", filled("\U0001f600", size // 4, '{"a":"', '"}')
    yield "quotes", filled('\\"', size, '{"a":"', '"}')
    yield "one number", filled("9", size, '{"a":', "}")
    yield "numbers", filled("1,", size, '{"a":[', "1]}")
    yield "long numbers", filled("9" * 4000 + ",", size, '{"a":[', "1]}")
    yield "empty objects", filled("{},", size, '{"a":[', "{}]}")
    yield "empty arrays", filled("[],", size, '{"a":[', "[]]}")
    yield "nested arrays", filled("[", size // 2, '{"a":') + filled("]", size // 2, "", "}")
    yield "nested objects", filled('{"a":', size - size // 6) + b"1" + b"}" * (size // 6)
    yield "spaces", filled(" ", size, '{"a":', "1}")
    yield "one key", filled("a", size, '{"', '":1}')
    yield "keys", b'{"a":1' + b"".join(b',"%06x":1' % n for n in range((size - 16) // 11)) + b"}"
    yield "keys, one twice", b'{"a":1' + b"".join(b',"%06x":1' % n for n in range((size - 40) // 11)) + b',"a":2}'
    yield "keys below the limit", b'{"a":1' + b"".join(b',"%06x":1' % n for n in range(MAX_JSON_MEMBERS - 100)) + b"}"
    yield "objects below the limit", filled('{"a":1},', 8 * (MAX_JSON_CONTAINERS - 100), '{"a":[', "{}]}")
    yield "floats", filled("1.5e3,", size, '{"a":[', "1]}")
    yield "unclosed", filled('"a":[{', size, "{")
    yield "strings", filled('"a",', size, '{"a":[', '""]}')


def documents() -> Inputs:
    """The same as signed documents, and genuine documents with as many levels as fit."""
    for name, text in texts(MAX_COLLATERAL_BYTES):
        yield "json", name, text
        yield "collateral", name, text
        yield "loader", name, text
    for name, text in texts(MAX_SIGNED_DOCUMENT_BYTES):
        for target in ("tcb_info", "enclave_identity", "evaluation_numbers"):
            yield target, name, text
    minted = genuine.minted("TDX v4").collateral
    for target, member, key in (
        ("tcb_info", "tcb_info", "tcbLevels"),
        ("enclave_identity", "qe_identity", "tcbLevels"),
    ):
        document = json.loads(minted[member])
        levels = document[key]
        for name, grown in (("levels", many_levels(levels)), ("equal levels", levels * 400)):
            text = json.dumps(document | {key: grown}, separators=(",", ":")).encode()
            yield target, name, text[:MAX_SIGNED_DOCUMENT_BYTES]
            yield "signed_document", name, b'{"tcbInfo":' + text + b',"signature":"' + b"5a" * 64 + b'"}'
    document = json.loads(minted["tcb_info"])
    first = document["tcbLevels"][0]
    document["tcbLevels"][0] = first | {"advisoryIDs": [f"INTEL-SA-{n:05}" for n in range(7_000)]}
    yield "tcb_info", "advisories", json.dumps(document).encode()


def many_levels(levels: list[dict[str, object]]) -> list[dict[str, object]]:
    """Levels in the wrong order that differ, as many as fit into a document."""
    found: list[dict[str, object]] = []
    size = 0
    while size < MAX_SIGNED_DOCUMENT_BYTES - 4_000:
        one = json.loads(json.dumps(levels[0]))
        number = len(found)
        if "sgxtcbcomponents" in one["tcb"]:
            one["tcb"]["sgxtcbcomponents"][0]["svn"] = number % 256
            one["tcb"]["pcesvn"] = number
        else:
            one["tcb"]["isvsvn"] = number
        found.append(one)
        size += len(json.dumps(one, separators=(",", ":"))) + 1
    return found


def lists() -> Inputs:
    """Revocation lists at the limit."""
    long = issue_crl(Crl(this_update=1, next_update=2**31, revoked=tuple(range(1 << 64, (1 << 64) + 4_600))), PCK_CA)
    assert MAX_CRL_BYTES * 0.95 < len(long) <= MAX_CRL_BYTES
    yield "crl", "entries", long
    yield "crl", "entries and rubbish", long[:-1] + b"\x00" * (MAX_CRL_BYTES - len(long))
    short = issue_crl(PCK_CRL, PCK_CA)
    nodes = nodes_of(short)
    tbs = [at for at, node in enumerate(nodes) if node.parent == 1]
    issuer, entries = tbs[2], tbs[5]
    room = MAX_CRL_BYTES - len(short) - 64
    moment = tlv(0x17, b"250101000000Z")
    critical = sequence(tlv(0x06, b"\x55\x1d\x15"), tlv(0x01, b"\xff"), octets(b"\x0a\x01\x01"))
    for name, unit in (
        ("tiny entries", sequence(integer(1), moment)),
        ("empty entries", sequence()),
        ("entries with reasons", sequence(integer(1), moment, sequence(critical))),
        ("true in serials", sequence(integer(0x0101FF01), moment)),
    ):
        yield "crl", name, replaced(short, nodes, entries, tlv(0x30, unit * (room // len(unit))))
    name_part = tlv(0x31, sequence(tlv(0x06, b"\x55\x04\x03"), tlv(0x0C, b"a")))
    yield "crl", "a long name", replaced(short, nodes, issuer, tlv(0x30, name_part * (room // len(name_part))))
    deep = b""
    while len(deep) < room - 8:
        deep = tlv(0x30, deep)
    yield "crl", "depth", replaced(short, nodes, entries, deep)


def certificates() -> Inputs:
    """Certificates at the limit, alone and by the hundred."""
    chain = [seed for seed in genuine.certificates() if seed.name.startswith("forge/")]
    assert chain
    for seed in chain[:3]:
        nodes = nodes_of(seed.data)
        room = MAX_CERTIFICATE_BYTES - len(seed.data) - 32
        last = max(at for at, node in enumerate(nodes) if node.parent == 1)  # [3] extensions
        inner = next(at for at, node in enumerate(nodes) if node.parent == last)
        one = nodes[inner]
        extensions = seed.data[one.body : one.end]
        for name, unit in (
            ("extensions", sequence(tlv(0x06, b"\x2a\x03\x04"), octets(b""))),
            ("key usages", sequence(tlv(0x06, b"\x55\x1d\x0f"), octets(b"\x03\x02\x07\x80"))),
            ("alternative names", sequence(tlv(0x06, b"\x55\x1d\x11"), octets(sequence(tlv(0x82, b"a") * 500)))),
        ):
            grown = tlv(0x30, extensions + unit * (room // len(unit)))
            yield "certificate", name, replaced(seed.data, nodes, inner, grown)
        subject = [at for at, node in enumerate(nodes) if node.parent == 1][5]
        part = tlv(0x31, sequence(tlv(0x06, b"\x55\x04\x03"), tlv(0x0C, b"a")))
        yield "certificate", "names", replaced(seed.data, nodes, subject, tlv(0x30, part * (room // len(part))))


def chains() -> Inputs:
    """PEM texts at the limits of a quote and of a file."""
    for size, targets in ((MAX_CERTIFICATION_BYTES, ("chain",)), (MAX_COLLATERAL_BYTES, ("loader",))):
        begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
        for name, text in (
            ("spaces", filled(" ", size, "", begin)),
            ("lines", filled("\n", size, f"{begin}\nMIIB", end)),
            ("begins", filled(f"{begin}\n", size)),
            ("ends", filled(f"{end}\n", size, begin)),
            ("dashes", filled("-", size, begin)),
            ("empty blocks", filled(f"{begin}\n{end}\n", size)),
            ("tiny blocks", filled(f"{begin}\nMAA=\n{end}\n", size)),
            ("one block", filled("AAAA", size, f"{begin}\n", f"\n{end}\n")),
            ("short lines", filled("A\n", size, f"{begin}\n", f"\n{end}\n")),
            ("rubbish", filled("*", size, f"{begin}\n", f"\n{end}\n")),
        ):
            for target in targets:
                yield target, name, text


def files() -> Inputs:
    """What else the loader may be given."""
    size = MAX_COLLATERAL_BYTES
    yield "loader", "hex", filled("30", size)
    yield "loader", "hex of DER", b"3083" + b"%06x" % (size // 2 - 5) + b"00" * (size // 2 - 5)
    yield "loader", "base64", filled("MAAA", size)
    yield "loader", "zeros", bytes(size)
    yield "loader", "DER", b"\x30\x83" + (size - 5).to_bytes(3, "big") + bytes(size - 5)
    yield "loader", "arrays", filled("[", size)
    yield "loader", "array of certificates", filled('{"cert":"MAA="},', size, "[", "{}]")
    head = "HTTP/1.1 200 OK\r\n"
    yield "loader", "headers", filled("a: b\r\n", size, head, "\r\n")
    chain = "TCB-Info-Issuer-Chain: "
    yield "loader", "chains in headers", filled(f"{chain}-----BEGIN%20CERTIFICATE-----%0A\r\n", size, head, "\r\n")
    yield "loader", "percent signs", filled("%", size, head + chain, "\r\n\r\n")
    yield "loader", "percent codes", filled("%2D", size, head + chain, "\r\n\r\n")
    yield "loader", "responses", filled(f"{head}\r\n", size)
    yield "loader", "one line", filled("a", size, head)
    yield "loader", "colons", filled(":", size)
    yield "loader", "line ends", filled("\r\n", size, head)
    yield "loader", "only spaces", filled(" ", size)
    small = "-----BEGIN CERTIFICATE-----\\nMAA=\\n-----END CERTIFICATE-----"
    yield "loader", "array of small blocks", filled(f'{{"cert":"{small}"}},', size, "[", "{}]")
    yield "loader", "array of escapes", filled("%2D", size, '[{"cert":"', '"}]')
    yield "loader", "array of objects", filled("{},", size, "[", "{}]")
    lists_ = b"".join(
        pem_text(b"X509 CRL", issue_crl(Crl(this_update=1, next_update=2**31, number=n), PCK_CA)) for n in range(128)
    )
    yield "loader", "lists", lists_
    signers = many_signers(120)
    yield "loader", "signers", signers
    yield "loader", "signers in a header", head.encode() + chain.encode() + urllib.parse.quote(signers).encode()


def many_signers(count: int, start: int = 0) -> bytes:
    """PEM of `count` certificates that all look like the signer of collateral, with signatures nobody made."""
    chain = genuine.minted("TDX v4").collateral["tcb_info_issuer_chain"].encode()
    der = base64.b64decode(b"".join(chain.split(b"-----")[2].split()))
    return b"".join(pem_text(b"CERTIFICATE", der[:-4] + n.to_bytes(4, "big")) for n in range(start, start + count))


def sets() -> Inputs:
    """Collateral whose choice is as hard as it gets: signers by the hundred, none or only the last of them genuine."""
    minted = genuine.minted("TDX v4").collateral
    chains = ("tcb_info_issuer_chain", "qe_identity_issuer_chain", "pck_crl_issuer_chain", "pck_certificate_chain")
    for count in (30, 250):
        crowd = {key: many_signers(count, 1_000 * at).decode() for at, key in enumerate(chains)}
        for name, members in (
            ("signers, none genuine", minted | crowd),
            ("signers, one genuine", minted | {key: text + minted.get(key, "") for key, text in crowd.items()}),
            (
                "signers, documents by nobody",
                minted
                | {key: text + minted.get(key, "") for key, text in crowd.items()}
                | {"tcb_info_signature": "5a" * 64, "qe_identity_signature": "5a" * 64},
            ),
        ):
            yield "verify_collateral", f"{count} times 4 {name}", json.dumps(members).encode()
    for target in ("collateral", "verify_collateral"):
        for key in minted:
            for name, value in (("spaces", " " * 900_000), ("hex", "30" * 450_000), ("braces", "{" * 900_000)):
                yield target, f"{name} for {key}", json.dumps(minted | {key: value}).encode()


def on_a_slow_curve(certificate: bytes, count: int) -> str:
    """PEM of `count` such certificates whose keys take ten times as long as P-256's, signed by nobody."""
    nodes = nodes_of(certificate)
    place = [at for at, node in enumerate(nodes) if node.parent == 1][6]
    keys = (ec.derive_private_key(n + 2, ec.BrainpoolP512R1()).public_key() for n in range(count))
    spkis = (key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for key in keys)
    return pem_chain(*(replaced(certificate, nodes, place, spki) for spki in spkis))


def crowds() -> Inputs:
    """Certificates called like an issuer, each of which could have made a signature that nobody made."""
    signer = issue(replace(TCB_SIGNER, key="attacker"), replace(ROOT, key="attacker root"))
    minted = TDX4.mint().collateral
    forged = TDX4.but(tcb_info_signed_with="attacker", qe_identity_signed_with="attacker").mint().collateral
    for name, crowd in (
        ("slow curves", on_a_slow_curve(issue(ROOT), 124)),
        ("P-256", pem_chain(*(issue(replace(ROOT, key=f"r{n}", serial=n + 1)) for n in range(124)))),
    ):
        chains = {"tcb_info_issuer_chain": pem_chain(signer) + crowd, "qe_identity_issuer_chain": ""}
        yield "verify_collateral", f"roots by name, {name}", json.dumps(forged | chains).encode()
    leaf = TDX4.pck_chain()[0]
    quote = TDX4.but(certification=(4, leaf)).mint().quote
    extension = Platform().extension()
    many = range(120)
    for name, crowd in (
        ("slow curves", on_a_slow_curve(TDX4.pck_chain()[1], 120)),
        ("P-256", pem_chain(*(issue(replace(PCK_CA, key=f"c{n}", signed_with="x"), ROOT) for n in many))),
        ("roots", pem_chain(*(issue(replace(ROOT, serial=n + 1, signed_with="x")) for n in many))),
        ("leaves", pem_chain(*(issue(replace(PCK, serial=n + 1, extension=extension, signed_with="x"), PCK_CA)
                               for n in many))),
        ("genuine leaves", pem_chain(*(issue(replace(PCK, key=f"l{n}", extension=extension), PCK_CA) for n in many))),
    ):  # fmt: skip
        chains = minted | {"tcb_info_issuer_chain": minted["tcb_info_issuer_chain"] + crowd}
        for kind, data in ((4, quote), (1, TDX4.but(certification=(1, bytes(36))).mint().quote)):
            yield "verify_signed", f"type {kind}, crowd of {name}", (data, json.dumps(chains).encode())


def quotes() -> Inputs:
    """Quotes at the limit."""
    quote = genuine.minted("TDX v4").quote
    yield "quote", "padding", quote + bytes(MAX_QUOTE_BYTES - len(quote))
    yield "verify_quote", "padding", quote + bytes(MAX_QUOTE_BYTES - len(quote))
    big = TDX4.but(auth_data=bytes(1024), chain_text=lambda text: text + b"\n" * (MAX_CERTIFICATION_BYTES - len(text)))
    yield "verify_quote", "long chain", big.mint().quote
    for kind in (1, 2, 3):
        yield "verify_quote", f"type {kind}", TDX4.but(certification=(kind, bytes(400))).mint().quote


BUILDERS: tuple[Callable[[], Inputs], ...] = (documents, lists, certificates, chains, files, sets, crowds, quotes)


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_what_is_built_to_be_expensive_is_not(build: Callable[[], Inputs]) -> None:
    seed = Seed("limits", "bytes", b"", WORLD)
    failures = []
    for target, name, data in build():
        try:
            examine(TARGETS[target], seed, data, Tally(), trace=True)
        except Exception as error:
            failures.append(f"{target}, {name}, {size_of(data)} bytes: {type(error).__name__}: {str(error)[:60]!r}")
    assert not failures, "\n".join(failures)
