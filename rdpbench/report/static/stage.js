"use strict";
// Where images are looked at: cells that share one zoom, side by side, wiped, in turn, or as differences.
(() => {
  const R = window.rdpbench;
  const { el } = R;
  const MOST = 32;

  R.stage = () => {
    const handle = el("div", { class: "handle", role: "slider", tabindex: "0", id: "wipe", "aria-label": "Wipe", "aria-valuemin": "0", "aria-valuemax": "100" });
    const cells = el("div", { class: "cells" });
    const box = el("div", { class: "stage", id: "stage" }, cells, handle);
    const pointers = new Map();
    let size = { w: 1, h: 1 };
    let view = null; // { scale, x, y }: CSS pixels per image pixel; the image's pixel in the middle; null fits
    let shown = [];
    let mode = "side";
    let pair = [0, 1];
    let turn = 0;

    const visible = () => (mode === "side" ? shown.map((_, n) => n) : mode === "difference" ? shown.map((_, n) => n).slice(1) : mode === "wipe" ? pair : [turn]);
    const room = () => {
      const cell = cells.querySelector(".cell:not([hidden])");
      return cell ? { w: cell.clientWidth, h: cell.clientHeight } : { w: 1, h: 1 };
    };
    const fit = () => {
      const { w, h } = room();
      return Math.min(w / size.w, h / size.h);
    };
    const now = () => view ?? { scale: fit(), x: size.w / 2, y: size.h / 2 };
    const place = () => {
      const { w, h } = room();
      const { scale, x, y } = now();
      // Edges lie on pixels of the screen: half a pixel would be blended with nothing, and differ there.
      const whole = (length) => Math.round(length * devicePixelRatio) / devicePixelRatio;
      const moved = `translate(${whole(w / 2 - x * scale)}px, ${whole(h / 2 - y * scale)}px)`;
      const sized = `scale(${whole(size.w * scale) / size.w}, ${whole(size.h * scale) / size.h})`;
      for (const image of cells.querySelectorAll("img")) {
        image.style.transform = `${moved} ${sized}`;
        image.style.imageRendering = scale * devicePixelRatio > 1 ? "pixelated" : "auto";
      }
      box.dataset.scale = scale.toFixed(4);
      box.dataset.zoomed = view ? "yes" : "no";
      R.byId("scale").textContent = `${Math.round(100 * scale)} %`;
    };
    const tell = R.later(150, () => R.set({ zoom: view ? [view.scale, view.x / size.w, view.y / size.h].map((one) => Number(one.toPrecision(5))).join(",") : "" }));
    const move = (next) => {
      // Smaller than fitting is no use, unless the image is small itself.
      const least = Math.min(fit(), 1);
      if (next && fit() <= 1 && next.scale <= least) view = null;
      else if (next) {
        view = {
          scale: Math.min(MOST, Math.max(least, next.scale)),
          x: Math.min(size.w, Math.max(0, next.x)),
          y: Math.min(size.h, Math.max(0, next.y)),
        };
      } else view = null;
      place();
      tell();
    };
    // The image's pixel below (x, y) of a cell stays below it.
    const zoomAt = (factor, x, y) => {
      const old = now();
      const { w, h } = room();
      const scale = Math.min(MOST, old.scale * factor);
      const at = { x: old.x + (x - w / 2) / old.scale, y: old.y + (y - h / 2) / old.scale };
      move({ scale, x: at.x - (x - w / 2) / scale, y: at.y - (y - h / 2) / scale });
    };
    const inCell = (event) => {
      const rect = (event.target.closest(".cell") ?? cells.querySelector(".cell:not([hidden])")).getBoundingClientRect();
      return [event.clientX - rect.left, event.clientY - rect.top];
    };

    cells.addEventListener("wheel", (event) => {
      event.preventDefault();
      zoomAt(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), ...inCell(event));
    }, { passive: false });
    cells.addEventListener("dblclick", (event) => (view ? move(null) : zoomAt(Math.max(2, 1 / now().scale), ...inCell(event))));
    cells.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      pointers.set(event.pointerId, event);
      cells.setPointerCapture(event.pointerId);
    });
    cells.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
      const old = now();
      if (pointers.size === 1) {
        if (view) move({ ...old, x: old.x - dx / old.scale, y: old.y - dy / old.scale });
      } else {
        const other = [...pointers.values()].find((one) => one.pointerId !== event.pointerId);
        const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
        const rect = cells.querySelector(".cell:not([hidden])").getBoundingClientRect();
        zoomAt(apart(event) / Math.max(1, apart(before)), (event.clientX + other.clientX) / 2 - rect.left, (event.clientY + other.clientY) / 2 - rect.top);
      }
      pointers.set(event.pointerId, event);
    });
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) cells.addEventListener(name, (event) => pointers.delete(event.pointerId));

    const wipe = (percent) => {
      const part = Math.min(100, Math.max(0, percent));
      box.style.setProperty("--wipe", `${part}%`);
      handle.setAttribute("aria-valuenow", String(Math.round(part)));
      return part;
    };
    const wiped = R.later(120, (part) => R.set({ wipe: String(Number(part.toFixed(1))) }));
    handle.addEventListener("pointerdown", (event) => {
      handle.setPointerCapture(event.pointerId);
      event.preventDefault();
      handle.focus();
    });
    handle.addEventListener("pointermove", (event) => {
      if (!handle.hasPointerCapture(event.pointerId)) return;
      const rect = box.getBoundingClientRect();
      wiped(wipe((100 * (event.clientX - rect.left)) / rect.width));
    });
    handle.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, Home: -100, End: 100 }[event.key];
      if (by === undefined) return;
      wiped(wipe(Number(R.state.wipe) + by * (event.shiftKey ? 10 : 1)));
      R.state.wipe = handle.getAttribute("aria-valuenow");
      event.preventDefault();
      event.stopPropagation();
    });

    // As many columns as make the images largest.
    const divide = (count) => {
      const { clientWidth: wide, clientHeight: tall } = box;
      const scale = (columns) => Math.min(wide / columns / size.w, tall / Math.ceil(count / columns) / size.h);
      let best = 1;
      for (let columns = 2; columns <= count; columns += 1) if (scale(columns) > scale(best) * 1.02) best = columns;
      cells.style.gridTemplateColumns = `repeat(${best}, minmax(0, 1fr))`;
      cells.style.gridTemplateRows = `repeat(${Math.ceil(count / best)}, minmax(0, 1fr))`;
    };
    const arrange = () => {
      const there = visible();
      [...cells.children].forEach((cell, n) => {
        cell.hidden = mode === "flicker" ? false : !there.includes(n);
        cell.classList.toggle("away", mode === "flicker" && n !== turn);
        cell.classList.toggle("over", mode === "wipe" && n === pair[1]);
        cell.classList.toggle("under", mode === "wipe" && n === pair[0]);
      });
      box.dataset.mode = mode;
      divide(mode === "side" || mode === "difference" ? there.length : 1);
      handle.hidden = mode !== "wipe";
    };
    new ResizeObserver(() => { arrange(); place(); }).observe(box);

    return {
      box,
      // images: { title, sub, far, marked, source, why }, the original first
      show: (images, of) => {
        const same = images.length === shown.length && images.every((one, n) => one.source === shown[n].source);
        shown = images;
        size = of;
        if (!same) {
          cells.replaceChildren(...images.map((one, n) => {
            const image = (source, kind) => source && el("img", { src: source, class: kind, alt: "", draggable: "false", decoding: "async", width: of.w, height: of.h });
            const layers = el("div", { class: "layers" }, n > 0 && image(images[0].source, "original"), image(one.source, "decoded"));
            return el("div", { class: "cell", "data-pane": String(n) }, one.source ? layers : el("p", { class: "note blank" }, one.why), el("div", { class: "label" }));
          }));
        }
        images.forEach((one, n) => cells.children[n].querySelector(".label").replaceChildren(el("b", {}, one.title), el("span", {}, one.sub), one.far ? el("span", { class: one.marked ? "far" : "" }, one.far) : ""));
      },
      set: (state, chosen) => {
        mode = state.mode;
        pair = chosen;
        if (turn >= shown.length) turn = 0;
        box.style.setProperty("--gain", state.gain);
        wipe(Number(state.wipe) || 0);
        const parts = state.zoom.split(",").map(Number);
        view = parts.length === 3 && parts.every(Number.isFinite) && parts[0] > 0 ? { scale: parts[0], x: parts[1] * size.w, y: parts[2] * size.h } : null;
        arrange();
        place();
      },
      flick: (to) => {
        turn = to ?? (turn + 1) % Math.max(1, shown.length);
        arrange();
        return turn;
      },
      zoom: (factor) => zoomAt(factor, room().w / 2, room().h / 2),
      scale: (scale) => move(scale ? { ...now(), scale } : null),
      pan: (dx, dy) => view && move({ ...view, x: view.x + dx / view.scale, y: view.y + dy / view.scale }),
    };
  };
})();
