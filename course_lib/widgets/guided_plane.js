// GuidedPlane: particles that follow a guided score, and the density that they do not follow.

import { throttledChanges } from "./parts/changes.js";
import { CLASS_COLOURS, PALETTE, rgb } from "./parts/colours.js";
import { traceContour } from "./parts/contour.js";
import { button, choice, row, slider } from "./parts/controls.js";
import { dotStamp } from "./parts/dots.js";
import { drag } from "./parts/drag.js";
import { handle } from "./parts/handle.js";
import { onKeys } from "./parts/keys.js";
import { logsAt, scoresOf } from "./parts/mixture.js";
import { standardNoise } from "./parts/noise.js";
import { hint, legend } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { arrow, clamp, groundedWords, panel, segment, words } from "./parts/panel.js";
import { pixelSheet } from "./parts/pixels.js";
import { clockOf, playerBar } from "./parts/player.js";
import STYLE from "./guided_plane.css" with { type: "css" };

// -------------------------------------------------------------------------------- the mathematics
// guided_plane.py has the same, and the formulas; its scores are in parts/mixture.js.

// One step of Heun's method for all places [x, y, x, y, ...] along dx/dσ = −σ · (guided score).
function heunStep(mixture, places, sigma, after, target, w) {
  const [here, there] = [sigma, after].map((level) => scoresOf(mixture, level, target));
  const next = new Float64Array(places.length);
  const h = after - sigma;
  for (let i = 0; i < places.length; i += 2) {
    const x = places[i];
    const y = places[i + 1];
    let at = here(x, y);
    const u = -sigma * (at[0] + w * (at[2] - at[0]));
    const v = -sigma * (at[1] + w * (at[3] - at[1]));
    at = there(x + h * u, y + h * v);
    next[i] = x + (h / 2) * (u - after * (at[0] + w * (at[2] - at[0])));
    next[i + 1] = y + (h / 2) * (v - after * (at[1] + w * (at[3] - at[1])));
  }
  return next;
}

// The cells of the plane, row by row from above, with both logs for a class.
function cellsOf(mixture, [x0, x1, y0, y1], grid, target) {
  const logs = { marginal: new Float64Array(grid * grid), classifier: new Float64Array(grid * grid) };
  const middle = (i, low, high) => low + ((high - low) * (i + 0.5)) / grid;
  for (let i = 0; i < grid * grid; i++) {
    const [x, y] = [middle(i % grid, x0, x1), middle(grid - 1 - Math.floor(i / grid), y0, y1)];
    [logs.marginal[i], logs.classifier[i]] = logsAt(mixture, x, y, target);
  }
  return { ...logs, middle, grid };
}

// The least of the largest values that add up to `share` of their `total`. They are put into drawers by
// size, and only those of the last drawer are sorted.
function leastOf(values, top, total, share) {
  const drawers = 512;
  const drawerOf = (value) => Math.floor((drawers * value) / top);
  const sums = new Float64Array(drawers + 1);
  for (let i = 0; i < values.length; i++) sums[drawerOf(values[i])] += values[i];
  let [held, last] = [0, drawers];
  while (last > 0 && held + sums[last] < share * total) held += sums[last--];
  const rising = values.filter((value) => drawerOf(value) === last).sort();
  let k = rising.length;
  while (held < share * total && k > 0) held += rising[--k];
  return rising[k];
}

// The true density p(x) p(y | x)^w on the cells, before it is divided by its sum: {values, top, mean}, and
// `edge`, the least in the smallest region that holds a share of it.
function tiltedOn({ marginal, classifier, middle, grid }, [x0, x1, y0, y1], w, region) {
  const values = new Float64Array(grid * grid);
  let [total, top] = [0, 0];
  const mean = [0, 0];
  for (let i = 0; i < values.length; i++) {
    const value = Math.exp(marginal[i] + w * classifier[i]);
    values[i] = value;
    total += value;
    top = Math.max(top, value);
    mean[0] += value * middle(i % grid, x0, x1);
    mean[1] += value * middle(grid - 1 - Math.floor(i / grid), y0, y1);
  }
  return { values, edge: leastOf(values, top, total, region), top, mean: mean.map((sum) => sum / total) };
}

