// The browser for single problems. Model text only ever becomes text nodes; the MathML was checked by latex.py.
"use strict";
// the same expression as in latex.py
const MATHS = /\$\$([^]+?)\$\$|\\\[([^]+?)\\\]|(\\begin\{(?:align|equation|gather|cases)\*?\}[^]+?\\end\{[a-z]+\*?\})|\\\(([^]+?)\\\)|\$([^$\n]+?)\$|(\\boxed\{[^{}\n]*\})/g;
const byId = (id) => document.getElementById(id);
let problems = [], maths = {}, shown = null;

function element(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

function marked(text, needle) {
  if (!needle) return [text];
  const parts = [], low = text.toLowerCase();
  let from = 0;
  for (let at = low.indexOf(needle); at >= 0; at = low.indexOf(needle, from)) {
    parts.push(text.slice(from, at), element("mark", "", text.slice(at, at + needle.length)));
    from = at + needle.length;
  }
  return [...parts, text.slice(from)];
}

function rendered(text, needle) {
  const nodes = [];
  let from = 0;
  for (const found of text.matchAll(MATHS)) {
    const block = found[1] ?? found[2] ?? found[3];
    const mathml = maths[(block ? "block " : "inline ") + (block ?? found[4] ?? found[5] ?? found[6])];
    if (!mathml) continue;
    const before = text.slice(from, found.index);
    nodes.push(...marked(block ? before.trimEnd() : before, needle)); // a displayed formula makes its own line
    const holder = document.createElement("template");
    holder.innerHTML = mathml;
    nodes.push(holder.content);
    from = found.index + found[0].length;
    if (block) from += text.slice(from).match(/^\s*/)[0].length;
  }
  return [...nodes, ...marked(text.slice(from), needle)];
}

const chip = (text, tone) => element("span", "chip " + (tone || ""), text);
const votes = (step) => Object.entries(step.votes || {}).map(([label, n]) => `${label} ${n}`).join(", ");

function verdicts(steps) {
  const chips = [];
  for (const step of steps) {
    const counted = Object.values(step.votes || {}).reduce((a, b) => a + b, 0) > 1 ? ` (${votes(step)})` : "";
    if (step.scores) chips.push(chip(step.scores.map(([rv, cd]) => `RV ${rv}, CD ${cd}`).join("; ")));
    if (step.step === "critic") chips.push(chip(`Critic: ${step.label || "no verdict"}${counted}`, step.label));
    if (step.step === "verifier")
      chips.push(chip(`Verifier: ${step.label || "no verdict"}${counted}`, step.label === "YES" ? "kept" : "lost"));
    if (step.answer_check)
      chips.push(chip(`answer ${step.answer_check}`, { agrees: "kept", differs: "lost" }[step.answer_check]));
    if (step.guard) chips.push(chip(`guard: ${step.guard}`, "lost"));
    if (step.asked) chips.push(chip(step.asked));
  }
  return chips;
}

function chain(title, tone, text, steps, needle) {
  const head = element("header", "", element("b", "", title));
  if (text) head.append(element("span", "soft", `${text.length.toLocaleString("en")} characters`));
  head.append(element("div", "", ...verdicts(steps)));
  return element("div", "chain " + tone, head, element("div", "text", ...rendered(text || "no usable reply", needle)));
}

function show(problem) {
  shown = problem;
  const needle = byId("search").value.toLowerCase();
  const rewrite = (s) => s.step === "rethinker" && s.mode !== "incorrect";
  const columns = [chain("Original", problem.level || "unrated", problem.reasoning,
    problem.steps.filter((s) => s.round === 0), needle)];
  for (const step of problem.steps.filter(rewrite)) {
    const last = problem.rewritten !== null && step.text === problem.rewritten;
    const about = problem.steps.filter((s) => s === step || (s.round === step.round && s.step !== "rethinker"));
    const verb = step.mode === "hard" ? "simplified" : "extended";
    columns.push(chain(`Try ${step.round}: ${verb}${last ? ", kept" : ""}`, last ? "kept" : "", step.text, about, needle));
  }
  for (const step of problem.steps.filter((s) => s.mode === "incorrect")) {
    const last = step.text === problem.incorrect && problem.incorrect !== null;
    columns.push(chain(`Incorrect${last ? ", kept" : ""}`, "lost", step.text, [step], needle));
  }
  const outcome = chip(problem.reason ? `${problem.outcome}: ${problem.reason}` : `kept as ${problem.origin}`,
    problem.outcome === "kept" ? "kept" : "lost");
  byId("detail").replaceChildren(
    element("p", "", element("b", "", problem.id), " ", outcome),
    element("div", "problem", ...rendered(problem.problem, needle)),
    element("p", "", element("span", "soft", "y = "), ...rendered(problem.answer, needle)),
    element("div", "chains", ...columns));
  for (const button of byId("list").children) button.toggleAttribute("aria-current", button.problem === problem);
}

const FILTERS = { outcome: (p) => p.outcome, level: (p) => p.level || "unrated", reason: (p) => p.reason || p.origin };

function refresh() {
  const needle = byId("search").value.toLowerCase();
  const fits = problems.filter((p) => Object.entries(FILTERS).every(([id, of]) => !byId(id).value || of(p) === byId(id).value)
    && (!needle || p.haystack.includes(needle)));
  byId("list").replaceChildren(...fits.map((p) => {
    const button = element("button", p.outcome === "kept" ? "kept" : "lost",
      element("span", "what", p.problem.slice(0, 120)),
      element("span", "why", `${p.id} · ${p.level || "unrated"} · ${p.reason || p.origin}`));
    button.problem = p;
    button.onclick = () => show(p);
    return button;
  }));
  const chosen = ["search", ...Object.keys(FILTERS)].filter((id) => byId(id).value).map((id) => [id, byId(id).value]);
  history.replaceState(null, "", "#" + new URLSearchParams(chosen)); // a view can be linked to
  byId("count").textContent = `${fits.length} of ${problems.length}`;
  if (fits.length) show(fits.includes(shown) ? shown : fits[0]);
  else byId("detail").replaceChildren();
}

async function main() {
  const packed = Uint8Array.from(atob(byId("samples").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  ({ problems, maths } = await new Response(stream).json());
  for (const p of problems)
    p.haystack = [p.id, p.problem, p.answer, p.reasoning, ...p.steps.map((s) => s.text || "")].join("\n").toLowerCase();
  for (const [id, of] of Object.entries(FILTERS)) {
    const values = [...new Set(problems.map(of))].sort();
    byId(id).append(new Option(`any ${id === "reason" ? "reason or origin" : id}`, ""), ...values.map((v) => new Option(v, v)));
    byId(id).onchange = refresh;
  }
  byId("search").oninput = refresh;
  for (const [id, value] of new URLSearchParams(location.hash.slice(1))) if (byId(id)) byId(id).value = value;
  refresh();
  document.body.dataset.ready = "true";
}
main();
