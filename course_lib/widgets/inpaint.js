// Inpaint: scratch pixels out of an image; the kernel fills them in.

import { PALETTE } from "./parts/colours.js";
import { atStep, unpack } from "./parts/data.js";
import { kernelLine } from "./parts/kernel.js";
import { onKeys } from "./parts/keys.js";
import { spoken } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
import { clockOf, playerBar } from "./parts/player.js";
import { listenersOf, perModel } from "./parts/shared.js";
import STYLE from "./inpaint.css" with { type: "css" };

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

// The straight way between two places in pixels, as places less than half a pixel apart.
function wayBetween([x0, y0], [x1, y1]) {
  const count = Math.max(1, Math.ceil(3 * Math.hypot(x1 - x0, y1 - y0)));
  return Array.from({ length: count }, (_, i) => {
    const share = (i + 1) / count;
    return [x0 + (x1 - x0) * share, y0 + (y1 - y0) * share];
  });
}

function render({ model, el }) {
  let arrays = unpack(model);
  const [count, rows, columns] = arrays.images.shape;
  const size = rows * columns;
  const desk = deskOf(model);
  const clock = clockOf(model);
  const values = new Float32Array(size);
  let notice = "";
  let cursor = null; // the pixel under the pointer or the keyboard: {row, column}
  let stroke = null; // {mask, bit, at} while the pointer is down
  let timer = 0;

  // ------------------------------------------------------------------------------------ scratches

  const send = () => {
    clearTimeout(timer);
    timer = 0;
    model.save_changes();
  };
  const change = (name, value) => {
    if (model.get(name) === value) return;
    notice = "";
    model.set(name, value);
    // Python hears of a stroke a few times a second, of all else at once.
    if (!stroke) send();
    else if (!timer) timer = setTimeout(send, 150);
  };
  const remember = () => {
    const known = model.get("known");
    if (desk.past.at(-1) !== known) desk.past.push(known);
    if (desk.past.length > 200) desk.past.shift();
  };
  const scratchWhere = (test) => {
    remember();
    change("known", Array.from({ length: size }, (_, i) =>
      test(Math.floor(i / columns), i % columns, i) ? "0" : "1").join(""));
  };
  const undo = () => {
    while (desk.past.length) {
      const known = desk.past.pop();
      if (known === model.get("known")) continue;
      change("known", known);
      break;
    }
    show();
  };
  // All pixels under a round brush centred at (x, y), in pixels of the image.
  const stamp = (mask, [x, y], bit) => {
    const reach = model.get("brush") / 2;
    const from = (v) => Math.max(0, Math.floor(v - reach));
    for (let row = from(y); row < Math.min(rows, y + reach + 1); row++) {
      for (let column = from(x); column < Math.min(columns, x + reach + 1); column++) {
        const under = row === Math.floor(y) && column === Math.floor(x);
        const near = Math.hypot(row + 0.5 - y, column + 0.5 - x) <= reach;
        if (under || (near && reach > 0.5)) mask[row * columns + column] = bit;
      }
    }
  };

  // -------------------------------------------------------------------------------------- drawing

  // The image is painted with one screen pixel for each of its own and drawn enlarged.
  const sheet = document.createElement("canvas");
  sheet.width = columns;
  sheet.height = rows;
  const paint = (ctx, levels, offset = 0) => {
    const pixels = ctx.createImageData(columns, rows);
    for (let i = 0; i < size; i++) {
      const level = Math.round(255 * levels[offset + i]);
      pixels.data.set([level, level, level, 255], 4 * i);
    }
    ctx.putImageData(pixels, 0, 0);
  };

  const draw = (ctx, { width, height }, theme) => {
    const { image, known } = desk.puzzle();
    const done = desk.done();
    if (done) paint(sheet.getContext("2d"), atStep(arrays.states, clock.shown(), values));
    else paint(sheet.getContext("2d"), arrays.images.values, image * size);
    ctx.imageSmoothingEnabled = false; // pixels are what the model made, so show them as pixels
    ctx.drawImage(sheet, 0, 0, width, height);

    const [w, h] = [width / columns, height / rows];
    const hidden = (row, column) =>
      row >= 0 && row < rows && column >= 0 && column < columns && known[row * columns + column] === "0";
    const holes = new Path2D();
    const edges = new Path2D();
    for (let row = 0; row <= rows; row++) {
      for (let column = 0; column <= columns; column++) {
        const [x, y] = [column * w, row * h];
        const here = hidden(row, column);
        if (here) holes.rect(x, y, w + 0.5, h + 0.5);
        if (here !== hidden(row - 1, column)) {
          edges.moveTo(x, y);
          edges.lineTo(x + w, y);
        }
        if (here !== hidden(row, column - 1)) {
          edges.moveTo(x, y);
          edges.lineTo(x, y + h);
        }
      }
    }
    ctx.lineCap = "square";
    ctx.strokeStyle = PALETTE.error;
    if (!done) {
      ctx.save();
      ctx.clip(holes);
      ctx.fillStyle = theme.dark ? "#2a2029" : "#fbf1f7";
      ctx.fillRect(0, 0, width, height);
      ctx.lineWidth = 1.5;
      ctx.globalAlpha = 0.75;
      ctx.beginPath();
      for (let x = -height; x < width; x += 7) {
        ctx.moveTo(x, height);
        ctx.lineTo(x + height, 0);
      }
      ctx.stroke();
      ctx.restore();
    }
    ctx.lineWidth = done ? 1.5 : 2;
    ctx.stroke(edges);
    ctx.strokeStyle = theme.line;
    ctx.lineWidth = 1;
    ctx.strokeRect(0.5, 0.5, width - 1, height - 1);
    if (cursor) {
      // Light inside dark: seen on every grey.
      const [x, y] = [cursor.column * w, cursor.row * h];
      ctx.lineJoin = "miter";
      for (const [colour, line] of [["#000000", 4], ["#ffffff", 2]]) {
        ctx.strokeStyle = colour;
        ctx.lineWidth = line;
        ctx.strokeRect(x + 1, y + 1, w - 2, h - 2);
      }
    }
  };

  const view = outline({ model, el, style: STYLE, layout: (width) => (Math.min(width, 330) * rows) / columns, draw });
  view.root.style.setProperty("--cw-button", PALETTE.data);
  const side = element("div", { class: "inpaint-side" });
  const body = element("div", { class: "inpaint-body" });
  view.root.insertBefore(body, view.stage);
  body.append(view.stage, side);

  // ------------------------------------------------------------------------------ pointer and keys

  const { canvas } = view;
  const alt = model.get("alt");
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", `${alt} Arrow keys move over its pixels, space scratches.`);
  const speak = spoken(view);

  const placeOf = (event) => {
    const box = canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * columns,
      ((event.clientY - box.top) / box.height) * rows
    ];
  };
  const pixelAt = ([x, y]) => ({
    row: Math.max(0, Math.min(rows - 1, Math.floor(y))),
    column: Math.max(0, Math.min(columns - 1, Math.floor(x)))
  });
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button > 2) return;
    event.preventDefault();
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    remember();
    // With shift, the right button or the other end of a pen, pixels come back.
    const bit = event.shiftKey || event.button !== 0 ? "1" : "0";
    stroke = { mask: [...model.get("known")], bit, at: placeOf(event) };
    stamp(stroke.mask, stroke.at, bit);
    change("known", stroke.mask.join(""));
  });
  canvas.addEventListener("pointermove", (event) => {
    const place = placeOf(event);
    cursor = pixelAt(place);
    if (stroke) {
      for (const point of wayBetween(stroke.at, place)) stamp(stroke.mask, point, stroke.bit);
      stroke.at = place;
      change("known", stroke.mask.join(""));
    }
    view.redraw();
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
    canvas.addEventListener(end, () => {
      if (stroke) send();
      stroke = null;
    });
  }
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  for (const end of ["pointerleave", "blur"]) {
    canvas.addEventListener(end, () => {
      cursor = null;
      view.redraw();
    });
  }

  const walk = (down, right) => {
    cursor ||= { row: Math.floor(rows / 2), column: Math.floor(columns / 2) };
    cursor.row = Math.max(0, Math.min(rows - 1, cursor.row + down));
    cursor.column = Math.max(0, Math.min(columns - 1, cursor.column + right));
  };
  const toggle = () => {
    walk(0, 0);
    remember();
    const mask = [...model.get("known")];
    const i = cursor.row * columns + cursor.column;
    mask[i] = mask[i] === "1" ? "0" : "1";
    change("known", mask.join(""));
  };
  const keys = {
    ArrowUp: () => walk(-1, 0), ArrowDown: () => walk(1, 0),
    ArrowLeft: () => walk(0, -1), ArrowRight: () => walk(0, 1), " ": toggle
  };
  const told = (act) => () => {
    act();
    const { row, column } = cursor;
    const scratched = model.get("known")[row * columns + column] === "0";
    speak(`Row ${row + 1}, column ${column + 1}${scratched ? ", scratched out" : ""}`);
    view.redraw();
  };
  onKeys(view, Object.fromEntries(Object.entries(keys).map(([key, act]) => [key, told(act)])), canvas);

  // ---------------------------------------------------------------------------- beside the picture

  const part = (name, ...children) => element("div", { role: "group", "aria-label": name },
    element("div", { class: "inpaint-name" }, name), ...children);
  const tool = (label, onClick, attributes = {}) => {
    const node = element("button", { type: "button", ...attributes }, label);
    node.addEventListener("click", onClick);
    return node;
  };

  const thumbs = Array.from({ length: count }, (_, i) => {
    const small = element("canvas", { class: "inpaint-thumb", width: columns, height: rows });
    paint(small.getContext("2d"), arrays.images.values, i * size);
    const node = element("button", { type: "button", "aria-label": `Image ${i + 1}` }, small);
    node.addEventListener("click", () => change("image_index", i));
    return node;
  });
  if (count > 1) side.append(part("Pick an image", element("div", { class: "inpaint-thumbs" }, ...thumbs)));

  const shuffledHalf = () => {
    const order = Array.from({ length: size }, (_, i) => [Math.random(), i]).sort((a, b) => a[0] - b[0]);
    return new Set(order.slice(0, Math.floor(size / 2)).map(([, i]) => i));
  };
  const back = tool("Undo", undo);
  const clear = tool("Clear", () => scratchWhere(() => false));
  side.append(part("Scratch it, or hide",
    element("div", { class: "cw-controls inpaint-tools" },
      tool("Top half", () => scratchWhere((row) => row < Math.floor(rows / 2))),
      tool("Bottom half", () => scratchWhere((row) => row >= Math.floor(rows / 2))),
      tool("Random half", () => {
        const chosen = shuffledHalf();
        scratchWhere((row, column, i) => chosen.has(i));
      }),
      back, clear)));

  const fill = tool("Fill in", () => {
    if (model.standIn) {
      if (desk.done()) clock.play();
      else notice = "Run this cell to fill in your own scratches.";
    } else {
      if (timer) send();
      desk.ask();
    }
    show();
  }, { class: "inpaint-fill" });
  const example = tool("Show the example", () => {
    remember();
    change("image_index", model.get("answered").image);
    change("known", model.get("answered").known);
    show();
  });
  side.append(element("div", { class: "cw-controls inpaint-tools" }, fill, example));
  const status = element("p", { class: "inpaint-status", role: "status" });
  side.append(status);

  function message(hidden) {
    if (desk.line.waiting || model.get("status") === "waiting") {
      const words = desk.line.late || "Waiting for the kernel …";
      return [element("span", { class: "cw-wait", "aria-hidden": "true" }), words];
    }
    if (notice) return [notice];
    if (desk.failed()) return [`fill failed: ${model.get("answered").error}`];
    const pixels = hidden === 1 ? "1 pixel" : `${hidden} pixels`;
    if (desk.done()) return [`${pixels} filled in. Play it again, or scratch out more.`];
    return [hidden ? `${pixels} scratched out.` : "Drag over the picture to scratch pixels out."];
  }

  function show() {
    const { image, known } = desk.puzzle();
    const hidden = known.split("0").length - 1;
    thumbs.forEach((node, i) => node.setAttribute("aria-pressed", String(i === image)));
    back.disabled = !desk.past.some((before) => before !== known);
    clear.disabled = !hidden;
    fill.disabled = !hidden;
    fill.textContent = desk.done() && !model.standIn ? "Fill in again" : "Fill in";
    example.hidden = !model.standIn || !model.get("answered").known || desk.done();
    const busy = Boolean(desk.line.waiting);
    view.root.setAttribute("aria-busy", String(busy));
    view.controls.style.visibility = desk.done() && !busy && clock.last() ? "" : "hidden";
    status.classList.toggle("failed", Boolean(!busy && !notice && desk.failed()));
    const words = message(hidden);
    if (status.textContent !== words.at(-1)) status.replaceChildren(...words);
    view.redraw();
  }

  playerBar(view, model);
  view.onStop(desk.listen(show));
  const answer = () => {
    arrays = unpack(model);
    show();
  };
  for (const [name, listener] of [["status", show], ["data", answer]]) {
    model.on(`change:${name}`, listener);
    view.onStop(() => model.off(`change:${name}`, listener));
  }
  view.onStop(() => timer && send());
  show();
  return view.stop;
}

export default { render };
