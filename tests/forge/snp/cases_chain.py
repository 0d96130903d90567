"""Hostile endorsement: chain, role, extensions, TCB, chip, product, revocation, time (§8.3, §11.2 items 2, 3, 6, 7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.forge.snp.certificates import ONLY_CERTS, ONLY_CRLS, ONLY_DATA, Cert, integer, tlv
from tests.forge.snp.judge import Case
from tests.forge.snp.world import (
    ARK,
    ASK,
    CRL,
    CSP,
    DAY,
    EK,
    EXTENDED,
    GENOA,
    MILAN,
    MILAN3,
    NOW,
    SIENA,
    TURIN,
    VLEK,
    VLEK_MILAN,
    World,
    bringing,
    chip_id,
)

Extensions = dict[tuple[int, ...], bytes]


def case(name: str, code: str, step: str | None, world: World, **changes: Any) -> Case:
    return Case(name=name, code=code, step=step, world=world.but(**changes))


def ark(**changes: Any) -> Cert:
    return replace(ARK, **changes)


def ask(**changes: Any) -> Cert:
    return replace(ASK, **changes)


def ek(**changes: Any) -> Cert:
    return replace(EK, **changes)


def having(**changes: bytes | None) -> Callable[[Extensions], Extensions]:
    """The extensions with some changed, by names like `_3_8`; None leaves one out."""

    def edit(found: Extensions) -> Extensions:
        edits = {tuple(map(int, name.strip("_").split("_"))): value for name, value in changes.items()}
        return {key: value for key, value in (found | edits).items() if value is not None}

    return edit


def ask_of(other: World) -> Callable[[tuple[bytes, ...]], tuple[bytes, ...]]:
    return lambda held: (held[0], other.certificates()[1], held[2])


CHAINS = [
    case("no certificates", "ENDORSEMENT_MISSING", None, GENOA, delivered=lambda held: ()),
    case("only ASK and ARK", "ENDORSEMENT_MISSING", None, GENOA, delivered=lambda held: held[1:]),
    case("VCEK alone", "ENDORSEMENT_MISSING", None, GENOA, delivered=lambda held: held[:1]),
    case("without the ARK", "ENDORSEMENT_MISSING", None, GENOA, delivered=lambda held: held[:2]),
    case("without the ASK", "ENDORSEMENT_MISSING", None, TURIN, delivered=lambda held: (held[0], held[2])),
    case("ASK of another product", "ENDORSEMENT_MISSING", None, GENOA, delivered=ask_of(MILAN)),
    case("ASVK in the ASK's place", "ENDORSEMENT_MISSING", None, GENOA, delivered=ask_of(VLEK)),
    case("ARK of another product", "ENDORSEMENT_MISSING", None, GENOA,
         delivered=lambda held: (*held[:2], MILAN.certificates()[2])),
    case("VCEK names another issuer", "ENDORSEMENT_MISSING", "names", GENOA, ek=ek(issuer_name="SEV-Rome")),
    case("ASK names another issuer", "ENDORSEMENT_MISSING", "names", GENOA, ask=ask(issuer_name="ARK-Rome")),
    case("VCEK issued by the ARK", "CERT_CHAIN_INVALID", None, GENOA,
         ek=ek(issuer_name="ARK-Genoa", signed_with="ark")),
    case("a certificate that is none", "CERT_CHAIN_INVALID", None, GENOA, delivered=lambda held: (held[0][:-1],)),
    case("own ARK of the same name", "ROOT_UNTRUSTED", "root", GENOA, ark=ark(key="stranger"), crls=()),
    case("own ARK of the same name and number, Turin", "ROOT_UNTRUSTED", "root", TURIN, ark=ark(key="stranger")),
    Case(name="no root of trust", code="NO_TRUST_ROOTS", step=None, world=GENOA, roots=lambda roots: ()),
    case("ASK signed by a stranger", "CERT_SIGNATURE", "signatures", GENOA, ask=ask(signed_with="stranger")),
    case("VCEK signed by a stranger", "CERT_SIGNATURE", "signatures", GENOA, ek=ek(signed_with="stranger")),
    case("VCEK signed by the ARK's key", "CERT_SIGNATURE", "signatures", MILAN, ek=ek(signed_with="ark")),
    case("VLEK signed by the ASK", "CERT_SIGNATURE", "signatures", VLEK, ek=ek(signed_with="ask")),
    case("ARK not signed by itself", "CERT_SIGNATURE", "signatures", GENOA, ark=ark(signed_with="ask")),
    case("certificate table of a stranger", "CERT_SIGNATURE", "signatures", EXTENDED, ek=ek(signed_with="stranger")),
    case("ASK is no CA", "CERT_CONSTRAINT", "constraints", GENOA, ask=ask(ca=(False, None))),
    case("ASK without constraints", "CERT_CONSTRAINT", "constraints", GENOA, ask=ask(ca=None)),
    case("ARK is no CA", "CERT_CONSTRAINT", "constraints", TURIN, ark=ark(ca=None)),
    case("ARK allows no CA below", "CERT_CONSTRAINT", "constraints", GENOA, ark=ark(ca=(True, 0))),
    case("ASK may not sign certificates", "CERT_CONSTRAINT", "constraints", GENOA, ask=ask(usage=ONLY_CRLS)),
    case("ASK without key usage", "CERT_CONSTRAINT", "constraints", MILAN, ask=ask(usage=None)),
    case("VCEK is a CA", "CERT_CONSTRAINT", "constraints", GENOA, ek=ek(ca=(True, None))),
    case("VCEK may only sign certificates", "CERT_CONSTRAINT", "constraints", GENOA, ek=ek(usage=ONLY_CERTS)),
    case("unknown critical extension of the VCEK", "CERT_CONSTRAINT", "critical", GENOA,
         ek=ek(critical_extra=bytes.fromhex("06032a0304"))),
    case("unknown critical extension of the ASK", "CERT_CONSTRAINT", "critical", TURIN,
         ask=ask(critical_extra=bytes.fromhex("06032a0304"))),
    case("ARK of RSA-3072", "CERT_KEY_UNSUPPORTED", "keys", GENOA, ark=ark(key="short"), trusted="short"),
    case("ASK of RSA-3072", "CERT_KEY_UNSUPPORTED", "keys", GENOA, ask=ask(key="short")),
    case("ASK on P-384", "CERT_KEY_UNSUPPORTED", None, GENOA, ask=ask(curve="p384", key="ec ask"),
         ek=ek(signed_with="ask")),
    case("VCEK on P-256", "CERT_KEY_UNSUPPORTED", None, GENOA, ek=ek(curve="p256")),
    case("VCEK with an RSA key", "CERT_KEY_UNSUPPORTED", None, GENOA, ek=ek(curve=None, key="stranger")),
    case("VCEK signed with SHA-256", "CERT_KEY_UNSUPPORTED", "keys", GENOA, ek=ek(digest="sha256")),
]  # fmt: skip

ROLES = [
    case("VCEK for a report of a VLEK", "SNP_SIGNING_KEY", "signing_key", GENOA, fields={"key_info": 4}),
    case("VLEK for a report of a VCEK", "SNP_SIGNING_KEY", "signing_key", VLEK, fields={"key_info": 0}),
    case("VLEK under the ASK", "CERT_ROLE_INVALID", "roles", VLEK, ask=ask(common_name="SEV-Genoa")),
    case("VCEK under the ASVK", "CERT_ROLE_INVALID", "roles", GENOA, ask=ask(common_name="SEV-VLEK-Genoa")),
    case("ASK of Milan under the ARK of Genoa", "CERT_ROLE_INVALID", "roles", GENOA,
         ask=ask(common_name="SEV-Milan")),
    case("ARK under a name of its own", "CERT_ROLE_INVALID", "roles", GENOA, ark=ark(common_name="ARK-Rome"),
         crls=()),
    case("endorsement key under a name of its own", "CERT_ROLE_INVALID", "roles", GENOA,
         ek=ek(common_name="SEV-XCEK")),
    case("simulated chain under a root of hardware", "CERT_ROLE_INVALID", "roles", GENOA,
         prefix="EnclaveScale SIMULATED "),
    Case(name="chain named like AMD's under a simulated root", code="CERT_ROLE_INVALID", step="roles", world=GENOA,
         simulated=True),
]  # fmt: skip

EXTENSIONS = [
    case("VCEK without a HWID", "EK_EXTENSION_INVALID", "identity", GENOA, extensions=having(_4=None)),
    case("VCEK with a CSP id", "EK_EXTENSION_INVALID", "identity", GENOA,
         extensions=having(_5=tlv(0x16, CSP.encode()))),
    case("VLEK with a HWID", "EK_EXTENSION_INVALID", "identity", VLEK, extensions=having(_4=bytes(range(64))),
         fields={"chip_id": bytes(range(64))}),
    case("VLEK without a CSP id", "EK_EXTENSION_INVALID", "identity", VLEK, extensions=having(_5=None)),
    case("HWID of 64 bytes for Turin", "EK_EXTENSION_INVALID", "identity", TURIN, hwid=chip_id("Turin", "")),
    case("HWID of 8 bytes for Genoa", "EK_EXTENSION_INVALID", "identity", GENOA, hwid=b"\x07" * 8,
         fields={"chip_id": b"\x07" * 8}),
    case("HWID of 32 bytes", "EK_EXTENSION_INVALID", None, GENOA, hwid=bytes(range(32))),
    case("HWID of 63 bytes in an OCTET STRING", "EK_EXTENSION_INVALID", None, GENOA, hwid=tlv(4, bytes(range(63)))),
    case("Turin without an FMC", "EK_EXTENSION_INVALID", None, TURIN, extensions=having(_3_9=None)),
    case("Genoa with an FMC", "EK_EXTENSION_INVALID", None, GENOA, extensions=having(_3_9=integer(1))),
    case("FMC beside patch level 4", "EK_EXTENSION_INVALID", None, TURIN, extensions=having(_3_4=integer(1))),
    case("patch level 10", "EK_EXTENSION_INVALID", None, TURIN, extensions=having(_3_10=integer(0))),
    case("no boot loader level", "EK_EXTENSION_INVALID", None, GENOA, extensions=having(_3_1=None)),
    case("no microcode level", "EK_EXTENSION_INVALID", None, MILAN, extensions=having(_3_8=None)),
    case("patch level 256", "EK_EXTENSION_INVALID", None, GENOA, extensions=having(_3_3=integer(256))),
    case("negative patch level", "EK_EXTENSION_INVALID", None, GENOA, extensions=having(_3_3=tlv(2, b"\xff"))),
    case("patch level with a tail", "EK_EXTENSION_INVALID", None, GENOA, extensions=having(_3_2=b"\x02\x01\x00\x00")),
    case("patch level as text", "EK_EXTENSION_INVALID", None, GENOA, extensions=having(_3_2=tlv(0x16, b"0"))),
    case("no struct version", "EK_EXTENSION_INVALID", None, GENOA, extensions=having(_1=None)),
    case("no product name", "EK_EXTENSION_INVALID", None, GENOA, extensions=having(_2=None)),
    case("empty product name", "EK_EXTENSION_INVALID", None, GENOA, extensions=having(_2=tlv(0x16, b""))),
    case("product name in UTF-8", "EK_EXTENSION_INVALID", None, GENOA, extensions=having(_2=tlv(0x0C, b"Genoa"))),
    case("CSP id that steers a terminal", "EK_EXTENSION_INVALID", None, VLEK,
         extensions=having(_5=tlv(0x16, b"\x1b[2J"))),
]  # fmt: skip

TCBS = [
    case("key of a lower TCB", "SNP_TCB_MISMATCH", "tcb", GENOA, ek_tcb=bytes([10, 0, 0, 0, 0, 0, 23, 83])),
    case("key of a higher TCB", "SNP_TCB_MISMATCH", "tcb", GENOA, ek_tcb=bytes([10, 0, 0, 0, 0, 0, 23, 85])),
    case("key of another SNP level", "SNP_TCB_MISMATCH", "tcb", MILAN, ek_tcb=bytes([4, 0, 0, 0, 0, 0, 25, 219])),
    case("key of another FMC", "SNP_TCB_MISMATCH", "tcb", TURIN, ek_tcb=bytes([2, 1, 1, 4, 0, 0, 0, 81])),
    case("key of another reserved level", "SNP_TCB_MISMATCH", "tcb", GENOA, ek_tcb=bytes([10, 0, 1, 0, 0, 0, 23, 84])),
    case("key of another reserved level, Turin", "SNP_TCB_MISMATCH", "tcb", TURIN,
         ek_tcb=bytes([1, 1, 1, 4, 0, 0, 1, 81])),
    case("VLEK of another TCB", "SNP_TCB_MISMATCH", "tcb", VLEK, ek_tcb=bytes([9, 0, 0, 0, 0, 0, 23, 84])),
    case("REPORTED above COMMITTED", "SNP_TCB_ORDER", "tcb_order", GENOA,
         fields={"committed_tcb": bytes([10, 0, 0, 0, 0, 0, 22, 84])}),
    case("COMMITTED above CURRENT", "SNP_TCB_ORDER", "tcb_order", GENOA,
         fields={"current_tcb": bytes([9, 0, 0, 0, 0, 0, 255, 255])}),
    case("COMMITTED below REPORTED in the FMC", "SNP_TCB_ORDER", "tcb_order", TURIN,
         fields={"committed_tcb": bytes([0, 9, 9, 9, 0, 0, 0, 81])}),
    case("committed firmware later than the current", "SNP_TCB_ORDER", "firmware_order", GENOA,
         fields={"committed_version": bytes([41, 55, 1])}),
    case("committed major later than the current", "SNP_TCB_ORDER", "firmware_order", TURIN,
         fields={"committed_version": bytes([0, 0, 2])}),
    case("another chip", "SNP_CHIP_ID", "chip", GENOA, fields={"chip_id": chip_id("Genoa", "another")}),
    case("another chip by its last bit", "SNP_CHIP_ID", "chip", MILAN,
         fields={"chip_id": chip_id("Milan", "")[:63] + bytes([chip_id("Milan", "")[63] ^ 1])}),
    case("another chip of Turin", "SNP_CHIP_ID", "chip", TURIN, fields={"chip_id": b"\x01" * 8}),
    case("Turin's chip id with a tail", "SNP_CHIP_ID", "chip", TURIN,
         fields={"chip_id": chip_id("Turin", "")[:8] + b"\x01"}),
    case("chip id masked", "SNP_CHIP_ID_MASKED", "chip", GENOA, fields={"chip_id": bytes(64)}),
    case("chip id masked, HWID of zeros", "SNP_CHIP_ID_MASKED", "chip", TURIN, hwid=bytes(8),
         fields={"chip_id": bytes(64)}),
    case("certificate names Milan", "SNP_PRODUCT", "product_name", GENOA, product_name="Milan-B0"),
    case("certificate names Genoa", "SNP_PRODUCT", "product_name", MILAN, product_name="Genoa"),
    case("certificate names nothing known", "SNP_PRODUCT", "product_name", TURIN, product_name="Venice"),
    case("certificate names a word that begins so", "SNP_PRODUCT", "product_name", GENOA, product_name="Genoa2-B0"),
    case("VLEK names another product", "SNP_PRODUCT", "product_name", VLEK_MILAN, product_name="Genoa"),
    case("CPU of Milan", "SNP_PRODUCT", "cpu", GENOA, fields={"cpuid": bytes([0x19, 0x01, 1])}),
    case("CPU of Genoa", "SNP_PRODUCT", "cpu", MILAN3, fields={"cpuid": bytes([0x19, 0x11, 1])}),
    case("CPU of Turin", "SNP_PRODUCT", "cpu", SIENA, fields={"cpuid": bytes([0x1A, 0x02, 1])}),
    case("CPU nobody knows", "SNP_PRODUCT", "cpu", TURIN, fields={"cpuid": bytes([0x1B, 0x02, 1])}),
    case("no CPU in version 3", "SNP_PRODUCT", "cpu", GENOA, fields={"cpuid": bytes(3)}),
]  # fmt: skip

TIMES = [
    case("VCEK expired", "CERT_EXPIRED", "validity", GENOA, ek=ek(not_after=NOW - 1)),
    case("VLEK expired", "CERT_EXPIRED", "validity", VLEK, ek=ek(not_after=NOW - DAY)),
    case("VCEK not yet valid", "CERT_NOT_YET_VALID", "validity", TURIN, ek=ek(not_before=NOW + 1)),
    case("ASK expired", "CERT_EXPIRED", "validity", GENOA, ask=ask(not_after=NOW - 1)),
    case("ARK not yet valid", "CERT_NOT_YET_VALID", "validity", MILAN, ark=ark(not_before=NOW + 1)),
]

REVOCATION = [
    case("ASK revoked", "CERT_REVOKED", "revoked", GENOA, crls=(replace(CRL, revoked=(3, ASK.serial, 9)),)),
    case("ASVK revoked", "CERT_REVOKED", "revoked", VLEK, crls=(replace(CRL, revoked=(0x10101,)),)),
    case("ARK in its own list", "CERT_REVOKED", "revoked", TURIN, crls=(replace(CRL, revoked=(ARK.serial,)),)),
    case("ASK revoked by an older list", "CERT_REVOKED", "revoked", GENOA,
         crls=(CRL, replace(CRL, this_update=NOW - 90 * DAY, next_update=NOW - DAY, revoked=(ASK.serial,)))),
    case("ASK revoked by a list that was current once", "CERT_REVOKED", None, GENOA,
         crls=(replace(CRL, next_update=NOW - DAY, revoked=(ASK.serial,)),)),
    case("ASK revoked by a list in the certificate table", "CERT_REVOKED", "revoked",
         bringing(replace(CRL, revoked=(ASK.serial,)))),
    case("ASK revoked by an old list in the certificate table, beside a good one of the verifier's", "CERT_REVOKED",
         "revoked", bringing(replace(CRL, next_update=NOW - DAY, revoked=(ASK.serial,))), crls=(CRL,)),
    case("list expired beside a good one in the certificate table", "COLLATERAL_EXPIRED", "list_window", bringing(CRL),
         crls=(replace(CRL, next_update=NOW),)),
    case("list expired", "COLLATERAL_EXPIRED", "list_window", GENOA, crls=(replace(CRL, next_update=NOW),)),
    case("list of tomorrow", "COLLATERAL_NOT_YET_VALID", "list_window", MILAN,
         crls=(replace(CRL, this_update=NOW + 1),)),
    case("list signed by a stranger", "COLLATERAL_SIGNATURE", "list_signature", GENOA,
         crls=(replace(CRL, signed_with="stranger"),)),
    case("list signed by the ASK", "COLLATERAL_SIGNATURE", "list_signature", TURIN,
         crls=(replace(CRL, signed_with="ask"),)),
    case("ARK may not sign lists", "CERT_CONSTRAINT", "list_signer", GENOA, ark=ark(usage=ONLY_CERTS)),
    case("list in the certificate's place", "CERT_CHAIN_INVALID", None, GENOA,
         delivered=lambda held: (held[0], held[1], b"\x30\x03\x02\x01\x00")),
    case("VCEK may sign data only, and expired", "CERT_EXPIRED", "validity", GENOA,
         ek=ek(usage=ONLY_DATA, not_after=NOW - 1)),
    Case(name="two VCEKs of this chip, both expired", code="CERT_EXPIRED", step="validity",
         world=GENOA.but(ek=ek(not_after=NOW - 1)), beside=(GENOA.but(ek=ek(not_after=NOW - 2)),)),
    Case(name="VCEK of another chip beside none", code="ENDORSEMENT_MISSING", step=None,
         world=GENOA.but(delivered=lambda held: held[1:]), beside=(GENOA.but(seed="another"),)),
]  # fmt: skip

CASES = [*CHAINS, *ROLES, *EXTENSIONS, *TCBS, *TIMES, *REVOCATION]
