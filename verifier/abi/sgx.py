"""SGX report bodies of 384 bytes: of enclaves, and of the quoting enclaves themselves (ATTESTATION.md §1.2)."""

from __future__ import annotations

from dataclasses import dataclass

SGX_REPORT_BYTES = 384


@dataclass(frozen=True, slots=True)
class SgxReport:
    """An SGX report body of 384 bytes, kept as signed. With KSS its reserved areas carry data: none is checked."""

    raw: bytes

    @property
    def cpusvn(self) -> bytes:
        """Security version of the processor, 16 bytes; its components are only in the PCK certificate."""
        return self.raw[0:16]

    @property
    def miscselect(self) -> bytes:
        """Extended features of the enclave's state, 4 bytes."""
        return self.raw[16:20]

    @property
    def attributes(self) -> bytes:
        """Attributes, 16 bytes: `flags`, then `xfrm`."""
        return self.raw[48:64]

    @property
    def flags(self) -> bytes:
        """Flags of the attributes, 8 bytes little-endian; DEBUG is bit 1."""
        return self.raw[48:56]

    @property
    def xfrm(self) -> bytes:
        """Extended processor features the enclave may use, 8 bytes little-endian."""
        return self.raw[56:64]

    @property
    def debug(self) -> bool:
        """DEBUG attribute: bit 1 of byte 48. The host may read and write the enclave."""
        return bool(self.raw[48] & 0x02)

    @property
    def mrenclave(self) -> bytes:
        """Measurement of the enclave, 32 bytes."""
        return self.raw[64:96]

    @property
    def mrsigner(self) -> bytes:
        """SHA-256 of the key that signed the enclave, 32 bytes."""
        return self.raw[128:160]

    @property
    def isv_prod_id(self) -> int:
        """Product number given by the signer."""
        return int.from_bytes(self.raw[256:258], "little")

    @property
    def isv_svn(self) -> int:
        """Security version given by the signer."""
        return int.from_bytes(self.raw[258:260], "little")

    @property
    def report_data(self) -> bytes:
        """64 bytes the enclave chose."""
        return self.raw[320:384]

    def encode(self) -> bytes:
        """384 bytes."""
        return self.raw

    def registers(self) -> dict[str, bytes]:
        """What a policy may name (schemas: RegisterRule.register): 32 bytes, the two numbers 2 little-endian."""
        raw = self.raw
        return {
            "mrenclave": raw[64:96],
            "mrsigner": raw[128:160],
            "isvprodid": raw[256:258],
            "isvsvn": raw[258:260],
        }
