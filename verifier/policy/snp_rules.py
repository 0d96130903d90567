"""Rules on an SNP guest and its platform, one demand each (ATTESTATION.md §8.4); `policy.snp` composes them."""

from __future__ import annotations

from dataclasses import dataclass

from verifier.abi.amd import TcbVersion
from verifier.abi.snp import HOST_VMPL
from verifier.claims import Claims
from verifier.errors import (
    DebugEnabled,
    GuestSvnTooLow,
    PolicyEmpty,
    PolicyInvalid,
    RevocationUnchecked,
    SnpChipIdMasked,
    SnpPlatformRefused,
    SnpPolicyRefused,
    SnpSignerRefused,
    SnpTcbTooOld,
    SnpVmplRefused,
    TeeTypeUnsupported,
)
from verifier.formats.snp import CHECKED, VerifiedSnpReport

POLICY_BITS = ("single_socket", "mem_aes_256_xts", "rapl_disabled", "ciphertext_hiding", "page_swap_disabled")
PLATFORM_BITS = ("tsme", "ecc", "rapl_disabled", "ciphertext_hiding", "iommu_write_safe", "tio")
"""What a policy may demand by name, of `GuestPolicy` and of `PlatformInfo`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbMinimum:
    """Lowest TCBs of one product line: of the endorsement key, and where given of the others."""

    product: str
    reported: TcbVersion
    committed: TcbVersion | None = None
    current: TcbVersion | None = None
    launch: TcbVersion | None = None


def snp_of(claims: Claims) -> VerifiedSnpReport:
    """The verified report. `TeeTypeUnsupported` for other evidence."""
    quote: object = claims.quote
    if not isinstance(quote, VerifiedSnpReport):
        raise TeeTypeUnsupported("a rule on SNP guests for evidence of another TEE", field="tee_type")
    return quote


@dataclass(frozen=True, slots=True)
class NotDebuggable:
    """DEBUG clear: else the host reads and writes the guest."""

    def check(self, claims: Claims) -> None:
        """`DebugEnabled`."""
        if snp_of(claims).policy.debug:
            raise DebugEnabled("the guest's policy allows DEBUG", field="policy")


@dataclass(frozen=True, slots=True)
class VmplAccepted:
    """The report comes from one of these privilege levels, never from the host (VMPL 0xFFFFFFFF)."""

    accepted: tuple[int, ...]

    def check(self, claims: Claims) -> None:
        """`SnpVmplRefused`; `PolicyEmpty` if none is accepted."""
        if not self.accepted:
            raise PolicyEmpty("no VMPL is accepted", field="vmpls")
        vmpl = snp_of(claims).report.vmpl
        if vmpl == HOST_VMPL:
            raise SnpVmplRefused("a report that the host asked for", field="vmpl")
        if vmpl not in self.accepted:
            raise SnpVmplRefused(f"VMPL {vmpl}; accepted: {', '.join(map(str, self.accepted))}", field="vmpl")


@dataclass(frozen=True, slots=True)
class NoMigrationAgent:
    """MIGRATE_MA clear: else an agent may copy the guest elsewhere."""

    def check(self, claims: Claims) -> None:
        """`SnpPolicyRefused`."""
        if snp_of(claims).policy.migrate_ma:
            raise SnpPolicyRefused("the guest's policy allows a migration agent", field="policy")


@dataclass(frozen=True, slots=True)
class AliasCheckComplete:
    """ALIAS_CHECK_COMPLETE set: no memory module pretends to a larger size (BadRAM)."""

    def check(self, claims: Claims) -> None:
        """`SnpPlatformRefused`."""
        if not snp_of(claims).platform.alias_check_complete:
            raise SnpPlatformRefused("memory aliases were not looked for (BadRAM)", field="platform_info")


@dataclass(frozen=True, slots=True)
class RevocationListSeen:
    """A current revocation list of the ARK was at hand."""

    def check(self, claims: Claims) -> None:
        """`RevocationUnchecked`."""
        if snp_of(claims).revocation != CHECKED:
            raise RevocationUnchecked("no revocation list of the ARK was given", field="ark_crl")


@dataclass(frozen=True, slots=True)
class TcbAtLeast:
    """TCBs are at least the minimums of the report's product line; one without a minimum is refused."""

    minimums: tuple[TcbMinimum, ...]

    def check(self, claims: Claims) -> None:
        """`SnpTcbTooOld`; `PolicyEmpty` without any minimum."""
        if not self.minimums:
            raise PolicyEmpty("no minimum TCB is named", field="tcb_minimums")
        quote = snp_of(claims)
        wanted = [one for one in self.minimums if one.product == quote.product]
        if not wanted:
            raise SnpTcbTooOld(f"no minimum TCB is named for {quote.product}", field="product")
        for one in wanted:
            check_minimum("reported_tcb", quote.reported_tcb, one.reported)
            check_minimum("committed_tcb", quote.committed_tcb, one.committed)
            check_minimum("current_tcb", quote.current_tcb, one.current)
            check_minimum("launch_tcb", quote.launch_tcb, one.launch)


