"""The demo's broker: librdkafka's own mock cluster, in a process of its own. Not durable; for demonstrations only.

`python -m enclavescale.embedded TOPIC=PARTITIONS…` prints the bootstrap address and serves until stdin closes.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import confluent_kafka

from schemas.errors import ConfigError

RD_KAFKA_PRODUCER = 0


def _library() -> ctypes.CDLL:
    """librdkafka as confluent-kafka ships it: beside the package, or already loaded into the process."""
    package = Path(confluent_kafka.__file__).parent
    for folder in (package.parent / "confluent_kafka.libs", package / ".dylibs", package):
        for path in sorted(folder.glob("librdkafka*")):
            return ctypes.CDLL(str(path))
    raise ConfigError("confluent-kafka ships no librdkafka here; use --bootstrap with a real broker")


class MockCluster:
    """A single mock broker on a free loopback port. Keeps at most 5 MiB per partition, in memory."""

    def __init__(self, topics: dict[str, int]):
        lib = _library()
        lib.rd_kafka_conf_new.restype = ctypes.c_void_p
        lib.rd_kafka_new.restype = ctypes.c_void_p
        lib.rd_kafka_new.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
        lib.rd_kafka_mock_cluster_new.restype = ctypes.c_void_p
        lib.rd_kafka_mock_cluster_new.argtypes = [ctypes.c_void_p, ctypes.c_int]
        lib.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
        lib.rd_kafka_mock_cluster_bootstraps.argtypes = [ctypes.c_void_p]
        lib.rd_kafka_mock_topic_create.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
        lib.rd_kafka_mock_group_initial_rebalance_delay_ms.argtypes = [ctypes.c_void_p, ctypes.c_int32]
        error = ctypes.create_string_buffer(512)
        self._handle = lib.rd_kafka_new(RD_KAFKA_PRODUCER, lib.rd_kafka_conf_new(), error, 512)
        if not self._handle:
            raise ConfigError(f"librdkafka: {error.value.decode()}")
        self._cluster = lib.rd_kafka_mock_cluster_new(self._handle, 1)
        lib.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        for name, partitions in topics.items():
            lib.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1)
        self.bootstrap: str = lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()


def main(arguments: list[str]) -> None:
    """Serve the topics named until stdin closes, which it does when the parent ends, however it ends."""
    topics = {name: int(count) for name, count in (one.rsplit("=", 1) for one in arguments)}
    cluster = MockCluster(topics)
    sys.stdout.write(cluster.bootstrap + "\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1:])
