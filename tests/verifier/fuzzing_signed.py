"""Hostile evidence with genuine signatures: parts of a forged world are changed, then signed with that world's keys.

Mutations of signed bytes mostly end at the first signature. These reach what stands behind: chain constraints, the
choice of collateral, TCB levels, quoting enclave identities, policies.
"""

from __future__ import annotations

import hashlib
import json
import random

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from tests.forge.dcap.keys import key_of, point_of, sign
from tests.forge.dcap.world import Minted
from tests.verifier.fuzzing import join_parts, mutate_parts, parts_of, pem_blocks, pem_text
from tests.verifier.fuzzing_der import mutate_der, nodes_of, replaced, tlv
from tests.verifier.fuzzing_json import mutate_json

_ECDSA = ec.ECDSA(SHA256(), deterministic_signing=True)
_ATTESTATION_KEY = "/attestation key"
_CHAIN_SIGNERS = ("pck ca", "root", "root")
"""Who signs the certificates of a PCK chain, leaf first."""

_ISSUER_SIGNERS = {
    "tcb_info_issuer_chain": ("root", "root"),
    "qe_identity_issuer_chain": ("root", "root"),
    "pck_crl_issuer_chain": ("root", "root"),
}
_CRL_SIGNERS = {"pck_crl": "pck ca", "root_ca_crl": "root"}
_DOCUMENTS = ("tcb_info", "qe_identity")


def signed_again(rng: random.Random, minted: Minted) -> tuple[bytes, bytes]:
    """(quote, collateral text) of the world with one or two facts changed and signed."""
    quote, members = minted.quote, dict(minted.collateral)
    for _ in range(rng.choice((1, 1, 2))):
        kind = rng.randrange(10)
        if kind < 4:
            _document(rng, members)
        elif kind == 4:
            _revocation_list(rng, members)
        elif kind == 5:
            _issuers(rng, members)
        else:
            quote = _quote(rng, quote, chain=kind == 6)
    return quote, json.dumps(members).encode()


def _document(rng: random.Random, members: dict[str, str]) -> None:
    key = rng.choice((*_DOCUMENTS, "tcb_info"))
    text = members[key].encode("utf-8", "surrogatepass")
    changed = mutate_json(rng, text, text).decode("utf-8", "surrogateescape")
    members[key] = changed
    members[f"{key}_signature"] = sign("tcb signer", changed.encode("utf-8", "surrogatepass")).hex()


def _revocation_list(rng: random.Random, members: dict[str, str]) -> None:
    key, stranger = rng.sample(sorted(_CRL_SIGNERS), 2)
    ours, other = bytes.fromhex(members[key]), bytes.fromhex(members[stranger])
    members[key] = _signed(rng, ours, other, _CRL_SIGNERS[key]).hex()


def _issuers(rng: random.Random, members: dict[str, str]) -> None:
    key = rng.choice(sorted(_ISSUER_SIGNERS))
    members[key] = _chain(rng, members[key].encode(), _ISSUER_SIGNERS[key]).decode("latin-1")


def _chain(rng: random.Random, text: bytes, signers: tuple[str, ...]) -> bytes:
    """One certificate of the chain changed and signed again by its issuer."""
    blocks = list(pem_blocks(text))
    if not blocks:
        return text
    at = min(rng.randrange(len(signers)), len(blocks) - 1)
    other = rng.choice(blocks)[1]
    blocks[at] = blocks[at][0], _signed(rng, blocks[at][1], other, signers[at])
    return b"".join(pem_text(label, der) for label, der in blocks)


def _signed(rng: random.Random, der: bytes, other: bytes, key: str) -> bytes:
    """A certificate or CRL with its signed part changed, its signature made anew."""
    nodes = nodes_of(der)
    top = [node for node in nodes if node.parent == 0]
    if len(top) != 3:
        return der
    changed = mutate_der(rng, der[top[0].start : top[0].end], other)
    signature = tlv(0x03, b"\x00" + key_of(key).sign(changed, _ECDSA))
    return replaced(der, nodes, 0, tlv(0x30, changed + der[top[1].start : top[1].end] + signature))


def _quote(rng: random.Random, quote: bytes, *, chain: bool) -> bytes:
    """A quote with its chain, or other parts of it, changed; QE report, binding and quote are signed again."""
    parts = parts_of(quote)
    if parts is None:
        return quote
    if chain:
        parts = parts._replace(certification=_chain(rng, parts.certification, _CHAIN_SIGNERS))
    else:
        parts = mutate_parts(rng, parts, parts)
    point = point_of(_ATTESTATION_KEY)
    binding = hashlib.sha256(point + parts.auth).digest() + bytes(32)
    report = parts.qe_report[:320] + binding
    signed = parts.header + parts.descriptor + parts.body
    return join_parts(
        parts._replace(
            key=point,
            qe_report=report,
            qe_signature=sign("pck", report),
            quote_signature=sign(_ATTESTATION_KEY, signed),
        )
    )
