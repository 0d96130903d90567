"""Every metric of worker and agent, read from their registries: `python -m tests.observe.metrics_page` writes it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import yaml
from prometheus_client import CollectorRegistry

from enclavescale.worker_watch import WorkerWatch
from producers.metrics import AgentMetrics
from stream_jobs.collateral_store import CollateralMetrics
from stream_jobs.core.policies import CORE_VERSION
from stream_jobs.log_metrics import LogMetrics
from stream_jobs.metrics import EvidenceChecks, JobMetrics, Stages, about
from stream_jobs.policy_store import PolicyMetrics
from tests.house.source import ROOT
from tests.observe.promtool import RULES
from verifier.cache import SessionCache

PAGE = ROOT / "docs" / "metrics.md"
HEAD = """# Metrics

Written by `make docs` from the registries; a test compares. Workers serve them at `--listen`, agents at the `listen` of
their file. Nothing here depends on a reading unless it carries the report's noise ([privacy](privacy.md)); labels hold
codes, domains, partitions and stages, never what a host can choose. Counters begin at 0 with the process.
`*_timestamp_seconds` are Unix times. The alerts are in `deploy/prometheus/rules.yml`, what to do about them in
[runbooks](runbooks.md), dashboards in `deploy/grafana`.

"""
UNITS = ("seconds", "watts", "joules", "bytes", "ratio")
_FILLED: Any = SimpleNamespace(
    newest=SimpleNamespace(policy=SimpleNamespace(counter=1, not_after_ms=0, core_version=CORE_VERSION)),
    ignored={"MALFORMED": 1},
)


@dataclass(frozen=True)
class Described:
    """One metric: the name that queries use (histograms: its base), type, labels, unit, help text."""

    name: str
    type: str
    labels: tuple[str, ...]
    unit: str
    text: str


def worker_registry() -> CollectorRegistry:
    """Everything that a worker registers."""
    registry = WorkerWatch().registry
    stages = Stages(registry)
    JobMetrics(registry, stages)
    LogMetrics(registry, stages)
    EvidenceChecks(SessionCache(), stages, registry)
    registry.register(PolicyMetrics(_FILLED))
    registry.register(CollateralMetrics(SimpleNamespace(newest=lambda _: None)))  # type: ignore[arg-type]
    about(registry, version="0", core_version=CORE_VERSION, tee="tdx", simulated=False)
    return registry


def agent_registry() -> CollectorRegistry:
    """Everything that an agent registers."""
    registry = CollectorRegistry()
    AgentMetrics(registry)
    return registry


def described(registry: CollectorRegistry) -> Iterator[Described]:
    """Its metrics, by name."""
    labels = {
        made._name: tuple(made._labelnames) for made in registry._collector_to_names if hasattr(made, "_labelnames")
    }
    found = []
    for family in registry.collect():
        of_family = labels.get(family.name, tuple(getattr(family, "_labelnames", ())))
        name = family.name + "_total" * (family.type == "counter")
        unit = next((one for one in UNITS if family.name.endswith("_" + one)), "")
        unit = "Unix time, s" if family.name.endswith("_timestamp_seconds") else unit
        found.append(Described(name, family.type, of_family, unit, family.documentation))
    yield from sorted(found, key=lambda one: one.name)


def rules() -> list[dict[str, Any]]:
    """Every rule of the rules file."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def names_in(expression: str) -> set[str]:
    """Names of metrics, ours or recorded, in an expression; those of a histogram's parts are its base's."""
    found = set(re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.sub(r"\{[^}]*\}|\"[^\"]*\"", "", expression)))
    ours = {one for one in found if "enclavescale_" in one or one.startswith("process_")}
    return {re.sub(r"^(enclavescale_stage_duration_seconds)_(bucket|sum|count)$", r"\1", one) for one in ours}


def alerts_by_metric() -> Mapping[str, list[str]]:
    """Alerts by the metrics on which they rest, through recorded ones, too."""
    recorded = {rule["record"]: names_in(rule["expr"]) for rule in rules() if "record" in rule}
    found: dict[str, list[str]] = {}
    for rule in rules():
        if "alert" in rule:
            direct = names_in(rule["expr"])
            for name in sorted(direct.union(*(recorded.get(one, set()) for one in direct))):
                found.setdefault(name, []).append(rule["alert"])
    return found


def render() -> str:
    """The whole page."""
    alerts = alerts_by_metric()
    parts = [HEAD]
    for title, registry in (("Workers", worker_registry()), ("Agents", agent_registry())):
        parts.append(f"## {title}\n\n| metric | type | labels | unit | means | alerts |\n|---|---|---|---|---|---|\n")
        for one in described(registry):
            labels = ", ".join(f"`{label}`" for label in one.labels)
            named = ", ".join(f"[{name}](runbooks.md#{name.lower()})" for name in alerts.get(one.name, ()))
            text = one.text.rstrip(".").replace("|", "\\|")
            parts.append(f"| `{one.name}` | {one.type} | {labels} | {one.unit} | {text} | {named} |\n")
        parts.append("\n")
    return "".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
