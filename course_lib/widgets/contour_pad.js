// ContourPad: draw a contour, and see what a model that is controlled by it makes of it.

import { throttledChanges } from "./parts/changes.js";
import { button, choice, group, row, slider } from "./parts/controls.js";
import { unpack } from "./parts/data.js";
import { deskOf } from "./parts/desk.js";
import { gridLines, gridOf } from "./parts/grid.js";
import { drawOn, inkOf } from "./parts/ink.js";
import { waitSign } from "./parts/kernel.js";
import { hint, status } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { clamp } from "./parts/panel.js";
import { drawCursor, imageStack, pixelSheet } from "./parts/pixels.js";
import STYLE from "./contour_pad.css" with { type: "css" };

const RUBBER = 3; // pixels wide
const NO_KERNEL = "Run this cell to draw contours of your own: that needs the kernel.";

// -------------------------------------------------------------------------------------- the state

// Contours and examples, and what is asked of the model.
const padOf = deskOf((model) => {
  const { contours, examples } = unpack(model);
  const [count, rows, columns] = contours.shape;
  const pixels = rows * columns;
  const given = Array.from({ length: count }, (_, i) => contours.values.subarray(i * pixels, (i + 1) * pixels).join(""));
  const strengths = model.get("strengths");
  const watch = ["contour", "prompt", "strength"];
  const question = () => Object.fromEntries(watch.map((name) => [name, model.get(name)]));
  const size = 3 * pixels;
  const stored = () => {
    const { contour, prompt, strength } = question();
    const [which, level] = [given.indexOf(contour), strengths.indexOf(strength)];
    if (which < 0 || level < 0) return [];
    const at = size * ((which * examples.shape[1] + prompt) * strengths.length + level);
    return [examples.values.subarray(at, at + size)];
  };
  return { grid: gridOf(rows, columns), given, past: [], question, stored, watch, size };
});

function stateOf(model) {
  const desk = padOf(model);
  const { change, send } = throttledChanges(model);
  const state = { model, desk, grid: desk.grid, send, rubbing: false };
  const brush = (bit) => (bit === "1" ? 0 : RUBBER);
  state.ink = inkOf(model, "contour", desk.grid, { change, send }, { past: desk.past, brush });
  const strengths = model.get("strengths");
  // Without a kernel there are only the strengths that were drawn before.
  const nearest = (wanted) =>
    strengths.reduce((one, other) => (Math.abs(other - wanted) < Math.abs(one - wanted) ? other : one));
  state.setStrength = (wanted) => {
    const rounded = clamp(Number(wanted.toFixed(2)), strengths[0], strengths.at(-1));
    change({ strength: model.standIn ? nearest(wanted) : rounded });
  };
  return state;
}

// ------------------------------------------------------------------------------------ the picture

function drawPad(ctx, { ink, grid }, { width, height }, theme) {
  const [w, h] = [width / grid.columns, height / grid.rows];
  ctx.fillStyle = theme.plot;
  ctx.fillRect(0, 0, width, height);
  ctx.strokeStyle = theme.line;
  ctx.lineWidth = 1;
  ctx.globalAlpha = 0.35;
  gridLines(ctx, { x: 0, y: 0, cell: w }, grid.rows, grid.columns);
  ctx.globalAlpha = 1;
  ctx.fillStyle = theme.ink;
  const text = ink.text();
  for (let pixel = 0; pixel < grid.size; pixel++) {
    if (text[pixel] === "1") ctx.fillRect(w * grid.columnOf(pixel), h * grid.rowOf(pixel), w + 0.3, h + 0.3);
  }
  ctx.strokeRect(0.5, 0.5, width - 1, height - 1);
  if (ink.cursor !== null) drawCursor(ctx, w * grid.columnOf(ink.cursor), h * grid.rowOf(ink.cursor), w, h);
}

// ------------------------------------------------------------------------------ beside the picture

// The image, and the steps on the way to it.
function answerOf({ model, desk, grid }) {
  const shape = [1, 3, grid.rows, grid.columns];
  const large = imageStack(shape);
  large.canvas.className = "contour-image";
  large.canvas.setAttribute("role", "img");
  const steps = element("div", { class: "contour-steps", role: "img" });
  const node = element("div", { class: "contour-answer" }, large.canvas, steps);
  let [painted, drawn] = [null, null];
  const write = () => {
    const waiting = Boolean(desk.line.waiting);
    const last = desk.shown.at(-1);
    if (last !== painted && last) large.paint((painted = last));
    const stale = !desk.states.length;
    large.canvas.classList.toggle("stale", stale);
    const words = `${model.get("prompts")[model.get("prompt")]}, strength ${model.get("strength").toFixed(2)}`;
    large.canvas.setAttribute("aria-label", stale ? "The image before the last change" : `The image: ${words}`);
    const row = waiting ? desk.coming().states : desk.shown;
    if (row !== drawn || row.length !== steps.childElementCount) {
      const tiles = row.length > 1 || waiting ? row : [];
      steps.replaceChildren(...tiles.map((image) => {
        const tile = imageStack(shape);
        tile.paint(image);
        return tile.canvas;
      }));
      drawn = row;
    }
    steps.setAttribute("aria-label", `${steps.childElementCount} states from noise to the image`);
    steps.hidden = Boolean(model.standIn && !steps.childElementCount);
  };
  return { node, write };
}

