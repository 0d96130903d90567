// One domain: its card, and its row in the overview.

import { bullet, describe, draw, pointOf, sentence } from "./chart.js";
import { NONE, amount, count, h, interval, s, span, table, time, unitOf } from "./text.js";

const MARKS = { trouble: ["✗ act", "bad"], watch: ["! look", "open"], fine: ["✓ fine", "good"], old: ["? old", "idle"] };

export function mark(level) {
  const [text, kind] = MARKS[level] ?? MARKS.old;
  return h("span", { class: `mark ${kind}` }, text);
}

function trust(facts) {
  if (facts.trust !== "verified") return h("span", { class: "mark open" }, "? not verified");
  if (facts.chain === "broken") return h("span", { class: "mark bad" }, "✗ verified, chain broken");
  return h("span", { class: "mark good" }, "✓ verified");
}

const share = (ppm, of) => `${((100 * ppm) / Math.max(1, of)).toFixed(0)} %`;
const marginKind = (margin) => (!margin ? "bad" : margin.value_w < 0 ? "bad" : margin.low_w < 0 ? "open" : "good");
const marginMark = (margin) => (!margin ? "" : margin.value_w < 0 ? "✗ " : margin.low_w < 0 ? "! " : "");

// Forecasts of the power quantile that the margin is stated for, with the median, by horizon.
function forecastsOf(output) {
  const found = new Map();
  for (const one of output.forecasts) {
    const held = found.get(one.horizon_ms) ?? { seconds: one.horizon_ms / 1000 };
    if (one.quantile_ppm === 500000) held.p50 = one.estimate.value_w;
    if (one.quantile_ppm === output.margin.quantile_ppm) {
      Object.assign(held, { p99: one.estimate.value_w, low: one.estimate.low_w, high: one.estimate.high_w });
    }
    found.set(one.horizon_ms, held);
  }
  return [...found.values()].filter((one) => one.p50 !== undefined && one.p99 !== undefined).sort((a, b) => a.seconds - b.seconds).slice(0, 6);
}

export class Card {
  constructor(name, keep) {
    this.name = name;
    this.keep = keep;
    this.points = [];
    this.facts = null;
    this.chosen = null;
    this.pick = () => null;
    this.id = `d-${Card.next++}`;
    this.root = h("article", { class: "card", id: this.id, "aria-labelledby": `${this.id}-h`, tabindex: -1 });
    this.row = h("tr");
    this.#build();
  }

  static next = 0;

  #build() {
    this.title = h("h3", { id: `${this.id}-h` }, this.name);
    this.trust = h("span", { class: "trust" });
    this.big = h("dl", { class: "big figures" });
    this.svg = s("svg", { role: "img", tabindex: 0, "aria-label": this.name });
    this.readout = h("div", { class: "readout" });
    this.small = h("dl", { class: "facts figures" });
    this.more = h("details", {}, h("summary", {}, "All figures"));
    this.inside = h("div", {});
    this.more.append(this.inside);
    this.more.addEventListener("toggle", () => this.#tables());
    this.root.append(h("header", {}, this.title, this.trust), this.big, h("div", { class: "plot" }, this.svg), this.readout, this.small, this.more);
    this.svg.addEventListener("pointermove", (event) => {
      const box = this.svg.getBoundingClientRect();
      this.#choose(this.pick(event.clientX - box.left));
    });
    this.svg.addEventListener("pointerleave", () => this.#choose(null));
    this.svg.addEventListener("blur", () => this.#choose(null));
    this.svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
      if (step === undefined || !this.points.length) return;
      event.preventDefault();
      const from = this.chosen ?? this.points.length;
      this.#choose(Math.max(0, Math.min(this.points.length - 1, from + step)), true);
    });
  }

