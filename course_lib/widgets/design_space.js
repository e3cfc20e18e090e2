// DesignSpace: a line with the exact score; path, times and solver are chosen, and each step's error seen.

import { throttledChanges } from "./parts/changes.js";
import { axisOf, chart } from "./parts/chart.js";
import { PALETTE, rgb } from "./parts/colours.js";
import { choice, row, slider } from "./parts/controls.js";
import { tidy } from "./parts/data.js";
import { dotStamp } from "./parts/dots.js";
import { onKeys } from "./parts/keys.js";
import { hint, legend, say } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { axisNames, backdrop, clamp, inside, segment, trace, words } from "./parts/panel.js";
import { pixelSheet } from "./parts/pixels.js";
import STYLE from "./design_space.css" with { type: "css" };

// -------------------------------------------------------------------------------- the mathematics
// design_space.py has the same, and the formulas.

// The paths: `at(t)` is [a, b, a', b'], `timeAt(sigma)` the time at which b / a is sigma.
function pathsOf({ beta_min, beta_max, sigma_min, sigma_max }) {
  const slope = beta_max - beta_min;
  const ratio = Math.log(sigma_max / sigma_min);
  return {
    EDM: { at: (t) => [1, t, 0, 1], timeAt: (sigma) => sigma },
    VP: {
      at: (t) => {
        const spent = beta_min * t + (slope / 2) * t * t;
        const [a, b] = [Math.exp(-spent / 2), Math.sqrt(-Math.expm1(-spent))];
        const beta = beta_min + slope * t;
        return [a, b, (-beta * a) / 2, (beta * a * a) / (2 * b)];
      },
      timeAt: (sigma) => {
        const spent = Math.log1p(sigma * sigma);
        return (2 * spent) / (beta_min + Math.sqrt(beta_min * beta_min + 2 * slope * spent));
      }
    },
    VE: {
      at: (t) => {
        const b = sigma_min * Math.exp(ratio * t);
        return [1, b, 0, ratio * b];
      },
      timeAt: (sigma) => Math.log(sigma / sigma_min) / ratio
    },
    straight: { at: (t) => [1 - t, t, -1, 1], timeAt: (sigma) => sigma / (1 + sigma) }
  };
}

// E[x_0 | x_0 + sigma eps = x], for a mixture of Gaussians.
function guessOf({ means, std, weights }) {
  return (x, sigma) => {
    const variance = std * std + sigma * sigma;
    let nearest = Infinity;
    for (const mean of means) nearest = Math.min(nearest, (x - mean) ** 2);
    let [total, sum] = [0, 0];
    for (let k = 0; k < means.length; k++) {
      const share = weights[k] * Math.exp((nearest - (x - means[k]) ** 2) / (2 * variance));
      total += share;
      sum += share * means[k];
    }
    return sum / total + ((std * std) / variance) * (x - sum / total);
  };
}

// Where the steps begin and end, from the noise to the data: {t, a, b, da, db, sigma} each.
function pointsOf(path, { spacing, rho, steps, sigma_min, sigma_max }) {
  const [t0, t1] = [sigma_min, sigma_max].map(path.timeAt);
  const [low, high] = [sigma_min, sigma_max].map((sigma) => sigma ** (1 / rho));
  const timeOf = (share) =>
    (spacing === "even" ? t1 + share * (t0 - t1) : path.timeAt((high + share * (low - high)) ** rho));
  const points = Array.from({ length: steps }, (_, i) => {
    const t = timeOf(i / (steps - 1));
    const [a, b, da, db] = path.at(t);
    return { t, a, b, da, db, sigma: b / a };
  });
  return [...points, { t: Math.max(path.timeAt(0), -1e9), a: 1, b: 0, sigma: 0 }];
}

const velocityAt = (x, guess, { a, b, da, db }) => da * guess + (db * (x - a * guess)) / b;

// One step of a solver for one x, as [x there, the guess here]. `former` is the point before and the
// guess there, for the solver that remembers it. To the data, the guess is the step.
function stepOf(solver, guessAt, x, from, to, former) {
  const guess = guessAt(x / from.a, from.sigma);
  if (to.sigma === 0) return [guess, guess];
  if (solver === "DPM++ 2M") {
    const h = Math.log(from.sigma / to.sigma);
    const ahead = former ? guess + ((guess - former.guess) * h) / (2 * Math.log(former.sigma / from.sigma)) : guess;
    const rest = to.sigma / from.sigma;
    return [to.a * (rest * (x / from.a) + (1 - rest) * ahead), guess];
  }
  const h = to.t - from.t;
  const v = velocityAt(x, guess, from);
  const there = x + h * v;
  if (solver === "Euler") return [there, guess];
  const again = velocityAt(there, guessAt(there / to.a, to.sigma), to);
  return [x + (h / 2) * (v + again), guess];
}

