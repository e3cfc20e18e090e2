// Preconditioning: what a network sees and must say at each noise level, with factors and without.

import { throttledChanges } from "./parts/changes.js";
import { axisOf, chart } from "./parts/chart.js";
import { MAPS, PALETTE } from "./parts/colours.js";
import { row, slider } from "./parts/controls.js";
import { tidy, unpack } from "./parts/data.js";
import { drag } from "./parts/drag.js";
import { onKeys } from "./parts/keys.js";
import { hint, legend, mapStrip, say } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { arrow, axisNames, clamp, dot, segment, trace, words } from "./parts/panel.js";
import { drawTile, pixelSheet } from "./parts/pixels.js";
import STYLE from "./preconditioning.css" with { type: "css" };

// -------------------------------------------------------------------------------- the mathematics
// preconditioning.py has the same, and the formulas.

// [c_skip, c_out, c_in] of each way, for the guess of x_0: c_skip x + c_out F(c_in x).
const FACTORS = {
  preconditioned: (sigma, ofData) => {
    const size = Math.hypot(sigma, ofData);
    return [(ofData / size) ** 2, (sigma * ofData) / size, 1 / size];
  },
  eps: (sigma) => [1, -sigma, 1],
  x0: () => [0, 1, 1]
};

// By what x_0 and eps are multiplied in what the network sees, and in what it must say.
function sharesAt(way, sigma, ofData) {
  const [skip, out, scale] = FACTORS[way](sigma, ofData);
  return { sees: [scale, scale * sigma], says: [(1 - skip) / out, (-skip * sigma) / out], passed: Math.abs(out) };
}

// The means of x_0², x_0 eps and eps²: all that is needed to know the size of any mixture.
function momentsOf(x0, eps) {
  let [xx, xe, ee] = [0, 0, 0];
  x0.forEach((x, i) => {
    xx += x * x;
    xe += x * eps[i];
    ee += eps[i] * eps[i];
  });
  return [xx, xe, ee].map((sum) => sum / x0.length);
}

const sizeOf = ([x, e], [xx, xe, ee]) => Math.sqrt(Math.max(0, x * x * xx + 2 * x * e * xe + e * e * ee));

// The three numbers that are drawn over the levels.
function sizesAt(way, sigma, ofData, moments) {
  const { sees, says, passed } = sharesAt(way, sigma, ofData);
  return [sizeOf(sees, moments), sizeOf(says, moments), passed];
}

const shortly = (value) => tidy(value < 99.5 ? Number(value.toPrecision(2)) : Math.round(value));
// With two decimals where there is room for them.
const written = (size) => (size < 9.95 ? size.toFixed(2) : shortly(size));

// -------------------------------------------------------------------------------------- the state

// How each way is called, drawn and written.
const WAYS = [
  { key: "preconditioned", name: "preconditioned", role: "model", dash: [] },
  { key: "eps", name: "eps, plainly", role: "noise", dash: [6, 4] },
  { key: "x0", name: "x\u2080, plainly", role: "data", dash: [2, 3] }
];

function stateOf(model) {
  const { images, eps } = unpack(model);
  const [ofData, sigma_min, sigma_max, limit, shown] =
    ["sigma_data", "sigma_min", "sigma_max", "limit", "shown"].map((name) => model.get(name));
  const { change, send } = throttledChanges(model);
  const [, rows, columns] = images.shape;
  const moments = momentsOf(images.values, eps.values);
  const sheets = WAYS.map(() => ["sees", "says"].map(() => pixelSheet(columns, rows * shown)));
  const levels = new Float32Array(rows * columns * shown);
  const paint = ({ canvas, paint: put }, [x, e]) => {
    for (let i = 0; i < levels.length; i++) {
      levels[i] = (255 * (x * images.values[i] + e * eps.values[i] + limit)) / (2 * limit);
    }
    put(levels);
    return canvas;
  };
  const sigma = () => Math.exp(model.get("log_sigma"));
  const goTo = (value) => change({ log_sigma: Math.log(clamp(value, sigma_min, sigma_max)) });
  return { ofData, sigma_min, sigma_max, limit, shown, rows, columns, moments, sheets, paint, sigma, goTo, change, send };
}

