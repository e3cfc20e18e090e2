// Langevin: particles dropped into a landscape, moved by its score and by noise.

import { throttledChanges } from "./parts/changes.js";
import { PALETTE } from "./parts/colours.js";
import { button, choice, row, slider, toggle } from "./parts/controls.js";
import { unpack } from "./parts/data.js";
import { dotStamp } from "./parts/dots.js";
import { drag } from "./parts/drag.js";
import { handle } from "./parts/handle.js";
import { onKeys } from "./parts/keys.js";
import { normalsFrom } from "./parts/noise.js";
import { hint, legend, say } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { axisNames, clamp, panel, segment, trace, words } from "./parts/panel.js";
import { clockOf, playerBar } from "./parts/player.js";
import STYLE from "./langevin.css" with { type: "css" };

// -------------------------------------------------------------------------------- the mathematics
// langevin.py has the same formulas and their sources. A landscape is {low, high, cells, energy, score,
// sigmas, width}, energy and score being a list of arrays, one for each level of noise.

// Values on the even grid of a landscape at any x; beyond it, that of its end.
function onGrid({ low, high, cells }, values, x) {
  const at = clamp(((x - low) / (high - low)) * (cells - 1), 0, cells - 1);
  const i = Math.min(Math.floor(at), cells - 2);
  return values[i] + (values[i + 1] - values[i]) * (at - i);
}

// One step of all particles, x + h ∇log p(x) + √(2hτ) ε; at a level of noise h is larger.
function langevinStep(land, level, stepSize, temperature, from, eps) {
  const h = stepSize * (1 + (land.sigmas[level] / land.width) ** 2);
  const kick = Math.sqrt(2 * h * temperature);
  const [score, low, last] = [land.score[level], land.low, land.cells - 1];
  const perCell = last / (land.high - low);
  const to = new Float64Array(from.length);
  // As `onGrid` has it, but written out: a run is a quarter of a million of these.
  for (let i = 0; i < to.length; i++) {
    const at = Math.max(0, Math.min((from[i] - low) * perCell, last));
    const cell = Math.min(Math.floor(at), last - 1);
    const drift = score[cell] + (score[cell + 1] - score[cell]) * (at - cell);
    to[i] = from[i] + h * drift + kick * eps[i];
  }
  return to;
}

// p^(1/τ) at a level of noise, on the grid.
function lawOn({ low, high, cells, energy }, level, temperature) {
  const least = Math.min(...energy[level]);
  const heights = Float64Array.from(energy[level], (value) => Math.exp((least - value) / temperature));
  let total = 0;
  for (let i = 1; i < cells; i++) total += ((heights[i] + heights[i - 1]) / 2) * ((high - low) / (cells - 1));
  return heights.map((value) => value / total);
}

// The law that a Markov chain keeps, from the rows of its transition probabilities (Grassmann, Taksar
// and Heyman: Gauss elimination without a subtraction). The rows are used up.
function stationaryOf(rows) {
  for (let n = rows.length - 1; n > 0; n--) {
    const last = rows[n];
    let back = 0;
    for (let j = 0; j < n; j++) back += last[j];
    for (let i = 0; i < n; i++) {
      const own = rows[i];
      const share = (own[n] /= back);
      if (share) for (let j = 0; j < n; j++) own[j] += share * last[j];
    }
  }
  const law = new Float64Array(rows.length).fill(1);
  for (let n = 1; n < rows.length; n++) {
    law[n] = 0;
    for (let i = 0; i < n; i++) law[n] += law[i] * rows[i][n];
  }
  const total = law.reduce((sum, value) => sum + value, 0);
  return law.map((value) => value / total);
}

// The law to which steps of this size settle, as {cells, density}; null where their noise is finer
// than a grid can show: then there is no bias to be seen either.
function settledLaw(land, stepSize, temperature, fine) {
  const { low, high } = land;
  let gap = (high - low) / (land.cells - 1);
  const noise = Math.sqrt(2 * stepSize * temperature);
  if (noise < fine * gap) return null;
  gap *= clamp(Math.floor(noise / gap), 1, 2);
  const count = Math.floor((1.5 * (high - low)) / gap) + 1;
  const cells = Float64Array.from({ length: count }, (_, i) => (low + high) / 2 + gap * (i - (count - 1) / 2));
  const score = land.score.at(-1);
  const rows = Array.from(cells, (x) => {
    const mean = x + stepSize * onGrid(land, score, x);
    const own = cells.map((to) => Math.exp(-((to - mean) ** 2) / (2 * noise * noise)));
    const total = own.reduce((sum, value) => sum + value, 0);
    return own.map((value) => value / total);
  });
  return { cells, density: stationaryOf(rows).map((value) => value / gap) };
}

