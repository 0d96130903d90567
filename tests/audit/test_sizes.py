"""Large windows: manifests in chunks, and floods of more refused records than a manifest names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import pytest

from schemas.codec import decode_signed_manifest, encode_manifest, encode_signed_manifest, manifest_preimage
from stream_jobs.audit.document import ACCEPTED, REFUSED, ReportProof
from stream_jobs.audit.errors import InclusionInvalid, RefusedTreeUnproven
from stream_jobs.core.emit import MANIFEST_CHUNK_DIGESTS
from stream_jobs.core.log_digest import MAX_WITNESSES
from stream_jobs.core.merkle import merkle_root
from tests.audit.site import NAMES, Site, checker, site_of, worker_session
from tests.audit.stories import HOSTS, fresh
from tests.audit.test_chain import output, resigned
from tests.core.fleet import report_of, seal, session_of
from tests.core.replay import remembered
from tests.core.story import Story, small_policy


def chunked(count: int) -> tuple[Site, list[bytes]]:
    """A site whose first output counts `count` reports: output and manifests signed by its worker."""
    site = fresh()
    digests = [hashlib.sha256(b"report %d" % number).digest() for number in range(count)]
    root = merkle_root(digests)
    record = output(site, 0).record
    value = resigned(record, lambda made: replace(made, accepted=count, manifest_root=root), site)
    site.topics.replace(record, value=value)
    first = site.topics.of(NAMES.manifests)[0]
    manifest = decode_signed_manifest(first.value or b"")[0].manifest
    session = worker_session()
    site.topics.records[NAMES.manifests, 0].clear()
    chunks = -(-count // MANIFEST_CHUNK_DIGESTS)
    for chunk in range(chunks):
        part = digests[chunk * MANIFEST_CHUNK_DIGESTS : (chunk + 1) * MANIFEST_CHUNK_DIGESTS]
        data = encode_manifest(
            replace(
                manifest,
                chunk=chunk,
                chunks=chunks,
                accepted_digests=b"".join(part),
                accepted_count=count,
                accepted_root=root,
            )
        )
        signed = encode_signed_manifest(data, session.sign(manifest_preimage(data)), session.session_id)
        site.topics.append(first.topic, 0, first.timestamp_ms, first.key, signed)
    return site, digests


def test_a_report_in_any_chunk_has_a_proof() -> None:
    count = 2 * MANIFEST_CHUNK_DIGESTS + 1
    site, digests = chunked(count)
    for number in (0, MANIFEST_CHUNK_DIGESTS - 1, MANIFEST_CHUNK_DIGESTS, count - 1):
        proof = site.prover.prove(digests[number], verdict=ACCEPTED)
        assert (proof.path.index, proof.path.count) == (number, count)
        assert len(proof.path.siblings) <= 15
    chunk = site.topics.of(NAMES.manifests)[0].value or b""
    with pytest.raises(InclusionInvalid):
        checker().check(replace(site.prover.prove(digests[-1]), manifest=chunk))


def test_a_manifest_without_one_of_its_chunks_proves_nothing() -> None:
    site, digests = chunked(MANIFEST_CHUNK_DIGESTS + 5)
    site.topics.records[NAMES.manifests, 0].pop()
    with pytest.raises(Exception, match="accepted"):
        site.prover.prove(digests[0])


def test_a_forged_chunk_in_front_hides_no_proof() -> None:
    site, digests = chunked(MANIFEST_CHUNK_DIGESTS + 5)
    records = site.topics.records[NAMES.manifests, 0]
    genuine = decode_signed_manifest(records[1].value or b"")[0]
    forged = replace(genuine.manifest, accepted_digests=bytes(len(genuine.manifest.accepted_digests)))
    value = encode_signed_manifest(encode_manifest(forged), genuine.signature, genuine.session_id)
    records.insert(1, replace(records[1], value=value))
    records[2:] = [replace(one, offset=number) for number, one in enumerate(records[2:], 2)]
    proof = site.prover.prove(digests[0], verdict=ACCEPTED)
    assert proof.path.count == len(digests)


@pytest.fixture(scope="module")
def flood() -> Iterator[Site]:
    """A window with more refused records than a manifest names; some of a domain that nobody knows."""
    with remembered():
        view = small_policy(3)
        story = Story(view)
        story.control("POLICY_SWITCH", view)
        for host in HOSTS:
            story.report(host, 0)
            story.report(host, 1)
        for host in HOSTS[:2]:
            story.report(host, 2)
        session = session_of("h1", "d")
        value = seal(session, report_of(session, story.now_ms, 9)).value(None)
        for _ in range(MAX_WITNESSES):
            story.put("e", value)  # at the wrong key: cheap to refuse, and of a domain that is known
        for number in range(3):
            stray = report_of(session, story.now_ms, 10 + number, domain="elsewhere")
            story.put("elsewhere", seal(session, stray).value(None))
        for host in HOSTS:
            story.report(host, 3)
        yield site_of(story)


def test_every_record_of_a_flood_has_a_proof(flood: Site) -> None:
    letters = [one for one in flood.story.run.rejections if one.digest is not None]
    assert len(letters) > MAX_WITNESSES
    named = [decode_signed_manifest(one.value or b"")[0].manifest for one in flood.topics.of(NAMES.manifests)]
    assert max(len(one.witnesses) for one in named) == MAX_WITNESSES
    strays = [one for one in letters if one.domain is None]
    assert strays
    for letter in (letters[MAX_WITNESSES - 1], strays[-1]):
        proof = flood.prover.prove(letter.digest or b"", verdict=REFUSED)
        assert isinstance(proof, ReportProof)
        assert (proof.outer is not None) == (letter.domain is None)


def test_a_flood_with_a_letter_missing_proves_nothing(flood: Site) -> None:
    letters = [one for one in flood.story.run.rejections if one.domain is None]
    assert len(letters) == 3
    held = flood.topics.records[NAMES.rejections, 0]
    lacking = Site(replace(flood.topics, records={**flood.topics.records}), flood.story)
    place = ("__connect.errors.offset", str(letters[0].offset).encode())
    lacking.topics.records[NAMES.rejections, 0] = [one for one in held if place not in one.headers]
    with pytest.raises(RefusedTreeUnproven):
        lacking.prover.prove(letters[-1].digest or b"", verdict=REFUSED)