// -------------------------------------------------------------------------------------- the state

function stateOf(model) {
  const [means, stds, weights, classes, names, sigmas, size, extent, n, grid, region] = ["means", "stds", "weights",
    "classes", "names", "sigmas", "size", "extent", "n_particles", "grid", "region"].map((name) => model.get(name));
  const mixture = { means, stds, weights, classes };
  const clock = clockOf(model);
  const { change, send } = throttledChanges(model);
  const target = () => names.indexOf(model.get("target"));
  const scale = (sigma) => size / Math.sqrt(size * size + sigma * sigma); // to drawn coordinates
  const last = sigmas.length - 1;

  // The way of the particles, until something that counts for it is changed.
  let noise = { seed: null };
  let known = { facts: "" };
  const way = () => {
    const [w, seed] = [model.get("w"), model.get("seed")];
    const facts = [w, target(), seed].join();
    if (known.facts === facts) return known.way;
    if (noise.seed !== seed) noise = { seed, eps: standardNoise(seed, 2 * n) };
    const states = [Float64Array.from(noise.eps, (eps) => sigmas[0] * eps)];
    for (let k = 0; k < last; k++) states.push(heunStep(mixture, states[k], sigmas[k], sigmas[k + 1], target(), w));
    known = { facts, way: states };
    return states;
  };
  // The true density of this w; its logs are made once for a class.
  const logs = new Map();
  let dense = { facts: "" };
  const truth = () => {
    const [w, own] = [model.get("w"), target()];
    const facts = [w, own].join();
    if (dense.facts === facts) return dense.found;
    if (!logs.has(own)) logs.set(own, cellsOf(mixture, extent, grid, own));
    dense = { facts, found: tiltedOn(logs.get(own), extent, w, region) };
    return dense.found;
  };
  // What is compared: how many of the ends lie in the region, and how far their mean is from the true one.
  const compare = () => {
    const [ends, { edge, mean }, w, own] = [way()[last], truth(), model.get("w"), target()];
    let [within, x, y] = [0, 0, 0];
    for (let i = 0; i < ends.length; i += 2) {
      const [marginal, classifier] = logsAt(mixture, ends[i], ends[i + 1], own);
      if (Math.exp(marginal + w * classifier) >= edge) within += 1;
      x += ends[i] / n;
      y += ends[i + 1] / n;
    }
    return { inside: within / n, apart: Math.hypot(x - mean[0], y - mean[1]) };
  };
  // The noise level now, and the particles in drawn coordinates.
  const sigmaAt = (step) => {
    const k = clamp(Math.floor(step), 0, last - 1);
    return sigmas[k] * (sigmas[k + 1] / sigmas[k]) ** (step - k);
  };
  const particles = (step) => {
    const k = clamp(Math.floor(step), 0, last - 1);
    const [here, there, share] = [way()[k], way()[k + 1], step - k];
    const [near, far] = [(1 - share) * scale(sigmas[k]), share * scale(sigmas[k + 1])];
    return here.map((x, i) => near * x + far * there[i]);
  };
  // How a drawn particle moves under each score, for a step of −log σ: {unconditional, conditional, guided}.
  const motionsAt = (sigma) => {
    const [shrink, scores, w] = [scale(sigma), scoresOf(mixture, sigma, target()), model.get("w")];
    const [pull, back] = [shrink * sigma * sigma, (sigma * sigma) / (size * size + sigma * sigma)];
    return (x, y) => {
      const [u0, v0, u1, v1] = scores(x / shrink, y / shrink);
      const moved = (u, v) => [pull * u + back * x, pull * v + back * y];
      return {
        unconditional: moved(u0, v0), conditional: moved(u1, v1), guided: moved(u0 + w * (u1 - u0), v0 + w * (v1 - v0))
      };
    };
  };
  const moveTo = (x, y) => change({ place: [clamp(x, extent[0], extent[1]), clamp(y, extent[2], extent[3])] });
  return {
    mixture, names, size, extent, grid, clock, last, target, scale, way, truth, compare, sigmaAt, particles, motionsAt,
    moveTo, change, send
  };
}

