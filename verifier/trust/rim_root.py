"""Who may sign reference values: NVIDIA's RIM root, pinned, and the shape of the paths below it (ATTESTATION.md §9.3).

A root that an operator names is as good as NVIDIA's, but never the same: what was signed under it says so
(`VerifiedRim.override`). NVIDIA's names are demanded under NVIDIA's key only.
"""

from __future__ import annotations

from collections.abc import Sequence

from verifier.errors import CertRoleInvalid
from verifier.trust.certificate import Certificate
from verifier.trust.path import PathProfile, VerifiedPath, place, verify_path
from verifier.trust.roots import Root

NVIDIA_RIM_ROOT = Root(
    label="nvidia-corim-signing-root-ca",
    spki=bytes.fromhex(
        "3076301006072a8648ce3d020106052b8104002203620004"
        "b840b28bdbcd33e230da57d4cf2065747030682d4717b4c2829d7641c1325139b74da831c2be3c779e7e2b65489566080"
        "e4ecd94021075c57f15fedeb862c8f906ae8fddc7b12238597dbdf0fa56e78453833f6d0be43af3871a47f057584799"
    ),
    simulated=False,
)
"""Key of NVIDIA CoRIM signing Root CA (P-384), in every RIM that NVIDIA publishes.

SHA-256 of the SubjectPublicKeyInfo: dec1dc316477aa851eebdf51327ae9f864bc8d89254657ed1e7eb9168af1e1a3.
"""

RIM_PATH = PathProfile(
    field="rim_chain",
    lengths=range(2, 6),
    issuer_keys=frozenset({"secp384r1"}),
    leaf_keys=frozenset({"secp384r1"}),
    algorithms=frozenset({"ecdsa-sha384"}),
)
"""P-384 throughout, as the signature of a RIM is; NVIDIA's paths have four certificates, an operator's may have two."""

_NVIDIA_LENGTH = 4
_ROOT_NAME, _ISSUERS, _LEAF = "NVIDIA CoRIM signing Root CA", "NVIDIA Reference Value ", "L4"


def verify_rim_path(certificates: Sequence[Certificate], roots: Sequence[Root], profile: PathProfile) -> VerifiedPath:
    """Everything about a RIM signer's path, root first, that time cannot change.

    Raises what `verifier.trust.path.verify_path` raises, and `CertRoleInvalid`.
    """
    path = verify_path(certificates, roots, profile)
    check_signer(path, profile)
    return path


def is_override(root: Root) -> bool:
    """Whether reference values under `root` are an operator's, not NVIDIA's."""
    return root.spki != NVIDIA_RIM_ROOT.spki


def check_signer(path: VerifiedPath, profile: PathProfile) -> None:
    """The signer signs data; under NVIDIA's key, each certificate has a name of its role. `CertRoleInvalid`.

    NVIDIA names its signer of reference values by level, and those for development hardware "Debug Only".
    """
    if path.leaf.sign_data is not True:
        raise CertRoleInvalid("the signer may not sign data", field=f"{profile.field}.leaf")
    if is_override(path.root):
        return
    if len(path.certificates) != _NVIDIA_LENGTH:
        raise CertRoleInvalid("not one of NVIDIA's four levels", field=profile.field)
    for index, one in enumerate(path.certificates):
        name = one.common_name
        fits = (name == _ROOT_NAME, name.startswith(_ISSUERS), name.startswith(_ISSUERS), _LEAF in name.split())
        if not fits[index] or "Debug" in name:
            raise CertRoleInvalid(
                f"{name!r} does not sign reference values", field=place(path.certificates, index, profile)
            )
