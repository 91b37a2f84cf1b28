// Points on a canvas: drawing, moving, zooming, and which point or points are meant. Knows pixels, not what points are.

const RADIUS_MAX = 7; // of few points; many are smaller
const EDGED = 3; // pixels: around smaller discs an edge would hide them
const NEAR = 14; // pixels from a point within which it is meant
const MANY = 4000; // points from which on squares of pixels are drawn, which are quicker than discs
const CELLS = 64; // of the grid that finds the nearest point, along each side
const ZOOM_MAX = 200;
const MARGIN = 28;

// A colour such as #0072b2 as a pixel of a picture: its bytes are red, green, blue and alpha.
function inkOf(colour, alpha) {
  const bytes = [1, 3, 5].map((at) => Number.parseInt(colour.slice(at, at + 2), 16));
  return new Uint32Array(Uint8Array.of(...bytes, Math.round(255 * alpha)).buffer)[0];
}

// Draws into a canvas and calls `hover(place or -1, x, y)`, `pick(place)` and `lassoed(places)`.
export function plane(canvas, { hover, pick, lassoed }) {
  const context = canvas.getContext("2d");
  const pointers = new Map();
  const view = { scale: 1, left: 0, top: 0 };
  let points = null; // { x, y, group, n }, both coordinates from 0 to 1
  let groups = []; // { colour, name, x, y, n }
  let byGroup = new Int32Array(0);
  let grid = null;
  let lit = null; // of each point whether it stands out; null: all alike
  let line = null; // of the lasso
  let isLasso = false;
  let travelled = 0;
  let frame = 0;
  let picture = null; // of many points

  const later = () => (frame ||= requestAnimationFrame(draw));

  function fit() {
    const { clientWidth: width, clientHeight: height } = canvas;
    let [right, top] = [0.001, 0.001];
    for (let i = 0; i < points.n; i++) {
      right = Math.max(right, points.x[i]);
      top = Math.max(top, points.y[i]);
    }
    view.scale = Math.min((width - 2 * MARGIN) / right, (height - 2 * MARGIN) / top);
    view.left = (width - right * view.scale) / 2;
    view.top = (height - top * view.scale) / 2 + top * view.scale;
    view.least = view.scale;
    later();
  }

  const across = (x) => view.left + x * view.scale;
  const down = (y) => view.top - y * view.scale;

  function draw() {
    frame = 0;
    const ratio = devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = canvas;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!points) return;
    const style = getComputedStyle(canvas);
    const zoomed = Math.min(2, Math.sqrt(view.scale / view.least));
    const radius = Math.max(1.2, Math.min(RADIUS_MAX, 100 / Math.sqrt(points.n))) * zoomed;
    const all = () => true;
    const [isDrawn, size] = lit ? [(i) => lit[i], radius * 1.25] : [all, radius];
    if (points.n > MANY) {
      if (picture?.width !== canvas.width || picture.height !== canvas.height) picture = context.createImageData(canvas.width, canvas.height);
      else picture.data.fill(0);
      if (lit) squares(all, radius, 0.16, ratio);
      squares(isDrawn, size, 0.75, ratio);
      context.putImageData(picture, 0, 0);
    } else {
      if (lit) {
        context.globalAlpha = 0.16;
        dots(all, radius, null, width, height);
      }
      context.globalAlpha = 0.88;
      dots(isDrawn, size, lit && style.getPropertyValue("--card"), width, height);
      context.globalAlpha = 1;
    }
    names(style, width, height);
    if (line) {
      context.beginPath();
      line.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.setLineDash([5, 4]);
      context.lineWidth = 1.5;
      context.strokeStyle = style.getPropertyValue("--accent");
      context.stroke();
      context.setLineDash([]);
    }
  }

  // Many points as squares of pixels, written into the picture itself: a path of 20,000 takes the browser far longer.
  function squares(isDrawn, radius, alpha, ratio) {
    const { width, height } = picture;
    const pixels = new Uint32Array(picture.data.buffer);
    const side = Math.max(1, Math.round(2 * radius * ratio));
    const inks = groups.map(({ colour }) => inkOf(colour, alpha));
    for (const i of byGroup) {
      if (!isDrawn(i)) continue;
      const left = Math.round(across(points.x[i]) * ratio - side / 2);
      const top = Math.round(down(points.y[i]) * ratio - side / 2);
      const [from, to] = [Math.max(0, left), Math.min(width, left + side)];
      const ink = inks[points.group[i]];
      for (let row = Math.max(0, top); row < Math.min(height, top + side); row++) pixels.fill(ink, row * width + from, row * width + Math.max(from, to));
    }
  }

  // The points of each colour in one path.
  function dots(isDrawn, radius, edge, width, height) {
    for (let at = 0; at < byGroup.length; ) {
      const { colour } = groups[points.group[byGroup[at]]];
      context.fillStyle = colour;
      context.beginPath();
      for (; at < byGroup.length && groups[points.group[byGroup[at]]].colour === colour; at++) {
        const i = byGroup[at];
        if (!isDrawn(i)) continue;
        const x = across(points.x[i]);
        const y = down(points.y[i]);
        if (x < -radius || y < -radius || x > width + radius || y > height + radius) continue;
        context.moveTo(x + radius, y);
        context.arc(x, y, radius, 0, 7);
      }
      context.fill();
      if (edge && radius > EDGED) {
        context.lineWidth = 1;
        context.strokeStyle = edge;
        context.stroke();
      }
    }
  }

  // The names of groups where their points lie, the largest first; one that would cover another is left out.
  function names(style, width, height) {
    const taken = [];
    context.font = `600 13px ${style.fontFamily}`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (const group of [...groups].sort((a, b) => b.n - a.n)) {
      if (!group.name || !group.n) continue;
      const name = group.name.length > 34 ? `${group.name.slice(0, 33)}…` : group.name;
      const half = context.measureText(name).width / 2 + 4;
      const x = Math.max(half + 4, Math.min(width - half - 4, across(group.x)));
      const y = down(group.y) - 14;
      if (y < 10 || y > height - 10 || across(group.x) < 0 || across(group.x) > width) continue;
      if (taken.some((box) => Math.abs(box.x - x) < box.half + half && Math.abs(box.y - y) < 20)) continue;
      taken.push({ x, y, half });
      context.lineWidth = 4;
      context.lineJoin = "round";
      context.strokeStyle = style.getPropertyValue("--card");
      context.strokeText(name, x, y);
      context.fillStyle = style.getPropertyValue("--text");
      context.fillText(name, x, y);
    }
  }

  // The places of the points by the cell of the grid that they lie in.
  function gridOf({ x, y, n }) {
    const cell = (i) => Math.min(CELLS - 1, Math.floor(y[i] * CELLS)) * CELLS + Math.min(CELLS - 1, Math.floor(x[i] * CELLS));
    const starts = new Int32Array(CELLS * CELLS + 1);
    for (let i = 0; i < n; i++) starts[cell(i) + 1] += 1;
    for (let i = 0; i < CELLS * CELLS; i++) starts[i + 1] += starts[i];
    const next = starts.slice();
    const order = new Int32Array(n);
    for (let i = 0; i < n; i++) order[next[cell(i)]++] = i;
    return { starts, order };
  }

  function nearest(left, top) {
    if (!points) return -1;
    const reach = NEAR / view.scale;
    const x = (left - view.left) / view.scale;
    const y = (view.top - top) / view.scale;
    const column = (value) => Math.max(0, Math.min(CELLS - 1, Math.floor(value * CELLS)));
    let found = -1;
    let least = reach * reach;
    for (let row = column(y - reach); row <= column(y + reach); row++) {
      const from = grid.starts[row * CELLS + column(x - reach)];
      const to = grid.starts[row * CELLS + column(x + reach) + 1];
      for (let at = from; at < to; at++) {
        const i = grid.order[at];
        const distance = (points.x[i] - x) ** 2 + (points.y[i] - y) ** 2;
        if (distance < least && (!lit || lit[i])) [found, least] = [i, distance];
      }
    }
    return found;
  }

  function zoom(factor, left, top) {
    const scale = Math.max(view.least * 0.5, Math.min(view.least * ZOOM_MAX, view.scale * factor));
    const by = scale / view.scale;
    view.left = left - (left - view.left) * by;
    view.top = top - (top - view.top) * by;
    view.scale = scale;
    later();
  }

  function inside([...polygon]) {
    const found = [];
    for (let i = 0; i < points.n; i++) {
      const x = across(points.x[i]);
      const y = down(points.y[i]);
      let isIn = false;
      for (let a = 0, b = polygon.length - 1; a < polygon.length; b = a++) {
        const [ax, ay] = polygon[a];
        const [bx, by] = polygon[b];
        if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) isIn = !isIn;
      }
      if (isIn) found.push(i);
    }
    return found;
  }

  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, at(event));
    travelled = 0;
    if ((isLasso || event.shiftKey) && pointers.size === 1) line = [at(event)];
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = at(event);
    const before = pointers.get(event.pointerId);
    if (!before) return hover(nearest(x, y), x, y);
    travelled += Math.hypot(x - before[0], y - before[1]);
    if (line) line.push([x, y]);
    else if (pointers.size === 2) {
      const [[other]] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => [place]);
      const apart = (place) => Math.hypot(place[0] - other[0], place[1] - other[1]);
      zoom(apart([x, y]) / Math.max(1, apart(before)), (x + other[0]) / 2, (y + other[1]) / 2);
    } else {
      view.left += x - before[0];
      view.top += y - before[1];
    }
    pointers.set(event.pointerId, [x, y]);
    hover(-1, x, y);
    later();
  });
  const ended = (event) => {
    if (!pointers.delete(event.pointerId) || !points) return;
    const [x, y] = at(event);
    if (line && travelled > 20) lassoed(inside(line));
    else if (travelled < 5 && event.type === "pointerup") pick(nearest(x, y));
    line = null;
    later();
  };
  canvas.addEventListener("pointerup", ended);
  canvas.addEventListener("pointercancel", ended);
  canvas.addEventListener("pointerleave", () => hover(-1, 0, 0));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), ...at(event));
  }, { passive: false });

  const watching = new ResizeObserver(() => (points ? fit() : later()));
  watching.observe(canvas);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", later);

  return {
    show(given) {
      points = given;
      grid = gridOf(points);
      lit = null;
      fit();
    },
    // The group of each point, and what groups are like.
    paint(group, given) {
      points.group = group;
      groups = given;
      byGroup = Int32Array.from({ length: points.n }, (_, i) => i).sort((a, b) => group[a] - group[b]);
      later();
    },
    light(places) {
      lit = null;
      if (places) {
        lit = new Uint8Array(points.n);
        for (const place of places) lit[place] = 1;
      }
      later();
    },
    // Where a point is on the canvas.
    placeOf: (i) => [across(points.x[i]), down(points.y[i])],
    lasso: (isOn) => (isLasso = isOn),
    home: fit,
    move(x, y) {
      view.left += x;
      view.top += y;
      later();
    },
    zoom: (factor) => zoom(factor, canvas.clientWidth / 2, canvas.clientHeight / 2),
    close() {
      watching.disconnect();
      dark.removeEventListener("change", later);
      cancelAnimationFrame(frame);
    },
  };
}
