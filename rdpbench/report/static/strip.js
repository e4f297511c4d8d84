"use strict";
// All images of a set in a row; only those in the window exist.
(() => {
  const R = window.rdpbench;
  const { el } = R;
  const WIDTH = 92;

  R.strip = (open) => {
    const inner = el("div", { class: "inner" });
    const box = el("div", { class: "strip", role: "group", "aria-label": "Images" }, inner);
    let images = [];
    let chosen = -1;
    const paint = () => {
      const first = Math.max(0, Math.floor(box.scrollLeft / WIDTH) - 4);
      const last = Math.min(images.length, first + Math.ceil((box.clientWidth || 800) / WIDTH) + 8);
      inner.style.width = `${images.length * WIDTH}px`;
      inner.replaceChildren(...images.slice(first, last).map((image, n) => {
        const number = first + n;
        const button = el("button", {
          type: "button", class: "frame", title: image.name, "aria-label": image.name, "aria-pressed": String(number === chosen), "data-image": image.name,
          click: () => open(image.name),
        }, image.picture ? el("img", { src: R.thumb(image.picture), alt: "", decoding: "async" }) : el("span", { class: "blank" }, image.name));
        button.style.left = `${number * WIDTH}px`;
        return button;
      }));
    };
    box.addEventListener("scroll", () => requestAnimationFrame(paint), { passive: true });
    new ResizeObserver(paint).observe(box);
    return {
      box,
      show: (next, number) => {
        images = next;
        chosen = number;
        const left = number * WIDTH;
        if (left < box.scrollLeft || left + WIDTH > box.scrollLeft + box.clientWidth) box.scrollLeft = left - box.clientWidth / 2 + WIDTH / 2;
        paint();
      },
    };
  };
})();
