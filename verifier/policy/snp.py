"""What a policy demands of an SNP guest and its platform (ATTESTATION.md §8.4, §11.2). The defaults refuse.

A report says two kinds of things: POLICY, what the guest's owner demanded at launch and firmware enforces, and
PLATFORM_INFO, what the platform was at the time. Both are judged here; signatures, chip and TCB of the endorsement
key are settled before (`verifier.formats.snp`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.records import RegisterRule
from verifier.abi.amd import TCB_BYTES, TcbVersion
from verifier.claims import Claims
from verifier.errors import PolicyInvalid
from verifier.formats.snp import CHECKED, VerifiedSnpReport
from verifier.policy.base import Rule
from verifier.policy.rules import RegisterMatches
from verifier.policy.snp_rules import (
    AbiAtLeast,
    AliasCheckComplete,
    AuthorKeyAccepted,
    ChipIdShown,
    FirmwareCommitted,
    GuestSvnAtLeast,
    IdKeyAccepted,
    NoCxl,
    NoMigrationAgent,
    NoSmt,
    NotDebuggable,
    NoUnknownPlatformBits,
    NoUnknownPolicyBits,
    PlatformBitsSet,
    PolicyBitsSet,
    ProviderAccepted,
    RevocationListSeen,
    TcbAtLeast,
    TcbMinimum,
    VmplAccepted,
    check_minimum,
    snp_of,
)

__all__ = [
    "REPORTED_TCB_AT_LEAST",
    "STRICT_SNP",
    "SnpDemands",
    "TcbMinimum",
    "snp_code_rules",
    "snp_register_rule",
    "snp_rules",
    "snp_warnings",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpDemands:
    """Demands on an SNP guest beside its measurements. None: not judged; an empty tuple: nothing is accepted.

    `vmpls` are privilege levels a report may come from (0 to 3); `abi_minimum` (major, minor) is the least that the
    guest's POLICY must demand of firmware; `demand_policy` names bits of POLICY that must be set (`single_socket`,
    `mem_aes_256_xts`, `rapl_disabled`, `ciphertext_hiding`, `page_swap_disabled`), `demand_platform` bits of
    PLATFORM_INFO (`tsme`, `ecc`, `rapl_disabled`, `ciphertext_hiding`, `iommu_write_safe`). The digests are of ID and
    author keys, 48 bytes; `csp_ids` say whose VLEKs count. `demand_committed_firmware`: no firmware on trial.
    SMT may be on by default, as on every cloud.
    """

    allow_debug: bool = False
    allow_migration_agent: bool = False
    allow_smt: bool = True
    allow_cxl: bool = False
    allow_masked_chip_id: bool = False
    unsafe_allow_unknown_policy_bits: bool = False
    unsafe_allow_unknown_platform_bits: bool = False
    unsafe_allow_incomplete_alias_check: bool = False
    demand_policy: tuple[str, ...] = ()
    demand_platform: tuple[str, ...] = ()
    demand_committed_firmware: bool = False
    demand_revocation: bool = True
    abi_minimum: tuple[int, int] = (0, 0)
    vmpls: tuple[int, ...] = (0,)
    min_guest_svn: int = 0
    host_data: bytes | None = None
    id_key_digests: tuple[bytes, ...] | None = None
    author_key_digests: tuple[bytes, ...] | None = None
    csp_ids: tuple[str, ...] | None = None
    tcb_minimums: tuple[TcbMinimum, ...] | None = ()


STRICT_SNP = SnpDemands(
    allow_cxl=True,
    allow_masked_chip_id=True,
    unsafe_allow_unknown_policy_bits=True,
    unsafe_allow_unknown_platform_bits=True,
    demand_revocation=False,
    tcb_minimums=None,
)
"""No DEBUG, no migration agent, VMPL 0, alias check complete. Age of the TCB, chip and revocation are not judged."""


def snp_rules(demands: SnpDemands) -> list[Rule[Claims]]:
    """Every rule of `demands`, in the order of severity."""
    rules: list[Rule[Claims]] = []
    if not demands.allow_debug:
        rules.append(NotDebuggable())
    rules.append(VmplAccepted(demands.vmpls))
    if not demands.allow_migration_agent:
        rules.append(NoMigrationAgent())
    if not demands.unsafe_allow_incomplete_alias_check:
        rules.append(AliasCheckComplete())
    if demands.demand_revocation:
        rules.append(RevocationListSeen())
    if demands.tcb_minimums is not None:
        rules.append(TcbAtLeast(demands.tcb_minimums))
    if demands.demand_committed_firmware:
        rules.append(FirmwareCommitted())
    rules += _guest_rules(demands)
    if not demands.unsafe_allow_unknown_platform_bits:
        rules.append(NoUnknownPlatformBits())
    if demands.demand_platform:
        rules.append(PlatformBitsSet(demands.demand_platform))
    rules += _origin_rules(demands)
    return rules


def _guest_rules(demands: SnpDemands) -> list[Rule[Claims]]:
    rules: list[Rule[Claims]] = []
    if not demands.allow_smt:
        rules.append(NoSmt())
    if not demands.allow_cxl:
        rules.append(NoCxl())
    if not demands.unsafe_allow_unknown_policy_bits:
        rules.append(NoUnknownPolicyBits())
    if demands.demand_policy:
        rules.append(PolicyBitsSet(demands.demand_policy))
    if demands.abi_minimum > (0, 0):
        rules.append(AbiAtLeast(demands.abi_minimum))
    if demands.min_guest_svn:
        rules.append(GuestSvnAtLeast(demands.min_guest_svn))
    if demands.host_data is not None:
        rules.append(RegisterMatches(RegisterRule(register="host_data", value=demands.host_data, mask=None)))
    return rules


def _origin_rules(demands: SnpDemands) -> list[Rule[Claims]]:
    rules: list[Rule[Claims]] = []
    if demands.id_key_digests is not None:
        rules.append(IdKeyAccepted(demands.id_key_digests))
    if demands.author_key_digests is not None:
        rules.append(AuthorKeyAccepted(demands.author_key_digests))
    if demands.csp_ids is not None:
        rules.append(ProviderAccepted(demands.csp_ids))
    if not demands.allow_masked_chip_id:
        rules.append(ChipIdShown())
    return rules


_TCBS_AT_LEAST = {f"{name}_at_least": name for name in ("reported_tcb", "committed_tcb", "current_tcb", "launch_tcb")}
REPORTED_TCB_AT_LEAST, GUEST_SVN_AT_LEAST, ABI_AT_LEAST = "reported_tcb_at_least", "guest_svn_at_least", "abi_at_least"
_SIZES = {GUEST_SVN_AT_LEAST: 4, ABI_AT_LEAST: 2} | dict.fromkeys(_TCBS_AT_LEAST, TCB_BYTES)
"""Registers of a measurement that name a minimum, and the bytes of their value."""


@dataclass(frozen=True, slots=True)
class RegisterAtLeast:
    """A register of a measurement that names a minimum.

    `…_tcb_at_least`: 8 bytes in the layout of the product, compared by component; `guest_svn_at_least`: 4 bytes
    little-endian; `abi_at_least`: major and minor.
    """

    rule: RegisterRule

    def check(self, claims: Claims) -> None:
        """`SnpTcbTooOld`, `GuestSvnTooLow`, `SnpPolicyRefused`; `PolicyInvalid` for a value that is no minimum."""
        name, value = self.rule.register, self.rule.value
        if self.rule.mask is not None or len(value) != _SIZES[name]:
            raise PolicyInvalid(f"{name} takes {_SIZES[name]} bytes and no mask", field="measurements")
        if name == GUEST_SVN_AT_LEAST:
            GuestSvnAtLeast(int.from_bytes(value, "little")).check(claims)
        elif name == ABI_AT_LEAST:
            AbiAtLeast((value[0], value[1])).check(claims)
        else:
            quote, field = snp_of(claims), _TCBS_AT_LEAST[name]
            found: TcbVersion = getattr(quote, field)
            check_minimum(field, found, TcbVersion.decode(value, quote.product))


@dataclass(frozen=True, slots=True)
class MinimumOfProduct:
    """Stands where a minimum TCB is named without its product: the bytes mean something else on another one."""

    def check(self, claims: Claims) -> None:
        """`PolicyInvalid`, always."""
        raise PolicyInvalid("a minimum TCB without the register `product` beside it", field="measurements")


def snp_register_rule(rule: RegisterRule) -> Rule[Claims]:
    """The rule of one register of a measurement: a minimum where its name ends so, else equality."""
    return RegisterAtLeast(rule) if rule.register in _SIZES else RegisterMatches(rule)


def snp_code_rules(registers: Sequence[RegisterRule]) -> list[Rule[Claims]]:
    """The rules of all registers of a measurement; a minimum TCB needs the register `product` beside it."""
    named = {one.register: one for one in registers}
    rules = [snp_register_rule(one) for one in registers]
    if not named.keys().isdisjoint(_TCBS_AT_LEAST):
        product = named.get("product")
        if product is None or product.mask is not None:
            rules.insert(0, MinimumOfProduct())
        else:  # before the minimum is read in the layout of another one
            rules.insert(0, RegisterMatches(product))
    return rules


def snp_warnings(quote: VerifiedSnpReport) -> tuple[str, ...]:
    """What an acceptance does not mean, in words a person must see."""
    found = []
    if quote.simulated:
        found.append("SIMULATED: the root of trust is not hardware")
    if quote.revocation != CHECKED:
        found.append("revocation is not checked: no list of the ARK was given")
    if not quote.platform_ids:
        found.append("the report names no chip: any machine of the key's owner may have made it")
    if quote.runtime_data is not None:
        found.append("Azure's blob: the measurement is the paravisor's, and no TPM quote is checked")
    if not quote.platform.alias_check_complete:
        found.append("memory aliases were not looked for (BadRAM)")
    return tuple(found)
