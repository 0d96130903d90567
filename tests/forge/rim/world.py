"""A signed manifest from one frozen value: `replace` one field of it, and everything signed after it follows.

root ── CA ── L3 ── signer ── SignedInfo ── digest ── document
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from lxml import etree

from tests.forge.dcap.certificates import CERTS_AND_CRLS, Cert, issue
from tests.forge.dcap.keys import key_of

NOW = 1_770_014_400
"""The moment of judgement, Unix seconds: 2026-02-02T06:40:00Z."""

DAY = 86_400
DSIG = "http://www.w3.org/2000/09/xmldsig#"
C14N_11 = "http://www.w3.org/2006/12/xml-c14n11"
EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
ENVELOPED = f"{DSIG}enveloped-signature"
SIGN = (True, False, False, False)

ROOT = Cert(
    common_name="NVIDIA CoRIM signing Root CA", key="rim root", serial=0x45DA, curve="p384", digest="sha384",
    not_before=1_678_981_054, not_after=2_624_369_854, is_ca=True, path_length=None, usage=CERTS_AND_CRLS,
)  # fmt: skip
CA = replace(ROOT, common_name="NVIDIA Reference Value GH100 CA", key="rim ca", serial=0xC6DB)
L3 = replace(ROOT, common_name="NVIDIA Reference Value L3 GH100 002", key="rim l3", serial=0xB4EB, path_length=0)
SIGNER = Cert(
    common_name="HCC RIM L4 Signer", key="rim signer", serial=0x5E9E, curve="p384", digest="sha384",
    not_before=NOW - 100 * DAY, not_after=NOW + 630 * DAY, usage=SIGN,
)  # fmt: skip


def value_of(index: int, alternative: int = 0) -> bytes:
    """The golden value of an index, 48 bytes."""
    return hashlib.sha384(f"measurement {index}/{alternative}".encode()).digest()


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A Resource element: its attributes are these unless `attributes` replaces some (None drops one)."""

    index: int
    active: bool = True
    alternatives: int = 1
    size: int = 48
    attributes: tuple[tuple[str, str | None], ...] = ()

    def text(self) -> str:
        facts: dict[str, str | None] = {
            "type": "Measurement", "index": f"{self.index}", "active": f"{self.active}",
            "alternatives": f"{self.alternatives}",
            **{f"ns2:Hash{one}": value_of(self.index, one)[: self.size].hex() for one in range(self.alternatives)},
            "name": f"Measurement_{self.index}", "size": f"{self.size}", **dict(self.attributes),
        }  # fmt: skip
        shown = " ".join(f'{name}="{value}"' for name, value in facts.items() if value is not None)
        return f"        <ns0:Resource {shown}/>\n"


DRIVER_ENTRIES = (
    Entry(index=0, active=False), Entry(index=7), Entry(index=21), Entry(index=23, alternatives=2),
    Entry(index=35, alternatives=4),
)  # fmt: skip
VBIOS_ENTRIES = (Entry(index=0), Entry(index=1), Entry(index=7, active=False), Entry(index=12, alternatives=4))

TEMPLATE = """<SoftwareIdentity xmlns="http://standards.iso.org/iso/19770/-2/2015/schema.xsd" \
xmlns:ns0="http://standards.iso.org/iso/19770/-2/2015/schema.xsd" xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha384" \
corpus="false" name="{product}" patch="false" supplemental="false" tagId="{tag}" version="1.0" tagVersion="0">
    <ns0:Entity name="NVIDIA Corporation" role="softwareCreator tagCreator"/>
    <ns0:Meta xmlns:ns1="https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-\
model/" colloquialVersion="{version}" edition="{edition}" product="{product}" revision="r1" PayloadType="direct" \
ns1:BindingSpec="RIMIM" ns1:BindingSpecVersion="1.01" ns1:PlatformManufacturerId="5703" \
ns1:PlatformManufacturerStr="NVIDIA Corporation" ns1:PlatformModel="{product}" \
ns1:FirmwareManufacturer="NVIDIA Corporation" ns1:FirmwareManufacturerId="5703"/>
    <ns0:Payload xmlns:SHA384="http://www.w3.org/2001/04/xmlenc#sha384">
{entries}    </ns0:Payload>
</SoftwareIdentity>
"""
SIGNED_INFO = f"""<ds:SignedInfo><ds:CanonicalizationMethod Algorithm="{C14N_11}"/><ds:SignatureMethod \
Algorithm="http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"/><ds:Reference URI=""><ds:Transforms><ds:Transform \
Algorithm="{ENVELOPED}"/><ds:Transform Algorithm="{C14N_11}"/></ds:Transforms><ds:DigestMethod \
Algorithm="http://www.w3.org/2001/04/xmldsig-more#sha384"/><ds:DigestValue>DIGEST</ds:DigestValue></ds:Reference>\
</ds:SignedInfo>"""
_SIGNATURE = '<ds:Signature xmlns:ds="{dsig}">{info}<ds:SignatureValue>VALUE</ds:SignatureValue><ds:KeyInfo>{data}\
</ds:KeyInfo></ds:Signature>'
_PERMISSIVE = {"resolve_entities": False, "no_network": True}


