"use strict";
// The run: tables at equal rates, times, what failed, and where the numbers come from.
(() => {
  const R = window.rdpbench;
  const { el } = R;
  const LONG = ["config", "packages"];

  const named = (one, n) => {
    const curve = R.curves.find((own) => own.codec === one.codecs?.[n]);
    return (text) => (curve ? el("a", { href: R.link({ view: "codec", of: curve.base }) }, R.sign(curve), text) : text);
  };
  const table = (one) => el("div", {},
    el("div", { class: "wide", tabindex: "0" }, el("table", { class: "plain-table" },
      el("caption", {}, one.caption),
      el("thead", {}, el("tr", {}, one.header.map((text) => el("th", { scope: "col" }, text)))),
      el("tbody", {}, one.lines.map((line, row) => el("tr", {}, line.map(([text, rank], n) => el(n ? "td" : "th", n ? {} : { scope: "row" }, !n ? named(one, row)(text) : rank === 1 ? el("b", {}, text) : rank === 2 ? el("u", {}, text) : text))))))),
    one.notes.map((text) => el("p", { class: "note" }, text)));

  R.table = table;

  const failures = (run) => {
    if (!run.failures.length) return [el("p", {}, "Nothing.")];
    const made = table({ caption: "Tasks and scores that are in no mean", header: ["codec", "setting", "image", "what", "why"], lines: run.failures.map((line) => line.map((text) => [text, 0])), notes: run.more ? [`and ${run.more} more, all in rows.csv`] : [] });
    return [made];
  };
  const session = (record) => {
    const short = record.filter(([key]) => !LONG.includes(key));
    const long = record.filter(([key]) => LONG.includes(key));
    return el("div", { class: "card" },
      el("dl", {}, short.flatMap(([key, text]) => [el("dt", {}, key), el("dd", {}, text)])),
      long.map(([key, text]) => el("details", {}, el("summary", {}, key), el("p", {}, text))));
  };

  R.buildRun = () => {
    R.byId("view-run").append(el("h2", {}, "Metrics"), el("div", { class: "tables" }, [...R.metrics.values()].map((one) => R.card(one.title, one.facts))), ...R.report.runs.flatMap((run) => [
      el("h2", {}, run.name), el("p", {}, run.counts),
      ...run.notes.map((text) => el("p", { class: "note" }, text)),
      run.tables.length ? el("div", { class: "tables" }, run.tables.map(table)) : "",
      el("h3", {}, "What failed"), ...failures(run),
      el("h3", {}, "Where it comes from"), ...run.sessions.map(session),
    ]));
  };
})();
