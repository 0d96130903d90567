"""Verify a reference integrity manifest of NVIDIA's, and compare a device's measurements with it (ATTESTATION.md §9.3).

The steps, in order; each needs all before it, the same numbers stand at the code:

 1. The bytes are XML of the narrow kind read here, signed in the one form accepted (`verifier.abi.xmldsig`).
 2. SHA-384 of the canonical document is the digest that the signature names.
 3. Those canonical bytes, not the file, are a manifest. From here on nothing else of the file is looked at.
 4. The certificates inside lead to a pinned root (`verifier.trust.rim_root`).
 5. The signer's key signed the SignedInfo, and with it the digest.
 6. OCSP responses and revocation lists that were given, where they speak of the path: genuine, current, and good.
 7. Every certificate of the path is valid at `now`, on both sides.

Steps 1 to 5 do not depend on `now`: "expired" is only ever said of a genuine manifest. What nothing speaks of is
"unchecked"; a policy decides whether that will do.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from verifier.abi.rim import RimDocument, RimEntry, parse_rim
from verifier.abi.xmldsig import SignedXml, parse_signed_xml
from verifier.errors import RimDigest, RimSignature, VerificationError
from verifier.signature import verify_raw_ecdsa
from verifier.trust.certificate import Certificate, parse_certificate
from verifier.trust.crl import Crl
from verifier.trust.nvidia_revocation import check_revocation
from verifier.trust.ocsp import OcspResponse
from verifier.trust.path import PathCache, check_path_validity
from verifier.trust.rim_root import RIM_PATH, is_override, verify_rim_path
from verifier.trust.roots import Root


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedRim:
    """A manifest that passed every step. Only `verify_rim` makes one.

    `document` is what was signed; `digest` SHA-256 of the file (32 bytes), which names it to people: the same manifest
    has other bytes when it is signed again. `signers` are common names, signer first. `override`: signed under a root
    that the operator named, not NVIDIA's. `revocation` is "checked" if every certificate below the root was, else
    "unchecked". Times are UTC milliseconds, inclusive: for every `now` from `valid_from_ms` to `expires_ms` the same
    bytes, roots, responses and lists verify to these claims.
    """

    document: RimDocument
    digest: bytes
    signers: tuple[str, ...]
    signer_serial_hex: str
    root_label: str
    override: bool
    simulated: bool
    revocation: str
    valid_from_ms: int
    expires_ms: int

    @property
    def kind(self) -> str:
        """ "driver" or "vbios"."""
        return self.document.kind

    @property
    def version(self) -> str:
        """Of the driver or VBIOS, as written."""
        return self.document.version

    @property
    def product(self) -> str:
        """The chip: "GH100"."""
        return self.document.product

    @property
    def golden(self) -> dict[int, RimEntry]:
        """The active entries by index, which counts from 0."""
        return self.document.golden


def verify_rim(
    *,
    data: bytes,
    trust_roots: Sequence[Root],
    now_ms: int,
    ocsp: Sequence[OcspResponse] = (),
    crls: Sequence[Crl] = (),
    chains_seen: PathCache | None = None,
) -> VerifiedRim:
    """Verify the manifest `data` at `now_ms` (UTC milliseconds) under the pinned `trust_roots`.

    `ocsp` and `crls` are looked at where they speak of the signer's path. `chains_seen` remembers verified paths.
    Raises a subclass of `VerificationError` at the first step that fails, and nothing else; its `verified` names the
    stages that held: "format", "digest", "rim_chain", "signatures"; the last, "validity", has nothing behind it.
    """
    done: list[str] = []
    try:
        # (1)
        signed = parse_signed_xml(data)
        done.append("format")
        # (2)
        check_digest(signed)
        done.append("digest")
        # (3)
        document = parse_rim(signed.content)
        # (4)
        certificates = certificates_of(signed)
        seen = PathCache(1) if chains_seen is None else chains_seen
        path = seen.verify(certificates, trust_roots, RIM_PATH, verify_rim_path)
        done.append("rim_chain")
        # (5)
        check_signature(signed, path.leaf)
        done.append("signatures")
        # (6)
        revocation = check_revocation(path, ocsp, crls, now_ms, leaf_too=True)
        # (7)
        check_path_validity(path, now_ms, RIM_PATH)
    except VerificationError as error:
        error.verified = tuple(done)
        raise
    return VerifiedRim(
        document=document,
        digest=hashlib.sha256(data).digest(),
        signers=tuple(one.common_name for one in reversed(path.certificates)),
        signer_serial_hex=f"{path.leaf.serial_number:x}",
        root_label=path.root.label,
        override=is_override(path.root),
        simulated=path.root.simulated,
        revocation=revocation.state,
        valid_from_ms=max(path.valid_from_ms, revocation.valid_from_ms),
        expires_ms=min(path.expires_ms, revocation.expires_ms),
    )


def check_digest(signed: SignedXml) -> None:
    """The document is the one that was signed. `RimDigest`."""
    if not hmac.compare_digest(signed.actual_digest, signed.digest):
        raise RimDigest("the document is not the one that was signed", field="DigestValue")


def certificates_of(signed: SignedXml) -> tuple[Certificate, ...]:
    """The certificates inside the signature, root first; NVIDIA delivers the signer's first. `CertChainInvalid`."""
    return tuple(parse_certificate(der) for der in reversed(signed.certificates))


def check_signature(signed: SignedXml, signer: Certificate) -> None:
    """ECDSA with SHA-384, r‖s, over the canonical SignedInfo. `RimSignature`."""
    if not verify_raw_ecdsa(signer.public_key, "sha384", signed.signed_info, signed.signature):
        raise RimSignature(f"{signer.common_name!r} did not sign this manifest", field="SignatureValue")
