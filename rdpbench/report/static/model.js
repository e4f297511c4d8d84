"use strict";
// The report's data with what the views need beside it: labels, signs, what belongs to what.
(() => {
  const R = window.rdpbench;
  const report = R.get("report");
  const several = (key) => new Set(report.sets.map((one) => one[key])).size > 1;

  R.report = report;
  R.metrics = new Map(report.metrics.map((one) => [one.name, { ...one, head: `${one.title}${one.unit ? ` (${one.unit})` : ""}` }]));
  R.sets = report.sets.map((one, index) => {
    const words = [several("run") ? one.run : "", one.title, several("protocol") ? one.protocol : ""];
    return { ...one, index, label: words.filter(Boolean).join(" · ") };
  });

  // A codec has one sign: in all panels, in all reports, and in figures (rdpbench/results/names.py).
  R.curves = report.curves.map((one, index) => {
    const set = R.sets[one.set];
    const label = several("run") ? `${one.title} (${set.run})` : one.title;
    const [colour, symbol] = one.look;
    return { ...one, set, index, label, colour, symbol, points: [] };
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
  R.shownSets = (state) => R.sets.filter((one) => passes(state.run, one.run) && passes(state.data, one.dataset) && passes(state.protocol, one.protocol));
  R.shownCurves = (state) => {
    const sets = new Set(R.shownSets(state));
    return R.curves.filter((one) => sets.has(one.set) && passes(state.codec, one.codec));
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
