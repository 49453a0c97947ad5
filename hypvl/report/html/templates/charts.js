"use strict";
// Charts in SVG. The box of a chart is fixed, and the page scales it.

const BOX = { width: 360, height: 210, left: 48, right: 18, top: 10, bottom: 32 };

const axisNumber = (value) => (Math.abs(value) >= 1e4 ? `${number(value / 1000)}k` : number(value));

function axes(x, y, labels = {}) {
  const bottom = BOX.height - BOX.bottom;
  return s("g", { class: "axes", "aria-hidden": "true" },
    y.ticks.map((value) => [
      s("line", { class: "grid", x1: BOX.left, x2: BOX.width - BOX.right, y1: y(value), y2: y(value) }),
      s("text", { x: BOX.left - 6, y: y(value) + 4, "text-anchor": "end" }, axisNumber(value)),
    ]),
    s("line", { class: "base", x1: BOX.left, x2: BOX.width - BOX.right, y1: bottom, y2: bottom }),
    x.ticks.map((value) => s("text", { x: x(value), y: bottom + 15, "text-anchor": "middle" }, axisNumber(value))),
    labels.x && s("text", { x: BOX.width - BOX.right, y: BOX.height - 2, "text-anchor": "end", class: "axis" }, labels.x));
}

function scale(low, high, from, to, count) {
  if (!(high > low)) [low, high] = [low - (Math.abs(low) || 1) * 0.05, high + (Math.abs(high) || 1) * 0.05];
  const place = (value) => from + ((value - low) / (high - low)) * (to - from);
  place.ticks = ticks(low, high, count);
  place.inverse = (at) => low + ((at - from) / (to - from)) * (high - low);
  return place;
}

// Curves of one metric, a run each; the pointer and the arrow keys read values.
function lineChart(name, curves) {
  const steps = curves.flatMap((curve) => curve.steps);
  const values = curves.flatMap((curve) => curve.values).filter((value) => value !== null);
  if (!values.length) return null;
  const x = scale(Math.min(...steps), Math.max(...steps), BOX.left, BOX.width - BOX.right, 4);
  const margin = (Math.max(...values) - Math.min(...values)) * 0.06;
  const y = scale(Math.min(...values) - margin, Math.max(...values) + margin, BOX.height - BOX.bottom, BOX.top, 4);
  const last = curves.map((curve) => curve.values[curve.values.length - 1]);
  const readout = h("span", { class: "readout", "aria-live": "polite" }, last.map((v) => number(v)).join(" / "));
  const rule = s("line", { class: "rule", y1: BOX.top, y2: BOX.height - BOX.bottom, visibility: "hidden" });
  const dots = curves.map((curve) => s("circle", { class: `dot run${curve.run}`, r: 3.5, visibility: "hidden" }));
  const lines = curves.map((curve) => {
    let pen = false;
    const path = curve.steps.map((step, i) => {
      if (curve.values[i] === null) { pen = false; return ""; }
      const point = `${pen ? "L" : "M"}${x(step).toFixed(1)} ${y(curve.values[i]).toFixed(1)}`;
      pen = true;
      return point;
    });
    return s("path", { class: `line run${curve.run}`, d: path.join("") });
  });
  let at = curves[0].steps.length - 1;
  const read = (step) => {
    const parts = curves.map((curve, k) => {
      const i = curve.steps.reduce((best, value, j) => (Math.abs(value - step) < Math.abs(curve.steps[best] - step) ? j : best), 0);
      if (k === 0) at = i;
      const known = curve.values[i] !== null;
      dots[k].setAttribute("visibility", known ? "visible" : "hidden");
      if (known) fill(dots[k], { cx: x(curve.steps[i]), cy: y(curve.values[i]) }, []);
      return number(curve.values[i]);
    });
    fill(rule, { x1: x(curves[0].steps[at]), x2: x(curves[0].steps[at]), visibility: "visible" }, []);
    readout.textContent = `step ${curves[0].steps[at]}: ${parts.join(" / ")}`;
  };
  const rest = () => {
    [rule, ...dots].forEach((element) => element.setAttribute("visibility", "hidden"));
    readout.textContent = last.map((value) => number(value)).join(" / ");
  };
  const chart = s("svg", {
    viewBox: `0 0 ${BOX.width} ${BOX.height}`, class: "chart", tabindex: "0", role: "img",
    "aria-label": `${readable(name)} over training steps; last value ${last.map((v) => number(v)).join(", ")}. Arrow keys read values.`,
    onpointermove: (event) => {
      const area = chart.getBoundingClientRect();
      read(x.inverse(((event.clientX - area.left) / area.width) * BOX.width));
    },
    onpointerleave: rest, onblur: rest,
    onkeydown: (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!move) return;
      event.preventDefault();
      const next = Math.max(0, Math.min(curves[0].steps.length - 1, at + move));
      read(curves[0].steps[next]);
    },
  }, axes(x, y, { x: "step" }), lines, rule, dots);
  return h("figure", { class: "small" }, h("div", { class: "row" }, h("h3", {}, readable(name)), readout), chart);
}