// The ways of all starts: x_t at the points.
function waysOf(solver, guessAt, points, starts) {
  return starts.map((z) => {
    const way = [points[0].b * z];
    let former = null;
    for (let i = 0; i + 1 < points.length; i++) {
      const [x, guess] = stepOf(solver, guessAt, way[i], points[i], points[i + 1], former);
      former = { guess, sigma: points[i].sigma };
      way.push(x);
    }
    return way;
  });
}

// The exact solution x_t / a as a function of the level, the same for all paths: in u = log sigma it
// is dx/du = x - E[x_0], by small steps of Runge and Kutta; between them a cubic.
function exactOf(guessAt, z, { sigma_min, sigma_max, nodes, beyond }) {
  const [high, low] = [Math.log(sigma_max), Math.log(sigma_min * beyond)];
  const h = (low - high) / (nodes - 1);
  const rate = (x, u) => x - guessAt(x, Math.exp(u));
  const [xs, slopes] = [new Float64Array(nodes), new Float64Array(nodes)];
  xs[0] = sigma_max * z;
  slopes[0] = rate(xs[0], high);
  for (let i = 1; i < nodes; i++) {
    const [x, u] = [xs[i - 1], high + (i - 1) * h];
    const k2 = rate(x + (h / 2) * slopes[i - 1], u + h / 2);
    const k3 = rate(x + (h / 2) * k2, u + h / 2);
    const k4 = rate(x + h * k3, u + h);
    xs[i] = x + (h / 6) * (slopes[i - 1] + 2 * k2 + 2 * k3 + k4);
    slopes[i] = rate(xs[i], u + h);
  }
  const end = guessAt(xs[nodes - 1], sigma_min * beyond);
  return (sigma) => {
    if (sigma < sigma_min * beyond) return end;
    if (sigma > sigma_max) return sigma * z; // the start is on its way there
    const at = clamp((Math.log(sigma) - high) / h, 0, nodes - 1);
    const i = Math.min(Math.floor(at), nodes - 2);
    const t = at - i;
    const [left, right] = [h * slopes[i], h * slopes[i + 1]];
    const chord = xs[i + 1] - xs[i];
    return xs[i] + t * (left + t * (3 * chord - 2 * left - right + t * (left + right - 2 * chord)));
  };
}

const rms = (values) => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);

// The error that each step adds, in x_t / a: a step from the exact solution against the exact solution.
function stepErrors(solver, guessAt, points, exact) {
  const squares = new Float64Array(points.length - 1);
  for (const at of exact) {
    const xs = points.map(({ sigma }) => at(sigma));
    let former = null;
    for (let i = 0; i + 1 < points.length; i++) {
      const [from, to] = [points[i], points[i + 1]];
      const [x, guess] = stepOf(solver, guessAt, from.a * xs[i], from, to, former);
      former = { guess, sigma: from.sigma };
      squares[i] += (x / to.a - xs[i + 1]) ** 2;
    }
  }
  return Array.from(squares, (sum) => Math.sqrt(sum / exact.length));
}

const callsOf = (solver, steps) => (solver === "Heun" ? 2 * steps - 1 : steps);

// -------------------------------------------------------------------------------------- the state

const CHOSEN = ["path", "solver", "spacing", "rho", "steps"];

function stateOf(model) {
  const get = (names) => Object.fromEntries(names.map((name) => [name, model.get(name)]));
  const fixed = get(["means", "std", "weights", "starts", "sigma_min", "sigma_max", "beta_min", "beta_max", "nodes", "beyond"]);
  const { change, send } = throttledChanges(model);
  const guessAt = guessOf(fixed);
  const paths = pathsOf(fixed);
  const exact = fixed.starts.map((z) => exactOf(guessAt, z, fixed));
  const sizeOfData = Math.sqrt(fixed.means.reduce((sum, mean, k) => sum + fixed.weights[k] * (mean ** 2 + fixed.std ** 2), 0));
  let known = { facts: "" };
  const run = () => {
    const chosen = get(CHOSEN);
    const facts = Object.values(chosen).join();
    if (known.facts === facts) return known;
    const points = pointsOf(paths[chosen.path], { ...fixed, ...chosen });
    const ways = waysOf(chosen.solver, guessAt, points, fixed.starts);
    known = {
      ...chosen, facts, points, ways, errors: stepErrors(chosen.solver, guessAt, points, exact),
      calls: callsOf(chosen.solver, chosen.steps), missed: rms(ways.map((way, n) => way.at(-1) - exact[n](0)))
    };
    return known;
  };
  const zoom = () => Math.exp(model.get("log_zoom"));
  return { ...fixed, guessAt, exact, sizeOfData, run, zoom, axis: () => model.get("axis"), path: () => paths[model.get("path")], change, send };
}

