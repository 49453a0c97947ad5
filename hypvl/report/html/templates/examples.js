"use strict";
// Traversals and retrieval in examples.

// Steps with the same text in a row, from the image to the root.
function stretches(steps) {
  const parts = [];
  for (const step of steps) {
    const last = parts[parts.length - 1];
    if (last && last.text === step.text) last.near = step.radius;
    else parts.push({ text: step.text, far: step.radius, near: step.radius });
  }
  return parts;
}

// `root`: what the walk ends at, "the root" or what stands for it.
function traversalCard(walk, image, root) {
  const parts = stretches(walk.steps);
  const most = Math.max(...walk.steps.map((step) => step.radius)) || 1;
  const rows = parts.map((part) => {
    const bar = s("svg", { class: "radius", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
      s("rect", { class: "track", width: 100, height: 10, rx: 2 }),
      s("rect", { class: "bar text", x: (100 * part.near) / most, width: Math.max(1.5, (100 * (part.far - part.near)) / most), height: 10, rx: 2 }));
    return h("li", { class: part.text === "[ROOT]" ? "root" : null }, h("span", { class: "far" }, part.far.toFixed(2)), bar, h("span", { class: "words" }, part.text === "[ROOT]" ? root : part.text));
  });
  const note = walk.texts && walk.texts.length === 1 && (walk.texts_in_reach === 0
    ? "No text is named: no entailment cone holds a point of the way."
    : `No text is named: ${root} is closer than any text all the way.`);
  return h("article", { class: "card traversal" },
    h("div", { class: "start" }, picture(image, 88), h("p", { class: "caption" }, image.caption || image.key)),
    h("ol", {}, rows), note && h("p", { class: "hint" }, note));
}

function traversalsView(run) {
  const { geometry } = run.model || { geometry: null };
  const rootless = geometry && !geometry.root;
  const root = rootless ? "the mean embedding" : "the root";
  const own = run.traversals.map((walk) => traversalCard(walk, walk, root));
  const fresh = run.model ? run.model.traversals.map((walk) => traversalCard(walk, run.model.images[walk.image], root)) : [];
  if (!own.length && !fresh.length) return null;
  return h("div", { class: "block" }, h("h3", {}, "Traversals"),
    h("p", { class: "lead" }, `From an image towards ${root}${rootless ? ", as the space has no root" : ""}: the closest text at each step, with its distance from ${root}. Texts should become more general downwards.`),
    h("div", { class: "cards" }, own, fresh));
}

function queryCard(way, entry, images) {
  const asked = way === "text_to_image"
    ? h("p", { class: "caption" }, "“", entry.caption, "”")
    : h("div", { class: "asked" }, picture(images[entry.image], 88));
  const answers = entry.answers.map((answer, i) => h("li", { class: answer.right ? "right" : null },
    way === "text_to_image" && picture(images[answer.image], 72),
    way === "image_to_text" && h("span", { class: "words" }, answer.caption),
    h("small", {}, answer.right ? "✓ " : "", `${i + 1}. `, answer.score.toPrecision(4).replace("-", "−"))));
  const wanted = entry.rank > 1 && h("div", { class: "wanted" },
    way === "text_to_image" ? picture(images[entry.image], 72) : h("span", { class: "words" }, entry.caption), h("small", {}, `right, at rank ${entry.rank}`));
  return h("article", { class: `card query ${way}` }, asked, h("ol", { class: "answers" }, answers), wanted);
}

function retrievalView({ retrieval, images }, way, title) {
  const { queries, right, within_5: five, median_rank: median, right_examples, wrong_examples } = retrieval[way];
  const list = (label, entries, open) => entries.length ? h("details", { open }, h("summary", {}, label),
    h("div", { class: "cards queries" }, entries.map((entry) => queryCard(way, entry, images)))) : null;
  return h("div", { class: "block" }, h("h3", {}, title),
    h("p", { class: "lead" }, `${right} of ${queries} find their partner first, ${five} among the best five; the median rank is ${median}.`),
    list("Wrong: the worst, and some of the others", wrong_examples, way === "text_to_image"), list("Right", right_examples, false));
}