// Two histograms over the same edges, mirrored at the axis: images above, texts below.
function histogram({ edges, image, text }, label) {
  const width = 560;
  const height = 300;
  const x = scale(edges[0], edges[edges.length - 1], BOX.left, width - BOX.right, 7);
  const most = Math.max(...image, ...text);
  const bottom = height - BOX.bottom;
  const middle = (BOX.top + bottom) / 2;
  const unit = (middle - BOX.top - 4) / most;
  const bars = (counts, kind, sign) => counts.map((count, i) => count > 0 && s("rect", {
    class: `bar ${kind}`, x: x(edges[i]) + 0.4, width: Math.max(0.5, x(edges[i + 1]) - x(edges[i]) - 0.8),
    y: sign > 0 ? middle - count * unit : middle, height: count * unit,
  }, s("title", {}, `${kind}s: ${count} between ${number(edges[i])} and ${number(edges[i + 1])}`)));
  const grid = x.ticks.map((value) => s("line", { class: "grid", x1: x(value), x2: x(value), y1: BOX.top, y2: bottom }));
  return s("svg", {
    viewBox: `0 0 ${width} ${height}`, class: "chart broad", role: "img",
    "aria-label": `Histogram of the ${label}: images above the line, texts below`,
  },
    grid, bars(image, "image", 1), bars(text, "text", -1),
    s("line", { class: "base", x1: BOX.left, x2: width - BOX.right, y1: middle, y2: middle }),
    s("g", { class: "axes", "aria-hidden": "true" },
      s("text", { x: 0, y: BOX.top + 12 }, "images"),
      s("text", { x: 0, y: bottom - 4 }, "texts"),
      x.ticks.map((value) => s("text", { x: x(value), y: bottom + 15, "text-anchor": "middle" }, number(value))),
      s("text", { x: width - BOX.right, y: height - 2, "text-anchor": "end", class: "axis" }, label)));
}

// Shares of failing queries by word, with intervals, and the share of all queries as a line.
function wordChart(words, overall) {
  const row = 24;
  const left = Math.min(130, 16 + 7 * Math.max(...words.map((entry) => entry.word.length)));
  const right = 70;
  const width = 420;
  const height = words.length * row + 26;
  const x = (share) => left + share * (width - left - right);
  return s("svg", {
    viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img",
    "aria-label": `Share of failing queries by word: ${words.map((w) => `${w.word} ${number((100 * w.failed) / w.queries, "%")}%`).join(", ")}`,
  },
    [0, 0.5, 1].map((share) => [
      s("line", { class: "grid", x1: x(share), x2: x(share), y1: 0, y2: height - 22 }),
      s("text", { x: x(share), y: height - 8, "text-anchor": "middle" }, `${100 * share}%`),
    ]),
    words.map((entry, i) => {
      const y = i * row + row / 2;
      const share = entry.failed / entry.queries;
      return s("g", {},
        s("text", { x: left - 8, y: y + 4, "text-anchor": "end", class: "strong" }, entry.word),
        s("line", { class: "whisker", x1: x(entry.low), x2: x(entry.high), y1: y, y2: y }),
        s("circle", { class: "dot run0", cx: x(share), cy: y, r: 4.5 }),
        s("text", { x: width, y: y + 4, "text-anchor": "end" }, `${entry.failed} of ${entry.queries}`));
    }),
    s("line", { class: "level", x1: x(overall), x2: x(overall), y1: 0, y2: height - 22 }));
}

// Value and interval of a percentage on a line from 0 to 100, a tick at chance; a row for each run.
function intervalMark(rows, chance) {
  const height = 8 + 10 * rows.length;
  const x = (value) => 4 + (Math.max(0, Math.min(100, value)) / 100) * 132;
  return s("svg", { viewBox: `0 0 140 ${height}`, class: "interval", width: 140, height, "aria-hidden": "true" },
    s("line", { class: "grid", x1: x(0), x2: x(100), y1: height / 2, y2: height / 2 }),
    chance !== null && s("line", { class: "level", x1: x(chance), x2: x(chance), y1: 2, y2: height - 2 }),
    rows.map((row, i) => row && [
      row.interval && s("line", { class: `whisker run${i}`, x1: x(row.interval[0]), x2: x(row.interval[1]), y1: 9 + 10 * i, y2: 9 + 10 * i }),
      s("circle", { class: `dot run${i}`, cx: x(row.value), cy: 9 + 10 * i, r: 3.5 }),
    ]));
}
