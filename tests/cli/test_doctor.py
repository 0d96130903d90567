"""`enclavescale doctor`: one that is well, each thing that may be wrong with file and policy, hangs, and the screen."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from cryptography.hazmat.primitives.asymmetric import ec
from rich.console import Console

from attester.signing import public_point
from attester.simulated import SimulatedTee
from enclavescale.checkup.clock import ClockState
from enclavescale.checkup.cluster import check_broker
from enclavescale.checkup.doctor import Options, Section, Surroundings, counts, examine, result_json
from enclavescale.checkup.finding import Finding, fail, ok
from enclavescale.checkup.screen import doctor_screen
from enclavescale.fleet import Fleet, demo_fleet, sign_policy
from schemas.records import HostEnrolment, Policy
from schemas.topics import TopicNames
from tests.broker import KafkaBroker
from tests.cli.conftest import call

NOW_MS = 1_790_000_040_000
SYNCHRONISED = ClockState(estimated_error_ms=0.2, maximum_error_ms=12.0)
KEY = ec.generate_private_key(ec.SECP256R1())
SIGNER = public_point(KEY.public_key()).hex()
HOST = "hall-a-host000"
Change = Callable[[Policy], Policy]


@pytest.fixture(scope="module")
def tee(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tee")


@pytest.fixture(scope="module")
def fleet(tee: Path) -> Fleet:
    made = demo_fleet(
        SimulatedTee.create(tee), hosts=2, gpus=8, window_ms=60_000, now_ms=NOW_MS + 86_400_000, create_time=False
    )
    return replace(made, policy=replace(made.policy, unsafe_allow_unevaluated_tcb=False))


class Site:
    """A host's files: `lines` at the top of agent.toml, `host` in its table, `kafka` in that one."""

    def __init__(self, directory: Path, tee: Path, fleet: Fleet) -> None:
        self.directory, self.tee, self.fleet = directory, tee, fleet
        self.lines: dict[str, str] = {"policy_signers": f'["{SIGNER}"]'}
        self.host: dict[str, str] = {
            "host_id": f'"{HOST}"',
            "traces": '[{ trace = "bundled:a100_square", seed = "s" }]',
        }
        self.bootstrap = ""
        self.change: Change = lambda policy: policy
        self.key = KEY

    def write(self) -> Path:
        (self.directory / "policy.avro").write_bytes(sign_policy(self.change(self.fleet.policy), self.key))
        top = {
            "policy": f'"{self.directory}/policy.avro"',
            "spool": f'"{self.directory}/spool.db"',
            "spool_max_mib": "1",
            "tee": '"simulated"',
            "tee_directory": f'"{self.tee}"',
            **self.lines,
        }
        text = "".join(f"{name} = {value}\n" for name, value in top.items())
        text += "[[hosts]]\n" + "".join(f"{name} = {value}\n" for name, value in self.host.items())
        path = self.directory / "agent.toml"
        text += "[kafka]\n" + (f'"bootstrap.servers" = "{self.bootstrap}"\n' if self.bootstrap else "")
        path.write_text(text)
        return path

    def examine(self, timeout_s: float = 10.0, **around: Any) -> list[Section]:
        around = {"clock": lambda: SYNCHRONISED, "now_ms": lambda: NOW_MS, **around}
        return examine(self.write(), Options(timeout_s=timeout_s), Surroundings(**around))


@pytest.fixture
def site(tmp_path: Path, tee: Path, fleet: Fleet) -> Site:
    return Site(tmp_path, tee, fleet)


def findings(sections: list[Section]) -> list[Finding]:
    return [one for section in sections for one in section.findings]


def wrong(sections: list[Section], room: str = "") -> list[tuple[str, str, str | None]]:
    """What is not well, but for brokers, which most tests name none of, and the TEE, which is simulated."""
    return [
        (one.check, one.state, one.code)
        for one in findings(sections)
        if one.state in ("warn", "fail")
        and one.check.startswith(room)
        and not one.check.startswith("broker.")
        and one.check not in ("config.kafka", "tee.provider")
    ]


def test_a_host_that_is_well(site: Site, mock_topics: str) -> None:
    site.bootstrap = mock_topics
    sections = site.examine(2.0)  # it knows no settings and no rights of topics, and never says so
    assert wrong(sections) == []
    assert [section.title for section in sections] == [
        "Configuration", "Policy", "Clock", "Traces", "TEE", "Spool", "Kafka", "Agent",
    ]  # fmt: skip
    assert not [one for one in findings(sections) if one.check.startswith("broker.") and one.state == "fail"]
    good = {one.check for one in findings(sections) if one.state == "ok"}
    assert good >= {"policy.signature", "policy.budget", "tee.platform", "tee.measurement", "broker.partition"}
    assert list(site.directory.glob(".*")) == [], "the trial file is gone"
    assert not (site.directory / "spool.db").exists(), "the spool was not touched"


