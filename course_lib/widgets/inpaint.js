// Inpaint: scratch pixels out of an image; the kernel fills them in.

import { throttledChanges } from "./parts/changes.js";
import { PALETTE } from "./parts/colours.js";
import { button, row } from "./parts/controls.js";
import { atStep, unpack } from "./parts/data.js";
import { gridOf } from "./parts/grid.js";
import { drawOn, inkOf } from "./parts/ink.js";
import { kernelLine, waitWords } from "./parts/kernel.js";
import { status } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { hatch, segment } from "./parts/panel.js";
import { drawCursor, greyCanvas, pixelSheet } from "./parts/pixels.js";
import { clockOf, playerBar } from "./parts/player.js";
import { listenersOf, perModel } from "./parts/shared.js";
import STYLE from "./inpaint.css" with { type: "css" };

// -------------------------------------------------------------------------------------- the state

// What is asked and awaited, once per model, shared by all its views.
const deskOf = perModel((model) => {
  const clock = clockOf(model);
  const { tell, listen } = listenersOf();
  const desk = { past: [] };

  desk.puzzle = () => ({ image: model.get("image_index"), known: model.get("known") });
  // The last answer fits as long as the image and the scratches are those it was given.
  desk.fits = () => {
    const { image, known } = model.get("answered");
    return image === model.get("image_index") && known === model.get("known");
  };
  desk.done = () => desk.fits() && !model.get("answered").error;
  desk.failed = () => desk.fits() && model.get("answered").error;
  desk.listen = listen;
  const onAnswer = (ours) => {
    if (!ours || !desk.done()) return;
    clock.step = 0;
    clock.play();
  };
  desk.line = kernelLine(model, "fill", { onAnswer, tell });
  desk.ask = () => {
    const again = Boolean(desk.line.waiting);
    desk.line.ask(() => {
      if (again && desk.fits()) return null; // impatient clicks ask for nothing new
      clock.pause();
      return desk.puzzle();
    });
  };
  // Whoever changed the puzzle: the steps on the screen no longer belong to it.
  const changed = () => {
    clock.pause();
    tell();
  };
  model.on("change:known", changed);
  model.on("change:image_index", changed);
  return desk;
});

function shuffledHalf(size) {
  const order = Array.from({ length: size }, (_, i) => [Math.random(), i]).sort((a, b) => a[0] - b[0]);
  return new Set(order.slice(0, Math.floor(size / 2)).map(([, i]) => i));
}

// The images, and what the reader scratches out of them: `known` has a "0" for each such pixel.
function stateOf(model) {
  const desk = deskOf(model);
  const arrays = unpack(model);
  const [count, rows, columns] = arrays.images.shape;
  const grid = gridOf(rows, columns);
  const { change, send } = throttledChanges(model);
  const state = {
    model, desk, clock: clockOf(model), arrays, count, grid, send, notice: ""
  };
  state.read = () => (state.arrays = unpack(model));
  state.levelsOf = (image) =>
    state.arrays.images.values.subarray(image * grid.size, (image + 1) * grid.size).map((value) => 255 * value);
  const touched = () => (state.notice = "");
  const brush = () => model.get("brush");
  const ink = inkOf(model, "known", grid, { change, send }, { past: desk.past, brush, touched });
  state.ink = ink;
  state.hidden = (pixel) => ink.bit(pixel) === "0";
  state.pick = (image) => {
    if (image === model.get("image_index")) return;
    touched();
    change({ image_index: image });
    send();
  };
  state.scratchWhere = (test) => ink.draw((pixel) => (test(pixel) ? "0" : "1"));
  state.showExample = () => {
    ink.remember();
    state.pick(model.get("answered").image);
    ink.set(model.get("answered").known);
  };
  state.fill = () => {
    send();
    if (!model.standIn) desk.ask();
    else if (desk.done()) state.clock.play();
    else state.notice = "Run this cell to fill in your own scratches.";
  };
  return state;
}

// ------------------------------------------------------------------------------------ the picture

// The area of the pixels that are scratched out, and its edges, as paths.
function holesOf({ grid, hidden }, w, h) {
  const { rows, columns } = grid;
  const isHole = (row, column) =>
    row >= 0 && row < rows && column >= 0 && column < columns && hidden(row * columns + column);
  const [holes, edges] = [new Path2D(), new Path2D()];
  for (let row = 0; row <= rows; row++) {
    for (let column = 0; column <= columns; column++) {
      const [x, y] = [column * w, row * h];
      const here = isHole(row, column);
      if (here) holes.rect(x, y, w + 0.5, h + 0.5);
      if (here !== isHole(row - 1, column)) segment(edges, x, y, x + w, y);
      if (here !== isHole(row, column - 1)) segment(edges, x, y, x, y + h);
    }
  }
  return { holes, edges };
}