// Contours to start from, and what changes the present one.
function toolsOf(state) {
  const { desk, grid, ink } = state;
  const starts = desk.given.map((text, i) => {
    const sheet = pixelSheet(grid.columns, grid.rows, { class: "contour-thumb" });
    const node = button(sheet.canvas, () => ink.draw((pixel) => text[pixel]), { "aria-label": `Contour ${i + 1}` });
    return { node, text, paint: (dark) => sheet.paint([...text].map((bit) => ((bit === "1") === dark ? 255 : 0))) };
  });
  const back = button("Undo", ink.undo);
  const clear = button("Clear", () => ink.draw(() => "0"));
  const rub = button("Rub out", () => {
    state.rubbing = !state.rubbing;
    write();
  }, { title: "So does drawing with Shift or with the right button" });
  const write = () => {
    starts.forEach(({ node, text }) => node.setAttribute("aria-pressed", String(text === ink.text())));
    back.disabled = !ink.canUndo();
    clear.disabled = !ink.text().includes("1");
    rub.setAttribute("aria-pressed", String(state.rubbing));
  };
  const paint = ({ dark }) => starts.forEach((one) => one.paint(dark));
  const node = row(group("Start from", ...starts.map((one) => one.node)), back, clear, rub);
  return { node, write, paint };
}

function messageOf({ model, desk }) {
  const { line, states } = desk;
  if (line.waiting) {
    const { count } = desk.coming();
    return [waitSign(), line.late || (count ? `Step ${count} is there \u2026` : "Waiting for the kernel \u2026")];
  }
  if (desk.failed()) return `draw failed: ${model.get("answered").error}`;
  if (!states.length && model.standIn) return NO_KERNEL;
  if (states.length > 1) return `Drawn: ${states.length} states, from noise to the image.`;
  return states.length ? "Computed before. Draw on it, or begin with another." : "";
}

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const state = stateOf(model);
  const { desk, grid, ink } = state;
  let painted = null;
  const draw = (ctx, size, theme) => {
    drawPad(ctx, state, size, theme);
    if (painted !== theme) tools.paint((painted = theme));
  };
  const layout = (width) => (width * grid.rows) / grid.columns;
  const view = outline({ model, el, style: STYLE, layout, draw, maxWidth: 640, name: "contour-pad" });
  const answer = answerOf(state);
  const tools = toolsOf(state);
  const told = status();
  told.classList.add("contour-status");
  const strengths = model.get("strengths");
  const strong = slider(view, "strength", "Strength", {
    min: strengths[0], max: strengths.at(-1), step: 0.05, title: "Strength of the contour",
    text: (value) => value.toFixed(2), change: ({ strength }) => state.setStrength(strength)
  });
  const prompts = model.get("prompts").map((words, i) => [i, words]);
  view.header.after(element("div", { class: "contour-body" }, view.stage, answer.node));
  view.controls.remove();
  view.root.append(
    tools.node,
    ...(prompts.length > 1 ? [row(choice(view, "prompt", "Prompt", prompts))] : []),
    row(strong), told,
    hint("Draw on the pad with a mouse, a pen or a finger; Shift rubs out. Keys: arrows move, space sets a pixel, "
      + "Shift with arrows draws a line."));
  drawOn(view, ink, {
    line: "1", bitOf: ({ shiftKey, button: pressed }) => (state.rubbing || shiftKey || pressed !== 0 ? "0" : "1"),
    words: (bit) => (bit === "1" ? ", drawn" : ""),
    keys: "Arrow keys move over its pixels, space sets one, Shift with arrows draws a line."
  });
  const show = () => {
    answer.write();
    tools.write();
    view.root.setAttribute("aria-busy", String(Boolean(desk.line.waiting)));
    told.tell(messageOf(state), Boolean(!desk.line.waiting && desk.failed()));
    view.redraw();
  };
  view.onStop(desk.listen(show));
  view.follow(["status"], show);
  view.onStop(state.send);
  show();
  return view.stop;
}

export default { render };
