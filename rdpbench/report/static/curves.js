"use strict";
// Rate-perception curves: a panel for each set and metric, drawn when it comes near the window.
(() => {
  const R = window.rdpbench;
  const { el } = R;
  const panels = new Map();
  const queue = new Set();
  let colours = null;
  let lit = "";

  const near = new IntersectionObserver((entries) => {
    for (const one of entries) {
      const panel = panels.get(one.target.dataset.key);
      if (!panel) continue;
      panel.near = one.isIntersecting;
      if (panel.near && panel.stale) plan(panel);
    }
  }, { rootMargin: "300px" });
  const sized = new ResizeObserver((entries) => {
    for (const one of entries) {
      const panel = panels.get(one.target.closest(".panel").dataset.key);
      if (panel?.drawn && one.contentRect.width > 0) Plotly.Plots.resize(panel.box);
    }
  });

  const plan = (panel) => {
    queue.add(panel);
    if (queue.size === 1) requestAnimationFrame(next);
  };
  // One panel for each frame: the page answers while many are drawn.
  const next = async () => {
    await R.load("static/plotly.min.js");
    if (!window.Plotly) {
      for (const panel of queue) panel.box.textContent = R.unplotted;
      queue.clear();
    }
    const [panel] = queue;
    queue.delete(panel);
    if (panel?.box.isConnected) draw(panel);
    if (queue.size) requestAnimationFrame(next);
    else document.documentElement.dataset.drawn = "yes";
  };

  const palette = () => ({
    curves: Array.from({ length: R.COLOURS }, (_, n) => R.colour(`c${n}`)),
    ink: R.colour("ink"), faint: R.colour("faint"), line: R.colour("line"), paper: R.colour("card"),
  });
  R.recolour = () => {
    colours = null;
    for (const panel of panels.values()) refresh(panel);
  };

  const refresh = (panel) => {
    panel.stale = true;
    if (panel.near) plan(panel);
  };

  // Along a curve by rate; what has no number on either axis is left out.
  const along = (curve, metric, x) => curve.points
    .map((point) => ({ point, x: x === "bpp" ? R.rateOf(point, metric) : R.value(point, x), y: R.value(point, metric) }))
    .filter((one) => Number.isFinite(one.x) && Number.isFinite(one.y))
    .sort((a, b) => R.rate(a.point) - R.rate(b.point));

  const traces = (panel, state) => {
    const shown = R.shownCurves(state).filter((curve) => curve.set === panel.set);
    const out = [];
    for (const curve of shown) {
      const found = along(curve, panel.metric.name, state.x);
      if (!found.length) continue;
      const colour = colours.curves[curve.colour];
      const dim = lit ? lit !== curve.codec : state.view === "codec" && curve.base !== state.of;
      const ends = found.map((one) => one.point.values[panel.metric.name]).map((one) => [R.num(one[1]), R.num(one[2])]);
      if (state.band === "1" && state.x === "bpp" && found.length > 1 && ends.flat().every(Number.isFinite)) {
        const xs = found.map((one) => one.x);
        out.push({
          x: [...xs, ...xs.toReversed()], y: [...ends.map((one) => one[1]), ...ends.map((one) => one[0]).toReversed()],
          fill: "toself", fillcolor: R.faded(colour, dim ? 0.02 : 0.1), line: { width: 0 }, mode: "lines", hoverinfo: "skip", type: "scatter",
        });
      }
      // Of a codec that several runs measured the later curves are open and larger: none covers another.
      const open = curve.again ? "-open" : "";
      const pale = (point) => R.partial(point) || curve.random || !R.reliable(point, panel.metric.name) || R.remark(point, panel.metric.name) !== "";
      out.push({
        x: found.map((one) => one.x), y: found.map((one) => one.y), customdata: found.map((one) => one.point.id),
        type: "scatter", mode: "lines+markers", hoverinfo: "none", opacity: dim ? 0.15 : 1,
        line: { color: colour, width: 1.8, dash: curve.random ? "dot" : curve.again ? "dash" : "solid" },
        marker: {
          color: found.map((one) => (pale(one.point) ? R.faded(colour, 0.25) : colour)), size: curve.again ? 12 : 8, line: { width: 1.5, color: colour },
          symbol: R.SYMBOLS[curve.symbol] + open,
        },
      });
    }
    const chosen = R.points.get(state.point);
    const at = chosen && shown.includes(chosen.curve) && along(chosen.curve, panel.metric.name, state.x).find((one) => one.point === chosen);
    if (at) {
      out.push({
        x: [at.x], y: [at.y], type: "scatter", mode: "markers", hoverinfo: "skip",
        marker: { symbol: "circle-open", size: 17, color: colours.ink, line: { width: 2.5, color: colours.ink } },
      });
    }
    return out;
  };

  const axis = (title) => ({
    title: { text: title, standoff: 8, font: { size: 12 } }, gridcolor: colours.line, linecolor: colours.line, zeroline: false,
    tickfont: { size: 11 }, color: colours.faint, automargin: true,
  });
  const rateAxis = (values, state) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const log = state.scale === "log" || (state.scale === "auto" && state.x === "bpp" && high / low > 10);
    const title = state.x === "bpp" ? "bits per pixel" : R.metrics.get(state.x)?.head ?? state.x;
    if (!log || !(low > 0)) return axis(title);
    const digits = high / low > 30 ? [1, 2, 5] : high / low > 6 ? [1, 1.5, 2, 3, 5, 7] : [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8];
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)) - 1; power <= Math.log10(high); power += 1) {
      ticks.push(...digits.map((digit) => Number(`${digit}e${power}`)));
    }
    return { ...axis(title), type: "log", tickmode: "array", tickvals: ticks, ticktext: ticks.map(String) };
  };

  const draw = (panel) => {
    const state = R.state;
    colours ??= palette();
    panel.stale = false;
    const made = traces(panel, state);
    panel.figure.classList.toggle("empty", made.length === 0);
    const layout = {
      margin: { l: 8, r: 8, t: 6, b: 8 }, height: 280, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, color: colours.faint }, showlegend: false,
      hovermode: "closest", hoverdistance: 24, dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
      xaxis: rateAxis(made.flatMap((one) => one.x), state), yaxis: axis(""),
      uirevision: `${state.x}-${state.scale}`,
    };
    Plotly.react(panel.box, made, layout, { displayModeBar: false, doubleClick: "reset" });
    if (panel.drawn) return;
    panel.drawn = true;
    panel.box.on("plotly_click", ({ points: [one] }) => one.customdata && R.set({ point: one.customdata }));
    panel.box.on("plotly_hover", ({ points: [one], event }) => one.customdata && tip(R.points.get(one.customdata), panel.metric, event));
    panel.box.on("plotly_unhover", () => { R.byId("tip").hidden = true; });
  };

  const tip = (point, metric, event) => {
    const box = R.byId("tip");
    const [value, low, high] = point.values[metric.name];
    const rows = [
      [metric.head, `${R.fixed(value, metric.digits)}${R.half(low, high, metric.digits)}`],
      ["bpp", R.fixed(R.rateOf(point, metric.name), 4)],
    ];
    box.replaceChildren(
      el("b", {}, R.sign(point.curve), point.curve.label), el("span", { class: "faint" }, point.setting),
      el("dl", {}, rows.flatMap(([key, text]) => [el("dt", {}, key), el("dd", {}, text)])),
      R.partial(point) ? el("span", { class: "warn" }, `${point.n} of ${point.dataset_size} images`) : null,
      R.remark(point, metric.name) ? el("span", { class: "warn" }, R.remark(point, metric.name)) : null,
    );
    box.hidden = false;
    const { width, height } = box.getBoundingClientRect();
    const left = Math.min(event.clientX + 14, innerWidth - width - 8);
    box.style.left = `${Math.max(8, left)}px`;
    box.style.top = `${event.clientY + 18 + height > innerHeight ? event.clientY - height - 12 : event.clientY + 18}px`;
  };

  // Another codec under the pointer in the legend: the others step back.
  R.highlight = R.later(60, (codec) => {
    if (lit === codec || R.section(R.state) !== "curves") return;
    lit = codec;
    for (const panel of panels.values()) refresh(panel);
  });

  const build = (set, metric) => {
    const key = `${set.index} ${metric.name}`;
    if (!panels.has(key)) {
      const box = el("div", { class: "plot" });
      const head = el("figcaption", {}, el("b", {}, metric.head), ` ${R.arrow(metric)} `, el("span", { class: "faint" }, metric.higher ? "higher is better" : "lower is better"));
      const figure = el("figure", { class: "panel", "data-key": key, "data-metric": metric.name }, head, box, el("p", { class: "none" }, "No points with these filters."));
      panels.set(key, { set, metric, box, figure, stale: true, near: false, drawn: false });
      near.observe(figure);
      sized.observe(box);
    }
    return panels.get(key);
  };

  const part = (set, metrics, curves) => {
    const notes = metrics.length ? [] : ["No metric was computed: rdpbench score adds some to what is stored."];
    if (curves.some((one) => one.points.some(R.partial))) notes.push("Pale points: fewer images than the dataset has.");
    const over = new Set(curves.flatMap((one) => one.points).flatMap((point) => metrics.map((metric) => point.values[metric.name]))
      .filter((one) => one && one[3] > one[4] && !one[7]).map((one) => one[3] - one[4]));
    if (over.size && Math.max(...over) < set.images) notes.push(`Compared over the ${[...over].sort((a, b) => a - b).join(" or ")} images that all of them have.`);
    if (curves.some((one) => one.again)) notes.push("Dashed and open: another run measured the same codec. Each run's points are its own; nothing is averaged over runs.");
    if (curves.some((one) => one.random)) notes.push("Dotted and pale: random weights, which are no results.");
    return el("div", { class: "set" },
      el("h2", {}, set.label, " ", el("span", { class: "faint" }, `${set.images < set.size ? `${set.images} of ` : ""}${R.count(set.size, "image")}, ${set.protocol}`)),
      el("div", { class: `panels${metrics.length === 1 ? " one" : ""}` }, metrics.map((metric) => build(set, metric).figure)),
      notes.map((text) => el("p", { class: "note" }, text)),
      el("div", { class: "tables" }, [...set.glance, ...(R.state.view === "dataset" ? set.tables : [])].map(R.table)));
  };

  R.showCurves = (state, changed) => {
    const view = R.byId("view-curves");
    const [sets, metrics] = [R.shownSets(state), R.shownMetrics(state)];
    // Moving figures about would forget where one scrolled to: only another choice of panels is worth it.
    const wanted = `${sets.map((one) => one.index)} ${metrics.map((one) => one.name)} ${state.codec} ${state.view} ${state.of} ${state.run}`;
    if (view.dataset.wanted !== wanted) {
      view.dataset.wanted = wanted;
      const parts = sets.map((set) => part(set, metrics, R.shownCurves(state).filter((one) => one.set === set)));
      view.replaceChildren(...R.head(state), ...(parts.length ? parts : [el("p", { class: "note" }, "Nothing passes these filters.")]));
    }
    if (["codec", "x", "scale", "band", "point", "view", "metric", "data", "protocol", "run", "of"].some((key) => changed.has(key))) {
      for (const panel of panels.values()) refresh(panel);
    }
  };

  // From point to point by keys: along a curve, or to another curve at the nearest rate.
  R.step = (along_, across) => {
    const state = R.state;
    const curves = R.shownCurves(state).filter((one) => one.points.some((point) => Number.isFinite(R.rate(point))));
    if (!curves.length) return;
    const sorted = (curve) => curve.points.filter((one) => Number.isFinite(R.rate(one))).sort((a, b) => R.rate(a) - R.rate(b));
    const now = R.points.get(state.point);
    if (!now || !curves.includes(now.curve)) {
      R.set({ point: sorted(curves[0])[0].id });
    } else if (along_) {
      const of = sorted(now.curve);
      R.set({ point: of[Math.min(of.length - 1, Math.max(0, of.indexOf(now) + along_))].id });
    } else {
      const of = sorted(curves[(curves.indexOf(now.curve) + across + curves.length) % curves.length]);
      const apart = (one) => Math.abs(Math.log(R.rate(one) / R.rate(now)));
      R.set({ point: of.reduce((best, one) => (apart(one) < apart(best) ? one : best)).id });
    }
  };
})();
