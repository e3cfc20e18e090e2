// Inpaint: scratch pixels out of an image; the kernel fills them in.

import { throttledChanges } from "./parts/changes.js";
import { PALETTE } from "./parts/colours.js";
import { button, row } from "./parts/controls.js";
import { atStep, unpack } from "./parts/data.js";
import { drag } from "./parts/drag.js";
import { gridOf, wayBetween } from "./parts/grid.js";
import { kernelLine, waitWords } from "./parts/kernel.js";
import { onKeys } from "./parts/keys.js";
import { spoken, status, takesKeys } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { hatch, segment } from "./parts/panel.js";
import { drawCursor, greyCanvas, pixelSheet } from "./parts/pixels.js";
import { clockOf, playerBar } from "./parts/player.js";
import { listenersOf, perModel } from "./parts/shared.js";
import STYLE from "./inpaint.css" with { type: "css" };

const MOST_PAST = 200; // scratches to go back to

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
  let stroking = false;
  const state = {
    model, desk, clock: clockOf(model), arrays, count, grid, send,
    notice: "", cursor: null // the pixel under the pointer or the keyboard
  };
  state.read = () => (state.arrays = unpack(model));
  state.levelsOf = (image) =>
    state.arrays.images.values.subarray(image * grid.size, (image + 1) * grid.size).map((value) => 255 * value);
  const set = (name, value) => {
    if (model.get(name) === value) return;
    state.notice = "";
    change({ [name]: value });
    if (!stroking) send(); // Python hears of a stroke a few times a second, of all else at once
  };
  const remember = () => {
    const known = model.get("known");
    if (desk.past.at(-1) !== known) desk.past.push(known);
    if (desk.past.length > MOST_PAST) desk.past.shift();
  };
  state.hidden = (pixel) => model.get("known")[pixel] === "0";
  state.pick = (image) => set("image_index", image);
  state.scratchWhere = (test) => {
    remember();
    set("known", Array.from({ length: grid.size }, (_, i) => (test(i) ? "0" : "1")).join(""));
  };
  state.toggle = (pixel) => state.scratchWhere((i) => state.hidden(i) !== (i === pixel));
  // A stroke of the brush: returns what goes on with it.
  state.stroke = (place, bit) => {
    remember();
    stroking = true;
    const mask = [...model.get("known")];
    let at = place;
    const paint = (places) => {
      for (const one of places) stamp(mask, grid, one, model.get("brush") / 2, bit);
      set("known", mask.join(""));
    };
    paint([place]);
    return (to) => {
      paint(wayBetween(at, to));
      at = to;
    };
  };
  state.lift = () => {
    stroking = false;
    send();
  };
  state.undo = () => {
    while (desk.past.length) {
      const known = desk.past.pop();
      if (known !== model.get("known")) return set("known", known);
    }
  };
  state.showExample = () => {
    remember();
    set("image_index", model.get("answered").image);
    set("known", model.get("answered").known);
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
  const { desk, clock, grid, arrays, cursor } = state;
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
  if (cursor !== null) drawCursor(ctx, w * grid.columnOf(cursor), h * grid.rowOf(cursor), w, h);
}

// ------------------------------------------------------------------------------- pointer and keys

function scratchOn(view, state) {
  const { canvas } = view;
  const { grid } = state;
  const point = (pixel) => {
    state.cursor = pixel;
    view.redraw();
  };
  drag(canvas, {
    buttons: [0, 1, 2],
    start: (place, { shiftKey, button: pressed }) => {
      // With shift, the right button or the other end of a pen, pixels come back.
      const move = state.stroke(grid.within(place, canvas), shiftKey || pressed !== 0 ? "1" : "0");
      return (to) => move(grid.within(to, canvas));
    },
    end: state.lift,
    hover: (place) => point(grid.near(grid.within(place, canvas))),
    leave: () => point(null)
  });
  canvas.addEventListener("blur", () => point(null));

  const speak = spoken(view);
  const walk = (down, right) => () => {
    point(grid.step(state.cursor ?? grid.middle, down, right));
    const name = grid.name(state.cursor).replace("row", "Row");
    speak(`${name}${state.hidden(state.cursor) ? ", scratched out" : ""}`);
  };
  const toggle = () => {
    state.toggle(state.cursor ?? grid.middle);
    walk(0, 0)();
  };
  takesKeys(canvas, view.model.get("alt"), "Arrow keys move over its pixels, space scratches.");
  onKeys(view, {
    ArrowUp: walk(-1, 0), ArrowDown: walk(1, 0), ArrowLeft: walk(0, -1), ArrowRight: walk(0, 1), " ": toggle
  }, canvas);
}

// ----------------------------------------------------------------------------- beside the picture

// Images to pick, ways to scratch, what fills them in. `write` brings it up to date.
function sideOf(state, show) {
  const { model, desk, clock, count, grid, scratchWhere } = state;
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
  const back = button("Undo", then(state.undo));
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
    back.disabled = !desk.past.some((before) => before !== known);
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
  scratchOn(view, state);
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
