"""Whole hosts with one fact wrong: items, identities, nonces, enrolment, what devices run, what a policy forgets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from schemas.records import EvidenceItem, Measurement, Policy, RegisterRule, TcbRule
from tests.forge.composite.world import (
    DRIVER_RIM,
    FOREIGN_GPU,
    GPU_0,
    GPU_1,
    LINKED,
    NOW,
    SENSOR,
    SENSOR_1,
    SNP,
    SWITCH_RIM,
    SWITCHES,
    TDX,
    VBIOS_RIM,
    Case,
    Host,
    gpu_digest,
    rim_entries,
    sensor_digest,
    transcript,
)
from tests.forge.nvidia import world as nvidia
from tests.forge.nvidia.certificates import Answer
from tests.forge.rim import world as rim
from tests.forge.snp import world as snp
from tests.forge.spdm import world as spdm
from verifier.formats.spdm_reading import read_transcript
from verifier.nonces import device_nonce, gpu_identities_digest

Items = Callable[[list[EvidenceItem]], list[EvidenceItem]]


def hostile(name: str, code: str, step: str | None, host: Host = TDX, **changes: Any) -> Case:
    return Case(name=name, code=code, step=step, host=host, **changes)


def sent(name: str, code: str, step: str | None, items: Items, host: Host = TDX, **changes: Any) -> Case:
    """The same host, its evidence rearranged on the way."""
    return hostile(name, code, step, host.but(items=items), **changes)


def without(kind: str, subject: str | None = None) -> Items:
    return lambda items: [one for one in items if one.kind != kind or (subject and one.subject != subject)]


def relabelled(kind: str, to: str) -> Items:
    return lambda items: [replace(one, kind=to) if one.kind == kind else one for one in items]


def renamed(subject: str, to: str | None, kind: str | None = None) -> Items:
    return lambda items: [
        replace(one, subject=to) if one.subject == subject and kind in (None, one.kind) else one for one in items
    ]


def demanding(grade: str, **changes: Any) -> Callable[[Policy], Policy]:
    return lambda policy: replace(policy, min_first_mile=grade, **changes)


def measured(tee: str, *registers: RegisterRule) -> Callable[[Policy], Policy]:
    """The policy with these as its only measurement for `tee`."""

    def change(policy: Policy) -> Policy:
        others = tuple(one for one in policy.measurements if one.tee != tee)
        return replace(
            policy, measurements=(*others, Measurement(label="m", role="host", tee=tee, registers=registers))
        )

    return change


def unmeasured(tee: str) -> Callable[[Policy], Policy]:
    return lambda policy: replace(policy, measurements=tuple(one for one in policy.measurements if one.tee != tee))


GUEST = snp.GENOA.mint()

ITEMS = [
    sent("nothing", "EVIDENCE_MISSING", None, lambda items: []),
    sent("half a megabyte of blank lines behind a chain", "EVIDENCE_TOO_LARGE", "size",
         lambda items: [*items[:2], replace(items[2], data=items[2].data + b"\n" * 600_000), *items[3:]]),
    sent("a hundred items", "EVIDENCE_TOO_LARGE", None, lambda items: items * 20),
    sent("no CPU quote", "EVIDENCE_MISSING", None, lambda items: items[1:]),
    sent("an unknown kind beside", "EVIDENCE_KIND_UNKNOWN", "kind",
         lambda items: [*items, EvidenceItem(kind="tpm_quote", data=b"x", subject="tpm")]),
    sent("the CPU quote not first", "EVIDENCE_AMBIGUOUS", "cpu", lambda items: [*items[1:], items[0]]),
    sent("quotes of Intel and AMD", "EVIDENCE_AMBIGUOUS", None,
         lambda items: [EvidenceItem(kind="snp_report", data=GUEST.report), *items]),
    sent("AMD certificates beside Intel's quote", "EVIDENCE_AMBIGUOUS", "cpu",
         lambda items: [*items, EvidenceItem(kind="snp_certificates", data=b"".join(GUEST.certificates))]),
    sent("a TDX quote labelled as an SNP report", "SNP_VERSION_UNSUPPORTED", None,
         relabelled("tdx_quote_v4", "snp_report")),
    sent("an SNP report labelled as a TDX quote", "TEE_TYPE_UNSUPPORTED", None,
         lambda items: [replace(items[0], kind="tdx_quote_v4"), *items[2:]], SNP),
    sent("a quote of version 4 labelled 5", "QUOTE_VERSION_UNSUPPORTED", "version",
         relabelled("tdx_quote_v4", "tdx_quote_v5")),
    sent("the CPU's quote names a device", "EVIDENCE_SUBJECT", None,
         lambda items: [replace(items[0], subject="GPU-0"), *items[1:]]),
    sent("a GPU without a name", "EVIDENCE_SUBJECT", None, renamed("GPU-0", None)),
    hostile("a GPU whose name is a control character", "EVIDENCE_SUBJECT", "subject",
            TDX.but(subjects=lambda name: name + "\x07")),
    sent("a report without certificates", "EVIDENCE_MISSING", None, without("nvidia_gpu_certificates", "GPU-0")),
    sent("certificates without a report", "EVIDENCE_MISSING", "pairs",
         lambda items: [*items, replace(items[2], subject="GPU-9")]),
    sent("certificates under another subject", "EVIDENCE_MISSING", None,
         renamed("GPU-0", "GPU-7", "nvidia_gpu_certificates")),
    sent("two chains for one subject", "EVIDENCE_AMBIGUOUS", "once", lambda items: [*items, items[2]]),
    sent("two reports for one subject", "EVIDENCE_AMBIGUOUS", "once", lambda items: [*items, items[1]]),
    sent("chains of two GPUs exchanged", "NVIDIA_REPORT_SIGNATURE", None,
         lambda items: [items[0], items[1], replace(items[2], data=items[4].data), items[3],
                        replace(items[4], data=items[2].data), *items[5:]]),
    sent("SNP certificates without a report", "EVIDENCE_MISSING", None, lambda items: items[1:], SNP),
    sent("a chain that is no PEM", "CERT_CHAIN_INVALID", None,
         lambda items: [*items[:2], replace(items[2], data=b"x"), *items[3:]]),
    sent("a chain with a revocation list in it", "CERT_CHAIN_INVALID", None,
         lambda items: [*items[:2], replace(items[2], data=items[2].data + b"-----BEGIN X509 CRL-----\nAAAA\n"
                                            b"-----END X509 CRL-----\n"), *items[3:]]),
    hostile("devices of an aggregator", "EVIDENCE_KIND_UNSUPPORTED", "items", TDX, role="aggregator"),
]  # fmt: skip


def stale(kind: str, subject: str | None = None) -> Callable[[str, str, int, bytes], bytes]:
    """Nonces of another session for devices of one kind."""

    def change(of: str, name: str, index: int, nonce: bytes) -> bytes:
        hit = of == kind and subject in (None, name)
        return device_nonce(bytes(64), of, name, index) if hit else nonce

    return change


def twice_measured(sensor: spdm.World) -> spdm.World:
    """Signed measurements of an earlier day first, then the session's own of one block."""
    story = (spdm.digests(), spdm.certificate(), spdm.measure(), spdm.challenge(summary=0), spdm.measure())
    return sensor.but(story=story)


