function drawError(c) {
  el("reading").textContent = c.reading;
  el("part-error").hidden = !c.spreads.test_error && !c.spreads.train_error;
  if (el("part-error").hidden) return;
  const put = (v) => Math.max(v, c.edge);
  const drawn = known(c.spreads.train_error).concat(known(c.spreads.test_error));
  const range = [c.edge * 0.8, put(Math.max(...drawn)) * 1.6];
  const traces = marks(c, range);
  if (c.spreads.train_error) traces.push(...spread(c, "train_error", "train", TRAIN, put, "dot"));
  if (c.spreads.test_error) traces.push(...spread(c, "test_error", "test", TEST, put));
  const chosen = c.bonds.indexOf(state.bond), top = c.spreads.test_error || c.spreads.train_error;
  if (chosen >= 0 && top[0][chosen] !== null) traces.push({ x: [state.bond], y: [put(top[0][chosen])],
    mode: "markers", name: "runs shown below", hoverinfo: "skip",
    marker: { symbol: "circle-open", size: 20, color: INK, line: { width: 2 } } });
  const shape = layout({ xaxis: axis("bond dimension", bondAxis(c)), yaxis: axis(c.error, Object.assign(
    { type: "log", range: range.map(Math.log10) }, logTicks(range[0], range[1]))) });
  const counts = countAxis(c);
  if (counts) {
    shape.xaxis2 = counts;
    traces.push({ x: [c.bonds[0]], y: [range[0] / 10], xaxis: "x2", mode: "markers", hoverinfo: "skip",
      showlegend: false, marker: { opacity: 0 } });
  }
  draw("error", traces, shape, pick);
  const below = drawn.some((v) => v < c.edge);
  el("error-note").textContent = (c.note ? c.note + " " : "") + (below ? "Open triangles: smaller than " +
    show(c.edge) + ", where this figure ends; 0 has no place on its axis. " : "") +
    "A click on a point shows its runs.";
}
function drawGap(c) {
  el("part-gap").hidden = !c.spreads.gap;
  if (!c.spreads.gap) return;
  const put = (v) => Math.asinh(v / c.gap_scale);
  const drawn = known(c.spreads.gap).map(put).concat([0]);
  const low = Math.min(...drawn), high = Math.max(...drawn), pad = 0.06 * (high - low || 1), ticks = [0];
  const decades = Math.max(Math.abs(low), Math.abs(high)) / Math.log(10);
  const every = Math.max(1, Math.ceil(decades / 7));
  for (let k = 0; k < 40; k += every)
    for (const sign of [-1, 1]) ticks.push(sign * c.gap_scale * Math.pow(10, k));
  const inside = ticks.filter((v) => put(v) >= low - pad && put(v) <= high + pad).sort((a, b) => a - b);
  const plain = Object.assign({}, c, { edge: undefined });
  const traces = marks(c, [low - pad, high + pad]);
  traces.push(...spread(plain, "gap", "test less train error", "#5b3a8c", put));
  draw("gap", traces, layout({ height: 380, margin: { l: 84, r: 24, t: 20, b: 110 },
    legend: { orientation: "h", x: 0, y: -0.26, yanchor: "top" },
    xaxis: axis("bond dimension", bondAxis(c)), yaxis: axis("gap", { zeroline: true,
      zerolinecolor: "#7b8494", range: [low - pad, high + pad], tickvals: inside.map(put),
      ticktext: inside.map((v) => show(Number(v.toPrecision(1)))) }) }), pick);
}
function drawHeat(along) {
  const spot = D.keys.findIndex((k) => k.name === along);
  const map = D.heats[along].find((h) => h.at.every((v, i) => v === null || v === state.at[i]));
  el("part-heat-" + along).hidden = !map;
  if (!map) return;
  const flat = map.median.flat().filter((v) => v !== null && v > 0), edge = Math.min(...flat);
  const z = map.median.map((row) => row.map((v) => v === null ? null : Math.log10(Math.max(v, edge))));
  const text = map.median.map((row) => row.map(show));
  const ticks = logTicks(edge, Math.max(...flat), true), x = map.bonds.map(String);
  const y = map.values.map(show);
  const frames = map.median.map((row, j) => {
    const best = row.indexOf(Math.min(...row.filter((v) => v !== null)));
    return { type: "rect", x0: best - 0.47, x1: best + 0.47, y0: j - 0.46, y1: j + 0.46,
      line: { color: "#d55e00", width: 3 } };
  });
  const many = map.bonds.length > 14 || map.values.length > 16;
  const middle = (Math.log10(edge) + Math.log10(Math.max(...flat))) / 2;
  const at = z.flatMap((row, j) => row.map((v, i) => [v, i, j])).filter(([v]) => v !== null);
  const cells = { x: at.map(([, i]) => x[i]), y: at.map(([, , j]) => y[j]), mode: "text", hoverinfo: "skip",
    text: at.map(([, i, j]) => text[j][i]), showlegend: false,
    textfont: { size: 14, color: at.map(([v]) => v < middle ? "#fff" : "#000") } };
  draw("heat-" + along, [{ type: "heatmap", x, y, z, text, xgap: 2, ygap: 2,
    colorscale: "Cividis", hoverongaps: false,
    hovertemplate: "bond dimension %{x}, " + D.keys[spot].label + " %{y}: %{text}<extra></extra>",
    colorbar: Object.assign({ title: { text: "test error", side: "right" }, thickness: 16, outlinewidth: 0 },
      { tickvals: ticks.tickvals.map(Math.log10), ticktext: ticks.ticktext }) }, ...many ? [] : [cells]],
  layout({ height: 130 + 46 * map.values.length, margin: { l: 84, r: 20, t: 16, b: 64 }, shapes: frames,
    xaxis: axis("bond dimension", { type: "category", showgrid: false, showline: false, ticks: "" }),
    yaxis: axis(D.keys[spot].label, { type: "category", showgrid: false, showline: false, ticks: "" }) }),
  (point) => {
    const map = D.heats[along].find((h) => h.at.every((v, i) => v === null || v === state.at[i]));
    const [row, column] = point.pointIndex || point.pointNumber;
    state.at[spot] = map.choices[row];
    state.bond = map.bonds[column];
    drawAll();
    el("part-curves").scrollIntoView({ behavior: "smooth" });
  });
}
function measuresOf(runs) {
  const columns = runs.flatMap((run) => Object.keys(D.histories[run]));
  const names = new Set(columns.map((name) => name.replace(/^(train|test)_/, "")));
  for (const n of ["epoch", "sweep", "step"]) names.delete(n);
  return ["error", "loss"].filter((n) => names.delete(n)).concat([...names].sort());
}
function drawCurves(c) {
  const place = c.bonds.indexOf(state.bond), runs = place < 0 ? [] : c.runs[place];
  const measures = measuresOf(runs), chooser = el("measure");
  el("part-curves").hidden = !D.histories.some((h) => Object.keys(h).length);
  if (!measures.includes(state.measure)) state.measure = measures[0] || null;
  const option = (m) => new Option(spaced(m), m, false, m === state.measure);
  chooser.replaceChildren(...measures.map(option));
  chooser.parentElement.hidden = measures.length < 2;
  el("curves-note").textContent = "The " + (runs.length === 1 ? "run" : runs.length + " runs") +
    " of bond dimension " + state.bond + (runs.length === 1 ? "." : ", one line for each.") +
    (measures.length ? "" : " No history was kept.") +
    " A click on another point of the figure above shows its runs." + D.thinned;
  if (!measures.length) { Plotly.purge(el("curves")); el("curves").replaceChildren(); return; }
  const traces = [], seen = new Set(), values = [];
  let clock = "row of the history";
  for (const run of runs) {
    const h = D.histories[run], name = ["epoch", "sweep", "step"].find((n) => h[n]);
    clock = name || clock;
    const lines = [["train_" + state.measure, "train", TRAIN, "dot"],
      ["test_" + state.measure, "test", TEST, "solid"],
      [state.measure, spaced(state.measure), OTHER, "solid"]];
    for (const [column, label, color, dash] of lines) {
      if (!h[column]) continue;
      values.push(...h[column].filter((v) => v !== null));
      traces.push({ x: name ? h[name] : h[column].map((_, i) => i), y: h[column], opacity: 0.75,
        name: label, legendgroup: label, showlegend: !seen.has(label),
        mode: h[column].length > 1 ? "lines" : "markers",
        line: { color, width: 1.8, dash }, marker: { color, size: 8 },
        hovertemplate: label + " %{y:.3g}<br>" + clock + " %{x}<br>" + D.names[run] + "<extra></extra>" });
      seen.add(label);
    }
  }
  const error = state.measure === "error", positive = values.filter((v) => v > 0);
  const whole = positive.length === values.length || error && values.every((v) => v >= 0);
  const log = positive.length > 0 && whole;
  const low = error ? Math.max(c.edge, Math.min(...positive) / 1.3) : Math.min(...positive) / 1.3;
  const high = Math.max(...values) * 1.3;
  if (log) for (const t of traces) t.y = t.y.map((v) => v === null ? null : Math.max(v, low));
  const name = error ? c.error : spaced(state.measure);
  draw("curves", traces, layout({ height: 380, margin: { l: 84, r: 24, t: 12, b: 100 }, xaxis: axis(clock),
    yaxis: axis(name, log ? Object.assign({ type: "log", range: [low / 1.1, high].map(Math.log10) },
      logTicks(low, high)) : {}), legend: { orientation: "h", x: 0, y: -0.24, yanchor: "top" } }));
}
function drawExtra(c) {
  const figures = D.extra.map((f) => ({ ...f, lines: f.lines.filter(([column]) => c.spreads[column]) }))
    .filter((f) => f.lines.length);
  el("part-extra").hidden = !figures.length;
  el("extra").replaceChildren();
  for (const { name, title, lines } of figures) {
    const box = make("div", undefined, el("extra"));
    box.id = "extra-" + name;
    box.className = "plot";
    const all = lines.flatMap(([column]) => known(c.spreads[column]));
    const low = Math.min(...all), high = Math.max(...all), top = high > 0 ? high * 1.08 : low < 0 ? 0 : 1;
    const log = low > 0 && high / low > 20, plain = Object.assign({}, c, { edge: undefined });
    const range = log ? [low / 1.4, high * 1.4] : [Math.min(0, low * 1.1), top];
    const traces = marks(c, range);
    for (const [column, label] of lines) {
      const color = { train: TRAIN, test: TEST }[label] || OTHER;
      traces.push(...spread(plain, column, label, color, (v) => v, label === "train" ? "dot" : undefined));
    }
    draw(box.id, traces, layout({ height: 360,
      margin: { l: 84, r: 24, t: 20, b: 110 }, legend: { orientation: "h", x: 0, y: -0.28, yanchor: "top" },
      xaxis: axis("bond dimension", bondAxis(c)), yaxis: axis(title, log ? Object.assign({ type: "log",
        range: range.map(Math.log10) }, logTicks(range[0], range[1])) : { range }) }), pick);
  }
}