// ------------------------------------------------------------------------------------ the picture

// The particles, and beside them or, where there is no room, below them the true density.
function stands(width) {
  const beside = width >= 560;
  const half = beside ? (width - 14) / 2 : width;
  const side = Math.floor(Math.min(half - 38, 400));
  const plane = { x: 30, y: 24, width: side, height: side };
  const true_ = beside ? { ...plane, x: half + 14 + 30 } : { ...plane, y: side + 24 + 54 };
  return { plane, truth: true_, total: true_.y + side + 24 };
}

const headOf = (ctx, text, { x, y, width }, theme) =>
  words(ctx, text, x, y - 12, theme.ink, `600 12px ${theme.font}`, "left", "middle", width);

const inkOf = (which, theme) => ({ unconditional: theme.muted, conditional: theme.words.latent, guided: theme.words.model })[which];

// The Gaussians as discs of two standard deviations, with the names of their classes where there is room.
function drawClasses(ctx, { mixture: { means, stds, classes }, names, scale }, colours, sigma, map, box, theme) {
  const shades = CLASS_COLOURS[theme.dark ? "dark" : "light"];
  const colour = (k) => shades[colours[classes[k]]];
  const shrink = scale(sigma);
  const unit = shrink * (map.x(1) - map.x(0));
  const spots = means.map(([x, y]) => [map.x(shrink * x), map.y(shrink * y)]);
  ctx.globalAlpha = Math.min(0.2, 0.5 / means.length);
  spots.forEach(([x, y], k) => {
    ctx.beginPath();
    ctx.arc(x, y, 2 * unit * Math.hypot(stds[k], sigma), 0, 2 * Math.PI);
    ctx.fillStyle = colour(k);
    ctx.fill();
  });
  ctx.globalAlpha = 1;
  const crowded = (x, y, k) => spots.slice(0, k).some(([otherX, otherY]) => Math.hypot(x - otherX, y - otherY) < 18);
  if (spots.some(([x, y], k) => crowded(x, y, k))) return;
  spots.forEach(([x, y], k) =>
    groundedWords(ctx, names[classes[k]], x, y, colour(k), `600 12px ${theme.font}`, theme, { box }));
}

const ARROWS = 15; // in each direction

// Arrows of one score all over the plane; long ones are drawn shorter than they are.
function drawField(ctx, { extent: [x0, x1, y0, y1], size }, motions, which, map, box, theme) {
  const cell = box.width / ARROWS;
  ctx.beginPath();
  for (let i = 0; i < ARROWS * ARROWS; i++) {
    const [x, y] = [x0 + ((x1 - x0) * ((i % ARROWS) + 0.5)) / ARROWS, y0 + ((y1 - y0) * (Math.floor(i / ARROWS) + 0.5)) / ARROWS];
    const [u, v] = motions(x, y)[which];
    const length = Math.hypot(u, v);
    if (!length) continue;
    const long = (0.95 * cell * length) / (length + 0.4 * size);
    const [ux, uy] = [u / length, -v / length];
    const [tipX, tipY] = [map.x(x) + (long / 2) * ux, map.y(y) + (long / 2) * uy];
    const head = Math.min(5, 0.5 * long);
    segment(ctx, tipX - long * ux, tipY - long * uy, tipX, tipY);
    segment(ctx, tipX - head * (ux + 0.6 * uy), tipY - head * (uy - 0.6 * ux), tipX, tipY);
    ctx.lineTo(tipX - head * (ux - 0.6 * uy), tipY - head * (uy + 0.6 * ux));
  }
  ctx.lineWidth = 1.3;
  ctx.lineJoin = ctx.lineCap = "round";
  ctx.strokeStyle = inkOf(which, theme);
  ctx.stroke();
}

