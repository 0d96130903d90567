"""Follow the output topic and print what a verified aggregator said; anything else goes to stderr.

    python examples/verify_output.py BOOTSTRAP TOPIC POLICY_FILE SIGNER_HEX [COLLATERAL_FILE ...]

POLICY_FILE: the signed policy, a value of the policy topic. SIGNER_HEX: who may sign policies. COLLATERAL_FILE: values
of the collateral topic, where outputs name a set. Ends with the topic if ENDS=1 is in the environment.
"""

import json
import os
import sys
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from enclavescale.judging.output import judge_output
from schemas.codec import decode_signed_output

bootstrap, topic, policy, signer, *collateral = sys.argv[1:]
trust = {"policy": Path(policy).read_bytes(), "signers": [bytes.fromhex(signer)]}
trust["collateral"] = [Path(one).read_bytes() for one in collateral]
consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "enable.partition.eof": True})
left = set(consumer.list_topics(topic, timeout=15).topics[topic].partitions)
consumer.assign([TopicPartition(topic, one, OFFSET_BEGINNING) for one in sorted(left)])
while left or os.environ.get("ENDS") != "1":
    message = consumer.poll(0.5)
    if message is None:
        continue
    if message.error() is not None:
        left -= {message.partition()} if message.error().code() == KafkaError._PARTITION_EOF else set()
        continue
    verdict = judge_output(message.value() or b"", **trust)
    if not verdict["accepted"]:
        print(f"{message.partition()}/{message.offset()}: {', '.join(verdict['codes'])}", file=sys.stderr)
        continue
    output = decode_signed_output(message.value())[0].output
    margin = output.margin.margin
    row = {"domain": output.domain, "window_start_ms": output.window_start_ms, "revision": output.revision}
    row |= {"mean_w": output.mean.value_w, "margin_w": margin and margin.value_w, "limit_w": output.margin.limit_w}
    print(json.dumps(row), flush=True)
consumer.close()
