// Interpolation: drag w between two latents, along several ways at once, and see image and length.

import { plane } from "./parts/axes.js";
import { throttledChanges } from "./parts/changes.js";
import { PALETTE } from "./parts/colours.js";
import { unpack } from "./parts/data.js";
import { drag } from "./parts/drag.js";
import { handle } from "./parts/handle.js";
import { onKeys } from "./parts/keys.js";
import { hint } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { axisNames, clamp, dot, panel, segment, trace, words } from "./parts/panel.js";
import { greyCanvas, paintGrey, pixelSheet, wholePixels } from "./parts/pixels.js";
import STYLE from "./interpolation.css" with { type: "css" };

const LEFT = 46; // pixels for the numbers beside the plot
const RIGHT = 6;
const NAME = 22; // above each strip
const PLOT = 124;
const LINE = 2; // the width of a way's line

// -------------------------------------------------------------------------------------- the state

const written = (value) => value.toFixed(2).replace("-", "\u2212");

function stateOf(model) {
  const { images, norms } = unpack(model);
  const [ways, pairs, count, height, width] = images.shape;
  const [names, typical, looks] = ["names", "typical", "looks"].map((name) => model.get(name));
  const size = height * width;
  const { change, send } = throttledChanges(model);
  // The plot has room for all pairs, so that its numbers stay where they are.
  const all = [...norms.values, ...typical];
  const [lowest, highest] = [Math.min(...all), Math.max(...all)];
  const margin = 0.1 * (highest - lowest || 1);
  const half = 0.5 / (count - 1); // of what one image covers on the axis of w
  const from = (way, pair, k) => (way * pairs + pair) * count + k;
  return {
    ways, pairs, count, height, width, names, typical, send, label: model.get("norm_label"),
    colours: looks.map(([role]) => PALETTE[role]),
    dashes: looks.map(([, dashes]) => dashes.map((length) => LINE * length)),
    extent: [-half, 1 + half, lowest - margin, highest + margin],
    // `some` images that begin with the k-th.
    imagesAt: (way, pair, k, some = 1) => images.values.subarray(size * from(way, pair, k)).subarray(0, some * size),
    normAt: (way, pair, k) => norms.values[from(way, pair, k)],
    now: () => [model.get("pair"), Math.round(model.get("w") * (count - 1))],
    goTo: (k) => change({ w: clamp(k, 0, count - 1) / (count - 1) }),
    choose: (pair) => change({ pair: (pair + pairs) % pairs })
  };
}

// What is said of a length.
function judged(norm, typical) {
  if (!typical.length) return "";
  return norm < typical[0] ? "too short" : norm > typical[1] ? "too long" : "typical";
}

// --------------------------------------------------------------------------- strips and lengths

// Where the images of the strips and the plot are, on a canvas of this width.
function stands(whole, { ways, count, height, width }) {
  const inner = whole - LEFT - RIGHT;
  const cell = { width: inner / count, height: Math.min((inner / count) * (height / width), 90) };
  const box = { x: LEFT, y: Math.round(ways * (NAME + cell.height) + 14), width: inner, height: PLOT };
  return { cell, box, total: box.y + PLOT + 38 };
}

// In the colour and with the dashes of a way.
function drawLine(ctx, { colours, dashes }, way, places) {
  ctx.strokeStyle = colours[way];
  ctx.lineWidth = LINE;
  ctx.setLineDash(dashes[way]);
  trace(ctx, places);
  ctx.stroke();
  ctx.setLineDash([]);
}

// All images of a way from `sheet`, where they stand one below the other; the k-th has a frame.
function drawStrip(ctx, state, sheet, way, k, { cell }, ratio, theme) {
  const { count, height, width, names, colours } = state;
  const y = Math.round(way * (NAME + cell.height) + NAME);
  words(ctx, names[way], LEFT + 34, y - 11, theme.ink, `600 12px ${theme.font}`);
  drawLine(ctx, state, way, [[LEFT, y - 11], [LEFT + 28, y - 11]]);
  ctx.imageSmoothingEnabled = cell.width * ratio < width; // made smaller, pixels are mixed
  ctx.imageSmoothingQuality = "high";
  const edge = (j) => Math.round(LEFT + j * cell.width);
  const high = Math.round(cell.height);
  for (let j = 0; j < count; j++) {
    ctx.drawImage(sheet, 0, j * height, width, height, edge(j), y, edge(j + 1) - edge(j) - 2, high);
  }
  for (const [colour, line] of [[theme.plot, 5], [colours[way], 3]]) {
    ctx.strokeStyle = colour;
    ctx.lineWidth = line;
    ctx.strokeRect(edge(k) - 0.5, y - 0.5, edge(k + 1) - edge(k) - 1, high + 1);
  }
}

function drawLengths(ctx, state, pair, k, box, theme) {
  const { ways, count, typical, colours, normAt } = state;
  const w = (j) => j / (count - 1);
  panel(ctx, state.extent, box, theme, (map) => {
    if (typical.length) {
      const [low, high] = typical;
      ctx.fillStyle = PALETTE.noise;
      ctx.globalAlpha = 0.28;
      ctx.fillRect(box.x, map.y(high), box.width, map.y(low) - map.y(high));
      ctx.globalAlpha = 1;
    }
    const x = Math.round(map.x(w(k))) + 0.5;
    ctx.strokeStyle = theme.ink;
    ctx.lineWidth = 1;
    ctx.beginPath();
    segment(ctx, x, box.y, x, box.y + box.height);
    ctx.stroke();
    ctx.lineJoin = "round";
    for (let way = 0; way < ways; way++) {
      const places = Array.from({ length: count }, (_, j) => [map.x(w(j)), map.y(normAt(way, pair, j))]);
      drawLine(ctx, state, way, places);
      places.forEach(([px, py], j) => dot(ctx, px, py, j === k ? 5 : 2.2, colours[way], colours[way], 0.1));
    }
  });
  axisNames(ctx, box, "w", state.label, 7, theme);
}

