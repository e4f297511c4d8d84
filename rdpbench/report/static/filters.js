"use strict";
// The column of filters, which is the legend, too.
(() => {
  const R = window.rdpbench;
  const { el } = R;
  const groups = [];

  const toggle = (key, name, all) => {
    const chosen = R.state[key].length ? R.state[key] : all;
    let next = chosen.includes(name) ? chosen.filter((one) => one !== name) : [...chosen, name];
    // In the order of the report, so that two ways to one choice give one address; all or none is no filter.
    next = all.filter((one) => next.includes(one));
    R.set({ [key]: next.length === all.length ? [] : next });
  };

  const group = (title, key, entries) => {
    const all = entries.map((one) => one.name);
    if (all.length < 2) return null;
    const buttons = entries.map(({ name, title, sign, note }) => {
      const button = el("button", {
        type: "button", class: "chip", "data-filter": key, "data-name": name, title: note ?? name,
        click: () => toggle(key, name, all),
        dblclick: () => R.set({ [key]: [name] }),
        pointerenter: () => key === "codec" && R.highlight(name),
        pointerleave: () => key === "codec" && R.highlight(""),
      }, sign, el("span", { class: "name" }, title ?? name));
      return { name, button };
    });
    const reset = el("button", { type: "button", class: "plain small", click: () => R.set({ [key]: [] }) }, "all");
    groups.push({ key, buttons, reset });
    return el("fieldset", {}, el("legend", {}, title), reset, el("div", { class: "chips" }, buttons.map((one) => one.button)));
  };

  const unique = (values) => [...new Set(values)].map((name) => ({ name }));
  const codecs = () => {
    const seen = new Map();
    for (const curve of R.curves) {
      if (!seen.has(curve.codec)) {
        const note = curve.random ? `${curve.codec}: random weights, no results` : curve.codec;
        seen.set(curve.codec, { name: curve.codec, title: curve.title, sign: R.sign(curve), note });
      }
    }
    return [...seen.values()];
  };

  const choice = (title, key, options) => {
    const select = el("select", { "data-set": key, change: () => R.set({ [key]: select.value }) },
      options.map(([value, text]) => el("option", { value }, text)));
    groups.push({ key, select });
    return el("label", { class: "line" }, title, select);
  };

  R.buildFilters = () => {
    const axes = [["bpp", "bits per pixel"], ...[...R.metrics.values()].map((one) => [one.name, one.title])];
    const band = el("input", { type: "checkbox", change: () => R.set({ band: band.checked ? "1" : "0" }) });
    groups.push({ key: "band", band });
    const inside = el("div", { class: "inside" },
      group("Codec", "codec", codecs()),
      group("Metric", "metric", [...R.metrics.values()].map(({ name, title }) => ({ name, title }))),
      group("Dataset", "data", unique(R.sets.map((one) => one.dataset))),
      group("Protocol", "protocol", unique(R.sets.map((one) => one.protocol))),
      group("Run", "run", unique(R.curves.map((one) => one.run))),
      el("fieldset", { class: "axes" }, el("legend", {}, "Axes"),
        choice("over", "x", axes),
        choice("scale", "scale", [["auto", "automatic"], ["log", "logarithmic"], ["linear", "linear"]]),
        el("label", { class: "line" }, "95 % intervals", band)));
    const wide = matchMedia("(min-width: 60rem)");
    const box = el("details", { open: wide.matches }, el("summary", {}, "Filters"), inside);
    wide.addEventListener("change", () => { box.open = wide.matches; });
    R.byId("filters").append(box);
  };

  R.showFilters = (state) => {
    for (const { key, buttons, reset, select, band } of groups) {
      if (select) select.value = state[key];
      if (band) band.checked = state.band === "1";
      if (!buttons) continue;
      for (const { name, button } of buttons) {
        button.setAttribute("aria-pressed", String(state[key].length === 0 || state[key].includes(name)));
      }
      reset.hidden = state[key].length === 0;
    }
  };
})();
