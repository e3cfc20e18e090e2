// Voronoi: a codebook while it trains, and one encoder output that is pulled through its cells.

import { drawAxes, drawPlane, plane } from "./parts/axes.js";
import { throttledChanges } from "./parts/changes.js";
import { PALETTE } from "./parts/colours.js";
import { atStep, unpack } from "./parts/data.js";
import { onKeys } from "./parts/keys.js";
import { element, outline } from "./parts/outline.js";
import { playerBar } from "./parts/player.js";

// -------------------------------------------------------------------------------- the mathematics
// voronoi.py has the same. Points and codes are flat lists x, y, x, y, ...

// The index of the code nearest to a place; of equally near ones the first.
function nearestCode(x, y, codes) {
  let [best, least] = [0, Infinity];
  for (let k = 0; 2 * k < codes.length; k++) {
    const distance = (codes[2 * k] - x) ** 2 + (codes[2 * k + 1] - y) ** 2;
    if (distance < least) [best, least] = [k, distance];
  }
  return best;
}

// How many points each code has.
function countsOf(points, codes) {
  const counts = new Array(codes.length / 2).fill(0);
  for (let i = 0; i < points.length; i += 2) counts[nearestCode(points[i], points[i + 1], codes)]++;
  return counts;
}

// How many codes are in use, in effect: exp of the entropy of the counts.
function perplexityOf(counts) {
  const total = counts.reduce((a, b) => a + b, 0);
  const entropy = counts.reduce((sum, n) => (n ? sum - (n / total) * Math.log(n / total) : sum), 0);
  return Math.exp(entropy);
}

// The part of a convex polygon where a x + b y <= bound.
function clipped(cell, a, b, bound) {
  const over = cell.map(([x, y]) => a * x + b * y - bound);
  const kept = [];
  cell.forEach(([x, y], i) => {
    const j = (i + 1) % cell.length;
    if (over[i] <= 0) kept.push([x, y]);
    if (over[i] * over[j] < 0) {
      const share = over[i] / (over[i] - over[j]);
      kept.push([x + (cell[j][0] - x) * share, y + (cell[j][1] - y) * share]);
    }
  });
  return kept;
}

// The region of each code, cut out of the box: a polygon each, empty where nothing is nearest to it.
function cellsOf(codes, [x0, x1, y0, y1]) {
  const cells = [];
  for (let k = 0; 2 * k < codes.length; k++) {
    const [x, y] = [codes[2 * k], codes[2 * k + 1]];
    let cell = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];
    for (let j = 0; 2 * j < codes.length && cell.length; j++) {
      const [u, v] = [codes[2 * j], codes[2 * j + 1]];
      if (j === k) continue;
      if (u === x && v === y) cell = j < k ? [] : cell; // of two at one place the first has it
      else cell = clipped(cell, u - x, v - y, (u * u + v * v - x * x - y * y) / 2);
    }
    cells.push(cell);
  }
  return cells;
}

// What pulls at z_e, both as steps downhill: the decoder's gradient, which belongs to the code but
// is handed on as it is, and the commitment loss β ‖z_e - e_k‖².
function pullsOn([x, y], code, target, beta) {
  return {
    copied: [target[0] - code[0], target[1] - code[1]],
    commitment: [2 * beta * (code[0] - x), 2 * beta * (code[1] - y)]
  };
}

const STEP_SIZE = 0.1;

function stepped(z, code, target, beta) {
  const { copied, commitment } = pullsOn(z, code, target, beta);
  return z.map((value, i) => value + STEP_SIZE * (copied[i] + commitment[i]));
}

// --------------------------------------------------------------------------------------- the look

