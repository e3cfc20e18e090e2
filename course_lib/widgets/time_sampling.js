// TimeSampling: a density of training times to drag, and what it makes of the loss.

import { throttledChanges } from "./parts/changes.js";
import { axisOf, chart } from "./parts/chart.js";
import { PALETTE } from "./parts/colours.js";
import { button, choice, row, slider } from "./parts/controls.js";
import { tidy, unpack } from "./parts/data.js";
import { handle } from "./parts/handle.js";
import { onKeys } from "./parts/keys.js";
import { hint, legend, say } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { axisNames, clamp, trace, words } from "./parts/panel.js";
import STYLE from "./time_sampling.css" with { type: "css" };

// -------------------------------------------------------------------------------- the mathematics
// time_sampling.py has the same.

const ROOT = Math.sqrt(2 * Math.PI);

// The u at which the falling map of "mode" gives t: it has no inverse in closed form.
function modeInverse(t, scale) {
  let [low, high, u] = [0, 1, 0.5];
  for (let i = 0; i < 60; i++) {
    u = (low + high) / 2;
    if (1 - u - scale * (Math.cos((Math.PI / 2) * u) ** 2 - 1 + u) > t) low = u;
    else high = u;
  }
  return u;
}

const DENSITIES = {
  "logit-normal": (t, { m, s }) => Math.exp(-(((Math.log(t / (1 - t)) - m) / s) ** 2) / 2) / (s * ROOT * t * (1 - t)),
  mode: (t, { scale }) => 1 / Math.abs(1 + scale * (1 - (Math.PI / 2) * Math.sin(Math.PI * modeInverse(t, scale)))),
  cosmap: (t) => 2 / (Math.PI * (1 - 2 * t + 2 * t * t)),
  uniform: () => 1
};

const timeDensity = (t, given) => DENSITIES[given.sampling](t, given);

// By what the density is divided where the errors of another guess are weighed.
const DIVISORS = { velocity: () => 1, eps: (t) => (1 - t) ** 2, x0: (t) => t * t };

const CELLS = 400;
const MIDDLES = Array.from({ length: CELLS }, (_, i) => (i + 0.5) / CELLS);
const densityOf = (given) => MIDDLES.map((t) => timeDensity(t, given));

// The total variation of two densities: the share of times that lies elsewhere.
const distance = (one, other) => one.reduce((sum, value, i) => sum + Math.abs(value - other[i]), 0) / (2 * CELLS);

// -------------------------------------------------------------------------------------- the state

const MOST = 4; // of the density, on the chart
const PARAMETERS = { "logit-normal": ["m", "s"], mode: ["scale"], cosmap: [], uniform: [] };
const TARGETS = { velocity: ["v", "\u03c0(t)"], eps: ["\u03b5", "\u03c0(t) / (1 \u2212 t)\u00b2"], x0: ["x\u2080", "\u03c0(t) / t\u00b2"] };
const round = (value) => Number(value.toFixed(3));

function stateOf(model) {
  const { times, loss } = unpack(model);
  const ranges = model.get("ranges");
  const { change, send } = throttledChanges(model);
  const measured = model.get("measured").map((given) => ({ ...given, density: densityOf(given) }));
  const given = () => Object.fromEntries(["sampling", "m", "s", "scale"].map((name) => [name, model.get(name)]));
  // Another value of a parameter, within its range.
  const put = (name, value) => change({ [name]: round(clamp(value, ...ranges[name])) });
  const largest = loss.values.reduce((a, b) => Math.max(a, b), 0) || 1;
  const state = { model, times: [...times.values], loss: [...loss.values], largest, ranges, change, send, measured, given, put };
  // Which measured one is nearest, and how far it is.
  state.nearest = (density) => {
    const away = measured.map((one) => distance(one.density, density));
    const least = Math.min(...away);
    return measured.length ? { which: away.indexOf(least), away: least } : null;
  };
  // The point of the density that is dragged: where half of the times lie on either side.
  state.grip = () => {
    const now = given();
    if (now.sampling !== "logit-normal") return now.sampling === "mode" ? 0.5 : null;
    return 1 / (1 + Math.exp(-now.m));
  };
  // The density that goes through a place with that point.
  state.dragTo = (t, height) => {
    if (model.get("sampling") === "mode") {
      put("scale", (1 / clamp(height, 0.1, MOST) - 1) / (1 - Math.PI / 2));
      return;
    }
    const place = clamp(t, 0.01, 0.99);
    put("m", Math.log(place / (1 - place)));
    const own = 1 / (1 + Math.exp(-model.get("m")));
    put("s", 1 / (ROOT * own * (1 - own) * clamp(height, 0.01, MOST)));
  };
  return state;
}

