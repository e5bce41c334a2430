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
