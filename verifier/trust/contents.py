"""What is in a piece of collateral, told by its bytes: nothing here is trusted, verified or opened.

Every part is read by itself. One that cannot be read is kept with its error and stands in nobody's way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sized
from dataclasses import dataclass, field

from verifier.abi.collateral import (
    EVALUATION_NUMBERS,
    QE_IDENTITY,
    TCB_INFO,
    Document,
    EnclaveIdentity,
    EvaluationNumbers,
    SignedDocument,
    TcbInfo,
)
from verifier.abi.pem_blocks import CERTIFICATE, CRL, split_blocks
from verifier.errors import CollateralTooLarge, VerificationError
from verifier.limits import MAX_COLLATERAL_ITEMS, MAX_OCSP_BYTES, MAX_PEM_BLOCKS, MAX_RIM_BYTES
from verifier.trust.crl import Crl, parse_crl

PCK_CRL, ROOT_CRL = "pck_crl", "root_ca_crl"
"""Kinds of revocation lists, as they stand in error fields and windows."""

RIM, OCSP = "rim", "ocsp_response"
"""Kinds of what NVIDIA publishes: reference integrity manifests (XML) and answers of its OCSP responder (DER)."""

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldDocument:
    """A readable document with what finding and ranking it needs.

    `kind` is one of `verifier.abi.collateral`'s, `key` what it is about: (tee, FMSPC, PCE id), (enclave id,) or
    (tee,). `digest` is SHA-256 of the signed text. It is current from `issued_ms` to `last_ms`, UTC milliseconds,
    inclusive; of several that are, the highest `rank` counts: evaluation number, then issue date.
    """

    kind: str
    key: tuple[str | bytes, ...]
    signed: SignedDocument
    digest: bytes
    issued_ms: int
    last_ms: int
    number: int | None
    rank: tuple[int, int, bytes]
    source: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldCrl:
    """A readable revocation list; `digest` is SHA-256 of its DER, the other fields as in `HeldDocument`.

    The highest rank has the newest thisUpdate, then the highest crlNumber. `last_ms` is the last millisecond before
    nextUpdate.
    """

    crl: Crl
    digest: bytes
    issued_ms: int
    last_ms: int
    rank: tuple[int, int, bytes]
    source: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A part that could not be read: where it stood, as what (a kind, or "unknown"), and why not."""

    source: str
    kind: str
    error: VerificationError


@dataclass(slots=True)
class Contents:
    """Parts in the order they were read; each identical part once.

    `delivered` are certificates as they came, the same one again where it came again, up to a file's worth.
    `certificates`, `rims` and `ocsp_responses` are the bytes and where they stood first; `given_as` says which list was
    delivered as which kind; `source` names what is being read, `blocks` counts PEM blocks in it.
    """

    documents: dict[tuple[bytes, bytes], HeldDocument] = field(default_factory=dict)
    crls: dict[bytes, HeldCrl] = field(default_factory=dict)
    certificates: dict[bytes, str] = field(default_factory=dict)
    rims: dict[bytes, str] = field(default_factory=dict)
    ocsp_responses: dict[bytes, str] = field(default_factory=dict)
    delivered: list[bytes] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    given_as: set[tuple[str, bytes]] = field(default_factory=set)
    source: str = ""
    blocks: int = 0

    def add_document(self, signed: SignedDocument) -> None:
        """A signed document."""
        document = signed.document
        digest = hashlib.sha256(signed.signed_bytes).digest()
        number = None if isinstance(document, EvaluationNumbers) else document.evaluation_number
        kind, key = _subject(document)
        if (digest, signed.signature) in self.documents:
            return
        self.documents[digest, signed.signature] = HeldDocument(
            kind=kind,
            key=key,
            signed=signed,
            digest=digest,
            issued_ms=document.issued_ms,
            last_ms=document.next_update_ms,
            number=number,
            rank=(number or 0, document.issued_ms, digest),
            source=self.source,
        )
        self.check_size()

    def add_crl(self, crl: Crl, kind: str | None = None) -> None:
        """A revocation list, `kind` where it was delivered as such."""
        digest = hashlib.sha256(crl.der).digest()
        self.crls[digest] = self.crls.get(digest) or HeldCrl(
            crl=crl,
            digest=digest,
            issued_ms=crl.issued_ms,
            last_ms=crl.next_update_ms - 1,
            rank=(crl.issued_ms, crl.number or 0, digest),
            source=self.source,
        )
        if kind is not None:
            self.given_as.add((kind, digest))
        self.check_size()

    def add_certificate(self, der: bytes) -> None:
        """A certificate; it is parsed when it is needed."""
        self.certificates.setdefault(der, self.source)
        if len(self.delivered) < MAX_PEM_BLOCKS:
            self.delivered.append(der)
        self.check_size()

    def add_rim(self, xml: bytes) -> None:
        """A reference integrity manifest; it is parsed when it is verified."""
        if len(xml) > MAX_RIM_BYTES:
            raise CollateralTooLarge(f"a RIM of {len(xml)} bytes, at most {MAX_RIM_BYTES}", field=RIM)
        self.rims.setdefault(xml, self.source)
        self.check_size()

    def add_ocsp_response(self, der: bytes) -> None:
        """An OCSP response; it is parsed when it is verified."""
        if len(der) > MAX_OCSP_BYTES:
            raise CollateralTooLarge(f"an OCSP response of {len(der)} bytes, at most {MAX_OCSP_BYTES}", field=OCSP)
        self.ocsp_responses.setdefault(der, self.source)
        self.check_size()

    def add_blocks(self, text: bytes, what: str) -> None:
        """Certificates and revocation lists in PEM."""
        blocks = split_blocks(text, what)
        self.blocks += len(blocks)
        if self.blocks > MAX_PEM_BLOCKS:
            raise CollateralTooLarge(f"{what}: more than {MAX_PEM_BLOCKS} blocks in one piece", field=what)
        for kind, der in blocks:
            if kind == CERTIFICATE:
                self.add_certificate(der)
            else:
                with self.part(CRL):
                    self.add_crl(parse_crl(der))

    def part(self, kind: str) -> Part:
        """A context that keeps the error of a part that cannot be read, so that the others are read."""
        return Part(self, kind)

    def check_size(self) -> None:
        """Not more parts than a set may have. `CollateralTooLarge`."""
        parts: tuple[Sized, ...] = (
            self.documents,
            self.crls,
            self.certificates,
            self.rims,
            self.ocsp_responses,
            self.unreadable,
        )
        if sum(len(one) for one in parts) > MAX_COLLATERAL_ITEMS:
            raise CollateralTooLarge(f"more than {MAX_COLLATERAL_ITEMS} pieces of collateral", field="collateral")


class Part:
    """See `Contents.part`."""

    __slots__ = ("_contents", "_kind")

    def __init__(self, contents: Contents, kind: str) -> None:
        self._contents, self._kind = contents, kind

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, VerificationError):
            return False
        contents = self._contents
        contents.unreadable.append(Unreadable(contents.source, self._kind, error.replica()))
        contents.check_size()
        return True


def _subject(document: Document) -> tuple[str, tuple[str | bytes, ...]]:
    if isinstance(document, TcbInfo):
        return TCB_INFO, (document.tee, document.fmspc, document.pce_id)
    if isinstance(document, EnclaveIdentity):
        return QE_IDENTITY, (document.id,)
    return EVALUATION_NUMBERS, (document.tee,)