// All three at the place, and the straight line on which their tips lie.
function drawThree(ctx, motions, [x, y], map, theme) {
  const three = motions(x, y);
  const tip = ([u, v]) => [map.x(x + 0.6 * u), map.y(y + 0.6 * v)];
  ctx.strokeStyle = theme.ink;
  ctx.lineWidth = 1;
  ctx.setLineDash([3, 3]);
  ctx.beginPath();
  segment(ctx, ...tip(three.unconditional), ...tip(three.guided));
  segment(ctx, ...tip(three.unconditional), ...tip(three.conditional));
  ctx.stroke();
  ctx.setLineDash([]);
  for (const [which, line] of [["guided", 3.4], ["unconditional", 2.2], ["conditional", 2.2]]) {
    arrow(ctx, [map.x(x), map.y(y)], tip(three[which]), inkOf(which, theme), theme, { line, most: 10 });
  }
}

// The true density, the darker the denser, and the rim of its region.
function densityPainter({ grid, truth }) {
  const sheet = pixelSheet(grid, grid);
  const [r, g, b] = rgb(PALETTE.data);
  return (ctx, box, theme) => {
    const { values, edge, top } = truth();
    const colour = (b << 16) | (g << 8) | r;
    for (let i = 0; i < values.length; i++) sheet.words[i] = (Math.round(200 * Math.sqrt(values[i] / top)) << 24) | colour;
    sheet.put();
    ctx.imageSmoothingEnabled = true;
    ctx.drawImage(sheet.canvas, box.x, box.y, box.width, box.height);
    const cell = box.width / grid;
    ctx.beginPath();
    traceContour(ctx, values, grid, edge, (row, column) => [box.x + (column + 0.5) * cell, box.y + (row + 0.5) * cell]);
    ctx.lineWidth = 1.6;
    ctx.strokeStyle = theme.words.data;
    ctx.stroke();
  };
}

// Returns `draw(ctx, boxes, size, theme)`, which gives back the map of the left plane.
function painterOf(state, model) {
  const { extent, clock, names, target, last, way, motionsAt, particles, sigmaAt } = state;
  const drawDensity = densityPainter(state);
  const colours = model.get("colours");
  let [dots, dotsFor] = [null, ""];
  const stampAll = (ctx, places, map, box) => {
    dots.clear(box.width, box.height);
    for (let i = 0; i < places.length; i += 2) dots.stamp(map.x(places[i]) - box.x, map.y(places[i + 1]) - box.y, 0);
    dots.draw(ctx, box);
  };
  return (ctx, boxes, { ratio }, theme) => {
    const facts = `${ratio} ${theme.dark}`;
    if (dotsFor !== facts) [dots, dotsFor] = [dotStamp([PALETTE.model], 2.3, ratio, theme.rim), facts];
    const [step, which] = [clock.shown(), model.get("arrows")];
    const sigma = sigmaAt(step);
    const motions = motionsAt(sigma);
    const map = panel(ctx, extent, boxes.plane, theme, (own) => {
      drawClasses(ctx, state, colours, sigma, own, boxes.plane, theme);
      if (which !== "none") drawField(ctx, state, motions, which, own, boxes.plane, theme);
      stampAll(ctx, particles(step), own, boxes.plane);
      drawThree(ctx, motions, model.get("place"), own, theme);
    });
    headOf(ctx, `guided particles at \u03c3 = ${sigma.toPrecision(2)}`, boxes.plane, theme);
    panel(ctx, extent, boxes.truth, theme, (own) => {
      drawDensity(ctx, boxes.truth, theme);
      stampAll(ctx, way()[last], own, boxes.truth);
    });
    headOf(ctx, `their ends, and p(x) p(${names[target()]} | x)^w`, boxes.truth, theme);
    return map;
  };
}

const arrowSign = (colour, width) =>
  `<path d="M1 7h14M15 3l6 4-6 4z" stroke="${colour}" fill="${colour}" stroke-width="${width}"/>`;
const KEY = [
  [arrowSign("var(--cw-muted)", 2), "unconditional"],
  [arrowSign("var(--cw-latent-words)", 2), "conditional"],
  [arrowSign("var(--cw-model-words)", 3), "guided"],
  [`<circle cx="11" cy="7" r="3" fill="${PALETTE.model}"/>`, "particles"],
  [`<rect x="3" y="2" width="16" height="10" fill="${PALETTE.data}" opacity="0.5" stroke="${PALETTE.data}"/>`, "true density"]
];

