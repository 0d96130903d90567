"""Intel's extension of a PCK certificate (Intel "SGX PCK Certificate and CRL Profile"; ATTESTATION.md §2).

OID 1.2.840.113741.1.13.1: SEQUENCE of {OID, value}: `.1` PPID, `.2` TCB, `.3` PCEID, `.4` FMSPC, `.5` SGX type,
`.6` platform instance id, `.7` configuration; `.6` and `.7` only under the Platform CA.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from verifier.abi import der
from verifier.abi.der import Der, DerError
from verifier.errors import PckExtensionInvalid
from verifier.limits import MAX_DER_ELEMENTS

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


class _Fields:
    """The {OID, value} pairs of a sequence by the OID's last number; every OID must lie directly under its arc."""

    __slots__ = ("_data", "_spans")

    def __init__(self, data: bytes, arc: tuple[int, ...] = ()) -> None:
        self._data = data
        spans = self._spans = dict[int, tuple[int, int, int]]()
        oid, span = _oid_prefix(arc), der.span
        at, end, to_number = 0, len(data), len(oid)
        while at < end:
            if data.startswith(oid, at + 2) and data[at] == der.SEQUENCE and data[at + 1] < 0x80:
                start, at = at + 2, at + 2 + data[at + 1]  # a short pair, as nearly all are, read in place
                if at > end:
                    raise DerError("a pair is truncated")
            else:
                tag, start, at = span(data, at, end, "pair")
                if tag != der.SEQUENCE or not data.startswith(oid, start):
                    raise DerError("not a pair of an OID of the extension and a value")
            number_at = start + to_number
            if number_at >= at or data[number_at] >= 0x80:
                raise DerError("not a pair of an OID of the extension and a value")
            number, found = data[number_at], span(data, number_at + 1, at, "value")
            if found[2] != at:
                raise DerError("a pair of more than two elements")
            if number in spans or len(spans) == MAX_DER_ELEMENTS:
                raise DerError(f"field {'.'.join(map(str, (*arc, number)))} twice, or too many fields")
            spans[number] = found

    def __contains__(self, number: int) -> bool:
        return number in self._spans

    def content(self, number: int, what: str, tag: int) -> bytes:
        """The content octets of a field whose identifier must be `tag`."""
        found = self._spans.get(number)
        if found is None:
            raise DerError(f"{what} is missing")
        if found[0] != tag:
            raise DerError(f"{what}: tag {found[0]:#04x} instead of {tag:#04x}")
        return self._data[found[1] : found[2]]

    def octets(self, number: int, what: str, size: int) -> bytes:
        """An OCTET STRING of `size` bytes."""
        content = self.content(number, what, der.OCTET_STRING)
        if len(content) != size:
            raise DerError(f"{what}: {len(content)} bytes instead of {size}")
        return content

    def unsigned(self, number: int, what: str, maximum: int, tag: int = der.INTEGER) -> int:
        """A number from 0 to `maximum`."""
        return der.unsigned_of(self.content(number, what, tag), what, maximum)

    def boolean(self, number: int, what: str) -> bool | None:
        """A BOOLEAN, None if the field is absent."""
        if number not in self._spans:
            return None
        return der.read_boolean(Der(der.BOOLEAN, self.content(number, what, der.BOOLEAN)), what)

    def sequence(self, number: int, what: str) -> _Fields:
        """The fields inside a field."""
        return _Fields(self.content(number, what, der.SEQUENCE), (number,))


def _parse(data: bytes) -> PckExtension:
    fields = _Fields(der.read_all(data, "extension").expect(der.SEQUENCE, "extension"))
    component_svns, pce_svn, cpu_svn = _tcb(fields.content(2, "tcb", der.SEQUENCE))
    flags = fields.sequence(7, "configuration") if 7 in fields else None
    return PckExtension(
        ppid=fields.octets(1, "ppid", 16),
        component_svns=component_svns,
        pce_svn=pce_svn,
        cpu_svn=cpu_svn,
        pce_id=fields.octets(3, "pce_id", 2),
        fmspc=fields.octets(4, "fmspc", 6),
        sgx_type=fields.unsigned(5, "sgx_type", 2, der.ENUMERATED),
        platform_instance_id=fields.octets(6, "platform_instance_id", 16) if 6 in fields else None,
        configuration=(flags.boolean(1, "dynamic"), flags.boolean(2, "cached_keys"), flags.boolean(3, "smt"))
        if flags is not None
        else None,
    )


def _tcb(content: bytes) -> tuple[tuple[int, ...], int, bytes]:
    """Component SVNs, PCESVN and CPUSVN."""
    usual = _USUAL_TCB.fullmatch(content)
    if usual is not None:
        *svns, pce_svn, cpu_svn = usual.groups()
        return tuple(b"".join(svns)), pce_svn[0], cpu_svn
    tcb = _Fields(content, (2,))
    return (
        tuple([tcb.unsigned(number, "component_svn", 0xFF) for number in range(1, _COMPONENTS + 1)]),
        tcb.unsigned(_PCE_SVN, "pce_svn", 0xFFFF),
        tcb.octets(_CPU_SVN, "cpu_svn", 16),
    )


def _oid_prefix(arc: tuple[int, ...]) -> bytes:
    """DER of the OID of a field under `arc` but for its last number, which is one octet."""
    return bytes([der.OBJECT_ID, len(_ARC) + len(arc) + 1]) + _ARC + bytes(arc)


def _pair(arc: tuple[int, ...], value: Der) -> Der:
    return der.sequence(Der(der.OBJECT_ID, _ARC + bytes(arc)), value)


def _usual_pair(number: int, value: bytes) -> bytes:
    """A pattern of the pair of field 2.`number` whose value, of 3 or 18 bytes, `value` is a pattern of."""
    oid = re.escape(_oid_prefix((2,)) + bytes([number]))
    size = bytes([len(_oid_prefix((2,))) + 1 + (18 if number == _CPU_SVN else 3)])
    return re.escape(bytes([der.SEQUENCE])) + re.escape(size) + oid + value


_USUAL_TCB = re.compile(
    b"".join(_usual_pair(number, rb"\x02\x01([\x00-\x7f])") for number in range(1, _PCE_SVN + 1))
    + _usual_pair(_CPU_SVN, rb"\x04\x10(.{16})"),
    re.DOTALL,
)
"""The TCB as nearly every PCK certificate has it: all fields in order, all SVNs below 128.

What it matches is read in one step, and as field by field (a test compares); that takes a third of the time.
"""
