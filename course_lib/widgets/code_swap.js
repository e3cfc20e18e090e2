// CodeSwap: paint on the code map of a VQ-VAE and watch the image that it decodes to.

import { PALETTE, colourTable } from "./parts/colours.js";
import { unpack } from "./parts/data.js";
import { kernelLine } from "./parts/kernel.js";
import { onKeys } from "./parts/keys.js";
import { element, outline } from "./parts/outline.js";

const NO_KERNEL = "That change needs a running kernel: run this cell.";
const MOST_PAST = 200; // maps to go back to

// ------------------------------------------------------------------------------- maps and changes

// What Python sent, as whole numbers: the examples' maps and images, the codes' swatches.
function examplesOf(model) {
  const arrays = unpack(model);
  const [count, rows, columns] = arrays.maps.shape;
  const [, height, width] = arrays.decoded.shape;
  const all = (name, size) => Array.from({ length: arrays[name].shape[0] }, (_, i) =>
    Array.from(arrays[name].values.subarray(i * size, (i + 1) * size), Math.round));
  const [, tall, wide] = arrays.swatches.shape;
  return {
    count, rows, columns, height, width, tall, wide,
    maps: all("maps", rows * columns),
    decoded: all("decoded", height * width),
    originals: arrays.originals && all("originals", height * width),
    swatches: all("swatches", tall * wide),
    changes: new Map() // see readChanges
  };
}

// The stored single changes: {"example,cell,code": differences of grey levels, modulo 256}. They
// are compressed, in the order of `_changes` in code_swap.py.
async function readChanges(model, { maps, width, height }) {
  const { examples = [], codes } = model.get("stored");
  const found = new Map();
  if (!examples.length || !window.DecompressionStream) return found;
  const packed = Uint8Array.from(unpack(model).changes.values);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const palette = model.get("palette").slice(0, codes);
  let at = 0;
  for (const m of examples) {
    for (let cell = 0; cell < maps[m].length; cell++) {
      const all = new Set([...palette, ...examples.map((j) => maps[j][cell])]);
      all.delete(maps[m][cell]);
      for (const code of [...all].sort((a, b) => a - b)) {
        found.set(`${m},${cell},${code}`, bytes.subarray(at, at + width * height));
        at += width * height;
      }
    }
  }
  return found;
}

// The image of a changed map without a kernel: the example's own plus the difference that each
// changed cell makes alone. Null where a change is not stored.
function putTogether({ maps, decoded, changes }, m, map) {
  const own = decoded[m];
  const changed = changedCells(maps[m], map);
  const all = changed.map((cell) => changes.get(`${m},${cell},${map[cell]}`));
  if (!all.every(Boolean)) return null;
  const levels = own.map((before, pixel) => {
    const sum = all.reduce((level, change) => level + ((before + change[pixel]) & 255) - before, before);
    return Math.max(0, Math.min(255, sum));
  });
  return { levels, count: changed.length };
}

function changedCells(before, after) {
  return after.flatMap((code, cell) => (code === before[cell] ? [] : [cell]));
}

// ------------------------------------------------------------------------- what all views share

const MEMORIES = new WeakMap();

