"""Read a policy file's table: each key is known, each value of its type and size, or `PolicyInvalid` names the key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.records import RegisterRule
from verifier.errors import PolicyInvalid
from verifier.policy.device_file import DEVICE_TEES, device_measured, devices_of, nvidia_of, spdm_of
from verifier.policy.quote_policy import TEES, Bits, MeasuredCode, QuotePolicy, TdDemands
from verifier.policy.snp_file import guest_measured, snp_demands_of
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
from verifier.policy.tcb import TcbRequirement
from verifier.tcb.status import TcbStatus

VERSION = 1
REPORT_DATA_BYTES = 64

_TD_REGISTERS = dict.fromkeys(
    ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mrconfigid", "mrowner", "mrownerconfig", "mrseam"), 48
)
_ENCLAVE_REGISTERS = {"mrenclave": 32, "mrsigner": 32}
_CODE_REGISTERS = {"tdx": {"mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"}, "sgx": set(_ENCLAVE_REGISTERS)}
"""Registers that measure code, one of which a measurement must name: the host chooses what is in the others."""

_PLATFORM_ID_BYTES = (16, 64)
"""Of a PPID or platform instance id, and of a CHIP_ID."""

_ATTRIBUTES_BYTES = {"tdx": 8, "sgx": 16}
_MAX_DAYS = 36_500
_ACCEPTABLE = frozenset(TcbStatus) - {TcbStatus.REVOKED}
_TABLES = ("tdx", "sgx", "snp", "nvidia", "spdm", "devices")


def parse_quote_policy(found: Mapping[str, Any], name: str = "file") -> QuotePolicy:
    """The policy that a TOML or JSON table states (keys: `verifier/policy/fleet.toml`), called `name` in verdicts.

    What is left out is demanded, or empty and then refused when it is applied: so is an empty table. Raises
    `PolicyInvalid` for a key nobody knows or a value it cannot have.
    """
    keys = Keys(found, "")
    keys.take("version", integer(VERSION, VERSION), VERSION)
    tables = {one: keys.take(one, table, {}) for one in _TABLES}
    measurements = keys.take("measurements", list_of(_measured), ())
    platforms = keys.take("platforms", list_of(_platform), ())
    debug = keys.take("unsafe_allow_debug", flag, False)
    policy = QuotePolicy(
        name=name,
        tees=keys.take("tees", list_of(one_of(TEES)), TEES),
        tcb=_tcb(Keys(keys.take("tcb", table, {}), "tcb.")),
        allow_debug=debug,
        td=_td(Keys(tables["tdx"], "tdx.")),
        sgx_attributes=_sgx(Keys(tables["sgx"], "sgx.")),
        snp=snp_demands_of(Keys(tables["snp"], "snp."), allow_debug=debug),
        nvidia=nvidia_of(Keys(tables["nvidia"], "nvidia.")),
        spdm=spdm_of(Keys(tables["spdm"], "spdm.")),
        devices=devices_of(Keys(tables["devices"], "devices.")),
        measurements=None if keys.take("unsafe_any_measurement", flag, False) else measurements,
        platforms=None if keys.take("unsafe_any_platform", flag, False) else platforms,
        report_data=keys.take("report_data", read_report_data, None),
        demand_report_data=not keys.take("unsafe_any_report_data", flag, False),
        unsafe=(*_unsafe(found, ""), *(name for one in _TABLES for name in _unsafe(tables[one], f"{one}."))),
    )
    if (policy.measurements is None and measurements) or (policy.platforms is None and platforms):
        which = "unsafe_any_measurement" if policy.measurements is None and measurements else "unsafe_any_platform"
        raise PolicyInvalid(f"{which} would make the list beside it mean nothing", field=which)
    keys.end()
    return policy


def _unsafe(found: Mapping[str, Any], prefix: str) -> list[str]:
    """Names of the switches that are set."""
    return [f"{prefix}{key}" for key in found if key.startswith("unsafe_") and found[key] is True]


def read_report_data(value: Any, path: str = "report_data") -> bytes:
    """At most 64 bytes in hexadecimal; fewer are padded with zeros on the right, as TEEs do. `PolicyInvalid`."""
    data = hexadecimal(None)(value, path)
    if not 0 < len(data) <= REPORT_DATA_BYTES:
        raise PolicyInvalid(f"{path} has {len(data)} bytes, of 1 to {REPORT_DATA_BYTES}", field=path)
    return data.ljust(REPORT_DATA_BYTES, b"\x00")


def _tcb(keys: Keys) -> TcbRequirement:
    requirement = TcbRequirement(
        accepted_statuses=keys.take("accepted_statuses", list_of(one_of(tuple(_ACCEPTABLE))), ()),
        grace_days=keys.take("grace_days", integer(0, _MAX_DAYS), 0),
        allowed_advisories=keys.take("allowed_advisories", list_of(text), ()),
        min_evaluation_number=keys.take("min_evaluation_number", integer(0, 2**31 - 1), 0),
        judge_current=keys.take("judge_current", flag, True),
    )
    keys.end()
    return requirement


def _td(keys: Keys) -> TdDemands:
    masked = bits(_ATTRIBUTES_BYTES["tdx"])
    demands = TdDemands(
        unsafe_allow_sept_ve=keys.take("unsafe_allow_sept_ve", flag, False),
        unsafe_allow_reserved_bits=keys.take("unsafe_allow_reserved_bits", flag, False),
        allow_migratable=keys.take("allow_migratable", flag, False),
        service_tds=keys.take("service_tds", list_of(hexadecimal(48)), ()),
        td_attributes=keys.take("td_attributes", masked, None),
        xfam=keys.take("xfam", masked, None),
    )
    keys.end()
    return demands


def _sgx(keys: Keys) -> Bits | None:
    attributes: Bits | None = keys.take("attributes", bits(_ATTRIBUTES_BYTES["sgx"]), None)
    keys.end()
    return attributes


def _measured(value: Any, path: str) -> MeasuredCode:
    keys = Keys(table(value, path), f"{path}.")
    tee = keys.take("tee", one_of((*TEES, *DEVICE_TEES)), None)
    if tee is None:
        raise PolicyInvalid(f"{path}.tee is missing", field=f"{path}.tee")
    if tee == "snp":
        return guest_measured(keys, path)
    if tee in DEVICE_TEES:
        return device_measured(keys, tee, path)
    sizes = _TD_REGISTERS if tee == "tdx" else _ENCLAVE_REGISTERS
    registers = list(registers_of(keys, {name: bits(size) for name, size in sizes.items()}))
    if _CODE_REGISTERS[tee].isdisjoint(register.register for register in registers):
        raise PolicyInvalid(f"{path} names no code: none of {', '.join(sorted(_CODE_REGISTERS[tee]))}", field=path)
    product: int | None = None
    minimum: int | None = None
    if tee == "sgx":
        product = keys.take("isvprodid", integer(0, 0xFFFF), None)
        minimum = keys.take("min_isvsvn", integer(0, 0xFFFF), None)
    if product is not None:
        registers.append(RegisterRule(register="isvprodid", value=product.to_bytes(2, "little")))
    label = keys.take("label", text, path)
    keys.end()
    return MeasuredCode(label=label, tee=tee, registers=tuple(registers), min_isvsvn=minimum)


def _platform(value: Any, path: str) -> str:
    data = hexadecimal(None)(value, path)
    expect(len(data) in _PLATFORM_ID_BYTES, path, f"{' or '.join(map(str, _PLATFORM_ID_BYTES))} bytes in hexadecimal")
    return data.hex()
