"""Rules on the devices of a host: which there must be, what each may run. `verifier.policy.grade`: what they earn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from schemas.records import RegisterRule
from verifier.claims import Claims, VerifiedDevice
from verifier.errors import (
    DeviceModeRefused,
    EvidenceMissing,
    FirstMileTooLow,
    MeasurementUnknown,
    NonceUnchecked,
    PlatformNotEnrolled,
    PolicyEmpty,
    ReferenceMismatch,
    RevocationUnchecked,
    VerificationError,
)
from verifier.formats.nvidia import PASSTHROUGH, PPCIE, SWITCH, UNSTATED, VerifiedNvidiaReport
from verifier.formats.spdm import VerifiedSpdm
from verifier.policy.base import AllOf, AnyOf, Every, Rule, failures_of
from verifier.policy.enrolment import GPU_KEY_DIGESTS
from verifier.policy.nvidia import NvidiaDemands, check_switches_attested, nvidia_rules
from verifier.policy.rules import check_register
from verifier.trust.nvidia_revocation import CHECKED

_BLOCK = "block"
_ENROL = "Enrol the device's key digest under its host, or send evidence of this host's own devices only."
_SEND_ALL = "Send the evidence of every device the policy enrols for this host."
E = TypeVar("E", VerifiedNvidiaReport, VerifiedSpdm)


class HasKey(Protocol):
    """A device, verified or as its evidence presents it."""

    @property
    def subject(self) -> str:
        """What the evidence calls it."""

    @property
    def key_digest(self) -> bytes:
        """SHA-256 of the leaf key's SubjectPublicKeyInfo, 32 bytes."""


class HasKeys(Protocol):
    """Claims with devices in them, of which only the keys matter."""

    @property
    def devices(self) -> Sequence[HasKey]:
        """Each device whose evidence was sent."""


class HasDevices(Protocol):
    """Claims with devices in them: a session's, or those of composite evidence."""

    @property
    def devices(self) -> tuple[VerifiedDevice, ...]:
        """Every device whose evidence was sent, each verified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """Measured firmware that is trusted: every register of a device must be what these say."""

    label: str
    registers: tuple[RegisterRule, ...]

    @property
    def names_blocks(self) -> bool:
        """Whether it names a measured value, all of it, and not only versions."""
        return any(
            one.register.startswith(_BLOCK) and (one.mask is None or all(byte == 0xFF for byte in one.mask))
            for one in self.registers
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SpdmDemands:
    """Demands on each SPDM device beside its measurements. The defaults refuse.

    `demand_nonce`: expected nonces stand in every challenge and under the measurements. `demand_grade`: a challenge and
    a complete set of measurements are signed, the negotiation is authenticated. `versions` are those of SPDM that are
    accepted; None: any that is verified.
    """

    demand_nonce: bool = True
    demand_grade: bool = True
    allow_debug: bool = False
    versions: tuple[str, ...] | None = None


STRICT_SPDM = SpdmDemands(demand_nonce=False, demand_grade=False)
"""No debug mode active, where the device says anything about it; nothing else is demanded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceDemands:
    """Demands on the devices of one host together.

    `key_digests` (hex SHA-256 of leaf keys) are all that there must and may be; None: any. `first_mile` is the lowest
    grade accepted; "" demands nothing, and is refused as an empty policy.
    """

    key_digests: tuple[str, ...] | None = ()
    first_mile: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectations:
    """Everything that devices are judged by. None as demands: reported, not judged.

    `gpus` is how many GPUs the host has; `cpu` judges its CPU as a grade demands it, without which there is none;
    `nvidia_firmware` and `spdm_firmware` are alternatives, None where firmware is
    not judged by the policy's own measurements.
    """

    key_digests: tuple[str, ...] | None
    gpus: int = 0
    cpu: Rule[Claims] | None = None
    nvidia: NvidiaDemands | None = field(default_factory=NvidiaDemands)
    spdm: SpdmDemands | None = field(default_factory=SpdmDemands)
    nvidia_firmware: tuple[Alternative, ...] | None = None
    spdm_firmware: tuple[Alternative, ...] | None = ()


SESSION_NVIDIA = NvidiaDemands(unbound_kinds=(SWITCH,), modes=(PASSTHROUGH, PPCIE, UNSTATED))
"""Demands in sessions. Reports of LS10 switches never name their firmware, and a switch measures no power; reports of
Blackwell GPUs and of older drivers state no mode. Everything else is demanded."""