// The image that is shown, the one before the last change, and the maps to go back to. A drag over
// many cells is one change.
function memoryOf(model) {
  if (MEMORIES.has(model)) return MEMORIES.get(model);
  const data = examplesOf(model);
  const listeners = new Set();
  const now = () => ({ example: model.get("example"), map: model.get("codes").flat() });
  const memory = {
    data, past: [], last: now(), dragging: false, notice: "", encoding: null,
    levels: null, how: "", before: null, changed: []
  };
  const tell = () => listeners.forEach((listener) => listener());
  let begun = false; // this drag has changed a cell
  let undoing = false;

  memory.now = now;
  memory.own = () => data.maps[model.get("example")];
  memory.listen = (listener) => {
    listeners.add(listener);
    return () => listeners.delete(listener);
  };
  memory.say = (notice) => {
    memory.notice = notice;
    tell();
  };

  // Which image belongs to the present map, and how we know.
  const look = () => {
    const { example, map } = now();
    const answered = model.get("answered");
    const fits = String(answered.codes) === String(map);
    if (fits && !answered.error) {
      Object.assign(memory, { levels: answered.levels, how: "exact" });
    } else if (!changedCells(memory.own(), map).length) {
      Object.assign(memory, { levels: data.decoded[example], how: "exact" });
    } else if (model.standIn) {
      const made = putTogether(data, example, map);
      if (made) Object.assign(memory, { levels: made.levels, how: made.count > 1 ? "sum" : "exact" });
      else memory.how = "missing";
    } else {
      memory.how = fits ? "failed" : "waiting"; // the picture stays the one before
    }
    tell();
  };
  // The kernel's answer says which codes it is for, so that nothing stale is ever shown.
  const onAnswer = (ours) => {
    const before = memory.encoding;
    memory.encoding = null;
    changed(); // new codes may come in the same message, told of before or after
    look();
    if (!ours || !before || model.get("answered").error) return;
    const count = changedCells(before, now().map).length;
    memory.notice = count ? `Encoded again: ${cells(count)} came out with another code.`
      : "Encoded again: every code came back.";
  };
  memory.line = kernelLine(model, "decode", { onAnswer, tell });
  memory.waiting = () => Boolean(memory.line.waiting) || memory.how === "waiting";
  const askForImage = () => {
    const open = () => memory.how === "waiting" || memory.how === "failed";
    if (!open()) return;
    memory.line.ask(() => {
      look();
      return open() && { codes: model.get("codes") };
    });
  };
  const changed = () => {
    const { last } = memory;
    memory.last = now();
    if (!changedCells(last.map, memory.last.map).length) return;
    memory.notice = "";
    if (!memory.dragging || !begun) {
      const same = last.example === memory.last.example;
      Object.assign(memory, { before: same ? memory.levels : null, beforeMap: last.map });
      if (!undoing) memory.past.push(last);
      if (memory.past.length > MOST_PAST) memory.past.shift();
      begun = memory.dragging;
    }
    memory.changed = changedCells(memory.beforeMap, memory.last.map);
    look();
  };
  memory.drag = (dragging) => {
    memory.dragging = dragging;
    begun = false;
  };
  const rowsOf = (map) =>
    Array.from({ length: data.rows }, (_, i) => map.slice(i * data.columns, (i + 1) * data.columns));
  memory.go = ({ example, map }) => {
    model.set("example", example);
    model.set("codes", rowsOf(map));
    model.save_changes();
    askForImage();
    tell();
  };
  memory.undo = () => {
    if (!memory.past.length) return;
    undoing = true;
    memory.go(memory.past.pop());
    undoing = false;
  };
  memory.encode = () => {
    memory.line.ask(() => {
      memory.encoding = now().map;
      return { kind: "encode" };
    });
  };
  // Whether the change of one cell can be shown.
  memory.can = (cell, code) => {
    const example = model.get("example");
    return !model.standIn || data.maps[example][cell] === code || data.changes.has(`${example},${cell},${code}`);
  };
  memory.choose = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };

  model.on("change:codes", changed);
  for (const name of ["example", "brush", "source"]) model.on(`change:${name}`, tell);
  MEMORIES.set(model, memory);
  look();
  readChanges(model, data).then((changes) => {
    data.changes = changes;
    look();
  });
  return memory;
}

const cells = (count) => `${count} ${count === 1 ? "cell" : "cells"}`;

// --------------------------------------------------------------------------------------- the look

