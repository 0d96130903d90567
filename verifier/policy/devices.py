"""Rules on the devices of a host, and what they earn it: which there must be, what each may run, what grade they make.

The grade is what all of the demands together prove, and nothing that a switch of the policy let pass: `NONE`, where any
of them does not hold; `GPU_ATTESTED`, where every enrolled device showed fresh evidence of firmware its vendor or the
policy names; `SPDM_MEASURED`, where besides a device was challenged over SPDM and signed its measurements
(docs/evidence/composite.md says what that does not mean).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from schemas.contract import FIRST_MILE_GRADES
from schemas.records import RegisterRule
from verifier.claims import VerifiedDevice
from verifier.errors import (
    DeviceModeRefused,
    EvidenceMissing,
    FirstMileTooLow,
    MeasurementUnknown,
    NonceUnchecked,
    PlatformNotEnrolled,
    PolicyEmpty,
    PolicyInvalid,
    ReferenceMismatch,
    RevocationUnchecked,
    VerificationError,
)
from verifier.formats.nvidia import GPU, PASSTHROUGH, PPCIE, SWITCH, UNSTATED, VerifiedNvidiaReport
from verifier.formats.spdm import VerifiedSpdm
from verifier.policy.base import AllOf, AnyOf, Every, Rule, failures_of
from verifier.policy.enrolment import GPU_KEY_DIGESTS
from verifier.policy.nvidia import NvidiaDemands, check_switches_attested, nvidia_rules
from verifier.policy.rules import check_register
from verifier.trust.nvidia_revocation import CHECKED

NONE, GPU_ATTESTED, SPDM_MEASURED = FIRST_MILE_GRADES[:3]
"""The grades that this release gives; the higher ones nothing earns."""

_BLOCK = "block"
_ENROL = "Enrol the device's key digest under its host, or send evidence of this host's own devices only."
_SEND_ALL = "Send the evidence of every device the policy enrols for this host."
E = TypeVar("E", VerifiedNvidiaReport, VerifiedSpdm)


class HasDevices(Protocol):
    """Claims with devices in them: a session's, or those of composite evidence."""

    @property
    def devices(self) -> tuple[VerifiedDevice, ...]:
        """Every device whose evidence was sent, each verified."""

    @property
    def tied(self) -> bool:
        """Whether the devices' nonces derive from report data that the verifier expects of the CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """Measured firmware that is trusted: every register of a device must be what these say."""

    label: str
    registers: tuple[RegisterRule, ...]

    @property
    def names_blocks(self) -> bool:
        """Whether it names measured values, not only versions."""
        return any(one.register.startswith(_BLOCK) for one in self.registers)


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

    `gpus` is how many GPUs the host has; `nvidia_firmware` and `spdm_firmware` are alternatives, None where firmware is
    not judged by the policy's own measurements.
    """

    key_digests: tuple[str, ...] | None
    gpus: int = 0
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

    def check(self, claims: HasDevices) -> None:
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


@dataclass(frozen=True, slots=True)
class GradeAtLeast:
    """The first mile's earned grade is at least `minimum`. Without one: `PolicyEmpty`; nobody's grade: refused."""

    minimum: str
    expected: Expectations

    def check(self, claims: HasDevices) -> None:
        """`FirstMileTooLow`, `PolicyEmpty`."""
        if not self.minimum:
            raise PolicyEmpty("no lowest grade of the first mile is named", field="devices.first_mile")
        grade, why = earned_grade(claims, self.expected)
        if self.minimum not in FIRST_MILE_GRADES:
            raise PolicyInvalid(f"no grade is called {self.minimum[:40]!r}", field="devices.first_mile")
        if FIRST_MILE_GRADES.index(grade) < FIRST_MILE_GRADES.index(self.minimum):
            raise FirstMileTooLow(f"{grade} is below {self.minimum}: {why}", field="first_mile")


def earned_grade(claims: HasDevices, expected: Expectations) -> tuple[str, str]:
    """The first mile's grade, and in words what it rests on, or lacks for being more than `NONE`.

    Nothing of `expected` may be left unjudged for a grade, whatever a policy lets pass.
    """
    devices = claims.devices
    if not devices:
        return NONE, "no device showed evidence"
    if not claims.tied:
        return NONE, "nothing ties the devices to this CPU and to a challenge of ours"
    strict = strictest(expected)
    enrolled = tuple(strict.key_digests or ())
    if not enrolled:
        return NONE, "no device is enrolled for this host"
    rules: list[Rule[HasDevices]] = [DevicesEnrolled(enrolled), DevicesComplete(enrolled, True), EachDevice(strict)]
    try:
        for rule in rules:
            rule.check(claims)
    except VerificationError as error:
        return NONE, f"{error.code}: {error}"
    gpus = sum(one.evidence.kind == GPU for one in devices if isinstance(one.evidence, VerifiedNvidiaReport))
    endpoints = sum(isinstance(one.evidence, VerifiedSpdm) for one in devices)
    if gpus + endpoints < max(expected.gpus, 1):
        shown = f"{_number(gpus, 'GPU')} and {_number(endpoints, 'SPDM device')}"
        return NONE, f"evidence of {shown}, for {_number(max(expected.gpus, 1), 'GPU')}"
    if endpoints:
        shown = _number(endpoints, "SPDM device")
        return SPDM_MEASURED, f"{_number(gpus, 'GPU')} attested, {shown} challenged and measured"
    return GPU_ATTESTED, f"{_number(gpus, 'GPU')} attested"


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def strictest(expected: Expectations) -> Expectations:
    """The same with everything demanded that a grade stands for, and nothing allowed that gives it up.

    What a policy may choose stays its own: modes, versions, kinds whose reports name no firmware (never GPUs).
    """
    base = expected.nvidia or SESSION_NVIDIA
    unbound = tuple(kind for kind in base.unbound_kinds if kind != GPU)
    nvidia = replace(
        base,
        demand_nonce=True,
        demand_fwid=True,
        demand_reference=True,
        demand_revocation=True,
        allow_debug=False,
        unbound_kinds=unbound,
        modes=SESSION_NVIDIA.modes if base.modes is None else base.modes,
    )
    spdm = replace(expected.spdm or SpdmDemands(), demand_nonce=True, demand_grade=True, allow_debug=False)
    firmware = expected.spdm_firmware if expected.spdm_firmware is not None else ()
    return replace(expected, nvidia=nvidia, spdm=spdm, spdm_firmware=firmware)


def device_warnings(devices: Sequence[VerifiedDevice]) -> tuple[str, ...]:
    """What a session's acceptance rests on that no vendor vouches for, in words a person must see."""
    return tuple(_overridden(devices))


def _overridden(devices: Iterable[VerifiedDevice]) -> Iterable[str]:
    for one in devices:
        report = one.evidence
        if isinstance(report, VerifiedNvidiaReport) and report.reference is not None and report.reference.override:
            yield f"OVERRIDE: reference values of {one.subject} are signed under a root the policy names, not NVIDIA's"
