"""What a policy demands of NVIDIA GPUs and switches, one by one and as the set of one host (ATTESTATION.md §9, §11.3).

The defaults refuse: what a report does not say is not taken as said. `nvidia_rules` judges one device, `check_devices`
several of one host together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from verifier.errors import (
    DeviceDebug,
    DeviceDuplicate,
    DeviceModeRefused,
    DeviceTopologyMismatch,
    DeviceVersionRefused,
    FwidUnbound,
    NonceUnchecked,
    ReferenceMismatch,
    ReferenceMissing,
    RevocationUnchecked,
)
from verifier.formats.nvidia import (
    BOUND,
    GPU,
    PASSTHROUGH,
    PPCIE,
    SWITCH,
    VerifiedNvidiaReport,
)
from verifier.limits import MAX_SHOWN_INDEXES
from verifier.policy.base import AllOf, Rule
from verifier.trust.nvidia_revocation import CHECKED

_INSECURE_FLAGS = frozenset({"not_secure", "recovery", "debug"})


@dataclass(frozen=True, slots=True, kw_only=True)
class NvidiaDemands:
    """Demands on each device. None means: reported, not judged; an empty tuple means that nothing is accepted.

    `unbound_kinds` are kinds ("gpu", "switch") whose reports need not name their firmware; LS10 switches never do, nor
    old Hopper drivers. `modes` are those of GPUs (`VerifiedNvidiaReport.mode`) that are accepted; versions are as
    devices report them, of VBIOSes in capitals; `min_driver_version` compares number by number.
    """

    demand_nonce: bool = True
    demand_fwid: bool = True
    unbound_kinds: tuple[str, ...] = ()
    demand_reference: bool = True
    demand_revocation: bool = True
    allow_debug: bool = False
    modes: tuple[str, ...] | None = (PASSTHROUGH, PPCIE)
    driver_versions: tuple[str, ...] | None = None
    min_driver_version: str | None = None
    vbios_versions: tuple[str, ...] | None = None
    allow_unattested_switches: bool = False


STRICT_NVIDIA = NvidiaDemands(demand_nonce=False, demand_reference=False, demand_revocation=False, modes=None)
"""The firmware is bound to the device's key, and no debug flag is set; the rest is reported."""


@dataclass(frozen=True, slots=True)
class NonceDemanded:
    """The report was compared with a nonce of the caller's."""

    def check(self, claims: VerifiedNvidiaReport) -> None:
        """`NonceUnchecked`."""
        if not claims.nonce_checked:
            raise NonceUnchecked("no nonce was given: the report may be of any age", field="request.nonce")


@dataclass(frozen=True, slots=True)
class FwidBound:
    """The report names the firmware its key was issued to; `unbound_kinds` of devices need not."""

    unbound_kinds: tuple[str, ...] = ()

    def check(self, claims: VerifiedNvidiaReport) -> None:
        """`FwidUnbound`."""
        if claims.fwid_bound != BOUND and claims.kind not in self.unbound_kinds:
            raise FwidUnbound(f"the report of this {claims.architecture} {claims.kind} names no FWID", field="fwid")


@dataclass(frozen=True, slots=True)
class NoDeviceDebug:
    """The leaf's DICE flags say neither debug nor recovery nor not secure. Only newer chips have such flags."""

    def check(self, claims: VerifiedNvidiaReport) -> None:
        """`DeviceDebug`."""
        found = [flag for flag in claims.tcb_flags if flag in _INSECURE_FLAGS]
        if found:
            raise DeviceDebug(f"the device's certificate says {', '.join(found)}", field="tcb_flags")


@dataclass(frozen=True, slots=True)
class ModeAccepted:
    """A GPU's mode is one of these; switches state none. Developer tools and CC off are not in a report at all."""

    modes: tuple[str, ...]

    def check(self, claims: VerifiedNvidiaReport) -> None:
        """`DeviceModeRefused`."""
        if claims.kind == GPU and claims.mode not in self.modes:
            raise DeviceModeRefused(f"mode {claims.mode}", field="opaque.feature_flag")


