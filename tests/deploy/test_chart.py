"""The Helm chart: linted, rendered, valid for several Kubernetes releases, restricted, without a secret in it."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from enclavescale.agent.file import load_spec
from enclavescale.settings import kafka_properties
from tests.deploy import command_lines
from tests.house.source import ROOT
from tests.tools import need_tool

CHART = ROOT / "deploy" / "helm" / "enclavescale"
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
RELEASES = ("1.28", "1.31", "1.34", "1.37")
"""Oldest that the chart takes, newest whose schemas are here, and two between."""

WORKLOADS = ("StatefulSet", "Deployment", "DaemonSet")
Manifest = dict[str, Any]
every_values = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem.removesuffix("-values"))


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [need_tool("helm"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@cache
def render(values: Path, release: str = RELEASES[-1]) -> list[Manifest]:
    done = helm("template", "demo", str(CHART), "--values", str(values), "--kube-version", release)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def refusal(*settings: str) -> str:
    """What is said to good values with these put over them."""
    done = helm("template", "demo", str(CHART), "--values", str(TSM), "--kube-version", "1.31", *settings)
    assert done.returncode != 0, done.stdout[:500]
    return done.stderr


(PAGE_ONLY, SIMULATED, TSM) = VALUES


def workloads(manifests: list[Manifest]) -> dict[str, Manifest]:
    return {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one for one in manifests if one["kind"] in WORKLOADS
    }


def pod(workload: Manifest) -> Manifest:
    found: Manifest = workload["spec"]["template"]["spec"]
    return found


@every_values
def test_helm_finds_nothing_to_say(values: Path) -> None:
    done = helm("lint", "--strict", str(CHART), "--values", str(values), "--kube-version", RELEASES[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


@every_values
@pytest.mark.parametrize("release", RELEASES)
def test_kubernetes_takes_what_is_rendered(values: Path, release: str) -> None:
    manifests = render(values, release)
    native = [one for one in manifests if not one["apiVersion"].startswith("monitoring.coreos.com/")]
    assert len(native) >= 3
    for one in native:
        kubernetes_validate.validate(one, release, strict=True)
    names = [(one["kind"], one["metadata"]["name"]) for one in manifests]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 63 for _, name in names)


@every_values
def test_the_program_takes_every_command_line(values: Path, tmp_path: Path) -> None:
    manifests = render(values)
    for role, workload in workloads(manifests).items():
        (container,) = pod(workload)["containers"]
        context = command_lines.parse([str(one) for one in container["args"]], tmp_path)
        assert context.info_name == {"worker": "worker", "page": "serve", "agent": "produce"}[role]
        if role == "agent":
            continue
        assert context.params["listen"].endswith(f":{container['ports'][0]['containerPort']}")
        if role == "worker":
            assert "$(POD_NAME)" in container["args"]
            assert [one["name"] for one in container["env"]] == ["POD_NAME"]


@every_values
def test_what_the_pods_are_given_is_there(values: Path) -> None:
    """Every volume is mounted and every mount is a volume; configuration is what the program reads."""
    manifests = render(values)
    maps = {one["metadata"]["name"]: one["data"] for one in manifests if one["kind"] == "ConfigMap"}
    for role, workload in workloads(manifests).items():
        spec = pod(workload)
        volumes = {one["name"] for one in spec["volumes"]}
        containers = [*spec.get("initContainers", ()), *spec["containers"]]
        assert {one["name"] for each in containers for one in each["volumeMounts"]} == volumes
        file = "agent.json" if role == "agent" else "kafka.json"
        table = json.loads(maps[f"demo-enclavescale-{role}"][file])
        assert kafka_properties_of(table)["client.id"] == f"enclavescale-{role}"
        if role == "agent":
            read = load_spec(table)
            assert read.policy_signers, "no agent trusts everybody"
            assert [one.host_id for one in read.hosts] == ["@NODE_NAME@"]
            (namer,) = spec["initContainers"]
            assert "s/@NODE_NAME@/$NODE_NAME/" in namer["command"][-1]
            assert namer["env"][0]["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName"


def kafka_properties_of(table: Manifest) -> dict[str, str]:
    """Read as the program does, but for files of secrets, which are not here."""
    here = {name: value for name, value in table["kafka"].items() if not name.endswith((".file", ".location"))}
    return kafka_properties(None, (), {"kafka": here}, {})


@every_values
def test_pods_are_restricted(values: Path) -> None:
    """Kubernetes' `restricted`, but where a TEE is asked: its files belong to root, and no device is opened."""
    for role, workload in workloads(render(values)).items():
        spec = pod(workload)
        asks = role != "page" and values == TSM
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False, "a Service called enclavescale-kafka would set Kafka properties"
        assert [spec[one] for one in ("hostPID", "hostNetwork", "hostIPC")] == [False] * 3
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert (spec["securityContext"]["runAsUser"] == 0) == asks
        assert spec["securityContext"].get("runAsNonRoot", False) is not asks
        for container in [*spec.get("initContainers", ()), *spec["containers"]]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["privileged"] is False
            assert security["capabilities"] == {"drop": ["ALL"], **({"add": ["DAC_OVERRIDE"]} if asks else {})}
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert probe in spec["containers"][0]
        hosts = {one["hostPath"]["path"] for one in spec["volumes"] if "hostPath" in one}
        wanted = {"/sys/kernel/config", "/dev/tdx_guest"} if asks else set()
        if role == "agent" and asks:
            wanted |= {"/var/lib/enclavescale", "/etc/enclavescale/policy.avro"}
        assert hosts == wanted


