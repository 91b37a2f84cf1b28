// A map as the server sends it, and the groups that its points are coloured by. Knows arrays; draws nothing.

import { numbers } from "./api.js";
import { t } from "./texts.js";

// Told apart by most people who see few colours (Okabe and Ito, https://jfly.uni-koeln.de/color/), then others that can
// be seen on white and on black. Names beside them say the same.
const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#a39300", "#8f6bc1", "#a0674f", "#808080", "#7fae2c", "#e0434f"];
const GROUPS_MAX = 24; // with names; the rest are one group
const ONE = 65535; // what the server sends for 1

// What the page needs of a map: `x`, `y` and `n`, the clusters, and `idOf(place)`; of lines `textOf(place)` too.
export function readMap(found, lines = null) {
  const flat = numbers(found.points, Uint16Array);
  const x = Float32Array.from({ length: found.n }, (_, i) => flat[2 * i] / ONE);
  const y = Float32Array.from({ length: found.n }, (_, i) => flat[2 * i + 1] / ONE);
  const data = { n: found.n, all: found.all ?? found.n, x, y, labels: numbers(found.labels, Uint16Array), clusters: found.clusters, noClusters: found.no_clusters };
  if (lines) return { ...data, files: null, idOf: (i) => t("line", { line: String(i + 1) }), textOf: (i) => lines[i] };
  const fileOf = numbers(found.file_of, Int32Array);
  const parts = numbers(found.numbers, Int32Array);
  let n_own = 0;
  const ids = Array.from({ length: found.n }, (_, i) => (fileOf[i] < 0 ? found.ids[n_own++] : `${found.files[fileOf[i]]}#${parts[i]}`));
  return { ...data, files: found.files, fileOf, idOf: (i) => ids[i], placeOf: new Map(ids.map((id, i) => [id, i])) };
}

// The group of each point, and of each group its name, its most central text, its colour and its middle.
export function grouped(data, colour) {
  const { group, names, central } = colour === "cluster" ? byCluster(data) : byFolder(data);
  const groups = names.map((name, i) => ({ name, central: central?.[i], colour: COLOURS[i % COLOURS.length], n: 0, x: 0, y: 0, xs: [], ys: [] }));
  for (let i = 0; i < data.n; i++) {
    const each = groups[group[i]];
    each.n += 1;
    each.xs.push(data.x[i]);
    each.ys.push(data.y[i]);
  }
  for (const each of groups) {
    [each.x, each.y] = [median(each.xs), median(each.ys)];
    delete each.xs;
    delete each.ys;
  }
  return { group, groups };
}

function byCluster({ labels, clusters }) {
  const names = clusters.map(({ words, text }) => words.join(", ") || text.slice(0, 30));
  return { group: labels, names, central: clusters.map(({ text }) => text) };
}

// The folder of each file below the folder that all of them share; folders of few passages are one group.
function byFolder({ n, files, fileOf }) {
  if (!files?.length) return { group: new Uint16Array(n), names: [t("map_none")] };
  const split = files.map((file) => file.split(/[/\\]/).slice(0, -1));
  let shared = 0;
  while (split[0].length > shared && split.every((parts) => parts[shared] === split[0][shared])) shared += 1;
  const folders = split.map((parts) => parts.slice(shared).join("/") || t("map_top"));
  const counts = new Map();
  const nameOf = (i) => (fileOf[i] < 0 ? t("map_none") : folders[fileOf[i]]);
  for (let i = 0; i < n; i++) counts.set(nameOf(i), (counts.get(nameOf(i)) ?? 0) + 1);
  const sorted = [...counts].sort((a, b) => b[1] - a[1]).map(([name]) => name);
  const names = sorted.length > GROUPS_MAX ? [...sorted.slice(0, GROUPS_MAX - 1), t("map_other")] : sorted;
  const placeOf = new Map(sorted.map((name, i) => [name, Math.min(i, names.length - 1)]));
  return { group: Uint16Array.from({ length: n }, (_, i) => placeOf.get(nameOf(i))), names };
}

function median(values) {
  const sorted = Float32Array.from(values).sort();
  return sorted.length ? sorted[sorted.length >> 1] : 0;
}
