// Tables of class `sortable` get a button in each column's head. Without JavaScript they are as read.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort-button";
      button.title = "Sort by this column";
      button.textContent = head.textContent.trim();
      head.replaceChildren(button);
      button.addEventListener("click", () => sort(table, heads, column));
    });
  }
});

// Sorts the rows by a column's text, numbers by their size; a second time, the other way round.
function sort(table, heads, column) {
  const descending = heads[column].getAttribute("aria-sort") === "ascending";
  const text = (row) => row.cells[column].textContent.trim();
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => text(a).localeCompare(text(b), "en", { numeric: true }));
  if (descending) rows.reverse();
  table.tBodies[0].append(...rows);
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
}
