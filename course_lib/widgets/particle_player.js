// ParticlePlayer: points that move through the steps of a flow or a sampler, in one panel or in two.

import { drawColourBar } from "./parts/axes.js";
import { PALETTE, anchorsOf, colourList, colourWords } from "./parts/colours.js";
import { atStep, unpack } from "./parts/data.js";
import { dotStamp } from "./parts/dots.js";
import { outline } from "./parts/outline.js";
import { clamp, dot, panel, trace, words } from "./parts/panel.js";
import { pixelSheet } from "./parts/pixels.js";
import { playerBar } from "./parts/player.js";

const COLOURS = 64; // particles are stamped with one of at most this many ready-made dots
const STACKED = 460; // pixels: where there is less room, the second of two panels stands below the first
const NARROWEST = 110; // pixels: of more than two panels, so many stand in a row as are no narrower

function render({ model, el }) {
  const arrays = unpack(model);
  const { points, beside, grid, field, color } = arrays;
  const extent = model.get("extent");
  const titles = model.get("titles");
  const [colourLow, colourHigh] = model.get("color_range");
  const barLabel = model.get("color_label");
  const count = points.shape[1];
  const captions = model.get("captions");
  const panels = [{ points, trails: arrays.trails, grid }];
  for (const name of ["beside", "beside_2", "beside_3"]) {
    if (arrays[name]) panels.push({ points: arrays[name], trails: arrays[`${name}_trails`] });
  }
  const place = new Float32Array(2 * count);
  const shade = color && new Float32Array(count);
  const mesh = grid && new Float32Array(grid.values.length / grid.shape[0]);
  const heat = field && heatMap(field, model.get("field_range"));

  // Which of its panel's colours a particle has.
  const scale = color ? COLOURS / (colourHigh - colourLow || 1) : 0;
  const bucket = (i) => (color ? clamp(Math.floor((shade[i] - colourLow) * scale), 0, COLOURS - 1) : 0);

  // Fewer particles, larger dots. Under trails they are pale.
  const radius = clamp(Math.sqrt(9000 / count), 1.7, 4.2);
  const coloursOf = (role, theme) => {
    if (!color) return [heat ? "#ffffff" : PALETTE[role]];
    return colourList(model.get("color_map"), COLOURS, theme);
  };
  let dotsFor = "";
  const makeDots = (ratio, theme) => {
    const key = `${ratio} ${theme.dark}`;
    if (key === dotsFor) return;
    dotsFor = key;
    panels.forEach((one, i) => {
      one.colours = coloursOf(model.get(i ? "beside_role" : "role"), theme);
      one.dots = dotStamp(one.colours, radius, ratio, theme.rim, one.trails ? 0.28 : 1);
    });
  };

  const boxesFor = (width) => {
    const right = color ? 82 : 10;
    const top = (titles.length ? 24 : 4) + (captions.length ? 15 : 0);
    const innerOf = (columns) => Math.floor((width - 36 - right - (columns - 1) * 46) / columns);
    let across = panels.length;
    if (across === 2 && width < STACKED) across = 1;
    while (across > 2 && innerOf(across) < NARROWEST) across--;
    const inner = innerOf(across);
    const shape = (extent[3] - extent[2]) / (extent[1] - extent[0]);
    const height = Math.round(inner * clamp(shape, 0.3, 1.4));
    return panels.map((_, i) => ({
      x: 36 + (i % across) * (inner + 46),
      y: top + Math.floor(i / across) * (height + 24 + top),
      width: inner,
      height
    }));
  };

  const drawPanel = (ctx, one, box, step, theme) => {
    atStep(one.points, step, place);
    panel(ctx, extent, box, theme, (map) => {
      heat?.draw(ctx, map, model.get("field_extent"), step);
      if (one.grid) drawMesh(ctx, map, atStep(one.grid, step, mesh), one.grid.shape, theme);
      const followed = one.trails ? one.trails.shape.at(-2) : 0;
      one.dots.clear(box.width, box.height);
      for (let i = followed; i < count; i++) {
        one.dots.stamp(map.x(place[2 * i]) - box.x, map.y(place[2 * i + 1]) - box.y, bucket(i));
      }
      one.dots.draw(ctx, box);
      if (!followed) return;
      const trails = trailsAt(one.trails, step);
      const last = clock.last();
      const at = (one.trails.shape.length === 4 || !last ? 1 : step / last) * (trails.shape[0] - 1);
      const rims = heat ? ["rgba(0, 0, 0, 0.6)", "#000000"] : [theme.plot, theme.ink];
      drawTrails(ctx, map, trails, at, (k) => one.colours[bucket(k)], rims);
    });
  };

  const draw = (ctx, { width, ratio }, theme) => {
    const step = clock.shown();
    const boxes = boxesFor(width);
    makeDots(ratio, theme);
    if (color) atStep(color, step, shade);
    panels.forEach((one, i) => {
      const box = boxes[i];
      drawPanel(ctx, one, box, step, theme);
      const [middle, most] = [box.x + box.width / 2, box.width + 20];
      const over = captions.length ? 15 : 0;
      if (titles.length) words(ctx, titles[i], middle, box.y - 12 - over, theme.ink, `600 12px ${theme.font}`, "center", "middle", most);
      if (!over) return;
      words(ctx, captions[i][Math.round(step)], middle, box.y - 11, theme.muted, `11px ${theme.font}`, "center", "middle", most);
    });
    if (color) {
      const [first, last] = [boxes[0], boxes.at(-1)];
      const height = last.y + last.height - first.y;
      const bar = { x: Math.max(...boxes.map((box) => box.x + box.width)) + 14, y: first.y, width: 12, height };
      const map = model.get("color_map");
      drawColourBar(ctx, map, colourLow, colourHigh, barLabel, bar, theme, anchorsOf(map, theme));
    }
  };

  const layout = (width) => {
    const box = boxesFor(width).at(-1);
    return box.y + box.height + 24;
  };
  const view = outline({ model, el, layout, draw, maxWidth: beside ? 760 : 560 });
  const clock = playerBar(view, model);
  return view.stop;
}

