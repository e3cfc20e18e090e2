// CodeSwap: paint on the code map of a VQ-VAE and watch the image that it decodes to.

import { PALETTE, colourWords } from "./parts/colours.js";
import { button, row } from "./parts/controls.js";
import { unpack } from "./parts/data.js";
import { drag } from "./parts/drag.js";
import { gridOf, wayBetween } from "./parts/grid.js";
import { kernelLine, waitSign } from "./parts/kernel.js";
import { onKeys } from "./parts/keys.js";
import { hint, say, spoken, status, takesKeys } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { words } from "./parts/panel.js";
import { drawCursor, greyCanvas, pixelSheet } from "./parts/pixels.js";
import { listenersOf, perModel } from "./parts/shared.js";
import STYLE from "./code_swap.css" with { type: "css" };

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

// The image that is shown, the one before the last change, and the maps to go back to. A drag over
// many cells is one change.
const memoryOf = perModel((model) => {
  const data = examplesOf(model);
  const { tell, listen } = listenersOf();
  const now = () => ({ example: model.get("example"), map: model.get("codes").flat() });
  const memory = {
    data, past: [], last: now(), dragging: false, notice: "", encoding: null,
    levels: null, how: "", before: null, changed: []
  };
  let begun = false; // this drag has changed a cell
  let undoing = false;

  memory.now = now;
  memory.own = () => data.maps[model.get("example")];
  memory.listen = listen;
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
  look();
  readChanges(model, data).then((changes) => {
    data.changes = changes;
    look();
  });
  return memory;
});

const cells = (count) => `${count} ${count === 1 ? "cell" : "cells"}`;

// --------------------------------------------------------------------------------------- painting

// What the brush does to the map, and where it is: `cursor` is the cell under pointer or keyboard.
function brushOf(model, memory) {
  const { data } = memory;
  const grid = gridOf(data.rows, data.columns);
  const all = model.get("palette");
  const palette = model.standIn ? all.slice(0, model.get("stored").codes || 0) : all;
  const brush = { palette, grid, cursor: null };
  brush.map = () => model.get("codes").flat();
  brush.at = (cell) => {
    const source = model.get("source");
    return source === null ? model.get("brush") : data.maps[source][cell];
  };
  brush.paint = (some) => {
    const next = brush.map();
    let missing = 0;
    for (const cell of some) {
      if (memory.can(cell, brush.at(cell))) next[cell] = brush.at(cell);
      else missing += 1;
    }
    // Where decode has failed, painting the same once more asks once more.
    const again = memory.how === "failed" && !missing;
    if (again || changedCells(brush.map(), next).length) memory.go({ example: model.get("example"), map: next });
    if (missing) memory.say(missing < some.length ? `${cells(missing)} could not be changed. ${NO_KERNEL}` : NO_KERNEL);
  };
  brush.choose = (code) => {
    model.set("source", null);
    memory.choose("brush", code);
  };
  brush.pick = (cell) => brush.choose(brush.map()[cell]);
  brush.cycle = (by) => {
    if (!palette.length) return;
    const place = palette.indexOf(model.get("brush"));
    brush.choose(palette[place < 0 ? 0 : (place + by + palette.length) % palette.length]);
  };
  brush.describe = (cell) => {
    const [code, before] = [brush.map()[cell], memory.own()[cell]];
    return `code ${code}${code === before ? "" : `, was ${before}`}`;
  };
  // One step with the keys; the first goes to the middle.
  brush.next = (down, right) => (brush.cursor === null ? grid.middle : grid.step(brush.cursor, down, right));
  return brush;
}

// ------------------------------------------------------------------------------------ the pictures

