"""Genuine guests that a policy must refuse (ATTESTATION.md §8.4 step 8, §11.2 items 4, 5, 7)."""

from __future__ import annotations

from typing import Any

from schemas.records import RegisterRule
from tests.forge.snp.judge import Case
from tests.forge.snp.world import (
    AUTHOR_KEY,
    CRL,
    GENOA,
    ID_KEY,
    MEASUREMENT,
    MILAN,
    POLICY,
    TURIN,
    VLEK,
    World,
    bringing,
)
from verifier.abi.amd import TcbVersion
from verifier.policy.snp_rules import TcbMinimum

GENOA_TCB = TcbVersion(boot_loader=10, tee=0, snp=23, microcode=84)
TURIN_TCB = TcbVersion(fmc=1, boot_loader=1, tee=1, snp=4, microcode=81, reserved=bytes(3))
HOST = 0xFFFFFFFF


def case(name: str, code: str, step: str, world: World = GENOA, fields: dict[str, Any] | None = None,
         **demands: Any) -> Case:  # fmt: skip
    changed = world if fields is None else world.but(fields=dict(world.fields) | fields)
    return Case(name=name, code=code, step=step, world=changed, demands=demands)


def minimum(**changes: Any) -> tuple[TcbMinimum, ...]:
    return (TcbMinimum(**{"product": "Genoa", "reported": GENOA_TCB} | changes),)


def tcb(**changes: int) -> TcbVersion:
    return TcbVersion(**{"boot_loader": 10, "tee": 0, "snp": 23, "microcode": 84} | changes)  # type: ignore[arg-type]


def registers(**values: bytes) -> tuple[RegisterRule, ...]:
    return tuple(RegisterRule(register=name, value=value, mask=None) for name, value in values.items())


def measured(name: str, code: str, step: str, world: World = GENOA, **values: bytes) -> Case:
    return Case(name=name, code=code, step=step, world=world, registers=registers(**values))


GUESTS = [
    case("DEBUG", "DEBUG_ENABLED", "NotDebuggable", fields={"policy": POLICY | 1 << 19}, allow_debug=False),
    case("DEBUG, Turin", "DEBUG_ENABLED", "NotDebuggable", TURIN, {"policy": POLICY | 1 << 19}, allow_debug=False),
    case("VMPL 1", "SNP_VMPL", "VmplAccepted", fields={"vmpl": 1}, vmpls=(0,)),
    case("VMPL 3 where 0 and 1 are accepted", "SNP_VMPL", "VmplAccepted", fields={"vmpl": 3}, vmpls=(0, 1)),
    case("report made for the host", "SNP_VMPL", "VmplAccepted", fields={"vmpl": HOST}, vmpls=(0,)),
    case("report made for the host, accepted by name", "SNP_VMPL", "VmplAccepted", fields={"vmpl": HOST},
         vmpls=(0, HOST)),
    case("no VMPL accepted", "POLICY_EMPTY", "VmplAccepted", vmpls=()),
    case("migration agent", "SNP_POLICY", "NoMigrationAgent", fields={"policy": POLICY | 1 << 18},
         allow_migration_agent=False),
    case("SMT", "SNP_POLICY", "NoSmt", allow_smt=False),
    case("CXL", "SNP_POLICY", "NoCxl", fields={"policy": POLICY | 1 << 21}, allow_cxl=False),
    case("unknown bit 26 of POLICY", "SNP_POLICY", "NoUnknownPolicyBits", fields={"policy": POLICY | 1 << 26},
         unsafe_allow_unknown_policy_bits=False),
    case("unknown bit 63 of POLICY", "SNP_POLICY", "NoUnknownPolicyBits", TURIN, {"policy": POLICY | 1 << 63},
         unsafe_allow_unknown_policy_bits=False),
    case("single socket not demanded", "SNP_POLICY", "PolicyBitsSet", demand_policy=("single_socket",)),
    case("one of two bits not demanded", "SNP_POLICY", "PolicyBitsSet", fields={"policy": POLICY | 1 << 20},
         demand_policy=("single_socket", "ciphertext_hiding")),
    case("bit of POLICY nobody knows", "POLICY_INVALID", "PolicyBitsSet", demand_policy=("debug",)),
    case("ABI too low", "SNP_POLICY", "AbiAtLeast", abi_minimum=(0, 32)),
    case("ABI of a lower major", "SNP_POLICY", "AbiAtLeast", abi_minimum=(1, 0)),
    case("guest SVN too low", "GUEST_SVN_TOO_LOW", "GuestSvnAtLeast", min_guest_svn=8),
    case("other host data", "MEASUREMENT_UNKNOWN", "RegisterMatches", host_data=bytes(32)),
    case("no ID block", "SNP_SIGNER", "IdKeyAccepted", id_key_digests=(ID_KEY, bytes(48))),
    case("another ID key", "SNP_SIGNER", "IdKeyAccepted", fields={"id_key_digest": AUTHOR_KEY},
         id_key_digests=(ID_KEY,)),
    case("no ID key accepted", "POLICY_EMPTY", "IdKeyAccepted", fields={"id_key_digest": ID_KEY}, id_key_digests=()),
    case("author key not in use", "SNP_SIGNER", "AuthorKeyAccepted", fields={"author_key_digest": AUTHOR_KEY},
         author_key_digests=(AUTHOR_KEY,)),
    case("another author key", "SNP_SIGNER", "AuthorKeyAccepted", fields={"author_key_digest": ID_KEY, "key_info": 1},
         author_key_digests=(AUTHOR_KEY,)),
    case("no author key accepted", "POLICY_EMPTY", "AuthorKeyAccepted", author_key_digests=()),
]  # fmt: skip

