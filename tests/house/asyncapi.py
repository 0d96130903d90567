"""AsyncAPI 3.0 of the topics, from `schemas.topics`: `python -m tests.house.asyncapi` writes schemas/asyncapi.json."""

from __future__ import annotations

import json
import re
from typing import Any

from schemas.topics import TOPICS, TopicSpec, settings_of
from tests.house.source import ROOT

PAGE = ROOT / "schemas" / "asyncapi.json"
AVRO = "application/vnd.apache.avro;version=1.9.0"
SENDS = {"output", "manifests", "rejections", "beacons"}
"""Roles the stream job writes; the others it reads. The reports topic has its control records too."""

CLOUD_EVENT = {
    "ce_specversion": "CloudEvents 1.0, Kafka protocol binding, binary content mode",
    "ce_id": "digest of the record, hexadecimal",
    "ce_source": "who wrote it: a host, or a domain",
    "ce_type": "kind of the record",
    "ce_time": "end of the window, RFC 3339",
    "content-type": "application/avro",
}
DEAD_LETTER = {
    "__connect.errors.topic": "topic of the refused record",
    "__connect.errors.partition": "its partition",
    "__connect.errors.offset": "its offset: with topic and partition its identity",
    "__connect.errors.connector.name": "who refused it",
    "__connect.errors.task.id": "its partition, again",
    "__connect.errors.stage": "VALUE_CONVERTER where it could not be decoded, else TRANSFORMATION",
    "__connect.errors.exception.class.name": "org.enclavescale. and the code",
    "__connect.errors.exception.message": "why, for people",
    "enclavescale.error.code": "why, for programs: docs/codes.md",
    "enclavescale.original.size": "bytes of its value, which is cut at the reports topic's largest",
    "enclavescale.original.sha256": "digest of its value, hexadecimal",
    "enclavescale.record.digest": "its own digest where it could be decoded, hexadecimal",
    "enclavescale.original.key.size": "bytes of its key, where that was cut",
}
HEADERS = {
    "reports": CLOUD_EVENT,
    "output": {**CLOUD_EVENT, "ce_revision": "revision of the window"},
    "rejections": DEAD_LETTER,
}
"""Headers by role, with what they hold; all of it is in the records, too. Nothing is decided by them."""

OPTIONAL = ("enclavescale.record.digest", "enclavescale.original.key.size")
CONTROL_RECORDS = "A worker's control records carry none."


def _payload(spec: TopicSpec) -> dict[str, Any]:
    if spec.schema is None:
        return {"name": spec.role, "contentType": "application/octet-stream", "payload": {"type": "string"}}
    schema = {"schemaFormat": AVRO, "schema": {"$ref": f"./avsc/{spec.schema}.v1.avsc"}}
    return {"name": spec.schema, "contentType": "application/avro", "payload": schema}


def _headers(role: str) -> dict[str, Any]:
    names = HEADERS.get(role)
    if names is None:
        return {}
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: {"type": "string", "description": text} for name, text in names.items()},
    }
    if role == "reports":
        schema["description"] = CONTROL_RECORDS
    else:
        schema["required"] = [name for name in names if name not in OPTIONAL]
    return {"headers": schema}


def _setting(name: str, value: str) -> Any:
    if name == "cleanup.policy":
        return value.split(",")
    return int(value) if re.fullmatch(r"-?\d+", value) else value


def _channel(spec: TopicSpec) -> dict[str, Any]:
    kafka = {
        "topic": spec.name,
        "topicConfiguration": {name: _setting(name, value) for name, value in settings_of(spec).items()},
        "bindingVersion": "0.5.0",
    }
    key = {"key": {"type": "string", "description": spec.key}, "bindingVersion": "0.5.0"}
    message = {**_payload(spec), **_headers(spec.role), "bindings": {"kafka": key}}
    return {
        "address": spec.name,
        "description": spec.description,
        "messages": {spec.role: message},
        "bindings": {"kafka": kafka},
    }


def render() -> str:
    """The whole document."""
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "EnclaveScale",
            "version": "1",
            "description": "Attested, differentially private GPU power telemetry. Actions are the stream job's.",
            "license": {"name": "Apache-2.0"},
        },
        "channels": {spec.role: _channel(spec) for spec in TOPICS},
        "operations": {
            f"{'send' if spec.role in SENDS else 'receive'}-{spec.role}": {
                "action": "send" if spec.role in SENDS else "receive",
                "channel": {"$ref": f"#/channels/{spec.role}"},
            }
            for spec in TOPICS
        }
        | {"send-control": {"action": "send", "channel": {"$ref": "#/channels/reports"}}},
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render())
    print(f"wrote {PAGE.relative_to(ROOT)}")
