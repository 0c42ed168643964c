// The browser for single problems; the rest is pages/page.js.
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

function show(problem, needle) {
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
}

async function main() {
  const { problems } = await unpack("samples");
  browse({
    items: problems, show,
    filters: {
      outcome: { any: "any outcome", of: (p) => p.outcome },
      level: { any: "any level", of: (p) => p.level || "unrated" },
      reason: { any: "any reason or origin", of: (p) => p.reason || p.origin },
    },
    haystack: (p) => [p.id, p.problem, p.answer, p.reasoning, ...p.steps.map((s) => s.text || "")].join("\n"),
    row: (p) => [p.outcome === "kept" ? "kept" : "lost", p.problem.slice(0, 120),
      `${p.id} · ${p.level || "unrated"} · ${p.reason || p.origin}`],
  });
}
main();
