// ParticlePlayer: points that move through the steps of a flow or a sampler, in one panel or in two.

import { drawAxes, drawColourBar, drawPlane, plane } from "./parts/axes.js";
import { PALETTE, colourTable } from "./parts/colours.js";
import { atStep, unpack } from "./parts/data.js";
import { dotStamp } from "./parts/dots.js";
import { outline } from "./parts/outline.js";
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

  const colours = (role) => {
    if (!color) return [heat ? "#ffffff" : PALETTE[role]];
    const small = colourTable(model.get("color_map"), COLOURS);
    return Array.from({ length: COLOURS }, (_, i) => `rgb(${small.slice(3 * i, 3 * i + 3).join()})`);
  };
  panels.forEach((panel, i) => (panel.colours = colours(model.get(i ? "beside_role" : "role"))));
  // Which of its panel's colours a particle has.
  const scale = color ? COLOURS / (colourHigh - colourLow || 1) : 0;
  const bucket = (i) =>
    color ? Math.max(0, Math.min(COLOURS - 1, Math.floor((shade[i] - colourLow) * scale))) : 0;

  // Fewer particles, larger dots. Under trails they are pale.
  const radius = Math.max(1.7, Math.min(4.2, Math.sqrt(9000 / count)));
  let dotsFor = "";
  const makeDots = (ratio, theme) => {
    const key = `${ratio} ${theme.dark}`;
    if (key === dotsFor) return;
    dotsFor = key;
    for (const panel of panels) {
      panel.dots = dotStamp(panel.colours, radius, ratio, theme.rim, panel.trails ? 0.28 : 1);
    }
  };

  const boxesFor = (width) => {
    const right = color ? 82 : 10;
    const top = titles.length ? 24 : 4;
    const across = width < STACKED ? 1 : panels.length;
    const inner = Math.floor((width - 36 - right - (across - 1) * 46) / across);
    const shape = (extent[3] - extent[2]) / (extent[1] - extent[0]);
    const height = Math.round(inner * Math.min(1.4, Math.max(0.3, shape)));
    return panels.map((_, i) => ({
      x: 36 + (across === 1 ? 0 : i * (inner + 46)),
      y: top + (across === 1 ? i * (height + 24 + top) : 0),
      width: inner,
      height
    }));
  };

  const drawPanel = (ctx, panel, box, step, ratio, theme) => {
    const map = plane(extent, box);
    atStep(panel.points, step, place);
    drawPlane(ctx, box, theme);
    ctx.save();
    ctx.beginPath();
    ctx.rect(box.x, box.y, box.width, box.height);
    ctx.clip();
    if (heat) heat.draw(ctx, map, model.get("field_extent"), step);
    if (panel.grid) drawMesh(ctx, map, atStep(panel.grid, step, mesh), panel.grid.shape, theme);
    const followed = panel.trails ? panel.trails.shape[1] : 0;
    panel.dots.clear(box.width, box.height);
    for (let i = followed; i < count; i++) {
      panel.dots.stamp(map.x(place[2 * i]) - box.x, map.y(place[2 * i + 1]) - box.y, bucket(i));
    }
    panel.dots.draw(ctx, box);
    if (followed) {
      // The trails have steps of their own, spread evenly over those of the points.
      const last = clock.last();
      const at = (last ? step / last : 1) * (panel.trails.shape[0] - 1);
      const rims = heat ? ["rgba(0, 0, 0, 0.6)", "#000000"] : [theme.plot, theme.ink];
      drawTrails(ctx, map, panel.trails, at, (k) => panel.colours[bucket(k)], rims);
    }
    ctx.restore();
    drawAxes(ctx, extent, box, theme);
  };

  const draw = (ctx, { width, ratio }, theme) => {
    const step = clock.shown();
    const boxes = boxesFor(width);
    makeDots(ratio, theme);
    if (color) atStep(color, step, shade);
    panels.forEach((panel, i) => {
      const box = boxes[i];
      drawPanel(ctx, panel, box, step, ratio, theme);
      if (!titles.length) return;
      ctx.fillStyle = theme.ink;
      ctx.font = `600 12px ${theme.font}`;
      ctx.textAlign = "center";
      ctx.textBaseline = "middle";
      ctx.fillText(titles[i], box.x + box.width / 2, box.y - 12, box.width);
    });
    if (color) {
      const [first, last] = [boxes[0], boxes.at(-1)];
      const height = last.y + last.height - first.y;
      const bar = { x: last.x + last.width + 14, y: first.y, width: 12, height };
      drawColourBar(ctx, model.get("color_map"), colourLow, colourHigh, barLabel, bar, theme);
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
  for (let k = 0; k < count; k++) {
    ctx.beginPath();
    ctx.arc(...pixel(k, at), 4.5, 0, 2 * Math.PI);
    ctx.fillStyle = colourOf(k);
    ctx.fill();
    stroke(rims[1], 1);
  }
}

// The rows and columns of a mesh [R, C, 2] as lines.
function drawMesh(ctx, map, nodes, [, rows, columns], theme) {
  const line = (first, stride, length) => {
    for (let k = 0; k < length; k++) {
      const i = 2 * (first + k * stride);
      if (k === 0) ctx.moveTo(map.x(nodes[i]), map.y(nodes[i + 1]));
      else ctx.lineTo(map.x(nodes[i]), map.y(nodes[i + 1]));
    }
  };
  ctx.beginPath();
  for (let r = 0; r < rows; r++) line(r * columns, 1, columns);
  for (let c = 0; c < columns; c++) line(c, columns, rows);
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
  const table = colourTable("viridis");
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const ctx = canvas.getContext("2d");
  const image = ctx.createImageData(width, height);
  let painted = null;
  const paint = (step) => {
    atStep(field, step, values);
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        const level = (values[row * width + column] - low) / (high - low || 1);
        const c = 3 * Math.max(0, Math.min(255, Math.round(255 * level)));
        const p = 4 * ((height - 1 - row) * width + column);
        image.data[p] = table[c];
        image.data[p + 1] = table[c + 1];
        image.data[p + 2] = table[c + 2];
        image.data[p + 3] = 255;
      }
    }
    ctx.putImageData(image, 0, 0);
  };
  const draw = (target, map, [x0, x1, y0, y1], step) => {
    const at = steps === 1 ? 0 : step;
    if (painted !== at) paint(at);
    painted = at;
    target.imageSmoothingEnabled = true;
    target.drawImage(canvas, map.x(x0), map.y(y1), map.x(x1) - map.x(x0), map.y(y0) - map.y(y1));
  };
  return { draw };
}

export default { render };
