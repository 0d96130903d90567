"""AsyncAPI 3.0 of the topics, from `schemas.topics`: `python -m tests.house.asyncapi` writes schemas/asyncapi.json."""

from __future__ import annotations

import json
from typing import Any

from schemas.topics import TOPICS, TopicSpec
from tests.house.source import ROOT

PAGE = ROOT / "schemas" / "asyncapi.json"
AVRO = "application/vnd.apache.avro;version=1.9.0"
SENDS = {"output", "manifests", "rejections", "beacons"}
"""Roles the stream job writes; the others it reads. The reports topic has its control records too."""


def _payload(spec: TopicSpec) -> dict[str, Any]:
    if spec.schema is None:
        return {"name": spec.role, "contentType": "application/octet-stream", "payload": {"type": "string"}}
    schema = {"schemaFormat": AVRO, "schema": {"$ref": f"./avsc/{spec.schema}.v1.avsc"}}
    return {"name": spec.schema, "contentType": "application/avro", "payload": schema}


def _channel(spec: TopicSpec) -> dict[str, Any]:
    kafka = {
        "topic": spec.name,
        "topicConfiguration": {
            key: [value] if key == "cleanup.policy" else int(value) if value.isdigit() else value
            for key, value in spec.config.items()
        },
        "bindingVersion": "0.5.0",
    }
    key = {"key": {"type": "string", "description": spec.key}, "bindingVersion": "0.5.0"}
    message = {**_payload(spec), "bindings": {"kafka": key}}
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