@dataclass(frozen=True, slots=True)
class DevicesEnrolled:
    """Every device is enrolled for this host; `owner_of` tells of which other host a stranger is, for the message.

    Without enrolled digests it refuses, unless the policy says `unsafe_allow_unenrolled_platform`.
    """

    enrolled: tuple[str, ...]
    unsafe_allow_unenrolled: bool = False
    owner_of: Callable[[str], str | None] | None = None

    def check(self, claims: HasKeys) -> None:
        """`PlatformNotEnrolled`."""
        if not self.enrolled and self.unsafe_allow_unenrolled:
            return
        enrolled = {one.lower() for one in self.enrolled}
        for device in claims.devices:
            digest = device.key_digest.hex()
            if digest not in enrolled:
                owner = None if self.owner_of is None else self.owner_of(digest)
                whose = "not enrolled" if owner is None else f"enrolled for {owner!r}"
                raise PlatformNotEnrolled(
                    f"{device.subject}, key digest {digest}, is {whose}", field=GPU_KEY_DIGESTS, remedy=_ENROL
                )


@dataclass(frozen=True, slots=True)
class DevicesComplete:
    """Each enrolled device has evidence, as soon as any has, or where `demanded`."""

    enrolled: tuple[str, ...]
    demanded: bool

    def check(self, claims: HasDevices) -> None:
        """`EvidenceMissing`."""
        if not claims.devices and not self.demanded:
            return
        shown = {device.key_digest.hex() for device in claims.devices}
        missing = [one for one in self.enrolled if one.lower() not in shown]
        if missing or not claims.devices:
            what = f"{missing[0].lower()} and {len(missing) - 1} others" if len(missing) > 1 else "".join(missing)
            raise EvidenceMissing(f"no evidence of {what or 'any device'}", field=GPU_KEY_DIGESTS, remedy=_SEND_ALL)


@dataclass(frozen=True, slots=True)
class EachDevice:
    """Every device satisfies what is demanded of its kind; in the field of a refusal its subject stands first."""

    expected: Expectations

    def check(self, claims: HasDevices) -> None:
        """The first thing that is wrong with a device."""
        for error in self.failures(claims):
            raise error

    def failures(self, claims: HasDevices) -> list[VerificationError]:
        """Everything that is wrong with any device, in their order, then with the switches they name."""
        found = []
        for device in claims.devices:
            for error in _device_failures(device, self.expected):
                error.field = device.subject if error.field is None else f"{device.subject}.{error.field}"
                found.append(error)
        demands = self.expected.nvidia
        if demands is not None and not demands.allow_unattested_switches:
            reports = [one.evidence for one in claims.devices if isinstance(one.evidence, VerifiedNvidiaReport)]
            try:
                check_switches_attested(reports)
            except VerificationError as error:
                found.append(error)
        return found


def _device_failures(device: VerifiedDevice, expected: Expectations) -> list[VerificationError]:
    evidence = device.evidence
    if isinstance(evidence, VerifiedNvidiaReport):
        return nvidia_device_rules(expected.nvidia, expected.nvidia_firmware, evidence).failures(evidence)
    return spdm_device_rules(expected.spdm, expected.spdm_firmware, fresh=device.fresh).failures(evidence)


def nvidia_device_rules(
    demands: NvidiaDemands | None, firmware: tuple[Alternative, ...] | None, report: VerifiedNvidiaReport
) -> Every[VerifiedNvidiaReport]:
    """Every rule on one GPU or switch. Where the policy names its measured blocks, manifests are not needed.

    Manifests that were compared and differ are refused all the same.
    """
    rules: list[Rule[VerifiedNvidiaReport]] = []
    if firmware:
        rules.append(FirmwareNamed(firmware, "measurements for nvidia"))
        named = any(one.names_blocks and one_holds(one, report) for one in firmware)
        if demands is not None and named:
            demands = replace(demands, demand_reference=False)
    if demands is None or not demands.demand_reference:
        rules.append(NotContradicted())
    if demands is not None and demands.demand_revocation:
        rules.append(RimsUnrevoked())
    if demands is not None and (whole := nvidia_rules(demands)).rules:
        rules.append(whole)
    return Every(rules)


def spdm_device_rules(
    demands: SpdmDemands | None, firmware: tuple[Alternative, ...] | None, *, fresh: bool
) -> Every[VerifiedSpdm]:
    """Every rule on one SPDM device; `fresh`: by expected nonces. No firmware named at all: `PolicyEmpty`."""
    rules: list[Rule[VerifiedSpdm]] = []
    if demands is not None:
        if demands.demand_nonce:
            rules.append(SpdmFresh(fresh))
        if not demands.allow_debug:
            rules.append(NoSpdmDebug())
        if demands.demand_grade:
            rules.append(SpdmGraded())
        if demands.versions is not None:
            rules.append(SpdmVersionAccepted(demands.versions))
    if firmware is not None:
        rules.append(FirmwareNamed(firmware, "measurements for spdm"))
    return Every(rules)


