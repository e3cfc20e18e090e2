// SameNoise: one picture at two sizes, noised until both look equally destroyed.

import { throttledChanges } from "./parts/changes.js";
import { axisOf, chart } from "./parts/chart.js";
import { PALETTE } from "./parts/colours.js";
import { button, row, slider, toggle } from "./parts/controls.js";
import { unpack } from "./parts/data.js";
import { drag } from "./parts/drag.js";
import { handle } from "./parts/handle.js";
import { onKeys } from "./parts/keys.js";
import { standardNoise } from "./parts/noise.js";
import { hint, say } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { axisNames, clamp, trace, words } from "./parts/panel.js";
import { drawTile, imageStack } from "./parts/pixels.js";
import STYLE from "./same_noise.css" with { type: "css" };

// -------------------------------------------------------------------------------- the mathematics
// same_noise.py has the same, and the formulas.

const shifted = (t, ratio) => (Math.sqrt(ratio) * t) / (1 + (Math.sqrt(ratio) - 1) * t);
const deviation = (t, side) => t / (1 - t) / side; // side = root of the number of pixels

// (1 − t) x + t ε, into `out`.
function noised(x, eps, t, out) {
  for (let i = 0; i < x.length; i++) out[i] = (1 - t) * x[i] + t * eps[i];
  return out;
}

// Images [channels, side, side], squares of `by` pixels averaged.
function averaged(values, channels, side, by) {
  const small = side / by;
  const out = new Float32Array(channels * small * small);
  for (let i = 0; i < values.length; i++) {
    const [plane, at] = [Math.floor(i / (side * side)), i % (side * side)];
    const cell = Math.floor(Math.floor(at / side) / by) * small + Math.floor((at % side) / by);
    out[plane * small * small + cell] += values[i] / (by * by);
  }
  return out;
}

// -------------------------------------------------------------------------------------- the state

const TIMES = ["t", "t_large"];

function stateOf(model) {
  const arrays = unpack(model);
  const most = model.get("most_t");
  const limit = model.get("limit");
  const { change, send } = throttledChanges(model);
  const pictures = ["small", "large"].map((name) => {
    const { values, shape } = arrays[name];
    return { clean: values.map((value) => (2 * value) / 255 - 1), side: shape.at(-1), out: new Float32Array(values.length), stack: imageStack([1, ...shape]) };
  });
  const [small, large] = pictures;
  small.coarse = imageStack([1, ...arrays.small.shape]); // the large one, averaged
  const channels = small.clean.length / small.side ** 2;
  let [seed, eps] = [null, null];
  const state = { model, pictures, ratio: model.get("ratio"), change, send, most };
  state.put = (k, t) => change({ [TIMES[k]]: Number(clamp(t, 0, most).toFixed(4)) });
  state.time = (k) => model.get(TIMES[k]);
  state.answer = () => shifted(model.get("t"), state.ratio);
  // What is drawn for the small picture (0) or the large one (1).
  state.sheet = (k) => {
    if (seed !== model.get("seed")) {
      seed = model.get("seed");
      const all = standardNoise(seed, small.clean.length + large.clean.length);
      eps = [all.slice(0, small.clean.length), all.slice(small.clean.length)];
    }
    const { clean, side, out, stack } = pictures[k];
    noised(clean, eps[k], state.time(k), out);
    const coarse = k === 1 && model.get("averaged");
    const shown = coarse ? averaged(out, channels, side, side / small.side) : out;
    const to = coarse ? small.coarse : stack;
    to.paint(shown.map((value) => (255 * (value + limit)) / (2 * limit)));
    return to;
  };
  return state;
}

// ------------------------------------------------------------------------------------ the picture

const GAP = 12;
const NAME = 22;
const AXIS = 36;

// Both pictures, and beside them or below the plot of t' over t.
function stands(width) {
  const beside = width >= 600;
  const side = Math.floor(beside ? (width - 2 * GAP - AXIS - 14) / 3 : (width - GAP) / 2);
  const tiles = [0, 1].map((k) => ({ x: k * (side + GAP), y: NAME, width: side, height: side }));
  const plot = beside
    ? { x: 2 * (side + GAP) + AXIS, y: NAME, width: width - 2 * (side + GAP) - AXIS - 12, height: side - 2 }
    : { x: AXIS, y: NAME + side + 32, width: Math.min(width - AXIS - 12, 240), height: 150 };
  return { tiles, plot, total: plot.y + plot.height + 42 };
}

const AXES = [axisOf(0, 1), axisOf(0, 1)];
const GRID = Array.from({ length: 101 }, (_, i) => i / 100);

function drawPlot(ctx, state, box, theme) {
  words(ctx, "t\u2032 of the large one", box.x, box.y - 11, theme.ink, `600 12px ${theme.font}`, "left", "middle", box.width);
  chart(ctx, AXES, box, theme, (map) => {
    const line = (of, colour, width, dash) => {
      trace(ctx, GRID.map((t) => [map.x(t), map.y(of(t))]));
      ctx.strokeStyle = colour;
      ctx.lineWidth = width;
      ctx.setLineDash(dash);
      ctx.stroke();
      ctx.setLineDash([]);
    };
    line((t) => t, theme.muted, 1.5, [3, 3]);
    if (state.model.get("revealed")) line((t) => shifted(t, state.ratio), PALETTE.model, 3, []);
  });
  axisNames(ctx, box, "t of the small one", "", 0, theme);
}

