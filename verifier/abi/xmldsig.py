"""One form of XML signature: enveloped, over the whole document (XMLDSig Core 1.1; ATTESTATION.md §9.3).

Nothing is looked up by id or path, so nothing can be moved under a signature. What is verified are two byte strings
that come out of here: `content`, which the digest covers, and `signed_info`, which the signature covers. Whoever reads
the document afterwards reads `content`, never the file.

The steps, in order; the same numbers stand at the code:

 1. One Signature in the whole document, a child of the root, and nothing of its namespace outside of it.
 2. Its elements are SignedInfo, SignatureValue and KeyInfo with one X509Data; inside, each element at its place,
    once, without attributes or text of its own. No Object, no KeyValue, no second Reference.
 3. The algorithms are the ones accepted: SHA-384, ECDSA with SHA-384, one canonical form.
 4. The reference is to the document as a whole (URI ""), through the enveloped-signature transform and that form.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass

from verifier.abi.xml import CANONICAL_FORMS, Element, canonical, parse_xml, without
from verifier.errors import RimProfile
from verifier.limits import MAX_RIM_CERTIFICATES

NAMESPACE = "http://www.w3.org/2000/09/xmldsig#"
ECDSA_SHA384 = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
SHA384 = "http://www.w3.org/2001/04/xmldsig-more#sha384"
ENVELOPED = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"

_DIGEST_BYTES, _SIGNATURE_BYTES = 48, 96
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedXml:
    """A signed document, taken apart; neither its digest nor its signature is verified yet.

    `content` is the canonical document without its signature, `digest` (48 bytes) what SHA-384 of it should be;
    `signed_info` the canonical SignedInfo, which contains that digest, `signature` r‖s over it (96 bytes).
    `certificates` are DER, as delivered: the signer's first.
    """

    content: bytes
    digest: bytes
    signed_info: bytes
    signature: bytes
    certificates: tuple[bytes, ...]

    @property
    def actual_digest(self) -> bytes:
        """SHA-384 of `content`, 48 bytes."""
        return hashlib.sha384(self.content).digest()


def parse_signed_xml(data: bytes) -> SignedXml:
    """The signed document of the XML text `data`. Raises `RimTooLarge`, `RimMalformed`, `RimProfile`."""
    root = parse_xml(data)
    # (1)
    signature = find_signature(root)
    # (2)
    check_children(signature, ("SignedInfo", "SignatureValue", "KeyInfo"))
    info, value, key = (
        _first(signature, "SignedInfo"),
        _first(signature, "SignatureValue"),
        _first(signature, "KeyInfo"),
    )
    check_children(info, ("CanonicalizationMethod", "SignatureMethod", "Reference"))
    reference = _first(info, "Reference")
    check_children(reference, ("Transforms", "DigestMethod", "DigestValue"))
    check_children(key, ("X509Data",))
    for element in (signature, info, value, key, *_below(reference, key)):
        check_attributes(element)
    # (3)
    method = _first(info, "CanonicalizationMethod")
    form = method.get("Algorithm")
    check_algorithm(method, CANONICAL_FORMS)
    check_algorithm(_first(info, "SignatureMethod"), {ECDSA_SHA384})
    check_algorithm(_first(reference, "DigestMethod"), {SHA384})
    # (4)
    check_reference(reference)
    transform = check_transforms(_first(reference, "Transforms"))
    return SignedXml(
        signed_info=canonical(info, form),
        digest=_octets(_first(reference, "DigestValue"), _DIGEST_BYTES),
        signature=_octets(value, _SIGNATURE_BYTES),
        certificates=_certificates(_first(key, "X509Data")),
        content=canonical(without(root, signature), transform),
    )


def find_signature(root: Element) -> Element:
    """The Signature element, child of the root. `RimProfile`."""
    found = [child for child in root if child.tag == f"{{{NAMESPACE}}}Signature"]
    if not found:
        raise RimProfile("no signature of the document", field="signature")
    check_one_signature(root, found[-1])
    return found[-1]


def check_one_signature(root: Element, signature: Element) -> None:
    """No element of the signature namespace outside `signature`, no Signature inside. `RimProfile`."""
    of_signature = sum(1 for _ in signature.iter(f"{{{NAMESPACE}}}*"))
    if sum(1 for _ in root.iter(f"{{{NAMESPACE}}}*")) != of_signature:
        raise RimProfile("parts of a signature outside the signature", field="signature")
    if sum(1 for _ in signature.iter(f"{{{NAMESPACE}}}Signature")) != 1:
        raise RimProfile("a signature inside the signature", field="signature")


def check_children(element: Element, names: tuple[str, ...]) -> None:
    """Exactly the elements `names` of the signature namespace, in order, and no text between them. `RimProfile`."""
    if [child.tag for child in element] != [f"{{{NAMESPACE}}}{name}" for name in names]:
        wanted = ", ".join(names)
        raise RimProfile(f"{_name(element)} does not consist of {wanted}", field=_name(element))
    if (element.text or "").strip() or any((child.tail or "").strip() for child in element):
        raise RimProfile(f"text inside {_name(element)}", field=_name(element))


def check_attributes(element: Element) -> None:
    """No attribute where none is needed. `RimProfile`."""
    if element.attrib:
        raise RimProfile(f"{_name(element)} has attributes", field=_name(element))


def check_algorithm(element: Element, accepted: frozenset[str] | set[str]) -> None:
    """One attribute, an accepted algorithm, and no parameters below it. `RimProfile`."""
    if dict(element.attrib).keys() != {"Algorithm"} or element.get("Algorithm") not in accepted:
        raise RimProfile(f"{_name(element)} names an algorithm that is not accepted", field=_name(element))
    check_children(element, ())


def check_reference(reference: Element) -> None:
    """The document as a whole: URI "", no type, no id. `RimProfile`."""
    if dict(reference.attrib) != {"URI": ""}:
        raise RimProfile("the signature is not over the whole document", field="Reference")


def check_transforms(transforms: Element) -> str:
    """Enveloped signature, then a canonical form, which is returned. `RimProfile`."""
    check_children(transforms, ("Transform", "Transform"))
    check_algorithm(transforms[0], {ENVELOPED})
    check_algorithm(transforms[1], CANONICAL_FORMS)
    return str(transforms[1].get("Algorithm"))


def _certificates(data: Element) -> tuple[bytes, ...]:
    if len(data) > MAX_RIM_CERTIFICATES:
        raise RimProfile(f"more than {MAX_RIM_CERTIFICATES} certificates", field="X509Data")
    check_children(data, ("X509Certificate",) * max(len(data), 1))
    return tuple(_octets(certificate, None) for certificate in data)


def _octets(element: Element, size: int | None) -> bytes:
    """The bytes of an element's base64 text; white space may stand in it, nothing else."""
    check_children_of_text(element)
    text = "".join((element.text or "").split())
    if len(text) % 4 or _BASE64.fullmatch(text) is None:
        raise RimProfile(f"{_name(element)} is not base64", field=_name(element))
    data = base64.b64decode(text)
    if size is not None and len(data) != size:
        raise RimProfile(f"{_name(element)} has {len(data)} bytes instead of {size}", field=_name(element))
    return data


def check_children_of_text(element: Element) -> None:
    """No element inside a text: it would hide what stands behind it. `RimProfile`."""
    if len(element):
        raise RimProfile(f"elements inside {_name(element)}", field=_name(element))


def _first(element: Element, name: str) -> Element:
    found = element.find(f"{{{NAMESPACE}}}{name}")
    if found is None:
        raise RimProfile(f"{_name(element)} has no {name}", field=_name(element))
    return found


def _below(reference: Element, key: Element) -> list[Element]:
    """What has no attributes inside a reference and a KeyInfo."""
    data = _first(key, "X509Data")
    return [_first(reference, "Transforms"), _first(reference, "DigestValue"), data, *data]


def _name(element: Element) -> str:
    """An element's name in its namespace, as errors show it: never a stranger's text."""
    name = str(element.tag).rpartition("}")[2]
    return name if name in _NAMES else "element"


_NAMES = frozenset({
    "Signature", "SignedInfo", "SignatureValue", "KeyInfo", "X509Data", "X509Certificate", "Reference", "Transforms",
    "Transform", "CanonicalizationMethod", "SignatureMethod", "DigestMethod", "DigestValue",
})  # fmt: skip