def test_an_agent_sees_its_nodes_gpus_and_tee() -> None:
    agent = pod(workloads(render(TSM))["agent"])
    assert agent["runtimeClassName"] == "nvidia"
    assert agent["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert agent["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    (container,) = agent["containers"]
    assert {one["mountPath"] for one in container["volumeMounts"]} >= {"/sys/kernel/config", "/var/lib/enclavescale"}
    assert container["securityContext"]["appArmorProfile"] == {"type": "Unconfined"}
    older = pod(workloads(render(TSM, "1.28"))["agent"])["containers"][0]
    assert "appArmorProfile" not in older["securityContext"], "a field since 1.30"


def test_probes_do_not_need_a_certificate() -> None:
    assert "httpGet" in pod(workloads(render(TSM))["page"])["containers"][0]["livenessProbe"]
    assert "tcpSocket" in pod(workloads(render(SIMULATED))["page"])["containers"][0]["livenessProbe"]


def test_prometheus_operator_gets_the_rules_and_their_jobs() -> None:
    manifests = render(TSM)
    (rules,) = [one for one in manifests if one["kind"] == "PrometheusRule"]
    written = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text())
    assert rules["spec"]["groups"] == written["groups"], "nothing in them is taken for the chart's own templates"
    monitors = [one for one in manifests if one["kind"] in ("ServiceMonitor", "PodMonitor")]
    jobs = set()
    for one in monitors:
        assert one["metadata"]["labels"]["release"] == "prometheus"
        (endpoint,) = one["spec"].get("endpoints") or one["spec"]["podMetricsEndpoints"]
        jobs.add(endpoint["relabelings"][0]["replacement"])
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    assert {one["job_name"] for one in config["scrape_configs"]} <= jobs
    dashboards = [one for one in manifests if "dashboard" in one["metadata"]["name"] and one["kind"] == "ConfigMap"]
    assert {name for one in dashboards for name in one["data"]} == {
        path.name for path in (ROOT / "deploy" / "grafana" / "dashboards").glob("*.json")
    }


def test_what_makes_no_sense_is_refused_before_anything_is_installed() -> None:
    assert "policySigners" in refusal("--set", "policySigners=null")
    assert "policySigners" in refusal("--set", "policySigners[0]=nonsense")
    assert "bootstrap.servers" in refusal("--set", r"kafka.properties.bootstrap\.servers=null")
    assert "sasl.password" in refusal("--set", r"kafka.properties.sasl\.password=hunter2")
    assert "replica is not allowed" in refusal("--set", "worker.replica=3")
    assert "page" in refusal("--set", "page.token.secret="), "neither token nor certificates"
    assert "page" in refusal("--set", "page.mtls.secret=both")
    assert "agent" in refusal("--set", "agent.policy.hostPath="), "no policy"
    assert "tee" in refusal("--set", "tee.kind=simulated"), "without its key material"
    assert "settings" in refusal("--set", "agent.settings.spool=/tmp/x")
    assert "image" in refusal("--set", "image.repository=")


def test_no_secret_is_written_into_what_is_rendered() -> None:
    kinds = {one["kind"] for values in VALUES for one in render(values)}
    assert "Secret" not in kinds
    assert not kinds & {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"}, "nothing here asks the API server"


def test_the_charts_version_is_the_programs() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart["appVersion"] == chart["version"] == project["version"]
    page = (ROOT / "docs" / "deploy.md").read_text()
    for name in re.findall(r"^([A-Za-z]+):", (CHART / "values.yaml").read_text(), re.MULTILINE):
        assert f"`{name}`" in page or name in ("nameOverride", "fullnameOverride"), name
