"""Files of ids, options, and starts with and without a registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from enclavescale.cli import main
from enclavescale.registry.errors import RegistryUnreachable
from enclavescale.registry.ids import FORMAT, SchemaIds, open_framing, open_ids, read_ids, write_ids
from enclavescale.registry.options import RegistryOptions, client_settings, read_options
from schemas.codec import SINGLE_OBJECT
from schemas.errors import ConfigError
from schemas.pins import NAMES
from schemas.topics import TopicNames
from tests.broker.kafka import free_ports

TOPICS = TopicNames()
ALL = SchemaIds({name: 10 + at for at, name in enumerate(NAMES)})


def nobody() -> str:
    return f"http://127.0.0.1:{free_ports(1)[0]}"


@given(st.dictionaries(st.sampled_from(NAMES), st.sets(st.integers(0, 2**32 - 1), min_size=1, max_size=3)))
@settings(max_examples=25, deadline=None)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, numbers: dict[str, set[int]]) -> None:
    ids, seen = SchemaIds(), set[int]()
    for name, some in numbers.items():
        for number in sorted(some - seen):
            seen.add(number)
            if name in ids.current:
                ids.also[number] = name
            else:
                ids.current[name] = number
    path = tmp_path_factory.getbasetemp() / "written.json"
    write_ids(path, ids)
    assert read_ids(path) == ids
    assert not list(path.parent.glob("written.json?*")), "nothing is left beside it"


@pytest.mark.parametrize(
    "ids",
    [
        {"SignedRecord": [1], "SignedBeacon": [1]},
        {"SignedRecord": [1, 1]},
        {"SignedRecord": [-1]},
        {"SignedRecord": [2**32]},
        {"SignedRecord": [True]},
        {"SignedRecord": ["1"]},
        {"SignedRecord": 1},
        {"Unpinned": [1]},
        [],
        None,
    ],
)
def test_a_file_that_says_nonsense_is_refused(tmp_path: Path, ids: Any) -> None:
    path = tmp_path / "ids.json"
    path.write_text(json.dumps({"format": FORMAT, "ids": ids}))
    with pytest.raises(ConfigError):
        read_ids(path)


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"[" * 50_000, b'{"format": "x", "ids": {}}', b" " * 70_000])
def test_a_file_that_is_none_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "ids.json"
    path.write_bytes(data)
    with pytest.raises(ConfigError):
        read_ids(path)


def test_a_start_without_the_registry_takes_the_file_and_fails_without_one(tmp_path: Path) -> None:
    path, url = tmp_path / "ids.json", nobody()
    with pytest.raises(RegistryUnreachable):
        open_ids(RegistryOptions(url=url, ids_file=str(path), timeout_s=1), TOPICS)
    write_ids(path, SchemaIds({"SignedRecord": 3}))
    with pytest.raises(RegistryUnreachable):  # it lacks most schemas
        open_ids(RegistryOptions(url=url, ids_file=str(path), timeout_s=1), TOPICS)
    write_ids(path, ALL)
    assert open_ids(RegistryOptions(url=url, ids_file=str(path), timeout_s=1), TOPICS) == ALL
    assert open_framing(RegistryOptions(ids_file=str(path)), TOPICS).registry_ids == ALL.current
    assert open_framing(RegistryOptions(), TOPICS) is SINGLE_OBJECT


def test_options_come_from_the_environment_the_table_and_the_line() -> None:
    around = {"ENCLAVESCALE_REGISTRY_URL": "http://one", "ENCLAVESCALE_REGISTRY_TIMEOUT_S": "7"}
    assert read_options(None, environment=around) == RegistryOptions(url="http://one", timeout_s=7)
    assert read_options({"url": "http://two"}, environment=around).url == "http://two"
    assert read_options({"url": "http://two"}, url="http://three", environment=around).url == "http://three"


@pytest.mark.parametrize(
    "table",
    [
        {"url": "registry:8081"},
        {"url": "http://user:hunter2@registry"},
        {"url": "http://r", "username": "u"},
        {"url": "http://r", "key_file": "k"},
        {"url": "http://r", "timeout_s": 0},
        {"url": "http://r", "pasword_file": "p"},
        {"url": 3},
        "http://r",
    ],
)
def test_options_that_make_no_sense_are_refused_and_show_no_secret(table: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        read_options(table, environment={})
    assert "hunter2" not in str(refused.value)


def test_secrets_come_from_files(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3cret word\n")
    secret.chmod(0o600)
    options = RegistryOptions(url="https://r", username="me", password_file=str(secret))
    assert client_settings(options, 0)["basic.auth.user.info"] == "me:s3cret word"
    assert "s3cret" not in repr(options)
    with pytest.raises(ConfigError, match="does not exist"):
        client_settings(RegistryOptions(url="https://r", ca_file=str(tmp_path / "none")), 0)


def test_the_command_says_who_does_not_answer() -> None:
    result = CliRunner().invoke(main, ["schemas", "check", "--registry", nobody()])
    assert result.exit_code == 1
    assert result.stderr.startswith("REGISTRY_UNREACHABLE: ")
    assert CliRunner().invoke(main, ["schemas", "check"]).exit_code == 2