// ------------------------------------------------------------------------------------ the picture

const MOST = 10; // of an error that is drawn
const LEAST = 1e-5;

// The plot of ways, and under it, on the same axis, the errors.
function stands(width) {
  const left = 50;
  const inner = width - left - 12;
  const ways = { x: left, y: 22, width: inner, height: Math.round(clamp(0.36 * inner, 124, 260)) };
  const errors = { x: left, y: ways.y + ways.height + 34, width: inner, height: Math.round(clamp(0.16 * inner, 64, 110)) };
  return { ways, errors, total: errors.y + errors.height + 40 };
}

// How both plots show a point: the axis `across`, `at(point)` in pixels, by what x_t is multiplied, the
// levels along the axis, the exact solutions there as they are shown, and how far the plot reaches up.
function viewOf(state, box) {
  const { sigma_min, sigma_max, sizeOfData } = state;
  const log = state.axis() === "log";
  const path = state.path();
  const last = 1.02 * path.timeAt(state.zoom());
  const across = log ? axisOf(sigma_min / 2, 1.1 * sigma_max, true) : axisOf(-0.03 * last, last);
  const at = ({ sigma, t }) => box.x + clamp(across.share(log ? sigma : t), -0.02, 20) * box.width;
  const shown = ({ a, sigma }) => (log ? 1 / (a * Math.hypot(sigma, sizeOfData)) : 1);
  const count = Math.round(box.width / 3);
  const levels = Array.from({ length: count + 1 }, (_, i) => {
    const value = across.value(i / count);
    if (log) return { sigma: value, a: 1 };
    const [a, b] = path.at(Math.max(value, path.timeAt(sigma_min / 20), 0));
    return { sigma: value < 0 ? 0 : b / a, a };
  });
  const scales = levels.map((level) => level.a * shown(level));
  const lines = state.exact.map((x) => levels.map(({ sigma }, i) => x(sigma) * scales[i]));
  let most = 0;
  for (const line of lines) for (const x of line) most = Math.max(most, Math.abs(x));
  const top = 1.12 * most;
  return { log, across, at, shown, levels, scales, lines, top, up: axisOf(-top, top) };
}

// How likely x_t is at each level, a column for each, as bright as its highest value. Down a column, in
// equal steps, each value of a Gaussian is the one before times a factor that itself falls by a fixed one.
function heatOf({ means, std, weights, sizeOfData }, { levels, scales, top }) {
  const rows = 64;
  const sheet = pixelSheet(levels.length, rows);
  const [noise, data] = [PALETTE.noise, PALETTE.data].map(rgb);
  const column = new Float64Array(rows);
  levels.forEach((at, i) => {
    const variance = std * std + at.sigma * at.sigma;
    const high = top / scales[i];
    const step = (2 * high) / rows;
    const fall = Math.exp((-step * step) / variance);
    column.fill(0);
    means.forEach((mean, k) => {
      // From the row nearest to the mean both ways, until nothing is to be seen.
      const nearest = clamp(Math.round((high - mean) / step - 0.5), 0, rows - 1);
      const away = high - (nearest + 0.5) * step - mean;
      const peak = weights[k] * Math.exp((-away * away) / (2 * variance));
      for (const way of [1, -1]) {
        let factor = Math.exp((2 * way * away - step) * step / (2 * variance));
        let value = peak;
        for (let j = nearest; j >= 0 && j < rows && value > 1e-9; j += way) {
          if (way === 1 || j !== nearest) column[j] += value;
          value *= factor;
          factor *= fall;
        }
      }
    });
    const most = Math.max(...column, 1e-12);
    const share = sizeOfData ** 2 / (sizeOfData ** 2 + at.sigma ** 2);
    const [r, g, b] = noise.map((from, c) => Math.round(from + (data[c] - from) * share));
    column.forEach((value, j) => (sheet.words[j * levels.length + i] = (Math.round(150 * (value / most) ** 0.7) << 24) | (b << 16) | (g << 8) | r));
  });
  sheet.put();
  return sheet.canvas;
}

