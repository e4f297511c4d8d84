"use strict";
// The two tables: points of curves, and every image of every point.
(() => {
  const R = window.rdpbench;
  const { el } = R;
  let grid = null;
  let found = null;
  let search = null;
  let switches = [];
  let turn = 0;

  const names = (point) => [
    R.report.runs.length > 1 ? { id: "run", title: "run", value: (line) => point(line).curve.run, text: (line) => point(line).curve.run } : null,
    R.sets.length > 1 ? { id: "dataset", title: "dataset", value: (line) => point(line).curve.set.label, text: (line) => point(line).curve.set.label } : null,
    { id: "codec", title: "codec", words: (line) => point(line).curve.codec, value: (line) => point(line).curve.label, text: (line) => point(line).curve.label, sign: (line) => R.sign(point(line).curve), hint: (line) => point(line).curve.label },
    {
      id: "setting", title: "setting", text: (line) => point(line).setting,
      value: (line) => `${point(line).curve.label} ${String(R.num(point(line).rate)).padStart(24)} ${point(line).setting}`,
    },
  ].filter(Boolean);

  const ofPoints = (state) => {
    // Codec first: it is what stays in sight when a phone scrolls sideways.
    const columns = names((line) => line).sort((a, b) => (b.id === "codec") - (a.id === "codec"));
    columns.push({ id: "n", title: "n", number: true, value: (line) => line.n, text: (line) => `${line.n}${R.partial(line) ? "*" : ""}${line.failed ? ` (${line.failed} failed)` : ""}${line.out_of_range ? ` (${line.out_of_range} out of range)` : ""}`, hint: (line) => `${line.n} of ${line.dataset_size} images` });
    columns.push({ id: "bpp", title: "bpp", number: true, value: R.rate, text: (line) => R.fixed(line.bpp[0], 4) + R.half(line.bpp[1], line.bpp[2], 4) });
    for (const metric of R.shownMetrics(state)) {
      const text = (line) => {
        const one = line.values[metric.name];
        if (!one) return "–";
        return R.fixed(one[0], metric.digits) + (one[5] ? "" : "†") + R.half(one[1], one[2], metric.digits) + R.remark(line, metric.name);
      };
      columns.push({ id: metric.name, title: `${metric.head} ${R.arrow(metric)}`, number: true, value: (line) => R.value(line, metric.name), text });
    }
    return { columns, lines: R.shownCurves(state).flatMap((curve) => curve.points) };
  };

  const ofImages = async (state) => {
    const curves = R.shownCurves(state);
    const rows = await Promise.all(curves.map(R.rows));
    const images = new Map(await Promise.all(R.shownSets(state).map(async (set) => [set, await R.images(set)])));
    const lines = rows.flatMap((of) => of.image.map((image, at) => ({ of, at, image: images.get(of.curve.set)[image], point: of.curve.points[of.point[at]] })));
    const columns = names((line) => line.point).sort((a, b) => (b.id === "codec") - (a.id === "codec"));
    columns.splice(1, 0, { id: "image", title: "image", value: (line) => line.image.name, text: (line) => line.image.name, hint: (line) => line.image.caption || line.image.name });
    if (rows.some((of) => of.seed.some(Boolean))) columns.push({ id: "seed", title: "seed", number: true, value: (line) => line.of.seed[line.at], text: (line) => String(line.of.seed[line.at]) });
    columns.push({ id: "bytes", title: "bytes", number: true, value: (line) => line.of.bytes[line.at], text: (line) => R.bytes(line.of.bytes[line.at]) });
    columns.push({ id: "bpp", title: "bpp", number: true, value: (line) => R.num(line.of.bpp[line.at]), text: (line) => R.fixed(line.of.bpp[line.at], 4) });
    for (const metric of R.shownMetrics(state).filter((one) => !one.set)) {
      const value = (line) => R.num(line.of.scores[metric.name]?.[line.at]);
      columns.push({ id: metric.name, title: `${metric.head} ${R.arrow(metric)}`, number: true, value, text: (line) => R.fixed(value(line), metric.digits) });
    }
    return { columns, lines };
  };

  const open = (line) => {
    if (line.image) R.set({ view: "viewer", point: line.point.id, image: line.image.name, panes: R.panesFor(line.point) });
    else R.set({ point: line.id });
  };

  R.buildTable = () => {
    search = el("input", {
      type: "search", id: "search", placeholder: "avif psnr>30 bpp<0.5", "aria-label": "Filter lines: words, and comparisons such as psnr>30",
      autocomplete: "off", spellcheck: "false",
    });
    search.addEventListener("input", R.later(120, () => R.set({ q: search.value })));
    switches = [["points", "Points"], ["images", "Images"]].map(([value, text]) => el("button", {
      type: "button", "data-rows": value, click: () => R.set({ rows: value, sort: "" }),
    }, text));
    found = el("span", { class: "faint", role: "status", id: "found" });
    grid = R.grid({
      label: "Results",
      key: (line) => (line.image ? `${line.point.id} ${line.of.image[line.at]} ${line.of.seed[line.at]}` : line.id),
      open,
      resort: (sort) => R.set({ sort }),
    });
    const notes = el("p", { class: "note" }, "± half of the 95 % interval over images. * fewer images than the dataset has. † fewer images than the metric needs.");
    R.byId("view-table").append(el("div", { class: "bar" }, el("div", { class: "segments", role: "group", "aria-label": "Lines" }, switches), search, found), grid.box, notes);
  };

  R.showTable = async (state, changed) => {
    const mine = (turn += 1);
    if (document.activeElement !== search) search.value = state.q;
    for (const one of switches) one.setAttribute("aria-pressed", String(one.dataset.rows === state.rows));
    if (changed.size === 1 && changed.has("point")) {
      grid.choose(state.point);
      return;
    }
    const keep = changed.size > 0 && [...changed].every((key) => ["q", "sort", "point"].includes(key));
    if (!keep && state.rows === "images") found.textContent = "reading …";
    let next = {};
    try {
      next = keep ? {} : state.rows === "points" ? ofPoints(state) : await ofImages(state);
    } catch (error) {
      found.textContent = error.message;
      return;
    }
    if (mine !== turn) return; // meanwhile something else was asked for
    grid.show({ ...next, q: state.q, sort: state.sort, chosen: state.rows === "points" ? state.point : "" });
    found.textContent = R.count(grid.count(), state.rows === "points" ? "point" : "decoded image");
  };
})();
