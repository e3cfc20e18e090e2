// PixelByPixel: a model writes an image pixel by pixel; a click on a pixel rewrites its history.

import { drawColourBar } from "./parts/axes.js";
import { PALETTE, colourTable } from "./parts/colours.js";
import { unpack } from "./parts/data.js";
import { kernelLine } from "./parts/kernel.js";
import { onKeys } from "./parts/keys.js";
import { spoken } from "./parts/notes.js";
import { element, outline } from "./parts/outline.js";
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

  // A pixel is written or not: there is nothing to show between two steps.
  clock.shown = () => Math.floor(clock.step + 1e-6);
  clock.back = () => clock.seek(clock.shown() - 1);

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
    const differs = (pixel) => desk.compared && Math.abs(before[pixel] - desk.image[pixel]) > 0.01;
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

// --------------------------------------------------------------------------------------- painting

const VIRIDIS = colourTable("viridis");
const KNOWN = [1, 3, 5].map((i) => parseInt(PALETTE.data.slice(i, i + 2), 16));

// An image on a small canvas, one screen pixel for each of its own; colour(i) is [r, g, b] or null.
function paint(sheet, size, colour) {
  const ctx = sheet.getContext("2d");
  const pixels = ctx.createImageData(sheet.width, sheet.height);
  for (let i = 0; i < size; i++) {
    const rgb = colour(i);
    if (rgb) pixels.data.set([...rgb, 255], 4 * i);
  }
  ctx.putImageData(pixels, 0, 0);
}

const grey = (level) => Array(3).fill(Math.round(255 * level));
const tinted = (level) => KNOWN.map((part) => Math.round(0.55 * 255 * level + 0.45 * part));
const viridis = (p) => {
  const i = 3 * Math.max(0, Math.min(255, Math.round(255 * p)));
  return VIRIDIS.subarray(i, i + 3);
};

// Light inside dark: seen on every colour.
function ring(ctx, x, y, side, colour) {
  for (const [stroke, line] of [["rgba(0, 0, 0, 0.55)", 4], [colour, 2.5]]) {
    ctx.strokeStyle = stroke;
    ctx.lineWidth = line;
    ctx.strokeRect(x + 1, y + 1, side - 2, side - 2);
  }
}

function hatch(ctx, { x, y, width, height }, theme) {
  ctx.save();
  ctx.beginPath();
  ctx.rect(x, y, width, height);
  ctx.fillStyle = theme.fill;
  ctx.fill();
  ctx.clip();
  ctx.globalAlpha = 0.4;
  ctx.strokeStyle = theme.muted;
  ctx.lineWidth = 1;
  ctx.beginPath();
  for (let at = x - height; at < x + width; at += 7) {
    ctx.moveTo(at, y + height);
    ctx.lineTo(at + height, y);
  }
  ctx.stroke();
  ctx.restore();
}

// ----------------------------------------------------------------------------------------- render

const [HEAD, FOOT, GAP, BAR] = [20, 22, 24, 68];

