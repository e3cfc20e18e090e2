// ParticlePlayer: points that move through the steps of a flow or a sampler.

import {
  PALETTE, atStep, colourTable, drawAxes, drawColourBar, drawPlane, outline, plane, playerBar, unpack
} from "./base.js";

const COLOURS = 64; // particles are drawn from a sheet of this many ready-made dots

// A sheet of dots, one per colour, side by side: copying one is much cheaper than drawing a circle.
function dotSheet(colours, radius, ratio, rim) {
  const cell = Math.ceil((2 * radius + 2) * ratio);
  const sheet = document.createElement("canvas");
  sheet.width = cell * colours.length;
  sheet.height = cell;
  const ctx = sheet.getContext("2d");
  colours.forEach((colour, i) => {
    ctx.beginPath();
    ctx.arc((i + 0.5) * cell, cell / 2, radius * ratio, 0, 2 * Math.PI);
    ctx.fillStyle = colour;
    ctx.globalAlpha = 0.9;
    ctx.fill();
    ctx.globalAlpha = 1;
    ctx.strokeStyle = rim;
    ctx.lineWidth = 0.6 * ratio;
    ctx.stroke();
  });
  return { sheet, cell };
}

function render({ model, el }) {
  const arrays = unpack(model);
  const extent = model.get("extent");
  const [colourLow, colourHigh] = model.get("color_range");
  const barLabel = model.get("color_label");
  const { points, grid, field, color } = arrays;
  const count = points.shape[1];
  const place = new Float32Array(2 * count);
  const shade = color && new Float32Array(count);
  const mesh = grid && new Float32Array(grid.values.length / grid.shape[0]);
  const heat = field && heatMap(field, model.get("field_range"));

  // Fewer particles, larger dots.
  const radius = Math.max(1.7, Math.min(4.2, Math.sqrt(9000 / count)));
  let dots = null;
  let dotsFor = "";
  const dotColours = () => {
    if (!color) return [heat ? "#ffffff" : PALETTE[model.get("role")]];
    const small = colourTable(model.get("color_map"), COLOURS);
    return Array.from({ length: COLOURS }, (_, i) => `rgb(${small.slice(3 * i, 3 * i + 3).join()})`);
  };

  const boxFor = (width) => {
    const right = color ? 82 : 10;
    const inner = width - 36 - right;
    const shape = (extent[3] - extent[2]) / (extent[1] - extent[0]);
    return { x: 36, y: 4, width: inner, height: Math.round(inner * Math.min(1.4, Math.max(0.3, shape))) };
  };

  const drawPoints = (ctx, map, ratio, theme) => {
    const key = `${ratio} ${theme.dark}`;
    if (key !== dotsFor) {
      dotsFor = key;
      dots = dotSheet(dotColours(), radius, ratio, theme.rim);
    }
    const { sheet, cell } = dots;
    const size = cell / ratio;
    const scale = color ? COLOURS / (colourHigh - colourLow || 1) : 0;
    for (let i = 0; i < count; i++) {
      const bucket = color ? (shade[i] - colourLow) * scale : 0;
      const column = Math.max(0, Math.min(COLOURS - 1, Math.floor(bucket))) * cell;
      const x = map.x(place[2 * i]) - size / 2;
      const y = map.y(place[2 * i + 1]) - size / 2;
      ctx.drawImage(sheet, column, 0, cell, cell, x, y, size, size);
    }
  };

  const draw = (ctx, { width, ratio }, theme) => {
    const step = clock.shown();
    const box = boxFor(width);
    const map = plane(extent, box);
    atStep(points, step, place);
    if (color) atStep(color, step, shade);
    drawPlane(ctx, box, theme);
    ctx.save();
    ctx.beginPath();
    ctx.rect(box.x, box.y, box.width, box.height);
    ctx.clip();
    if (heat) heat.draw(ctx, map, model.get("field_extent"), step);
    if (grid) drawMesh(ctx, map, atStep(grid, step, mesh), grid.shape, theme);
    drawPoints(ctx, map, ratio, theme);
    ctx.restore();
    drawAxes(ctx, extent, box, theme);
    if (color) {
      const bar = { x: box.x + box.width + 14, y: box.y, width: 12, height: box.height };
      drawColourBar(ctx, model.get("color_map"), colourLow, colourHigh, barLabel, bar, theme);
    }
  };

  const layout = (width) => {
    const box = boxFor(width);
    return box.y + box.height + 24;
  };
  const view = outline({ model, el, layout, draw });
  const clock = playerBar(view, model);
  return view.stop;
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
