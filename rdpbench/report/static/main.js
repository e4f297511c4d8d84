"use strict";
// Puts the page together and keeps it to the state in the address.
(() => {
  const R = window.rdpbench;
  const { el } = R;
  const VIEWS = [["curves", "Overview"], ["table", "Table"], ["viewer", "Viewer"], ["run", "Run"]];
  const show = { curves: R.showCurves, table: R.showTable, viewer: R.showViewer, run: () => {} };

  if (R.section(R.state) === "curves") R.load("static/plotly.min.js"); // by far the largest file: read while the page is built
  document.title = `${R.report.title} · rdpbench`;
  R.byId("title").textContent = R.byId("title").title = R.report.title;
  const tabs = VIEWS.map(([view, text]) => el("button", { type: "button", "data-view": view, title: `${text} (${view[0]})`, click: () => R.set({ view }) }, text));
  // The pages of codecs and datasets, which links lead to as well.
  const pages = [["codec", "Codec", R.curves.map((one) => [one.base, R.plain(one)])], ["dataset", "Dataset", R.sets.map((one) => [one.dataset, one.title])]].map(([view, word, entries]) => {
    const select = el("select", { "aria-label": `Page of a ${word.toLowerCase()}`, "data-page": view, change: () => { location.hash = R.link({ view, of: select.value }); } },
      el("option", { value: "", disabled: true }, `${word} …`), [...new Map(entries)].map(([value, text]) => el("option", { value }, text)));
    return select;
  });
  R.byId("tabs").append(...tabs, ...pages);
  R.buildFilters();
  R.buildTable();
  R.buildViewer();
  R.buildRun();
  R.buildKeys();

  // A view that is not looked at learns what changed when it is.
  const missed = new Map(VIEWS.map(([view]) => [view, null]));
  const render = (state, changed) => {
    for (const one of tabs) one.setAttribute("aria-current", one.dataset.view === state.view ? "page" : "false");
    for (const one of pages) {
      one.value = one.dataset.page === state.view ? state.of : "";
      one.setAttribute("aria-current", one.dataset.page === state.view ? "page" : "false");
    }
    if (changed.has("theme")) R.paint(state.theme);
    const section = R.section(state);
    document.body.dataset.view = section;
    for (const [view] of VIEWS) {
      R.byId(`view-${view}`).hidden = view !== section;
      if (view !== section && missed.get(view)) changed.forEach((key) => missed.get(view).add(key));
    }
    R.byId("tip").hidden = true;
    R.showFilters(state);
    R.showPoint(state, changed);
    const all = missed.get(section) ? new Set([...missed.get(section), ...changed]) : new Set();
    missed.set(section, new Set());
    if (section !== "viewer") R.rest();
    show[section](state, all);
  };
  R.onState(render);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", R.recolour);
  render(R.state, new Set());
  document.documentElement.dataset.ready = "yes";
})();
