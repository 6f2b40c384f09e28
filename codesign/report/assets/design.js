// The selected design: its figures, its plan per op, where its time and energy go.
const detailOf = (id) => data.details[id];
// Ops of a design as {name, class, macs, in, out, filters, right, …}.
const opsOf = (found) => found.ops.map((op, k) => {
  const [name, kind, macs] = data.networks[found.network][k];
  return { name, class: kind, macs, ...op };
});
const CAUSES = ["region", "bus", "input", "dependency", "output"];
const CAUSE_TEXTS = { busy: "busy", region: "waits for a place in a buffer", bus: "waits for data from DRAM",
  input: "waits for a result of another unit", dependency: "waits for an explicit dependency",
  output: "waits for its own output stage", drained: "has finished its last row" };
const WAIT_OPACITY = 0.75;
const colourOfPart = (part) => `var(--${part})`;

// Colour of a number format: blues by width for uniform, oranges for powers of two.
function colourOfFormat(format) {
  const bits = Number(format.replace(/\D/g, ""));
  if (format.startsWith("u")) return `var(--w${bits > 8 ? 16 : bits > 6 ? 8 : bits > 4 ? 6 : bits > 2 ? 4 : 2})`;
  return `var(--shift${bits > 8 ? 12 : bits > 4 ? 8 : 4})`;
}
const inkOn = (format) => `var(--${/^(u[2-5]|pot)/.test(format) && !/^u1\d/.test(format) ? "text" : "card"})`;
function formatText(format) {
  const bits = format.replace(/\D/g, "");
  if (format.startsWith("apot")) return `${bits}-bit sum of powers of two`;
  return format.startsWith("pot") ? `${bits}-bit power of two` : `uniform ${bits}-bit`;
}

// Filters of a design by weight format, most first: [[format, share]].
function filterShares(id) {
  const found = detailOf(id), counts = new Map();
  if (!found) return [];
  for (const op of found.ops) for (const [format, count] of Object.entries(op.filters || {}))
    counts.set(format, (counts.get(format) || 0) + count);
  const all = [...counts.values()].reduce((a, b) => a + b, 0);
  return [...counts].sort((a, b) => b[1] - a[1]).map(([format, count]) => [format, count / all]);
}
const filterText = (id) => filterShares(id).map(([format, share]) => `${format} ${percent(share, 0)}`).join(", ");

function measuredRows(found, kind) {
  if (!found) return [[kind, "not measured"]];
  const rows = [[kind, `${percent(found.top1, 2)} (${whole(found.images)} images)`]];
  if (there(found.change)) {
    const ends = there(found.low) && there(found.high) ? ` (${points(found.low, "")} … ${points(found.high, "")})` : "";
    const verdict = there(found.non_inferior)
      ? (found.non_inferior ? "; not inferior" : "; inferior or not shown to be as good") : "";
    rows.push(["against float", `${points(found.change)}${ends}${verdict}`]);
  }
  return rows;
}

function drawCard(id) {
  const design = byId.get(id), node = place("card");
  const rows = [["EDP", edp(design.edp_pj_s)], ["latency", si(design.latency_s, "s")]];
  if (there(design.cycles)) rows.push(["cycles", whole(design.cycles)]);
  if (there(design.clock_hz)) rows.push(["clock", si(design.clock_hz, "Hz")]);
  rows.push(["energy", energy(design.energy_pj)], ["area", `${digits(design.area_mm2)} mm²`]);
  if (there(design.power_w)) rows.push(["power", si(design.power_w, "W")]);
  if (there(design.predicted_loss)) rows.push(["predicted loss", `${digits(design.predicted_loss)} nats`]);
  if (there(design.level)) rows.push(["loss budget", `${design.level} nats`]);
  if (there(design.integer_agreement)) rows.push(["integers agree", percent(design.integer_agreement, 2)]);
  if (design.arch) rows.push(["accelerator", design.arch]);
  if (design.mapper) rows.push(["mapper", design.mapper]);
  if (there(design.average_weight_bits)) rows.push(["bits of a weight", digits(design.average_weight_bits)]);
  if (there(design.shift_share)) rows.push(["powers of two", `${percent(design.shift_share)} of MACs`]);
  if (filterText(id)) rows.push(["filters", filterText(id)]);
  node.replaceChildren(el("h3", {}, nameOf(id)),
    el("p", { class: "origin" }, markOf(design.origin), `${originText(design.origin)} · ${design.id}`),
    el("div", { class: "lists" }, pairsOf(rows), el("div", {}, el("h4", {}, "Accuracy, top-1"),
      pairsOf([...measuredRows(design.validation, "validation"),
        ...(design.test ? measuredRows(design.test, "test") : [])]))));
}

