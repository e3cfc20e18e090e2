// PixelByPixel: a model writes an image pixel by pixel; a click on a pixel rewrites its history.

import { drawColourBar } from "./parts/axes.js";
import { PALETTE, colourWords } from "./parts/colours.js";
import { button, row } from "./parts/controls.js";
import { unpack } from "./parts/data.js";
import { drag } from "./parts/drag.js";
import { gridLines, gridOf } from "./parts/grid.js";
import { kernelLine, waitWords } from "./parts/kernel.js";
import { onKeys } from "./parts/keys.js";
import { hint, say, spoken, status } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { clamp, dot, hatch, inside } from "./parts/panel.js";
import { drawCursor, greyCanvas, pixelSheet } from "./parts/pixels.js";
import { clockOf, playerBar } from "./parts/player.js";
import { listenersOf, perModel } from "./parts/shared.js";
import STYLE from "./pixel_by_pixel.css" with { type: "css" };

const SHOWN = 8; // continuations in the strip
const NO_KERNEL = "Rewriting needs a running kernel: run this cell.";

// ------------------------------------------------------------------------------ asking the kernel

// The answer that is shown and what is asked and awaited, once per model, shared by all its views.
const deskOf = perModel((model) => {
  const clock = clockOf(model);
  const { tell, listen } = listenersOf();
  let goOn = false; // it was playing when the reader asked
  const desk = { notice: "", asked: null };

  // Read the model's answer. It is compared with the image before: which of the given pixels were
  // flipped, which of the others came out differently. Where none is given, nothing is compared.
  const take = () => {
    const before = desk.image;
    const { images, conditionals } = unpack(model);
    const [count, rows, columns] = images.shape;
    const size = rows * columns;
    const choice = model.get("choice");
    const part = ({ values }, i) => values.subarray(i * size, (i + 1) * size);
    const mean = new Float32Array(size);
    images.values.forEach((value, i) => (mean[i % size] += value / count));
    Object.assign(desk, {
      data: model.get("data"), count, rows, columns, size, choice, mean,
      images: Array.from({ length: count }, (_, i) => part(images, i)),
      image: part(images, choice),
      conditionals: part(conditionals, choice),
      label: model.get("label"),
      nKnown: model.get("n_known")
    });
    const order = model.get("order");
    desk.compared = Boolean(before && desk.nKnown);
    const differs = (pixel) => desk.compared && Math.abs(before[pixel] - desk.image[pixel]) > model.get("rounding");
    desk.flipped = order.slice(0, desk.nKnown).filter(differs);
    desk.changed = order.slice(desk.nKnown).filter(differs);
  };
  // Shown in full, unless it was playing: no motion but the one that was asked for.
  const reveal = () => {
    const playing = goOn || clock.playing;
    goOn = false;
    clock.seek(playing ? desk.nKnown : clock.last());
    if (playing && desk.nKnown < clock.last()) clock.play();
  };
  const onAnswer = (ours) => {
    desk.asked = null;
    desk.notice = "";
    // After an error Python still has the last good answer, which we may have dropped as stale.
    if (desk.data !== model.get("data")) take();
    if (ours && !model.get("answered").error) reveal();
    goOn = false;
  };
  desk.line = kernelLine(model, "write", { onAnswer, tell });

  // request: {nKnown, image, label}; the newest wins.
  desk.ask = (request) => {
    if (model.standIn) {
      desk.notice = NO_KERNEL;
    } else {
      desk.notice = "";
      desk.compared = false;
      desk.flipped = desk.changed = [];
      goOn = goOn || clock.playing;
      clock.pause();
      desk.asked = request;
      const { nKnown, image, label } = request;
      desk.line.ask(() => ({ image: [...image], n_known: nKnown, label }));
    }
    tell();
  };
  desk.choose = (choice) => {
    if (desk.line.waiting || choice === desk.choice) return;
    desk.notice = "";
    model.set("choice", choice);
    model.save_changes();
    reveal();
  };
  desk.say = (notice) => {
    desk.notice = notice;
    tell();
  };
  desk.failed = () => model.get("answered").error;
  desk.listen = listen;
  model.on("change:choice", () => {
    // A new answer brings its own choice, which `take` reads with it.
    if (desk.data === model.get("data") && desk.choice !== model.get("choice")) take();
    tell();
  });
  take();
  return desk;
});

// -------------------------------------------------------------------------------------- the state

