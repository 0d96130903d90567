"""Why a proof, a chain or a record is refused: a stable code per cause."""

from __future__ import annotations

from schemas.errors import ConfigError, EnclaveScaleError, SchemaError
from verifier.errors import VerificationError


class ProofMalformed(VerificationError):
    """A document that is no proof of this format."""

    code = "PROOF_MALFORMED"
    remedy = "Ask whoever made the proof for the file as `enclavescale audit` wrote it."


class ProofVersion(VerificationError):
    """A proof of a later format."""

    code = "PROOF_VERSION"
    remedy = "Check it with a release that knows this version of the format."


class ProofMismatch(VerificationError):
    """Records in a proof that do not belong together."""

    code = "PROOF_MISMATCH"
    remedy = "The proof proves nothing: its parts speak of different windows, workers or reports."


class InclusionInvalid(VerificationError):
    """A path that does not lead to the signed root."""

    code = "INCLUSION_INVALID"
    remedy = "The proof proves nothing: the report is not at this place of the signed tree."


class ManifestMismatch(VerificationError):
    """A manifest that says something else than the output it is for."""

    code = "MANIFEST_MISMATCH"
    remedy = "Manifest and output contradict each other: keep both and treat their worker as compromised."


class PolicySignerNeeded(VerificationError):
    """A proof checked without saying whose policies are trusted."""

    code = "POLICY_SIGNER_NEEDED"
    remedy = "Compare the signer named here with the one your operator states, then give it with --policy-signer."


class PolicyOther(VerificationError):
    """An output that names another policy than the one at hand."""

    code = "POLICY_OTHER"
    remedy = "Give the signed policy whose digest the output names; the policy topic holds it."


class CollateralOther(VerificationError):
    """An output that names another set of collateral than the one at hand."""

    code = "COLLATERAL_OTHER"
    remedy = "Give every item of the set whose digest the output names; the collateral topic holds them."


class PolicyNotInForce(VerificationError):
    """An output for a window in which its policy was not valid."""

    code = "POLICY_NOT_IN_FORCE"
    remedy = "No worker publishes that: treat the worker that signed it as compromised."


class WorkerMismatch(VerificationError):
    """A record whose stated worker differs from the session that signed it."""

    code = "WORKER_MISMATCH"
    remedy = "Somebody else's evidence stands beside this signature: the record is refused."


class ChainFieldsInvalid(VerificationError):
    """An output without the fields that place it in its domain's chain."""

    code = "CHAIN_FIELDS_INVALID"
    remedy = "No worker of this release publishes that: look for what else writes to the output topic."


class ChainBroken(VerificationError):
    """An output that is followed by a digest no record on the topic has."""

    code = "CHAIN_BROKEN"
    remedy = "A record was removed or altered, or retention took it: look for it in an archive."


class ChainRestartUnexplained(VerificationError):
    """A chain that begins anew where no idle close stands in the log."""

    code = "CHAIN_RESTART_UNEXPLAINED"
    remedy = "Ask the operator what happened there; a reset of the worker's offsets leaves the same trace."


class RevisionBroken(VerificationError):
    """A revision that names another output than the one before it."""

    code = "REVISION_BROKEN"
    remedy = "Two versions of a window exist: run `enclavescale audit equivocation` over its domain."


class NotEquivocation(VerificationError):
    """Two records that do not contradict each other."""

    code = "NOT_EQUIVOCATION"
    remedy = "Equal outputs of two workers, or outputs of different windows or revisions, are no evidence of anything."


class RecordNotFound(EnclaveScaleError):
    """A record that a proof or a chain needs and the topics do not hold."""

    code = "RECORD_NOT_FOUND"
    remedy = "Check cluster and topics; retention may have taken it: look in an archive."


class RefusedTreeUnproven(EnclaveScaleError):
    """Dead letters that do not give the signed root of the refused records."""

    code = "REFUSED_TREE_UNPROVEN"
    remedy = "The rejections topic lacks records of this window, or holds others: look in an archive."


UNSOUND = (VerificationError, SchemaError, ConfigError, RecordNotFound, RefusedTreeUnproven)
"""What records that do not hold cause; anything else means that the topics could not be read."""
