// Bars over time, drawn as SVG.

import { el, instant } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 560, HEIGHT = 170, LEFT = 60, BOTTOM = 24, TOP = 12, GAP = 0.22;

function shape(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) element.setAttribute(attribute, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/// The next round number: 1, 2 or 5 with zeros.
function round(number, isWhole) {
  if (number <= 0) return 1;
  const unit = 10 ** Math.floor(Math.log10(number));
  const found = [1, 2, 5, 10].map((factor) => factor * unit).find((candidate) => candidate >= number * 0.999999);
  return isWhole ? Math.max(1, Math.ceil(found)) : found;
}

/// What is in which span: their rows by number, from the first.
function slots(spans) {
  const since = new Date(spans.since).getTime(), step = spans.step_s * 1000;
  const found = Array.from({ length: spans.count }, (_, index) => ({ at: new Date(since + index * step), row: null }));
  for (const row of spans.rows) {
    // In a month in which the clocks change a day begins an hour off.
    const index = Math.round((new Date(row.at).getTime() - since) / step);
    if (found[index]) found[index] = { at: new Date(row.at), row };
  }
  return found;
}

/// A chart in `figure`. `series` are names of classes with what to take of a row, from below; `show` writes a value.
export function chart(figure, title, spans, zone, series, show, isWhole) {
  const bars = slots(spans);
  const value = (bar, take) => (bar.row ? take(bar.row) : 0);
  const totals = bars.map((bar) => series.reduce((sum, { take }) => sum + value(bar, take), 0));
  const sum = totals.reduce((a, b) => a + b, 0), top = round(Math.max(...totals), isWhole);
  const isHours = spans.step_s < 86400;
  const label = new Intl.DateTimeFormat([], isHours
    ? { hour: "2-digit", minute: "2-digit", hour12: false, timeZone: zone }
    : { month: "short", day: "numeric", timeZone: zone });
  const height = HEIGHT - BOTTOM - TOP, width = (WIDTH - LEFT) / bars.length;
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  svg.setAttribute("aria-label", `${title}: ${show(sum)} in all, ${show(Math.max(...totals))} at most in one ${isHours ? "hour" : "day"}`);
  for (const part of [0, 0.5, 1]) {
    if (isWhole && !Number.isInteger(top * part)) continue;
    const y = TOP + height * (1 - part);
    svg.append(shape("line", { class: "grid", x1: LEFT, x2: WIDTH, y1: y, y2: y }));
    svg.append(shape("text", { class: "axis", x: LEFT - 6, y: y + 4, "text-anchor": "end" }, show(top * part)));
  }
  const every = Math.ceil(bars.length / 6);
  bars.forEach((bar, index) => {
    const x = LEFT + index * width, group = shape("g", { class: "bar" });
    let y = TOP + height;
    for (const { name, take } of series) {
      const tall = (value(bar, take) / top) * height;
      if (tall <= 0) continue;
      const drawn = Math.max(tall, 1.5);
      y -= drawn;
      group.append(shape("rect", { class: name, x: x + (width * GAP) / 2, y, width: width * (1 - GAP), height: drawn }));
    }
    group.append(shape("rect", { class: "hit", x, y: TOP, width, height }));
    const told = series.map(({ label: named, take }) => `${show(value(bar, take))} ${named}`).join(", ");
    group.append(shape("title", {}, `${label.format(bar.at)}: ${told}`));
    svg.append(group);
    if ((bars.length - 1 - index) % every === 0) {
      const isLast = index === bars.length - 1;
      const place = { class: "axis", x: isLast ? WIDTH : x + width / 2, y: HEIGHT - 6, "text-anchor": isLast ? "end" : "middle" };
      svg.append(shape("text", place, label.format(bar.at)));
    }
  });
  figure.replaceChildren(el("figcaption", "", el("span", "", title), el("strong", "", show(sum))), svg);
  figure.title = `times are those of ${zone}; read ${instant(new Date().toISOString())}`;
}