@dataclass(frozen=True, slots=True)
class ReferenceMatched:
    """Signed manifests of the device's own versions were given (driver and VBIOS; a switch has no driver) and fit."""

    def check(self, claims: VerifiedNvidiaReport) -> None:
        """`ReferenceMissing`, `ReferenceMismatch`."""
        found = claims.reference
        if found is None or found.missing or not found.verified:
            lacking = "driver and VBIOS" if found is None else ", ".join(found.missing) or "a verified one"
            raise ReferenceMissing(f"reference manifests are missing: {lacking}", field="reference")
        if not found.matched:
            shown = ", ".join(map(str, found.mismatched_indexes[:MAX_SHOWN_INDEXES]))
            raise ReferenceMismatch(f"measurements differ from the manifests at index {shown}", field="reference")


@dataclass(frozen=True, slots=True)
class RevocationChecked:
    """Every certificate between leaf and root was found good, by OCSP or in a list."""

    def check(self, claims: VerifiedNvidiaReport) -> None:
        """`RevocationUnchecked`."""
        found = claims.revocation
        if found.state != CHECKED:
            lacking = ", ".join(found.unchecked)
            raise RevocationUnchecked(f"nothing says whether these are revoked: {lacking}", field="revocation")


@dataclass(frozen=True, slots=True)
class VersionAccepted:
    """The driver's or VBIOS's version is one of `accepted`; a switch has no driver to judge."""

    what: str
    accepted: tuple[str, ...]

    def check(self, claims: VerifiedNvidiaReport) -> None:
        """`DeviceVersionRefused`."""
        if self.what == "driver_version" and claims.kind == SWITCH:
            return
        reported: str | None = getattr(claims, self.what)
        if reported not in self.accepted:
            raise DeviceVersionRefused(f"{reported or 'none'} is not accepted", field=self.what)


@dataclass(frozen=True, slots=True)
class DriverAtLeast:
    """A GPU's driver has this version or a later one, number by number."""

    version: str

    def check(self, claims: VerifiedNvidiaReport) -> None:
        """`DeviceVersionRefused`."""
        if claims.kind == GPU:
            reported = _numbers(claims.driver_version or "")
            if reported is None or reported < (_numbers(self.version) or ()):
                shown = claims.driver_version or "none"
                raise DeviceVersionRefused(f"{shown}, at least {self.version} is demanded", field="driver_version")


def _numbers(version: str) -> tuple[int, ...] | None:
    parts = version.split(".")
    plain = all(part.isascii() and part.isdigit() for part in parts)
    return tuple(map(int, parts)) if plain else None


def nvidia_rules(demands: NvidiaDemands) -> AllOf[VerifiedNvidiaReport]:
    """Every rule of `demands` on one device, the gravest first. Raises `ValueError` for a version that is none."""
    rules: list[Rule[VerifiedNvidiaReport]] = []
    if demands.demand_nonce:
        rules.append(NonceDemanded())
    if not demands.allow_debug:
        rules.append(NoDeviceDebug())
    if demands.modes is not None:
        rules.append(ModeAccepted(demands.modes))
    if demands.demand_fwid:
        rules.append(FwidBound(demands.unbound_kinds))
    if demands.demand_reference:
        rules.append(ReferenceMatched())
    if demands.demand_revocation:
        rules.append(RevocationChecked())
    if demands.min_driver_version is not None:
        if _numbers(demands.min_driver_version) is None:
            raise ValueError(f"{demands.min_driver_version!r} is no driver version")
        rules.append(DriverAtLeast(demands.min_driver_version))
    for what, accepted in (("driver_version", demands.driver_versions), ("vbios_version", demands.vbios_versions)):
        if accepted is not None:
            rules.append(VersionAccepted(what, accepted))
    return AllOf(rules, "nvidia")