def _nonces_in(item: EvidenceItem) -> tuple[bytes, bytes]:
    """The session's nonces for a transcript, as the genuine one has them."""
    found = [one for one in read_transcript(item.data) if one[1] in (0x83, 0xE0) and len(one) >= 36]
    return found[0][4:36], found[-1][4:36]


def _exchanged(item: EvidenceItem) -> bytes:
    challenge, measurements = _nonces_in(item)
    return transcript(SENSOR, measurements, challenge)


def _with_old(item: EvidenceItem) -> bytes:
    challenge, measurements = _nonces_in(item)
    asked: list[int] = []

    def ask(message: Any) -> Any:
        asked.append(1)
        return replace(message, nonce=measurements if len(asked) > 1 else bytes(range(32)))

    return transcript(twice_measured(SENSOR).but(edits={"GetMeasurements": ask}), challenge, measurements)


NONCES = [
    hostile("a quote of another binding", "REPORT_DATA_MISMATCH", "quote report data",
            TDX.but(report_data=lambda data: bytes(64), gpus=(), sensors=())),
    hostile("a guest's report of another binding", "REPORT_DATA_MISMATCH", "guest report data",
            SNP.but(report_data=lambda data: data[:63] + b"\x00", gpus=(), sensors=())),
    hostile("a GPU's report of another session", "NONCE_MISMATCH", "GPU nonce", TDX.but(nonces=stale("nvidia"))),
    hostile("one GPU's report of another session", "NONCE_MISMATCH", "GPU nonce",
            TDX.but(nonces=stale("nvidia", "GPU-1"))),
    hostile("a GPU's report made for another subject", "NONCE_MISMATCH", "GPU nonce",
            TDX.but(items=lambda items: [items[0], *(replace(one, subject={"GPU-0": "GPU-1", "GPU-1": "GPU-0"}.get(
                one.subject or "", one.subject)) for one in items[1:])])),
    hostile("a transcript of another session", "NONCE_MISMATCH", None, TDX.but(nonces=stale("spdm"))),
    hostile("a transcript made for another endpoint", "NONCE_MISMATCH", None,
            TDX.but(items=renamed("sensor-0.rack7:2323", "sensor-0.rack8:2323"))),
    hostile("challenge and measurements asked with each other's nonce", "NONCE_MISMATCH", "places",
            TDX.but(items=lambda items: [*items[:-1], replace(items[-1], data=_exchanged(items[-1]))])),
    hostile("older signed measurements in front of the session's", "NONCE_MISMATCH", "places",
            TDX.but(items=lambda items: [*items[:-1], replace(items[-1], data=_with_old(items[-1]))])),
]  # fmt: skip


