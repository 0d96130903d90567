"""Nonces, files, enrolment, verdicts and limits of composite evidence; hostile hosts are in `tests/forge/composite`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.records import EvidenceItem
from tests.forge.composite.world import (
    FOREIGN_GPU,
    GENUINE,
    GPU_0,
    NOW,
    OTHER_HOST,
    SENSOR,
    SENSOR_1,
    SNP,
    TDX,
    Case,
    gpu_digest,
    mint,
)
from tests.forge.world import GENUINE as SIMULATED
from verifier import composite
from verifier.abi.composite import CompositeFile, parse_composite
from verifier.composite import Memory, verify_composite
from verifier.errors import (
    CompositeMalformed,
    EvidenceTooLarge,
    PlatformNotEnrolled,
    RevocationUnchecked,
    VerificationError,
)
from verifier.evidence import sort_evidence
from verifier.limits import MAX_COMPOSITE_BYTES, MAX_EVIDENCE_ITEMS
from verifier.nonces import device_nonce, gpu_identities_digest
from verifier.policy.devices import RimsUnrevoked
from verifier.policy.enrolment import enrolment_of, lint_enrolment
from verifier.session import PolicyRoots, VerifiedSession, evidence_digest, verify_session
from verifier.vendor_collateral import RimShelf
from verifier.verdicts import session as verdict

REPORT_DATA = bytes(range(64))


class TestNonces:
    """What a device is asked with: agents and verifiers must agree on every byte."""

    def test_known_answers(self) -> None:
        """Computed apart from the code under test, from the sentence that defines them."""
        text = b"enclavescale/device-nonce/1\x00" + REPORT_DATA
        gpu = text + b"\x06\x00\x00\x00nvidia" + b"\x05\x00\x00\x00GPU-0" + bytes(4)
        sensor = text + b"\x04\x00\x00\x00spdm" + b"\x03\x00\x00\x00\xc3\xa9:" + b"\x01\x00\x00\x00"
        assert device_nonce(REPORT_DATA, "nvidia", "GPU-0") == hashlib.sha256(gpu).digest()
        assert device_nonce(REPORT_DATA, "spdm", "é:", 1) == hashlib.sha256(sensor).digest()
        assert device_nonce(REPORT_DATA, "nvidia", "GPU-0").hex() == (
            "44287921381cf6d7b5066dcd4c713a921a0f8bc76c8c23ce42108a5c9803616b"
        )
        assert (
            gpu_identities_digest([b"\x02" * 32, b"\x01" * 32])
            == hashlib.sha256(b"enclavescale/devices/1\x00" + b"\x01" * 32 + b"\x02" * 32).digest()
        )

    @given(st.binary(min_size=64, max_size=64), st.text(max_size=20), st.text(max_size=20), st.integers(0, 3))
    def test_another_question_is_another_nonce(self, data: bytes, one: str, other: str, index: int) -> None:
        found = {
            device_nonce(data, kind, subject, at)
            for kind in ("nvidia", "spdm")
            for subject in {one, other}
            for at in (index, index + 1)
        }
        assert len(found) == 4 * len({one, other})

    def test_a_programmer_s_mistake_is_a_value_error(self) -> None:
        for arguments in ((b"", "nvidia", "x", 0), (REPORT_DATA, "gpu", "x", 0), (REPORT_DATA, "spdm", "x", -1)):
            with pytest.raises(ValueError, match="64 bytes"):
                device_nonce(*arguments)
        with pytest.raises(ValueError, match="32 bytes"):
            gpu_identities_digest([bytes(31)])


class TestFile:
    """The file of `enclavescale verify --kind composite`."""

    def test_what_is_written_is_read(self) -> None:
        one = mint(TDX)
        for binding in (one.binding_bytes, None):
            read = parse_composite(CompositeFile(one.items, binding).encode())
            assert read.binding_bytes == binding
            assert [(item.kind, item.subject, item.data) for item in read.items] == [
                (item.kind, item.subject, item.data) for item in one.items
            ]

    @pytest.mark.parametrize(
        ("text", "field"),
        [
            (b"", "composite"),
            (b"[]", "composite"),
            (b"{}", "items"),
            (b'{"items": {}}', "items"),
            (b'{"items": [], "items": []}', "composite"),
            (b'{"items": [], "nonce": ""}', "composite"),
            (b'{"items": [7]}', "items[0]"),
            (b'{"items": [{"kind": "x", "data": "", "extra": 1}]}', "items[0]"),
            (b'{"items": [{"kind": 7, "data": ""}]}', "items[0]"),
            (b'{"items": [{"kind": "x", "subject": 7, "data": ""}]}', "items[0]"),
            (b'{"items": [{"kind": "x", "subject": "\\u0007", "data": ""}]}', "items[0]"),
            (b'{"items": [{"kind": "\\ud800", "data": ""}]}', "items[0]"),
            (b'{"items": [{"kind": "x"}]}', "items[0].data"),
            (b'{"items": [{"kind": "x", "data": "QQ"}]}', "items[0].data"),
            (b'{"items": [{"kind": "x", "data": "QQ==\\n"}]}', "items[0].data"),
            (b'{"items": [{"kind": "x", "data": "\xc3\xa9"}]}', "items[0].data"),
            (b'{"items": [], "binding": 7}', "binding"),
            (b'{"items": [], "binding": "!"}', "binding"),
        ],
    )
    def test_what_it_may_not_be(self, text: bytes, field: str) -> None:
        with pytest.raises(CompositeMalformed) as caught:
            parse_composite(text)
        assert caught.value.field == field

    def test_it_is_bounded(self) -> None:
        with pytest.raises(EvidenceTooLarge):
            parse_composite(b" " * (MAX_COMPOSITE_BYTES + 1))
        item = {"kind": "x", "data": ""}
        with pytest.raises(EvidenceTooLarge):
            parse_composite(json.dumps({"items": [item] * (MAX_EVIDENCE_ITEMS + 1)}).encode())


def test_as_many_devices_as_a_session_may_have() -> None:
    """A CPU, eight GPUs, four switches with a chain each, and a sensor for every GPU."""
    items = [EvidenceItem(kind="tdx_quote_v4", data=b"q")]
    for name in [*(f"GPU-{at}" for at in range(8)), *(f"SWITCH-{at}" for at in range(4))]:
        items += [EvidenceItem(kind=f"nvidia_gpu_{one}", data=b"x", subject=name) for one in ("certificates", "report")]
    items += [EvidenceItem(kind="spdm_transcript", data=b"x", subject=f"sensor-{at}") for at in range(8)]
    found = sort_evidence(items)
    assert found.cpu is not None
    assert (found.cpu.tee, len(found.devices)) == ("tdx", 20)


def session_of(host: Any, **changes: Any) -> VerifiedSession:
    return verify_session(**Case(name="x", code="", step=None, host=host, **changes).arguments())


class TestEnrolment:
    """Each platform and device is one host's alone."""

    POLICY = Case(name="x", code="", step=None).arguments()["policy"]

    def test_a_clean_policy_has_nothing_to_say(self) -> None:
        assert lint_enrolment(self.POLICY) == ()
        assert enrolment_of(self.POLICY) is enrolment_of(replace(self.POLICY, counter=9))

    def test_lint_names_every_host_and_field(self) -> None:
        first, second = self.POLICY.hosts
        shared = first.gpu_key_digests[0].upper()
        hosts = (first, replace(second, platform_ids=first.platform_ids, gpu_key_digests=(shared, "ab")))
        found = [(one.code, one.field) for one in lint_enrolment(replace(self.POLICY, hosts=hosts))]
        assert found == [
            ("ENROLMENT_AMBIGUOUS", "platform_ids"),
            ("ENROLMENT_AMBIGUOUS", "gpu_key_digests"),
            ("ENROLMENT_AMBIGUOUS", "platform_ids"),
            ("ENROLMENT_AMBIGUOUS", "gpu_key_digests"),
            ("POLICY_INVALID", "gpu_key_digests"),
        ]

    def test_lint_names_aggregators_of_one_name(self) -> None:
        (one,) = self.POLICY.aggregators
        found = lint_enrolment(replace(self.POLICY, aggregators=(one, replace(one, platform_ids=()))))
        assert [(error.code, error.field) for error in found] == [("ENROLMENT_AMBIGUOUS", "host_id")]

    def test_who_is_not_concerned_is_not_refused(self) -> None:
        """An enrolment that is wrong for two other hosts costs this one nothing."""
        second = self.POLICY.hosts[1]
        others = (second, replace(second, host_id="host-3"))
        arguments = Case(name="x", code="", step=None).arguments()
        verify_session(**{**arguments, "policy": replace(self.POLICY, hosts=(arguments["policy"].hosts[0], *others))})

    def test_a_stranger_s_owner_is_named(self) -> None:
        with pytest.raises(PlatformNotEnrolled) as caught:
            session_of(TDX.but(gpus=(GPU_0, FOREIGN_GPU)), enrolled=TDX)
        assert OTHER_HOST in str(caught.value)
        assert gpu_digest(FOREIGN_GPU).hex() in str(caught.value)

    def test_many_policies_are_indexed_in_bounded_memory(self) -> None:
        from verifier.policy import enrolment

        for number in range(40):
            enrolment_of(replace(self.POLICY, hosts=(replace(self.POLICY.hosts[0], host_id=f"h{number}"),)))
        assert len(enrolment._SEEN) == enrolment._POLICIES_REMEMBERED


