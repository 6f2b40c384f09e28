// Tables: comparison with intervals, bounds, cost table against simulation, provenance.
function tableOf(columns, rows, chosen = () => false) {
  const kind = (k) => (columns[k][1] ? { class: "number" } : {});
  return el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, columns.map(([title], k) => el("th", { scope: "col", ...kind(k) }, title)))),
    el("tbody", {}, rows.map((row, n) =>
      el("tr", chosen(n) ? { class: "selected" } : {}, row.map((cell, k) => el("td", kind(k), cell)))))));
}

// A small picture of an interval and its estimate on a common scale with a line at `zero`.
function intervalMark(low, value, high, least, most, zero, good) {
  const width = 100, height = 20, x = (number) => 6 + ((number - least) / (most - least || 1)) * (width - 12);
  return svg("svg", { width, height, "aria-hidden": "true" },
    svg("line", { class: "axis", x1: x(zero), x2: x(zero), y1: 1, y2: height - 1, "stroke-width": 1.5 }),
    ...(there(low) && there(high)
      ? [svg("line", { x1: x(low), x2: x(high), y1: 10, y2: 10, "stroke-width": 2, style: { stroke: "var(--soft)" } })]
      : []),
    svg("path", { d: markPath(good ? "circle" : "cross", 5), transform: `translate(${x(value)},10)`,
      style: { fill: good ? "var(--uniform4)" : "var(--codesign)" } }));
}

// Rivals of the study's designs, a row each, in the section `id`: ratio of EDPs and change of accuracy as numbers and
// pictures; `first` says in the first column, under `title`, what the rival is.
function setupRivals(id, rows, title, first, note) {
  if (!rows.length) { place(`${id}-section`).remove(); return; }
  const logs = rows.map((row) => (there(row.edp_ratio) ? Math.log(row.edp_ratio) : null)),
    reach = Math.max(0.05, ...logs.map(Math.abs));
  const ends = rows.flatMap((row) => [row.low, row.accuracy_change, row.high]).filter(there),
    far = Math.max(1e-4, ...ends.map(Math.abs));
  const verdict = (value) => (there(value) ? (value ? "yes" : "no") : "–");
  const interval = (row) => (there(row.low) && there(row.high) ? ` (${points(row.low, "")} … ${points(row.high, "")})`
    : "");
  const rival = (row) => (byId.has(row.design) ? edp(byId.get(row.design).edp_pj_s) : "–");
  // [title, is a number, cell of row k]; columns without any value are left out.
  const columns = [[title, 0, first], ["its design", 0, (row) => nameOf(row.design)],
    ["its EDP", 1, rival],
    ["ours", 0, (row) => (there(row.ours) ? nameOf(row.ours) : null)],
    ["accurate", 0, (row) => verdict(row.equal_accuracy)],
      ["EDP ratio", 1, (row) => (there(row.edp_ratio) ? digits(row.edp_ratio) : null)],
    ["less ← → more", 0, (row, k) =>
      (there(logs[k]) ? intervalMark(null, logs[k], null, -reach, reach, 0, row.edp_ratio < 1) : null)],
    ["accuracy, points", 1, (row) => (there(row.accuracy_change) ? `${points(row.accuracy_change, "")}${interval(row)}`
      : null)],
    ["lower ← → higher", 0, (row) => (there(row.accuracy_change)
      ? intervalMark(row.low, row.accuracy_change, row.high, -far, far, 0, row.non_inferior !== false) : null)],
    ["not inferior", 0, (row) => (there(row.non_inferior) ? verdict(row.non_inferior) : null)]];
  const shown = columns.filter((column) => rows.some((row, k) => there(column[2](row, k))));
  place(id).append(tableOf(shown, rows.map((row, k) => shown.map((column) => column[2](row, k) ?? "–"))),
    el("p", { class: "note" }, note));
}

function setupComparison() {
  setupRivals("comparison", data.comparison, "baseline", (row) => originText(row.baseline),
    `For every baseline its best design as accurate as the float network (else its most accurate one), and the study's design of
    least EDP that is not inferior to it on the same validation images. Accurate: the baseline's design is not inferior to the float network.
    Ratio: EDP of ours divided by that of the baseline's, below 1 it needs less. Accuracy: ours minus baseline's.`);
}

function setupFamilies() {
  setupRivals("families", data.families, "without", (row) => row.family,
    `The search was run again without each family of options, with as many evaluations. Ratio: EDP of the full search's design
    divided by that of the search without the family, at an accuracy that is not inferior: below 1 the family saves EDP, above 1 the
    larger space was searched less well. Accuracy: with the family minus without it, on the same validation images.`);
}