function stateOf(model) {
  const desk = deskOf(model);
  const clock = clockOf(model);
  const order = model.get("order");
  const grid = gridOf(desk.rows, desk.columns);
  const placeOf = new Int32Array(grid.size);
  order.forEach((pixel, place) => (placeOf[pixel] = place));
  const state = {
    model, desk, clock, order, grid,
    places: null, // of the two panels, as last laid out
    cursor: null // the pixel under the pointer or chosen by keys
  };
  state.written = (pixel) => placeOf[pixel] < clock.shown();
  // Where "again" starts: here; with all written, where the last rewriting started.
  state.here = () => (clock.shown() < grid.size ? clock.shown() : desk.nKnown);
  state.again = () => desk.ask({ nKnown: state.here(), image: desk.image, label: desk.label });
  state.flip = (pixel) => {
    if (!state.written(pixel)) return desk.say("This pixel is not written yet.");
    const image = Float32Array.from(desk.image);
    image[pixel] = 1 - image[pixel];
    desk.ask({ pixel, image, nKnown: placeOf[pixel] + 1, label: desk.label });
  };
  return state;
}

// ------------------------------------------------------------------------------------ the picture

const [HEAD, FOOT, GAP, BAR] = [20, 22, 24, 68];

// Where the image and its conditionals stand, of how large pixels, and what is below them.
function arrange({ rows, columns }, width) {
  const room = (width - GAP - BAR) / 2;
  const cell = Math.max(2, Math.floor(Math.min(room / columns, 320 / Math.max(rows, columns))));
  const [w, h] = [cell * columns, cell * rows];
  const boxes = [0, Math.max(w, Math.ceil(Math.min(room, 130))) + GAP].map((x) =>
    ({ x, y: HEAD, width: w, height: h, cell }));
  // Where the panels are narrow, what is said of the second one stands a line lower.
  const foot = HEAD + Math.max(h, 100) + 4;
  return { boxes, cell, feet: [foot, foot + (room < 150 ? 18 : 0)] };
}

const COLOURS = [colourWords("grey"), colourWords("viridis")];

// One of the two panels, of which the first `count` pixels are known; the next one is marked.
function drawPanel(ctx, { grid, order, clock }, box, sheet, values, colours, count, theme) {
  sheet.words.fill(0);
  for (const pixel of order.slice(0, count)) {
    sheet.words[pixel] = colours[clamp(Math.round(255 * values[pixel]), 0, 255)];
  }
  sheet.put();
  inside(ctx, box, () => {
    ctx.fillStyle = theme.fill;
    ctx.fillRect(box.x, box.y, box.width, box.height);
    ctx.globalAlpha = 0.4;
    ctx.strokeStyle = theme.muted;
    ctx.lineWidth = 1;
    hatch(ctx, box, 7);
  });
  ctx.imageSmoothingEnabled = false; // pixels are what the model made, so show them as pixels
  ctx.drawImage(sheet.canvas, box.x, box.y, box.width, box.height);
  if (box.cell >= 9) {
    ctx.strokeStyle = "rgba(128, 134, 144, 0.3)";
    ctx.lineWidth = 1;
    gridLines(ctx, box, grid.rows, grid.columns);
  }
  ctx.strokeStyle = theme.line;
  ctx.lineWidth = 1;
  ctx.strokeRect(box.x + 0.5, box.y + 0.5, box.width - 1, box.height - 1);
  const k = clock.shown();
  if (k < grid.size) markPixel(ctx, grid, box, order[k], PALETTE.model);
}

function markPixel(ctx, grid, { x, y, cell }, pixel, colour) {
  drawCursor(ctx, x + grid.columnOf(pixel) * cell, y + grid.rowOf(pixel) * cell, cell, cell, colour);
}

function drawPicture(ctx, state, sheets, theme) {
  const { desk, grid, clock, cursor, written, places: { boxes, cell } } = state;
  const [left, heat] = boxes;
  const k = clock.shown();
  drawPanel(ctx, state, left, sheets[0], desk.image, COLOURS[0], k, theme);
  drawPanel(ctx, state, heat, sheets[1], desk.conditionals, COLOURS[1], k + 1, theme);
  // What the reader changed, and what came of it.
  for (const pixel of desk.changed.filter(written)) {
    const [x, y] = [left.x + (grid.columnOf(pixel) + 0.5) * cell, left.y + (grid.rowOf(pixel) + 0.5) * cell];
    dot(ctx, x, y, clamp(0.2 * cell, 1.5, 5), PALETTE.error, "transparent");
  }
  if (cursor !== null) for (const box of boxes) markPixel(ctx, grid, box, cursor);
  for (const pixel of desk.flipped.filter(written)) markPixel(ctx, grid, left, pixel, PALETTE.error);
  const asked = desk.asked?.pixel;
  if (asked !== undefined) markPixel(ctx, grid, left, asked, PALETTE.error);
  const height = Math.max(heat.height, 100);
  const bar = { x: heat.x + heat.width + 8, y: heat.y, width: 12, height };
  drawColourBar(ctx, "viridis", 0, 1, height < 175 ? "p(1 | before)" : "p(pixel = 1 | pixels before)", bar, theme);
}