class TestVerdict:
    """Sessions with devices as attestation results."""

    DIGEST = bytes(32)

    def test_every_device_has_its_submodule(self) -> None:
        session = session_of(TDX)
        found = json.loads(json.dumps(verdict.accepted(session, policy_digest=self.DIGEST, now_ms=0)))["submods"]
        assert set(found) == {"cpu", "gpu:GPU-0", "gpu:GPU-1", "spdm:sensor-0.rack7:2323"}
        cpu = found["cpu"]["enclavescale"]
        assert cpu["first_mile"] == "SPDM_MEASURED"
        assert cpu["gpu_key_digests"] == sorted(one.hex() for one in TDX.digests())
        assert found["cpu"]["ear.trustworthiness-vector"]["sourced-data"] == 0, "no device signs its readings"
        gpu = found["gpu:GPU-0"]["enclavescale"]
        assert (gpu["fwid_bound"], gpu["reference"], gpu["revocation"]) == ("bound", "match", "checked")
        assert gpu["reference_override"] is True
        assert found["spdm:sensor-0.rack7:2323"]["ear.status"] == "warning", "SPDM has no source of revocation"
        assert all(one["ear.status"] in ("affirming", "warning") for one in found.values())

    def test_a_guest_s_own_facts(self) -> None:
        session = session_of(SNP.but(gpus=(), sensors=()))
        found = verdict.accepted(session, policy_digest=self.DIGEST, now_ms=0)["submods"]
        assert found["cpu"]["ear.status"] == "affirming"
        assert found["cpu"]["enclavescale"]["tee"] == "snp"
        assert found["cpu"]["enclavescale"]["product"] == "Genoa"
        assert found["cpu"]["enclavescale"]["revocation"] == "checked"

    def test_a_switch_is_called_so(self) -> None:
        host, _ = GENUINE["SNP, GPUs and switches in protected PCIe"]
        found = verdict.accepted(session_of(host), policy_digest=self.DIGEST, now_ms=0)["submods"]
        switch = found["switch:SWITCH-0"]
        assert switch["enclavescale"]["fwid_bound"] == "not_bound"
        assert switch["ear.trustworthiness-vector"]["hardware"] == 32


