// Tables: comparison with intervals, bounds, cost table against simulation, provenance.
function tableOf(columns, rows, chosen = () => false) {
  const kind = (k) => (columns[k][1] ? { class: "number" } : {});
  return el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, columns.map(([title], k) => el("th", { scope: "col", ...kind(k) }, title)))),
    el("tbody", {}, rows.map((row, n) => el("tr", chosen(n) ? { class: "selected" } : {}, row.map((cell, k) => el("td", kind(k), cell)))))));
}

// A small picture of an interval and its estimate on a common scale with a line at `zero`.
function intervalMark(low, value, high, least, most, zero, good) {
  const width = 120, height = 20, x = (number) => 6 + ((number - least) / (most - least || 1)) * (width - 12);
  return svg("svg", { width, height, "aria-hidden": "true" },
    svg("line", { class: "axis", x1: x(zero), x2: x(zero), y1: 1, y2: height - 1, "stroke-width": 1.5 }),
    ...(there(low) && there(high) ? [svg("line", { x1: x(low), x2: x(high), y1: 10, y2: 10, "stroke-width": 2, style: { stroke: "var(--soft)" } })] : []),
    svg("path", { d: markPath(good ? "circle" : "cross", 5), transform: `translate(${x(value)},10)`, style: { fill: good ? "var(--uniform4)" : "var(--codesign)" } }));
}

function setupComparison() {
  const rows = data.comparison;
  if (!rows.length) { place("comparison-section").remove(); return; }
  const logs = rows.map((row) => Math.log(row.edp_ratio)), reach = Math.max(0.05, ...logs.map(Math.abs));
  const ends = rows.flatMap((row) => [row.low, row.accuracy_change, row.high]).filter(there), far = Math.max(1e-4, ...ends.map(Math.abs));
  const verdict = (row) => (there(row.non_inferior) ? (row.non_inferior ? "yes" : "no") : "–");
  const interval = (row) => (there(row.low) && there(row.high) ? ` (${points(row.low, "")} … ${points(row.high, "")})` : "");
  const designs = new Set(rows.map((row) => row.design)), one = designs.size === 1;
  if (one) place("comparison").append(el("p", { class: "note" }, `Design: ${nameOf(rows[0].design)}`));
  place("comparison").append(tableOf([["baseline"], ...(one ? [] : [["design"]]), ["EDP ratio", 1], ["less ← → more"], ["accuracy [points]", 1],
    ["lower ← → higher"], ["not inferior"]], rows.map((row, k) => [nameOf(row.baseline), ...(one ? [] : [nameOf(row.design)]), digits(row.edp_ratio),
    intervalMark(null, logs[k], null, -reach, reach, 0, row.edp_ratio < 1), `${points(row.accuracy_change, "")}${interval(row)}`,
    there(row.accuracy_change) ? intervalMark(row.low, row.accuracy_change, row.high, -far, far, 0, row.non_inferior !== false) : "–", verdict(row)])),
  el("p", { class: "note" }, "Ratio: EDP of the design divided by that of the baseline, below 1 the design needs less. Accuracy: design minus baseline on the same images."));
}

function setupBounds() {
  const rows = data.bounds;
  if (!rows.length) { place("bounds-section").remove(); return; }
  const most = Math.max(...rows.map((row) => row.gap), 1e-9);
  const cycles = (row) => [there(row.latency_cycles) ? whole(row.latency_cycles) : "–", there(row.latency_bound_cycles) ? whole(row.latency_bound_cycles) : "–"];
  place("bounds").append(tableOf([["design"], ["loss budget, nats", 1], ["EDP", 1], ["bound", 1], ["gap", 1], [""], ["cycles", 1], ["bound", 1],
    ["energy", 1], ["bound", 1]], rows.map((row) => [nameOf(row.design), there(row.level) ? String(row.level) : "–", edp(row.edp_pj_s), edp(row.edp_bound_pj_s),
    percent(row.gap), gapBar(row.gap / most), ...cycles(row), energy(row.energy_pj), energy(row.energy_bound_pj)])),
  el("p", { class: "note" }, "No plan of the same predicted loss and no mapping has less on this hardware. It bounds the predicted loss, not the accuracy."));
}
const gapBar = (share) => svg("svg", { width: 70, height: 12, "aria-hidden": "true" },
  svg("rect", { width: 70, height: 12, rx: 2, style: { fill: "var(--none)" } }),
  svg("rect", { width: Math.max(1, 70 * Math.max(0, share)), height: 12, rx: 2, style: { fill: "var(--s0)" } }));