const STYLE = `
.vq-handle {
  position: absolute; width: 32px; height: 32px; margin: -16px 0 0 -16px; border-radius: 50%;
  touch-action: none; cursor: grab;
}
.vq-handle:active { cursor: grabbing; }
.vq-handle:focus { outline: none; }
.vq-handle::after {
  content: ""; position: absolute; inset: 8px; border-radius: 50%;
  background: ${PALETTE.latent}; border: 2.5px solid var(--cw-ink);
}
.vq-target::after { background: ${PALETTE.data}; border-radius: 3px; inset: 9px; transform: rotate(45deg); }
.vq-handle:hover::after { inset: 7px; }
.vq-handle:focus-visible::after { outline: 2px solid var(--cw-accent); outline-offset: 3px; }
.vq-usage { margin: 8px 2px 0; font-variant-numeric: tabular-nums; }
.vq-usage b { font-weight: 600; }
.vq-usage .vq-dead { color: ${PALETTE.error}; font-weight: 600; }
.vq-said { margin: 10px 2px 0; font-variant-numeric: tabular-nums; }
.course-widget .vq-controls { flex-wrap: wrap; gap: 6px 12px; }
.vq-controls button { padding: 0 10px; border: 1px solid var(--cw-line); white-space: nowrap; }
.vq-controls .vq-reset { border-color: transparent; color: var(--cw-muted); }
.vq-beta { display: inline-flex; align-items: center; gap: 2px; flex: 1; min-width: 180px; white-space: nowrap; }
.vq-beta span { color: var(--cw-muted); }
.vq-beta output { min-width: 34px; font-variant-numeric: tabular-nums; }
.vq-key { display: flex; flex-wrap: wrap; gap: 4px 14px; margin: 10px 2px 0; font-size: 12px; }
.vq-key span { display: inline-flex; align-items: center; gap: 5px; white-space: nowrap; }
.vq-key svg { width: 22px; height: 14px; flex: none; }
.vq-hint { margin: 8px 2px 0; color: var(--cw-muted); font-size: 12px; }
`;

// The key: a small picture and its meaning.
const ARROW = "M1 7h14M15 3l6 4-6 4z";
const KEY = [
  [`<circle cx="11" cy="7" r="3" fill="${PALETTE.latent}"/>`, "encoder output"],
  [`<circle cx="11" cy="7" r="5" fill="${PALETTE.model}"/>`, "code"],
  [`<path d="M6 2l10 10M16 2L6 12" stroke="${PALETTE.error}" stroke-width="3"/>`, "dead code"],
  [`<path d="${ARROW}" stroke="${PALETTE.data}" fill="${PALETTE.data}" stroke-width="2.5"/>`,
    "decoder\u2019s gradient (downhill), and its copy"],
  [`<path d="${ARROW}" stroke="${PALETTE.latent}" fill="${PALETTE.latent}" stroke-width="2.5"/>`, "commitment"]
];

const SUBSCRIPTS = "\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089";
const nameOf = (k) => `e${String(k).replace(/\d/g, (digit) => SUBSCRIPTS[digit])}`;

// A sheet of what the points look like, side by side: a dot, or the marks. Copying is cheaper than
// drawing a circle or a letter.
function pointSheet(marks, count, ratio, theme) {
  const kinds = marks.length ? [...new Set(marks)] : [""];
  const radius = Math.max(1.8, Math.min(3.5, Math.sqrt(2500 / count)));
  const cell = Math.ceil((marks.length ? 18 : 2 * radius + 2) * ratio);
  const sheet = document.createElement("canvas");
  sheet.width = cell * kinds.length;
  sheet.height = cell;
  const ctx = sheet.getContext("2d");
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  ctx.font = `600 ${(count > 250 ? 9 : 11) * ratio}px ${theme.font}`;
  kinds.forEach((kind, i) => {
    const [x, y] = [(i + 0.5) * cell, cell / 2];
    ctx.fillStyle = marks.length && theme.dark ? "#4fc79b" : PALETTE.latent;
    if (marks.length) {
      ctx.fillText(kind, x, y, cell);
      return;
    }
    ctx.beginPath();
    ctx.arc(x, y, radius * ratio, 0, 2 * Math.PI);
    ctx.fill();
    ctx.strokeStyle = theme.rim;
    ctx.lineWidth = 0.6 * ratio;
    ctx.stroke();
  });
  const columns = marks.map((mark) => kinds.indexOf(mark) * cell);
  return { sheet, cell, columnOf: (i) => columns[i] || 0 };
}

function drawCross(ctx, x, y, arm, theme) {
  ctx.beginPath();
  ctx.moveTo(x - arm, y - arm);
  ctx.lineTo(x + arm, y + arm);
  ctx.moveTo(x + arm, y - arm);
  ctx.lineTo(x - arm, y + arm);
  for (const [colour, width] of [[theme.plot, 6], [PALETTE.error, 3]]) {
    ctx.strokeStyle = colour;
    ctx.lineWidth = width;
    ctx.stroke();
  }
}

