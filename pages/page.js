// Shared by the project's pages. Model text only ever becomes text nodes; the MathML was checked by latex.py.
"use strict";
const byId = (id) => document.getElementById(id);
let maths = {}, MATHS = null;

function element(tag, className, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

const chip = (text, tone) => element("span", "chip " + (tone || ""), text);

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

// A text as DOM nodes: formulas as MathML, ```code``` in a fixed font, what is searched for marked.
function rendered(text, needle) {
  const nodes = [];
  let from = 0;
  for (const found of text.matchAll(MATHS)) {
    const block = found[1] ?? found[2] ?? found[3], latex = block ?? found[4] ?? found[5] ?? found[6];
    const mathml = maths[(block ? "block " : "inline ") + latex];
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

// What pages/page.py packed.
async function unpack(id) {
  const raw = atob(byId(id).textContent), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  const data = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  maths = data.maths;
  MATHS = new RegExp(data.pattern, "g");
  return data;
}

const ROWS = 300; // in the list at once

// The list with its filters, search and keys. items: [{id, …}]. filters: {id of a <select>: {any: label, of: item -> value
// or values, values: in what order}}. haystack: item -> text. row: item -> [tone, first line, second]. show: (item, needle).
function browse({ items, filters, haystack, row, show }) {
  let fits = [], shown = null, rows = ROWS;
  const needle = () => byId("search").value.toLowerCase();

  function list() {
    rows = Math.max(rows, fits.indexOf(shown) + 1);
    byId("list").replaceChildren(...fits.slice(0, rows).map((item) => {
      const [tone, what, why] = row(item);
      const button = element("button", tone, element("span", "what", what), element("span", "why", ...[why].flat()));
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
    for (const button of byId("list").children) button.toggleAttribute("aria-current", button.item === shown);
    const box = byId("list"), at = box.querySelector("[aria-current]");
    if (at) box.scrollTop = Math.min(at.offsetTop, Math.max(box.scrollTop, at.offsetTop + at.offsetHeight - box.clientHeight));
  }

  function open(item) {
    shown = item;
    if (fits.indexOf(item) >= rows) list();
    mark();
    if (item) show(item, needle());
    else byId("detail").replaceChildren();
    const view = ["search", ...Object.keys(filters)].filter((id) => byId(id).value).map((id) => [id, byId(id).value]);
    history.replaceState(null, "", "#" + new URLSearchParams(item ? [...view, ["at", item.id]] : view)); // to link to
  }

  function refresh() {
    const chosen = Object.keys(filters).filter((id) => byId(id).value), text = needle();
    fits = items.filter((item) => chosen.every((id) => [filters[id].of(item)].flat().includes(byId(id).value))
      && (!text || (item.haystack ??= haystack(item).toLowerCase()).includes(text)));
    byId("count").textContent = `${fits.length.toLocaleString("en")} of ${items.length.toLocaleString("en")}`;
    if (!fits.includes(shown)) shown = fits[0];
    rows = ROWS;
    list();
    open(shown);
  }

  function fromHash() {
    const view = new URLSearchParams(location.hash.slice(1));
    for (const id of ["search", ...Object.keys(filters)]) byId(id).value = view.get(id) ?? "";
    shown = items.find((item) => item.id === view.get("at")) ?? shown;
    refresh();
  }

  const step = (by) => open(fits[Math.min(fits.length - 1, Math.max(0, fits.indexOf(shown) + by))]);
  for (const [id, { any, of, values }] of Object.entries(filters)) {
    const known = values ?? [...new Set(items.flatMap(of))].sort();
    byId(id).append(new Option(any, ""), ...known.map((value) => new Option(value.replaceAll("_", " "), value)));
    byId(id).onchange = refresh;
  }
  byId("search").oninput = refresh;
  byId("next").onclick = () => step(1);
  byId("previous").onclick = () => step(-1);
  addEventListener("hashchange", fromHash);
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /INPUT|SELECT/.test(event.target.tagName)) return;
    if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
    if (event.key === "/") { event.preventDefault(); byId("search").focus(); }
  });
  fromHash();
  document.body.dataset.ready = "true";
}
