"""Plots of one domain over time: power, margin, coverage, refusals, verdicts. Columns as `columns_of` gives them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from enclavescale.live import moment
from enclavescale.report.svg import COLOURS, SETTINGS, clean_svg
from stream_jobs.replay.verdicts import Verdict

Columns = Mapping[str, Any]
Paint = Callable[[Axes, Columns], None]
Legend = tuple[tuple[str, str], ...]
Edges = tuple[float, float]

WIDE, NARROW = 760.0, 360.0
"""Widths of a plot on a screen and on a telephone, CSS pixels at most."""

LEFT = 66.0
"""Room for labels left of a plot, pixels."""

MAX_MARKS = 160
"""Columns drawn as a mark each; beyond, neighbours that are identical are one bar."""

MAX_REFUSAL_CODES = 6
"""Codes with a colour of their own; the others share one."""

MARKS = {
    Verdict.IDENTICAL: ("identical", "s"),
    Verdict.DIFFERS: ("differs", "D"),
    Verdict.MISSING: ("missing", "o"),
    Verdict.EXTRA: ("extra", "X"),
    Verdict.INPUT_LOST: ("lost", "v"),
    Verdict.PENDING: ("pending", "^"),
}
"""Colour and shape of each verdict."""

_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200, 86_400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A drawn plot: SVG texts for wide and narrow pages; `legend`: class of a colour and what it stands for."""

    name: str
    heading: str
    note: str
    wide: str
    narrow: str
    legend: Legend = ()


def refusal_codes(columns: Columns) -> tuple[str, ...]:
    """Codes with a colour of their own, the most frequent first."""
    totals: Counter[str] = Counter()
    for counts in columns["refused"]:
        totals.update(counts)
    ordered = sorted(totals.items(), key=lambda one: (-one[1], one[0]))
    return tuple(code for code, _ in ordered[:MAX_REFUSAL_CODES])


def domain_plots(columns: Columns, name: str) -> list[Plot]:
    """All plots of a domain; `name` begins their ids."""
    unit = _unit(columns["mean_w"], columns["margin_w"])
    limits = [one for one in columns["limit_w"] if one is not None]
    beyond = bool(limits) and max(one[1] for one in limits) > 3 * _highest(columns["mean_w"])
    above = f" The limit, {_amount(max(one[1] for one in limits), unit)}, lies above." if beyond else ""
    merged = any(count > 1 for count in columns["windows"])
    spans = f" A column spans {_duration(columns['column_ms'])}: the line is its least and most." if merged else ""
    codes = refusal_codes(columns)
    legend: Legend = tuple((f"c{number}", code) for number, code in enumerate(codes))
    others = sorted({code for counts in columns["refused"] for code in counts} - set(codes))
    if others:
        legend = (*legend, (f"c{MAX_REFUSAL_CODES}", f"{len(others)} more codes" if len(others) > 1 else others[0]))
    band = f"Line: mean of the window; band: 95 % interval; dashed: limit.{above}{spans}"
    margin = f"Line: margin; band: its interval.{spans}"
    share = f"Line: what reported; dashed: the quorum.{spans}"
    refused = "Refused records per column" if merged else "Refused records per window"
    marks = f"One mark per window, over time.{_marks_note(columns)}"
    stacked = "Stacked by code, in the order of the legend from below."

    def draw(key: str, heading: str, note: str, height: float, paint: Paint, legend: Legend = ()) -> Plot:
        return _draw(columns, f"{name}-{key}", heading, note, height, paint, legend)

    return [
        draw("verdicts", "Verdicts", marks, _verdict_height(columns), _verdicts),
        draw(
            "power",
            f"Mean power, {unit[1]}",
            band,
            150.0,
            lambda axis, some: _power(axis, some, unit, with_limit=not beyond),
        ),
        draw(
            "margin", f"Margin below the limit, {unit[1]}", margin, 130.0, lambda axis, some: _margin(axis, some, unit)
        ),
        draw("coverage", "Coverage, % of the enrolled capacity", share, 110.0, _coverage),
        draw("refusals", refused, stacked, 110.0, lambda axis, some: _refusals(axis, some, codes), legend),
    ]


def _draw(
    columns: Columns,
    name: str,
    heading: str,
    note: str,
    height: float,
    paint: Paint,
    legend: Legend,
) -> Plot:
    first, last = min(columns["start_ms"]), max(columns["end_ms"])
    description = f"{note} From {moment(first)} to {moment(last)}, {len(columns['start_ms'])} columns."
    texts = []
    for kind, width in (("w", WIDE), ("n", NARROW)):
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(SETTINGS)
            figure = Figure(figsize=(width / 72, height / 72), facecolor="none")
            bottom = 26.0  # the same edges in every plot of a domain, so that their times stand in line
            size = (width - LEFT - 10) / width, (height - bottom - 8) / height
            axis = figure.add_axes((LEFT / width, bottom / height, *size))
            axis.patch.set_visible(False)
            _dress(axis)
            paint(axis, columns)
            _time(axis, first, last, width)
            texts.append(clean_svg(figure, f"{name}-{kind}", heading, description))
    return Plot(name=name, heading=heading, note=note, wide=texts[0], narrow=texts[1], legend=legend)


