"""Signatures of other forms than the one accepted, and wrapping in its classic forms (ATTESTATION.md §11.3 item 3)."""

from __future__ import annotations

import base64
from collections.abc import Callable

from tests.forge.rim.edits import INDEX7, LIE_VALUE, case, lying, sent, swap
from tests.forge.rim.judge import Case, Device
from tests.forge.rim.world import C14N_11, DRIVER, DSIG, ENVELOPED, EXCLUSIVE, before_the_end

PROFILE, DIGEST, SIGNATURE = "RIM_PROFILE", "RIM_DIGEST", "RIM_SIGNATURE"
LIAR = Device(values={8: LIE_VALUE})
"""A device that measured what the lying manifest says."""

END = "</SoftwareIdentity>"
REFERENCE_END = "</ds:Reference>"
C14N = f'<ds:Transform Algorithm="{C14N_11}"/>'
ENVELOPE = f'<ds:Transform Algorithm="{ENVELOPED}"/>'
ORIGINAL = DRIVER.mint().decode()
SIGNED_BODY = DRIVER.text()
ITS_SIGNATURE = ORIGINAL[ORIGINAL.index("<ds:Signature ") : ORIGINAL.index("</ds:Signature>") + len("</ds:Signature>")]
"""A genuine signature, for use elsewhere."""

GENUINE_VALUE = base64.b64decode(ITS_SIGNATURE.partition("<ds:SignatureValue>")[2].partition("<")[0])


def exactly(text: str) -> Callable[[bytes], bytes]:
    """This document, whatever was minted."""
    return lambda _: text.encode()


def liar(name: str, code: str, text: str, step: str | None = None) -> Case:
    """A document made of genuine parts, and a device that measured the lie in it."""
    return Case(name=name, code=code, step=step, world=DRIVER.but(sent=exactly(text)), device=LIAR)


def inside(signature: str, what: str) -> str:
    """`what` in an Object of the signature."""
    return signature.replace("</ds:Signature>", f"<ds:Object>{what}</ds:Object></ds:Signature>")


FALSE_BODY = lying(SIGNED_BODY)
PLAIN = SIGNED_BODY.strip()
BY_ID = swap('URI=""', 'URI="#rim"')
WITH_ID = swap("<SoftwareIdentity ", '<SoftwareIdentity Id="rim" ')
IDENTIFIED = DRIVER.but(body=WITH_ID, info=BY_ID)
SIGNED_BY_ID = IDENTIFIED.mint().decode().strip()
ID_SIGNATURE = SIGNED_BY_ID[SIGNED_BY_ID.index("<ds:Signature ") : SIGNED_BY_ID.index(END)]
ID_BODY = SIGNED_BY_ID.replace(ID_SIGNATURE, "")

WRAPPED = [
    liar("wrapped: the original inside the forgery's root", PROFILE,
         before_the_end(FALSE_BODY, ORIGINAL.strip())),
    liar("wrapped: the original and its signature side by side in the forgery", DIGEST,
         before_the_end(FALSE_BODY, PLAIN + ITS_SIGNATURE)),
    liar("wrapped: the original in an Object of its signature", PROFILE,
         before_the_end(FALSE_BODY, inside(ITS_SIGNATURE, PLAIN))),
    liar("wrapped: the signature on a forged document", DIGEST, before_the_end(FALSE_BODY, ITS_SIGNATURE)),
    liar("wrapped: the forgery inside the original's root", PROFILE,
         ORIGINAL.replace(END, before_the_end(FALSE_BODY, ITS_SIGNATURE) + END)),
    liar("wrapped: the forgery's payload first", DIGEST, before_the_end(
        PLAIN.replace("    <ns0:Payload ", FALSE_BODY[FALSE_BODY.index("    <ns0:Payload "): FALSE_BODY.index(END)]
                      + "    <ns0:Payload "), ITS_SIGNATURE)),
    liar("wrapped by id: the original beside the forgery", PROFILE,
         before_the_end(FALSE_BODY, ID_BODY + ID_SIGNATURE)),
    liar("wrapped by id: the original in an Object", PROFILE,
         before_the_end(FALSE_BODY, inside(ID_SIGNATURE, ID_BODY))),
    liar("wrapped by id: the original holds the forgery and the signature", PROFILE,
         ID_BODY.replace(END, FALSE_BODY.strip() + ID_SIGNATURE + END)),
    liar("wrapped by id: two elements of one id", PROFILE,
         before_the_end(WITH_ID(FALSE_BODY), ID_BODY + ID_SIGNATURE)),
    liar("the forgery inside a signed text", PROFILE, ORIGINAL.replace(
        "</ds:SignatureValue>", f"{FALSE_BODY.strip()}</ds:SignatureValue>")),
    Case(name="wrapped: the signature of a document with the other meaning", code=DIGEST, step="digest",
         world=DRIVER.but(body=lying, digested=lambda _: SIGNED_BODY), device=LIAR),
]  # fmt: skip

