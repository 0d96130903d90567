"""A session: a key born in this process's memory, the binding that says what it stands for, the evidence for both."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec

from attester.quote import QuoteProvider
from attester.signing import public_point, sign_raw
from schemas.codec import encode_binding, report_data_of, session_id_of
from schemas.records import SessionBinding, SessionEvidence


class Session:
    """Signs for one binding. The private key is made here, never exported, and dies with the process."""

    def __init__(self, provider: QuoteProvider, bind: Callable[[bytes], SessionBinding]) -> None:
        """`bind` is given the new public key (65 bytes) and returns the binding that carries it."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        point = public_point(self._key.public_key())
        self.binding = bind(point)
        if self.binding.session_public_key != point:
            raise ValueError("the binding must carry the session's own public key")
        self.binding_bytes = encode_binding(self.binding)
        self.session_id = session_id_of(self.binding_bytes)
        self.simulated = provider.simulated
        self.evidence = SessionEvidence(
            binding=self.binding, items=tuple(provider.quote(report_data_of(self.binding_bytes)))
        )

    def sign(self, preimage: bytes) -> bytes:
        """Signature over a pre-image made by `schemas.codec`: r‖s, 64 bytes, low s."""
        return sign_raw(self._key, preimage)