RELAYED = TDX.but(gpus=(GPU_0, FOREIGN_GPU))

IDENTITIES = [
    hostile("a GPU of another host, with this session's nonce", "PLATFORM_NOT_ENROLLED", "DevicesEnrolled", RELAYED,
            enrolled=TDX.but(gpus=(GPU_0,))),
    hostile("a GPU of another host in place of its own", "PLATFORM_NOT_ENROLLED", None, RELAYED, enrolled=TDX),
    hostile("a GPU of nobody beside", "PLATFORM_NOT_ENROLLED", "DevicesEnrolled",
            TDX.but(gpus=(GPU_0, GPU_1, nvidia.another(GPU_0, 3))), enrolled=TDX),
    hostile("a sensor of nobody", "PLATFORM_NOT_ENROLLED", "DevicesEnrolled", TDX.but(sensors=(SENSOR, SENSOR_1)),
            enrolled=TDX),
    hostile("no device enrolled", "PLATFORM_NOT_ENROLLED", "DevicesEnrolled", enrolment={"gpu_key_digests": ()}),
    hostile("the machine of another host", "PLATFORM_NOT_ENROLLED", "PlatformEnrolled", SNP,
            enrolment={"platform_ids": (snp.chip_id("Genoa", "other").hex(),)}),
    hostile("a GPU missing", "EVIDENCE_MISSING", "DevicesComplete", TDX.but(gpus=(GPU_0,)), enrolled=TDX),
    hostile("a switch missing", "EVIDENCE_MISSING", None,
            SNP.but(gpus=LINKED, switches=SWITCHES[:3], sensors=()),
            enrolled=SNP.but(gpus=LINKED, switches=SWITCHES, sensors=())),
    hostile("a switch that GPUs name and nobody enrolled", "DEVICE_TOPOLOGY", "switches",
            SNP.but(gpus=LINKED, switches=SWITCHES[:3], sensors=())),
    hostile("a switch that the GPUs are not linked to", "DEVICE_TOPOLOGY", "links",
            SNP.but(gpus=LINKED, switches=(*SWITCHES, nvidia.another(SWITCHES[0], 9, opaque={22: b"stranger"})),
                    sensors=())),
    hostile("the sensor missing", "EVIDENCE_MISSING", "DevicesComplete", TDX.but(sensors=()), enrolled=TDX),
    hostile("all devices missing where a grade is demanded", "EVIDENCE_MISSING", None, TDX.but(gpus=(), sensors=()),
            enrolled=TDX, policy=demanding("GPU_ATTESTED")),
    hostile("one GPU as two", "DEVICE_DUPLICATE", None, TDX.but(gpus=(GPU_0, GPU_0))),
    hostile("one GPU as two, with two leaf keys", "DEVICE_DUPLICATE", "distinct GPUs",
            TDX.but(gpus=(GPU_0, GPU_0.but(leaf=replace(GPU_0.leaf, key="nvidia leaf 7", serial=0x77))))),
    hostile("one sensor as two", "DEVICE_DUPLICATE", "distinct", TDX.but(sensors=(SENSOR, SENSOR))),
    hostile("the binding names other devices", "GPU_IDENTITIES_MISMATCH", "IdentitiesBound",
            TDX.but(identities=lambda found: gpu_identities_digest(found[:-1]))),
    hostile("the binding names no devices", "GPU_IDENTITIES_MISMATCH", "IdentitiesBound",
            TDX.but(identities=lambda found: None)),
    hostile("the binding names devices that show nothing", "GPU_IDENTITIES_MISMATCH", "IdentitiesBound",
            TDX.but(gpus=(), sensors=(), identities=lambda found: gpu_identities_digest([bytes(32)]))),
    hostile("a GPU enrolled for two hosts", "ENROLMENT_AMBIGUOUS", "ambiguous",
            enrolment={"gpu_key_digests": (*(one.hex() for one in TDX.digests()), gpu_digest(FOREIGN_GPU).hex())},
            host=TDX.but(gpus=(GPU_0, GPU_1, FOREIGN_GPU))),
    hostile("a platform enrolled for two hosts, in capitals", "ENROLMENT_AMBIGUOUS", "ambiguous",
            policy=lambda policy: replace(policy, hosts=(policy.hosts[0], replace(
                policy.hosts[1], platform_ids=tuple(one.upper() for one in policy.hosts[0].platform_ids))))),
    hostile("a sensor enrolled twice", "ENROLMENT_AMBIGUOUS", "ambiguous",
            enrolment={"gpu_key_digests": tuple(one.hex() for one in (*TDX.digests(), sensor_digest(SENSOR)))}),
    hostile("a host enrolled twice", "ENROLMENT_AMBIGUOUS", "ambiguous",
            policy=lambda policy: replace(policy, hosts=(*policy.hosts, replace(
                policy.hosts[0], platform_ids=(), gpu_key_digests=())))),
    hostile("a machine enrolled for two hosts under its two names", "ENROLMENT_AMBIGUOUS", "PlatformOfOneHost",
            policy=lambda policy: replace(policy, hosts=(policy.hosts[0], replace(
                policy.hosts[1], platform_ids=(TDX.cpu.platform.instance_id.hex(),))))),
    hostile("two aggregators of one name", "ENROLMENT_AMBIGUOUS", "aggregators", TDX.but(gpus=(), sensors=()),
            role="aggregator", policy=lambda policy: replace(policy, aggregators=policy.aggregators * 2)),
    sent("a GPU of nobody, its report damaged", "PLATFORM_NOT_ENROLLED", None,
         lambda items: [*items[:3], replace(items[3], data=items[3].data[:-1]), *items[4:]], RELAYED, enrolled=TDX),
    sent("a sensor of nobody, a GPU's report damaged", "PLATFORM_NOT_ENROLLED", None,
         lambda items: [items[0], replace(items[1], data=items[1].data[:-1]), *items[2:]],
         TDX.but(sensors=(SENSOR_1,)), enrolled=TDX),
    sent("one GPU as two, its report damaged", "DEVICE_DUPLICATE", None,
         lambda items: [items[0], replace(items[1], data=items[1].data[:-1]), *items[2:]],
         TDX.but(gpus=(GPU_0, GPU_0))),
    sent("the machine of another host, its devices' evidence damaged", "PLATFORM_NOT_ENROLLED", None,
         lambda items: [items[0], *(replace(one, data=b"x") for one in items[1:])],
         enrolment={"platform_ids": ("ab" * 16,)}),
    hostile("a digest that is none", "POLICY_INVALID", None,
            enrolment={"gpu_key_digests": (*(one.hex() for one in TDX.digests()), "GPU-0")}),
]  # fmt: skip

