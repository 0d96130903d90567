"""What a set of collateral has for AMD and NVIDIA evidence, picked as of `now`.

A set is a pool with a history: lists and responses of every age, manifests of every version, for a whole fleet. What
does not speak of the evidence at hand, or was not yet published at `now`, must not refuse it; and an answer must not be
repeated at a time when another pick would be made. Each function narrows a span of time to where its pick stands.

Nothing picked here is trusted for it: `verify_snp_report` and `verify_nvidia_report` judge it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Lock
from weakref import WeakKeyDictionary

from verifier.abi.amd import TURIN_HWID_BYTES
from verifier.abi.ocsp import OcspResponse, parse_ocsp
from verifier.abi.snp import VLEK
from verifier.abi.xmldsig import parse_signed_xml
from verifier.errors import VerificationError
from verifier.formats.nvidia import VerifiedNvidiaReport
from verifier.formats.rim import VerifiedRim, certificates_of, verify_rim
from verifier.formats.snp_evidence import SnpEvidence, parse_snp_evidence
from verifier.limits import MAX_RIM_CANDIDATES, MAX_RIMS_REMEMBERED
from verifier.trust.certificate import Certificate
from verifier.trust.crl import Crl
from verifier.trust.nvidia_revocation import find_revocation
from verifier.trust.path import PathCache, VerifiedPath
from verifier.trust.rim_root import RIM_PATH, verify_rim_path
from verifier.trust.roots import Root
from verifier.trust.selection import FOREVER_MS, Span
from verifier.trust.store import Collateral

_CA_LEVELS = 2
"""ASK and ARK: how far above an endorsement key its issuers are looked for."""

_VLEK_NAME = "SEV-VLEK"


def snp_endorsements(report: bytes, delivered: Sequence[Certificate], held: Collateral | None) -> list[Certificate]:
    """Certificates for a report: those delivered with it, then those of the set that may be its key's or issuers'."""
    found = list(delivered)
    if held is None:
        return found
    try:
        evidence = parse_snp_evidence(report)
    except VerificationError:
        return found  # verification will say what is wrong with it
    if not delivered and not evidence.certificates:
        found += _endorsement_keys(evidence, held)
    below = [*found, *evidence.certificates]
    for _ in range(_CA_LEVELS):
        names = {one.issuer for one in below}
        below = [ca for name in sorted(names) for ca in held.named(name) if ca.subject == name]
        found += below
    return list(dict.fromkeys(found))


def _endorsement_keys(evidence: SnpEvidence, held: Collateral) -> list[Certificate]:
    """For a report that a VLEK signed, VLEKs; else the chip's VCEKs, which have its id in an extension."""
    chip_id = evidence.report.chip_id
    if evidence.report.signing_key == VLEK or not any(chip_id):
        return held.named(_VLEK_NAME)
    turin = not any(chip_id[TURIN_HWID_BYTES:])
    return held.named(chip_id[:TURIN_HWID_BYTES] if turin else chip_id)


def nvidia_lists(path: Sequence[Certificate], held: Collateral | None, now_ms: int, span: Span) -> list[Crl]:
    """Revocation lists of the issuers in `path` that are published by `now_ms`."""
    if held is None:
        return []
    names = {one.subject for one in path}
    found = []
    for one in held.crls:
        if one.crl.issuer in names:
            span.narrow(one.crl.issued_ms, FOREVER_MS, now_ms)
            if one.crl.issued_ms <= now_ms:
                found.append(one.crl)
    return found


def nvidia_answers(path: Sequence[Certificate], held: Collateral | None, now_ms: int, span: Span) -> list[OcspResponse]:
    """OCSP responses that speak of a certificate in `path` and are made by `now_ms`.

    Of those that nobody can read, none speaks of anything; they are as good as not there.
    """
    if held is None:
        return []
    index, serials = _index_of(held), sorted({one.serial_number for one in path})
    found = []
    for response in dict.fromkeys(response for serial in serials for response in index.get(serial, ())):
        about = (one.this_update_ms for one in response.entries if one.serial_number in serials)
        begin = max(response.produced_ms, *about)
        span.narrow(begin, FOREVER_MS, now_ms)
        if begin <= now_ms:
            found.append(response)
    return found


def _index_of(held: Collateral) -> dict[int, list[OcspResponse]]:
    """The set's responses by the serial numbers they speak of; made once for each set."""
    index = _INDEXES.get(held)
    if index is None:
        index = {}
        for data in held.ocsp_responses:
            try:
                response = parse_ocsp(data)
            except VerificationError:
                continue
            for serial in {one.serial_number for one in response.entries}:
                index.setdefault(serial, []).append(response)
        _INDEXES[held] = index
    return index


_INDEXES: WeakKeyDictionary[Collateral, dict[int, list[OcspResponse]]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True, eq=False)
class HeldRim:
    """A manifest verified as of its own validity, and its signer's path, root first."""

    rim: VerifiedRim
    path: VerifiedPath