// An arrow with a rim, so that it stands out from cells and points alike.
function drawArrow(ctx, [x0, y0], [x1, y1], colour, theme) {
  const length = Math.hypot(x1 - x0, y1 - y0);
  if (length < 2) return;
  const [ux, uy] = [(x1 - x0) / length, (y1 - y0) / length];
  const head = Math.min(11, length);
  const [nx, ny] = [x1 - head * ux, y1 - head * uy];
  ctx.lineJoin = "round";
  for (const [ink, wider] of [[theme.plot, 3], [colour, 0]]) {
    ctx.strokeStyle = ink;
    ctx.fillStyle = ink;
    ctx.lineWidth = 2.5 + wider;
    ctx.beginPath();
    ctx.moveTo(x0, y0);
    ctx.lineTo(nx, ny);
    ctx.stroke();
    ctx.lineWidth = wider;
    ctx.beginPath();
    ctx.moveTo(x1, y1);
    ctx.lineTo(nx - 0.5 * head * uy, ny + 0.5 * head * ux);
    ctx.lineTo(nx + 0.5 * head * uy, ny - 0.5 * head * ux);
    ctx.closePath();
    ctx.fill();
    if (wider) ctx.stroke();
  }
}

// Words on a ground of their own, inside the box.
function drawWords(ctx, text, x, y, box, theme, colour = theme.ink) {
  ctx.font = `600 12px ${theme.font}`;
  const width = ctx.measureText(text).width + 8;
  const left = Math.max(box.x + 2, Math.min(x, box.x + box.width - width - 2));
  const middle = Math.max(box.y + 10, Math.min(y, box.y + box.height - 10));
  ctx.globalAlpha = 0.82;
  ctx.fillStyle = theme.plot;
  ctx.fillRect(left, middle - 8, width, 16);
  ctx.globalAlpha = 1;
  ctx.fillStyle = colour;
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  ctx.fillText(text, left + 4, middle);
}

// What is written below the picture.
function sentence(k, distance, loss, more) {
  return `z\u2091 is nearest to ${nameOf(k)}: \u2016z\u2091 \u2212 ${nameOf(k)}\u2016\u00b2 = ${distance.toFixed(2)}. ` +
    `The decoder gets z_q = ${nameOf(k)}; its loss is \u00bd\u2016target \u2212 z_q\u2016\u00b2 = ${loss.toFixed(2)}. ${more}`;
}

function crossing(from, to, before, after) {
  return `z\u2091 crossed a border: the output jumps from ${nameOf(from)} to ${nameOf(to)}, ` +
    `the loss from ${before.toFixed(2)} to ${after.toFixed(2)}.`;
}

const bounded = ([x, y], [x0, x1, y0, y1]) => [Math.max(x0, Math.min(x, x1)), Math.max(y0, Math.min(y, y1))];
const squared = ([a, b], [c, d]) => (a - c) ** 2 + (b - d) ** 2;
const same = (a, b) => a[0] === b[0] && a[1] === b[1];

// -------------------------------------------------------------------------------------- the widget