// The times of the steps: lines across a plot, and marks at its foot.
function drawTimes(ctx, points, at, box, theme) {
  ctx.strokeStyle = theme.muted;
  for (const [from, alpha, width] of [[box.y, 0.3, 1], [box.y + box.height - 9, 1, 1.5]]) {
    ctx.globalAlpha = alpha;
    ctx.lineWidth = width;
    ctx.beginPath();
    for (const point of points.slice(0, -1)) segment(ctx, at(point), from, at(point), box.y + box.height);
    ctx.stroke();
  }
  ctx.globalAlpha = 1;
}

const headOf = (ctx, text, { x, y, width }, theme) => words(ctx, text, x, y - 11, theme.ink, `600 12px ${theme.font}`, "left", "middle", width);

const ERRORS = axisOf(LEAST, MOST, true);

// What stays while solver, times and steps change: both plots with all that is written around them, how
// likely x_t is, and the exact solutions.
function drawGround(ctx, state, view, { ways, errors }, theme) {
  chart(ctx, [view.across, view.up], ways, theme, (map) => {
    ctx.imageSmoothingEnabled = true;
    ctx.drawImage(heatOf(state, view), ways.x, ways.y, ways.width, ways.height);
    ctx.strokeStyle = theme.dark ? "#ffffff" : "#000000";
    ctx.lineWidth = 4;
    ctx.lineJoin = "round";
    ctx.globalAlpha = 0.28;
    for (const line of view.lines) {
      trace(ctx, line.map((x, i) => [ways.x + (ways.width * i) / (line.length - 1), map.y(x)]));
      ctx.stroke();
    }
    ctx.globalAlpha = 1;
  }, { foot: false });
  chart(ctx, [view.across, ERRORS], errors, theme, () => {});
  headOf(ctx, view.log ? "x over its standard deviation" : "x over the path\u2019s own time", ways, theme);
  axisNames(ctx, ways, "", view.log ? "x / size" : "x", 10, theme);
  headOf(ctx, "error that each step adds", errors, theme);
  axisNames(ctx, errors, view.log ? "noise level \u03c3 (logarithmic)" : "time t", "", 10, theme);
}

// The steps of all starts: one path, and a dot at each end.
function waysPainter() {
  let [dots, dotsFor] = [null, ""];
  return (ctx, { points, ways }, view, box, ratio, theme) => {
    const radius = points.length > 25 ? 1.8 : 2.8;
    const facts = [radius, ratio, theme.dark].join();
    if (dotsFor !== facts) [dots, dotsFor] = [dotStamp([PALETTE.model], radius, ratio, theme.plot), facts];
    const places = ways.map((way) => way.map((x, i) =>
      [view.at(points[i]), box.y + (1 - view.up.share(x * view.shown(points[i]))) * box.height]));
    ctx.strokeStyle = theme.words.model;
    ctx.lineWidth = 1.5;
    ctx.lineJoin = "round";
    ctx.beginPath();
    for (const way of places) trace(ctx, way, true);
    ctx.stroke();
    dots.clear(box.width, box.height);
    for (const [x, y] of places.flat()) dots.stamp(x - box.x, y - box.y, 0);
    dots.draw(ctx, box);
  };
}

// A bar for each step: as wide as it is long, as high as its error.
function drawErrors(ctx, { points, errors }, view, box) {
  ctx.fillStyle = PALETTE.error;
  errors.forEach((error, i) => {
    const [right, left] = [view.at(points[i]), view.at(points[i + 1])];
    const y = box.y + (1 - ERRORS.share(Math.max(error, LEAST / 2))) * box.height;
    ctx.globalAlpha = 0.55;
    ctx.fillRect(left, y, right - left, box.y + box.height - y);
    ctx.globalAlpha = 1;
    ctx.fillRect(left, y - 1, right - left, 2);
  });
}

// Returns `draw(ctx, boxes, ratio, theme)`.
function painterOf(state) {
  const [under, drawWays] = [backdrop(), waysPainter()];
  let [view, viewFor] = [null, ""];
  return (ctx, boxes, ratio, theme) => {
    const run = state.run();
    const facts = [run.path, state.axis(), state.zoom(), boxes.ways.width, boxes.ways.height].join();
    if (viewFor !== facts) [view, viewFor] = [viewOf(state, boxes.ways), facts];
    under(ctx, ratio, [facts, theme.dark], (own) => drawGround(own, state, view, boxes, theme));
    inside(ctx, boxes.ways, () => {
      drawTimes(ctx, run.points, view.at, boxes.ways, theme);
      drawWays(ctx, run, view, boxes.ways, ratio, theme);
    });
    inside(ctx, boxes.errors, () => {
      drawErrors(ctx, run, view, boxes.errors);
      drawTimes(ctx, run.points, view.at, boxes.errors, theme);
    });
  };
}

