"use strict";
// A table of any length: only the lines in the window exist. Sorted by heading, filtered by words and comparisons.
(() => {
  const R = window.rdpbench;
  const { el } = R;
  const HEIGHT = 34;
  const SPARE = 8;

  // "avif psnr>30 bpp<=0.5": words that a line must have, and numbers that it must keep to.
  R.query = (text) => text.trim().split(/\s+/).filter(Boolean).map((word) => {
    const found = /^(.+?)(<=|>=|<|>|=)(-?[\d.]+(?:e-?\d+)?)$/.exec(word);
    return found ? { column: found[1].toLowerCase(), sign: found[2], number: Number(found[3]) } : { word: word.toLowerCase() };
  });
  const holds = { "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b, "=": (a, b) => a === b };
  const matches = (columns, line, terms) => terms.every((term) => {
    if (term.word) return columns.some((one) => !one.number && `${one.text(line)} ${one.words?.(line) ?? ""}`.toLowerCase().includes(term.word));
    const column = columns.find((one) => one.number && one.id.toLowerCase() === term.column);
    return column !== undefined && holds[term.sign](column.value(line), term.number);
  });
  const compare = (column, down) => (a, b) => {
    const [x, y] = [column.value(a), column.value(b)];
    if (column.number) {
      // What has no number comes last, whichever way.
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      return x === y ? 0 : (x < y) === !down ? -1 : 1;
    }
    return (down ? -1 : 1) * String(x).localeCompare(String(y), "en", { numeric: true });
  };

  // columns: { id, title, number, value(line), text(line), words?(line): found, too; sign?(line), hint? }
  R.grid = ({ label, key, open, resort }) => {
    const body = el("tbody");
    const head = el("tr");
    const table = el("table", { "aria-label": label }, el("colgroup"), el("thead", {}, head), body);
    const box = el("div", { class: "grid", tabindex: "0", role: "region", "aria-label": label }, table);
    let columns = [];
    let lines = [];
    let shown = [];
    let sort = "";
    let chosen = "";
    let active = -1;

    const row = (line, number) => {
      const cells = columns.map((column, at) => el(at ? "td" : "th", { class: column.number ? "number" : "", scope: at ? null : "row", title: column.hint?.(line) },
        column.sign?.(line), column.text(line)));
      return el("tr", {
        "data-key": key(line), "aria-rowindex": String(number + 2), "aria-selected": String(key(line) === chosen),
        class: number === active ? "active" : null, click: () => { active = number; open(line); },
      }, cells);
    };
    const space = (count) => {
      const made = el("tr", { class: "space", "aria-hidden": "true" });
      made.style.height = `${count * HEIGHT}px`;
      return made;
    };
    const paint = () => {
      const first = Math.max(0, Math.floor(box.scrollTop / HEIGHT) - SPARE);
      const last = Math.min(shown.length, first + Math.ceil((box.clientHeight || 600) / HEIGHT) + 2 * SPARE);
      body.replaceChildren(space(first), ...shown.slice(first, last).map((line, n) => row(line, first + n)), space(shown.length - last));
    };
    const arrange = (terms) => {
      const down = sort.startsWith("-");
      const column = columns.find((one) => one.id === sort.replace(/^-/, ""));
      shown = terms.length ? lines.filter((line) => matches(columns, line, terms)) : [...lines];
      if (column) shown.sort(compare(column, down));
      table.setAttribute("aria-rowcount", String(shown.length + 1));
      for (const cell of head.cells) {
        const here = column && cell.dataset.column === column.id;
        if (here) cell.setAttribute("aria-sort", down ? "descending" : "ascending");
        else cell.removeAttribute("aria-sort");
      }
      active = shown.findIndex((line) => key(line) === chosen);
      paint();
    };
    const heads = () => {
      // Widths by the longest of many lines: columns must not jump while one scrolls. No number may be cut.
      const em = (wide) => wide * 0.62 + 2;
      const step = Math.max(1, Math.floor(lines.length / 2000));
      const width = (column) => {
        let most = column.title.length + 3;
        for (let n = 0; n < lines.length; n += step) most = Math.max(most, column.text(lines[n]).length + (column.sign ? 4 : 0));
        return Math.min(44, most);
      };
      const widths = columns.map(width);
      table.querySelector("colgroup").replaceChildren(...widths.map((wide) => {
        const col = el("col");
        col.style.width = `${em(wide)}em`;
        return col;
      }));
      table.style.width = `${widths.reduce((sum, wide) => sum + em(wide), 0)}em`;
      head.replaceChildren(...columns.map((column) => el("th", { scope: "col", class: column.number ? "number" : "", "data-column": column.id },
        el("button", { type: "button", title: `sort by ${column.title}`, click: () => resort(sort === column.id ? `-${column.id}` : column.id) }, column.title))));
    };

    box.addEventListener("scroll", () => requestAnimationFrame(paint), { passive: true });
    new ResizeObserver(paint).observe(box);
    box.addEventListener("keydown", (event) => {
      const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 12, PageUp: -12, Home: -Infinity, End: Infinity }[event.key];
      if (by !== undefined && shown.length) {
        active = Math.min(shown.length - 1, Math.max(0, active + by));
        const top = active * HEIGHT;
        if (top < box.scrollTop) box.scrollTop = top;
        if (top + 2 * HEIGHT > box.scrollTop + box.clientHeight) box.scrollTop = top + 2 * HEIGHT - box.clientHeight;
        paint();
      } else if (event.key === "Enter" && event.target === box && shown[active]) open(shown[active]);
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    return {
      box,
      count: () => shown.length,
      show: (next) => {
        if (next.columns) [columns, lines] = [next.columns, next.lines];
        if (next.columns) heads();
        ({ sort, chosen } = next);
        arrange(R.query(next.q));
      },
      choose: (id) => { chosen = id; active = shown.findIndex((line) => key(line) === id); paint(); },
    };
  };
})();
