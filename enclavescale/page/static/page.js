// The page: what the server tells, on screen. Text reaches the document as text only.

import { Card, mark } from "./card.js";
import { Locked, follow } from "./stream.js";
import { NONE, amount, count, h, local, s, safe, span, table, time, unitOf, utc } from "./text.js";

const $ = (id) => document.getElementById(id);
const SIGNS = { fine: "✓", trouble: "✗", watch: "!", waiting: "…" };
const KEEP = 10_000;

const cards = new Map();
let status = null, fields = [], offset = 0, lost = null, heardAt = 0;

const now = () => Date.now() + offset;

// -- what the server tells ------------------------------------------------------------------------------------

function heard(name, data) {
  heardAt = Date.now();
  if (name === "beat") offset = data.now_ms - Date.now();
  else if (name === "state") {
    fields = data.point_fields;
    for (const [known, card] of cards) {
      if (!data.domains.some((one) => one.domain === known)) {
        card.root.remove();
        card.row.remove();
        cards.delete(known);
      }
    }
    for (const one of data.domains) domain(one, true);
    status = data;
  } else if (name === "domain") domain(data, false);
  else if (name === "status") status = data;
  if (name !== "beat" && status) show();
  link();
}

function domain(facts, fresh) {
  let card = cards.get(facts.domain);
  if (!card) {
    card = new Card(facts.domain, KEEP);
    cards.set(facts.domain, card);
    const names = [...cards.keys()].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const after = cards.get(names[names.indexOf(facts.domain) + 1]);
    $("cards").insertBefore(card.root, after?.root ?? null);
    $("glance").insertBefore(card.row, after?.row ?? null);
  }
  card.take(facts, fields, fresh);
}

function levelOf(name) {
  const mine = status.problems.filter((one) => one.domain === name);
  return mine.some((one) => one.level === "trouble") ? "trouble" : mine.length ? "watch" : "fine";
}

// -- the screen -----------------------------------------------------------------------------------------------

function write(element, text) {
  const made = safe(text);
  if (element.textContent !== made) element.textContent = made;
}

function show() {
  $("all").hidden = false;
  $("lock").hidden = true;
  $("simulated").hidden = !status.simulated;
  $("unchecked").hidden = status.checked;
  verdict();
  tiles();
  for (const [name, card] of cards) card.line(levelOf(name), now());
  $("empty").hidden = cards.size > 0;
  write($("empty"), status.source.caught_up ? "No outputs yet. They appear when a worker closes the first window." : "Reading …");
  refused();
  grades();
  ends();
  signers();
  const offsets = status.source.partitions.map((one) => `${one.partition}: ${one.next_offset}`).join(", ");
  write($("foot"), `Output partitions and next offsets: ${offsets || NONE}.${status.unsafe.length ? ` The policy has unsafe switches on: ${status.unsafe.join(", ")}.` : ""}`);
}

function verdict() {
  const level = lost ? "trouble" : status.level;
  $("verdict").className = `verdict ${level}`;
  write($("sign"), SIGNS[level] ?? "?");
  if (lost) {
    write($("headline"), `No connection to the page's server: what is shown is from ${utc(lost.since)}.`);
    write($("todo"), `It is tried again. ${lost.why}`);
  } else {
    write($("headline"), status.headline);
    write($("todo"), status.level === "waiting" ? "" : status.problems[0]?.todo ?? "");
  }
  document.body.classList.toggle("old", Boolean(lost) || status.source.stale_since_ms !== null);
  document.title = `${SIGNS[level] ?? "?"} ${level === "fine" ? "fine" : level} – EnclaveScale`;
  const rest = lost || status.level === "waiting" ? status.problems : status.problems.slice(1);
  const lines = grouped(rest);
  const more = lines.length > LINES ? [h("li", {}, "", h("span", {}, `and ${lines.length - LINES} more`))] : [];
  replace($("problems"), lines.slice(0, LINES).map(problem).concat(more), [rest, [...cards.keys()]]);
}

const LINES = 12, NAMED = 8;

// What is wrong with several domains in the same way is one line.
function grouped(problems) {
  const found = new Map();
  for (const one of problems) {
    const key = one.domain === null ? JSON.stringify(one) : `${one.level} ${one.code}`;
    const held = found.get(key);
    if (held) held.also.push(one.domain);
    else found.set(key, { ...one, also: [] });
  }
  return [...found.values()];
}

function anchor(domain, text) {
  const card = cards.get(domain);
  return card ? h("a", { href: `#${card.id}` }, text) : h("span", {}, text);
}

function problem(one) {
  const also = one.also.slice(0, NAMED).flatMap((name, index) => [index ? ", " : " Likewise ", anchor(name, name)]);
  if (one.also.length > NAMED) also.push(` and ${one.also.length - NAMED} more`);
  if (also.length) also.push(".");
  return h("li", {}, mark(one.level), h("span", {}, anchor(one.domain, one.text), also), h("span", { class: "do" }, one.todo));
}