// How many of these places lie between the borders.
function sharesBetween(borders, places) {
  const counts = new Array(borders.length + 1).fill(0);
  for (const x of places) counts[borders.filter((border) => border < x).length] += 1;
  return counts.map((count) => count / places.length);
}

// The same of a density on the grid.
function massBetween({ low, high, cells }, borders, density) {
  const masses = new Array(borders.length + 1).fill(0);
  let total = 0;
  density.forEach((value, i) => {
    const x = low + ((high - low) * i) / (cells - 1);
    masses[borders.filter((border) => border < x).length] += value;
    total += value;
  });
  return masses.map((mass) => mass / total);
}

// -------------------------------------------------------------------------------------- the state

// The landscapes of a model, as the mathematics wants them.
function landscapesOf(model) {
  const { energy, score } = unpack(model);
  const [low, high] = model.get("extent");
  const [count, levels, cells] = energy.shape;
  const rowsOf = ({ values }, k) => Array.from({ length: levels }, (_, level) =>
    values.subarray((k * levels + level) * cells, (k * levels + level + 1) * cells));
  return Array.from({ length: count }, (_, k) => ({
    low, high, cells, sigmas: model.get("sigmas"), width: model.get("widths")[k],
    borders: model.get("barriers")[k], energy: rowsOf(energy, k), score: rowsOf(score, k)
  }));
}

// The noise of a seed, a row for each step, made as far as it is asked for.
function noiseRows(n) {
  let [seed, next, made] = [null, null, []];
  return (now, step) => {
    if (seed !== now) [seed, next, made] = [now, normalsFrom(now), []];
    while (made.length <= step) made.push(Float64Array.from({ length: n }, next));
    return made[step];
  };
}

function stateOf(model) {
  const lands = landscapesOf(model);
  const names = model.get("names");
  const [low, high] = model.get("extent");
  const n = model.get("n_particles");
  const clock = clockOf(model);
  const { change, send } = throttledChanges(model);
  const noise = noiseRows(n);
  const land = () => lands[names.indexOf(model.get("landscape"))];
  const last = lands[0].sigmas.length - 1;
  const levelAt = (step) =>
    (model.get("annealed") ? Math.min(Math.floor(step / model.get("level_steps")), last) : last);
  const settings = () => ["landscape", "step_size", "temperature", "annealed", "drop", "scattered", "seed"].map(
    (name) => model.get(name));

  // A run is what follows from the settings, made as far as it is asked for.
  let run = { facts: "", states: [] };
  const particles = () => {
    const facts = settings().join();
    const seed = model.get("seed");
    if (run.facts !== facts) {
      const eps = noise(seed, 0);
      const begin = model.get("scattered") ? (_, i) => low + ((high - low) * (i + 0.5)) / n
        : (_, i) => model.get("drop") + model.get("heap") * eps[i];
      run = { facts, states: [Float64Array.from({ length: n }, begin)] };
    }
    const step = shown();
    for (let k = run.states.length; k <= step; k++) {
      run.states.push(langevinStep(land(), levelAt(k - 1), model.get("step_size"), model.get("temperature"),
        run.states[k - 1], noise(seed, k)));
    }
    return run.states[step];
  };
  // Steps are whole.
  const shown = () => clamp(Math.floor(clock.step + 1e-6), 0, clock.last());
  clock.shown = shown;
  // The law of steps of this size, until something that counts for it is changed.
  let made = { facts: "" };
  const settled = () => {
    const facts = settings().slice(0, 3).join();
    if (made.facts !== facts) {
      made = { facts, law: settledLaw(land(), model.get("step_size"), model.get("temperature"), model.get("fine")) };
    }
    return made.law;
  };
  const dropAt = (x) => change({ drop: clamp(x, low, high), scattered: false });
  return { names, low, high, n, clock, last, land, levelAt, shown, particles, settled, dropAt, change, send };
}

// ------------------------------------------------------------------------------------ the picture

function stands(width) {
  const [edge, head] = [46, 24];
  const inner = width - edge - 12;
  const upper = { x: edge, y: head, width: inner, height: Math.round(clamp(0.34 * inner, 120, 190)) };
  const lower = { ...upper, y: upper.y + upper.height + 26 + head, height: Math.round(clamp(0.26 * inner, 96, 150)) };
  return { upper, lower, total: lower.y + lower.height + 42 };
}

const headOf = (ctx, text, { x, y, width }, theme) =>
  words(ctx, text, x, y - 13, theme.ink, `600 12px ${theme.font}`, "left", "middle", width);

