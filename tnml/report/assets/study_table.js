let sorted = { column: 0, down: false };
function drawTable(c) {
  const place = c ? c.bonds.indexOf(state.bond) : -1, chosen = new Set(place < 0 ? [] : c.runs[place]);
  const table = el("table"), word = D.columns.map((_, j) => D.rows.some((r) => typeof r[j] === "string"));
  const order = D.rows.map((_, i) => i).sort((a, b) => {
    const [p, q] = [D.rows[a][sorted.column], D.rows[b][sorted.column]];
    if (p === null || q === null) return (p === null) - (q === null) || a - b;  // empty cells last
    const by = typeof p === "number" && typeof q === "number" ? p - q : String(p).localeCompare(String(q));
    return (sorted.down ? -by : by) || a - b;
  });
  table.replaceChildren();
  const head = make("tr", undefined, make("thead", undefined, table));
  D.columns.forEach((name, j) => {
    const cell = make("th", undefined, head), mark = sorted.column === j ? (sorted.down ? " ▼" : " ▲") : "";
    if (word[j]) cell.className = "word";
    make("button", spaced(name) + mark, cell).onclick = () => {
      sorted = { column: j, down: sorted.column === j && !sorted.down };
      drawTable(current());
    };
  });
  const body = make("tbody", undefined, table);
  for (const i of order) {
    const line = make("tr", undefined, body);
    if (chosen.has(i)) line.className = "chosen";
    D.rows[i].forEach((value, j) => {
      const cell = make("td", show(value), line);
      if (word[j]) cell.className = "word";
      if (typeof value === "number") cell.title = String(value);
    });
  }
}
function drawAll() {
  const c = current();
  for (const [i, box] of document.querySelectorAll("#controls select[data-key]").entries())
    box.value = String(state.at[Number(box.dataset.key)]);
  for (const id of ["error", "gap", "curves", "extra"]) el("part-" + id).hidden = !c;
  el("none").hidden = Boolean(c) || !D.curves.length;
  if (c) {
    if (!c.bonds.includes(state.bond)) state.bond = c.best;
    drawError(c); drawGap(c); drawCurves(c); drawExtra(c);
  }
  drawHeat("n_train"); drawHeat("noise"); drawTable(c);
}
function start() {
  for (const id of ["title", "about", "facts", "commands", "settings"]) el(id).textContent = D[id];
  el("warning").textContent = D.warning;
  el("warning").hidden = !D.warning;
  const bar = el("controls");
  D.keys.forEach((key, i) => {
    if (key.values.length < 2) return;
    const box = make("select", undefined, make("label", key.label + " ", bar));
    box.dataset.key = i;
    key.values.forEach((value, j) => box.add(new Option(show(value) || "none", String(j))));
    box.onchange = () => { state.at[i] = Number(box.value); drawAll(); };
  });
  make("span", "No run has these values together; choose others.", bar).id = "none";
  bar.hidden = !bar.querySelector("select");
  const label = make("label", "Show ");
  el("curves-note").after(label);
  const chooser = make("select", undefined, label);
  chooser.id = "measure";
  chooser.onchange = () => { state.measure = chooser.value; drawAll(); };
  if (D.curves.length) state.at = D.curves[0].at.slice();
  if (D.failed.length) {
    make("p", "Runs that failed, and why:", el("failed")).className = "note";
    make("pre", D.failed.map((f) => f.join("  ")).join("\n"), el("failed"));
  }
  drawAll();
  document.body.dataset.ready = "yes";
}
start();
