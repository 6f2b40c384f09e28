// The front: every design a marker, what was searched behind it as dots.
const measuredOf = (design) => design.validation || design.test;
const hasChange = data.designs.some((design) => measuredOf(design) && there(measuredOf(design).change));
const lossOf = (design) => {
  const found = measuredOf(design);
  if (!found) return null;
  if (hasChange) return there(found.change) ? -100 * found.change : null;
  return 100 * (1 - found.top1);
};
const X_AXES = {
  edp: { text: "EDP", title: "EDP per image", unit: "J·s", of: (one) => one.edp_pj_s * J_PER_PJ, column: "edp_pj_s" },
  latency: { text: "latency", title: "latency per image", unit: "s", of: (one) => one.latency_s, column: "latency_s" },
  energy: { text: "energy", title: "energy per image", unit: "J", of: (one) => one.energy_pj * J_PER_PJ,
    column: "energy_pj" },
};
const Y_AXES = {
  measured: { text: "accuracy loss", title: hasChange ? "measured loss of top-1 [points]" : "measured top-1 error [%]",
    of: lossOf, zero: hasChange },
  predicted: { text: "predicted loss", title: "predicted loss [nats]", of: (one) => one.predicted_loss, log: true,
    column: "predicted_loss" },
  area: { text: "area", title: "area [mm²]", of: (one) => one.area_mm2, log: true, column: "area_mm2" },
};
const usable = (key) => data.designs.some((design) => there(Y_AXES[key].of(design)));
const view = { x: "edp", y: ["measured", "predicted", "area"].find(usable), cloud: true };
const COLUMN_SCALE = { edp_pj_s: J_PER_PJ, energy_pj: J_PER_PJ };
const areas = data.designs.map((design) => design.area_mm2);
const [leastArea, mostArea] = [Math.min(...areas), Math.max(...areas)];
const radiusOf = (area) => (mostArea > leastArea * 1.001
  ? 6 + 5.5 * Math.sqrt((area - leastArea) / (mostArea - leastArea)) : 7);

function cloudPoints() {
  const y = Y_AXES[view.y], x = X_AXES[view.x], cloud = data.cloud;
  if (!view.cloud || !y.column || !cloud.origin.length) return [];
  const points = [], factor = COLUMN_SCALE[x.column] || 1;
  cloud.origin.forEach((number, k) => {
    const origin = cloud.origins[number];
    if (there(cloud[y.column][k])) points.push({ k, origin, x: cloud[x.column][k] * factor, y: cloud[y.column][k] });
  });
  return points;
}

// Ends of the interval of a measured loss.
const endsOf = (design) =>
  [measuredOf(design).low, measuredOf(design).high].filter(there).map((change) => -100 * change);

// Corners of the step line of designs that none beats in both amounts.
function frontOf(items) {
  const sorted = [...items].sort((a, b) => a.x - b.x || a.y - b.y), front = [];
  for (const item of sorted) if (!front.length || item.y < front[front.length - 1].y) front.push(item);
  return front;
}

function drawFront(width) {
  const xAxis = X_AXES[view.x], yAxis = Y_AXES[view.y], height = Math.round(Math.min(520, Math.max(380, width * 0.6)));
  const items = data.designs.map((design) => ({ design, x: xAxis.of(design), y: yAxis.of(design) }));
  const missing = items.filter((item) => !there(item.y)), shown = items.filter((item) => there(item.y));
  const cloud = cloudPoints(), unit = unitFor(items.map((item) => item.x), xAxis.unit);
  const band = missing.length ? 34 : 0, margin = { left: 64, right: 16, top: 12 + band, bottom: 46 };
  const xs = [...items, ...cloud].map((item) => item.x / unit.factor), ys = [...shown, ...cloud].map((item) => item.y);
  const limit = view.y === "area" && data.provenance.limits ? data.provenance.limits.area_mm2 : null;
  if (typeof limit === "number") ys.push(limit);
  if (view.y === "measured" && hasChange) for (const { design } of shown) ys.push(...endsOf(design));
  const x = scaleOf(xs, margin.left, width - margin.right, { log: true, count: width / 90 });
  const spread = Math.max(...ys) > 4 * Math.min(...ys);
  const y = scaleOf(ys, height - margin.bottom, margin.top,
    { log: Boolean(yAxis.log) && spread, zero: false, count: 7, room: 0.08 });
  const at = (item) => [x(item.x / unit.factor), there(item.y) ? y(item.y) : 2 + band / 2];
  const root = svg("svg", { width, height, role: "group",
    "aria-label": `${yAxis.title} over ${xAxis.title}, designs as buttons` },
    axes(width, height, margin, x, y, `${xAxis.title} [${unit.text}]`, yAxis.title));
  if (band) root.append(svg("rect",
    { class: "band", x: margin.left, y: 6, width: width - margin.left - margin.right, height: band - 8, rx: 5 }),
    svg("text", { class: "soft", x: margin.left + 8, y: 6 + band / 2, "font-size": 11 }, "without this figure"));
  if (typeof limit === "number") root.append(svg("line",
    { class: "limit", x1: margin.left, x2: width - margin.right, y1: y(limit), y2: y(limit) }),
    svg("text", { class: "soft", x: width - margin.right - 4, y: y(limit) - 5, "text-anchor": "end" },
      `limit ${digits(limit)} mm²`));
  root.append(cloudPaths(cloud, at), frontLine(shown, at));
  const order = items.map((item) => ({ ...item, at: at(item) })).sort((a, b) => a.at[0] - b.at[0] || a.at[1] - b.at[1]);
  const nodes = order.map((item) => pointOf(item, y));
  nodes.forEach((node, k) =>
    node.addEventListener("keydown", (event) => pointKey(event, order[k].design.id, nodes, k)));
  root.append(...nodes);
  hoverCloud(root, cloud.map((item) => ({ ...item, at: at(item) })));
  place("front").replaceChildren(root);
  frontNote(cloud, missing);
}