// The map of codes: a swatch in each cell, its number where there is room.
function mapPicture({ rows, columns, wide, tall, swatches }) {
  const across = 32; // swatches side by side on the canvas from which cells are drawn
  const sheet = element("canvas", { width: across * wide, height: Math.ceil(swatches.length / across) * tall });
  const placeOf = (code) => [(code % across) * wide, Math.floor(code / across) * tall];
  swatches.forEach((levels, code) =>
    sheet.getContext("2d").drawImage(greyCanvas(levels, wide, tall), ...placeOf(code)));
  return (ctx, space, now, own, cursor, theme) => {
    const cell = space / columns;
    const roomy = cell >= 28;
    ctx.imageSmoothingEnabled = false; // pixels are what the model made, so show them as pixels
    now.forEach((code, i) => {
      const [x, y] = [(i % columns) * cell, Math.floor(i / columns) * cell];
      ctx.fillStyle = theme.fill;
      ctx.fillRect(x + 1, y + 1, cell - 2, cell - 2);
      const side = roomy ? 0.52 * cell : cell - 4;
      const [left, top] = [x + (cell - side) / 2, roomy ? y + 0.11 * cell : y + 2];
      ctx.drawImage(sheet, ...placeOf(code), wide, tall, left, top, side, side);
      if (roomy) {
        const font = `${Math.min(13, Math.round(cell / 3.4))}px ${theme.font}`;
        words(ctx, String(code), x + cell / 2, y + 0.81 * cell, theme.ink, font, "center");
      }
      if (code !== own[i]) {
        ctx.strokeStyle = PALETTE.model;
        ctx.lineWidth = 2.5;
        ctx.strokeRect(x + 2, y + 2, cell - 4, cell - 4);
      }
    });
    if (cursor !== null) drawCursor(ctx, (cursor % columns) * cell, Math.floor(cursor / columns) * cell, cell, cell);
  };
}

// An image on a canvas of its own, each of its pixels a block of `unit` screen pixels.
function imagePicture({ rows, columns, width, height }, most, attributes) {
  const unit = Math.max(1, Math.floor(most / width));
  const [wide, high] = [unit * width, unit * height];
  const canvas = element("canvas", { role: "img", ...attributes });
  Object.assign(canvas.style, { width: `${wide}px`, height: `${high}px` });
  const sheet = pixelSheet(width, height);
  // Where a cell is: its place, width and height.
  const box = (cell) => [
    ((cell % columns) * wide) / columns, (Math.floor(cell / columns) * high) / rows, wide / columns, high / rows
  ];
  const draw = (ratio, values, table, marks) => {
    if (canvas.width !== Math.round(wide * ratio)) {
      canvas.width = Math.round(wide * ratio);
      canvas.height = Math.round(high * ratio);
    }
    const ctx = canvas.getContext("2d");
    sheet.paint(values, table);
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.imageSmoothingEnabled = false;
    ctx.drawImage(sheet.canvas, 0, 0, wide, high);
    marks(ctx, box);
  };
  return { canvas, draw };
}

const SIGNED = colourWords("signed");

// The largest change of a grey level, and each as an index into the map of signed colours.
function differences(levels, before) {
  if (!before) return { largest: 0, shades: levels.map(() => 127.5) };
  const largest = levels.reduce((most, level, i) => Math.max(most, Math.abs(level - before[i])), 0);
  const unit = 127.5 / Math.max(largest, 26);
  return { largest, shades: levels.map((level, i) => 127.5 + unit * (level - before[i])) };
}

// ------------------------------------------------------------------------------- pointer and keys

// On the map and on the image: both are divided into the same cells.
function paintOn(target, view, memory, brush, point) {
  const { grid } = brush;
  let last = ""; // the place of the pointer
  drag(target, {
    buttons: [0, 1, 2], focus: view.canvas, end: () => memory.drag(false),
    start: (place, event) => {
      let at = grid.within(place, target);
      const cell = grid.at(at);
      if (cell === null) return null;
      point(cell);
      if (event.shiftKey || event.altKey || event.button !== 0) {
        brush.pick(cell);
        return () => {};
      }
      memory.drag(true);
      brush.paint([cell]);
      return (to) => {
        const next = grid.within(to, target);
        const way = [...new Set(wayBetween(at, next).map(grid.at))].filter((one) => one !== null);
        at = next;
        const now = brush.map();
        if (way.some((one) => now[one] !== brush.at(one))) brush.paint(way);
      };
    },
    hover: (place, event) => {
      // A browser tells of a move, too, when the page moves below a pointer that rests.
      const screen = `${event.clientX} ${event.clientY}`;
      if (screen !== last) point(grid.at(grid.within(place, target)));
      last = screen;
    },
    leave: () => point(null)
  });
}