def of_host(**changes: Any) -> Change:
    """Another enrolment of the host."""

    def change(policy: Policy) -> Policy:
        hosts: list[HostEnrolment] = [replace(one, **changes) if one.host_id == HOST else one for one in policy.hosts]
        return replace(policy, hosts=tuple(sorted(hosts, key=lambda one: one.host_id)))

    return change


def of_policy(**changes: Any) -> Change:
    return lambda policy: replace(policy, **changes)


def smaller_limit(policy: Policy) -> Policy:
    return replace(policy, limits=replace(policy.limits, max_epsilon_micro=900_000))


def no_quantile(policy: Policy) -> Policy:
    return replace(policy, domains=tuple(replace(one, quantile_ppm=1_000_000) for one in policy.domains))


POLICIES: dict[str, tuple[Change, list[tuple[str, str, str | None]]]] = {
    "ended": (of_policy(not_after_ms=NOW_MS), [("policy.validity", "fail", "POLICY_EXPIRED")]),
    "about to end": (of_policy(not_after_ms=NOW_MS + 86_400_000), [("policy.validity", "warn", None)]),
    "not begun": (of_policy(effective_from_ms=NOW_MS + 1), [("policy.validity", "warn", None)]),
    "another core": (of_policy(core_version="99"), [("policy.core", "warn", None)]),
    "unsafe": (of_policy(unsafe_allow_unevaluated_tcb=True), [("policy.unsafe", "warn", None)]),
    "not enrolled": (of_host(host_id="other"), [("policy.enrolment", "fail", "HOST_NOT_ENROLLED")]),
    "another domain": (of_host(domain="hall-z"), [("policy.enrolment", "fail", "DOMAIN_UNKNOWN")]),
    "two models": (
        lambda policy: of_host(classes=2 * policy.hosts[0].classes)(policy),
        [("policy.source", "fail", None)],
    ),
    "another source": (of_policy(accepted_sources=("nvml",)), [("policy.source", "fail", "SOURCE_NOT_ACCEPTED")]),
    "another mode": (
        of_policy(accepted_sampler_modes=("average",)),
        [("policy.source", "fail", "SAMPLER_MODE_NOT_ACCEPTED")],
    ),
    "a higher grade": (of_policy(min_first_mile="GPU_ATTESTED"), [("policy.first_mile", "fail", "FIRST_MILE_TOO_LOW")]),
    "less epsilon": (smaller_limit, [("policy.budget", "fail", "BUDGET_EXCEEDED")]),
    "no such model": (
        of_policy(models=()),
        [("policy.ranges", "fail", "CONFIG_INVALID"), ("policy.budget", "fail", None)],
    ),
    "no such quantile": (no_quantile, [("policy.ranges", "fail", "CONFIG_INVALID")]),
    "another platform": (of_host(platform_ids=("ab" * 16,)), [("tee.platform", "fail", "PLATFORM_NOT_ENROLLED")]),
    "no platform": (of_host(platform_ids=()), [("policy.identities", "fail", "PLATFORM_NOT_ENROLLED")]),
    "another image": (of_policy(measurements=()), [("tee.measurement", "fail", "MEASUREMENT_UNKNOWN")]),
}


@pytest.mark.parametrize("name", POLICIES)
def test_what_the_policy_says_to_the_host(site: Site, name: str) -> None:
    site.change, expected = POLICIES[name]
    assert wrong(site.examine()) == expected


def test_a_claim_beyond_the_evidence(site: Site) -> None:
    site.host["first_mile"] = '"GPU_ATTESTED"'
    assert wrong(site.examine()) == [("policy.first_mile", "fail", "FIRST_MILE_OVERCLAIMED")]


def test_no_simulated_root_in_the_policy(site: Site) -> None:
    site.change = of_policy(trust_roots=())
    assert wrong(site.examine()) == [("policy.tee", "fail", "ROOT_UNTRUSTED"), ("tee.root", "fail", "ROOT_UNTRUSTED")]


def test_a_policy_of_somebody_else(site: Site) -> None:
    site.key = ec.generate_private_key(ec.SECP256R1())
    assert wrong(site.examine()) == [("policy.signature", "fail", "POLICY_UNTRUSTED")]
    del site.lines["policy_signers"]
    assert wrong(site.examine()) == [("policy.signature", "warn", None)]


def test_a_policy_that_was_touched(site: Site) -> None:
    path = site.write()
    value = bytearray((site.directory / "policy.avro").read_bytes())
    at = bytes(value).index(b"hall-b")
    value[at : at + 6] = b"hall-c"
    (site.directory / "policy.avro").write_bytes(value)
    sections = examine(path, Options(), Surroundings(now_ms=lambda: NOW_MS))
    assert ("policy.signature", "fail", "SIGNATURE_INVALID") in wrong(sections)


