"""A platform and its PCK extension, in a DER writer of our own: the one under test shall not check itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_ARC = bytes.fromhex("2a864886f84d010d01")

Pairs = list[tuple[tuple[int, ...], bytes]]


def tlv(tag: int, content: bytes) -> bytes:
    """One DER value."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content


def integer(value: int, tag: int = 0x02) -> bytes:
    """An INTEGER (or, by `tag`, an ENUMERATED), minimally encoded."""
    return tlv(tag, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def octets(content: bytes) -> bytes:
    return tlv(0x04, content)


def sequence(*values: bytes) -> bytes:
    return tlv(0x30, b"".join(values))


def pairs_to_der(pairs: Pairs) -> bytes:
    """SEQUENCE of {OID under Intel's arc, value}."""
    return sequence(*(sequence(tlv(0x06, _ARC + bytes(arc)), value) for arc, value in pairs))


def same(pairs: Pairs) -> Pairs:
    return pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What a PCK certificate says about its platform. `fields` and `tcb_fields` edit the pairs before they are DER."""

    ppid: bytes = bytes(range(0x10, 0x20))
    components: tuple[int, ...] = (5, 5, 2, 2, 3, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0)
    pce_svn: int = 13
    cpu_svn: bytes | None = None
    pce_id: bytes = bytes(2)
    fmspc: bytes = bytes.fromhex("b0c06f000000")
    sgx_type: int = 1
    instance_id: bytes | None = bytes(range(0x40, 0x50))
    configuration: tuple[bool, bool, bool] | None = (True, True, True)
    fields: Callable[[Pairs], Pairs] = same
    tcb_fields: Callable[[Pairs], Pairs] = same

    def extension(self) -> bytes:
        """DER of the Intel extension."""
        tcb: Pairs = [((2, i + 1), integer(svn)) for i, svn in enumerate(self.components)]
        cpu_svn = bytes(svn & 0xFF for svn in self.components) if self.cpu_svn is None else self.cpu_svn
        tcb += [((2, 17), integer(self.pce_svn)), ((2, 18), octets(cpu_svn))]
        pairs: Pairs = [
            ((1,), octets(self.ppid)),
            ((2,), pairs_to_der(self.tcb_fields(tcb))),
            ((3,), octets(self.pce_id)),
            ((4,), octets(self.fmspc)),
            ((5,), integer(self.sgx_type, 0x0A)),
        ]
        if self.instance_id is not None:
            pairs.append(((6,), octets(self.instance_id)))
        if self.configuration is not None:
            flags = [((7, i + 1), tlv(0x01, b"\xff" if on else b"\x00")) for i, on in enumerate(self.configuration)]
            pairs.append(((7,), pairs_to_der(flags)))
        return pairs_to_der(self.fields(pairs))
