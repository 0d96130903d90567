"""Follow outputs and rejections of all partitions, outside of every group: assign, read, never commit."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from schemas.errors import EnclaveScaleError, SchemaError
from schemas.records import DomainRule
from schemas.topics import TopicNames
from stream_jobs.reading import ReadFailed, open_reader
from stream_jobs.web.board import Board
from stream_jobs.web.judging import OutputJudge
from stream_jobs.web.refusals import refusal_of

logger = logging.getLogger(__name__)

ASK_S = 2.0
"""Brokers are asked so often for partitions, and so whether they answer, s."""

ANSWER_S = 4.0
"""… and have so long to answer, s."""

STANDING_S = 15.0
"""Policies and collateral are read again so often, s."""

POLL_S = 0.2
BATCH = 50
"""Messages taken at once: dead letters may have half a megabyte."""

MAX_TAIL = 20_000
"""Outputs of one partition that are read again at a start, at most."""

TAIL_REFUSALS = 50
"""Dead letters of one partition that are read again at a start."""

FETCH_LIMITS = {
    "queued.max.messages.kbytes": "16384",  # librdkafka's 64 MB per client would be most of this process
    "fetch.message.max.bytes": "1048576",
}


@dataclass(frozen=True, slots=True)
class _Place:
    topic: str
    partition: int
    first: int


class Follower:
    """Three threads: one asks the brokers what there is, one what is in force, one reads and judges.

    A context manager. `keep`: windows of history per domain; `wall`: UTC seconds.
    """

    def __init__(
        self,
        kafka: Mapping[str, str],
        topics: TopicNames,
        board: Board,
        judge: OutputJudge,
        *,
        keep: int,
        wall: Callable[[], float] = time.time,
    ):
        self._topics, self._board, self._judge, self._keep, self._wall = topics, board, judge, keep, wall
        self._consumer: Consumer = open_reader({**FETCH_LIMITS, **kafka})
        # A client of its own: questions that share one with a thread that reads may wait for ever.
        self._asking: Consumer = open_reader(kafka)
        self._stop = threading.Event()
        self._found: SimpleQueue[_Place] = SimpleQueue()
        self._known: set[tuple[str, int]] = set()
        self._rules: tuple[DomainRule, ...] | None = None
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=f"page-{work.__name__.strip('_')}", daemon=True)
            for work in (self._watch, self._stand, self._read)
        ]
        self.failure: BaseException | None = None

    def __enter__(self) -> Follower:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._judge.close()
        self._asking.close()
        self._consumer.close()

    @property
    def alive(self) -> bool:
        """Whether all threads still run."""
        return self.failure is None and all(one.is_alive() for one in self._threads)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self.failure = error
            logger.critical("the page's reader ended", exc_info=True)

    # -- what there is ---------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._stop.is_set():
            with self._telling():
                self._ask()
            self._stop.wait(ASK_S)

    def _stand(self) -> None:
        while not self._stop.wait(STANDING_S):
            with self._telling():
                self._board.stands(self._judge.standing(int(self._wall() * 1000)))

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """What brokers do not answer is told to the board, and tried again."""
        try:
            yield
        except KafkaException as error:
            cause = error.args[0]
            self._board.failed(cause.str() if hasattr(cause, "str") else str(error))
        except EnclaveScaleError as error:
            self._board.failed(f"{error.code}: {error}")

    def _ask(self) -> None:
        followed = {}
        for topic in (self._topics.output, self._topics.rejections):
            found = self._asking.list_topics(topic, timeout=ANSWER_S).topics[topic]
            followed[topic] = found.error is None
            if found.error is not None and topic == self._topics.output:
                raise ReadFailed(f"{topic}: {found.error.str()}")
            self._board.contact(int(self._wall() * 1000))
            for partition in sorted(found.partitions) if found.error is None else ():
                if (topic, partition) not in self._known:
                    self._meet(topic, partition)
        self._board.met(rejections=followed[self._topics.rejections])

    def _meet(self, topic: str, partition: int) -> None:
        low, end = self._asking.get_watermark_offsets(TopicPartition(topic, partition), timeout=ANSWER_S)
        if topic == self._topics.output:
            first = max(low, end - min(MAX_TAIL, self._keep * self._domains_on(partition)))
            self._board.partition(partition, end if end > first else 0)
        else:
            first = max(low, end - TAIL_REFUSALS)
            self._board.letters(partition, end if end > first else 0)
        self._known.add((topic, partition))
        self._found.put(_Place(topic, partition, first))

    def _domains_on(self, partition: int) -> int:
        """How many domains share a partition, as far as a policy says; 1 at least."""
        if self._rules is None:
            standing = self._judge.standing(int(self._wall() * 1000))
            self._board.stands(standing)
            self._rules = () if standing.policy is None else standing.policy.policy.domains
        return max(1, sum(1 for rule in self._rules if rule.partition == partition))

    # -- reading ---------------------------------------------------------------------------------------------

    def _read(self) -> None:
        while not self._stop.is_set():
            self._assign_found()
            for message in self._consumer.consume(BATCH, POLL_S):
                if message.error() is not None:
                    logger.debug("%s[%s]: %s", message.topic(), message.partition(), message.error())
                elif message.topic() == self._topics.output:
                    self._take_output(message)
                else:
                    self._board.refusal(refusal_of(message, int(self._wall() * 1000)))
                if self._stop.is_set():
                    return

    def _assign_found(self) -> None:
        places = []
        while True:
            try:
                place = self._found.get_nowait()
            except Empty:
                break
            places.append(TopicPartition(place.topic, place.partition, place.first))
        if places:
            self._consumer.incremental_assign(places)

    def _take_output(self, message: Message) -> None:
        partition, offset = message.partition() or 0, message.offset() or 0
        now_ms = int(self._wall() * 1000)
        stamp = message.timestamp()[1]
        at_ms = stamp if 0 < stamp <= now_ms else now_ms
        while not self._stop.is_set():
            try:
                self._board.take(self._judge.judge(message.value() or b""), partition, offset, at_ms)
            except ReadFailed as error:  # which policy it names, brokers must say: nothing else can be done meanwhile
                self._board.failed(f"{error.code}: {error}")
                self._stop.wait(1.0)
                continue
            except SchemaError as error:
                self._board.malformed(partition, offset, at_ms, error.code, str(error))
            break
        self._board.passed(partition, offset, now_ms)
