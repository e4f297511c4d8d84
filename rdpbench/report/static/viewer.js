"use strict";
// The viewer: an original and what up to three codecs made of it, at matched rate unless settings are chosen by hand.
(() => {
  const R = window.rdpbench;
  const { el } = R;
  const MODES = [["side", "Side by side"], ["wipe", "Wipe"], ["flicker", "Flicker"], ["difference", "Difference"]];
  const FAR = 0.1; // of the anchor's rate: beyond it a match is marked
  let stage = null;
  let strip = null;
  let parts = {};
  let timer = 0;
  let turn = 0;
  let images = [];
  let current = { index: -1, panes: [] };

  const seen = (curve) => curve.points.filter((one) => one.pictures > 0);
  const middle = (curve) => seen(curve)[Math.floor((seen(curve).length - 1) / 2)];
  // The point itself, and up to two other codecs of its set to hold it against.
  R.panesFor = (point) => {
    const others = R.shownCurves(R.state).filter((one) => one.set === point.curve.set && one !== point.curve && seen(one).length);
    const near = (curve) => seen(curve).reduce((best, one) => (Math.abs(Math.log(R.rate(one) / R.rate(point))) < Math.abs(Math.log(R.rate(best) / R.rate(point))) ? one : best));
    return [point, ...others.slice(0, 2).map(near)].map((one) => one.id);
  };
  R.panesOf = (set) => {
    const first = R.curves.find((one) => one.set === set && seen(one).length);
    return first ? R.panesFor(middle(first)) : [];
  };
  const asked = (state) => {
    const found = state.panes.map((id) => R.points.get(id)).filter(Boolean).slice(0, 3);
    const same = found.filter((one) => one.curve.set === found[0].curve.set);
    if (same.length) return same;
    const start = R.points.get(state.point);
    if (start?.pictures) return R.panesFor(start).map((id) => R.points.get(id));
    const first = R.shownCurves(state).find((one) => seen(one).length) ?? R.curves.find((one) => seen(one).length);
    return first ? R.panesFor(middle(first)).map((id) => R.points.get(id)) : [];
  };

  // Of a curve the line of this image whose rate is nearest; of those that can be seen, where there are any.
  const nearest = (rows, image, bpp) => {
    const lines = [...rows.at(image).values()];
    const there = lines.filter((line) => rows.picture[line]);
    const apart = (line) => Math.abs(Math.log(R.num(rows.bpp[line]) / bpp));
    return (there.length ? there : lines).reduce((best, line) => (best < 0 || apart(line) < apart(best) ? line : best), -1);
  };
  const resolve = (points, rows, image, match) => points.map((point, n) => {
    let line = rows[n].at(image).get(point.order) ?? -1;
    const anchor = rows[0].at(image).get(points[0].order);
    if (n > 0 && match && anchor !== undefined) line = nearest(rows[n], image, R.num(rows[0].bpp[anchor]));
    const of = line < 0 ? point : point.curve.points[rows[n].point[line]];
    return { point: of, rows: rows[n], line, bpp: line < 0 ? NaN : R.num(rows[n].bpp[line]) };
  });
  const off = (pane) => (pane === current.panes[0] ? NaN : pane.bpp / current.panes[0].bpp - 1);
  const percent = (share) => `${share < 0 ? "−" : "+"}${Math.abs(100 * share).toFixed(Math.abs(share) < 0.1 ? 1 : 0)} %`;

  const select = (attributes, options, value, change) => {
    const box = el("select", { ...attributes, change: () => change(box.value) }, options.map(([key, text]) => el("option", { value: key }, text)));
    box.value = value;
    return box;
  };
  const ids = () => current.panes.map((one) => one.point.id);
  const controls = () => {
    const set = current.panes[0].point.curve.set;
    const curves = R.curves.filter((one) => one.set === set && one.points.length);
    const boxes = current.panes.map((pane, n) => {
      const change = (point, match) => {
        const next = ids();
        next[n] = point.id;
        R.set({ panes: next, ...(match ? {} : { match: "0" }) });
      };
      const codec = select({ "aria-label": `Codec ${n + 1}`, "data-codec": String(n) }, curves.map((one) => [String(one.index), one.label]), String(pane.point.curve.index), (index) => {
        const curve = R.curves[Number(index)];
        const there = seen(curve).length ? seen(curve) : curve.points;
        change(there.reduce((best, one) => (Math.abs(R.rate(one) - pane.bpp) < Math.abs(R.rate(best) - pane.bpp) ? one : best)), true);
      });
      const settings = pane.point.curve.points.map((one) => [one.id, `${one.setting}${one.pictures ? "" : " (no images)"}`]);
      const setting = select({ "aria-label": `Setting ${n + 1}`, "data-setting": String(n) }, settings, pane.point.id, (id) => change(R.points.get(id), n === 0));
      const away = el("button", { type: "button", class: "plain small", title: "Remove", "aria-label": `Remove codec ${n + 1}`, click: () => R.set({ panes: ids().filter((_, k) => k !== n) }) }, "✕");
      return el("div", { class: "pane" }, R.sign(pane.point.curve), codec, setting, current.panes.length > 1 && away);
    });
    const used = new Set(current.panes.map((one) => one.point.curve));
    const free = curves.find((one) => !used.has(one) && seen(one).length) ?? curves.find((one) => !used.has(one));
    const more = current.panes.length < 3 && free && el("button", {
      type: "button", class: "plain", id: "add", click: () => R.set({ panes: [...ids(), (middle(free) ?? free.points[0]).id] }),
    }, "+ codec");
    parts.panes.replaceChildren(...boxes, ...(more ? [more] : []));
  };

  const scores = () => {
    const { panes } = current;
    const rows = [
      ["bits per pixel", panes.map((one) => one.bpp), 4, null],
      ["bytes", panes.map((one) => (one.line < 0 ? NaN : one.rows.bytes[one.line])), 0, null],
    ];
    for (const metric of R.metrics.values()) {
      const values = panes.map((one) => (one.line < 0 ? NaN : R.num(one.rows.scores[metric.name]?.[one.line])));
      if (!values.every(Number.isNaN)) rows.push([`${metric.head} ${R.arrow(metric)}`, values, metric.digits, metric.higher]);
    }
    const body = rows.map(([name, values, digits, higher]) => {
      const known = values.filter((one) => !Number.isNaN(one));
      const best = higher === null || known.length < 2 ? NaN : higher ? Math.max(...known) : Math.min(...known);
      // What is not trained does not compete.
      const cells = values.map((value, n) => el("td", {}, value === best && !panes[n].point.curve.random ? el("b", {}, R.fixed(value, digits)) : digits ? R.fixed(value, digits) : R.bytes(Number.isNaN(value) ? null : value)));
      return el("tr", {}, el("th", { scope: "row" }, name), cells);
    });
    const head = el("tr", {}, el("th", {}), panes.map((one) => el("th", { scope: "col" }, R.sign(one.point.curve), one.point.curve.label)));
    const sizes = panes.map((one) => (one.line < 0 ? 0 : one.rows.bytes[one.line]));
    const bytes = panes.map((one) => (one.line < 0 ? null : el("div", { class: "share" },
      el("h4", {}, R.sign(one.point.curve), one.point.curve.label),
      R.breakdown(Object.fromEntries(Object.entries(one.rows.parts).map(([name, of]) => [name, of[one.line]])), Math.max(...sizes)))));
    // What a codec told beside its bytes: a prompt that it found, the seed of its noise. The codec's words, so text.
    const told = panes.map((one) => {
      const texts = one.line < 0 ? [] : Object.entries(one.rows.info ?? {}).map(([name, of]) => [name, of[one.line]]).filter(([, text]) => text);
      if (!texts.length) return null;
      return el("div", { class: "share told" }, el("h4", {}, R.sign(one.point.curve), one.point.curve.label),
        el("dl", {}, texts.flatMap(([name, text]) => [el("dt", {}, name.replaceAll("_", " ")), el("dd", {}, text)])));
    }).filter(Boolean);
    const again = panes.map((one) => R.command(one.point.command, `${one.point.curve.label}, ${one.point.setting}`));
    parts.scores.replaceChildren(
      el("div", { class: "wide", tabindex: "0" }, el("table", { class: "scores", id: "scores" }, el("thead", {}, head), el("tbody", {}, body))),
      el("div", { class: "card" }, el("h3", {}, "Bytes of this image"), bytes),
      ...(told.length ? [el("div", { class: "card", id: "told" }, el("h3", {}, "What the codec told of this image"), told)] : []),
      el("details", { class: "card" }, el("summary", {}, "Make these points again"), again));
  };

  const frames = () => {
    const image = images[current.index];
    const original = { title: "Original", sub: `${image.w} × ${image.h}`, source: image.picture ? R.full(image.picture, image.kind) : "", why: image.why ?? NOT_HERE };
    return [original, ...current.panes.map((one) => {
      const picture = one.line < 0 ? "" : one.rows.picture[one.line];
      const share = off(one);
      const far = Number.isNaN(share) ? "" : `${percent(share)} rate`;
      const why = one.line < 0 ? "This codec has no result for this image." : one.rows.why[one.line] ?? NOT_HERE;
      return { title: one.point.curve.label, sub: `${one.point.setting} · ${R.fixed(one.bpp, 4)} bpp`, far, marked: Math.abs(share) > FAR, source: picture ? R.full(picture, image.kind) : "", why };
    })];
  };
  const NOT_HERE = "This image is not in the report's folder. rdpbench report with --images all, and a higher --limit, has more.";

  const flicker = (state) => {
    clearInterval(timer);
    const run = state.view === "viewer" && state.mode === "flicker" && parts.play.getAttribute("aria-pressed") === "true";
    if (run) timer = setInterval(R.flick, 1000 / Number(state.hz));
  };
  R.rest = () => clearInterval(timer);
  R.flick = (to) => {
    const shown = stage.flick(typeof to === "number" ? to : undefined);
    parts.which.textContent = frames()[shown]?.title ?? "";
  };
  R.play = (on) => {
    parts.play.setAttribute("aria-pressed", String(on ?? parts.play.getAttribute("aria-pressed") !== "true"));
    flicker(R.state);
  };
  R.pane = (n) => {
    if (R.state.mode === "wipe" && n <= current.panes.length) R.set({ pair: `${R.state.pair.split(",")[0] === String(n) ? 0 : R.state.pair.split(",")[0]},${n}` });
    if (R.state.mode === "flicker" && n <= current.panes.length) { R.play(false); R.flick(n); }
  };
  R.turnTo = (by) => {
    if (images.length) R.set({ image: images[(current.index + by + images.length) % images.length].name });
  };
  R.look = { zoom: (factor) => stage.zoom(factor), scale: (scale) => stage.scale(scale), pan: (dx, dy) => stage.pan(dx, dy) };

  R.buildViewer = () => {
    stage = R.stage();
    strip = R.strip((image) => R.set({ image }));
    const button = (text, title, click, more = {}) => el("button", { type: "button", class: "plain", title, click, ...more }, text);
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    parts = {
      modes: MODES.map(([value, text]) => el("button", { type: "button", "data-mode": value, click: () => R.set({ mode: value }) }, text)),
      panes: el("div", { class: "panes" }),
      scores: el("div", { class: "below" }),
      name: el("b", { id: "image" }),
      caption: el("p", { class: "note" }),
      match: el("input", { type: "checkbox", id: "match", change: () => R.set({ match: parts.match.checked ? "1" : "0" }) }),
      play: button("Run", "Run or hold (space)", () => R.play(), { "aria-pressed": String(!calm), id: "play" }),
      which: el("span", { class: "which" }),
      left: el("select", { "aria-label": "Left of the wipe", change: () => R.set({ pair: `${parts.left.value},${parts.right.value}` }) }),
      right: el("select", { "aria-label": "Right of the wipe", change: () => R.set({ pair: `${parts.left.value},${parts.right.value}` }) }),
    };
    parts.hz = select({ "aria-label": "Turns in a second" }, ["1", "2", "4"].map((one) => [one, `${one} per second`]), "2", (hz) => R.set({ hz }));
    parts.gain = select({ "aria-label": "Gain", id: "gain" }, ["1", "2", "4", "8", "16", "32"].map((one) => [one, `× ${one}`]), "8", (gain) => R.set({ gain }));
    const only = (mode, ...children) => el("span", { class: "only", "data-only": mode }, children);
    R.byId("view-viewer").append(
      el("div", { class: "bar" },
        el("div", { class: "row" }, button("‹", "Previous image (←)", () => R.turnTo(-1), { "aria-label": "Previous image" }), parts.name, button("›", "Next image (→)", () => R.turnTo(1), { "aria-label": "Next image" })),
        el("div", { class: "segments", role: "group", "aria-label": "Mode" }, parts.modes),
        only("wipe", parts.left, " | ", parts.right), only("flicker", parts.play, parts.hz, parts.which), only("difference", "|original − decoded| ", parts.gain),
        el("div", { class: "row zoom" }, button("−", "Smaller (−)", () => stage.zoom(1 / 1.5), { "aria-label": "Smaller" }),
          button("", "Actual pixels (z)", () => stage.scale(1), { id: "scale" }), button("+", "Larger (+)", () => stage.zoom(1.5), { "aria-label": "Larger" }), button("Fit", "Fit (0)", () => stage.scale(0), { id: "fit" }))),
      stage.box, strip.box,
      el("div", { class: "bar" }, parts.panes, el("label", { class: "line", title: "For each image the setting whose rate is nearest to that of the first codec (m)" }, parts.match, "matched rate")),
      parts.caption, parts.scores);
  };

  const words = (state, shown) => {
    const image = images[current.index];
    const notes = [image.caption ? `Caption: ${image.caption}` : ""];
    if (state.match === "1" && current.panes.some((one) => Math.abs(off(one)) > FAR)) notes.push("Where a rate is marked, no setting with images comes within 10 % of the first codec's.");
    if (state.match === "0") notes.push("Settings are chosen by hand: rates are not matched.");
    if (state.mode === "difference") notes.push("The browser subtracts what it shows: exact from 100 % on, averaged where the image is made smaller.");
    if (current.panes.some((one) => one.point.curve.random)) notes.push("Random weights: no result.");
    parts.caption.textContent = notes.filter(Boolean).join(" ");
    parts.name.textContent = `${image.name}  ${current.index + 1}/${images.length}`;
    const options = (box, value) => {
      box.replaceChildren(...shown.map((one, n) => el("option", { value: String(n) }, one.title)));
      box.value = String(value);
    };
    return options;
  };

  const KEYS = ["view", "image", "panes", "match", "mode", "pair", "wipe", "gain", "hz", "zoom"];
  R.showViewer = async (state, changed) => {
    flicker(state);
    if (changed.size && !KEYS.some((key) => changed.has(key))) return;
    const mine = (turn += 1);
    const points = asked(state);
    const view = R.byId("view-viewer");
    view.classList.toggle("nothing", points.length === 0);
    if (!points.length) {
      parts.caption.textContent = "There are no images in this folder. rdpbench report with --images matched or all has them.";
      return;
    }
    try {
      const small = changed.size > 0 && [...changed].every((key) => ["mode", "pair", "wipe", "gain", "hz", "zoom"].includes(key)) && current.index >= 0;
      if (!small) {
        const [all, ...rows] = await Promise.all([R.images(points[0].curve.set), ...points.map((one) => R.rows(one.curve))]);
        if (mine !== turn) return;
        images = all;
        const wanted = images.findIndex((one) => one.name === state.image);
        const first = images.findIndex((one) => one.picture);
        current = { index: wanted >= 0 ? wanted : Math.max(0, first), panes: [] };
        current.panes = resolve(points, rows, current.index, state.match === "1");
        controls();
        scores();
        strip.show(images, current.index);
      }
    } catch (error) {
      parts.caption.textContent = error.message;
      return;
    }
    const shown = frames();
    const options = words(state, shown);
    let pair = state.pair.split(",").map(Number);
    if (pair.length !== 2 || pair.some((one) => !(one in shown)) || pair[0] === pair[1]) pair = [0, 1];
    options(parts.left, pair[0]);
    options(parts.right, pair[1]);
    for (const one of parts.modes) one.setAttribute("aria-pressed", String(one.dataset.mode === state.mode));
    for (const one of view.querySelectorAll("[data-only]")) one.hidden = one.dataset.only !== state.mode;
    parts.match.checked = state.match === "1";
    parts.gain.value = state.gain;
    parts.hz.value = state.hz;
    stage.show(shown, images[current.index]);
    stage.set(state, pair);
    flicker(state);
  };
})();
