"""`enclavescale policy` on a mock broker: a policy's whole way, and every refusal with its code and exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from confluent_kafka import Producer
from cryptography.hazmat.primitives.asymmetric import ec

from enclavescale.embedded import MockCluster
from enclavescale.fleet import sign_policy
from enclavescale.policy.document import parse_document, to_json, to_toml
from enclavescale.policy.held import hold_file
from enclavescale.policy.issue import unissued
from enclavescale.policy.keys import PASSPHRASE_VARIABLE, make_key
from schemas.records import Policy
from schemas.topics import TopicNames
from tests.cli.conftest import call
from tests.policy.samples import demo, point_of, strict

SECRET = "correct horse battery"
STRANGER = ec.generate_private_key(ec.SECP256R1())

NAMES = TopicNames()


class Desk:
    """A signer's desk: a key, a document, a mock broker of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.signer = make_key(directory / "key.pem", SECRET.encode()).hex()
        self.document = directory / "fleet.toml"
        self.write(unissued(strict()))
        self.out = directory / "fleet.bin"

    @cached_property
    def bootstrap(self) -> str:
        return MockCluster({NAMES.policy: 1, NAMES.reports: 2}).bootstrap  # it serves until this process ends

    @property
    def cluster(self) -> list[str]:
        return ["--bootstrap", self.bootstrap]

    def write(self, policy: Policy) -> None:
        self.document.write_text(to_toml(policy))

    def __call__(self, command: str, *arguments: str | Path) -> Result:
        return call("policy", command, *map(str, arguments), env={PASSPHRASE_VARIABLE: SECRET})

    def sign(self, *arguments: str | Path) -> Result:
        return self("sign", self.document, "--key", self.directory / "key.pem", "-o", self.out, *arguments)

    def apply(self, *arguments: str | Path) -> Result:
        return self("apply", self.out, "--policy-signer", self.signer, *self.cluster, *arguments)

    def put(self, value: bytes) -> None:
        """Past all checks, onto the topic."""
        producer = Producer({"bootstrap.servers": self.bootstrap})
        producer.produce(NAMES.policy, value)
        assert producer.flush(20) == 0


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def said(result: Result, code: int = 0) -> Any:
    """The JSON on stdout of a command that ended with `code`."""
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_the_whole_way_of_a_policy_and_its_successor(desk: Desk) -> None:
    assert said(desk.sign("--first", *desk.cluster, "--json"))["counter"] == 1
    applied = said(desk.apply("--json"))
    assert (applied["published"], applied["offset"], applied["counter"]) == (True, 0, 1)
    assert said(desk.apply("--json")) == {**applied, "published": False}, "a second time changes nothing"

    desk.write(unissued(replace(strict(), domains=(replace(strict().domains[0], k_min_hosts=4),))))
    diff = said(desk("diff", desk.document, *desk.cluster, "--json"))
    assert [(one["path"], one["before"], one["after"]) for one in diff["changes"]] == [
        ("domains[hall-a].k_min_hosts", 5, 4)
    ]
    assert desk("diff", desk.document, *desk.cluster, "--refuse-weaker").exit_code == 3
    signed = said(desk.sign(*desk.cluster, "--json"))
    assert (signed["counter"], len(signed["weaker"])) == (2, 1)
    assert said(desk.apply("--json"))["offset"] == 1

    shown = said(desk("show", "--policy-signer", desk.signer, *desk.cluster, "--json"))
    assert (shown["signature"], shown["state"], shown["digest"]) == ("trusted", "in_force", signed["digest"])
    assert shown["policy"]["counter"] == 2
    assert said(desk.apply("--again", "--json"))["offset"] == 2, "before retention takes it"


def test_a_document_comes_back_from_the_topic(desk: Desk) -> None:
    desk.sign("--first")
    desk.apply()
    toml = desk("show", "--document", *desk.cluster)
    as_json = desk("show", "--document", "--json", *desk.cluster)
    policy = hold_file(desk.out).policy
    assert parse_document(toml.stdout_bytes, as_json=False) == policy
    assert parse_document(as_json.stdout_bytes, as_json=True) == policy


def test_older_and_other_policies_are_not_applied(desk: Desk) -> None:
    for counter in ("4", "3"):
        desk.sign("--counter", counter)
        desk.out.rename(desk.directory / counter)
    desk.sign("--counter", "4", "--valid-days", "3")
    assert said(desk("apply", desk.directory / "4", "--policy-signer", desk.signer, *desk.cluster, "--json"))[
        "published"
    ]
    assert said(desk.apply("--json"), 3)["error"] == "POLICY_EQUIVOCATION"
    desk.out.write_bytes((desk.directory / "3").read_bytes())
    assert said(desk.apply("--json"), 3)["error"] == "POLICY_ROLLBACK"
    assert said(desk.sign("--counter", "4", *desk.cluster, "--json"), 3)["error"] == "POLICY_ROLLBACK"
    previous = ["--previous", desk.directory / "4"]
    assert said(desk.sign("--counter", "4", *previous, "--json"), 3)["error"] == "POLICY_ROLLBACK"
    assert said(desk.sign(*previous, "--json"))["counter"] == 5