// The trails that belong to a step: these have steps of their own, spread evenly over those of the
// points, [S, K, 2], or there are some for each step, [T, S, K, 2].
function trailsAt(trails, step) {
  if (trails.shape.length === 3) return trails;
  trails.now ||= { values: new Float32Array(trails.values.length / trails.shape[0]), shape: trails.shape.slice(1) };
  atStep(trails, step, trails.now.values);
  return trails.now;
}

// Paths [S, K, 2] as lines: strong up to a dot at the fractional step `at`, and faint from there on.
// `rims` are the colours around line and dot, so that they are read on others.
function drawTrails(ctx, map, { values, shape: [steps, count] }, at, colourOf, rims) {
  const pixel = (k, step) => {
    const a = Math.floor(step);
    const i = 2 * (a * count + k);
    const j = 2 * (Math.min(a + 1, steps - 1) * count + k);
    const mix = (c) => values[i + c] + (values[j + c] - values[i + c]) * (step - a);
    return [map.x(mix(0)), map.y(mix(1))];
  };
  const line = (k, from, to) => {
    ctx.beginPath();
    ctx.moveTo(...pixel(k, from));
    for (let step = Math.floor(from) + 1; step < to; step++) ctx.lineTo(...pixel(k, step));
    ctx.lineTo(...pixel(k, to));
  };
  const stroke = (colour, width) => {
    ctx.strokeStyle = colour;
    ctx.lineWidth = width;
    ctx.stroke();
  };
  ctx.lineJoin = "round";
  ctx.globalAlpha = 0.75;
  for (let k = 0; k < count; k++) {
    line(k, at, steps - 1);
    stroke(colourOf(k), 1);
  }
  ctx.globalAlpha = 1;
  for (let k = 0; k < count; k++) {
    line(k, 0, at);
    stroke(rims[0], 3.2);
    stroke(colourOf(k), 1.6);
  }
  for (let k = 0; k < count; k++) dot(ctx, ...pixel(k, at), 4.5, colourOf(k), rims[1]);
}

// The rows and columns of a mesh [R, C, 2] as lines.
function drawMesh(ctx, map, nodes, [, rows, columns], theme) {
  const node = (r, c) => {
    const i = 2 * (r * columns + c);
    return [map.x(nodes[i]), map.y(nodes[i + 1])];
  };
  const line = (count, at) => trace(ctx, Array.from({ length: count }, (_, k) => at(k)), true);
  ctx.beginPath();
  for (let r = 0; r < rows; r++) line(columns, (c) => node(r, c));
  for (let c = 0; c < columns; c++) line(rows, (r) => node(r, c));
  ctx.strokeStyle = theme.muted;
  ctx.globalAlpha = 0.45;
  ctx.lineWidth = 1;
  ctx.stroke();
  ctx.globalAlpha = 1;
}

// A scalar field [T, H, W] as a picture under the points; row 0 is the lowest y.
function heatMap(field, [low, high]) {
  const [steps, height, width] = field.shape;
  const values = new Float32Array(height * width);
  const levels = new Float32Array(height * width);
  const colours = colourWords("viridis");
  const sheet = pixelSheet(width, height);
  let painted = null;
  const paint = (step) => {
    atStep(field, step, values);
    for (let i = 0; i < values.length; i++) {
      const down = height - 1 - Math.floor(i / width);
      levels[down * width + (i % width)] = (255 * (values[i] - low)) / (high - low || 1);
    }
    sheet.paint(levels, colours);
  };
  const draw = (target, map, [x0, x1, y0, y1], step) => {
    const at = steps === 1 ? 0 : step;
    if (painted !== at) paint(at);
    painted = at;
    target.imageSmoothingEnabled = true;
    target.drawImage(sheet.canvas, map.x(x0), map.y(y1), map.x(x1) - map.x(x0), map.y(y0) - map.y(y1));
  };
  return { draw };
}

export default { render };