def same(value: Any) -> Any:
    return value


def before_the_end(body: str, signature: str) -> str:
    """The signature as the root's last child."""
    head, tag, tail = body.rpartition("</SoftwareIdentity>")
    return head + signature + tag + tail


@dataclass(frozen=True, kw_only=True)
class World:
    """A genuine driver RIM, unless a field says otherwise.

    Edits: `body` changes the document before it is digested, `info` the SignedInfo before it is signed, `signature` the
    Signature element after that, `sent` all of it, as bytes. `assemble` puts body and signature together. `digested`
    is the body that is digested instead. `form` is "inclusive" or "exclusive", whatever the algorithms are called.
    """

    version: str = "550.144.03"
    product: str = "GH100"
    edition: str = "GPU"
    tag: str = "8aa5c875798aecff"
    entries: tuple[Entry, ...] = DRIVER_ENTRIES
    root: Cert = ROOT
    ca: Cert | None = CA
    l3: Cert | None = L3
    signer: Cert = SIGNER
    body: Callable[[str], str] = same
    digested: Callable[[str], str] = same
    info: Callable[[str], str] = same
    signature: Callable[[str], str] = same
    assemble: Callable[[str, str], str] = before_the_end
    sent: Callable[[bytes], bytes] = same
    certificates: Callable[[tuple[bytes, ...]], tuple[bytes, ...]] = same
    signed_with: tuple[str, str] | None = None
    form: str = "inclusive"

    def but(self, **changes: Any) -> World:
        """This world with one fact changed."""
        return replace(self, **changes)

    def text(self) -> str:
        """The document without its signature."""
        entries = "".join(one.text() for one in self.entries)
        facts = {"version": self.version, "product": self.product, "edition": self.edition, "tag": self.tag}
        return self.body(TEMPLATE.format(entries=entries, **facts))

    def path(self) -> tuple[bytes, ...]:
        """DER of the certificates, signer first."""
        certs = [one for one in (self.signer, self.l3, self.ca, self.root) if one is not None]
        return tuple(issue(one, above) for one, above in zip(certs, [*certs[1:], None], strict=True))

    def mint(self) -> bytes:
        """The manifest, signed."""
        body = self.text()
        digest = hashlib.sha384(self._canonical(_parsed(self.digested(body)))).digest()
        info = self.info(SIGNED_INFO).replace("DIGEST", base64.b64encode(digest).decode())
        ders = self.certificates(self.path())
        data = "".join(f"<ds:X509Certificate>{text_of(der)}</ds:X509Certificate>" for der in ders)
        unsigned = _SIGNATURE.format(dsig=DSIG, info=info, data=f"<ds:X509Data>{data}</ds:X509Data>")
        placed = _parsed(self.assemble(body, unsigned)).iter(f"{{{DSIG}}}SignedInfo")
        signed = self._canonical(list(placed)[-1])
        value = sign(*(self.signed_with or (self.signer.key, self.signer.curve)), signed)
        signature = self.signature(unsigned.replace("VALUE", base64.b64encode(value).decode()))
        return self.sent(self.assemble(body, signature).encode())

    def _canonical(self, element: Any) -> bytes:
        return bytes(etree.tostring(element, method="c14n", exclusive=self.form == "exclusive", with_comments=False))


def text_of(data: bytes) -> str:
    """base64 in lines, as NVIDIA breaks them."""
    text = base64.b64encode(data).decode()
    return "".join(text[at : at + 64] + "\n" for at in range(0, len(text), 64))


def sign(key: str, curve: str, message: bytes) -> bytes:
    """r‖s over SHA-384 of `message`."""
    private = key_of(key, curve)
    r, s = decode_dss_signature(private.sign(message, ec.ECDSA(SHA384(), deterministic_signing=True)))
    size = private.key_size // 8
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def _parsed(text: str) -> Any:
    return etree.fromstring(text.encode(), etree.XMLParser(**_PERMISSIVE))


DRIVER = World()
VBIOS = World(version="96.00.74.00.1A", tag="1917d8f22069554f", entries=VBIOS_ENTRIES)
SWITCH = World(
    version="96.10.55.00.01", product="LS10", edition="SWITCH", tag="6b6fefd8", entries=VBIOS_ENTRIES,
    ca=replace(CA, common_name="NVIDIA Reference Value LS10 CA"),
    l3=replace(L3, common_name="NVIDIA Reference Value L3 LS10 001"),
    signer=replace(SIGNER, common_name="NVIDIA Reference Value L4 LS10"),
)  # fmt: skip
OPERATOR = World(
    root=replace(ROOT, common_name="Operator's reference values", key="operator", path_length=0), ca=None, l3=None,
    signer=replace(SIGNER, common_name="Operator's signer", key="operator's signer"),
)  # fmt: skip