def _dress(axis: Axes) -> None:
    axis.grid(True, axis="y", color=COLOURS["grid"], linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(colors=COLOURS["soft"], labelsize=9.5, length=0, pad=5)
    axis.tick_params(axis="x", pad=9)
    for place, spine in axis.spines.items():
        spine.set_visible(place == "bottom")
        spine.set_color(COLOURS["grid"])


def _time(axis: Axes, first_ms: int, last_ms: int, width: float) -> None:
    """Ticks at round times, few enough for their labels. Seconds since `first_ms` on the axis."""
    span_s = max(1.0, (last_ms - first_ms) / 1000)
    most = 9 if width == WIDE else 4
    step_s = next((one for one in _STEPS_S if span_s / one <= most), None)
    if step_s is None:
        step_s = 86_400 * math.ceil(span_s / 86_400 / most)
    begin_s = -(-first_ms // (step_s * 1000)) * step_s
    ticks = range(begin_s, last_ms // 1000 + 1, step_s)
    axis.set_xticks([at_s - first_ms / 1000 for at_s in ticks], [_tick(at_s, step_s) for at_s in ticks])
    axis.set_xlim(0, span_s)


def _tick(at_s: int, step_s: int) -> str:
    text = moment(at_s * 1000)
    if not text.endswith("Z"):
        return str(at_s)
    return text[5:10] if step_s >= 86_400 else text[11:16] if step_s >= 60 else text[11:19]


def _steps(columns: Columns, values: Sequence[Edges | None]) -> tuple[list[float], list[float], list[float]]:
    """x (s since the first window), low and high of a stepped band; broken where nothing is or time is left out."""
    begin_ms = min(columns["start_ms"])
    x: list[float] = []
    low: list[float] = []
    high: list[float] = []
    last_ms = begin_ms
    for start_ms, end_ms, value in zip(columns["start_ms"], columns["end_ms"], values, strict=True):
        if value is None or start_ms > last_ms:
            x.append((start_ms - begin_ms) / 1000)
            low.append(math.nan)
            high.append(math.nan)
        if value is not None:
            x += [(start_ms - begin_ms) / 1000, (end_ms - begin_ms) / 1000]
            low += [value[0]] * 2
            high += [value[1]] * 2
        last_ms = end_ms
    return x, low, high


def _line(axis: Axes, columns: Columns, values: Sequence[Edges | None], ink: str, **style: Any) -> None:
    """Least and most of every column; one line where they are the same."""
    x, low, high = _steps(columns, values)
    apart = any(one is not None and one[0] != one[1] for one in values)
    if apart:
        axis.fill_between(x, low, high, facecolor=COLOURS[ink], alpha=0.55, linewidth=0)
    for line in (low, high) if apart else (low,):
        axis.plot(x, line, color=COLOURS[ink], **{"linewidth": 1.5, **style})


def _band(axis: Axes, columns: Columns, spans: Sequence[Sequence[int] | None], unit: tuple[float, str]) -> None:
    edges = [None if one is None else (one[2] / unit[0], one[3] / unit[0]) for one in spans]
    x, low, high = _steps(columns, edges)
    axis.fill_between(x, low, high, facecolor=COLOURS["band"], alpha=0.25, linewidth=0)
    lines = [None if one is None else (one[0] / unit[0], one[1] / unit[0]) for one in spans]
    _line(axis, columns, lines, "power")


def _power(axis: Axes, columns: Columns, unit: tuple[float, str], *, with_limit: bool) -> None:
    _band(axis, columns, columns["mean_w"], unit)
    if with_limit:
        limits = [None if one is None else (one[0] / unit[0], one[1] / unit[0]) for one in columns["limit_w"]]
        _line(axis, columns, limits, "limit", linewidth=1.3, linestyle=(0, (5, 3)))
    axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))


def _margin(axis: Axes, columns: Columns, unit: tuple[float, str]) -> None:
    _band(axis, columns, columns["margin_w"], unit)
    low, high = axis.get_ylim()
    axis.axhline(0, color=COLOURS["limit"], linewidth=1.3, linestyle=(0, (5, 3)))
    axis.set_ylim(min(low, 0.0), max(high, 0.0))


def _coverage(axis: Axes, columns: Columns) -> None:
    shares = [None if one is None else (one[0] / 10_000, one[1] / 10_000) for one in columns["coverage_ppm"]]
    _line(axis, columns, shares, "power")
    quorum = [
        one / 10_000 if count else None for one, count in zip(columns["quorum_ppm"], columns["windows"], strict=True)
    ]
    _line(axis, columns, [None if one is None else (one, one) for one in quorum], "limit", linewidth=1.3,
          linestyle=(0, (5, 3)))  # fmt: skip
    axis.set_ylim(0, max(105.0, axis.get_ylim()[1]))
    axis.set_yticks([0, 50, 100])


def _refusals(axis: Axes, columns: Columns, codes: Sequence[str]) -> None:
    floor = [0.0] * len(columns["refused"])
    named = set(codes)
    layers: list[list[int]] = [[counts.get(code, 0) for counts in columns["refused"]] for code in codes]
    layers.append([sum(count for code, count in counts.items() if code not in named) for counts in columns["refused"]])
    for number, layer in enumerate(layers):
        top = [below + count for below, count in zip(floor, layer, strict=True)]
        if any(layer):
            ink = f"c{number if number < len(codes) else MAX_REFUSAL_CODES}"
            x, low, high = _steps(columns, list(zip(floor, top, strict=True)))
            axis.fill_between(x, low, high, facecolor=COLOURS[ink], linewidth=0)
        floor = top
    axis.set_ylim(0, max(1.0, 1.08 * max(floor, default=0.0)))
    axis.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))