function drawDesign(id) {
  const found = detailOf(id), node = place("design"), note = place("design-note");
  place("design-picker").value = id;
  drawCard(id);
  note.classList.toggle("warning", Boolean(found && !found.same));
  if (!found) {
    note.textContent = "This design has no files in the study, so there is no plan, timeline or energy to show.";
    node.replaceChildren(valueCard(id));
    return;
  }
  note.textContent = found.same ? ""
    : `Simulated again by program ${data.provenance.page_program}: ${whole(found.cycles)} cycles and `
    + `${energy(found.energy_pj)}, which is not what the study says. The pictures below show the new run.`;
  const plan = el("div", { class: "chart", id: "plan" }), gantt = el("div", { id: "gantt" });
  const waits = el("div", { class: "chart", id: "waits" }), joules = el("div", { class: "chart", id: "energy" });
  node.replaceChildren(valueCard(id),
    el("div", { class: "card" }, el("h3", {}, `Plan “${found.plan.name}”: formats of every op`), plan,
      planLegend(found)),
    el("div", { class: "card" }, el("h3", {}, "Units over time"), gantt),
    el("div", { class: "pair" },
      el("div", { class: "card" }, el("h3", {}, "Where the time goes"), waits, waitLegend(found)),
      el("div", { class: "card" }, el("h3", {}, "Where the energy goes"), joules, energyLegend(found))),
    opTable(found));
  onWidth(plan, (width) => drawPlan(plan, width, found));
  drawGantt(gantt, found);
  onWidth(waits, (width) => drawWaits(waits, width, found));
  onWidth(joules, (width) => drawEnergy(joules, width, found));
}

function valueCard(id) {
  const values = valuesOf(byId.get(id));
  return values.length ? el("div", { class: "card" }, el("h3", {}, "Chosen values"),
    el("div", { class: "values", id: "values" },
    values.map(([name, value, differs]) =>
      el("div", { class: differs ? null : "fixed" }, el("span", {}, breakable(axisName(name))),
      el("b", {}, breakable(valueText(value))))))) : "";
}