function cloudPaths(cloud, at) {
  const paths = new Map();
  for (const item of cloud) {
    const [px, py] = at(item);
    const kind = `${Number(data.cloud.within[item.k])}${item.origin}`;
    paths.set(kind, `${paths.get(kind) || ""}M${px.toFixed(1)},${py.toFixed(1)}h0`);
  }
  return svg("g", { class: "cloud" }, [...paths].map(([kind, d]) => svg("path", { d, fill: "none", "stroke-width": 3.4,
    "stroke-linecap": "round", opacity: kind[0] === "1" ? 0.38 : 0.14, style: { stroke: colourOf(kind.slice(1)) } })));
}

function frontLine(shown, at) {
  const corners = frontOf(shown).map(at);
  const d = corners.map(([px, py], k) => (k ? `H${px.toFixed(1)}V${py.toFixed(1)}`
    : `M${px.toFixed(1)},${py.toFixed(1)}`)).join("");
  return svg("path", { class: "front-line", d, fill: "none", "stroke-width": 1.5, "stroke-dasharray": "5 4",
    style: { stroke: "var(--soft)" } });
}

// Measured, but not shown to be as accurate as the float network.
const inferior = (design) => Boolean(design.validation && design.validation.non_inferior === false);

function pointOf(item, y) {
  const { design, at } = item, r = radiusOf(design.area_mm2), found = measuredOf(design), parts = [];
  if (view.y === "measured" && hasChange && found && there(found.low) && there(found.high))
    parts.push(svg("line", { class: "interval", x1: 0, x2: 0, y1: y(-100 * found.low) - at[1],
      y2: y(-100 * found.high) - at[1] }));
  parts.push(svg("circle", { class: "ring", r: r + 4.5 }),
    svg("path", { class: inferior(design) ? "mark hollow" : "mark", d: markPath(shapeOf(design.origin), r) }));
  const tip = (px, py) => showTooltip(nameOf(design.id), designRows(design), px, py);
  const node = svg("g", { class: "point", tabindex: 0, role: "button", "data-id": design.id,
    transform: `translate(${at[0].toFixed(1)},${at[1].toFixed(1)})`,
    "aria-pressed": String(design.id === state.selected),
      "aria-label": `${nameOf(design.id)}, ${originText(design.origin)}, EDP ${edp(design.edp_pj_s)}`,
    style: { "--c": colourOf(design.origin) }, on: {
      mouseenter: (event) => tip(event.clientX, event.clientY), mouseleave: hideTooltip, click: () => select(design.id),
      focus: () => { if (node.matches(":focus-visible")) { const box = node.getBoundingClientRect();
        tip(box.right, box.bottom); } },
      blur: hideTooltip } }, parts);
  return node;
}

function pointKey(event, id, nodes, k) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (step) nodes[(k + step + nodes.length) % nodes.length].focus();
  else if (event.key === "Enter" || event.key === " ") select(id);
  else if (event.key === "Escape") hideTooltip();
  else return;
  event.preventDefault();
}

