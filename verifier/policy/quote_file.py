"""Read a policy file's table: each key is known, each value of its type and size, or `PolicyInvalid` names the key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from schemas.records import RegisterRule
from verifier.errors import PolicyInvalid
from verifier.policy.quote_policy import TEES, Bits, MeasuredCode, QuotePolicy, TdDemands
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

_PLATFORM_ID_BYTES = 16
_ATTRIBUTES_BYTES = {"tdx": 8, "sgx": 16}
_MAX_DAYS = 36_500
_SHOWN_CHARACTERS = 80
_ACCEPTABLE = frozenset(TcbStatus) - {TcbStatus.REVOKED}

T = TypeVar("T")
Read = Callable[[Any, str], T]
"""A value and its key's path to what it means."""


def parse_quote_policy(table: Mapping[str, Any], name: str = "file") -> QuotePolicy:
    """The policy that a TOML or JSON table states (keys: `verifier/policy/fleet.toml`), called `name` in verdicts.

    What is left out is demanded, or empty and then refused when it is applied: so is an empty table. Raises
    `PolicyInvalid` for a key nobody knows or a value it cannot have.
    """
    keys = _Keys(table, "")
    keys.take("version", _integer(VERSION, VERSION), VERSION)
    unsafe = [key for key in table if key.startswith("unsafe_") and table[key] is True]
    td, sgx = keys.take("tdx", _table, {}), keys.take("sgx", _table, {})
    unsafe += [f"tdx.{key}" for key in td if key.startswith("unsafe_") and td[key] is True]
    measurements = keys.take("measurements", _list(_measured), ())
    platforms = keys.take("platforms", _list(_platform), ())
    policy = QuotePolicy(
        name=name,
        tees=keys.take("tees", _list(_one_of(TEES)), TEES),
        tcb=_tcb(_Keys(keys.take("tcb", _table, {}), "tcb.")),
        allow_debug=keys.take("unsafe_allow_debug", _flag, False),
        td=_td(_Keys(td, "tdx.")),
        sgx_attributes=_sgx(_Keys(sgx, "sgx.")),
        measurements=None if keys.take("unsafe_any_measurement", _flag, False) else measurements,
        platforms=None if keys.take("unsafe_any_platform", _flag, False) else platforms,
        report_data=keys.take("report_data", read_report_data, None),
        demand_report_data=not keys.take("unsafe_any_report_data", _flag, False),
        unsafe=tuple(unsafe),
    )
    if (policy.measurements is None and measurements) or (policy.platforms is None and platforms):
        which = "unsafe_any_measurement" if policy.measurements is None and measurements else "unsafe_any_platform"
        raise PolicyInvalid(f"{which} would make the list beside it mean nothing", field=which)
    keys.end()
    return policy


def read_report_data(value: Any, path: str = "report_data") -> bytes:
    """At most 64 bytes in hexadecimal; fewer are padded with zeros on the right, as TEEs do. `PolicyInvalid`."""
    data = _hex(None)(value, path)
    if not 0 < len(data) <= REPORT_DATA_BYTES:
        raise PolicyInvalid(f"{path} has {len(data)} bytes, of 1 to {REPORT_DATA_BYTES}", field=path)
    return data.ljust(REPORT_DATA_BYTES, b"\x00")


def _tcb(keys: _Keys) -> TcbRequirement:
    requirement = TcbRequirement(
        accepted_statuses=keys.take("accepted_statuses", _list(_one_of(tuple(_ACCEPTABLE))), ()),
        grace_days=keys.take("grace_days", _integer(0, _MAX_DAYS), 0),
        allowed_advisories=keys.take("allowed_advisories", _list(_text), ()),
        min_evaluation_number=keys.take("min_evaluation_number", _integer(0, 2**31 - 1), 0),
        judge_current=keys.take("judge_current", _flag, True),
    )
    keys.end()
    return requirement


def _td(keys: _Keys) -> TdDemands:
    bits = _bits(_ATTRIBUTES_BYTES["tdx"])
    demands = TdDemands(
        unsafe_allow_sept_ve=keys.take("unsafe_allow_sept_ve", _flag, False),
        unsafe_allow_reserved_bits=keys.take("unsafe_allow_reserved_bits", _flag, False),
        allow_migratable=keys.take("allow_migratable", _flag, False),
        service_tds=keys.take("service_tds", _list(_hex(48)), ()),
        td_attributes=keys.take("td_attributes", bits, None),
        xfam=keys.take("xfam", bits, None),
    )
    keys.end()
    return demands


def _sgx(keys: _Keys) -> Bits | None:
    attributes: Bits | None = keys.take("attributes", _bits(_ATTRIBUTES_BYTES["sgx"]), None)
    keys.end()
    return attributes


