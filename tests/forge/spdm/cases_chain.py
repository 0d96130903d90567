"""Slots' chains: as SPDM delivers them, and as X.509 judges them."""

from __future__ import annotations

from dataclasses import replace

from tests.forge.spdm.edits import Recorded, cut, flip, tail, where, with_
from tests.forge.spdm.judge import Case
from tests.forge.spdm.keys import CERT_SIGN, DAY, KEY_AGREEMENT, NOW, REQUESTER_AUTH, Cert
from tests.forge.spdm.world import ISSUER, LEAF, ROOT, V12, V13, V14, World, certificate, challenge, digests, measure

SHORT = (digests(0), certificate(), challenge())


def slot_length(chain: bytes) -> bytes:
    return (len(chain) + 1).to_bytes(4, "little") + chain[4:]


def junk(chain: bytes) -> bytes:
    return (len(chain) + 3).to_bytes(4, "little") + chain[4:] + b"\x30\x01\x00"


def world(**changes: object) -> World:
    return V12.but(story=SHORT, **changes)


def leaf(**changes: object) -> World:
    return world(leaf=replace(LEAF, **changes))


def issuer(**changes: object) -> World:
    return world(issuers=(replace(ISSUER, **changes),))


def root(**changes: object) -> World:
    return world(root=replace(ROOT, **changes))


MANY = tuple(
    Cert(name=f"forge issuer {index}", key=f"issuer {index}", is_ca=True, usage=CERT_SIGN) for index in range(7)
)
PORTIONS = (digests(0), certificate(portion=200), challenge())
GET_CERTIFICATE, CERTIFICATE = 0x82, 0x02


def large(portion: int = 0xFFFF, **changes: object) -> World:
    """A chain read in the large form of 1.4."""
    return V14.but(story=(digests(0), certificate(portion=portion, large=True), challenge()), **changes)


def enlarged(messages: list[bytes]) -> list[bytes]:
    """The same portions, in the large form instead of the ordinary one."""
    return [
        one[:2] + bytes((one[2] | 0x80, one[3], 0, 0, 0, 0)) + one[4:6] + bytes(2) + one[6:8] + bytes(2) + one[8:]
        if one[1] in (GET_CERTIFICATE, CERTIFICATE)
        else one
        for one in messages
    ]


def written(code: int, at: int, value: bytes) -> Recorded:
    """Bytes of every message with `code` overwritten."""
    return lambda messages: [one[:at] + value + one[at + len(value) :] if one[1] == code else one for one in messages]


_DELIVERED = [
    Case(name="the chain says another length", code="SPDM_CHAIN", step=None, world=world(chain=slot_length)),
    Case(name="reserved bytes of a chain's length", code="SPDM_CHAIN", step=None,
         world=world(chain=lambda chain: chain[:2] + b"\x01\x00" + chain[4:])),
    Case(name="junk after the certificates", code="SPDM_CHAIN", step=None, world=world(chain=junk)),
    Case(name="a chain without certificates", code="SPDM_CHAIN", step=None,
         world=world(chain=lambda chain: (36).to_bytes(4, "little") + chain[4:36])),
    Case(name="a chain without a root hash", code="SPDM_CHAIN", step=None,
         world=world(chain=lambda chain: (12).to_bytes(4, "little") + chain[4:12])),
    Case(name="nine certificates", code="SPDM_CHAIN", step=None, world=world(issuers=MANY)),
    Case(name="a truncated chain", code="SPDM_SLOT", step=None,
         world=V12.but(story=(digests(0), certificate(portion=300, stop_after=2), challenge()))),
    Case(name="a chain never read", code="SPDM_SLOT", step=None, world=V12.but(story=(digests(), challenge()))),
    Case(name="the chain of another slot read", code="SPDM_SLOT", step=None,
         world=V12.but(story=(digests(), certificate(1), challenge()))),
    Case(name="a portion for another slot", code="SPDM_SLOT", step="portion",
         world=world(edits={"Certificate": with_(slot=1)})),
    Case(name="a portion longer than asked for", code="SPDM_CHAIN", step="portion",
         world=world(edits={"GetCertificate": with_(length=100)})),
    Case(name="a portion from another place", code="SPDM_CHAIN", step="portion",
         world=V12.but(story=PORTIONS, edits={"GetCertificate": where(lambda one: one.offset > 0, lambda one: replace(
             one, offset=one.offset + 1))})),
    Case(name="an empty portion", code="SPDM_CHAIN", step=None,
         world=world(edits={"Certificate": with_(portion=b"")})),
    Case(name="the root hash of another root", code="SPDM_CHAIN", step="root_hash", world=world(root_hash=bytes(32))),
    Case(name="the root left out of the chain", code="SPDM_CHAIN", step=None,
         world=world(certificates=lambda found: found[1:], root_hash=b"\x01" * 32)),
    Case(name="DIGESTS of another chain", code="SPDM_CHAIN", step="digest",
         world=world(edits={"Digests": with_(digests={0: bytes(32)})})),
    Case(name="DIGESTS without the slot", code="SPDM_CHAIN", step="digest",
         world=world(edits={"Digests": with_(digests={2: bytes(32)})})),
    Case(name="CertChainHash of another chain", code="SPDM_CHAIN", step="chain_hash",
         world=world(edits={"ChallengeAuth": with_(chain_hash=bytes(32))})),
    Case(name="CertChainHash of the chain read before", code="SPDM_CHAIN", step="chain_hash",
         world=V13.but(story=(*SHORT, measure()), edits={"ChallengeAuth": with_(chain_hash=b"\x5a" * 32)})),
]  # fmt: skip

