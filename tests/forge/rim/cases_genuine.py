"""Unusual and genuine: what must be accepted. Strictness that refuses these is a fault."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.forge.rim.edits import INDEX7, ahead, swap
from tests.forge.rim.judge import Case, Device
from tests.forge.rim.world import (
    C14N_11,
    DRIVER,
    EXCLUSIVE,
    NOW,
    OPERATOR,
    SIGNER,
    SWITCH,
    VBIOS,
    Entry,
    before_the_end,
    value_of,
)


def good(name: str, **changes: Any) -> Case:
    return Case(name=name, code="", step=None, world=DRIVER.but(**changes))


def device(name: str, **facts: Any) -> Case:
    return Case(name=name, code="", step=None, device=Device(**facts))


def one_line(text: str) -> str:
    """base64 without line breaks."""
    head, *rest = text.split("<ds:X509Certificate>")
    return head + "".join("<ds:X509Certificate>" + one.replace("\n", "") for one in rest)


GENUINE_CASES = [
    good("as NVIDIA writes it"),
    good("exclusive canonical form", form="exclusive", info=swap(C14N_11, EXCLUSIVE)),
    good("white space around the signature", assemble=lambda body, text: before_the_end(body, f"\n  {text}\n"),
         digested=lambda body: before_the_end(body, "\n  \n")),
    good("signature before the payload", assemble=lambda body, text: body.replace("    <ns0:Payload", f"{text}    "
         "<ns0:Payload")),
    good("white space inside the signature", info=swap("><ds:", ">\n <ds:"), signature=swap("<ds:KeyInfo>",
         "\n<ds:KeyInfo>\n")),
    good("an XML declaration", sent=ahead('<?xml version="1.0" encoding="UTF-8"?>\n')),
    good("an XML declaration in single quotes", sent=ahead("<?xml version='1.0' encoding='utf-8'?>\n")),
    good("CRLF", sent=lambda data: data.replace(b"\n", b"\r\n")),
    good("white space behind", sent=lambda data: data + b"\n\n"),
    good("certificates without line breaks", signature=one_line),
    good("another prefix", body=lambda text: text.replace("ns0:", "swid:").replace(":ns0=", ":swid=")),
    good("no prefix", body=lambda text: text.replace("<ns0:", "<").replace("</ns0:", "</")),
    good("attributes in another order", sent=lambda data: data.replace(
        b'corpus="false" name="GH100"', b'name="GH100" corpus="false"')),
    good("single quotes", sent=lambda data: data.replace(b'"GH100"', b"'GH100'")),
    good("hexadecimal in capitals", body=lambda text: text.replace(value_of(7).hex(), value_of(7).hex().upper())),
    good("entries in another order", entries=tuple(reversed(DRIVER.entries))),
    good("attributes nobody knows on the root", body=swap("<SoftwareIdentity ", '<SoftwareIdentity media="x" ')),
    good("values of 32 bytes", entries=(*DRIVER.entries, Entry(index=41, size=32, active=False))),
    good("64 alternatives", entries=(*DRIVER.entries, Entry(index=41, alternatives=64))),
    good("the highest index, inactive", entries=(*DRIVER.entries, Entry(index=238, active=False))),
    good("tabs between entries", body=swap(INDEX7, f"\t{INDEX7}")),
    good("signer that ends now", signer=replace(SIGNER, not_after=NOW)),
    good("signer that begins now", signer=replace(SIGNER, not_before=NOW)),
    good("a newer name of the signer", signer=replace(SIGNER, common_name="RIM L4 Signer")),
    device("alternative values", values={24: value_of(23, 1), 13: value_of(12, 3), 36: value_of(35, 2)}),
    device("VBIOS version in small letters", vbios_version="96.00.74.00.1a"),
    device("NVDEC0's firmware differs, disabled", values={36: value_of(99)}, nvdec0_disabled=True),
    device("a chip nobody named", product=None),
    device("an inactive index differs", values={42: value_of(99)}),
    Case(name="a switch", code="", step=None, world=SWITCH, beside=(),
         device=Device(driver_version=None, vbios_version="96.10.55.00.01", product="LS10", edition="SWITCH")),
    Case(name="an operator's driver, NVIDIA's VBIOS", code="", step=None, world=OPERATOR),
    Case(name="manifests of a whole fleet", code="", step=None, beside=(
        VBIOS, SWITCH, DRIVER.but(version="580.1.2"), VBIOS.but(version="97.00.83.00.09", product="GB100"))),
    Case(name="the same manifest signed again", code="", step=None, beside=(
        VBIOS, DRIVER.but(signer=replace(SIGNER, serial=0x5E9F, not_after=NOW + 1)))),
]  # fmt: skip