UNBOUND = {20: None}
BLACKWELL_DEBUG = nvidia.BLACKWELL.but(
    dice=lambda world: nvidia.tcb_info(nvidia.FIRMWARE, flags=bytes.fromhex("0010000001")),
    opaque={22: None, 21: b"\x55", 36: b"\x00\x00"}, rims=(),
)  # fmt: skip


def gpu(**changes: Any) -> Host:
    """The host with its first GPU changed."""
    opaque = {**GPU_0.opaque, **changes.pop("opaque", {})}
    return TDX.but(gpus=(GPU_0.but(opaque=opaque, **changes), GPU_1))


def other_rims(*rims: rim.World) -> Host:
    return TDX.but(rims=rims)


STATES = [
    hostile("a GPU in a mode nobody knows", "DEVICE_MODE", "ModeAccepted", gpu(opaque={36: b"\x07\x00"})),
    hostile("a GPU whose flag and status differ", "DEVICE_MODE", "ModeAccepted", gpu(opaque={36: b"\x02\x00"})),
    hostile("a GPU that says it is in debug mode", "DEVICE_DEBUG", "NoDeviceDebug",
            TDX.but(gpus=(BLACKWELL_DEBUG,), rims=(DRIVER_RIM.but(product="GB100"), VBIOS_RIM.but(product="GB100")))),
    hostile("a GPU whose report names no firmware", "FWID_UNBOUND", "FwidBound", gpu(opaque=UNBOUND)),
    hostile("no manifests", "REFERENCE_MISSING", "ReferenceMatched", other_rims()),
    hostile("no manifest of the VBIOS", "REFERENCE_MISSING", "ReferenceMatched", other_rims(DRIVER_RIM, SWITCH_RIM)),
    hostile("the manifest of another VBIOS", "REFERENCE_MISSING", "ReferenceMatched",
            other_rims(DRIVER_RIM, VBIOS_RIM.but(version="96.00.9F.00.02"))),
    hostile("the manifest of another chip", "REFERENCE_MISSING", "ReferenceMatched",
            other_rims(DRIVER_RIM, VBIOS_RIM.but(product="GB100"))),
    hostile("manifests under a stranger's root", "REFERENCE_MISSING", "ReferenceMatched",
            other_rims(DRIVER_RIM, VBIOS_RIM.but(root=replace(rim.ROOT, key="somebody")))),
    hostile("a manifest that is out of date", "REFERENCE_MISSING", "ReferenceMatched",
            other_rims(DRIVER_RIM, VBIOS_RIM.but(signer=replace(rim.SIGNER, not_after=NOW - 60)))),
    hostile("a measurement of another value", "REFERENCE_MISMATCH", "ReferenceMatched",
            other_rims(DRIVER_RIM.but(entries=rim_entries((0, 1, 2), {34: bytes(48)})), VBIOS_RIM)),
    hostile("a measurement of another value, named by the policy", "REFERENCE_MISMATCH", "NotContradicted",
            other_rims(DRIVER_RIM.but(entries=rim_entries((0, 1, 2), {34: bytes(48)})), VBIOS_RIM),
            policy=measured("nvidia", RegisterRule(register="block35", value=nvidia.value_of(35)))),
    hostile("a GPU's firmware is not the policy's", "MEASUREMENT_UNKNOWN", "FirmwareNamed",
            policy=measured("nvidia", RegisterRule(register="driver_version", value=b"570.10.01"))),
    hostile("no OCSP responses", "REVOCATION_UNCHECKED", "RevocationChecked",
            TDX.but(held=lambda held: [one for one in held if one[:1] == b"<"])),
    hostile("a GPU whose certificate is revoked", "CERT_REVOKED", "OCSP revoked",
            gpu(answers=(*nvidia.good_answers()[:2], Answer(
                about=3, this_update=NOW - nvidia.DAY, next_update=NOW + nvidia.DAY, status="revoked")))),
    hostile("a GPU under a stranger's root", "ROOT_UNTRUSTED", "root",
            TDX.but(gpus=(GPU_0,)), policy=lambda policy: replace(policy, trust_roots=tuple(
                replace(one, tee="spdm" if one.tee == "nvidia" else one.tee) for one in policy.trust_roots))),
    hostile("no root for sensors", "NO_TRUST_ROOTS", None, TDX, policy=lambda policy: replace(
        policy, trust_roots=tuple(one for one in policy.trust_roots if one.tee != "spdm"))),
    hostile("a sensor in debug mode", "DEVICE_MODE", "NoSpdmDebug", TDX.but(sensors=(SENSOR.but(blocks=(
        *spdm.measurement_blocks()[:-1],
        replace(spdm.measurement_blocks()[-1], value=bytes.fromhex("3f000000040000001f00000001000000")))),))),
    hostile("a sensor that signs one measurement of several", "FIRST_MILE_TOO_LOW", "SpdmGraded",
            TDX.but(sensors=(SENSOR.but(story=(
                spdm.digests(), spdm.certificate(), spdm.challenge(), spdm.measure(1))),)),
            policy=measured("spdm", RegisterRule(
                register="block1", value=spdm.measurement_blocks()[0].value))),
    hostile("a sensor whose number of blocks nobody signed", "FIRST_MILE_TOO_LOW", "SpdmGraded",
            TDX.but(sensors=(SENSOR.but(story=(
                spdm.digests(), spdm.certificate(), spdm.challenge(), spdm.counted_by_nobody(1), spdm.measure(1))),)),
            policy=measured("spdm", RegisterRule(
                register="block1", value=spdm.measurement_blocks()[0].value))),
    hostile("a sensor whose firmware nobody named", "POLICY_EMPTY", "FirmwareNamed", policy=unmeasured("spdm")),
    hostile("a sensor with other firmware", "MEASUREMENT_UNKNOWN", "FirmwareNamed",
            policy=measured("spdm", RegisterRule(register="block1", value=bytes(32)))),
    hostile("a sensor that was not challenged", "NONCE_MISMATCH", None,
            TDX.but(sensors=(SENSOR.but(story=(spdm.digests(), spdm.certificate(), spdm.measure())),))),
]  # fmt: skip