def test_unsafe_switches_are_shown() -> None:
    lax = session_of(TDX.but(rims=(), sensors=()), policy=lambda one: replace(one, unsafe_allow_unevaluated_tcb=True))
    assert lax.first_mile == "NONE"
    assert any("references" in warning for warning in lax.warnings)
    stray = session_of(
        TDX.but(sensors=()),
        enrolment={"gpu_key_digests": ()},
        policy=lambda one: replace(one, unsafe_allow_unenrolled_platform=True),
    )
    assert stray.first_mile == "NONE"
    assert any("devices not enrolled" in warning for warning in stray.warnings)


def test_a_simulated_device_makes_a_simulated_session() -> None:
    found = session_of(
        TDX.but(gpus=()),
        policy=lambda one: replace(
            one, trust_roots=tuple(replace(root, simulated=root.tee == "spdm") for root in one.trust_roots)
        ),
    )
    assert found.simulated
    assert not found.claims.quote.simulated


def test_manifests_of_the_vendor_need_revocation_and_an_operator_s_do_not() -> None:
    (report,) = session_of(TDX.but(gpus=(GPU_0,), sensors=())).claims.devices
    evidence: Any = report.evidence
    assert {rim.revocation for rim in evidence.rims} == {"unchecked"}
    RimsUnrevoked().check(evidence)
    vendor = tuple(replace(rim, override=False) for rim in evidence.rims)
    with pytest.raises(RevocationUnchecked):
        RimsUnrevoked().check(replace(evidence, rims=vendor))
    RimsUnrevoked().check(replace(evidence, rims=tuple(replace(rim, revocation="checked") for rim in vendor)))