const plain = (side) => `${side} \u00d7 ${side}`;

function drawAll(ctx, state, { tiles, plot }, theme) {
  tiles.forEach((box, k) => {
    const { canvas, size } = state.sheet(k);
    drawTile(ctx, canvas, 0, size, box, theme.line);
    const averages = k === 1 && state.model.get("averaged") ? ", averaged" : "";
    words(ctx, `${plain(state.pictures[k].side)} at ${"t" + "\u2032".repeat(k)} = ${state.time(k).toFixed(2)}${averages}`, box.x, 11, theme.ink,
      `600 12px ${theme.font}`, "left", "middle", box.width);
  });
  drawPlot(ctx, state, plot, theme);
}

// ------------------------------------------------------------------------------------ in writing

const three = (value) => Number(value.toPrecision(3)).toString();

function sentenceOf(state) {
  const [small, large] = state.pictures.map(({ side }, k) => `\u00b1 ${three(deviation(state.time(k), side))}`);
  const uncertain = `The average of all pixels is known to ${small} in the small picture, to ${large} in the large one: t / (1 \u2212 t) / \u221aN. `;
  if (!state.model.get("revealed")) return `${uncertain}Drag t\u2032 until both look equally destroyed, then ask the formula.`;
  const [answer, off] = [state.answer(), state.time(1) - state.answer()];
  const yours = Math.abs(off) < 0.005 ? "yours is the same" : `yours is ${Math.abs(off).toFixed(2)} ${off < 0 ? "below" : "above"} it`;
  return `${uncertain}The formula makes both the same at t\u2032 = ${answer.toFixed(2)}; ${yours}.`;
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const { change, send, put, time, most } = state;
  const said = element("p", { class: "sizes-said" });
  let boxes = null; // as last drawn
  const draw = (ctx, { width }, theme) => {
    boxes = stands(width);
    drawAll(ctx, state, boxes, theme);
    say(said, sentenceOf(state));
    const { plot } = boxes;
    grip.stand(plot.x + time(0) * plot.width, plot.y + (1 - time(1)) * plot.height, time(1), `t = ${time(0).toFixed(2)}, t\u2032 = ${time(1).toFixed(2)}`);
  };
  const view = outline({ model, el, draw, layout: (width) => stands(width).total, style: STYLE, name: "same-noise", maxWidth: 820 });
  const grip = handle(view, "Both times", {
    colour: PALETTE.model, end: send, range: [0, most],
    start: () => ([x, y]) => {
      const { plot } = boxes;
      put(0, (x - plot.x) / plot.width);
      put(1, 1 - (y - plot.y) / plot.height);
    }
  });
  // A picture is a slider of its time, too.
  const over = ([x, y]) => boxes.tiles.findIndex((box) => x >= box.x && x <= box.x + box.width && y >= box.y && y <= box.y + box.height);
  drag(view.canvas, {
    focus: view.root, end: send,
    start: (place) => {
      const k = over(place);
      if (k < 0) return null;
      const [from, at] = [place[0], time(k)];
      return ([x]) => put(k, at + (x - from) / boxes.tiles[k].width);
    },
    hover: (place) => (view.canvas.style.cursor = over(place) < 0 ? "" : "ew-resize")
  });

  const two = (value) => value.toFixed(2);
  view.controls.append(
    slider(view, "t", "t, small", { max: most, step: 0.01, text: two, change }),
    slider(view, "t_large", "t\u2032, large", { max: most, step: 0.01, text: two, change }));
  const goThere = button("Go to the formula\u2019s t\u2032", () => {
    put(1, state.answer());
    change({ revealed: true });
  });
  view.controls.classList.add("cw-row");
  view.stage.after(said);
  view.controls.after(row(
    toggle(view, "revealed", "Show the formula\u2019s t\u2032"), goThere, toggle(view, "averaged", "Average the large one"),
    button("New noise", () => change({ seed: (model.get("seed") + 1) % 2 ** 32 }))
  ), hint("Drag a picture to the side to change its time, or the point in the plot to change both. Keys: \u2190 \u2192 move t\u2032, \u2191 \u2193 move t (Shift: finer)."));
  const nudge = (k, sign) => (event) => put(k, time(k) + sign * (event.shiftKey ? 0.01 : 0.05));
  onKeys(view, { ArrowLeft: nudge(1, -1), ArrowRight: nudge(1, 1), ArrowUp: nudge(0, 1), ArrowDown: nudge(0, -1) });
  view.follow(["t", "t_large", "seed", "averaged", "revealed"], view.redraw);
  view.onStop(send);
  return view.stop;
}

export default { render };
