"""What a verified SPDM transcript says of itself, and what a refused one says of its signatures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.forge.spdm.edits import exchanged, flip
from tests.forge.spdm.judge import judge, root_of
from tests.forge.spdm.keys import spki_of
from tests.forge.spdm.world import V11, V12, V13, World, certificate, challenge, digests, measure, measurement_blocks
from tests.verifier.corpus import Case, cases
from verifier.abi.spdm import MeasurementBlock
from verifier.errors import CertExpired, NonceMismatch, SpdmSignature, VerificationError
from verifier.formats.spdm import VerifiedSpdm, read_transcript, verify_spdm_transcript
from verifier.trust.certificate import parse_certificate
from verifier.trust.roots import Root
from verifier.verdicts.spdm import spdm_warnings

CASES = [case for case in cases() if case.entry["evidence_type"] == "spdm"]
CODES = {"SPDM_SIGNATURE", "SPDM_VERSION"}


def root_from(case: Case) -> Root:
    path = case.path("trust_root")
    assert path is not None
    return Root(label="corpus", spki=parse_certificate(path.read_bytes()).spki, simulated=True)


@pytest.mark.parametrize("form", ["transcript", "pcap"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_corpus(case: Case, form: str) -> None:
    """Verdict and every signature of DMTF's emulators, at their time, from both forms of the transcript."""
    path, expected = case.path(form), case.expected("authentic")
    if path is None:
        assert form == "pcap"
        return
    found = judged(case, path.read_bytes())
    assert [list(event) for event in found.events] == expected["events"]
    if isinstance(found, VerificationError):
        assert expected["verdict"] == "reject", found
        assert found.code in CODES
        return
    assert expected["verdict"] == "ok"
    if "nonces" in case.entry:
        assert [[one.kind, one.nonce.hex()] for one in found.exchanges] == case.entry["nonces"]


def judged(case: Case, data: bytes) -> VerifiedSpdm | VerificationError:
    """What is said of a case's transcript, or why it is refused."""
    nonces = [bytes.fromhex(nonce) for _, nonce in case.entry.get("nonces", ())]
    try:
        return verify_spdm_transcript(
            messages=read_transcript(data), trust_roots=[root_from(case)], now_ms=case.at * 1000, nonces=nonces
        )
    except VerificationError as error:
        return error


def test_claims() -> None:
    minted = V13.mint()
    verified = judge(minted, nonces=minted.nonces)
    assert (verified.version, verified.base_hash, verified.signature_algorithm) == ("1.3", "sha256", "ecdsa-p256")
    assert verified.measurement_hash == "sha256"
    assert verified.measurements == measurement_blocks()
    assert verified.registers["block16"] == (7).to_bytes(8, "little")
    assert set(verified.registers) == {f"block{index}" for index in (1, 2, 3, 9, 16, 254)}
    assert verified.nonces("challenge") == minted.nonces[:1]
    assert verified.nonces("measurements") == minted.nonces[1:] == verified.measurement_nonces
    assert verified.chain_names == ("forge root", "forge issuer", "forge device")
    assert len(verified.key_digest) == 32
    assert (verified.root_label, verified.simulated, verified.revocation) == ("forge", True, "unchecked")
    assert verified.device_mode is not None
    assert not verified.device_mode.debug_active
    assert verified.summary == "match"


def test_a_device_in_debug_says_so() -> None:
    mode = MeasurementBlock(index=254, type=0x85, value=bytes(12) + (0x12).to_bytes(4, "little"))
    verified = judge(V12.but(blocks=(*measurement_blocks()[:-1], mode)).mint())
    assert verified.device_mode is not None
    assert verified.device_mode.debug_active
    assert verified.device_mode.debug_seen


def test_the_negotiation_of_1_1_is_not_covered_without_a_challenge() -> None:
    story = (digests(), certificate(), measure())
    honest = judge(V11.but(story=story).mint())
    downgraded = judge(V11.but(story=story, recorded=flip(0x61, 8, bit=4)).mint())
    for verified in (honest, downgraded):  # nobody can tell the two apart, so neither earns a grade
        assert not verified.vca_authenticated
        assert verified.grade == "NONE"
        assert "CHALLENGE" in verified.grade_reason
    with pytest.raises(SpdmSignature):
        judge(V12.but(story=story, recorded=flip(0x61, 8, bit=4)).mint())


