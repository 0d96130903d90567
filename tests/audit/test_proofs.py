"""Proofs about reports: every report of a story has one, and nothing altered passes."""

from __future__ import annotations

import base64
import json
import os
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import decode_signed_manifest, decode_signed_output
from schemas.errors import EnclaveScaleError, SchemaError
from stream_jobs.audit.check import Checker, ReportStatement
from stream_jobs.audit.document import ACCEPTED, REFUSED, ReportProof, proof_text, read_proof
from stream_jobs.audit.errors import (
    InclusionInvalid,
    ManifestMismatch,
    PolicySignerNeeded,
    ProofMalformed,
    ProofMismatch,
    ProofVersion,
    RecordNotFound,
    RefusedTreeUnproven,
    WorkerMismatch,
)
from stream_jobs.core.effects import Rejection
from stream_jobs.log_record import LogRecord
from tests.audit.site import NAMES, Site, checker, publish, signed_policy, signer_point
from tests.audit.stories import HOSTS, T0, W, fresh, told
from tests.core.fleet import AGGREGATORS
from tests.core.replay import CACHE

FLIPS = {"test": 150, "soak": 2_000}.get(os.environ.get("ENCLAVESCALE_TIER", "test"), 10_000)


def prove(site: Site, digest: bytes, **wanted: Any) -> tuple[ReportProof, ReportStatement]:
    """A proof, as it comes back from its document, and what it says."""
    proof = read_proof(proof_text(site.prover.prove(digest, **wanted)).encode())
    assert isinstance(proof, ReportProof)
    statement = site.checker.check(proof)
    assert isinstance(statement, ReportStatement)
    return proof, statement


def some(verdict: str = ACCEPTED) -> ReportProof:
    """A proof of a window with several reports."""
    site = told()
    letters = [one for one in site.story.run.rejections if one.code == "CLASS_MISMATCH"]
    wanted = letters[0].digest if verdict == REFUSED else decoded_outputs(site)[0][2][1]
    assert wanted is not None
    return site.prover.prove(wanted, verdict=verdict)