// A column per op: share of the MACs, filters by weight format, formats in and out.
function drawPlan(node, width, found) {
  const ops = opsOf(found), left = 78, column = (width - left - 4) / ops.length, gap = column > 5 ? 1 : 0.3;
  const most = Math.max(1, ...ops.map((op) => op.macs));
  const rows = { macs: [4, 36], weights: [46, 92], in: [144, 18], out: [166, 18] }, height = 206;
  const root = svg("svg", { width, height, role: "img",
    "aria-label": "formats of every op, in the order of execution" },
    svg("defs", {}, svg("pattern",
      { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      svg("rect", { width: 2.4, height: 6, style: { fill: "var(--card)" } }))));
  const names = { macs: "MACs", weights: "weights", in: "input", out: "output" };
  for (const [key, [top, size]] of Object.entries(rows))
    root.append(svg("text", { class: "soft", x: left - 10, y: top + size / 2 + 4, "text-anchor": "end" }, names[key]));
  ops.forEach((op, k) => {
    const x = left + k * column, w = Math.max(0.5, column - gap), group = svg("g", { class: "op" });
    const box = (top, size, colour, format = "") => {
      group.append(svg("rect", { x, y: top, width: w, height: size, style: { fill: colour } }));
      if (format && size >= 13 && w >= 8 * format.length) group.append(svg("text",
        { x: x + w / 2, y: top + size / 2 + 4, "font-size": 11,
        "text-anchor": "middle", style: { fill: inkOn(format) } }, format));
    };
    const share = op.macs / most, [mTop, mSize] = rows.macs;
    if (share > 0) box(mTop + mSize * (1 - share), mSize * share, "var(--soft)");
    const [wTop, wSize] = rows.weights, filters = Object.entries(op.filters || {}),
      all = filters.reduce((a, b) => a + b[1], 0);
    let top = wTop;
    for (const [format, count] of filters) { box(top, (wSize * count) / all, colourOfFormat(format), format);
      top += (wSize * count) / all; }
    if (op.right) {
      box(wTop, wSize, colourOfFormat(op.right));
      group.append(svg("rect", { x, y: wTop, width: w, height: wSize, fill: "url(#hatch)" }));
    }
    if (!op.right && !filters.length) box(wTop, wSize, "var(--none)");
    box(rows.in[0], rows.in[1], colourOfFormat(op.in), op.in);
    box(rows.out[0], rows.out[1], colourOfFormat(op.out), op.out);
    group.append(svg("rect", { x, y: 0, width: column, height: 186, fill: "transparent" }));
    group.addEventListener("mousemove", (event) =>
      showTooltip(op.name, planTip(op, all), event.clientX, event.clientY));
    group.addEventListener("mouseleave", hideTooltip);
    root.append(group);
  });
  root.append(svg("text", { class: "soft", x: left, y: height - 4 }, `${ops.length} ops in the order of execution →`));
  node.replaceChildren(root);
}

function planTip(op, all) {
  const rows = [["class", op.class], ["MACs", si(op.macs, "")]];
  for (const [format, count] of Object.entries(op.filters || {}))
    rows.push([format, `${percent(count / all, 0)}: ${whole(count)} of ${whole(all)} filters`]);
  if (op.right) rows.push(["right operand", formatText(op.right)]);
  rows.push(["input", formatText(op.in)], ["output", formatText(op.out) + (op.zero_point ? " with a zero point" : "")]);
  return rows;
}

function planLegend(found) {
  const used = new Set(), products = found.ops.some((op) => op.right);
  for (const op of found.ops) for (const format of [...Object.keys(op.filters || {}), op.in, op.out, op.right
    || op.in]) used.add(format);
  const sorted = [...used].sort((a, b) => a.replace(/\d/g, "").localeCompare(b.replace(/\d/g, ""))
    || b.replace(/\D/g, "") - a.replace(/\D/g, ""));
  const items = sorted.map((format) => [colourOfFormat(format), `${format}: ${formatText(format)}`]).reverse();
  if (products) items.push([colourOfFormat(found.ops.find((op) => op.right).right),
    "hatched: right operand of a product of activations", 1, true]);
  if (found.ops.some((op) => !op.filters && !op.right)) items.push(["var(--none)", "no weights"]);
  return legend(items);
}

function drawWaits(node, width, found) {
  const order = ["busy", ...CAUSES, "drained"];
  const rows = Object.entries(found.waits).map(([unit, parts]) =>
    ({ name: unit, end: `${whole(100 * parts.busy, 1)} % busy`,
    parts: order.map((part) => [colourOfPart(part), parts[part], [[CAUSE_TEXTS[part], percent(parts[part])],
      ["cycles", whole(parts[part] * found.cycles)]], CAUSES.includes(part) ? WAIT_OPACITY : 1]) }));
  stackedBars(node, width, rows, 1, "time of every unit by what it does");
}
function waitLegend(found) {
  const used = ["busy", ...CAUSES, "drained"].filter((part) =>
    Object.values(found.waits).some((parts) => parts[part] > 0.0005));
  return legend(used.map((part) => [colourOfPart(part), CAUSE_TEXTS[part], CAUSES.includes(part) ? WAIT_OPACITY : 1]));
}

// Components are "<unit>.<kind>"; kinds of the vector unit other than idle and leakage are its work.
const ENERGY_KINDS = [["products", "products", "--s0"], ["accumulate", "accumulation", "--s5"],
  ["output_stage", "output stage", "--s2"],
  ["work", "vector operations", "--s3"], ["read", "reads", "--s4"], ["write", "writes", "--s1"],
    ["idle", "idle clock", "--s7"],
  ["leakage", "leakage", "--s6"]];
function energyByUnit(found) {
  const units = new Map();
  for (const [component, pj] of Object.entries(found.energy)) {
    const cut = component.lastIndexOf("."), unit = component.slice(0, cut), kind = component.slice(cut + 1);
    const known = ENERGY_KINDS.some((item) => item[0] === kind) ? kind : "work", own = units.get(unit) || {};
    own[known] = (own[known] || 0) + pj;
    units.set(unit, own);
  }
  return [...units].map(([unit, own]) => [unit, own, Object.values(own).reduce((a, b) => a + b, 0)]).sort((a, b) =>
    b[2] - a[2]);
}
function drawEnergy(node, width, found) {
  const units = energyByUnit(found), most = Math.max(...units.map((item) => item[2]));
  stackedBars(node, width, units.map(([unit, own, sum]) => ({ name: unit.replace("_", " "), end: energy(sum),
    parts: ENERGY_KINDS.map(([kind, text, colour]) => [`var(${colour})`, own[kind] || 0,
      [[text, energy(own[kind] || 0)],
      ["of the design", percent((own[kind] || 0) / found.energy_pj)]]]) })), most, "energy of every unit by kind");
}
function energyLegend(found) {
  const used = new Set(energyByUnit(found).flatMap((item) =>
    Object.entries(item[1]).filter((pair) => pair[1] > 0).map((pair) => pair[0])));
  return legend(ENERGY_KINDS.filter((item) => used.has(item[0])).map(([, text, colour]) => [`var(${colour})`, text]));
}

function opTable(found) {
  const rows = opsOf(found).map((op) => [op.name, op.class, op.engines.join(" + "), whole(op.cycles),
    percent(op.cycles / found.cycles), si(op.macs, ""), energy(op.pj), si(op.bits / 8, "B")]);
  return el("details", { id: "ops", class: "card" }, el("summary", {}, `Table of the ${rows.length} ops`),
    tableOf([["op"], ["class"], ["runs on"], ["own cycles", 1], ["of the run", 1], ["MACs", 1], ["dynamic energy", 1],
      ["DRAM", 1]], rows));
}

function setupDesign() {
  const picker = el("select", { id: "design-picker", on: { change: (event) => select(event.target.value) } },
    data.designs.map((design) =>
      el("option", { value: design.id }, `${nameOf(design.id)} (${originText(design.origin)})`)));
  place("design-controls").replaceChildren(el("label", { class: "check" }, "Show", picker),
    el("button", { type: "button", id: "to-best", on: { click: () => select(data.best) } }, data.has_best
      ? "Best design" : "First design"));
  listeners.push(drawDesign);
}