// ------------------------------------------------------------------------------ around the picture

// The image of each way at w, large, with its name and its length.
function largeImages(state, view) {
  const { ways, names, width, height, colours, typical, imagesAt, normAt } = state;
  const large = names.map((name, way) => {
    const canvas = element("canvas", { width, height, role: "img" });
    canvas.style.boxShadow = `0 0 0 2px ${colours[way]}`;
    const fine = [element("span", { class: "between-fine" }), element("span", { class: "between-fine" })];
    const caption = element("figcaption", {}, element("span", { class: "between-name" }, name), ...fine);
    return { canvas, fine, node: element("figure", {}, canvas, caption) };
  });
  const node = element("div", { class: "between-large" }, ...large.map((one) => one.node));
  const arrange = new ResizeObserver(() => {
    const narrow = node.clientWidth < 440;
    const left = narrow ? 2 : LEFT;
    node.classList.toggle("narrow", narrow);
    node.style.paddingLeft = `${left}px`;
    const most = Math.min((node.clientWidth - left - 2 - 14 * (ways - 1)) / ways, 200);
    for (const one of large) {
      one.canvas.style.width = wholePixels(most, width);
      one.node.style.width = `${most}px`;
    }
  });
  arrange.observe(node);
  view.onStop(() => arrange.disconnect());
  const tell = (pair, k, w) => large.forEach(({ canvas, fine }, way) => {
    const norm = normAt(way, pair, k);
    paintGrey(canvas, imagesAt(way, pair, k));
    fine[0].textContent = `length ${written(norm)}`;
    fine[1].textContent = judged(norm, typical);
    canvas.setAttribute("aria-label", `${names[way]} at ${w}, pair ${pair + 1}`);
  });
  return { node, tell };
}

// A button for each pair, with the images at its ends.
function pairButtons({ pairs, count, width, height, imagesAt, choose, send }) {
  return Array.from({ length: pairs }, (_, pair) => {
    const ends = [0, count - 1].map((k) => {
      const end = greyCanvas(imagesAt(0, pair, k), width, height, { "aria-hidden": "true" });
      end.style.width = wholePixels(30, width);
      return end;
    });
    const name = `Pair ${pair + 1}`;
    const node = element("button", { type: "button", "aria-label": name, title: name }, ends[0], "\u2192", ends[1]);
    node.addEventListener("click", () => {
      choose(pair);
      send();
    });
    return node;
  });
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const { ways, pairs, count, names, typical, now, goTo, choose, send } = state;
  const sheets = names.map(() => pixelSheet(state.width, count * state.height));
  let painted = -1; // the pair that is on the sheets
  let at = null; // where everything stands, as last laid out

  const draw = (ctx, { ratio }, theme) => {
    const [pair, k] = now();
    if (painted !== pair) sheets.forEach(({ paint }, way) => paint(state.imagesAt(way, pair, 0, count)));
    painted = pair;
    for (let way = 0; way < ways; way++) drawStrip(ctx, state, sheets[way].canvas, way, k, at, ratio, theme);
    drawLengths(ctx, state, pair, k, at.box, theme);
    const w = k / (count - 1);
    const lengths = names.map((name, way) => `${name} ${written(state.normAt(way, pair, k))}`);
    grip.stand(plane(state.extent, at.box).x(w), at.box.y, w, `w = ${written(w)}: ${lengths.join(", ")}`);
  };
  const layout = (width) => {
    at = stands(width, state);
    return at.total;
  };
  const view = outline({ model, el, layout, draw, style: STYLE, name: "between-widget" });

  const start = (place) => {
    const move = ([x]) => goTo(Math.floor((x - at.box.x) / at.cell.width));
    move(place);
    return move;
  };
  const grip = handle(view, "w", { colour: "var(--cw-ink)", range: [0, 1], start, end: send });
  drag(view.canvas, { focus: grip.node, start, end: send });
  const step = (right, down) => () => {
    const [pair, k] = now();
    if (right) goTo(k + right);
    else choose(pair + down);
  };
  onKeys(view, {
    ArrowLeft: step(-1, 0), ArrowRight: step(1, 0), ArrowUp: step(0, -1), ArrowDown: step(0, 1),
    Home: () => goTo(0), End: () => goTo(count - 1)
  });

  const large = largeImages(state, view);
  const buttons = pairButtons(state);
  view.stage.before(large.node);
  view.controls.classList.add("between-pairs");
  if (pairs > 1) view.controls.append(...buttons);
  view.root.append(hint(
    `${typical.length ? "The grey band holds the lengths that noise has. " : ""}Drag across the strips or the plot.` +
    ` Keys: \u2190 \u2192 move w${pairs > 1 ? ", \u2191 \u2193 change the pair" : ""}.`));

  const show = () => {
    const [pair, k] = now();
    const w = `w = ${written(k / (count - 1))}`;
    view.note.textContent = w;
    large.tell(pair, k, w);
    buttons.forEach((node, i) => node.setAttribute("aria-pressed", String(i === pair)));
    view.redraw();
  };
  view.follow(["w", "pair"], show, { now: true });
  view.onStop(send);
  return view.stop;
}

export default { render };
