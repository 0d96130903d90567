"""Hostile OCSP responses and revocation lists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cryptography import x509

from tests.forge.nvidia.cases_report import case
from tests.forge.nvidia.certificates import DATA, Answer, List, key_bits
from tests.forge.nvidia.judge import EVERYTHING, Case
from tests.forge.nvidia.world import BLACKWELL, BROM, DAY, FAMILY, HOPPER, LS10, NOW, PROVISIONER, World, good_answers
from verifier.abi import der

CLIENT_AUTH = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.2")
HOUR = 3600
NO_REVOCATION = replace(EVERYTHING, demand_revocation=False)


def answered(place: int, world: World = HOPPER, **changes: Any) -> World:
    """The world with the answer about the certificate at `place` changed."""
    return world.but(answers=tuple(replace(a, **changes) if a.about == place else a for a in world.answers))


def ocsp(name: str, code: str, step: str | None, place: int = 3, world: World = HOPPER, **changes: Any) -> Case:
    return Case(name=name, code=code, step=step, world=answered(place, world, **changes))


def with_more(*more: Answer, world: World = HOPPER) -> World:
    return world.but(answers=(*world.answers, *more))


def edited(find: bytes, put: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data.replace(find, put, 1)


def malformed(name: str, sent: Callable[[bytes], bytes]) -> Case:
    return ocsp(name, "OCSP_MALFORMED", None, sent=sent)


def critical(oid: str) -> bytes:
    """Response extensions: one critical one."""
    name = x509.ObjectIdentifier(oid)
    encoded = x509.UnrecognizedExtension(name, b"\x05\x00")
    arcs = bytes.fromhex("2a0304") if name.dotted_string == "1.2.3.4" else b""
    extension = der.sequence(der.Der(der.OBJECT_ID, arcs), der.boolean(True), der.octets(encoded.value))
    return der.sequence(extension).encode()


OLD_REVOCATION = Answer(about=3, this_update=NOW - 30 * DAY, next_update=NOW - 20 * DAY, status="revoked")
NEWEST_IS_OLD = tuple(replace(a, this_update=NOW - 9 * DAY, next_update=NOW - DAY) for a in good_answers())
CERTIFICATE_OF_THE_STATUS = b"\x80\x00"

ANSWERS = [
    ocsp("boot ROM revoked", "CERT_REVOKED", "ocsp_revoked", status="revoked", reason=1),
    ocsp("boot ROM on hold", "CERT_REVOKED", "ocsp_revoked", status="revoked", reason=6),
    ocsp("provisioner revoked", "CERT_REVOKED", "ocsp_revoked", 2, LS10, status="revoked"),
    ocsp("family revoked", "CERT_REVOKED", "ocsp_revoked", 1, BLACKWELL, status="revoked", reason=2),
    case("leaf revoked", "CERT_REVOKED", "ocsp_revoked", with_more(
        Answer(about=4, this_update=NOW - HOUR, next_update=NOW + DAY, status="revoked"))),
    case("revoked by an expired answer, good by a newer one", "CERT_REVOKED", "ocsp_revoked",
         with_more(OLD_REVOCATION)),
    ocsp("boot ROM unknown to its issuer", "OCSP_UNKNOWN", "ocsp_known", status="unknown"),
    ocsp("out of date", "OCSP_EXPIRED", "ocsp_window", next_update=NOW),
    ocsp("out of date for long", "OCSP_EXPIRED", "ocsp_window", 1, this_update=NOW - 90 * DAY,
         next_update=NOW - 80 * DAY, responder={"not_after": NOW + DAY}),
    ocsp("no next update, two days old", "OCSP_EXPIRED", "ocsp_window", this_update=NOW - 2 * DAY, next_update=None),
    ocsp("from the future", "OCSP_NOT_YET_VALID", "ocsp_window", this_update=NOW + 1,
         responder={"not_before": NOW - DAY}),
    ocsp("made in the future", "OCSP_NOT_YET_VALID", "ocsp_window", produced=NOW + HOUR),
    ocsp("responder without OCSP signing", "OCSP_RESPONDER", "delegation", responder={"purposes": ()}),
    ocsp("responder for clients", "OCSP_RESPONDER", "delegation", responder={"purposes": (CLIENT_AUTH,)}),
    ocsp("responder issued by the root", "OCSP_RESPONDER", "delegation", responder_issuer=0),
    ocsp("responder issued by the boot ROM", "OCSP_RESPONDER", "delegation", responder_issuer=3),
    ocsp("responder signed by a stranger", "OCSP_RESPONDER", "delegation", responder={"signed_with": "stranger"}),
    ocsp("responder that is a CA", "OCSP_RESPONDER", "delegation", responder={"is_ca": True}),
    ocsp("responder that may not sign data", "OCSP_RESPONDER", "delegation",
         responder={"usage": (False, False, True)}),
    ocsp("responder with a critical extension", "OCSP_RESPONDER", "delegation",
         responder={"extensions": (("1.2.3.4", b"\x05\x00", True),)}),
    ocsp("responder on secp256k1", "OCSP_RESPONDER", "delegation", responder={"curve": "k256"}),
    ocsp("responder expired", "OCSP_RESPONDER", "responder_window", responder={"not_after": NOW - 1}),
    ocsp("responder not yet valid", "OCSP_RESPONDER", "responder_window", responder={"not_before": NOW + 1}),
    ocsp("no certificate of the responder", "OCSP_RESPONDER", None, certificates=False),
    ocsp("signed by a stranger", "OCSP_SIGNATURE", "ocsp_signature", signed_with="stranger"),
    ocsp("signed by the subject", "OCSP_SIGNATURE", "ocsp_signature", signed_with="nvidia brom"),
    ocsp("the issuer answers, a stranger signs", "OCSP_SIGNATURE", "ocsp_signature", 2, by_issuer=True,
         signed_with="stranger"),
    ocsp("an unknown certificate overwritten with a good one", "OCSP_SIGNATURE", "ocsp_signature", status="unknown",
         sent=edited(b"\x82\x00\x18\x0f", b"\x80\x00\x18\x0f")),
    ocsp("the window moved after signing", "OCSP_SIGNATURE", "ocsp_signature", 1,
         sent=edited(b"20260208064000Z", b"20260209064000Z")),
    case("the newest answer is out of date", "OCSP_EXPIRED", "ocsp_window", HOPPER.but(answers=NEWEST_IS_OLD)),
]  # fmt: skip

SILENT = [
    case("no answers at all", "REVOCATION_UNCHECKED", "RevocationChecked", HOPPER, answers=()),
    case("nothing about the boot ROM", "REVOCATION_UNCHECKED", "RevocationChecked", LS10, answers=good_answers()[:2]),
    case("only the leaf is spoken of", "REVOCATION_UNCHECKED", "RevocationChecked", HOPPER,
         answers=(Answer(about=4, this_update=NOW - HOUR, next_update=NOW + DAY),)),
    ocsp("an answer about a namesake of another issuer", "REVOCATION_UNCHECKED", "RevocationChecked",
         issuer_key=key_bits("stranger")),
    case("a list of the root alone", "REVOCATION_UNCHECKED", "RevocationChecked", HOPPER, answers=(),
         lists=(List(issuer=0, this_update=NOW - DAY, next_update=NOW + DAY),)),
]  # fmt: skip

MALFORMED = [
    malformed("no bytes", lambda data: b""),
    malformed("20 KB", lambda data: data + bytes(20_000)),
    malformed("cut by one byte", lambda data: data[:-1]),
    malformed("a byte too many", lambda data: data + b"\x00"),
    malformed("the responder is overloaded", lambda data: b"\x30\x03\x0a\x01\x03"),
    malformed("the responder does not know us", lambda data: b"\x30\x03\x0a\x01\x06"),
    malformed("success without an answer", lambda data: b"\x30\x03\x0a\x01\x00"),
    malformed("another response type", edited(bytes.fromhex("0507300101"), bytes.fromhex("0507300102"))),
    malformed("a time that is none", edited(b"20260201064000Z", b"20261301064000Z")),
    malformed("a status nobody knows", edited(CERTIFICATE_OF_THE_STATUS, b"\x84\x00")),
    ocsp("a critical extension", "OCSP_MALFORMED", None, extensions=critical("1.2.3.4")),
    ocsp("a certificate that is none", "OCSP_MALFORMED", None,
         sent=edited(b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03\x30", b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x09\x30")),
]  # fmt: skip


def listed(name: str, code: str, step: str | None, issuer: int, **changes: Any) -> Case:
    what = List(**({"issuer": issuer, "this_update": NOW - DAY, "next_update": NOW + DAY} | changes))
    return Case(name=name, code=code, step=step, world=HOPPER.but(lists=(what,)), demands=NO_REVOCATION)


OLDER = {"this_update": NOW - 30 * DAY, "next_update": NOW - 20 * DAY}
FAMILY_LIST = List(issuer=0, this_update=NOW - DAY, next_update=NOW + DAY)
PROVISIONER_LIST = replace(FAMILY_LIST, issuer=1)


def lists_of_family(name: str, code: str, step: str | None, *more: List) -> Case:
    return Case(name=name, code=code, step=step, world=HOPPER.but(lists=(FAMILY_LIST, *more)), demands=NO_REVOCATION)


LISTS = [
    lists_of_family("family in an older list, not in the newest", "CERT_REVOKED", "list",
                    replace(FAMILY_LIST, this_update=NOW - 2 * DAY, revoked=(FAMILY.serial,))),
    lists_of_family("family in a list that is out of date, beside a good one", "CERT_REVOKED", "list",
                    replace(FAMILY_LIST, revoked=(FAMILY.serial,), **OLDER)),
    listed("family in a list that is out of date", "CERT_REVOKED", None, 0, revoked=(FAMILY.serial,), **OLDER),
    listed("provisioner in its issuer's list", "CERT_REVOKED", "list", 1, revoked=(PROVISIONER.serial,)),
    listed("family in the root's list", "CERT_REVOKED", "list", 0, revoked=(1, FAMILY.serial, 3)),
    listed("boot ROM in the provisioner's list", "CERT_REVOKED", "list", 2, revoked=(BROM.serial,)),
    listed("list out of date", "COLLATERAL_EXPIRED", "list_window", 1, next_update=NOW),
    listed("list from the future", "COLLATERAL_NOT_YET_VALID", "list_window", 1, this_update=NOW + 1),
    Case(name="list signed by a stranger, and no answers", code="COLLATERAL_SIGNATURE", step="list_signature",
         world=HOPPER.but(answers=(), lists=(replace(PROVISIONER_LIST, signed_with="stranger"),)),
         demands=NO_REVOCATION),
    Case(name="list of a family that may sign none, and no answers", code="COLLATERAL_SIGNATURE",
         step="list_signature", world=HOPPER.but(
             answers=(), family=replace(HOPPER.family, usage=(False, True, False)), lists=(PROVISIONER_LIST,)),
         demands=NO_REVOCATION),
]  # fmt: skip

LISTS_OF_ALL = tuple(List(issuer=place, this_update=NOW - DAY, next_update=NOW + DAY) for place in (0, 1, 2))

ALL_REVOKED = tuple(
    List(issuer=place, this_update=NOW - 60, next_update=NOW + DAY, signed_with="stranger",
         revoked=tuple(one.serial for one in HOPPER.certificates()))
    for place in range(4)
)  # fmt: skip

GENUINE = [
    Case(name="foreign lists beside answers", code="", step=None, world=HOPPER.but(lists=ALL_REVOKED)),
    Case(name="foreign lists beside genuine ones", code="", step=None,
         world=HOPPER.but(answers=(), lists=(*ALL_REVOKED, *LISTS_OF_ALL))),
    Case(name="foreign answers beside genuine ones", code="", step=None, world=with_more(*(
        Answer(about=place, this_update=NOW - 60, next_update=NOW + DAY, status="revoked", signed_with="stranger")
        for place in (1, 2, 3, 4)))),
    Case(name="foreign answers beside lists", code="", step=None, world=HOPPER.but(
        answers=tuple(replace(a, signed_with="stranger") for a in good_answers()), lists=LISTS_OF_ALL)),
    Case(name="list of a boot ROM that may sign none", code="", step=None,
         world=HOPPER.but(lists=(List(issuer=3, this_update=NOW - DAY, next_update=NOW + DAY),))),
    Case(name="the issuers answer themselves", code="", step=None, world=HOPPER.but(
        answers=tuple(replace(a, by_issuer=True) for a in good_answers()))),
    Case(name="responders named by key", code="", step=None, world=HOPPER.but(
        answers=tuple(replace(a, by_key=True) for a in good_answers()))),
    Case(name="certificate ids with SHA-1", code="", step=None, world=LS10.but(
        answers=tuple(replace(a, hash_name="sha1") for a in good_answers()))),
    Case(name="a responder on P-256", code="", step=None, world=HOPPER.but(answers=tuple(
        replace(a, digest="sha256", responder={"curve": "p256", "usage": DATA}) for a in good_answers()))),
    Case(name="no next update, an hour old", code="", step=None, world=answered(
        3, this_update=NOW - HOUR, next_update=None)),
    Case(name="an older answer that is out of date", code="", step=None,
         world=with_more(*NEWEST_IS_OLD)),
    Case(name="lists in place of answers", code="", step=None, world=HOPPER.but(answers=(), lists=LISTS_OF_ALL)),
    Case(name="an older list that is out of date", code="", step=None, world=HOPPER.but(
        answers=(), lists=(*LISTS_OF_ALL, *(replace(one, **OLDER) for one in LISTS_OF_ALL)))),
    Case(name="newer lists of namesakes", code="", step=None, world=HOPPER.but(answers=(), lists=(*LISTS_OF_ALL, *(
        replace(one, this_update=NOW, next_update=NOW + 9 * DAY, revoked=(FAMILY.serial,), signed_with="stranger")
        for one in LISTS_OF_ALL)))),
    Case(name="a list of tomorrow beside todays", code="", step=None, world=HOPPER.but(answers=(), lists=(
        *LISTS_OF_ALL, replace(FAMILY_LIST, this_update=NOW + DAY // 2, revoked=(FAMILY.serial,))))),
    Case(name="an answer of tomorrow beside todays", code="", step=None, world=with_more(
        Answer(about=3, this_update=NOW + HOUR, next_update=NOW + DAY, status="revoked"),
        Answer(about=2, this_update=NOW - HOUR, produced=NOW + HOUR, next_update=NOW + DAY, status="unknown"))),
    Case(name="answers about other devices", code="", step=None, world=with_more(
        replace(OLD_REVOCATION, issuer_key=key_bits("stranger")))),
]  # fmt: skip

CASES = [*ANSWERS, *SILENT, *MALFORMED, *LISTS]
