"""How the page on a batch looks, and how its table is sorted and filtered; nothing in it is loaded."""

STYLE = """
:root { color-scheme: light dark; --ground: #fbfbfa; --card: #fff; --ink: #22262b; --soft: #6b7280; --line: #e5e7eb;
  --ok: #2f7d6b; --empty: #64748b; --flagged: #a15c07; --failed: #b3261e; --bar: #5b8db8; }
@media (prefers-color-scheme: dark) { :root { --ground: #15181c; --card: #1d2126; --ink: #e6e8ea; --soft: #98a2ad;
  --line: #30363d; --ok: #63c2a8; --empty: #9aa8b8; --flagged: #e5ab5b; --failed: #f2877f; --bar: #6fa3cf; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 70rem; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; font-variant-numeric: tabular-nums; }
h1 { margin: 0 0 1.5rem; font-size: 1.6rem; font-weight: 600; letter-spacing: -.01em; overflow-wrap: anywhere; }
header h1 { margin-bottom: .4rem; } header { margin-bottom: 1.5rem; }
.settings { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: 0; color: var(--soft); font-size: .85rem; }
.settings b { color: var(--ink); font-weight: 500; overflow-wrap: anywhere; }
.summary { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: .75rem; margin: 0 0 1.5rem; }
.summary div, figure, table { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.summary div { padding: .8rem 1rem; }
dt, figcaption, th button, svg text, #shown { color: var(--soft); font-size: .8rem; }
dd { margin: 0; font-size: 1.5rem; font-weight: 600; line-height: 1.3; }
.flagged dd { color: var(--flagged); } .failed dd { color: var(--failed); }
figure { margin: 0 0 1.5rem; padding: 1rem 1rem .6rem; }
svg { display: block; width: 100%; height: auto; margin-top: .5rem; }
svg text { fill: var(--soft); font-size: 12px; }
.line { stroke: var(--line); fill: none; } .air { fill: transparent; } .bar { fill: var(--bar); }
g:hover .bar { opacity: .7; } .bar.flagged { fill: var(--flagged); } .bar.failed { fill: var(--failed); }
.filters { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; margin: 0 0 .75rem; }
.filters[hidden] { display: none; }
input, select { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: .4rem .7rem; }
input { flex: 1 1 16rem; max-width: 26rem; }
table { width: 100%; border-collapse: separate; border-spacing: 0; }
th, td { padding: .5rem .75rem; text-align: left; vertical-align: middle; border-bottom: 1px solid var(--line); }
tbody tr:last-child td { border-bottom: 0; }
th.figure, td.figure { text-align: right; white-space: nowrap; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--bar); outline-offset: 3px; border-radius: 3px; }
th[aria-sort="ascending"] button::after { content: " ↑"; } th[aria-sort="descending"] button::after { content: " ↓"; }
a { color: inherit; text-decoration-color: var(--line); text-underline-offset: 3px; }
.picture { width: 5.5rem; } .name, .message { overflow-wrap: anywhere; } .message { color: var(--soft); }
img { display: block; width: 72px; height: 72px; object-fit: cover; border-radius: 6px; background: var(--line); }
.badge { display: inline-block; padding: .05rem .55rem; border: 1px solid currentColor; border-radius: 99px;
  font-size: .8rem; white-space: nowrap; }
.badge.ok { color: var(--ok); } .badge.empty { color: var(--empty); }
.badge.flagged { color: var(--flagged); } .badge.failed { color: var(--failed); }
@media print { body { padding: 0; max-width: none; font-size: 11px; } .filters { display: none; }
  tr, figure, .summary { break-inside: avoid; } thead { display: table-header-group; } }
"""

SCRIPT = """
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const body = byId("images").tBodies[0], rows = Array.from(body.rows);
  const heads = Array.from(document.querySelectorAll("th"));
  const words = byId("words"), status = byId("status");
  const text = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const collator = new Intl.Collator(undefined, { numeric: true });
  function filter() {
    const wanted = words.value.toLowerCase().split(" ").filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const found = wanted.every((word) => text.get(row).includes(word));
      const kept = found && (!status.value || row.dataset.status === status.value);
      row.hidden = !kept;
      shown += kept ? 1 : 0;
    }
    byId("shown").textContent = shown === rows.length ? "" : shown + " of " + rows.length;
    byId("none").hidden = shown > 0;
  }
  function sort(head) {
    const column = heads.indexOf(head), number = head.dataset.kind === "number";
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const key = new Map(rows.map((row) => [row, row.cells[column].dataset.key]));
    const compare = (a, b) => {
      const x = key.get(a), y = key.get(b);
      if (x === "" || y === "") return (x === "") - (y === "") || a.dataset.number - b.dataset.number;
      return sign * (number ? x - y : collator.compare(x, y)) || a.dataset.number - b.dataset.number;
    };
    body.append(...rows.slice().sort(compare));
  }
  heads.forEach((head) => head.querySelector("button")?.addEventListener("click", () => sort(head)));
  words.addEventListener("input", filter);
  status.addEventListener("change", filter);
  byId("filters").hidden = false;
  filter();
})();
"""
