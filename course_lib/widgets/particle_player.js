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
const STACKED = 460; // pixels: where there is less room, one panel stands below the other

function render({ model, el }) {
  const { points, beside, grid, field, color, trails, beside_trails } = unpack(model);
  const extent = model.get("extent");
  const titles = model.get("titles");
  const [colourLow, colourHigh] = model.get("color_range");
  const barLabel = model.get("color_label");
  const count = points.shape[1];
  const panels = [{ points, trails, grid }];
  if (beside) panels.push({ points: beside, trails: beside_trails });
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
    const top = titles.length ? 24 : 4;
    const across = width < STACKED ? 1 : panels.length;
    const inner = Math.floor((width - 36 - right - (across - 1) * 46) / across);
    const shape = (extent[3] - extent[2]) / (extent[1] - extent[0]);
    const height = Math.round(inner * clamp(shape, 0.3, 1.4));
    return panels.map((_, i) => ({
      x: 36 + (across === 1 ? 0 : i * (inner + 46)),
      y: top + (across === 1 ? i * (height + 24 + top) : 0),
      width: inner,
      height
    }));
  };

  const drawPanel = (ctx, one, box, step, theme) => {
    atStep(one.points, step, place);
    panel(ctx, extent, box, theme, (map) => {
      heat?.draw(ctx, map, model.get("field_extent"), step);
      if (one.grid) drawMesh(ctx, map, atStep(one.grid, step, mesh), one.grid.shape, theme);
      const followed = one.trails ? one.trails.shape[1] : 0;
      one.dots.clear(box.width, box.height);
      for (let i = followed; i < count; i++) {
        one.dots.stamp(map.x(place[2 * i]) - box.x, map.y(place[2 * i + 1]) - box.y, bucket(i));
      }
      one.dots.draw(ctx, box);
      if (!followed) return;
      // The trails have steps of their own, spread evenly over those of the points.
      const last = clock.last();
      const at = (last ? step / last : 1) * (one.trails.shape[0] - 1);
      const rims = heat ? ["rgba(0, 0, 0, 0.6)", "#000000"] : [theme.plot, theme.ink];
      drawTrails(ctx, map, one.trails, at, (k) => one.colours[bucket(k)], rims);
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
      if (!titles.length) return;
      const [middle, font] = [box.x + box.width / 2, `600 12px ${theme.font}`];
      words(ctx, titles[i], middle, box.y - 12, theme.ink, font, "center", "middle", box.width);
    });
    if (color) {
      const [first, last] = [boxes[0], boxes.at(-1)];
      const height = last.y + last.height - first.y;
      const bar = { x: last.x + last.width + 14, y: first.y, width: 12, height };
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