def nvidia_warnings(demands: NvidiaDemands | None, device: VerifiedNvidiaReport) -> tuple[str, ...]:
    """What an acceptance under `demands` (None: none at all) does not mean, in words a person must see."""
    judged = demands or NvidiaDemands(
        demand_nonce=False, demand_fwid=False, demand_reference=False, demand_revocation=False
    )
    found = []
    if device.simulated:
        found.append("SIMULATED: the root of trust is not hardware")
    if not judged.demand_nonce and not device.nonce_checked:
        found.append("no nonce was compared: nothing says when, or for whom, this report was made")
    if device.fwid_bound != BOUND:
        found.append("not bound: the report names no FWID to compare with its certificate's")
    if not judged.demand_reference:
        found += _reference_warnings(device)
    if device.revocation.state != CHECKED and not judged.demand_revocation:
        found.append("revocation of the device's certificates is not checked: no response or list was given")
    if device.reference is not None and device.reference.override:
        found.append("OVERRIDE: reference values signed under a root that the operator named, not NVIDIA's")
    found.append("whether confidential computing or developer tools are on is not in a report")
    return tuple(found)


def _reference_warnings(device: VerifiedNvidiaReport) -> list[str]:
    if device.reference is None:
        return ["measurements are not compared: no reference manifest was given"]
    if device.reference.missing:
        return [f"measurements are compared in part: no manifest for {', '.join(device.reference.missing)}"]
    return []


def check_devices(devices: Sequence[VerifiedNvidiaReport], *, allow_unattested_switches: bool = True) -> None:
    """Devices of one host, together: each counts once, and GPUs and switches name each other.

    Raises `DeviceDuplicate` and `DeviceTopologyMismatch`. `allow_unattested_switches`: GPUs may name switches of which
    there is no report. A switch's list of GPUs uses ids that no GPU reports itself: only the lists are compared.
    """
    check_distinct(devices)
    check_links(devices)
    if not allow_unattested_switches:
        check_switches_attested(devices)


def check_distinct(devices: Sequence[VerifiedNvidiaReport]) -> None:
    """No leaf key, no device key and no switch id twice. `DeviceDuplicate`."""
    for what in ("key_digest", "device_key_digest"):
        values = [getattr(device, what) for device in devices]
        if len(set(values)) != len(values):
            raise DeviceDuplicate(f"{len(values)} reports of {len(set(values))} devices", field=what)
    own = [device.facts.pdi for device in devices if device.facts.pdi is not None]
    if len(set(own)) != len(own):
        raise DeviceDuplicate("two switches with one id", field="opaque.pdi")


def check_links(devices: Sequence[VerifiedNvidiaReport]) -> None:
    """Every GPU with links names every switch reported, and all switches name the same GPUs. `DeviceTopologyMismatch`.

    A GPU without a list of links (single GPUs, old drivers) says nothing, and is not judged.
    """
    switches = {device.facts.pdi for device in devices if device.kind == SWITCH and device.facts.pdi is not None}
    for device in devices:
        named = device.facts.switch_pdis
        if device.kind == GPU and named is not None and not switches <= set(named):
            raise DeviceTopologyMismatch("a switch was reported that a GPU is not linked to", field="opaque.pdi")
    lists = {device.facts.gpu_pdis for device in devices if device.facts.gpu_pdis is not None}
    if len(lists) > 1:
        raise DeviceTopologyMismatch("switches that are linked to different GPUs", field="opaque.gpu_pdis")
    gpus = sum(device.kind == GPU and device.facts.switch_pdis is not None for device in devices)
    if lists and gpus > len(next(iter(lists))):
        raise DeviceTopologyMismatch("more GPUs with links than switches are linked to", field="opaque.gpu_pdis")


def check_switches_attested(devices: Sequence[VerifiedNvidiaReport]) -> None:
    """There is a report of every switch that a GPU names. `DeviceTopologyMismatch`."""
    reported = {device.facts.pdi for device in devices if device.facts.pdi is not None}
    named = {pdi for device in devices for pdi in device.facts.switch_pdis or ()}
    if named - reported:
        raise DeviceTopologyMismatch(f"no report of {len(named - reported)} linked switches", field="opaque.pdi")