function drawPicture(ctx, state, sheet, { width, height }, theme) {
  const { desk, clock, grid, arrays, ink } = state;
  const done = desk.done();
  if (done) sheet.paint(atStep(arrays.states, clock.shown(), new Float32Array(grid.size)).map((value) => 255 * value));
  else sheet.paint(state.levelsOf(desk.puzzle().image));
  ctx.imageSmoothingEnabled = false; // pixels are what the model made, so show them as pixels
  ctx.drawImage(sheet.canvas, 0, 0, width, height);

  const [w, h] = [width / grid.columns, height / grid.rows];
  const { holes, edges } = holesOf(state, w, h);
  ctx.lineCap = "square";
  ctx.strokeStyle = PALETTE.error;
  if (!done) {
    ctx.save();
    ctx.clip(holes);
    ctx.fillStyle = theme.dark ? "#2a2029" : "#fbf1f7";
    ctx.fillRect(0, 0, width, height);
    ctx.lineWidth = 1.5;
    ctx.globalAlpha = 0.75;
    hatch(ctx, { x: 0, y: 0, width, height }, 7);
    ctx.restore();
  }
  ctx.lineWidth = done ? 1.5 : 2;
  ctx.stroke(edges);
  ctx.strokeStyle = theme.line;
  ctx.lineWidth = 1;
  ctx.strokeRect(0.5, 0.5, width - 1, height - 1);
  if (ink.cursor !== null) drawCursor(ctx, w * grid.columnOf(ink.cursor), h * grid.rowOf(ink.cursor), w, h);
}

// ----------------------------------------------------------------------------- beside the picture

// Images to pick, ways to scratch, what fills them in. `write` brings it up to date.
function sideOf(state, show) {
  const { model, desk, clock, count, grid, ink, scratchWhere } = state;
  const then = (act) => () => {
    act();
    show();
  };
  const part = (name, ...children) => element("div", { role: "group", "aria-label": name },
    element("div", { class: "inpaint-name" }, name), ...children);
  const thumbs = Array.from({ length: count }, (_, i) => {
    const small = greyCanvas(state.levelsOf(i), grid.columns, grid.rows, { class: "inpaint-thumb" });
    return button(small, () => state.pick(i), { "aria-label": `Image ${i + 1}` });
  });
  const half = Math.floor(grid.rows / 2) * grid.columns;
  const back = button("Undo", then(ink.undo));
  const clear = button("Clear", () => scratchWhere(() => false));
  const fill = button("Fill in", then(state.fill), { class: "inpaint-fill" });
  const example = button("Show the example", then(state.showExample));
  const told = status();
  told.classList.add("inpaint-status");
  const node = element("div", { class: "inpaint-side" },
    ...(count > 1 ? [part("Pick an image", element("div", { class: "inpaint-thumbs" }, ...thumbs))] : []),
    part("Scratch it, or hide", row(
      button("Top half", () => scratchWhere((i) => i < half)),
      button("Bottom half", () => scratchWhere((i) => i >= half)),
      button("Random half", () => {
        const chosen = shuffledHalf(grid.size);
        scratchWhere((i) => chosen.has(i));
      }),
      back, clear)),
    row(fill, example), told);

  const write = (view) => {
    const { image, known } = desk.puzzle();
    const hidden = known.split("0").length - 1;
    const busy = Boolean(desk.line.waiting);
    thumbs.forEach((one, i) => one.setAttribute("aria-pressed", String(i === image)));
    back.disabled = !ink.canUndo();
    clear.disabled = !hidden;
    fill.disabled = !hidden;
    fill.textContent = desk.done() && !model.standIn ? "Fill in again" : "Fill in";
    example.hidden = !model.standIn || !model.get("answered").known || desk.done();
    view.root.setAttribute("aria-busy", String(busy));
    view.controls.style.visibility = desk.done() && !busy && clock.last() ? "" : "hidden";
    told.tell(messageOf(state, hidden), Boolean(!busy && !state.notice && desk.failed()));
  };
  return { node, write };
}

function messageOf({ model, desk, notice }, hidden) {
  if (desk.line.waiting || model.get("status") === "waiting") return waitWords(desk.line);
  if (notice) return notice;
  if (desk.failed()) return `fill failed: ${model.get("answered").error}`;
  const pixels = hidden === 1 ? "1 pixel" : `${hidden} pixels`;
  if (desk.done()) return `${pixels} filled in. Play it again, or scratch out more.`;
  return hidden ? `${pixels} scratched out.` : "Drag over the picture to scratch pixels out.";
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const { columns, rows } = state.grid;
  const sheet = pixelSheet(columns, rows);
  const draw = (ctx, size, theme) => drawPicture(ctx, state, sheet, size, theme);
  const layout = (width) => (Math.min(width, 330) * rows) / columns;
  const view = outline({ model, el, style: STYLE, layout, draw });
  const side = sideOf(state, show);
  view.header.after(element("div", { class: "inpaint-body" }, view.stage, side.node));
  // With shift, the right button or the other end of a pen, pixels come back.
  drawOn(view, state.ink, {
    bitOf: ({ shiftKey, button: pressed }) => (shiftKey || pressed !== 0 ? "1" : "0"),
    words: (bit) => (bit === "0" ? ", scratched out" : ""),
    keys: "Arrow keys move over its pixels, space scratches."
  });
  playerBar(view, model);

  function show() {
    side.write(view);
    view.redraw();
  }
  view.onStop(state.desk.listen(show));
  view.follow(["status"], show);
  view.follow(["data"], () => {
    state.read();
    show();
  });
  view.onStop(state.send);
  show();
  return view.stop;
}

export default { render };