// What is written above and below the two panels. `stand` puts it there, `write` brings it up to date.
function captionsOf({ desk, clock, order, grid, written }) {
  const label = (text = "") => element("div", { class: `pixel-label${text ? "" : " strong"}` }, text);
  const heads = [label("image"), label("conditionals")];
  const [count, next] = [label(), label()];
  const stand = ({ boxes, feet }) => boxes.forEach(({ x }, i) => {
    Object.assign(heads[i].style, { left: `${x}px`, top: 0 });
    Object.assign([count, next][i].style, { left: `${x}px`, top: `${feet[i]}px` });
  });
  const write = (cursor) => {
    const k = clock.shown();
    const p = (pixel) => desk.conditionals[pixel].toFixed(2);
    say(count, k < grid.size ? `${k} of ${grid.size} pixels written` : `all ${grid.size} pixels written`);
    if (cursor !== null && written(cursor)) say(next, `${grid.name(cursor)}: p = ${p(cursor)}`);
    else say(next, k < grid.size ? `next: p = ${p(order[k])}` : "no pixel left");
  };
  return { nodes: [...heads, count, next], stand, write };
}

// ------------------------------------------------------------------------------- pointer and keys

function pointOn(view, state, show) {
  const { canvas, root } = view;
  const { desk, grid, clock, order } = state;
  const point = (pixel) => {
    if (pixel === state.cursor) return;
    state.cursor = pixel;
    canvas.style.cursor = pixel !== null && state.written(pixel) ? "pointer" : "";
    show();
  };
  const pixelAt = ([x, y]) => {
    const { boxes: [left], cell } = state.places;
    return grid.at([(x - left.x) / cell, (y - left.y) / cell]);
  };
  drag(canvas, {
    focus: root,
    start: (place) => (pixelAt(place) === null ? null : () => {}),
    end: (place, { type }) => {
      const pixel = pixelAt(place);
      if (type === "pointerup" && pixel !== null) state.flip(pixel);
    },
    hover: (place) => point(pixelAt(place)),
    leave: () => point(null)
  });
  root.addEventListener("focusout", (event) => {
    if (!root.contains(event.relatedTarget)) point(null);
  });
  const speak = spoken(view);
  // From the pixel that was written last.
  const walk = (down, right) => () => {
    const { cursor } = state;
    point(cursor === null ? order[Math.max(0, clock.shown() - 1)] : grid.step(cursor, down, right));
    const value = state.written(state.cursor) ? `is ${desk.image[state.cursor].toFixed(1)}` : "not written yet";
    speak(`${grid.name(state.cursor)}, ${value}`);
  };
  // With shift the arrows belong to the picture, else to the player.
  onKeys(view, {
    "Shift+ArrowUp": walk(-1, 0), "Shift+ArrowDown": walk(1, 0),
    "Shift+ArrowLeft": walk(0, -1), "Shift+ArrowRight": walk(0, 1),
    Enter: () => state.cursor !== null && state.flip(state.cursor)
  });
}

// ----------------------------------------------------------------------------- beside the picture

// An image on a canvas of its own, blue where its pixels were given.
function tinted({ desk, order, grid }, values) {
  const canvas = greyCanvas(values.map((value) => 255 * value), grid.columns, grid.rows);
  const ctx = canvas.getContext("2d");
  ctx.globalAlpha = 0.45;
  ctx.fillStyle = PALETTE.data;
  for (const pixel of order.slice(0, desk.nKnown)) ctx.fillRect(grid.columnOf(pixel), grid.rowOf(pixel), 1, 1);
  return canvas;
}

