"""The tables of a policy file that are about devices: [nvidia], [spdm], [devices], measurements for the first two."""

from __future__ import annotations

import re
from typing import Any

from schemas.contract import FIRST_MILE_GRADES
from schemas.records import RegisterRule
from verifier.errors import PolicyInvalid
from verifier.formats.nvidia import GPU, PASSTHROUGH, PPCIE, SWITCH, UNSTATED
from verifier.policy.devices import DeviceDemands, SpdmDemands
from verifier.policy.nvidia import NvidiaDemands
from verifier.policy.quote_policy import MeasuredCode
from verifier.policy.table import Keys, expect, flag, hexadecimal, list_of, one_of, table, text

DEVICE_TEES = ("nvidia", "spdm")
"""What a measurement may be of beside TEEs."""

_KEY_DIGEST_BYTES = 32
_MAX_BLOCK = 254
_MAX_BLOCK_BYTES = 1024
_DRIVER = re.compile(r"[0-9]{1,5}(\.[0-9]{1,5}){0,3}")
_SPDM_VERSIONS = ("1.0", "1.1", "1.2", "1.3", "1.4")


def nvidia_of(keys: Keys) -> NvidiaDemands:
    """The table [nvidia]."""
    texts = list_of(text)
    demands = NvidiaDemands(
        demand_nonce=not keys.take("unsafe_any_nonce", flag, False),
        demand_fwid=not keys.take("unsafe_allow_unbound_firmware", flag, False),
        unbound_kinds=keys.take("unbound_kinds", list_of(one_of((GPU, SWITCH))), ()),
        demand_reference=not keys.take("unsafe_any_reference", flag, False),
        demand_revocation=not keys.take("unsafe_allow_unchecked_revocation", flag, False),
        allow_debug=keys.take("unsafe_allow_debug", flag, False),
        modes=keys.take("modes", list_of(one_of((PASSTHROUGH, PPCIE, UNSTATED))), (PASSTHROUGH, PPCIE)),
        driver_versions=keys.take("driver_versions", texts, None),
        min_driver_version=keys.take("min_driver_version", _driver, None),
        vbios_versions=keys.take("vbios_versions", list_of(_vbios), None),
        allow_unattested_switches=keys.take("allow_unattested_switches", flag, False),
    )
    keys.end()
    return demands


def spdm_of(keys: Keys) -> SpdmDemands:
    """The table [spdm]."""
    demands = SpdmDemands(
        demand_nonce=not keys.take("unsafe_any_nonce", flag, False),
        demand_grade=not keys.take("unsafe_allow_ungraded", flag, False),
        allow_debug=keys.take("unsafe_allow_debug", flag, False),
        versions=keys.take("versions", list_of(one_of(_SPDM_VERSIONS)), None),
    )
    keys.end()
    return demands


def devices_of(keys: Keys) -> DeviceDemands:
    """The table [devices]."""
    digests = keys.take("key_digests", list_of(_key_digest), ())
    any_device = keys.take("unsafe_any_device", flag, False)
    if any_device and digests:
        raise PolicyInvalid(
            "devices.unsafe_any_device would make the list beside it mean nothing", field="devices.unsafe_any_device"
        )
    if len(set(digests)) != len(digests):
        raise PolicyInvalid("devices.key_digests names a device twice", field="devices.key_digests")
    demands = DeviceDemands(
        key_digests=None if any_device else digests,
        first_mile=keys.take("first_mile", one_of(FIRST_MILE_GRADES[:3]), ""),
    )
    keys.end()
    return demands


def device_measured(keys: Keys, tee: str, path: str) -> MeasuredCode:
    """A measurement for "nvidia" or "spdm": versions, and measured blocks by their numbers."""
    registers = []
    if tee == "nvidia":
        for name, read in (("driver_version", text), ("vbios_version", _vbios)):
            value = keys.take(name, read, None)
            if value is not None:
                registers.append(RegisterRule(register=name, value=value.encode()))
    registers += keys.take("blocks", _blocks, [])
    if not registers:
        raise PolicyInvalid(f"{path} names nothing that is measured", field=path)
    label = keys.take("label", text, path)
    keys.end()
    return MeasuredCode(label=label, tee=tee, registers=tuple(registers))


def _blocks(value: Any, path: str) -> list[RegisterRule]:
    """A table of measured values in hexadecimal by the number of their block."""
    found = []
    for name, shown in table(value, path).items():
        number = int(name) if isinstance(name, str) and name.isascii() and name.isdigit() and len(name) <= 3 else 0
        where = f"{path}.{ascii(name)[1:-1][:8]}"
        expect(1 <= number <= _MAX_BLOCK and name == str(number), where, f"a block from 1 to {_MAX_BLOCK}")
        data = hexadecimal(None)(shown, where)
        expect(0 < len(data) <= _MAX_BLOCK_BYTES, where, f"1 to {_MAX_BLOCK_BYTES} bytes in hexadecimal")
        found.append(RegisterRule(register=f"block{number}", value=data))
    return found


def _key_digest(value: Any, path: str) -> str:
    return hexadecimal(_KEY_DIGEST_BYTES)(value, path).hex()


def _driver(value: Any, path: str) -> str:
    version = text(value, path)
    expect(_DRIVER.fullmatch(version) is not None, path, "a version in numbers and points")
    return version


def _vbios(value: Any, path: str) -> str:
    """As devices are shown: in capitals."""
    return text(value, path).upper()
