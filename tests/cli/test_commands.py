"""Help, exit codes, messages, and what goes to which stream."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest

from enclavescale.cli import main
from schemas.codec import decode_any, encode_body, encode_signed_record
from schemas.mapping import to_jsonable
from schemas.records import WindowReport
from schemas.topics import TOPICS
from tests.broker import KafkaBroker
from tests.cli.conftest import call, process
from tests.schemas.examples import TOPIC_VALUES, example

GROUPS = ("access", "topics", "schemas", "collateral", "bench", "policy", "audit")
NOBODY = "127.0.0.1:1"


def commands(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths of the group, its groups and its commands."""
    inner = command.commands.items() if isinstance(command, click.Group) else ()
    return [path, *(one for name, sub in inner for one in commands(sub, (*path, name)))]


@pytest.mark.parametrize("path", commands(main), ids=lambda path: " ".join(path) or "enclavescale")
def test_help_says_what_exit_codes_mean(path: tuple[str, ...]) -> None:
    done = call(*path, "--help")
    assert done.exit_code == 0
    assert "Exit codes: 0 ok, 1 failure, 2 usage, 3 refused." in done.stdout
    if path not in {(), *((one,) for one in GROUPS)}:
        assert "--json" in done.stdout


def test_no_command_waits_for_what_others_need() -> None:
    """Faust, aiohttp and matplotlib take a second to load: worker, page and plots load them themselves."""
    slow = "[one for one in ('faust', 'aiokafka', 'aiohttp', 'matplotlib') if one in sys.modules]"
    program = f"import sys, enclavescale.cli; print({slow})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_exit_0_and_one_json_value_on_stdout() -> None:
    done = process("topics", "describe", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert [one["role"] for one in json.loads(done.stdout)] == [spec.role for spec in TOPICS]


def test_describe_uses_the_names_given() -> None:
    done = call("topics", "describe", "--topic-prefix", "acme", "--topic-name", "output=power")
    assert "acme.window-reports.v1\n" in done.stdout
    assert "power\n" in done.stdout
    assert "message.timestamp.type=LogAppendTime" in done.stdout


def test_exit_1_where_no_broker_answers_within_20_s() -> None:
    done = process("topics", "check", "--bootstrap", NOBODY, "--json", timeout_s=20)
    assert done.returncode == 1
    said = json.loads(done.stdout)
    assert said["error"] == "CLUSTER_UNREACHABLE"
    assert said["remedy"] in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 2, "the message and its remedy, no log of every attempt"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tail", "--nope"), "No such option"),
        (("tail",), "no broker given"),
        (("show",), "give a FILE or --topic"),
        (("show", "no-such-file"), "no-such-file"),
        (("topics", "create", "--topic-name", "outputs=x", "--bootstrap", NOBODY), "one of reports, output"),
        (("produce", "--config", "README.md"), "README.md"),
        (("tail", "--bootstrap", NOBODY, "-K", "no.such=1"), "no.such"),
    ],
)
def test_exit_2_for_what_the_user_must_correct(arguments: tuple[str, ...], said: str) -> None:
    done = call(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("as_json", [True, False])
def test_exit_3_for_a_record_that_is_refused(garbage: Path, as_json: bool) -> None:
    done = call("show", str(garbage), *(["--json"] if as_json else []))
    assert done.exit_code == 3
    assert done.stderr.startswith("MALFORMED: ")
    assert (json.loads(done.stdout)["error"] == "MALFORMED") if as_json else done.stdout == ""


def test_missing_topic_and_offset_are_said(mock_topics: str) -> None:
    missing = call("show", "--bootstrap", mock_topics, "--topic", "empty")
    assert missing.exit_code == 2
    assert "is empty" in missing.stderr
    beyond = call("show", "--bootstrap", mock_topics, "--topic", "enclavescale.fleet-power.v1", "--partition", "7")
    assert beyond.exit_code == 2
    assert "partitions 0 to 1" in beyond.stderr


@pytest.mark.parametrize("name", sorted(TOPIC_VALUES))
def test_show_prints_every_kind_of_record_exactly_with_json(name: str) -> None:
    value = TOPIC_VALUES[name]
    done = call("show", "-", "--json", stdin=value)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout) == to_jsonable(decode_any(value))
    readable = call("show", "-", stdin=value)
    assert readable.exit_code == 0
    assert max(len(line) for line in readable.stdout.splitlines()) < 2000


