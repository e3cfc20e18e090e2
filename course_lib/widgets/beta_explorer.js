// BetaExplorer: one slider over models that differ in β; their plane, their images and their costs.

import { drawDigits, plane } from "./parts/axes.js";
import { CLASS_COLOURS, PALETTE } from "./parts/colours.js";
import { row, toggle } from "./parts/controls.js";
import { tidy, unpack } from "./parts/data.js";
import { drag } from "./parts/drag.js";
import { say } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { axisNames, clamp, dot, panel, trace, words } from "./parts/panel.js";
import { pixelSheet } from "./parts/pixels.js";
import { clockOf, playerBar } from "./parts/player.js";
import STYLE from "./beta_explorer.css" with { type: "css" };

// -------------------------------------------------------------------------------------- the state

// The range of the values and a share of it on either side.
function widened(values, below, above) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return [low - (below * (high - low) || 1), high + (above * (high - low) || 1)];
}

function stateOf(model) {
  const arrays = unpack(model);
  const [betas, rates, distortions, extents] =
    ["betas", "rates", "distortions", "extents"].map((name) => model.get(name));
  const [count, rows, columns] = arrays.originals.shape;
  const clock = clockOf(model);
  return {
    arrays, betas, rates, distortions, count, rows, columns, clock,
    labels: [...arrays.classes.values],
    samples: arrays.samples.shape[1],
    limits: [...widened(rates, 0.072, 0.12), ...widened(distortions, 0.15, 0.15)], // of the curve
    extent: (index) => (model.get("fit") ? extents[index] : Math.max(...extents)),
    shown: () => clamp(clock.shown(), 0, betas.length - 1)
  };
}

// Where everything stands: the test images side by side, the samples below them.
function stands(width, { rows, columns, count, samples }) {
  const beside = width >= 560;
  const gap = 22;
  const half = beside ? (width - gap) / 2 : width;
  const [head, left, foot, table] = [40, 34, 26, 84];
  const side = Math.floor(Math.min(half - left - 8, 380));
  const plot = { x: left, y: head, width: side, height: side };
  const below = head + side + foot;
  const curve = {
    x: (beside ? half + gap : 0) + 52, y: beside ? head : below + head, width: half - 54,
    height: beside ? side - table - 14 : 190
  };
  const costs = { x: curve.x, y: curve.y + curve.height + 46, width: curve.width };
  const room = (width + 4) / count - 4;
  const whole = Math.floor(Math.min(room, 60) / columns);
  const cell = whole >= 1 ? whole : room / columns; // all pixels equally large, where they can be
  const tile = { width: cell * columns, height: cell * rows, smooth: whole < 1 };
  const top = (beside ? below : costs.y + table) + 12;
  const images = { x: 0, y: top + 20 };
  const decoded = { x: 0, y: images.y + tile.height + 4 };
  const drawn = { x: 0, y: decoded.y + tile.height + 32 };
  const total = drawn.y + Math.ceil(samples / count) * (tile.height + 4);
  return { plot, curve, costs, tile, images, decoded, drawn, total };
}

// ------------------------------------------------------------------------------------ the pictures

const head = (ctx, text, x, y, theme) => words(ctx, text, x, y, theme.ink, `600 13px ${theme.font}`);

function headOf(ctx, box, title, more, theme) {
  head(ctx, title, box.x, box.y - 32, theme);
  words(ctx, more, box.x, box.y - 14, theme.muted, `12px ${theme.font}`);
}

