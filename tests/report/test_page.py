"""The page: well-formed, loads nothing, says what report.json says, whatever records claim."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import os
import re
import subprocess
import sys
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from enclavescale.report.columns import MAX_COLUMNS
from enclavescale.report.page import MAX_PLOTTED, MAX_TEXT, PLOTTED_COLUMNS, render_page
from stream_jobs.replay.verdicts import Verdict
from tests.house.source import ROOT
from tests.report.pages import Element, read_page
from tests.report.samples import facts_of, findings_of, verdicts_of

SVG = "{http://www.w3.org/2000/svg}"
PLOTS = ("verdicts", "power", "margin", "coverage", "refusals")


@cache
def sample(windows: int = 70) -> tuple[dict[str, Any], str]:
    facts = facts_of(verdicts_of(windows), findings_of())
    return facts, render_page(facts)


def tree() -> Element:
    return read_page(sample()[1])


def test_it_loads_nothing() -> None:
    page = tree()
    text = sample()[1]
    assert text.startswith("<!DOCTYPE html>\n<html")
    allowed = {"a", "b", "bdi", "body", "br", "code", "data", "dd", "details", "div", "dl", "dt", "em", "figcaption",
               "figure", "footer", "h1", "h2", "h3", "h4", "head", "header", "html", "li", "main", "meta", "nav", "p",
               "section", "span", "style", "summary", "table", "tbody", "td", "th", "thead", "time", "title", "tr",
               "ul", "", "svg", "g", "path", "defs", "use", "clippath", "rect", "text", "desc"}  # fmt: skip
    assert {one.tag for one in page.all} <= allowed
    for one in page.all:
        assert not {"style", "src", "srcset", "background", "data", "xlink:href"} & one.attributes.keys()
        assert not [name for name in one.attributes if name.startswith("on")]
        assert one.attributes.get("href", "#").startswith("#")
        for value in one.attributes.values():
            assert all(found.startswith("#") for found in re.findall(r"url\(([^)]*)", value))
    (style,) = page.find("style")
    assert "@import" not in style.text
    assert "url(" not in style.text
    addresses = set(re.findall(r"\w+://[\w./-]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}, "the name of a namespace, which nothing fetches"


def test_the_policy_allows_its_style_and_nothing_else() -> None:
    page = tree()
    (style,) = page.find("style")
    (policy,) = [one.attributes["content"] for one in page.find("meta") if "http-equiv" in one.attributes]
    digest = base64.b64encode(hashlib.sha256(style.text.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    order = [one.tag for one in page.find("head")[0].all]
    assert order.index("meta") < order.index("style")


def test_every_link_and_label_leads_somewhere_and_no_id_stands_twice() -> None:
    page = tree()
    ids = [one.attributes["id"] for one in page.all if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    for one in page.all:
        named = one.attributes.get("aria-labelledby", "").split()
        named += [one.attributes["href"][1:]] if "href" in one.attributes else []
        named += [found for value in one.attributes.values() for found in re.findall(r"url\(#([^)]*)\)", value)]
        assert set(named) <= set(ids)


def test_every_plot_has_a_title_a_description_and_something_drawn() -> None:
    facts, text = sample()
    drawn = re.findall(r"<svg .*?</svg>", text, re.DOTALL)
    plots = [etree.fromstring(one) for one in drawn if 'role="img"' in one]
    assert len(plots) == 2 * len(PLOTS) * len(facts["domains"])
    for plot in plots:
        title, description = plot[0], plot[1]
        assert (title.tag, description.tag) == (f"{SVG}title", f"{SVG}desc")
        assert plot.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
        assert title.text
        assert len(description.text or "") > 40
        assert not plot.xpath("//@style | //*[local-name()='style' or local-name()='metadata' or local-name()='image']")
        inks = {name for one in plot.iter() for name in (one.get("class") or "").split()}
        assert {"f-soft"} < inks, "labels, and more than labels"
    legends = tree().find("ul", "legend")
    assert [one.text for one in legends[0].find("bdi")] == ["LATE", "DUPLICATE"]


def test_every_verdict_has_a_row_of_its_own_in_the_plot() -> None:
    _, text = sample(windows=400)
    plot = etree.fromstring(re.findall(r"<svg .*?</svg>", text, re.DOTALL)[0])
    labels = [one.text for one in plot.iter(f"{SVG}text")]
    assert [one for one in labels if one in set(Verdict)] == [one.value for one in reversed(Verdict)]


def test_figures_are_those_of_the_facts() -> None:
    facts, page = json.loads(json.dumps(sample()[0])), tree()
    (domain,) = facts["domains"]
    runs = page.find("tr", "run")
    assert len(runs) == len(domain["identical_runs"]) >= 3
    for row, run in zip(runs, domain["identical_runs"], strict=True):
        pairs = [run[name] or [] for name in ("mean_w", "margin_w", "coverage_ppm")]
        spans = [str(value) for pair in pairs for value in (pair if len(set(pair)) == 2 else pair[:1])]
        counts = (
            [str(run[name]) for name in ("outputs", "revisions")],
            [str(run[name]) for name in ("accepted", "refused")],
        )
        assert row.values == [*counts[0], *spans, *counts[1]]
    (totals,) = [one for one in page.find("ul") if one.attributes.get("id") == "totals"]
    counts_by = facts["result"]["verdicts"]
    assert totals.values == [*(str(counts_by.get(one.value, 0)) for one in Verdict), "1", "1", "1000"]
    assert [row.values for row in page.find("tr", "refused")] == [[str(one["count"])] for one in facts["refused"]]
    assert [row.values for row in page.find("tr", "privacy")] == [
        [str(one[name]) for name in ("windows", "epsilon_micro", "w_event_windows", "w_event_epsilon_micro")]
        for one in domain["privacy"]
    ]
    windows = page.find("tr", "window")
    assert len(windows) == len(facts["shown"]["windows"])
    for row, one in zip(windows, facts["shown"]["windows"], strict=True):
        mean = [str(one["figures"]["mean_w"][0])] if one["figures"]["mean_w"] else []
        assert row.values == [str(one["revision"]), *mean]
        assert len(row.find("tr", "difference")) == len(one["differences"])
    assert len(page.find("tr", "session")) == len(facts["sessions"])
    assert len(page.find("tr", "policy")) == len(facts["policies"])
    assert len(page.find("tr", "collateral")) == len(facts["collateral"])
    assert len(page.find("tr", "finding")) == 2


def shape(element: Element) -> list[tuple[str, tuple[str, ...]]]:
    return [(one.tag, tuple(sorted(one.attributes))) for one in element.all]


HOSTILE = st.one_of(
    st.sampled_from([
        "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "</style></svg></table>", "{{ 7 * 7 }}",
        "{% raw %}",
        "$\\frac{1}{2}$", "<!--", "]]>", "&lt;&#60;", "'-alert(1)-'", "\u202egnp.exe", "\x00\x1b[2J", "\ud800",
        "a" * 5_000,
        "javascript:alert(1)", "\\u{202e}", "\u2028", "<svg/onload=alert(1)>",
    ]),
    st.text(min_size=1, max_size=12),
)  # fmt: skip


def unplotted(name: Any) -> Element:
    """A page of names without plots, which take longest and have tests of their own."""
    made = facts_of(verdicts_of(45, name=name), findings_of(name), name)
    made["domains"][0]["columns"]["start_ms"] = []
    return read_page(render_page(made))


@cache
def harmless() -> list[tuple[str, tuple[str, ...]]]:
    return shape(unplotted(lambda one: f"{one}x"))


@given(text=HOSTILE)
@settings(max_examples=25, deadline=None)
def test_whatever_records_claim_is_text(text: str) -> None:
    page = unplotted(lambda one: f"{one}{text}")
    assert shape(page) == harmless()
    shown = page.all_text
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]", shown)
    if text.isascii() and text.isprintable() and len(text) < MAX_TEXT - 50:
        assert f"hall{text}" in shown


def test_hostile_codes_do_not_reach_into_a_plot() -> None:
    code = "$x$<b>&\x00"
    facts = facts_of(verdicts_of(12, name=lambda one: code if one == "LATE" else one))
    page = read_page(render_page(facts))
    assert not page.find("b", "")[0].text.startswith("<b>")
    assert "$x$<b>&\\u{0}" in [one.text for one in page.find("bdi")]
    for plot in page.find("svg"):
        assert "$x$" not in plot.all_text


def test_long_texts_are_cut_visibly() -> None:
    page = unplotted(lambda one: one * 1_000)
    assert all(len(one.text) <= MAX_TEXT + 1 for one in page.find("bdi"))
    assert any(one.text.endswith("…") for one in page.find("bdi"))


def test_many_windows_and_domains_stay_a_small_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enclavescale.report.page.MAX_PLOTTED", 2)
    verdicts = [one for number in range(5) for one in verdicts_of(40, f"hall-{number}", number)]
    verdicts += verdicts_of(6_000, "hall-0", 99)
    text = render_page(facts_of(verdicts))
    assert len(text) < 1_000_000
    page = read_page(text)
    assert len(page.find("figure", "plot")) == len(PLOTS) * 2
    assert "The first 2 of 5 domains have plots" in page.all_text
    drawn = re.findall(r"<svg .*?</svg>", text, re.DOTALL)
    assert sum(map(len, drawn)) * MAX_PLOTTED / 2 < 6_000_000


def test_many_domains_are_still_a_page_for_a_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of twenty, which takes so much less time to draw."""
    share = 1 / MAX_PLOTTED
    monkeypatch.setattr("enclavescale.report.page.PLOTTED_COLUMNS", round(PLOTTED_COLUMNS * share))
    facts = facts_of(verdicts_of(MAX_COLUMNS))
    before = json.dumps(facts)
    text = render_page(facts)
    assert len(text.encode()) < 100_000 + share * 1_900_000
    assert "spans more windows than one of report.json" in read_page(text).all_text
    assert json.dumps(facts) == before, "report.json has what the plots leave out"
    assert "spans more windows than one" not in sample()[1]


