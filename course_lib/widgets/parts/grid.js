// A grid of cells, such as the pixels of an image or the codes of a map, counted row by row.

import { clamp, segment } from "./panel.js";

// Places are [x, y] in units of cells from the grid's corner.
export function gridOf(rows, columns) {
  const rowOf = (cell) => Math.floor(cell / columns);
  const columnOf = (cell) => cell % columns;
  const cellAt = ([x, y]) => Math.floor(y) * columns + Math.floor(x);
  const near = ([x, y]) => cellAt([clamp(x, 0, columns - 1), clamp(y, 0, rows - 1)]);
  return {
    rows, columns, size: rows * columns, middle: near([columns / 2, rows / 2]), rowOf, columnOf,
    // The place on a node, in its pixels, that is filled by the grid.
    within: ([x, y], node) => [(x / node.clientWidth) * columns, (y / node.clientHeight) * rows],
    // The cell at a place, null outside; and the cell that is nearest to it.
    at: ([x, y]) => (x >= 0 && x < columns && y >= 0 && y < rows ? cellAt([x, y]) : null),
    near,
    // The cell so many rows down and columns to the right, or the last one on the way.
    step: (cell, down, right) => near([columnOf(cell) + right, rowOf(cell) + down]),
    name: (cell) => `row ${rowOf(cell) + 1}, column ${columnOf(cell) + 1}`
  };
}

// Places on the straight way to another, which is the last, a third of a cell apart or less: a quick
// move of the pointer leaves no cell out.
export function wayBetween([x0, y0], [x1, y1]) {
  const count = Math.max(1, Math.ceil(3 * Math.hypot(x1 - x0, y1 - y0)));
  return Array.from({ length: count }, (_, i) => {
    const share = (i + 1) / count;
    return [x0 + (x1 - x0) * share, y0 + (y1 - y0) * share];
  });
}

// The lines around and between cells of `cell` pixels.
export function gridLines(ctx, { x, y, cell }, rows, columns) {
  const [right, bottom] = [x + columns * cell, y + rows * cell];
  ctx.beginPath();
  for (let at = x; at <= right; at += cell) segment(ctx, at + 0.5, y, at + 0.5, bottom + 1);
  for (let at = y; at <= bottom; at += cell) segment(ctx, x, at + 0.5, right, at + 0.5);
  ctx.stroke();
}
