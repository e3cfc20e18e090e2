// SolverRace: one start, three solvers of an ODE, as many calls of the field for each.

import { ticks } from "./parts/axes.js";
import { throttledChanges } from "./parts/changes.js";
import { CLASS_COLOURS, PALETTE } from "./parts/colours.js";
import { button, row, slider } from "./parts/controls.js";
import { handle } from "./parts/handle.js";
import { onKeys } from "./parts/keys.js";
import { hint, legend, say } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { axisNames, clamp, inside, panel, segment, trace, words } from "./parts/panel.js";
import STYLE from "./solver_race.css" with { type: "css" };

// -------------------------------------------------------------------------------- the mathematics
// solver_race.py has the same, and the formula.

// The exact velocity of a mixture of Gaussians along a path, at the nodes of its table of times:
// `field(node, x, y)` is [u, v].
function fieldOf({ a, b, da, db }, { means, stds, weights }) {
  const count = means.length;
  const logits = new Float64Array(count);
  const rates = new Float64Array(count);
  const logWeights = weights.map(Math.log);
  return (node, x, y) => {
    const [at, bt, slopeA, slopeB] = [a[node], b[node], da[node], db[node]];
    let most = -Infinity;
    for (let k = 0; k < count; k++) {
      const width = stds[k] * stds[k];
      const variance = at * at * width + bt * bt;
      const [dx, dy] = [x - at * means[k][0], y - at * means[k][1]];
      rates[k] = (at * slopeA * width + bt * slopeB) / variance;
      logits[k] = logWeights[k] - Math.log(variance) - (dx * dx + dy * dy) / (2 * variance);
      most = Math.max(most, logits[k]);
    }
    let [total, u, v] = [0, 0, 0];
    for (let k = 0; k < count; k++) {
      const share = Math.exp(logits[k] - most);
      total += share;
      u += share * (slopeA * means[k][0] + rates[k] * (x - at * means[k][0]));
      v += share * (slopeA * means[k][1] + rates[k] * (y - at * means[k][1]));
    }
    return [u / total, v / total];
  };
}

// One step h from a node to another; `middle` lies between them.
const STEPS = {
  Euler(field, [x, y], h, { from }) {
    const [u, v] = field(from, x, y);
    return [x + h * u, y + h * v];
  },
  Heun(field, [x, y], h, { from, to }) {
    const [u1, v1] = field(from, x, y);
    const [u2, v2] = field(to, x + h * u1, y + h * v1);
    return [x + (h / 2) * (u1 + u2), y + (h / 2) * (v1 + v2)];
  },
  RK4(field, [x, y], h, { from, middle, to }) {
    const [u1, v1] = field(from, x, y);
    const [u2, v2] = field(middle, x + (h / 2) * u1, y + (h / 2) * v1);
    const [u3, v3] = field(middle, x + (h / 2) * u2, y + (h / 2) * v2);
    const [u4, v4] = field(to, x + h * u3, y + h * v3);
    return [x + (h / 6) * (u1 + 2 * u2 + 2 * u3 + u4), y + (h / 6) * (v1 + 2 * v2 + 2 * v3 + v4)];
  }
};

// The places of a solver from the last time to the first, in so many steps.
function wayOf(field, times, name, steps, start) {
  const last = times.length - 1;
  const gap = last / steps;
  const h = (times[0] - times[last]) / steps;
  const places = [start];
  for (let from = last; from > 0; from -= gap) {
    places.push(STEPS[name](field, places.at(-1), h, { from, middle: from - gap / 2, to: from - gap }));
  }
  return places;
}

const apart = ([x, y], [u, v]) => Math.hypot(x - u, y - v);

// -------------------------------------------------------------------------------------- the state

const LEAST = 1e-10; // of an error that is drawn

function stateOf(model) {
  const [path, means, stds, weights, extent, choices] =
    ["path", "means", "stds", "weights", "extent", "choices"].map((name) => model.get(name));
  const [x0, x1, y0, y1] = extent;
  const field = fieldOf(path, { means, stds, weights });
  const { change, send } = throttledChanges(model);
  const solvers = model.get("solvers").map(([name, each, colour]) => ({ name, each, colour }));
  let known = {}; // for the start it was computed from
  const race = () => {
    const start = model.get("start");
    if (known.start === start) return known;
    const reference = wayOf(field, path.times, "RK4", (path.times.length - 1) / 2, start);
    const ways = solvers.map(({ name, each }) => choices.map((calls) => wayOf(field, path.times, name, calls / each, start)));
    const errors = ways.map((byCalls) => byCalls.map((way) => Math.max(apart(way.at(-1), reference.at(-1)), LEAST)));
    known = { start, reference, ways, errors };
    return known;
  };
  const moveTo = (x, y) => change({ start: [clamp(x, x0, x1), clamp(y, y0, y1)] });
  // A place where the noise may well be.
  const another = () => {
    const [size, angle] = [path.b.at(-1) * Math.sqrt(-2 * Math.log(1 - 0.95 * Math.random())), 2 * Math.PI * Math.random()];
    moveTo(size * Math.cos(angle), size * Math.sin(angle));
    send();
  };
  const level = () => model.get("level");
  return { means, stds, extent, choices, solvers, noise: path.b.at(-1), race, moveTo, another, level, change, send };
}