// The places of values on the grid.
const onPlot = ({ low, high, cells }, values, map) =>
  Array.from(values, (value, i) => [map.x(low + ((high - low) * i) / (cells - 1)), map.y(value)]);

function strokeLine(ctx, places, colour, width, dash = []) {
  trace(ctx, places);
  ctx.setLineDash(dash);
  ctx.lineJoin = "round";
  ctx.strokeStyle = colour;
  ctx.lineWidth = width;
  ctx.stroke();
  ctx.setLineDash([]);
}

// The landscape with the particles on it. Returns `draw`, which gives back the map of the plot.
function landscapePainter(state, model) {
  let [dots, dotsFor] = [null, ""];
  return (ctx, box, { ratio }, theme) => {
    const facts = `${ratio} ${theme.dark}`;
    if (dotsFor !== facts) [dots, dotsFor] = [dotStamp([PALETTE.model], 2.2, ratio, theme.rim), facts];
    const { low, high, n, last } = state;
    const top = model.get("top");
    const land = state.land();
    const level = state.levelAt(state.shown());
    const map = panel(ctx, [low, high, -0.06 * top, top], box, theme, (own) => {
      if (level < last) strokeLine(ctx, onPlot(land, land.energy[last], own), theme.muted, 1.25, [2, 3]);
      strokeLine(ctx, onPlot(land, land.energy[level], own), theme.ink, 2);
      dots.clear(box.width, box.height);
      state.particles().forEach((x, i) => {
        // Lifted a little off the ground, each its own way, so that a crowd is seen as one.
        const lift = 3 + ((i * 0.618) % 1) * Math.min(0.035 * n, 20);
        const y = own.y(onGrid(land, land.energy[level], x)) - lift;
        dots.stamp(own.x(x) - box.x, y - box.y, 0);
      });
      dots.draw(ctx, box);
      if (model.get("scattered")) return;
      ctx.strokeStyle = PALETTE.model;
      ctx.lineWidth = 1;
      ctx.setLineDash([3, 3]);
      ctx.beginPath();
      const x = own.x(model.get("drop"));
      segment(ctx, x, box.y, x, own.y(onGrid(land, land.energy[level], model.get("drop"))));
      ctx.stroke();
      ctx.setLineDash([]);
    });
    axisNames(ctx, box, "", "energy U", 10, theme);
    headOf(ctx, level < last ? `the landscape, smeared with \u03c3 = ${land.sigmas[level].toFixed(2)}` : "the landscape",
      box, theme);
    return map;
  };
}

function histogramOf(particles, low, high, bins) {
  const counts = new Float64Array(bins);
  for (const x of particles) {
    const k = Math.floor(((x - low) / (high - low)) * bins);
    if (k >= 0 && k < bins) counts[k] += 1;
  }
  return counts.map((count) => (count * bins) / (particles.length * (high - low)));
}

// The histogram, the stationary law, and that of steps of this size.
function drawLawsOf(ctx, state, model, box, theme) {
  const { low, high, last } = state;
  const land = state.land();
  const [level, temperature, bins] = [state.levelAt(state.shown()), model.get("temperature"), model.get("bins")];
  const final = lawOn(land, last, temperature);
  const heights = histogramOf(state.particles(), low, high, bins);
  const most = 2 * final.reduce((a, b) => Math.max(a, b));
  panel(ctx, [low, high, 0, most], box, theme, (map) => {
    ctx.fillStyle = PALETTE.model;
    ctx.globalAlpha = 0.55;
    const across = box.width / bins;
    heights.forEach((height, k) => {
      const y = map.y(height);
      if (height) ctx.fillRect(box.x + k * across, y, across - 0.5, box.y + box.height - y);
    });
    ctx.globalAlpha = 1;
    if (level < last) strokeLine(ctx, onPlot(land, final, map), theme.muted, 1.25, [2, 3]);
    strokeLine(ctx, onPlot(land, lawOn(land, level, temperature), map), theme.words.data, 2);
    const settled = level === last && state.settled();
    if (settled) {
      const places = Array.from(settled.cells, (x, i) => [map.x(x), map.y(settled.density[i])]);
      strokeLine(ctx, places, theme.words.error, 1.75, [6, 4]);
    }
  });
  axisNames(ctx, box, "x", "density", 10, theme);
  headOf(ctx, "the particles and the laws", box, theme);
}

// ------------------------------------------------------------------------------------ in writing

const percents = (shares) => shares.map((share) => `${Math.round(100 * share)} %`).join(" \u00b7 ");

