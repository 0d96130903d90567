"""Intel's extension of a PCK certificate (Intel "SGX PCK Certificate and CRL Profile"; ATTESTATION.md §2).

OID 1.2.840.113741.1.13.1: SEQUENCE of {OID, value}: `.1` PPID, `.2` TCB, `.3` PCEID, `.4` FMSPC, `.5` SGX type,
`.6` platform instance id, `.7` configuration; `.6` and `.7` only under the Platform CA.
"""

from __future__ import annotations

from dataclasses import dataclass

from verifier.abi import der
from verifier.abi.der import Der, DerError
from verifier.errors import PckExtensionInvalid

PCK_EXTENSION_OID = "1.2.840.113741.1.13.1"

_ARC = bytes.fromhex("2a864886f84d010d01")
"""Content octets of the OID above; a field's OID is this and its number(s)."""

_COMPONENTS = 16
_PCE_SVN, _CPU_SVN = 17, 18


@dataclass(frozen=True, slots=True, kw_only=True)
class PckExtension:
    """What a PCK certificate says about its platform.

    `ppid` 16 bytes, `component_svns` 16 values 0..255, `pce_svn` 0..65535, `cpu_svn` 16 bytes, `pce_id` 2 bytes,
    `fmspc` 6 bytes, `sgx_type` 0 standard, 1 scalable, 2 scalable with integrity; the rest is None under the
    Processor CA: `platform_instance_id` 16 bytes and `configuration` (dynamic platform, cached keys, SMT).
    """

    ppid: bytes
    component_svns: tuple[int, ...]
    pce_svn: int
    cpu_svn: bytes
    pce_id: bytes
    fmspc: bytes
    sgx_type: int
    platform_instance_id: bytes | None = None
    configuration: tuple[bool | None, bool | None, bool | None] | None = None

    def encode(self) -> bytes:
        """The extension's DER, as Intel orders it."""
        tcb = [_pair((2, i + 1), der.unsigned(svn)) for i, svn in enumerate(self.component_svns)]
        tcb += [_pair((2, _PCE_SVN), der.unsigned(self.pce_svn)), _pair((2, _CPU_SVN), der.octets(self.cpu_svn))]
        pairs = [
            _pair((1,), der.octets(self.ppid)),
            _pair((2,), der.sequence(*tcb)),
            _pair((3,), der.octets(self.pce_id)),
            _pair((4,), der.octets(self.fmspc)),
            _pair((5,), der.unsigned(self.sgx_type, der.ENUMERATED)),
        ]
        if self.platform_instance_id is not None:
            pairs.append(_pair((6,), der.octets(self.platform_instance_id)))
        if self.configuration is not None:
            flags = [
                _pair((7, i + 1), der.boolean(flag)) for i, flag in enumerate(self.configuration) if flag is not None
            ]
            pairs.append(_pair((7,), der.sequence(*flags)))
        return der.sequence(*pairs).encode()


def parse_pck_extension(data: bytes) -> PckExtension:
    """The extension from its DER. Raises `PckExtensionInvalid`; fields nobody defined yet are passed over."""
    try:
        return _parse(data)
    except DerError as error:
        raise PckExtensionInvalid(f"PCK extension: {error}", field="pck_extension") from error


def _parse(data: bytes) -> PckExtension:
    fields = _fields(der.read_all(data, "extension"), (), 0)
    tcb = _fields(_required(fields, 2, "tcb"), (2,), 2)
    instance, configuration = fields.get(6), fields.get(7)
    return PckExtension(
        ppid=der.read_octets(_required(fields, 1, "ppid"), "ppid", 16),
        component_svns=tuple(
            der.read_unsigned(_required(tcb, i + 1, f"tcb.{i + 1}"), f"tcb.{i + 1}", 0xFF) for i in range(_COMPONENTS)
        ),
        pce_svn=der.read_unsigned(_required(tcb, _PCE_SVN, "pce_svn"), "pce_svn", 0xFFFF),
        cpu_svn=der.read_octets(_required(tcb, _CPU_SVN, "cpu_svn"), "cpu_svn", 16),
        pce_id=der.read_octets(_required(fields, 3, "pce_id"), "pce_id", 2),
        fmspc=der.read_octets(_required(fields, 4, "fmspc"), "fmspc", 6),
        sgx_type=der.read_unsigned(_required(fields, 5, "sgx_type"), "sgx_type", 2, der.ENUMERATED),
        platform_instance_id=None if instance is None else der.read_octets(instance, "platform_instance_id", 16),
        configuration=None if configuration is None else _configuration(configuration),
    )


def _configuration(value: Der) -> tuple[bool | None, bool | None, bool | None]:
    flags = _fields(value, (7,), 2)
    dynamic, cached, smt = (
        der.read_boolean(flags[number], f"configuration.{number}") if number in flags else None for number in (1, 2, 3)
    )
    return dynamic, cached, smt


def _fields(value: Der, arc: tuple[int, ...], depth: int) -> dict[int, Der]:
    """The {OID, value} pairs of a sequence by the OID's last number; every OID must lie directly under `arc`."""
    found: dict[int, Der] = {}
    prefix = _ARC + bytes(arc)
    for element in der.read_sequence(value, "pairs", depth):
        pair = der.read_sequence(element, "pair", depth + 1)
        if len(pair) != 2:
            raise DerError(f"a pair of {len(pair)} elements")
        oid = pair[0].expect(der.OBJECT_ID, "oid")
        if len(oid) != len(prefix) + 1 or oid[:-1] != prefix or oid[-1] >= 0x80:
            raise DerError("an OID from elsewhere")
        if oid[-1] in found:
            raise DerError(f"field {'.'.join(map(str, (*arc, oid[-1])))} twice")
        found[oid[-1]] = pair[1]
    return found


def _required(fields: dict[int, Der], number: int, what: str) -> Der:
    if number not in fields:
        raise DerError(f"{what} is missing")
    return fields[number]


def _pair(arc: tuple[int, ...], value: Der) -> Der:
    return der.sequence(Der(der.OBJECT_ID, _ARC + bytes(arc)), value)