# -- verdicts --------------------------------------------------------------------------------------------------------


def _kinds(columns: Columns) -> list[Verdict]:
    met = {kind for counts in columns["verdicts"] for kind in counts}
    return [kind for kind in Verdict if kind is Verdict.IDENTICAL or kind.value in met]


def _verdict_height(columns: Columns) -> float:
    return 38.0 + 17.0 * len(_kinds(columns))


def _marks_note(columns: Columns) -> str:
    merged = any(sum(counts.values()) > 1 for counts in columns["verdicts"])
    return " A window that was revised, or a column of several, has one mark of each kind." if merged else ""


def _verdicts(axis: Axes, columns: Columns) -> None:
    kinds = _kinds(columns)
    begin_ms = min(columns["start_ms"])
    for row, kind in enumerate(reversed(kinds)):
        ink, shape = MARKS[kind]
        ranges = [
            ((start_ms - begin_ms) / 1000, (end_ms - begin_ms) / 1000)
            for start_ms, end_ms, counts in zip(
                columns["start_ms"], columns["end_ms"], columns["verdicts"], strict=True
            )
            if counts.get(kind.value)
        ]
        if kind is Verdict.IDENTICAL and len(columns["start_ms"]) > MAX_MARKS:
            bars = [(first, last - first) for first, last in _joined(ranges)]
            axis.broken_barh(bars, (row - 0.28, 0.56), facecolor=COLOURS[ink], linewidth=0)
            continue
        middles = [(first + last) / 2 for first, last in ranges]
        hollow = kind is Verdict.MISSING
        axis.plot(
            middles,
            [row] * len(middles),
            linestyle="none",
            marker=shape,
            markersize=5.0 if kind is Verdict.IDENTICAL else 7.5,
            markerfacecolor="none" if hollow else COLOURS[ink],
            markeredgecolor=COLOURS[ink],
            markeredgewidth=1.6 if hollow else 0.0,
            clip_on=False,
        )
    axis.set_ylim(-0.6, len(kinds) - 0.4)
    axis.set_yticks(range(len(kinds)), [kind.value for kind in reversed(kinds)])
    axis.grid(False)


def _joined(ranges: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for first, last in ranges:
        if found and first <= found[-1][1]:
            found[-1] = found[-1][0], max(last, found[-1][1])
        else:
            found.append((first, last))
    return found


# -- units -----------------------------------------------------------------------------------------------------------


def _highest(spans: Sequence[Sequence[int] | None]) -> int:
    return max((max(abs(value) for value in one) for one in spans if one is not None), default=0)


def _unit(*spans: Sequence[Sequence[int] | None]) -> tuple[float, str]:
    highest = max(_highest(one) for one in spans)
    return (1e6, "MW") if highest >= 1_000_000 else (1e3, "kW") if highest >= 1_000 else (1.0, "W")


def _amount(power_w: int, unit: tuple[float, str]) -> str:
    return f"{power_w / unit[0]:,.4g} {unit[1]}"


def _duration(ms: int) -> str:
    for length_ms, name in ((86_400_000, "days"), (3_600_000, "hours"), (60_000, "minutes"), (1_000, "seconds")):
        if ms >= 2 * length_ms:
            return f"{ms / length_ms:,.4g} {name}"
    return f"{ms:,} ms"
