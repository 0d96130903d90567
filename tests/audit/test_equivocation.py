"""Two different things signed for one window: found, proven offline, and nothing else taken for it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import decode_signed_manifest, encode_manifest, encode_signed_manifest, manifest_preimage
from schemas.errors import EnclaveScaleError
from stream_jobs.audit.check import Checker, EquivocationStatement
from stream_jobs.audit.document import MANIFESTS, OUTPUTS, EquivocationProof, proof_text, read_proof
from stream_jobs.audit.equivocation import MAX_VERSIONS, EquivocationFinder
from stream_jobs.audit.errors import NotEquivocation, PolicySignerNeeded, ProofMalformed
from stream_jobs.log_record import LogRecord
from tests.audit.site import NAMES, Site, checker, publish, worker_session
from tests.audit.stories import T0, W, fresh, told
from tests.audit.test_chain import output, resigned
from tests.core.replay import CACHE


def find(site: Site, **wanted: int | str) -> tuple[list[EquivocationProof], EquivocationFinder]:
    finder = EquivocationFinder(site.audit, checker())
    return list(finder.find(**wanted)), finder  # type: ignore[arg-type]


def lie(site: Site, offset: int = 2, worker: int = 0, by: int = 1) -> None:
    """Append another version of an output, signed by an attested worker."""
    record = output(site, offset).record
    value = resigned(record, lambda made: replace(made, late_accepted=made.late_accepted + by), site, worker)
    site.topics.append(record.topic, 0, record.timestamp_ms + 1, record.key, value)


def test_honest_workers_do_not_contradict_each_other() -> None:
    site = fresh()
    publish(site.topics, site.story, 1)
    found, finder = find(site)
    assert (found, finder.seen.contested) == ([], 0)
    assert (finder.seen.outputs, finder.seen.manifests) == (10, 10)


@pytest.mark.parametrize("worker", [0, 1])
def test_two_versions_of_an_output_are_evidence(worker: int) -> None:
    site = fresh()
    lie(site, worker=worker)
    (proof,), finder = find(site)
    statement = checker().check(read_proof(proof_text(proof).encode()))
    assert isinstance(statement, EquivocationStatement)
    assert (statement.records, statement.fields) == (OUTPUTS, ("late_accepted",))
    assert statement.first.worker == "aggregator-0"
    assert statement.second.worker == f"aggregator-{worker}"
    assert statement.first.digest != statement.second.digest
    assert (finder.seen.contested, finder.seen.unproven) == (1, [])


def test_two_versions_of_a_manifest_are_evidence() -> None:
    site = fresh()
    record = site.topics.of(NAMES.manifests)[0]
    manifest = decode_signed_manifest(record.value or b"")[0].manifest
    data = encode_manifest(replace(manifest, witnesses=manifest.witnesses[1:]))
    session = worker_session()
    value = encode_signed_manifest(data, session.sign(manifest_preimage(data)), session.session_id)
    site.topics.append(record.topic, 0, record.timestamp_ms, record.key, value)
    (proof,), _ = find(site)
    statement = checker().check(read_proof(proof_text(proof).encode()))
    assert isinstance(statement, EquivocationStatement)
    assert (statement.records, statement.fields) == (MANIFESTS, ("witnesses",))


def test_what_does_not_verify_is_no_evidence() -> None:
    """A version whose signature fails, in front of the genuine one."""
    site = fresh()
    lie(site)
    forged = site.outputs()[-1]
    found = site.audit.as_output(forged)
    assert found is not None
    value = bytearray(forged.value or b"")
    value[bytes(value).index(found.signed.signature)] ^= 1
    held = site.topics.records[NAMES.output, 0]
    held.remove(forged)
    site.topics.records[NAMES.output, 0] = [
        replace(one, offset=number) for number, one in enumerate([replace(forged, value=bytes(value)), *held])
    ]
    proofs, finder = find(site)
    assert proofs == []
    assert [code for _, _, code in finder.seen.unproven] == ["SIGNATURE_INVALID"]


def broken(site: Site, record: LogRecord) -> bytes:
    """An output with another signature, and the same digest."""
    found = site.audit.as_output(record)
    assert found is not None
    value = bytearray(record.value or b"")
    value[bytes(value).index(found.signed.signature)] ^= 1
    return bytes(value)


def test_forged_versions_do_not_hide_two_genuine_ones() -> None:
    """However many there are: whoever may write to the topic must not be able to cover up a contradiction."""
    site = fresh()
    for number in range(MAX_VERSIONS + 2):
        lie(site, by=10 + number)
        bad = site.outputs()[-1]
        site.topics.replace(bad, value=broken(site, bad))
    lie(site)
    (proof,), finder = find(site)
    assert isinstance(checker().check(proof), EquivocationStatement)
    assert finder.seen.unproven == []


def test_a_forged_copy_does_not_stand_for_the_genuine_version() -> None:
    """The digest does not cover the signature: a copy in front of each version has the same one, and proves nothing."""
    site = fresh()
    lie(site)
    held = site.topics.records[NAMES.output, 0]
    copies = [replace(one, value=broken(site, one)) for one in (held[2], held[-1])]
    site.topics.records[NAMES.output, 0] = [replace(one, offset=number) for number, one in enumerate([*copies, *held])]
    assert len(find(site)[0]) == 1


def test_forged_manifests_do_not_hide_two_genuine_ones() -> None:
    site = fresh()
    record, session = site.topics.of(NAMES.manifests)[0], worker_session()
    manifest = decode_signed_manifest(record.value or b"")[0].manifest
    for number in range(MAX_VERSIONS + 3):
        data = encode_manifest(replace(manifest, witnesses=manifest.witnesses[:1] * number))
        genuine = number == MAX_VERSIONS + 2
        signature = session.sign(manifest_preimage(data)) if genuine else bytes(64)
        value = encode_signed_manifest(data, signature, session.session_id)
        site.topics.append(record.topic, 0, record.timestamp_ms, record.key, value)
    (proof,), _ = find(site)
    statement = checker().check(proof)
    assert isinstance(statement, EquivocationStatement)
    assert statement.records == MANIFESTS


def test_the_range_and_the_domain_narrow_the_search() -> None:
    site = fresh()
    lie(site, offset=0)
    lie(site, offset=4)
    assert len(find(site)[0]) == 2
    assert len(find(site, to_ms=T0 + W)[0]) == 1
    assert len(find(site, from_ms=T0 + W)[0]) == 1
    assert len(find(site, domain="d")[0]) == 2
    assert find(site, domain="e")[0] == []


def evidence() -> EquivocationProof:
    site = fresh()
    lie(site)
    return find(site)[0][0]


def test_the_same_output_twice_and_outputs_of_two_windows_are_no_evidence() -> None:
    proof = evidence()
    one, other = proof.said
    with pytest.raises(NotEquivocation):
        checker().check(replace(proof, said=(one, one)))
    later = replace(one, output=told().outputs()[4].value or b"")
    with pytest.raises(NotEquivocation):
        checker().check(replace(proof, said=(one, later)))
    manifest = told().topics.of(NAMES.manifests)[2].value or b""
    same = replace(one, manifest=manifest)
    with pytest.raises(NotEquivocation):
        checker().check(EquivocationProof(records=MANIFESTS, said=(same, same)))
    with pytest.raises(PolicySignerNeeded):
        Checker(open_policy=None, verify=CACHE.verify).check(proof)
    assert other.output != one.output


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1), st.floats(0, 0.99), st.integers(0, 7))
def test_one_bit_of_either_output_makes_it_nothing(which: int, where: float, bit: int) -> None:
    proof = _KEPT
    said = list(proof.said)
    data = bytearray(said[which].output)
    data[int(where * len(data))] ^= 1 << bit
    said[which] = replace(said[which], output=bytes(data))
    with pytest.raises(EnclaveScaleError):
        checker().check(replace(proof, said=(said[0], said[1])))


_KEPT = evidence()


def test_a_document_with_one_side_only_is_refused() -> None:
    document = json.loads(proof_text(_KEPT))
    for said in ([], document["said"][:1], [*document["said"], document["said"][0]], None, [1, 2]):
        with pytest.raises(ProofMalformed):
            read_proof(json.dumps(document | {"said": said}).encode())
    with pytest.raises(ProofMalformed, match="manifest"):
        read_proof(json.dumps(document | {"records": MANIFESTS}).encode())
