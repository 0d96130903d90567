"""One secured broker for the session, with users by role, their rights and the topics."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.broker.secured import SecuredBroker
from tests.security.estate import ROLES, Estate, passwords


@pytest.fixture(scope="session")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    """Rights by `access apply`, topics by `topics create`, the policy by `policy apply`: each as its own user."""
    directory = tmp_path_factory.mktemp("estate")
    with SecuredBroker.with_users(directory, passwords()) as broker:
        made = Estate.make(broker, directory)
        for role in ROLES:
            made.grant(role)
        topics = made.options("topics", made.as_role("topic-admin"))
        done = made.run("topics", "create", *topics, "--partitions", "1", "--replication", "1")
        assert done.exit_code == 0, done.output
        policy = made.options("policy", made.as_role("policy-admin"))
        done = made.run("policy", "apply", str(made.policy), *policy, "--policy-signer", made.signer)
        assert done.exit_code == 0, done.output
        yield made
