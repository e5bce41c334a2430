"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const body = byId("images").tBodies[0], rows = Array.from(body.rows);
  const heads = Array.from(document.querySelectorAll("#images th"));
  const words = byId("words"), status = byId("status"), order = byId("order"), clear = byId("clear");
  const text = new Map(rows.map((row) => [row, (row.dataset.name + " " + row.dataset.message).toLowerCase()]));
  const collator = new Intl.Collator(undefined, { numeric: true });
  const paged = document.querySelector("nav.pages") !== null;
  let reason = "";

  function filter() {
    const wanted = words.value.toLowerCase().split(" ").filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const found = wanted.every((word) => text.get(row).includes(word));
      const reasons = reason ? (row.dataset.reasons || "").split("\n") : [];
      const kept = found && (!status.value || row.dataset.status === status.value) && (!reason || reasons.includes(reason));
      row.hidden = !kept;
      shown += kept ? 1 : 0;
    }
    byId("shown").textContent = shown === rows.length ? "" : shown + " of " + rows.length + (paged ? " on this page" : "");
    byId("none").hidden = shown > 0;
    clear.hidden = shown === rows.length;
  }

  function sort(head, descending) {
    const column = heads.indexOf(head), number = head.dataset.kind === "number", sign = descending ? -1 : 1;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    order.value = String(column);
    const key = new Map(rows.map((row) => [row, row.cells[column].dataset.key]));
    const compare = (a, b) => {
      const x = key.get(a), y = key.get(b);
      if (x === "" || y === "") return (x === "") - (y === "") || a.dataset.number - b.dataset.number;
      return sign * (number ? x - y : collator.compare(x, y)) || a.dataset.number - b.dataset.number;
    };
    body.append(...rows.slice().sort(compare));
  }

  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => sort(head, head.getAttribute("aria-sort") === "ascending"));
    order.append(new Option("sort by " + button.textContent, column));
  });
  order.prepend(new Option("failed and flagged first", ""));
  order.value = "";
  order.addEventListener("change", () => (order.value ? sort(heads[order.value], false) : body.append(...rows)));
  words.addEventListener("input", filter);
  status.addEventListener("change", filter);
  clear.addEventListener("click", () => { words.value = status.value = reason = ""; filter(); });
  document.querySelectorAll("button[data-status]").forEach((button) => button.addEventListener("click", () => {
    words.value = "";
    status.value = button.dataset.status;
    reason = button.dataset.reason;
    filter();
    byId("images-heading").scrollIntoView();
  }));
  byId("filters").hidden = false;
  const asked = decodeURIComponent(location.hash.slice(1)), colon = asked.indexOf(":");
  if (colon > 0) { status.value = asked.slice(0, colon); reason = asked.slice(colon + 1); }
  filter();
})();
