"""Results of the long tiers: what was counted, with which seeds, on what; kept in docs/results/."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any


def write_result(name: str, result: Mapping[str, Any], *, seeds: Mapping[str, int]) -> Path | None:
    """Write `<name>.json` into $ENCLAVESCALE_RESULTS (`make accept` sets it); without it nothing is written.

    `result`: counts and figures; `seeds`: every seed that reproduces them. Host names and paths stay out.
    """
    if not re.fullmatch(r"[a-z0-9-]+", name):
        raise ValueError(name)
    directory = os.environ.get("ENCLAVESCALE_RESULTS")
    if not directory:
        return None
    document = {
        "name": name,
        "tier": os.environ.get("ENCLAVESCALE_TIER", "test"),
        "seeds": dict(seeds),
        "result": dict(result),
        "python": platform.python_version(),
        "machine": {"cpus": os.cpu_count(), "architecture": platform.machine()},
        "packages": {one: metadata.version(one) for one in ("numpy", "confluent-kafka", "faust-streaming", "opendp")},
    }
    path = Path(directory) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    return path
