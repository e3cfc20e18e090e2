// ReceptiveField: which pixels a pixel sees through more and more layers, and which it never does.

import { throttledChanges } from "./parts/changes.js";
import { PALETTE } from "./parts/colours.js";
import { unpack } from "./parts/data.js";
import { drag } from "./parts/drag.js";
import { onKeys } from "./parts/keys.js";
import { spoken } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { playerBar } from "./parts/player.js";
import STYLE from "./receptive_field.css" with { type: "css" };

// What a pixel is to the chosen one. receptive_field.py has the same numbers.
const [AFTER, SEEN, FRESH, BLIND, LEAK, UNMEASURED] = [0, 1, 2, 3, 4, 5];

// The states of all pixels of an image, row by row: the field moved to the chosen pixel, cropped.
function statesOf({ values, shape }, variant, layer, row, column, [rows, columns]) {
  const [, layers, height, width] = shape;
  const at = (l, i, j) => values[((variant * layers + l) * height + i) * width + j] > 0.5;
  const states = [];
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      const [y, x] = [i - row + (height >> 1), j - column + (width >> 1)];
      const inside = y >= 0 && y < height && x >= 0 && x < width;
      const seen = inside && at(layer, y, x);
      if (i * columns + j >= row * columns + column) states.push(seen ? LEAK : AFTER);
      else if (!inside) states.push(UNMEASURED);
      else if (!seen) states.push(BLIND);
      else states.push(layer > 0 && at(layer - 1, y, x) ? SEEN : FRESH);
    }
  }
  return states;
}

function sentenceOf(states, layer, before) {
  const count = (...wanted) => states.filter((state) => wanted.includes(state)).length;
  const blind = count(BLIND);
  let said = `Layer ${layer + 1}: sees ${count(SEEN, FRESH)} of the ${before} ` +
    `${before === 1 ? "pixel" : "pixels"} before it; blind: ${blind}.`;
  const [unmeasured, leaks] = [count(UNMEASURED), count(LEAK)];
  if (unmeasured) said += ` Too far to be measured: ${unmeasured}.`;
  if (leaks) said += ` Seen against the order: ${leaks}.`;
  return said;
}

// --------------------------------------------------------------------------------------- the look

const HATCH = `repeating-linear-gradient(-45deg, ${PALETTE.error} 0 1.5px, transparent 1.5px 5px)`;

// The key: a state, its name and its background.
const KEY = [
  [null, "the pixel", PALETTE.model],
  [FRESH, "seen, new in this layer", PALETTE.data],
  [SEEN, "seen by earlier layers, too", `${PALETTE.data}66`],
  [BLIND, "before it, but not seen", HATCH],
  [UNMEASURED, "before it, not measured", `radial-gradient(circle, ${PALETTE.noise} 2px, transparent 2.5px)`],
  [LEAK, "seen, but not before it", PALETTE.error],
  [AFTER, "after it", "transparent"]
];