def test_show_decodes_matrices_and_times_for_people() -> None:
    counts, sums = np.arange(144, dtype="<i4").reshape(12, 12), np.arange(10, dtype="<i4") - 5
    report = example(WindowReport, "SignedRecord", full=True)
    first = dataclasses.replace(
        report.classes[0],
        transitions=counts.tobytes(),
        transitions_shape=(12, 12),
        pane_sums=sums.tobytes(),
        pane_sums_shape=(10,),
    )
    report = dataclasses.replace(report, classes=(first,), window_start_ms=1_790_000_000_000)
    value = encode_signed_record(encode_body(report), bytes(64), None)
    text = call("show", "-", stdin=value).stdout
    shown = json.loads(text)["body"]
    assert shown["classes"][0]["transitions"] == counts.tolist()
    assert shown["classes"][0]["pane_sums"] == sums.tolist()
    assert shown["window_start_ms (UTC)"] == "2026-09-21T14:13:20Z"
    assert f"{json.dumps(counts[3].tolist())},\n" in text, "a row of a matrix stands on one line"
    assert json.loads(call("show", "-", "--json", stdin=value).stdout)["body"]["classes"][0]["transitions"] == (
        counts.tobytes().hex()
    )


def test_show_of_a_dead_letter_gives_its_headers_before_it_refuses(mock_topics: str) -> None:
    done = call("show", "--bootstrap", mock_topics, "--topic", "enclavescale.rejections.v1")
    assert done.exit_code == 3
    assert "# enclavescale.error.code: MALFORMED" in done.stdout
    assert "(producer's time)" in done.stdout
    assert "\\xff" in done.stdout


def test_tail_gives_one_line_or_one_object_per_output(mock_topics: str) -> None:
    where = ("--bootstrap", mock_topics, "--from-beginning", "--max", "2")
    lines = call("tail", *where).stdout.splitlines()
    assert len(lines) == 2
    assert all("margin" in line and "hosts" in line for line in lines)
    objects = [json.loads(line) for line in call("tail", *where, "--json").stdout.splitlines()]
    assert objects == [to_jsonable(decode_any(TOPIC_VALUES[f"SignedFleetPower.{one}"])) for one in ("full", "sparse")]


@pytest.mark.broker
def test_topics_are_created_described_and_checked_on_a_real_cluster(kafka: KafkaBroker) -> None:
    where = ("--bootstrap", kafka.bootstrap, "--topic-prefix", "cli-topics", "--partitions", "2")
    too_many = call("topics", "create", *where)
    assert too_many.exit_code == 1
    assert "--replication" in too_many.stderr
    assert call("topics", "check", *where).exit_code == 3
    made = call("topics", "create", *where, "--replication", "1", "--json")
    assert set(json.loads(made.stdout).values()) == {"created"}
    again = call("topics", "create", *where, "--replication", "1", "--json")
    assert set(json.loads(again.stdout).values()) == {"exists"}
    assert call("topics", "check", *where).stdout == "as declared\n"
    differs = call("topics", "check", *where[:-1], "3", "--json")
    assert differs.exit_code == 3
    assert {one["what"] for one in json.loads(differs.stdout)} == {"partitions"}
    unknown = call("tail", "--bootstrap", kafka.bootstrap, "--topic-prefix", "cli-none")
    assert unknown.exit_code == 1
    assert "TOPIC_FAILED: cli-none.fleet-power.v1" in unknown.stderr
