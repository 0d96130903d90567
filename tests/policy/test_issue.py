"""Signing: counters only rise, ends are near, what is signed reads back; keys stay secret."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from enclavescale.policy.errors import PolicyRefused
from enclavescale.policy.held import HOLDS, TRUSTED, UNTRUSTED, HeldPolicy, hold_file, hold_value
from enclavescale.policy.issue import MAX_COUNTER, canonical, next_counter, prepared, sign, unissued
from enclavescale.policy.keys import PASSPHRASE_VARIABLE, load_key, make_key, read_passphrase
from schemas.errors import ConfigError
from stream_jobs.policy_store import PolicyTrust, open_policy
from tests.policy.samples import DAY_MS, NOW_MS, point_of, strict

KEY = ec.generate_private_key(ec.SECP256R1())
SECRET = b"correct horse battery"


def held(counter: int) -> HeldPolicy:
    return HeldPolicy(replace(strict(), counter=counter), f"policy {counter}")


def test_the_next_counter() -> None:
    assert next_counter(None, 0, [held(3), held(7)]) == 8
    assert next_counter(None, 2, [held(7)]) == 8, "what the document says does not count where more is known"
    assert next_counter(None, 5, []) == 5
    assert next_counter(None, 0, [], first=True) == 1
    assert next_counter(9, 0, [held(7)]) == 9
    with pytest.raises(ConfigError, match="which counter"):
        next_counter(None, 0, [])
    for wanted in (7, 3):
        with pytest.raises(PolicyRefused) as caught:
            next_counter(wanted, 0, [held(3), held(7)])
        assert caught.value.code == "POLICY_ROLLBACK"
        assert "policy 7" in str(caught.value)
    for wanted in (0, -1, MAX_COUNTER + 1):
        with pytest.raises(ConfigError):
            next_counter(wanted, 0, [])


def test_an_end_is_set_where_the_document_has_none() -> None:
    bare = unissued(strict())
    made = prepared(bare, counter=4, now_ms=NOW_MS, valid_days=None)
    assert (made.counter, made.issued_at_ms, made.not_after_ms) == (4, NOW_MS, NOW_MS + 7 * DAY_MS)
    later = replace(bare, effective_from_ms=NOW_MS + 2 * DAY_MS)
    assert prepared(later, counter=4, now_ms=NOW_MS, valid_days=3).not_after_ms == NOW_MS + 5 * DAY_MS
    stated = replace(bare, not_after_ms=NOW_MS + 1)
    assert prepared(stated, counter=4, now_ms=NOW_MS, valid_days=None).not_after_ms == NOW_MS + 1
    assert prepared(stated, counter=4, now_ms=NOW_MS, valid_days=1).not_after_ms == NOW_MS + DAY_MS


def test_what_is_signed_is_sorted_and_is_opened_by_workers() -> None:
    policy = replace(strict(), hosts=strict().hosts[::-1])
    signed = sign(canonical(policy), KEY)
    assert signed.policy == strict()
    assert signed.value is not None
    view = open_policy(signed.value, PolicyTrust((point_of(KEY),)))
    assert (view.policy, view.digest) == (strict(), signed.digest)


def test_a_policy_that_no_topic_takes_is_not_signed() -> None:
    hosts = tuple(replace(strict().hosts[0], host_id=f"h{n}", gpu_key_digests=("00" * 32,) * 64) for n in range(2_200))
    with pytest.raises(ConfigError) as caught:
        sign(replace(strict(), hosts=hosts), KEY)
    assert caught.value.code == "TOO_LARGE"


def test_who_signed_is_said_and_not_believed() -> None:
    value = sign(strict(), KEY).value or b""
    other = point_of(ec.generate_private_key(ec.SECP256R1()))
    assert hold_value(value, "v").signature == HOLDS
    assert hold_value(value, "v", (other, point_of(KEY))).signature == TRUSTED
    assert hold_value(value, "v", (other,)).signature == UNTRUSTED
    broken = hold_value(value[:-80] + bytes([value[-80] ^ 1]) + value[-79:], "v", (point_of(KEY),))
    assert broken.signature in ("SIGNATURE_INVALID", "SIGNATURE_NOT_LOW_S")
    assert not broken.believed


def test_files_are_told_apart_by_what_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "p.bin").write_bytes(sign(strict(), KEY).value or b"")
    assert hold_file(tmp_path / "p.bin").signature == HOLDS
    (tmp_path / "p.toml").write_text("version = 1\n")
    with pytest.raises(ConfigError):
        hold_file(tmp_path / "p.toml")
    with pytest.raises(ConfigError):
        hold_file(tmp_path / "none")


# -- keys ----------------------------------------------------------------------------------------------------------


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "signer.pem"
    point = make_key(path, SECRET)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert point_of(load_key(path, SECRET)) == point
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="there already"):
        make_key(path, SECRET)
    assert path.read_bytes() == before
    with pytest.raises(ConfigError, match="passphrase"):
        make_key(tmp_path / "other.pem", b"short")
    assert not (tmp_path / "other.pem").exists()


@pytest.mark.parametrize("passphrase", [b"wrong", b"", None])
def test_a_key_needs_its_passphrase(tmp_path: Path, passphrase: bytes | None) -> None:
    make_key(tmp_path / "k", SECRET)
    with pytest.raises(ConfigError) as caught:
        load_key(tmp_path / "k", passphrase)
    assert caught.value.field == "passphrase"
    assert "wrong" not in caught.value.remedy


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    make_key(tmp_path / "k", SECRET)
    (tmp_path / "k").chmod(0o640)
    with pytest.raises(ConfigError, match="accessible to others"):
        load_key(tmp_path / "k", SECRET)


def test_keys_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "k"
    curve = ec.generate_private_key(ec.SECP384R1())
    locked = BestAvailableEncryption(SECRET)
    for pem, text in (
        (KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "no encrypted"),
        (curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked), "P-256"),
        (b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", "wrong passphrase"),
        (b"", "no encrypted"),
    ):
        path.write_bytes(pem)
        path.chmod(0o600)
        with pytest.raises(ConfigError, match=text):
            load_key(path, SECRET)


def test_where_a_passphrase_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "p"
    path.write_bytes(SECRET + b"\nnot this\n")
    assert read_passphrase(path, {PASSPHRASE_VARIABLE: "other"}) == SECRET
    assert read_passphrase(None, {PASSPHRASE_VARIABLE: "other"}) == b"other"
    assert read_passphrase(None, {}) is None
    path.write_bytes(b"")
    assert read_passphrase(path, {}) == b""
