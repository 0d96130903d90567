// Words and numbers. Nothing here touches the document but through text and attributes.

const MINUS = "\u2212";
export const NONE = "\u2014";
// Characters that hide themselves or turn the text around them are shown by their number.
const HIDDEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu;

export function safe(text) {
  return String(text).replace(HIDDEN, (one) => `\\u{${one.codePointAt(0).toString(16)}}`);
}

export function unitOf(watts) {
  const largest = Math.abs(watts);
  return largest >= 1e6 ? { name: "MW", size: 1e6, digits: 3 } : { name: "kW", size: 1e3, digits: 2 };
}

export function amount(watts, unit, signed = false) {
  if (watts === null || watts === undefined) return NONE;
  const text = (Math.abs(watts) / unit.size).toLocaleString("en", {
    minimumFractionDigits: unit.digits, maximumFractionDigits: unit.digits,
  });
  return (watts < 0 ? MINUS : signed ? "+" : "") + text;
}

export function interval(low, high, unit, signed = false) {
  return low === null || low === undefined ? NONE : `${amount(low, unit, signed)} to ${amount(high, unit, signed)}`;
}

export function count(number) {
  return Number(number).toLocaleString("en");
}

export function span(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${count(Math.floor(seconds / 86400))} days`;
}

export function utc(ms) {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? `${ms} ms` : date.toISOString().replace(/\.\d+Z$/, "Z");
}

const two = (number) => String(number).padStart(2, "0");

export function local(ms, withDay = false) {
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return `${ms} ms`;
  const clock = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return withDay ? `${day} ${clock.slice(0, 5)}` : clock;
}

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  for (const one of children.flat()) {
    if (one !== null && one !== undefined) element.append(one instanceof Node ? one : safe(one));
  }
  return element;
}

export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// Local time to read, UTC on hover.
export function time(ms, withDay = false) {
  if (ms === null || ms === undefined) return NONE;
  return h("time", { datetime: utc(ms), title: utc(ms) }, local(ms, withDay));
}

export function table(heads, rows, caption) {
  const cell = ([value, kind], index) =>
    index === 0 ? h("th", { scope: "row", class: kind }, value) : h("td", { class: kind }, value);
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    h("table", {},
      h("thead", {}, h("tr", {}, heads.map(([text, kind]) => h("th", { scope: "col", class: kind }, text)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((one, index) =>
        cell(Array.isArray(one) && !(one instanceof Node) ? one : [one, null], index)))))));
}
