"""One fleet on a broker that denies by default: users by role, a policy, and every command as somebody runs it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from click.testing import Result
from cryptography.hazmat.primitives.asymmetric import ec

from attester.signing import public_point
from attester.simulated import SimulatedTee
from enclavescale.fleet import AGGREGATOR_ID, demo_fleet, sign_policy
from tests.broker.secured import SecuredBroker
from tests.cli.conftest import ENVIRONMENT, PROGRAM, call

ROLES = {
    "host": "host-a",
    "checking-host": "host-c",
    "worker": "worker-a",
    "page": "page-a",
    "consumer": "consumer-a",
    "auditor": "auditor-a",
    "policy-admin": "policy-a",
    "topic-admin": "topics-a",
}
"""A user of each role; `nobody` has none, `root` every right."""

GROUP = "fleet"
WINDOW_MS = 1_000
DEADLINE_S = 150.0
PREFIX = "site"


def passwords() -> dict[str, str]:
    """Of every user; long and unlike anything else, for they are searched for in everything that was written."""
    users = ["root", "nobody", *ROLES.values()]
    return {user: f"Geheim-{index}-{os.urandom(9).hex()}" for index, user in enumerate(users)}


@dataclasses.dataclass
class Estate:
    """The broker, a directory with policy, keys and configurations, and what every process has written so far."""

    broker: SecuredBroker
    directory: Path
    signer: str
    policy: Path
    hosts: tuple[str, ...]
    heard: list[str] = dataclasses.field(default_factory=list)

    @classmethod
    def make(cls, broker: SecuredBroker, directory: Path) -> Estate:
        """A policy for two hosts and an aggregator, signed."""
        tee = SimulatedTee.create(directory / "tee")
        fleet = demo_fleet(
            tee,
            hosts=2,
            gpus=2,
            window_ms=WINDOW_MS,
            now_ms=int(time.time() * 1000),
            create_time=False,
            partitions=(0, 0),
        )
        key = ec.generate_private_key(ec.SECP256R1())
        policy = directory / "policy.avro"
        made = dataclasses.replace(fleet.policy, accepted_sources=("simulated",))
        policy.write_bytes(sign_policy(made, key))
        return cls(
            broker, directory, public_point(key.public_key()).hex(), policy, tuple(one.host_id for one in made.hosts)
        )

    def secrets(self) -> list[str]:
        """What nobody may find anywhere."""
        return list(self.broker.passwords.values())

    def written(self) -> list[str]:
        """Everything that commands, processes and the broker have written."""
        logs = [self.broker.log_path, *self.directory.glob("*.log")]
        return [*self.heard, *(path.read_text(errors="replace") for path in logs)]

    def config(self, name: str, kafka: Mapping[str, str]) -> Path:
        """A settings file with table `kafka`; the password in a file of its own, as an operator would keep it."""
        table = dict(kafka)
        if "sasl.password" in table:
            secret = self.directory / f"{name}.password"
            secret.write_text(table.pop("sasl.password") + "\n")
            secret.chmod(0o600)
            table["sasl.password.file"] = str(secret)
        path = self.directory / f"{name}.json"
        path.write_text(json.dumps({"kafka": table}))
        return path

    def agent_config(self, name: str, kafka: Mapping[str, str], **fields: Any) -> Path:
        """A host agent's file for both hosts."""
        table: dict[str, Any] = {
            "policy": str(self.policy),
            "policy_signers": [self.signer],
            "spool": str(self.directory / f"{name}-spool.db"),
            "tee": "simulated",
            "tee_directory": str(self.directory / "tee"),
            "topic_prefix": PREFIX,
            "hosts": [{"host_id": one, "source": "simulated"} for one in self.hosts],
            **fields,
            **json.loads(self.config(name, kafka).read_text()),
        }
        path = self.directory / f"{name}-agent.json"
        path.write_text(json.dumps(table))
        return path

    def options(self, name: str, kafka: Mapping[str, str]) -> list[str]:
        """Options that name the cluster as a user, and the topics."""
        return ["--kafka-config", str(self.config(name, kafka)), "--topic-prefix", PREFIX]

    def as_role(self, role: str) -> dict[str, str]:
        """Properties of the role's user, by SCRAM-SHA-512."""
        return self.broker.client(ROLES[role])

    def worker_arguments(self, kafka: Mapping[str, str], name: str = "worker", group: str = GROUP) -> list[str]:
        """Of `enclavescale worker`."""
        arguments = ["worker", *self.options(name, kafka), "--group", group, "--host-id", AGGREGATOR_ID]
        return [*arguments, "--policy-signer", self.signer, "--simulated-tee", str(self.directory / "tee")]

    def run(self, *arguments: str) -> Result:
        """A command to its end, in this process; what it wrote is kept."""
        done = call(*arguments)
        self.heard.append(done.stdout + done.stderr)
        return done

    def grant(self, role: str, user: str | None = None) -> None:
        """Give a user, or the role's own, the rights of a role, as `root`."""
        arguments = ["access", "apply", *self.options("root", self.broker.client("root")), "--role", role]
        arguments += ["--principal", f"User:{user or ROLES[role]}"]
        done = self.run(*arguments, *(["--group", GROUP] if role == "worker" else []))
        assert done.exit_code == 0, done.output

    def begin(self, arguments: Sequence[str], log: str) -> tuple[subprocess.Popen[bytes], Path]:
        """A command that goes on, and the file with what it writes."""
        path = self.directory / f"{log}.log"
        with path.open("wb") as file:
            return subprocess.Popen(
                [*PROGRAM, *arguments], stdout=file, stderr=subprocess.STDOUT, env=ENVIRONMENT
            ), path


def wait_until(done: Callable[[], object], what: str, process: subprocess.Popen[bytes] | None = None) -> None:
    """Look again until it is so; fail after `DEADLINE_S`, or when a process that was to do it has ended."""
    end, pause = time.monotonic() + DEADLINE_S, threading.Event()
    while not done():
        if process is not None and process.poll() is not None:
            raise AssertionError(f"ended before {what}: {process.returncode}")
        if time.monotonic() > end:
            raise AssertionError(f"not in {DEADLINE_S:.0f} s: {what}")
        pause.wait(0.1)