// ------------------------------------------------------------------------------------- in writing

const powerOf = (k) => `10${String(k).replace("-", "\u207b").replace(/\d/g, (digit) => "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"[digit])}`;

function errorText(error) {
  if (error <= LEAST) return "0";
  if (error >= 0.001) return error.toPrecision(2);
  const k = Math.floor(Math.log10(error));
  return `${(error / 10 ** k).toFixed(1)} \u00b7 ${powerOf(k)}`;
}

// ------------------------------------------------------------------------------------ the picture

const coloursOf = (solvers, theme) => solvers.map(({ colour }) => CLASS_COLOURS[theme.dark ? "dark" : "light"][colour]);

// The plane, and the errors beside it or, where there is no room, below it.
function stands(width) {
  const beside = width >= 560;
  const half = beside ? (width - 16) / 2 : width;
  const side = Math.floor(Math.min(half - 44, 380));
  const plot = { x: 36, y: 8, width: side, height: side };
  const errors = {
    x: (beside ? half + 16 : 0) + 58, y: beside ? 8 : side + 46, width: half - 68, height: beside ? side - 14 : 170
  };
  return { plot, errors, total: errors.y + errors.height + 40 };
}

// A square, a triangle or a dot, as a path: a solver is known without its colour.
const MARKS = {
  Euler: (ctx, x, y, r) => ctx.rect(x - 0.9 * r, y - 0.9 * r, 1.8 * r, 1.8 * r),
  Heun: (ctx, x, y, r) => {
    trace(ctx, [[x, y - 1.2 * r], [x + 1.15 * r, y + 0.8 * r], [x - 1.15 * r, y + 0.8 * r]], true);
    ctx.closePath();
  },
  RK4: (ctx, x, y, r) => {
    ctx.moveTo(x + r, y);
    ctx.arc(x, y, r, 0, 2 * Math.PI);
  }
};

const SIGNS = {
  Euler: '<rect x="7" y="3" width="8" height="8" fill="currentColor"/>',
  Heun: '<path d="M11 2L16 11H6z" fill="currentColor"/>',
  RK4: '<circle cx="11" cy="7" r="4.5" fill="currentColor"/>'
};

// A line with a mark at each of its places.
function marked(ctx, places, name, colour, radius, theme) {
  ctx.strokeStyle = colour;
  ctx.lineWidth = 1.5;
  ctx.lineJoin = "round";
  trace(ctx, places);
  ctx.stroke();
  ctx.beginPath();
  for (const [x, y] of places) MARKS[name](ctx, x, y, radius);
  ctx.lineWidth = 1;
  ctx.strokeStyle = theme.plot;
  ctx.stroke();
  ctx.fillStyle = colour;
  ctx.fill();
}

function drawPlaces(ctx, { means, stds, extent, solvers, noise, level }, { reference, ways }, box, theme) {
  const unit = box.width / (extent[1] - extent[0]);
  return panel(ctx, extent, box, theme, (map) => {
    const onCanvas = ([x, y]) => [map.x(x), map.y(y)];
    ctx.fillStyle = PALETTE.data;
    for (const [width, alpha] of [[2, 0.18], [1, 0.25]]) {
      ctx.globalAlpha = alpha;
      means.forEach((mean, k) => {
        ctx.beginPath();
        ctx.arc(...onCanvas(mean), Math.max(width * stds[k] * unit, 1.5), 0, 2 * Math.PI);
        ctx.fill();
      });
    }
    ctx.globalAlpha = 1;
    ctx.strokeStyle = PALETTE.noise;
    ctx.lineWidth = 1;
    ctx.setLineDash([3, 4]);
    ctx.beginPath();
    ctx.arc(...onCanvas([0, 0]), 2 * noise * unit, 0, 2 * Math.PI);
    ctx.stroke();
    ctx.setLineDash([]);
    ctx.globalAlpha = 0.55;
    ctx.lineWidth = 6;
    ctx.lineJoin = ctx.lineCap = "round";
    trace(ctx, reference.map(onCanvas));
    ctx.stroke();
    ctx.globalAlpha = 1;
    coloursOf(solvers, theme).forEach((colour, i) => {
      const places = ways[i][level()].map(onCanvas);
      marked(ctx, places, solvers[i].name, colour, places.length > 24 ? 2 : 3.5, theme);
    });
    ctx.strokeStyle = theme.ink;
    ctx.lineWidth = 1.5;
    ctx.beginPath();
    ctx.arc(...onCanvas(reference.at(-1)), 8, 0, 2 * Math.PI);
    ctx.stroke();
  });
}

