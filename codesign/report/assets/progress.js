// The search over evaluations or seconds: hypervolume and the best EDP so far.
const DASHES = [null, "7 4", "2 4", "10 4 2 4"];
const timed = data.history.some((one) => one.rows.some((row) => there(row.elapsed_s)));
let progressX = "evaluations";
// A search for designs of one origin has its colour.
const colourOfSearch = (one, k) => (KNOWN.includes(one.search) ? colourOf(one.search) : `var(--s${k % 8})`);

function drawProgress(node, width, field, title, unit, log) {
  const series = data.history.map((one, k) => ({ name: one.searcher ? `${one.search} (${one.searcher})` : one.search,
    colour: colourOfSearch(one, k), dash: DASHES[Math.floor(k / 8) % 4],
    points: one.rows.filter((row) => there(row[field]) && there(row[progressX])).map((row) =>
      [row[progressX], row[field] * (unit ? J_PER_PJ : 1)]) }))
    .filter((one) => one.points.length);
  if (!series.length) { node.replaceChildren(el("p", { class: "note" }, `The study has no ${title}.`)); return; }
  lineChart(node, width, { series, xTitle: progressX === "evaluations" ? "evaluations" : "time [s]", yTitle: title,
    yUnit: unit, log,
    tip: (point) => [[progressX === "evaluations" ? "evaluations" : "seconds", digits(point[0])],
      [title, unit ? si(point[1], unit) : digits(point[1])]] });
}

function setupProgress() {
  const node = place("progress");
  if (!data.history.some((one) => one.rows.length)) { place("progress-section").remove(); return; }
  const redraws = [["hypervolume", "hypervolume", "", false],
    ["least", "least EDP so far", "J·s", true]].map(([field, title, unit, log]) => {
    const chart = el("div", { class: "chart", id: `progress-${field}` });
    node.append(el("div", { class: "card" }, el("h3", {}, title[0].toUpperCase() + title.slice(1)), chart));
    return onWidth(chart, (width) => drawProgress(chart, width, field, title, unit, log));
  });
  place("progress-controls").append(choice("progress", "over",
    [["evaluations", "evaluations"], ["elapsed_s", "seconds", timed]], progressX,
    (value) => { progressX = value; redraws.forEach((redraw) => redraw()); }));
  const shown = data.history.slice(0, 32);
  const key = el("div", { class: "legend" },
    shown.map((one, k) => el("span", {}, svg("svg", { width: 26, height: 10, "aria-hidden": "true" },
    svg("line", { x1: 0, x2: 26, y1: 5, y2: 5, "stroke-width": 2.5, "stroke-dasharray": DASHES[Math.floor(k / 8) % 4],
      style: { stroke: colourOfSearch(one, k) } })),
  one.searcher ? `${one.search} (${one.searcher})` : one.search)));
  if (data.history.length > shown.length) key.append(`and ${data.history.length - shown.length} more`);
  place("progress-section").append(key);
  if (shown.length > 1) place("progress-section").append(el("p", { class: "note" },
    "Every search has its own reference point, and may have its own objectives: hypervolumes compare within a search."));
}