// ------------------------------------------------------------------------------------ the picture

// The density, and beside it or below the loss and the weight.
function stands(width) {
  const beside = width >= 500;
  const left = 44;
  const [top, between] = [22, 68];
  if (beside) {
    const wide = Math.floor((width - 2 * left - 30) / 2);
    const x = left + wide + 20 + left;
    const half = 112;
    const whole = 2 * half + 42;
    return {
      density: { x: left, y: top, width: wide, height: whole }, loss: { x, y: top, width: wide, height: half },
      weight: { x, y: top + half + 42, width: wide, height: half }, total: top + whole + 42
    };
  }
  const wide = width - left - 10;
  const heights = [150, 96, 96];
  const ys = [top, top + 150 + between, top + 150 + 96 + between + 42];
  const [density, loss, weight] = heights.map((height, i) => ({ x: left, y: ys[i], width: wide, height }));
  return { density, loss, weight, total: weight.y + weight.height + 42 };
}

const line = (ctx, places, colour, width = 2, dash = []) => {
  trace(ctx, places);
  ctx.strokeStyle = colour;
  ctx.lineWidth = width;
  ctx.setLineDash(dash);
  ctx.stroke();
  ctx.setLineDash([]);
};

const ACROSS = axisOf(0, 1);
const UP = axisOf(0, MOST);
const WEIGHTS = axisOf(0.01, 100, true);

function drawAll(ctx, state, boxes, theme, density, nearest) {
  const { model, times, loss, largest, measured } = state;
  const heading = (text, box) => words(ctx, text, box.x, box.y - 10, theme.ink, `600 12px ${theme.font}`, "left", "middle", box.width);
  heading("density of training times \u03c0(t)", boxes.density);
  chart(ctx, [ACROSS, UP], boxes.density, theme, (map) => {
    const at = (values) => MIDDLES.map((t, i) => [map.x(t), map.y(Math.min(values[i], 2 * MOST))]);
    measured.forEach((one, k) => {
      const near = k === nearest?.which;
      line(ctx, at(one.density), near ? PALETTE.latent : theme.muted, near ? 2 : 1, near ? [6, 3] : [2, 3]);
    });
    line(ctx, at(density), PALETTE.model, 3);
  });
  axisNames(ctx, boxes.density, "time t (0: data, 1: noise)", "", 0, theme);
  heading("loss at t; dashed: times \u03c0(t)", boxes.loss);
  chart(ctx, [ACROSS, axisOf(0, 1.8 * largest)], boxes.loss, theme, (map) => {
    const given = state.given();
    line(ctx, times.map((t, i) => [map.x(t), map.y(loss[i])]), PALETTE.data, 2.5);
    const seen = times.map((t, i) => [map.x(t), map.y(loss[i] * timeDensity(clamp(t, 1e-4, 1 - 1e-4), given))]);
    line(ctx, seen, PALETTE.model, 2, [6, 3]);
  });
  const target = model.get("target");
  heading(`weight of the loss of ${TARGETS[target][0]}: ${TARGETS[target][1]}`, boxes.weight);
  chart(ctx, [ACROSS, WEIGHTS], boxes.weight, theme, (map) => {
    line(ctx, [[map.x(0), map.y(1)], [map.x(1), map.y(1)]], theme.muted, 1, [2, 3]);
    line(ctx, MIDDLES.map((t, i) => [map.x(t), map.y(Math.max(density[i] / DIVISORS[target](t), 1e-6))]), PALETTE.model, 2.5);
  });
  axisNames(ctx, boxes.weight, "time t", "", 0, theme);
}

// ------------------------------------------------------------------------------------ in writing

// An error has two digits that say something, and what it belongs to no more places than that.
function qualityOf({ quality, error }) {
  const places = error > 0 ? Math.min(Math.max(1 - Math.floor(Math.log10(error)), 0), 12) : 12;
  const [value, off] = [quality, error].map((one) => tidy(Number(one.toFixed(places))));
  return `${value} \u00b1 ${off}`;
}

function sentenceOf({ measured, model }, nearest) {
  if (!nearest) return "No sampling was measured.";
  const { which, away } = nearest;
  const near = away < 0.005 ? "this is" : `nearest is, with ${Math.round(100 * away)} % of its times elsewhere,`;
  return `Of the samplings measured ${near} ${measured[which].name}: ${qualityOf(measured[which])} (${model.get("quality")}).`;
}