def test_the_same_facts_give_the_same_bytes_in_any_process() -> None:
    facts, text = sample()
    program = "import json,sys;from enclavescale.report.page import render_page;"
    program += "sys.stdout.write(render_page(json.load(sys.stdin)))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(facts).encode(),
        env={**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "PYTHONIOENCODING": "utf-8", "LC_ALL": "C"},
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=120,
    )
    assert hashlib.sha256(done.stdout).hexdigest() == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("state", ["proven", "altered", "open"])
def test_every_state_has_a_page(state: str) -> None:
    verdicts = {
        "proven": [one for one in verdicts_of(9) if one.verdict is Verdict.IDENTICAL],
        "altered": verdicts_of(60),
        "open": [],
    }[state]
    page = read_page(render_page(facts_of(verdicts)))
    (banner,) = page.find("div", "banner")
    assert state in banner.attributes["class"].split()
    assert page.find("title")[0].text.startswith(page.find("h1")[0].text)


def test_what_a_reader_must_know_besides_stands_at_the_head() -> None:
    facts = copy.deepcopy(facts_of(verdicts_of(9)))

    def said() -> list[str]:
        return [
            one.text for head in read_page(render_page(facts)).find("ul", "reservations") for one in head.find("li")
        ]

    assert said() == ["Outputs were made under policies with unsafe switches on: unsafe_allow_create_time."]
    facts["policies"][0]["outputs"] = 0
    assert said() == []
    facts["sessions"][0]["simulated"] = True
    assert said() == [
        "1 of 3 sessions rest on a simulated root of trust: their evidence says nothing about real hardware."
    ]
    facts["policies"] = []
    assert "No policy on the topic is signed by a signer named below." in said()
