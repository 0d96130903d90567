"""The tables of a policy file that are about SEV-SNP guests: [snp], [[snp.tcb_minimums]], measurements for "snp"."""

from __future__ import annotations

from typing import Any

from schemas.records import RegisterRule
from verifier.abi.amd import PRODUCTS, TURIN, TcbVersion
from verifier.errors import PolicyInvalid
from verifier.policy.quote_policy import CODE_REGISTERS, MeasuredCode
from verifier.policy.snp import GUEST_SVN_AT_LEAST, REPORTED_TCB_AT_LEAST, SnpDemands
from verifier.policy.snp_rules import PLATFORM_BITS, POLICY_BITS, TcbMinimum
from verifier.policy.table import (
    Keys,
    bits,
    expect,
    flag,
    hexadecimal,
    integer,
    list_of,
    one_of,
    registers_of,
    table,
    text,
)

_REGISTERS = {
    "measurement": 48, "host_data": 32, "id_key_digest": 48, "author_key_digest": 48, "family_id": 16, "image_id": 16,
}  # fmt: skip
_DIGEST_BYTES = 48


def snp_demands_of(keys: Keys, *, allow_debug: bool) -> SnpDemands:
    """The table [snp]; `allow_debug` is the file's own switch for every TEE."""
    minimums = keys.take("tcb_minimums", list_of(_minimum), ())
    any_tcb = keys.take("unsafe_any_tcb", flag, False)
    if any_tcb and minimums:
        raise PolicyInvalid("snp.unsafe_any_tcb would make the list beside it mean nothing", field="snp.unsafe_any_tcb")
    demands = SnpDemands(
        allow_debug=allow_debug,
        allow_migration_agent=keys.take("allow_migration_agent", flag, False),
        allow_smt=keys.take("allow_smt", flag, True),
        allow_cxl=keys.take("allow_cxl", flag, False),
        allow_masked_chip_id=keys.take("allow_masked_chip_id", flag, False),
        unsafe_allow_unknown_policy_bits=keys.take("unsafe_allow_unknown_policy_bits", flag, False),
        unsafe_allow_unknown_platform_bits=keys.take("unsafe_allow_unknown_platform_bits", flag, False),
        unsafe_allow_incomplete_alias_check=keys.take("unsafe_allow_incomplete_alias_check", flag, False),
        demand_policy=keys.take("demand_policy", list_of(one_of(POLICY_BITS)), ()),
        demand_platform=keys.take("demand_platform", list_of(one_of(PLATFORM_BITS)), ()),
        demand_committed_firmware=keys.take("demand_committed_firmware", flag, False),
        demand_revocation=not keys.take("unsafe_allow_unchecked_revocation", flag, False),
        abi_minimum=keys.take("abi_minimum", _abi, (0, 0)),
        vmpls=keys.take("vmpls", list_of(integer(0, 3)), (0,)),
        min_guest_svn=keys.take("min_guest_svn", integer(0, 0xFFFFFFFF), 0),
        host_data=keys.take("host_data", hexadecimal(32), None),
        id_key_digests=keys.take("id_key_digests", list_of(hexadecimal(_DIGEST_BYTES)), None),
        author_key_digests=keys.take("author_key_digests", list_of(hexadecimal(_DIGEST_BYTES)), None),
        csp_ids=keys.take("csp_ids", list_of(text), None),
        tcb_minimums=None if any_tcb else minimums,
    )
    keys.end()
    return demands


def guest_measured(keys: Keys, path: str) -> MeasuredCode:
    """A measurement for "snp"; a minimum TCB is of one product."""
    registers = list(registers_of(keys, {name: bits(size) for name, size in _REGISTERS.items()}))
    if CODE_REGISTERS.isdisjoint(one.register for one in registers):
        raise PolicyInvalid(f"{path} names no code: none of {', '.join(sorted(CODE_REGISTERS))}", field=path)
    svn = keys.take("min_guest_svn", integer(0, 0xFFFFFFFF), None)
    if svn is not None:
        registers.append(RegisterRule(register=GUEST_SVN_AT_LEAST, value=svn.to_bytes(4, "little")))
    product = keys.take("product", one_of(PRODUCTS), None)
    if product is not None:
        registers.append(RegisterRule(register="product", value=product.encode()))
    levels = keys.take("min_reported_tcb", table, None)
    if levels is not None:
        if product is None:
            raise PolicyInvalid(f"{path}.product is missing: TCBs differ by product", field=f"{path}.product")
        minimum = _tcb(levels, f"{path}.min_reported_tcb", product)
        registers.append(RegisterRule(register=REPORTED_TCB_AT_LEAST, value=minimum.encode()))
    label = keys.take("label", text, path)
    keys.end()
    return MeasuredCode(label=label, tee="snp", registers=tuple(registers))


def _minimum(value: Any, path: str) -> TcbMinimum:
    keys = Keys(table(value, path), f"{path}.")
    product = keys.take("product", one_of(PRODUCTS), None)
    if product is None:
        raise PolicyInvalid(f"{path}.product is missing", field=f"{path}.product")

    def read(levels: Any, where: str) -> TcbVersion:
        return _tcb(levels, where, product)

    reported = keys.take("reported", read, None)
    if reported is None:
        raise PolicyInvalid(f"{path}.reported is missing", field=f"{path}.reported")
    minimum = TcbMinimum(
        product=product,
        reported=reported,
        committed=keys.take("committed", read, None),
        current=keys.take("current", read, None),
        launch=keys.take("launch", read, None),
    )
    keys.end()
    return minimum


def _tcb(value: Any, path: str, product: str) -> TcbVersion:
    """The levels of a TCB; those left out demand nothing."""
    keys, level = Keys(table(value, path), f"{path}."), integer(0, 0xFF)
    turin = product == TURIN
    found = TcbVersion(
        fmc=keys.take("fmc", level, 0) if turin else None,
        boot_loader=keys.take("boot_loader", level, 0),
        tee=keys.take("tee", level, 0),
        snp=keys.take("snp", level, 0),
        microcode=keys.take("microcode", level, 0),
        reserved=bytes(3 if turin else 4),
    )
    keys.end()
    if not any(found.encode()):
        raise PolicyInvalid(f"{path} demands nothing", field=path)
    return found


def _abi(value: Any, path: str) -> tuple[int, int]:
    """Major and minor: "1.55"."""
    major, point, minor = text(value, path).partition(".")
    plain = bool(point) and all(one.isascii() and one.isdigit() and len(one) <= 3 for one in (major, minor))
    expect(plain and int(major) < 256 and int(minor) < 256, path, 'a version as "1.55"')
    return int(major), int(minor)