function render({ model, el }) {
  const desk = deskOf(model);
  const clock = clockOf(model);
  const { rows, columns, size } = desk;
  const order = model.get("order");
  const classes = model.get("classes");
  const placeOf = new Int32Array(size);
  order.forEach((pixel, place) => (placeOf[pixel] = place));
  const written = () => clock.shown();
  let cursor = null; // the pixel under the pointer or chosen by keys
  let cell = 0; // the size of a pixel on the screen
  let panels = [];

  const sheets = [0, 1].map(() => element("canvas", { width: columns, height: rows }));

  const draw = (ctx, { width }, theme) => {
    const k = written();
    paint(sheets[0], size, (i) => (placeOf[i] < k ? grey(desk.image[i]) : null));
    paint(sheets[1], size, (i) => (placeOf[i] <= k ? viridis(desk.conditionals[i]) : null));
    const at = (box, pixel) => [box.x + (pixel % columns) * cell, box.y + Math.floor(pixel / columns) * cell];
    const [left, heat] = panels;
    panels.forEach((box, which) => {
      hatch(ctx, box, theme);
      ctx.imageSmoothingEnabled = false; // pixels are what the model made, so show them as pixels
      ctx.drawImage(sheets[which], box.x, box.y, box.width, box.height);
      if (cell >= 9) {
        ctx.strokeStyle = "rgba(128, 134, 144, 0.3)";
        ctx.lineWidth = 1;
        ctx.beginPath();
        for (let i = 1; i < columns; i++) {
          ctx.moveTo(box.x + i * cell + 0.5, box.y);
          ctx.lineTo(box.x + i * cell + 0.5, box.y + box.height);
        }
        for (let i = 1; i < rows; i++) {
          ctx.moveTo(box.x, box.y + i * cell + 0.5);
          ctx.lineTo(box.x + box.width, box.y + i * cell + 0.5);
        }
        ctx.stroke();
      }
      ctx.strokeStyle = theme.line;
      ctx.lineWidth = 1;
      ctx.strokeRect(box.x + 0.5, box.y + 0.5, box.width - 1, box.height - 1);
      if (k < size) ring(ctx, ...at(box, order[k]), cell, PALETTE.model);
    });
    // What the reader changed, and what came of it.
    for (const pixel of desk.changed) {
      if (placeOf[pixel] >= k) continue;
      const [x, y] = at(left, pixel);
      ctx.beginPath();
      ctx.arc(x + cell / 2, y + cell / 2, Math.max(1.5, Math.min(5, 0.2 * cell)), 0, 2 * Math.PI);
      ctx.fillStyle = PALETTE.error;
      ctx.fill();
    }
    if (cursor !== null) panels.forEach((box) => ring(ctx, ...at(box, cursor), cell, "#ffffff"));
    for (const pixel of desk.flipped) {
      if (placeOf[pixel] < k) ring(ctx, ...at(left, pixel), cell, PALETTE.error);
    }
    const asked = desk.asked?.pixel;
    if (asked !== undefined) ring(ctx, ...at(left, asked), cell, PALETTE.error);
    const height = Math.max(heat.height, 100);
    const bar = { x: heat.x + heat.width + 8, y: heat.y, width: 12, height };
    const label = height < 175 ? "p(1 | before)" : "p(pixel = 1 | pixels before)";
    drawColourBar(ctx, "viridis", 0, 1, label, bar, theme);
  };

  const [count, next] = [0, 1].map(() => element("div", { class: "pixel-label" }));
  const heads = ["image", "conditionals"].map((text) =>
    element("div", { class: "pixel-label" }, text));
  next.classList.add("strong");
  count.classList.add("strong");
  const layout = (width) => {
    const room = (width - GAP - BAR) / 2;
    cell = Math.max(2, Math.floor(Math.min(room / columns, 320 / Math.max(rows, columns))));
    const [w, h] = [cell * columns, cell * rows];
    const x = Math.max(w + GAP, Math.ceil(Math.min(room, 130)) + GAP);
    panels = [{ x: 0, y: HEAD, width: w, height: h }, { x, y: HEAD, width: w, height: h }];
    const foot = HEAD + Math.max(h, 100) + 4;
    [[heads[0], 0, 0], [heads[1], x, 0], [count, 0, foot], [next, x, foot]].forEach(([node, left, top]) => {
      node.style.left = `${left}px`;
      node.style.top = `${top}px`;
    });
    return foot + FOOT - 4;
  };

  const view = outline({ model, el, style: STYLE, layout, draw, maxWidth: 900 });
  const side = element("div", { class: "pixel-side" });
  const body = element("div", { class: "pixel-body" });
  view.root.insertBefore(body, view.stage);
  body.append(view.stage, side);
  view.stage.append(...heads, count, next);
  const sizes = new ResizeObserver(() => body.classList.toggle("narrow", body.clientWidth < 642));
  sizes.observe(body);
  view.onStop(() => sizes.disconnect());

  // ----------------------------------------------------------------------------- beside the picture

  const meanName = element("div", { class: "pixel-name" });
  const shared = element("div", { class: "pixel-name" });
  const mean = element("canvas", { width: columns, height: rows, role: "img" });
  const thumbs = element("div", { class: "pixel-thumbs" });
  const others = element("div", { role: "group", "aria-label": "Continuations" },
    element("div", { class: "pixel-name" }, "ways to go on: pick one"), thumbs);
  side.append(element("div", { class: "pixel-mean" }, meanName, mean, shared), others);

  const given = (i) => placeOf[i] < desk.nKnown;
  const tint = (values) => (i) => (given(i) ? tinted : grey)(values[i]);
  let painted = null; // the answer that the side shows
  const paintSide = () => {
    if (painted === desk.images) return;
    painted = desk.images;
    meanName.textContent = desk.count === 1 ? "only one continuation" : `average of ${desk.count} continuations`;
    shared.textContent = desk.nKnown
      ? `blue: the ${desk.nKnown === 1 ? "given pixel" : `${desk.nKnown} given pixels`}` : "no pixel given";
    mean.setAttribute("aria-label", `${meanName.textContent}, ${shared.textContent}`);
    paint(mean, size, tint(desk.mean));
    others.hidden = desk.count === 1;
    thumbs.replaceChildren(...desk.images.slice(0, SHOWN).map((values, i) => {
      const small = element("canvas", { width: columns, height: rows });
      paint(small, size, tint(values));
      const node = element("button", { type: "button", "aria-label": `Continuation ${i + 1}` }, small);
      node.addEventListener("click", () => desk.choose(i));
      return node;
    }));
  };

  // ------------------------------------------------------------------------------ pointer and keys

  const { canvas } = view;
  const flip = (pixel) => {
    if (placeOf[pixel] >= written()) {
      desk.notice = "This pixel is not written yet.";
      show();
      return;
    }
    const image = Float32Array.from(desk.image);
    image[pixel] = 1 - image[pixel];
    desk.ask({ pixel, image, nKnown: placeOf[pixel] + 1, label: desk.label });
  };
  const pixelAt = (event) => {
    const box = canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - panels[0].x) / cell);
    const row = Math.floor((event.clientY - box.top - panels[0].y) / cell);
    const inside = row >= 0 && row < rows && column >= 0 && column < columns;
    return inside ? row * columns + column : null;
  };
  canvas.addEventListener("click", (event) => {
    const pixel = pixelAt(event);
    if (pixel !== null) flip(pixel);
  });
  const point = (pixel) => {
    if (pixel === cursor) return;
    cursor = pixel;
    canvas.style.cursor = pixel !== null && placeOf[pixel] < written() ? "pointer" : "";
    show();
  };
  canvas.addEventListener("pointermove", (event) => point(pixelAt(event)));
  canvas.addEventListener("pointerleave", () => point(null));
  view.root.addEventListener("focusout", (event) => {
    if (!view.root.contains(event.relatedTarget)) point(null);
  });

  const speak = spoken(view);
  const name = (pixel) => `row ${Math.floor(pixel / columns) + 1}, column ${(pixel % columns) + 1}`;
  const walk = (down, right) => {
    // From the pixel that was written last.
    const from = cursor ?? order[Math.max(0, written() - 1)];
    const clamp = (value, count) => Math.max(0, Math.min(count - 1, value));
    const row = clamp(Math.floor(from / columns) + (cursor === null ? 0 : down), rows);
    const column = clamp((from % columns) + (cursor === null ? 0 : right), columns);
    point(row * columns + column);
    const value = placeOf[cursor] < written() ? `is ${desk.image[cursor].toFixed(1)}` : "not written yet";
    speak(`${name(cursor)}, ${value}`);
  };
  // With shift the arrows belong to the picture, else to the player.
  onKeys(view, {
    "Shift+ArrowUp": () => walk(-1, 0), "Shift+ArrowDown": () => walk(1, 0),
    "Shift+ArrowLeft": () => walk(0, -1), "Shift+ArrowRight": () => walk(0, 1),
    Enter: () => cursor !== null && flip(cursor)
  });

  // -------------------------------------------------------------------------------------- controls

  // Where "again" starts: here; with all written, where the last rewriting started.
  const here = () => (written() < size ? written() : desk.nKnown);
  const again = element("button", { type: "button", class: "pixel-again" });
  again.addEventListener("click", () =>
    desk.ask({ nKnown: here(), image: desk.image, label: desk.label }));
  const select = element("select", { "aria-label": "Class" },
    ...classes.map((text, i) => element("option", { value: String(i) }, text)));
  select.addEventListener("change", () => {
    desk.ask({ nKnown: 0, image: desk.image, label: Number(select.value) });
  });
  const status = element("p", { class: "pixel-status", role: "status" });
  const tools = element("div", { class: "cw-controls pixel-tools" }, again);
  if (classes.length) tools.append(element("label", {}, "class", select));
  tools.append(status);
  view.controls.after(tools, element("p", { class: "pixel-hint" },
    "Click a written pixel to flip it and rewrite all that follows. Keys: Shift + arrows choose a pixel, Enter flips it."));

  const consequences = () => {
    const after = size - desk.nKnown;
    const [pixel] = desk.flipped;
    const what = pixel === undefined ? "Rewritten" : `Flipped ${name(pixel)}`;
    if (!after) return `${what}: no pixel comes after it.`;
    return `${what}: ${desk.changed.length} of ${after} later ${after === 1 ? "pixel" : "pixels"} changed.`;
  };
  function message() {
    if (desk.line.waiting || model.get("status") === "waiting") {
      const words = desk.line.late || "Waiting for the kernel …";
      return [element("span", { class: "cw-wait", "aria-hidden": "true" }), words];
    }
    if (desk.notice) return [desk.notice];
    if (desk.failed()) return [`write failed: ${desk.failed()}`];
    return [desk.compared ? consequences() : ""];
  }
  const say = (node, ...words) => {
    if (node.textContent !== words.at(-1)) node.replaceChildren(...words);
  };

  function show() {
    paintSide();
    const k = written();
    say(count, k < size ? `${k} of ${size} pixels written` : `all ${size} pixels written`);
    const p = (pixel) => desk.conditionals[pixel].toFixed(2);
    const seen = cursor !== null && placeOf[cursor] < k;
    if (seen) say(next, `${name(cursor)}: p = ${p(cursor)}`);
    else say(next, k < size ? `next: p = ${p(order[k])}` : "no pixel left");
    [...thumbs.children].forEach((node, i) => {
      node.setAttribute("aria-pressed", String(i === desk.choice));
    });
    say(again, k < size || !desk.nKnown ? (here() ? "Again from here" : "A new image")
      : `Again after ${desk.nKnown} ${desk.nKnown === 1 ? "pixel" : "pixels"}`);
    again.disabled = here() >= size;
    if (classes.length) select.value = String((desk.asked || desk).label);
    view.root.setAttribute("aria-busy", String(Boolean(desk.line.waiting)));
    const failed = !desk.line.waiting && !desk.notice && desk.failed();
    status.classList.toggle("failed", Boolean(failed));
    say(status, ...message());
    view.redraw();
  }

  playerBar(view, model);
  view.controls.querySelector("input").step = "1";
  view.onStop(desk.listen(show));
  view.onStop(clock.listen(show));
  view.follow(["status"], show);
  show();
  return view.stop;
}

export default { render };
