// What all parts share: the data, elements (text only ever becomes text), numbers with units, the tooltip, the choice.
const data = JSON.parse(document.getElementById("data").textContent);
const J_PER_PJ = 1e-12;
const byId = new Map(data.designs.map((design) => [design.id, design]));
const listeners = [];
const state = { selected: data.best };

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    else if (name === "style") for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const place = (id) => document.getElementById(id);
const there = (value) => value !== null && value !== undefined;

// Three significant digits without an exponent where that is readable.
function digits(value) {
  if (value === 0) return "0";
  const size = Math.abs(Number(Math.abs(value).toPrecision(3)));
  if (size < 1e-4 || size >= 1e15) return value.toExponential(2).replace("-", "−");
  const decimals = Math.max(0, 2 - Math.floor(Math.log10(size)));
  return whole(value, Math.min(decimals, 8));
}
const whole = (value, decimals = 0) =>
  value.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }).replace("-", "−");

const PREFIXES = [[1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"], [1e-12, "p"]];
const prefixOf = (value) => PREFIXES.find((pair) => Number(Math.abs(value).toPrecision(3)) >= pair[0]) || PREFIXES[7];
function si(value, unit) {
  if (!there(value)) return "–";
  if (value === 0) return `0 ${unit}`;
  const [factor, prefix] = prefixOf(value);
  return `${digits(value / factor)} ${prefix}${unit}`;
}
const percent = (share, decimals = 1) => (there(share) ? `${whole(100 * share, decimals)} %` : "–");
const points = (share, unit = " points") => (there(share) ? `${share > 0 ? "+" : ""}${whole(100 * share, 2)}${unit}`
  : "–");
const energy = (pj) => si(there(pj) ? pj * J_PER_PJ : pj, "J");
const edp = (pjS) => si(there(pjS) ? pjS * J_PER_PJ : pjS, "J·s");
const nameOf = (id) => (byId.has(id) ? byId.get(id).label || id
  : (data.origins.find((pair) => pair[0] === id) || [0, id])[1]);
const originText = (origin) => (data.origins.find((pair) => pair[0] === origin) || [0, origin])[1];
const valueText = (value) => (typeof value === "string" ? value
  : Number.isInteger(value) && Math.abs(value) >= 1e4 ? whole(value) : JSON.stringify(value));
// Names of axes without what all share; in a tooltip their last two parts.
const axisName = (name) => name.replace(/^accelerator\./, "");
const shortAxis = (name) => shortened(axisName(name).split(".").slice(-2).join("."), 44);
// Values of a design: those in which the designs differ first, and how many these are.
function valuesOf(design) {
  const texts = (name) => new Set(data.designs.map((one) => JSON.stringify(one.values[name])));
  const pairs = Object.entries(design.values), differ = pairs.filter(([name]) => texts(name).size > 1);
  return [...differ, ...pairs.filter((pair) => !differ.includes(pair))].map((pair, k) => [...pair, k < differ.length]);
}
// Long names may break after a dot or an underscore.
const breakable = (name) => name.split(/(?<=[._])/).map((part, k) => (k ? [el("wbr"), part] : part));

const KNOWN = ["codesign", "uniform8", "uniform6", "uniform4", "sequential", "m2vit_rule", "random"];
const SHAPES = ["circle", "square", "diamond", "up", "down", "plus", "cross", "star"];
const colourOf = (origin) => `var(--${KNOWN.includes(origin) ? origin : "other"})`;
const shapeOf = (origin) => SHAPES[KNOWN.includes(origin) ? KNOWN.indexOf(origin) : 7];

// Outline of a marker around (0, 0); all shapes have about the same area.
function markPath(shape, r) {
  const polygon = (list) => `M${list.map(([x, y]) => `${(x * r).toFixed(2)},${(y * r).toFixed(2)}`).join("L")}Z`;
  const arms = (a) => [[-a, -1.1], [a, -1.1], [a, -a], [1.1, -a], [1.1, a], [a, a], [a, 1.1], [-a, 1.1], [-a, a],
    [-1.1, a], [-1.1, -a], [-a, -a]];
  const turned = (list) => list.map(([x, y]) => [(x - y) * 0.7071, (x + y) * 0.7071]);
  switch (shape) {
    case "circle": return `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0Z`;
    case "square": return polygon([[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]]);
    case "diamond": return polygon([[0, -1.25], [1.25, 0], [0, 1.25], [-1.25, 0]]);
    case "up": return polygon([[0, -1.25], [1.15, 0.8], [-1.15, 0.8]]);
    case "down": return polygon([[0, 1.25], [1.15, -0.8], [-1.15, -0.8]]);
    case "plus": return polygon(arms(0.42));
    case "cross": return polygon(turned(arms(0.42)));
    default: {
      const list = [];
      for (let k = 0; k < 10; k += 1) {
        const size = k % 2 ? 0.55 : 1.3, angle = (Math.PI * k) / 5;
        list.push([size * Math.sin(angle), -size * Math.cos(angle)]);
      }
      return polygon(list);
    }
  }
}

const pairsOf = (rows) =>
  el("dl", { class: "pairs" }, rows.map(([name, text]) => [el("dt", {}, breakable(name)), el("dd", {}, text)]));

// The tooltip beside a point of the window, always inside it.
function showTooltip(title, rows, x, y) {
  const box = place("tooltip");
  box.replaceChildren(el("b", {}, title), pairsOf(rows));
  box.hidden = false;
  const { width, height } = box.getBoundingClientRect();
  const left = x + 16 + width > innerWidth - 8 ? x - width - 16 : x + 16;
  box.style.left = `${Math.max(8, left)}px`;
  box.style.top = `${Math.max(8, Math.min(y + 12, innerHeight - height - 8))}px`;
}
const dateText = (text) => text.replace("T", " ").replace(/(\+00:00|Z)$/, " UTC");
const hideTooltip = () => { place("tooltip").hidden = true; };

// A row of buttons of which one is chosen.
function choice(name, title, options, chosen, change) {
  return el("fieldset", { class: "switch", id: `switch-${name}` }, el("legend", {}, title),
    options.map(([value, text, enabled = true]) => el("label", {},
      el("input", { type: "radio", name, value, checked: value === chosen, disabled: !enabled,
        on: { change: () => change(value) } }), el("span", {}, text))));
}

function select(id) {
  state.selected = id;
  for (const listener of listeners) listener(id);
}

// Draw now and whenever the width of the place changes.
function onWidth(node, draw) {
  let last = 0;
  new ResizeObserver((entries) => {
    const width = Math.floor(entries[0].contentRect.width);
    if (width > 0 && width !== last) { last = width; draw(width); }
  }).observe(node);
  return () => { if (last) draw(last); };
}

// Colours with words; parts that do not occur are left out by the caller.
const legend = (items) => el("div", { class: "legend" }, items.map(([colour, text, opacity = 1, hatched = false]) =>
  el("span", {}, el("i", { class: hatched ? "hatch" : null,
    style: { "background-color": colour, opacity: String(opacity) } }), text)));
