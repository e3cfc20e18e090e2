// FanOfPaths: time to the right, x upwards, and the paths that belong to one start or to one end.

import { drawAxes, drawPlane, plane } from "./parts/axes.js";
import { throttledChanges } from "./parts/changes.js";
import { PALETTE, rgb } from "./parts/colours.js";
import { choice, row, toggle } from "./parts/controls.js";
import { unpack } from "./parts/data.js";
import { drag } from "./parts/drag.js";
import { handle } from "./parts/handle.js";
import { onKeys } from "./parts/keys.js";
import { hint, say } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { axisNames, backdrop, clamp, dot, inside, segment, trace, words } from "./parts/panel.js";
import { pixelSheet } from "./parts/pixels.js";
import { clockOf, playerBar } from "./parts/player.js";
import STYLE from "./fan_of_paths.css" with { type: "css" };

// -------------------------------------------------------------------------------- the mathematics
// fan_of_paths.py has the same formulas. A process is {ratio [T], spread [T], noise [T, N],
// density [T, X]} with the extent [t, t, x, x] of its plot.

const GOLDEN = 0.6180339887498949;
const MOST_OF_A_FAN = 40;

// The k-th process of all.
function processOf(arrays, k, extent) {
  const own = (name) => {
    const { values, shape } = arrays[name];
    return values.subarray((values.length / shape[0]) * k, (values.length / shape[0]) * (k + 1));
  };
  const [, steps, cells] = arrays.density.shape;
  const process = { extent, steps, cells, count: arrays.noise.shape[2] };
  for (const name of ["ratio", "spread", "noise", "density"]) process[name] = own(name);
  return process;
}

const xAt = ({ extent: [, , low, high], cells }, i) => low + ((high - low) * i) / (cells - 1);

// How much of the noise at the last time is that of time k: cov(W_k, W_end) / var(W_end).
function pullAt({ ratio, spread, steps }, k) {
  return ((ratio[steps - 1] / ratio[k]) * spread[k] ** 2) / spread[steps - 1] ** 2;
}

// p(x_start | x_end = y) on the grid, up to a factor.
function startsGiven(process, y) {
  const { ratio, spread, density, steps, cells } = process;
  const away = Float64Array.from({ length: cells }, (_, i) =>
    (y - ratio[steps - 1] * xAt(process, i)) ** 2 / (2 * spread[steps - 1] ** 2));
  const least = away.reduce((low, value, i) => (density[i] > 0 ? Math.min(low, value) : low), Infinity);
  return away.map((value, i) => (density[i] > 0 ? density[i] * Math.exp(least - value) : 0));
}

// `count` places that are spread as a density on the grid is.
function quantilesOf(process, weights, count) {
  const mass = new Float64Array(weights.length);
  for (let i = 1; i < mass.length; i++) mass[i] = mass[i - 1] + (weights[i] + weights[i - 1]) / 2;
  return Float64Array.from({ length: count }, (_, n) => {
    const wanted = (((n + 0.5) * GOLDEN) % 1) * mass.at(-1);
    let [low, high] = [0, mass.length - 1];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (mass[middle] <= wanted) low = middle;
      else high = middle;
    }
    const share = (wanted - mass[low]) / (mass[high] - mass[low] || 1);
    return xAt(process, low) + share * (xAt(process, high) - xAt(process, low));
  });
}

// Paths that begin at these places, as Float64Array [N, T]; with an `end`, they all come to it.
function pathsFrom(process, starts, end = null) {
  const { ratio, noise, steps, count } = process;
  const last = steps - 1;
  const paths = new Float64Array(starts.length * steps);
  starts.forEach((start, n) => {
    const missed = end === null ? 0 : end - ratio[last] * start - noise[last * count + n];
    for (let k = 0; k < steps; k++) {
      const pull = missed ? pullAt(process, k) * missed : 0;
      paths[n * steps + k] = ratio[k] * start + noise[k * count + n] + pull;
    }
  });
  return paths;
}

function fanOf(process, forward, place) {
  const count = Math.min(MOST_OF_A_FAN, process.count);
  if (forward) return pathsFrom(process, new Float64Array(count).fill(place));
  return pathsFrom(process, quantilesOf(process, startsGiven(process, place), count), place);
}

function samplePaths(process) {
  return pathsFrom(process, quantilesOf(process, process.density.subarray(0, process.cells), process.count));
}

