"""A small world in which a forged quote is judged: one host, one policy, one moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from attester.signing import public_point
from attester.simulated import ROOT_LABEL
from schemas.codec import encode_binding, report_data_of, session_id_of
from schemas.records import (
    AggregatorEnrolment,
    EvidenceItem,
    HostEnrolment,
    Limits,
    Measurement,
    Policy,
    RegisterRule,
    SessionBinding,
    SessionEvidence,
    TrustRoot,
)
from tests.forge.mint import HOST_ID, MRTD, PLATFORM_ID, Mint, identity
from verifier.session import VerifiedSession

NOW_MS = 1_763_700_000_000
DOMAIN = "hall-a"
KEY = ec.generate_private_key(ec.SECP256R1())


def binding(**changes: Any) -> SessionBinding:
    base = SessionBinding(
        protocol="enclavescale/1",
        role="host",
        session_public_key=public_point(KEY.public_key()),
        host_id=HOST_ID,
        domain=DOMAIN,
        source="nvml",
        sampler_mode="instant",
        config_digest=bytes(32),
        sample_hz=10,
        window_ms=60_000,
        pane_ms=1_000,
        privacy_absent_reason="test",
        clip_ranges=(),
        state_grids=(),
        gpu_identities_digest_absent_reason="test",
        beacon_absent_reason="test",
        created_at_ms=NOW_MS,
        policy_signers=(),
        core_version_absent_reason="host",
        cluster_id_absent_reason="host",
        topic_ids=(),
    )
    return replace(base, **changes)


def aggregator_binding(**changes: Any) -> SessionBinding:
    ours: dict[str, Any] = {
        "role": "aggregator", "host_id": "agg-1", "domain": None, "source": "none", "sampler_mode": None
    }  # fmt: skip
    return binding(**(ours | changes))


def policy(root_der: bytes, **changes: Any) -> Policy:
    mrtd = RegisterRule(register="mrtd", value=MRTD)
    base = Policy(
        version=1,
        counter=1,
        issued_at_ms=NOW_MS,
        effective_from_ms=NOW_MS,
        not_after_ms=NOW_MS + 10**9,
        core_version="1",
        accepted_sources=("nvml",),
        accepted_sampler_modes=("instant",),
        min_first_mile="NONE",
        sample_hz=10,
        domains=(),
        hosts=(
            HostEnrolment(
                host_id=HOST_ID,
                domain=DOMAIN,
                tenant="t",
                failure_domain="r",
                platform_ids=(PLATFORM_ID.hex(),),
                gpu_key_digests=(),
                classes=(),
            ),
        ),
        aggregators=(AggregatorEnrolment(host_id="agg-1", platform_ids=(PLATFORM_ID.hex(),)),),
        models=(),
        measurements=(
            Measurement(label="agent", role="host", tee="tdx", registers=(mrtd,)),
            Measurement(label="worker", role="aggregator", tee="tdx", registers=(mrtd,)),
        ),
        trust_roots=(TrustRoot(label=ROOT_LABEL, tee="tdx", certificate_der=root_der, simulated=True),),
        tcb_rules=(),
        limits=Limits(
            lateness_ms=600_000,
            max_idle_ms=600_000,
            evidence_interval_windows=60,
            clock_skew_tolerance_ms=5_000,
            evidence_checks_per_window=100,
            max_epsilon_micro=10**6,
            max_control_age_ms=60_000,
        ),
        unsafe_allow_unevaluated_tcb=True,
        unsafe_allow_unenrolled_platform=False,
        unsafe_allow_create_time=False,
    )
    return replace(base, **changes)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One judgement. `step` names what catches the lie (see `tests/forge/steps.py`); None: the parser itself."""

    name: str
    code: str
    step: str | None
    mint: Mint = field(default_factory=Mint)
    binding: SessionBinding = field(default_factory=binding)
    policy: dict[str, Any] = field(default_factory=dict)
    role: str = "host"
    now_ms: int = NOW_MS
    report_data: Callable[[bytes], bytes] = identity
    items: Callable[[EvidenceItem], tuple[EvidenceItem, ...]] = lambda item: (item,)

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `verify_session`."""
        binding_bytes = encode_binding(self.binding)
        report_data = report_data_of(binding_bytes)
        quote, root_der = self.mint.make(self.report_data(report_data))
        item = EvidenceItem(kind="tdx_quote_v4", data=quote, subject_absent_reason="cpu")
        return {
            "evidence": SessionEvidence(binding=self.binding, items=self.items(item)),
            "binding_bytes": binding_bytes,
            "report_data": report_data,
            "session_id": session_id_of(binding_bytes),
            "policy": policy(root_der, **self.policy),
            "role": self.role,
            "now_ms": self.now_ms,
        }

    def judge(self) -> VerifiedSession:
        """Verify; what a hostile case must not survive. Looked up late, so that a test may disable a step."""
        from verifier import session

        return session.verify_session(**self.arguments())


GENUINE = Case(name="genuine", code="", step=None)
