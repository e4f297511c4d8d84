"use strict";
// The report's data with what the views need beside it: labels, signs, what belongs to what.
(() => {
  const R = window.rdpbench;
  const report = R.get("report");

  R.report = report;
  R.metrics = new Map(report.metrics.map((one) => [one.name, { ...one, head: `${one.title}${one.unit ? ` (${one.unit})` : ""}` }]));
  R.sets = report.sets.map((one, index) => ({ ...one, index }));

  // A codec has one sign: in all panels, in all reports, and in figures (rdpbench/results/names.py).
  R.curves = report.curves.map((one, index) => {
    const set = R.sets[one.set];
    const [colour, symbol] = one.look;
    const again = report.curves.slice(0, index).some((other) => other.set === one.set && other.base === one.base);
    return { ...one, set, index, again, label: one.title, colour, symbol, points: [] };
  });
  R.points = new Map();
  for (const one of report.points) {
    const curve = R.curves[one.curve];
    const point = { ...one, curve, order: curve.points.length };
    curve.points.push(point);
    R.points.set(point.id, point);
  }
  R.value = (point, metric) => R.num(point.values[metric]?.[0]);
  R.rate = (point) => R.num(point.bpp[0]);
  // The rate of the images behind a metric's value, which may be fewer than were coded.
  R.rateOf = (point, metric) => R.num(point.values[metric]?.[6] ?? point.bpp[0]);
  // What is left out of a metric's value, or apart from the other curves, in words.
  R.remark = (point, metric) => {
    const one = point.values[metric];
    if (!one) return "";
    const taken = one[3] - one[4];
    const few = taken < point.n && taken > 0 ? ` (${taken} of ${point.n} images, ${R.fixed(one[6], 4)} bpp)` : "";
    return few + (one[4] ? `, ${one[4]} lossless left out` : "") + (one[7] ? `, ${one[7]}` : "");
  };
  R.partial = (point) => point.n < point.dataset_size;
  R.reliable = (point, metric) => Boolean(point.values[metric]?.[5] ?? true);
  R.arrow = (metric) => (metric.higher ? "↑" : "↓");

  // What the filters leave. Nothing chosen means all.
  const passes = (chosen, value) => chosen.length === 0 || chosen.includes(value);
  const pageHas = (state, one) => (state.view === "dataset" ? one.set.dataset === state.of : state.view !== "codec" || R.curves.some((own) => own.set === one.set && own.base === state.of));
  R.shownCurves = (state) => R.curves.filter((one) => passes(state.run, one.run) && passes(state.data, one.set.dataset) && passes(state.protocol, one.set.protocol)
    && passes(state.codec, one.codec) && pageHas(state, one));
  R.shownSets = (state) => {
    const curves = R.shownCurves({ ...state, codec: [] });
    return R.sets.filter((set) => curves.some((one) => one.set === set));
  };
  R.shownMetrics = (state) => [...R.metrics.values()].filter((one) => passes(state.metric, one.name));

  R.images = (set) => R.data(`images-${set.index}`);
  const byImage = new Map();
  // Rows of a curve: for an image its lines, the first seed of each point.
  R.rows = async (curve) => {
    const rows = await R.data(`rows-${curve.index}`);
    if (!byImage.has(curve.index)) {
      const lines = new Map();
      rows.image.forEach((image, line) => {
        if (!lines.has(image)) lines.set(image, new Map());
        const of = lines.get(image);
        if (!of.has(rows.point[line])) of.set(rows.point[line], line);
      });
      byImage.set(curve.index, lines);
    }
    return { ...rows, curve, at: (image) => byImage.get(curve.index).get(image) ?? new Map() };
  };
})();