function drawPosteriors(ctx, box, { arrays, labels, extent }, index, theme) {
  const reach = extent(index);
  const unit = box.width / (2 * reach);
  const colours = CLASS_COLOURS[theme.dark ? "dark" : "light"];
  panel(ctx, [-reach, reach, -reach, reach], box, theme, (map) => {
    ctx.lineWidth = 1;
    const places = labels.map((label, i) => {
      const from = 2 * (index * labels.length + i);
      const [x, y] = [map.x(arrays.means.values[from]), map.y(arrays.means.values[from + 1])];
      const [across, up] = arrays.stds.values.subarray(from, from + 2);
      ctx.beginPath();
      ctx.ellipse(x, y, across * unit, up * unit, 0, 0, 2 * Math.PI);
      ctx.fillStyle = ctx.strokeStyle = colours[label];
      ctx.globalAlpha = 0.05;
      ctx.fill();
      ctx.globalAlpha = 0.3;
      ctx.stroke();
      return [x, y];
    });
    ctx.globalAlpha = 1;
    drawDigits(ctx, places, labels, theme);
    ctx.setLineDash([6, 4]);
    for (const [colour, width] of [[theme.plot, 4], [theme.ink, 1.75]]) {
      ctx.strokeStyle = colour;
      ctx.lineWidth = width;
      ctx.beginPath();
      ctx.arc(map.x(0), map.y(0), unit, 0, 2 * Math.PI);
      ctx.stroke();
    }
  });
  headOf(ctx, box, "q(z | x): mean and one \u03c3", "dashed: one \u03c3 of the prior", theme);
}

// Where the models are in the plot of rate and distortion.
function spotsIn(box, { limits, rates, distortions }) {
  const map = plane(limits, box);
  return rates.map((rate, i) => [map.x(rate), map.y(distortions[i])]);
}

function drawCurve(ctx, box, state, index, theme) {
  const { betas, rates, distortions, limits } = state;
  const places = spotsIn(box, state);
  panel(ctx, limits, box, theme, (map) => {
    // All pairs with the same D + β R: a line of slope −β.
    const costs = (rate) => distortions[index] - betas[index] * (rate - rates[index]);
    ctx.strokeStyle = theme.muted;
    ctx.lineWidth = 1.25;
    ctx.setLineDash([5, 4]);
    trace(ctx, limits.slice(0, 2).map((rate) => [map.x(rate), map.y(costs(rate))]));
    ctx.stroke();
    ctx.setLineDash([]);
    ctx.strokeStyle = PALETTE.model;
    ctx.lineWidth = 1.5;
    trace(ctx, places);
    ctx.stroke();
    places.forEach(([x, y], i) => dot(ctx, x, y, i === index ? 8 : 4, PALETTE.model, theme.plot, 1.5));
  });
  drawNames(ctx, box, places, betas, index, theme);
  axisNames(ctx, box, "rate (nats)", "distortion (nats)", box.x - 44, theme);
  headOf(ctx, box, "rate and distortion", "click a model; dashed: equal D + \u03b2R", theme);
}

// Names of the points, the one that is shown first, as far as there is room.
function drawNames(ctx, box, places, betas, index, theme) {
  const taken = [];
  for (const i of new Set([index, ...places.keys()])) {
    const font = i === index ? `600 13px ${theme.font}` : `11px ${theme.font}`;
    const label = i === index ? `\u03b2 = ${tidy(betas[i])}` : tidy(betas[i]);
    ctx.font = font;
    const width = ctx.measureText(label).width;
    const [px, py] = places[i];
    const x = Math.min(px + 10, box.x + box.width - width - 4);
    const y = Math.max(py - 12, box.y + 9);
    const free = taken.every(([l, t, w]) => x > l + w + 4 || l > x + width + 4 || Math.abs(y - t) > 15);
    const clear = i === index || places.every(([qx, qy], j) =>
      j === i || qx < x - 6 || qx > x + width + 6 || Math.abs(qy - y) > 12);
    if (!free || !clear) continue;
    taken.push([x, y, width]);
    words(ctx, label, x, y, i === index ? theme.ink : theme.muted, font);
  }
}

