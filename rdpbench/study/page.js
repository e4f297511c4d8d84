"use strict";
// One rater's sitting: shows the trials of a sheet, keeps the answers in this browser, and saves them as a file.
(() => {
  const study = JSON.parse(document.getElementById("data").textContent);
  const one = (id) => document.getElementById(id);
  const all = (query) => [...document.querySelectorAll(query)];
  const typed = new URLSearchParams(location.search);
  const state = { rater: "", sheet: 1, votes: [], since: 0, ready: false, saved: true };
  const image = (side) => document.querySelector(`figure[data-side="${side}"] img`);
  const trials = () => study.sheets[state.sheet - 1];

  if (!study.ties) document.body.classList.add("forced");
  study.sheets.forEach((_, number) => one("sheet").add(new Option(String(number + 1), String(number + 1))));
  const asked = Number(typed.get("sheet"));
  const known = Number.isInteger(asked) && asked >= 1 && asked <= study.sheets.length;
  one("sheet").value = String(known ? asked : 1 + Math.floor(Math.random() * study.sheets.length));
  one("rater").value = (typed.get("rater") || "").slice(0, 64);

  // A browser may refuse storage to files; answers are then kept by this page alone.
  const place = () => `rdpbench-study:${study.study}:${state.sheet}:${state.rater}`;
  const keep = () => { try { localStorage.setItem(place(), JSON.stringify(state.votes)); } catch { /* not kept */ } };
  const kept = () => {
    try {
      const votes = JSON.parse(localStorage.getItem(place()) || "[]");
      const fits = Array.isArray(votes) && votes.every((vote, n) => n < trials().length && vote.trial === trials()[n].id);
      return fits ? votes : [];
    } catch { return []; }
  };

  const see = (side) => {
    all("figure").forEach((figure) => figure.classList.toggle("on", figure.dataset.side === side));
    all("#tabs button").forEach((tab) => tab.setAttribute("aria-pressed", String(tab.dataset.see === side)));
  };
  const enable = (on) => {
    state.ready = on;
    all("#choices button").forEach((button) => { button.disabled = !on; });
  };
  const sources = (trial) => ({ left: trial.left, original: trial.original, right: trial.right });

  const show = async () => {
    const number = state.votes.length;
    const finished = number >= trials().length;
    one("vote").hidden = finished;
    one("done").hidden = !finished;
    if (finished) return;
    const trial = trials()[number];
    one("where").textContent = `${number + 1} of ${trials().length}`;
    one("back").disabled = number === 0;
    enable(false);
    see("original");
    for (const [side, name] of Object.entries(sources(trial))) image(side).src = `images/${name}`;
    try {
      await Promise.all(["left", "original", "right"].map((side) => image(side).decode()));
    } catch {
      if (trials()[state.votes.length] === trial) one("where").textContent = "An image cannot be shown: reload the page.";
      return;
    }
    if (trials()[state.votes.length] !== trial) return;
    state.since = performance.now();
    enable(true);
    const next = trials()[number + 1];
    if (next) Object.values(sources(next)).forEach((name) => { new Image().src = `images/${name}`; });
  };

  const vote = (choice) => {
    if (!state.ready || (choice === "tie" && !study.ties)) return;
    state.votes.push({ trial: trials()[state.votes.length].id, choice, ms: Math.round(performance.now() - state.since) });
    state.saved = false;
    keep();
    show();
  };
  const back = () => { if (state.votes.length) { state.votes.pop(); keep(); show(); } };

  const quoted = (text) => `"${String(text).replaceAll('"', '""')}"`;
  const content = (format) => {
    const head = { kind: "rdpbench-study-votes", version: 1, study: study.study, sheet: state.sheet, rater: state.rater };
    if (format === "json") return `${JSON.stringify({ ...head, votes: state.votes }, null, 1)}\n`;
    const lines = state.votes.map((vote) => [study.study, state.sheet, state.rater, vote.trial, vote.choice, vote.ms]);
    return [["study", "sheet", "rater", "trial", "choice", "ms"], ...lines].map((line) => line.map(quoted).join(",")).join("\r\n") + "\r\n";
  };
  const save = (format) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content(format)], { type: format === "json" ? "application/json" : "text/csv" }));
    link.download = `votes-${state.rater.replace(/[^A-Za-z0-9_-]/g, "_")}-${state.sheet}.${format}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    state.saved = true;
    one("saved").textContent = `saved as ${link.download}`;
  };

  const original = (on) => {
    if (one("vote").hidden) return;
    const trial = trials()[state.votes.length];
    for (const side of ["left", "right"]) image(side).src = `images/${on ? trial.original : trial[side]}`;
  };

  one("start").addEventListener("submit", (event) => {
    event.preventDefault();
    const rater = one("rater").value.trim();
    if (!rater) return;
    state.rater = rater;
    state.sheet = Number(one("sheet").value);
    state.votes = kept();
    one("start").hidden = true;
    show();
  });
  all("#choices button").forEach((button) => button.addEventListener("click", () => vote(button.dataset.choice)));
  all("#tabs button").forEach((button) => button.addEventListener("click", () => see(button.dataset.see)));
  all(".save").forEach((button) => button.addEventListener("click", () => save(button.dataset.format)));
  one("back").addEventListener("click", back);
  one("again").addEventListener("click", back);
  const zoom = () => one("zoom").setAttribute("aria-pressed", String(document.body.classList.toggle("true")));
  one("zoom").addEventListener("click", zoom);
  const panes = all("figure > div");
  panes.forEach((pane) => pane.addEventListener("scroll", () => {
    for (const other of panes) { other.scrollLeft = pane.scrollLeft; other.scrollTop = pane.scrollTop; }
  }));
  document.addEventListener("keydown", (event) => {
    if (one("vote").hidden || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const act = { ArrowLeft: () => vote("left"), ArrowRight: () => vote("right"), ArrowDown: () => vote("tie"),
      Backspace: back, z: zoom, o: () => original(true), 1: () => see("left"), 2: () => see("original"), 3: () => see("right") }[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  document.addEventListener("keyup", (event) => { if (event.key === "o") original(false); });
  window.addEventListener("beforeunload", (event) => { if (state.votes.length && !state.saved) event.preventDefault(); });
})();
