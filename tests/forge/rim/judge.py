"""One hostile case: a manifest with one fact wrong, a device to compare with it, and the code it is refused with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from tests.forge.dcap.certificates import Cert, Crl, issue, issue_crl
from tests.forge.rim.world import DRIVER, NOW, VBIOS, World, value_of
from verifier.errors import ReferenceMismatch, ReferenceMissing
from verifier.trust.certificate import parse_certificate
from verifier.trust.crl import parse_crl
from verifier.trust.roots import Root


def same(value: Any) -> Any:
    return value


@lru_cache(maxsize=256)
def root_of(world: World) -> Root:
    """The world's root, pinned; called NVIDIA's where `nvidia_root` patches it in."""
    return Root(label="forge", spki=parse_certificate(issue(world.root)).spki, simulated=False)


@dataclass(frozen=True, kw_only=True)
class Device:
    """What a report says, as far as manifests go: versions, chip, NVDEC0, and values by block (1-based)."""

    driver_version: str | None = "550.144.03"
    vbios_version: str | None = "96.00.74.00.1A"
    product: str | None = "GH100"
    edition: str = "GPU"
    nvdec0_disabled: bool = False
    values: Mapping[int, bytes] = field(default_factory=dict)

    def measurements(self) -> dict[int, bytes]:
        """64 blocks, each with the golden value of its index, unless `values` says otherwise (b"": no such block)."""
        blocks = {index + 1: value_of(index) for index in range(64)} | dict(self.values)
        return {block: value for block, value in blocks.items() if value}


@dataclass(frozen=True, kw_only=True)
class Case:
    """`step` names the check that catches the lie (see `steps.py`); None: no single function does.

    `beside` are further manifests, `lists` revocation lists with their issuers; `trust_roots` edits what is trusted.
    """

    name: str
    code: str
    step: str | None
    world: World = DRIVER
    at: int = NOW
    device: Device = field(default_factory=Device)
    beside: tuple[World, ...] = (VBIOS,)
    lists: tuple[tuple[Crl, Cert], ...] = ()
    trust_roots: Callable[[list[Root]], list[Root]] = same

    def verify(self, world: World) -> Any:
        """One of its manifests, verified."""
        from verifier.formats import rim

        return rim.verify_rim(
            data=world.mint(),
            trust_roots=self.trust_roots([root_of(world)]),
            now_ms=self.at * 1000,
            crls=[parse_crl(issue_crl(one, issuer)) for one, issuer in self.lists],
        )

    def judge(self) -> Any:
        """Verify, compare, and demand that everything fits; modules are looked up late, so that steps may be off."""
        from verifier.formats import rim_compare

        rims = [self.verify(world) for world in (self.world, *self.beside)]
        device = self.device
        found = rim_compare.compare(
            device.measurements(),
            rims,
            vbios_version=device.vbios_version,
            driver_version=device.driver_version,
            nvdec0_disabled=device.nvdec0_disabled,
            product=device.product,
            edition=device.edition,
        )
        if found is None or found.missing:
            raise ReferenceMissing("no manifest for a part", field="rims")
        if found.outcome != "match":
            raise ReferenceMismatch(f"indexes {found.mismatched_indexes}", field="rim.values")
        return found
