// ImagePlayer: a grid of images that change through the steps of a sampler.

import { atStep, colourTable, outline, playerBar, unpack } from "./base.js";

const GAP = 6;
const CAPTION = 18; // pixels under each image

function render({ model, el }) {
  const { images } = unpack(model);
  const [, count, rows, columns] = images.shape;
  const [low, high] = model.get("value_range");
  const captions = model.get("captions");
  const across = model.get("columns");
  const down = Math.ceil(count / across);
  const values = new Float32Array(count * rows * columns);
  const table = colourTable(model.get("cmap"));

  // All images are painted, one screen pixel each, on a sheet that is then drawn enlarged.
  const sheet = document.createElement("canvas");
  sheet.width = columns;
  sheet.height = rows * count;
  const sheetContext = sheet.getContext("2d");
  const pixels = sheetContext.createImageData(columns, rows * count);
  const words = new Uint32Array(pixels.data.buffer);
  // One 32-bit word a colour: alpha, blue, green, red from high to low (little-endian).
  const colours = Uint32Array.from({ length: 256 }, (_, i) =>
    (255 << 24) | (table[3 * i + 2] << 16) | (table[3 * i + 1] << 8) | table[3 * i]);
  let painted = null;
  const paint = (step) => {
    if (step === painted) return;
    painted = step;
    atStep(images, step, values);
    const scale = 255 / (high - low);
    for (let i = 0; i < values.length; i++) {
      words[i] = colours[Math.max(0, Math.min(255, Math.round((values[i] - low) * scale)))];
    }
    sheetContext.putImageData(pixels, 0, 0);
  };

  // Small images grow, but not beyond 16 screen pixels for each of theirs.
  const cellFor = (width) => {
    const cell = Math.min((width - GAP * (across - 1)) / across, 16 * columns);
    return { width: cell, height: (cell * rows) / columns };
  };
  const pitch = (cell) => cell.height + (captions.length ? CAPTION : 0) + GAP;

  const draw = (ctx, { width }, theme) => {
    paint(clock.shown());
    const cell = cellFor(width);
    const left = (width - across * cell.width - GAP * (across - 1)) / 2;
    ctx.imageSmoothingEnabled = false; // pixels are what the model made, so show them as pixels
    ctx.font = `11px ${theme.font}`;
    ctx.textAlign = "center";
    ctx.textBaseline = "top";
    ctx.fillStyle = theme.muted;
    ctx.strokeStyle = theme.line;
    ctx.lineWidth = 1;
    for (let i = 0; i < count; i++) {
      const x = Math.round(left + (i % across) * (cell.width + GAP));
      const y = Math.round(Math.floor(i / across) * pitch(cell));
      const [w, h] = [Math.round(cell.width), Math.round(cell.height)];
      ctx.drawImage(sheet, 0, i * rows, columns, rows, x, y, w, h);
      ctx.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
      if (captions.length) ctx.fillText(captions[i], x + w / 2, y + h + 3, cell.width + GAP);
    }
  };

  const layout = (width) => down * pitch(cellFor(width)) - GAP;
  const view = outline({ model, el, layout, draw });
  const clock = playerBar(view, model);
  return view.stop;
}

export default { render };
