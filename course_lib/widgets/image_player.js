// ImagePlayer: a grid of images that change through the steps of a sampler, or two such grids.

import { colourTable } from "./parts/colours.js";
import { atStep, unpack } from "./parts/data.js";
import { outline } from "./parts/outline.js";
import { playerBar } from "./parts/player.js";

const GAP = 6;
const CAPTION = 18; // pixels under each image
const TITLE = 24; // pixels above each of two grids
const BETWEEN = 24; // pixels from one grid to the other
const STACKED = 440; // pixels: where there is less room, one grid stands below the other

function render({ model, el }) {
  const { images, beside } = unpack(model);
  const grids = (beside ? [images, beside] : [images]).map((values) => imageSheet(values, model));
  const [, count, rows, columns] = images.shape;
  const captions = model.get("captions");
  const titles = model.get("titles");
  const across = model.get("columns");
  const down = Math.ceil(count / across);
  const rowOnRow = down === 1; // an image is compared with the one below it

  // Where the grids stand, and how large an image is, in whole pixels: small ones grow, but not
  // beyond 16 screen pixels for each of theirs.
  const placeIn = (width) => {
    const sideBySide = beside && !rowOnRow && width >= STACKED;
    const room = sideBySide ? (width - BETWEEN) / 2 : width;
    const cell = Math.floor(Math.min((room - GAP * (across - 1)) / across, 16 * columns));
    const height = Math.round((cell * rows) / columns);
    const pitch = height + (captions.length ? CAPTION : 0) + GAP;
    const top = titles.length ? TITLE : 0;
    const left = Math.floor((room - across * cell - GAP * (across - 1)) / 2);
    const corners = grids.map((_, i) => ({
      x: left + (sideBySide ? Math.floor(i * (room + BETWEEN)) : 0),
      y: top + (sideBySide ? 0 : i * (down * pitch + top))
    }));
    return { corners, cell, height, pitch };
  };

  const drawGrid = (ctx, sheet, { x: left, y: top }, { cell, height, pitch }) => {
    ctx.textAlign = "center";
    for (let i = 0; i < count; i++) {
      const x = left + (i % across) * (cell + GAP);
      const y = top + Math.floor(i / across) * pitch;
      ctx.drawImage(sheet, 0, i * rows, columns, rows, x, y, cell, height);
      ctx.strokeRect(x + 0.5, y + 0.5, cell - 1, height - 1);
      if (captions.length) ctx.fillText(captions[i], x + cell / 2, y + height + 3, cell + GAP);
    }
  };

  const draw = (ctx, { width }, theme) => {
    const places = placeIn(width);
    ctx.imageSmoothingEnabled = false; // pixels are what the model made, so show them as pixels
    ctx.textBaseline = "top";
    ctx.strokeStyle = theme.line;
    ctx.lineWidth = 1;
    grids.forEach((grid, i) => {
      const corner = places.corners[i];
      ctx.font = `11px ${theme.font}`;
      ctx.fillStyle = theme.muted;
      drawGrid(ctx, grid.at(clock.shown()), corner, places);
      if (!titles.length) return;
      ctx.textAlign = "left";
      ctx.font = `600 12px ${theme.font}`;
      ctx.fillStyle = theme.ink;
      ctx.fillText(titles[i], corner.x, corner.y - 19, across * (places.cell + GAP));
    });
  };

  const layout = (width) => {
    const { corners, pitch } = placeIn(width);
    return corners.at(-1).y + down * pitch - GAP;
  };
  const view = outline({ model, el, layout, draw, maxWidth: beside && !rowOnRow ? 760 : 560 });
  const clock = playerBar(view, model);
  return view.stop;
}

// The images [T, B, H, W] of one step, painted one below the other, one screen pixel each, on a
// sheet that is then drawn enlarged.
function imageSheet(images, model) {
  const [, count, rows, columns] = images.shape;
  const [low, high] = model.get("value_range");
  const values = new Float32Array(count * rows * columns);
  const table = colourTable(model.get("cmap"));
  const sheet = document.createElement("canvas");
  sheet.width = columns;
  sheet.height = rows * count;
  const ctx = sheet.getContext("2d");
  const pixels = ctx.createImageData(columns, rows * count);
  const words = new Uint32Array(pixels.data.buffer);
  // One 32-bit word a colour: alpha, blue, green, red from high to low (little-endian).
  const colours = Uint32Array.from({ length: 256 }, (_, i) =>
    (255 << 24) | (table[3 * i + 2] << 16) | (table[3 * i + 1] << 8) | table[3 * i]);
  let painted = null;
  const at = (step) => {
    if (step === painted) return sheet;
    painted = step;
    atStep(images, step, values);
    const scale = 255 / (high - low);
    for (let i = 0; i < values.length; i++) {
      words[i] = colours[Math.max(0, Math.min(255, Math.round((values[i] - low) * scale)))];
    }
    ctx.putImageData(pixels, 0, 0);
    return sheet;
  };
  return { at };
}

export default { render };
