"""A session: a key born in this process's memory, the binding that says what it stands for, the evidence for both."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.asymmetric import ec

from attester.quote import QuoteProvider
from attester.signing import public_point, sign_raw
from schemas.codec import encode_binding, report_data_of, session_id_of
from schemas.errors import EnclaveScaleError
from schemas.records import EvidenceItem, SessionBinding, SessionEvidence
from verifier.claimed import claimed_device
from verifier.evidence import sort_evidence
from verifier.nonces import gpu_identities_digest


class DevicesChanged(EnclaveScaleError):
    """The devices that gave evidence are not those that the binding names."""

    code = "DEVICES_CHANGED"
    remedy = (
        "A device was added, lost or updated while evidence was taken: another attempt names what is there then. "
        "If it happens again, bind the session to `HostEvidence.identities_digest()`."
    )


class Session:
    """Signs for one binding. The private key is made here, never exported, and dies with the process.

    `simulated` says whether the CPU's evidence is; `evidence` goes with the first record, and now and then again.
    """

    def __init__(self, provider: QuoteProvider, bind: Callable[[bytes], SessionBinding]) -> None:
        """`bind` is given the new public key (65 bytes) and returns the binding that carries it.

        A provider with devices is asked by `bind` who they are (`attester.host_evidence`). Raises DevicesChanged and
        what the provider raises.
        """
        self._key = ec.generate_private_key(ec.SECP256R1())
        point = public_point(self._key.public_key())
        self.binding = bind(point)
        if self.binding.session_public_key != point:
            raise ValueError("the binding must carry the session's own public key")
        self.binding_bytes = encode_binding(self.binding)
        self.session_id = session_id_of(self.binding_bytes)
        self.simulated = provider.simulated
        items = tuple(provider.quote(report_data_of(self.binding_bytes)))
        if shown_identities(items) != self.binding.gpu_identities_digest:
            raise DevicesChanged("the binding names other devices than gave evidence", field="gpu_identities_digest")
        self.evidence = SessionEvidence(binding=self.binding, items=items)

    def sign(self, preimage: bytes) -> bytes:
        """Signature over a pre-image made by `schemas.codec`: r‖s, 64 bytes, low s."""
        return sign_raw(self._key, preimage)


def shown_identities(items: Sequence[EvidenceItem]) -> bytes | None:
    """`gpu_identities_digest` of the devices in evidence, unverified: 32 bytes, None without devices.

    Raises the verifier's errors for evidence that cannot be sorted, DevicesChanged for a device without a readable key.
    """
    found = []
    for device in sort_evidence(items).devices:
        claimed = claimed_device(device)
        if claimed is None:
            raise DevicesChanged(f"{device.subject}: its key cannot be read", field=device.subject)
        found.append(claimed.key_digest)
    return gpu_identities_digest(found) if found else None
