"use strict";
// Runs before anything is shown: the theme, and the place where data files hand over what they hold.
window.rdpbench = (() => {
  const held = new Map();
  const waiting = new Map();
  let theme = null;
  try {
    theme = localStorage.getItem("rdpbench-theme");
  } catch {
    // Storage is off: the system's theme it is.
  }
  // A link's theme comes before one's own.
  theme = /[#&]theme=(light|dark)(?:&|$)/.exec(location.hash)?.[1] ?? theme;
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;

  // A page from a file may not fetch, but it may run scripts that lie beside it.
  const load = (address) => {
    if (!waiting.has(address)) {
      waiting.set(address, new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = address;
        script.onload = resolve;
        script.onerror = () => {
          waiting.delete(address);
          reject(new Error(`${address} is missing from the report's folder`));
        };
        document.head.append(script);
      }));
    }
    return waiting.get(address);
  };
  const data = async (name) => {
    if (!held.has(name)) await load(`data/${name}.js`);
    return held.get(name);
  };
  return { put: (name, value) => held.set(name, value), get: (name) => held.get(name), load, data };
})();
