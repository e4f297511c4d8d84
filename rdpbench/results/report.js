"use strict";
// Tables of class "sortable" are sorted by the column whose heading is pressed, and backwards when pressed again.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const key = (row) => row.cells[column].dataset.key;
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x !== undefined && y !== undefined) return down ? y - x : x - y;
      if (x !== undefined || y !== undefined) return x === undefined ? 1 : -1; // what is not there comes last
      const order = a.cells[column].textContent.localeCompare(b.cells[column].textContent);
      return down ? -order : order;
    };
    body.append(...[...body.rows].sort(compare));
  }));
}