const percent = (share) => `${Math.round(100 * share)} %`;

function sentenceOf({ compare }, w, region) {
  const { inside, apart } = compare();
  return `w = ${w.toFixed(1)}: ${percent(region)} of the true density and ${percent(inside)} of the particles\u2019 ends lie ` +
    `inside the line; their means are ${apart.toFixed(2)} apart.`;
}

// -------------------------------------------------------------------------------------- the widget

const written = (value) => value.toFixed(2).replace("-", "\u2212");

function render({ model, el }) {
  const state = stateOf(model);
  const { extent, clock, names, moveTo, change, send } = state;
  const paint = painterOf(state, model);
  const said = element("p", { class: "cw-status guided-said", role: "status" });
  let [at, map] = [null, null]; // as last laid out, as last drawn

  const draw = (ctx, size, theme) => {
    map = paint(ctx, at, size, theme);
    const [x, y] = model.get("place");
    grip.stand(map.x(x), map.y(y), x, `(${written(x)}, ${written(y)})`);
  };
  const layout = (width) => {
    at = stands(width);
    return at.total;
  };
  const view = outline({ model, el, layout, draw, maxWidth: 800, style: STYLE, name: "guided-plane" });
  view.stage.after(said);

  const grip = handle(view, "Place of the three arrows", {
    shape: "round guided-place", range: extent.slice(0, 2), end: send,
    start: ([x, y]) => {
      const place = model.get("place");
      const [left, top] = [map.x(place[0]) - x, map.y(place[1]) - y];
      return ([toX, toY]) => moveTo(...map.toPlane(toX + left, toY + top));
    }
  });
  const over = ([x, y]) => x >= at.plane.x && x <= at.plane.x + at.plane.width && y >= at.plane.y && y <= at.plane.y + at.plane.height;
  drag(view.canvas, {
    focus: () => grip.node, end: send,
    start: (place) => {
      if (!over(place)) return null;
      const move = (to) => moveTo(...map.toPlane(...to));
      move(place);
      return move;
    },
    hover: (place) => (view.canvas.style.cursor = over(place) ? "crosshair" : "")
  });
  const nudge = (right, up) => (event) => {
    const by = ((extent[1] - extent[0]) * (event.shiftKey ? 1 : 5)) / 250;
    const [x, y] = model.get("place");
    moveTo(x + by * right, y + by * up);
  };
  onKeys(view, {
    ArrowLeft: nudge(-1, 0), ArrowRight: nudge(1, 0), ArrowUp: nudge(0, 1), ArrowDown: nudge(0, -1)
  }, grip.node);

  playerBar(view, model);
  view.controls.before(
    row(slider(view, "w", "guidance w", {
      max: model.get("most_w"), step: 0.1, text: (w) => w.toFixed(1), change,
      title: "The scale of guidance: 0 is the marginal, 1 the conditional"
    })),
    row(
      choice(view, "target", "class", names.map((name) => [name, name, `Towards class ${name}`])),
      choice(view, "arrows", "arrows", ["unconditional", "conditional", "guided", "none"].map((which) => [which, which])),
      button("New noise", () => {
        change({ seed: (model.get("seed") + 1) % 2 ** 32 });
        send();
      })));
  view.controls.after(
    legend(KEY), hint(
      "Move w and watch the ends leave the true density; press play to see the particles go there. Drag the ring: at its place stand all " +
      "three arrows, their tips on one line. Places are drawn shrunk, so that noise is as large as data. Keys: space plays, \u2190 \u2192 one step; " +
      "arrows move the ring when it has the focus (Shift: finer)."));
  const tell = () => (said.textContent = sentenceOf(state, model.get("w"), model.get("region")));
  view.follow(["w", "target", "seed"], tell, { now: true });
  view.follow(["w", "target", "seed", "arrows", "place"], view.redraw);
  view.onStop(send);
  return view.stop;
}

export default { render };
