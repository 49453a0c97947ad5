"use strict";
// The page, section by section.

const DATA = JSON.parse(document.getElementById("data").textContent);
const RUNS = [DATA.run, ...DATA.others];
const MODEL = DATA.run.model;
const HEALTH = ["samples_per_second", "data_wait", "memory_gb", "peak_memory_gb", "skipped_steps", "bad_samples", "grad_norm", "lr"];

function answerSection(i, ...figures) {
  const answer = DATA.answers[0][i];
  const others = DATA.others.map((run, k) => [run, DATA.answers[k + 1][i]]).filter(([, other]) => other);
  return section(`answer-${i + 1}`, answer.question,
    h("p", { class: `answer ${answer.level}` }, badge(answer.level, answer.short), h("span", {}, answer.text)),
    others.length ? h("dl", { class: "others" }, others.map(([run, other]) => [h("dt", {}, run.name), h("dd", {}, badge(other.level, other.short), " ", other.text)])) : null,
    ...figures);
}

function curvedSection() {
  return answerSection(0,
    h("div", { class: "block" }, h("h3", {}, "The audit's verdict: ", MODEL.audit.verdict),
      h("p", { class: "lead" }, `Over ${MODEL.audit.pairs} pairs of ${MODEL.about.data}. ${MODEL.geometry.factors ? "u = sinh(√c · distance to the root): near 0 the space is as good as flat." : ""}`),
      findings(MODEL.audit), ADVICE[MODEL.audit.verdict] && h("p", { class: "lead" }, ADVICE[MODEL.audit.verdict]), numbersTable(RUNS, "All numbers of the audit")),
    diskView(MODEL));
}

function aboveSection() {
  const gap = MODEL.gap;
  return answerSection(1,
    h("div", { class: "two" },
      figure("Radii", [histogram(MODEL.radii, MODEL.geometry.radius), legend(["image", "images"], ["text", "texts"])],
        MODEL.geometry.root ? "Where the two histograms overlap, lengths do not tell texts from images." : "Without a root, distances are counted from the mean of all embeddings."),
      sphereView(MODEL)),
    h("div", { class: "block" }, h("h3", {}, "The modality gap"), definitions([
      ["distance of the two means", number(gap.centroid_distance)],
      ["cosine of the two means", number(gap.centroid_cosine)],
      ["relative gap (0.5 = as within a modality)", number(gap.relative_modality_gap)],
      ["mean cosine of pairs", number(gap.mean_paired_cosine)],
      ["mean cosine of other pairings", number(gap.mean_unpaired_cosine)],
      ["told apart by a linear classifier", `${number(100 * gap.linear_separability, "%")}%`],
    ])),
    traversalsView(DATA.run));
}

function failingSection() {
  const { words, text_to_image: way } = MODEL.retrieval;
  return answerSection(2,
    words.length ? figure("Words of failing queries", wordChart(words, 1 - way.right / way.queries),
      "Text queries that contain the word and do not find their image first, with intervals that hold for all words together (95%); the dashed line is the share over all queries.") : null,
    retrievalView(MODEL, "text_to_image", "Text to image"), retrievalView(MODEL, "image_to_text", "Image to text"));
}

function curvesSection() {
  const names = [...new Set(RUNS.flatMap((run) => run.curves.map((curve) => curve.name)))];
  if (!names.length) return section("training", "Training", h("p", { class: "missing" }, "No metrics.jsonl in the folder of the run."));
  const chart = (name) => lineChart(name, RUNS.map((run, i) => ({ ...run.curves.find((curve) => curve.name === name), run: i })).filter((curve) => curve.steps));
  const isHealth = (name) => HEALTH.includes(name);
  const isAudit = (name) => name.startsWith("audit/");
  const more = (title, some) => some.length ? h("details", {}, h("summary", {}, title), h("div", { class: "charts" }, some.map(chart))) : null;
  return section("training", "Training",
    RUNS.length > 1 ? h("ul", { class: "legend" }, RUNS.map((run, i) => h("li", {}, runKey(i), run.name))) : null,
    h("div", { class: "charts" }, names.filter((name) => !isHealth(name) && !isAudit(name)).map(chart)),
    more("The audit while training", names.filter(isAudit)), more("Learning rate, gradients, speed and memory", names.filter(isHealth)));
}

function configSection() {
  const about = DATA.run.about;
  const command = Array.isArray(about.command) ? about.command.join(" ") : null;
  return section("config", "Config and provenance",
    definitions([
      ["checkpoint", MODEL && MODEL.about.checkpoint], ["iteration", MODEL && MODEL.about.iteration],
      ["trained parameters", about.trained_parameters && thousands(about.trained_parameters)],
      ["seed", about.seed], ["hypvl", about.hypvl], ["commit", about.git_commit && about.git_commit.slice(0, 10) + (about.git_dirty ? " (changed)" : "")],
      ["torch", about.torch], ["python", about.python], ["device", about.device], ["processes", about.world_size], ["started", about.started],
    ]),
    command && h("pre", { class: "command", tabindex: "0", "aria-label": "Command" }, command),
    RUNS.filter((run) => run.config).map((run) => h("details", {}, h("summary", {}, RUNS.length > 1 ? `Config of ${run.name}` : "Config"), h("pre", { tabindex: "0", "aria-label": "Config" }, run.config))));
}

function themeSwitch() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const button = h("button", { type: "button", id: "theme" });
  const now = () => document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
  const show = () => { button.textContent = now() === "dark" ? "Light" : "Dark"; button.setAttribute("aria-label", `Switch to ${button.textContent.toLowerCase()} colours`); };
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = now() === "dark" ? "light" : "dark";
    show();
    document.dispatchEvent(new Event("themechange"));
  });
  dark.addEventListener("change", () => { show(); document.dispatchEvent(new Event("themechange")); });
  show();
  return button;
}

function page() {
  const sections = [...(MODEL ? [curvedSection(), aboveSection(), failingSection()] : [section("model", "The model", h("p", { class: "missing" }, "Nothing is known of the model: run hypvl report without --no-model on a run with a checkpoint."), traversalsView(DATA.run))]),
    curvesSection(), resultsSection(RUNS), configSection()];
  const about = MODEL ? [`iteration ${MODEL.about.iteration ?? "unknown"}`, `${MODEL.pairs} pairs of ${MODEL.about.data}`, MODEL.geometry.curv !== null ? `c = ${number(MODEL.geometry.curv)}` : null] : [];
  document.getElementById("top").append(
    h("div", { class: "row" }, h("div", {}, h("h1", {}, DATA.run.name), h("p", { class: "sub" }, about.filter(Boolean).join(" · ")),
      DATA.others.length ? h("p", { class: "sub" }, `beside ${DATA.others.map((run) => run.name).join(", ")}`) : null), themeSwitch()),
    DATA.answers[0].length ? h("ul", { class: "summary" }, DATA.answers[0].map((answer, i) => h("li", {}, h("a", { href: `#answer-${i + 1}`, class: answer.level }, h("span", {}, answer.question), badge(answer.level, answer.short))))) : null,
    h("nav", { "aria-label": "Sections" }, sections.map((one) => h("a", { href: `#${one.id}` }, one.querySelector("h2").textContent))));
  document.getElementById("content").replaceChildren(...sections);
  document.getElementById("foot").append(h("p", {}, "Written by hypvl report. How to read it: docs/report.md."));
}

document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hide(); });
page();