// Lists are written anew only when what they say has changed: a reader's place and focus stay.
const written = new WeakMap();
function replace(element, children, because) {
  const key = JSON.stringify(because);
  if (written.get(element) === key) return;
  written.set(element, key);
  element.replaceChildren(...children);
}

function tiles() {
  const outputs = [...cards.values()].map((one) => one.facts.output);
  const means = outputs.filter((one) => one.mean).map((one) => one.mean.value_w);
  const total = means.reduce((sum, one) => sum + one, 0), unit = unitOf(total);
  const margins = outputs.filter((one) => one.margin.margin).sort((a, b) => a.margin.margin.value_w - b.margin.margin.value_w);
  const smallest = margins[0], sum = (pick) => outputs.reduce((all, one) => all + pick(one.coverage), 0);
  const hosts = [sum((one) => one.reporting_hosts), sum((one) => one.enrolled_hosts)];
  const recent = status.refused.codes.reduce((all, one) => all + one.recent, 0);
  const ending = endings()[0];
  const tile = (value, text) => h("li", {}, h("b", {}, value), h("span", {}, text));
  const small = smallest ? unitOf(smallest.margin.limit_w) : unit;
  $("tiles").replaceChildren(
    tile([amount(means.length ? total : null, unit), h("small", {}, ` ${unit.name}`)], means.length < outputs.length ? `mean of ${means.length} of ${outputs.length} domains` : "mean of all domains"),
    tile([smallest ? amount(smallest.margin.margin.value_w, small, true) : NONE, h("small", {}, smallest ? ` ${small.name}` : "")], smallest ? `smallest margin, ${smallest.domain}` : "no margin is stated"),
    tile([count(hosts[0]), h("small", {}, ` of ${count(hosts[1])}`)], "hosts report"),
    tile(count(recent), `refused in ${status.refused.span_ms / 60000} min`),
    tile(ending ? span(ending.ms - now()) : NONE, ending ? `until ${ending.what} ends` : "nothing is known to end"),
  );
}

function refused() {
  const minutes = status.refused.span_ms / 60000, list = status.refused.codes;
  write($("refused-note"), status.source.rejections_followed
    ? `Of the last ${minutes} minutes by the rejections topic, which is not signed; beside it what the signed outputs of the history count.`
    : "The rejections topic cannot be read: only what signed outputs count.");
  replace($("refused"), [list.length
    ? table([["code", null], [`${minutes} min`, "n"], ["outputs", "n"], ["meaning", "any"]],
      list.map((one) => [h("code", {}, one.code), [count(one.recent), "n"], [count(one.counted), "n"], [one.meaning, "any"]]), "Refused records by code")
    : h("p", {}, "✓ Nothing.")], list);
  const newest = status.refused.newest;
  $("places-box").hidden = !newest.length;
  replace($("places"), [table([["code", null], ["at", null], ["record", "any"], ["dead letter", "n"]],
    newest.map((one) => [h("code", {}, one.code), [time(one.at_ms), "w"],
      [`${one.topic || "?"} [${one.partition ?? "?"}] ${one.offset ?? "?"}`, "any"], [`[${one.letter_partition}] ${one.letter_offset}`, "n"]]), "Newest refusals")], newest);
}