// ------------------------------------------------------------------------------------ in writing

const FORMULAS = {
  EDM: "s(t) = 1, \u03c3(t) = t",
  VP: "s(t) = exp(\u2212B/2), \u03c3(t) = \u221a(exp(B) \u2212 1), B the integral of \u03b2",
  VE: "s(t) = 1, \u03c3(t) = \u03c3_min (\u03c3_max / \u03c3_min)^t",
  straight: "s(t) = 1 \u2212 t, \u03c3(t) = t / (1 \u2212 t)"
};

const shortly = (value) => tidy(value < 99.5 ? Number(value.toPrecision(2)) : Math.round(value));

function sentencesOf({ path, solver, calls, steps, errors, points, missed }) {
  const worst = errors.indexOf(Math.max(...errors));
  const [from, to] = [points[worst], points[worst + 1]].map(({ sigma }) => shortly(sigma));
  return [
    `${path}: ${FORMULAS[path]}.`,
    `${solver}, ${steps} steps, ${calls} calls: ends ${shortly(missed)} from the exact solution.`,
    `The worst step goes from \u03c3 = ${from} to ${to} and errs by ${shortly(errors[worst])}.`
  ];
}

const line = (colour, width) => `<path d="M1 7h20" stroke="${colour}" stroke-width="${width}"/>`;
const KEY = [
  [`<path d="M1 7h20" stroke="currentColor" stroke-width="4" opacity="0.35"/>`, "exact"],
  [line(PALETTE.model, 2) + `<circle cx="11" cy="7" r="3.5" fill="${PALETTE.model}"/>`, "the solver\u2019s steps"],
  [`<rect x="3" y="3" width="16" height="9" fill="${PALETTE.error}" opacity="0.7"/>`, "error of a step (root mean square of x / s)"]
];

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const { change, send } = state;
  const paint = painterOf(state);
  const said = element("p", { class: "design-said" });

  const draw = (ctx, { width, ratio }, theme) => {
    paint(ctx, stands(width), ratio, theme);
    say(said, sentencesOf(state.run()).join(" "));
  };
  const view = outline({
    model, el, draw, layout: (width) => stands(width).total, style: STYLE, name: "design", maxWidth: 760
  });
  const [[least, most], [fewest, longest]] = ["rhos", "counts"].map((name) => model.get(name));
  const rho = slider(view, "rho", "\u03c1", { min: least, max: most, text: (value) => value.toFixed(1), change });
  const zoom = slider(view, "log_zoom", "\u03c3 up to", {
    min: Math.log(model.get("least_zoom")), max: Math.log(state.sigma_max), text: (value) => shortly(Math.exp(value)), change,
    title: "The noise level up to which the plot over t is shown"
  });
  view.controls.before(
    row(
      choice(view, "path", "path", model.get("paths").map((name) => [name, name])),
      choice(view, "solver", "solver", model.get("solvers").map((name) => [name, name]))),
    row(
      slider(view, "steps", "steps", { min: fewest, max: longest, step: 1, change }),
      choice(view, "spacing", "times", [
        ["rho", "by \u03c1", "Evenly in \u03c3 to the power 1/\u03c1"], ["even", "even in t", "Equal steps of the path\u2019s own time"]
      ]),
      rho),
    row(choice(view, "axis", "axis", [["t", "t", "The path\u2019s own time, and x itself"], ["log", "log \u03c3", "All levels, and x over its standard deviation"]]), zoom));
  view.controls.after(legend(KEY), hint(
    "Time runs to the right, from the data to the noise; sampling goes to the left. Keys: \u2190 \u2192 one step less or more, \u2191 \u2193 change \u03c1."));
  view.stage.after(said);

  const dim = () => {
    rho.classList.toggle("faint", model.get("spacing") === "even");
    zoom.classList.toggle("faint", model.get("axis") === "log");
  };
  view.follow(["spacing", "axis"], dim, { now: true });
  const stepBy = (sign) => () => change({ steps: clamp(model.get("steps") + sign, fewest, longest) });
  const bendBy = (sign) => (event) => change({ rho: clamp(model.get("rho") + sign * (event.shiftKey ? 0.1 : 0.5), least, most) });
  onKeys(view, { ArrowLeft: stepBy(-1), ArrowRight: stepBy(1), ArrowUp: bendBy(1), ArrowDown: bendBy(-1) });
  view.follow([...CHOSEN, "axis", "log_zoom"], view.redraw);
  view.onStop(send);
  return view.stop;
}

export default { render };
