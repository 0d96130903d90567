"""Sealed reports decode to what was measured, verify, chain, and carry evidence when it is due."""

import itertools
from dataclasses import fields, replace

import numpy as np
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from attester.session import Session
from attester.simulated import SimulatedTee
from producers.config import check_binding, host_binding, session_facts
from producers.distil import Gaps
from producers.privacy import Budget, privacy_parameters
from producers.privatise import Noisy
from producers.seal import ClassWindow, SealedReport, Sealer
from schemas.codec import DecodedRecord, decode_signed_record, session_id_of
from schemas.contract import HISTOGRAM_CELLS
from schemas.errors import ConfigError
from schemas.records import WindowReport
from tests.producers.forge import SCHEDULE, START_MS, FakeSession, FakeSource, gpu_class, host, session_for

PROFILE = host("host-1", "row-1", gpu_class(model="H100"), gpu_class(FakeSource(gpus=1), model="A100"))
PRIVACY = privacy_parameters(Budget(), PROFILE.classes, SCHEDULE)
SEEN = Gaps(samples_taken=99, stalls_coarse=2, gpus_with_gaps=3, gpus_silent=1)
NOISY = Noisy(
    np.arange(-10, 15, dtype="<i4").reshape(5, 5),
    np.array([-(2**31), 2**31 - 1, *range(8)], dtype="<i4"),
    np.arange(-20, HISTOGRAM_CELLS - 20, dtype="<i4"),
)


def sealer(session: FakeSession, last: bytes | None = None, interval: int = 3) -> Sealer:
    return Sealer(session, PROFILE, SCHEDULE, PRIVACY, last_digest=last, evidence_interval=interval)


def seal(
    by: Sealer, window: int = 0, dropped: int = 0, noisy: Noisy = NOISY
) -> tuple[SealedReport, DecodedRecord, WindowReport]:
    classes = tuple(ClassWindow(item, 100, noisy) for item in PROFILE.classes)
    sealed = by.seal(START_MS + window * SCHEDULE.window_ms, classes, SEEN, dropped)
    record = decode_signed_record(sealed.value)
    assert isinstance(record.body, WindowReport)
    return sealed, record, record.body


def test_a_report_says_what_was_released_and_verifies() -> None:
    session = session_for(PROFILE)
    sealed, record, body = seal(sealer(session), dropped=4)
    session.verify(record.signature, record.preimage)
    with pytest.raises(InvalidSignature):
        session.verify(record.signature, record.preimage + b"\0")
    assert record.digest == sealed.digest
    assert (body.host_id, body.domain, body.session_id) == ("host-1", "row-1", session.session_id)
    assert [item.model for item in body.classes] == ["A100", "H100"]  # sorted, whatever the profile's order
    item = body.classes[0]
    assert np.frombuffer(item.transitions, "<i4").reshape(item.transitions_shape).tolist() == NOISY.transitions.tolist()
    assert np.frombuffer(item.pane_sums, "<i4").tolist() == NOISY.pane_sums.tolist()
    assert item.histogram is not None
    assert np.frombuffer(item.histogram, "<i4").tolist() == list(range(-20, 45))
    assert item.histogram_shape == (65,)
    assert (item.gpus, item.edges_w, item.pane_sum_quantum_mw) == (1, (100, 200, 300), 100)
    assert (body.window_start_ms, body.window_end_ms) == (START_MS, START_MS + 10_000)
    assert (body.samples_scheduled, body.samples_taken, body.stalls_coarse) == (100, 99, 2)
    assert {f.flag: f.gpus for f in body.sensor_flags} == {"gap": 2, "gpu_lost": 1}
    assert (body.privacy, body.dropped_reports, body.source) == (session.binding.privacy, 4, "trace")


