"""Every root that is built in, by what its vendor uses it for. Each counts for that and nothing else."""

from __future__ import annotations

from verifier.trust.amd_roots import AMD_ROOTS
from verifier.trust.nvidia import NVIDIA_DEVICE_ROOT
from verifier.trust.rim_root import NVIDIA_RIM_ROOT
from verifier.trust.roots import INTEL_SGX_ROOT, Root

ROOTS_BY_USE: dict[str, tuple[Root, ...]] = {
    "sgx": (INTEL_SGX_ROOT,),
    "tdx": (INTEL_SGX_ROOT,),
    "snp": tuple(AMD_ROOTS),
    "nvidia": (NVIDIA_DEVICE_ROOT,),
    "rim": (NVIDIA_RIM_ROOT,),
    "spdm": (),
}
"""Uses: the TEEs, NVIDIA's devices and reference values, SPDM endpoints, which have no vendor in common."""


def is_vendors(use: str, label: str) -> bool:
    """Whether the root of this label is a vendor's own for `use`, not one that somebody named."""
    return any(root.label == label for root in ROOTS_BY_USE[use])


BUILT_IN_ROOTS = tuple(dict.fromkeys(root for roots in ROOTS_BY_USE.values() for root in roots))
