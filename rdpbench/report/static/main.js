"use strict";
// Puts the page together and keeps it to the state in the address.
(() => {
  const R = window.rdpbench;
  const { el } = R;
  const VIEWS = [["curves", "Curves"], ["table", "Table"], ["viewer", "Viewer"], ["run", "Run"]];
  const show = { curves: R.showCurves, table: R.showTable, viewer: R.showViewer, run: () => {} };

  if (R.state.view === "curves") R.load("static/plotly.min.js"); // by far the largest file: read while the page is built
  document.title = `${R.report.title} · rdpbench`;
  R.byId("title").textContent = R.report.title;
  const tabs = VIEWS.map(([view, text]) => el("button", { type: "button", "data-view": view, title: `${text} (${view[0]})`, click: () => R.set({ view }) }, text));
  R.byId("tabs").append(...tabs);
  R.buildFilters();
  R.buildTable();
  R.buildViewer();
  R.buildRun();
  R.buildKeys();

  // A view that is not looked at learns what changed when it is.
  const missed = new Map(VIEWS.map(([view]) => [view, null]));
  const render = (state, changed) => {
    for (const one of tabs) one.setAttribute("aria-current", one.dataset.view === state.view ? "page" : "false");
    document.body.dataset.view = state.view;
    for (const [view] of VIEWS) {
      R.byId(`view-${view}`).hidden = view !== state.view;
      if (view !== state.view && missed.get(view)) changed.forEach((key) => missed.get(view).add(key));
    }
    R.byId("tip").hidden = true;
    R.showFilters(state);
    R.showPoint(state, changed);
    const all = missed.get(state.view) ? new Set([...missed.get(state.view), ...changed]) : new Set();
    missed.set(state.view, new Set());
    if (state.view !== "viewer") R.rest();
    show[state.view](state, all);
  };
  R.onState(render);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", R.recolour);
  render(R.state, new Set());
  document.documentElement.dataset.ready = "yes";
})();
