"use strict";
// The keyboard. Letters are left alone where one types.
(() => {
  const R = window.rdpbench;
  const { el } = R;
  const LIST = [
    ["c  t  v  r", "overview, table, viewer, run"], ["/", "filter the table"], ["l", "light or dark"], ["Esc", "close"], ["?", "this list"],
    ["← → ↑ ↓", "curves: along a curve, to another; viewer: images"], ["Enter", "curves: compare the images of the point"],
    ["s  w  f  d", "viewer: side by side, wipe, flicker, difference"], ["Space", "viewer: flicker, or hold it"], ["1  2  3", "viewer: this codec in wipe or flicker; 0 fits"],
    ["+  −  0  z", "viewer: larger, smaller, fit, actual pixels"], ["Shift ← → ↑ ↓", "viewer: move about"], [",  .", "viewer: move the wipe"], ["m", "viewer: matched rate or settings by hand"],
  ];
  const views = { c: "curves", t: "table", v: "viewer", r: "run" };
  const modes = { s: "side", w: "wipe", f: "flicker", d: "difference" };

  R.toggleTheme = () => {
    const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    const next = dark ? "light" : "dark";
    try {
      localStorage.setItem("rdpbench-theme", next);
    } catch {
      // Storage is off: the address has it.
    }
    R.set({ theme: next });
  };
  R.paint = (theme) => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    R.recolour();
  };

  const inViewer = (event) => {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const by = arrows[event.key];
    if (by && event.shiftKey) R.look.pan(60 * by[0], 60 * by[1]);
    else if (by) R.turnTo(by[0] || by[1]);
    else if (modes[event.key]) R.set({ mode: modes[event.key] });
    else if (event.key === " ") (R.state.mode === "flicker" ? R.play() : R.set({ mode: "flicker" }));
    else if (event.key === "+" || event.key === "=") R.look.zoom(1.5);
    else if (event.key === "-") R.look.zoom(1 / 1.5);
    else if (event.key === "0") R.look.scale(0);
    else if (event.key === "z") R.look.scale(1);
    else if (event.key === "m") R.set({ match: R.state.match === "1" ? "0" : "1" });
    else if (event.key === "," || event.key === ".") R.set({ wipe: String(Math.min(100, Math.max(0, Number(R.state.wipe) + (event.key === "." ? 5 : -5)))) });
    else if (["1", "2", "3"].includes(event.key)) R.pane(Number(event.key));
    else return false;
    return true;
  };
  const inCurves = (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const by = steps[event.key];
    if (by) R.step(...by);
    else if (event.key === "Enter" && R.points.get(R.state.point)?.pictures) R.set({ view: "viewer", panes: R.panesFor(R.points.get(R.state.point)) });
    else return false;
    return true;
  };

  R.buildKeys = () => {
    const dialog = R.byId("keys");
    dialog.append(el("h2", {}, "Keyboard"), el("dl", {}, LIST.flatMap(([keys, text]) => [el("dt", {}, keys), el("dd", {}, text)])),
      el("form", { method: "dialog" }, el("button", { class: "plain" }, "Close")));
    R.byId("help").addEventListener("click", () => dialog.showModal());
    R.byId("theme").addEventListener("click", R.toggleTheme);
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || dialog.open) return;
      const typing = event.target.closest("input:not([type=checkbox]), select, textarea");
      if (event.key === "Escape") {
        if (typing) event.target.blur();
        else if (R.state.view === "viewer") R.set({ view: "curves" });
        else R.set({ point: "" });
        return;
      }
      // Buttons keep their own keys, and lists scroll by arrows.
      const own = event.target.closest("a, button, summary, [tabindex='0']") && ["Enter", " "].includes(event.key);
      if (typing || own) return;
      let done = true;
      if (views[event.key] && !event.shiftKey) R.set({ view: views[event.key] });
      else if (event.key === "l") R.toggleTheme();
      else if (event.key === "?") dialog.showModal();
      else if (event.key === "/") { R.set({ view: "table" }); R.byId("search").focus(); }
      else if (R.state.view === "viewer") done = inViewer(event);
      else if (R.section(R.state) === "curves") done = inCurves(event);
      else done = false;
      if (done) event.preventDefault();
    });
  };
})();
