// Sorting, reading matrices, opening what is printed. The page is whole without it.
"use strict";

for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const rank = (cell) => {
    const text = cell.dataset.v ?? "";
    return text !== "" && !Number.isNaN(Number(text)) ? Number(text) : text;
  };
  const sort = (index) => {
    const head = heads[index];
    const opposite = { ascending: "descending", descending: "ascending" };
    const first = head.dataset.best === "desc" ? "descending" : "ascending";
    const order = opposite[head.getAttribute("aria-sort")] ?? first;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...body.rows].map((row) => [rank(row.cells[index]), row]);
    // A cell without a score stays last in both directions.
    rows.sort(([a], [b]) => (a === "") - (b === "") || sign * (a < b ? -1 : a > b ? 1 : 0));
    body.append(...rows.map(([, row]) => row));
  };
  heads.forEach((head, index) => {
    head.tabIndex = 0;
    head.title = "sort";
    head.addEventListener("click", () => sort(index));
    head.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        sort(index);
      }
    });
  });
}

for (const drawing of document.querySelectorAll("svg[data-cells]")) {
  const { labels, rows } = JSON.parse(drawing.dataset.cells);
  const readout = drawing.closest(".matrix").querySelector(".readout");
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.querySelector(".field").getBoundingClientRect();
    const at = (offset, length) => Math.min(labels.length - 1, Math.max(0, Math.floor((offset / length) * labels.length)));
    const row = at(event.clientY - box.top, box.height);
    const column = at(event.clientX - box.left, box.width);
    const cells = rows[row];
    let count = 0;
    let total = 0;
    for (let i = 0; i < cells.length; i += 2) {
      total += cells[i + 1];
      if (cells[i] === column) count = cells[i + 1];
    }
    const share = total ? ((100 * count) / total).toFixed(1) : "0.0";
    readout.textContent = `truth ${labels[row]} → prediction ${labels[column]}: ${count} of ${total} rows (${share} %)`;
  });
}

const reveal = () => {
  const target = document.getElementById(location.hash.slice(1));
  const folded = target?.closest("details");
  if (folded) {
    folded.open = true;
    folded.scrollIntoView();
  }
};
addEventListener("hashchange", reveal);
reveal();

let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open]):not(.inner)")];
  closed.forEach((one) => (one.open = true));
});
addEventListener("afterprint", () => closed.forEach((one) => (one.open = false)));
