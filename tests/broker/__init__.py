"""A real Apache Kafka (KRaft, one node) for the tests: `KafkaBroker` starts it, `python -m tests.broker` by hand."""

from __future__ import annotations

from tests.broker.kafka import BrokerError, KafkaBroker, missing_tools

__all__ = ["BrokerError", "KafkaBroker", "missing_tools"]