function drawErrors(ctx, { choices, solvers, level }, errors, box, theme) {
  const all = errors.flat().map(Math.log10);
  const [low, high] = [Math.floor(Math.min(...all)), Math.max(Math.ceil(Math.max(...all)), Math.floor(Math.min(...all)) + 1)];
  const [first, last] = [Math.log2(choices[0]) - 0.35, Math.log2(choices.at(-1)) + 0.35];
  const toX = (calls) => box.x + ((Math.log2(calls) - first) / (last - first)) * box.width;
  const toY = (error) => box.y + ((high - Math.log10(error)) / (high - low)) * (box.height - 16) + 8;
  const font = `11px ${theme.font}`;
  ctx.fillStyle = theme.plot;
  ctx.fillRect(box.x, box.y, box.width, box.height);
  inside(ctx, box, () => {
    ctx.strokeStyle = theme.line;
    ctx.lineWidth = 1;
    ctx.beginPath();
    for (let k = low; k <= high; k++) segment(ctx, box.x, Math.round(toY(10 ** k)) + 0.5, box.x + box.width, Math.round(toY(10 ** k)) + 0.5);
    ctx.stroke();
    ctx.strokeStyle = theme.accent;
    ctx.lineWidth = 1.5;
    ctx.beginPath();
    segment(ctx, toX(choices[level()]), box.y, toX(choices[level()]), box.y + box.height);
    ctx.stroke();
    coloursOf(solvers, theme).forEach((colour, i) => {
      const places = errors[i].map((error, k) => [toX(choices[k]), toY(error)]);
      marked(ctx, places, solvers[i].name, colour, 3, theme);
      marked(ctx, [places[level()]], solvers[i].name, colour, 5.5, theme);
    });
  });
  ctx.strokeStyle = theme.line;
  ctx.strokeRect(box.x + 0.5, box.y + 0.5, box.width - 1, box.height - 1);
  for (const k of ticks(low, high).filter(Number.isInteger)) words(ctx, powerOf(k), box.x - 6, toY(10 ** k), theme.muted, font, "right");
  for (const calls of choices) words(ctx, String(calls), toX(calls), box.y + box.height + 11, theme.muted, font, "center");
  axisNames(ctx, box, "calls of the field", "error at the end", box.x - 44, theme);
}

// What each solver makes of its calls, in words.
function resultsOf(solvers) {
  const told = solvers.map(() => element("span"));
  const node = legend(solvers.map(({ name }, i) => [SIGNS[name], told[i]]));
  node.classList.add("race-key");
  const write = (calls, errors, theme) => solvers.forEach(({ name, each }, i) => {
    const steps = calls / each;
    say(told[i], `${name}: ${steps} ${steps === 1 ? "step" : "steps"}, error ${errorText(errors[i])}`);
    told[i].parentElement.querySelector("svg").style.color = coloursOf(solvers, theme)[i];
  });
  return { node, write };
}

// -------------------------------------------------------------------------------------- the widget

const written = (value) => value.toFixed(2).replace("-", "\u2212");

function render({ model, el }) {
  const state = stateOf(model);
  const { extent, choices, solvers, level, moveTo, change, send } = state;
  const results = resultsOf(solvers);
  let map = null; // of the plane, as last drawn

  const draw = (ctx, { width }, theme) => {
    const boxes = stands(width);
    const found = state.race();
    map = drawPlaces(ctx, state, found, boxes.plot, theme);
    drawErrors(ctx, state, found.errors, boxes.errors, theme);
    const [x, y] = found.start;
    grip.stand(map.x(x), map.y(y), x, `(${written(x)}, ${written(y)})`);
    results.write(choices[level()], found.errors.map((byCalls) => byCalls[level()]), theme);
  };
  const view = outline({
    model, el, draw, layout: (width) => stands(width).total, style: STYLE, name: "race", maxWidth: 760
  });
  const grip = handle(view, "Start", {
    shape: "diamond race-start", colour: PALETTE.noise, range: extent.slice(0, 2), end: send,
    start: ([x, y]) => {
      const [atX, atY] = model.get("start");
      const [left, top] = [map.x(atX) - x, map.y(atY) - y];
      return ([toX, toY]) => moveTo(...map.toPlane(toX + left, toY + top));
    }
  });
  const nudge = (right, up) => (event) => {
    const by = ((extent[1] - extent[0]) * (event.shiftKey ? 1 : 5)) / 400;
    const [x, y] = model.get("start");
    moveTo(x + by * right, y + by * up);
  };
  onKeys(view, {
    ArrowLeft: nudge(-1, 0), ArrowRight: nudge(1, 0), ArrowUp: nudge(0, 1), ArrowDown: nudge(0, -1)
  });

  view.controls.before(results.node);
  view.controls.append(
    slider(view, "level", "calls", { max: choices.length - 1, step: 1, text: (k) => String(choices[k]), change }));
  view.controls.after(row(
    button("Another start", state.another, { title: "A place where the noise may well be" }),
    button("Reset", () => {
      moveTo(...model.get("first"));
      send();
    }, { class: "cw-quiet", title: "Bring back the first start" })));
  view.root.append(hint(
    "Drag the start, or move it with the arrow keys (Shift: finer). Grey is the fine reference, the ring its end, the dashed circle two " +
    "standard deviations of the noise; blue are the data. With equal calls, RK4\u2019s steps are four times as long as Euler\u2019s."));
  view.follow(["start", "level"], view.redraw);
  view.onStop(send);
  return view.stop;
}

export default { render };
