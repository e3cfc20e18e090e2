// ImagePlayer: a grid of images that change through the steps of a sampler, or two such grids.

import { colourWords } from "./parts/colours.js";
import { atStep, unpack } from "./parts/data.js";
import { outline } from "./parts/outline.js";
import { words } from "./parts/panel.js";
import { drawTile, imageStack } from "./parts/pixels.js";
import { playerBar } from "./parts/player.js";

const GAP = 6;
const CAPTION = 18; // pixels under each image
const TITLE = 24; // pixels above each of two grids
const BETWEEN = 24; // pixels from one grid to the other
const STACKED = 440; // pixels: where there is less room, one grid stands below the other

function render({ model, el }) {
  const { images, beside } = unpack(model);
  const grids = (beside ? [images, beside] : [images]).map((values) => imageSheet(values, model));
  const { count, size: [rows, columns] } = grids[0];
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

  const drawGrid = (ctx, sheet, { x: left, y: top }, { cell, height, pitch }, theme) => {
    for (let i = 0; i < count; i++) {
      const place = {
        x: left + (i % across) * (cell + GAP), y: top + Math.floor(i / across) * pitch, width: cell, height
      };
      drawTile(ctx, sheet, i, [rows, columns], place, theme.line);
      if (!captions.length) continue;
      words(ctx, captions[i], place.x + cell / 2, place.y + height + 3, theme.muted, `11px ${theme.font}`,
        "center", "top", cell + GAP);
    }
  };

  const draw = (ctx, { width }, theme) => {
    const places = placeIn(width);
    grids.forEach((grid, i) => {
      const corner = places.corners[i];
      drawGrid(ctx, grid.at(clock.shown()), corner, places, theme);
      if (!titles.length) return;
      words(ctx, titles[i], corner.x, corner.y - 19, theme.ink, `600 12px ${theme.font}`,
        "left", "top", across * (places.cell + GAP));
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

// The images [T, B, H, W] or [T, B, 3, H, W] of one step, one below the other on a sheet.
function imageSheet(images, model) {
  const [low, high] = model.get("value_range");
  const values = new Float32Array(images.values.length / images.shape[0]);
  const colours = colourWords(model.get("cmap"));
  const sheet = imageStack(images.shape.slice(1));
  let painted = null;
  const at = (step) => {
    if (step !== painted) {
      painted = step;
      atStep(images, step, values);
      for (let i = 0; i < values.length; i++) values[i] = (255 * (values[i] - low)) / (high - low);
      sheet.paint(values, colours);
    }
    return sheet.canvas;
  };
  return { at, count: sheet.count, size: sheet.size };
}

export default { render };