class TestOrderOfCost:
    """What costs little refuses first: no signature of a device is verified for a stranger."""

    def refused(self, monkeypatch: pytest.MonkeyPatch, host: Any, **changes: Any) -> tuple[str, int]:
        """(code, devices whose evidence was verified at all)."""
        seen: list[str] = []
        whole = composite._Verifier.device

        def device(verifier: Any, items: Any, *rest: Any) -> Any:
            seen.append(items.subject)
            return whole(verifier, items, *rest)

        monkeypatch.setattr(composite._Verifier, "device", device)
        with pytest.raises(VerificationError) as caught:
            session_of(host, **changes)
        return caught.value.code, len(seen)

    @pytest.mark.parametrize(
        ("host", "changes", "code"),
        [
            (TDX, {"enrolment": {"platform_ids": ("ab" * 16,)}}, "PLATFORM_NOT_ENROLLED"),
            (TDX, {"policy": lambda one: replace(one, measurements=())}, "POLICY_EMPTY"),
            (TDX, {"policy": lambda one: replace(one, accepted_sources=("dcgm",))}, "SOURCE_REFUSED"),
            (TDX.but(gpus=(GPU_0, FOREIGN_GPU)), {"enrolled": TDX}, "PLATFORM_NOT_ENROLLED"),
            (TDX.but(sensors=(SENSOR, SENSOR_1)), {"enrolled": TDX}, "PLATFORM_NOT_ENROLLED"),
            (TDX.but(gpus=(GPU_0, GPU_0)), {}, "DEVICE_DUPLICATE"),
            (TDX.but(sensors=(SENSOR, SENSOR)), {}, "DEVICE_DUPLICATE"),
        ],
        ids=["machine", "code", "source", "GPU", "sensor", "GPU twice", "sensor twice"],
    )
    def test_before_any_device(
        self, monkeypatch: pytest.MonkeyPatch, host: Any, changes: dict[str, Any], code: str
    ) -> None:
        assert self.refused(monkeypatch, host, **changes) == (code, 0)

    def test_what_presents_no_device_is_left_to_verification(self, monkeypatch: pytest.MonkeyPatch) -> None:
        host = TDX.but(items=lambda items: [*items[:-1], replace(items[-1], data=b"{}")])
        assert self.refused(monkeypatch, host) == ("SPDM_MALFORMED", 3)


class TestMemory:
    """What is remembered below the verdict."""

    def test_it_changes_no_answer_and_is_bounded(self) -> None:
        arguments, memory = Case(name="x", code="", step=None).arguments(), Memory(rims=RimShelf(2))
        first = verify_session(**arguments, memory=memory)
        again = verify_session(**arguments, memory=memory)
        assert first == again == verify_session(**arguments)
        assert len(memory.rims) == 2
        assert len(memory.paths) == 3

    def test_a_shelf_of_nothing_is_a_mistake(self) -> None:
        with pytest.raises(ValueError, match="at least one"):
            RimShelf(0)


def test_every_item_is_in_the_evidence_digest() -> None:
    one = mint(TDX.but(sensors=(SENSOR,)))
    digests = {evidence_digest(one.items[:-at] if at else one.items, one.binding_bytes) for at in range(len(one.items))}
    assert len(digests) == len(one.items)


def test_a_session_of_one_quote_is_judged_as_before() -> None:
    session = SIMULATED.judge()
    assert (session.first_mile, session.claims.devices) == ("NONE", ())


def test_refusals_of_devices_say_for_how_long() -> None:
    """What fails for its bytes alone fails as long as the CPU's evidence holds, and no new answer is published."""
    case = Case(
        name="x", code="", step=None,
        host=TDX.but(items=lambda items: [items[0], replace(items[1], data=items[1].data[:-1]), *items[2:]]),
    )  # fmt: skip
    with pytest.raises(VerificationError) as caught:
        case.judge()
    whole = session_of(TDX.but(gpus=(), sensors=()))
    assert whole.valid_from_ms < (caught.value.holds_from_ms or 0) < NOW * 1000
    assert caught.value.holds_until_ms == whole.expires_ms
    assert caught.value.field is not None
    assert caught.value.field.startswith("GPU-0.")


@pytest.mark.parametrize(
    ("host", "held"),
    [
        (TDX.but(items=lambda items: []), ()),
        (TDX.but(report_data=lambda data: bytes(64)), ("format",)),
        (TDX.but(sensors=(SENSOR, SENSOR)), ("format", "cpu")),
    ],
    ids=["items", "cpu", "devices"],
)
def test_a_refusal_says_how_far_verification_came(host: Any, held: tuple[str, ...]) -> None:
    arguments = Case(name="x", code="", step=None, host=host).arguments()
    with pytest.raises(VerificationError) as caught:
        verify_composite(
            items=arguments["evidence"].items,
            collateral=arguments["collateral"],
            trust_roots=PolicyRoots(arguments["policy"]),
            now_ms=NOW * 1000,
            report_data=arguments["report_data"],
        )
    assert caught.value.verified == held