def test_only_what_a_trusted_signer_signed_is_applied(desk: Desk) -> None:
    desk.out.write_bytes(sign_policy(strict(), STRANGER))
    assert said(desk.apply("--json"), 3)["error"] == "POLICY_UNTRUSTED"
    desk.sign("--first")
    data = bytearray(desk.out.read_bytes())
    data[-100] ^= 1
    desk.out.write_bytes(bytes(data))
    assert said(desk.apply("--json"), 3)["error"] == "POLICY_UNTRUSTED"
    desk.out.write_bytes(desk.document.read_bytes())
    assert said(desk.apply("--json"), 2)["error"] == "CONFIG_INVALID"
    desk.out.write_bytes(b"\xc3\x01 no record")
    assert said(desk.apply("--json"), 3)["error"] == "SCHEMA_UNKNOWN"
    assert (
        said(desk("apply", desk.document, "--policy-signer", "04ab", *desk.cluster, "--json"), 2)["field"]
        == "policy_signer"
    )


def test_what_others_put_on_the_topic_counts_for_nothing_and_is_told(desk: Desk) -> None:
    desk.put(sign_policy(replace(strict(), counter=99), STRANGER))
    desk.put(b"junk")
    result = desk.sign("--first", *desk.cluster, "--json")
    assert said(result)["counter"] == 1
    assert "offset 0 does not count: POLICY_UNTRUSTED" in result.stderr
    assert "offset 1 does not count: MALFORMED" in result.stderr
    assert said(desk.apply("--json"))["offset"] == 2
    assert said(desk("show", "--policy-signer", desk.signer, *desk.cluster, "--json"))["policy"]["counter"] == 1
    result = desk("show", *desk.cluster, "--json")
    unasked = said(result)
    assert "no --policy-signer given" in result.stderr
    assert (unasked["policy"]["counter"], unasked["signature"]) == (99, "holds"), "nobody was asked whom to trust"


def test_a_rotation_goes_on_with_the_counter_of_the_old_key(desk: Desk) -> None:
    desk.sign("--counter", "7")
    desk.apply()
    new = make_key(desk.directory / "new.pem", SECRET.encode()).hex()
    arguments = ["sign", desk.document, "--key", desk.directory / "new.pem", "-o", desk.out, *desk.cluster]
    assert said(desk(*arguments, "--json"), 2)["field"] == "counter", "of a topic of strangers nothing is known"
    assert said(desk(*arguments, "--policy-signer", desk.signer, "--json"))["counter"] == 8
    assert said(desk.apply("--json"), 3)["error"] == "POLICY_UNTRUSTED"
    assert said(desk.apply("--policy-signer", new, "--json"))["counter"] == 8


def test_errors_of_lint_keep_a_policy_from_being_signed_and_applied(desk: Desk) -> None:
    desk.write(unissued(replace(strict(), domains=(replace(strict().domains[0], partition=2),))))
    assert desk.sign("--first").exit_code == 0, "how many partitions there are nobody said"
    refused = said(desk.apply("--json"), 3)
    assert (refused["error"], refused["field"]) == ("POLICY_REFUSED", "domains[0].partition")
    desk.out.unlink()
    assert said(desk.sign("--first", *desk.cluster, "--json"), 3)["error"] == "POLICY_REFUSED"
    assert not desk.out.exists()
    found = said(desk("lint", desk.document, *desk.cluster, "--json"), 3)
    assert [one["code"] for one in found["findings"]] == ["POLICY_PARTITION"]
    assert desk("lint", desk.document, "--partitions", "3").exit_code == 0
    assert desk("lint", desk.document).exit_code == 0


def test_a_desk_without_a_right_to_the_reports_topic_goes_on(desk: Desk) -> None:
    result = desk.sign("--first", *desk.cluster, "--topic-name", "reports=no such topic", "--json")
    assert said(result)["counter"] == 1
    assert "partitions are not checked" in result.stderr


def test_an_ended_policy_is_not_applied_but_shown(desk: Desk) -> None:
    desk.out.write_bytes(sign_policy(replace(strict(), not_after_ms=strict().issued_at_ms + 1), STRANGER))
    signer = point_of(STRANGER).hex()
    assert (
        said(desk("apply", desk.out, "--policy-signer", signer, *desk.cluster, "--json"), 3)["error"]
        == "POLICY_REFUSED"
    )
    assert said(desk("show", desk.out, "--json"))["state"] == "ended"
    assert "ENDED" in desk("show", desk.out).stdout
    assert said(desk("show", desk.out, "--policy-signer", desk.signer, "--json"), 3)["signature"] == "POLICY_UNTRUSTED"


