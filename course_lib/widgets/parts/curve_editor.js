// A curve to bend: its knots are handles, with a monotone curve through them.

import { monotoneCurve } from "./curves.js";
import { handle } from "./handle.js";
import { clamp } from "./panel.js";

// Knots that are dragged, but never past their neighbours.
//
// `read()` gives their places [xs, ys], `write(k, x, y)` hears of one that moves. `limits()` says how
// far they go: {x: [low, high], y: [low, high], gap}, `gap` being what two keep apart at least; knots
// without `x` go up and down only. `falls` is true where the curve falls; where it is `free` to do both,
// neighbours are no limit to a height. `name(k)` is what a knot is called, `said(x, y)` what it is worth, in words. `toPlot` and `fromPlot` take a height to that on the
// plot and back, where its axis is not that of the knots.
//
// Returns {knots, stand, move, curve, indexOf}: `stand(map)` puts the handles where the drawing is.
export function curveEditor(view, options) {
  const { read, write, limits, falls = false, free = false, name, said, end, kind = "", grip } = options;
  const { toPlot = (y) => y, fromPlot = (y) => y } = options;
  let map = null; // as last drawn
  const editor = { knots: [] };

  const between = (values, k, value, [low, high], gap, down) => {
    const [before, after] = down ? [values[k + 1], values[k - 1]] : [values[k - 1], values[k + 1]];
    const least = before === undefined ? low : Math.max(before + gap, low);
    const most = after === undefined ? high : Math.min(after - gap, high);
    // Knots that Python set closer than the gap stay where they are.
    return clamp(value, Math.min(least, values[k]), Math.max(most, values[k]));
  };
  editor.move = (k, x, y) => {
    const [xs, ys] = read();
    const { x: across, y: up, gap } = limits();
    write(k, across ? between(xs, k, x, across, gap, false) : xs[k],
      free ? clamp(y, ...up) : between(ys, k, y, up, gap, falls));
  };
  editor.curve = () => monotoneCurve(...read());
  editor.indexOf = (node) => editor.knots.findIndex((knot) => knot.node === node);

  const knotAt = (k) => {
    const knot = handle(view, name(k), {
      shape: `round ${kind}`, colour: grip, end,
      start: ([x, y]) => {
        const [xs, ys] = read();
        const [left, top] = [map.x(xs[k]) - x, map.y(toPlot(ys[k])) - y]; // to the middle of the handle
        return ([toX, toY]) => {
          const [newX, newY] = map.toPlane(toX + left, toY + top);
          editor.move(k, newX, fromPlot(newY));
        };
      }
    });
    if (!limits().x) knot.node.setAttribute("aria-orientation", "vertical");
    return knot;
  };
  editor.stand = (drawn) => {
    map = drawn;
    const [xs, ys] = read();
    if (editor.knots.length !== xs.length) {
      editor.knots.forEach((knot) => knot.node.remove());
      editor.knots = xs.map((_, k) => knotAt(k));
    }
    editor.knots.forEach((knot, k) => {
      knot.range(limits().y);
      knot.stand(map.x(xs[k]), map.y(toPlot(ys[k])), ys[k], said(xs[k], ys[k]));
    });
  };
  return editor;
}
