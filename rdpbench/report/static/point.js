"use strict";
// The selected point: its numbers, what its bytes are, the command that makes it again, and its images.
(() => {
  const R = window.rdpbench;
  const { el } = R;
  const PAGE = 24;
  let turn = 0;

  // Bytes by part as one bar, and in words.
  R.breakdown = (parts, most) => {
    const all = Object.entries(parts).filter(([, size]) => size > 0);
    const sum = all.reduce((total, [, size]) => total + size, 0);
    const bar = el("div", { class: "bytes", "aria-hidden": "true" }, all.map(([, size], n) => {
      const part = el("i");
      part.style.width = `${(100 * size) / (most ?? sum)}%`;
      part.style.background = `var(--c${n % R.COLOURS})`;
      return part;
    }));
    const words = all.map(([name, size], n) => {
      const dot = el("i", { class: "dot" });
      dot.style.background = `var(--c${n % R.COLOURS})`;
      return el("li", {}, dot, `${name} `, el("b", {}, R.bytes(size)), ` B, ${((100 * size) / sum).toFixed(size / sum < 0.1 ? 1 : 0)} %`);
    });
    return el("div", {}, bar, el("ul", { class: "parts" }, words));
  };

  const numbers = (point) => {
    const rows = [["bits per pixel", R.fixed(point.bpp[0], 4) + R.half(point.bpp[1], point.bpp[2], 4)]];
    for (const metric of R.metrics.values()) {
      const one = point.values[metric.name];
      if (!one) continue;
      rows.push([`${metric.head} ${R.arrow(metric)}`, R.fixed(one[0], metric.digits) + R.half(one[1], one[2], metric.digits) + (one[5] ? "" : "†") + R.remark(point, metric.name)]);
    }
    return el("dl", { class: "numbers" }, rows.flatMap(([key, text]) => [el("dt", {}, key), el("dd", {}, text)]));
  };
  const marks = (point) => [
    point.curve.grade,
    R.partial(point) ? `${point.n} of ${point.dataset_size} images` : R.count(point.n, "image"),
    point.seeds > 1 ? `${point.seeds} seeds` : "",
    point.failed ? `${point.failed} failed` : "",
    point.out_of_range ? `${point.out_of_range} out of range` : "",
    point.weights.includes("random") ? "random weights: no result" : "",
    point.weights.includes("own") ? "weights of the user's own" : "",
    `${point.verified} decoded again in a fresh process`,
  ].filter(Boolean);

  const gallery = async (point, box) => {
    const [rows, images] = await Promise.all([R.rows(point.curve), R.images(point.curve.set)]);
    const lines = rows.image.map((image, line) => ({ image: images[image], line })).filter(({ line }) => rows.point[line] === point.order);
    const scored = [...R.metrics.values()].filter((one) => rows.scores[one.name]);
    const by = scored.find((one) => one.name === R.state.thumbs);
    const value = (metric, line) => R.num(rows.scores[metric.name][line]);
    // By a metric the worst come first: these are worth a look.
    if (by) lines.sort((a, b) => (value(by, a.line) - value(by, b.line)) * (by.higher ? 1 : -1));
    const first = by ?? scored[0];
    const order = el("select", { "aria-label": "Order of images", change: () => R.set({ thumbs: order.value }) },
      el("option", { value: "name" }, "by name"), scored.map((one) => el("option", { value: one.name }, `worst ${one.title}`)));
    order.value = by ? by.name : "name";
    const list = el("div", { class: "thumbs" });
    const card = ({ image, line }) => {
      const picture = rows.picture[line] || image.picture;
      const shown = picture
        ? el("img", { src: R.thumb(picture), loading: "lazy", decoding: "async", alt: "", width: image.w, height: image.h })
        : el("span", { class: "blank" }, "no image here");
      const words = [`${R.fixed(rows.bpp[line], 3)} bpp`, first ? `${R.fixed(rows.scores[first.name][line], first.digits)} ${first.unit || first.title}` : ""];
      return el("button", {
        type: "button", class: "thumb", "data-image": image.name, title: image.caption ? `${image.name}: ${image.caption}` : image.name,
        click: () => R.set({ view: "viewer", image: image.name, panes: R.panesFor(point) }),
      }, shown, el("span", { class: "name" }, image.name), el("span", { class: "faint" }, words.filter(Boolean).join(" · ")));
    };
    let count = 0;
    const more = el("button", { type: "button", class: "plain", click: () => add() }, "More images");
    const add = () => {
      list.append(...lines.slice(count, count + PAGE).map(card));
      count += PAGE;
      more.hidden = count >= lines.length;
    };
    add();
    box.replaceChildren(el("div", { class: "row" }, el("h3", {}, "Images"), order), list, more);
  };

  R.showPoint = async (state, changed) => {
    const box = R.byId("point");
    const point = R.points.get(state.point);
    box.hidden = !point || state.view === "viewer" || state.view === "run";
    document.body.classList.toggle("with-point", !box.hidden);
    if (box.hidden || (box.dataset.of === point.id && !changed.has("thumbs"))) return;
    const mine = (turn += 1);
    box.dataset.of = point.id;
    const images = el("div", { class: "gallery" }, el("p", { class: "note" }, "reading …"));
    const look = point.pictures > 0
      ? el("button", { type: "button", class: "main", id: "compare", click: () => R.set({ view: "viewer", panes: R.panesFor(point) }) }, "Compare images")
      : el("p", { class: "note" }, "No images of this point in this folder: rdpbench report with --images all has them.");
    box.replaceChildren(
      el("div", { class: "row" },
        el("h2", {}, el("a", { href: R.link({ view: "codec", of: point.curve.base }) }, R.sign(point.curve), point.curve.label)),
        el("button", { type: "button", class: "plain", id: "close", title: "Close (Esc)", "aria-label": "Close", click: () => R.set({ point: "" }) }, "✕")),
      el("p", { class: "what" }, point.setting, el("span", { class: "faint" }, ` on ${point.curve.set.label}, ${point.curve.set.protocol}`)),
      el("ul", { class: "marks" }, marks(point).map((text) => el("li", { class: /random|failed|out of range/.test(text) ? "warn" : null }, text))),
      look, numbers(point),
      el("h3", {}, "Bytes of an image, mean"), R.breakdown(point.parts),
      images, R.command(point.command, "Make this point again"));
    if (!changed.has("thumbs")) box.scrollTop = 0;
    try {
      if (point.n > 0) await gallery(point, images);
      else images.replaceChildren();
    } catch (error) {
      if (mine === turn) images.replaceChildren(el("p", { class: "note" }, error.message));
    }
  };
})();
