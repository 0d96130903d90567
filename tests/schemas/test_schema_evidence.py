"""A kind of evidence from the future: the schema carries it, the verifier refuses it with a code."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas import codec
from schemas.records import EvidenceItem, WindowReport
from tests.forge.world import GENUINE
from tests.schemas.examples import SIGNATURE, example
from verifier.errors import VerificationError
from verifier.session import verify_session


def test_unknown_evidence_kind_is_refused_with_its_code() -> None:
    arguments = GENUINE.arguments()
    verify_session(**arguments)
    future = EvidenceItem(kind="tdisp_report_v9", data=b"\x01\x02", subject="GPU-0")
    evidence = replace(arguments["evidence"], items=(*arguments["evidence"].items, future))
    report = codec.encode_body(example(WindowReport, "SignedRecord", full=True))
    decoded = codec.decode_signed_record(codec.encode_signed_record(report, SIGNATURE, evidence))
    assert decoded.evidence == evidence
    assert decoded.binding_bytes == arguments["binding_bytes"]
    with pytest.raises(VerificationError) as refused:
        verify_session(**{**arguments, "evidence": decoded.evidence})
    assert refused.value.code == "EVIDENCE_KIND_UNKNOWN"
