"use strict";
const D = JSON.parse(document.getElementById("data").textContent);
const TRAIN = "#0072b2", TEST = "#d55e00", OTHER = "#00795c", INK = "#1d2430", GRID = "#e4e8ee";
const FONT = "system-ui, Liberation Sans, Helvetica Neue, Arial, sans-serif";
const state = { at: D.keys.map(() => 0), bond: 0, measure: null };
const el = (id) => document.getElementById(id);
const make = (tag, text, parent) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.appendChild(node);
  return node;
};
const show = (value) => {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return typeof value === "string" ? value : JSON.stringify(value);
  if (value === 0 || Number.isInteger(value) && Math.abs(value) < 1e7) return String(value);
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e5) return value.toExponential(1).replace("e+", "e");
  return String(Number(value.toPrecision(3)));
};
const spaced = (name) => name.replaceAll("_", " ");
const short = (n) => n < 1e4 ? String(n) : n < 1e6 ? Number((n / 1e3).toPrecision(3)) + "k" :
  Number((n / 1e6).toPrecision(3)) + "M";
const current = () => D.curves.find((c) => c.at.every((v, i) => v === state.at[i]));
const known = (spread) => (spread || []).flat().filter((v) => v !== null);
const shade = (hex) => "rgba(" + [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)).join(",") + ",0.18)";

function logTicks(low, high, few) {
  const from = Math.log10(low), to = Math.log10(high), span = to - from, found = [];
  const parts = span < 1.2 && !few ? [1, 2, 3, 5, 7] : span < 2.4 ? [1, 2, 5] : [1];
  const every = Math.max(1, Math.ceil(span / 8));
  for (let k = Math.floor(from); k <= Math.ceil(to); k++)
    if (k % every === 0) for (const p of parts) found.push(p * Math.pow(10, k));
  const inside = found.filter((v) => v >= low * 0.999 && v <= high * 1.001);
  const power = (v) => "10<sup>" + Math.round(Math.log10(v)) + "</sup>";
  const far = inside.some((v) => v < 1e-3 || v >= 1e5) && parts.length === 1;
  return { tickvals: inside, ticktext: inside.map((v) => far ? power(v) : show(Number(v.toPrecision(1)))) };
}
function axis(title, more) {
  return Object.assign({ title: { text: title, standoff: 10, font: { size: 16 } }, gridcolor: GRID,
    linecolor: "#7b8494", ticks: "outside", tickcolor: "#7b8494", showline: true, zeroline: false,
    fixedrange: true }, more);
}
function layout(more) {
  return Object.assign({ font: { family: FONT, size: 15, color: INK }, paper_bgcolor: "#fff",
    plot_bgcolor: "#fff", hovermode: "closest", dragmode: false, height: 460,
    margin: { l: 84, r: 24, t: 70, b: 120 }, hoverlabel: { font: { size: 14 } },
    legend: { orientation: "h", x: 0, xanchor: "left", y: -0.2, yanchor: "top" } }, more);
}
const CONFIG = { responsive: true, displaylogo: false, displayModeBar: "hover",
  modeBarButtons: [["toImage"]], toImageButtonOptions: { scale: 3 } };
function bondAxis(c) {
  const low = Math.log10(c.bonds[0]), high = Math.log10(c.bonds[c.bonds.length - 1]);
  const pad = Math.max(0.02 * (high - low), low === high ? 0.3 : 0.02);
  return { type: "log", range: [low - pad, high + pad], tickvals: c.ticks, ticktext: c.ticks.map(String) };
}
function countAxis(c) {
  const name = ["gauge_free_parameters", "n_parameters"].find((n) => c.counts[n]);
  if (!name) return null;
  const text = c.ticks.map((b) => c.counts[name][c.bonds.indexOf(b)]).map((n) => n === null ? "" : short(n));
  return axis(name === "n_parameters" ? "parameters" : "parameters, without the freedom of gauge",
    Object.assign(bondAxis(c), { ticktext: text, overlaying: "x", side: "top", showgrid: false }));
}
// Median and band of one column; `put` brings values onto the axis.
function spread(c, column, name, color, put, dash) {
  const [median, low, high] = c.spreads[column];
  const has = c.bonds.map((_, i) => i).filter((i) => median[i] !== null);
  const x = has.map((i) => c.bonds[i]);
  const band = has.some((i) => low[i] !== high[i]);
  const traces = [];
  if (band) traces.push({ x: x.concat(x.slice().reverse()), mode: "lines", fill: "toself",
    y: has.map((i) => put(high[i])).concat(has.map((i) => put(low[i])).reverse()),
    line: { width: 0 }, fillcolor: shade(color), hoverinfo: "skip", showlegend: false });
  traces.push({ x, y: has.map((i) => put(median[i])), name, mode: "lines+markers", customdata: has,
    line: { color, width: 2.5, dash: dash || "solid" },
    marker: { color, size: 9, line: { width: 1.5, color },
      symbol: has.map((i) => c.edge !== undefined && put(median[i]) > median[i] ? "triangle-down-open" :
        dash ? "square" : "circle") },
    text: has.map((i) => name + " <b>" + show(median[i]) + "</b>, seeds " + show(low[i]) + " to " +
      show(high[i]) + "<br>bond dimension " + c.bonds[i] + ", " + c.runs[i].length + " run" +
      (c.runs[i].length > 1 ? "s" : "")), hovertemplate: "%{text}<extra></extra>" });
  return traces;
}
function marks(c, y) {
  const inside = (b) => b >= c.bonds[0] * 0.99 && b <= c.bonds[c.bonds.length - 1] * 1.01;
  const line = (b, name, color, dash) => ({ x: [b, b], y, mode: "lines", name, hoverinfo: "skip",
    legendrank: 1100, line: { color, width: 2, dash } });
  const found = [];
  if (c.teacher !== null && inside(c.teacher))
    found.push(line(c.teacher, "bond dimension of the target: " + show(c.teacher), "#00795c", "dash"));
  for (const [name, at] of c.thresholds)
    if (inside(at)) found.push(line(at, name + " (at " + show(at) + ")", "#3b3b3b", "dot"));
  return found;
}
function draw(id, traces, shape, clicked) {
  const box = el(id);
  Plotly.react(box, traces, shape, CONFIG);
  if (clicked && !box.dataset.wired) {
    box.dataset.wired = "yes";
    box.on("plotly_click", (event) => clicked(event.points[0]));
  }
}
function pick(point) {
  if (point.customdata === undefined) return;
  state.bond = current().bonds[point.customdata];
  drawAll();
}
