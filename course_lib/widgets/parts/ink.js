// Pixels that a reader draws on, with strokes and keys. Python has them as `Mask` of ink.py.

import { drag } from "./drag.js";
import { wayBetween } from "./grid.js";
import { onKeys } from "./keys.js";
import { spoken, takesKeys } from "./notes.js";

const MOST_PAST = 200; // drawings to go back to

// All pixels under a round brush that is centred at a place get this bit.
function stamp(mask, { rows, columns }, [x, y], reach, bit) {
  const from = (v) => Math.max(0, Math.floor(v - reach));
  for (let row = from(y); row < Math.min(rows, y + reach + 1); row++) {
    for (let column = from(x); column < Math.min(columns, x + reach + 1); column++) {
      const under = row === Math.floor(y) && column === Math.floor(x);
      const near = Math.hypot(row + 0.5 - y, column + 0.5 - x) <= reach;
      if (under || (near && reach > 0.5)) mask[row * columns + column] = bit;
    }
  }
}

// Draws a line one pixel wide, as edges of images are: where it would turn in a corner, the pixel of
// the corner is as it was. Returns what draws on to the next place.
function thinLine(mask, grid, bit) {
  const trail = []; // the last pixels and what they were: [pixel, was]
  const touching = (a, b) =>
    Math.abs(grid.rowOf(a) - grid.rowOf(b)) === 1 && Math.abs(grid.columnOf(a) - grid.columnOf(b)) === 1;
  return (place) => {
    const pixel = grid.at(place);
    if (pixel === trail.at(-1)?.[0]) return;
    if (pixel === null) {
      trail.length = 0; // it has left the grid
      return;
    }
    if (trail.length > 1 && touching(trail.at(-2)[0], pixel)) {
      const [corner, was] = trail.pop();
      mask[corner] = was;
    }
    trail.push([pixel, mask[pixel]]);
    mask[pixel] = bit;
  };
}

// What is drawn on a grid: the trait `name`, a text with "0" or "1" for each pixel. `past` is what to go
// back to; several views may share it. `brush(bit)` says how many pixels wide this bit is drawn, and 0
// is a thin line; `touched()` is called before all changes.
export function inkOf(model, name, grid, { change, send }, { past, brush, touched = () => {} }) {
  let stroking = false;
  const ink = { grid, past, cursor: null }; // the pixel under the pointer or the keyboard
  ink.text = () => model.get(name);
  ink.bit = (pixel) => model.get(name)[pixel];
  ink.set = (text) => {
    if (text === ink.text()) return;
    touched();
    change({ [name]: text });
    if (!stroking) send(); // Python hears of a stroke a few times a second, of all else at once
  };
  ink.remember = () => {
    if (past.at(-1) !== ink.text()) past.push(ink.text());
    if (past.length > MOST_PAST) past.shift();
  };
  // Drawn anew, and can be undone: the bit of each pixel.
  ink.draw = (bitOf) => {
    ink.remember();
    ink.set(Array.from({ length: grid.size }, (_, pixel) => bitOf(pixel)).join(""));
  };
  ink.toggle = (pixel) => ink.draw((i) => (i === pixel) === (ink.bit(i) === "1") ? "0" : "1");
  // A stroke of the brush: returns what goes on with it.
  ink.stroke = (place, bit) => {
    ink.remember();
    stroking = true;
    const mask = [...ink.text()];
    const width = brush(bit);
    const mark = width ? (one) => stamp(mask, grid, one, width / 2, bit) : thinLine(mask, grid, bit);
    let at = place;
    const paint = (places) => {
      places.forEach(mark);
      ink.set(mask.join(""));
    };
    paint([place]);
    return (to) => {
      paint(wayBetween(at, to));
      at = to;
    };
  };
  ink.lift = () => {
    stroking = false;
    send();
  };
  ink.undo = () => {
    while (past.length) {
      const text = past.pop();
      if (text !== ink.text()) return ink.set(text);
    }
  };
  ink.canUndo = () => past.some((before) => before !== ink.text());
  return ink;
}

// The view's canvas is drawn on, with a pointer or keys. `bitOf(event)` is what a stroke draws that
// begins so, `words(bit)` what is said of a pixel; `keys` says what keys do. With `line`, a bit, Shift
// and arrows draw it from pixel to pixel.
export function drawOn(view, ink, { bitOf, words, keys, line = null }) {
  const { canvas } = view;
  const { grid } = ink;
  const point = (pixel) => {
    ink.cursor = pixel;
    view.redraw();
  };
  drag(canvas, {
    buttons: [0, 1, 2],
    start: (place, event) => {
      const move = ink.stroke(grid.within(place, canvas), bitOf(event));
      return (to) => move(grid.within(to, canvas));
    },
    end: ink.lift,
    hover: (place) => point(grid.near(grid.within(place, canvas))),
    leave: () => point(null)
  });
  canvas.addEventListener("blur", () => point(null));

  const speak = spoken(view);
  const here = () => ink.cursor ?? grid.middle;
  const tell = () => speak(`${grid.name(ink.cursor).replace("row", "Row")}${words(ink.bit(ink.cursor))}`);
  const walk = (down, right) => () => {
    point(grid.step(here(), down, right));
    tell();
  };
  const pull = (down, right) => () => {
    const ends = [here(), grid.step(here(), down, right)];
    ink.draw((pixel) => (ends.includes(pixel) ? line : ink.bit(pixel)));
    walk(down, right)();
  };
  const toggle = () => {
    ink.toggle(here());
    walk(0, 0)();
  };
  takesKeys(canvas, view.model.get("alt"), keys);
  const ways = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const actions = { " ": toggle };
  for (const [key, way] of Object.entries(ways)) {
    actions[key] = walk(...way);
    if (line !== null) actions[`Shift+${key}`] = pull(...way);
  }
  onKeys(view, actions, canvas);
}