_LARGE = [
    Case(name="large form asked for, the ordinary one answered", code="SPDM_CHAIN", step="portion",
         world=large(edits={"Certificate": with_(large=False)})),
    Case(name="ordinary form asked for, the large one answered", code="SPDM_CHAIN", step="portion",
         world=V14.but(story=SHORT, edits={"Certificate": with_(large=True)})),
    Case(name="large form before 1.4, asked for", code="SPDM_MALFORMED", step=None,
         world=V13.but(story=SHORT, edits={"GetCertificate": with_(slot=0x80)})),
    Case(name="large form before 1.4, answered", code="SPDM_MALFORMED", step=None,
         world=V13.but(story=SHORT, edits={"Certificate": with_(slot=0x80)})),
    Case(name="large form without its numbers, asked for", code="SPDM_MALFORMED", step=None,
         world=V14.but(story=SHORT, edits={"GetCertificate": with_(slot=0x80)})),
    Case(name="large form cut off", code="SPDM_MALFORMED", step=None, world=large(recorded=cut(GET_CERTIFICATE, 4))),
    Case(name="large form, a portion cut off", code="SPDM_MALFORMED", step=None,
         world=large(recorded=cut(CERTIFICATE, 1))),
    Case(name="large form, a byte after it", code="SPDM_MALFORMED", step=None,
         world=large(recorded=tail(GET_CERTIFICATE, b"\0"))),
    Case(name="large form, the 16-bit offset too", code="SPDM_MALFORMED", step=None,
         world=large(recorded=written(GET_CERTIFICATE, 4, b"\1"))),
    Case(name="large form, the 16-bit remainder too", code="SPDM_MALFORMED", step=None,
         world=large(recorded=written(CERTIFICATE, 7, b"\1"))),
    Case(name="large form, slot 8", code="SPDM_MALFORMED", step=None,
         world=large(edits={"GetCertificate": with_(slot=8)})),
    Case(name="large form, reserved bits of the slot", code="SPDM_MALFORMED", step=None,
         world=large(edits={"Certificate": with_(slot=0x10)})),
    Case(name="from beyond 64 KB on", code="SPDM_UNSUPPORTED", step=None,
         world=large(edits={"GetCertificate": with_(offset=0x10000)})),
    Case(name="a portion of 4 GB", code="SPDM_UNSUPPORTED", step=None,
         world=large(recorded=written(CERTIFICATE, 8, b"\xff" * 4))),
    Case(name="64 KB still to come", code="SPDM_UNSUPPORTED", step=None,
         world=large(edits={"Certificate": with_(remainder=0x10000)})),
    Case(name="large form, another slot answered", code="SPDM_SLOT", step="portion",
         world=large(edits={"Certificate": with_(slot=1)})),
    Case(name="large form, a portion longer than asked for", code="SPDM_CHAIN", step="portion",
         world=large(edits={"GetCertificate": with_(length=100)})),
    Case(name="large form, a portion from another place", code="SPDM_CHAIN", step="portion",
         world=large(200, edits={"GetCertificate": where(lambda one: one.offset > 0, lambda one: replace(
             one, offset=one.offset + 1))})),
    Case(name="large form, an empty portion", code="SPDM_CHAIN", step=None,
         world=large(edits={"Certificate": with_(portion=b"")})),
    Case(name="large form, a truncated chain", code="SPDM_SLOT", step=None,
         world=V14.but(story=(digests(0), certificate(portion=300, stop_after=2, large=True), challenge()))),
    Case(name="large form, the length asked for altered", code="SPDM_SIGNATURE", step="signature",
         world=large(recorded=flip(GET_CERTIFICATE, 12))),
    Case(name="large form put in place of the ordinary one", code="SPDM_SIGNATURE", step="signature",
         world=V14.but(story=SHORT, recorded=enlarged)),
]  # fmt: skip

