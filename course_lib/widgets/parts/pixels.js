// Small images, painted with one screen pixel for each of their own and drawn enlarged.

import { colourWords } from "./colours.js";
import { element } from "./outline.js";

const GREYS = colourWords("grey");

// A canvas of width × height pixels. `paint(values, table)` fills it with whole numbers, each an
// index into a table of `colourWords`: 0 ... 255 are greys. Pixels beyond the values stay as they are.
export function pixelSheet(width, height, attributes = {}) {
  const canvas = element("canvas", { width, height, ...attributes });
  const ctx = canvas.getContext("2d");
  const pixels = ctx.createImageData(width, height);
  const words = new Uint32Array(pixels.data.buffer);
  const put = () => ctx.putImageData(pixels, 0, 0);
  const paint = (values, table = GREYS) => {
    const last = table.length - 1;
    for (let i = 0; i < values.length; i++) {
      words[i] = table[Math.max(0, Math.min(last, Math.round(values[i])))];
    }
    put();
  };
  return { canvas, words, put, paint };
}

// Images [n, rows, columns], or [n, 3, rows, columns] in red, green and blue, one below the other on a
// sheet, for `drawTile`. `paint(values, table)` takes whole numbers as a sheet does: of colours 0 ... 255.
export function imageStack(shape) {
  const [count, ...planes] = shape;
  const size = planes.slice(-2);
  const [rows, columns] = size;
  const { canvas, words, put, paint } = pixelSheet(columns, rows * count);
  const area = rows * columns;
  const byte = (value) => Math.max(0, Math.min(255, Math.round(value)));
  const paintColours = (values) => {
    for (let i = 0; i < count * area; i++) {
      const red = i + 2 * area * Math.floor(i / area); // of an image its plane of red comes first
      words[i] = (255 << 24) | (byte(values[red + 2 * area]) << 16) | (byte(values[red + area]) << 8) | byte(values[red]);
    }
    put();
  };
  return { canvas, count, size, paint: planes.length === 3 ? paintColours : paint };
}

// A canvas with grey levels 0 ... 255 on it.
export function greyCanvas(levels, width, height, attributes = {}) {
  const { canvas, paint } = pixelSheet(width, height, attributes);
  paint(levels);
  return canvas;
}

// Grey levels on a canvas that was made for as many.
export function paintGrey(canvas, levels) {
  const ctx = canvas.getContext("2d");
  const pixels = ctx.createImageData(canvas.width, canvas.height);
  const words = new Uint32Array(pixels.data.buffer);
  for (let i = 0; i < levels.length; i++) words[i] = GREYS[Math.max(0, Math.min(255, Math.round(levels[i])))];
  ctx.putImageData(pixels, 0, 0);
}

// A width in CSS for an image of so many pixels, at most `most` and all of them equally large.
export const wholePixels = (most, pixels) => `${Math.max(1, Math.floor(most / pixels)) * pixels}px`;

// The k-th of the images that stand one below the other on a sheet, with its frame.
export function drawTile(ctx, sheet, k, [rows, columns], { x, y, width, height }, frame = "") {
  ctx.imageSmoothingEnabled = false; // pixels are what there is, so show them as pixels
  ctx.drawImage(sheet, 0, k * rows, columns, rows, x, y, width, height);
  if (!frame) return;
  ctx.strokeStyle = frame;
  ctx.lineWidth = 1;
  ctx.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
}

// The frame of a cell, light inside dark: seen on every grey.
export function drawCursor(ctx, x, y, width, height, colour = "#ffffff") {
  ctx.lineJoin = "miter";
  for (const [stroke, line] of [["#000000", 4], [colour, 2]]) {
    ctx.strokeStyle = stroke;
    ctx.lineWidth = line;
    ctx.strokeRect(x + 1, y + 1, width - 2, height - 2);
  }
}