def _measured(value: Any, path: str) -> MeasuredCode:
    keys = _Keys(_table(value, path), f"{path}.")
    tee = keys.take("tee", _one_of(TEES), None)
    if tee is None:
        raise PolicyInvalid(f"{path}.tee is missing", field=f"{path}.tee")
    sizes = _TD_REGISTERS if tee == "tdx" else _ENCLAVE_REGISTERS
    registers = []
    for register, size in sizes.items():
        bits: Bits | None = keys.take(register, _bits(size), None)
        if bits is not None:
            mask = None if all(byte == 0xFF for byte in bits.mask) else bits.mask
            registers.append(RegisterRule(register=register, value=bits.value, mask=mask))
    if _CODE_REGISTERS[tee].isdisjoint(register.register for register in registers):
        raise PolicyInvalid(f"{path} names no code: none of {', '.join(sorted(_CODE_REGISTERS[tee]))}", field=path)
    product: int | None = None
    minimum: int | None = None
    if tee == "sgx":
        product = keys.take("isvprodid", _integer(0, 0xFFFF), None)
        minimum = keys.take("min_isvsvn", _integer(0, 0xFFFF), None)
    if product is not None:
        registers.append(RegisterRule(register="isvprodid", value=product.to_bytes(2, "little")))
    label = keys.take("label", _text, path)
    keys.end()
    return MeasuredCode(label=label, tee=tee, registers=tuple(registers), min_isvsvn=minimum)


class _Keys:
    """A table whose keys are taken one by one; what is left at the end nobody knows."""

    def __init__(self, table: Mapping[str, Any], prefix: str) -> None:
        self._left, self._prefix = dict(table), prefix

    def take(self, key: str, read: Read[Any], default: Any) -> Any:
        """The value of a key as `read` understands it, or `default` where it is not there."""
        if key not in self._left:
            return default
        return read(self._left.pop(key), self._prefix + key)

    def end(self) -> None:
        """`PolicyInvalid` for the first key that nobody took."""
        for key in self._left:
            shown = f"{self._prefix}{ascii(key)[1:-1][:_SHOWN_CHARACTERS]}"
            raise PolicyInvalid(f"unknown key {shown}", field=shown)


def _expect(condition: bool, path: str, what: str) -> None:
    if not condition:
        raise PolicyInvalid(f"{path} is not {what}", field=path)


def _flag(value: Any, path: str) -> bool:
    _expect(isinstance(value, bool), path, "true or false")
    return bool(value)


def _text(value: Any, path: str) -> str:
    _expect(isinstance(value, str) and value != "", path, "text")
    return str(value)


def _table(value: Any, path: str) -> Mapping[str, Any]:
    _expect(isinstance(value, Mapping), path, "a table")
    table: Mapping[str, Any] = value
    return table


def _integer(low: int, high: int) -> Read[int]:
    def read(value: Any, path: str) -> int:
        _expect(type(value) is int and low <= value <= high, path, f"a number from {low} to {high}")
        return int(value)

    return read


def _one_of(choices: tuple[str, ...]) -> Read[str]:
    def read(value: Any, path: str) -> str:
        _expect(isinstance(value, str) and value in choices, path, f"one of {', '.join(sorted(choices))}")
        return str(value)

    return read


def _list(read: Read[T]) -> Read[tuple[T, ...]]:
    def read_all(value: Any, path: str) -> tuple[T, ...]:
        _expect(isinstance(value, list | tuple), path, "a list")
        return tuple(read(one, f"{path}[{index}]") for index, one in enumerate(value))

    return read_all


def _hex(size: int | None) -> Read[bytes]:
    def read(value: Any, path: str) -> bytes:
        try:
            data = bytes.fromhex(_text(value, path).removeprefix("0x"))
        except ValueError:
            raise PolicyInvalid(f"{path} is not hexadecimal", field=path) from None
        _expect(size is None or len(data) == size, path, f"{size} bytes in hexadecimal but {len(data)}")
        return data

    return read


def _platform(value: Any, path: str) -> str:
    return _hex(_PLATFORM_ID_BYTES)(value, path).hex()


def _bits(size: int) -> Read[Bits]:
    """Bytes in hexadecimal, all of which count, or a table of `value` and `mask`."""

    def read(value: Any, path: str) -> Bits:
        if not isinstance(value, Mapping):
            return Bits(value=_hex(size)(value, path), mask=b"\xff" * size)
        keys = _Keys(value, f"{path}.")
        expected, mask = keys.take("value", _hex(size), None), keys.take("mask", _hex(size), b"\xff" * size)
        keys.end()
        if expected is None:
            raise PolicyInvalid(f"{path}.value is missing", field=f"{path}.value")
        if not any(mask):
            raise PolicyInvalid(f"{path}.mask is zero: everything would match", field=f"{path}.mask")
        return Bits(value=expected, mask=mask)

    return read