_X509 = [
    Case(name="a root nobody named", code="ROOT_UNTRUSTED", step="anchor", world=world(),
         trust_roots=lambda roots: [replace(roots[0], spki=roots[0].spki[:-1] + b"\0")]),
    Case(name="no roots", code="NO_TRUST_ROOTS", step="anchor", world=world(), trust_roots=lambda _: []),
    Case(name="a root of the same name", code="ROOT_UNTRUSTED", step="anchor",
         world=root(key="stranger"), trust_roots=lambda roots: [replace(roots[0], spki=_genuine_root())]),
    Case(name="an issuer that is no CA", code="CERT_CONSTRAINT", step="constraints", world=issuer(is_ca=False)),
    Case(name="an issuer that says nothing of being a CA", code="CERT_CONSTRAINT", step="constraints",
         world=issuer(is_ca=None)),
    Case(name="an issuer that may not sign certificates", code="CERT_CONSTRAINT", step="constraints",
         world=issuer(usage=KEY_AGREEMENT)),
    Case(name="a root without room below", code="CERT_CONSTRAINT", step="constraints", world=root(path_length=0)),
    Case(name="a leaf that is a CA", code="CERT_CONSTRAINT", step="constraints", world=leaf(is_ca=True)),
    Case(name="a leaf that may not sign", code="CERT_CONSTRAINT", step="constraints", world=leaf(usage=KEY_AGREEMENT)),
    Case(name="a leaf for requesters", code="CERT_CONSTRAINT", step="purposes",
         world=leaf(purposes=(REQUESTER_AUTH,))),
    Case(name="a critical extension of the leaf", code="CERT_CONSTRAINT", step="critical",
         world=leaf(critical_extra="1.2.3.4")),
    Case(name="a critical extension of the issuer", code="CERT_CONSTRAINT", step="critical",
         world=issuer(critical_extra="1.2.3.4")),
    Case(name="a leaf its issuer did not sign", code="CERT_SIGNATURE", step="signatures",
         world=leaf(signed_with="stranger")),
    Case(name="an issuer the root did not sign", code="CERT_SIGNATURE", step="signatures",
         world=issuer(signed_with="stranger")),
    Case(name="a root that did not sign itself", code="CERT_SIGNATURE", step="signatures",
         world=root(signed_with="stranger")),
    Case(name="a leaf of another issuer's name", code="CERT_CHAIN_INVALID", step="names",
         world=leaf(issuer_name="somebody")),
    Case(name="an issuer missing", code="CERT_CHAIN_INVALID", step=None,
         world=world(certificates=lambda found: (found[0], found[2]))),
    Case(name="certificates from the leaf up", code="SPDM_SIGNATURE", step=None,
         world=world(certificates=lambda found: found[::-1])),
    Case(name="an issuer on another curve", code="CERT_KEY_UNSUPPORTED", step="keys",
         world=issuer(kind="k256")),
    Case(name="a leaf on another curve", code="SPDM_KEY", step=None,
         world=world(leaf=replace(LEAF, kind="k256"), signing=lambda one: replace(one, key_kind="k256"))),
    Case(name="a leaf of the other family", code="SPDM_KEY", step=None,
         world=world(leaf=replace(LEAF, kind="rsa2048"))),
    Case(name="a leaf of another size", code="SPDM_KEY", step=None, world=world(leaf=replace(LEAF, kind="p384"))),
    Case(name="a leaf that is no certificate", code="CERT_CHAIN_INVALID", step=None,
         world=world(certificates=lambda found: (*found[:2], found[2][:40] + bytes(60) + found[2][100:]))),
    Case(name="a leaf expired", code="CERT_EXPIRED", step="validity", world=leaf(not_after=NOW - DAY)),
    Case(name="a leaf not valid yet", code="CERT_NOT_YET_VALID", step="validity", world=leaf(not_before=NOW + DAY)),
    Case(name="an issuer expired", code="CERT_EXPIRED", step="validity", world=issuer(not_after=NOW - 1)),
    Case(name="a root expired", code="CERT_EXPIRED", step="validity", world=root(not_after=NOW - 1)),
]  # fmt: skip


def _genuine_root() -> bytes:
    return V12.mint().root


CASES = [*_DELIVERED, *_LARGE, *_X509]
