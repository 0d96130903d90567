"""The few things the adapter asks of the Kafka client under Faust, all of them on Faust's consumer thread.

Faust's own commit and seek are not used: `_commit` crashes the worker on errors that only mean "not yours any
more", and `seek` touches aiokafka from the wrong thread. Errors come in three kinds: `PartitionsLost` (drop the
state), `TryAgain` (retriable or timed out), everything else (stop).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

import aiokafka
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.exceptions import ConsumerNotStarted
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth, server_list

from stream_jobs.log_slots import TopicPartition

T = TypeVar("T")
CALL_TIMEOUT_S = 5.0  # one question to a broker that is there takes milliseconds


class PartitionsLost(Exception):
    """The group has moved on: the partitions asked about are not, or not any more in this generation, ours."""


class TryAgain(Exception):
    """Retriable, or no answer in time."""


class GroupClient(Protocol):
    """What `LogAdapter` needs; tests have one without Kafka."""

    async def committed(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, str]]:
        """Committed offset and metadata of those partitions that have one."""

    async def bounds(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """Log start offset and high watermark, asked of the partitions' leaders now."""

    async def commit(
        self, offsets: Mapping[TopicPartition, tuple[int, str]], generation: int, timeout_s: float
    ) -> None:
        """Commit offset and metadata if the group's generation still is `generation`."""

    async def seek(self, tp: TopicPartition, offset: int) -> None:
        """Fetch from `offset` next."""

    async def first_at(self, tp: TopicPartition, offset: int) -> int | None:
        """The first offset >= `offset` at which there is a record, asked past the group; None: none in time."""

    async def empty_until(self, tp: TopicPartition, offset: int) -> int:
        """How far from `offset` on there is certainly no record (a transaction's marker is none); asked as above."""


class NoReadOffset(defaultdict[Any, Any]):
    """In place of Faust's `Consumer._read_offset`: Faust drops what lies below it, and a stale record still in its
    hands after a seek moves it up, so that the very records sought again never arrive. We tell by the offset."""

    def __init__(self) -> None:
        super().__init__(lambda: None)

    def __getitem__(self, key: Any) -> None:
        return None

    def __setitem__(self, key: Any, value: Any) -> None:
        pass


class FaustGroupClient:
    """`GroupClient` on a running `faust.App`."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def take_over(self) -> None:
        """Switch Faust's own position filter off; to be called once, before the app starts."""
        if not isinstance(self._app.consumer._read_offset, dict):  # pinned version; say so if that ever changes
            raise TypeError("Faust's Consumer._read_offset is not what this version of the adapter knows")
        self._app.consumer._read_offset = NoReadOffset()

    def generation(self) -> int:
        """The group generation Faust was told with the current assignment."""
        return int(self._app.consumer_generation_id)

    async def _call(self, work: Callable[[Any], Awaitable[T]], timeout_s: float = CALL_TIMEOUT_S) -> T:
        """Run `work(aiokafka consumer)` on the consumer thread, bounded there and here, errors sorted."""
        thread = self._app.consumer._thread

        async def bounded() -> T:
            if thread._consumer is None:
                raise ConsumerNotStarted
            return await asyncio.wait_for(work(thread._consumer), timeout_s)

        # Not `call_thread`: its queue has two workers, and one of them sits in Faust's fetch most of the time.
        coroutine = bounded()
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, thread.thread_loop)
        except RuntimeError:
            coroutine.close()
            raise TryAgain("the consumer thread has ended") from None
        try:
            # A second more, for a thread that does not come round: its own bound speaks first otherwise.
            return await asyncio.wait_for(asyncio.wrap_future(future), timeout_s + 1.0)
        except (CommitFailedError, IllegalStateError) as error:
            raise PartitionsLost(str(error)) from error
        except (TimeoutError, ConsumerNotStarted) as error:
            raise TryAgain(f"no answer in {timeout_s:.0f} s") from error
        except KafkaError as error:
            if error.retriable:
                raise TryAgain(repr(error)) from error
            raise

    async def committed(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, str]]:
        """See `GroupClient`."""
        wanted = [aiokafka.TopicPartition(*tp) for tp in tps]

        async def work(consumer: Any) -> dict[TopicPartition, tuple[int, str]]:
            # The public `committed` leaves the metadata out.
            found = await consumer._coordinator.fetch_committed_offsets(wanted)
            return {TopicPartition(*tp): (value.offset, value.metadata) for tp, value in found.items()}

        return await self._call(work)

    async def bounds(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """See `GroupClient`."""
        wanted = [aiokafka.TopicPartition(*tp) for tp in tps]

        async def work(consumer: Any) -> dict[TopicPartition, tuple[int, int]]:
            starts, ends = await asyncio.gather(consumer.beginning_offsets(wanted), consumer.end_offsets(wanted))
            return {TopicPartition(*tp): (starts[tp], ends[tp]) for tp in wanted}

        return await self._call(work)

    async def commit(
        self, offsets: Mapping[TopicPartition, tuple[int, str]], generation: int, timeout_s: float
    ) -> None:
        """See `GroupClient`."""

        async def work(consumer: Any) -> None:
            # A commit goes out under whatever generation the client is in when it is sent; between two of them
            # it has none, and a commit without a generation is taken by a group that happens to be empty.
            if consumer._coordinator.generation != generation:
                raise CommitFailedError(f"generation {generation} is over")
            await consumer.commit(
                {aiokafka.TopicPartition(*tp): OffsetAndMetadata(*value) for tp, value in offsets.items()}
            )

        await self._call(work, timeout_s)

    async def seek(self, tp: TopicPartition, offset: int) -> None:
        """See `GroupClient`."""

        async def work(consumer: Any) -> None:
            consumer.seek(aiokafka.TopicPartition(*tp), offset)

        await self._call(work)

    async def first_at(self, tp: TopicPartition, offset: int) -> int | None:
        """See `GroupClient`."""
        return (await self._probe(tp, offset))[0]

    async def empty_until(self, tp: TopicPartition, offset: int) -> int:
        """See `GroupClient`."""
        first, position = await self._probe(tp, offset)
        return position if first is None else first

    async def _probe(self, tp: TopicPartition, offset: int) -> tuple[int | None, int]:
        """First offset with a record from `offset` on, None without; where a consumer of its own stands after it."""
        conf, transport = self._app.conf, self._app.transport

        async def work(_: Any) -> tuple[int | None, int]:
            probe = aiokafka.AIOKafkaConsumer(
                bootstrap_servers=server_list(transport.url, transport.default_port),
                client_id=conf.broker_client_id,
                enable_auto_commit=False,
                auto_offset_reset="earliest",  # below the log's start, the answer is the start
                **credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context),
            )
            await probe.start()
            try:
                target = aiokafka.TopicPartition(*tp)
                probe.assign([target])
                probe.seek(target, offset)
                found = await probe.getmany(target, timeout_ms=int(CALL_TIMEOUT_S * 500), max_records=1)
                first = int(found[target][0].offset) if found.get(target) else None
                return first, int(await probe.position(target))
            finally:
                await probe.stop()

        return await self._call(work, 2 * CALL_TIMEOUT_S)