@pytest.mark.parametrize("content", [None, b"", b"no policy at all"])
def test_without_a_policy_the_rest_is_still_looked_at(site: Site, content: bytes | None) -> None:
    path = site.write()
    file = site.directory / "policy.avro"
    file.unlink() if content is None else file.write_bytes(content)
    sections = examine(path, Options(), Surroundings(clock=lambda: SYNCHRONISED))
    assert [(check, state) for check, state, _ in wrong(sections)] == [("policy.file", "fail")]
    assert "tee.quote" in {one.check for one in findings(sections) if one.state == "ok"}


@pytest.mark.parametrize("text", ["", "x = [", 'policy = "p"\n', 'polcy = "p"\nhosts = []\nspool = "s"\n'])
def test_without_a_file_only_the_clock_is_left(tmp_path: Path, text: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    sections = examine(path, Options(), Surroundings(clock=lambda: SYNCHRONISED))
    assert ("config.file", "fail", "CONFIG_INVALID") in wrong(sections)
    assert {one.check for one in findings(sections)} - {"config.kafka"} == {
        "config.file", "clock.synchronised", "clock.uptime", "config.rest",
    }  # fmt: skip


@pytest.mark.parametrize(
    "secret", ['"sasl.password" = "hunter2"\n', '[registry]\nurl = "http://doctor:hunter2@127.0.0.1:9"\n']
)
def test_secrets_in_a_file_for_everybody(site: Site, secret: str) -> None:
    path = site.write()
    path.write_text(path.read_text() + secret)
    for mode, expected in ((0o644, [("config.secrets", "warn", None)]), (0o640, [])):
        path.chmod(mode)
        sections = examine(path, Options(), Surroundings(clock=lambda: SYNCHRONISED))
        assert wrong(sections, "config") == expected
        assert "hunter2" not in json.dumps(result_json(sections, path))


def test_brokers_that_are_away_say_why(site: Site) -> None:
    site.bootstrap = "nobody.invalid:9092"
    (found,) = (one for one in findings(site.examine(1.0)) if one.check == "broker.reach")
    assert (found.state, found.code) == ("fail", "CLUSTER_UNREACHABLE")
    assert "nobody.invalid" in found.found, "the client library's reason, not only that there is one"


def test_a_property_that_does_not_exist(site: Site) -> None:
    site.bootstrap = "127.0.0.1:9"
    path = site.write()
    path.write_text(path.read_text() + '"sasl.pasword" = "hunter2"\n')
    sections = examine(path, Options())
    (found,) = (one for one in findings(sections) if one.check == "broker.settings")
    assert found.state == "fail"
    assert "sasl.pasword" in found.found
    assert "hunter2" not in found.found


def test_a_topic_that_is_missing(site: Site, mock_topics: str) -> None:
    site.bootstrap = mock_topics
    site.lines["topic_prefix"] = '"other"'
    assert ("broker.topic", "fail", "TOPIC_FAILED") in [
        (one.check, one.state, one.code) for one in findings(site.examine())
    ]


def test_the_policys_partition_is_missing(mock_topics: str) -> None:
    kafka = {"bootstrap.servers": mock_topics}
    asked = check_broker(kafka, TopicNames().reports, {"hall-a": 2, "hall-b": 1}, 10.0)
    found = [next(asked) for _ in range(5)][3:]
    assert [(one.check, one.state, one.about, one.code) for one in found] == [
        ("broker.partition", "fail", "hall-a", "WRONG_PARTITION"),
        ("broker.partition", "ok", "hall-b", None),
    ]


@pytest.mark.broker
def test_a_real_cluster(site: Site, kafka: KafkaBroker) -> None:
    site.bootstrap, site.lines["topic_prefix"] = kafka.bootstrap, '"doctor"'
    where = ("--bootstrap", kafka.bootstrap, "--topic-prefix", "doctor", "--partitions", "2", "--replication", "1")
    assert call("topics", "create", *where).exit_code == 0
    found = {one.check: one.state for one in findings(site.examine(10.0)) if one.check.startswith("broker.")}
    assert found == dict.fromkeys(
        ("broker.transport", "broker.reach", "broker.topic", "broker.partition", "broker.settings", "broker.rights"),
        "ok",
    )


@pytest.mark.broker
@pytest.mark.parametrize(
    ("setting", "code"),
    [
        ({"message.timestamp.type": "CreateTime"}, "TIMESTAMP_TYPE"),
        ({"message.timestamp.type": "LogAppendTime", "max.message.bytes": "1000"}, "TOPIC_FAILED"),
    ],
    ids=["producers' timestamps", "small messages"],
)
def test_a_topic_with_other_settings(
    kafka: KafkaBroker, make_topics: Callable[..., str], setting: dict[str, str], code: str
) -> None:
    where, topic = {"bootstrap.servers": kafka.bootstrap}, make_topics("doctor", 2, setting)
    admin = AdminClient(dict(where))
    for _ in range(1000):  # a topic is made before every list has it
        if topic in admin.list_topics(timeout=10).topics:
            break
    found = check_broker(where, topic, {}, 10.0)
    assert [one.code for one in found if one.check == "broker.settings"] == [code]


def test_what_hangs_costs_its_own_section(site: Site) -> None:
    gate = threading.Event()

    def hangs() -> ClockState:
        gate.wait()
        return SYNCHRONISED

    told: list[tuple[str, ...]] = []
    try:
        around = Surroundings(clock=hangs, now_ms=lambda: NOW_MS)
        sections = examine(site.write(), Options(timeout_s=2.0), around, lambda waiting: told.append(tuple(waiting)))
    finally:
        gate.set()
    clock = next(one for one in sections if one.title == "Clock")
    assert [(one.check, one.state) for one in clock.findings] == [("doctor.timeout", "fail")]
    assert any("Clock" in waiting for waiting in told)
    assert {one.check for one in findings(sections)} >= {"policy.budget", "spool.write", "tee.quote"}


def test_a_check_that_breaks_hides_no_other(site: Site) -> None:
    def breaks() -> ClockState:
        raise ZeroDivisionError("secret")

    sections = site.examine(clock=breaks)
    (found,) = (one for one in findings(sections) if one.check == "doctor.defect")
    assert found.state == "fail"
    assert "secret" not in found.found
    assert "spool.write" in {one.check for one in findings(sections)}


def test_the_command(site: Site) -> None:
    site.change = of_host(platform_ids=("ab" * 16,))
    done = call("doctor", "--config", str(site.write()), "--json")
    assert done.exit_code == 1
    result = json.loads(done.stdout)
    assert (result["ok"], result["counts"]["fail"] > 0) == (False, True)
    assert {"check", "state", "found", "remedy", "about", "code"} == set(result["checks"][0])
    less = call("doctor", "--config", str(site.write()), "--no-evidence")
    assert "no quote was asked for" in less.stdout
    assert "PLATFORM_NOT_ENROLLED" not in less.stdout


def screen(sections: list[Section], width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(doctor_screen(sections, Path("/etc/enclavescale/agent.toml")))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_screen_says_what_to_do(site: Site, width: int) -> None:
    site.change = lambda policy: of_host(platform_ids=())(of_policy(accepted_sources=("nvml",))(policy))
    sections = site.examine()
    text = screen(sections, width)
    assert max(map(len, text.splitlines())) <= width
    whole = re.sub(r"\s+", "", text)
    failures = [one for one in findings(sections) if one.state == "fail"]
    assert len(failures) == 3  # these two, and that there is no broker
    end = whole[whole.index("Fixfirst") :]
    for one in failures:
        assert re.sub(r"\s+", "", f"→ {one.remedy}") in whole
        assert re.sub(r"\s+", "", one.found) in end, "once more at the end, where the eye is"
    assert f"{HOST}:" not in text, "the one host there is need not be named"


def test_what_is_the_same_of_several_is_said_once() -> None:
    ill = [fail("nvml.power", "broken", "mend it", f"GPU {number}") for number in range(3)]
    given = [*ill[:2], ok("nvml.power", "well", "GPU 7"), ill[2]]
    text = screen([Section("GPUs", lambda: iter(()), findings=given)], 80)
    assert text.count("mend it") == 2
    assert "GPU 0, GPU 1: broken" in text


def test_the_end_of_the_screen_is_an_answer() -> None:
    def only(*given: Finding) -> list[Section]:
        return [Section("Trial", lambda: iter(()), findings=list(given))]

    assert "The agent can run." in screen(only(ok("a.b", "well")), 80)
    assert counts(only(ok("a.b", "well"), fail("a.c", "ill", "rest"))) == {"ok": 1, "warn": 0, "fail": 1, "skip": 0}


def test_every_code_has_a_row_on_the_page_of_codes() -> None:
    root = Path(__file__).parents[2]
    rows = set(re.findall(r"^\| `(\w+)` \|", (root / "docs" / "codes.md").read_text(), re.MULTILINE))
    used = {
        code
        for path in (root / "enclavescale" / "checkup").glob("*.py")
        for code in re.findall(r'code="(\w+)"', path.read_text())
    }
    assert len(used) > 10
    assert used <= rows