function sentenceOf(state, model) {
  const land = state.land();
  const law = lawOn(land, state.last, model.get("temperature"));
  if (!land.borders.length) return `Step ${state.shown()}.`;
  return `Step ${state.shown()}. In the wells, left to right: particles ${percents(sharesBetween(land.borders, state.particles()))}, ` +
    `stationary law ${percents(massBetween(land, land.borders, law))}.`;
}

const line = (colour, dash) =>
  `<path d="M1 7h20" stroke="${colour}" stroke-width="2.5" ${dash ? `stroke-dasharray="${dash}"` : ""}/>`;
const KEY = [
  [`<rect x="3" y="2" width="16" height="10" fill="${PALETTE.model}" opacity="0.6"/>`, "particles"],
  [line(PALETTE.data), "stationary law p^(1/\u03c4)"],
  [line(PALETTE.error, "5 3"), "where steps of this size settle"]
];

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const { clock, low, high, change, send, dropAt } = state;
  const paint = landscapePainter(state, model);
  const said = element("p", { class: "langevin-said" });
  let [at, map] = [null, null]; // as last laid out, as last drawn

  const draw = (ctx, size, theme) => {
    map = paint(ctx, at.upper, size, theme);
    drawLawsOf(ctx, state, model, at.lower, theme);
    const drop = model.get("drop");
    grip.stand(map.x(drop), at.upper.y + 12, drop, `x = ${drop.toFixed(2)}`);
    grip.node.classList.toggle("faint", model.get("scattered"));
    say(said, sentenceOf(state, model));
  };
  const layout = (width) => {
    at = stands(width);
    return at.total;
  };
  const view = outline({ model, el, layout, draw, maxWidth: 700, style: STYLE, name: "langevin-widget" });
  view.stage.after(said);

  // To drop particles is to begin a run.
  const dropAnew = (x) => {
    if (clock.step) clock.seek(0);
    dropAt(x);
  };
  const grip = handle(view, "Where the particles are dropped", {
    shape: "diamond langevin-grip", range: [low, high], end: send,
    start: ([x]) => {
      const aside = map.x(model.get("drop")) - x;
      return ([to]) => dropAnew(map.toPlane(to + aside, 0)[0]);
    }
  });
  const over = ([x, y]) => x >= at.upper.x && x <= at.upper.x + at.upper.width
    && y >= at.upper.y && y <= at.upper.y + at.upper.height;
  drag(view.canvas, {
    focus: view.root, end: send,
    start: (place) => {
      if (!over(place)) return null;
      const move = ([x]) => dropAnew(map.toPlane(x, 0)[0]);
      move(place);
      return move;
    },
    hover: (place) => (view.canvas.style.cursor = over(place) ? "crosshair" : "")
  });

  playerBar(view, model);
  const bar = view.controls.querySelector("input");
  bar.step = "1";
  const sliders = row(
    slider(view, "step_size", "step size h", { min: 0.005, max: model.get("largest_step"), text: (h) => h.toFixed(3), change }),
    slider(view, "temperature", "temperature \u03c4", {
      min: model.get("temperatures")[0], max: model.get("temperatures")[1], text: (t) => t.toFixed(2), change
    }));
  const tools = row(
    choice(view, "landscape", "landscape", state.names.map((name) => [name, name])),
    choice(view, "scattered", "drop", [
      [false, "here", "All at the place of the handle"], [true, "everywhere", "Evenly over the whole plot"]
    ]),
    toggle(view, "annealed", "annealing", { title: "From the landscape smeared widely to the landscape itself" }),
    button("New noise", () => {
      change({ seed: (model.get("seed") + 1) % 2 ** 32 });
      send();
    }));
  const nudge = (sign) => (event) =>
    dropAnew(model.get("drop") + (sign * (high - low)) / (event.shiftKey ? 500 : 50));
  onKeys(view, {
    ArrowLeft: nudge(-1), ArrowRight: nudge(1), ArrowDown: nudge(-1), ArrowUp: nudge(1)
  }, grip.node);
  const leap = (sign) => () => clock.seek(clock.shown() + sign * 25);
  const leaps = { PageUp: leap(-1), PageDown: leap(1) };
  onKeys(view, leaps);
  onKeys(view, leaps, bar);
  view.controls.after(sliders, tools, legend(KEY), hint(
    "Drag the diamond, or click in the landscape, to drop the particles there; then press play. Whatever you change, " +
    "the run is made anew with the same noise. Keys: space plays, \u2190 \u2192 one step, Page Up and Page Down 25, " +
    "arrows move the diamond when it has the focus."));
  view.follow(["landscape", "step_size", "temperature", "annealed", "drop", "scattered", "seed"], view.redraw);
  view.onStop(send);
  return view.stop;
}

export default { render };