// The mean and the standard deviation at time k of all paths that begin, or end, at a place.
function lawOf(process, forward, place, k) {
  const { ratio, spread, steps } = process;
  if (forward) return [ratio[k] * place, spread[k]];
  const weights = startsGiven(process, place);
  let [total, first, second] = [0, 0, 0];
  weights.forEach((weight, i) => (total += weight) && (first += weight * xAt(process, i)));
  const mean = first / total;
  weights.forEach((weight, i) => (second += weight * (xAt(process, i) - mean) ** 2));
  const pull = pullAt(process, k);
  const slope = ratio[k] - pull * ratio[steps - 1];
  const rest = Math.max(0, spread[k] ** 2 - pull ** 2 * spread[steps - 1] ** 2);
  return [slope * mean + pull * place, Math.sqrt((slope ** 2 * second) / total + rest)];
}

// The density of x at time k on the grid, at any x.
function densityAt({ density, cells, extent: [, , low, high] }, k, x) {
  const at = clamp(((x - low) / (high - low)) * (cells - 1), 0, cells - 1);
  const i = Math.min(Math.floor(at), cells - 2);
  const [a, b] = density.subarray(k * cells + i, k * cells + i + 2);
  return a + (b - a) * (at - i);
}

// That of the fan, up to a factor: forward a Gaussian, in reverse by Bayes' rule, p(x) p(y | x).
function fanDensity(process, forward, place, k) {
  const { ratio, spread, steps } = process;
  const bell = (from, to, width) => Math.exp(-((to - from) ** 2) / (2 * width * width));
  if (forward) return (x) => bell(ratio[k] * place, x, Math.max(spread[k], 1e-6));
  const rest = ratio[steps - 1] / ratio[k];
  const width = Math.sqrt(Math.max(1e-12, spread[steps - 1] ** 2 - (rest * spread[k]) ** 2));
  return (x) => densityAt(process, k, x) * bell(rest * x, place, width);
}

// -------------------------------------------------------------------------------------- the state

function stateOf(model) {
  const arrays = unpack(model);
  const [names, extents] = ["names", "extents"].map((name) => model.get(name));
  const processes = extents.map((extent, k) => processOf(arrays, k, extent));
  const samples = processes.map((process) => ({ process, paths: null }));
  const clock = clockOf(model);
  const { change, send } = throttledChanges(model);
  const which = () => names.indexOf(model.get("process"));
  const process = () => processes[which()];
  const forward = () => model.get("direction") === "forward";
  const bounded = (x) => clamp(x, process().extent[2], process().extent[3]);
  const place = () => bounded(model.get(forward() ? "start" : "end"));
  const moveTo = (x) => change({ [forward() ? "start" : "end"]: bounded(x) });
  // How far along the times the picture is, and the nearest of them.
  const when = () => {
    const step = clamp(clock.shown(), 0, process().steps - 1);
    return forward() ? step : process().steps - 1 - step;
  };
  // The fan, until it is moved.
  let made = {};
  const fan = () => {
    const facts = [which(), forward(), place()].join();
    if (made.facts !== facts) made = { facts, paths: fanOf(process(), forward(), place()) };
    return made.paths;
  };
  const sampled = () => {
    const own = samples[which()];
    own.paths ||= samplePaths(own.process);
    return own.paths;
  };
  return { names, clock, change, send, which, process, forward, place, moveTo, when, fan, sampled };
}

// ------------------------------------------------------------------------------------ the picture

// Where everything stands: the plot, and at its right the laws at one time.
function stands(width) {
  const [edge, gap] = [46, 8];
  const side = Math.round(clamp(0.2 * width, 62, 130));
  const inner = width - edge - gap - side - 14;
  const height = Math.round(clamp(0.62 * inner, 170, 300));
  const plot = { x: edge, y: 24, width: inner, height };
  return { plot, laws: { ...plot, x: edge + inner + gap, width: side }, total: 24 + height + 42 };
}

// The colour of what is still data, of what is noise, and between.
function tintAt({ ratio, spread, density, cells }, k, variance) {
  const signal = ratio[k] ** 2 * variance;
  const share = signal / (signal + spread[k] ** 2);
  return [PALETTE.noise, PALETTE.data].map(rgb).reduce((from, to) => from.map((v, c) => v + (to[c] - v) * share));
}

// The variance of x at the first time.
function firstVariance(process) {
  const weights = process.density.subarray(0, process.cells);
  let [total, first, second] = [0, 0, 0];
  weights.forEach((weight, i) => {
    total += weight;
    first += weight * xAt(process, i);
    second += weight * xAt(process, i) ** 2;
  });
  return second / total - (first / total) ** 2;
}

// The density as a picture: a column for each time, as bright as its highest value.
function heatOf(process) {
  const { density, steps, cells } = process;
  const sheet = pixelSheet(steps, cells);
  const variance = firstVariance(process);
  for (let k = 0; k < steps; k++) {
    const [r, g, b] = tintAt(process, k, variance).map(Math.round);
    for (let i = 0; i < cells; i++) {
      const alpha = Math.round(170 * density[k * cells + i] ** 0.7);
      sheet.words[(cells - 1 - i) * steps + k] = (alpha << 24) | (b << 16) | (g << 8) | r;
    }
  }
  sheet.put();
  return sheet.canvas;
}