SEVERAL = [
    case("no signature", PROFILE, None, signature=lambda text: ""),
    case("a signature of another namespace", PROFILE, None, sent=sent(DSIG + '"><ds:S', 'http://example.org/"><ds:S')),
    case("an empty signature before the real one", PROFILE, "one_signature",
         body=swap(END, f'<ds:Signature xmlns:ds="{DSIG}"/>{END}')),
    case("a genuine signature of another document before the real one", PROFILE, "one_signature",
         body=swap(END, ITS_SIGNATURE + END)),
    case("the signature twice", PROFILE, None, assemble=lambda body, text: before_the_end(body, text + text)),
    case("a certificate outside the signature", PROFILE, None, body=swap(
        "    <ns0:Payload ", f'<ds:X509Data xmlns:ds="{DSIG}"/><ns0:Payload ')),
    case("a signature inside the signature", PROFILE, None,
         signature=lambda text: inside(text, ITS_SIGNATURE)),
    case("the signature inside the payload", PROFILE, None,
         assemble=lambda body, text: body.replace("</ns0:Payload>", text + "</ns0:Payload>")),
    case("an Object", PROFILE, "children", signature=lambda text: inside(text, "<a/>")),
    case("a manifest of references", PROFILE, "children",
         signature=lambda text: inside(text, "<ds:Manifest><ds:Reference/></ds:Manifest>")),
    case("two references", PROFILE, "children", info=swap(REFERENCE_END, f'{REFERENCE_END}<ds:Reference URI="#a"/>')),
    case("a reference to elsewhere first", PROFILE, None, info=swap("<ds:Reference ", '<ds:Reference URI="http://a/"/>'
         "<ds:Reference ")),
    case("no reference", PROFILE, None, info=lambda text: text[: text.index("<ds:Reference")] + "</ds:SignedInfo>"),
    case("two signature values", PROFILE, "children", signature=swap(
        "</ds:SignatureValue>", "</ds:SignatureValue><ds:SignatureValue/>")),
    case("no KeyInfo", PROFILE, None, signature=lambda text: text[: text.index("<ds:KeyInfo>")] + "</ds:Signature>"),
    case("a bare key beside the certificates", PROFILE, "children", signature=swap(
        "</ds:KeyInfo>", "<ds:KeyValue/></ds:KeyInfo>")),
    case("a bare key instead of certificates", PROFILE, None, signature=lambda text: text[: text.index(
        "<ds:X509Data>")] + "<ds:KeyValue/></ds:KeyInfo></ds:Signature>"),
    case("a way to fetch the key", PROFILE, None, signature=swap(
        "<ds:X509Data>", '<ds:RetrievalMethod URI="http://a/"/><ds:X509Data>')),
    case("two X509Data", PROFILE, "children", signature=swap("</ds:X509Data>", "</ds:X509Data><ds:X509Data/>")),
    case("a subject name among the certificates", PROFILE, None, signature=swap(
        "</ds:X509Data>", "<ds:X509SubjectName>CN=a</ds:X509SubjectName></ds:X509Data>")),
    case("no certificate", PROFILE, None, certificates=lambda ders: ()),
    case("nine certificates", PROFILE, None, certificates=lambda ders: (*ders, *ders, ders[0])),
    case("text in the SignedInfo", PROFILE, "children", info=swap("<ds:Reference ", "or else<ds:Reference ")),
]  # fmt: skip

