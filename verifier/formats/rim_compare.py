"""Compare a device's measurements with reference integrity manifests (ATTESTATION.md §9.3).

The steps, in order; the same numbers stand at the code:

 1. Of the manifests given, those for this device: its kind and chip, the driver version and VBIOS version it reported.
    Manifests of a kind of which none is for this device refuse: what was given is for something else.
 2. No index is active in both.
 3. Each active entry: its measurement block exists and has one of the entry's values. Index 35 (NVDEC0's firmware)
    is passed over where the report says that NVDEC0 is disabled.

A difference is a result, not an error: a person must see which indexes differ. Only a verified manifest can make a
result `matched`.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from verifier.abi.rim import DRIVER, VBIOS, RimDocument, RimEntry
from verifier.errors import ReferenceMismatch
from verifier.formats.rim import VerifiedRim
from verifier.limits import MAX_RIMS_COMPARED

MATCH, MISMATCH = "match", "mismatch"
GPU, SWITCH = "GPU", "SWITCH"

NVDEC0_INDEX = 35
"""The measurement that does not count while NVDEC0 is disabled."""

_SHOWN_VERSIONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RimUse:
    """A manifest that a comparison used, as people are told of it.

    `verified` False: nobody vouches for it, and the comparison is for the eye only. `override`: signed under a root
    that the operator named. `digest` (SHA-256 of the file) and `root_label` are None without verification.
    """

    kind: str
    version: str
    product: str
    tag_id: str
    verified: bool
    override: bool
    digest: bytes | None
    root_label: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RimComparison:
    """What a comparison came to. Only `compare` makes one.

    Indexes count from 0: measurement block minus one. `compared` are those with an active entry, `skipped` those
    passed over; `unreferenced` are measured, not all zeros, and named by no active entry. `used` are the manifests,
    driver before VBIOS; `missing` the kinds that were not given. `outcome` is about what was compared.
    """

    outcome: str
    mismatched_indexes: tuple[int, ...]
    compared: tuple[int, ...]
    skipped: tuple[int, ...]
    unreferenced: tuple[int, ...]
    used: tuple[RimUse, ...]
    missing: tuple[str, ...]

    @property
    def verified(self) -> bool:
        """Whether every manifest used was verified."""
        return bool(self.used) and all(use.verified for use in self.used)

    @property
    def matched(self) -> bool:
        """Whether driver and VBIOS are what was signed for them: nothing differs, nothing is missing."""
        return self.outcome == MATCH and self.verified and not self.missing

    @property
    def override(self) -> bool:
        """Whether a manifest under a root that the operator named took part."""
        return any(use.override for use in self.used)


def compare(
    measurements: Mapping[int, bytes],
    rims: Sequence[VerifiedRim | RimDocument],
    *,
    vbios_version: str | None,
    driver_version: str | None,
    nvdec0_disabled: bool = False,
    product: str | None = None,
    edition: str = GPU,
) -> RimComparison | None:
    """Compare `measurements` (value by block, 1-based) with those of `rims` that are for this device.

    `edition` is "GPU" or "SWITCH"; a switch has no driver. `product` is the chip, None where nothing says it. Returns
    None if `rims` is empty. Raises `ReferenceMismatch` where manifests are for another device or version, contradict
    each other, or have an index in common.
    """
    if not rims:
        return None
    kinds = (VBIOS,) if edition == SWITCH else (DRIVER, VBIOS)
    wanted = {DRIVER: driver_version, VBIOS: vbios_version}
    # (1)
    check_count(rims)
    candidates = [rim for rim in rims if document_of(rim).edition == edition and document_of(rim).kind in kinds]
    if not candidates:
        raise ReferenceMismatch(f"no RIM among those given is for a {edition}", field="rim.edition")
    chosen = {}
    for kind in kinds:
        of_kind = [rim for rim in candidates if document_of(rim).kind == kind]
        if of_kind:
            chosen[kind] = choose(of_kind, kind, wanted[kind], product)
    # (2)
    documents = [document_of(rim) for rim in chosen.values()]
    check_indexes(documents)
    # (3)
    golden = {index: entry for document in documents for index, entry in document.golden.items()}
    skipped = tuple(index for index in golden if index == NVDEC0_INDEX and nvdec0_disabled)
    compared = sorted(set(golden) - set(skipped))
    differing = tuple(index for index in compared if not fits(golden[index], measurements.get(index + 1)))
    return RimComparison(
        outcome=MISMATCH if differing else MATCH,
        mismatched_indexes=differing,
        compared=tuple(compared),
        skipped=skipped,
        unreferenced=tuple(sorted({block - 1 for block, value in measurements.items() if any(value)} - set(golden))),
        used=tuple(map(_use_of, chosen.values())),
        missing=tuple(kind for kind in kinds if kind not in chosen),
    )


def document_of(rim: VerifiedRim | RimDocument) -> RimDocument:
    """What a manifest says, verified or not."""
    return rim.document if isinstance(rim, VerifiedRim) else rim


def choose(
    rims: Sequence[VerifiedRim | RimDocument], kind: str, version: str | None, product: str | None
) -> VerifiedRim | RimDocument:
    """Of the manifests of one kind the one for this version and chip. `ReferenceMismatch`.

    Several are fine if they say the same; the one that is valid longest is used, and a verified one before others.
    """
    fitting = of_version(rims, kind, version)
    fitting = of_product(fitting, kind, product)
    check_agreement(fitting, kind)
    return max(fitting, key=lambda rim: rim.expires_ms if isinstance(rim, VerifiedRim) else -1)


def of_version(
    rims: Sequence[VerifiedRim | RimDocument], kind: str, version: str | None
) -> list[VerifiedRim | RimDocument]:
    """Those for `version`; in VBIOS versions, which are hexadecimal, case does not count. `ReferenceMismatch`."""
    fitting = [rim for rim in rims if version is not None and document_of(rim).version.upper() == version.upper()]
    if not fitting:
        shown = _versions(document_of(rim).version for rim in rims)
        has = version or "none"
        raise ReferenceMismatch(
            f"RIM for {kind} {shown}, the device reports {has[:32]}",
            field=f"{kind}_rim.version",
            remedy=f"Give the manifest of {kind} {has[:32]}.",
        )
    return fitting


def of_product(
    rims: Sequence[VerifiedRim | RimDocument], kind: str, product: str | None
) -> list[VerifiedRim | RimDocument]:
    """Those for the chip `product`, if something says which it is. `ReferenceMismatch`."""
    fitting = [rim for rim in rims if product is None or document_of(rim).product.upper() == product.upper()]
    if not fitting:
        shown = _versions(document_of(rim).product for rim in rims)
        has = product or "none"
        raise ReferenceMismatch(
            f"RIM for chip {shown}, the device is {has[:32]}",
            field=f"{kind}_rim.product",
            remedy=f"Give the manifest for chip {has[:32]}.",
        )
    return fitting


def check_count(rims: Sequence[VerifiedRim | RimDocument]) -> None:
    """No more manifests than anyone has use for. `ReferenceMismatch`."""
    if len(rims) > MAX_RIMS_COMPARED:
        raise ReferenceMismatch(f"more than {MAX_RIMS_COMPARED} RIMs", field="rims")


def check_agreement(rims: Sequence[VerifiedRim | RimDocument], kind: str) -> None:
    """Manifests for one version have the same values: nobody here may choose between two. `ReferenceMismatch`."""
    first = _values(document_of(rims[0]))
    if any(_values(document_of(rim)) != first for rim in rims[1:]):
        raise ReferenceMismatch("RIMs for one version with different values", field=f"{kind}_rim")


def check_indexes(documents: Sequence[RimDocument]) -> None:
    """No index is active in two manifests. `ReferenceMismatch`."""
    taken: set[int] = set()
    for document in documents:
        both = taken & document.golden.keys()
        if both:
            raise ReferenceMismatch(f"index {min(both)} is active in both RIMs", field="rim.index")
        taken |= document.golden.keys()


def fits(entry: RimEntry, value: bytes | None) -> bool:
    """Whether a measured value is one that its entry allows; a block that is not there fits nothing."""
    return value is not None and any(hmac.compare_digest(value, one) for one in entry.alternatives)


def _values(document: RimDocument) -> dict[int, frozenset[bytes]]:
    return {index: frozenset(entry.alternatives) for index, entry in document.golden.items()}


def _versions(texts: Iterable[str]) -> str:
    named = sorted(set(texts))
    shown = ", ".join(text[:32] for text in named[:_SHOWN_VERSIONS])
    return f"{shown}, …" if len(named) > _SHOWN_VERSIONS else shown


def _use_of(rim: VerifiedRim | RimDocument) -> RimUse:
    document, verified = document_of(rim), rim if isinstance(rim, VerifiedRim) else None
    return RimUse(
        kind=document.kind,
        version=document.version,
        product=document.product,
        tag_id=document.tag_id,
        verified=verified is not None,
        override=verified is not None and verified.override,
        digest=None if verified is None else verified.digest,
        root_label=None if verified is None else verified.root_label,
    )