@pytest.mark.parametrize("noisy", [NOISY, replace(NOISY, histogram=None)], ids=["all drawn", "no histogram"])
def test_every_null_has_a_reason_and_nothing_else_has(noisy: Noisy) -> None:
    _, record, body = seal(sealer(session_for(PROFILE)), noisy=noisy)
    assert all((one.histogram is None) == (noisy.histogram is None) for one in body.classes)
    assert all(one.histogram_shape == (() if noisy.histogram is None else (65,)) for one in body.classes)
    assert record.evidence is not None
    for part in (body, *body.classes, body.privacy, body.confidential_compute, record.evidence.binding):
        for name in (one.name for one in fields(part)):
            if name.endswith("_absent_reason"):
                absent = getattr(part, name.removesuffix("_absent_reason")) is None
                assert absent == (getattr(part, name) is not None), name


def test_reports_chain_and_evidence_comes_back() -> None:
    by = sealer(session_for(PROFILE))
    found = [seal(by, window) for window in range(7)]
    assert [body.seq for _, _, body in found] == list(range(7))
    assert found[0][2].prev_digest is None
    assert found[0][2].prev_digest_absent_reason == "first_record"
    for (before, _, _), (_, _, body) in itertools.pairwise(found):
        assert body.prev_digest == before.digest
    carried = [record.evidence is not None for _, record, _ in found]
    assert carried == [True, False, False, True, False, False, True]
    assert [sealed.has_evidence for sealed, _, _ in found] == carried


def test_evidence_returns_at_once_when_it_was_lost() -> None:
    by = sealer(session_for(PROFILE), interval=100)
    seal(by)
    by.require_evidence()
    assert [seal(by, window)[0].has_evidence for window in (1, 2)] == [True, False]


def test_evidence_keeps_up_with_windows_slept_through() -> None:
    """Its age counts in windows, not in reports: the worker would refuse what follows as EVIDENCE_STALE."""
    by = sealer(session_for(PROFILE), interval=3)
    assert [seal(by, window)[0].has_evidence for window in (0, 1, 9, 10, 12)] == [True, False, True, False, True]


def test_a_new_session_names_the_last_digest_of_the_spool() -> None:
    last = bytes(range(32))
    _, record, body = seal(sealer(session_for(PROFILE), last))
    assert (body.seq, body.prev_digest, body.prev_digest_absent_reason) == (0, last, None)
    assert record.evidence is not None


@pytest.mark.parametrize(
    "change", [{"domain": "row-2"}, {"window_ms": 60_000}, {"source": "nvml"}, {"clip_ranges": ()}, {"privacy": None}]
)
def test_a_session_bound_to_something_else_is_refused(change: dict[str, object]) -> None:
    session = session_for(PROFILE)
    session.binding = replace(session.binding, **change)
    with pytest.raises(ConfigError) as refused:
        sealer(session)
    assert refused.value.field == next(iter(change))


def test_the_configuration_digest_moves_with_the_configuration() -> None:
    facts = session_facts(PROFILE, SCHEDULE, PRIVACY)
    other = host("host-1", "row-1", replace(PROFILE.classes[0], capacity_w=801), PROFILE.classes[1])
    again = host("host-1", "row-1", *reversed(PROFILE.classes))
    assert session_facts(other, SCHEDULE, PRIVACY).config_digest != facts.config_digest
    assert session_facts(again, SCHEDULE, PRIVACY) == facts
    check_binding(session_for(PROFILE).binding, facts)


def test_a_session_of_the_attester_signs_reports() -> None:
    """The real thing behind the protocol, on a simulated TEE."""
    facts = session_facts(PROFILE, SCHEDULE, PRIVACY)
    session = Session(SimulatedTee.create(), lambda key: host_binding(facts, key, created_at_ms=START_MS))
    by = Sealer(session, PROFILE, SCHEDULE, PRIVACY, last_digest=None)
    _, record, body = seal(by)
    assert record.binding_bytes == session.binding_bytes
    assert body.session_id == session_id_of(session.binding_bytes)
    r, s = int.from_bytes(record.signature[:32], "big"), int.from_bytes(record.signature[32:], "big")
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), session.binding.session_public_key)
    key.verify(utils.encode_dss_signature(r, s), record.preimage, ec.ECDSA(hashes.SHA256()))
