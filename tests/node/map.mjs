// Runs the script of a map's page on a screen without pixels, and prints what it drew: discs and texts with their boxes.
// node map.mjs PAGE.html WIDTH HEIGHT ZOOM
import { readFileSync } from "node:fs";
import vm from "node:vm";

const [page, width, height, zoom] = process.argv.slice(2);
const html = readFileSync(page, "utf-8");
const data = html.match(/<script type="application\/json" id="data">(.*?)<\/script>/s)[1];
const script = html.match(/<script>\n(.*?)<\/script>/s)[1];

let drawn = { discs: [], texts: [] };
const pen = {
  scale() {}, beginPath() {}, fill() {}, stroke() {},
  arc(x, y, radius) { drawn.discs.push({ x, y, radius, colour: this.fillStyle }); },
  measureText: text => ({ width: 7 * text.length }),
  fillText(text, x, y) { drawn.texts.push({ text, x, y, width: 7 * text.length, colour: this.fillStyle }); },
};
const classes = new Set();
const element = (box = { left: 0, top: 0, right: 0, bottom: 0 }) => ({
  style: {}, children: [], append(...more) { this.children.push(...more); }, setAttribute() {},
  getContext: () => pen, getBoundingClientRect: () => box, setPointerCapture() {},
  classList: { contains: name => classes.has(name), toggle: (name, on) => on ? classes.add(name) : classes.delete(name) },
});
const legend = element({ left: 8, top: 8, right: 200, bottom: 90 });
const named = { data: { textContent: data }, legend, buttons: element(), hover: element() };
const frames = [];
const sandbox = {
  document: {
    getElementById: id => named[id], querySelector: () => element(), createElement: () => element(),
    documentElement: element(),
  },
  innerWidth: +width, innerHeight: +height, devicePixelRatio: 1,
  requestAnimationFrame: paint => frames.push(paint), matchMedia: () => ({ matches: false }),
};
vm.createContext(sandbox);
vm.runInContext(script, sandbox);
const press = name => named.buttons.children.find(one => one.title === name).onclick();
if (zoom !== "1") sandbox.zoomBy(+zoom, width / 2, height / 2);
const paint = () => { drawn = { discs: [], texts: [] }; for (const one of frames.splice(0)) one(); return drawn; };
const light = paint();
press("light or dark");
const dark = paint();
press("show all");
console.log(JSON.stringify({ light, dark, all: paint(), legend: legend.children.map(one => one.children?.at(-1) ?? one) }));