function setupTableError() {
  const rows = data.table_error, node = place("table-error");
  if (!rows.length) { place("table-error-section").remove(); return; }
  const chart = el("div", { class: "chart" }), designs = [...new Set(rows.map((row) => row.design))];
  const kinds = [["cycles", "predicted_cycles", "simulated_cycles", null, "circle"], ["energy", "predicted_energy_pj", "simulated_energy_pj", "5 4", "square"]];
  const series = designs.flatMap((id, k) => kinds.map(([kind, said, was, dash, shape]) => ({ name: `${nameOf(id)}: ${kind}`, colour: `var(--s${k % 8})`, dash, shape,
    points: rows.filter((row) => row.design === id && there(row[said]) && row[was] > 0).sort((a, b) => a.round - b.round)
      .map((row) => [row.round, 100 * (row[said] / row[was] - 1)]) }))).filter((one) => one.points.length);
  const error = (said, was) => (there(said) && was > 0 ? percent(said / was - 1, 2) : "–");
  node.append(chart, legend(designs.slice(0, 16).map((id, k) => [`var(--s${k % 8})`, nameOf(id)])),
    el("p", { class: "note" }, "What the cost table said of a plan, less what the exact simulation then said. Solid: cycles; dashed: energy. Every round corrects the table."),
    el("details", {}, el("summary", {}, `Table of the ${rows.length} rounds`), tableOf([["design"], ["round", 1], ["cycles, table", 1], ["simulated", 1], ["error", 1],
      ["energy, table", 1], ["simulated", 1], ["error", 1]], rows.map((row) => [nameOf(row.design), String(row.round), whole(row.predicted_cycles), whole(row.simulated_cycles),
      error(row.predicted_cycles, row.simulated_cycles), energy(row.predicted_energy_pj), energy(row.simulated_energy_pj),
      error(row.predicted_energy_pj, row.simulated_energy_pj)]))));
  onWidth(chart, (width) => lineChart(chart, width, { series, xTitle: "round of the feedback", yTitle: "error of the table [%]", steps: false, marks: true,
    zero: true, xWhole: true, height: 240, tip: (point) => [["round", String(point[0])], ["error", `${digits(point[1])} %`]] }));
}

function setupProvenance() {
  const from = data.provenance, node = place("provenance"), rows = [["program", from.program || "not said"]];
  const flat = (name, value) => { if (there(value) && Object.keys(value).length) rows.push([name, Object.entries(value).map(([key, item]) => `${key} ${valueText(item)}`).join(", ")]); };
  if (from.page_program !== from.program) rows.push(["page made by", from.page_program]);
  rows.push(["made", from.created_utc || "not said"], ["data", data.data || "none"], ["seed", there(from.seed) ? String(from.seed) : "not said"]);
  flat("penalties", from.penalties);
  flat("limits", from.limits);
  if (from.seconds) for (const [name, value] of Object.entries(from.seconds)) rows.push([`seconds, ${name}`, typeof value === "number" ? digits(value) : valueText(value)]);
  node.append(pairsOf(rows));
  const printed = Object.entries(data.details).map(([id, found]) => [nameOf(id), ...["workload", "plan", "accelerator", "mapping"].map((name) => found.fingerprints[name])]);
  if (printed.length) node.append(el("details", {}, el("summary", {}, "Fingerprints of the designs"), tableOf([["design"], ["workload"], ["plan"], ["accelerator"], ["mapping"]], printed)));
  if (from.spec_text) {
    const more = from.spec_left_out ? `\n… ${whole(from.spec_left_out)} characters more` : "";
    node.append(el("details", { open: from.spec_text.length < 4000 }, el("summary", {}, "Specification"), el("pre", { id: "spec" }, from.spec_text + more)));
  }
}
