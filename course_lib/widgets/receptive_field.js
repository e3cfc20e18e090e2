// ReceptiveField: which pixels a pixel sees through more and more layers, and which it never does.

import { throttledChanges } from "./parts/changes.js";
import { PALETTE } from "./parts/colours.js";
import { unpack } from "./parts/data.js";
import { drag } from "./parts/drag.js";
import { gridLines } from "./parts/grid.js";
import { onKeys } from "./parts/keys.js";
import { hint, legend, say, spoken, takesKeys } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { clamp, hatch, trace } from "./parts/panel.js";
import { clockOf, playerBar } from "./parts/player.js";
import STYLE from "./receptive_field.css" with { type: "css" };

// -------------------------------------------------------------------------------- the mathematics

// What all pixels of an image are to the chosen one, row by row: the field moved to it, cropped.
function statesOf({ values, shape }, variant, layer, row, column, [rows, columns]) {
  const [, layers, height, width] = shape;
  const at = (l, i, j) => values[((variant * layers + l) * height + i) * width + j] > 0.5;
  const states = [];
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      const [y, x] = [i - row + (height >> 1), j - column + (width >> 1)];
      const measured = y >= 0 && y < height && x >= 0 && x < width;
      const seen = measured && at(layer, y, x);
      if (i * columns + j >= row * columns + column) states.push(seen ? "leak" : "after");
      else if (!measured) states.push("unmeasured");
      else if (!seen) states.push("blind");
      else states.push(layer > 0 && at(layer - 1, y, x) ? "seen" : "fresh");
    }
  }
  return states;
}

function sentenceOf(states, layer, before) {
  const count = (...wanted) => states.filter((state) => wanted.includes(state)).length;
  let said = `Layer ${layer + 1}: sees ${count("seen", "fresh")} of the ${before} ` +
    `${before === 1 ? "pixel" : "pixels"} before it; blind: ${count("blind")}.`;
  const [unmeasured, leaks] = [count("unmeasured"), count("leak")];
  if (unmeasured) said += ` Too far to be measured: ${unmeasured}.`;
  if (leaks) said += ` Seen against the order: ${leaks}.`;
  return said;
}

function stateOf(model) {
  const { fields } = unpack(model);
  const [variants, layers, height, width] = fields.shape;
  const size = model.get("size");
  const [rows, columns] = size;
  const clock = clockOf(model);
  const { change, send } = throttledChanges(model);
  const chosen = () => [model.get("row"), model.get("column")];
  const layer = () => clamp(Math.floor(clock.shown() + 0.5), 0, layers - 1);
  const states = (variant) => statesOf(fields, variant, layer(), ...chosen(), size);
  return {
    variants, rows, columns, chosen, states, send, names: model.get("names"),
    sentence: (seen) => sentenceOf(seen, layer(), chosen()[0] * columns + chosen()[1]),
    moveTo: (row, column) => change({ row: clamp(row, 0, rows - 1), column: clamp(column, 0, columns - 1) }),
    // Whether some pixel may be too far away to have been measured, and whether some field holds its
    // own centre or what comes after it.
    open: 2 * rows - 1 > height || 2 * columns - 1 > width,
    leaks: fields.values.some((value, k) => value > 0.5 && 2 * (k % (height * width)) >= height * width - 1)
  };
}

// ------------------------------------------------------------------------------------ the picture

const FILLS = { seen: [PALETTE.data, 0.4], fresh: [PALETTE.data, 1], leak: [PALETTE.error, 1] };

function drawStates(ctx, states, columns, width, height, { x, y, cell }) {
  const blind = new Path2D();
  states.forEach((state, k) => {
    const [left, top] = [x + (k % columns) * cell, y + Math.floor(k / columns) * cell];
    if (state in FILLS) {
      [ctx.fillStyle, ctx.globalAlpha] = FILLS[state];
      ctx.fillRect(left, top, cell, cell);
      ctx.globalAlpha = 1;
    } else if (state === "blind") {
      blind.rect(left, top, cell, cell);
    } else if (state === "unmeasured") {
      ctx.fillStyle = PALETTE.noise;
      ctx.beginPath();
      ctx.arc(left + cell / 2, top + cell / 2, Math.min(2, cell / 6), 0, 2 * Math.PI);
      ctx.fill();
    }
  });
  ctx.save();
  ctx.clip(blind);
  ctx.globalAlpha = 0.14;
  ctx.fillStyle = PALETTE.error;
  ctx.fillRect(x, y, width, height);
  ctx.globalAlpha = 1;
  ctx.strokeStyle = PALETTE.error;
  ctx.lineWidth = 1.5;
  hatch(ctx, { x, y, width, height }, 6);
  ctx.restore();
}

function drawImage(ctx, states, [row, column], { rows, columns }, box, theme) {
  const { x, y, cell } = box;
  const [width, height] = [columns * cell, rows * cell];
  ctx.fillStyle = theme.plot;
  ctx.fillRect(x, y, width, height);
  drawStates(ctx, states, columns, width, height, box);
  ctx.strokeStyle = theme.line;
  ctx.lineWidth = 1;
  gridLines(ctx, box, rows, columns);
  // Between what comes before the pixel and what comes after it.
  const [px, py] = [x + column * cell, y + row * cell];
  ctx.strokeStyle = theme.ink;
  ctx.lineWidth = 2;
  ctx.lineJoin = "miter";
  trace(ctx, [[x, py + cell], [px, py + cell], [px, py], [x + width, py]]);
  ctx.stroke();
  ctx.fillStyle = PALETTE.model;
  ctx.fillRect(px, py, cell, cell);
  const own = states[row * columns + column] === "leak";
  ctx.strokeStyle = own ? PALETTE.error : theme.ink;
  ctx.lineWidth = own ? 4 : 2;
  ctx.strokeRect(px, py, cell, cell);
}

