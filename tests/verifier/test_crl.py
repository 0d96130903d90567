"""Revocation lists: the facts `cryptography` finds too, and nothing that says more than we understand."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from tests.forge.dcap.certificates import Crl as Forged
from tests.forge.dcap.certificates import issue_crl
from tests.forge.dcap.world import NOW, PCK_CA, PCK_CRL
from tests.verifier.fuzzing_der import nodes_of, replaced
from tests.verifier.selecting import Real, real
from verifier.errors import CollateralMalformed, CollateralTooLarge, VerificationError
from verifier.limits import MAX_CRL_BYTES
from verifier.trust.crl import parse_crl

KEY = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Issuer")])
THEN, LATER = datetime(2026, 1, 1, tzinfo=UTC), datetime(2060, 1, 1, tzinfo=UTC)


def mint(
    *extensions: tuple[x509.ExtensionType, bool],
    entries: tuple[x509.RevokedCertificate, ...] = (),
    digest: HashAlgorithm | None = None,
) -> bytes:
    """A list with number and authority key, and whatever else is asked for."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(NAME)
        .last_update(THEN)
        .next_update(LATER)
        .add_extension(x509.CRLNumber(7), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(KEY.public_key()), critical=False)
    )
    for value, critical in extensions:
        builder = builder.add_extension(value, critical=critical)
    for one in entries:
        builder = builder.add_revoked_certificate(one)
    return builder.sign(KEY, digest or SHA256()).public_bytes(Encoding.DER)


def entry(serial: int, *extensions: tuple[x509.ExtensionType, bool]) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(THEN)
    for value, critical in extensions:
        builder = builder.add_extension(value, critical=critical)
    return builder.build()


@pytest.mark.parametrize("one", real(), ids=lambda one: one.name)
@pytest.mark.parametrize("kind", ["pck_crl", "root_ca_crl"])
def test_real_lists_say_what_cryptography_reads(one: Real, kind: str) -> None:
    data = bytes.fromhex(one.json[kind])
    found, other = parse_crl(data), x509.load_der_x509_crl(data)
    assert (found.tbs, found.signature) == (other.tbs_certlist_bytes, other.signature)
    assert (found.der, found.issuer) == (data, other.issuer.public_bytes())
    assert other.next_update_utc is not None
    assert found.issued_ms == other.last_update_utc.timestamp() * 1000
    assert found.next_update_ms == other.next_update_utc.timestamp() * 1000
    assert found.number == other.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    authority = other.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert found.authority_key_identifier == authority.key_identifier
    assert found.entries == len(other)
    assert all(found.revokes(revoked.serial_number) for revoked in other)
    assert not found.revokes(1)
    if kind == "pck_crl":
        assert found.signed_by(one.asking.pck_issuer.public_key)


def test_times_of_two_forms() -> None:
    """Up to 2049 UTCTime, from 2050 on GeneralizedTime (RFC 5280 §5.1.2.4)."""
    found = parse_crl(mint())
    assert found.issued_ms == THEN.timestamp() * 1000
    assert found.next_update_ms == LATER.timestamp() * 1000


def test_only_its_issuer_signed_it() -> None:
    found = parse_crl(mint())
    assert found.signed_by(KEY.public_key())
    assert not found.signed_by(ec.generate_private_key(ec.SECP256R1()).public_key())


def test_entries_may_have_reasons_and_serials_that_look_critical() -> None:
    reason = x509.CRLReason(x509.ReasonFlags.key_compromise)
    found = parse_crl(mint(entries=(entry(0x0101FF01, (reason, False)), entry(5), entry((1 << 159) - 1))))
    assert [found.revokes(serial) for serial in (0x0101FF01, 5, (1 << 159) - 1, 6)] == [True, True, True, False]
    assert found.entries == 3


def test_every_entry_of_a_long_list_counts() -> None:
    serials = range(1 << 64, (1 << 64) + 2_000)
    found = parse_crl(issue_crl(Forged(this_update=NOW, next_update=NOW + 1, revoked=tuple(serials)), PCK_CA))
    assert all(map(found.revokes, serials))