const DIMENSIONS = { first_mile: "first mile", source: "source", root: "root of trust" };
function grades() {
  const sums = new Map();
  let whole = 0;
  for (const { facts } of cards.values()) {
    for (const one of facts.output.power_by) {
      const key = JSON.stringify([one.dimension, one.key, one.simulated]);
      const held = sums.get(key) ?? { dimension: one.dimension, key: one.key, simulated: one.simulated, mean: 0, hosts: 0 };
      held.mean += one.mean_w;
      held.hosts += one.hosts;
      sums.set(key, held);
      if (one.dimension === "first_mile") whole += one.mean_w;
    }
  }
  const rows = [...sums.values()].sort((a, b) => a.dimension.localeCompare(b.dimension) || b.mean - a.mean).slice(0, 60);
  const unit = unitOf(whole);
  const bar = (one) => s("svg", { class: "share", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
    s("rect", { class: "b-track", width: 100, height: 10 }), s("rect", { class: "b-mean", width: Math.max(0, Math.min(100, (100 * one.mean) / Math.max(1, whole))), height: 10 }));
  replace($("grades"), [rows.length ? table([["by", null], ["value", "any"], ["power", "n"], ["share", "n"], ["", null], ["hosts", "n"]],
    rows.map((one) => [DIMENSIONS[one.dimension] ?? one.dimension, [h("span", {}, one.key, one.simulated ? h("span", { class: "mark open" }, " ! simulated") : ""), "any"],
      [`${amount(one.mean, unit)} ${unit.name}`, "n"], [`${((100 * one.mean) / Math.max(1, whole)).toFixed(0)} %`, "n"], [bar(one), null], [count(one.hosts), "n"]]), "Power by trust")
    : h("p", { class: "note" }, "No figures yet.")], rows);
}

function endings() {
  const found = [];
  if (status.policy) found.push({ what: `policy ${status.policy.counter}`, ms: status.policy.not_after_ms });
  if (status.collateral.used && status.collateral.ends_ms !== null) found.push({ what: "the collateral", ms: status.collateral.ends_ms });
  const signing = new Set([...cards.values()].map((one) => one.facts.session_id));
  for (const one of status.aggregators) {
    if (signing.has(one.session_id)) found.push({ what: `evidence of ${one.host_id}`, ms: one.evidence_ends_ms });
  }
  return found.sort((a, b) => a.ms - b.ms);
}

function ends() {
  const left = (ms) => (ms < now() ? ["✗ ended", "bad"] : ms - now() < 21_600_000 ? ["✗ act", "bad"] : ms - now() < 259_200_000 ? ["! soon", "open"] : ["✓ holds", "good"]);
  const rows = endings().map((one) => {
    const [text, kind] = left(one.ms);
    return [one.what, [span(one.ms - now()), "n"], [time(one.ms, true), "w"], [h("span", { class: `mark ${kind}` }, text), "w"]];
  });
  if (!status.collateral.used) rows.push(["collateral", [NONE, "n"], ["none is in force", "w"], ["", "w"]]);
  $("ends").replaceChildren(status.checked ? table([["what", null], ["left", "n"], ["ends", null], ["", null]], rows, "What ends when")
    : h("p", { class: "note" }, "Policies are read only where outputs are verified: start the page with --policy-signer."));
}

function signers() {
  const list = status.aggregators;
  replace($("signers"), [list.length
    ? table([["aggregator", null], ["root of trust", "any"], ["evidence of", null], ["last output", null], ["domains", "any"]],
      list.map((one) => [h("span", {}, one.host_id), [h("span", {}, one.root, one.simulated ? h("span", { class: "mark open" }, " ! simulated") : ""), "any"],
        [time(one.evidence_as_of_ms, true), "w"], [time(one.last_output_ms), "w"],
        [one.domains.length > 4 ? `${one.domains.slice(0, 3).join(", ")} and ${one.domains.length - 3} more` : one.domains.join(", "), "any"]]), "Aggregators whose outputs verify")
    : h("p", { class: "note" }, status.checked ? "No output has verified yet." : "Signatures are not checked.")], list);
  const bad = status.unverified;
  $("unverified-box").hidden = !bad.length;
  replace($("unverified"), [table([["code", null], ["place", "w"], ["at", null], ["claims domain", "any"], ["why", "any"]],
    bad.map((one) => [h("code", {}, one.code), [`[${one.partition}] ${one.offset}`, "w"], [time(one.at_ms), "w"], [one.domain ?? NONE, "any"], [`${one.reason}. ${one.meaning}`, "any"]]), "Outputs that do not verify")], bad);
}

// -- connection, clock, colours, token ------------------------------------------------------------------------

function link() {
  const stale = status?.source.stale_since_ms;
  $("link").className = lost || (stale ?? null) !== null ? "link lost" : heardAt ? "link live" : "link";
  const text = lost ? "No connection" : (stale ?? null) !== null ? `Brokers silent since ${local(stale)}` : heardAt ? "Live" : "Connecting";
  write($("link-text"), text);
}

function connection(name, why = "") {
  lost = name === "open" ? null : { since: lost?.since ?? (heardAt || Date.now()) + offset, why };
  if (status) verdict();
  link();
}

function everySecond() {
  if (!status) return;
  for (const card of cards.values()) card.age(now());
}

const THEMES = ["system", "light", "dark"];
function theme(name) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  write($("theme"), `Colours: ${name}`);
  $("theme").setAttribute("aria-label", `Colours: ${name}`);
}

// Storage may be forbidden; then the choice lasts as long as the page.
function remember(store, key, value) {
  try {
    if (value === undefined) return window[store].getItem(key);
    window[store].setItem(key, value);
  } catch { /* not kept */ }
  return value ?? null;
}

let token = remember("sessionStorage", "token") ?? "";

function locked(note) {
  $("all").hidden = true;
  $("lock").hidden = false;
  write($("lock-note"), note);
  $("token").focus();
}

async function run() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    token = given;
    remember("sessionStorage", "token", token);
    history.replaceState(null, "", location.pathname);
  }
  try {
    await follow({ token: () => token, heard, state: connection });
  } catch (error) {
    if (!(error instanceof Locked)) throw error;
    locked(token ? "The server does not accept this token." : "");
  }
}

let chosen = THEMES.includes(remember("localStorage", "theme")) ? remember("localStorage", "theme") : "system";
theme(chosen);
$("theme").addEventListener("click", () => {
  chosen = THEMES[(THEMES.indexOf(chosen) + 1) % THEMES.length];
  remember("localStorage", "theme", chosen);
  theme(chosen);
});
$("lock-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  remember("sessionStorage", "token", token);
  write($("lock-note"), "Asking …");
  run();
});
new ResizeObserver(() => {
  for (const card of cards.values()) card.plot();
}).observe($("cards"));
setInterval(everySecond, 1000);
run();