function drawHeat(ctx, heat, process, box) {
  // A pixel of the picture stands around its time and its x: half of the outermost ones is outside.
  const [across, up] = [box.width / (process.steps - 1), box.height / (process.cells - 1)];
  ctx.imageSmoothingEnabled = true;
  ctx.drawImage(heat, box.x - across / 2, box.y - up / 2, box.width + across, box.height + up);
}

function drawPaths(ctx, paths, { steps }, map, times, { colour, width, alpha }) {
  ctx.strokeStyle = colour;
  ctx.lineWidth = width;
  ctx.globalAlpha = alpha;
  ctx.lineJoin = "round";
  for (let from = 0; from < paths.length; from += steps) {
    ctx.beginPath();
    for (let k = 0; k < steps; k++) ctx.lineTo(times[k], map.y(paths[from + k]));
    ctx.stroke();
  }
  ctx.globalAlpha = 1;
}

// Returns `draw(ctx, box, size, theme)`, which gives back the map of the plot.
function picturePainter(state, model) {
  const heats = new Map();
  const [under, lines] = [backdrop(), backdrop()];
  return (ctx, box, { ratio }, theme) => {
    const process = state.process();
    const { extent, steps } = process;
    if (!heats.has(process)) heats.set(process, heatOf(process));
    const map = plane(extent, box);
    const times = Array.from({ length: steps }, (_, k) => box.x + (box.width * k) / (steps - 1));
    const facts = [state.which(), theme.dark, box.width, box.height];
    under(ctx, ratio, facts, (own) => {
      drawPlane(own, box, theme);
      inside(own, box, () => drawHeat(own, heats.get(process), process, box));
    });
    const at = state.when();
    const x = box.x + (box.width * at) / (steps - 1);
    // What has been drawn so far: from the left, in reverse from the right.
    const shown = state.forward() ? { ...box, width: x - box.x } : { ...box, x, width: box.x + box.width - x };
    inside(ctx, shown, () => {
      if (model.get("samples")) {
        lines(ctx, ratio, facts, (own) =>
          drawPaths(own, state.sampled(), process, map, times, { colour: theme.ink, width: 0.75, alpha: 0.22 }));
      }
      drawPaths(ctx, state.fan(), process, map, times, { colour: theme.dark ? theme.words.model : PALETTE.model, width: 1, alpha: 0.55 });
    });
    inside(ctx, box, () => {
      ctx.strokeStyle = theme.accent;
      ctx.lineWidth = 1.5;
      ctx.beginPath();
      segment(ctx, x, box.y, x, box.y + box.height);
      ctx.stroke();
    });
    const [k, share] = [Math.min(Math.floor(at), steps - 2), at - Math.min(Math.floor(at), steps - 2)];
    inside(ctx, { ...box, x: box.x - 4, width: box.width + 8 }, () => {
      const fan = state.fan();
      for (let from = 0; from < fan.length; from += steps) {
        const value = fan[from + k] + (fan[from + k + 1] - fan[from + k]) * share;
        dot(ctx, x, map.y(value), 2.5, PALETTE.model, theme.rim, 0.6);
      }
    });
    drawAxes(ctx, extent, box, theme);
    axisNames(ctx, box, "t", "x", 10, theme);
    words(ctx, "paths and the density of x", box.x, box.y - 13, theme.ink, `600 12px ${theme.font}`, "left", "middle", box.width);
    return map;
  };
}

// The densities at time k, of all x and of the fan: sideways, each as wide as its highest value.
function drawLaws(ctx, state, box, k, theme) {
  const process = state.process();
  const [, , low, high] = process.extent;
  const rows = Array.from({ length: Math.round(box.height) + 1 }, (_, i) => [i, high - ((high - low) * i) / box.height]);
  const outlineOf = (density) => {
    const values = rows.map(([, x]) => density(x));
    const most = Math.max(...values) || 1;
    return rows.map(([i], n) => [box.x + (0.9 * box.width * values[n]) / most, box.y + i]);
  };
  drawPlane(ctx, box, theme);
  inside(ctx, box, () => {
    const tint = `rgb(${tintAt(process, k, firstVariance(process)).map(Math.round).join()})`;
    for (const [density, fill, stroke] of [
      [(x) => densityAt(process, k, x), tint, tint],
      [fanDensity(process, state.forward(), state.place(), k), PALETTE.model, PALETTE.model]
    ]) {
      const places = outlineOf(density);
      trace(ctx, [[box.x, box.y], ...places, [box.x, box.y + box.height]]);
      ctx.globalAlpha = 0.22;
      ctx.fillStyle = fill;
      ctx.fill();
      ctx.globalAlpha = 1;
      trace(ctx, places);
      ctx.strokeStyle = stroke;
      ctx.lineWidth = 1.75;
      ctx.stroke();
    }
  });
  const when = process.extent[0] + ((process.extent[1] - process.extent[0]) * k) / (process.steps - 1);
  words(ctx, `at t = ${written(when)}`, box.x, box.y - 13, theme.muted, `12px ${theme.font}`, "left", "middle", box.width);
  ctx.strokeStyle = theme.line;
  ctx.lineWidth = 1;
  ctx.strokeRect(Math.round(box.x) + 0.5, Math.round(box.y) + 0.5, box.width - 1, box.height - 1);
}