REASON = x509.CRLReason(x509.ReasonFlags.key_compromise)
DELTA = x509.DeltaCRLIndicator(1)
SCOPE = x509.IssuingDistributionPoint(
    full_name=[x509.UniformResourceIdentifier("https://example.invalid/crl")],
    relative_name=None,
    only_contains_user_certs=False,
    only_contains_ca_certs=False,
    only_some_reasons=None,
    indirect_crl=False,
    only_contains_attribute_certs=False,
)
GENUINE = mint()
SIGNATURE = x509.load_der_x509_crl(GENUINE).signature
NODES = nodes_of(GENUINE)
TBS = [at for at, node in enumerate(NODES) if node.parent == 1]
"""Version, algorithm, issuer, thisUpdate, nextUpdate, extensions."""


def cut(data: bytes, old: str, new: str) -> bytes:
    """`data` with one stretch replaced by another of the same length."""
    before, after = bytes.fromhex(old), bytes.fromhex(new)
    assert data.count(before) >= 1
    assert len(before) == len(after)
    return data.replace(before, after, 1)


REFUSED = {
    "a delta list": mint((DELTA, True)),
    "a list with a scope": mint((SCOPE, True)),
    "an entry with a critical reason": mint(entries=(entry(1), entry(2, (REASON, True)))),
    "an entry of another issuer": mint(entries=(entry(2, (x509.CertificateIssuer([x509.DirectoryName(NAME)]), True)),)),
    "a byte behind": GENUINE + b"\x00",
    "a byte short": GENUINE[:-1],
    "nothing": b"",
    "a certificate's version": cut(GENUINE, "020101300a", "020102300a"),
    "another signature algorithm inside": cut(GENUINE, "2a8648ce3d040302", "2a8648ce3d040303"),
    "another signature algorithm outside": GENUINE[::-1].replace(b"\x02\x03\x04", b"\x03\x03\x04", 1)[::-1],
    "a number twice": cut(GENUINE, "551d23", "551d14"),
    "times that are none": cut(GENUINE, b"260101000000Z".hex(), b"261301000000Z".hex()),
    "times without seconds": cut(GENUINE, b"260101000000Z".hex(), b"2601010000+01".hex()),
    "unused bits in the signature": GENUINE.replace(b"\x00" + SIGNATURE, b"\x01" + SIGNATURE),
    "no next update": replaced(GENUINE, NODES, TBS[4], b""),
    "an entry with an overlong serial": cut(mint(entries=(entry(0x11223344),)), "020411223344", "020400223344"),
    "an indefinite length": b"\x30\x80" + GENUINE[4:],
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_other_lists_are_refused(data: bytes) -> None:
    with pytest.raises(CollateralMalformed) as caught:
        parse_crl(data)
    assert caught.value.field == "crl"


@pytest.mark.parametrize(
    ("data", "algorithm", "number", "has_key"),
    [
        (mint(digest=SHA384()), "ecdsa-sha384", parse_crl(GENUINE).number, True),
        (issue_crl(Forged(this_update=NOW, next_update=NOW + 1, number=None), PCK_CA), "ecdsa-sha256", None, True),
        (issue_crl(Forged(this_update=NOW, next_update=NOW, authority_key=False), PCK_CA), "ecdsa-sha256", 1, False),
    ],
)  # fmt: skip
def test_what_other_vendors_leave_out_or_choose_is_read(
    data: bytes, algorithm: str, number: int | None, has_key: bool
) -> None:
    found = parse_crl(data)
    assert (found.algorithm, found.number) == (algorithm, number)
    assert (found.authority_key_identifier is not None) == has_key


def test_a_list_too_large_is_not_read() -> None:
    with pytest.raises(CollateralTooLarge):
        parse_crl(bytes(MAX_CRL_BYTES + 1))


SEED = issue_crl(PCK_CRL, PCK_CA)


@given(st.lists(st.tuples(st.integers(0, len(SEED) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_mutated_lists_raise_only_our_error(changes: list[tuple[int, int]]) -> None:
    data = bytearray(SEED)
    for at, value in changes:
        data[at] = value
    with suppress(VerificationError):
        parse_crl(bytes(data)).revokes(0x5A01)