const KEY = [["model", "", "the density, and what follows"], ["data", "", "loss at t"], ["latent", "6 3", "nearest measured"]].map(([role, dash, name]) =>
  [`<path d="M1 7h20" stroke="${PALETTE[role]}" stroke-width="2.5" stroke-dasharray="${dash}"/>`, name]);

// -------------------------------------------------------------------------------------- the widget

// The measured samplings, each a button that goes there.
function rowsOf({ measured, model, change }) {
  const nodes = measured.map((one) => button(`${one.name}: ${qualityOf(one)}`, () =>
    change(Object.fromEntries(["sampling", ...PARAMETERS[one.sampling]].map((name) => [name, one[name]])))));
  const node = row(element("span", {}, `Measured after equal training: ${model.get("quality")}`), ...nodes);
  node.classList.add("times-rows");
  return { node, nodes };
}

function render({ model, el }) {
  const state = stateOf(model);
  const { ranges, measured, change, send, given, put } = state;
  const said = element("p", { class: "times-said" });
  const rows = rowsOf(state);
  let boxes = null; // as last drawn
  const draw = (ctx, { width }, theme) => {
    boxes = stands(width);
    const density = densityOf(given());
    const nearest = state.nearest(density);
    drawAll(ctx, state, boxes, theme, density, nearest);
    rows.nodes.forEach((node, k) => node.setAttribute("aria-pressed", String(k === nearest.which)));
    say(said, sentenceOf(state, nearest));
    const at = state.grip();
    grip.node.hidden = at === null;
    if (at === null) return;
    const height = timeDensity(at, given());
    const { density: box } = boxes;
    const names = PARAMETERS[model.get("sampling")].map((name) => `${name} = ${tidy(model.get(name))}`).join(", ");
    grip.stand(box.x + at * box.width, box.y + (1 - Math.min(height, MOST) / MOST) * box.height, height, names);
  };
  const view = outline({ model, el, draw, layout: (width) => stands(width).total, style: STYLE, name: "time-sampling", maxWidth: 820 });
  const grip = handle(view, "Density at its median", {
    colour: PALETTE.model, end: send, range: [0, MOST],
    start: ([x, y]) => {
      const { density: box } = boxes;
      const at = state.grip();
      const [left, top] = [box.x + at * box.width - x, box.y + (1 - Math.min(timeDensity(at, given()), MOST) / MOST) * box.height - y];
      return ([toX, toY]) => state.dragTo((toX + left - box.x) / box.width, MOST * (1 - (toY + top - box.y) / box.height));
    }
  });

  const two = (value) => value.toFixed(2).replace("-", "\u2212");
  const sliders = ["m", "s", "scale"].map((name) => {
    const [min, max] = ranges[name];
    return slider(view, name, { m: "mean m", s: "spread s", scale: "scale s" }[name], { min, max, step: 0.01, text: two, change });
  });
  view.controls.append(row(...sliders));
  const tools = [
    row(choice(view, "sampling", "Times", Object.keys(PARAMETERS).map((name) => [name, name]), { change })),
    row(choice(view, "target", "Weight of the loss of", Object.entries(TARGETS).map(([name, [letter]]) => [name, letter]), { change }), legend(KEY))
  ];
  view.stage.before(tools[0]);
  view.controls.before(said);
  view.controls.after(tools[1], ...(measured.length ? [rows.node] : []), hint(
    "Drag the density by its point, or m and s. A loss at uniform times with the weight shown asks the same of the network as "
    + "the loss of velocities at these times. Keys: \u2190 \u2192 move m, \u2191 \u2193 make the density higher and lower (Shift: finer)."));

  const nudge = (across, up) => (event) => {
    const size = event.shiftKey ? 0.01 : 0.1;
    const sampling = model.get("sampling");
    if (sampling === "logit-normal" && across) put("m", model.get("m") + across * size);
    if (sampling === "logit-normal" && up) put("s", model.get("s") - up * size);
    if (sampling === "mode") put("scale", model.get("scale") + (across || up) * size);
  };
  onKeys(view, { ArrowLeft: nudge(-1, 0), ArrowRight: nudge(1, 0), ArrowUp: nudge(0, 1), ArrowDown: nudge(0, -1) });
  const show = () => {
    const own = PARAMETERS[model.get("sampling")];
    ["m", "s", "scale"].forEach((name, i) => (sliders[i].hidden = !own.includes(name)));
    view.redraw();
  };
  view.follow(["sampling", "m", "s", "scale", "target"], show, { now: true });
  view.onStop(send);
  return view.stop;
}

export default { render };