PLATFORMS = [
    case("alias check not complete", "SNP_PLATFORM", "AliasCheckComplete", fields={"platform_info": 0xDF},
         unsafe_allow_incomplete_alias_check=False),
    case("unknown platform bit", "SNP_PLATFORM", "NoUnknownPlatformBits", fields={"platform_info": 1 << 8},
         unsafe_allow_unknown_platform_bits=False),
    case("no ciphertext hiding", "SNP_PLATFORM", "PlatformBitsSet", demand_platform=("ciphertext_hiding",)),
    case("state nobody knows", "POLICY_INVALID", "PlatformBitsSet", demand_platform=("bits",)),
    case("no revocation list", "REVOCATION_UNCHECKED", "RevocationListSeen", GENOA.but(crls=()),
         demand_revocation=True),
    case("no revocation list but the prover's own", "REVOCATION_UNCHECKED", "RevocationListSeen", bringing(CRL),
         demand_revocation=True),
    Case(name="list of another product", code="REVOCATION_UNCHECKED", step="RevocationListSeen",
         world=GENOA.but(crls=()), beside=(MILAN,), demands={"demand_revocation": True}),
    case("VLEK of another cloud", "SNP_SIGNER", "ProviderAccepted", VLEK, csp_ids=("CN=another.example",)),
    case("VLEK of no cloud", "SNP_SIGNER", "ProviderAccepted", VLEK, csp_ids=()),
    case("VLEK report without a chip", "SNP_CHIP_ID_MASKED", "ChipIdShown", VLEK, allow_masked_chip_id=False),
    case("firmware on trial", "SNP_TCB_TOO_OLD", "FirmwareCommitted", fields={"current_version": bytes([41, 55, 1])},
         demand_committed_firmware=True),
    case("TCB on trial", "SNP_TCB_TOO_OLD", "FirmwareCommitted",
         fields={"current_tcb": bytes([10, 0, 0, 0, 0, 0, 24, 84])}, demand_committed_firmware=True),
    case("no minimum TCB", "POLICY_EMPTY", "TcbAtLeast", tcb_minimums=()),
    case("minimum TCB of another product only", "SNP_TCB_TOO_OLD", "TcbAtLeast", TURIN, tcb_minimums=minimum()),
    case("REPORTED too old", "SNP_TCB_TOO_OLD", "TcbAtLeast", tcb_minimums=minimum(reported=tcb(microcode=85))),
    case("REPORTED too old in one component", "SNP_TCB_TOO_OLD", "TcbAtLeast",
         tcb_minimums=minimum(reported=tcb(boot_loader=0, snp=24, microcode=0))),
    case("COMMITTED too old", "SNP_TCB_TOO_OLD", "TcbAtLeast", tcb_minimums=minimum(committed=tcb(snp=24))),
    case("CURRENT too old", "SNP_TCB_TOO_OLD", "TcbAtLeast", tcb_minimums=minimum(current=tcb(tee=1))),
    case("launched on an older TCB", "SNP_TCB_TOO_OLD", "TcbAtLeast",
         fields={"launch_tcb": bytes([9, 0, 0, 0, 0, 0, 23, 84])}, tcb_minimums=minimum(launch=GENOA_TCB)),
    case("FMC too old", "SNP_TCB_TOO_OLD", "TcbAtLeast", TURIN,
         tcb_minimums=(TcbMinimum(product="Turin", reported=TcbVersion(
             fmc=2, boot_loader=0, tee=0, snp=0, microcode=0, reserved=bytes(3))),)),
    case("minimum in the layout of another product", "SNP_TCB_TOO_OLD", "TcbAtLeast", TURIN,
         tcb_minimums=(TcbMinimum(product="Turin", reported=tcb(boot_loader=0, snp=0, microcode=0)),)),
]  # fmt: skip