// ------------------------------------------------------------------------------------ the picture

const GAP = 3; // between tiles
const BETWEEN = 30; // between what is seen and what is said
const PLOTS = [
  { name: "size of what it sees", low: 0.3, high: 200 },
  { name: "size of what it must say", low: 0.1, high: 10 },
  { name: "how its errors count in x\u2080", low: 0.001, high: 200 }
];

// The tiles, and beside them or below the three plots.
function stands(width, { shown, rows, columns }) {
  const beside = width >= 600;
  const room = beside ? Math.min(0.5 * width, 390) : width;
  const wide = clamp(Math.floor((room - BETWEEN - 4) / (2 * shown)) - GAP, 12, 64);
  const high = Math.round((wide * rows) / columns);
  const half = shown * (wide + GAP);
  const tiles = { x: 2, y: 4, wide, high, half, right: 2 + half + BETWEEN, step: high + 30 };
  const left = (beside ? tiles.right + half + 14 : 0) + 40;
  const start = beside ? 20 : tiles.y + 3 * tiles.step + 20;
  const height = beside ? Math.max(Math.round((3 * tiles.step - 82) / 3), 56) : 62;
  const plots = PLOTS.map((_, i) => ({ x: left, y: start + i * (height + 23), width: width - left - 10, height }));
  return { tiles, plots, total: Math.max(plots[2].y + height + 38, tiles.y + 3 * tiles.step) };
}

function drawTiles(ctx, state, { x, y, wide, high, half, right, step }, theme) {
  const { ofData, shown, rows, columns, moments, sheets, sigma } = state;
  const font = `12px ${theme.font}`;
  WAYS.forEach(({ key, name, role }, i) => {
    const { sees, says } = sharesAt(key, sigma(), ofData);
    const top = y + i * step + 20;
    words(ctx, `${name}: sees ${written(sizeOf(sees, moments))}`, x, top - 10, theme.words[role], `600 ${font}`, "left", "middle", half + BETWEEN - 8);
    words(ctx, `must say ${written(sizeOf(says, moments))}`, right, top - 10, theme.words[role], `600 ${font}`, "left", "middle", half);
    [sees, says].forEach((shares, side) => {
      const sheet = state.paint(sheets[i][side], shares);
      for (let k = 0; k < shown; k++) {
        const box = { x: (side ? right : x) + k * (wide + GAP), y: top, width: wide, height: high };
        drawTile(ctx, sheet, k, [rows, columns], box, theme.line);
      }
    });
    arrow(ctx, [right - BETWEEN + 3, top + high / 2], [right - 7, top + high / 2], theme.muted, theme, { line: 1.5, most: 8 });
  });
}

// One of the three numbers over all levels, for each way. Returns the axis of the levels.
function drawCurves(ctx, state, which, box, theme) {
  const { ofData, sigma_min, sigma_max, moments, sigma } = state;
  const { name, low, high } = PLOTS[which];
  const across = axisOf(sigma_min, sigma_max, true);
  const numberAt = (way, level) => sizesAt(way, level, ofData, moments)[which];
  const count = Math.ceil(box.width / 3);
  const levels = Array.from({ length: count + 1 }, (_, i) => across.value(i / count));
  chart(ctx, [across, axisOf(low, high, true)], box, theme, (map) => {
    ctx.strokeStyle = theme.accent;
    ctx.lineWidth = 1.5;
    ctx.beginPath();
    segment(ctx, map.x(sigma()), box.y, map.x(sigma()), box.y + box.height);
    ctx.stroke();
    for (const { key, role, dash } of WAYS) {
      trace(ctx, levels.map((level) => [map.x(level), map.y(numberAt(key, level))]));
      ctx.strokeStyle = PALETTE[role];
      ctx.lineWidth = role === "model" ? 3 : 2;
      ctx.setLineDash(dash);
      ctx.stroke();
      ctx.setLineDash([]);
    }
    for (const { key, role } of WAYS.toReversed()) dot(ctx, map.x(sigma()), map.y(numberAt(key, sigma())), 4, PALETTE[role], theme.plot);
  }, { foot: which === 2 });
  words(ctx, name, box.x, box.y - 9, theme.ink, `600 12px ${theme.font}`, "left", "middle", box.width);
  if (which === 2) axisNames(ctx, box, "noise level \u03c3", "", 0, theme);
  return across;
}

