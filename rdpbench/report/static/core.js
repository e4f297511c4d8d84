"use strict";
// Elements, numbers, colours. Text goes into the page as text: there is no innerHTML anywhere.
(() => {
  const R = window.rdpbench;
  const SVG = "http://www.w3.org/2000/svg";

  const fill = (node, attributes, children) => {
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (typeof value === "function") node.addEventListener(name, value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
    return node;
  };
  // el("button", { class: "plain", click: () => ... }, "text", other)
  R.el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
  R.svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
  R.byId = (id) => document.getElementById(id);

  R.later = (wait, action) => {
    let timer = 0;
    return (...words) => {
      clearTimeout(timer);
      timer = setTimeout(() => action(...words), wait);
    };
  };

  // Numbers: data has null for what is not there, and "inf".
  R.num = (value) => (value === "inf" ? Infinity : value === "-inf" ? -Infinity : value === null || value === undefined ? NaN : value);
  R.fixed = (value, digits) => {
    const number = R.num(value);
    if (Number.isNaN(number)) return "–";
    return Number.isFinite(number) ? number.toFixed(digits) : "∞";
  };
  R.count = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
  R.bytes = (value) => (value === null ? "–" : Math.round(value).toLocaleString("en"));
  R.half = (low, high, digits) => {
    const width = (R.num(high) - R.num(low)) / 2;
    return Number.isFinite(width) ? ` ±${width.toFixed(digits)}` : "";
  };

  // Colours are the style sheet's; the plotting library needs them resolved.
  R.colour = (name) => {
    const probe = R.el("span");
    probe.style.color = `var(--${name})`;
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  };
  R.faded = (colour, alpha) => colour.replace(/^rgba?\(([^)]*)\)$/, (_, inner) => {
    const [r, g, b] = inner.split(/[\s,/]+/);
    return `rgba(${r}, ${g}, ${b}, ${alpha})`;
  });

  R.COLOURS = 10;
  R.SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "pentagon", "hexagon", "star"];
  const SHAPES = [
    "M6 2a4 4 0 1 0 .01 0z", "M2.5 2.5h7v7h-7z", "M6 1l5 5-5 5-5-5z", "M6 1.5L11 10H1z", "M6 10.5L11 2H1z",
    "M4.5 1.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z", "M3 1l3 3 3-3 2 2-3 3 3 3-2 2-3-3-3 3-2-2 3-3-3-3z",
    "M6 1l5 3.8L9.1 10.500H2.9L1 4.800z", "M3.500 1.700h5L11 6l-2.500 4.300h-5L1 6z",
    "M6 1l1.500 3.300 3.500.4-2.600 2.400.7 3.500L6 8.900l-3.100 1.700.7-3.500L1 4.700l3.500-.4z",
  ];
  // The sign of a curve: its colour and marker.
  R.sign = (curve) => R.svg(
    "svg",
    { viewBox: "0 0 12 12", class: "sign", "aria-hidden": "true", style: `color: var(--c${curve.colour})` },
    R.svg("path", { d: SHAPES[curve.symbol], fill: "currentColor" }),
  );

  R.thumb = (picture) => `thumbs/${picture.slice(0, 2)}/${picture}.jpg`;
  R.full = (picture, kind) => `images/${picture.slice(0, 2)}/${picture}.${kind}`;

  // Copying needs no permission this way, and works where a page from a file has no clipboard.
  R.copy = async (text, button) => {
    let done = false;
    try {
      await navigator.clipboard.writeText(text);
      done = true;
    } catch {
      const area = R.el("textarea", { class: "offscreen" });
      area.value = text;
      document.body.append(area);
      area.select();
      done = document.execCommand("copy");
      area.remove();
    }
    const before = button.textContent;
    button.textContent = done ? "Copied" : "Select and copy";
    setTimeout(() => { button.textContent = before; }, 1500);
  };
  R.command = (text, label) => {
    if (!text) return R.el("p", { class: "note" }, "The record of the call that made it cannot be read.");
    const button = R.el("button", { type: "button", class: "plain small" }, "Copy");
    button.addEventListener("click", () => R.copy(text, button));
    return R.el("div", { class: "command" }, R.el("div", { class: "row" }, R.el("h3", {}, label), button), R.el("pre", { tabindex: "0" }, text));
  };
})();