// The mean of all continuations, and some of them to choose from.
function sideOf(state) {
  const { desk } = state;
  const [meanName, shared] = [0, 1].map(() => element("div", { class: "pixel-name" }));
  const mean = element("div", { role: "img" });
  const thumbs = element("div", { class: "pixel-thumbs" });
  const others = element("div", { role: "group", "aria-label": "Continuations" },
    element("div", { class: "pixel-name" }, "ways to go on: pick one"), thumbs);
  const node = element("div", { class: "pixel-side" },
    element("div", { class: "pixel-mean" }, meanName, mean, shared), others);
  let painted = null; // the answer that it shows
  const paint = () => {
    painted = desk.images;
    meanName.textContent = desk.count === 1 ? "only one continuation" : `average of ${desk.count} continuations`;
    shared.textContent = desk.nKnown
      ? `blue: the ${desk.nKnown === 1 ? "given pixel" : `${desk.nKnown} given pixels`}` : "no pixel given";
    mean.setAttribute("aria-label", `${meanName.textContent}, ${shared.textContent}`);
    mean.replaceChildren(tinted(state, desk.mean));
    others.hidden = desk.count === 1;
    thumbs.replaceChildren(...desk.images.slice(0, SHOWN).map((values, i) =>
      button(tinted(state, values), () => desk.choose(i), { "aria-label": `Continuation ${i + 1}` })));
  };
  const write = () => {
    if (painted !== desk.images) paint();
    [...thumbs.children].forEach((one, i) => one.setAttribute("aria-pressed", String(i === desk.choice)));
  };
  return { node, write };
}

// Below the picture: write again, another class, and what has come of it.
function toolsOf(state) {
  const { model, desk, clock, grid } = state;
  const classes = model.get("classes");
  const again = button("", state.again, { class: "pixel-again" });
  const select = element("select", { "aria-label": "Class" },
    ...classes.map((text, i) => element("option", { value: String(i) }, text)));
  select.addEventListener("change", () =>
    desk.ask({ nKnown: 0, image: desk.image, label: Number(select.value) }));
  const told = status();
  told.classList.add("pixel-status");
  const bar = row(again, ...(classes.length ? [element("label", {}, "class", select)] : []));
  bar.classList.add("pixel-tools");
  const write = () => {
    const { nKnown, line, notice } = desk;
    const here = state.here();
    say(again, clock.shown() < grid.size || !nKnown ? (here ? "Again from here" : "A new image")
      : `Again after ${nKnown} ${nKnown === 1 ? "pixel" : "pixels"}`);
    again.disabled = here >= grid.size;
    if (classes.length) select.value = String((desk.asked || desk).label);
    told.tell(messageOf(state), Boolean(!line.waiting && !notice && desk.failed()));
  };
  return { nodes: [bar, told], write };
}

function messageOf({ model, desk, grid }) {
  if (desk.line.waiting || model.get("status") === "waiting") return waitWords(desk.line);
  if (desk.notice) return desk.notice;
  if (desk.failed()) return `write failed: ${desk.failed()}`;
  if (!desk.compared) return "";
  const after = grid.size - desk.nKnown;
  const [pixel] = desk.flipped;
  const what = pixel === undefined ? "Rewritten" : `Flipped ${grid.name(pixel)}`;
  if (!after) return `${what}: no pixel comes after it.`;
  return `${what}: ${desk.changed.length} of ${after} later ${after === 1 ? "pixel" : "pixels"} changed.`;
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const { desk, clock, grid } = state;
  const sheets = [0, 1].map(() => pixelSheet(grid.columns, grid.rows));
  const [captions, side, tools] = [captionsOf(state), sideOf(state), toolsOf(state)];
  const draw = (ctx, _, theme) => drawPicture(ctx, state, sheets, theme);
  const layout = (width) => {
    state.places = arrange(grid, width);
    captions.stand(state.places);
    return state.places.feet[1] + FOOT - 4;
  };
  const view = outline({ model, el, style: STYLE, layout, draw, maxWidth: 900 });
  view.header.after(element("div", { class: "pixel-frame" },
    element("div", { class: "pixel-body" }, view.stage, side.node)));
  view.stage.append(...captions.nodes);
  view.controls.after(...tools.nodes, hint("Click a written pixel to flip it and rewrite all that follows. " +
    "Keys: Shift + arrows choose a pixel, Enter flips it."));
  pointOn(view, state, show);
  playerBar(view, model);
  view.controls.querySelector("input").step = "1";

  function show() {
    captions.write(state.cursor);
    side.write();
    tools.write();
    view.root.setAttribute("aria-busy", String(Boolean(desk.line.waiting)));
    view.redraw();
  }
  view.onStop(desk.listen(show));
  view.onStop(clock.listen(show));
  view.follow(["status"], show);
  show();
  return view.stop;
}

export default { render };