function drawImage(ctx, states, [row, column], [rows, columns], { x, y, cell }, theme) {
  const [width, height] = [columns * cell, rows * cell];
  const hatch = new Path2D();
  ctx.fillStyle = theme.plot;
  ctx.fillRect(x, y, width, height);
  states.forEach((state, k) => {
    const [i, j] = [Math.floor(k / columns), k % columns];
    const [left, top] = [x + j * cell, y + i * cell];
    if (state === SEEN || state === FRESH || state === LEAK) {
      ctx.globalAlpha = state === SEEN ? 0.4 : 1;
      ctx.fillStyle = state === LEAK ? PALETTE.error : PALETTE.data;
      ctx.fillRect(left, top, cell, cell);
      ctx.globalAlpha = 1;
    } else if (state === BLIND) {
      hatch.rect(left, top, cell, cell);
    } else if (state === UNMEASURED) {
      ctx.fillStyle = PALETTE.noise;
      ctx.beginPath();
      ctx.arc(left + cell / 2, top + cell / 2, Math.min(2, cell / 6), 0, 2 * Math.PI);
      ctx.fill();
    }
  });
  ctx.save();
  ctx.clip(hatch);
  ctx.globalAlpha = 0.14;
  ctx.fillStyle = PALETTE.error;
  ctx.fillRect(x, y, width, height);
  ctx.globalAlpha = 1;
  ctx.strokeStyle = PALETTE.error;
  ctx.lineWidth = 1.5;
  ctx.beginPath();
  for (let k = -height; k < width; k += 6) {
    ctx.moveTo(x + k, y + height);
    ctx.lineTo(x + k + height, y);
  }
  ctx.stroke();
  ctx.restore();

  ctx.strokeStyle = theme.line;
  ctx.lineWidth = 1;
  ctx.beginPath();
  for (let k = 0; k <= columns; k++) {
    ctx.moveTo(x + k * cell + 0.5, y);
    ctx.lineTo(x + k * cell + 0.5, y + height + 1);
  }
  for (let k = 0; k <= rows; k++) {
    ctx.moveTo(x, y + k * cell + 0.5);
    ctx.lineTo(x + width, y + k * cell + 0.5);
  }
  ctx.stroke();
  // Between what comes before the pixel and what comes after it.
  const [px, py] = [x + column * cell, y + row * cell];
  ctx.strokeStyle = theme.ink;
  ctx.lineWidth = 2;
  ctx.lineJoin = "miter";
  ctx.beginPath();
  ctx.moveTo(x, py + cell);
  ctx.lineTo(px, py + cell);
  ctx.lineTo(px, py);
  ctx.lineTo(x + width, py);
  ctx.stroke();
  ctx.fillStyle = PALETTE.model;
  ctx.fillRect(px, py, cell, cell);
  const own = states[row * columns + column] === LEAK;
  ctx.strokeStyle = own ? PALETTE.error : theme.ink;
  ctx.lineWidth = own ? 4 : 2;
  ctx.strokeRect(px, py, cell, cell);
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const { fields } = unpack(model);
  const [variants, layers] = fields.shape;
  const size = model.get("size");
  const [rows, columns] = size;
  const names = model.get("names");
  // Whether some pixel may be too far away to have been measured, and whether some field holds its
  // own centre or what comes after it.
  const [height, width] = fields.shape.slice(2);
  const open = 2 * rows - 1 > height || 2 * columns - 1 > width;
  const leaks = fields.values.some((value, k) => value > 0.5 && 2 * (k % (height * width)) >= height * width - 1);
  let boxes = []; // of the images, as last laid out
  let clock = null;

  const { change, send } = throttledChanges(model);
  const moveTo = (row, column) => {
    const clamped = [[row, rows], [column, columns]].map(([v, n]) => Math.max(0, Math.min(n - 1, v)));
    change({ row: clamped[0], column: clamped[1] });
  };
  const layerShown = () => Math.max(0, Math.min(layers - 1, Math.floor(clock.shown() + 0.5)));
  const chosen = () => [model.get("row"), model.get("column")];

  const panels = names.map((name) => ({
    name: element("div", { class: "field-name" }, name),
    said: element("div", { class: "field-said" })
  }));

  // The images side by side, their names above and what is seen below. Words wrap, and the room
  // they get is that of the longest sentence, so that nothing moves and nothing is cut off.
  const layout = (space) => {
    const gap = 24;
    const across = Math.max(1, Math.min(variants, Math.floor((space + gap) / (200 + gap))));
    const room = Math.floor((space - gap * (across - 1)) / across);
    const cell = Math.floor(Math.min((room - 4) / columns, 38, Math.max(8, 380 / rows)));
    const heights = { name: 0, said: 0 };
    for (const panel of panels) {
      const before = panel.said.textContent;
      panel.said.textContent = "Layer 20: sees 200 of the 200 pixels before it; blind: 200." +
        (open ? " Too far to be measured: 200." : "") + (leaks ? " Seen against the order: 200." : "");
      for (const kind of ["name", "said"]) {
        panel[kind].style.width = `${room - 4}px`;
        heights[kind] = Math.max(heights[kind], panel[kind].offsetHeight);
      }
      panel.said.textContent = before;
    }
    const pitch = heights.name + 6 + rows * cell + 8 + heights.said + 12;
    boxes = panels.map((panel, k) => {
      const box = { x: (k % across) * (room + gap) + 2, y: Math.floor(k / across) * pitch + heights.name + 6, cell };
      Object.assign(panel.name.style, { left: `${box.x}px`, top: `${box.y - 6 - heights.name}px` });
      Object.assign(panel.said.style, { left: `${box.x}px`, top: `${box.y + rows * cell + 8}px` });
      return box;
    });
    return Math.ceil(variants / across) * pitch - 12;
  };

  const draw = (ctx, _, theme) => {
    const [row, column] = chosen();
    const layer = layerShown();
    panels.forEach(({ said }, v) => {
      const states = statesOf(fields, v, layer, row, column, size);
      drawImage(ctx, states, [row, column], size, boxes[v], theme);
      const words = sentenceOf(states, layer, row * columns + column);
      if (said.textContent !== words) said.textContent = words;
    });
  };

  const view = outline({
    model, el, style: STYLE, draw, layout, maxWidth: Math.max(440, Math.min(980, variants * (38 * columns + 60) + 40))
  });
  view.root.classList.add("field-widget");
  // They stand in the page before the first layout, which comes with the next frame, measures them.
  view.stage.append(...panels.flatMap(({ name, said }) => [name, said]));

  // ------------------------------------------------------------------------------ pointer and keys

  const { canvas } = view;
  canvas.classList.add("field-canvas");
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", `${model.get("alt")} Arrow keys move the pixel.`);
  const speak = spoken(view);

  const pixel = ([px, py], { x, y, cell }) => [Math.floor((py - y) / cell), Math.floor((px - x) / cell)];
  drag(canvas, {
    end: send,
    start: (place) => {
      const box = boxes.find((one) => {
        const [row, column] = pixel(place, one);
        return row >= 0 && row < rows && column >= 0 && column < columns;
      });
      if (!box) return null;
      moveTo(...pixel(place, box));
      return (to) => moveTo(...pixel(to, box));
    }
  });
  const step = (down, right) => () => {
    const [row, column] = chosen();
    moveTo(row + down, column + right);
    const [newRow, newColumn] = chosen();
    const said = names.map((name, v) => {
      const states = statesOf(fields, v, layerShown(), newRow, newColumn, size);
      return `${name}: ${sentenceOf(states, layerShown(), newRow * columns + newColumn)}`;
    });
    speak(`Row ${newRow + 1}, column ${newColumn + 1}. ${said.join(" ")}`);
  };
  onKeys(view, {
    ArrowUp: step(-1, 0), ArrowDown: step(1, 0), ArrowLeft: step(0, -1), ArrowRight: step(0, 1)
  }, canvas);

  // ---------------------------------------------------------------------------------- what is below

  const key = element("div", { class: "field-key" });
  for (const [state, name, background] of KEY) {
    // What should not be is explained only where it can be.
    if ((state === UNMEASURED && !open) || (state === LEAK && !leaks)) continue;
    key.append(element("span", {}, element("i", { style: `background: ${background}` }), name));
  }
  view.root.insertBefore(key, view.controls);
  view.root.append(element("p", { class: "field-hint" },
    "Click or drag in an image to move the pixel, or go there with Tab and use the arrow keys. " +
    "Space plays; \u2190 \u2192 on the bar go through the layers."));

  clock = playerBar(view, model);
  const redraw = () => view.redraw();
  view.follow(["row", "column"], redraw);
  view.onStop(send);
  return view.stop;
}

export default { render };
