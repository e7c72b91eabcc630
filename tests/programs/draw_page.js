// Runs the scripts of a study's page without a browser: a document of empty boxes, and a Plotly that notes what it
// is asked to draw. Usage: node draw_page.js report.html; prints {"figures": {id: {title, lines}}, "hidden": [id]}.
"use strict";
const fs = require("node:fs");
const vm = require("node:vm");

const scripts = [...fs.readFileSync(process.argv[2], "utf8").matchAll(/<script[^>]*>([^]*?)<\/script>/g)];
const boxes = new Map();
class Box {
  constructor() { Object.assign(this, { children: [], dataset: {}, hidden: false, textContent: "" }); }
  set id(name) { boxes.set(name, this); this.name = name; }
  get id() { return this.name; }
  get parentElement() { return this.parent || new Box(); }
  appendChild(child) { child.parent = this; this.children.push(child); return child; }
  replaceChildren(...children) { this.children = children; }
  querySelector() { return null; }
  add(child) { this.appendChild(child); }
  after() {}
  on() {}
}
const find = (id) => {
  if (!boxes.has(id)) new Box().id = id;
  return boxes.get(id);
};
find("data").textContent = scripts[0][1];
const document = { getElementById: find, createElement: () => new Box(), querySelectorAll: () => [], body: new Box() };
const figures = {};
const Plotly = {
  react(box, traces, shape) {
    const lines = traces.filter((trace) => trace.customdata).map(({ name, y }) => ({ name, y }));
    figures[box.id] = { title: shape.yaxis.title.text, range: shape.yaxis.range, lines };
  },
  purge() {},
};
vm.runInNewContext(scripts[2][1], { document, Plotly, Option: Box });
const hidden = [...boxes].filter(([, box]) => box.hidden).map(([id]) => id);
process.stdout.write(JSON.stringify({ figures, hidden, ready: document.body.dataset.ready }));
