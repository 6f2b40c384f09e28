// Scales with ticks, axes, lines and stacked bars.
function niceStep(span, count) {
  const rough = span / count, power = 10 ** Math.floor(Math.log10(rough));
  return power * ([1, 2, 2.5, 5, 10].find((step) => step * power >= rough * 0.999) || 10);
}
function linearTicks(low, high, count) {
  const step = niceStep(high - low, count), ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k += 1) ticks.push(k * step);
  return ticks;
}
function logTicks(low, high, count) {
  const decades = Math.log10(high / low);
  if (decades < 0.7) return linearTicks(low, high, count);
  const steps = decades < 1.5 ? [1, 2, 3, 5, 7] : decades < 4 ? [1, 2, 5] : [1], ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1)
    for (const step of steps) if (step * 10 ** power >= low
      && step * 10 ** power <= high) ticks.push(step * 10 ** power);
  return ticks;
}

// A scale over `values` with room at both ends; logarithmic when asked for and possible.
function scaleOf(values, from, to, { log = false, zero = false, count = 6, room = 0.06 } = {}) {
  let low = Math.min(...values), high = Math.max(...values);
  const logarithmic = log && low > 0;
  if (zero) { low = Math.min(0, low); high = Math.max(0, high); }
  const forward = logarithmic ? Math.log : (value) => value, back = logarithmic ? Math.exp : (value) => value;
  let a = forward(low), b = forward(high);
  if (b - a < 1e-9 * Math.max(1, Math.abs(a))) { const half = logarithmic ? 0.2 : Math.abs(a) * 0.1 || 0.5; a -= half;
    b += half; }
  const spare = room * (b - a);
  a = zero && low === 0 ? a : a - spare; b += spare;
  const scale = (value) => from + ((forward(value) - a) / (b - a)) * (to - from);
  scale.ticks = (logarithmic ? logTicks : linearTicks)(back(a), back(b), count);
  scale.log = logarithmic;
  return scale;
}

// Labels of ticks with just the decimals that tell them apart.
function tickText(ticks) {
  let gap = Infinity;
  for (let k = 1; k < ticks.length; k += 1) gap = Math.min(gap, ticks[k] - ticks[k - 1]);
  return (value) => {
    if (value === 0) return "0";
    if (Math.abs(value) >= 1e6 || Math.abs(value) < 1e-4) return value.toExponential(0).replace("-", "−");
    const step = Number.isFinite(gap) ? Math.min(gap, Math.abs(value)) : Math.abs(value);
    let decimals = 0;
    while (decimals < 8 && Math.abs(value - Number(value.toFixed(decimals))) > step * 1e-3) decimals += 1;
    return whole(value, decimals);
  };
}

// Axes of a chart of this size; `x` and `y` are scales in pixels.
function axes(width, height, margin, x, y, xTitle, yTitle) {
  const bottom = height - margin.bottom, right = width - margin.right, parts = [];
  const xText = tickText(x.ticks), yText = tickText(y.ticks);
  let free = -Infinity;
  for (const tick of x.ticks) {
    const at = x(tick), text = xText(tick), half = text.length * 3.6 + 4;
    parts.push(svg("line", { class: "grid", x1: at, x2: at, y1: margin.top, y2: bottom }));
    if (at - half < free) continue;
    free = at + half;
    parts.push(svg("text", { class: "tick", x: at, y: bottom + 17, "text-anchor": "middle" }, text));
  }
  for (const tick of y.ticks) {
    parts.push(svg("line", { class: "grid", x1: margin.left, x2: right, y1: y(tick), y2: y(tick) }),
      svg("text", { class: "tick", x: margin.left - 8, y: y(tick) + 4, "text-anchor": "end" }, yText(tick)));
  }
  parts.push(svg("path", { class: "axis", fill: "none", d: `M${margin.left},${margin.top}V${bottom}H${right}` }));
  parts.push(svg("text", { x: (margin.left + right) / 2, y: height - 6, "text-anchor": "middle", class: "axis-title" },
    xTitle));
  const middle = (margin.top + bottom) / 2;
  parts.push(svg("text", { x: 14, y: middle, transform: `rotate(-90 14 ${middle})`, "text-anchor": "middle",
    class: "axis-title" }, yTitle));
  return svg("g", { class: "axes", "aria-hidden": "true" }, parts);
}

// The unit in which a list of values reads well: factor and text.
function unitFor(values, unit) {
  const sorted = [...values].sort((a, b) => a - b), middle = sorted[Math.floor(sorted.length / 2)];
  const [factor, prefix] = unit ? prefixOf(middle) : [1, ""];
  return { factor, text: `${prefix}${unit}` };
}