def test_warnings_are_for_people_and_strict_machines(desk: Desk) -> None:
    desk.write(unissued(demo()))
    assert desk("lint", desk.document).exit_code == 0
    assert desk("lint", desk.document, "--strict").exit_code == 3
    desk.write(unissued(replace(demo(64), hosts=tuple(replace(host, classes=()) for host in demo(64).hosts))))
    shown = desk("lint", desk.document)
    assert shown.exit_code == 3
    assert "POLICY_CLASSES: 44 more" in shown.stdout
    desk.write(unissued(demo()))
    text = desk.sign("--first")
    assert text.exit_code == 0
    assert "POLICY_ROOT_SIMULATED" in text.stderr


@pytest.mark.parametrize("name", ["p.toml", "p.json"])
def test_init_writes_documents_that_lint_can_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert call("policy", "init", str(path)).exit_code == 0
    assert said(call("policy", "lint", str(path), "--json"), 3)["findings"]
    again = call("policy", "init", str(path), "--json")
    assert said(again, 2)["message"].endswith("is there already")
    demo_path = tmp_path / f"demo-{name}"
    made = call("policy", "init", "--from-demo", str(tmp_path / "tee"), "--hosts", "4", str(demo_path))
    assert made.exit_code == 0
    assert said(call("policy", "lint", str(demo_path), "--json"))["ok"]
    copy = call("policy", "init", "--from", str(demo_path), "--json")
    assert parse_document(copy.stdout_bytes, as_json=True) == hold_file(demo_path).policy
    both = call("policy", "init", "--from", str(demo_path), "--from-demo", str(tmp_path))
    assert both.exit_code == 2


def test_init_from_a_signed_policy_is_to_be_signed_anew(desk: Desk) -> None:
    desk.sign("--counter", "9")
    text = call("policy", "init", "--from", str(desk.out)).stdout_bytes
    assert parse_document(text, as_json=False) == unissued(strict())


def test_keygen(tmp_path: Path) -> None:
    path, secret = tmp_path / "key.pem", tmp_path / "secret"
    secret.write_text(SECRET)
    made = said(call("policy", "keygen", str(path), "--passphrase-file", str(secret), "--json"))
    assert len(bytes.fromhex(made["signer_public_key"])) == 65
    assert said(call("policy", "keygen", str(path), "--passphrase-file", str(secret), "--json"), 2)["field"] == "out"
    assert said(call("policy", "keygen", str(tmp_path / "other"), "--json"), 2)["field"] == "passphrase"


def test_people_see_what_machines_read(desk: Desk) -> None:
    desk.sign("--first")
    shown = desk("show", desk.out).stdout
    for text in (
        "hall-a",
        "H100",
        "GPU_ATTESTED",
        "UpToDate",
        "max_beacon_age_ms",
        hold_file(desk.out).policy.core_version,
    ):
        assert text in shown
    assert "not signed" in desk("show", desk.document).stdout
    assert "no difference" in desk("diff", desk.document, desk.document).stdout
    other = desk.directory / "other.json"
    other.write_text(to_json(replace(strict(), unsafe_allow_create_time=True, hosts=strict().hosts[1:])))
    text = desk("diff", desk.document, other).stdout
    assert "WEAKER: a protection is given up" in text
    stranger = desk.directory / "stranger.bin"
    stranger.write_bytes(sign_policy(strict(), STRANGER))
    named = ("--policy-signer", desk.signer)
    assert "stranger.bin: its signature: POLICY_UNTRUSTED" in desk("diff", desk.out, stranger, *named).stderr
    assert desk("diff", desk.out, desk.document, *named).stderr == ""
    assert "- hosts[h0]" in text


@pytest.mark.parametrize(
    "arguments",
    [
        lambda desk: ["sign", desk.document, "--key", desk.directory / "key.pem", "-o", desk.out, "--counter", "x"],
        lambda desk: ["sign", desk.document, "--key", desk.directory / "key.pem", "-o", desk.out, "--counter", "0"],
        lambda desk: ["sign", desk.document, "--key", desk.document, "-o", desk.out, "--first"],
        lambda desk: ["sign", desk.document, "--key", desk.directory / "key.pem", "-o", desk.out],
        lambda desk: ["show"],
        lambda desk: ["apply", desk.document],
    ],
)
def test_usage(desk: Desk, arguments: Callable[[Desk], list[Any]]) -> None:
    assert desk(*arguments(desk)).exit_code == 2


def test_an_empty_topic_and_no_broker(desk: Desk) -> None:
    assert said(desk("show", *desk.cluster, "--json"), 1)["error"] == "NO_POLICY"
