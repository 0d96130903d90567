// The plot of one domain: power with its bands over time, the limit, and what is forecast beside it.

import { NONE, amount, interval, local, s } from "./text.js";

const HEIGHT = 178, TOP = 12, BOTTOM = 22, LEFT = 52, AHEAD = 118;

function scale(domain, range) {
  const [low, high] = domain, [from, to] = range;
  return (value) => from + ((value - low) / (high - low || 1)) * (to - from);
}

function ticks(low, high, wanted) {
  const raw = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(raw || 1));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= raw) ?? raw;
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) found.push(at);
  return found;
}

// Runs of points without a hole: a window that is missing or withheld breaks the line.
function runs(points, has) {
  const found = [];
  let run = [];
  for (const one of points) {
    const last = run.at(-1);
    const joined = last && one.start - last.end <= (one.end - one.start) / 2;
    if (has(one) && (joined || !run.length)) run.push(one);
    else {
      if (run.length) found.push(run);
      run = has(one) ? [one] : [];
    }
  }
  if (run.length) found.push(run);
  return found;
}

const step = (run, x, y, key) => run.map((one) => `${x(one.start).toFixed(1)},${y(one[key]).toFixed(1)} ${x(one.end).toFixed(1)},${y(one[key]).toFixed(1)}`).join(" ");

function band(run, x, y, low, high) {
  const back = [...run].reverse().map((one) => `${x(one.end).toFixed(1)},${y(one[low]).toFixed(1)} ${x(one.start).toFixed(1)},${y(one[low]).toFixed(1)}`);
  return `${step(run, x, y, high)} ${back.join(" ")}`;
}

export function pointOf(fields, values) {
  const one = Object.fromEntries(fields.map((name, index) => [name, values[index]]));
  return {
    start: one.window_start_ms, end: one.window_end_ms, revision: one.revision,
    mean: one.mean_w, low: one.mean_low_w, high: one.mean_high_w, p50: one.p50_w, p99: one.p99_w,
    limit: one.limit_w, margin: one.margin_w, marginLow: one.margin_low_w, marginHigh: one.margin_high_w,
    reporting: one.reporting_capacity_w, enrolled: one.enrolled_capacity_w, refused: one.refused,
  };
}

export function describe(name, points, unit) {
  const last = points.at(-1);
  if (!last) return `${name}: no windows yet`;
  return `${name}: power over ${points.length} windows until ${local(last.end)}. Mean ${amount(last.mean, unit)} ${unit.name}, `
    + `99 % quantile ${amount(last.p99, unit)} ${unit.name}, limit ${amount(last.limit, unit)} ${unit.name}. `
    + "The table below holds the figures. Arrow keys move through the windows.";
}

export function sentence(one, unit) {
  const margin = one.margin === null ? "margin withheld"
    : `margin ${amount(one.margin, unit, true)} (${interval(one.marginLow, one.marginHigh, unit, true)})`;
  const mean = one.mean === null ? "mean withheld" : `mean ${amount(one.mean, unit)} (${interval(one.low, one.high, unit)})`;
  return `${local(one.start)} to ${local(one.end)}${one.revision ? `, revision ${one.revision}` : ""}: ${mean}, `
    + `p99 ${one.p99 === null ? NONE : amount(one.p99, unit)}, ${margin} ${unit.name}`;
}