// Step lines or polylines: series = [{name, colour, dash, points: [[x, y]]}].
function lineChart(node, width,
  { series, xTitle, yTitle, yUnit = "", log = false, steps = true, marks = false, tip, height = 270, zero = false,
  xWhole = false }) {
  const xs = series.flatMap((one) => one.points.map((point) => point[0]));
  const unit = unitFor(series.flatMap((one) => one.points.map((point) => point[1])), yUnit);
  const ys = series.flatMap((one) => one.points.map((point) => point[1] / unit.factor));
  const margin = { left: 64, right: 14, top: 10, bottom: 44 };
  const x = scaleOf(xs, margin.left, width - margin.right, { room: 0.03, count: width / 90 });
  if (xWhole) x.ticks = x.ticks.filter((tick) => Number.isInteger(tick));
  const y = scaleOf(ys, height - margin.bottom, margin.top, { log, zero, count: 5 });
  const root = svg("svg", { width, height, role: "img", "aria-label": `${yTitle} over ${xTitle}` },
    axes(width, height, margin, x, y, xTitle, yUnit ? `${yTitle} [${unit.text}]` : yTitle));
  if (zero) root.append(svg("line", { class: "axis", x1: margin.left, x2: width - margin.right, y1: y(0), y2: y(0) }));
  for (const one of series) {
    const path = one.points.map(([px, py], k) => {
      const at = `${x(px).toFixed(1)},${y(py / unit.factor).toFixed(1)}`;
      return k === 0 ? `M${at}` : steps ? `H${x(px).toFixed(1)}V${y(py / unit.factor).toFixed(1)}` : `L${at}`;
    }).join("");
    root.append(svg("path", { d: path, fill: "none", "stroke-width": 2, "stroke-dasharray": one.dash || null,
      style: { stroke: one.colour }, class: "series" }));
    if (marks) for (const [px, py] of one.points) root.append(svg("path",
      { class: "dot", d: markPath(one.shape || "circle", 4),
      transform: `translate(${x(px).toFixed(1)},${y(py / unit.factor).toFixed(1)})`, style: { fill: one.colour } }));
  }
  const all = series.flatMap((one) =>
    one.points.map((point) => ({ one, point, at: [x(point[0]), y(point[1] / unit.factor)] })));
  root.addEventListener("mousemove", (event) => {
    const near = nearest(all, event, root, 40);
    if (near) showTooltip(near.one.name, tip(near.point, near.one), event.clientX, event.clientY);
    else hideTooltip();
  });
  root.addEventListener("mouseleave", hideTooltip);
  node.replaceChildren(root);
}

// The item of `all` nearest to the mouse within `reach` pixels.
function nearest(all, event, root, reach) {
  const box = root.getBoundingClientRect(), mx = event.clientX - box.left, my = event.clientY - box.top;
  let best = null, least = reach * reach;
  for (const item of all) {
    const distance = (item.at[0] - mx) ** 2 + (item.at[1] - my) ** 2;
    if (distance < least) { least = distance; best = item; }
  }
  return best;
}

// Stacked horizontal bars: rows = [{name, parts: [[colour, amount, text, opacity]], end}], all on one scale.
function stackedBars(node, width, rows, total, label) {
  const bar = 22, gap = 8, left = Math.min(150, 24 + 7.2 * Math.max(...rows.map((row) => row.name.length)));
  const right = 76, x = (value) => (value / total) * Math.max(40, width - left - right),
    height = rows.length * (bar + gap);
  const root = svg("svg", { width, height, role: "img", "aria-label": label });
  rows.forEach((row, k) => {
    const y = k * (bar + gap) + gap / 2;
    let from = 0;
    root.append(svg("text", { x: left - 10, y: y + 15, "text-anchor": "end" }, shortened(row.name, 18)));
    for (const [colour, amount, text, opacity = 1] of row.parts) {
      if (!(amount > 0)) continue;
      root.append(svg("rect", { x: left + x(from), y, width: Math.max(0.4, x(amount)), height: bar,
        style: { fill: colour, opacity: String(opacity) }, class: "part", on: {
          mousemove: (event) => showTooltip(row.name, text, event.clientX, event.clientY),
            mouseleave: hideTooltip } }));
      from += amount;
    }
    root.append(svg("text", { class: "soft", x: left + x(from) + 6, y: y + 15 }, row.end));
  });
  node.replaceChildren(root);
}
const shortened = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
