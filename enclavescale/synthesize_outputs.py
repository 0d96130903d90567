"""Released models out of outputs: a file of them, or the output topic."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from enclavescale.reach import partitions_of_topic
from power_model.synthesis import ReleasedModel, ReleasedWindow
from schemas.codec import decode_signed_output
from schemas.errors import ConfigError, SchemaError
from schemas.mapping import from_jsonable
from schemas.records import FleetPower, OutputClass, SignedFleetPower
from stream_jobs.reading import backwards, open_reader

READ_S = 15.0
MAX_PANES = 86_400
"""Panes of one window at most: one of a day with panes of a second."""
MAX_SUM = 1 << 45
"""Largest integer of a release: a million GPUs over a day in one pane, and 2^17 such windows fit into 64 bits."""
TOP_SHARE = 1.1
"""Upper end of the last state, where nobody states the clip range: this times the capacity, but no narrower state."""

Key = tuple[str, str, tuple[int, ...]]
"""Model, sampler mode and edges: what windows must share to be one release."""


@dataclass(frozen=True, slots=True)
class Released:
    """A released model, whose it is, and in words where it comes from."""

    model: ReleasedModel
    gpu_model: str
    sampler_mode: str
    origin: str
    start_ms: int


def parse_outputs(data: bytes) -> list[FleetPower]:
    """Outputs of a file: one value as it is in the topic, or JSON as `tail --json` and `show --json` print it.

    JSON: one object, a list of them, or one a line. Signatures are not checked. Raises SchemaError, nothing else.
    """
    if data[:1] in {b"\xc3", b"\x00"}:
        return [decode_signed_output(data)[0].output]
    try:
        text = data.decode()
        documents = _documents(text)
        return [_output(one) for one in documents]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise SchemaError(f"neither an output nor JSON of outputs: {str(error)[:200]}") from error


def _documents(text: str) -> list[Any]:
    try:
        whole = json.loads(text)
    except ValueError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    return whole if isinstance(whole, list) else [whole]


def _output(document: dict[str, Any]) -> FleetPower:
    if "output" in document:
        return from_jsonable(SignedFleetPower, document).output
    return from_jsonable(FleetPower, document)


def outputs_of_topic(properties: Mapping[str, str], topic: str, domain: str | None, windows: int) -> list[FleetPower]:
    """The last `windows` windows of a domain (None: of the only one) in the output topic, oldest first.

    Raises ConfigError where the topic has several domains and none is named; cluster errors.
    """
    found: dict[str, dict[int, FleetPower]] = {}
    consumer = open_reader(properties)
    with contextlib.closing(consumer):
        for partition in partitions_of_topic(consumer, topic):
            for chunk in backwards(consumer, topic, partition, READ_S):
                full: set[str] = set()
                for message in reversed(chunk):
                    with contextlib.suppress(SchemaError):  # what is no output is not ours to report here
                        output = decode_signed_output(message.value() or b"")[0].output
                        kept = found.setdefault(output.domain, {})
                        kept.setdefault(output.window_start_ms, output)
                full = {name for name, kept in found.items() if len(kept) >= windows}
                if (domain in full) if domain else (full and full == found.keys()):
                    break
    outputs = [kept[start] for _, kept in sorted(found.items()) for start in sorted(kept)[-windows:]]
    return of_domain(outputs, domain)


def of_domain(outputs: Iterable[FleetPower], domain: str | None) -> list[FleetPower]:
    """The outputs of one domain: newest revision per window, oldest window first.

    Raises ConfigError for no output, or for several domains and none named.
    """
    newest: dict[tuple[str, int], FleetPower] = {}
    for output in outputs:
        place = (output.domain, output.window_start_ms)
        if (domain is None or output.domain == domain) and (
            place not in newest or output.revision >= newest[place].revision
        ):
            newest[place] = output
    domains = sorted({name for name, _ in newest})
    if not domains:
        raise ConfigError("no output" + (f" of domain {domain}" if domain else ""), field="domain")
    if len(domains) > 1:
        raise ConfigError(f"outputs of several domains: name one of {', '.join(domains)}", field="domain")
    return [newest[place] for place in sorted(newest)]


def released_of_outputs(
    outputs: Sequence[FleetPower],
    *,
    gpu_model: str | None = None,
    sample_hz: int = 10,
    clip_high_w: int | None = None,
) -> Released:
    """The released model of one GPU class over the outputs of one domain, oldest first.

    The class is `gpu_model`, or the one with the most GPUs in the last window that has any; only windows with its
    grid count. Raises ConfigError if there is none, SchemaError for numbers that do not fit their shapes.
    """
    key = _class_of(outputs, gpu_model)
    parts = [(output, one) for output in outputs for one in output.classes if _key(one) == key and _usable(one)]
    windows, noise, total = [], 0.0, 0
    counts = np.zeros((len(key[2]) + 2, len(key[2]) + 2), dtype=np.int64)
    ticks_per_pane: set[int] = set()
    for output, one in parts:
        window_ms = output.window_end_ms - output.window_start_ms
        panes = _integers(one.pane_sums_sum, one.pane_sums_shape, "pane_sums_sum")
        if panes.ndim != 1 or not 0 < panes.size <= MAX_PANES or window_ms <= 0 or window_ms % panes.size:
            raise SchemaError("a window is not a whole number of panes", field="pane_sums_shape")
        ticks = window_ms * sample_hz // 1000
        ticks_per_pane.add(window_ms // panes.size * sample_hz // 1000)
        # Readings that are missing are missing evenly: a pane has its share of those that were taken.
        to_w = one.pane_sum_quantum_mw / 1000 * panes.size / one.readings_taken
        windows.append(
            ReleasedWindow(
                output.window_start_ms,
                panes.astype(np.float64) * to_w,
                max(0, one.pane_noise_variance_w2) / one.gpus**2,
            )
        )
        counts += _counts(one, counts.shape)
        noise += max(0, one.transitions_noise_variance_micro) / 1e6
        total += one.gpus * (ticks - 1)
    if len(ticks_per_pane) != 1 or not min(ticks_per_pane):
        raise ConfigError("windows with panes of different lengths, or below a tick", field="sample_hz")
    model = ReleasedModel(
        edges_w=key[2],
        low_w=0,
        high_w=clip_high_w or _top_w(key[2], parts[-1][1]),
        sample_hz=sample_hz,
        ticks_per_pane=min(ticks_per_pane),
        gpus=parts[-1][1].gpus,
        transitions=counts,
        transitions_total=total,
        transitions_noise=noise,
        windows=tuple(windows),
    )
    origin = f"{parts[0][0].domain}, {len(parts)} released windows"
    return Released(model, key[0], key[1], origin, parts[0][0].window_start_ms)


def _key(one: OutputClass) -> Key:
    return one.model, one.sampler_mode, tuple(one.edges_w)


def _usable(one: OutputClass) -> bool:
    return one.gpus > 0 and one.readings_taken > 0


def _class_of(outputs: Sequence[FleetPower], gpu_model: str | None) -> Key:
    for output in reversed(outputs):
        candidates = [one for one in output.classes if _usable(one) and gpu_model in (None, one.model)]
        if candidates:
            return _key(max(candidates, key=lambda one: one.gpus))
    named = f" of {gpu_model}" if gpu_model else ""
    withheld = next((output.mean_absent_reason for output in reversed(outputs) if output.mean_absent_reason), None)
    raise ConfigError(f"no released class{named}" + (f" ({withheld})" if withheld else ""), field="gpu_model")


def _integers(data: bytes, shape: tuple[int, ...], name: str) -> npt.NDArray[np.int64]:
    cells = int(np.prod(shape, dtype=np.int64)) if shape and min(shape) > 0 and max(shape) < 1 << 20 else 0
    if not cells or len(data) != 8 * cells:
        raise SchemaError(f"{name} does not fit its shape", field=name)
    found = np.frombuffer(data, dtype="<i8").reshape(shape).astype(np.int64)
    if int(found.max()) > MAX_SUM or int(found.min()) < -MAX_SUM:
        raise SchemaError(f"{name} is out of range", field=name)
    return found


def _counts(one: OutputClass, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    counts = _integers(one.transitions_sum, one.transitions_shape, "transitions_sum")
    if counts.shape != shape:
        raise SchemaError("transitions do not fit the edges", field="transitions_shape")
    return counts


def _top_w(edges_w: tuple[int, ...], one: OutputClass) -> int:
    widths = [later - earlier for earlier, later in itertools.pairwise(edges_w)] or [edges_w[0]]
    return max(edges_w[-1] + widths[-1], round(TOP_SHARE * one.capacity_w / one.gpus))
