// Units over time: a lane per unit, segments as they came from the recorded run.
const LANE = 34, LANE_GAP = 8, ZOOMS = [1, 2, 4, 8, 16];
const PART_NAMES = ["busy", ...CAUSES];
let zoom = 1;

function drawGantt(node, found) {
  const gantt = found.gantt, chart = el("div", { class: "chart" });
  const names = el("div", { class: "names", "aria-hidden": "true" }, gantt.units.map((unit) =>
    el("div", { style: { height: `${LANE + LANE_GAP}px` } }, shortened(unit, 20))));
  const scroll = el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "units over time" }, chart);
  const outer = el("div", { class: "lanes" }, names, scroll);
  const redraw = onWidth(scroll, (width) => drawLanes(chart, width * zoom, found));
  const zooms = choice("zoom", "zoom", ZOOMS.map((value) => [String(value), `${value}×`]), String(zoom),
    (value) => { zoom = Number(value); redraw(); });
  const merged = gantt.piece_cycles > 0
    ? `Pieces up to ${digits(gantt.piece_cycles)} cycles are joined; in a joined piece heights are shares of its time.`
    : "Every row is drawn.";
  node.replaceChildren(el("div", { class: "controls" }, zooms), outer, ganttLegend(gantt),
    el("p", { class: "note" },
      `${whole(gantt.cycles)} cycles, ${whole(gantt.rows)} rows. ${merged} The two blues alternate from op to op.`));
}

function ganttLegend(gantt) {
  const used = new Set();
  for (const lane of gantt.lanes) for (const segment of lane) {
    if (Array.isArray(segment[3])) segment[3].forEach((share, part) => { if (share > 0) used.add(part); });
    else used.add(segment[3]);
  }
  return legend(PART_NAMES.map((name, part) => [colourOfPart(name), CAUSE_TEXTS[name], part ? WAIT_OPACITY : 1])
    .filter((item, part) => used.has(part)));
}

function drawLanes(node, width, found) {
  const gantt = found.gantt, height = gantt.units.length * (LANE + LANE_GAP), margin = { right: 14 };
  const seconds = gantt.cycles / found.clock_hz, unit = unitFor([seconds], "s"),
    scale = (width - margin.right) / gantt.cycles;
  const root = svg("svg", { width, height: height + 40, role: "img",
    "aria-label": `what ${gantt.units.length} units do over ${whole(gantt.cycles)} cycles` });
  const end = seconds / unit.factor, ticks = linearTicks(0, end, width / 110), text = tickText(ticks);
  for (const tick of ticks) {
    const x = (tick / end) * (width - margin.right);
    root.append(svg("line", { class: "grid", x1: x, x2: x, y1: 0, y2: height }),
      svg("text", { class: "tick", x, y: height + 16, "text-anchor": tick === 0 ? "start" : "middle" }, text(tick)));
  }
  root.append(svg("text", { x: Math.min(width, width / zoom) / 2, y: height + 35, "text-anchor": "middle" },
    `time [${unit.text}]`));
  const segments = [];
  gantt.lanes.forEach((lane, k) => {
    const top = k * (LANE + LANE_GAP) + LANE_GAP / 2;
    let at = 0;
    root.append(svg("line", { class: "axis", x1: 0, x2: width - margin.right, y1: top + LANE, y2: top + LANE }));
    for (const [gap, length, op, share] of lane) {
      at += gap;
      const group = svg("g", { class: "segment", "data-index": segments.length });
      segments.push({ unit: gantt.units[k], from: at, length, op, share });
      let base = top + LANE;
      const parts = Array.isArray(share) ? share.map((amount, part) => [part, amount / 100]) : [[share, 1]];
      for (const [part, amount] of parts) {
        if (!(amount > 0)) continue;
        const size = LANE * Math.min(1, amount);
        base -= size;
        const name = part === 0 && op >= 0 && op % 2 ? "busy-next" : PART_NAMES[part];
        group.append(svg("rect", { x: (at * scale).toFixed(2), y: base.toFixed(2),
          width: Math.max(0.3, length * scale).toFixed(2),
          height: size.toFixed(2), style: { fill: `var(--${name})`, opacity: part ? String(WAIT_OPACITY) : "1" } }));
      }
      root.append(group);
      at += length;
    }
  });
  root.addEventListener("mousemove", (event) => {
    const group = event.target.closest(".segment");
    if (group) showTooltip(...segmentTip(segments[group.dataset.index], data.networks[found.network]), event.clientX,
      event.clientY);
    else hideTooltip();
  });
  root.addEventListener("mouseleave", hideTooltip);
  node.replaceChildren(root);
}

function segmentTip({ unit, from, length, op, share }, network) {
  const title = op >= 0 ? network[op][0] : "several ops";
  const rows = [["unit", unit], ["cycles", `${whole(from)} … ${whole(from + length)}`]];
  const parts = Array.isArray(share) ? share.map((amount, part) => [part, amount]) : [[share, 100]];
  for (const [part, amount] of parts) if (amount > 0) rows.push([CAUSE_TEXTS[PART_NAMES[part]], `${amount} %`]);
  return [title, rows];
}
