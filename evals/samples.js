// Single problems of samples.html and compare.html; the rest is pages/page.js.
let page = {};

const right = (samples) => samples.filter((s) => s.status === "correct").length;
const words = (text) => text.replaceAll("_", " ");
const answer = (text, needle) => rendered(maths["inline " + text] ? `$${text}$` : text, needle);

// {model: samples} that the model's filter leaves
function chosen(item) {
  const model = byId("model").value;
  return Object.entries(item.runs).filter(([name]) => !model || name === model);
}

function response(sample, item, needle) {
  if (item.private) return [element("p", "soft", "Not shown: this benchmark is private.")];
  if (sample.text === undefined) return [element("p", "soft", "This text is not in the page; it is in generations.jsonl.")];
  const nodes = rendered(sample.text, needle);
  if (!sample.thought) return nodes.length ? nodes : [element("p", "soft", "empty")];
  const size = `thought, ${sample.thought.length.toLocaleString("en")} characters`;
  const fold = element("details", "", element("summary", "", sample.text ? size : `${size}, unfinished`));
  const fill = () => { // it is long: made when it is opened
    if (fold.open && fold.children.length === 1) fold.append(element("div", "", ...rendered(sample.thought, needle)));
  };
  fold.ontoggle = fill;
  fold.open = !sample.text || (needle !== "" && sample.thought.toLowerCase().includes(needle));
  fill();
  return [fold, ...nodes];
}

function column(model, samples, item, needle) {
  const body = element("div", "text"), about = element("div"), tabs = element("div", "tabs");
  const box = element("div", "chain", element("header", "", element("b", "", model), about), body);
  function pick(sample) {
    box.className = "chain " + sample.status;
    const said = element("div", "answer", element("span", "soft", "extracted "));
    said.append(...(sample.extracted === null ? ["nothing"] : answer(sample.extracted, needle)));
    const facts = [chip(words(sample.status), sample.status), element("span", "soft",
      ` ${sample.tokens.toLocaleString("en")} tokens, finish reason: ${sample.finish_reason}`)];
    about.replaceChildren(...(samples.length > 1 ? [tabs] : []), ...facts, said);
    if (sample.detail) about.append(element("div", "soft answer", sample.detail));
    body.replaceChildren(...response(sample, item, needle));
    body.scrollTop = 0;
    for (const tab of tabs.children) tab.setAttribute("aria-pressed", tab.sample === sample);
  }
  samples.forEach((sample, i) => {
    const tab = element("button", sample.status, sample.label ?? String(i + 1));
    tab.sample = sample;
    tab.onclick = () => pick(sample);
    tabs.append(tab);
  });
  if (samples.length > 1) box.firstChild.firstChild.after(element("span", "soft", `${right(samples)}/${samples.length} right`));
  const status = byId("status").value;
  pick(samples.find((s) => s.status === status) ?? samples.find((s) => s.text !== undefined) ?? samples[0]);
  return box;
}

function show(item, needle) {
  const head = element("p", "", element("b", "", item.problem_id), " ", element("span", "soft", item.benchmark), " ");
  if (item.change) head.append(chip(item.change, { gained: "kept", lost: "lost" }[item.change]));
  const columns = page.changes ? Object.entries(item.runs) : chosen(item); // a comparison has both, always
  const question = item.question ? [element("div", "problem", ...rendered(item.question, needle))] : [];
  const gold = item.gold ? [element("p", "", element("span", "soft", "gold "), ...answer(item.gold, needle))] : [];
  byId("detail").replaceChildren(head, ...question, ...gold,
    element("div", "chains", ...columns.map(([model, samples]) => column(model, samples, item, needle))));
}

// a dot for one response, k/n for several
function marks(item) {
  return chosen(item).flatMap(([, samples]) => samples.length === 1
    ? [element("i", "dot " + samples[0].status)] : [`${right(samples)}/${samples.length} `]);
}

async function main() {
  page = await unpack("samples");
  for (const item of page.items) item.id = `${item.benchmark}/${item.problem_id}`;
  const filters = {
    benchmark: { any: "any benchmark", of: (item) => item.benchmark, values: page.benchmarks },
    change: { any: "any change", of: (item) => item.change, values: page.changes },
    model: { any: "any model", of: (item) => Object.keys(item.runs), values: page.models },
    status: { any: "any status", of: (item) => chosen(item).flatMap(([, s]) => s.map((r) => r.status)), values: page.statuses },
  };
  if (!page.changes) delete filters.change;
  browse({
    items: page.items, filters, show,
    haystack: (item) => [item.id, item.question, item.gold, ...Object.values(item.runs).flat().flatMap((s) =>
      [s.extracted, s.thought, s.text])].filter(Boolean).join("\n"),
    row: (item) => ["", item.question.slice(0, 120) || "private", [...marks(item), ` ${item.problem_id}`]],
  });
}
main();