function setupBounds() {
  const rows = data.bounds;
  if (!rows.length) { place("bounds-section").remove(); return; }
  const most = Math.max(...rows.map((row) => row.gap), 1e-9);
  const cycles = (row) => [there(row.latency_cycles) ? whole(row.latency_cycles) : "–", there(row.latency_bound_cycles)
    ? whole(row.latency_bound_cycles) : "–"];
  place("bounds").append(tableOf([["design"], ["loss budget, nats", 1], ["EDP", 1], ["bound", 1], ["gap", 1], [""],
    ["cycles", 1], ["bound", 1],
    ["energy", 1], ["bound", 1]],
      rows.map((row) => [nameOf(row.design), there(row.level) ? String(row.level) : "–", edp(row.edp_pj_s),
      edp(row.edp_bound_pj_s),
    percent(row.gap), gapBar(row.gap / most), ...cycles(row), energy(row.energy_pj), energy(row.energy_bound_pj)])),
  el("p", { class: "note" },
    "No plan of the same predicted loss and no mapping has less on this hardware. It bounds the predicted loss, not the accuracy."));
}
const gapBar = (share) => svg("svg", { width: 70, height: 12, "aria-hidden": "true" },
  svg("rect", { width: 70, height: 12, rx: 2, style: { fill: "var(--none)" } }),
  svg("rect", { width: Math.max(1, 70 * Math.max(0, share)), height: 12, rx: 2, style: { fill: "var(--s0)" } }));

function setupTableError() {
  const rows = data.table_error, node = place("table-error");
  if (!rows.length) { place("table-error-section").remove(); return; }
  const chart = el("div", { class: "chart" }), designs = [...new Set(rows.map((row) => row.design))];
  const kinds = [["cycles", "predicted_cycles", "simulated_cycles", null, "circle"],
    ["energy", "predicted_energy_pj", "simulated_energy_pj", "5 4", "square"]];
  const series = designs.flatMap((id, k) =>
    kinds.map(([kind, said, was, dash, shape]) => ({ name: `${nameOf(id)}: ${kind}`, colour: `var(--s${k % 8})`, dash,
    shape,
    points: rows.filter((row) => row.design === id && there(row[said]) && row[was] > 0).sort((a, b) =>
      a.round - b.round)
      .map((row) => [row.round, 100 * (row[said] / row[was] - 1)]) }))).filter((one) => one.points.length);
  const error = (said, was) => (there(said) && was > 0 ? percent(said / was - 1, 2) : "–");
  node.append(chart, legend(designs.slice(0, 16).map((id, k) => [`var(--s${k % 8})`, nameOf(id)])),
    el("p", { class: "note" },
      "What the cost table said of a plan, less what the exact simulation then said. Solid: cycles; dashed: energy. Every round corrects the table."),
    el("details", {}, el("summary", {}, `Table of the ${rows.length} rounds`),
      tableOf([["design"], ["round", 1], ["cycles, table", 1], ["simulated", 1], ["error", 1],
      ["energy, table", 1], ["simulated", 1], ["error", 1]],
        rows.map((row) => [nameOf(row.design), String(row.round), whole(row.predicted_cycles),
        whole(row.simulated_cycles),
      error(row.predicted_cycles, row.simulated_cycles), energy(row.predicted_energy_pj),
        energy(row.simulated_energy_pj),
      error(row.predicted_energy_pj, row.simulated_energy_pj)]))));
  onWidth(chart, (width) =>
    lineChart(chart, width,
    { series, xTitle: "round of the feedback", yTitle: "error of the table [%]", steps: false, marks: true,
    zero: true, xWhole: true, height: 240, tip: (point) =>
      [["round", String(point[0])], ["error", `${digits(point[1])} %`]] }));
}

function setupProvenance() {
  const from = data.provenance, node = place("provenance"), rows = [["program", from.program || "not said"]];
  const flat = (name, value) => { if (there(value)
    && Object.keys(value).length) rows.push([name,
    Object.entries(value).map(([key, item]) => `${key} ${valueText(item)}`).join(", ")]); };
  if (from.page_program !== from.program) rows.push(["page made by", from.page_program]);
  rows.push(["made", from.created_utc || "not said"], ["data", data.data || "none"],
    ["seed", there(from.seed) ? String(from.seed) : "not said"]);
  flat("penalties", from.penalties);
  flat("limits", from.limits);
  if (from.seconds) for (const [name, value] of Object.entries(from.seconds)) rows.push([`seconds, ${name}`,
    typeof value === "number" ? digits(value) : valueText(value)]);
  node.append(pairsOf(rows));
  const printed = Object.entries(data.details).map(([id, found]) =>
    [nameOf(id), ...["workload", "plan", "accelerator", "mapping"].map((name) => found.fingerprints[name])]);
  if (printed.length) node.append(el("details", {}, el("summary", {}, "Fingerprints of the designs"),
    tableOf([["design"], ["workload"], ["plan"], ["accelerator"], ["mapping"]], printed)));
  if (from.spec_text) {
    const more = from.spec_left_out ? `\n… ${whole(from.spec_left_out)} characters more` : "";
    node.append(el("details", { open: from.spec_text.length < 4000 }, el("summary", {}, "Specification"),
      el("pre", { id: "spec" }, from.spec_text + more)));
  }
}
