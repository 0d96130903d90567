"""How to disable each step of verification of a manifest, one at a time, as a mutant of our code would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.forge.rim.world import C14N_11
from tests.forge.steps import nothing
from verifier.abi import rim as abi_rim
from verifier.abi import xml, xmldsig
from verifier.formats import rim, rim_compare
from verifier.trust import path, rim_root
from verifier.trust.nvidia_revocation import Revocation
from verifier.trust.roots import Root
from verifier.trust.selection import FOREVER_MS


def own_root(first: Any, _roots: Any, _profile: Any) -> Root:
    return Root(label="own", spki=first.spki, simulated=False)


def nothing_said(*_: Any, **_named: Any) -> Revocation:
    return Revocation(
        unchecked=(), checked=(), sources=(), responders=(), valid_from_ms=-FOREVER_MS, expires_ms=FOREVER_MS
    )


def all_of(rims: Any, *_: Any) -> Any:
    return list(rims)


STEPS: dict[str, tuple[Any, str, Any]] = {
    # the XML
    "sizes": (xml, "check_sizes", nothing),
    "markup": (xml, "check_markup", nothing),
    "xml_attributes": (xml, "check_attributes_of_xml", nothing),
    # the form of its signature
    "one_signature": (xmldsig, "check_one_signature", nothing),
    "children": (xmldsig, "check_children", nothing),
    "attributes": (xmldsig, "check_attributes", nothing),
    "algorithm": (xmldsig, "check_algorithm", nothing),
    "reference": (xmldsig, "check_reference", nothing),
    "transforms": (xmldsig, "check_transforms", lambda _: C14N_11),
    "text_only": (xmldsig, "check_children_of_text", nothing),
    # the manifest
    "elements": (abi_rim, "check_elements", nothing),
    "binding": (abi_rim, "check_binding", nothing),
    "entries": (abi_rim, "check_entries", nothing),
    "values": (abi_rim, "check_values", nothing),
    # its signature
    "digest": (rim, "check_digest", nothing),
    "signature": (rim, "check_signature", nothing),
    "revocation": (rim, "check_revocation", nothing_said),
    "validity": (rim, "check_path_validity", nothing),
    "signer": (rim_root, "check_signer", nothing),
    "names": (path, "check_names", nothing),
    "anchor": (path, "find_root", own_root),
    "constraints": (path, "check_constraints", nothing),
    "critical": (path, "check_critical", nothing),
    "keys": (path, "check_keys", nothing),
    "signatures": (path, "check_signatures", nothing),
    # the comparison
    "version": (rim_compare, "of_version", all_of),
    "product": (rim_compare, "of_product", all_of),
    "count": (rim_compare, "check_count", nothing),
    "agreement": (rim_compare, "check_agreement", nothing),
    "indexes": (rim_compare, "check_indexes", nothing),
    "fits": (rim_compare, "fits", lambda *_: True),
}


def disable(step: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A function that disables `step` for one test."""
    target, name, replacement = STEPS[step]
    return lambda patch: patch.setattr(target, name, replacement)