// All images of the model that is shown.
function imagesPicture({ arrays, count, samples, rows, columns }) {
  const sheet = pixelSheet(columns, rows);
  const size = rows * columns;
  const drawSome = (ctx, { values }, from, many, { x, y }, { width, height, smooth }) => {
    ctx.imageSmoothingEnabled = smooth;
    for (let i = 0; i < many; i++) {
      sheet.paint(values.subarray((from + i) * size, (from + i + 1) * size));
      const place = [x + (i % count) * (width + 4), y + Math.floor(i / count) * (height + 4)];
      ctx.drawImage(sheet.canvas, ...place, width, height);
    }
  };
  return (ctx, { images, decoded, drawn, tile }, index, theme) => {
    head(ctx, `${count} test images, and what comes back`, 0, images.y - 12, theme);
    drawSome(ctx, arrays.originals, 0, count, images, tile);
    drawSome(ctx, arrays.reconstructions, index * count, count, decoded, tile);
    head(ctx, "new images: z drawn from the prior", 0, drawn.y - 12, theme);
    drawSome(ctx, arrays.samples, index * samples, samples, drawn, tile);
  };
}

// ------------------------------------------------------------------------------------- the costs

// What each row of the costs says, from β, rate and distortion.
const COSTS = [
  ["rate R, what z costs", (beta, rate) => rate],
  ["distortion D", (beta, rate, distortion) => distortion],
  ["R + D = \u2212ELBO", (beta, rate, distortion) => rate + distortion],
  ["D + \u03b2R, the loss", (beta, rate, distortion) => distortion + beta * rate]
];

const nats = (value) => `${value.toFixed(1).replace("-", "\u2212")} nats`;

// Not a <dl>: JupyterLab has a style of its own for lists of definitions in outputs.
function costsTable({ betas, rates, distortions }) {
  const strong = (i) => (i === 2 ? "strong" : "");
  const values = COSTS.map((_, i) => element("span", { class: `value ${strong(i)}` }));
  const node = element("div", { class: "beta-costs" },
    ...COSTS.flatMap(([name], i) => [element("span", { class: strong(i) }, name), values[i]]));
  const tell = (index) => COSTS.forEach(([, value], i) =>
    say(values[i], nats(value(betas[index], rates[index], distortions[index]))));
  return { node, tell };
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const drawImages = imagesPicture(state);
  const costs = costsTable(state);
  let at = null; // where everything stands, as last laid out

  const draw = (ctx, _, theme) => {
    const index = state.shown();
    drawPosteriors(ctx, at.plot, state, index, theme);
    drawCurve(ctx, at.curve, state, index, theme);
    drawImages(ctx, at, index, theme);
    costs.tell(index);
  };
  const layout = (width) => {
    at = stands(width, state);
    Object.assign(costs.node.style, { left: `${at.costs.x}px`, top: `${at.costs.y}px` });
    return at.total;
  };
  const view = outline({ model, el, layout, draw, maxWidth: 780, style: STYLE, name: "beta-widget" });
  view.stage.append(costs.node);

  // The curve is a slider, too: the model nearest to the pointer.
  const onCurve = ([x, y]) => {
    const box = at.curve;
    return x >= box.x && x <= box.x + box.width && y >= box.y && y <= box.y + box.height;
  };
  const choose = ([x, y]) => {
    const away = spotsIn(at.curve, state).map(([px, py]) => Math.hypot(px - x, py - y));
    state.clock.seek(away.indexOf(Math.min(...away)));
  };
  drag(view.canvas, {
    focus: view.root,
    start: (place) => {
      if (!onCurve(place)) return null;
      choose(place);
      return choose;
    },
    hover: (place) => (view.canvas.style.cursor = onCurve(place) ? "pointer" : "")
  });

  view.controls.after(row(toggle(view, "fit", "Axes follow the model"),
    element("span", { class: "beta-hint" }, "Else they are the same for all models.")));
  playerBar(view, model);
  const slider = view.controls.querySelector("input");
  slider.step = "1";
  slider.setAttribute("aria-label", "\u03b2");
  view.follow(["fit"], view.redraw);
  return view.stop;
}

export default { render };
