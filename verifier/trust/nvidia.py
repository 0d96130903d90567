"""NVIDIA's roots, its device chains, and what a device's certificates say of its chip and firmware (guide §9.2).

    NVIDIA Device Identity CA ← chip family ← provisioner ← <chip> … BROM ← <chip> … FMC LF

The root is pinned by key; the one a device delivers only has to have that key. Certificates never expire (9999-12-31):
revocation is all that ends one, and it is an input (`verifier.trust.ocsp`, `verifier.trust.crl`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from verifier.abi.dice import DICE_OID, TCB_INFO_OID, CompositeDeviceId, TcbInfo, parse_dice
from verifier.errors import CertRoleInvalid, DiceInvalid, NvidiaChipUnsupported
from verifier.limits import MAX_DICE_REMEMBERED, NVIDIA_CHAIN_CERTIFICATES
from verifier.trust.certificate import Certificate
from verifier.trust.path import PathCache, PathProfile, VerifiedPath, verify_path
from verifier.trust.roots import Root

NVIDIA_DEVICE_ROOT = Root(
    label="nvidia-device-identity-ca",
    spki=bytes.fromhex(
        "3076301006072a8648ce3d020106052b81040022036200040e4c14a33bf8a5626658db4129607e4cbf4519c4412716f4"
        "d0d917c4978005bdeabeaefd57bc66082d718a4f8b6052e1516ee8a7c422b84de857071bb58fd395bea0cfa1c63ee7c8"
        "0d6bd63901d91cbbd187d3857dc16b5cceaf238ff8c27dbd"
    ),
    simulated=False,
)
"""Key of NVIDIA Device Identity CA, in the chain of every GPU and switch, and in NVIDIA's own verifiers.

SHA-256 of the SubjectPublicKeyInfo: a90c4eb5acfd3e3d03a25db6a26b84f720ad0503196c627c21ddd48dd85b06a4.
"""

DEVICE_PROFILE = PathProfile(
    field="device_chain",
    lengths=range(NVIDIA_CHAIN_CERTIFICATES, NVIDIA_CHAIN_CERTIFICATES + 1),
    issuer_keys=frozenset({"secp384r1"}),
    leaf_keys=frozenset({"secp384r1"}),
    algorithms=frozenset({"ecdsa-sha384"}),
    usage_required=False,
    known_critical=frozenset({DICE_OID, TCB_INFO_OID}),
)
"""Five certificates, P-384 and SHA-384 throughout. An issuer's KeyUsage must fit where it has one: all real ones do."""

GPU, SWITCH = "gpu", "switch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """What a device is: the chip's name as its certificates write it, "gpu" or "switch", its architecture."""

    name: str
    kind: str
    architecture: str


_FAMILIES = (("GH", GPU, "HOPPER"), ("GB", GPU, "BLACKWELL"), ("LS_10", SWITCH, "LS10"))
"""How the names of chips begin, by family. Others differ in what their reports mean, so none is guessed."""


def verify_device_path(
    certificates: Sequence[Certificate], trust_roots: Sequence[Root], chains_seen: PathCache | None = None
) -> VerifiedPath:
    """The path of a device's chain, leaf first as devices deliver it; all that time cannot change.

    Raises a subclass of `VerificationError`, and nothing else.
    """
    path = tuple(reversed(certificates))
    if chains_seen is None:
        return verify_path(path, trust_roots, DEVICE_PROFILE)
    return chains_seen.verify(path, trust_roots, DEVICE_PROFILE)


def chip_of(path: VerifiedPath) -> Chip:
    """The chip that leaf and boot ROM are named after. `CertRoleInvalid`, `NvidiaChipUnsupported`."""
    leaf, issuer = path.certificates[-1], path.certificates[-2]
    name = leaf.common_name.partition(" ")[0]
    check_names(name, issuer)
    for prefix, kind, architecture in _FAMILIES:
        if name.startswith(prefix):
            return Chip(name=name, kind=kind, architecture=architecture)
    raise NvidiaChipUnsupported(f"chip {name!r}", field="device_chain.leaf")


def check_names(chip: str, issuer: Certificate) -> None:
    """A leaf is issued by the boot ROM of its own chip. `CertRoleInvalid`."""
    if issuer.common_name.partition(" ")[0] != chip:
        raise CertRoleInvalid(f"chip {chip!r}, issued by {issuer.common_name!r}", field="device_chain.leaf")


@lru_cache(maxsize=MAX_DICE_REMEMBERED)
def dice_of(leaf: Certificate) -> CompositeDeviceId | TcbInfo | None:
    """The leaf's DICE extension, None if it has none. `DiceInvalid`. Remembered: the certificate's bytes decide it."""
    found = [leaf.extensions[oid] for oid in (DICE_OID, TCB_INFO_OID) if oid in leaf.extensions]
    if len(found) > 1:
        raise DiceInvalid("two DICE extensions", field="device_chain.leaf")
    return parse_dice(found[0]) if found else None