ALGORITHMS = [
    case("ECDSA with SHA-256, named", PROFILE, "algorithm", info=swap("ecdsa-sha384", "ecdsa-sha256")),
    case("RSA, named", PROFILE, "algorithm", info=swap("ecdsa-sha384", "rsa-sha384")),
    case("an HMAC with the certificate as its key", PROFILE, "algorithm", info=swap("ecdsa-sha384", "hmac-sha384")),
    case("no signature algorithm", PROFILE, "algorithm",
         info=swap(' Algorithm="http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"', "")),
    case("SHA-1 digest, named", PROFILE, "algorithm", info=swap(
        "http://www.w3.org/2001/04/xmldsig-more#sha384", f"{DSIG}sha1")),
    case("SHA-256 digest", PROFILE, None, info=swap("xmldsig-more#sha384", "xmlenc#sha256")),
    case("canonical form with comments", PROFILE, "algorithm", info=swap(
        f'Method Algorithm="{C14N_11}"', f'Method Algorithm="{C14N_11}#WithComments"')),
    case("no canonical form", PROFILE, "algorithm", info=swap(
        f'<ds:CanonicalizationMethod Algorithm="{C14N_11}"/>', '<ds:CanonicalizationMethod Algorithm="urn:none"/>')),
    case("Canonical XML 2.0", PROFILE, "algorithm", info=swap(
        f'Method Algorithm="{C14N_11}"', 'Method Algorithm="http://www.w3.org/2010/xml-c14n2"')),
    case("exclusive form, signed as inclusive", SIGNATURE, "signature", info=swap(
        f'Method Algorithm="{C14N_11}"', f'Method Algorithm="{EXCLUSIVE}"')),
    case("exclusive transform, digested as inclusive", DIGEST, "digest", info=swap(C14N, C14N.replace(
        C14N_11, EXCLUSIVE))),
    case("prefixes for the exclusive form", PROFILE, None, info=swap(C14N, f'<ds:Transform Algorithm="{EXCLUSIVE}">'
         f'<ec:InclusiveNamespaces xmlns:ec="{EXCLUSIVE}" PrefixList="ns0"/></ds:Transform>')),
    case("a parameter of the signature method", PROFILE, None, info=swap(
        'ecdsa-sha384"/>', 'ecdsa-sha384"><ds:HMACOutputLength>1</ds:HMACOutputLength></ds:SignatureMethod>')),
    case("a reference by id", PROFILE, "reference", info=BY_ID),
    case("a reference by id to an element that exists", PROFILE, "reference", body=WITH_ID, info=BY_ID),
    case("a reference by XPointer", PROFILE, "reference", info=swap('URI=""', 'URI="#xpointer(/)"')),
    case("a reference to the network", PROFILE, "reference", info=swap('URI=""', 'URI="http://127.0.0.1:9/rim"')),
    case("a reference to a file", PROFILE, "reference", info=swap('URI=""', 'URI="file:///dev/zero"')),
    case("a reference without URI", PROFILE, "reference", info=swap(' URI=""', "")),
    case("a typed reference", PROFILE, "reference", info=swap('URI=""', f'URI="" Type="{DSIG}Object"')),
    case("no enveloped-signature transform", PROFILE, "transforms", info=swap(ENVELOPE, "")),
    case("no canonical transform", PROFILE, "transforms", info=swap(C14N, "")),
    case("transforms in the other order", PROFILE, "transforms", info=swap(ENVELOPE + C14N, C14N + ENVELOPE)),
    case("an XPath transform between", PROFILE, "transforms", info=swap(ENVELOPE, ENVELOPE + '<ds:Transform '
         'Algorithm="http://www.w3.org/TR/1999/REC-xpath-19991116"><ds:XPath>false()</ds:XPath></ds:Transform>')),
    case("an XSLT transform", PROFILE, "transforms", info=swap(C14N, '<ds:Transform '
         'Algorithm="http://www.w3.org/TR/1999/REC-xslt-19991116"/>' + C14N)),
    case("a base64 transform", PROFILE, "transforms", info=swap(C14N, f'<ds:Transform Algorithm="{DSIG}base64"/>')),
    case("the transform with comments", PROFILE, None, info=swap(C14N, C14N.replace('"/>', '#WithComments"/>'))),
    case("an Id on the signature", PROFILE, "attributes", signature=swap("<ds:Signature ", '<ds:Signature Id="s" ')),
    case("an Id on the SignedInfo", PROFILE, "attributes", info=swap("<ds:SignedInfo>", '<ds:SignedInfo Id="s">')),
    case("an encoding on the digest", PROFILE, "attributes", info=swap("<ds:DigestValue>", '<ds:DigestValue e="1">')),
]  # fmt: skip