class RimShelf:
    """Manifests verified as of their own validity, by bytes and roots; at most `entries`, the least recently used go.

    What is remembered does not depend on `now`: a manifest's signature holds or not; when its certificates are valid,
    it says itself. One that does not verify is remembered as None. Of a set it is also remembered which of its
    manifests are of a version and verify, so that those that do not, however many, cost something once.
    """

    def __init__(self, entries: int = MAX_RIMS_REMEMBERED) -> None:
        if entries < 1:
            raise ValueError("a shelf needs at least one place")
        self._entries = entries
        self._map: OrderedDict[tuple[bytes, tuple[Root, ...]], HeldRim | None] = OrderedDict()
        self._lock = Lock()
        self._sets: WeakKeyDictionary[Collateral, dict[tuple[str, tuple[Root, ...]], tuple[HeldRim, ...]]] = (
            WeakKeyDictionary()
        )

    def __len__(self) -> int:
        return len(self._map)

    def fitting(
        self, report: VerifiedNvidiaReport, held: Collateral | None, roots: Sequence[Root], now_ms: int, span: Span
    ) -> list[VerifiedRim]:
        """The set's manifests for this device's chip and versions that verify under `roots`, valid at `now_ms`.

        One whose signer is revoked is left out; where no other of its kind is there, that refuses: `CertRevoked`, and
        what else `verifier.trust.nvidia_revocation` raises.
        """
        found: list[VerifiedRim] = []
        refused: dict[str, VerificationError] = {}
        versions = sorted({one.upper() for one in (report.driver_version, report.vbios_version) if one})
        held_rims = [] if held is None else [one for name in versions for one in self._of(held, name, tuple(roots))]
        candidates = [one for one in dict.fromkeys(held_rims) if _is_for(one.rim, report)]
        for one in candidates[:MAX_RIM_CANDIDATES]:
            span.narrow(one.rim.valid_from_ms, one.rim.expires_ms, now_ms)
            if one.rim.valid_from_ms <= now_ms <= one.rim.expires_ms:
                try:
                    found.append(_unrevoked(one, held, now_ms, span))
                except VerificationError as error:
                    refused.setdefault(one.rim.kind, error)
        for kind, refusal in refused.items():
            if all(rim.kind != kind for rim in found):
                raise refusal
        return found

    def _of(self, held: Collateral, version: str, roots: tuple[Root, ...]) -> tuple[HeldRim, ...]:
        """The set's manifests of this version (in capitals) that verify under `roots`."""
        with self._lock:
            known = self._sets.setdefault(held, {})
            found = known.get((version, roots))
        if found is None:
            rims = [self.get(data, roots) for data in _mentioning(held, version)]
            found = tuple(one for one in rims if one is not None and one.rim.version.upper() == version)
            with self._lock:
                if len(known) >= MAX_RIMS_REMEMBERED:
                    known.clear()
                known[version, roots] = found
        return found

    def get(self, data: bytes, roots: tuple[Root, ...]) -> HeldRim | None:
        """The manifest of `data`, verified; None if it does not verify under `roots`, whatever the time."""
        key = hashlib.sha256(data).digest(), roots
        with self._lock:
            if key in self._map:
                self._map.move_to_end(key)
                return self._map[key]
        found = _verified(data, roots)
        with self._lock:
            self._map[key] = found
            self._map.move_to_end(key)
            while len(self._map) > self._entries:
                self._map.popitem(last=False)
        return found


def _verified(data: bytes, roots: tuple[Root, ...]) -> HeldRim | None:
    seen = PathCache(1)
    try:
        certificates = certificates_of(parse_signed_xml(data))
        begin = max((one.not_before_ms for one in certificates), default=0)
        rim = verify_rim(data=data, trust_roots=roots, now_ms=begin, chains_seen=seen)
        return HeldRim(rim, seen.verify(certificates, roots, RIM_PATH, verify_rim_path))
    except VerificationError:
        return None


def _unrevoked(one: HeldRim, held: Collateral | None, now_ms: int, span: Span) -> VerifiedRim:
    """The manifest with what the set says of its signer's certificates; what is foreign says nothing."""
    path = one.path.certificates
    answers, lists = nvidia_answers(path, held, now_ms, span), nvidia_lists(path, held, now_ms, span)
    revocation, _ = find_revocation(one.path, answers, lists, now_ms, leaf_too=True)
    span.narrow(revocation.valid_from_ms, revocation.expires_ms, now_ms)
    return replace(one.rim, revocation=revocation.state)


def _mentioning(held: Collateral, version: str) -> list[bytes]:
    """Manifests that may be about this version (in capitals); the others are not worth parsing."""
    marks = {version.encode(), version.lower().encode()}
    return [data for data in held.rims if any(mark in data for mark in marks)]


def _is_for(rim: VerifiedRim, report: VerifiedNvidiaReport) -> bool:
    """Its edition, chip and version are the device's."""
    version = report.driver_version if rim.kind == "driver" else report.vbios_version
    return (
        version is not None
        and rim.version.upper() == version.upper()
        and rim.document.edition.upper() == report.kind.upper()
        and rim.product.upper() == report.chip.replace("_", "").upper()
    )
