// The line along which numbers on a grid have one value.

import { segment } from "./panel.js";

// Adds that line to the path: marching squares. `values` are given row by row, so many `columns` in each,
// and `spot(row, column)` is where one stands on the canvas, for fractions of a row, too.
export function traceContour(ctx, values, columns, level, spot) {
  const share = (one, other) => (level - one) / (other - one); // of the way, where the level is reached
  for (let i = 0; i + columns < values.length; i++) {
    const [row, column] = [Math.floor(i / columns), i % columns];
    if (column === columns - 1) continue;
    const [a, b, c, d] = [values[i], values[i + 1], values[i + columns + 1], values[i + columns]]; // around a square
    const found = [];
    if (a < level !== b < level) found.push([row, column + share(a, b)]);
    if (b < level !== c < level) found.push([row + share(b, c), column + 1]);
    if (c < level !== d < level) found.push([row + 1, column + 1 - share(c, d)]);
    if (d < level !== a < level) found.push([row + 1 - share(d, a), column]);
    for (let k = 0; k + 1 < found.length; k += 2) segment(ctx, ...spot(...found[k]), ...spot(...found[k + 1]));
  }
}