// ------------------------------------------------------------------------------------ in writing

const written = (value) => (Math.abs(value) < 0.005 ? "0.00" : value.toFixed(2)).replace("-", "\u2212");

function sentenceOf(state, k) {
  const process = state.process();
  const [first, last] = process.extent;
  const t = (at) => written(first + ((last - first) * at) / (process.steps - 1));
  const [mean, deviation] = lawOf(process, state.forward(), state.place(), k);
  const from = state.forward() ? `From x = ${written(state.place())} at t = ${t(0)}`
    : `To x = ${written(state.place())} at t = ${t(process.steps - 1)}`;
  return `${from}: at t = ${t(k)} mean ${written(mean)}, standard deviation ${written(deviation)}.`;
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const { clock, send, moveTo } = state;
  const paint = picturePainter(state, model);
  const said = element("p", { class: "fan-said" });
  let [at, map] = [null, null]; // as last laid out, as last drawn

  const draw = (ctx, size, theme) => {
    const k = Math.round(state.when());
    map = paint(ctx, at.plot, size, theme);
    drawLaws(ctx, state, at.laws, k, theme);
    const [t0, t1, low, high] = state.process().extent;
    grip.range([low, high]);
    grip.node.setAttribute("aria-label", state.forward() ? "Start of the fan" : "End of the fan");
    const place = state.place();
    grip.stand(map.x(state.forward() ? t0 : t1), map.y(place), place, `x = ${written(place)}`);
    say(said, sentenceOf(state, k));
  };
  const layout = (width) => {
    at = stands(width);
    return at.total;
  };
  const view = outline({ model, el, layout, draw, maxWidth: 760, style: STYLE });
  view.stage.after(said);

  const grip = handle(view, "Start of the fan", {
    shape: "round fan-grip", end: send,
    start: ([, y]) => {
      const aside = map.y(state.place()) - y; // to the middle of the handle
      return ([, to]) => moveTo(map.toPlane(0, to + aside)[1]);
    }
  });
  grip.node.setAttribute("aria-orientation", "vertical");
  // Elsewhere the plot is a slider of the time.
  const seek = ([x]) => {
    const last = clock.last();
    const step = clamp((x - at.plot.x) / at.plot.width, 0, 1) * last;
    clock.seek(state.forward() ? step : last - step);
  };
  const over = ([x, y]) => x >= at.plot.x && x <= at.plot.x + at.plot.width
    && y >= at.plot.y && y <= at.plot.y + at.plot.height;
  drag(view.canvas, {
    focus: view.root,
    start: (place) => {
      if (!over(place)) return null;
      seek(place);
      return seek;
    },
    hover: (place) => (view.canvas.style.cursor = over(place) ? "ew-resize" : "")
  });

  playerBar(view, model);
  view.controls.querySelector("input").setAttribute("aria-label", "Time");
  const tools = row(
    choice(view, "process", "process", state.names.map((name) => [name, name])),
    choice(view, "direction", "time", [
      ["forward", "forward", "From the data to the noise: the fan of a start"],
      ["reverse", "reverse", "From the noise to the data: the fan of an end"]
    ]),
    toggle(view, "samples", "sample paths", { title: "Paths through all of the density" }));
  view.controls.after(tools, hint(
    "Drag the orange handle: the fan of paths that belongs to it follows. Drag elsewhere in the plot to move t. " +
    "At the right, the densities of all x and of the fan at this t, each to its own height. " +
    "Keys: \u2191 \u2193 move the handle (Shift: less), \u2190 \u2192 one step, space plays."));
  const nudge = (sign) => (event) => {
    const [, , low, high] = state.process().extent;
    moveTo(state.place() + sign * (event.shiftKey ? 0.002 : 0.02) * (high - low));
  };
  onKeys(view, { ArrowUp: nudge(1), ArrowDown: nudge(-1) });
  view.follow(["process", "direction", "start", "end", "samples"], view.redraw);
  view.onStop(send);
  return view.stop;
}

export default { render };