function keysOf(view, memory, brush, point) {
  const speak = spoken(view);
  const tell = () => speak(`${brush.grid.name(brush.cursor)}, ${brush.describe(brush.cursor)}`);
  const walk = (down, right) => () => {
    point(brush.next(down, right));
    tell();
  };
  const brushed = (by) => () => {
    brush.cycle(by);
    speak(`code ${view.model.get("brush")} to paint with`);
  };
  const atCursor = (act) => () => {
    if (brush.cursor === null) return;
    act(brush.cursor);
    tell();
  };
  onKeys(view, {
    ArrowUp: walk(-1, 0), ArrowDown: walk(1, 0), ArrowLeft: walk(0, -1), ArrowRight: walk(0, 1),
    "[": brushed(-1), "]": brushed(1),
    Enter: atCursor((cell) => brush.paint([cell])), p: atCursor(brush.pick), z: memory.undo
  });
}

// -------------------------------------------------------------------------------- what is around

// Everything but the map: examples, images, codes, buttons. `write` brings it up to date.
function partsOf(view, model, memory, brush, images) {
  const { data } = memory;
  const { count, rows, columns, width, height } = data;
  const { palette } = brush;
  const stored = model.get("stored");
  const pictures = data.originals || data.decoded;
  const name = () => element("div", { class: "swap-name" });
  const group = (label, attributes, ...children) => element("div", { role: "group", "aria-label": label, ...attributes }, ...children);
  const thumbs = (label, onClick) => Array.from({ length: count }, (_, i) =>
    button(greyCanvas(pictures[i], width, height), () => onClick(i),
      { "aria-label": `${label} ${i + 1}`, title: `${label} ${i + 1}` }));
  const original = pixelSheet(width, height, { class: "swap-original", role: "img" });
  const names = { original: name(), map: name(), difference: name(), brush: name(), source: name() };
  const how = element("p", { class: "swap-how" });
  const examples = thumbs("Example", (example) => memory.go({ example, map: data.maps[example] }));
  const sources = thumbs("Codes of example", (source) => memory.choose("source", source));
  const codes = palette.map((code) => {
    const node = button(greyCanvas(data.swatches[code], data.wide, data.tall), () => brush.choose(code), { "aria-label": `Code ${code}` });
    node.append(element("span", {}, String(code)));
    return node;
  });
  const titled = (text) => element("div", { class: "swap-name" }, text);
  const body = element("div", { class: "swap-body" },
    group("Examples", { class: "swap-examples" }, names.original, original.canvas, element("div", { class: "swap-thumbs" }, ...(count > 1 ? examples : []))),
    element("div", { class: "swap-map" }, names.map, view.stage),
    element("div", { class: "swap-images" },
      element("div", {}, titled("decoded image"), images.decoded.canvas, how),
      element("div", {}, titled("difference to before"), images.difference.canvas, names.difference)));
  const brushes = group("Codes to paint with", {}, names.brush, element("div", { class: "swap-codes" }, ...codes));
  if (model.standIn && palette.length < model.get("n_codes")) {
    brushes.append(element("p", { class: "swap-more" }, palette.length
      ? `${palette.length} of ${model.get("n_codes")} codes: the others need a running kernel.`
      : "Changes need a running kernel: run this cell."));
  }
  const half = Array.from({ length: Math.floor(rows / 2) * columns }, (_, cell) => cell);
  const tools = {
    back: button("Undo", memory.undo),
    own: button("Back to this image", () => memory.go({ example: model.get("example"), map: memory.own() })),
    half: button("Bring in the top half", () => brush.paint(half)),
    again: button("Encode again", memory.encode)
  };
  const bar = row(tools.back, tools.own, ...(count > 1 ? [tools.half] : []),
    ...(model.get("can_encode") && !model.standIn ? [tools.again] : []));
  bar.classList.add("swap-tools");
  const others = group("Other examples", {}, names.source, element("div", { class: "swap-thumbs" }, ...sources));
  const told = status();
  told.classList.add("swap-status");
  view.header.after(
    element("div", { class: "swap-frame" }, body),
    element("div", { class: "swap-brushes" }, brushes, ...(count > 1 ? [others] : [])), bar, told,
    hint("Choose a code or another example, then click or drag over the map or the image. Shift + click picks a cell's code. " +
      "Keys: arrows move, [ ] change the code, Enter paints, P picks, Z takes back."));

  let painted = null; // the example that the left picture shows
  const press = (nodes, chosen) => nodes.forEach((node, i) => node.setAttribute("aria-pressed", String(chosen(i))));
  const showExamples = (example, source, code) => {
    if (painted !== example) {
      painted = example;
      original.paint(pictures[example]);
      original.canvas.setAttribute("aria-label", `Example ${example + 1}`);
    }
    press(examples, (i) => i === example);
    press(sources, (i) => i === source);
    press(codes, (i) => source === null && palette[i] === code);
    sources.forEach((node, i) => {
      node.disabled = i === example || Boolean(model.standIn && ![i, example].every((m) => (stored.examples || []).includes(m)));
    });
  };
  const sayNames = (example, source, code) => {
    const bold = (text) => element("b", {}, text);
    const { cursor } = brush;
    say(names.original, `example ${example + 1}${data.originals ? "" : ", decoded"}`);
    if (cursor === null) say(names.map, `codes, ${rows} × ${columns}, each one of ${model.get("n_codes")}`);
    else say(names.map, `${brush.grid.name(cursor)}: `, bold(brush.describe(cursor)));
    if (source === null) say(names.brush, "paint code ", bold(String(code)));
    else say(names.brush, "paint a code");
    if (source === null) say(names.source, "or the codes of another example");
    else say(names.source, "paint the codes of ", bold(`example ${source + 1}`));
  };
  const write = () => {
    const [example, source, code] = ["example", "source", "brush"].map((key) => model.get(key));
    const wait = memory.waiting();
    const changed = changedCells(memory.own(), brush.map()).length;
    const { before, levels } = memory;
    const origin = {
      exact: "exact", sum: `put together from ${changed} single changes`, waiting: "waiting for the kernel …",
      failed: "of the map before", missing: "of the map before"
    }[wait ? "waiting" : memory.how];
    showExamples(example, source, code);
    sayNames(example, source, code);
    say(how, ...(wait ? [waitSign()] : []), origin);
    say(names.difference, before ? `blue −, orange + ${(differences(levels, before).largest / 255).toFixed(2)}` : "");
    images.decoded.canvas.setAttribute("aria-label", `Decoded image, ${origin}`);
    tools.back.disabled = !memory.past.length;
    tools.own.disabled = !changed;
    tools.half.disabled = source === null || source === example;
    tools.again.disabled = wait;
    view.root.setAttribute("aria-busy", String(wait));
    told.tell(messageOf(model, memory, changed), !wait && Boolean(model.get("answered").error));
  };
  return { write };
}