TCB = snp.PRODUCTS["Genoa"]["tcb"]
CODE = RegisterRule(register="measurement", value=snp.MEASUREMENT)
PRODUCT = RegisterRule(register="product", value=b"Genoa")
MINIMUM = RegisterRule(register="reported_tcb_at_least", value=TCB)
GUEST_ALONE = SNP.but(gpus=(), sensors=())
TCB_RULE = TcbRule(
    tee="snp", accepted_statuses=("UpToDate",), grace_days=0, allowed_advisories=(), min_tcb_evaluation_number=1
)

GUESTS = [
    hostile("another guest image", "MEASUREMENT_UNKNOWN", "measurement",
            GUEST_ALONE.but(cpu=snp.GENOA.but(fields={"measurement": bytes(48)}))),
    hostile("a guest's measurement without a minimum TCB", "POLICY_EMPTY", "Lacking", GUEST_ALONE,
            policy=measured("snp", CODE)),
    hostile("a guest's measurement without code", "POLICY_EMPTY", "Lacking", GUEST_ALONE,
            policy=measured("snp", PRODUCT, MINIMUM)),
    hostile("a minimum TCB without its product", "POLICY_INVALID", None, GUEST_ALONE,
            policy=measured("snp", CODE, MINIMUM)),
    hostile("a guest on an older TCB", "MEASUREMENT_UNKNOWN", "measurement", GUEST_ALONE,
            policy=measured("snp", CODE, PRODUCT, replace(MINIMUM, value=bytes([10, 0, 0, 0, 0, 0, 23, 85])))),
    hostile("TCB rules for guests", "POLICY_INVALID", "NoTcbRules", GUEST_ALONE,
            policy=lambda policy: replace(policy, tcb_rules=(TCB_RULE,))),
    hostile("no revocation list of the ARK", "REVOCATION_UNCHECKED", "RevocationListSeen",
            GUEST_ALONE.but(held=lambda held: [one for one in held if one[:1] == b"<"])),
    hostile("a guest's report from VMPL 2", "SNP_VMPL", "VmplAccepted",
            GUEST_ALONE.but(cpu=snp.GENOA.but(fields={"vmpl": 2}))),
    hostile("a guest under DEBUG", "DEBUG_ENABLED", None,
            GUEST_ALONE.but(cpu=snp.GENOA.but(fields={"policy": snp.POLICY | 1 << 19}))),
    hostile("no measurement for guests", "POLICY_EMPTY", "measurement", GUEST_ALONE, policy=unmeasured("snp")),
]  # fmt: skip

