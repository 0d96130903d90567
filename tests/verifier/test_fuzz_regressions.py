"""Inputs that fuzzing once found, kept small."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.forge.dcap.certificates import issue
from tests.forge.dcap.judge import judge
from tests.forge.dcap.platforms import Platform, integer
from tests.forge.dcap.world import PCK, TDX4, pem_chain
from tests.verifier.fuzzing_der import nodes_of, replaced
from verifier.abi.collateral import parse_signed, parse_tcb_info
from verifier.abi.pck import parse_pck_extension
from verifier.errors import CertChainInvalid, CollateralMalformed, CollateralMismatch, PckExtensionInvalid
from verifier.trust.certificate import parse_certificate
from verifier.trust.store import Collateral


def test_a_number_too_long_to_be_written_is_refused() -> None:
    """Python refuses to write an integer of more than 4300 digits in decimal, with a ValueError of its own."""
    huge = integer((1 << 16_000) - 1)
    extension = Platform(tcb_fields=lambda pairs: [(arc, huge) if arc == (2, 17) else (arc, v) for arc, v in pairs])
    with pytest.raises(PckExtensionInvalid):
        parse_pck_extension(extension.extension())


@pytest.mark.parametrize("member", ["tcb_info", "qe_identity"])
def test_half_a_surrogate_pair_is_refused(member: str) -> None:
    """JSON can escape what UTF-8 cannot write; a document inside a JSON string may hold it as a character."""
    minted = TDX4.mint()
    damaged = json.loads(minted.collateral_json)
    damaged[member] = damaged[member].replace('"tcbStatus"', '"\ud800":1,"tcbStatus"', 1)
    with pytest.raises(CollateralMalformed):
        judge(minted, collateral=Collateral.from_json(json.dumps(damaged)))
    with pytest.raises(CollateralMalformed):
        parse_tcb_info('{"\udc00":1}')
    with pytest.raises(CollateralMalformed):
        parse_signed('{"tcbInfo":{"\udc00":1},"signature":""}')


def test_a_signature_has_no_unused_bits() -> None:
    """`cryptography` passes over the octet that counts them, so that there would be many texts of one certificate."""
    leaf = TDX4.pck_chain()[0]
    signature = [node for node in nodes_of(leaf) if node.parent == 0][2]
    parse_certificate(leaf)
    for count in range(1, 8):
        with pytest.raises(CertChainInvalid):
            parse_certificate(leaf[: signature.body] + bytes([count]) + leaf[signature.body + 1 :])


def test_collateral_for_another_platform_is_named() -> None:
    """Saying what is held instead once raised a NameError."""
    other = TDX4.but(platform=Platform(fmspc=bytes(6))).mint()
    with pytest.raises(CollateralMismatch):
        judge(TDX4.mint(), collateral=Collateral.from_json(other.collateral_json))


def test_type_4_is_one_certificate() -> None:
    """The type is not signed: a quote with a whole chain would stay valid as one that carries the leaf alone."""
    chain = pem_chain(*TDX4.pck_chain()).encode()
    minted = TDX4.but(certification=(4, chain)).mint()
    with pytest.raises(CertChainInvalid):
        judge(minted, collateral=Collateral.from_json(minted.collateral_json))


def test_what_a_certificate_makes_us_say_is_short_and_printable() -> None:
    """Messages and inventories go to terminals: no screenfuls of digits, no escape sequences."""
    leaf = TDX4.pck_chain()[0]
    nodes = nodes_of(leaf)
    serial = next(at for at, node in enumerate(nodes) if node.tag == 0x02 and nodes[node.parent].parent == 0)
    with pytest.raises(CertChainInvalid) as refused:
        parse_certificate(replaced(leaf, nodes, serial, integer((1 << 8_000) - 1)))
    assert len(str(refused.value)) < 200
    named = parse_certificate(issue(replace(PCK, common_name="\x1b[2Jgone")))
    assert named.common_name == ""