function hoverCloud(root, points) {
  root.addEventListener("mousemove", (event) => {
    if (event.target.closest(".point")) return;
    const near = nearest(points, event, root, 8);
    if (near) showTooltip(`looked at: ${originText(near.origin)}`, cloudRows(near.k), event.clientX, event.clientY);
    else hideTooltip();
  });
  root.addEventListener("mouseleave", hideTooltip);
}

function cloudRows(k) {
  const cloud = data.cloud, rows = [["EDP", edp(cloud.edp_pj_s[k])], ["latency", si(cloud.latency_s[k], "s")],
    ["energy", energy(cloud.energy_pj[k])], ["area", `${digits(cloud.area_mm2[k])} mm²`]];
  if (there(cloud.predicted_loss[k])) rows.push(["predicted loss", `${digits(cloud.predicted_loss[k])} nats`]);
  if (!cloud.within[k]) rows.push(["limits", "not kept"]);
  for (const axis of cloud.axes) if (axis.picks[k] >= 0
    && axis.choices.length > 1) rows.push([shortAxis(axis.name), shortened(axis.choices[axis.picks[k]], 40)]);
  return rows.slice(0, 16);
}

// What is said of a design when the mouse is over it.
function designRows(design) {
  const rows = [["from", originText(design.origin)], ["EDP", edp(design.edp_pj_s)],
    ["latency", si(design.latency_s, "s")],
    ["energy", energy(design.energy_pj)], ["area", `${digits(design.area_mm2)} mm²`]];
  const found = measuredOf(design);
  if (found) rows.push(["top-1",
    `${percent(found.top1, 2)}${there(found.change) ? ` (${points(found.change)})` : ""}`]);
  if (there(design.predicted_loss)) rows.push(["predicted loss", `${digits(design.predicted_loss)} nats`]);
  const mixed = filterText(design.id);
  if (mixed) rows.push(["filters", mixed]);
  const values = valuesOf(design),
    shown = values.filter(([, , differs], k) => k < 10 && (differs || data.designs.length === 1));
  for (const [name, value] of shown) rows.push([shortAxis(name), shortened(valueText(value), 40)]);
  if (values.length > shown.length) rows.push(["…", `${values.length - shown.length} more values`]);
  return rows;
}

function frontNote(cloud, missing) {
  const notes = ["Lower left is better. Dashed: designs that no other design beats in both figures; marker size: area."];
  if (data.designs.some(inferior)) notes.push("Hollow: inferior to the float network by measurement, or not shown to be as good.");
  const all = data.cloud.all;
  if (cloud.length) notes.push(`Dots: ${cloud.length === all ? "all" : `${whole(cloud.length)} of`} ${whole(all)} designs that were looked at${data.cloud.within.every(Boolean) ? "" : ", paler: beyond the limits"}.`);
  else if (view.cloud && all && view.y === "measured")
    notes.push("What was only looked at has no measured accuracy: switch to predicted loss or area to see it.");
  if (missing.length) notes.push(`${missing.length} of ${data.designs.length} designs lack this figure and stand above.`);
  if (view.y === "measured"
    && hasChange) notes.push("Bars are the intervals of the measurement; below 0 a design beats the float network.");
  place("front-note").textContent = notes.join(" ");
}

function setupFront() {
  const redraw = onWidth(place("front"), drawFront);
  const controls = place("front-controls");
  const draw = () => {
    controls.replaceChildren(
      choice("x", "across", Object.entries(X_AXES).map(([key, axis]) => [key, axis.text]), view.x,
        (value) => { view.x = value; redraw(); }),
      choice("y", "up", Object.entries(Y_AXES).map(([key, axis]) => [key, axis.text, usable(key)]), view.y,
        (value) => { view.y = value; redraw(); }));
    if (data.cloud.all) controls.append(el("label", { class: "check" },
      el("input", { type: "checkbox", id: "cloud", checked: view.cloud,
      on: { change: (event) => { view.cloud = event.target.checked; redraw(); } } }), "what was looked at"));
  };
  draw();
  const present = new Set(data.designs.map((design) => design.origin));
  place("front-legend").replaceChildren(...data.origins.filter(([origin]) =>
    present.has(origin)).map(([origin, text]) =>
    el("span", {}, markOf(origin), text)));
  listeners.push((id) => {
    for (const node of document.querySelectorAll(".point")) node.setAttribute("aria-pressed",
      String(node.dataset.id === id));
  });
}

const markOf = (origin) => svg("svg", { width: 16, height: 16, "aria-hidden": "true" },
  svg("path", { d: markPath(shapeOf(origin), 5.5), transform: "translate(8,8)", style: { fill: colourOf(origin) } }));