  #choose(index, aloud = false) {
    if (index === this.chosen) return;
    this.chosen = index;
    if (aloud) this.readout.setAttribute("aria-live", "polite");
    else this.readout.removeAttribute("aria-live");
    this.plot();
  }

  take(facts, fields, fresh) {
    this.facts = facts;
    const byStart = new Map(fresh ? [] : this.points.map((one) => [one.start, one]));
    for (const values of facts.points) {
      const one = pointOf(fields, values);
      byStart.set(one.start, one);
    }
    this.points = [...byStart.values()].sort((a, b) => a.start - b.start).slice(-this.keep);
    this.chosen = null;
    this.show();
  }

  get unit() {
    return unitOf(this.facts.output.margin.limit_w);
  }

  show() {
    const { facts, unit } = this, output = facts.output, margin = output.margin.margin;
    this.trust.replaceChildren(trust(facts));
    const figure = (name, value, below, kind) => h("div", {}, h("dt", {}, name), h("dd", { class: kind }, value, h("small", {}, below)));
    const p99 = output.quantiles.find((one) => one.quantile_ppm === 990000)?.estimate;
    this.big.replaceChildren(
      figure("Margin", margin ? `${marginMark(margin)}${amount(margin.value_w, unit, true)} ${unit.name}` : "withheld",
        margin ? interval(margin.low_w, margin.high_w, unit, true) : "no figure", marginKind(margin)),
      figure("Mean", output.mean ? `${amount(output.mean.value_w, unit)} ${unit.name}` : "withheld",
        output.mean ? interval(output.mean.low_w, output.mean.high_w, unit) : "no figure"),
      figure("99 % quantile", p99 ? `${amount(p99.value_w, unit)} ${unit.name}` : NONE, p99 ? interval(p99.low_w, p99.high_w, unit) : ""),
    );
    const fact = (name, value, kind) => h("div", {}, h("dt", {}, name), h("dd", { class: kind }, value));
    const coverage = output.coverage, whole = coverage.reporting_hosts === coverage.enrolled_hosts;
    const refused = output.refused.map((one) => `${one.code} ${count(one.count)}`).join(", ");
    this.small.replaceChildren(
      ...(margin ? [] : [fact("No margin because", output.margin.margin_absent_reason ?? NONE, "bad")]),
      ...forecastsOf(output).map((one) => fact(`Forecast p99 in ${one.seconds} s`, `${one.p99 > output.margin.limit_w ? "! " : ""}${amount(one.p99, unit)} ${unit.name}`, one.p99 > output.margin.limit_w ? "open" : null)),
      fact("Hosts, capacity", `${whole ? "" : "! "}${count(coverage.reporting_hosts)} of ${count(coverage.enrolled_hosts)}, ${share(coverage.reporting_capacity_w, coverage.enrolled_capacity_w)}`, whole ? null : "open"),
      fact("Window", h("span", {}, time(output.window_start_ms), " to ", time(output.window_end_ms))),
      fact("Revision", `${output.revision}${facts.revised_windows ? `; ${facts.revised_windows} windows revised` : ""}`),
      fact("Refused records", refused || "nothing", refused ? "open" : null),
    );
    this.plot();
    if (this.more.open) this.#tables();
  }

  plot() {
    const width = Math.max(280, this.svg.parentElement.clientWidth || 480);
    this.svg.setAttribute("aria-label", describe(this.name, this.points, this.unit));
    this.pick = this.points.length ? draw(this.svg, this.points, forecastsOf(this.facts.output), this.unit, width, this.chosen) : () => null;
    if (this.chosen !== null && this.points[this.chosen]) this.readout.replaceChildren(sentence(this.points[this.chosen], this.unit));
    else if (!this.readout.querySelector(".legend")) this.readout.replaceChildren(legend());
  }

  age(now) {
    this.ages?.replaceChildren(span(now - this.facts.published_ms));
  }

  line(level, now) {
    const { facts, unit } = this, output = facts.output, margin = output.margin.margin;
    this.root.className = `card is-${level}`;
    this.ages = h("td", { class: "n" }, span(now - facts.published_ms));
    const p99 = output.quantiles.find((one) => one.quantile_ppm === 990000)?.estimate;
    const in_ = (watts) => (watts === undefined ? NONE : `${amount(watts, unit)} ${unit.name}`);
    this.row.replaceChildren(
      h("th", { scope: "row" }, mark(level), " ", h("a", { href: `#${this.id}` }, this.name)),
      h("td", { class: "bar" }, bullet(this.points.at(-1))),
      h("td", { class: "n wide" }, in_(output.mean?.value_w)),
      h("td", { class: "n wide" }, in_(p99?.value_w)),
      h("td", { class: "n wide" }, in_(output.margin.limit_w)),
      h("td", { class: `n mark ${marginKind(margin)}` }, margin ? `${amount(margin.value_w, unit, true)} ${unit.name}` : "withheld"),
      h("td", { class: "n wide" }, margin ? interval(margin.low_w, margin.high_w, unit, true) : NONE),
      h("td", { class: "n" }, `${count(output.coverage.reporting_hosts)}/${count(output.coverage.enrolled_hosts)}`),
      this.ages,
      h("td", { class: "w wide" }, trust(facts)),
    );
  }

  #tables() {
    if (!this.more.open || !this.facts) return;
    const { facts, unit } = this, output = facts.output, n = "n";
    const three = (one) => [[amount(one.value_w, unit), n], [interval(one.low_w, one.high_w, unit), n]];
    const percent = (ppm) => `${ppm / 10000} %`;
    this.inside.replaceChildren(
      table([["last windows", null], [`mean, ${unit.name}`, n], ["p99", n], ["margin", n], ["95 % interval", n], ["rev.", n], ["refused", n]],
        this.points.slice(-12).reverse().map((one) => [h("span", {}, time(one.end)), [amount(one.mean, unit), n], [amount(one.p99, unit), n],
          [amount(one.margin, unit, true), n], [interval(one.marginLow, one.marginHigh, unit, true), n], [one.revision, n], [count(one.refused), n]]),
        `${this.name}: the last windows`),
      table([["quantile", null], [`power, ${unit.name}`, n], ["95 % interval", n]],
        output.quantiles.map((one) => [percent(one.quantile_ppm), ...three(one.estimate)]), `${this.name}: quantiles`),
      table([["forecast", null], ["quantile", n], [`power, ${unit.name}`, n], ["95 % interval", n]],
        output.forecasts.map((one) => [`in ${one.horizon_ms / 1000} s`, [percent(one.quantile_ppm), n], ...three(one.estimate)]), `${this.name}: forecasts`),
      table([["what", null], ["value", "any"]], [
        ["domain's output", [`partition ${facts.partition}, offset ${facts.offset}`, "any"]],
        ["digest", [h("code", {}, facts.digest), "any"]],
        ["signed by", [h("span", {}, facts.aggregator, ", session ", h("code", {}, facts.session_id.slice(0, 16))), "any"]],
        ["chain", [{ linked: "links to the output before it", first: "the first that this page read", broken: "does not link to the output before it" }[facts.chain] ?? facts.chain, "any"]],
        ["published", [time(facts.published_ms), "any"]],
        ["margin is for", [`the ${percent(output.margin.quantile_ppm)} quantile, ${percent(output.margin.confidence_ppm)} confidence${output.margin.horizon_ms ? `, ${output.margin.horizon_ms / 1000} s ahead` : ""}`, "any"]],
        ["source", [`${output.source.topic}, partition ${output.source.partition}, closed at ${output.source.close_offset} (${output.source.close_reason})`, "any"]],
        ["reports", [`${count(output.accepted)} accepted, ${count(output.late_accepted)} of them late; ${count(output.duplicates)} duplicates`, "any"]],
        ["privacy", [`${output.privacy.mode}, at most ε = ${(output.privacy.epsilon_max_micro / 1e6).toFixed(2)} per window`, "any"]],
        ["policy", [`${output.policy_counter}, core version ${output.core_version}`, "any"]],
      ], `${this.name}: about this output`),
    );
  }
}

function legend() {
  const key = (shape, text) => h("li", {}, s("svg", { viewBox: "0 0 18 10", "aria-hidden": "true" }, shape), text);
  return h("ul", { class: "legend", "aria-label": "What the plot shows" },
    key(s("line", { class: "mean", x1: 0, x2: 18, y1: 5, y2: 5 }), "mean"),
    key(s("rect", { class: "sure", x: 0, y: 1, width: 18, height: 8 }), "its 95 % interval"),
    key(s("rect", { class: "area", x: 0, y: 1, width: 18, height: 8 }), "median to p99"),
    key(s("line", { class: "limit", x1: 0, x2: 18, y1: 5, y2: 5 }), "limit"),
    key(s("circle", { class: "ahead-dot", cx: 9, cy: 5, r: 3.6 }), "forecast: p99, interval, median"));
}
