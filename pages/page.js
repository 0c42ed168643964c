// The browser of single items: a list with filters, search and keys, and the item that is open, column by column. What
// it shows is described in page.py. Model text only ever becomes text nodes; the MathML was checked by latex.py.
"use strict";
const byId = (id) => document.getElementById(id);
const words = (name) => name.replaceAll("_", " ");
const ROWS = 300; // in the list at once
const MANY = 3000; // formulas, and marks, in one text; what follows them stands there as it was written
let data, formulas; // what page.py packed; its pattern
const opened = new Set(), disputed = new Map(); // kinds of `fold`; {card: its JSON line}

function element(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

const chip = ([text, tone]) => element("span", "chip " + tone, text);

// --- text ---

function marked(text, needle) {
  if (!needle) return [text];
  const parts = [], low = text.toLowerCase();
  let from = 0;
  for (let at = low.indexOf(needle); at >= 0 && parts.length < 2 * MANY; at = low.indexOf(needle, from)) {
    parts.push(text.slice(from, at), element("mark", "", text.slice(at, at + needle.length)));
    from = at + needle.length;
  }
  return [...parts, text.slice(from)];
}

// A text as DOM nodes: formulas as MathML, ```code``` in a fixed font, what is searched for marked.
function rendered(text, needle) {
  const nodes = [];
  let from = 0;
  for (const found of text.matchAll(formulas)) {
    if (nodes.length > 2 * MANY) break;
    const block = found[1] ?? found[2] ?? found[3], latex = block ?? found[4] ?? found[5] ?? found[6];
    const mathml = data.maths[(block ? "block " : "inline ") + latex];
    if (latex && !mathml) continue;
    const before = text.slice(from, found.index);
    nodes.push(...marked(block ? before.trimEnd() : before, needle)); // a displayed formula makes its own line
    if (latex) {
      const holder = document.createElement("template");
      holder.innerHTML = mathml;
      nodes.push(holder.content);
    } else nodes.push(element("code", "", ...marked(found[0], needle)));
    from = found.index + found[0].length;
    if (block) from += text.slice(from).match(/^\s*/)[0].length;
  }
  return [...nodes, ...marked(text.slice(from), needle)];
}

// An answer as it was written, with what cannot be seen of it spelled out; beside it what it looks like if it holds a
// formula, often written without dollars.
function answer(text, needle) {
  const spelled = (sign) => /[ \n-]/.test(sign) ? sign : `\\u{${sign.codePointAt(0).toString(16)}}`;
  const nodes = rendered(data.maths["inline " + text] ? `$${text}$` : text, needle);
  const written = element("code", "", ...marked(text.replace(/[\p{C}\p{Z}\p{Pd}]/gu, spelled), needle));
  return nodes.some((node) => node instanceof DocumentFragment) ? [written, " ", ...nodes] : [written];
}

// Something long behind a line to click on, made when it is opened. Which kinds are open stays so from item to item.
function fold(kind, title, make, open = opened.has(kind)) {
  const summary = element("summary", "", title), box = element("details", kind, summary);
  const fill = () => { if (box.open && box.children.length === 1) box.append(element("div", "", ...make())); };
  summary.onclick = () => box.open ? opened.delete(kind) : opened.add(kind);
  box.ontoggle = fill;
  box.open = open;
  fill();
  return box;
}

const size = (text) => `${text.length.toLocaleString("en")} characters`;

// --- the item that is open ---

// The columns of an item that the filter "model" leaves.
function chosen(item) {
  const model = byId("model")?.value;
  return item.columns.filter((column) => !model || column.title === model);
}

function said(card, { prompt }, item, needle) {
  if (card.text == null) return [element("p", "soft", item.absent ?? data.absent)];
  const { text, thought = "", around: [before, between, after] = ["", "", ""] } = card;
  const nodes = text ? rendered(text, needle) : thought ? [] : [element("p", "soft", "empty")];
  if (thought) {
    const found = needle !== "" && thought.toLowerCase().includes(needle);
    const title = `thought, ${size(thought)}${text ? "" : ", unfinished"}`;
    nodes.unshift(fold("thought", title, () => rendered(thought, needle), !text || found || opened.has("thought")));
  }
  const whole = card.written ?? before + thought + between + text + after;
  if (prompt) nodes.unshift(fold("prompt", `prompt, ${size(prompt)}`, () => [element("code", "", ...marked(prompt, needle))]));
  return [...nodes, fold("written", `as written, ${size(whole)}`, () => [element("code", "", ...marked(whole, needle))])];
}

// A button that puts a verdict into the list of disputed ones, or takes it out.
function dispute(item, title, card, sample) {
  const button = element("button", "", "dispute"), box = byId("disputed");
  const show = () => {
    button.setAttribute("aria-pressed", disputed.has(card));
    box.hidden = !disputed.size;
    box.querySelector("textarea").value = [...disputed.values()].join("\n");
  };
  button.onclick = () => {
    const { status, answer: extracted } = card, { id, answer: gold } = item;
    if (!disputed.delete(card)) disputed.set(card, JSON.stringify({ id, model: title, sample, status, gold, extracted }));
    show();
  };
  show();
  return button;
}

// One column: its title, a button for each card where there are several, and the card that is picked.
function columnBox(column, item, needle) {
  const { title, note, cards } = column;
  const tabs = element("div", "tabs"), about = element("div"), body = element("div", "text");
  const head = element("header", "", element("b", "", title), element("span", "soft", note ?? ""));
  const box = element("div", "chain", head, body);
  function pick(card) {
    box.className = "chain " + (card.tone ?? card.status);
    const chips = card.chips ?? [[words(card.status), card.status]];
    about.replaceChildren(...chips.map(chip), element("span", "soft", card.fact ? " " + card.fact : ""));
    if (card.answer !== undefined) {
      const extracted = card.answer === null ? ["nothing"] : answer(card.answer, needle);
      about.append(element("div", "answer", element("span", "soft", "extracted "), ...extracted));
    }
    if (card.detail) about.append(element("div", "soft answer", card.detail));
    const sample = card.label ?? String(cards.indexOf(card) + 1);
    if (card.status) about.append(" ", dispute(item, title, card, sample));
    body.replaceChildren(...said(card, column, item, needle));
    body.scrollTop = 0;
    for (const tab of tabs.children) tab.setAttribute("aria-pressed", tab.card === card);
  }
  if (cards.length > 1) head.append(tabs);
  head.append(about);
  for (const [place, card] of cards.entries()) {
    const tab = element("button", card.status, card.label ?? String(place + 1));
    tab.card = card;
    tab.onclick = () => pick(card);
    tabs.append(tab);
  }
  const status = byId("status")?.value; // what the filter asks for is in front
  pick(cards.find((card) => card.status === status) ?? cards.find((card) => card.text != null) ?? cards[0]);
  return box;
}

function show(item, needle) {
  const columns = data.both ? item.columns : chosen(item);
  const parts = [element("p", "", element("b", "", item.id), " ", ...(item.chips ?? []).map(chip))];
  if (item.text) parts.push(element("div", "problem", ...rendered(item.text, needle)));
  const sent = item.prompt ?? (item.text ? [{ content: item.text }] : []);
  const code = ({ role, content }) => element("p", "", element("b", "", role ?? ""), " ", element("code", "", content));
  if (sent.length) parts.push(fold("sent", item.prompt ? "messages as sent" : "as written", () => sent.map(code)));
  if (item.answer) parts.push(element("p", "answer", element("span", "soft", data.answer), ...answer(item.answer, needle)));
  parts.push(element("div", "chains", ...columns.map((column) => columnBox(column, item, needle))));
  byId("detail").replaceChildren(...parts);
}

// --- the list ---

// In the list, what became of an item: a dot for one response, k/n for several.
function marks(item) {
  return chosen(item).filter(({ mark, cards }) => mark || cards[0].status)
    .map(({ mark, cards }) => mark ? mark + " " : element("i", "dot " + cards[0].status));
}

// The values of a filter in an item: its own one, the titles of the columns, or the cards of the chosen ones.
function valuesOf(item, filter) {
  if (filter in item) return [item[filter]];
  if (filter === "model") return item.columns.map((column) => column.title);
  return chosen(item).flatMap((column) => column.cards.map((card) => card[filter]));
}

// Items in the order that is asked for: by the mean over the chosen columns, then by which of them have it.
function ordered(items) {
  const sort = byId("sort")?.value ?? "", key = sort.replace("-", ""), sign = sort.startsWith("-") ? -1 : 1;
  if (!key) return items;
  const ranks = new Map(items.map((item) => {
    const values = chosen(item).map((column) => column[key]);
    return [item, [values.reduce((sum, value) => sum + value, 0) / values.length, values.join()]];
  }));
  return [...items].sort((a, b) => {
    const [[mean, which], [other, others]] = [ranks.get(a), ranks.get(b)];
    return sign * (mean - other || which.localeCompare(others));
  });
}

function textOf(item) {
  const cards = item.columns.flatMap((column) => column.cards).flatMap((card) => [card.answer, card.thought, card.text]);
  return [item.id, item.text, item.answer, ...cards].filter(Boolean).join("\n").toLowerCase();
}

function browse(items) {
  const fields = [...document.querySelectorAll(".controls > *")], filters = fields.filter((field) => field.matches(".filter"));
  const needle = () => byId("search").value.toLowerCase();
  let fits = [], shown = null, rows = ROWS;

  function list() {
    rows = Math.max(rows, fits.indexOf(shown) + 1);
    byId("list").replaceChildren(...fits.slice(0, rows).map((item) => {
      const button = element("button", item.tone, element("span", "what", item.text.slice(0, 120) || item.absent),
        element("span", "why", ...marks(item), item.why));
      button.item = item;
      button.onclick = () => open(item);
      return button;
    }));
    if (fits.length <= rows) return;
    const more = element("button", "more", `${fits.length - rows} more …`);
    more.onclick = () => { rows += ROWS; list(); mark(); };
    byId("list").append(more);
  }

  function mark() {
    const box = byId("list");
    for (const button of box.children) button.toggleAttribute("aria-current", button.item === shown);
    const at = box.querySelector("[aria-current]");
    if (at) box.scrollTop = Math.min(at.offsetTop, Math.max(box.scrollTop, at.offsetTop + at.offsetHeight - box.clientHeight));
  }

  function open(item) {
    shown = item;
    if (fits.indexOf(item) >= rows) list();
    mark();
    if (item) show(item, needle());
    else byId("detail").replaceChildren();
    const view = fields.filter((field) => field.value).map((field) => [field.id, field.value]);
    history.replaceState(null, "", "#" + new URLSearchParams(item ? [...view, ["at", item.id]] : view)); // to link to
  }

  function refresh() {
    const set = filters.filter((filter) => filter.value), text = needle();
    fits = ordered(items.filter((item) => set.every((filter) => valuesOf(item, filter.id).includes(filter.value))
      && (!text || (item.haystack ??= textOf(item)).includes(text))));
    byId("count").textContent = `${fits.length.toLocaleString("en")} of ${items.length.toLocaleString("en")}`;
    if (!fits.includes(shown)) shown = fits[0];
    rows = ROWS;
    list();
    open(shown);
  }

  function fromHash() {
    const view = new URLSearchParams(location.hash.slice(1));
    for (const field of fields) field.value = view.get(field.id) ?? "";
    shown = items.find((item) => item.id === view.get("at")) ?? shown;
    refresh();
  }

  const step = (by) => open(fits[Math.min(fits.length - 1, Math.max(0, fits.indexOf(shown) + by))]);
  for (const field of fields) field.oninput = refresh;
  byId("next").onclick = () => step(1);
  byId("previous").onclick = () => step(-1);
  addEventListener("hashchange", fromHash);
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /INPUT|SELECT|TEXTAREA/.test(event.target.tagName)) return;
    if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
    if (event.key === "/") { event.preventDefault(); byId("search").focus(); }
  });
  fromHash();
}

async function main() {
  const raw = atob(byId("samples").textContent), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  data = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  formulas = new RegExp(data.pattern, "g");
  browse(data.items);
  document.body.dataset.ready = "true";
}
main();