function messageOf(model, memory, changed) {
  if (memory.line.late) return memory.line.late;
  const { error } = model.get("answered");
  if (memory.how === "failed" || (error && memory.how !== "waiting")) return `decode or encode failed: ${error}`;
  if (memory.notice) return memory.notice;
  if (memory.how === "missing") return NO_KERNEL;
  const { rows, columns } = memory.data;
  const differ = changed === 1 ? "differs" : "differ";
  return changed ? `${cells(changed)} of ${rows * columns} ${differ} from example ${model.get("example") + 1}.` : "";
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const memory = memoryOf(model);
  const { data } = memory;
  const brush = brushOf(model, memory);
  const drawMap = mapPicture(data);
  const images = {
    decoded: imagePicture(data, 168, { class: "swap-decoded" }),
    difference: imagePicture(data, 112, { class: "swap-difference", "aria-label": "Difference to the image before" })
  };
  const draw = (ctx, { width, ratio }, theme) => {
    const { cursor } = brush;
    const { levels, before } = memory;
    drawMap(ctx, width, brush.map(), memory.own(), cursor, theme);
    images.decoded.draw(ratio, levels, undefined, (target, box) => {
      if (cursor !== null) drawCursor(target, ...box(cursor));
    });
    images.difference.draw(ratio, differences(levels, before).shades, SIGNED, (target, box) => {
      target.strokeStyle = "#000000";
      target.lineWidth = 1;
      if (before) for (const cell of memory.changed) target.strokeRect(...box(cell));
    });
  };
  const layout = (space) => (space * data.rows) / data.columns;
  const view = outline({ model, el, layout, draw, maxWidth: 720, style: STYLE, name: "swap-widget" });
  const parts = partsOf(view, model, memory, brush, images);
  view.controls.remove();
  takesKeys(view.canvas, model.get("alt"), "Arrow keys move over its cells, Enter paints.");

  const show = () => {
    parts.write();
    view.redraw();
  };
  const point = (cell) => {
    if (cell === brush.cursor) return;
    brush.cursor = cell;
    show();
  };
  for (const target of [view.canvas, images.decoded.canvas]) paintOn(target, view, memory, brush, point);
  view.canvas.addEventListener("blur", () => point(null));
  keysOf(view, memory, brush, point);
  view.onStop(memory.listen(show));
  show();
  return view.stop;
}

export default { render };