LAX = {"unsafe_allow_unenrolled_platform": True}

GRADES = [
    hostile("more than GPUs prove", "FIRST_MILE_TOO_LOW", "FirstMileAtLeast", TDX.but(sensors=()),
            policy=demanding("SPDM_MEASURED")),
    hostile("more than anything proves today", "FIRST_MILE_TOO_LOW", "FirstMileAtLeast",
            policy=demanding("SPDM_SESSION")),
    hostile("a grade without devices", "FIRST_MILE_TOO_LOW", "FirstMileAtLeast", TDX.but(gpus=(), sensors=()),
            policy=demanding("GPU_ATTESTED")),
    hostile("a policy without a minimum", "FIRST_MILE_TOO_LOW", "FirstMileAtLeast", policy=demanding("")),
    hostile("fewer GPUs attested than the host has", "FIRST_MILE_TOO_LOW", "grade",
            TDX.but(gpus=(GPU_0,), sensors=()), enrolled=TDX.but(gpus=(GPU_0,), sensors=()),
            policy=lambda policy: demanding("GPU_ATTESTED")(replace(policy, hosts=(replace(
                policy.hosts[0], classes=(replace(policy.hosts[0].classes[0], gpus=8),)), policy.hosts[1])))),
    hostile("a grade for devices nobody enrolled", "FIRST_MILE_TOO_LOW", "grade", TDX.but(sensors=()),
            enrolment={"gpu_key_digests": ()}, policy=demanding("GPU_ATTESTED", **LAX)),
    hostile("a grade without references", "FIRST_MILE_TOO_LOW", "strictest",
            TDX.but(rims=(), sensors=()), policy=demanding("GPU_ATTESTED", unsafe_allow_unevaluated_tcb=True)),
    hostile("a grade without revocation", "FIRST_MILE_TOO_LOW", "strictest",
            TDX.but(sensors=(), held=lambda held: [one for one in held if one[:1] == b"<"]),
            policy=demanding("GPU_ATTESTED", unsafe_allow_unevaluated_tcb=True)),
    hostile("a grade on a machine nobody enrolled", "FIRST_MILE_TOO_LOW", "graded CPU", TDX,
            enrolment={"platform_ids": ()}, policy=demanding("SPDM_MEASURED", **LAX)),
    hostile("a grade on a guest without a minimum TCB", "FIRST_MILE_TOO_LOW", "graded CPU", SNP,
            policy=lambda policy: demanding("SPDM_MEASURED", unsafe_allow_unevaluated_tcb=True)(
                measured("snp", CODE)(policy))),
    hostile("a grade on a guest whose revocation nobody knows", "FIRST_MILE_TOO_LOW", "graded CPU",
            SNP.but(cpu=snp.GENOA.but(crls=())), policy=demanding("SPDM_MEASURED", unsafe_allow_unevaluated_tcb=True)),
    hostile("a grade from switches alone", "FIRST_MILE_TOO_LOW", "grade",
            SNP.but(gpus=(), switches=SWITCHES, sensors=()), policy=demanding("GPU_ATTESTED")),
]  # fmt: skip

CASES = [*ITEMS, *NONCES, *IDENTITIES, *STATES, *GUESTS, *GRADES]
