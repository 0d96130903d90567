"""Write the rows of verify_output.py to a topic as Kafka Connect's JSON converter reads them: schema beside payload.

    python examples/verify_output.py ... | python examples/rows_to_topic.py BOOTSTRAP TOPIC

What a sink then gets was verified before; the sink itself verifies nothing.
"""

import json
import sys

from confluent_kafka import Producer

KEYS = [("domain", "string"), ("window_start_ms", "int64"), ("revision", "int32")]
FIGURES = [("mean_w", "int64"), ("margin_w", "int64"), ("limit_w", "int64")]
FIELDS = [{"field": name, "type": kind, "optional": False} for name, kind in KEYS]
FIELDS += [{"field": name, "type": kind, "optional": True} for name, kind in FIGURES]
SCHEMA = {"type": "struct", "name": "fleet_power", "optional": False, "fields": FIELDS}

bootstrap, topic = sys.argv[1:]
producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
for line in sys.stdin:
    row = json.loads(line)
    key = "/".join(str(row[name]) for name, _ in KEYS)
    producer.produce(topic, json.dumps({"schema": SCHEMA, "payload": row}), key)
    producer.poll(0)
sys.exit(1 if producer.flush(30) else 0)
