"use strict";
// What stands above the curves: on the front page all codecs by datasets, on a page of a codec or a dataset its card.
(() => {
  const R = window.rdpbench;
  const { el } = R;

  // A codec without the run that its label may name.
  R.plain = (curve) => curve.title.replace(`, run ${curve.run}`, "");
  const linked = (text) => (/^https?:\/\/\S+$/.test(text) ? el("a", { href: text, rel: "noreferrer" }, text) : text);
  R.card = (title, facts) => el("div", { class: "card" }, el("h3", {}, title), el("dl", { class: "facts" }, facts.flatMap(([key, text]) => [el("dt", {}, key), el("dd", {}, linked(text))])));

  const files = () => el("p", { class: "note files" }, "Data: ", R.report.files.flatMap((path, n) => [n ? ", " : "", el("a", { href: path, download: true }, path.replace("data/", ""))]), ".",
    R.report.files.includes("data/images.csv") ? "" : " Lines for each image are too many for a page; the runs have them.");

  const span = (curve) => {
    const rates = curve.points.map(R.rate).filter(Number.isFinite);
    const words = R.count(curve.points.length, "point");
    const ends = [...new Set([Math.min(...rates), Math.max(...rates)].map((bpp) => R.fixed(bpp, 2)))];
    return rates.length ? `${words}, ${ends.join("–")} bpp` : words;
  };
  const overview = (state) => {
    const curves = R.shownCurves(state);
    const sets = R.shownSets(state);
    const labels = [...new Map(curves.map((one) => [one.codec, one])).values()];
    const runs = R.report.runs.length > 1;
    const head = (text) => el("th", { scope: "col" }, text);
    const lines = labels.map((one) => {
      const cells = sets.map((set) => {
        const curve = curves.find((own) => own.set === set && own.codec === one.codec);
        return el("td", {}, curve ? span(curve) : "–");
      });
      return el("tr", {}, el("th", { scope: "row" }, el("a", { href: R.link({ view: "codec", of: one.base }) }, R.sign(one), one.label)), cells, el("td", {}, one.grade), runs && el("td", {}, one.run));
    });
    const columns = sets.map((set) => head(el("a", { href: R.link({ view: "dataset", of: set.dataset }) }, set.label)));
    return [
      el("div", { class: "wide", tabindex: "0" }, el("table", { class: "plain-table", id: "matrix" }, el("thead", {}, el("tr", {}, head("codec"), columns, head("grade"), runs && head("run"))), el("tbody", {}, lines))),
      files(),
      ...R.report.runs.map((run) => el("p", { class: "note" }, runs ? `${run.name}: ${run.counts}` : run.counts)),
      ...R.report.notes.map((text) => el("p", { class: "note" }, text)),
    ];
  };

  const codec = (of) => {
    const labels = [...new Map(R.curves.filter((one) => one.base === of).map((one) => [one.codec, one])).values()];
    const seen = labels.flatMap((one) => R.curves.filter((own) => own.codec === one.codec).flatMap((own) => own.points)).find((point) => point.pictures);
    return [
      el("h2", {}, labels.length ? [R.sign(labels[0]), R.plain(labels[0])] : `No codec ${of} in this report.`),
      el("div", { class: "tables" }, labels.map((one) => R.card(one.title, R.report.codecs[one.codec]))),
      el("p", { class: "links" },
        el("a", { href: R.link({ view: "table", of: "", codec: labels.map((one) => one.codec) }) }, "Its points as a table"),
        seen && el("a", { href: R.link({ view: "viewer", of: "", point: seen.id, panes: R.panesFor(seen) }) }, "Its images beside those of others")),
    ];
  };

  const dataset = (of) => {
    const sets = R.sets.filter((one) => one.dataset === of);
    const strips = sets.map((set) => {
      const box = el("div", { class: "thumbs" });
      const card = (image) => el("a", { class: "thumb", href: R.link({ view: "viewer", of: "", image: image.name, panes: R.panesOf(set) }) },
        el("img", { src: R.thumb(image.picture), loading: "lazy", decoding: "async", alt: "", width: image.w, height: image.h }), el("span", { class: "name" }, image.name));
      R.images(set).then((images) => box.append(...images.filter((one) => one.picture).slice(0, MOST).map(card)), (error) => box.append(error.message));
      return box;
    });
    return [
      el("h2", {}, sets.length ? sets[0].title : `No dataset ${of} in this report.`),
      ...sets.flatMap((set, n) => [R.card(set.label, set.facts), strips[n]]),
    ];
  };
  const MOST = 12;

  R.head = (state) => [el("div", { class: "head" }, state.view === "codec" ? codec(state.of) : state.view === "dataset" ? dataset(state.of) : overview(state))];
})();