def test_older_measurements_beside_the_expected_ones_do_not_count() -> None:
    """1.1 signs measurements without what came before: those of another connection may be put in front."""
    older = V11.but(seed="older").mint()
    minted = V11.but(
        story=(digests(), certificate(), challenge(summary=0), measure(1)),
        recorded=lambda messages: [*messages[:-2], *older.messages[-2:], *messages[-2:]],
    ).mint()
    verified = judge(minted, nonces=minted.nonces)
    assert [block.index for block in verified.measurements] == [1]
    assert verified.measurement_nonces == minted.nonces[1:]
    assert verified.grade == "NONE"
    assert len(judge(minted).measurements) == len(measurement_blocks())


def test_measurements_are_fresh_only_under_an_expected_nonce() -> None:
    minted = V12.mint()
    for expected, fresh, word in (
        (minted.nonces, True, ""),
        (minted.nonces[:1], False, "measurements"),
        (minted.nonces[1:], False, "challenge"),
        ((), False, "no nonce"),
    ):
        verified = judge(minted, nonces=expected)
        assert (verified.fresh, verified.grade) == (fresh, "SPDM_MEASURED" if fresh else "NONE")
        assert word in verified.stale
        assert any(verified.stale in one for one in spdm_warnings(verified)) or fresh
        assert verified.measurements == measurement_blocks()


def test_a_warning_says_that_a_debug_mode_is_active() -> None:
    mode = MeasurementBlock(index=254, type=0x85, value=bytes(12) + (1).to_bytes(4, "little"))
    minted = V12.but(blocks=(*measurement_blocks()[:-1], mode)).mint()
    assert any("debug" in one for one in spdm_warnings(judge(minted, nonces=minted.nonces)))
    assert not any("debug" in one for one in spdm_warnings(judge(V12.mint())))


def test_a_refusal_says_which_signatures_hold() -> None:
    minted = V12.but(recorded=flip(0x83, 10)).mint()
    with pytest.raises(SpdmSignature) as caught:
        judge(minted)
    assert caught.value.events == (("challenge", "BAD InvalidSignature"), ("measurements", "ok"))
    assert caught.value.replica().events == caught.value.events
    assert caught.value.verified == ("format",)


def test_signatures_are_judged_whatever_else_is_wrong() -> None:
    minted = V12.mint()
    expired = minted.at + 1000 * 86_400
    with pytest.raises(CertExpired) as caught:
        judge(replace(minted, at=expired))
    assert caught.value.events == (("challenge", "ok"), ("measurements", "ok"))
    assert caught.value.verified[-1] == "device_chain"
    half = replace(minted, messages=minted.messages[:-1])
    with pytest.raises(VerificationError) as caught:
        judge(half)
    assert caught.value.events == (("challenge", "ok"),)


def test_a_key_that_is_not_read_is_named() -> None:
    minted = V12.but(story=(digests(), challenge())).mint()
    with pytest.raises(VerificationError) as caught:
        judge(minted)
    assert caught.value.events == (("challenge", "BAD NoCertificate"),)


def test_a_challenge_of_another_connection_is_only_told_by_its_nonce() -> None:
    """Both were signed by the device over the same negotiation: only a fresh nonce tells them apart."""
    other = V12.but(seed="2").mint()
    minted = V12.but(recorded=exchanged(0x83, lambda: list(other.messages))).mint()
    unasked = judge(minted)
    assert not unasked.lacking
    assert (unasked.fresh, unasked.grade, unasked.grade_reason) == (False, "NONE", unasked.stale)
    partly = judge(minted, nonces=minted.nonces[1:])
    assert (partly.fresh, partly.grade) == (False, "NONE")
    assert "challenge" in partly.grade_reason
    with pytest.raises(NonceMismatch):
        judge(minted, nonces=V12.mint().nonces)


def test_two_roots_of_which_one_fits() -> None:
    minted = V12.mint()
    stranger = Root(label="stranger", spki=spki_of("stranger", "p256"), simulated=False)
    assert judge(minted, trust_roots=[stranger, root_of(minted)]).root_label == "forge"


@pytest.mark.parametrize("version", [0x10, 0x11, 0x12, 0x13, 0x14])
def test_a_changed_bit_is_noticed(version: int) -> None:
    """Where all that was said is signed, no byte of it may change; one bit of every fifth is tried."""
    minted = World(version=version, story=(digests(), certificate(), challenge(), measure())).mint()
    accepted = []
    for index, message in enumerate(minted.messages):
        for at in range(index % 5, len(message), 5):
            changed = message[:at] + bytes((message[at] ^ 1 << (at + index) % 8,)) + message[at + 1 :]
            messages = (*minted.messages[:index], changed, *minted.messages[index + 1 :])
            try:
                judge(replace(minted, messages=messages))
            except VerificationError:
                continue
            accepted.append((index, at))
    assert accepted == []