def check_minimum(field: str, found: TcbVersion, minimum: TcbVersion | None) -> None:
    """No component of `found` is below `minimum`'s; None demands nothing. `SnpTcbTooOld`."""
    short = () if minimum is None else found.below(minimum)
    if short:
        raise SnpTcbTooOld(f"{found}; short in {', '.join(short)} of {minimum}", field=field)


@dataclass(frozen=True, slots=True)
class FirmwareCommitted:
    """What runs is committed, firmware and TCB: the host cannot go back to what ran before."""

    def check(self, claims: Claims) -> None:
        """`SnpTcbTooOld`."""
        report = snp_of(claims).report
        if report.current_tcb != report.committed_tcb or report.current_version != report.committed_version:
            raise SnpTcbTooOld("the firmware that runs is not committed", field="committed_tcb")


@dataclass(frozen=True, slots=True)
class NoSmt:
    """The guest's policy forbids simultaneous multi-threading."""

    def check(self, claims: Claims) -> None:
        """`SnpPolicyRefused`."""
        if snp_of(claims).policy.smt:
            raise SnpPolicyRefused("the guest's policy allows SMT", field="policy")


@dataclass(frozen=True, slots=True)
class NoCxl:
    """The guest's policy forbids CXL devices and memory."""

    def check(self, claims: Claims) -> None:
        """`SnpPolicyRefused`."""
        if snp_of(claims).policy.cxl_allow:
            raise SnpPolicyRefused("the guest's policy allows CXL", field="policy")


@dataclass(frozen=True, slots=True)
class NoUnknownPolicyBits:
    """No bit of POLICY that nobody here knows: it may allow something."""

    def check(self, claims: Claims) -> None:
        """`SnpPolicyRefused`."""
        unknown = snp_of(claims).policy.unknown
        if unknown:
            raise SnpPolicyRefused(f"unknown bits {unknown:#x} in the guest's policy", field="policy")


@dataclass(frozen=True, slots=True)
class PolicyBitsSet:
    """The guest's policy demands all of these of its platform, by the names of `GuestPolicy`."""

    names: tuple[str, ...]

    def check(self, claims: Claims) -> None:
        """`SnpPolicyRefused`; `PolicyInvalid` for a name that is none."""
        policy = snp_of(claims).policy
        for name in self.names:
            if name not in POLICY_BITS:
                raise PolicyInvalid(f"no bit of a guest's policy is called {name[:40]!r}", field="demand_policy")
            if not getattr(policy, name):
                raise SnpPolicyRefused(f"the guest's policy does not demand {name}", field="policy")