MEASUREMENTS = [
    measured("other measurement", "MEASUREMENT_UNKNOWN", "RegisterMatches", measurement=bytes(48)),
    measured("measurement of another length", "MEASUREMENT_UNKNOWN", "RegisterMatches", measurement=MEASUREMENT[:32]),
    measured("register of another TEE", "MEASUREMENT_UNKNOWN", "RegisterMatches", mrtd=MEASUREMENT),
    measured("another product", "MEASUREMENT_UNKNOWN", "RegisterMatches", TURIN, product=b"Genoa"),
    measured("another family", "MEASUREMENT_UNKNOWN", "RegisterMatches", family_id=bytes(16)),
    measured("REPORTED below a register", "SNP_TCB_TOO_OLD", "RegisterAtLeast", product=b"Genoa",
             reported_tcb_at_least=bytes([10, 0, 0, 0, 0, 0, 23, 85])),
    measured("LAUNCH below a register", "SNP_TCB_TOO_OLD", "RegisterAtLeast", TURIN, product=b"Turin",
             launch_tcb_at_least=bytes([2, 0, 0, 0, 0, 0, 0, 0])),
    measured("minimum TCB of another product", "MEASUREMENT_UNKNOWN", "RegisterMatches", TURIN, product=b"Genoa",
             reported_tcb_at_least=bytes(8)),
    measured("minimum TCB without a product", "POLICY_INVALID", "MinimumOfProduct", reported_tcb_at_least=bytes(8)),
    measured("minimum TCB of 7 bytes", "POLICY_INVALID", "RegisterAtLeast", product=b"Genoa",
             reported_tcb_at_least=bytes(7)),
    measured("guest SVN below a register", "GUEST_SVN_TOO_LOW", "RegisterAtLeast",
             guest_svn_at_least=b"\x08\x00\x00\x00"),
    measured("ABI below a register", "SNP_POLICY", "RegisterAtLeast", abi_at_least=b"\x01\x00"),
    Case(name="minimum with a mask", code="POLICY_INVALID", step="RegisterAtLeast", world=GENOA,
         registers=(RegisterRule(register="abi_at_least", value=b"\x00\x00", mask=b"\xff\xff"),)),
]  # fmt: skip

CASES = [*GUESTS, *PLATFORMS, *MEASUREMENTS]