VALUES = [
    case("a value changed after signing", DIGEST, None, sent=lambda data: lying(data.decode()).encode()),
    Case(name="a value changed after signing, and measured", code=DIGEST, step="digest", device=LIAR,
         world=DRIVER.but(sent=lambda data: lying(data.decode()).encode())),
    Case(name="an entry made inactive", code=DIGEST, step="digest", device=LIAR, world=DRIVER.but(
        sent=sent(f'{INDEX7} active="True"', f'{INDEX7} active="False"'))),
    Case(name="the version changed after signing", code=DIGEST, step="digest",
         device=Device(driver_version="999.1"), world=DRIVER.but(sent=sent("550.144.03", "999.1"))),
    case("white space changed after signing", DIGEST, "digest", sent=sent("    <ns0:Payload", "     <ns0:Payload")),
    Case(name="the digest replaced by that of the lie", code=SIGNATURE, step="signature", device=LIAR,
         world=DRIVER.but(body=lying, signature=lambda text: _value(text, GENUINE_VALUE))),
    case("signed by a stranger", SIGNATURE, "signature", signed_with=("stranger", "p384")),
    case("signed by the issuer", SIGNATURE, "signature", signed_with=("rim l3", "p384")),
    case("signature of zeros", SIGNATURE, "signature", signature=lambda text: _value(text, bytes(96))),
    case("signature of ones", SIGNATURE, "signature", signature=lambda text: _value(text, b"\xff" * 96)),
    case("signature in DER", PROFILE, None, signature=lambda text: _value(text, bytes.fromhex("3066") + bytes(102))),
    case("signature of P-256 length", PROFILE, None, signed_with=("stranger", "p256")),
    case("signature that is no base64", PROFILE, None, sent=sent("<ds:SignatureValue>", "<ds:SignatureValue>*")),
    case("empty signature", PROFILE, None, signature=lambda text: _value(text, b"")),
    case("digest too short", PROFILE, None, info=swap("DIGEST", base64.b64encode(bytes(32)).decode())),
    case("an element behind the digest", PROFILE, "text_only", info=swap("DIGEST", "DIGEST<ds:a/>")),
    case("an element behind a certificate", PROFILE, "text_only",
         signature=swap("</ds:X509Certificate>", "<ds:a/></ds:X509Certificate>")),
]  # fmt: skip


def _value(text: str, value: bytes) -> str:
    start, end = text.index("<ds:SignatureValue>"), text.index("</ds:SignatureValue>")
    return f"{text[:start]}<ds:SignatureValue>{base64.b64encode(value).decode()}{text[end:]}"


CASES = [*WRAPPED, *SEVERAL, *ALGORITHMS, *VALUES]
