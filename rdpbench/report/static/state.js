"use strict";
// What is looked at, in the address after "#": a link shows the same to somebody else.
(() => {
  const R = window.rdpbench;
  const USUAL = {
    view: "curves", of: "", run: [], data: [], protocol: [], codec: [], metric: [],
    x: "bpp", scale: "auto", band: "1",
    rows: "points", q: "", sort: "",
    point: "", image: "", panes: [], match: "1", mode: "side", pair: "0,1", wipe: "50", gain: "8", hz: "2", zoom: "",
    thumbs: "name", theme: "",
  };
  const CHOICES = {
    view: ["curves", "codec", "dataset", "table", "viewer", "run"], scale: ["auto", "log", "linear"], rows: ["points", "images"],
    mode: ["side", "wipe", "flicker", "difference"], match: ["1", "0"], band: ["1", "0"],
    theme: ["light", "dark"], gain: ["1", "2", "4", "8", "16", "32"], hz: ["1", "2", "4"],
  };
  const listeners = [];

  const read = (hash) => {
    const state = structuredClone(USUAL);
    for (const part of hash.replace(/^#/, "").split("&").filter(Boolean)) {
      const [key, ...rest] = part.split("=");
      if (!(key in USUAL)) continue;
      try {
        const text = rest.join("=");
        const value = Array.isArray(USUAL[key]) ? text.split(",").filter(Boolean).map(decodeURIComponent) : decodeURIComponent(text);
        if (!CHOICES[key] || CHOICES[key].includes(value)) state[key] = value;
      } catch {
        // A link that was cut: what cannot be read is as usual.
      }
    }
    state.theme ||= document.documentElement.dataset.theme ?? "";
    return state;
  };
  const write = (state) => {
    const parts = [];
    for (const [key, usual] of Object.entries(USUAL)) {
      const value = state[key];
      if (Array.isArray(usual)) {
        if (value.length) parts.push(`${key}=${value.map(encodeURIComponent).join(",")}`);
      } else if (value !== usual) parts.push(`${key}=${encodeURIComponent(value).replaceAll("%2C", ",")}`);
    }
    return `#${parts.join("&")}`;
  };

  R.state = read(location.hash);
  // A theme that was chosen before belongs to what a link shows.
  if (R.state.theme && !/[#&]theme=/.test(location.hash)) history.replaceState(null, "", write(R.state));
  // The address of a page of its own: of a codec or a dataset, with all that is known of it.
  R.link = (patch) => write({ ...R.state, ...Object.fromEntries(["run", "data", "protocol", "codec", "point", "q"].map((key) => [key, USUAL[key]])), ...patch });
  // Codecs and datasets have the front page's curves below their cards.
  R.section = (state) => (["codec", "dataset"].includes(state.view) ? "curves" : state.view);
  R.onState = (listener) => listeners.push(listener);
  const tell = (before) => {
    const changed = new Set(Object.keys(USUAL).filter((key) => String(R.state[key]) !== String(before[key])));
    for (const listener of listeners) listener(R.state, changed);
  };
  // Steps that one would go back over are entries of the history; small ones change the address in place.
  const STEPS = ["view", "of", "point", "image", "mode"];
  R.set = (patch) => {
    const before = R.state;
    R.state = { ...before, ...patch };
    const address = write(R.state);
    if (address !== (location.hash || "#")) {
      const step = STEPS.some((key) => R.state[key] !== before[key]);
      history[step ? "pushState" : "replaceState"](null, "", address);
    }
    tell(before);
  };
  const follow = () => {
    const before = R.state;
    R.state = read(location.hash);
    if (write(R.state) !== write(before)) tell(before);
  };
  window.addEventListener("popstate", follow);
  window.addEventListener("hashchange", follow);
})();
