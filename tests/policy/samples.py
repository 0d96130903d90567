"""Policies for the tests: the demo's, a strict one without a finding, any that the schema allows."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import strategies as st

from attester.signing import public_point
from attester.simulated import SimulatedTee, simulated_measurement
from enclavescale.fleet import demo_fleet
from enclavescale.policy.document import schema
from schemas.mapping import from_avro
from schemas.records import (
    AggregatorEnrolment,
    ClassEnrolment,
    DomainRule,
    HostEnrolment,
    Measurement,
    ModelRule,
    Policy,
    RegisterRule,
    TcbRule,
    TrustRoot,
)

NOW_MS = 1_763_700_000_000
TEE = SimulatedTee.create()
DAY_MS = 86_400_000


@cache
def demo(hosts: int = 4) -> Policy:
    return demo_fleet(TEE, hosts=hosts, gpus=8, window_ms=10_000, now_ms=NOW_MS, create_time=False).policy


def spdm_root() -> TrustRoot:
    return TrustRoot(label="sensors", tee="spdm", certificate_der=TEE.root_der, simulated=False)


def _registers(image: str) -> tuple[RegisterRule, ...]:
    names = ("mrtd", "rtmr1", "rtmr2")
    return tuple(
        RegisterRule(register=name, value=simulated_measurement(f"{image}/{name}"), mask_absent_reason="all of it")
        for name in names
    )


@cache
def strict() -> Policy:
    """A policy that lint says nothing about: every kind of record in it."""
    hosts = tuple(
        HostEnrolment(
            host_id=f"h{number}",
            domain="hall-a",
            tenant=f"t{number % 3}",
            failure_domain=f"rack{number % 2}",
            platform_ids=(f"{number + 1:032x}",),
            gpu_key_digests=(f"{number + 1:064x}",),
            classes=(ClassEnrolment(model="H100", gpus=8, capacity_w=5_600),),
        )
        for number in range(6)
    )
    domain = DomainRule(
        domain="hall-a",
        partition=0,
        limit_w=30_000,
        window_ms=60_000,
        pane_ms=1_000,
        grace_ms=30_000,
        quantile_ppm=990_000,
        confidence_ppm=950_000,
        horizon_ms=0,
        quorum_ppm=800_000,
        k_min_hosts=5,
        k_min_tenants=2,
    )
    measured = [("host", "agent"), ("aggregator", "worker")]
    return replace(
        demo(),
        issued_at_ms=NOW_MS,
        not_after_ms=NOW_MS + 7 * DAY_MS,
        accepted_sources=("nvml",),
        min_first_mile="GPU_ATTESTED",
        domains=(domain,),
        hosts=hosts,
        aggregators=(AggregatorEnrolment(host_id="w0", platform_ids=("ab" * 16,)),),
        models=(ModelRule(model="H100", edges_w=(200, 400), clip_low_w=0, clip_high_w=840),),
        measurements=tuple(
            Measurement(label=label, role=role, tee="tdx", registers=_registers(label)) for role, label in measured
        ),
        trust_roots=(spdm_root(),),
        tcb_rules=(
            TcbRule(
                tee="tdx",
                accepted_statuses=("UpToDate",),
                grace_days=0,
                allowed_advisories=(),
                min_tcb_evaluation_number=0,
            ),
        ),
        limits=replace(demo().limits, max_beacon_age_ms=7_200_000, max_idle_ms=300_000),
        unsafe_allow_unevaluated_tcb=False,
    )


def certificate_pem() -> str:
    return x509.load_der_x509_certificate(TEE.root_der).public_bytes(Encoding.PEM).decode()


def point_of(key: Any) -> bytes:
    return public_point(key.public_key())


# -- anything the schema allows ------------------------------------------------------------------------------------

_NUMBERS = {"int": st.integers(-(2**31), 2**31 - 1), "long": st.integers(-(2**63), 2**63 - 1)}
_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)


def _values(declared: Any) -> st.SearchStrategy[Any]:
    if isinstance(declared, list):
        return st.one_of(*(st.none() if one == "null" else _values(one) for one in declared))
    if isinstance(declared, dict) and declared["type"] == "record":
        return st.fixed_dictionaries({one["name"]: _values(one["type"]) for one in declared["fields"]})
    if isinstance(declared, dict):
        return st.lists(_values(declared["items"]), max_size=3)
    kinds = {"string": _TEXT, "boolean": st.booleans(), "bytes": st.binary(max_size=8), **_NUMBERS}
    return kinds[declared]


def any_policy() -> st.SearchStrategy[Policy]:
    """Any record that Avro can carry: hardly one of them makes sense."""
    return _values(schema()).map(lambda value: from_avro(Policy, value))