// ------------------------------------------------------------------------------------ in writing

function sentenceOf({ ofData, moments, sigma }) {
  const level = sigma();
  const passed = WAYS.map(({ key }) => shortly(sizesAt(key, level, ofData, moments)[2]));
  const [skip, out, scale] = FACTORS.preconditioned(level, ofData).map((value) => shortly(value));
  return `At \u03c3 = ${shortly(level)}: c_skip = ${skip}, c_out = ${out}, c_in = ${scale}. If the network errs by 1, ` +
    `the guess of x\u2080 errs by ${passed[0]} preconditioned, by ${passed[1]} where it says eps, by ${passed[2]} where it says x\u2080.`;
}

const KEY = WAYS.map(({ name, role, dash }) =>
  [`<path d="M1 7h20" stroke="${PALETTE[role]}" stroke-width="2.5" stroke-dasharray="${dash.join(" ")}"/>`, name]);

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const { sigma_min, sigma_max, limit, sigma, goTo, change, send } = state;
  const said = element("p", { class: "precond-said" });
  let [boxes, across] = [null, null]; // as last drawn

  const draw = (ctx, { width }, theme) => {
    boxes = stands(width, state);
    drawTiles(ctx, state, boxes.tiles, theme);
    for (const which of [0, 1, 2]) across = drawCurves(ctx, state, which, boxes.plots[which], theme);
    say(said, sentenceOf(state));
  };
  const view = outline({
    model, el, draw, layout: (width) => stands(width, state).total, style: STYLE, name: "precond", maxWidth: 820
  });
  // The plots are a slider, too.
  const over = ([x, y]) => boxes.plots.some((box) =>
    x >= box.x && x <= box.x + box.width && y >= box.y && y <= box.y + box.height);
  drag(view.canvas, {
    focus: view.root, end: send,
    start: (place) => {
      if (!over(place)) return null;
      const [box] = boxes.plots;
      const move = ([x]) => goTo(across.value((x - box.x) / box.width));
      move(place);
      return move;
    },
    hover: (place) => (view.canvas.style.cursor = over(place) ? "ew-resize" : "")
  });

  view.controls.append(slider(view, "log_sigma", "noise level \u03c3", {
    min: Math.log(sigma_min), max: Math.log(sigma_max), text: (value) => shortly(Math.exp(value)), change
  }));
  const signed = (value) => String(value).replace("-", "\u2212");
  const tools = row(legend(KEY), mapStrip(MAPS.grey, signed(-limit), signed(limit)));
  tools.classList.add("precond-key");
  view.stage.after(said);
  view.controls.after(tools, hint(
    "Drag \u03c3, by the slider or in the plots. Numbers are sizes, roots of the mean square over all of the given images; in the " +
    "pictures what lies beyond the ends of the scale is black or white. Keys: \u2190 \u2192 move \u03c3 (Shift: finer)."));
  const nudge = (sign) => (event) => goTo(sigma() * 10 ** ((sign * (event.shiftKey ? 1 : 5)) / 50));
  onKeys(view, { ArrowLeft: nudge(-1), ArrowRight: nudge(1), ArrowDown: nudge(-1), ArrowUp: nudge(1) });
  view.follow(["log_sigma"], view.redraw);
  view.onStop(send);
  return view.stop;
}

export default { render };
