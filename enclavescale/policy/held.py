"""A policy as it is at hand: a signed value of the policy topic, or a document that is not signed yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from enclavescale.policy.document import read_document
from schemas.codec import MAX_POLICY_BYTES, SINGLE_OBJECT_MARKER, decode_signed_policy, record_digest
from schemas.errors import ConfigError, EnclaveScaleError
from schemas.records import Policy
from verifier.signature import load_session_key, verify_record_signature

UNSIGNED, HOLDS, TRUSTED, UNTRUSTED = "unsigned", "holds", "trusted", "POLICY_UNTRUSTED"
"""A document; signed by the key it names; by one that the reader trusts; by another one."""


@dataclass(frozen=True, slots=True)
class HeldPolicy:
    """A policy with what is known of it.

    `origin`: where it is from, for people; `value`: the signed bytes (None: a document); `digest`: 32 bytes, the
    policy's identity; `signer`: uncompressed point, 65 bytes; `signature`: `UNSIGNED`, `HOLDS`, `TRUSTED`,
    `UNTRUSTED`, or the code of what is wrong with it.
    """

    policy: Policy
    origin: str
    value: bytes | None = None
    digest: bytes | None = None
    signer: bytes | None = None
    signature: str = UNSIGNED

    @property
    def believed(self) -> bool:
        """Whether its signature holds, by a trusted signer where the reader named any."""
        return self.signature in (HOLDS, TRUSTED)


def hold_value(value: bytes, origin: str, signers: Sequence[bytes] = ()) -> HeldPolicy:
    """A value of the policy topic; a signature that does not hold is stated, not raised. Raises SchemaError."""
    signed, preimage = decode_signed_policy(value)
    state = HOLDS if not signers else TRUSTED if signed.signer_public_key in signers else UNTRUSTED
    try:
        verify_record_signature(load_session_key(signed.signer_public_key), preimage, signed.signature)
    except EnclaveScaleError as error:
        state = error.code
    return HeldPolicy(
        policy=signed.policy,
        origin=origin,
        value=value,
        digest=record_digest(preimage),
        signer=signed.signer_public_key,
        signature=state,
    )


def hold_file(path: Path, signers: Sequence[bytes] = ()) -> HeldPolicy:
    """The policy in a file: a signed value by how it begins, else a document. Raises ConfigError, SchemaError."""
    value = read_value(path)
    if value is None:
        return HeldPolicy(read_document(path), str(path))
    return hold_value(value, str(path), signers)


def read_value(path: Path) -> bytes | None:
    """The bytes of a file that holds a value of a topic, None for another. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_POLICY_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", field="file") from error
    # A document is text: it holds neither Avro's marker nor the zero byte of a registry's framing.
    return data if data[:2] == SINGLE_OBJECT_MARKER or data[:1] == b"\x00" else None
