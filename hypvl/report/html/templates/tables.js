"use strict";
// Tables: results of the runs beside each other, the audit, what is known of the run.

const interval = (row) => (row && row.interval ? `${number(row.interval[0], row.unit)} to ${number(row.interval[1], row.unit)}` : "");

function resultTable(runs, keys, rowsOf, { grouped = true } = {}) {
  let before = null;
  const several = runs.length > 1;
  const body = keys.map((key) => {
    const rows = runs.map((_, i) => rowsOf[i].get(key));
    const any = rows.find(Boolean);
    const first = any.evaluation !== before;
    before = any.evaluation;
    return h("tr", { class: first && grouped ? "first" : null },
      h("th", { scope: "row" }, first || !grouped ? any.evaluation : h("span", { class: "sr" }, any.evaluation)),
      h("td", { class: "name" }, readable(any.metric), any.approximate && " (approximate)"),
      rows.map((row, i) => h("td", { class: "value", "data-label": several ? runs[i].name : "value" }, row ? number(row.value, row.unit) : "–", row && row.value !== null && row.unit && h("span", { class: "unit" }, "%"),
        row && row.interval && h("small", {}, interval(row)))),
      h("td", { class: any.chance === null ? "value chance none" : "value chance", "data-label": "chance" }, number(any.chance, any.unit)),
      h("td", { class: "plot" }, any.unit === "%" && intervalMark(rows, any.chance)));
  });
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of results" }, h("table", { class: "results" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "evaluation"), h("th", { scope: "col" }, "metric"),
      runs.map((run, i) => h("th", { scope: "col", class: "value" }, several && runKey(i), several ? run.name : "value")),
      h("th", { scope: "col", class: "value" }, "chance"), h("th", { scope: "col", class: "plot" }, "0 – 100%"))),
    h("tbody", {}, body)));
}

function runKey(i) {
  return s("svg", { viewBox: "0 0 24 8", class: "runkey", "aria-hidden": "true" }, s("path", { class: `line run${i}`, d: "M0 4H24" }));
}

function resultsSection(runs) {
  const rowsOf = runs.map((run) => new Map(run.results.map((row) => [`${row.evaluation}\n${row.metric}`, row])));
  const keys = [...new Set(rowsOf.flatMap((rows) => [...rows.keys()]))];
  if (!keys.length) return section("results", "Results", h("p", { class: "missing" }, "No results.json in the folder of the run: hypvl evaluate writes it."));
  const main = keys.filter((key) => rowsOf.some((rows) => rows.get(key) && rows.get(key).main));
  const firsts = keys.filter((key, i) => keys.findIndex((other) => other.split("\n")[0] === key.split("\n")[0]) === i);
  const shown = main.length ? main : firsts;
  const failed = runs.flatMap((run) => run.failed.map((entry) => h("li", {}, `${run.name}: ${entry.evaluation}: ${entry.status}. ${entry.reason}`)));
  return section("results", "Results",
    h("p", { class: "lead" }, "The main number of each evaluation with its 95% interval (bootstrap over items); the dashed tick is chance."),
    resultTable(runs, shown, rowsOf, { grouped: false }),
    failed.length ? h("ul", { class: "missing" }, failed) : null,
    h("details", {}, h("summary", {}, `All ${keys.length} metrics`), resultTable(runs, keys, rowsOf)));
}

const MARKS = { good: "✓", note: "●", bad: "!" };
const badge = (level, text) => h("span", { class: `badge ${level}` }, h("span", { "aria-hidden": "true" }, MARKS[level]), " ", text);

function findings(audit) {
  return h("ul", { class: "findings" }, audit.findings.map((one) => h("li", {}, badge(one.level, one.part), h("span", {}, one.text))));
}

// What to do about a verdict; docs/report.md says more.
const ADVICE = {
  partly: "What is marked ! contributes nothing yet: cones and order come from the entailment term, so give it more weight or more steps.",
  idle: "The model learns as in flat space: raise the weight of the entailment term, start with larger radii, or use plain CLIP.",
  collapsed: "Embeddings fill almost no directions: lower the learning rate, enlarge the batch, and look at the captions.",
  "not finite": "Training has diverged: use an earlier checkpoint and a lower learning rate.",
};

function numbersTable(runs, title) {
  const with_ = runs.filter((run) => run.model && run.model.audit);
  const names = [...new Set(with_.flatMap((run) => Object.keys(run.model.audit.metrics)))];
  return h("details", {}, h("summary", {}, title), h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, h("table", {},
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "number"), with_.map((run) => h("th", { scope: "col", class: "value" }, with_.length > 1 ? run.name : "value")))),
    h("tbody", {}, names.map((name) => h("tr", {}, h("th", { scope: "row", class: "name" }, readable(name)),
      with_.map((run) => h("td", { class: "value" }, number(run.model.audit.metrics[name]))))))))); 
}

function definitions(pairs) {
  return h("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}
