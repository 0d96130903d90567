"""What a Prometheus would have stored of our /metrics, given to promtool: which alerts fire then?

A `Recording` takes the texts that an endpoint serves, scrape by scrape, as Prometheus would: every sample with `job`
and `instance`, `up` beside it, nothing where nobody answers. promtool's time begins at 0, so metrics that hold a Unix
time (`*_timestamp_seconds`) are told in seconds since the recording's `epoch_s`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.house.source import ROOT
from tests.tools import need_tool

RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
INTERVAL_S = 15
"""As `deploy/prometheus/prometheus.yml` has it."""

Series = tuple[str, tuple[tuple[str, str], ...]]


def run_promtool(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """promtool's verdict; `text` is its input."""
    return subprocess.run(
        [need_tool("promtool"), *arguments], input=text, capture_output=True, text=True, timeout=60, check=False
    )


@dataclass
class Recording:
    """Samples by series and scrape. `epoch_s`: the Unix time of the first scrape."""

    epoch_s: float = 0.0
    scrapes: int = 0
    _series: dict[Series, dict[int, float]] = field(default_factory=dict)

    @property
    def now_s(self) -> float:
        """Unix time of the next scrape."""
        return self.epoch_s + self.scrapes * INTERVAL_S

    def scrape(self, *, times: int = 1, **jobs: str | None) -> None:
        """Take one text per job (None: nobody answers), as often as said: `worker=…`, `agent=…`, with a number for
        several instances (`agent1=…`)."""
        for name, text in jobs.items():
            kind = name.rstrip("0123456789")
            self._take(text, {"job": f"enclavescale-{kind}", "instance": name}, times)
        self.scrapes += times

    def _take(self, text: str | None, target: Mapping[str, str], times: int) -> None:
        self._put("up", target, float(text is not None), times)
        for family in text_string_to_metric_families(text or ""):
            for sample in family.samples:
                value = sample.value
                if sample.name.endswith("_timestamp_seconds"):
                    value -= self.epoch_s
                self._put(sample.name, {**sample.labels, **target}, value, times)

    def _put(self, name: str, labels: Mapping[str, str], value: float, times: int) -> None:
        found = self._series.setdefault((name, tuple(sorted(labels.items()))), {})
        found.update(dict.fromkeys(range(self.scrapes, self.scrapes + times), value))

    def document(self, firing: set[str]) -> str:
        """promtool's test: after the last scrape exactly these alerts fire. JSON, which is YAML."""
        return json.dumps(
            {
                "rule_files": [str(RULES)],
                "evaluation_interval": f"{INTERVAL_S}s",
                "tests": [
                    {
                        "interval": f"{INTERVAL_S}s",
                        "input_series": [
                            {"series": _selector(*series), "values": self._values(found)}
                            for series, found in self._series.items()
                        ],
                        "promql_expr_test": [
                            {
                                "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
                                "eval_time": f"{(self.scrapes - 1) * INTERVAL_S}s",
                                "exp_samples": [
                                    {"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(firing)
                                ],
                            }
                        ],
                    }
                ],
            }
        )

    def _values(self, found: Mapping[int, float]) -> str:
        """promtool's notation; runs of one value are shortened, what was not scraped is a gap or stale."""
        cells: list[tuple[str, int]] = []
        for number in range(self.scrapes):
            missing = "stale" if number - 1 in found else "_"
            cell = _number(found[number]) if number in found else missing
            if cells and cells[-1][0] == cell:
                cells[-1] = cell, cells[-1][1] + 1
            else:
                cells.append((cell, 1))
        return " ".join(_run(cell, count) for cell, count in cells)


def _number(value: float) -> str:
    return "NaN" if value != value else repr(float(value)).replace("inf", "Inf").replace("+Inf", "Inf")


def _run(cell: str, count: int) -> str:
    if count == 1 or cell in ("stale", "NaN", "Inf", "-Inf"):
        return " ".join([cell] * count)
    return f"_x{count}" if cell == "_" else f"{cell}x{count - 1}"


def _selector(name: str, labels: tuple[tuple[str, str], ...]) -> str:
    return name + "{" + ",".join(f"{label}={json.dumps(value)}" for label, value in labels) + "}"


def assert_firing(recording: Recording, firing: set[str], tmp_path: Path) -> None:
    """Exactly these alerts fire after the recording's last scrape."""
    path = tmp_path / "recorded.yml"
    path.write_text(recording.document(firing))
    done = run_promtool("test", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