const STYLE = `
.swap-frame { container-type: inline-size; }
.swap-body { display: grid; grid-template-columns: 108px minmax(0, 336px) 172px; gap: 10px 22px; justify-content: space-between; }
.swap-body canvas { display: block; }
.swap-body .cw-stage canvas, .swap-decoded { touch-action: none; cursor: crosshair; border-radius: 3px; }
.swap-body canvas:focus { outline: none; }
.swap-body canvas:focus-visible { outline: 2px solid var(--cw-accent); outline-offset: 2px; }
.swap-name { min-height: 18px; margin-bottom: 3px; color: var(--cw-muted); font-size: 12px; line-height: 18px; font-variant-numeric: tabular-nums; }
.swap-name b { color: var(--cw-ink); font-weight: 600; }
.swap-map .swap-name { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.swap-how { min-height: 34px; margin: 3px 0 6px; font-size: 12px; line-height: 17px; color: var(--cw-muted); }
.swap-thumbs { display: flex; flex-wrap: wrap; gap: 6px; }
.swap-widget .swap-thumbs button, .swap-widget .swap-codes button {
  padding: 0; border: 0; border-radius: 3px; background: none; cursor: pointer; line-height: 0; color: inherit; font: inherit;
  box-shadow: 0 0 0 1px var(--cw-line);
}
.swap-thumbs canvas { display: block; width: 30px; height: auto; border-radius: 3px; image-rendering: pixelated; }
.swap-examples .swap-thumbs { margin-top: 10px; }
.swap-original { width: 104px; image-rendering: pixelated; border-radius: 3px; box-shadow: 0 0 0 1px var(--cw-line); }
.swap-widget .swap-thumbs button[aria-pressed="true"], .swap-widget .swap-codes button[aria-pressed="true"] {
  box-shadow: 0 0 0 1px var(--cw-plot), 0 0 0 3px ${PALETTE.model};
}
.swap-widget .swap-examples button[aria-pressed="true"] { box-shadow: 0 0 0 1px var(--cw-plot), 0 0 0 3px var(--cw-accent); }
.swap-thumbs button:disabled { opacity: 0.35; cursor: default; }
.swap-brushes { display: flex; flex-wrap: wrap; gap: 10px 26px; margin-top: 12px; }
.swap-brushes > :first-child { flex: 1 1 330px; }
.swap-brushes > :last-child { flex: 0 1 210px; }
.swap-codes { display: flex; flex-wrap: wrap; gap: 6px; max-height: 170px; overflow-y: auto; padding: 4px; margin: -4px; }
.swap-widget .swap-codes button { width: 34px; padding: 4px 0 1px; background: var(--cw-fill); }
.swap-codes canvas { display: block; width: 22px; height: 22px; margin: 0 auto; image-rendering: pixelated; }
.swap-codes span { display: block; font-size: 11px; line-height: 15px; font-variant-numeric: tabular-nums; }
.swap-more { margin: 6px 0 0; color: var(--cw-muted); font-size: 12px; }
.course-widget .swap-tools { flex-wrap: wrap; gap: 6px; padding-top: 10px; }
.swap-tools button { border: 1px solid var(--cw-line); padding: 0 12px; }
.swap-widget .swap-tools button:disabled { opacity: 0.45; cursor: default; }
.swap-status { min-height: 20px; margin: 8px 0 0; overflow-wrap: anywhere; }
.swap-status.failed { border-left: 3px solid ${PALETTE.error}; padding-left: 8px; }
.swap-hint { margin: 6px 0 0; color: var(--cw-muted); font-size: 12px; }
@container (max-width: 600px) {
  .swap-body { grid-template-columns: minmax(0, 1fr); }
  .swap-examples { display: flex; flex-wrap: wrap; gap: 8px 14px; }
  .swap-examples .swap-name { flex: 1 1 100%; margin: 0 0 -6px; }
  .swap-examples .swap-original { width: 72px; height: auto; }
  .swap-examples .swap-thumbs { flex: 1; margin: 0; align-content: start; }
  .swap-images { display: grid; grid-template-columns: 172px 1fr; gap: 0 20px; }
}
`;

// Grey levels on a small canvas, a pixel each.
function paintGrey(canvas, levels) {
  const ctx = canvas.getContext("2d");
  const pixels = ctx.createImageData(canvas.width, canvas.height);
  levels.forEach((level, i) => pixels.data.set([level, level, level, 255], 4 * i));
  ctx.putImageData(pixels, 0, 0);
}

function greyCanvas(levels, width, height, attributes = {}) {
  const canvas = element("canvas", { width, height, ...attributes });
  paintGrey(canvas, levels);
  return canvas;
}