function render({ model, el }) {
  const { codebooks, points } = unpack(model);
  const extent = model.get("extent");
  const marks = model.get("marks");
  const [size, count] = [codebooks.shape[1], points.shape[1]];
  let clock = null;

  const { change, send } = throttledChanges(model);

  // Codes, points, use and cells follow from the step alone: dragging a handle computes none of them.
  const codes = new Float32Array(2 * size);
  const outputs = new Float32Array(2 * count);
  let scene = null;
  const current = () => {
    const step = clock.shown();
    if (scene?.step === step) return scene;
    atStep(codebooks, step, codes);
    atStep(points, step, outputs);
    const counts = countsOf(outputs, codes);
    scene = { step, counts, cells: cellsOf(codes, extent), perplexity: perplexityOf(counts) };
    return scene;
  };
  const codeAt = (k) => [codes[2 * k], codes[2 * k + 1]];

  // What the handles make of it.
  const chosen = () => {
    current();
    const [z, target, beta] = ["z", "target", "beta"].map((name) => model.get(name));
    const k = nearestCode(z[0], z[1], codes);
    return { z, target, beta, k, code: codeAt(k), loss: squared(target, codeAt(k)) / 2 };
  };

  // ------------------------------------------------------------------------------------- drawing

  const boxFor = (width) => {
    const inner = width - 36 - 10;
    const shape = (extent[3] - extent[2]) / (extent[1] - extent[0]);
    return { x: 36, y: 4, width: inner, height: Math.round(inner * Math.min(1.4, Math.max(0.3, shape))) };
  };

  let dots = null;
  let dotsFor = "";
  const drawPoints = (ctx, map, ratio, theme) => {
    const key = `${ratio} ${theme.dark}`;
    if (key !== dotsFor) dots = pointSheet(marks, count, ratio, theme);
    dotsFor = key;
    const { sheet, cell, columnOf } = dots;
    const side = cell / ratio;
    for (let i = 0; i < count; i++) {
      const [x, y] = [map.x(outputs[2 * i]) - side / 2, map.y(outputs[2 * i + 1]) - side / 2];
      ctx.drawImage(sheet, columnOf(i), 0, cell, cell, x, y, side, side);
    }
  };

  const outlineOf = (ctx, map, cell) => {
    ctx.beginPath();
    for (const [x, y] of cell) ctx.lineTo(map.x(x), map.y(y));
    ctx.closePath();
  };
  const drawCells = (ctx, map, { cells, counts }, theme) => {
    const most = Math.max(...counts);
    ctx.lineWidth = 1;
    ctx.lineJoin = "round";
    cells.forEach((cell, k) => {
      outlineOf(ctx, map, cell);
      ctx.globalAlpha = 0.5 * Math.sqrt(counts[k] / most);
      ctx.fillStyle = PALETTE.model;
      ctx.fill();
      ctx.globalAlpha = 1;
      ctx.strokeStyle = theme.dark ? "#6d747d" : "#9aa1aa";
      ctx.stroke();
    });
  };

  const drawCode = (ctx, map, k, used, radius, rim, theme) => {
    const [x, y] = [map.x(codes[2 * k]), map.y(codes[2 * k + 1])];
    if (!used) {
      drawCross(ctx, x, y, radius, theme);
      return;
    }
    ctx.beginPath();
    ctx.arc(x, y, radius, 0, 2 * Math.PI);
    ctx.fillStyle = PALETTE.model;
    ctx.fill();
    ctx.strokeStyle = rim;
    ctx.lineWidth = radius / 3;
    ctx.stroke();
  };

  // Cells, points and codes as a picture, which a drag leaves as it is.
  const backdrop = document.createElement("canvas");
  let backdropFor = "";
  const drawBackdrop = (ctx, map, seen, box, ratio, theme) => {
    const { width, height } = ctx.canvas;
    const key = [seen.step, width, height, theme.dark].join();
    if (key !== backdropFor) {
      backdropFor = key;
      Object.assign(backdrop, { width, height }); // which also clears it
      const own = backdrop.getContext("2d");
      own.scale(ratio, ratio);
      own.beginPath();
      own.rect(box.x, box.y, box.width, box.height);
      own.clip();
      drawPlane(own, box, theme);
      drawCells(own, map, seen, theme);
      drawPoints(own, map, ratio, theme);
      seen.counts.forEach((used, k) => drawCode(own, map, k, used, size > 32 ? 4 : 5, theme.plot, theme));
    }
    ctx.drawImage(backdrop, 0, 0, width / ratio, height / ratio);
  };

  // The cell and the code that z_e has.
  const drawLit = (ctx, map, { cells, counts }, k, theme) => {
    outlineOf(ctx, map, cells[k]);
    ctx.strokeStyle = theme.ink;
    ctx.lineWidth = 2.5;
    ctx.stroke();
    drawCode(ctx, map, k, counts[k], 7.5, theme.ink, theme);
  };

  // Where "Step" has led, from the last drag on.
  let trail = [];
  const drawTrail = (ctx, map, z) => {
    if (!trail.length || !same(trail.at(-1), z)) return;
    ctx.strokeStyle = PALETTE.latent;
    ctx.fillStyle = PALETTE.latent;
    ctx.lineWidth = 1.5;
    ctx.beginPath();
    for (const [x, y] of trail) ctx.lineTo(map.x(x), map.y(y));
    ctx.stroke();
    for (const [x, y] of trail.slice(0, -1)) {
      ctx.beginPath();
      ctx.arc(map.x(x), map.y(y), 3, 0, 2 * Math.PI);
      ctx.fill();
    }
  };

  const drawPulls = (ctx, map, { z, target, beta, k, code }, box, theme) => {
    const at = ([x, y]) => [map.x(x), map.y(y)];
    const plus = (a, b) => at([a[0] + b[0], a[1] + b[1]]);
    const { copied, commitment } = pullsOn(z, code, target, beta);
    const [here, there] = [at(z), at(code)];
    ctx.strokeStyle = theme.ink;
    ctx.lineWidth = 1.5;
    ctx.setLineDash([4, 4]);
    ctx.beginPath();
    ctx.moveTo(...here);
    ctx.lineTo(...there);
    ctx.stroke();
    ctx.setLineDash([]);
    drawArrow(ctx, here, plus(z, commitment), PALETTE.latent, theme);
    drawArrow(ctx, there, at(target), PALETTE.data, theme);
    drawArrow(ctx, here, plus(z, copied), PALETTE.data, theme);
    const apart = Math.hypot(here[0] - there[0], here[1] - there[1]);
    if (apart > 60) {
      // Beside the line, on the side that the gradient does not go to.
      const [nx, ny] = [(there[1] - here[1]) / apart, (here[0] - there[0]) / apart];
      const off = Math.sign(copied[0] * nx - copied[1] * ny) > 0 ? -20 : 20;
      const [x, y] = [(here[0] + there[0]) / 2 + off * nx, (here[1] + there[1]) / 2 + off * ny];
      drawWords(ctx, squared(z, code).toFixed(2), x - 16, y, box, theme);
    }
    // Each name on the side that no line goes to.
    const left = here[0] < there[0] ? -1 : 1;
    drawWords(ctx, "z\u2091", here[0] + (left < 0 ? -36 : 14), here[1] - 14, box, theme);
    drawWords(ctx, nameOf(k), there[0] + (left < 0 ? 10 : -38), there[1] - 14, box, theme);
    drawWords(ctx, "target", at(target)[0] + 14, at(target)[1] + 16, box, theme);
  };

  const draw = (ctx, { width, ratio }, theme) => {
    const seen = current();
    const picked = chosen();
    const box = boxFor(width);
    const map = plane(extent, box);
    drawBackdrop(ctx, map, seen, box, ratio, theme);
    ctx.save();
    ctx.beginPath();
    ctx.rect(box.x, box.y, box.width, box.height);
    ctx.clip();
    drawLit(ctx, map, seen, picked.k, theme);
    drawTrail(ctx, map, picked.z);
    drawPulls(ctx, map, picked, box, theme);
    ctx.restore();
    drawAxes(ctx, extent, box, theme);
    place(map, picked);
    write(seen, picked);
  };

  const layout = (width) => {
    // Room for the longest of all sentences, so that nothing below moves while one reads.
    const text = said.textContent;
    said.style.minHeight = "";
    said.textContent = sentence(10, 99.99, 99.99, crossing(10, 10, 99.99, 99.99));
    said.style.minHeight = `${said.offsetHeight}px`;
    said.textContent = text;
    const box = boxFor(width);
    return box.y + box.height + 24;
  };
  const view = outline({ model, el, layout, draw });
  view.root.prepend(element("style", {}, STYLE));

  // ------------------------------------------------------------------------------- what is dragged

  let drawn = null; // the map as last drawn
  const handle = (name, label) => {
    const node = element("div", {
      class: `vq-handle vq-${name}`, role: "slider", tabindex: "0", "aria-label": label,
      "aria-valuemin": extent[0], "aria-valuemax": extent[1]
    });
    let grip = null;
    node.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault(); // no text selection, no scrolling
      node.focus({ preventScroll: true });
      node.setPointerCapture(event.pointerId);
      grip = { x: event.clientX, y: event.clientY, from: model.get(name) };
    });
    node.addEventListener("pointermove", (event) => {
      if (!grip || !drawn) return;
      const [ox, oy] = drawn.toPlane(0, 0);
      const [x, y] = drawn.toPlane(event.clientX - grip.x, event.clientY - grip.y);
      change({ [name]: bounded([grip.from[0] + x - ox, grip.from[1] + y - oy], extent) });
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      node.addEventListener(end, () => {
        if (grip) send();
        grip = null;
      });
    }
    view.stage.append(node);
    return node;
  };
  const handles = { target: handle("target", "Target of the decoder"), z: handle("z", "Encoder output z") };

  function place(map, { z, target, k }) {
    drawn = map;
    for (const [name, [x, y]] of [["z", z], ["target", target]]) {
      handles[name].style.left = `${map.x(x)}px`;
      handles[name].style.top = `${map.y(y)}px`;
      handles[name].setAttribute("aria-valuenow", x.toFixed(2));
      const more = name === "z" ? `, nearest code ${k}` : "";
      handles[name].setAttribute("aria-valuetext", `x ${x.toFixed(2)}, y ${y.toFixed(2)}${more}`);
    }
  }

  // ------------------------------------------------------------------------------ what is pressed

  let event = null; // what the last step has changed
  const takeStep = () => {
    const before = chosen();
    const z = bounded(stepped(before.z, before.code, before.target, before.beta), extent);
    trail = trail.length && same(trail.at(-1), before.z) ? [...trail, z] : [before.z, z];
    change({ z });
    const after = chosen();
    const moved = Math.sqrt(squared(z, before.z)).toFixed(2);
    event = { z, step: clock.shown(), target: before.target, text: after.k === before.k
      ? `z\u2091 moved by ${moved} and stays in its cell: the output and the loss are what they were.`
      : crossing(before.k, after.k, before.loss, after.loss) };
    view.redraw();
  };
  const press = (label, title, act) => {
    const node = element("button", { type: "button", title }, label);
    node.addEventListener("click", act);
    return node;
  };
  const slider = element("input", { type: "range", min: "0", max: "1", step: "0.05", "aria-label": "Weight \u03b2 of the commitment loss" });
  const weight = element("output");
  slider.addEventListener("input", () => change({ beta: Number(slider.value) }));
  const reset = press("Reset", "Bring back z, the target and \u03b2", () => {
    const [z, target, beta] = model.get("start");
    change({ z, target, beta });
  });
  reset.classList.add("vq-reset");
  const row = element(
    "div", { class: "cw-controls vq-controls" },
    press("Step z\u2091", "Move z along the copied gradient and the pull of the commitment loss", takeStep),
    element("label", { class: "vq-beta" }, element("span", {}, "commitment \u03b2"), slider, weight),
    reset
  );
  const showBeta = () => {
    const beta = model.get("beta");
    slider.max = String(Math.max(1, beta));
    slider.value = String(beta);
    slider.style.setProperty("--cw-done", `${(100 * beta) / Number(slider.max)}%`);
    weight.textContent = beta.toFixed(2);
  };

  // ----------------------------------------------------------------------- what is written beside it

  const usage = element("div", { class: "vq-usage" });
  const said = element("p", { class: "vq-said" });
  const key = element("div", { class: "vq-key" });
  for (const [picture, meaning] of KEY) {
    const entry = element("span", {}, meaning);
    entry.insertAdjacentHTML("afterbegin", `<svg viewBox="0 0 22 14" aria-hidden="true">${picture}<\/svg>`);
    key.append(entry);
  }
  view.root.insertBefore(usage, view.controls);
  view.root.append(said, row, key, element("p", { class: "vq-hint" },
    "Drag z\u2091 and the target, or go there with Tab and use the arrow keys (with Shift: finer); " +
    "Enter on z\u2091 is a step. Space plays; \u2190 \u2192 on the bar go through the training."));

  let usageSaid = "";
  function write({ counts, perplexity }, { z, target, k, code, loss }) {
    const dead = counts.filter((n) => !n).length;
    const key = `${size - dead} ${perplexity.toFixed(1)}`;
    if (key !== usageSaid) {
      usageSaid = key;
      usage.replaceChildren(
        element("b", {}, `${size - dead} of ${size}`), " codes in use",
        ...(dead ? [", ", element("span", { class: "vq-dead" }, `${dead} dead`)] : []),
        "; perplexity ", element("b", { class: "vq-perplexity" }, perplexity.toFixed(1))
      );
    }
    const fresh = event && same(event.z, z) && same(event.target, target) && event.step === clock.shown();
    const text = sentence(k, squared(z, code), loss, fresh ? event.text : "Its gradient is handed to z\u2091 as it is.");
    if (said.textContent !== text) said.textContent = text;
  }

  // --------------------------------------------------------------------------------------- the keys

  for (const [name, node] of Object.entries(handles)) {
    const nudge = (right, up) => (pressed) => {
      const unit = (extent[1] - extent[0]) / (pressed.shiftKey ? 800 : 100);
      const [x, y] = model.get(name);
      change({ [name]: bounded([x + unit * right, y + unit * up], extent) });
    };
    onKeys(view, {
      ArrowUp: nudge(0, 1), ArrowDown: nudge(0, -1), ArrowLeft: nudge(-1, 0), ArrowRight: nudge(1, 0),
      ...(name === "z" ? { Enter: takeStep } : {})
    }, node);
  }

  clock = playerBar(view, model);
  if (clock.last() === 0) view.controls.style.display = "none"; // one codebook plays no film
  const refresh = () => {
    showBeta();
    view.redraw();
  };
  for (const name of ["z", "target", "beta"]) {
    model.on(`change:${name}`, refresh);
    view.onStop(() => model.off(`change:${name}`, refresh));
  }
  view.onStop(send);
  showBeta();
  return view.stop;
}

export default { render };