@dataclass(frozen=True, slots=True)
class FirmwareNamed:
    """What a device measured is one of the alternatives, all registers of it. No alternatives: `PolicyEmpty`."""

    alternatives: tuple[Alternative, ...]
    what: str

    def check(self, claims: VerifiedNvidiaReport | VerifiedSpdm) -> None:
        """`MeasurementUnknown`, `PolicyEmpty`."""
        rules = [AllOf([DeviceRegister(one) for one in each.registers], each.label) for each in self.alternatives]
        AnyOf(rules, self.what, MeasurementUnknown).check(claims)


@dataclass(frozen=True, slots=True)
class DeviceRegister:
    """A device's register is what a measurement says."""

    rule: RegisterRule

    def check(self, claims: VerifiedNvidiaReport | VerifiedSpdm) -> None:
        """`MeasurementUnknown`, `PolicyEmpty`."""
        check_register(self.rule, claims.registers)


def one_holds(alternative: Alternative, evidence: VerifiedNvidiaReport | VerifiedSpdm) -> bool:
    """Whether a device is what the alternative says."""
    return not failures_of(FirmwareNamed((alternative,), "measurements"), evidence)


@dataclass(frozen=True, slots=True)
class NotContradicted:
    """No manifest that was compared says otherwise, also where none is demanded."""

    def check(self, claims: VerifiedNvidiaReport) -> None:
        """`ReferenceMismatch`."""
        if claims.reference is not None and claims.reference.mismatched_indexes:
            first = claims.reference.mismatched_indexes[0]
            raise ReferenceMismatch(f"measurements differ from the manifests, first at {first}", field="reference")


@dataclass(frozen=True, slots=True)
class RimsUnrevoked:
    """Something said that the signers of NVIDIA's manifests are not revoked; an operator takes back its own root."""

    def check(self, claims: VerifiedNvidiaReport) -> None:
        """`RevocationUnchecked`."""
        for rim in claims.rims:
            if not rim.override and rim.revocation != CHECKED:
                raise RevocationUnchecked(
                    f"nothing says whether the signer of the {rim.kind} manifest is revoked", field="rims.revocation"
                )


@dataclass(frozen=True, slots=True)
class SpdmFresh:
    """Expected nonces stand in every challenge and under the measurements."""

    fresh: bool

    def check(self, claims: VerifiedSpdm) -> None:
        """`NonceUnchecked`."""
        if not self.fresh:
            raise NonceUnchecked(claims.stale or "the transcript may be of any age", field="nonce")


@dataclass(frozen=True, slots=True)
class SpdmGraded:
    """Challenged, every measurement signed, the negotiation authenticated."""

    def check(self, claims: VerifiedSpdm) -> None:
        """`FirstMileTooLow`."""
        if claims.lacking:
            raise FirstMileTooLow(claims.lacking, field="grade")


@dataclass(frozen=True, slots=True)
class NoSpdmDebug:
    """The device does not say that a debug mode is active; only some devices say anything about it."""

    def check(self, claims: VerifiedSpdm) -> None:
        """`DeviceModeRefused`."""
        if claims.device_mode is not None and claims.device_mode.debug_active:
            raise DeviceModeRefused("a debug mode of the device is active", field="device_mode")


@dataclass(frozen=True, slots=True)
class SpdmVersionAccepted:
    """The connection's version of SPDM is one of these. An empty list: `PolicyEmpty`."""

    versions: tuple[str, ...]

    def check(self, claims: VerifiedSpdm) -> None:
        """`DeviceModeRefused`."""
        if not self.versions:
            raise PolicyEmpty("no version of SPDM is accepted", field="spdm.versions")
        if claims.version not in self.versions:
            raise DeviceModeRefused(f"SPDM {claims.version}", field="version")


def device_warnings(devices: Sequence[VerifiedDevice]) -> tuple[str, ...]:
    """What a session's acceptance rests on that no vendor vouches for, in words a person must see."""
    return tuple(_overridden(devices))


def _overridden(devices: Iterable[VerifiedDevice]) -> Iterable[str]:
    for one in devices:
        report = one.evidence
        if isinstance(report, VerifiedNvidiaReport) and report.reference is not None and report.reference.override:
            yield f"OVERRIDE: reference values of {one.subject} are signed under a root the policy names, not NVIDIA's"