// Light inside dark: seen on every grey.
function outlineBox(ctx, x, y, w, h) {
  ctx.lineJoin = "miter";
  for (const [colour, line] of [["#000000", 4], ["#ffffff", 2]]) {
    ctx.strokeStyle = colour;
    ctx.lineWidth = line;
    ctx.strokeRect(x + 1, y + 1, w - 2, h - 2);
  }
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const memory = memoryOf(model);
  const { data } = memory;
  const { count, rows, columns, height, width } = data;
  const size = rows * columns;
  const stored = model.get("stored");
  const palette = model.standIn ? model.get("palette").slice(0, stored.codes || 0) : model.get("palette");
  const pictures = data.originals || data.decoded;
  const signed = colourTable("signed");
  let cursor = null; // the cell under the pointer or the keyboard

  // -------------------------------------------------------------------------------------- painting

  const map = () => model.get("codes").flat();
  const brushAt = (cell) => {
    const source = model.get("source");
    return source === null ? model.get("brush") : data.maps[source][cell];
  };
  const change = (changes) => {
    const next = map();
    let missing = 0;
    for (const [cell, code] of changes) {
      if (memory.can(cell, code)) next[cell] = code;
      else missing += 1;
    }
    // Where decode has failed, painting the same once more asks once more.
    const again = memory.how === "failed" && !missing;
    if (again || changedCells(map(), next).length) memory.go({ example: model.get("example"), map: next });
    if (missing) memory.say(missing < changes.length ? `${cells(missing)} could not be changed. ${NO_KERNEL}` : NO_KERNEL);
  };
  const paint = (some) => change(some.map((cell) => [cell, brushAt(cell)]));
  const pick = (cell) => {
    model.set("source", null);
    memory.choose("brush", map()[cell]);
  };
  const cycle = (by) => {
    if (!palette.length) return;
    const place = palette.indexOf(model.get("brush"));
    const next = place < 0 ? 0 : (place + by + palette.length) % palette.length;
    model.set("source", null);
    memory.choose("brush", palette[next]);
  };

  // --------------------------------------------------------------------------------------- drawing

  // All swatches on one canvas, from which cells are drawn.
  const across = 32;
  const sheet = element("canvas", {
    width: across * data.wide, height: Math.ceil(data.swatches.length / across) * data.tall
  });
  const swatchAt = (code) => [(code % across) * data.wide, Math.floor(code / across) * data.tall];
  const small = data.swatches.map((levels) => greyCanvas(levels, data.wide, data.tall));
  small.forEach((swatch, code) => sheet.getContext("2d").drawImage(swatch, ...swatchAt(code)));

  const drawMap = (ctx, { width: space }, theme) => {
    const [now, own] = [map(), memory.own()];
    const cell = space / columns;
    const roomy = cell >= 28;
    ctx.imageSmoothingEnabled = false; // pixels are what the model made, so show them as pixels
    ctx.font = `${Math.min(13, Math.round(cell / 3.4))}px ${theme.font}`;
    ctx.textAlign = "center";
    ctx.textBaseline = "middle";
    now.forEach((code, i) => {
      const [x, y] = [(i % columns) * cell, Math.floor(i / columns) * cell];
      ctx.fillStyle = theme.fill;
      ctx.fillRect(x + 1, y + 1, cell - 2, cell - 2);
      const side = roomy ? 0.52 * cell : cell - 4;
      const [left, top] = [x + (cell - side) / 2, roomy ? y + 0.11 * cell : y + 2];
      ctx.drawImage(sheet, ...swatchAt(code), data.wide, data.tall, left, top, side, side);
      if (roomy) {
        ctx.fillStyle = theme.ink;
        ctx.fillText(String(code), x + cell / 2, y + 0.81 * cell);
      }
      if (code !== own[i]) {
        ctx.strokeStyle = PALETTE.model;
        ctx.lineWidth = 2.5;
        ctx.strokeRect(x + 2, y + 2, cell - 4, cell - 4);
      }
    });
    if (cursor !== null) {
      outlineBox(ctx, (cursor % columns) * cell, Math.floor(cursor / columns) * cell, cell, cell);
    }
  };

  // An image on a canvas of its own, each of its pixels a block of `unit` screen pixels.
  const image = (most, attributes) => {
    const unit = Math.max(1, Math.floor(most / width));
    const canvas = element("canvas", attributes);
    Object.assign(canvas.style, { width: `${unit * width}px`, height: `${unit * height}px` });
    const pixels = element("canvas", { width, height });
    const box = (cell) => {
      const [row, column] = [Math.floor(cell / columns), cell % columns];
      return [
        (column * width * unit) / columns, (row * height * unit) / rows,
        (width * unit) / columns, (height * unit) / rows
      ];
    };
    const draw = (ratio, colours, marks) => {
      if (canvas.width !== Math.round(unit * width * ratio)) {
        canvas.width = Math.round(unit * width * ratio);
        canvas.height = Math.round(unit * height * ratio);
      }
      const ctx = canvas.getContext("2d");
      const target = pixels.getContext("2d");
      const bits = target.createImageData(width, height);
      for (let i = 0; i < width * height; i++) bits.data.set([...colours(i), 255], 4 * i);
      target.putImageData(bits, 0, 0);
      ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
      ctx.imageSmoothingEnabled = false;
      ctx.drawImage(pixels, 0, 0, unit * width, unit * height);
      marks(ctx, box);
    };
    return { canvas, draw };
  };
  const decoded = image(168, { class: "swap-decoded", role: "img" });
  const difference = image(112, { class: "swap-difference", role: "img", "aria-label": "Difference to the image before" });

  const draw = (ctx, canvasSize, theme) => {
    drawMap(ctx, canvasSize, theme);
    const { levels, before } = memory;
    const grey = (i) => [levels[i], levels[i], levels[i]];
    decoded.draw(canvasSize.ratio, grey, (target, box) => {
      if (cursor !== null) outlineBox(target, ...box(cursor));
    });
    const largest = before ? levels.reduce((most, level, i) => Math.max(most, Math.abs(level - before[i])), 0) : 0;
    const unit = 127.5 / Math.max(largest, 26);
    const tint = (i) => {
      const k = 3 * Math.round(127.5 + unit * (before ? levels[i] - before[i] : 0));
      return [signed[k], signed[k + 1], signed[k + 2]];
    };
    difference.draw(canvasSize.ratio, tint, (target, box) => {
      target.strokeStyle = "#000000";
      target.lineWidth = 1;
      if (before) for (const cell of memory.changed) target.strokeRect(...box(cell));
    });
  };

  const view = outline({ model, el, layout: (space) => (space * rows) / columns, draw, maxWidth: 720 });
  view.root.prepend(element("style", {}, STYLE));
  view.root.classList.add("swap-widget");

  // ---------------------------------------------------------------------------------------- parts

  const thumb = (i, label, onClick) => {
    const node = element("button", { type: "button", "aria-label": `${label} ${i + 1}`, title: `${label} ${i + 1}` },
      greyCanvas(pictures[i], width, height));
    node.addEventListener("click", () => onClick(i));
    return node;
  };
  const name = (text) => element("div", { class: "swap-name" }, text);
  const group = (label, attributes, ...children) => element("div", { role: "group", "aria-label": label, ...attributes }, ...children);

  const original = element("canvas", { class: "swap-original", width, height, role: "img" });
  const originalName = name("");
  const thumbs = Array.from({ length: count }, (_, i) => thumb(i, "Example", (example) =>
    memory.go({ example, map: data.maps[example] })));
  const mapName = name("");
  const how = element("p", { class: "swap-how" });
  const differenceName = name("");
  const body = element("div", { class: "swap-body" },
    group("Examples", { class: "swap-examples" }, originalName, original, element("div", { class: "swap-thumbs" }, ...(count > 1 ? thumbs : []))),
    element("div", { class: "swap-map" }, mapName, view.stage),
    element("div", { class: "swap-images" },
      element("div", {}, name("decoded image"), decoded.canvas, how),
      element("div", {}, name("difference to before"), difference.canvas, differenceName)));

  const codes = palette.map((code) => {
    const swatch = greyCanvas(data.swatches[code], data.wide, data.tall);
    const node = element("button", { type: "button", "aria-label": `Code ${code}` }, swatch, element("span", {}, String(code)));
    node.addEventListener("click", () => {
      model.set("source", null);
      memory.choose("brush", code);
    });
    return node;
  });
  const brushName = name("");
  const brushes = group("Codes to paint with", {}, brushName, element("div", { class: "swap-codes" }, ...codes));
  if (model.standIn) {
    const words = palette.length ? `${palette.length} of ${model.get("n_codes")} codes: the others need a running kernel.`
      : "Changes need a running kernel: run this cell.";
    if (palette.length < model.get("n_codes")) brushes.append(element("p", { class: "swap-more" }, words));
  }
  const sources = Array.from({ length: count }, (_, i) => thumb(i, "Codes of example", (source) => memory.choose("source", source)));
  const tool = (label, onClick) => {
    const node = element("button", { type: "button" }, label);
    node.addEventListener("click", onClick);
    return node;
  };
  const half = tool("Bring in the top half", () => {
    paint(Array.from({ length: Math.floor(rows / 2) * columns }, (_, cell) => cell));
  });
  const sourceName = name("");
  const others = group("Other examples", {}, sourceName, element("div", { class: "swap-thumbs" }, ...sources));
  const back = tool("Undo", memory.undo);
  const own = tool("Back to this image", () => memory.go({ example: model.get("example"), map: memory.own() }));
  const again = tool("Encode again", memory.encode);
  const tools = element("div", { class: "cw-controls swap-tools" }, back, own);
  if (count > 1) tools.append(half);
  if (model.get("can_encode") && !model.standIn) tools.append(again);
  const status = element("p", { class: "swap-status", role: "status" });
  const spoken = element("div", {
    "aria-live": "polite",
    style: "position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%)"
  });
  view.stage.append(spoken);
  view.header.after(
    element("div", { class: "swap-frame" }, body),
    element("div", { class: "swap-brushes" }, brushes, ...(count > 1 ? [others] : [])),
    tools, status,
    element("p", { class: "swap-hint" },
      "Choose a code or another example, then click or drag over the map or the image. Shift + click picks a cell's code. " +
      "Keys: arrows move, [ ] change the code, Enter paints, P picks, Z takes back."));
  view.controls.remove();

  // ------------------------------------------------------------------------------ pointer and keys

  const { canvas } = view;
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", `${model.get("alt")} Arrow keys move over its cells, Enter paints.`);

  const point = (cell) => {
    if (cell === cursor) return;
    cursor = cell;
    show();
  };
  // On the map and on the image: both are divided into the same cells.
  const listenOn = (target) => {
    let at = null; // where the stroke is, in cells
    let last = ""; // the place of the pointer
    const placeOf = (event) => {
      const box = target.getBoundingClientRect();
      return [((event.clientY - box.top) / box.height) * rows, ((event.clientX - box.left) / box.width) * columns];
    };
    const cellAt = ([y, x]) => {
      const inside = y >= 0 && y < rows && x >= 0 && x < columns;
      return inside ? Math.floor(y) * columns + Math.floor(x) : null;
    };
    // All cells on the straight way from one place to another: a quick move leaves none out.
    const between = (from, to) => {
      const steps = Math.max(1, Math.ceil(4 * Math.hypot(to[0] - from[0], to[1] - from[1])));
      const way = Array.from({ length: steps + 1 }, (_, k) => cellAt(from.map((v, axis) => v + ((to[axis] - v) * k) / steps)));
      return [...new Set(way)].filter((cell) => cell !== null);
    };
    target.addEventListener("pointerdown", (event) => {
      if (event.button > 2) return;
      const place = placeOf(event);
      const cell = cellAt(place);
      if (cell === null) return;
      event.preventDefault();
      canvas.focus({ preventScroll: true });
      point(cell);
      if (event.shiftKey || event.altKey || event.button !== 0) {
        pick(cell);
        return;
      }
      target.setPointerCapture(event.pointerId);
      memory.drag(true);
      at = place;
      paint([cell]);
    });
    target.addEventListener("pointermove", (event) => {
      // A browser tells of a move, too, when the page moves below a pointer that rests.
      const screen = `${event.clientX} ${event.clientY}`;
      if (screen === last) return;
      last = screen;
      const place = placeOf(event);
      point(cellAt(place));
      if (!at) return;
      const way = between(at, place);
      at = place;
      const now = map();
      if (way.some((cell) => now[cell] !== brushAt(cell))) paint(way);
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      target.addEventListener(end, () => {
        if (at) memory.drag(false);
        at = null;
      });
    }
    target.addEventListener("contextmenu", (event) => {
      event.preventDefault();
      event.stopPropagation(); // JupyterLab has a menu of its own
    });
    target.addEventListener("pointerleave", () => point(null));
  };
  listenOn(canvas);
  listenOn(decoded.canvas);
  canvas.addEventListener("blur", () => point(null));

  const nameOf = (cell) => `row ${Math.floor(cell / columns) + 1}, column ${(cell % columns) + 1}`;
  const describe = (cell) => {
    const [code, before] = [map()[cell], memory.own()[cell]];
    return `code ${code}${code === before ? "" : `, was ${before}`}`;
  };
  const walk = (down, right) => {
    const from = cursor ?? Math.floor(rows / 2) * columns + Math.floor(columns / 2);
    const clamp = (value, most) => Math.max(0, Math.min(most - 1, value));
    point(cursor === null ? from
      : clamp(Math.floor(from / columns) + down, rows) * columns + clamp((from % columns) + right, columns));
    spoken.textContent = `${nameOf(cursor)}, ${describe(cursor)}`;
  };
  const brushed = (by) => {
    cycle(by);
    spoken.textContent = `code ${model.get("brush")} to paint with`;
  };
  const atCursor = (action) => () => {
    if (cursor === null) return;
    action(cursor);
    spoken.textContent = `${nameOf(cursor)}, ${describe(cursor)}`;
  };
  const keys = {
    ArrowUp: () => walk(-1, 0), ArrowDown: () => walk(1, 0),
    ArrowLeft: () => walk(0, -1), ArrowRight: () => walk(0, 1),
    "[": () => brushed(-1), "]": () => brushed(1),
    Enter: atCursor((cell) => paint([cell])), p: atCursor(pick), z: memory.undo
  };
  onKeys(view, keys);

  // ----------------------------------------------------------------------------------------- words

  const HOW = {
    exact: () => "exact",
    sum: () => `put together from ${changedCells(memory.own(), map()).length} single changes`,
    waiting: () => "waiting for the kernel …",
    failed: () => "of the map before",
    missing: () => "of the map before"
  };
  const message = () => {
    if (memory.line.late) return memory.line.late;
    const { error } = model.get("answered");
    if (memory.how === "failed" || (error && memory.how !== "waiting")) return `decode or encode failed: ${error}`;
    if (memory.notice) return memory.notice;
    if (memory.how === "missing") return NO_KERNEL;
    const count = changedCells(memory.own(), map()).length;
    return count ? `${cells(count)} of ${size} ${count === 1 ? "differs" : "differ"} from example ${model.get("example") + 1}.` : "";
  };
  const say = (node, ...words) => {
    if (node.textContent !== words.map((word) => word.textContent ?? word).join("")) node.replaceChildren(...words);
  };
  const bold = (text) => element("b", {}, text);
  let painted = null; // the example that the left picture shows

  function show() {
    const [example, source, brush] = ["example", "source", "brush"].map((key) => model.get(key));
    if (painted !== example) {
      painted = example;
      paintGrey(original, pictures[example]);
      original.setAttribute("aria-label", `Example ${example + 1}`);
    }
    const press = (nodes, chosen) => nodes.forEach((node, i) => node.setAttribute("aria-pressed", String(chosen(i))));
    press(thumbs, (i) => i === example);
    press(sources, (i) => i === source);
    press(codes, (i) => source === null && palette[i] === brush);
    sources.forEach((node, i) => {
      node.disabled = i === example || Boolean(model.standIn && ![i, example].every((m) => (stored.examples || []).includes(m)));
    });
    say(originalName, `example ${example + 1}${data.originals ? "" : ", decoded"}`);
    if (cursor === null) say(mapName, `codes, ${rows} × ${columns}, each one of ${model.get("n_codes")}`);
    else say(mapName, `${nameOf(cursor)}: `, bold(describe(cursor)));
    if (source === null) say(brushName, "paint code ", bold(String(brush)));
    else say(brushName, "paint a code");
    if (source === null) say(sourceName, "or the codes of another example");
    else say(sourceName, "paint the codes of ", bold(`example ${source + 1}`));
    const wait = memory.waiting();
    say(how, ...(wait ? [element("span", { class: "cw-wait", "aria-hidden": "true" })] : []), HOW[wait ? "waiting" : memory.how]());
    const { before, levels } = memory;
    const largest = before ? Math.max(...levels.map((level, i) => Math.abs(level - before[i]))) : 0;
    say(differenceName, before ? `blue −, orange + ${(largest / 255).toFixed(2)}` : "");
    decoded.canvas.setAttribute("aria-label", `Decoded image, ${HOW[wait ? "waiting" : memory.how]()}`);
    const changed = changedCells(memory.own(), map()).length;
    back.disabled = !memory.past.length;
    own.disabled = !changed;
    half.disabled = source === null || source === example;
    again.disabled = wait;
    view.root.setAttribute("aria-busy", String(wait));
    status.classList.toggle("failed", !wait && Boolean(model.get("answered").error));
    say(status, message());
    view.redraw();
  }

  view.onStop(memory.listen(show));
  show();
  return view.stop;
}

export default { render };