def decoded_outputs(site: Site) -> list[tuple[int, int, list[bytes]]]:
    """(window, revision, accepted digests) of each output, from the manifests."""
    found = []
    for record in site.topics.of(NAMES.manifests):
        manifest = decode_signed_manifest(record.value or b"")[0].manifest
        held = manifest.accepted_digests
        digests = [held[i : i + 32] for i in range(0, len(held), 32)]
        found.append(((manifest.window_start_ms - T0) // W, manifest.revision, digests))
    return found


def test_every_accepted_report_has_a_proof_in_every_output_that_counts_it() -> None:
    site, proven = told(), Counter[tuple[int, int]]()
    for window, revision, digests in decoded_outputs(site):
        for number, digest in enumerate(digests):
            proof, statement = prove(site, digest, verdict=ACCEPTED, revision=revision)
            made = statement.published
            assert (made.domain, made.window_start_ms, made.revision) == ("d", T0 + window * W, revision)
            assert (statement.index, statement.count, statement.verdict) == (number, len(digests), ACCEPTED)
            assert proof.outer is None
            proven[window, revision] += 1
    assert proven == {(0, 0): 3, (1, 0): 2, (1, 1): 3, (2, 0): 3, (3, 0): 3}


def test_without_a_revision_the_newest_output_counts() -> None:
    site = told()
    digest = next(digests[0] for window, revision, digests in decoded_outputs(site) if (window, revision) == (1, 0))
    assert prove(site, digest, verdict=ACCEPTED)[1].published.revision == 1


def test_every_refused_record_that_an_output_counts_has_a_proof() -> None:
    site = told()
    last = max(offset for offset, _ in site.story.run.emissions)
    verdicts: Counter[str] = Counter()
    for letter in site.story.run.rejections:
        if letter.digest is None or letter.offset >= last:
            continue
        proof, statement = prove(site, letter.digest, verdict=REFUSED)
        close = min(offset for offset, _ in site.story.run.emissions if offset > letter.offset)
        assert statement.published.close_offset == close
        assert (proof.outer is not None) == (letter.domain is None)
        verdicts[letter.code] += 1
    assert verdicts == {"NO_POLICY": 3, "DUPLICATE": 4, "CLASS_MISMATCH": 4, "WRONG_PARTITION": 1}


def test_what_no_output_counts_yet_has_no_proof() -> None:
    site = told()
    waiting = site.story.run.rejections[-1]
    assert waiting.digest is not None
    with pytest.raises(RecordNotFound, match=f"refused at offset {waiting.offset} with {waiting.code}"):
        site.prover.prove(waiting.digest)
    with pytest.raises(RecordNotFound, match="as accepted"):
        site.prover.prove(waiting.digest, verdict=ACCEPTED)
    with pytest.raises(RecordNotFound, match="no manifest"):
        site.prover.prove(bytes(32))


def test_a_report_is_found_by_host_and_window_and_may_stand_in_the_proof() -> None:
    site = told()
    for host in HOSTS:
        (digest, value), *_ = site.prover.reports_of(host, T0 + 2 * W)
        proof, statement = prove(site, digest, report=value)
        assert (statement.host_id, statement.seq, statement.verdict) == (host, 2, ACCEPTED)
        assert proof.report == value
        assert prove(site, digest)[1].host_id is None
    assert list(site.prover.reports_of("nobody", T0)) == []


def test_two_workers_that_published_the_same_both_prove_it() -> None:
    """Manifest and output of one session belong together, in whatever order the records stand."""
    site = fresh()
    publish(site.topics, site.story, 1)
    for worker in (0, 1):
        one_worker = fresh()
        one_worker.topics.records = {
            key: [
                one for one in held if key[0] != NAMES.output or f"aggregator-{worker}".encode() in (one.value or b"")
            ]
            for key, held in site.topics.records.items()
        }
        digest = decoded_outputs(site)[0][2][0]
        assert prove(one_worker, digest, verdict=ACCEPTED)[1].published.worker == AGGREGATORS[worker]


def test_a_policy_of_another_signer_proves_nothing() -> None:
    proof = some()
    with pytest.raises(PolicySignerNeeded, match=signer_point().hex()):
        Checker(open_policy=None, verify=CACHE.verify).check(proof)
    with pytest.raises(EnclaveScaleError) as caught:
        checker(1).check(proof)
    assert caught.value.code == "POLICY_UNTRUSTED"
    forged = replace(proof, policy=signed_policy(told().story.policies[0], 1))
    with pytest.raises(EnclaveScaleError) as caught:
        checker().check(forged)
    assert caught.value.code == "POLICY_UNTRUSTED"


@pytest.mark.parametrize("verdict", [ACCEPTED, REFUSED])
def test_forged_records_on_the_topics_do_not_keep_a_proof_from_being_found(verdict: str) -> None:
    """Copies with a broken signature, in front of the genuine ones: passed over."""
    site, digest = fresh(), some(verdict).digest
    for topic in (NAMES.output, NAMES.manifests, NAMES.policy):
        held = site.topics.records[topic, 0]
        forged = [replace(one, value=_break(one, topic)) for one in held]
        both = [*forged, *held]
        site.topics.records[topic, 0] = [replace(one, offset=number) for number, one in enumerate(both)]
    assert prove(site, digest, verdict=verdict)[1].published.worker == "aggregator-0"


def _break(record: LogRecord, topic: str) -> bytes:
    value = bytearray(record.value or b"")
    if topic == NAMES.output:
        signed = decode_signed_output(bytes(value))[0]
        at = bytes(value).index(signed.signature)
    else:
        at = len(value) - {NAMES.manifests: 96, NAMES.policy: 131}[topic]
    value[at + 5] ^= 1
    return bytes(value)


@pytest.mark.parametrize("verdict", [ACCEPTED, REFUSED])
def test_another_place_size_digest_or_sibling_is_refused(verdict: str) -> None:
    proof, check = some(verdict), checker().check
    path = proof.path
    for changed in (
        replace(proof, digest=bytes(32)),
        replace(proof, path=replace(path, index=(path.index + 1) % path.count)),
        replace(proof, path=replace(path, count=path.count + 1)),
        replace(proof, path=replace(path, siblings=path.siblings[:-1])),
        replace(proof, path=replace(path, siblings=(*path.siblings[:-1], bytes(32)))),
        replace(proof, path=replace(path, siblings=(*path.siblings, bytes(32)))),
        replace(proof, verdict=ACCEPTED if verdict == REFUSED else REFUSED),
    ):
        with pytest.raises(InclusionInvalid):
            check(changed)
    with pytest.raises((InclusionInvalid, ProofMismatch)):
        check(replace(proof, outer=path))


def test_parts_of_other_proofs_do_not_fit() -> None:
    site = told()
    one, other = some(), site.prover.prove(decoded_outputs(site)[3][2][0], verdict=ACCEPTED)
    for changed in (replace(one, output=other.output), replace(one, manifest=other.manifest)):
        with pytest.raises(ManifestMismatch):
            checker().check(changed)
    report = next(value for _, value in site.prover.reports_of("h2", T0))
    with pytest.raises(ProofMismatch):
        checker().check(replace(one, report=report))
    second = fresh()
    second.topics.records = {key: held for key, held in second.topics.records.items() if key[0] == NAMES.policy}
    for record in site.topics.of(NAMES.reports):
        second.topics.records.setdefault((record.topic, record.partition), []).append(record)
    publish(second.topics, site.story, 1)
    with pytest.raises(WorkerMismatch):
        checker().check(replace(one, manifest=second.prover.prove(one.digest, verdict=ACCEPTED).manifest))


@settings(max_examples=FLIPS, deadline=None)
@given(
    st.sampled_from([ACCEPTED, REFUSED]),
    st.sampled_from(["output", "manifest", "policy"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 7),
)
def test_one_bit_of_any_record_in_a_proof_matters(verdict: str, part: str, where: float, bit: int) -> None:
    """But for why an item of evidence names no subject, the last text of an output: nobody signs or reads it."""
    proof = some(verdict)
    data = bytearray(getattr(proof, part))
    at = int(where * len(data))
    data[at] ^= 1 << bit
    changes: dict[str, Any] = {part: bytes(data)}
    if part == "output" and at >= len(data) - len(b"cpu\x00\x00"):
        return
    with pytest.raises(EnclaveScaleError) as caught:
        checker().check(replace(proof, **changes))
    assert caught.value.code != "ERROR"


def test_a_missing_or_additional_dead_letter_is_noticed() -> None:
    """A tree that is not whole proves nothing about the records that are left."""
    site = fresh()
    letters = [one for one in site.story.run.rejections if one.digest and one.offset < 20]
    held = site.topics.records[NAMES.rejections, 0]
    site.topics.records[NAMES.rejections, 0] = [one for one in held if not _is(one, letters[2])]
    with pytest.raises(RefusedTreeUnproven):
        site.prover.prove(letters[3].digest or b"", verdict=REFUSED)
    with pytest.raises(RecordNotFound):
        site.prover.prove(letters[2].digest or b"", verdict=REFUSED)


def _is(record: LogRecord, letter: Rejection) -> bool:
    return ("__connect.errors.offset", str(letter.offset).encode()) in record.headers


def test_dead_letters_that_came_twice_count_once() -> None:
    site = fresh()
    publish(site.topics, site.story, effects=site.story.run.rejections)
    for letter in site.story.run.rejections[:6]:
        assert prove(site, letter.digest or b"", verdict=REFUSED)[1].verdict == REFUSED


def test_forged_dead_letters_do_not_stand_for_the_genuine_ones() -> None:
    """In front of them, at the same offsets, with digests of their own: the manifest names what each letter holds."""
    site = fresh()
    letters = [one for one in site.story.run.rejections if one.digest is not None]
    held = site.topics.records[NAMES.rejections, 0]
    forged = [
        replace(
            one,
            value=(one.value or b"") + b"x",
            headers=tuple(
                (name, b"00" * 32 if name.endswith("record.digest") else value) for name, value in one.headers
            ),
        )
        for one in held
    ]
    site.topics.records[NAMES.rejections, 0] = [
        replace(one, offset=number) for number, one in enumerate([*forged, *held])
    ]
    assert prove(site, letters[3].digest or b"", verdict=REFUSED)[1].verdict == REFUSED


# -- the document ------------------------------------------------------------------------------------------------


def documents() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(proof_text(some()))
    return document


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"format": "other"}, "format"),
        ({"version": True}, "version"),
        ({"kind": "else"}, "kind"),
        ({"verdict": "perhaps"}, "verdict"),
        ({"digest": "00"}, "digest"),
        ({"digest": "zz" * 32}, "digest"),
        ({"path": {"index": 3, "count": 3, "siblings": []}}, "path"),
        ({"path": {"index": 1.0, "count": 3, "siblings": []}}, "path"),
        ({"path": {"index": 0, "count": 3, "siblings": ["00"]}}, "path.siblings"),
        ({"path": {"index": 0, "count": 3, "siblings": [], "more": 1}}, "path.more"),
        ({"output": "not base64!"}, "output"),
        ({"output": 7}, "output"),
        ({"manifest": None}, "manifest"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_document_of_another_shape_is_refused_with_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ProofMalformed) as caught:
        read_proof(json.dumps(documents() | changes).encode())
    assert caught.value.field == field


def test_every_field_of_a_document_is_needed() -> None:
    for name in documents():
        with pytest.raises(ProofMalformed):
            read_proof(json.dumps({key: one for key, one in documents().items() if key != name}).encode())


def test_a_later_version_says_so() -> None:
    with pytest.raises(ProofVersion):
        read_proof(json.dumps(documents() | {"version": 2}).encode())


def test_names_that_stand_twice_and_constants_are_refused() -> None:
    text = proof_text(some())
    for bad in (text.replace('"kind"', '"digest": "", "kind"'), text.replace('"report": null', '"report": NaN')):
        with pytest.raises(ProofMalformed):
            read_proof(bad.encode())
    with pytest.raises(ProofMalformed):
        read_proof(b"[" * 100_000)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(ProofMalformed):
        read_proof(data)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(["output", "manifest", "policy", "report"]))
def test_any_bytes_in_a_proof_cause_our_errors_only(data: bytes, part: str) -> None:
    document = documents() | {part: base64.b64encode(data).decode()}
    with pytest.raises((EnclaveScaleError, SchemaError)):
        checker().check(read_proof(json.dumps(document).encode()))