export function draw(svg, points, forecasts, unit, width, chosen) {
  const right = width - (forecasts.length ? AHEAD : 8), bottom = HEIGHT - BOTTOM;
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  svg.setAttribute("height", HEIGHT);
  const values = points.flatMap((one) => [one.low, one.high, one.p50, one.p99, one.limit]);
  for (const one of forecasts) values.push(one.p50, one.p99, one.low, one.high);
  const known = values.filter((one) => one !== null && one !== undefined);
  if (!known.length) {
    svg.replaceChildren(s("text", { x: LEFT, y: HEIGHT / 2 }, "No figures yet"));
    return () => null;
  }
  const lowest = Math.min(...known), highest = Math.max(...known), pad = (highest - lowest || highest || 1) * 0.08;
  const y = scale([lowest - pad, highest + pad], [bottom, TOP]);
  const x = scale([points[0].start, points.at(-1).end], [LEFT, right]);
  const made = [];
  for (const at of ticks(lowest - pad, highest + pad, 4)) {
    made.push(s("line", { class: "grid", x1: LEFT, x2: right, y1: y(at), y2: y(at) }));
    made.push(s("text", { x: LEFT - 7, y: y(at) + 4, "text-anchor": "end" }, (at / unit.size).toLocaleString("en", { maximumFractionDigits: 2 })));
  }
  made.push(s("text", { x: LEFT - 7, y: HEIGHT - 5, "text-anchor": "end" }, unit.name));
  for (const run of runs(points, (one) => one.p50 !== null && one.p99 !== null)) {
    made.push(s("polygon", { class: "area", points: band(run, x, y, "p50", "p99") }));
  }
  for (const run of runs(points, (one) => one.mean !== null)) {
    made.push(s("polygon", { class: "sure", points: band(run, x, y, "low", "high") }));
    made.push(s("polyline", { class: "mean", points: step(run, x, y, "mean") }));
  }
  for (const run of runs(points, () => true)) made.push(s("polyline", { class: "limit", points: step(run, x, y, "limit") }));
  const last = points.at(-1);
  const above = y(last.limit) > TOP + 16;
  made.push(s("text", { class: "limit-text", x: LEFT + 4, y: y(points[0].limit) + (above ? -5 : 14) }, `limit ${amount(last.limit, unit)}`));
  made.push(...clock(points, x, right));
  if (forecasts.length) made.push(...ahead(forecasts, y, right, width, bottom, last));
  if (chosen !== null && points[chosen]) {
    const middle = x((points[chosen].start + points[chosen].end) / 2);
    made.push(s("line", { class: "cross", x1: middle, x2: middle, y1: TOP, y2: bottom }));
  }
  svg.replaceChildren(...made);
  return (pixel) => {
    if (pixel < LEFT || pixel > right) return null;
    const index = points.findIndex((one) => x(one.end) >= pixel);
    return index < 0 ? points.length - 1 : index;
  };
}

function clock(points, x, right) {
  const from = points[0].start, to = points.at(-1).end;
  const wanted = Math.max(2, Math.floor((right - LEFT) / 110));
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
  const each = (steps.find((one) => (to - from) / 1000 / one <= wanted) ?? 86400 * 7) * 1000;
  const made = [];
  for (let at = Math.ceil(from / each) * each; at <= to; at += each) {
    const place = x(at);
    if (place < LEFT + 16 || place > right - 16) continue;
    made.push(s("text", { x: place, y: HEIGHT - 5, "text-anchor": "middle" }, each < 60000 ? local(at) : local(at).slice(0, 5)));
  }
  return made;
}

function ahead(forecasts, y, right, width, bottom, last) {
  const made = [s("line", { class: "grid", x1: right + 6, x2: right + 6, y1: TOP, y2: bottom })];
  made.push(s("line", { class: "limit", x1: right, x2: width, y1: y(last.limit), y2: y(last.limit) }));
  const room = (width - right - 12) / forecasts.length;
  forecasts.forEach((one, index) => {
    const at = right + 8 + room * (index + 0.5);
    made.push(s("line", { class: "ahead", x1: at, x2: at, y1: y(one.low), y2: y(one.high) }));
    made.push(s("line", { class: "ahead", x1: at - 5, x2: at + 5, y1: y(one.p50), y2: y(one.p50) }));
    made.push(s("circle", { class: "ahead-dot", cx: at, cy: y(one.p99), r: 3.6 }));
    made.push(s("text", { x: at, y: HEIGHT - 5, "text-anchor": "middle" }, `${one.seconds} s`));
  });
  return made;
}

// Power against its limit on one line: range of median to p99, the mean, and the limit as a line of its own.
export function bullet(point) {
  const svg = s("svg", { viewBox: "0 0 200 18", preserveAspectRatio: "none", "aria-hidden": "true" });
  if (!point || point.mean === null) return svg;
  const top = Math.max(point.limit, point.p99 ?? 0, point.high) * 1.04, x = (watts) => Math.max(0, Math.min(200, (watts / top) * 200));
  svg.append(s("rect", { class: "b-track", x: 0, y: 6, width: 200, height: 6, rx: 2 }));
  if (point.p99 !== null) svg.append(s("rect", { class: "b-range", x: 0, y: 6, width: x(point.p99), height: 6, rx: 2 }));
  svg.append(s("rect", { class: "b-mean", x: 0, y: 6, width: x(point.mean), height: 6, rx: 2 }));
  svg.append(s("line", { class: "b-limit", x1: x(point.limit), x2: x(point.limit), y1: 1, y2: 17 }));
  return svg;
}