@dataclass(frozen=True, slots=True)
class AbiAtLeast:
    """The guest's policy demands at least this firmware ABI: (major, minor)."""

    minimum: tuple[int, int]

    def check(self, claims: Claims) -> None:
        """`SnpPolicyRefused`."""
        found = snp_of(claims).policy.abi_minimum
        if found < self.minimum:
            shown, least = ("{}.{}".format(*one) for one in (found, self.minimum))
            raise SnpPolicyRefused(f"the guest runs on ABI {shown}, at least {least} is demanded", field="policy")


@dataclass(frozen=True, slots=True)
class GuestSvnAtLeast:
    """GUEST_SVN, of the guest's ID block, is at least `minimum`."""

    minimum: int

    def check(self, claims: Claims) -> None:
        """`GuestSvnTooLow`."""
        found = snp_of(claims).report.guest_svn
        if found < self.minimum:
            raise GuestSvnTooLow(f"GUEST_SVN {found}, at least {self.minimum} is demanded", field="guest_svn")


@dataclass(frozen=True, slots=True)
class NoUnknownPlatformBits:
    """No bit of PLATFORM_INFO that nobody here knows."""

    def check(self, claims: Claims) -> None:
        """`SnpPlatformRefused`."""
        unknown = snp_of(claims).platform.unknown
        if unknown:
            raise SnpPlatformRefused(f"unknown platform bits {unknown:#x}", field="platform_info")


@dataclass(frozen=True, slots=True)
class PlatformBitsSet:
    """The platform is in all of these states, by the names of `PlatformInfo`."""

    names: tuple[str, ...]

    def check(self, claims: Claims) -> None:
        """`SnpPlatformRefused`; `PolicyInvalid` for a name that is none."""
        platform = snp_of(claims).platform
        for name in self.names:
            if name not in PLATFORM_BITS:
                raise PolicyInvalid(f"no state of a platform is called {name[:40]!r}", field="demand_platform")
            if not getattr(platform, name):
                raise SnpPlatformRefused(f"the platform is without {name}", field="platform_info")


@dataclass(frozen=True, slots=True)
class IdKeyAccepted:
    """The guest was launched with an ID block of one of these keys (SHA-384 digests, 48 bytes)."""

    digests: tuple[bytes, ...]

    def check(self, claims: Claims) -> None:
        """`SnpSignerRefused`; `PolicyEmpty` if none is accepted."""
        if not self.digests:
            raise PolicyEmpty("no ID key is accepted", field="id_key_digests")
        found = snp_of(claims).report.id_key_digest
        if not any(found) or found not in self.digests:
            raise SnpSignerRefused(f"ID key {found.hex()}", field="id_key_digest")


@dataclass(frozen=True, slots=True)
class AuthorKeyAccepted:
    """The key of the ID block is certified by one of these author keys (SHA-384 digests, 48 bytes)."""

    digests: tuple[bytes, ...]

    def check(self, claims: Claims) -> None:
        """`SnpSignerRefused`; `PolicyEmpty` if none is accepted."""
        if not self.digests:
            raise PolicyEmpty("no author key is accepted", field="author_key_digests")
        report = snp_of(claims).report
        if not report.author_key_enabled or report.author_key_digest not in self.digests:
            raise SnpSignerRefused(f"author key {report.author_key_digest.hex()}", field="author_key_digest")


@dataclass(frozen=True, slots=True)
class ProviderAccepted:
    """A VLEK is of one of these cloud providers; a VCEK is of none, and passes."""

    csp_ids: tuple[str, ...]

    def check(self, claims: Claims) -> None:
        """`SnpSignerRefused`."""
        csp_id = snp_of(claims).csp_id
        if csp_id is not None and csp_id not in self.csp_ids:
            raise SnpSignerRefused(f"a VLEK of {csp_id!r}", field="csp_id")


@dataclass(frozen=True, slots=True)
class ChipIdShown:
    """The report names its chip; one signed by a VLEK need not."""

    def check(self, claims: Claims) -> None:
        """`SnpChipIdMasked`."""
        if not snp_of(claims).platform_ids:
            raise SnpChipIdMasked("the report names no chip", field="chip_id")
