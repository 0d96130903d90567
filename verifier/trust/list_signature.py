"""Whether a certificate's key signed a revocation list, remembered: their bytes alone decide it."""

from __future__ import annotations

from functools import lru_cache

from verifier.limits import MAX_LIST_SIGNATURES_REMEMBERED
from verifier.signature import verify_signed
from verifier.trust.certificate import Certificate
from verifier.trust.crl import Crl


def signed_list(crl: Crl, issuer: Certificate) -> bool:
    """Whether `issuer`'s key made the list's signature. For lists of the verifier's own side, which come again."""
    return _signed(crl.tbs, crl.algorithm, crl.signature, issuer)


@lru_cache(maxsize=MAX_LIST_SIGNATURES_REMEMBERED)
def _signed(tbs: bytes, algorithm: str, signature: bytes, issuer: Certificate) -> bool:
    return verify_signed(issuer.public_key, algorithm, tbs, signature)
