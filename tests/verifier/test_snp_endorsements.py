"""Which endorsement a report is verified with, out of a set of many, and what is said where a part of it is missing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.forge.composite.world import SNP, Case
from tests.forge.snp.judge import verify
from tests.forge.snp.world import EK, GENOA, MILAN, NOW, TURIN, VLEK, World, chip_id
from verifier.errors import EndorsementMissing, SnpSignature, SnpTcbMismatch, VerificationError
from verifier.session import verify_session
from verifier.trust.certificate import parse_certificate
from verifier.trust.store import Collateral
from verifier.vendor_collateral import snp_endorsements

OTHERS = tuple(GENOA.but(seed=f"chip {number}") for number in range(3))


def refusal(world: World, *beside: World) -> VerificationError:
    with pytest.raises(VerificationError) as caught:
        verify(world.mint(), beside=tuple(one.mint() for one in beside))
    return caught.value


def without(*places: int) -> Any:
    """What is delivered of key, ASK and ARK, less some."""
    return lambda held: tuple(one for at, one in enumerate(held) if at not in places)


@pytest.mark.parametrize(
    ("world", "said", "path"),
    [
        (GENOA.but(delivered=without(1)), "SEV-Genoa (ASK), the issuer of this VCEK, is not given", "vcek/v1/Genoa"),
        (GENOA.but(delivered=without(2)), "ARK-Genoa, the root of this VCEK, is not given", "vcek/v1/Genoa"),
        (GENOA.but(delivered=without(1, 2)), "SEV-Genoa (ASK), the issuer of this VCEK, is not given", "vcek/v1/Genoa"),
        (MILAN.but(delivered=without(1)), "SEV-Milan (ASK), the issuer of this VCEK, is not given", "vcek/v1/Milan"),
        (VLEK.but(delivered=without(1)), "SEV-VLEK-Genoa (ASVK), the issuer of this VLEK, is not given",
         "vlek/v1/Genoa"),
    ],
)  # fmt: skip
def test_a_missing_issuer_is_named(world: World, said: str, path: str) -> None:
    """Whatever other product lines are there."""
    for beside in ((), (TURIN.but(delivered=without(0)),)):
        error = refusal(world, *beside)
        assert isinstance(error, EndorsementMissing)
        assert str(error) == said
        assert error.remedy.endswith(f"https://kdsintf.amd.com/{path}/cert_chain")
        assert error.field == "endorsements"


def test_keys_of_other_chips_are_not_the_report_s() -> None:
    nothing = GENOA.but(delivered=without(0))
    error = refusal(nothing, *OTHERS)
    assert isinstance(error, EndorsementMissing)
    assert str(error) == "none of the 3 given endorsement keys is of this chip and TCB"
    chip = chip_id("Genoa", "").hex()
    assert error.remedy.endswith(f"/vcek/v1/Genoa/{chip}?blSPL=10&teeSPL=00&snpSPL=23&ucodeSPL=84")
    assert str(refusal(nothing, OTHERS[0])) == "the given endorsement key is not of this chip and TCB"
    assert verify(GENOA.mint(), beside=tuple(one.mint() for one in OTHERS)).ek_serial_hex == "0"


def test_where_the_kds_has_the_key() -> None:
    """Of a report of version 2, which names no CPU, the product is not known; Turin's chip id has 8 bytes."""
    none: Any = without(0, 1, 2)
    milan, turin, vlek = (refusal(one.but(delivered=none)).remedy for one in (MILAN, TURIN, VLEK))
    assert f"/vcek/v1/<product>/{chip_id('Milan', '').hex()}?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219" in milan
    hwid = chip_id("Turin", "")[:8].hex()
    assert turin.endswith(f"/vcek/v1/Turin/{hwid}?fmcSPL=01&blSPL=01&teeSPL=01&snpSPL=04&ucodeSPL=81")
    assert "provider" in vlek
    assert "MaskChipId" in refusal(GENOA.but(delivered=none, fields={"chip_id": bytes(64)})).remedy


@pytest.mark.parametrize("world", [GENOA, VLEK, TURIN])
def test_a_key_of_an_older_tcb_is_called_that(world: World) -> None:
    """The chip has another key by now, so that the signature does not hold; that is not what helps."""
    older = bytes((world.tcb_bytes[0] - 1, *world.tcb_bytes[1:]))
    error = refusal(world.but(delivered=without(0)), world.but(ek_tcb=older, ek=replace(EK, key="older")))
    assert isinstance(error, SnpTcbMismatch)
    assert error.verified == ("format", "ek_chain")


def test_a_report_that_was_altered_is_called_that() -> None:
    """The key is of its chip and TCB."""
    altered = GENOA.but(sent=lambda data: data[:0x90] + bytes([data[0x90] ^ 1]) + data[0x91:])
    assert isinstance(refusal(altered), SnpSignature)
    assert isinstance(refusal(altered, *OTHERS), SnpSignature)


def session(world: World, held: tuple[bytes, ...]) -> Any:
    """Of a host that sends its report and no certificates; the operator holds them."""
    host = SNP.but(cpu=world, gpus=(), sensors=(), rims=(), items=lambda items: [
        one for one in items if one.kind != "snp_certificates"
    ])  # fmt: skip
    given = Case(name="held", code="", step=None, host=host).arguments()
    return verify_session(**{**given, "collateral": given["collateral"].merged(Collateral.of(held))})


def test_a_session_s_endorsement_may_be_held() -> None:
    """A chip's VCEK by its chip id, whatever else is held; a VLEK by its name, as it is of no chip."""
    fleet = tuple(der for one in (*OTHERS, MILAN, TURIN, VLEK, GENOA) for der in one.certificates())
    assert session(GENOA, fleet).claims.quote.key_type == "VCEK"
    with pytest.raises(EndorsementMissing):
        session(GENOA, tuple(der for one in (*OTHERS, VLEK) for der in one.certificates()))


@pytest.mark.parametrize("chip", [b"", chip_id("Genoa", "")], ids=["chip id masked", "chip id shown"])
def test_for_a_report_of_a_vlek_vleks_are_picked(chip: bytes) -> None:
    fleet = Collateral.of([der for one in (*OTHERS, GENOA, VLEK) for der in one.certificates()])
    minted = VLEK.but(fields={"chip_id": chip.ljust(64, b"\x00")}).mint()
    picked = snp_endorsements(minted.report, (), fleet)
    assert {one.common_name for one in picked} == {"SEV-VLEK", "SEV-VLEK-Genoa", "ARK-Genoa"}
    assert verify(replace(minted, certificates=tuple(one.der for one in picked))).key_type == "VLEK"
    delivered = [parse_certificate(VLEK.certificates()[0])]
    assert snp_endorsements(minted.report, delivered, fleet)[0] == delivered[0]


def test_the_refusal_is_certain_as_long_as_what_it_explains() -> None:
    """Of several keys another may be judged at another time."""
    expired = OTHERS[1].but(ek=replace(EK, not_after=NOW - 1))
    error = refusal(GENOA.but(delivered=without(0)), OTHERS[0], expired)
    assert error.holds_from_ms == error.holds_until_ms == NOW * 1000
    assert refusal(GENOA.but(delivered=without(0)), OTHERS[0]).holds_from_ms is None