// The images side by side, their names above and what is seen below. Words wrap, and the room they
// get is that of the longest sentence, so that nothing moves and nothing is cut off.
//
// `layout(space)` returns the height of all and where the images are.
function captionsOf({ variants, names, rows, columns, open, leaks }) {
  const captions = names.map((name) => ({
    name: element("div", { class: "field-name" }, name), said: element("div", { class: "field-said" })
  }));
  const longest = "Layer 20: sees 200 of the 200 pixels before it; blind: 200." +
    (open ? " Too far to be measured: 200." : "") + (leaks ? " Seen against the order: 200." : "");
  const layout = (space) => {
    const gap = 24;
    const across = clamp(Math.floor((space + gap) / (200 + gap)), 1, variants);
    const room = Math.floor((space - gap * (across - 1)) / across);
    const cell = Math.floor(Math.min((room - 4) / columns, 38, Math.max(8, 380 / rows)));
    const heights = { name: 0, said: 0 };
    for (const caption of captions) {
      const before = caption.said.textContent;
      caption.said.textContent = longest;
      for (const kind of ["name", "said"]) {
        caption[kind].style.width = `${room - 4}px`;
        heights[kind] = Math.max(heights[kind], caption[kind].offsetHeight);
      }
      caption.said.textContent = before;
    }
    const pitch = heights.name + 6 + rows * cell + 8 + heights.said + 12;
    const boxes = captions.map(({ name, said }, k) => {
      const box = { x: (k % across) * (room + gap) + 2, y: Math.floor(k / across) * pitch + heights.name + 6, cell };
      Object.assign(name.style, { left: `${box.x}px`, top: `${box.y - 6 - heights.name}px` });
      Object.assign(said.style, { left: `${box.x}px`, top: `${box.y + rows * cell + 8}px` });
      return box;
    });
    return { total: Math.ceil(variants / across) * pitch - 12, boxes };
  };
  return { captions, layout };
}

// The key; what should not be is explained only where it can be.
function keyOf({ open, leaks }) {
  const entries = [
    ["pixel", "the pixel"],
    ["fresh", "seen, new in this layer"],
    ["seen", "seen by earlier layers, too"],
    ["blind", "before it, but not seen"],
    ...(open ? [["unmeasured", "before it, not measured"]] : []),
    ...(leaks ? [["leak", "seen, but not before it"]] : []),
    ["after", "after it"]
  ];
  return legend(entries.map(([state, meaning]) => [element("i", { class: `field-mark ${state}` }), meaning]));
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const { variants, rows, columns, names, chosen, states, sentence, moveTo, send } = state;
  const { captions, layout: layOut } = captionsOf(state);
  let boxes = []; // of the images, as last laid out

  const layout = (space) => {
    const laid = layOut(space);
    boxes = laid.boxes;
    return laid.total;
  };
  const draw = (ctx, _, theme) => captions.forEach(({ said }, v) => {
    const seen = states(v);
    drawImage(ctx, seen, chosen(), state, boxes[v], theme);
    say(said, sentence(seen));
  });
  const maxWidth = clamp(variants * (38 * columns + 60) + 40, 440, 980);
  const view = outline({ model, el, layout, draw, maxWidth, style: STYLE, name: "field-widget" });
  // They stand in the page before the first layout, which comes with the next frame, measures them.
  view.stage.append(...captions.flatMap(({ name, said }) => [name, said]));

  const pixel = ([px, py], { x, y, cell }) => [Math.floor((py - y) / cell), Math.floor((px - x) / cell)];
  drag(view.canvas, {
    end: send,
    start: (place) => {
      const box = boxes.find((one) => {
        const [row, column] = pixel(place, one);
        return row >= 0 && row < rows && column >= 0 && column < columns;
      });
      if (!box) return null;
      const move = (to) => moveTo(...pixel(to, box));
      move(place);
      return move;
    }
  });
  takesKeys(view.canvas, model.get("alt"), "Arrow keys move the pixel.");
  const speak = spoken(view);
  const step = (down, right) => () => {
    moveTo(chosen()[0] + down, chosen()[1] + right);
    const said = names.map((name, v) => `${name}: ${sentence(states(v))}`);
    const [row, column] = chosen();
    speak(`Row ${row + 1}, column ${column + 1}. ${said.join(" ")}`);
  };
  onKeys(view, {
    ArrowUp: step(-1, 0), ArrowDown: step(1, 0), ArrowLeft: step(0, -1), ArrowRight: step(0, 1)
  }, view.canvas);

  view.controls.before(keyOf(state));
  view.root.append(hint(
    "Click or drag in an image to move the pixel, or go there with Tab and use the arrow keys. " +
    "Space plays; \u2190 \u2192 on the bar go through the layers."));
  playerBar(view, model);
  view.follow(["row", "column"], view.redraw);
  view.onStop(send);
  return view.stop;
}

export default { render };
